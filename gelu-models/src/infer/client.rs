use std::fmt;
use std::mem;
use std::sync::Arc;

use gelu_tensor::FixedTensor;
use gelu_tensor::paillier::{Randomizer, SecretKey};
use ndarray::ArrayView2;
use rand::CryptoRng;

use super::{Message, Outcome, PROTOCOL_VERSION, Position, SessionError, SessionId, Step, StepFn};
use crate::plan::Plan;

/// The client's side of one session: the only place where a secret key and plaintexts are.
pub struct Client {
    key: Arc<SecretKey>,
    batch: usize,
    custom: Option<Box<StepFn>>,
    state: State,
}

enum State {
    /// The hello was sent.
    Greeting,
    /// The next batch may start.
    Ready {
        session: SessionId,
        plan: Arc<Plan>,
        round: u32,
    },
    /// Activations were sent, sums are awaited.
    Waiting {
        plan: Arc<Plan>,
        position: Position,
        saturations: u64,
    },
    Closed,
}

/// What a message led to.
#[derive(Debug)]
pub enum Event {
    /// The server has accepted: [`Client::start`] a batch.
    Ready,
    /// Send this.
    Send(Box<Message>),
    /// The batch is through; start another or [`Client::finish`].
    Done(Box<Outcome>),
}

impl Client {
    /// A session for batches of `batch` images, and the hello to send.
    pub fn new(key: Arc<SecretKey>, batch: u32) -> (Self, Message) {
        let hello = Message::Hello { version: PROTOCOL_VERSION, key: key.public_key().clone(), batch };
        (Self { key, batch: batch as usize, custom: None, state: State::Greeting }, hello)
    }

    /// Replaces the plan's activations by a function of one's own, which may also only look.
    pub fn on_step(&mut self, step: Box<StepFn>) {
        self.custom = Some(step);
    }

    /// The server's plan, once it has accepted.
    pub fn plan(&self) -> Option<&Plan> {
        match &self.state {
            State::Ready { plan, .. } | State::Waiting { plan, .. } => Some(plan),
            State::Greeting | State::Closed => None,
        }
    }

    /// The key pair, whose public half decoding a message needs.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Ends the session: what must happen when a message could not even be decoded.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Quantises and encrypts a batch of images, `[images, elements]`.
    ///
    /// # Errors
    /// [`SessionError::Unexpected`] when no batch may start now; [`SessionError::Numbers`] when the images are not as
    /// many as the session's batch, or not of the model's input shape. The session is closed then.
    pub fn start(
        &mut self,
        images: ArrayView2<'_, f32>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Message, SessionError> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Ready { session, plan, round } => {
                let in_step = |source| SessionError::Numbers { step: 0, source };
                if images.nrows() != self.batch {
                    let (expected, found) = (self.batch, images.nrows());
                    let what = "images of a batch";
                    return Err(in_step(gelu_tensor::Error::Count { what, expected, found }));
                }
                let mut step = Step::new(&plan);
                let values = step.quantise_input(images).map_err(in_step)?;
                let saturations = step.saturations();
                let position = Position { session, round, step: 0 };
                self.send(plan, position, values, saturations, rng)
            }
            State::Closed => Err(SessionError::Closed),
            State::Greeting | State::Waiting { .. } => {
                let found = "the start of a batch".to_owned();
                Err(SessionError::Unexpected { expected: "the server's reply first", found })
            }
        }
    }

    /// Takes a message from the server.
    ///
    /// # Errors
    /// [`SessionError`]; the session is closed then.
    pub fn handle(&mut self, message: Message, rng: &mut dyn CryptoRng) -> Result<Event, SessionError> {
        // The state is consumed: whatever goes wrong leaves a closed session.
        match (mem::replace(&mut self.state, State::Closed), message) {
            (State::Closed, _) => Err(SessionError::Closed),
            (_, Message::Abort { reason }) => Err(SessionError::Aborted(reason)),
            (State::Greeting, Message::Accept { session, plan }) => {
                plan.check(self.key.public_key().size(), self.batch).map_err(SessionError::Plan)?;
                self.state = State::Ready { session, plan: Arc::new(*plan), round: 0 };
                Ok(Event::Ready)
            }
            (State::Waiting { plan, position, saturations }, Message::Sums { position: found, tensor })
                if position == found =>
            {
                let step = position.step;
                let in_step = |source| SessionError::Numbers { step, source };
                let expected = plan.segments[step as usize].down_header(plan.batch);
                if tensor.header() != expected {
                    let (expected, found) = (format!("{expected:?}"), format!("{:?}", tensor.header()));
                    return Err(SessionError::Tensor { step, expected, found });
                }
                let sums = tensor.decrypt(&self.key).map_err(in_step)?;
                let mut steps = Step::with_custom(&plan, self.custom.as_deref_mut(), saturations);
                match steps.advance(step as usize, sums).map_err(in_step)? {
                    Some(values) => {
                        let saturations = steps.saturations();
                        let position = Position { step: step + 1, ..position };
                        self.send(plan, position, values, saturations, rng)
                            .map(|message| Event::Send(Box::new(message)))
                    }
                    None => {
                        let outcome = Box::new(steps.finish().map_err(in_step)?);
                        let round = position.round.wrapping_add(1);
                        self.state = State::Ready { session: position.session, plan, round };
                        Ok(Event::Done(outcome))
                    }
                }
            }
            (State::Greeting, other) => {
                Err(SessionError::Unexpected { expected: "Accept", found: other.to_string() })
            }
            (State::Ready { .. }, other) => Err(SessionError::Unexpected {
                expected: "nothing before the next batch",
                found: other.to_string(),
            }),
            (State::Waiting { .. }, other) => Err(SessionError::Unexpected {
                expected: "Sums of the current step in this session",
                found: other.to_string(),
            }),
        }
    }

    /// Ends the session between two batches.
    ///
    /// # Errors
    /// [`SessionError::Unexpected`] within a batch, [`SessionError::Closed`] after the end.
    pub fn finish(&mut self) -> Result<Message, SessionError> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Ready { session, .. } => Ok(Message::Finish { session }),
            State::Closed => Err(SessionError::Closed),
            State::Greeting | State::Waiting { .. } => {
                let found = "the end of the session".to_owned();
                Err(SessionError::Unexpected { expected: "the server's reply first", found })
            }
        }
    }

    fn send(
        &mut self,
        plan: Arc<Plan>,
        position: Position,
        values: FixedTensor,
        saturations: u64,
        rng: &mut dyn CryptoRng,
    ) -> Result<Message, SessionError> {
        let segment = &plan.segments[position.step as usize];
        let tensor = segment
            .arrange(values)
            .and_then(|values| values.encrypt(segment.up, &*self.key, rng))
            .map_err(|source| SessionError::Numbers { step: position.step, source })?;
        self.state = State::Waiting { plan, position, saturations };
        Ok(Message::Activations { position, tensor })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("key", &self.key).field("batch", &self.batch).finish_non_exhaustive()
    }
}
