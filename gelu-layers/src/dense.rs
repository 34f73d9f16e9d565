use gelu_tensor::{Error, Shape};
use ndarray::{Array2, ArrayView2, Axis};

use crate::linear::{check_backward, check_batch, new_parameters};
use crate::{Affine, AffineForm, Gradients, InputGradient, Linear, Parameters};

/// A fully connected layer: `y = W x + b`.
#[derive(Clone, Debug)]
pub struct Dense {
    input: Shape,
    output: Shape,
    parameters: Parameters,
}

impl Dense {
    /// A layer of `out_features` over feature vectors of `input` (`[features]`), with zero weights.
    ///
    /// # Errors
    /// [`Error::Count`] when `input` is not a vector (put a [`Flatten`](crate::Flatten) before), `out_features` is
    /// zero, or the layer is too large.
    pub fn new(out_features: usize, input: &Shape) -> Result<Self, Error> {
        let &[in_features] = input.dims() else {
            return Err(Error::Count {
                what: "dimensions of a dense layer's input (flatten it first)",
                expected: 1,
                found: input.dims().len(),
            });
        };
        let parameters = new_parameters([out_features, in_features])?;
        Ok(Self { input: input.clone(), output: Shape::from([out_features]), parameters })
    }

    /// Length of an input vector.
    pub fn in_features(&self) -> usize {
        self.parameters.weight.ncols()
    }

    /// Length of an output vector.
    pub fn out_features(&self) -> usize {
        self.parameters.weight.nrows()
    }
}

impl Linear for Dense {
    fn input_shape(&self) -> &Shape {
        &self.input
    }

    fn output_shape(&self) -> &Shape {
        &self.output
    }

    fn affine(&self) -> Affine {
        let Parameters { weight, bias } = &self.parameters;
        let shapes = [&self.input, &self.output];
        Affine::new(shapes, AffineForm::Dense, weight.mapv(f64::from), bias.mapv(f64::from))
    }

    fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        check_batch("features of an input", x, &self.input)?;
        Ok(x.dot(&self.parameters.weight.t()) + &self.parameters.bias)
    }

    fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        grad_output: ArrayView2<'_, f32>,
        input_gradient: InputGradient,
    ) -> Result<Gradients, Error> {
        check_backward(self, x, grad_output)?;
        let parameters = Parameters { weight: grad_output.t().dot(&x), bias: grad_output.sum_axis(Axis(0)) };
        let input =
            (input_gradient == InputGradient::Wanted).then(|| grad_output.dot(&self.parameters.weight));
        Ok(Gradients { input, parameters: Some(parameters) })
    }

    fn parameters(&self) -> Option<&Parameters> {
        Some(&self.parameters)
    }

    fn parameters_mut(&mut self) -> Option<&mut Parameters> {
        Some(&mut self.parameters)
    }

    fn weight_shape(&self) -> Option<Shape> {
        Some(Shape::from([self.out_features(), self.in_features()]))
    }
}
