use gelu_tensor::{Error, Shape, Window, Windows};
use ndarray::{Array2, ArrayView2, Axis};

use crate::im2col::Im2col;
use crate::linear::{check_backward, check_batch, check_size, new_parameters};
use crate::{Affine, AffineForm, Gradients, InputGradient, Linear, Parameters};

/// What a [`Conv2d`] is made from: filters and window, without the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// How many filters, that is channels of the output.
    pub out_channels: usize,
    /// Kernel, stride and zero padding, each `[vertical, horizontal]`.
    pub window: Window,
}

impl Conv2dConfig {
    /// `out_channels` filters of `kernel`, stride 1, no padding.
    pub fn new(out_channels: usize, kernel: [usize; 2]) -> Self {
        Self { out_channels, window: Window::new(kernel) }
    }

    /// The same filters with another stride.
    pub fn with_stride(self, stride: [usize; 2]) -> Self {
        Self { window: self.window.with_stride(stride), ..self }
    }

    /// The same filters over an image with zeros added on each side.
    pub fn with_padding(self, padding: [usize; 2]) -> Self {
        Self { window: self.window.with_padding(padding), ..self }
    }
}

/// A two-dimensional convolution with bias (cross-correlation, as in every deep-learning framework).
#[derive(Clone, Debug)]
pub struct Conv2d {
    input: Shape,
    output: Shape,
    windows: Windows,
    im2col: Im2col,
    parameters: Parameters,
}

impl Conv2d {
    /// The convolution over images of `input` (`[channels, height, width]`), with zero weights.
    ///
    /// # Errors
    /// [`Error::Count`] when `input` is not an image, there is no filter, or the layer is too large;
    /// [`Error::Window`] when the window does not fit.
    pub fn new(config: Conv2dConfig, input: &Shape) -> Result<Self, Error> {
        let windows = config.window.over(input.as_image("dimensions of a convolution's input")?)?;
        let im2col = Im2col::new(&windows)?;
        let parameters = new_parameters([config.out_channels, windows.taps()])?;
        check_size("elements of an output image (at most)", [config.out_channels, windows.positions()])?;
        let [rows, columns] = windows.output();
        let output = Shape::from([config.out_channels, rows, columns]);
        Ok(Self { input: input.clone(), output, windows, im2col, parameters })
    }

    /// The window positions over the input; their taps are the columns of the weight.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }
}

impl Linear for Conv2d {
    fn input_shape(&self) -> &Shape {
        &self.input
    }

    fn output_shape(&self) -> &Shape {
        &self.output
    }

    fn affine(&self) -> Affine {
        let Parameters { weight, bias } = &self.parameters;
        let form = AffineForm::Convolution(self.windows.window());
        Affine::new([&self.input, &self.output], form, weight.mapv(f64::from), bias.mapv(f64::from))
    }

    fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        check_batch("elements of an input image", x, &self.input)?;
        let mut product = self.parameters.weight.dot(&self.im2col.gather(x));
        product += &self.parameters.bias.view().insert_axis(Axis(1));
        Ok(self.im2col.images_first(product.view()))
    }

    fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        grad_output: ArrayView2<'_, f32>,
        input_gradient: InputGradient,
    ) -> Result<Gradients, Error> {
        check_backward(self, x, grad_output)?;
        let grad = self.im2col.channels_first(grad_output);
        let columns = self.im2col.gather(x);
        let parameters = Parameters { weight: grad.dot(&columns.t()), bias: grad.sum_axis(Axis(1)) };
        let input = (input_gradient == InputGradient::Wanted)
            .then(|| self.im2col.scatter(self.parameters.weight.t().dot(&grad).view()));
        Ok(Gradients { input, parameters: Some(parameters) })
    }

    fn parameters(&self) -> Option<&Parameters> {
        Some(&self.parameters)
    }

    fn parameters_mut(&mut self) -> Option<&mut Parameters> {
        Some(&mut self.parameters)
    }

    fn weight_shape(&self) -> Option<Shape> {
        let [kernel_height, kernel_width] = self.windows.window().kernel;
        Some(Shape::from([self.output.dims()[0], self.windows.input()[0], kernel_height, kernel_width]))
    }

    fn sliding_windows(&self) -> Option<&Windows> {
        Some(&self.windows)
    }
}
