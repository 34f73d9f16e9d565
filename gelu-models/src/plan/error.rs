//! Why there is no plan.

use super::Preference;

/// Why a model has no plan, or a plan is not followed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// There is nothing for the server to compute.
    #[error("a plan needs at least one linear segment, found none")]
    Empty,
    /// An option outside its range.
    #[error("{what}: expected {expected}, found {found}")]
    Option {
        /// Which option.
        what: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A value of unknown magnitude.
    #[error(
        "values of `{node}`: expected a calibrated magnitude, found none; run `Model::calibrate` on some typical inputs \
         before planning, load weights that have ranges, or set `Quantization::ranges`"
    )]
    NoRange {
        /// The node that makes them.
        node: String,
    },
    /// Bits for a layer that the model does not have.
    #[error("bits for layer `{name}`: the model has no linear layer of that name")]
    UnknownLayer {
        /// The name.
        name: String,
    },
    /// A segment whose numbers do not fit the key or an integer, or that is too large.
    #[error("segment `{name}`")]
    Numbers {
        /// The segment.
        name: String,
        /// What does not fit.
        source: gelu_tensor::Error,
    },
    /// A node that cannot be computed on shares, in a network that is to be hidden from the client.
    #[error(
        "node `{node}`: expected an activation between two segments that is computed on integers (ReLU, ReLU6, clip, leaky \
         ReLU by a power of two, or sigmoid and tanh of few bits), found another node or function; a network with it cannot \
         be hidden from the client"
    )]
    Hidden {
        /// The node.
        node: String,
    },
    /// A description from outside for another batch.
    #[error("plan: expected one for a batch of {expected}, found one for {found}")]
    Batch {
        /// Images that were asked for.
        expected: usize,
        /// Images of the plan.
        found: usize,
    },
    /// A description from outside for a plan that saves something else.
    #[error("plan: expected one that prefers {expected}, found one that prefers {found}")]
    Preference {
        /// What was asked for.
        expected: Preference,
        /// What the plan saves.
        found: Preference,
    },
    /// A description from outside whose numbers are not those of its graph.
    #[error("plan, {what}: expected {expected}, found {found}")]
    Description {
        /// What was counted.
        what: &'static str,
        /// As many as the graph has.
        expected: usize,
        /// As many as there are.
        found: usize,
    },
}
