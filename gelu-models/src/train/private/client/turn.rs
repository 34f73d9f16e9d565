//! What a client does within a turn: it takes answers, removes masks from them, and encrypts what its participant asks for.

use std::sync::Arc;

use gelu_tensor::paillier::Randomizer;
use gelu_tensor::{Decryption, EncChunk, EncRate, Encryption, FixedTensor};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::super::participant::{Need, Participant};
use super::super::{Description, Grant, Message, ParticipantState, Position, PrivateError, TrainPlan};
use super::{Awaited, Client, ClientTurn, Event, Member, Planned, Receipt, State};
use crate::peer::exchange::Outgoing;
use crate::peer::{Expected, Part};

impl Member {
    /// Enters a turn of which so many iterations are done: a new one, or the one that was interrupted.
    fn enter(&mut self, grant: Grant, done: u32) -> Result<(), PrivateError> {
        let is_at = |state: &ParticipantState| {
            state.turn.as_ref().is_some_and(|(kept, iterations, _)| (kept, *iterations) == (&grant, done))
        };
        self.before = None;
        // The server had taken what was being sent: the steps of an iteration, or those of a turn that is over.
        let next = self.next.take();
        if let Some((state, masks)) = next
            && !is_at(self.participant.state())
            && (is_at(&state) || state.turn.is_none())
        {
            self.participant.restore(state)?;
            self.masks = masks;
        }
        if is_at(self.participant.state()) {
            return Ok(());
        }
        if done > 0 {
            return Err(PrivateError::Grant("expected the turn that the client was in"));
        }
        self.masks.iter_mut().for_each(|mask| *mask = 0);
        self.participant.begin(grant)
    }
}

impl Client {
    pub(super) fn take(&mut self, message: Message) -> Result<Option<Event>, PrivateError> {
        let found = message.to_string();
        match (message, std::mem::replace(&mut self.state, State::Idle)) {
            (Message::Abort { reason }, _) => Err(PrivateError::Aborted(reason)),
            (Message::Turn { description, grant, done, key, rate }, State::Granting) => {
                key.check_same(rate.key())?;
                let rate = rate.on(self.key.public_key().backend())?;
                let key = rate.key().clone();
                let (own, server) = (self.key.public_key().size(), key.size());
                let planned = (description.client_key.size, description.server_key);
                for (expected, found) in [(planned.0, own), (planned.1, server)] {
                    if expected != found {
                        return Err(PrivateError::KeySize { expected, found });
                    }
                }
                let member = self.member(*description)?;
                let number = grant.turn;
                let rate = EncRate::new(&rate, member.plan.update_layout())?;
                member.enter(grant, done)?;
                member.turn = Some(ClientTurn { number, iteration: done, rate, server: key });
                self.state = State::Ready;
                Ok(Some(Event::Ready))
            }
            (Message::Tensor { position, index, ciphertexts }, State::Awaiting(awaited)) => {
                self.answer(position, (index, &ciphertexts), awaited)
            }
            (Message::Updated { turn, iteration }, state) => {
                let current = self.member.as_mut().and_then(|member| member.turn.as_mut());
                let Some(current) = current else {
                    return Err(PrivateError::Unexpected { expected: Expected::Nothing, found });
                };
                if (turn, iteration) == (current.number, current.iteration)
                    && matches!(state, State::Sent(Receipt::Steps))
                {
                    current.iteration += 1;
                    self.state = State::Ready;
                    return Ok(Some(Event::Ready));
                }
                if turn == current.number && iteration < current.iteration {
                    // Said twice, because the steps were sent twice.
                    self.state = state;
                    return Ok(None);
                }
                Err(PrivateError::Unexpected { expected: Expected::Updated, found })
            }
            (Message::Ended { turn }, State::Sent(Receipt::Total)) => {
                let member = self.member_mut()?;
                if member.turn.as_ref().map(|current| current.number) != Some(turn) {
                    return Err(PrivateError::Unexpected { expected: Expected::Ended, found });
                }
                member.participant.end();
                (member.turn, member.before) = (None, None);
                Ok(Some(Event::Ended))
            }
            (_, state) => {
                let expected = match state {
                    State::Idle | State::Ready | State::Stepped(_) | State::Masked(..) => Expected::Nothing,
                    State::Granting => Expected::Grant,
                    State::Awaiting(_) => Expected::Ciphertexts,
                    State::Sent(Receipt::Steps) => Expected::Updated,
                    State::Sent(Receipt::Total) => Expected::Ended,
                };
                Err(PrivateError::Unexpected { expected, found })
            }
        }
    }

    /// What is known of the run, from its description.
    pub(super) fn member(&mut self, description: Description) -> Result<&mut Member, PrivateError> {
        if self.member.as_ref().is_none_or(|member| member.plan.description() != &description) {
            if self.member.is_some() {
                return Err(PrivateError::Grant("expected the plan of the turns before"));
            }
            let plan = Arc::new(TrainPlan::new(description)?);
            let participant = Participant::new(plan.clone(), self.samples.clone(), self.config)?;
            let masks = Zeroizing::new(vec![0; plan.parameters()]);
            self.member = Some(Member { plan, participant, masks, turn: None, before: None, next: None });
        }
        self.member_mut()
    }

    pub(super) fn member_mut(&mut self) -> Result<&mut Member, PrivateError> {
        self.member.as_mut().ok_or(PrivateError::Bug("no turn is in progress"))
    }

    fn position(&mut self, part: Part) -> Result<Position, PrivateError> {
        let turn = self.member_mut()?.turn.as_ref().ok_or(PrivateError::Bug("no turn is in progress"))?;
        Ok(Position { turn: turn.number, iteration: turn.iteration, part })
    }

    /// Takes a chunk of an answer; after the last, goes on with what it leads to, which may be an event.
    fn answer(
        &mut self,
        position: Position,
        (index, ciphertexts): (u32, &EncChunk),
        mut awaited: Box<Awaited>,
    ) -> Result<Option<Event>, PrivateError> {
        let expected = self.position(awaited.part)?;
        if position != expected {
            return Err(expected.instead_of(position));
        }
        let key = self.key.clone();
        let mut answer = match awaited.answer.take() {
            Some(answer) => answer,
            None => Decryption::new(key.public_key(), self.member_mut()?.plan.header(awaited.part)?)?,
        };
        answer.push(index, ciphertexts, &key)?;
        if !answer.is_complete() {
            awaited.answer = Some(answer);
            self.state = State::Awaiting(awaited);
            return Ok(None);
        }
        if !self.outgoing.is_empty() {
            let (expected, found) = (Expected::SumsOfInputs, position.to_string());
            return Err(PrivateError::Unexpected { expected, found });
        }
        let need = self.unmask(awaited.part, answer, &awaited.sent)?;
        self.ask(need)
    }

    /// Removes the masks from what the server has computed (Algorithm 4).
    fn unmask(
        &mut self,
        part: Part,
        answer: Decryption,
        sent: &[Zeroizing<Vec<i64>>],
    ) -> Result<Need, PrivateError> {
        let Member { plan, participant, masks, .. } = self.member_mut()?;
        let ring = plan.numbers().ring;
        let mut values = answer.finish_residues()?;
        let add = |values: &mut [u64], own: Vec<u64>| {
            let own = Zeroizing::new(own);
            let pairs = values.iter_mut().zip(own.iter());
            pairs.for_each(|(value, own)| *value = ring.wrap(value.wrapping_add(*own)));
        };
        match part {
            Part::Sums { segment } => {
                let segment = segment as usize;
                let inputs: Vec<&[i64]> = sent.iter().map(|sent| &sent[..]).collect();
                add(&mut values, plan.segments()[segment].sums(masks, &inputs)?);
                participant.sums(segment, &values)
            }
            Part::Products { segment, term } => {
                let place = [segment as usize, term as usize];
                let term = &plan.segments()[place[0]].terms[place[1]];
                let errors = sent.first().ok_or(PrivateError::Bug("no errors were sent"))?;
                add(&mut values, term.products(masks, errors)?);
                participant.products(place, &values)
            }
            _ => Err(PrivateError::Bug("no tensor of the server's")),
        }
    }

    /// Takes what the participant needs an answer to as what is to be sent; steps only once the caller has had them masked.
    pub(super) fn ask(&mut self, need: Need) -> Result<Option<Event>, PrivateError> {
        match need {
            Need::Sums(index, inputs) => {
                let segment = index as u32;
                for (term, values) in (0..).zip(&inputs) {
                    let planned = self.planned(Part::Inputs { segment, term }, values.to_vec())?;
                    self.outgoing.push_back(planned);
                }
                self.state = State::Awaiting(Box::new(Awaited {
                    part: Part::Sums { segment },
                    answer: None,
                    sent: inputs,
                }));
            }
            Need::Products(place, errors) => {
                let [segment, term] = place.map(|at| at as u32);
                let planned = self.planned(Part::Errors { segment, term }, errors.to_vec())?;
                self.outgoing.push_back(planned);
                let part = Part::Products { segment, term };
                self.state = State::Awaiting(Box::new(Awaited { part, answer: None, sent: vec![errors] }));
            }
            steps @ (Need::Update(_) | Need::Total(_)) => {
                self.state = State::Stepped(steps);
                return Ok(Some(Event::Stepped));
            }
        }
        Ok(None)
    }

    /// Makes what is to be sent of the steps of an iteration, which go out with masks, or of their sum.
    pub(super) fn mask_steps(&mut self, need: Need, rng: &mut dyn CryptoRng) -> Result<(), PrivateError> {
        self.state = match need {
            Need::Update(steps) => {
                let position = self.position(Part::Update)?;
                State::Masked(self.masked(position, &steps, rng)?, Receipt::Steps)
            }
            Need::Total(mut totals) => {
                let header = self.member_mut()?.plan.header(Part::Total)?;
                totals.resize(header.batch * header.shape.elements(), 0);
                State::Masked(vec![self.planned(Part::Total, totals)?], Receipt::Total)
            }
            Need::Sums(..) | Need::Products(..) => {
                return Err(PrivateError::Bug("only steps are masked"));
            }
        };
        Ok(())
    }

    /// A tensor as what is to be encrypted and sent.
    fn planned(&mut self, part: Part, values: Vec<i64>) -> Result<Planned, PrivateError> {
        let position = self.position(part)?;
        let member = self.member.as_ref().ok_or(PrivateError::Bug("no turn is in progress"))?;
        let header = member.plan.header(part)?;
        let format = header.layout.contents().format().ok_or(PrivateError::Bug("integers go up"))?;
        let own_key = part != Part::Total;
        let server = member.turn.as_ref().map(|turn| &turn.server);
        let key = if own_key { Some(self.key.public_key()) } else { server };
        let key = key.ok_or(PrivateError::Bug("no turn is in progress"))?;
        let values = FixedTensor::new(header.shape, format, values)?;
        let tensor = Box::new(Outgoing::new(Encryption::new(values, &header.layout, key)?));
        Ok(Planned::Tensor { position, tensor, own_key })
    }

    /// Masks the steps of an iteration, and keeps the masks.
    fn masked(
        &mut self,
        position: Position,
        steps: &[i64],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Planned>, PrivateError> {
        let Member { plan, masks, turn, .. } = self.member_mut()?;
        let turn = turn.as_ref().ok_or(PrivateError::Bug("no turn is in progress"))?;
        let (chunks, fresh) = turn.rate.mask(steps, rng)?;
        let ring = plan.numbers().ring;
        let add = |(mask, fresh): (&mut u64, &u64)| *mask = ring.wrap(mask.wrapping_add(*fresh));
        masks.iter_mut().zip(fresh.iter()).for_each(add);
        let message = |(index, ciphertexts)| {
            Planned::Message(Box::new(Message::Tensor { position, index, ciphertexts }))
        };
        Ok((0..).zip(chunks).map(message).collect())
    }

    pub(super) fn make(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, PrivateError> {
        loop {
            match self.outgoing.front_mut() {
                None => return Ok(None),
                Some(Planned::Message(_)) => {
                    let Some(Planned::Message(message)) = self.outgoing.pop_front() else { continue };
                    return Ok(Some(*message));
                }
                Some(Planned::Tensor { position, tensor, own_key }) => {
                    let server =
                        self.member.as_ref().and_then(|member| member.turn.as_ref()).map(|turn| &turn.server);
                    let randomizer: &dyn Randomizer = match (own_key, server) {
                        (false, Some(server)) => server,
                        _ => &*self.key,
                    };
                    let made = tensor.next(randomizer, rng);
                    let position = *position;
                    if tensor.is_complete() {
                        self.outgoing.pop_front();
                    }
                    if let Some((index, ciphertexts)) = made {
                        return Ok(Some(Message::Tensor { position, index, ciphertexts }));
                    }
                }
            }
        }
    }
}
