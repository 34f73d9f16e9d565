use std::f64::consts::{FRAC_1_SQRT_2, SQRT_2, TAU};
use std::{fmt, str::FromStr};

use num_traits::Float;
use serde::{Deserialize, Serialize};

use crate::UnknownName;

#[cfg(test)]
mod tests;

/// A function of one number, applied to every element. It is computed in the clear, by the owner of the data.
///
/// ```
/// use gelu_layers::Activation;
///
/// let relu: Activation = "relu".parse()?;
/// assert_eq!((relu.apply(-1.5), relu.derivative(2.0)), (0.0, 1.0));
/// # Ok::<(), gelu_layers::UnknownName>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `min(max(x, min), max)`, PyTorch's `clamp`.
    Clip {
        /// The least value.
        min: f64,
        /// The greatest value.
        max: f64,
    },
    /// `x` for positive `x`, `slope * x` for negative.
    LeakyRelu {
        /// The slope for negative `x`.
        slope: f64,
    },
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x (1 + erf(x / sqrt 2)) / 2`: exact, not the approximation by a hyperbolic tangent.
    Gelu,
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
    /// `relu6(x + 3) / 6`.
    HardSigmoid,
    /// `x relu6(x + 3) / 6`.
    HardSwish,
    /// `x^2`, the activation of CryptoNets.
    Square,
    /// Sigmoid's Taylor polynomial of order 3 at 0, `1/2 + x/4 - x^3/48` (BGN-Net; IJCAI 2018 paper, section 5.1).
    SigmoidTaylor3,
    /// Sigmoid's Taylor polynomial of order 5 at 0, `1/2 + x/4 - x^3/48 + x^5/480`.
    SigmoidTaylor5,
}

/// Where SiLU is steepest: the solution of `x tanh(x / 2) = 2`.
const SILU_STEEPEST: f64 = 2.399_357_280_520_548;

impl Activation {
    /// Every activation; those with parameters are represented by one choice of them.
    pub const ALL: [Self; 13] = [
        Self::Relu,
        Self::Relu6,
        Self::Clip { min: -1.0, max: 1.0 },
        Self::LeakyRelu { slope: 0.01 },
        Self::Sigmoid,
        Self::Tanh,
        Self::Gelu,
        Self::Silu,
        Self::HardSigmoid,
        Self::HardSwish,
        Self::Square,
        Self::SigmoidTaylor3,
        Self::SigmoidTaylor5,
    ];

    /// Returns whether no number has a negative result.
    pub fn is_never_negative(self) -> bool {
        match self {
            Self::Relu | Self::Relu6 | Self::Sigmoid => true,
            Self::Clip { min, .. } => min >= 0.0,
            _ => false,
        }
    }

    /// Returns whether the parameters make sense: all of them finite, and a clip's `min` not above its `max`.
    pub(crate) fn is_valid(self) -> bool {
        match self {
            Self::Clip { min, max } => min.is_finite() && max.is_finite() && min <= max,
            Self::LeakyRelu { slope } => slope.is_finite(),
            _ => true,
        }
    }

    /// Returns the activation of one number. A NaN stays one.
    ///
    /// All but ReLU is computed in double precision and rounded, so that a float of any type has the nearest result.
    #[inline]
    pub fn apply<F: Float>(self, x: F) -> F {
        match self {
            // Written so that a NaN stays one.
            Self::Relu if x < F::zero() => F::zero(),
            Self::Relu => x,
            _ => narrow(self.value(wide(x))),
        }
    }

    /// Returns the derivative at one number.
    ///
    /// Where there is none, it is PyTorch's choice: 0 for ReLU at 0, for ReLU6 at 0 and 6 and for the hard sigmoid at
    /// -3 and 3; 1 for a clip at either bound; the slope for the leaky ReLU at 0. For the hard swish it is 0 at -3 and 1
    /// at 3, on which PyTorch's versions differ (1.13 says -0.5 and 1.5).
    #[inline]
    pub fn derivative<F: Float>(self, x: F) -> F {
        narrow(self.slope(wide(x)))
    }

    #[inline]
    fn value(self, x: f64) -> f64 {
        match self {
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::Relu6 => clip(x, [0.0, 6.0]),
            Self::Clip { min, max } => clip(x, [min, max]),
            Self::LeakyRelu { slope } if x < 0.0 => slope * x,
            Self::LeakyRelu { .. } => x,
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Tanh => x.tanh(),
            // The limit, where the formulas would divide or multiply two infinities, or infinity by zero.
            Self::Gelu | Self::Silu | Self::HardSwish if x == f64::NEG_INFINITY => 0.0,
            // By the complement, which is exact for negative numbers, where 1 + erf cancels.
            Self::Gelu => 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2),
            Self::Silu => x / (1.0 + (-x).exp()),
            Self::HardSigmoid => clip(x + 3.0, [0.0, 6.0]) / 6.0,
            Self::HardSwish => x * (clip(x + 3.0, [0.0, 6.0]) / 6.0),
            Self::Square => x * x,
            Self::SigmoidTaylor3 => 0.5 + x * (0.25 - x * x / 48.0),
            Self::SigmoidTaylor5 => 0.5 + x * (0.25 + x * x * (-1.0 / 48.0 + x * x / 480.0)),
        }
    }

    #[inline]
    fn slope(self, x: f64) -> f64 {
        match self {
            Self::Relu => f64::from(x > 0.0),
            Self::Relu6 => f64::from(x > 0.0 && x < 6.0),
            Self::Clip { min, max } => f64::from(min <= x && x <= max),
            Self::LeakyRelu { .. } if x > 0.0 => 1.0,
            Self::LeakyRelu { slope } => slope,
            Self::Sigmoid => {
                let y = 1.0 / (1.0 + (-x).exp());
                y * (1.0 - y)
            }
            Self::Tanh => 1.0 - x.tanh().powi(2),
            // The limits, where the formulas would multiply infinity by zero.
            Self::Gelu | Self::Silu if x.is_infinite() => f64::from(x > 0.0),
            Self::Gelu => 0.5 * libm::erfc(-x * FRAC_1_SQRT_2) + x * (-0.5 * x * x).exp() / TAU.sqrt(),
            Self::Silu => {
                let y = 1.0 / (1.0 + (-x).exp());
                y * (1.0 + x * (1.0 - y))
            }
            Self::HardSigmoid if x > -3.0 && x < 3.0 => 1.0 / 6.0,
            Self::HardSigmoid => 0.0,
            Self::HardSwish if x <= -3.0 => 0.0,
            Self::HardSwish if x >= 3.0 => 1.0,
            Self::HardSwish => x / 3.0 + 0.5,
            Self::Square => 2.0 * x,
            Self::SigmoidTaylor3 => 0.25 - x * x / 16.0,
            Self::SigmoidTaylor5 => 0.25 + x * x * (-1.0 / 16.0 + x * x / 96.0),
        }
    }

    /// Returns the largest |activation(x)| for |x| up to `largest`, which holds but for the rounding of the last place.
    pub fn range(self, largest: f64) -> f64 {
        let largest = magnitude(largest);
        // The dips of GELU, SiLU and the hard swish are never as deep as their values are high at the same distance.
        let ends = self.value(largest).abs().max(self.value(-largest).abs());
        match self {
            Self::LeakyRelu { slope } => largest * slope.abs().max(1.0),
            // The one activation with a peak inside.
            Self::SigmoidTaylor3 if largest > 2.0 => ends.max(self.value(2.0)),
            _ => ends,
        }
    }

    /// Returns the largest |activation(x)| whatever `x`, or `None` when there is no bound.
    pub fn bound(self) -> Option<f64> {
        match self {
            Self::Relu6 => Some(6.0),
            Self::Clip { min, max } => Some(min.abs().max(max.abs())),
            Self::Sigmoid | Self::Tanh | Self::HardSigmoid => Some(1.0),
            Self::Relu
            | Self::LeakyRelu { .. }
            | Self::Gelu
            | Self::Silu
            | Self::HardSwish
            | Self::Square
            | Self::SigmoidTaylor3
            | Self::SigmoidTaylor5 => None,
        }
    }

    /// Returns the steepest slope for |x| up to `largest`, or a bound on it: the activations of two such numbers differ
    /// by no more than this times the numbers' own difference, but for rounding.
    pub fn steepness(self, largest: f64) -> f64 {
        let largest = magnitude(largest);
        match self {
            Self::Relu | Self::Relu6 | Self::Clip { .. } | Self::Tanh => 1.0,
            Self::LeakyRelu { slope } => slope.abs().max(1.0),
            Self::Sigmoid => 0.25,
            Self::HardSigmoid => 1.0 / 6.0,
            // These grow steeper up to a point, and are never as steep on the negative side.
            Self::Gelu => self.slope(largest.min(SQRT_2)),
            Self::Silu => self.slope(largest.min(SILU_STEEPEST)),
            Self::HardSwish => largest.min(3.0) / 3.0 + 0.5,
            Self::Square => 2.0 * largest,
            // The derivatives are even; between 0 and the end that of order 5 has but a minimum above zero.
            Self::SigmoidTaylor3 | Self::SigmoidTaylor5 => self.slope(largest).abs().max(0.25),
        }
    }
}

/// Returns `x` within `[min, max]`. Unlike `f64::clamp` it cannot panic, whatever a file gave for the two.
fn clip(x: f64, [min, max]: [f64; 2]) -> f64 {
    if x < min {
        min
    } else if x > max {
        max
    } else {
        x
    }
}

/// Returns the magnitude of a bound; nothing is known of a NaN, so it is infinite.
pub(crate) fn magnitude(bound: f64) -> f64 {
    if bound.is_nan() { f64::INFINITY } else { bound.abs() }
}

/// Returns a number in double precision.
pub(crate) fn wide<F: Float>(x: F) -> f64 {
    x.to_f64().unwrap_or(f64::NAN)
}

/// Returns the number of the type that is nearest to `x`.
pub(crate) fn narrow<F: Float>(x: f64) -> F {
    F::from(x).unwrap_or_else(F::nan)
}

/// Prints `relu`; with parameters, `clip:-1:1` or `leaky-relu:0.01`.
impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Relu => "relu",
            Self::Relu6 => "relu6",
            Self::Clip { min, max } => return f.pad(&format!("clip:{min}:{max}")),
            Self::LeakyRelu { slope } => return f.pad(&format!("leaky-relu:{slope}")),
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::HardSigmoid => "hard-sigmoid",
            Self::HardSwish => "hard-swish",
            Self::Square => "square",
            Self::SigmoidTaylor3 => "sigmoid-taylor3",
            Self::SigmoidTaylor5 => "sigmoid-taylor5",
        })
    }
}

const NAMES: &str = "relu, relu6, clip:MIN:MAX, leaky-relu:SLOPE, sigmoid, tanh, gelu, silu, hard-sigmoid, hard-swish, square, \
                     sigmoid-taylor3 or sigmoid-taylor5";

/// Reads what [`Display`](fmt::Display) prints.
impl FromStr for Activation {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse::<f64>().ok();
        let known = match name.split_once(':') {
            None => Self::ALL.into_iter().find(|activation| activation.to_string() == name),
            Some(("clip", bounds)) => bounds
                .split_once(':')
                .and_then(|(min, max)| Some(Self::Clip { min: number(min)?, max: number(max)? })),
            Some(("leaky-relu", slope)) => number(slope).map(|slope| Self::LeakyRelu { slope }),
            Some(_) => None,
        };
        known.filter(|activation| activation.is_valid()).ok_or_else(|| UnknownName {
            what: "activation",
            expected: NAMES,
            found: name.to_owned(),
        })
    }
}
