use gelu_tensor::{Error, Shape};
use ndarray::{Array1, Array2, ArrayView2};

use crate::linear::{check_backward, check_batch};
use crate::{Affine, AffineForm, Gradients, InputGradient, Linear};

/// Reads an image as one feature vector, in storage order. No number changes.
#[derive(Clone, Debug)]
pub struct Flatten {
    input: Shape,
    output: Shape,
}

impl Flatten {
    /// `input`, whatever its dimensions, as `[features]`.
    pub fn new(input: &Shape) -> Self {
        Self { input: input.clone(), output: Shape::from([input.elements()]) }
    }
}

impl Linear for Flatten {
    fn input_shape(&self) -> &Shape {
        &self.input
    }

    fn output_shape(&self) -> &Shape {
        &self.output
    }

    fn affine(&self) -> Affine {
        let shapes = [&self.input, &self.output];
        Affine::new(shapes, AffineForm::Reshape, Array2::zeros((0, 0)), Array1::zeros(0))
    }

    fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        check_batch("elements of an input image", x, &self.input)?;
        Ok(x.to_owned())
    }

    fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        grad_output: ArrayView2<'_, f32>,
        input_gradient: InputGradient,
    ) -> Result<Gradients, Error> {
        check_backward(self, x, grad_output)?;
        let input = (input_gradient == InputGradient::Wanted).then(|| grad_output.to_owned());
        Ok(Gradients { input, parameters: None })
    }
}
