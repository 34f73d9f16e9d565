//! A client's accepted session: which message is for what, and what is said next.

use std::collections::VecDeque;
use std::sync::Arc;

use gelu_garble::LabelReceiver;
use gelu_tensor::paillier::{Randomizer, SecretKey};
use rand::CryptoRng;

use super::ahead::Preparing;
use super::online::{Batch, Online};
use super::{Event, Message, Position, Prepared, SessionError, SessionId};
use crate::peer::{Expected, Part};
use crate::plan::{Behind, HiddenPlan, Plan};

pub(super) struct Running {
    pub(super) session: SessionId,
    pub(super) plan: Arc<Plan>,
    pub(super) hidden: Arc<HiddenPlan>,
    pub(super) receiver: LabelReceiver,
    pub(super) outgoing: VecDeque<Message>,
    /// Preparations that were asked for and have not begun.
    pub(super) wanted: u32,
    pub(super) preparing: Option<Preparing>,
    pub(super) next_preparation: u32,
    pub(super) stock: VecDeque<Prepared>,
    /// How many queries may be prepared and not used up.
    pub(super) most: usize,
    pub(super) batch: Option<Batch>,
    pub(super) finishing: bool,
}

impl Running {
    pub(super) fn new(
        session: SessionId,
        (plan, hidden, most): (Plan, HiddenPlan, usize),
        receiver: LabelReceiver,
    ) -> Self {
        Self {
            session,
            plan: Arc::new(plan),
            hidden: Arc::new(hidden),
            receiver,
            outgoing: VecDeque::new(),
            wanted: 0,
            preparing: None,
            next_preparation: 0,
            stock: VecDeque::new(),
            most,
            batch: None,
            finishing: false,
        }
    }

    /// How many queries would be there, with those that images have now, after one preparation more than were asked for.
    pub(super) fn with_a_preparation_more(&self) -> usize {
        let coming = self.wanted as usize + usize::from(self.preparing.is_some()) + 1;
        let of_images = self.batch.as_ref().map_or(0, |batch| batch.online.len());
        let coming = coming.saturating_mul(self.plan.description().batch);
        coming.saturating_add(self.stock.len() + of_images)
    }

    pub(super) fn take(&mut self, message: Message, key: &SecretKey) -> Result<Option<Event>, SessionError> {
        match message {
            Message::Tensor { .. } | Message::Tables { .. } => self.prepared(message, key),
            Message::Labels { block, ref labels } => {
                let due = self.online(block.query).is_some_and(|(_, online)| {
                    (online.segment, online.blocks) == (block.segment as usize, block.block)
                });
                match due {
                    true => self.evaluate(block, labels),
                    false => Err(unexpected(Expected::Labels, &message)),
                }
            }
            Message::Sums { query, segment, ref shares } => {
                let last = self.hidden.segments().len() - 1;
                let is_last = matches!(self.hidden.segments()[last].behind, Behind::Sums);
                let is_last = is_last && segment as usize == last;
                match self.online(query).is_some_and(|(_, online)| is_last && online.segment == last) {
                    true => self.last_sums(query, shares),
                    false => Err(unexpected(Expected::Labels, &message)),
                }
            }
            other => Err(unexpected(Expected::Nothing, &other)),
        }
    }

    pub(super) fn online(&mut self, query: u64) -> Option<(usize, &mut Online)> {
        let online = self.batch.as_mut()?.online.iter_mut().enumerate();
        online.into_iter().find(|(_, online)| online.prepared.query == query)
    }

    /// What is to be said next: for an image first.
    pub(super) fn next_message(
        &mut self,
        (key, randomizer): (&SecretKey, &dyn Randomizer),
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Message>, SessionError> {
        self.begin_images()?;
        if let Some(message) = self.outgoing.pop_front() {
            return Ok(Some(message));
        }
        if self.preparing.is_none() && self.wanted > 0 {
            self.wanted -= 1;
            self.preparing = Some(self.new_preparation(key, rng)?);
        }
        let Some(preparing) = &mut self.preparing else { return Ok(None) };
        // Choices first: the server garbles while the client encrypts.
        if let Some((block, _)) = preparing.blocks.front()
            && (block.segment as usize) < preparing.summed
        {
            return preparing.choose(&self.hidden, &mut self.receiver);
        }
        let Some((segment, term, masks)) = preparing.masks.front_mut() else { return Ok(None) };
        let part = Part::Inputs { segment: *segment, term: *term };
        let position = Position { session: self.session, round: preparing.preparation.number, part };
        let message = masks.next(randomizer, rng);
        let message = message.map(|(index, ciphertexts)| Message::Tensor { position, index, ciphertexts });
        if masks.is_complete() {
            preparing.masks.pop_front();
        }
        Ok(message)
    }
}

pub(super) fn unexpected(expected: Expected, message: &Message) -> SessionError {
    SessionError::Unexpected { expected, found: message.to_string() }
}
