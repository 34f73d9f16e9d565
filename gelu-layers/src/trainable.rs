use gelu_tensor::{Error, MapEntry, SparseMap, Window, WindowTap};

/// A linear layer, with the mean pooling after it if there is one, as integer maps: forward, back, and from the
/// layer's weights to those of the maps.
///
/// With pooling every kernel of the map is the sum of shifted copies of the layer's own, so that both are one product;
/// the division by the window's area only moves the scale.
#[derive(Clone, Debug)]
pub struct TrainableMap {
    forward: SparseMap,
    backward: SparseMap,
    /// Which weight of the layer is added to which of the map, where they are not the same.
    copies: Option<Vec<[u32; 2]>>,
    weights: usize,
    /// The one weight of a map that is not trained.
    fixed: Option<u64>,
    scale_bits: u32,
}

impl TrainableMap {
    /// A fully connected layer: weights row by row, a row for each output.
    ///
    /// # Errors
    /// [`Error::Count`] when it is empty or has more than 2^26 weights.
    pub fn dense([inputs, outputs]: [usize; 2]) -> Result<Self, Error> {
        check_products(inputs.saturating_mul(outputs))?;
        let entries = (0..outputs)
            .flat_map(|output| (0..inputs).map(move |input| entry([output, input, output * inputs + input])));
        let forward = SparseMap::new([inputs, outputs, inputs * outputs], entries.collect())?;
        Self::new(forward, None, inputs * outputs)
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
        let weights = kernels.saturating_mul(layer.taps());
        let Some(pool) = pool else {
            let forward = Self::windows_map(input, kernels, window)?;
            return Self::new(forward, None, weights);
        };
        let area = pool.kernel[0].saturating_mul(pool.kernel[1]);
        if !Self::pools(pool) {
            let what = "values under a mean after a convolution, a power of two without padding";
            return Err(Error::Count { what, expected: area.next_power_of_two(), found: area });
        }
        // The mean must have been possible on the convolution's output.
        pool.over([kernels, layer.output()[0], layer.output()[1]])?;
        let kernel: [usize; 2] =
            std::array::from_fn(|axis| window.kernel[axis] + (pool.kernel[axis] - 1) * window.stride[axis]);
        let stride = std::array::from_fn(|axis| window.stride[axis] * pool.stride[axis]);
        let wide = Window { kernel, stride, padding: window.padding };
        let forward = Self::windows_map(input, kernels, wide)?;
        let [kh, kw] = window.kernel;
        let mut copies = vec![];
        for at in 0..weights {
            let (channel, y, x) = (at / (kh * kw), at / kw % kh, at % kw);
            for dy in 0..pool.kernel[0] {
                for dx in 0..pool.kernel[1] {
                    let (y, x) = (y + dy * window.stride[0], x + dx * window.stride[1]);
                    copies.push([((channel * kernel[0] + y) * kernel[1] + x) as u32, at as u32]);
                }
            }
        }
        let map = Self::new(forward, Some(copies), weights)?;
        Ok(Self { scale_bits: area.ilog2(), ..map })
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
        Ok(Self { fixed: Some(fixed), scale_bits, ..Self::new(forward, None, 0)? })
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

    fn new(forward: SparseMap, copies: Option<Vec<[u32; 2]>>, weights: usize) -> Result<Self, Error> {
        let backward = forward.transposed()?;
        Ok(Self { forward, backward, copies, weights, fixed: None, scale_bits: 0 })
    }

    /// From inputs to sums.
    pub fn forward(&self) -> &SparseMap {
        &self.forward
    }

    /// From the sums' errors to the inputs'.
    pub fn backward(&self) -> &SparseMap {
        &self.backward
    }

    /// How many weights the layer has; none where it is not trained.
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// Fractional bits that the division of a mean adds to a product's scale.
    pub fn scale_bits(&self) -> u32 {
        self.scale_bits
    }

    /// Whether it has nothing to train.
    pub fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// The maps' weights for those of the layer, wrapping.
    pub fn expand(&self, weights: &[u64]) -> Vec<u64> {
        match (self.fixed, &self.copies) {
            (Some(fixed), _) => vec![fixed],
            (None, None) => weights.to_vec(),
            (None, Some(copies)) => {
                let mut wide = vec![0u64; self.forward.weights()];
                for &[to, from] in copies {
                    let sum = &mut wide[to as usize];
                    *sum = sum.wrapping_add(weights[from as usize]);
                }
                wide
            }
        }
    }

    /// The gradient for the layer's weights, given that for the maps'.
    pub fn contract(&self, gradient: &[i64]) -> Vec<i64> {
        match (self.fixed, &self.copies) {
            (Some(_), _) => vec![],
            (None, None) => gradient.to_vec(),
            (None, Some(copies)) => {
                let mut own = vec![0i64; self.weights];
                for &[from, to] in copies {
                    let sum = &mut own[to as usize];
                    *sum = sum.wrapping_add(gradient[from as usize]);
                }
                own
            }
        }
    }
}

fn entry([output, input, weight]: [usize; 3]) -> MapEntry {
    MapEntry { output: output as u32, input: input as u32, weight: weight as u32 }
}

/// Before so many entries are made.
fn check_products(found: usize) -> Result<(), Error> {
    const MOST: usize = 1 << 26;
    if found > MOST {
        return Err(Error::Count { what: "products of a linear map, 1 to 2^26", expected: MOST, found });
    }
    Ok(())
}
