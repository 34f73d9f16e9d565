//! How weights start.

use std::fmt;
use std::str::FromStr;

use rand::{Rng, RngExt};

use crate::{LinearConfig, LinearLayer, UnknownName};

/// How weights start. A batch norm always starts as one that changes nothing. Read from and printed as `kaiming-uniform`,
/// `he-uniform`, `xavier-uniform` and `zeros`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Initializer {
    /// Weights and biases uniform within one over the square root of the fan-in: PyTorch's default for `Conv2d` and
    /// `Linear` (Kaiming uniform with a slope of the square root of 5).
    #[default]
    KaimingUniform,
    /// Weights uniform within `sqrt(6 / fan_in)`, biases zero (He, Zhang, Ren and Sun, 2015): ReLU then keeps the size of
    /// values from layer to layer, which deep networks without batch norm need.
    HeUniform,
    /// Weights uniform within `sqrt(6 / (fan_in + fan_out))`, biases zero (Glorot and Bengio, 2010).
    XavierUniform,
    /// All zeros.
    Zeros,
}

impl Initializer {
    /// Sets the parameters of `layer`, if it has any, with randomness from `rng`.
    pub fn fill<R: Rng + ?Sized>(self, layer: &mut LinearLayer, rng: &mut R) {
        if let LinearConfig::BatchNorm2d(_) = layer.config() {
            let parameters = layer.parameters_mut();
            parameters.weight.fill(1.0);
            parameters.bias.fill(0.0);
            if let Some(statistics) = layer.statistics_mut() {
                statistics.mean.fill(0.0);
                statistics.variance.fill(1.0);
            }
            return;
        }
        let Some(shape) = layer.weight_shape() else { return };
        let (outputs, fan_in) = (shape.dims()[0], shape.dims()[1..].iter().product::<usize>());
        let kernel_area: usize = shape.dims().iter().skip(2).product();
        let parameters = layer.parameters_mut();
        let uniform = |bound: f64| {
            let bound = bound as f32;
            move |rng: &mut R| rng.random_range(-bound..=bound)
        };
        match self {
            Self::KaimingUniform => {
                let draw = uniform((1.0 / fan_in as f64).sqrt());
                parameters.weight.iter_mut().for_each(|weight| *weight = draw(rng));
                parameters.bias.iter_mut().for_each(|bias| *bias = draw(rng));
            }
            Self::HeUniform => {
                let draw = uniform((6.0 / fan_in as f64).sqrt());
                parameters.weight.iter_mut().for_each(|weight| *weight = draw(rng));
                parameters.bias.fill(0.0);
            }
            Self::XavierUniform => {
                let draw = uniform((6.0 / (fan_in + outputs * kernel_area) as f64).sqrt());
                parameters.weight.iter_mut().for_each(|weight| *weight = draw(rng));
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
            Self::HeUniform => "he-uniform",
            Self::XavierUniform => "xavier-uniform",
            Self::Zeros => "zeros",
        })
    }
}

impl FromStr for Initializer {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        [Self::KaimingUniform, Self::HeUniform, Self::XavierUniform, Self::Zeros]
            .into_iter()
            .find(|initializer| initializer.to_string() == text)
            .ok_or_else(|| UnknownName {
                what: "initializer",
                expected: "kaiming-uniform, he-uniform, xavier-uniform or zeros",
                found: text.to_owned(),
            })
    }
}
