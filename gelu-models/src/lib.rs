#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adapt;
mod builder;
mod calibrate;
mod graph;
pub mod infer;
mod info;
mod inputs;
mod load;
mod model;
mod normalize;
pub mod peer;
pub mod plan;
pub mod train;
mod weights;
pub mod zoo;

pub use adapt::{AdaptError, Adaptation};
pub use builder::ModelBuilder;
pub use calibrate::Ranges;
pub use graph::{Graph, GraphError, Node, Op, ValueId};
pub use info::{Column, ColumnValues, Interface, ModelInfo, PixelFormat, Preprocessing};
pub use load::{LoadError, LoadProblem, LoadReport};
pub use model::Model;
pub use normalize::{FoldError, Normalization};
pub use weights::{WeightTensor, Weights};

#[cfg(test)]
mod tests;
