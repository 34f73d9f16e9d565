//! Why nodes make no graph.

use gelu_tensor::{Error, Shape};

/// Why nodes make no graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The input is neither `[channels, height, width]` nor `[features]`, or has no elements.
    #[error(
        "model input: expected [channels, height, width] or [features], none of them zero, found {found}"
    )]
    Input {
        /// The shape that was given.
        found: Shape,
    },
    /// The graph has no linear node.
    #[error("the model is empty: expected at least one linear layer, found none")]
    Empty,
    /// A node was given an empty name.
    #[error("node {position}: expected a name, found an empty one")]
    NoName {
        /// Which node, counted from 1.
        position: usize,
    },
    /// Two nodes have one name, or one has the input's.
    #[error("node `{name}`: the name is taken, every node needs its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A node does not fit its inputs.
    #[error("node `{name}` after {}", shapes(.inputs))]
    Node {
        /// The node's name.
        name: String,
        /// The shapes that it would take in.
        inputs: Vec<Shape>,
        /// What does not fit.
        source: Error,
    },
    /// A node that reads its own output, or that of one that comes after it.
    #[error("node `{name}`: expected inputs that come before it, found the output of `{found}`: a cycle")]
    Cycle {
        /// The node's name.
        name: String,
        /// The node whose output it reads.
        found: String,
    },
    /// A node that reads a value that is not there.
    #[error("node `{name}`: expected one of {expected} values, found number {found}, which no node makes")]
    NoValue {
        /// The node's name; `output` for the graph's output.
        name: String,
        /// How many values there are.
        expected: usize,
        /// The value that was asked for.
        found: usize,
    },
    /// A value that nobody reads.
    #[error("value of `{name}`: expected a node that reads it, found none; it is not the output either")]
    Unused {
        /// The node that makes it; `input` for the graph's input.
        name: String,
    },
    /// Something follows a softmax.
    #[error("`{name}` follows a softmax: softmax must be the last node")]
    AfterSoftmax {
        /// The node that follows.
        name: String,
    },
    /// The graph is larger than any machine's memory is meant for.
    #[error("node `{name}`: expected at most {limit} {what} in all nodes up to it, found {found}")]
    TooLarge {
        /// The node at which the limit is passed.
        name: String,
        /// What was counted.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The count.
        found: usize,
    },
}

fn shapes(shapes: &[Shape]) -> String {
    shapes.iter().map(|shape| shape.to_string()).collect::<Vec<_>>().join(" and ")
}
