//! What a client does before there is an image: masks, their sums, and the labels of its shares of them.

use std::collections::VecDeque;
use std::ops::Range;

use gelu_garble::LabelReceiver;
use gelu_tensor::paillier::SecretKey;
use gelu_tensor::{Decryption, Encryption, Error, FixedTensor};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::running::{Running, unexpected};
use super::{Block, Event, Message, Position, Prepared, SessionError};
use crate::infer::hidden::circuit::add_multiples;
use crate::infer::hidden::material::{Preparation, PreparedBlock, PreparedSegment};
use crate::peer::exchange::Outgoing;
use crate::peer::{Expected, Part};
use crate::plan::{HiddenPlan, HiddenSegment, Plan, masks_of};

/// Queries that are prepared together.
pub(super) struct Preparing {
    pub(super) preparation: Preparation,
    /// What is to be sent: of which segment and term.
    pub(super) masks: VecDeque<(u32, u32, Outgoing)>,
    /// Segments whose sums have come, and what has come of the next.
    pub(super) summed: usize,
    pub(super) sums: Option<Decryption>,
    /// The circuits whose choices are to be sent, and those whose tables are to come.
    pub(super) blocks: VecDeque<(Block, Range<usize>)>,
    pub(super) awaited: VecDeque<(Block, Range<usize>)>,
    pub(super) prepared: Vec<Prepared>,
}

impl Running {
    /// Takes what belongs to a preparation.
    pub(super) fn prepared(
        &mut self,
        message: Message,
        key: &SecretKey,
    ) -> Result<Option<Event>, SessionError> {
        let Some(preparing) = &mut self.preparing else {
            return Err(unexpected(Expected::Nothing, &message));
        };
        let queries = preparing.prepared.len();
        let part = Part::Sums { segment: preparing.summed as u32 };
        let round = preparing.preparation.number;
        match message {
            Message::Tensor { position, index, ciphertexts }
                if preparing.summed < self.hidden.segments().len()
                    && position == (Position { session: self.session, round, part }) =>
            {
                let segment = preparing.summed;
                let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
                let own = &self.hidden.segments()[segment];
                let header = || own.down_header(&self.plan.segments()[segment], queries);
                let mut sums = match preparing.sums.take() {
                    Some(sums) => sums,
                    None => Decryption::new(key.public_key(), header()).map_err(in_segment)?,
                };
                sums.push(index, &ciphertexts, key).map_err(in_segment)?;
                if !sums.is_complete() {
                    preparing.sums = Some(sums);
                    return Ok(None);
                }
                let sums = sums.finish_residues().map_err(in_segment)?;
                preparing.keep_sums((&self.plan, own), &sums).map_err(in_segment)?;
                preparing.sum_multiples((&self.plan, &self.hidden))?;
            }
            Message::Tables { block, tables }
                if preparing.awaited.front().is_some_and(|(due, _)| *due == block) =>
            {
                let Some((_, circuits)) = preparing.awaited.pop_front() else { return Ok(None) };
                let own = &self.hidden.segments()[block.segment as usize];
                let (expected, found) = (own.table_bytes(circuits.len()), tables.len());
                if expected != found {
                    let source = gelu_garble::Error::Length { what: "bytes of tables", expected, found };
                    return Err(SessionError::garbling(block.segment)(source));
                }
                let prepared = &mut preparing.prepared[preparing.preparation.index(block.query)];
                let blocks = &mut prepared.segments[block.segment as usize].blocks;
                if let Some(Some(block)) = blocks.get_mut(block.block as usize) {
                    block.tables = tables;
                }
            }
            Message::Tables { .. } => return Err(unexpected(Expected::Tables, &message)),
            other => return Err(unexpected(Expected::Tensor { round, part }, &other)),
        }
        let is_complete = preparing.summed == self.hidden.segments().len()
            && preparing.blocks.is_empty()
            && preparing.awaited.is_empty();
        if is_complete && let Some(preparing) = self.preparing.take() {
            self.stock.extend(preparing.prepared);
            return Ok(Some(Event::Prepared));
        }
        Ok(None)
    }

    /// Draws the masks of some queries.
    pub(super) fn new_preparation(
        &mut self,
        key: &SecretKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Preparing, SessionError> {
        let (number, queries) = (self.next_preparation, self.plan.description().batch);
        self.next_preparation = number.wrapping_add(1);
        let preparation = Preparation { number, queries };
        let new = |query| Prepared { query, segments: vec![] };
        let mut prepared: Vec<Prepared> = preparation.queries().map(new).collect();
        let mut masks = VecDeque::new();
        for (segment, (own, planned)) in (0..).zip(self.hidden.segments().iter().zip(self.plan.segments())) {
            let in_segment = |source| SessionError::Numbers { segment, source };
            prepared.iter_mut().for_each(|query| query.segments.push(PreparedSegment::default()));
            for (index, term) in planned.terms.iter().enumerate() {
                let elements = term.map.input().elements();
                let drawn = (0..queries * elements).map(|_| own.shared.wrap(rng.next_u64()));
                let drawn: Zeroizing<Vec<u64>> = Zeroizing::new(drawn.collect());
                for (query, masks) in prepared.iter_mut().zip(drawn.chunks_exact(elements)) {
                    query.segments[segment as usize].masks.push(Zeroizing::new(masks.to_vec()));
                }
                let Some(at) = own.multiplied.iter().position(|&term| term == index) else { continue };
                let signed = drawn.iter().map(|&mask| own.shared.signed(mask)).collect();
                let format = masks_of(own.ring, term).map_err(in_segment)?;
                let encryption = FixedTensor::new(term.map.input().clone(), format, signed)
                    .and_then(|values| Encryption::new(values, &own.layout.ups[at], key.public_key()))
                    .map_err(in_segment)?;
                masks.push_back((segment, at as u32, Outgoing::new(encryption)));
            }
        }
        let blocks = preparation.blocks(&self.hidden);
        let awaited = VecDeque::new();
        let mut new = Preparing { preparation, masks, summed: 0, sums: None, blocks, awaited, prepared };
        new.sum_multiples((&self.plan, &self.hidden))?;
        Ok(new)
    }
}

impl Preparing {
    /// Takes the sums of the next segment, of all queries.
    fn keep_sums(&mut self, (plan, own): (&Plan, &HiddenSegment), sums: &[u64]) -> Result<(), Error> {
        let segment = self.summed;
        for (prepared, sums) in self.prepared.iter_mut().zip(sums.chunks_exact(own.values)) {
            let prepared = &mut prepared.segments[segment];
            prepared.sums = Zeroizing::new(sums.to_vec());
            add_multiples(&plan.segments()[segment], &prepared.masks, &mut prepared.sums)?;
            prepared.sums.iter_mut().for_each(|sum| *sum = own.shared.wrap(*sum));
        }
        self.summed += 1;
        Ok(())
    }

    /// Goes on to the next segment of which anything is multiplied under the key.
    fn sum_multiples(&mut self, (plan, hidden): (&Plan, &HiddenPlan)) -> Result<(), SessionError> {
        while let Some(own) = hidden.segments().get(self.summed)
            && own.multiplied.is_empty()
        {
            let segment = self.summed as u32;
            let nothing = vec![0; own.values * self.prepared.len()];
            let kept = self.keep_sums((plan, own), &nothing);
            kept.map_err(|source| SessionError::Numbers { segment, source })?;
        }
        Ok(())
    }

    /// The choices for the next block.
    pub(super) fn choose(
        &mut self,
        hidden: &HiddenPlan,
        receiver: &mut LabelReceiver,
    ) -> Result<Option<Message>, SessionError> {
        let Some((block, circuits)) = self.blocks.pop_front() else { return Ok(None) };
        let own = &hidden.segments()[block.segment as usize];
        let prepared = &mut self.prepared[self.preparation.index(block.query)];
        let prepared = &mut prepared.segments[block.segment as usize];
        let choices = own.choices(&prepared.sums, circuits.clone());
        let extended = choices.and_then(|choices| receiver.extend(&choices));
        let (choices, labels) = extended.map_err(SessionError::garbling(block.segment))?;
        prepared.blocks.push(Some(PreparedBlock { labels, tables: vec![] }));
        self.awaited.push_back((block, circuits));
        Ok(Some(Message::Choices { block, choices }))
    }
}
