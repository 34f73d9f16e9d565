use gelu_tensor::{Error, Shape, Window, WindowTap};
use ndarray::{Array1, Array2};

use crate::IntegerLinear;

/// A linear layer, or a chain of them, as one affine map in the clear: what is quantised and sent over ciphertexts.
///
/// Composing the reals first and rounding once keeps a chain (convolution then pooling) to one integer matrix.
#[derive(Clone, Debug)]
pub struct Affine {
    input: Shape,
    output: Shape,
    form: AffineForm,
    /// `[outputs, taps]`; one row for pooling, none for a reshape.
    weight: Array2<f64>,
    /// One per row of the weight; none for pooling and reshape.
    bias: Array1<f64>,
}

/// What kind of matrix an affine map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AffineForm {
    /// One kernel per output channel slides over all input channels.
    Convolution(Window),
    /// One kernel of equal weights slides over each channel.
    Pooling(Window),
    /// Every output weighs every input.
    Dense,
    /// No number changes.
    Reshape,
}

/// Entries of the largest dense matrix that a chain is turned into.
const MAX_DENSE: usize = 1 << 26;

impl Affine {
    pub(crate) fn new(
        [input, output]: [&Shape; 2],
        form: AffineForm,
        weight: Array2<f64>,
        bias: Array1<f64>,
    ) -> Self {
        Self { input: input.clone(), output: output.clone(), form, weight, bias }
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

    /// The map that first does this one, then `next`.
    ///
    /// A convolution and a pooling after it make one convolution; other chains become a dense matrix.
    ///
    /// # Errors
    /// [`Error::Shape`] when `next` does not take this one's output; [`Error::Count`] when the chain would need a
    /// dense matrix of more than 2^26 weights.
    pub fn then(self, next: &Self) -> Result<Self, Error> {
        if self.output.elements() != next.input.elements() {
            let what = "input of the next layer";
            return Err(Error::Shape { what, expected: next.input.clone(), found: self.output });
        }
        match (self.form, next.form) {
            (_, AffineForm::Reshape) => Ok(Self { output: next.output.clone(), ..self }),
            (AffineForm::Reshape, form) => {
                // A window needs the shape as an image, which a reshape of another one would lose.
                let input = if form == AffineForm::Dense { self.input } else { next.input.clone() };
                Ok(Self { input, ..next.clone() })
            }
            (AffineForm::Convolution(first), AffineForm::Pooling(second))
                if second.padding == [0, 0] && self.output == next.input =>
            {
                self.pooled(first, second, next.output.clone())
            }
            _ => {
                let (first, second) = (self.dense_matrix()?, next.dense_matrix()?);
                let bias = second.0.dot(&first.1) + &second.1;
                Ok(Self {
                    input: self.input,
                    output: next.output.clone(),
                    form: AffineForm::Dense,
                    weight: second.0.dot(&first.0),
                    bias,
                })
            }
        }
    }

    /// A convolution followed by means: every kernel is the mean of its own shifted copies.
    fn pooled(self, first: Window, second: Window, output: Shape) -> Result<Self, Error> {
        let [channels, _, _] = self.input.as_image("a convolution's input")?;
        let kernel: [usize; 2] =
            std::array::from_fn(|axis| first.kernel[axis] + (second.kernel[axis] - 1) * first.stride[axis]);
        let stride = std::array::from_fn(|axis| first.stride[axis] * second.stride[axis]);
        let mean = 1.0 / (second.kernel[0] * second.kernel[1]) as f64;
        let mut weight = Array2::zeros((self.weight.nrows(), channels * kernel[0] * kernel[1]));
        for ((row, tap), &value) in self.weight.indexed_iter() {
            let [kh, kw] = first.kernel;
            let (channel, y, x) = (tap / (kh * kw), (tap / kw) % kh, tap % kw);
            for dy in 0..second.kernel[0] {
                for dx in 0..second.kernel[1] {
                    let (y, x) = (y + dy * first.stride[0], x + dx * first.stride[1]);
                    weight[[row, (channel * kernel[0] + y) * kernel[1] + x]] += value * mean;
                }
            }
        }
        let form = AffineForm::Convolution(Window { kernel, stride, padding: first.padding });
        Ok(Self { output, form, weight, ..self })
    }

    /// Matrix and bias over the flattened image.
    fn dense_matrix(&self) -> Result<(Array2<f64>, Array1<f64>), Error> {
        let (inputs, outputs) = (self.input.elements(), self.output.elements());
        if inputs.saturating_mul(outputs) > MAX_DENSE {
            return Err(Error::Count {
                what: "weights of a chain of linear layers as one matrix, at most",
                expected: MAX_DENSE,
                found: inputs.saturating_mul(outputs),
            });
        }
        let mut matrix = Array2::zeros((outputs, inputs));
        let mut bias = Array1::zeros(outputs);
        match self.form {
            AffineForm::Dense => return Ok((self.weight.clone(), self.bias.clone())),
            AffineForm::Reshape => matrix.diag_mut().fill(1.0),
            AffineForm::Convolution(window) => {
                let windows = window.over(self.input.as_image("a convolution's input")?)?;
                for output in 0..outputs {
                    let (row, position) = (output / windows.positions(), output % windows.positions());
                    bias[output] = self.bias[row];
                    for tap in 0..windows.taps() {
                        if let Some(element) = windows.element(WindowTap { position, tap }) {
                            matrix[[output, element]] = self.weight[[row, tap]];
                        }
                    }
                }
            }
            AffineForm::Pooling(window) => {
                let windows = window.over(self.input.as_image("a pooling's input")?)?;
                let area = window.kernel[0] * window.kernel[1];
                for output in 0..outputs {
                    let (channel, position) = (output / windows.positions(), output % windows.positions());
                    for tap in 0..area {
                        let tap = WindowTap { position, tap: channel * area + tap };
                        if let Some(element) = windows.element(tap) {
                            matrix[[output, element]] = 1.0 / area as f64;
                        }
                    }
                }
            }
        }
        Ok((matrix, bias))
    }

    /// The map on integers: weights of `bits` bits with the finest power-of-two scale that holds the largest of them.
    ///
    /// # Errors
    /// [`Error::Count`] when `bits` is out of range or a weight is not finite.
    pub fn quantise(&self, bits: u32) -> Result<IntegerLinear, Error> {
        IntegerLinear::new(self, bits)
    }

    pub(crate) fn weight(&self) -> &Array2<f64> {
        &self.weight
    }

    pub(crate) fn bias(&self) -> &Array1<f64> {
        &self.bias
    }

    /// How far each output of one image can be off when each input is off by up to `errors` (one per element): the
    /// sums of absolute weights times errors.
    ///
    /// # Errors
    /// When the errors are not as many as the input has elements.
    pub fn spread(&self, errors: &[f64]) -> Result<Vec<f64>, Error> {
        self.absolute_sums(&self.weight, errors)
    }

    /// The same for another matrix of this one's shape.
    pub(crate) fn absolute_sums(&self, weight: &Array2<f64>, x: &[f64]) -> Result<Vec<f64>, Error> {
        if x.len() != self.input.elements() {
            let what = "elements of an input image";
            return Err(Error::Count { what, expected: self.input.elements(), found: x.len() });
        }
        let sum = |row: usize, element: &dyn Fn(usize) -> Option<usize>| -> f64 {
            let taps = weight.row(row).into_iter().enumerate();
            taps.filter_map(|(tap, weight)| Some(weight.abs() * x[element(tap)?])).sum()
        };
        Ok(match self.form {
            AffineForm::Reshape => x.to_vec(),
            AffineForm::Dense => (0..weight.nrows()).map(|row| sum(row, &Some)).collect(),
            AffineForm::Convolution(window) => {
                let windows = window.over(self.input.as_image("a convolution's input")?)?;
                (0..weight.nrows() * windows.positions())
                    .map(|output| {
                        let position = output % windows.positions();
                        sum(output / windows.positions(), &|tap| windows.element(WindowTap { position, tap }))
                    })
                    .collect()
            }
            AffineForm::Pooling(window) => {
                let windows = window.over(self.input.as_image("a pooling's input")?)?;
                (0..self.output.elements())
                    .map(|output| {
                        let position = output % windows.positions();
                        let first = output / windows.positions() * weight.ncols();
                        sum(0, &|tap| windows.element(WindowTap { position, tap: first + tap }))
                    })
                    .collect()
            }
        })
    }
}
