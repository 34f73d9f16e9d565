//! What one node of a network does: linear layers with their backward pass, activations, the loss and initial values.
//!
//! A batch is a matrix: one row per image, one column per element of its [`Shape`](gelu_tensor::Shape) (row-major,
//! channel first, as in PyTorch). Linear layers implement [`Linear`]; activations are [`Activation`] and do not, so
//! a nonlinear step can never be placed where only linear algebra on ciphertexts is possible.

#![forbid(unsafe_code)]

mod activation;
mod affine;
mod conv2d;
mod dense;
mod flatten;
mod im2col;
mod init;
mod integer;
mod linear;
mod loss;
mod mean_pool;
mod trainable;

pub use activation::{Activation, UnknownActivation};
pub use affine::{Affine, AffineForm};
pub use conv2d::{Conv2d, Conv2dConfig};
pub use dense::Dense;
pub use flatten::Flatten;
pub use init::Initializer;
pub use integer::{IntegerLinear, LinearRange};
pub use linear::{Gradients, InputGradient, Linear, Parameters};
pub use loss::{CrossEntropy, cross_entropy};
pub use mean_pool::MeanPool2d;
pub use trainable::TrainableMap;

#[cfg(test)]
mod tests;
