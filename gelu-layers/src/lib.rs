//! What one node of a network does: linear layers with their backward pass, the client's nonlinear steps, the loss and
//! initial values.
//!
//! A batch is a matrix: one row per image, one column per element of its [`Shape`](gelu_tensor::Shape) (row-major,
//! channel first, as in PyTorch). A [`LinearLayer`] is a [`LinearMap`](gelu_tensor::LinearMap) with its parameters; a
//! [`ClientOp`] is none, so a nonlinear step can never be placed where only linear algebra on ciphertexts is possible.
//!
//! | to | take |
//! |---|---|
//! | describe a linear layer | [`LinearConfig`], [`Conv2dConfig`], [`DenseConfig`], [`BatchNorm2dConfig`] |
//! | run it and train it in floats | [`LinearLayer`] |
//! | compose layers and round them to integers | [`Affine`] |
//! | compute what lies between linear layers | [`ClientOp`], [`Activation`] |
//! | measure how wrong a network is | [`cross_entropy`] |

#![forbid(unsafe_code)]

mod activation;
mod affine;
mod batch_norm;
mod client_op;
mod config;
mod gemm;
mod init;
mod layer;
mod loss;

pub use activation::{Activation, UnknownActivation};
pub use affine::{Affine, exponent};
pub use batch_norm::BatchStatistics;
pub use client_op::{ClientOp, argmax, softmax};
pub use config::{BatchNorm2dConfig, Conv2dConfig, DenseConfig, LinearConfig};
pub use init::Initializer;
pub use layer::{Gradients, InputGradient, LinearLayer, Mode, Parameters, RunningStatistics};
pub use loss::{CrossEntropy, cross_entropy};

#[cfg(test)]
mod tests;
