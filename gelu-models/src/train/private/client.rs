use std::fmt;
use std::sync::Arc;

use gelu_tensor::paillier::{PublicKey, Randomizer, SecretKey};
use gelu_tensor::{EncBatch, EncChunk, EncRate};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::learner::{Learner, Need};
use super::message::Arrival;
use super::{
    Description, LearnerConfig, LearnerState, Message, PRIVATE_VERSION, Part, Position, PrivateError,
    Samples, Statistics, TrainPlan,
};

/// A client's side of private training: the only place where its data, activations, gradients and masks are.
pub struct Client {
    key: Arc<SecretKey>,
    samples: Arc<dyn Samples>,
    config: LearnerConfig,
    member: Option<Member>,
    waiting: Waiting,
}

/// What a client has once it knows what is trained.
struct Member {
    plan: Arc<TrainPlan>,
    learner: Learner,
    /// What has to be added to the server's masked parameters, mod 2^l.
    masks: Zeroizing<Vec<u64>>,
    turn: Option<Turn>,
}

struct Turn {
    number: u64,
    iteration: u32,
    rate: EncRate,
    server: PublicKey,
}

/// What comes next.
enum Waiting {
    /// Nothing: no turn is under way.
    Idle,
    /// The server's grant.
    Grant,
    /// The caller, who may keep the state first.
    Proceed,
    /// The caller, to have sent what the arithmetic needs an answer to.
    Ask(Need),
    /// An answer of the server, and what it is an answer to.
    Tensor(Arrival, Zeroizing<Vec<i64>>),
    /// That the steps of an iteration were taken.
    Updated,
    /// The end of the turn.
    Ended,
}

/// What a message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An iteration may begin: keep the state if need be, then [`Client::proceed`].
    Ready,
    /// A tensor of the server's has been taken: [`Client::proceed`].
    Taken,
    /// The turn has ended.
    Ended,
}

/// What of a client is kept between iterations. It holds the masks, so it is a secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientState {
    /// Its arithmetic.
    pub learner: LearnerState,
    /// Its masks mod 2^l.
    pub masks: Zeroizing<Vec<u64>>,
}

impl Client {
    /// A client that trains on `samples`.
    pub fn new(key: Arc<SecretKey>, samples: Arc<dyn Samples>, config: LearnerConfig) -> Self {
        Self { key, samples, config, member: None, waiting: Waiting::Idle }
    }

    /// A client of a run that was interrupted between two of its iterations; it may have another key.
    ///
    /// # Errors
    /// [`PrivateError`] when the state is not of this run.
    pub fn resume(
        key: Arc<SecretKey>,
        samples: Arc<dyn Samples>,
        config: LearnerConfig,
        (description, state): (Description, ClientState),
    ) -> Result<Self, PrivateError> {
        let mut client = Self::new(key, samples, config);
        let member = client.member(description)?;
        let ring = member.plan.numbers().ring;
        if state.masks.len() != member.plan.parameters()
            || state.masks.iter().any(|&mask| mask != ring.wrap(mask))
        {
            return Err(PrivateError::State("its masks must be those of the plan"));
        }
        member.learner.restore(state.learner)?;
        member.masks = state.masks;
        Ok(client)
    }

    /// What [`resume`](Self::resume) needs; `None` before the first turn. To be taken between two iterations: when the
    /// client is idle or has said [`Event::Ready`].
    pub fn state(&self) -> Option<ClientState> {
        let Member { learner, masks, .. } = self.member.as_ref()?;
        Some(ClientState { learner: learner.state().clone(), masks: masks.clone() })
    }

    /// What it has met while training.
    pub fn statistics(&self) -> Statistics {
        self.member.as_ref().map_or(Statistics::default(), |member| member.learner.state().statistics)
    }

    /// The masks that have to be added to the server's parameters, for tests and for the paper's assertion that both
    /// sides' parameters meet; empty before the first turn.
    pub fn masks(&self) -> &[u64] {
        self.member.as_ref().map_or(&[], |member| &member.masks)
    }

    /// The sums of its steps in the turn that is under way.
    pub fn totals(&self) -> Option<&[i64]> {
        let (_, _, totals) = self.member.as_ref()?.learner.state().turn.as_ref()?;
        Some(totals)
    }

    /// Its key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The server's key, in a turn.
    pub fn server_key(&self) -> Option<&PublicKey> {
        Some(&self.member.as_ref()?.turn.as_ref()?.server)
    }

    /// Asks for a turn.
    ///
    /// # Errors
    /// [`PrivateError::State`] when one is under way.
    pub fn join(&mut self) -> Result<Message, PrivateError> {
        if !matches!(self.waiting, Waiting::Idle) {
            return Err(PrivateError::State("a turn is under way"));
        }
        self.waiting = Waiting::Grant;
        let (client, key) = (self.config.client, self.key.public_key().clone());
        Ok(Message::Join { version: PRIVATE_VERSION, client, key })
    }

    /// Gives up the turn that is under way; nothing of it remains but the place in the data.
    pub fn abandon(&mut self) {
        self.waiting = Waiting::Idle;
        if let Some(member) = &mut self.member {
            member.learner.end();
            member.masks.iter_mut().for_each(|mask| *mask = 0);
            member.turn = None;
        }
    }

    /// Begins the next iteration, or goes on with one: what to send.
    ///
    /// # Errors
    /// [`PrivateError::State`] when it is not time; [`PrivateError::Diverged`].
    pub fn proceed(&mut self, rng: &mut dyn CryptoRng) -> Result<Vec<Message>, PrivateError> {
        let need = match std::mem::replace(&mut self.waiting, Waiting::Idle) {
            Waiting::Proceed => self.member_mut()?.learner.next_batch()?,
            Waiting::Ask(need) => need,
            waiting => {
                self.waiting = waiting;
                return Err(PrivateError::State("it is the server's turn to speak"));
            }
        };
        self.ask(need, rng)
    }

    /// Takes a message, and gives what it led to. An error ends the turn.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub fn handle(&mut self, message: Message) -> Result<Option<Event>, PrivateError> {
        let result = self.take(message);
        if result.is_err() {
            self.abandon();
        }
        result
    }

    fn take(&mut self, message: Message) -> Result<Option<Event>, PrivateError> {
        let found = message.kind();
        match (message, std::mem::replace(&mut self.waiting, Waiting::Idle)) {
            (Message::Turn { description, grant, done, key, rate }, Waiting::Grant) => {
                key.check_same(rate.key())?;
                let (own, server) = (self.key.public_key().size(), key.size());
                if description.client_key != own || description.server_key != server {
                    return Err(PrivateError::State("the plan must be for the sizes of the keys"));
                }
                let member = self.member(*description)?;
                let number = grant.turn;
                let rate = EncRate::new(&rate, member.plan.update_layout())?;
                if done == 0 {
                    member.masks.iter_mut().for_each(|mask| *mask = 0);
                    member.learner.begin(grant)?;
                } else {
                    let kept = member.learner.state().turn.as_ref();
                    if !kept.is_some_and(|(kept, iterations, _)| (kept, *iterations) == (&grant, done)) {
                        return Err(PrivateError::State("it is of another turn than the server's"));
                    }
                }
                member.turn = Some(Turn { number, iteration: done, rate, server: key });
                self.waiting = Waiting::Proceed;
                Ok(Some(Event::Ready))
            }
            (Message::Tensor { position, index, ciphertexts }, Waiting::Tensor(mut arrival, sent)) => {
                match arrival.push(position, index, ciphertexts)? {
                    None => {
                        self.waiting = Waiting::Tensor(arrival, sent);
                        Ok(None)
                    }
                    Some(chunks) => {
                        let need = self.unmask(position.part, &chunks, &sent)?;
                        self.waiting = Waiting::Ask(need);
                        Ok(Some(Event::Taken))
                    }
                }
            }
            (Message::Updated { turn, iteration }, waiting) => {
                let member = self.member_mut()?;
                let current = member.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
                if (turn, iteration) == (current.number, current.iteration)
                    && matches!(waiting, Waiting::Updated)
                {
                    current.iteration += 1;
                    self.waiting = Waiting::Proceed;
                    return Ok(Some(Event::Ready));
                }
                if turn == current.number && iteration < current.iteration {
                    // Said twice, because the steps were sent twice.
                    self.waiting = waiting;
                    return Ok(None);
                }
                Err(PrivateError::Unexpected { expected: "the answer to an update", found })
            }
            (Message::Ended { turn }, Waiting::Ended) => {
                let member = self.member_mut()?;
                if member.turn.as_ref().map(|current| current.number) != Some(turn) {
                    return Err(PrivateError::State("the end of another turn"));
                }
                member.learner.end();
                member.turn = None;
                Ok(Some(Event::Ended))
            }
            (_, waiting) => {
                let expected = match waiting {
                    Waiting::Idle | Waiting::Proceed | Waiting::Ask(_) => "no message",
                    Waiting::Grant => "the grant of a turn",
                    Waiting::Tensor(..) => "ciphertexts",
                    Waiting::Updated => "the answer to an update",
                    Waiting::Ended => "the end of the turn",
                };
                Err(PrivateError::Unexpected { expected, found })
            }
        }
    }

    /// What is known of the run, from its description.
    fn member(&mut self, description: Description) -> Result<&mut Member, PrivateError> {
        if self.member.as_ref().is_none_or(|member| member.plan.description() != &description) {
            if self.member.is_some() {
                return Err(PrivateError::State("the plan must stay the same"));
            }
            let plan = Arc::new(TrainPlan::new(description)?);
            let learner = Learner::new(plan.clone(), self.samples.clone(), self.config)?;
            let masks = Zeroizing::new(vec![0; plan.parameters()]);
            self.member = Some(Member { plan, learner, masks, turn: None });
        }
        self.member_mut()
    }

    fn member_mut(&mut self) -> Result<&mut Member, PrivateError> {
        self.member.as_mut().ok_or(PrivateError::State("no turn is under way"))
    }

    /// Removes the masks from what the server has computed (Algorithm 4).
    fn unmask(&mut self, part: Part, chunks: &[EncChunk], sent: &[i64]) -> Result<Need, PrivateError> {
        let key = self.key.clone();
        let Member { plan, learner, masks, .. } = self.member_mut()?;
        let (index, forward) = match part {
            Part::Sums(segment) => (segment as usize, true),
            Part::Products(segment) => (segment as usize, false),
            _ => return Err(PrivateError::State("no tensor of the server's")),
        };
        let (segment, ring) = (&plan.segments()[index], plan.numbers().ring);
        let (elements, flood) = match (forward, segment.backward_flood) {
            (false, Some(flood)) => (segment.map.inputs(), flood),
            _ => (segment.map.outputs(), segment.forward_flood),
        };
        let batch = EncBatch::from_chunks(key.public_key(), elements, plan.layout(flood)?, chunks)?;
        let (masked, own) = rayon::join(
            || batch.decrypt_low(&key, ring.bits()),
            || if forward { segment.sums(masks, sent) } else { segment.products(masks, sent) },
        );
        let (mut values, own) = (masked?, Zeroizing::new(own?));
        if !segment.map.is_fixed() {
            values
                .iter_mut()
                .zip(own.iter())
                .for_each(|(value, own)| *value = ring.wrap(value.wrapping_add(*own)));
        }
        if forward { learner.sums(index, &values) } else { learner.products(index, &values) }
    }

    /// Sends what the learner needs an answer to.
    fn ask(&mut self, need: Need, rng: &mut dyn CryptoRng) -> Result<Vec<Message>, PrivateError> {
        let key = self.key.clone();
        let Member { plan, masks, turn, .. } = self.member_mut()?;
        let turn = turn.as_ref().ok_or(PrivateError::State("no turn is under way"))?;
        let position = |part| Position { turn: turn.number, iteration: turn.iteration, part };
        let ring = plan.numbers().ring;
        let (part, chunks, waiting) = match need {
            Need::Sums(index, values) => {
                let segment = &plan.segments()[index];
                let layout = plan.layout(segment.forward_flood)?;
                let (map, step) = (&segment.map, index as u32);
                let chunks = EncBatch::encrypt(&values, map.inputs(), layout, &*key, rng)?.into_chunks();
                let arrival = Arrival::new(position(Part::Sums(step)), layout.groups() * map.outputs());
                (Part::Inputs(step), chunks, Waiting::Tensor(arrival, Zeroizing::new(values)))
            }
            Need::Products(index, values) => {
                let segment = &plan.segments()[index];
                let flood = segment.backward_flood.ok_or(PrivateError::State("no errors go back here"))?;
                let layout = plan.layout(flood)?;
                let (map, step) = (&segment.map, index as u32);
                let chunks = EncBatch::encrypt(&values, map.outputs(), layout, &*key, rng)?.into_chunks();
                let arrival = Arrival::new(position(Part::Products(step)), layout.groups() * map.inputs());
                (Part::Errors(step), chunks, Waiting::Tensor(arrival, Zeroizing::new(values)))
            }
            Need::Update(steps) => {
                let (chunks, fresh) = turn.rate.mask(&steps, rng)?;
                let add = |(mask, fresh): (&mut u64, &u64)| *mask = ring.wrap(mask.wrapping_add(*fresh));
                masks.iter_mut().zip(fresh.iter()).for_each(add);
                (Part::Update, chunks, Waiting::Updated)
            }
            Need::Total(totals) => {
                let (layout, elements) = plan.total_layout()?;
                let mut values = Zeroizing::new(vec![0; layout.width * elements]);
                for (at, total) in totals.iter().enumerate() {
                    values[at % layout.width * elements + at / layout.width] =
                        total + TrainPlan::total_offset();
                }
                let chunks = EncBatch::encrypt(&values, elements, layout, &turn.server, rng)?.into_chunks();
                (Part::Total, chunks, Waiting::Ended)
            }
        };
        let messages = Message::tensor(position(part), chunks);
        self.waiting = waiting;
        Ok(messages)
    }
}

/// Prints no secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).field("key", &self.key).finish_non_exhaustive()
    }
}

/// Prints no secret.
impl fmt::Debug for ClientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientState").finish_non_exhaustive()
    }
}
