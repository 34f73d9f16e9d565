use std::fmt;

use gelu_tensor::{EncTensor, Error, FixedTensor, Shape, Windows};
use ndarray::{Array1, Array2, ArrayView2};

use crate::Affine;

/// Weights and biases of one layer; also their gradients and their momentum.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// `[outputs, taps]`. The taps of a convolution run over input channels, kernel rows, kernel columns.
    pub weight: Array2<f32>,
    /// `[outputs]`.
    pub bias: Array1<f32>,
}

impl Parameters {
    /// Zeros of the same shape.
    pub fn zeros_like(&self) -> Self {
        Self { weight: Array2::zeros(self.weight.dim()), bias: Array1::zeros(self.bias.dim()) }
    }
}

/// Whether [`Linear::backward`] computes the gradient with respect to its input; the first layer needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputGradient {
    /// Compute it.
    Wanted,
    /// Leave it out.
    Skipped,
}

/// What [`Linear::backward`] returns, summed over the images of the batch where it concerns parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// With respect to the input, `[images, input elements]`; `None` when it was [`InputGradient::Skipped`].
    pub input: Option<Array2<f32>>,
    /// With respect to the parameters; `None` for a layer without parameters.
    pub parameters: Option<Parameters>,
}

/// A layer that is an affine map of its input, and hence can be computed on ciphertexts.
///
/// Batches are `[images, elements]`, elements row-major and channel first.
pub trait Linear: Send + Sync + fmt::Debug {
    /// Shape of one input image.
    fn input_shape(&self) -> &Shape;

    /// Shape of one output image.
    fn output_shape(&self) -> &Shape;

    /// The layer's output for a batch: `[images, input elements]` to `[images, output elements]`.
    ///
    /// # Errors
    /// [`Error::Count`] when `x` has another number of columns than the input has elements.
    fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error>;

    /// Gradients of the loss, given the batch `x` that went into [`forward`](Self::forward) and the gradient with
    /// respect to its output.
    ///
    /// # Errors
    /// [`Error::Count`] when the rows or columns of `x` and `grad_output` are not those of one batch of this layer.
    fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        grad_output: ArrayView2<'_, f32>,
        input_gradient: InputGradient,
    ) -> Result<Gradients, Error>;

    /// The layer as one affine map, which can be composed with others and quantised.
    fn affine(&self) -> Affine;

    /// The layer's output on fixed-point integers in the clear, with weights of `weight_bits` bits.
    ///
    /// # Errors
    /// When shapes do not fit or the output could overflow.
    fn forward_fixed(&self, x: &FixedTensor, weight_bits: u32) -> Result<FixedTensor, Error> {
        self.affine().quantise(weight_bits)?.forward_fixed(x)
    }

    /// The layer's output on ciphertexts: the very integers of [`forward_fixed`](Self::forward_fixed), encrypted.
    ///
    /// # Errors
    /// When shapes or the slot layout do not fit or the output could overflow its slots.
    fn forward_encrypted(&self, x: &EncTensor, weight_bits: u32) -> Result<EncTensor, Error> {
        self.affine().quantise(weight_bits)?.forward_encrypted(x)
    }

    /// The trained numbers; `None` for a layer that has none.
    fn parameters(&self) -> Option<&Parameters> {
        None
    }

    /// The trained numbers, to be changed in place.
    fn parameters_mut(&mut self) -> Option<&mut Parameters> {
        None
    }

    /// PyTorch's shape of the weight: `[out, in, kernel height, kernel width]` or `[out, in]`.
    fn weight_shape(&self) -> Option<Shape> {
        None
    }

    /// The window positions of a layer that slides one over its input.
    fn sliding_windows(&self) -> Option<&Windows> {
        None
    }
}

/// Refuses a batch whose rows are not images of `shape`.
pub(crate) fn check_batch(what: &'static str, x: ArrayView2<'_, f32>, shape: &Shape) -> Result<(), Error> {
    check_count(what, shape.elements(), x.ncols())
}

/// Refuses an input and an output gradient that do not belong to one batch of `layer`.
pub(crate) fn check_backward(
    layer: &impl Linear,
    x: ArrayView2<'_, f32>,
    grad_output: ArrayView2<'_, f32>,
) -> Result<(), Error> {
    check_batch("elements of an input image", x, layer.input_shape())?;
    check_batch("elements of an output gradient", grad_output, layer.output_shape())?;
    check_count("images in the output gradient", x.nrows(), grad_output.nrows())
}

/// Zero parameters of `[outputs, taps]`, refused when they would not fit an index of 32 bits.
pub(crate) fn new_parameters([outputs, taps]: [usize; 2]) -> Result<Parameters, Error> {
    if outputs == 0 {
        return Err(Error::Count { what: "outputs of a layer (at least one)", expected: 1, found: 0 });
    }
    check_size("elements of a weight (at most)", [outputs, taps])?;
    Ok(Parameters { weight: Array2::zeros((outputs, taps)), bias: Array1::zeros(outputs) })
}

/// Refuses windows whose tables would be too large. Comes before [`Windows::taps`] and [`Windows::positions`], which
/// take it for granted that their products fit.
pub(crate) fn check_windows(windows: &Windows) -> Result<(), Error> {
    let product = |extents: &[usize]| Shape::from(extents).elements();
    let [channels, ..] = windows.input();
    let taps = channels.saturating_mul(product(&windows.window().kernel));
    check_size("elements of an image (at most)", [product(&windows.input()), 1])?;
    check_size("taps x positions of a window (at most)", [taps, product(&windows.output())])
}

/// Refuses a table of more than 2^28 entries: a slip in a configuration, and more memory than any of our layers needs.
pub(crate) fn check_size(what: &'static str, [rows, columns]: [usize; 2]) -> Result<(), Error> {
    const LARGEST: usize = 1 << 28;
    let found = rows.saturating_mul(columns);
    if found > LARGEST { Err(Error::Count { what, expected: LARGEST, found }) } else { Ok(()) }
}

fn check_count(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Count { what, expected, found }) }
}
