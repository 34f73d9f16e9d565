//! A segment of a hidden network: its ring, its masks, and the circuits behind its sums.

use std::ops::Range;

use gelu_garble::{
    AND_BYTES, Bits, Clear, LABEL_BYTES, Ring, START_BYTES, circuits, extension_bytes, projection_bytes,
    reveal_bytes,
};
use gelu_layers::{IntegerStep, StepWires};
use gelu_tensor::{Contents, Error, Flood, Format, RingBits, SlotLayout};

use super::Reveal;
use crate::plan::layout::{Layout, MapOf, Output};
use crate::plan::{Deployment, Lowering, Maxima, Plan, Term, header};

/// Circuits side by side, of which one message has the tables: more gain no speed, and a layer's tables would be one message of
/// many megabytes.
const BLOCK: usize = 1024;

/// The most bytes that the tables of a block are to have, if it has more than one circuit.
const BLOCK_BYTES: usize = 1 << 21;

/// The statistical distance, as a power of two, by which masked sums hide what lies above their residues.
const FLOOD_BITS: u32 = 40;

/// Bytes of a share in memory.
const WORD_BYTES: usize = size_of::<u64>();

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
    /// The terms that are multiplied under the key. Those that only move and average elements are not: both sides compute
    /// them on their own shares. There may be none.
    pub multiplied: Vec<usize>,
    /// Where the masks of the multiplied terms and their sums lie, for the plan's batch; without such terms, no part of it has
    /// anything.
    pub layout: Layout,
    /// Ciphertexts of the masks of its inputs, for the plan's batch.
    pub ciphertexts_up: usize,
    /// Ciphertexts of the masked sums, for the plan's batch.
    pub ciphertexts_down: usize,
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
    /// Bytes of memory that a prepared query takes at the client.
    pub client_bytes: usize,
    /// Bytes of memory that it takes at the server.
    pub server_bytes: usize,
    /// The same ring, as circuits have it.
    pub(crate) shared: Ring,
    /// Sums of an image.
    pub(crate) values: usize,
    /// What is computed of the sums, and who reads it.
    pub(crate) behind: Behind,
    /// Bits of a result, and ANDs of one circuit.
    result_bits: usize,
    circuit_ands: usize,
}

/// What is behind a segment's sums.
#[derive(Clone, Debug)]
pub(crate) enum Behind {
    /// A function of each, or of the largest of windows, and where its results go.
    Step { step: IntegerStep, maxima: Option<Maxima>, readers: Vec<Reader> },
    /// Which is the largest.
    Class,
    /// Nothing: the client gets them.
    Sums,
}

/// A term that reads the results of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) segment: usize,
    pub(crate) term: usize,
    /// The ring in which it takes them.
    pub(crate) ring: Ring,
}

impl HiddenSegment {
    pub(super) fn new(
        plan: &Plan,
        index: usize,
        (rings, reveal): (&[RingBits], Reveal),
    ) -> Result<Self, Error> {
        let (segment, ring) = (&plan.segments[index], rings[index]);
        let multiplied = segment.terms.iter().enumerate().filter(|(_, term)| term.multiples.is_none());
        let (multiplied, terms): (Vec<usize>, Vec<&Term>) = multiplied.unzip();
        let masks = terms.iter().map(|term| masks_of(ring, term)).collect::<Result<Vec<_>, _>>()?;
        let mut bound = 0u64;
        for (term, own) in terms.iter().zip(&masks) {
            let sums = own.weighted_sum(term.weights, term.map.most_terms())?;
            bound = Format::integers(bound.saturating_add(sums.bound()))?.bound();
        }
        let quotient = (bound >> ring.bits()) + 1;
        let flood = Flood { ring, quotient, bits: FLOOD_BITS }.check()?;
        let maps = terms.iter().zip(&masks).map(|(term, &masks)| MapOf {
            map: &term.map,
            contents: Contents::Integers(masks),
            weights: term.weights,
        });
        let (maps, description) = (maps.collect::<Vec<_>>(), plan.description());
        let deployment = Deployment {
            key: plan.key,
            batch: description.batch,
            lanes: description.lanes,
            prefer: description.prefer,
        };
        let contents = Contents::Residues(flood);
        let layout = match &maps[..] {
            [] => Layout::nothing(contents, deployment)?,
            maps => Layout::cheapest(
                maps,
                Output { shape: &segment.shape, contents, correction: None },
                deployment,
            )?,
        };
        let up =
            |&(at, up): &(&usize, &SlotLayout)| header(up, segment.terms[*at].map.input(), description.batch);
        let ups: usize = multiplied.iter().zip(&layout.ups).map(|it| up(&it).ciphertexts()).sum();
        let down = header(&layout.down, &segment.shape, description.batch).ciphertexts();
        let down = if multiplied.is_empty() { 0 } else { down };

        let (shares, values) = (shares_of(ring)?, segment.shape.elements());
        let inputs = segment.terms.iter().map(|term| shares.packed_bytes(term.map.input().elements()));
        let behind = match &plan.integer_steps[index] {
            Some(Lowering { step, maxima, .. }) => {
                let readers = readers(plan, index, rings)?;
                Behind::Step { step: step.clone(), maxima: maxima.clone(), readers }
            }
            None if reveal == Reveal::Class => Behind::Class,
            None => Behind::Sums,
        };
        let mut own = Self {
            name: segment.name.clone(),
            ring,
            flood,
            multiplied,
            ciphertexts_up: ups,
            ciphertexts_down: down,
            layout,
            ands: 0,
            tables: 0,
            transfers: 0,
            shares: inputs.sum(),
            answer: 0,
            client_bytes: 0,
            server_bytes: 0,
            shared: shares,
            values,
            behind,
            result_bits: 0,
            circuit_ands: 0,
        };
        own.count();
        let masks: usize = segment.terms.iter().map(|term| term.map.input().elements()).sum();
        let labels = own.labels(own.circuits()).saturating_mul(LABEL_BYTES);
        own.client_bytes = own.tables.saturating_add(labels).saturating_add(WORD_BYTES * (masks + values));
        let results = own.reader_rings().count() * own.circuits();
        own.server_bytes = WORD_BYTES * (values + results);
        Ok(own)
    }

    /// Counts what its circuits take.
    fn count(&mut self) {
        let mut clear = Clear::new(0);
        let sums: Vec<_> = (0..self.taps()).map(|_| sum_of_shares(&mut clear, self.ring)).collect();
        self.result_bits = match &self.behind {
            Behind::Sums => 0,
            Behind::Step { .. } | Behind::Class => self.result(&mut clear, &sums).wires.len(),
        };
        self.circuit_ands = clear.ands();
        self.ands = self.circuit_ands.saturating_mul(self.circuits());
        self.transfers = self.blocks().map(|circuits| extension_bytes(self.labels(circuits.len()))).sum();
        self.tables = self.blocks().map(|circuits| self.table_bytes(circuits.len())).sum();
        self.answer = match self.behind {
            Behind::Sums => self.shared.packed_bytes(self.values),
            Behind::Step { .. } | Behind::Class => self.labels(self.circuits()).saturating_mul(LABEL_BYTES),
        };
    }

    /// Returns how many circuits there are: one for each result.
    pub(crate) fn circuits(&self) -> usize {
        match &self.behind {
            Behind::Step { maxima, .. } => {
                maxima.as_ref().map_or(self.values, |maxima| maxima.windows().len())
            }
            Behind::Class => 1,
            Behind::Sums => 0,
        }
    }

    /// Returns how many sums go into each.
    pub(crate) fn taps(&self) -> usize {
        match &self.behind {
            Behind::Step { maxima, .. } => maxima.as_ref().map_or(1, Maxima::taps),
            Behind::Class => self.values,
            Behind::Sums => 0,
        }
    }

    /// The rings in which the circuit's results go on, reader by reader.
    pub(crate) fn reader_rings(&self) -> impl Iterator<Item = Ring> + '_ {
        let readers = match &self.behind {
            Behind::Step { readers, .. } => &readers[..],
            Behind::Class | Behind::Sums => &[],
        };
        readers.iter().map(|reader| reader.ring)
    }

    /// Returns the labels that either side's shares have in so many circuits.
    pub(crate) fn labels(&self, circuits: usize) -> usize {
        circuits.saturating_mul(self.taps()).saturating_mul(self.ring.bits() as usize)
    }

    /// Returns what a circuit makes of its sums.
    pub(crate) fn result<B: Bits>(&self, bits: &mut B, sums: &[Vec<B::Wire>]) -> StepWires<B::Wire> {
        match (&self.behind, sums) {
            (Behind::Step { step, .. }, [sum]) => step.circuit(bits, sum),
            (Behind::Step { step, .. }, [first, rest @ ..]) => {
                // Numbers without a sign are in the same order as what they stand for.
                let mut largest = circuits::offset_binary(bits, first);
                for sum in rest {
                    let sum = circuits::offset_binary(bits, sum);
                    largest = circuits::max(bits, &largest, &sum);
                }
                let largest = circuits::offset_binary(bits, &largest);
                step.circuit(bits, &largest)
            }
            _ => StepWires { wires: circuits::argmax(bits, sums), signed: false, base: 0 },
        }
    }

    /// Returns the bytes of the tables of a block of so many circuits.
    pub(crate) fn table_bytes(&self, circuits: usize) -> usize {
        let results = match &self.behind {
            Behind::Step { readers, .. } => {
                let bytes = |reader: &Reader| projection_bytes(self.result_bits, circuits, reader.ring);
                readers.iter().map(bytes).sum()
            }
            Behind::Class => reveal_bytes(self.result_bits, circuits),
            Behind::Sums => return 0,
        };
        let ands = self.circuit_ands.saturating_mul(circuits);
        START_BYTES.saturating_add(ands.saturating_mul(AND_BYTES)).saturating_add(results)
    }

    /// Returns the circuits that are garbled together, block by block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let each = self.circuit_ands.saturating_mul(AND_BYTES);
        let (circuits, most) = (self.circuits(), (BLOCK_BYTES / each.max(1)).clamp(1, BLOCK));
        (0..circuits).step_by(most).map(move |start| start..circuits.min(start + most))
    }
}

/// The terms that read a segment's results.
fn readers(plan: &Plan, index: usize, rings: &[RingBits]) -> Result<Vec<Reader>, Error> {
    let output = plan.integer_steps[index].as_ref().map(|lowering| lowering.output);
    let mut readers = vec![];
    for (segment, own) in plan.segments.iter().enumerate() {
        for (term, _) in own.terms.iter().enumerate().filter(|(_, term)| Some(term.source) == output) {
            readers.push(Reader { segment, term, ring: shares_of(rings[segment])? });
        }
    }
    Ok(readers)
}

/// Masks of a term's inputs: uniform among the ring's signed numbers. The scale says that terms can be added.
pub(crate) fn masks_of(ring: RingBits, term: &Term) -> Result<Format, Error> {
    Format::integers(1 << (ring.bits() - 1))?.with_scale_bits(term.format.scale_bits())
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
