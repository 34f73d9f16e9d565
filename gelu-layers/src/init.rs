use std::fmt;

use rand::{Rng, RngExt};

use crate::Linear;

/// How weights start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initializer {
    /// Weights and biases uniform within one over the square root of the fan-in: PyTorch's default for `Conv2d` and
    /// `Linear` (Kaiming uniform with a slope of the square root of 5).
    #[default]
    KaimingUniform,
    /// Weights uniform within `sqrt(6 / (fan_in + fan_out))`, biases zero (Glorot and Bengio, 2010).
    XavierUniform,
    /// All zeros.
    Zeros,
}

impl Initializer {
    /// Sets the parameters of `layer`, if it has any, with randomness from `rng`.
    pub fn fill<R: Rng + ?Sized>(self, layer: &mut dyn Linear, rng: &mut R) {
        let kernel_area: usize =
            layer.weight_shape().map_or(1, |shape| shape.dims().iter().skip(2).product::<usize>());
        let Some(parameters) = layer.parameters_mut() else { return };
        let (outputs, fan_in) = parameters.weight.dim();
        let uniform = |bound: f64| {
            let bound = bound as f32;
            move |rng: &mut R| rng.random_range(-bound..=bound)
        };
        match self {
            Self::KaimingUniform => {
                let draw = uniform((1.0 / fan_in as f64).sqrt());
                parameters.weight.mapv_inplace(|_| draw(rng));
                parameters.bias.mapv_inplace(|_| draw(rng));
            }
            Self::XavierUniform => {
                let draw = uniform((6.0 / (fan_in + outputs * kernel_area) as f64).sqrt());
                parameters.weight.mapv_inplace(|_| draw(rng));
                parameters.bias.fill(0.0);
            }
            Self::Zeros => {
                parameters.weight.fill(0.0);
                parameters.bias.fill(0.0);
            }
        }
    }
}

impl fmt::Display for Initializer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KaimingUniform => "kaiming-uniform",
            Self::XavierUniform => "xavier-uniform",
            Self::Zeros => "zeros",
        })
    }
}
