//! How a model is run on ciphertexts: cut into segments, each a sum of integer maps for the server, and steps for the
//! client between them.
//!
//! A [`Plan`] is public and follows from a [`Description`]: the graph, declared bits and ranges, the power of two above
//! each layer's largest weight, key and batch. Both sides make it for themselves, so nothing of a plan is taken on trust.
//! A [`Program`] is the server's: the plan with the weights. What is planned is what runs: the server multiplies as the
//! plan states, in the parts that it states, and the counts agree exactly.

mod cut;
mod deployment;
mod error;
mod error_bound;
mod hidden;
mod layout;
mod lowering;
mod numbers;
mod outcome;
mod preference;
mod program;
mod quantization;
mod resolution;
mod run;
mod shard;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use gelu_layers::Affine;
use gelu_tensor::paillier::{KeyParameters, PublicKey};
use gelu_tensor::{
    Contents, EncTensorHeader, Error, FixedTensor, Format, LinearMap, Masks, Operations, Shape, WeightRange,
};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

pub(crate) use cut::{ClientStep, Cut, CutSegment, CutTerm, Fusion, Step};
pub use deployment::Deployment;
pub use error::PlanError;
#[cfg(feature = "hidden")]
pub(crate) use hidden::{Behind, Reader, masks_of};
pub use hidden::{HiddenPlan, HiddenSegment, Reveal};
pub use layout::{Layout, Part};
pub(crate) use layout::{MapOf, Output, full_batch, header};
pub(crate) use lowering::Maxima;
use lowering::{Lowering, lowerings};
pub use numbers::{Numbers, SegmentNumbers};
pub use outcome::{Outcome, Saturations};
pub use preference::Preference;
pub(crate) use program::Lowered;
pub use program::Program;
pub use quantization::Quantization;
pub use resolution::LostResolution;
pub use run::{ClientFunction, Functions};
pub(crate) use run::{Need, Run, compute, encrypted, gradients_of};
pub use shard::Shard;

use crate::{Graph, ValueId};

/// All that both sides must agree on: what a plan follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The network, without its weights.
    pub graph: Arc<Graph>,
    /// What is public of its numbers.
    pub numbers: Numbers,
    /// Images that go through together.
    pub batch: usize,
    /// Residues that the server works on at a time.
    pub lanes: usize,
    /// What is saved where there is a choice.
    pub prefer: Preference,
    /// Whether the client does not see what lies between segments: see [`HiddenPlan`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hidden: bool,
}

/// The public part of a run: what client and server agree on before the first ciphertext.
///
/// ```
/// use gelu_models::ModelBuilder;
/// use gelu_models::plan::{Deployment, Plan, Quantization};
///
/// let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build()?;
/// model.set_ranges(Some([("relu1", 2.0)].into_iter().collect())); // or `Model::calibrate`
/// let program = model.compile(&Quantization::default(), &Deployment::default())?;
///
/// // A client makes the same plan for itself, from what the server says and without the weights.
/// let plan = Plan::new(program.plan().description().clone(), program.plan().key())?;
/// assert_eq!(plan.operations(), program.plan().operations());
/// let segments: Vec<_> = plan.segments().iter().map(|segment| &segment.name[..]).collect();
/// assert_eq!(segments, ["fc1", "fc2"]);
/// assert!(plan.segments()[0].ciphertexts_up() <= 4); // elements share ciphertexts where that pays
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    description: Description,
    key: KeyParameters,
    steps: Vec<Step>,
    segments: Vec<Segment>,
    output: ValueId,
    logits: ValueId,
    /// For each value the last step that reads it.
    last_uses: Vec<usize>,
    /// For each segment, what is made of its sums on integers.
    integer_steps: Vec<Option<Lowering>>,
}

/// A sum of linear maps that the server computes in one go, and where its tensors lie.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Segment {
    /// The names of the layers in it, joined by `+`; flattening is not among them.
    pub name: String,
    /// The value that the client has after it.
    pub output: ValueId,
    /// The shape of one output image.
    pub shape: Shape,
    /// The linear maps that are added up.
    pub terms: Vec<Term>,
    bias_exponent: Option<i32>,
    /// The scale and bound of the sums that come down.
    pub format: Format,
    batch: usize,
    /// Where the tensors lie, and how they are multiplied.
    pub layout: Layout,
}

/// A linear map of one value that the client encrypts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Term {
    /// The value that the client encrypts.
    pub source: ValueId,
    /// The sums of the value's elements that the client encrypts in its place, if it does: what is left of a mean after
    /// the layer.
    pub sums: Option<Arc<LinearMap>>,
    /// The layers with weights that it is made of, by their names; none if it only moves and averages elements.
    pub layers: Vec<String>,
    /// The map of what is encrypted.
    pub map: Arc<LinearMap>,
    /// What is public of the integer weights.
    pub weights: WeightRange,
    /// The scale and bound of the value as integers.
    pub values: Format,
    /// What all that is encrypted is multiplied with, a power of two: it brings the products to the scale of those of the
    /// segment's finest term.
    pub factor: i64,
    /// The scale and bound of what is encrypted.
    pub format: Format,
    /// The integer weights mod 2^64, if they follow from the graph: of a mean or a shortcut, which both sides of a hidden
    /// network compute on their own shares.
    pub(crate) multiples: Option<Arc<[u64]>>,
}

impl Plan {
    /// Returns the plan of a description for a key.
    ///
    /// # Errors
    /// [`PlanError`] that says what does not fit. A description from outside cannot overflow anything, however it was
    /// made.
    pub fn new(description: Description, key: KeyParameters) -> Result<Self, PlanError> {
        let cut = Cut::of_graph(&description.graph, Fusion::of(description.hidden))?;
        Self::assemble(&cut, description, key)
    }

    /// The plan of a graph that was cut already.
    fn assemble(cut: &Cut, description: Description, key: KeyParameters) -> Result<Self, PlanError> {
        let Description { graph, numbers, batch, lanes, prefer, .. } = &description;
        let deployment = Deployment { key, batch: *batch, lanes: *lanes, prefer: *prefer };
        deployment.check()?;
        let (expected, found) = (cut.segments.len(), numbers.segments.len());
        if expected != found {
            return Err(PlanError::Description { what: "numbers of segments", expected, found });
        }
        let segments = cut.segments.iter().zip(&numbers.segments);
        let segments = segments
            .map(|(segment, own)| Segment::new(segment, (own, numbers), graph, deployment))
            .collect::<Result<Vec<_>, _>>()?;
        let mut last_uses = vec![0; graph.nodes().len() + 1];
        for (at, step) in cut.steps.iter().enumerate() {
            let inputs: Vec<ValueId> = match step {
                Step::Segment(index) => segments[*index].terms.iter().map(|term| term.source).collect(),
                Step::Client(step) => step.inputs.clone(),
            };
            inputs.into_iter().for_each(|input| last_uses[input.index()] = at);
        }
        for kept in [cut.output, cut.logits] {
            last_uses[kept.index()] = usize::MAX;
        }
        let integer_steps = lowerings(&segments, cut, graph);
        let (steps, output, logits) = (cut.steps.clone(), cut.output, cut.logits);
        Ok(Self { key, steps, segments, output, logits, last_uses, integer_steps, description })
    }

    /// Returns what the plan follows from.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Returns the network.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.description.graph
    }

    /// Returns the size and type of the client's key.
    pub fn key(&self) -> KeyParameters {
        self.key
    }

    /// Returns the segments, in the order in which they run; at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns how many images fill the slots of a ciphertext: as many as the widest slots leave room for. An image costs the
    /// least in a batch of so many.
    pub fn full_batch(&self) -> usize {
        full_batch(self.segments.iter().map(|segment| &segment.layout), self.key.size)
    }

    /// Returns the names of the nodes that the client computes after a segment and before the next (or, for `None`, before
    /// the first).
    pub fn client_steps(&self, after: Option<usize>) -> Vec<String> {
        let start = after.and_then(|segment| self.steps.iter().position(|s| *s == Step::Segment(segment)));
        let steps = self.steps[start.map_or(0, |start| start + 1)..].iter();
        let client = steps.map_while(|step| match step {
            Step::Segment(_) => None,
            Step::Client(step) => Some(self.graph().nodes()[step.node].op.to_string()),
        });
        client.collect()
    }

    /// Returns the operations mod n^2 of the server for one batch.
    pub fn operations(&self) -> Operations {
        self.segments.iter().fold(Operations::default(), |sum, segment| sum + segment.layout.operations)
    }

    /// Whether a value is between two steps that are computed as one.
    fn is_between(&self, value: ValueId) -> bool {
        self.integer_steps.iter().flatten().any(|lowering| lowering.between == Some(value))
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Segment {
    fn new(
        cut: &CutSegment,
        (own, numbers): (&SegmentNumbers, &Numbers),
        graph: &Graph,
        deployment: Deployment,
    ) -> Result<Self, PlanError> {
        let in_segment = |source| PlanError::Numbers { name: cut.name.clone(), source };
        let (expected, found) = (cut.terms.len(), own.weights.len());
        if expected != found {
            return Err(PlanError::Description {
                what: "weights of the terms of a segment",
                expected,
                found,
            });
        }
        let values = cut.terms.iter().map(|term| numbers.format(term.source));
        let values = values.collect::<Result<Vec<Format>, _>>()?;
        let scales = values.iter().zip(&own.weights);
        let scales = scales.map(|(values, weights)| values.scale_bits().saturating_add(weights.scale_bits()));
        let scales: Vec<i32> = scales.collect();
        let finest = scales.iter().copied().max().unwrap_or(0);
        let mut terms = vec![];
        for (((term, &weights), values), scale) in cut.terms.iter().zip(&own.weights).zip(values).zip(scales)
        {
            let (factor, format) =
                encrypted_format(values, term.sums.as_deref(), finest.abs_diff(scale)).map_err(in_segment)?;
            let multiples = match term.nodes.is_empty() {
                true => Some(multiples(&term.affine, weights).map_err(in_segment)?),
                false => None,
            };
            terms.push(Term {
                source: term.source,
                sums: term.sums.clone(),
                layers: term.nodes.iter().map(|&node| graph.nodes()[node].name.clone()).collect(),
                map: term.affine.map().clone(),
                weights,
                values,
                factor,
                format,
                multiples,
            });
        }
        let sums = terms.iter().map(|term| term.format.weighted_sum(term.weights, term.map.most_terms()));
        let mut format = sums.clone().next().unwrap_or_else(|| Format::integers(0)).map_err(in_segment)?;
        for sum in sums.skip(1) {
            format = sum.and_then(|sum| format.sum(sum)).map_err(in_segment)?;
        }
        if let Some(exponent) = own.bias_exponent {
            let bias = bias_format(exponent, format.scale_bits());
            format = bias.and_then(|bias| format.sum(bias)).map_err(in_segment)?;
        }
        let shape = graph.shape(cut.output).clone();
        let maps: Vec<MapOf<'_>> = terms
            .iter()
            .map(|term| MapOf {
                map: &term.map,
                contents: Contents::Integers(term.format),
                weights: term.weights,
            })
            .collect();
        let sums = Output { shape: &shape, contents: Contents::Integers(format), correction: None };
        let layout = Layout::cheapest(&maps, sums, deployment).map_err(in_segment)?;
        let ups = layout.ups.iter().zip(&terms).map(|(up, term)| (up, term.map.input()));
        for (layout, shape) in ups.chain([(&layout.down, &shape)]) {
            header(layout, shape, deployment.batch).check(deployment.key.size).map_err(in_segment)?;
        }
        let (name, output, bias_exponent) = (cut.name.clone(), cut.output, own.bias_exponent);
        Ok(Self { name, output, shape, terms, bias_exponent, format, batch: deployment.batch, layout })
    }

    /// Returns the header of the tensor that goes up for a term.
    pub fn up_header(&self, term: usize) -> EncTensorHeader {
        header(&self.layout.ups[term], self.terms[term].map.input(), self.batch)
    }

    /// Returns the header of the sums.
    pub fn down_header(&self) -> EncTensorHeader {
        header(&self.layout.down, &self.shape, self.batch)
    }

    /// Returns what hides all but the sums in the reply to a part of a batch, if values share ciphertexts on their way up:
    /// for [`Program::sums`], once.
    ///
    /// # Errors
    /// When the plan is for another size of key.
    pub fn masks(
        &self,
        groups: Range<usize>,
        key: &PublicKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Masks, Error> {
        Masks::draw(self.down_header().part(groups), key, rng)
    }

    /// Returns the number of ciphertexts that go up.
    pub fn ciphertexts_up(&self) -> usize {
        (0..self.terms.len()).map(|term| self.up_header(term).ciphertexts()).sum()
    }

    /// Returns the number of ciphertexts that come down.
    pub fn ciphertexts_down(&self) -> usize {
        self.down_header().ciphertexts()
    }

    /// Ciphertexts of sums that can follow from the first `sent` ciphertexts of the last term, once those before have
    /// all been sent.
    pub(crate) fn sums_after(&self, sent: usize) -> usize {
        let (last, mut sums) = (self.up_header(self.terms.len() - 1), 0);
        for (groups, part) in self.layout.each_part() {
            if sent < last.part(0..groups.end).ciphertexts() {
                break;
            }
            sums += part.hiding.ciphertexts;
        }
        sums
    }

    /// The biases as integers at the scale of the sums, or none where no layer of the segment has one.
    pub(crate) fn bias(&self, reals: &[f64]) -> Result<Option<FixedTensor>, Error> {
        let Some(exponent) = self.bias_exponent else { return Ok(None) };
        let format = bias_format(exponent, self.format.scale_bits())?;
        let scale = f64::from(format.scale_bits()).exp2();
        let values = reals.iter().map(|bias| (bias * scale).round() as i64).collect();
        FixedTensor::new(self.shape.clone(), format, values).map(Some)
    }
}

/// Integer weights that follow from the graph.
fn multiples(affine: &Affine, weights: WeightRange) -> Result<Arc<[u64]>, Error> {
    let rounded =
        affine.quantize(WeightRange::signed(weights.bits())?.with_scale_bits(weights.scale_bits()))?;
    Ok(rounded.values().iter().map(|&weight| i64::from(weight) as u64).collect())
}

/// The factor 2^`finer`, and the format of a value's elements, or of sums of them, times it.
fn encrypted_format(values: Format, sums: Option<&LinearMap>, finer: u32) -> Result<(i64, Format), Error> {
    let Some(factor) = 1i64.checked_shl(finer).filter(|factor| *factor > 0) else {
        return Err(Error::Overflow { needed_bits: finer as usize + 2, available_bits: 62 });
    };
    let times = sums.map_or(1, LinearMap::most_terms) as u64;
    let bound = values.bound().saturating_mul(times).saturating_mul(factor.unsigned_abs());
    let scale_bits = values.scale_bits().saturating_add_unsigned(finer);
    Ok((factor, Format::integers(bound)?.with_scale_bits(scale_bits)?))
}

/// The format of biases of up to 2^exponent at a scale.
fn bias_format(exponent: i32, scale_bits: i32) -> Result<Format, Error> {
    let bits = exponent.saturating_add(scale_bits);
    match u32::try_from(bits.max(0)) {
        Ok(bits) if bits < 62 => Format::integers(1 << bits)?.with_scale_bits(scale_bits),
        _ => Err(Error::Overflow { needed_bits: bits.unsigned_abs() as usize + 2, available_bits: 62 }),
    }
}
