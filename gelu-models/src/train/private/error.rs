//! Why private training cannot start or go on.

use gelu_tensor::Shape;

use super::Position;
use crate::peer::AbortReason;

/// Why private training cannot start or go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateError {
    /// A setting is out of its range.
    #[error("{what}: expected {expected}, found {found}")]
    Setting {
        /// Which one.
        what: &'static str,
        /// Its range.
        expected: String,
        /// Its value.
        found: String,
    },
    /// The model does not end in a softmax, so that cross-entropy is not its loss.
    #[error("expected a model that ends in a softmax, found one that ends with {found}")]
    NoSoftmax {
        /// Shape of its output.
        found: Shape,
    },
    /// A node that cannot be trained on ciphertexts: a batch norm, whose statistics are nobody's to compute, or a function
    /// of the client's own, which has no derivative.
    #[error(
        "node `{name}`: expected one that can be trained privately, found {op}; fold a batch norm into the layer before \
         it, or train in the clear"
    )]
    Untrainable {
        /// Its name.
        name: String,
        /// What it is.
        op: String,
    },
    /// The model has no weights.
    #[error("a model to be trained: expected at least one layer with weights, found none")]
    NoWeights,
    /// The model or its batch is larger than any machine's memory is meant for.
    #[error("a model to be trained: expected at most {expected} {what}, found {found}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The limit.
        expected: usize,
        /// The count.
        found: usize,
    },
    /// The model is not what the plan is of.
    #[error("{rule}; found {found}")]
    Model {
        /// What a model must be.
        rule: &'static str,
        /// What this one is.
        found: String,
    },
    /// A layer's numbers do not fit the key or the ring.
    #[error("layer `{layer}`: {source}")]
    Layer {
        /// Its name.
        layer: String,
        /// What does not fit.
        source: gelu_tensor::Error,
    },
    /// The weights of a layer have grown so large that a sum could leave the ring.
    #[error(
        "layer `{layer}`: its sums may need {needed_bits} bits, but the ring has {available_bits}; use a larger ring \
         (--ring-bits 48), a smaller range of activations, or a lower learning rate"
    )]
    RingFull {
        /// Its name.
        layer: String,
        /// Bits that a sum may need.
        needed_bits: u32,
        /// Bits of the ring.
        available_bits: u32,
    },
    /// A turn would show a client more equations than a layer has unknowns.
    #[error(
        "layer `{layer}`: {iterations} iteration(s) show a client {equations} linear equations for each group of \
         {unknowns} unknown weights, of which fewer may be shown; use a smaller batch, --leakage paper (which counts \
         iterations only) or --leakage off"
    )]
    Leakage {
        /// Its name.
        layer: String,
        /// Iterations that were to be allowed.
        iterations: u32,
        /// Equations in them.
        equations: u64,
        /// Unknowns of the equations.
        unknowns: u64,
    },
    /// Numbers, keys or ciphertexts that do not fit.
    #[error(transparent)]
    Numbers(#[from] gelu_tensor::Error),
    /// A message that the state does not allow.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// What is allowed.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// The peer ended the turn.
    #[error("the peer ended the turn: {0}")]
    Aborted(AbortReason),

    /// A tensor that belongs elsewhere.
    #[error("expected {expected}, found {found}")]
    Place {
        /// Where the next one belongs.
        expected: String,
        /// Where this one does.
        found: Position,
    },
    /// The peer speaks another version of the protocol.
    #[error(
        "version of the protocol: expected {expected}, found {found}; use the same release on both sides"
    )]
    Version {
        /// Ours.
        expected: u16,
        /// The peer's.
        found: u16,
    },
    /// The loss or a gradient is no longer a finite number.
    #[error(
        "training diverged in iteration {iteration} of a turn: a number is not finite; a lower learning rate may help"
    )]
    Diverged {
        /// The iteration, from 1.
        iteration: u32,
    },
    /// A sum of gradients that no honest client can have.
    #[error("sum of steps {index}: expected at most {bound} in absolute value")]
    Gradient {
        /// Which one.
        index: usize,
        /// The bound.
        bound: u64,
    },
    /// A state that is not of this run.
    #[error("state to resume from: {0}")]
    State(&'static str),
    /// All images of the run have been trained on.
    #[error("the run is complete: all its iterations have been done")]
    Complete,
}

impl PrivateError {
    /// Returns what the peer is told: enough to know who is to blame, nothing about our values; `None` where it knows.
    pub fn reason(&self) -> Option<AbortReason> {
        Some(match self {
            Self::Unexpected { .. } | Self::Place { .. } => AbortReason::UnexpectedMessage,
            Self::Version { .. } => AbortReason::Version,
            Self::Numbers(_) => AbortReason::BadTensor,
            Self::Model { .. }
            | Self::Layer { .. }
            | Self::NoSoftmax { .. }
            | Self::Untrainable { .. }
            | Self::NoWeights
            | Self::TooLarge { .. }
            | Self::Setting { .. } => AbortReason::BadPlan,
            Self::Complete | Self::Leakage { .. } => AbortReason::Refused,
            Self::Aborted(_) => return None,
            _ => AbortReason::Failed,
        })
    }
}
