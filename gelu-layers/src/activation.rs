use std::{fmt, str::FromStr};

use ndarray::{Array2, ArrayView2, Zip};
use serde::{Deserialize, Serialize};

/// A nonlinear step. It is computed in the clear, by the owner of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x^2`, the activation of CryptoNets.
    Square,
    /// Sigmoid's Taylor polynomial of order 3 at 0, `1/2 + x/4 - x^3/48` (BGN-Net; IJCAI 2018 paper, section 5.1).
    #[serde(rename = "sigmoid-taylor3")]
    SigmoidTaylor3,
    /// Sigmoid's Taylor polynomial of order 5 at 0, `1/2 + x/4 - x^3/48 + x^5/480`.
    #[serde(rename = "sigmoid-taylor5")]
    SigmoidTaylor5,
    /// `exp(x_i) / sum_j exp(x_j)` over each row.
    Softmax,
}

impl Activation {
    /// Every activation.
    pub const ALL: [Self; 7] = [
        Self::Relu,
        Self::Sigmoid,
        Self::Tanh,
        Self::Square,
        Self::SigmoidTaylor3,
        Self::SigmoidTaylor5,
        Self::Softmax,
    ];

    /// The activation of one number; `None` for softmax, which is no function of one number.
    #[inline]
    pub fn apply(self, x: f64) -> Option<f64> {
        Some(match self {
            // Written so that a NaN stays one.
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Self::Tanh => x.tanh(),
            Self::Square => x * x,
            Self::SigmoidTaylor3 => 0.5 + x * (0.25 - x * x / 48.0),
            Self::SigmoidTaylor5 => 0.5 + x * (0.25 + x * x * (-1.0 / 48.0 + x * x / 480.0)),
            Self::Softmax => return None,
        })
    }

    /// The derivative at one number (0 for ReLU at 0); `None` for softmax.
    #[inline]
    pub fn derivative(self, x: f64) -> Option<f64> {
        Some(match self {
            Self::Relu => f64::from(x > 0.0),
            Self::Sigmoid => {
                let y = 1.0 / (1.0 + (-x).exp());
                y * (1.0 - y)
            }
            Self::Tanh => 1.0 - x.tanh().powi(2),
            Self::Square => 2.0 * x,
            Self::SigmoidTaylor3 => 0.25 - x * x / 16.0,
            Self::SigmoidTaylor5 => 0.25 + x * x * (-1.0 / 16.0 + x * x / 96.0),
            Self::Softmax => return None,
        })
    }

    /// The activations of a batch, `[images, elements]`.
    pub fn forward(self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        match self {
            Self::Relu => x.mapv(|x| if x < 0.0 { 0.0 } else { x }),
            Self::Softmax => softmax(x),
            // Elementwise, so `apply` has a value.
            _ => x.mapv(|x| self.apply(f64::from(x)).unwrap_or(f64::NAN) as f32),
        }
    }

    /// The gradient of the loss with respect to the batch `x` that went into [`forward`](Self::forward), given the
    /// gradient with respect to its output.
    ///
    /// # Errors
    /// [`gelu_tensor::Error::Count`] when the two have not the same rows and columns.
    pub fn backward(
        self,
        x: ArrayView2<'_, f32>,
        grad_output: ArrayView2<'_, f32>,
    ) -> Result<Array2<f32>, gelu_tensor::Error> {
        for (what, expected, found) in [
            ("images in the output gradient", x.nrows(), grad_output.nrows()),
            ("elements of an output gradient", x.ncols(), grad_output.ncols()),
        ] {
            if expected != found {
                return Err(gelu_tensor::Error::Count { what, expected, found });
            }
        }
        Ok(match self {
            Self::Relu => {
                Zip::from(x).and(grad_output).map_collect(|&x, &grad| if x > 0.0 { grad } else { 0.0 })
            }
            Self::Softmax => softmax_backward(softmax(x), grad_output),
            _ => Zip::from(x).and(grad_output).map_collect(|&x, &grad| {
                (self.derivative(f64::from(x)).unwrap_or(f64::NAN) * f64::from(grad)) as f32
            }),
        })
    }
}

/// Shifted by the row's maximum, so that no exponential overflows.
fn softmax(x: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut y = x.to_owned();
    for mut row in y.outer_iter_mut() {
        let largest = row.fold(f32::NEG_INFINITY, |largest, &x| largest.max(x));
        row.mapv_inplace(|x| (x - largest).exp());
        let sum = row.sum();
        row.mapv_inplace(|x| x / sum);
    }
    y
}

fn softmax_backward(mut y: Array2<f32>, grad_output: ArrayView2<'_, f32>) -> Array2<f32> {
    for (mut row, grad) in y.outer_iter_mut().zip(grad_output.outer_iter()) {
        let mean = row.dot(&grad);
        row.zip_mut_with(&grad, |y, &grad| *y *= grad - mean);
    }
    y
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Relu => "relu",
            Self::Sigmoid => "sigmoid",
            Self::Tanh => "tanh",
            Self::Square => "square",
            Self::SigmoidTaylor3 => "sigmoid-taylor3",
            Self::SigmoidTaylor5 => "sigmoid-taylor5",
            Self::Softmax => "softmax",
        })
    }
}

/// A name that is no [`Activation`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown activation `{found}`: expected relu, sigmoid, tanh, square, sigmoid-taylor3, sigmoid-taylor5 or softmax"
)]
pub struct UnknownActivation {
    /// The name that was given.
    pub found: String,
}

impl FromStr for Activation {
    type Err = UnknownActivation;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|activation| activation.to_string() == name);
        known.ok_or_else(|| UnknownActivation { found: name.to_owned() })
    }
}
