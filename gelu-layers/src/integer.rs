use gelu_tensor::{
    EncTensor, Error, FixedTensor, Format, IntMatrix, MatmulShape, Shape, SlotLayout, WeightRange, Window,
};

use crate::{Affine, AffineForm};

/// An affine map on integers: the same on fixed-point images in the clear and on encrypted ones.
#[derive(Clone, Debug)]
pub struct IntegerLinear {
    input: Shape,
    output: Shape,
    form: AffineForm,
    matrix: IntMatrix,
    /// Real biases, rounded when the scale of the sums is known. Empty when there is none.
    bias: Vec<f64>,
    bias_bound: f64,
}

/// What is public of an [`IntegerLinear`]: what formats and costs depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearRange {
    /// The integer weights.
    pub weights: WeightRange,
    /// Inputs that one output weighs.
    pub taps: usize,
    /// Power of two that no bias exceeds; `None` without biases.
    pub bias_exponent: Option<i32>,
}

impl IntegerLinear {
    pub(crate) fn new(affine: &Affine, bits: u32) -> Result<Self, Error> {
        WeightRange::signed(bits, 0).check()?;
        let numbers = affine.weight().iter().chain(affine.bias());
        if let Some(index) = numbers.clone().position(|x| !x.is_finite()) {
            return Err(Error::Count { what: "finite weights", expected: numbers.count(), found: index });
        }
        let matrix = match affine.form() {
            AffineForm::Pooling(window) => {
                IntMatrix::mean(window.kernel[0].saturating_mul(window.kernel[1]))?
            }
            AffineForm::Reshape => {
                IntMatrix::new(1, WeightRange { bits: 1, signed: false, scale_bits: 0 }, vec![1])?
            }
            AffineForm::Convolution(_) | AffineForm::Dense => {
                let scale_bits = bits as i32 - 1 - exponent(affine.weight().iter());
                let limit = (1i64 << (bits - 1)) as f64;
                let scale = f64::from(scale_bits).exp2();
                let weights = affine
                    .weight()
                    .iter()
                    .map(|w| (w * scale).round().clamp(-limit, limit - 1.0) as i32)
                    .collect();
                IntMatrix::new(affine.weight().ncols(), WeightRange::signed(bits, scale_bits), weights)?
            }
        };
        let bias_bound = f64::from(exponent(affine.bias().iter())).exp2();
        Ok(Self {
            input: affine.input_shape().clone(),
            output: affine.output_shape().clone(),
            form: affine.form(),
            matrix,
            bias: affine.bias().to_vec(),
            bias_bound,
        })
    }

    /// Shape of one input image.
    pub fn input_shape(&self) -> &Shape {
        &self.input
    }

    /// Shape of one output image.
    pub fn output_shape(&self) -> &Shape {
        &self.output
    }

    /// Its kind.
    pub fn form(&self) -> AffineForm {
        self.form
    }

    /// What is public of its weights.
    pub fn range(&self) -> LinearRange {
        LinearRange {
            weights: self.matrix.range(),
            taps: self.matrix.columns(),
            bias_exponent: (!self.bias.is_empty()).then(|| self.bias_bound.log2() as i32),
        }
    }

    /// How far each output can be off because the weights of `affine`, which this map was made from, were rounded,
    /// for inputs of up to `largest`.
    ///
    /// # Errors
    /// When `affine` is another map.
    pub fn rounding(&self, affine: &Affine, largest: f64) -> Result<Vec<f64>, Error> {
        let unit = f64::from(-self.matrix.range().scale_bits).exp2();
        let mut errors = affine.weight().clone();
        for ((row, tap), error) in errors.indexed_iter_mut() {
            let weight = self.matrix.row(row).get(tap).copied().unwrap_or(0);
            *error -= f64::from(weight) * unit;
        }
        affine.absolute_sums(&errors, &vec![largest; affine.input_shape().elements()])
    }

    /// The output on integers in the clear.
    ///
    /// # Errors
    /// When shapes do not fit or the output could overflow.
    pub fn forward_fixed(&self, x: &FixedTensor) -> Result<FixedTensor, Error> {
        let sums = match self.form {
            AffineForm::Convolution(window) => x.conv2d(&self.matrix, window)?,
            AffineForm::Pooling(window) => x.mean_pool(window)?,
            AffineForm::Dense => x.dense(&self.matrix)?,
            AffineForm::Reshape => x.clone(),
        };
        let sums = match self.bias(sums.shape(), sums.format())? {
            Some(bias) => sums.add(&bias)?,
            None => sums,
        };
        sums.reshape(self.output.clone())
    }

    /// The output on ciphertexts. Neither repacked nor re-randomised.
    ///
    /// The result keeps the shape of an image where slots are window positions, since only that says where a value
    /// lies; [`FixedTensor::reshape`] after decryption gives [`output_shape`](Self::output_shape).
    ///
    /// # Errors
    /// When shapes or the layout do not fit or the output could overflow its slots.
    pub fn forward_encrypted(&self, x: &EncTensor) -> Result<EncTensor, Error> {
        let sums = match self.form {
            AffineForm::Convolution(window) => x.conv2d(&self.matrix, window)?,
            AffineForm::Pooling(window) => x.mean_pool(window)?,
            AffineForm::Dense => x.dense(&self.matrix)?,
            AffineForm::Reshape => x.clone(),
        };
        match self.bias(sums.shape(), sums.format())? {
            Some(bias) => sums.add_plain(&bias),
            None => Ok(sums),
        }
    }

    /// The size of the ciphertext product for images of `shape` in `layout`; `None` for a reshape.
    ///
    /// # Errors
    /// As [`forward_encrypted`](Self::forward_encrypted).
    pub fn cost(
        &self,
        layout: SlotLayout,
        batch: usize,
        shape: &Shape,
    ) -> Result<Option<MatmulShape>, Error> {
        match self.form {
            AffineForm::Convolution(window) => layout.conv2d_cost(batch, shape, &self.matrix, window),
            AffineForm::Pooling(window) => layout.mean_pool_cost(batch, shape, window),
            AffineForm::Dense => layout.dense_cost(batch, shape, &self.matrix),
            AffineForm::Reshape => return Ok(None),
        }
        .map(Some)
    }

    /// The windows' geometry, for a layout by im2col.
    pub fn window(&self) -> Option<Window> {
        match self.form {
            AffineForm::Convolution(window) | AffineForm::Pooling(window) => Some(window),
            AffineForm::Dense | AffineForm::Reshape => None,
        }
    }

    /// The biases at the scale of the sums, spread over `shape`.
    fn bias(&self, shape: &Shape, sums: Format) -> Result<Option<FixedTensor>, Error> {
        if self.bias.is_empty() {
            return Ok(None);
        }
        let format = bias_format(self.range().bias_exponent.unwrap_or(0), sums)?;
        let spread = shape.elements() / self.bias.len();
        let scale = f64::from(sums.scale_bits()).exp2();
        let values = self
            .bias
            .iter()
            .flat_map(|bias| std::iter::repeat_n((bias * scale).round() as i64, spread))
            .collect();
        FixedTensor::new(shape.clone(), format, values).map(Some)
    }
}

impl LinearRange {
    /// The format of the outputs for inputs of `input`.
    ///
    /// # Errors
    /// [`Error::Overflow`] when they do not fit an integer.
    pub fn output_format(self, input: Format) -> Result<Format, Error> {
        self.weights.check()?;
        let sums = input.weighted_sum(self.weights, self.taps)?;
        match self.bias_exponent {
            Some(exponent) => sums.sum(bias_format(exponent, sums)?),
            None => Ok(sums),
        }
    }
}

fn bias_format(exponent: i32, sums: Format) -> Result<Format, Error> {
    let bits = exponent.saturating_add(sums.scale_bits());
    match u32::try_from(bits.max(0)) {
        Ok(bits) if bits < 62 => Format::new(1 << bits, sums.scale_bits()),
        _ => Err(Error::Overflow { needed_bits: bits.unsigned_abs() as usize + 2, available_bits: 62 }),
    }
}

/// The smallest e for which no number exceeds 2^e in absolute value (0 where all are zero).
fn exponent<'a>(numbers: impl Iterator<Item = &'a f64>) -> i32 {
    let largest = numbers.fold(0.0, |largest: f64, x| largest.max(x.abs()));
    // Beyond these, scales leave the range of a format.
    if largest > 0.0 { largest.log2().ceil().clamp(-100.0, 100.0) as i32 } else { 0 }
}
