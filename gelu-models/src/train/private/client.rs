//! A client's side of private training: the only place where its data, activations, gradients and masks are.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use gelu_tensor::paillier::{PublicKey, Randomizer, SecretKey};
use gelu_tensor::{Decryption, EncChunk, EncRate, Encryption, FixedTensor};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::learner::{Learner, Need};
use super::{
    Description, LearnerConfig, LearnerState, Message, PRIVATE_VERSION, Position, PrivateError, Samples,
    Statistics, TrainPlan,
};
use crate::peer::{AbortReason, Idle, Part, Peer};

/// A client's side of private training.
pub struct Client {
    key: Arc<SecretKey>,
    samples: Arc<dyn Samples>,
    config: LearnerConfig,
    member: Option<Member>,
    state: State,
    /// What is to be sent before anything else, in order.
    outgoing: VecDeque<Outgoing>,
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
enum State {
    /// Nothing: no turn is under way.
    Idle,
    /// The server's grant.
    Granting,
    /// The caller, who may keep the state first.
    Ready,
    /// An answer of the server to what was sent: sums or products.
    Awaiting(Awaited),
    /// That the steps of an iteration were taken.
    Updating,
    /// The end of the turn.
    Ending,
}

struct Awaited {
    part: Part,
    /// What has come of it.
    answer: Option<Decryption>,
    /// What it is an answer to.
    sent: Vec<Zeroizing<Vec<i64>>>,
}

/// What is to be sent.
enum Outgoing {
    Message(Box<Message>),
    /// A tensor that is encrypted chunk by chunk, under the own key or the server's, and the chunks so far.
    Tensor {
        position: Position,
        encryption: Box<Encryption>,
        own_key: bool,
        chunks: u32,
    },
    /// Steps that are yet to be masked.
    Steps(Position, Vec<i64>),
}

/// What a message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An iteration may begin: keep the state if need be, then [`Client::proceed`].
    Ready,
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
    /// Returns a client that trains on `samples`.
    pub fn new(key: Arc<SecretKey>, samples: Arc<dyn Samples>, config: LearnerConfig) -> Self {
        Self { key, samples, config, member: None, state: State::Idle, outgoing: VecDeque::new() }
    }

    /// Returns a client of a run that was interrupted between two of its iterations; it may have another key.
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

    /// Returns what [`resume`](Self::resume) needs; `None` before the first turn. To be taken between two iterations:
    /// when the client is idle or has said [`Event::Ready`].
    pub fn state(&self) -> Option<ClientState> {
        let Member { learner, masks, .. } = self.member.as_ref()?;
        Some(ClientState { learner: learner.state().clone(), masks: masks.clone() })
    }

    /// Returns what the client has met while training.
    pub fn statistics(&self) -> Statistics {
        self.member.as_ref().map_or(Statistics::default(), |member| member.learner.state().statistics)
    }

    /// Returns the masks that have to be added to the server's parameters, for tests and for the paper's assertion that
    /// both sides' parameters meet; empty before the first turn.
    pub fn masks(&self) -> &[u64] {
        self.member.as_ref().map_or(&[], |member| &member.masks)
    }

    /// Returns the sums of the client's steps in the turn that is under way.
    pub fn totals(&self) -> Option<&[i64]> {
        let (_, _, totals) = self.member.as_ref()?.learner.state().turn.as_ref()?;
        Some(totals)
    }

    /// Returns the client's key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Returns the server's key, in a turn.
    pub fn server_key(&self) -> Option<&PublicKey> {
        Some(&self.member.as_ref()?.turn.as_ref()?.server)
    }

    /// Asks for a turn: the next message says so.
    ///
    /// # Errors
    /// [`PrivateError::State`] when one is under way.
    pub fn join(&mut self) -> Result<(), PrivateError> {
        if !matches!(self.state, State::Idle) {
            return Err(PrivateError::State("a turn is under way"));
        }
        self.state = State::Granting;
        let (client, key) = (self.config.client, self.key.public_key().clone());
        let join = Message::Join { version: PRIVATE_VERSION, client, key };
        self.outgoing.push_back(Outgoing::Message(Box::new(join)));
        Ok(())
    }

    /// Gives up the turn that is under way; nothing of it remains but the place in the data.
    pub fn abandon(&mut self) {
        self.state = State::Idle;
        self.outgoing.clear();
        if let Some(member) = &mut self.member {
            member.learner.end();
            member.masks.iter_mut().for_each(|mask| *mask = 0);
            member.turn = None;
        }
    }

    /// Begins the next iteration, after [`Event::Ready`].
    ///
    /// # Errors
    /// [`PrivateError::State`] when it is not time.
    pub fn proceed(&mut self) -> Result<(), PrivateError> {
        if !matches!(self.state, State::Ready) {
            return Err(PrivateError::State("an iteration begins when the client is ready"));
        }
        let need = self.member_mut()?.learner.next_batch()?;
        self.ask(need)
    }

    fn take(&mut self, message: Message) -> Result<Option<Event>, PrivateError> {
        let found = message.to_string();
        match (message, std::mem::replace(&mut self.state, State::Idle)) {
            (Message::Abort { reason }, _) => Err(PrivateError::Aborted(reason)),
            (Message::Turn { description, grant, done, key, rate }, State::Granting) => {
                key.check_same(rate.key())?;
                let rate = rate.on(self.key.public_key().backend())?;
                let key = rate.key().clone();
                let (own, server) = (self.key.public_key().size(), key.size());
                if description.client_key.size != own || description.server_key != server {
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
                self.state = State::Ready;
                Ok(Some(Event::Ready))
            }
            (Message::Tensor { position, index, ciphertexts }, State::Awaiting(awaited)) => {
                self.answer(position, (index, &ciphertexts), awaited)?;
                Ok(None)
            }
            (Message::Updated { turn, iteration }, state) => {
                let member = self.member_mut()?;
                let current = member.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
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
                Err(PrivateError::Unexpected { expected: "the answer to an update", found })
            }
            (Message::Ended { turn }, State::Ending) => {
                let member = self.member_mut()?;
                if member.turn.as_ref().map(|current| current.number) != Some(turn) {
                    return Err(PrivateError::State("the end of another turn"));
                }
                member.learner.end();
                member.turn = None;
                Ok(Some(Event::Ended))
            }
            (_, state) => {
                let expected = match state {
                    State::Idle | State::Ready => "no message",
                    State::Granting => "the grant of a turn",
                    State::Awaiting(_) => "ciphertexts",
                    State::Updating => "the answer to an update",
                    State::Ending => "the end of the turn",
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

    fn position(&mut self, part: Part) -> Result<Position, PrivateError> {
        let turn = self.member_mut()?.turn.as_ref().ok_or(PrivateError::State("no turn is under way"))?;
        Ok(Position { turn: turn.number, iteration: turn.iteration, part })
    }

    /// Takes a chunk of an answer; after the last, goes on with what it leads to.
    fn answer(
        &mut self,
        position: Position,
        (index, ciphertexts): (u32, &EncChunk),
        mut awaited: Awaited,
    ) -> Result<(), PrivateError> {
        let expected = self.position(awaited.part)?;
        if position != expected {
            return Err(PrivateError::Place { expected: expected.to_string(), found: position });
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
            let (expected, found) = ("no end of an answer before all was sent", position.to_string());
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
        let Member { plan, learner, masks, .. } = self.member_mut()?;
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
                learner.sums(segment, &values)
            }
            Part::Products { segment, term } => {
                let place = [segment as usize, term as usize];
                let term = &plan.segments()[place[0]].terms()[place[1]];
                let errors = sent.first().ok_or(PrivateError::State("no errors were sent"))?;
                add(&mut values, term.products(masks, errors)?);
                learner.products(place, &values)
            }
            _ => Err(PrivateError::State("no tensor of the server's")),
        }
    }

    /// Takes what the learner needs an answer to as what is to be sent.
    fn ask(&mut self, need: Need) -> Result<(), PrivateError> {
        match need {
            Need::Sums(index, inputs) => {
                let segment = index as u32;
                for (term, values) in (0..).zip(&inputs) {
                    self.encrypt(Part::Inputs { segment, term }, values.to_vec())?;
                }
                self.state =
                    State::Awaiting(Awaited { part: Part::Sums { segment }, answer: None, sent: inputs });
            }
            Need::Products(place, errors) => {
                let [segment, term] = place.map(|at| at as u32);
                self.encrypt(Part::Errors { segment, term }, errors.to_vec())?;
                let part = Part::Products { segment, term };
                self.state = State::Awaiting(Awaited { part, answer: None, sent: vec![errors] });
            }
            Need::Update(steps) => {
                let position = self.position(Part::Update)?;
                self.outgoing.push_back(Outgoing::Steps(position, steps));
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
        let member = self.member.as_ref().ok_or(PrivateError::State("no turn is under way"))?;
        let header = member.plan.header(part)?;
        let format = header.layout.contents().format().ok_or(PrivateError::State("integers go up"))?;
        let own_key = part != Part::Total;
        let server = member.turn.as_ref().map(|turn| &turn.server);
        let key = if own_key { Some(self.key.public_key()) } else { server };
        let key = key.ok_or(PrivateError::State("no turn is under way"))?;
        let values = FixedTensor::new(header.shape, format, values)?;
        let encryption = Box::new(Encryption::new(values, &header.layout, key)?);
        self.outgoing.push_back(Outgoing::Tensor { position, encryption, own_key, chunks: 0 });
        Ok(())
    }
}

impl Client {
    /// Masks the steps of an iteration (Algorithm 3), and keeps the masks.
    fn mask(
        &mut self,
        position: Position,
        steps: &[i64],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Outgoing>, PrivateError> {
        let Member { plan, masks, turn, .. } = self.member_mut()?;
        let turn = turn.as_ref().ok_or(PrivateError::State("no turn is under way"))?;
        let (chunks, fresh) = turn.rate.mask(steps, rng)?;
        let ring = plan.numbers().ring;
        let add = |(mask, fresh): (&mut u64, &u64)| *mask = ring.wrap(mask.wrapping_add(*fresh));
        masks.iter_mut().zip(fresh.iter()).for_each(add);
        let message = |(index, ciphertexts)| {
            Outgoing::Message(Box::new(Message::Tensor { position, index, ciphertexts }))
        };
        Ok((0..).zip(chunks).map(message).collect())
    }

    fn make(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, PrivateError> {
        loop {
            match self.outgoing.front_mut() {
                None => return Ok(None),
                Some(Outgoing::Message(_)) => {
                    let Some(Outgoing::Message(message)) = self.outgoing.pop_front() else { continue };
                    return Ok(Some(*message));
                }
                Some(Outgoing::Steps(..)) => {
                    let Some(Outgoing::Steps(position, steps)) = self.outgoing.pop_front() else { continue };
                    for message in self.mask(position, &steps, rng)?.into_iter().rev() {
                        self.outgoing.push_front(message);
                    }
                }
                Some(Outgoing::Tensor { position, encryption, own_key, chunks }) => {
                    let server =
                        self.member.as_ref().and_then(|member| member.turn.as_ref()).map(|turn| &turn.server);
                    let randomizer: &dyn Randomizer = match (own_key, server) {
                        (false, Some(server)) => server,
                        _ => &*self.key,
                    };
                    let made = encryption.next_chunk(randomizer, rng);
                    let (position, index) = (*position, *chunks);
                    *chunks += 1;
                    if encryption.is_complete() {
                        self.outgoing.pop_front();
                    }
                    if let Some(ciphertexts) = made {
                        return Ok(Some(Message::Tensor { position, index, ciphertexts }));
                    }
                }
            }
        }
    }
}

impl Peer for Client {
    type Message = Message;
    type Event = Event;
    type Error = PrivateError;

    /// Takes a message, and gives what it led to. An error ends the turn.
    fn handle(&mut self, message: Message, _: &mut dyn CryptoRng) -> Result<Option<Event>, PrivateError> {
        self.take(message).inspect_err(|_| self.abandon())
    }

    /// Encrypts the next chunk; `None` until the server or the caller wants more.
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, PrivateError> {
        self.make(rng).inspect_err(|_| self.abandon())
    }

    fn idle(&mut self, _: &mut dyn CryptoRng) -> Idle {
        Idle::Nothing
    }

    /// Gives up the turn that is under way.
    fn close(&mut self) {
        self.abandon();
    }

    /// Whether no turn is under way.
    fn is_closed(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    fn reason(error: &PrivateError) -> Option<AbortReason> {
        error.reason()
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
