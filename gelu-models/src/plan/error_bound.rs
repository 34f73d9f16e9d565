//! How far the integers' logits can be from the reals'.

use gelu_layers::Activation;
use gelu_tensor::{Error, Format};

use super::{Program, magnitude};

impl Program {
    /// How far a logit can be from the real network's, as long as no activation leaves its declared range: every
    /// rounding of inputs, weights, biases and activations at its worst, element by element, all in the same
    /// direction. In practice they cancel almost entirely.
    ///
    /// It depends on the weights and is not part of the plan.
    ///
    /// # Errors
    /// None in practice: the shapes were checked when the program was made.
    pub fn error_bound(&self) -> Result<f64, Error> {
        let plan = self.plan();
        let first = plan.segments.first().map_or(0.0, |segment| half_step(segment.input_format));
        let mut errors = vec![first; plan.input.elements()];
        for (index, segment) in plan.segments.iter().enumerate() {
            let (affine, layer) = (&self.affines()[index], &self.layers()[index]);
            let largest = segment.input_format.real(segment.input_format.bound() as i64);
            let spread = affine.spread(&errors)?;
            let rounding = layer.rounding(affine, largest)?;
            errors =
                spread.iter().zip(&rounding).map(|(a, b)| a + b + half_step(segment.output_format)).collect();
            let mut sums = segment.output_format.real(segment.output_format.bound() as i64);
            for &activation in &segment.activations {
                let steepness = steepness(activation, sums);
                errors.iter_mut().for_each(|error| *error *= steepness);
                sums = magnitude(activation, sums);
            }
            if let Some(next) = plan.segments.get(index + 1) {
                errors.iter_mut().for_each(|error| *error += half_step(next.input_format));
            }
        }
        Ok(errors.into_iter().fold(0.0, f64::max))
    }
}

/// The largest error of rounding to a format.
fn half_step(format: Format) -> f64 {
    0.5 * format.real(1)
}

/// The largest slope of an activation for |x| up to `largest`; the logits are what counts before a softmax.
fn steepness(activation: Activation, largest: f64) -> f64 {
    match activation {
        Activation::Relu | Activation::Tanh | Activation::Softmax => 1.0,
        Activation::Sigmoid => 0.25,
        _ => [largest, -largest, 0.0]
            .iter()
            .filter_map(|&x| activation.derivative(x))
            .fold(0.25, |steepest: f64, slope| steepest.max(slope.abs())),
    }
}
