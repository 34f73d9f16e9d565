//! What a plan takes when the client is not to see the sums between its segments: rings, circuits and bytes.

#[cfg(test)]
mod tests;

use gelu_garble::{
    AND_BYTES, Bits, Clear, LABEL_BYTES, MAX_WIDTH, Ring, START_BYTES, circuits, extension_bytes,
    projection_bytes, reveal_bytes,
};
use gelu_layers::{IntegerStep, StepWires};
use gelu_tensor::{Contents, Error, Flood, Format, ProductWeights, RingBits};

use super::layout::{Layout, MapOf};
use super::{Deployment, Plan, PlanError, Segment, Step};
use crate::ValueId;

/// What a client learns at the end of a network that is hidden from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
/// batch. All counts of circuits and bytes are for one image. Nothing runs in this mode yet: this is what it will take.
///
/// ```
/// use gelu_models::ModelBuilder;
/// use gelu_models::plan::{Deployment, HiddenPlan, Quantization, Reveal};
///
/// let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build()?;
/// model.set_ranges(Some([("relu1", 2.0)].into_iter().collect())); // or `Model::calibrate`
/// let program = model.compile(&Quantization::default(), &Deployment::default())?;
/// let hidden = HiddenPlan::new(program.plan(), Reveal::Class, 40)?;
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

/// A segment of a hidden network, and the circuit behind it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HiddenSegment {
    /// The segment's name.
    pub name: String,
    /// The ring of the shares of its sums, and of its inputs.
    pub ring: RingBits,
    /// What hides all but the residues of masked sums.
    pub flood: Flood,
    /// Where the masks of its inputs and their sums lie, for the plan's batch.
    pub layout: Layout,
    /// ANDs of the circuits behind its sums.
    pub ands: usize,
    /// Bytes that the server sends ahead: tables, and what leads to shares.
    pub tables: usize,
    /// Bytes that the client sends ahead, for the labels of its shares.
    pub transfers: usize,
    /// Bytes that the client sends of an image: its shares of the segment's inputs.
    pub shares: usize,
    /// Bytes that the server answers: the labels of its shares, or at the end its shares themselves.
    pub answer: usize,
}

impl HiddenPlan {
    /// Returns what a plan takes, with sums hidden to a statistical distance of 2^-`flood_bits`.
    ///
    /// # Errors
    /// [`PlanError::Hidden`] that names the node which cannot be computed on shares: only activations between two segments can
    /// that have an [`IntegerStep`]. [`PlanError::Numbers`] when numbers are too large for a ring or a key.
    pub fn new(plan: &Plan, reveal: Reveal, flood_bits: u32) -> Result<Self, PlanError> {
        let last = plan.segments.len() - 1;
        if reveal == Reveal::Class && plan.logits != plan.segments[last].output {
            return Err(PlanError::Hidden { node: plan.graph().name(plan.logits).to_owned() });
        }
        let mut rings = vec![];
        for (index, segment) in plan.segments.iter().enumerate() {
            let step = step(plan, index);
            if step.is_none() && index < last {
                return Err(PlanError::Hidden { node: reader(plan, segment.output) });
            }
            let bound = segment.format.bound() + step.map_or(0, |step| step.offset().unsigned_abs());
            rings.push(RingBits::holding(bound).map_err(|source| in_segment(segment, source))?);
        }
        let mut segments = vec![];
        for (index, segment) in plan.segments.iter().enumerate() {
            let own = HiddenSegment::new(plan, index, (&rings, reveal, flood_bits));
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
}

fn in_segment(segment: &Segment, source: Error) -> PlanError {
    PlanError::Numbers { name: segment.name.clone(), source }
}

/// What is computed behind a segment's sums, if it is an activation whose results go on.
fn step(plan: &Plan, segment: usize) -> Option<&IntegerStep> {
    plan.integer_steps[segment].as_ref().map(|lowering| &lowering.step)
}

/// The node that reads a value in the clear, or the one that made it.
fn reader(plan: &Plan, value: ValueId) -> String {
    let reads = |step: &Step| match step {
        Step::Client(step) if step.inputs.contains(&value) => Some(step.output),
        _ => None,
    };
    plan.graph().name(plan.steps.iter().find_map(reads).unwrap_or(value)).to_owned()
}

impl HiddenSegment {
    fn new(
        plan: &Plan,
        index: usize,
        (rings, reveal, flood_bits): (&[RingBits], Reveal, u32),
    ) -> Result<Self, Error> {
        let (segment, ring) = (&plan.segments[index], rings[index]);
        // A mask is uniform among the ring's signed numbers.
        let masks = Format::new(1 << (ring.bits() - 1), 0)?;
        let mut bound = 0u64;
        for term in &segment.terms {
            // Scales are those of weights alone, and no matter.
            let sums = masks.weighted_sum(term.weights, term.map.most_terms())?;
            bound = Format::new(bound.saturating_add(sums.bound()), 0)?.bound();
        }
        let quotient = (bound >> ring.bits()) + 1;
        let flood = Flood { ring, quotient, bits: flood_bits }.check()?;
        let maps = segment.terms.iter().map(|term| MapOf {
            map: &term.map,
            contents: Contents::Integers(masks),
            weights: ProductWeights::Integers(term.weights),
        });
        let (maps, description) = (maps.collect::<Vec<_>>(), plan.description());
        let deployment = Deployment {
            key: plan.key,
            batch: description.batch,
            lanes: description.lanes,
            prefer: description.prefer,
        };
        let layout = Layout::cheapest(&maps, (&segment.shape, Contents::Residues(flood)), deployment)?;

        let (shares, values) = (shares_of(ring)?, segment.shape.elements());
        let inputs = segment.terms.iter().map(|term| shares.packed_bytes(term.map.input().elements()));
        let mut own = Self {
            name: segment.name.clone(),
            ring,
            flood,
            layout,
            ands: 0,
            tables: 0,
            transfers: extension_bytes(values.saturating_mul(ring.bits() as usize)),
            shares: inputs.sum(),
            answer: values.saturating_mul(ring.bits() as usize * LABEL_BYTES),
        };
        match step(plan, index) {
            Some(step) => own.add_step(step, values, &readers(plan, index, rings)?),
            None if reveal == Reveal::Class => own.add_class(values),
            None => (own.transfers, own.answer) = (0, shares.packed_bytes(values)),
        }
        Ok(own)
    }

    /// Counts the circuits of an activation, whose results go on in the rings of their readers.
    fn add_step(&mut self, step: &IntegerStep, values: usize, readers: &[Ring]) {
        let mut clear = Clear::new(0);
        let sum = sum_of_shares(&mut clear, self.ring);
        let StepWires { wires, .. } = step.circuit(&mut clear, &sum);
        self.ands = clear.ands().saturating_mul(values);
        let mut left = values;
        while left > 0 {
            let width = left.min(MAX_WIDTH);
            let shares: usize = readers.iter().map(|ring| projection_bytes(wires.len(), width, *ring)).sum();
            self.tables = self.tables.saturating_add(START_BYTES + clear.ands() * width * AND_BYTES + shares);
            left -= width;
        }
    }

    /// Counts the circuit that shows which sum is the largest.
    fn add_class(&mut self, values: usize) {
        let mut clear = Clear::new(0);
        let sums: Vec<_> = (0..values).map(|_| sum_of_shares(&mut clear, self.ring)).collect();
        let index = circuits::argmax(&mut clear, &sums);
        self.ands = clear.ands();
        self.tables = START_BYTES + self.ands * AND_BYTES + reveal_bytes(index.len(), 1);
    }
}

/// The rings in which a segment's results are shared: those of the segments that read them.
fn readers(plan: &Plan, index: usize, rings: &[RingBits]) -> Result<Vec<Ring>, Error> {
    let output = plan.integer_steps[index].as_ref().map(|lowering| lowering.output);
    let segments = plan.segments.iter().zip(rings);
    let terms = segments.flat_map(|(segment, ring)| segment.terms.iter().map(move |term| (term, *ring)));
    terms.filter(|(term, _)| Some(term.source) == output).map(|(_, ring)| shares_of(ring)).collect()
}

fn shares_of(ring: RingBits) -> Result<Ring, Error> {
    let found = ring.bits() as usize;
    Ring::new(ring.bits()).map_err(|_| Error::Range {
        what: "bits of a ring of shares",
        least: 1,
        most: 64,
        found,
    })
}

/// The wires of a sum that both parties have a share of.
fn sum_of_shares(clear: &mut Clear, ring: RingBits) -> Vec<Vec<u64>> {
    // Without sets of inputs there is nothing that could be of a wrong length.
    let share = clear.input(&[], ring.bits()).unwrap_or_default();
    circuits::add(clear, &share, &share)
}
