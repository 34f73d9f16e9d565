use gelu_tensor::{EncBatch, Error, MapEntry, RingBits, SparseMap, Window, WindowTap};

/// A linear layer, with the mean pooling after it if there is one, as integer maps: forward, back, and the gradient of
/// its weights.
///
/// The mean of a convolution over shifted windows is the convolution of the means of shifted inputs. So inputs are summed
/// first, which costs a few additions, and every weight is multiplied once for each output of the pooling; the division
/// by the window's area only moves the scale.
#[derive(Clone, Debug)]
pub struct TrainableMap {
    /// Sums of inputs, before the weights, and their transpose.
    shifts: Option<[SparseMap; 2]>,
    forward: SparseMap,
    backward: SparseMap,
    /// The one weight of a map that is not trained.
    fixed: Option<u64>,
    scale_bits: u32,
}

impl TrainableMap {
    /// A fully connected layer: weights row by row, a row for each output.
    ///
    /// # Errors
    /// [`Error::Count`] when it is empty or has more than 2^24 weights.
    pub fn dense([inputs, outputs]: [usize; 2]) -> Result<Self, Error> {
        check_products(inputs.saturating_mul(outputs))?;
        let entries = (0..outputs)
            .flat_map(|output| (0..inputs).map(move |input| entry([output, input, output * inputs + input])));
        Self::new(SparseMap::new([inputs, outputs, inputs * outputs], entries.collect())?)
    }

    /// A convolution of `[channels, height, width]` with `kernels` of the window (weights in PyTorch's order), and a
    /// mean over `pool` after it.
    ///
    /// # Errors
    /// [`Error::Window`] or [`Error::Count`] when the sizes do not fit, the pool is padded, or its area is no power of
    /// two.
    pub fn convolution(
        input: [usize; 3],
        kernels: usize,
        window: Window,
        pool: Option<Window>,
    ) -> Result<Self, Error> {
        let layer = window.over(input)?;
        let Some(pool) = pool else {
            return Self::new(Self::windows_map(input, kernels, window)?);
        };
        let area = pool.kernel[0].saturating_mul(pool.kernel[1]);
        if !Self::pools(pool) {
            let what = "values under a mean after a convolution, a power of two without padding";
            return Err(Error::Count { what, expected: area.next_power_of_two(), found: area });
        }
        let pooled = pool.over([kernels, layer.output()[0], layer.output()[1]])?.output();
        // Sum (y, x) of a channel is of the inputs that one weight meets under one window of the pooling.
        let stride: [usize; 2] = std::array::from_fn(|axis| window.stride[axis] * pool.stride[axis]);
        let extent: [usize; 2] =
            std::array::from_fn(|axis| stride[axis] * (pooled[axis] - 1) + window.kernel[axis]);
        let [channels, height, width] = input;
        check_products(channels.saturating_mul(extent[0]).saturating_mul(extent[1]).saturating_mul(area))?;
        let mut entries = vec![];
        let sums = [channels, extent[0], extent[1]];
        for at in 0..sums.iter().product() {
            let (channel, y, x) = (at / (extent[0] * extent[1]), at / extent[1] % extent[0], at % extent[1]);
            for shift in 0..area {
                let (dy, dx) = (shift / pool.kernel[1], shift % pool.kernel[1]);
                let row = (y + dy * window.stride[0]).checked_sub(window.padding[0]);
                let column = (x + dx * window.stride[1]).checked_sub(window.padding[1]);
                if let (Some(row), Some(column)) = (row, column)
                    && row < height
                    && column < width
                {
                    entries.push(entry([at, (channel * height + row) * width + column, 0]));
                }
            }
        }
        let shifts = SparseMap::new([input.iter().product(), sums.iter().product(), 1], entries)?;
        let back = shifts.transposed()?;
        let inner = Window { kernel: window.kernel, stride, padding: [0, 0] };
        let map = Self::new(Self::windows_map(sums, kernels, inner)?)?;
        Ok(Self { shifts: Some([shifts, back]), scale_bits: area.ilog2(), ..map })
    }

    /// Whether a mean over this window can be joined to a convolution before it.
    pub fn pools(window: Window) -> bool {
        window.padding == [0, 0] && window.kernel[0].saturating_mul(window.kernel[1]).is_power_of_two()
    }

    /// Mean pooling by itself: ones where the window's area is a power of two, else 1/area rounded to 16 bits. It is
    /// not trained.
    ///
    /// # Errors
    /// [`Error::Window`] when the window does not fit; [`Error::Count`] when its area is above 65,536.
    pub fn pooling(input: [usize; 3], window: Window) -> Result<Self, Error> {
        let area = window.kernel[0].saturating_mul(window.kernel[1]);
        if area == 0 || area > 1 << 16 {
            return Err(Error::Count { what: "values under a mean (1 to 65,536)", expected: 1, found: area });
        }
        let [channels, height, width] = input;
        let plane = window.over([1, height, width])?;
        let (elements, positions) = (height * width, plane.positions());
        check_products(channels.saturating_mul(positions).saturating_mul(area))?;
        let mut entries = vec![];
        for output in 0..channels * positions {
            let (channel, position) = (output / positions, output % positions);
            let elements = (0..area)
                .filter_map(|tap| Some(channel * elements + plane.element(WindowTap { position, tap })?));
            entries.extend(elements.map(|input| entry([output, input, 0])));
        }
        let forward = SparseMap::new([channels * elements, channels * positions, 1], entries)?;
        let (fixed, scale_bits) = if area.is_power_of_two() {
            (1, area.ilog2())
        } else {
            (((1usize << 16) + area / 2) as u64 / area as u64, 16)
        };
        Ok(Self { fixed: Some(fixed), scale_bits, ..Self::new(forward)? })
    }

    fn windows_map(input: [usize; 3], kernels: usize, window: Window) -> Result<SparseMap, Error> {
        let windows = window.over(input)?;
        let (taps, positions) = (windows.taps(), windows.positions());
        check_products(kernels.saturating_mul(positions).saturating_mul(taps))?;
        let mut entries = vec![];
        for output in 0..kernels * positions {
            let (kernel, position) = (output / positions, output % positions);
            entries.extend((0..taps).filter_map(|tap| {
                let element = windows.element(WindowTap { position, tap })?;
                Some(entry([output, element, kernel * taps + tap]))
            }));
        }
        let elements = input.iter().product();
        SparseMap::new([elements, kernels * positions, kernels * taps], entries)
    }

    fn new(forward: SparseMap) -> Result<Self, Error> {
        let backward = forward.transposed()?;
        Ok(Self { shifts: None, forward, backward, fixed: None, scale_bits: 0 })
    }

    /// Elements of an input.
    pub fn inputs(&self) -> usize {
        self.shifts.as_ref().map_or(&self.forward, |[shifts, _]| shifts).inputs()
    }

    /// Elements of an output.
    pub fn outputs(&self) -> usize {
        self.forward.outputs()
    }

    /// How many weights the layer has; none where it is not trained.
    pub fn weights(&self) -> usize {
        if self.is_fixed() { 0 } else { self.forward.weights() }
    }

    /// Fractional bits that the division of a mean adds to a product's scale.
    pub fn scale_bits(&self) -> u32 {
        self.scale_bits
    }

    /// Whether it has nothing to train.
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// Products of an input and a weight that one sum has at most, and of an error and a weight that one product of
    /// errors has.
    pub fn most_terms(&self) -> [usize; 2] {
        let [before, after] =
            self.shifts.as_ref().map_or([1, 1], |maps| maps.each_ref().map(SparseMap::most_taps));
        [self.forward.most_taps() * before, self.backward.most_taps() * after]
    }

    /// Products of a weight and an input for one vector.
    pub fn products_of_one(&self) -> usize {
        self.forward.products()
    }

    fn numbers(&self, weights: &[u64]) -> Vec<u64> {
        self.fixed.map_or_else(|| weights.to_vec(), |fixed| vec![fixed])
    }

    fn shifted(&self, inputs: &[i64]) -> Result<Option<Vec<i64>>, Error> {
        let sums = |[shifts, _]: &[SparseMap; 2]| {
            Ok(shifts.forward(&[1], inputs)?.into_iter().map(|sum| sum as i64).collect())
        };
        self.shifts.as_ref().map(sums).transpose()
    }

    /// The weighted sums of whole vectors of inputs, wrapping.
    ///
    /// # Errors
    /// [`Error::Count`] when inputs or weights are not as many as there must be.
    pub fn sums(&self, weights: &[u64], inputs: &[i64]) -> Result<Vec<u64>, Error> {
        let shifted = self.shifted(inputs)?;
        self.forward.forward(&self.numbers(weights), shifted.as_deref().unwrap_or(inputs))
    }

    /// The products of the errors of whole vectors of sums with the weights, wrapping.
    ///
    /// # Errors
    /// As [`sums`](Self::sums).
    pub fn products(&self, weights: &[u64], errors: &[i64]) -> Result<Vec<u64>, Error> {
        let products = self.backward.forward(&self.numbers(weights), errors)?;
        match &self.shifts {
            None => Ok(products),
            Some([_, back]) => {
                back.forward(&[1], &products.iter().map(|&product| product as i64).collect::<Vec<_>>())
            }
        }
    }

    /// The gradient of the weights, times 2^[`scale_bits`](Self::scale_bits): for each the sum over all its products of
    /// input times error. Wrapping.
    ///
    /// # Errors
    /// [`Error::Count`] when inputs and errors are not of the same whole number of vectors.
    pub fn gradient(&self, inputs: &[i64], errors: &[i64]) -> Result<Vec<i64>, Error> {
        if self.is_fixed() {
            return Ok(vec![]);
        }
        let shifted = self.shifted(inputs)?;
        self.forward.gradient(shifted.as_deref().unwrap_or(inputs), errors)
    }

    /// [`sums`](Self::sums) of a batch under encryption, with weights mod 2^l.
    ///
    /// # Errors
    /// As [`EncBatch::map`].
    pub fn sums_encrypted(
        &self,
        inputs: &EncBatch,
        weights: &[u64],
        ring: RingBits,
    ) -> Result<EncBatch, Error> {
        let shifted = self.shifts.as_ref().map(|[shifts, _]| inputs.sums(shifts)).transpose()?;
        shifted.as_ref().unwrap_or(inputs).map(&self.forward, &self.numbers(weights), ring)
    }

    /// [`products`](Self::products) of a batch under encryption, with weights mod 2^l.
    ///
    /// # Errors
    /// As [`EncBatch::map`].
    pub fn products_encrypted(
        &self,
        errors: &EncBatch,
        weights: &[u64],
        ring: RingBits,
    ) -> Result<EncBatch, Error> {
        let products = errors.map(&self.backward, &self.numbers(weights), ring)?;
        match &self.shifts {
            None => Ok(products),
            Some([_, back]) => products.sums(back),
        }
    }

    /// For each sum, and for each product of errors, the sum of the absolute values of its weights, given those of the
    /// weights; saturating.
    pub fn absolute_sums(&self, magnitudes: &[u64]) -> [Vec<u64>; 2] {
        let numbers = self.numbers(magnitudes);
        let (mut sums, mut products) =
            (self.forward.absolute_row_sums(&numbers), self.backward.absolute_row_sums(&numbers));
        if let Some([shifts, back]) = &self.shifts {
            let times = shifts.most_taps() as u64;
            sums.iter_mut().for_each(|sum| *sum = sum.saturating_mul(times));
            products = back.absolute_sums_of(&products);
        }
        [sums, products]
    }
}

fn entry([output, input, weight]: [usize; 3]) -> MapEntry {
    MapEntry { output: output as u32, input: input as u32, weight: weight as u32 }
}

/// Before so many entries are made.
fn check_products(found: usize) -> Result<(), Error> {
    const MOST: usize = 1 << 24;
    if found > MOST {
        return Err(Error::Count { what: "products of a linear map, 1 to 2^24", expected: MOST, found });
    }
    Ok(())
}
