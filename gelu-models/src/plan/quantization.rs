//! How a model's numbers are rounded to integers.

use std::collections::BTreeMap;

use super::PlanError;
use crate::{Model, Ranges};

/// How a model's numbers are rounded to integers.
///
/// More bits bring the encrypted network closer to the real one, and cost wider slots and more products.
///
/// ```
/// use gelu_models::ModelBuilder;
/// use gelu_models::plan::{Deployment, Quantization};
///
/// let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build()?;
/// model.set_ranges(Some([("relu1", 2.0)].into_iter().collect())); // or `Model::calibrate`
/// let fine = Quantization { weight_bits: 12, activation_bits: Some(14), ..Quantization::default() };
/// let fine = model.compile(&fine, &Deployment::default())?;
/// let default = model.compile(&Quantization::default(), &Deployment::default())?;
/// let slot_bits = [&fine, &default].map(|program| program.plan().segments()[1].format.slot_bits());
/// assert!(slot_bits[0] > slot_bits[1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Quantization {
    /// Bits of an integer weight, its sign included, 2 to 24. Default: 9.
    pub weight_bits: u32,
    /// Other bits for some segments, by the name of one of their layers; `None` takes those that the model was tuned to
    /// ([`Model::layer_bits`](crate::Model::layer_bits)). Default: `None`.
    pub layer_bits: Option<BTreeMap<String, u32>>,
    /// Bits of an activation, 2 to 24; `None` takes the formats that the model was trained to
    /// ([`Model::formats`](crate::Model::formats)), and 10 bits for what has none. Default: `None`.
    pub activation_bits: Option<u32>,
    /// Bits of an input element, 2 to 24; `None` takes the format that the model was trained to, and without one 8 bits: a
    /// pixel p / 255 is rounded to the nearest of 256 steps. Default: `None`.
    pub input_bits: Option<u32>,
    /// Magnitudes of inputs and values; `None` takes those that the model was calibrated to
    /// ([`Model::ranges`](crate::Model::ranges)). Inputs without a range are taken to lie between -1 and 1. Default:
    /// `None`.
    pub ranges: Option<Ranges>,
    /// Factor on the calibrated magnitudes, for data that goes beyond what calibration saw. Default: 1.25.
    pub range_margin: f64,
}

impl Quantization {
    /// The key of a weight file's metadata that holds [`layer_bits`](Self::layer_bits) tuned for it, as a JSON object.
    pub(crate) const LAYER_BITS_KEY: &str = "gelu.layer_bits";

    /// The key of a weight file's metadata that holds the formats that a model was trained to, as a JSON object.
    pub(crate) const FORMATS_KEY: &str = "gelu.formats";

    /// Bits of an activation where nothing else is said, by a caller or by a model.
    pub const ACTIVATION_BITS: u32 = 10;

    /// Bits of an input element where nothing else is said.
    pub const INPUT_BITS: u32 = 8;

    /// Returns the bits of the weights that a chain of layers has together: the most that one of them was tuned to, and
    /// [`weight_bits`](Self::weight_bits) where none was.
    pub fn bits_of(&self, model: &Model, layers: impl IntoIterator<Item = impl AsRef<str>>) -> u32 {
        let tuned = self.layer_bits.as_ref().unwrap_or(model.layer_bits());
        let bits = layers.into_iter().filter_map(|layer| tuned.get(layer.as_ref()));
        bits.max().copied().unwrap_or(self.weight_bits)
    }

    /// Checks that all bits and the margin are in range.
    pub(super) fn check(&self) -> Result<(), PlanError> {
        let layers = self.layer_bits.iter().flat_map(BTreeMap::values).copied();
        let weights = layers.chain([self.weight_bits]).map(|bits| ("weight bits", bits));
        let values = [("activation bits", self.activation_bits), ("input bits", self.input_bits)];
        let values = values.into_iter().filter_map(|(what, bits)| Some((what, bits?)));
        for (what, bits) in values.chain(weights) {
            if !(2..=24).contains(&bits) {
                return Err(PlanError::Option { what, expected: "2 to 24", found: bits.to_string() });
            }
        }
        if !(self.range_margin.is_finite() && self.range_margin > 0.0) {
            let (what, expected) = ("range margin", "a positive number");
            return Err(PlanError::Option { what, expected, found: self.range_margin.to_string() });
        }
        Ok(())
    }
}

impl Default for Quantization {
    fn default() -> Self {
        Self {
            weight_bits: 9,
            layer_bits: None,
            activation_bits: None,
            input_bits: None,
            ranges: None,
            range_margin: 1.25,
        }
    }
}
