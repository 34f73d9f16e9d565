use std::collections::BTreeMap;

use gelu_tensor::arith::Backend;
use gelu_tensor::paillier::{KeyBits, KeyType};

use crate::Ranges;

/// What a plan is made for.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// Size of the client's key. Default: 3072 bits.
    pub key: KeyBits,
    /// Its type, which the cost of operations depends on. Default: [`KeyType::Djn`].
    pub key_type: KeyType,
    /// Images that go through together. Default: 1.
    pub batch: usize,
    /// Residues that the server works on at a time, 1 to 64: empty lanes of a vector cost as much as full ones. Default:
    /// those of the [preferred backend](Backend::preferred).
    pub lanes: usize,
    /// Bits of an integer weight, its sign included, 2 to 24. Default: 9.
    pub weight_bits: u32,
    /// Other bits for some segments, by the name of one of their layers.
    pub layer_bits: BTreeMap<String, u32>,
    /// Bits of an activation, 2 to 24. Default: 10.
    pub activation_bits: u32,
    /// Bits of an input element, 2 to 24. Default: 8; a pixel p / 255 is rounded to the
    /// nearest of 256 steps.
    pub input_bits: u32,
    /// Calibrated magnitudes of inputs and activations; `None` takes the worst case, which costs precision.
    pub ranges: Option<Ranges>,
    /// Factor on the calibrated magnitudes, for data that goes beyond what calibration saw. Default: 1.25.
    pub range_margin: f64,
}

impl PlanOptions {
    /// The key of a weight file's metadata that holds [`layer_bits`](Self::layer_bits) tuned for it, as a JSON object.
    pub const LAYER_BITS_KEY: &str = "gelu.layer_bits";
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            key: KeyBits::Bits3072,
            key_type: KeyType::default(),
            batch: 1,
            lanes: Backend::preferred().lanes(),
            weight_bits: 9,
            layer_bits: BTreeMap::new(),
            activation_bits: 10,
            input_bits: 8,
            ranges: None,
            range_margin: 1.25,
        }
    }
}

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
    /// Calibrated ranges of another model.
    #[error("calibrated ranges: expected {expected} activations, found {found}; calibrate this model again")]
    Ranges {
        /// Activations of the model but the final softmax.
        expected: usize,
        /// Ranges that were given.
        found: usize,
    },
    /// Bits for a layer that the model does not have.
    #[error("bits for layer `{name}`: the model has no linear layer of that name")]
    UnknownLayer {
        /// The name.
        name: String,
    },
    /// A softmax that is not the last node.
    #[error("a softmax must be the last node of a model, found one before the end")]
    Softmax,
    /// A segment whose numbers do not fit the key or an integer.
    #[error("segment `{name}`: {source}")]
    Numbers {
        /// The segment.
        name: String,
        /// What does not fit.
        source: gelu_tensor::Error,
    },
    /// A plan from outside for another key.
    #[error("plan: expected one for a key of {expected} bits, found one for {found} bits")]
    Key {
        /// The client's key.
        expected: usize,
        /// The plan's.
        found: usize,
    },
    /// A plan from outside for another batch.
    #[error("plan: expected one for a batch of {expected}, found one for {found}")]
    Batch {
        /// Images that were asked for.
        expected: usize,
        /// Images of the plan.
        found: usize,
    },
    /// A segment of a plan from outside that breaks a rule.
    #[error("plan, segment `{name}`: {rule}")]
    Segment {
        /// The segment.
        name: String,
        /// The rule.
        rule: &'static str,
    },
}
