use super::{MessageKind, Position};

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
    /// The model cannot be trained privately.
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
    #[error("expected {expected}, found {found:?}")]
    Unexpected {
        /// What is allowed.
        expected: &'static str,
        /// What came.
        found: MessageKind,
    },
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
