//! What a client does within a turn: it takes answers, and encrypts what its participant asks for with the corrections that its
//! own steps make necessary.

use std::sync::Arc;

use gelu_tensor::paillier::Randomizer;
use gelu_tensor::{Decryption, EncChunk, Encryption, FixedTensor};
use rand::CryptoRng;

use super::super::participant::{Need, Participant};
use super::super::{Description, Grant, Message, Position, PrivateError, TrainPlan};
use super::{Awaited, Client, ClientTurn, Event, Member, Planned, State};
use crate::peer::exchange::Outgoing;
use crate::peer::{Expected, Part};

impl Member {
    /// Enters a turn of which so many iterations were begun: a new one, or the one that was interrupted.
    fn enter(&mut self, grant: Grant, begun: u32) -> Result<(), PrivateError> {
        self.before = None;
        let done = match &self.participant.state().turn {
            Some((kept, done, _)) if *kept == grant => *done,
            _ => 0,
        };
        match begun {
            0 => self.participant.begin(grant),
            // The iteration that was begun last is done, or is begun again.
            1.. if done > 0 && [begun - 1, begun].contains(&done) => Ok(()),
            1 => self.participant.begin(grant),
            _ => Err(PrivateError::Grant("expected the turn that the client was in")),
        }
    }
}

impl Client {
    pub(super) fn take(&mut self, message: Message) -> Result<Option<Event>, PrivateError> {
        let found = message.to_string();
        match (message, std::mem::replace(&mut self.state, State::Idle)) {
            (Message::Abort { reason }, _) => Err(PrivateError::Aborted(reason)),
            (Message::Turn { description, grant, begun, key }, State::Granting) => {
                let key = key.on(self.key.public_key().backend())?;
                let (own, server) = (self.key.public_key().size(), key.size());
                let planned = (description.client_key.size, description.server_key);
                for (expected, found) in [(planned.0, own), (planned.1, server)] {
                    if expected != found {
                        return Err(PrivateError::KeySize { expected, found });
                    }
                }
                let member = self.member(*description)?;
                let number = grant.turn;
                member.enter(grant, begun)?;
                member.turn = Some(ClientTurn { number, server: key });
                self.state = State::Ready;
                Ok(Some(Event::Ready))
            }
            (Message::Tensor { position, index, ciphertexts }, State::Awaiting(awaited)) => {
                self.answer(position, (index, &ciphertexts), awaited)
            }
            (Message::Ended { turn }, State::Ending) => {
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
                    State::Idle | State::Ready => Expected::Nothing,
                    State::Granting => Expected::Grant,
                    State::Awaiting(_) => Expected::Ciphertexts,
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
            self.member = Some(Member { plan, participant, turn: None, before: None });
        }
        self.member_mut()
    }

    pub(super) fn member_mut(&mut self) -> Result<&mut Member, PrivateError> {
        self.member.as_mut().ok_or(PrivateError::Bug("no turn is in progress"))
    }

    /// Where a tensor of the iteration in progress belongs, or of the last one that is done.
    fn position(&self, part: Part) -> Result<Position, PrivateError> {
        let place = self.member.as_ref().and_then(|member| {
            let (_, done, _) = member.participant.state().turn.as_ref()?;
            let iteration = if part == Part::Total { done.saturating_sub(1) } else { *done };
            Some(Position { turn: member.turn.as_ref()?.number, iteration, part })
        });
        place.ok_or(PrivateError::Bug("no turn is in progress"))
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
        let (values, participant) = (answer.finish()?, &mut self.member_mut()?.participant);
        let need = match awaited.part {
            Part::Sums { segment } => participant.sums(segment as usize, values.values())?,
            Part::Products { segment, term } => {
                participant.products([segment as usize, term as usize], values.values())?
            }
            _ => return Err(PrivateError::Bug("no tensor of the server's")),
        };
        self.ask(need)
    }

    /// Takes what the participant needs an answer to as what is to be sent.
    pub(super) fn ask(&mut self, need: Need) -> Result<Option<Event>, PrivateError> {
        match need {
            Need::Sums(index, inputs) => {
                let segment = index as u32;
                let part = Part::Sums { segment };
                if let Some(corrections) = self.member_mut()?.participant.corrections(part, &inputs)? {
                    self.plan(Part::SumCorrections { segment }, corrections)?;
                }
                for (term, values) in (0..).zip(&inputs) {
                    self.plan(Part::Inputs { segment, term }, values.to_vec())?;
                }
                self.state = State::Awaiting(Box::new(Awaited { part, answer: None }));
            }
            Need::Products(place, errors) => {
                let [segment, term] = place.map(|at| at as u32);
                let part = Part::Products { segment, term };
                if let Some(corrections) = self.member_mut()?.participant.corrections(part, &[&errors[..]])? {
                    self.plan(Part::ProductCorrections { segment, term }, corrections)?;
                }
                self.plan(Part::Errors { segment, term }, errors.to_vec())?;
                self.state = State::Awaiting(Box::new(Awaited { part, answer: None }));
            }
            Need::Nothing(_) => {
                self.member_mut()?.before = None;
                self.state = State::Ready;
                return Ok(Some(Event::Ready));
            }
            Need::Total(mut totals) => {
                let header = self.member_mut()?.plan.header(Part::Total)?;
                totals.resize(header.batch * header.shape.elements(), 0);
                self.plan(Part::Total, totals)?;
                self.state = State::Ending;
            }
        }
        Ok(None)
    }

    /// Plans to encrypt and send a tensor.
    fn plan(&mut self, part: Part, values: Vec<i64>) -> Result<(), PrivateError> {
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
