//! What is known of the file's values and nodes while they are lowered, and of the layers that they become.

use std::sync::Arc;

use gelu_models::Op;
use gelu_tensor::Shape;

use super::affine::Affine;
use crate::onnx::constant::Constant;

/// Why a node is not imported.
pub(super) enum Stop {
    /// One of its inputs is of a node that was not imported.
    Unknown,
    Because {
        reason: String,
        advice: &'static str,
    },
}

impl<T: ToString> From<T> for Stop {
    fn from(reason: T) -> Self {
        Self::Because { reason: reason.to_string(), advice: "" }
    }
}

pub(super) fn because(reason: impl ToString, advice: &'static str) -> Stop {
    Stop::Because { reason: reason.to_string(), advice }
}

/// What is known of a value of the file.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Constant(Arc<Constant>),
    /// It depends on the input.
    Tensor(Tensor),
    /// It is of a node that was not imported.
    Unknown,
}

/// A value that depends on the input: one of the graph's, and what is yet to be done to it.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    /// Which value of the graph: 0 is the input, and others are of a layer.
    pub(super) id: usize,
    /// Extents in the file, with the batch first. Elements lie in the order of the graph's value.
    pub(super) dims: Vec<usize>,
    /// A factor and a shift for each channel that no layer has taken up yet.
    pub(super) affine: Option<Affine>,
    /// Zeros around the image that no layer has taken up yet, `[[top, bottom], [left, right]]`.
    pub(super) padding: [[usize; 2]; 2],
    /// The node that put them there.
    pub(super) padded_by: usize,
    /// Whether nothing else in the file reads the value.
    pub(super) exclusive: bool,
}

/// A node of the graph to be.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) op: Op,
    pub(super) inputs: Vec<usize>,
    pub(super) shape: Shape,
    pub(super) numbers: Numbers,
    /// How many layers read it.
    pub(super) readers: usize,
}

/// What became of a node of the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// The output does not depend on it.
    Unread,
    /// It computes something that is known.
    Constant,
    /// It changes no number.
    View,
    /// It is yet to become part of a layer.
    Pending,
    Layer(usize),
    PartOf(usize),
}

/// Weights of a layer.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
    /// Mean and variance of a batch norm.
    pub(super) statistics: Option<[Vec<f32>; 2]>,
}

pub(super) fn padding_stays() -> Stop {
    because(
        "what it reads was padded by a node of its own",
        "padding becomes part of a Conv or AveragePool that follows it, or of a MaxPool after a ReLU",
    )
}
