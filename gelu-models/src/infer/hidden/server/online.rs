//! What a server does with an image: a segment on shares, and the labels of its own.

use std::mem;

use gelu_garble::Labels;
use zeroize::Zeroizing;

use super::{Block, Computing, Message, SegmentWeights, SessionError};
use crate::infer::hidden::circuit::shares_of_term;
use crate::infer::hidden::material::Material;
use crate::plan::Behind;

/// A query with its image.
pub(super) struct Online {
    pub(super) query: u64,
    pub(super) material: Material,
    /// The segment whose shares are due.
    pub(super) segment: usize,
    /// Whether they have come.
    pub(super) begun: bool,
}

pub(super) struct OnlineJob {
    pub(super) query: u64,
    pub(super) segment: usize,
    pub(super) inputs: Vec<Zeroizing<Vec<i64>>>,
}

impl Computing {
    /// Whether a query may come with its shares of a segment now.
    pub(super) fn is_due(&self, query: u64, segment: usize) -> bool {
        match self.online.iter().find(|online| online.query == query) {
            Some(online) => online.segment == segment && !online.begun,
            None => segment == 0 && query >= self.next_query && self.stock.contains_key(&query),
        }
    }

    pub(super) fn shares(
        &mut self,
        (query, segment): (u64, usize),
        shares: &[u8],
    ) -> Result<(), SessionError> {
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        if segment == 0 {
            if let Some(gate) = &self.gate {
                gate.admit(1)?;
            }
            // Numbers only rise: what was prepared for those before will not be used.
            self.stock = self.stock.split_off(&query);
            self.next_query = query + 1;
            let Some(material) = self.stock.remove(&query) else { return Ok(()) };
            self.online.push(Online { query, material, segment, begun: false });
        }
        let Some(online) = self.online.iter_mut().find(|online| online.query == query) else {
            return Ok(());
        };
        online.begun = true;
        let (plan, own) = (self.program.plan(), &self.hidden.segments()[segment]);
        let (mut rest, mut inputs) = (shares, vec![]);
        for (at, term) in plan.segments()[segment].terms.iter().enumerate() {
            let count = term.map.input().elements();
            let (part, others) = rest.split_at(rest.len().min(own.shared.packed_bytes(count)));
            rest = others;
            let part = own.shared.unpack(part, count).map_err(SessionError::garbling(segment as u32))?;
            let mut part = Zeroizing::new(part);
            if let Some((from, reader)) = self.hidden.source(segment, at) {
                let results = &online.material.segments[from].results[reader];
                let results = shares_of_term(term, results).map_err(in_segment)?;
                part.iter_mut().zip(results.iter()).for_each(|(x, y)| *x = x.wrapping_add(*y));
            }
            inputs.push(Zeroizing::new(part.iter().map(|&x| x as i64).collect()));
        }
        if !rest.is_empty() {
            let (expected, found) = (shares.len() - rest.len(), shares.len());
            let source = gelu_garble::Error::Length { what: "bytes of shares", expected, found };
            return Err(SessionError::garbling(segment as u32)(source));
        }
        self.jobs.push_back(OnlineJob { query, segment, inputs });
        Ok(())
    }

    /// The labels of the server's shares of a segment's sums; at the end those shares themselves, if the client is to have them.
    pub(super) fn answer(&mut self, job: &OnlineJob) -> Result<(), SessionError> {
        let &OnlineJob { query, segment, .. } = job;
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        let own = &self.hidden.segments()[segment];
        let Some(at) = self.online.iter().position(|online| online.query == query) else { return Ok(()) };
        let material = mem::take(&mut self.online[at].material.segments[segment]);
        let SegmentWeights { terms: weights, bias } = &self.weights[segment];
        let masked = material.masks.iter().zip(bias);
        let mut shares: Zeroizing<Vec<u64>> =
            Zeroizing::new(masked.map(|(mask, bias)| bias.wrapping_sub(*mask)).collect());
        let terms = self.program.plan().segments()[segment].terms.iter().zip(weights);
        for ((term, weights), input) in terms.zip(&job.inputs) {
            let sums = Zeroizing::new(term.map.apply_wrapping(weights, input).map_err(in_segment)?);
            shares.iter_mut().zip(sums.iter()).for_each(|(share, sum)| *share = share.wrapping_add(*sum));
        }
        shares.iter_mut().for_each(|share| *share = own.shared.wrap(*share));
        for ((block, circuits), seed) in (0..).zip(own.blocks()).zip(&material.seeds) {
            let labels = || {
                let values = own.choices(&shares, circuits.clone())?;
                let zeros = Labels::of_seed(seed, own.labels(circuits.len()));
                self.delta.active(&zeros, &values)
            };
            let labels = labels().map_err(SessionError::garbling(segment as u32))?.to_le_bytes();
            let block = Block { query, segment: segment as u32, block };
            self.outgoing.push_back(Message::Labels { block, labels });
        }
        if matches!(own.behind, Behind::Sums) {
            self.outgoing.push_back(Message::Sums {
                query,
                segment: segment as u32,
                shares: own.shared.pack(&shares),
            });
        }
        self.online[at].segment += 1;
        self.online[at].begun = false;
        // Its results are what the next segments need.
        self.online[at].material.segments[segment].results = material.results;
        if self.online[at].segment == self.hidden.segments().len() {
            self.online.remove(at);
        }
        Ok(())
    }
}
