//! What a client does with an image: shares of what goes into a segment, and circuits.

use std::mem;
use std::sync::Arc;

use gelu_garble::{Evaluator, Labels};
use gelu_tensor::{Error, FixedTensor};
use ndarray::{ArrayView, Dimension};
use zeroize::Zeroizing;

use super::running::Running;
use super::{Answer, Block, Event, Message, Prepared, SessionError};
use crate::infer::hidden::circuit::shares_of_term;
use crate::plan::{Behind, Functions, HiddenPlan, HiddenSegment, Need, Plan, Reveal, Run};

/// Images on their way.
pub(super) struct Batch {
    pub(super) run: Run,
    /// Of each segment's terms the inputs that follow from the images alone.
    pub(super) known: Vec<Vec<Option<FixedTensor>>>,
    /// The next image.
    pub(super) next: usize,
    pub(super) online: Vec<Online>,
    /// Of each image the last sums, or its class.
    pub(super) results: Vec<Option<Zeroizing<Vec<i64>>>>,
}

/// An image with a prepared query.
pub(super) struct Online {
    pub(super) image: usize,
    pub(super) prepared: Prepared,
    pub(super) segment: usize,
    /// Blocks of the segment that were evaluated.
    pub(super) blocks: u32,
    /// Of each segment so far the shares of its results, reader by reader.
    pub(super) results: Vec<Vec<Zeroizing<Vec<u64>>>>,
}

impl Batch {
    /// Quantizes images.
    pub(super) fn start<D: Dimension>(
        (plan, hidden): (&Arc<Plan>, &HiddenPlan),
        functions: Functions,
        images: ArrayView<'_, f32, D>,
    ) -> Result<Self, Error> {
        let count = images.shape().first().copied().unwrap_or(0);
        let (mut run, need) = Run::start(Arc::clone(plan), functions, images)?;
        let mut first = match need {
            Need::Sums { inputs, .. } => inputs,
            Need::Nothing => vec![],
        }
        .into_iter();
        let mut known = vec![];
        for (segment, own) in plan.segments().iter().enumerate() {
            let mut inputs = vec![];
            for (at, term) in own.terms.iter().enumerate() {
                inputs.push(match (segment, hidden.source(segment, at)) {
                    (0, _) => first.next(),
                    (_, None) => Some(run.known(term)?),
                    (_, Some(_)) => None,
                });
            }
            known.push(inputs);
        }
        let results = (0..count).map(|_| None).collect();
        Ok(Self { run, known, next: 0, online: vec![], results })
    }
}

impl Running {
    /// Evaluates a block, whose material is spent by it.
    pub(super) fn evaluate(&mut self, block: Block, labels: &[u8]) -> Result<Option<Event>, SessionError> {
        let segment = block.segment as usize;
        let hidden = Arc::clone(&self.hidden);
        let own = &hidden.segments()[segment];
        let circuits = own.blocks().nth(block.block as usize).unwrap_or_default().len();
        let Some((at, online)) = self.online(block.query) else { return Ok(None) };
        let blocks = &mut online.prepared.segments[segment].blocks;
        let Some(spent) = blocks.get_mut(block.block as usize).and_then(Option::take) else {
            return Ok(None);
        };
        online.blocks += 1;
        let mut evaluate = || {
            let mut evaluator = Evaluator::new(&spent.tables, circuits)?;
            let labels = Labels::from_le_bytes(labels, own.labels(circuits))?;
            let [a, b] = [&spent.labels, &labels].map(|labels| evaluator.input(labels));
            let result = own.circuit(&mut evaluator, &a?, &b?);
            let class = match own.behind {
                Behind::Class => evaluator.reveal(&result.wires).first().copied(),
                Behind::Step { .. } | Behind::Sums => None,
            };
            for (ring, results) in own.reader_rings().zip(&mut online.results[segment]) {
                results.extend(evaluator.project(&result.wires, ring).iter());
            }
            evaluator.finish()?;
            Ok(class)
        };
        let class = evaluate().map_err(SessionError::garbling(block.segment))?;
        if let Some(class) = class {
            return self.answered(at, Zeroizing::new(vec![class as i64]));
        }
        if own.blocks().count() == online.blocks as usize {
            (online.segment, online.blocks) = (segment + 1, 0);
            self.send_shares(at)?;
        }
        Ok(None)
    }

    pub(super) fn last_sums(&mut self, query: u64, shares: &[u8]) -> Result<Option<Event>, SessionError> {
        let last = self.hidden.segments().len() - 1;
        let (ring, values) = (self.hidden.segments()[last].shared, self.hidden.segments()[last].values);
        let others = ring.unpack(shares, values).map_err(SessionError::garbling(last as u32))?;
        let Some((at, online)) = self.online(query) else { return Ok(None) };
        let own = &online.prepared.segments[last].sums;
        let sums = own.iter().zip(&others).map(|(a, b)| ring.signed(ring.wrap(a.wrapping_add(*b))));
        let sums = Zeroizing::new(sums.collect());
        self.answered(at, sums)
    }

    /// Ends an image, and with the last the batch.
    fn answered(
        &mut self,
        online: usize,
        result: Zeroizing<Vec<i64>>,
    ) -> Result<Option<Event>, SessionError> {
        let Some(batch) = &mut self.batch else { return Ok(None) };
        let online = batch.online.remove(online);
        batch.results[online.image] = Some(result);
        if !batch.results.iter().all(Option::is_some) {
            return Ok(None);
        }
        let Some(Batch { mut run, results, .. }) = self.batch.take() else { return Ok(None) };
        let all: Vec<i64> = results.iter().flatten().flat_map(|result| result.iter().copied()).collect();
        if self.hidden.reveal() == Reveal::Class {
            let classes = all.into_iter().map(|class| class as usize).collect();
            return Ok(Some(Event::Done(Answer::Classes(classes))));
        }
        let last = self.plan.segments().len() - 1;
        let segment = &self.plan.segments()[last];
        let in_segment = |source| SessionError::Numbers { segment: last as u32, source };
        let sums = FixedTensor::new(segment.shape.clone(), segment.format, all).map_err(in_segment)?;
        run.take_last(sums).map_err(in_segment)?;
        let outcome = run.finish().map_err(in_segment)?;
        Ok(Some(Event::Done(Answer::Logits(Box::new(outcome)))))
    }

    /// Says an image's inputs of its next segment, less the masks.
    fn send_shares(&mut self, at: usize) -> Result<(), SessionError> {
        let Some(batch) = &mut self.batch else { return Ok(()) };
        let online = &mut batch.online[at];
        let segment = online.segment;
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        let (ring, terms) = (self.hidden.segments()[segment].shared, &self.plan.segments()[segment].terms);
        let masks = mem::take(&mut online.prepared.segments[segment].masks);
        let mut shares = vec![];
        for (index, (term, masks)) in terms.iter().zip(masks).enumerate() {
            let inputs = match (&batch.known[segment][index], self.hidden.source(segment, index)) {
                (Some(known), _) => {
                    let elements = term.map.input().elements();
                    let image = &known.values()[online.image * elements..][..elements];
                    Zeroizing::new(image.iter().map(|&value| value as u64).collect())
                }
                (None, Some((from, reader))) => {
                    shares_of_term(term, &online.results[from][reader]).map_err(in_segment)?
                }
                (None, None) => Zeroizing::default(),
            };
            let masked =
                inputs.iter().zip(masks.iter()).map(|(input, mask)| ring.wrap(input.wrapping_sub(*mask)));
            shares.extend(ring.pack(&masked.collect::<Vec<_>>()));
        }
        let (query, segment) = (online.prepared.query, segment as u32);
        self.outgoing.push_back(Message::Shares { query, segment, shares });
        Ok(())
    }

    /// Gives images the queries in stock, and asks for more where they are not enough and have room beside those in use.
    pub(super) fn begin_images(&mut self) -> Result<(), SessionError> {
        let has_room = self.with_a_preparation_more() <= self.most;
        while let Some(batch) = &mut self.batch
            && batch.next < batch.results.len()
        {
            let Some(prepared) = self.stock.pop_front() else {
                if self.preparing.is_none() && self.wanted == 0 && (has_room || batch.online.is_empty()) {
                    self.wanted = 1;
                }
                break;
            };
            let readers = |own: &HiddenSegment| own.reader_rings().map(|_| Zeroizing::default()).collect();
            let results = self.hidden.segments().iter().map(readers).collect();
            let image = batch.next;
            batch.next += 1;
            batch.online.push(Online { image, prepared, segment: 0, blocks: 0, results });
            let at = batch.online.len() - 1;
            self.send_shares(at)?;
        }
        Ok(())
    }
}
