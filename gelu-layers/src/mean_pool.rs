use gelu_tensor::{Error, Shape, Window, WindowTap, Windows};
use ndarray::{Array1, Array2, ArrayView2};

use crate::linear::{check_backward, check_batch, check_windows};
use crate::{Affine, AffineForm, Gradients, InputGradient, Linear};

/// Mean pooling: every channel of the output holds the means of a window sliding over the same channel of the input.
///
/// Padding counts as zeros and the divisor is always the kernel's area (PyTorch's `count_include_pad`), which keeps
/// the layer linear with one constant weight.
#[derive(Clone, Debug)]
pub struct MeanPool2d {
    input: Shape,
    output: Shape,
    windows: Windows,
    /// For every output element the input elements it averages, `[output elements, kernel area]`; one past the image
    /// stands for padding.
    sources: Array2<u32>,
}

impl MeanPool2d {
    /// Pooling over images of `input` (`[channels, height, width]`). A stride of `window.kernel` gives the usual
    /// windows side by side; rows and columns that do not fill one are left out.
    ///
    /// # Errors
    /// [`Error::Count`] when `input` is not an image or is too large; [`Error::Window`] when the window does not fit.
    pub fn new(window: Window, input: &Shape) -> Result<Self, Error> {
        let [channels, height, width] = input.as_image("dimensions of a pooling layer's input")?;
        let windows = window.over([channels, height, width])?;
        check_windows(&windows)?;
        let area = window.kernel[0] * window.kernel[1];
        let positions = windows.positions();
        let [rows, columns] = windows.output();
        let output = Shape::from([channels, rows, columns]);
        let sources = Array2::from_shape_fn((output.elements(), area), |(element, tap)| {
            let channel = element / positions;
            let at = WindowTap { position: element % positions, tap: channel * area + tap };
            windows.element(at).unwrap_or(input.elements()) as u32
        });
        Ok(Self { input: input.clone(), output, windows, sources })
    }

    /// The window positions over all channels of the input. Output channel `c` averages the taps from
    /// `c * area` up to `(c + 1) * area`, where `area` is the kernel's.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// The constant weight of every tap: one over the kernel's area.
    pub fn weight(&self) -> f64 {
        1.0 / self.sources.ncols() as f64
    }
}

impl Linear for MeanPool2d {
    fn input_shape(&self) -> &Shape {
        &self.input
    }

    fn output_shape(&self) -> &Shape {
        &self.output
    }

    fn affine(&self) -> Affine {
        let weight = Array2::from_elem((1, self.sources.ncols()), self.weight());
        let form = AffineForm::Pooling(self.windows.window());
        Affine::new([&self.input, &self.output], form, weight, Array1::zeros(0))
    }

    fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        check_batch("elements of an input image", x, &self.input)?;
        let weight = self.weight() as f32;
        let mut y = Array2::zeros((x.nrows(), self.output.elements()));
        let mut image = vec![0.0; self.input.elements() + 1];
        for (row, mut target) in x.outer_iter().zip(y.outer_iter_mut()) {
            image.iter_mut().zip(row).for_each(|(to, &from)| *to = from);
            for (mean, sources) in target.iter_mut().zip(self.sources.outer_iter()) {
                *mean = sources.iter().map(|&at| image[at as usize]).sum::<f32>() * weight;
            }
        }
        Ok(y)
    }

    fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        grad_output: ArrayView2<'_, f32>,
        input_gradient: InputGradient,
    ) -> Result<Gradients, Error> {
        check_backward(self, x, grad_output)?;
        if input_gradient == InputGradient::Skipped {
            return Ok(Gradients { input: None, parameters: None });
        }
        let weight = self.weight() as f32;
        let mut input = Array2::zeros(x.dim());
        let mut image = vec![0.0; self.input.elements() + 1];
        for (row, mut target) in grad_output.outer_iter().zip(input.outer_iter_mut()) {
            image.fill(0.0);
            for (&grad, sources) in row.iter().zip(self.sources.outer_iter()) {
                sources.iter().for_each(|&at| image[at as usize] += grad * weight);
            }
            target.iter_mut().zip(&image).for_each(|(to, &from)| *to = from);
        }
        Ok(Gradients { input: Some(input), parameters: None })
    }

    fn sliding_windows(&self) -> Option<&Windows> {
        Some(&self.windows)
    }
}
