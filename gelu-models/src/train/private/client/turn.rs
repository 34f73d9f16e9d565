//! What a client does within a turn: it takes answers, removes masks from them, and encrypts what its participant asks for.

use std::sync::Arc;

use gelu_tensor::paillier::Randomizer;
use gelu_tensor::{Decryption, EncChunk, EncRate, Encryption, FixedTensor};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::super::participant::{Need, Participant};
use super::super::{Description, Message, Position, PrivateError, TrainPlan};
use super::{Awaited, Client, ClientTurn, Event, Member, Planned, State};
use crate::peer::exchange::Outgoing;
use crate::peer::{Expected, Part};

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
                if done == 0 {
                    member.masks.iter_mut().for_each(|mask| *mask = 0);
                    member.participant.begin(grant)?;
                } else {
                    let kept = member.participant.state().turn.as_ref();
                    if !kept.is_some_and(|(kept, iterations, _)| (kept, *iterations) == (&grant, done)) {
                        return Err(PrivateError::Grant("expected the turn that the client was in"));
                    }
                }
                member.turn = Some(ClientTurn { number, iteration: done, rate, server: key });
                self.state = State::Ready;
                Ok(Some(Event::Ready))
            }
            (Message::Tensor { position, index, ciphertexts }, State::Awaiting(awaited)) => {
                self.answer(position, (index, &ciphertexts), awaited)?;
                Ok(None)
            }
            (Message::Updated { turn, iteration }, state) => {
                let current = self.member.as_mut().and_then(|member| member.turn.as_mut());
                let Some(current) = current else {
                    return Err(PrivateError::Unexpected { expected: Expected::Nothing, found });
                };
                if (turn, iteration) == (current.number, current.iteration)
                    && matches!(state, State::Updating)
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
            (Message::Ended { turn }, State::Ending) => {
                let member = self.member_mut()?;
                if member.turn.as_ref().map(|current| current.number) != Some(turn) {
                    return Err(PrivateError::Unexpected { expected: Expected::Ended, found });
                }
                member.participant.end();
                member.turn = None;
                Ok(Some(Event::Ended))
            }
            (_, state) => {
                let expected = match state {
                    State::Idle | State::Ready => Expected::Nothing,
                    State::Granting => Expected::Grant,
                    State::Awaiting(_) => Expected::Ciphertexts,
                    State::Updating => Expected::Updated,
                    State::Ending => Expected::Ended,
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
            self.member = Some(Member { plan, participant, masks, turn: None });
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

    /// Takes a chunk of an answer; after the last, goes on with what it leads to.
    fn answer(
        &mut self,
        position: Position,
        (index, ciphertexts): (u32, &EncChunk),
        mut awaited: Box<Awaited>,
    ) -> Result<(), PrivateError> {
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
            return Ok(());
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

    /// Takes what the participant needs an answer to as what is to be sent.
    pub(super) fn ask(&mut self, need: Need) -> Result<(), PrivateError> {
        match need {
            Need::Sums(index, inputs) => {
                let segment = index as u32;
                for (term, values) in (0..).zip(&inputs) {
                    self.encrypt(Part::Inputs { segment, term }, values.to_vec())?;
                }
                self.state = State::Awaiting(Box::new(Awaited {
                    part: Part::Sums { segment },
                    answer: None,
                    sent: inputs,
                }));
            }
            Need::Products(place, errors) => {
                let [segment, term] = place.map(|at| at as u32);
                self.encrypt(Part::Errors { segment, term }, errors.to_vec())?;
                let part = Part::Products { segment, term };
                self.state = State::Awaiting(Box::new(Awaited { part, answer: None, sent: vec![errors] }));
            }
            Need::Update(steps) => {
                let position = self.position(Part::Update)?;
                self.outgoing.push_back(Planned::Steps(position, steps));
                self.state = State::Updating;
            }
            Need::Total(mut totals) => {
                let header = self.member_mut()?.plan.header(Part::Total)?;
                totals.resize(header.batch * header.shape.elements(), 0);
                self.encrypt(Part::Total, totals)?;
                self.state = State::Ending;
            }
        }
        Ok(())
    }

    /// Takes a tensor as what is to be encrypted and sent.
    fn encrypt(&mut self, part: Part, values: Vec<i64>) -> Result<(), PrivateError> {
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
        self.outgoing.push_back(Planned::Tensor { position, tensor, own_key });
        Ok(())
    }
    /// Masks the steps of an iteration (Algorithm 3), and keeps the masks.
    fn mask(
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
                Some(Planned::Steps(..)) => {
                    let Some(Planned::Steps(position, steps)) = self.outgoing.pop_front() else { continue };
                    for message in self.mask(position, &steps, rng)?.into_iter().rev() {
                        self.outgoing.push_front(message);
                    }
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
