//! Why private training cannot start or go on.

use gelu_tensor::Shape;
use gelu_tensor::paillier::KeyBits;

use crate::peer::{AbortReason, Blame, Expected, Misuse, PeerError};

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
    /// A layer's numbers do not fit the key.
    #[error("layer `{layer}`")]
    Layer {
        /// Its name.
        layer: String,
        /// What does not fit.
        source: gelu_tensor::Error,
    },
    /// The weights of a layer have grown so large that a sum could have too many bits.
    #[error(
        "layer `{layer}`: its sums may need {needed_bits} bits, but have {available_bits}; use more bits for sums, a \
         smaller range of activations, or a lower learning rate"
    )]
    LargeSums {
        /// Its name.
        layer: String,
        /// Bits that a sum may need.
        needed_bits: u32,
        /// Bits that it has.
        available_bits: u32,
    },
    /// A turn would show a client more equations than a layer has unknowns.
    #[error(
        "layer `{layer}`: {iterations} iteration(s) show a client {equations} linear equations for each group of \
         {unknowns} unknown weights, of which fewer may be shown; use a smaller batch, or a leakage policy that counts \
         iterations only"
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
    #[error("unexpected message: expected {expected}, received {found}")]
    Unexpected {
        /// What the state allows.
        expected: Expected,
        /// What arrived.
        found: String,
    },
    /// The caller asked for something that the state does not allow.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The peer ended the turn.
    #[error("the peer ended the turn: {0}")]
    Aborted(AbortReason),
    /// A key of another size than the plan is for.
    #[error("key: expected {} bits as the plan says, found {}", .expected.bits(), .found.bits())]
    KeySize {
        /// The plan's.
        expected: KeyBits,
        /// The key's.
        found: KeyBits,
    },
    /// A turn was granted that cannot be taken: one without iterations, without room for each segment, at a rate beyond the
    /// weights' grid, for another plan than before, or another turn than the client was in.
    #[error("the grant of a turn: {0}")]
    Grant(&'static str),
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
    /// Parameters of another number than the plan's, or too large for it.
    #[error("parameters: expected {expected}, each of at most {largest} in absolute value, found {found}")]
    Parameters {
        /// As many as the plan has.
        expected: usize,
        /// The largest absolute value.
        largest: u64,
        /// As many as were given that are no larger.
        found: usize,
    },
    /// A state that is not of this run.
    #[error("state to resume from: {0}")]
    Resume(ResumeFault),
    /// Something that cannot be, whatever caller and peer do.
    #[error("a defect of this library, please report it: {0}")]
    Bug(&'static str),
    /// All images of the run have been trained on.
    #[error("the run is complete: all its iterations have been done")]
    Complete,
}

/// What of a kept state is not of the run that is to be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeFault {
    /// The client's sums of steps, or its momentum.
    #[error("its steps are not those of the plan")]
    Steps,
    /// The turn that was in progress.
    #[error("its turn is not the next of the run")]
    Turn,
    /// The number of clients.
    #[error("it has another number of clients")]
    Clients,
    /// A counter.
    #[error("its counters are none that a run of these settings can come to")]
    Counters,
}

impl PrivateError {
    pub(super) fn no_clients() -> Self {
        Self::Setting { what: "clients", expected: "at least 1".to_owned(), found: "0".to_owned() }
    }
}

impl PeerError for PrivateError {
    fn blame(&self) -> Blame {
        match self {
            Self::Unexpected { .. }
            | Self::Aborted(_)
            | Self::Version { .. }
            | Self::KeySize { .. }
            | Self::Grant(_)
            | Self::Gradient { .. }
            | Self::Numbers(_) => Blame::Peer,
            Self::Resume(_) => Blame::File,
            Self::Bug(_) => Blame::Bug,
            _ => Blame::Caller,
        }
    }

    fn reason(&self) -> Option<AbortReason> {
        Some(match self {
            Self::Unexpected { .. } => AbortReason::UnexpectedMessage,
            Self::Version { .. } => AbortReason::Version,
            Self::Numbers(_) | Self::Gradient { .. } => AbortReason::BadTensor,
            Self::Model { .. }
            | Self::Layer { .. }
            | Self::NoSoftmax { .. }
            | Self::Untrainable { .. }
            | Self::NoWeights
            | Self::TooLarge { .. }
            | Self::KeySize { .. }
            | Self::Grant(_)
            | Self::Setting { .. } => AbortReason::BadPlan,
            Self::Complete | Self::Leakage { .. } => AbortReason::Refused,
            Self::Aborted(_) => return None,
            _ => AbortReason::Failed,
        })
    }
}
