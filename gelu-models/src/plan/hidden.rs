//! What a plan takes when the client is not to see the sums between its segments: rings, circuits and bytes.

mod segment;
#[cfg(test)]
mod tests;

use gelu_layers::{Activation, ClientOp, IntegerStep};
use gelu_tensor::{Error, RingBits};
use serde::{Deserialize, Serialize};

pub use self::segment::HiddenSegment;
#[cfg(feature = "hidden")]
pub(crate) use self::segment::{Behind, Reader, masks_of};
use super::{Plan, PlanError, Segment, Step};
use crate::{Op, ValueId};

/// What a client learns at the end of a network that is hidden from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reveal {
    /// The sums of the last segment.
    #[default]
    Logits,
    /// Which of them is the largest, and no more.
    Class,
}

/// What it takes to run a plan with its model hidden from the client: sums as shares of both parties, each mod 2^l of its
/// segment, and activations as garbled circuits on shares.
///
/// Masks of all segments are multiplied on ciphertexts before an image is there, for as many images together as the plan's
/// batch. All counts of circuits and bytes are for one image.
///
/// ```
/// use gelu_models::ModelBuilder;
/// use gelu_models::plan::{Deployment, HiddenPlan, Quantization, Reveal};
///
/// let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build()?;
/// model.set_ranges(Some([("relu1", 2.0)].into_iter().collect())); // or `Model::calibrate`
/// let program = model.compile(&Quantization::default(), &Deployment::default())?;
/// let hidden = HiddenPlan::new(program.plan(), Reveal::Class)?;
/// let [first, last] = hidden.segments() else { panic!("two segments") };
/// assert!(first.ring.bits() < 24 && first.flood.slot_bits() > first.ring.bits() as usize + 40);
/// assert!(first.ands > last.ands);
/// assert_eq!(hidden.round_trips(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct HiddenPlan {
    segments: Vec<HiddenSegment>,
    reveal: Reveal,
}

impl HiddenPlan {
    /// Returns what a plan takes, with sums hidden to a statistical distance of 2^-40.
    ///
    /// # Errors
    /// [`PlanError::Hidden`] that names the node which cannot be computed on shares: only activations between two segments can
    /// that have an [`IntegerStep`]. [`PlanError::Numbers`] when numbers are too large for a ring or a key.
    pub fn new(plan: &Plan, reveal: Reveal) -> Result<Self, PlanError> {
        let last = plan.segments.len() - 1;
        if reveal == Reveal::Class && plan.logits != plan.segments[last].output {
            return Err(PlanError::Hidden { node: plan.graph().name(plan.logits).to_owned() });
        }
        let mut rings = vec![];
        for (index, segment) in plan.segments.iter().enumerate() {
            if let Some(term) = segment.terms.iter().find(|term| !is_shared(plan, index, term.source)) {
                return Err(PlanError::Hidden { node: plan.graph().name(term.source).to_owned() });
            }
            let step = plan.integer_steps[index].as_ref().map(|lowering| &lowering.step);
            if step.is_none() && index < last {
                return Err(PlanError::Hidden { node: obstacle(plan, segment) });
            }
            let bound = segment.format.bound() + step.map_or(0, |step| step.offset().unsigned_abs());
            rings.push(RingBits::holding(bound).map_err(|source| in_segment(segment, source))?);
        }
        let mut segments = vec![];
        for (index, segment) in plan.segments.iter().enumerate() {
            let own = HiddenSegment::new(plan, index, (&rings, reveal));
            segments.push(own.map_err(|source| in_segment(segment, source))?);
        }
        Ok(Self { segments, reveal })
    }

    /// Returns the segments, in the order in which they run.
    pub fn segments(&self) -> &[HiddenSegment] {
        &self.segments
    }

    /// Returns what the client learns at the end.
    pub fn reveal(&self) -> Reveal {
        self.reveal
    }

    /// Returns the round trips of a run: one for each segment.
    pub fn round_trips(&self) -> usize {
        self.segments.len()
    }

    /// Returns the bytes of memory that a prepared query takes at the client: tables, labels, masks and shares of sums.
    pub fn client_bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.client_bytes).sum()
    }

    /// Returns the bytes of memory that a prepared query takes at the server: masks, and shares of results.
    pub fn server_bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.server_bytes).sum()
    }
}

fn in_segment(segment: &Segment, source: Error) -> PlanError {
    PlanError::Numbers { name: segment.name.clone(), source }
}

/// Whether a segment's input is something that both have shares of: the results of an earlier segment, or what the client makes
/// of its image before the first.
fn is_shared(plan: &Plan, segment: usize, source: ValueId) -> bool {
    let earlier = plan.integer_steps[..segment].iter().flatten();
    let before = plan.steps.iter().map_while(|step| match step {
        Step::Client(step) => Some(step.output),
        Step::Segment(_) => None,
    });
    earlier.map(|lowering| lowering.output).chain(before).any(|value| value == source)
        || source == ValueId::INPUT
}

/// The first node behind a segment that cannot be computed on shares, or the one that has the sums and something else to go
/// with them.
fn obstacle(plan: &Plan, segment: &Segment) -> String {
    let (graph, mut value) = (plan.graph(), segment.output);
    let (mut activations, mut pools) = (0, 0);
    loop {
        let reads = |step: &Step| match step {
            Step::Client(step) if step.inputs.contains(&value) => Some(step.output),
            _ => None,
        };
        let readers: Vec<ValueId> = plan.steps.iter().filter_map(reads).collect();
        let Some(&reader) = readers.first() else { break };
        match graph.op(reader) {
            Some(Op::Client(ClientOp::MaxPool2d(_))) => pools += 1,
            // Whatever the format of its results: of sigmoid and tanh it decides, and of no others.
            Some(Op::Client(ClientOp::Activation(own)))
                if matches!(own, Activation::Sigmoid | Activation::Tanh)
                    || IntegerStep::new(Some(*own), segment.format, segment.format).is_some() =>
            {
                activations += 1;
            }
            _ => return graph.name(reader).to_owned(),
        }
        value = reader;
        if activations > 1 || pools > 1 || readers.len() > 1 {
            break;
        }
    }
    graph.name(value).to_owned()
}
