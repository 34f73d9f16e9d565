//! Graphs and conversations: the model builder, training in the clear, plans and private sessions without I/O.

mod weights;

pub use weights::{WeightTensor, Weights};
