#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod activation;
mod affine;
mod avg_pool;
mod batch_norm;
mod client_op;
mod config;
mod gemm;
mod init;
mod integer_step;
mod layer;
mod loss;
mod slice;
mod unknown;

pub use activation::Activation;
pub use affine::{Affine, exponent, finest_scale, rounded};
pub use avg_pool::{AvgPool2dConfig, mean_weights};
pub use batch_norm::BatchStatistics;
pub use client_op::{ClientOp, argmax, softmax};
pub use config::{BatchNorm2dConfig, Conv2dConfig, DenseConfig, LinearConfig};
pub use init::Initializer;
pub use integer_step::{IntegerStep, StepWires};
pub use layer::{Gradients, InputGradient, LinearLayer, Mode, Parameters, RunningStatistics};
pub use loss::CrossEntropy;
pub use slice::{AxisSlice, SliceConfig};
pub use unknown::UnknownName;

#[cfg(test)]
mod tests;
