//! The fixed-point numbers of a plan: scales and bounds, from public facts about a model.

use std::collections::{BTreeMap, BTreeSet};

use gelu_layers::exponent;
use gelu_tensor::{Error, Format, IntWeights, WeightRange};
use serde::{Deserialize, Serialize};

use super::cut::{Cut, CutSegment, CutTerm};
use super::{PlanError, Quantization};
use crate::{Graph, Model, Op, Ranges, ValueId};

/// What is public of a model's numbers: what formats, slots and costs follow from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbers {
    /// Scale and bound of each value that is encrypted, by its number.
    pub formats: BTreeMap<u32, Format>,
    /// Of each segment.
    pub segments: Vec<SegmentNumbers>,
    /// Values that the network was trained to have clamped to their bounds, by their numbers.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub clamped: BTreeSet<u32>,
}

/// What is public of a segment's numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentNumbers {
    /// The integer weights of each term.
    pub weights: Vec<WeightRange>,
    /// Power of two that no bias exceeds; `None` without biases.
    pub bias_exponent: Option<i32>,
}

impl Numbers {
    /// Returns whether the network was trained to have a value clamped to its bound, so that this says nothing of the inputs.
    pub fn clamps(&self, value: ValueId) -> bool {
        self.clamped.contains(&(value.index() as u32))
    }

    /// The format of a value that is encrypted.
    pub(super) fn format(&self, value: ValueId) -> Result<Format, PlanError> {
        let format = self.formats.get(&(value.index() as u32)).copied();
        let (expected, found) = (value.index(), self.formats.len());
        format.ok_or(PlanError::Description { what: "format of value", expected, found })
    }
}

/// The integers of a segment.
#[derive(Clone, Debug)]
pub(super) struct IntegerSegment {
    /// Of each term.
    pub(super) weights: Vec<IntWeights>,
    /// Real biases, one for each element of the output, rounded when the scale of the sums is known; empty without any.
    pub(super) bias: Vec<f64>,
}

/// The smallest range that a value is given.
const LEAST_RANGE: f64 = 1.0 / 65_536.0;

/// Chooses the numbers of a model that was cut, and rounds its weights.
pub(super) fn choose(
    model: &Model,
    cut: &Cut,
    quantization: &Quantization,
) -> Result<(Numbers, Vec<IntegerSegment>), PlanError> {
    let layer_bits = quantization.layer_bits.as_ref().unwrap_or(model.layer_bits());
    if let Some(name) = layer_bits.keys().find(|name| model.layers().all(|(layer, _)| layer != *name)) {
        return Err(PlanError::UnknownLayer { name: name.clone() });
    }
    // Those of the options were checked, those of the model may come out of a file.
    if let Some(bits) = layer_bits.values().find(|bits| !(2..=24).contains(*bits)) {
        let (what, expected) = ("weight bits", "2 to 24");
        return Err(PlanError::Option { what, expected, found: bits.to_string() });
    }
    let named =
        |name: &str| name == Ranges::INPUT || model.graph().nodes().iter().any(|node| node.name == name);
    if let Some(name) = model.formats().keys().find(|name| !named(name)) {
        let (what, expected) = ("value with a format", "a node of the network");
        return Err(PlanError::Option { what, expected, found: format!("`{name}`") });
    }
    let ranges = quantization.ranges.as_ref().or(model.ranges());
    if let Some((name, bad)) =
        ranges.and_then(|ranges| ranges.iter().find(|(_, x)| !(x.is_finite() && *x >= 0.0)))
    {
        let found = format!("{bad} for `{name}`");
        let (what, expected) = ("calibrated range", "a finite number that is not negative");
        return Err(PlanError::Option { what, expected, found });
    }
    let (mut formats, mut clamped) = (BTreeMap::new(), BTreeSet::new());
    for source in cut.segments.iter().flat_map(|segment| &segment.terms).map(|term| term.source) {
        let name = model.graph().name(source);
        let is_input = source == ValueId::INPUT;
        let bits = if is_input { quantization.input_bits } else { quantization.activation_bits };
        let format = match model.format(source).filter(|_| bits.is_none()) {
            Some(trained) => {
                // Inputs beyond those that it was trained on are worth a warning.
                if !is_input {
                    clamped.insert(source.index() as u32);
                }
                Ok(trained)
            }
            None if is_input => {
                let range = ranges.and_then(|ranges| ranges.get(Ranges::INPUT));
                format(range.map_or(1.0, f64::from), bits.unwrap_or(Quantization::INPUT_BITS))
            }
            None => {
                let largest = magnitude(model.graph(), source, ranges, quantization.range_margin)?;
                format(largest, bits.unwrap_or(Quantization::ACTIVATION_BITS))
            }
        };
        let format = format.map_err(|source| PlanError::Numbers { name: name.to_owned(), source })?;
        formats.insert(source.index() as u32, format);
    }
    let (mut segments, mut integers) = (vec![], vec![]);
    for segment in &cut.segments {
        let bits = |nodes: &[usize]| {
            quantization.bits_of(model, nodes.iter().map(|&node| &model.graph().nodes()[node].name))
        };
        let (numbers, weights) = round(segment, &formats, bits)
            .map_err(|source| PlanError::Numbers { name: segment.name.clone(), source })?;
        segments.push(numbers);
        integers.push(weights);
    }
    Ok((Numbers { formats, segments, clamped }, integers))
}

/// The largest value that a format is made for.
fn magnitude(graph: &Graph, value: ValueId, ranges: Option<&Ranges>, margin: f64) -> Result<f64, PlanError> {
    let name = graph.name(value);
    let bound = match graph.op(value) {
        Some(Op::Client(op)) => op.bound(),
        _ => None,
    };
    let range = ranges.and_then(|ranges| ranges.get(name)).map(|range| f64::from(range) * margin);
    match (range, bound) {
        (Some(range), Some(bound)) => Ok(range.min(bound)),
        (Some(known), None) | (None, Some(known)) => Ok(known),
        (None, None) => Err(PlanError::NoRange { node: name.to_owned() }),
    }
}

/// The finest power-of-two scale at which `bits` bits hold `largest`.
fn format(largest: f64, bits: u32) -> Result<Format, Error> {
    // A value that calibration never saw alive says nothing of its scale, and one that was hardly alive would ask for a
    // scale at which biases overflow.
    let largest = if largest == 0.0 { 1.0 } else { largest.max(LEAST_RANGE) };
    let scale_bits = bits as i32 - largest.log2().ceil().min(200.0) as i32;
    let bound = (largest * f64::from(scale_bits).exp2()).ceil().max(1.0) as u64;
    Format::integers(bound)?.with_scale_bits(scale_bits)
}

/// How many bits coarser than the sums of all terms the finest scale of one may be: of what is finer still, next to nothing is
/// left beside the sums of the coarser one.
const MOST_COARSER: i32 = 8;

/// Weights at power-of-two scales. The scale of the sums is one at which no term loses anything whose weights are integers
/// already (such as those trained with few bits), and otherwise the coarsest of the finest scales that hold the largest weights
/// of each term. A term whose own products are coarser keeps its weights, and has its values multiplied: see
/// [`Term::factor`](super::Term::factor).
fn round(
    segment: &CutSegment,
    formats: &BTreeMap<u32, Format>,
    bits: impl Fn(&[usize]) -> u32,
) -> Result<(SegmentNumbers, IntegerSegment), Error> {
    // Of each term its bits, the scale of its values, and of its sums the finest scale that holds the largest weight and the
    // one at which weights that are integers are exact, as they are at every finer one.
    let scales: Vec<(u32, i32, i32, Option<i32>)> = segment
        .terms
        .iter()
        .map(|CutTerm { source, affine, nodes, .. }| {
            let (bits, input) = (bits(nodes), formats.get(&(source.index() as u32)));
            let input = input.map_or(0, |format| format.scale_bits());
            let exact = affine.exact_scale(bits).map(|scale| input + scale);
            (bits, input, input + affine.finest_scale(bits), exact)
        })
        .collect();
    let rounded = scales.iter().filter_map(|(.., finest, exact)| exact.is_none().then_some(*finest)).min();
    let wanted = scales.iter().filter_map(|(.., exact)| *exact).chain(rounded).max();
    let limits = scales.iter().map(|(_, _, finest, _)| finest + MOST_COARSER);
    let common = limits.chain(wanted).min().unwrap_or(0);
    let (mut weights, mut ranges, mut bias) = (vec![], vec![], vec![]);
    for (term, (bits, input, finest, exact)) in segment.terms.iter().zip(scales) {
        let scale = exact.unwrap_or(finest).min(common) - input;
        // A coarser scale than a term would have alone takes fewer bits.
        let range = WeightRange::signed(bits.min(term.affine.bits_at(scale)))?.with_scale_bits(scale);
        let rounded = term.affine.quantize(range)?;
        ranges.push(rounded.range());
        weights.push(rounded);
        match bias.is_empty() {
            true => bias = term.affine.bias().to_vec(),
            false => bias.iter_mut().zip(term.affine.bias()).for_each(|(sum, bias)| *sum += bias),
        }
    }
    let bias_exponent = (!bias.is_empty()).then(|| exponent(&bias));
    Ok((SegmentNumbers { weights: ranges, bias_exponent }, IntegerSegment { weights, bias }))
}
