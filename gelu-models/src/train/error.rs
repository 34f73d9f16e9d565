//! Why training in the clear cannot start or go on.

use gelu_tensor::Shape;

use super::StateError;
use crate::plan::PlanError;

/// Why training cannot start or go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A setting is out of its range.
    #[error("{what}: expected {expected}, found {found}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its range.
        expected: &'static str,
        /// Its value.
        found: f64,
    },
    /// The model does not end in a softmax, so that cross-entropy is not its loss.
    #[error("expected a model that ends in a softmax, found one that ends with {found}")]
    NoSoftmax {
        /// Shape of its output.
        found: Shape,
    },
    /// The data set has another number of classes than the model has outputs.
    #[error("classes of the data set: expected {expected}, as the model has outputs, found {found}")]
    Classes {
        /// Outputs of the model.
        expected: usize,
        /// Classes of the data set.
        found: usize,
    },
    /// The data set has no inputs.
    #[error("data set: expected at least one input, found none")]
    Empty,
    /// Augmentation moves pixels, and the inputs are no images.
    #[error("augmentation: expected images of [channels, height, width], found {found}")]
    NoImages {
        /// Shape of the inputs.
        found: Shape,
    },
    /// Bits of a layer's weights out of their range.
    #[error("weight bits of `{layer}`: expected 2 to 24, found {found}")]
    WeightBits {
        /// The layer.
        layer: String,
        /// Its bits.
        found: u32,
    },
    /// The network cannot be cut into what a client and a server compute, so that no value is known to be encrypted.
    #[error("the values that are encrypted")]
    Plan(#[from] PlanError),
    /// Bits for a layer that the model does not have.
    #[error("weight bits of `{name}`: the model has no layer of that name with weights to be rounded")]
    UnknownLayer {
        /// The name.
        name: String,
    },
    /// The loss is no longer a finite number. Polynomial activations tend to this (IJCAI 2018 paper, figure 3).
    #[error(
        "training diverged in epoch {epoch}, batch {batch}: the loss is {loss}; a lower learning rate may help"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: u32,
        /// The batch within it, from 1.
        batch: usize,
        /// The loss.
        loss: f64,
    },
    /// The state to resume from is not of this model.
    #[error(transparent)]
    State(#[from] StateError),
    /// The data set's inputs do not fit the model.
    #[error(transparent)]
    Tensor(#[from] gelu_tensor::Error),
}
