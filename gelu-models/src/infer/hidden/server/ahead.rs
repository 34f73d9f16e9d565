//! What a server does before there is an image: products of masks, and circuits.

use std::collections::VecDeque;
use std::ops::Range;

use gelu_garble::{Delta, Garbler, LabelSeed, Labels};
use gelu_tensor::{EncChunk, EncTensorBuilder};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{Block, Computing, Message, Position, SessionError};
use crate::infer::hidden::material::{Material, Preparation};
use crate::peer::Part;
use crate::peer::exchange::Incoming;
use crate::plan::{Behind, HiddenPlan};

/// Queries that are prepared together.
pub(super) struct Preparing {
    pub(super) preparation: Preparation,
    /// The segments whose masks came, in order; of the last, chunks may be missing.
    pub(super) jobs: VecDeque<Job>,
    /// Segments whose masks have begun to come.
    pub(super) begun: usize,
    /// The circuits whose choices are yet to come.
    pub(super) blocks: VecDeque<(Block, Range<usize>)>,
    /// Those that are yet to be garbled, with the labels of zero of the client's shares.
    pub(super) garbling: VecDeque<(Block, Range<usize>, Labels)>,
    pub(super) materials: Vec<Material>,
}

/// A segment on masks.
pub(super) struct Job {
    pub(super) segment: usize,
    pub(super) inputs: Incoming,
    pub(super) masks: Zeroizing<Vec<u64>>,
}

impl Computing {
    /// Whether the masks of a term may come now; a preparation begins with the first.
    pub(super) fn begin(
        &mut self,
        (round, segment, term): (u32, usize, usize),
    ) -> Result<bool, SessionError> {
        let queries = self.program.plan().description().batch;
        if self.preparing.is_none() {
            if (round, segment, term) != (self.next_preparation, 0, 0) {
                return Ok(false);
            }
            let expected = self.hidden.most_prepared(usize::MAX);
            let found = self.stock.len() + self.online.len() + queries;
            if found > expected {
                return Err(SessionError::Prepared { expected, found });
            }
            self.next_preparation = round.wrapping_add(1);
            let materials = (0..queries).map(|_| Material::of(&self.hidden)).collect();
            let preparation = Preparation { number: round, queries };
            let blocks = preparation.blocks(&self.hidden);
            let (jobs, garbling) = (VecDeque::new(), VecDeque::new());
            let mut preparing = Preparing { preparation, jobs, begun: 0, blocks, garbling, materials };
            preparing.skip_multiples(&self.hidden);
            self.preparing = Some(preparing);
        }
        let Some(preparing) = &mut self.preparing else { return Ok(false) };
        if preparing.jobs.back().is_none_or(|job| job.inputs.due().is_none()) {
            if segment != preparing.begun || segment >= self.hidden.segments().len() {
                return Ok(false);
            }
            preparing.begun += 1;
            preparing.skip_multiples(&self.hidden);
            let inputs = Incoming::new(self.hidden.segments()[segment].multiplied.len());
            preparing.jobs.push_back(Job { segment, inputs, masks: Zeroizing::default() });
        }
        let due = preparing.jobs.back().map(|job| (job.segment, job.inputs.due()));
        Ok(preparing.preparation.number == round && due == Some((segment, Some(term))))
    }

    pub(super) fn masks(
        &mut self,
        (segment, term): (usize, usize),
        (index, ciphertexts): (u32, &EncChunk),
    ) -> Result<(), SessionError> {
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        let queries = self.program.plan().description().batch;
        let own = &self.hidden.segments()[segment];
        let planned = &self.program.plan().segments()[segment];
        let Some(job) = self.preparing.as_mut().and_then(|preparing| preparing.jobs.back_mut()) else {
            return Ok(());
        };
        let begin = || {
            let groups = own.layout.groups_of_part();
            EncTensorBuilder::new(&self.key, own.up_header(planned, term, queries), groups)
        };
        job.inputs.push((index, ciphertexts), begin).map_err(in_segment)
    }

    pub(super) fn choices(&mut self, block: Block, choices: &[u8]) -> Result<(), SessionError> {
        let Some(preparing) = &mut self.preparing else { return Ok(()) };
        let Some((_, circuits)) = preparing.blocks.pop_front() else { return Ok(()) };
        let labels = self.hidden.segments()[block.segment as usize].labels(circuits.len());
        let zeros = self.sender.extend(choices, labels).map_err(SessionError::garbling(block.segment))?;
        preparing.garbling.push_back((block, circuits, zeros));
        Ok(())
    }

    /// A segment on the next masks, if they have come: products, masks of the server's own, re-randomization.
    pub(super) fn multiply(&mut self, rng: &mut dyn CryptoRng) -> Result<(), SessionError> {
        let queries = self.program.plan().description().batch;
        let Some(preparing) = &mut self.preparing else { return Ok(()) };
        let Some(job) = preparing.jobs.front_mut() else { return Ok(()) };
        let Some((at, masks)) = job.inputs.next_part() else { return Ok(()) };
        let index = job.segment;
        let own = &self.hidden.segments()[index];
        let in_segment = |source| SessionError::Numbers { segment: index as u32, source };
        let Some((_, part)) = own.layout.each_part().nth(at) else { return Ok(()) };
        let exponents = self.key.hiding_exponents(rng, part.hiding);
        let (sums, fresh) =
            rayon::join(|| self.program.sums_of_masks(index, own, (part, &masks)), || exponents.powers());
        // For all queries at once: a part may have some columns of each.
        if job.masks.is_empty() {
            let random = (0..queries * own.values).map(|_| own.shared.wrap(rng.next_u64()));
            job.masks = Zeroizing::new(random.collect());
        }
        let sums = sums.and_then(|sums| sums.flood(&job.masks, rng)).map_err(in_segment)?;
        let position = Position {
            session: self.session,
            round: preparing.preparation.number,
            part: Part::Sums { segment: index as u32 },
        };
        let chunks = job.inputs.number(sums.rerandomize_with(fresh, rng).chunks());
        let message = |(index, ciphertexts)| Message::Tensor { position, index, ciphertexts };
        self.outgoing.extend(chunks.into_iter().map(message));
        if job.inputs.is_answered() {
            for (material, masks) in preparing.materials.iter_mut().zip(job.masks.chunks_exact(own.values)) {
                material.segments[index].masks = Zeroizing::new(masks.to_vec());
            }
            preparing.jobs.pop_front();
        }
        Ok(())
    }

    /// Takes a preparation that is complete into stock.
    pub(super) fn store(&mut self) {
        let segments = self.hidden.segments().len();
        let is_complete = |preparing: &Preparing| {
            let jobs = preparing.begun == segments && preparing.jobs.is_empty();
            jobs && preparing.blocks.is_empty() && preparing.garbling.is_empty()
        };
        if self.preparing.as_ref().is_some_and(is_complete)
            && let Some(preparing) = self.preparing.take()
        {
            self.stock.extend(preparing.preparation.queries().zip(preparing.materials));
        }
    }
}

impl Preparing {
    /// Goes on to the next segment whose masks come; of those before nothing of the client's is to be hidden.
    fn skip_multiples(&mut self, hidden: &HiddenPlan) {
        while let Some(own) = hidden.segments().get(self.begun)
            && own.multiplied.is_empty()
        {
            let materials = self.materials.iter_mut();
            materials.for_each(|material| {
                material.segments[self.begun].masks = Zeroizing::new(vec![0; own.values]);
            });
            self.begun += 1;
        }
    }

    /// Garbles a block of circuits.
    pub(super) fn garble(
        &mut self,
        (delta, hidden): (&Delta, &HiddenPlan),
        (block, circuits, zeros): (Block, Range<usize>, &Labels),
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, gelu_garble::Error> {
        let own = &hidden.segments()[block.segment as usize];
        let seed = LabelSeed::random(rng);
        let others = Labels::of_seed(&seed, own.labels(circuits.len()));
        let mut garbler = Garbler::new(delta, circuits.len(), rng)?;
        garbler.reserve(own.ands / own.circuits().max(1));
        let [a, b] = [zeros, &others].map(|zeros| garbler.input(zeros));
        let result = own.circuit(&mut garbler, &a?, &b?);
        let material = &mut self.materials[self.preparation.index(block.query)];
        let material = &mut material.segments[block.segment as usize];
        material.seeds.push(seed);
        if matches!(own.behind, Behind::Class) {
            garbler.reveal(&result.wires);
        }
        for (ring, shares) in own.reader_rings().zip(&mut material.results) {
            let share = garbler.project(&result.wires, result.signed, ring);
            shares.extend(share.iter().map(|share| ring.wrap(share.wrapping_add(result.base as u64))));
        }
        garbler.finish()
    }
}
