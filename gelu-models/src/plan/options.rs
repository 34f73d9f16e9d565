//! What a plan is made for.

use std::collections::BTreeMap;

use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyType};

use super::PlanError;
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
    /// those of the machine's [fastest backend](Backend::detect).
    pub lanes: usize,
    /// Bits of an integer weight, its sign included, 2 to 24. Default: 9.
    pub weight_bits: u32,
    /// Other bits for some segments, by the name of one of their layers; `None` takes those that the model was tuned to
    /// ([`Model::layer_bits`](crate::Model::layer_bits)). Default: `None`.
    pub layer_bits: Option<BTreeMap<String, u32>>,
    /// Bits of an activation, 2 to 24. Default: 10.
    pub activation_bits: u32,
    /// Bits of an input element, 2 to 24. Default: 8; a pixel p / 255 is rounded to the
    /// nearest of 256 steps.
    pub input_bits: u32,
    /// Magnitudes of inputs and values; `None` takes those that the model was calibrated to
    /// ([`Model::ranges`](crate::Model::ranges)). Inputs without a range are taken to lie between -1 and 1. Default:
    /// `None`.
    pub ranges: Option<Ranges>,
    /// Factor on the calibrated magnitudes, for data that goes beyond what calibration saw. Default: 1.25.
    pub range_margin: f64,
}

impl PlanOptions {
    /// The key of a weight file's metadata that holds [`layer_bits`](Self::layer_bits) tuned for it, as a JSON object.
    pub const LAYER_BITS_KEY: &str = "gelu.layer_bits";
}

impl PlanOptions {
    /// Checks the ranges of all options.
    pub(super) fn check(&self) -> Result<(), PlanError> {
        let layers = self.layer_bits.iter().flat_map(BTreeMap::values).copied();
        let bits = [("activation bits", self.activation_bits), ("input bits", self.input_bits)];
        let weights = layers.chain([self.weight_bits]).map(|bits| ("weight bits", bits));
        let option = |what, expected, found: String| Err(PlanError::Option { what, expected, found });
        for (what, bits) in bits.into_iter().chain(weights) {
            if !(2..=24).contains(&bits) {
                return option(what, "2 to 24", bits.to_string());
            }
        }
        if !(1..=64).contains(&self.lanes) {
            return option("lanes", "1 to 64", self.lanes.to_string());
        }
        if !(1..=1 << 20).contains(&self.batch) {
            return option("batch", "1 to 2^20 images", self.batch.to_string());
        }
        if !(self.range_margin.is_finite() && self.range_margin > 0.0) {
            return option("range margin", "a positive number", self.range_margin.to_string());
        }
        Ok(())
    }
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            key: KeyBits::Bits3072,
            key_type: KeyType::default(),
            batch: 1,
            lanes: Backend::detect().lanes(),
            weight_bits: 9,
            layer_bits: None,
            activation_bits: 10,
            input_bits: 8,
            ranges: None,
            range_margin: 1.25,
        }
    }
}
