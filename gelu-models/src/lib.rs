//! Graphs and conversations: the model builder, training in the clear, plans and private sessions without I/O.
//!
//! | to | take |
//! |---|---|
//! | build a network | [`ModelBuilder`], or one of the [`zoo`] |
//! | give it weights and ranges | [`Model::load`], [`Model::calibrate`] |
//! | know what it costs on ciphertexts, and run it on the same integers in the clear | [`Model::compile`], [`plan`] |
//! | run it privately, one side or both | [`infer::Client`], [`infer::Server`] |
//! | train it in the clear, or privately | [`train`], [`train::private`] |
//! | carry messages between the sides | [`peer::Peer`] |
//!
//! ```
//! use gelu_layers::Conv2dConfig;
//! use gelu_models::ModelBuilder;
//!
//! let model = ModelBuilder::new([1, 28, 28])
//!     .conv2d("conv1", Conv2dConfig::new(6, [5, 5]))
//!     .avg_pool2d("pool1", [2, 2])
//!     .relu()
//!     .flatten()
//!     .dense("fc1", 10)
//!     .softmax()
//!     .build()?;
//! assert_eq!(model.output_shape().dims(), [10]);
//! # Ok::<(), gelu_models::GraphError>(())
//! ```

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
pub use info::{Column, ColumnValues, ModelInfo, PixelFormat, Preprocessing};
pub use load::{LoadError, LoadProblem, LoadReport};
pub use model::Model;
pub use normalize::{FoldError, Normalization};
pub use weights::{WeightTensor, Weights};

#[cfg(test)]
mod tests;
