use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;

use gelu_tensor::paillier::{Randomizer, RandomnessPool, SecretKey};
use gelu_tensor::{Decryption, Encryption, Error, FixedTensor};
use ndarray::ArrayView2;
use rand::CryptoRng;

use super::{
    BATCHES_UNDER_WAY, Message, Outcome, PROTOCOL_VERSION, Position, SessionError, SessionId, Step, StepFn,
};
use crate::plan::Plan;

/// Random factors that a client makes before it knows the plan: hardly any network takes fewer for its first tensor.
const FACTORS_WITHOUT_PLAN: usize = 64;

/// The most that it keeps, some hundred kilobytes.
const FACTORS_AHEAD: usize = 512;

/// As many as keep all threads busy for less than a millisecond or two, for which an answer may have to wait.
const FACTORS_AT_A_TIME: usize = 32;

/// The client's side of one session: the only place where a secret key and plaintexts are.
pub struct Client {
    key: Arc<SecretKey>,
    pool: Option<Arc<RandomnessPool>>,
    /// Random factors made while there was nothing else to do.
    ahead: RandomnessPool,
    batch: usize,
    custom: Option<Box<StepFn>>,
    state: State,
}

enum State {
    /// The hello was sent.
    Greeting,
    Running(Box<Running>),
    Closed,
}

struct Running {
    session: SessionId,
    plan: Arc<Plan>,
    /// The batches under way, oldest first: none overtakes another.
    batches: VecDeque<Batch>,
    next_round: u32,
    /// The batch whose tensor has been begun and not been sent to its end.
    sending: Option<u32>,
    /// The tensors that the server has to answer, in order.
    awaited: VecDeque<Position>,
    /// The answer to the first of them, once it has begun.
    sums: Option<Decryption>,
}

struct Batch {
    /// Where the tensor belongs that is being sent, or awaited.
    position: Position,
    /// What is to be sent.
    activations: Option<Encryption>,
    /// Chunks sent so far.
    chunks: u32,
    /// Ciphertexts sent so far.
    sent: usize,
    saturations: u64,
}

/// What a message led to.
#[derive(Debug)]
pub enum Event {
    /// The server has accepted: [`Client::start`] a batch.
    Ready,
    /// The oldest batch under way is through; start another or [`Client::finish`].
    Done(Box<Outcome>),
}

impl Client {
    /// A session for batches of `batch` images, and the hello to send.
    pub fn new(key: Arc<SecretKey>, batch: u32) -> (Self, Message) {
        let hello = Message::Hello { version: PROTOCOL_VERSION, key: key.public_key().clone(), batch };
        let ahead = RandomnessPool::new(key.clone(), FACTORS_AHEAD, vec![]);
        (Self { key, pool: None, ahead, batch: batch as usize, custom: None, state: State::Greeting }, hello)
    }

    /// Encrypts with random factors that were made ahead of time.
    ///
    /// # Errors
    /// [`Error::ForeignKey`] when the pool is of another key.
    pub fn draw_from(&mut self, pool: Arc<RandomnessPool>) -> Result<(), Error> {
        self.key.public_key().check_same(pool.public_key())?;
        self.pool = Some(pool);
        Ok(())
    }

    /// Makes some random factors of the next encryptions, for while there is nothing else to do: the server has not
    /// answered yet. False when enough are ready, or a pool has them. It changes no result.
    pub fn prepare(&mut self, rng: &mut dyn CryptoRng) -> bool {
        let wanted = match &self.state {
            _ if self.pool.is_some() => 0,
            State::Greeting => FACTORS_WITHOUT_PLAN,
            State::Running(running) => running.encryptions_awaited().min(self.ahead.capacity()),
            State::Closed => 0,
        };
        let missing = wanted.saturating_sub(self.ahead.ready());
        self.ahead.make(rng, missing.min(FACTORS_AT_A_TIME));
        missing > 0
    }

    /// Replaces the plan's activations by a function of one's own, which may also only look.
    pub fn on_step(&mut self, step: Box<StepFn>) {
        self.custom = Some(step);
    }

    /// The server's plan, once it has accepted.
    pub fn plan(&self) -> Option<&Plan> {
        self.running().map(|running| &*running.plan)
    }

    /// How many batches are under way.
    pub fn batches_under_way(&self) -> usize {
        self.running().map_or(0, |running| running.batches.len())
    }

    /// Whether [`start`](Self::start) may be called now.
    pub fn may_start(&self) -> bool {
        self.running().is_some_and(|running| running.batches.len() < BATCHES_UNDER_WAY)
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

    /// Quantises a batch of images, `[images, elements]`, which [`next_message`](Self::next_message) then encrypts and
    /// sends. As many as [`BATCHES_UNDER_WAY`] can be under way.
    ///
    /// # Errors
    /// [`SessionError::Unexpected`] when no batch may start now; [`SessionError::Numbers`] when the images are not as
    /// many as the session's batch, or not of the model's input shape. The session is closed then.
    pub fn start(&mut self, images: ArrayView2<'_, f32>) -> Result<(), SessionError> {
        let may_start = self.may_start();
        let mut running = self.take_running("the start of a batch")?;
        if !may_start {
            let found = "the start of a batch".to_owned();
            return Err(SessionError::Unexpected { expected: "the end of a batch under way first", found });
        }
        let in_step = |source| SessionError::Numbers { step: 0, source };
        if images.nrows() != self.batch {
            let (expected, found) = (self.batch, images.nrows());
            let what = "images of a batch";
            return Err(in_step(gelu_tensor::Error::Count { what, expected, found }));
        }
        let mut step = Step::new(&running.plan);
        let values = step.quantise_input(images).map_err(in_step)?;
        let saturations = step.saturations();
        let position = Position { session: running.session, round: running.next_round, step: 0 };
        running.next_round = running.next_round.wrapping_add(1);
        let batch = Batch::new(&running.plan, &self.key, (position, values, saturations))?;
        running.batches.push_back(batch);
        self.state = State::Running(running);
        Ok(())
    }

    /// Takes a message from the server: decrypts a chunk of sums, and applies the activations after the last.
    ///
    /// # Errors
    /// [`SessionError`]; the session is closed then.
    pub fn handle(&mut self, message: Message) -> Result<Option<Event>, SessionError> {
        // The state is consumed: whatever goes wrong leaves a closed session.
        match (mem::replace(&mut self.state, State::Closed), message) {
            (State::Closed, _) => Err(SessionError::Closed),
            (_, Message::Abort { reason }) => Err(SessionError::Aborted(reason)),
            (State::Greeting, Message::Accept { session, plan }) => {
                plan.check(self.key.public_key().size(), self.batch).map_err(SessionError::Plan)?;
                self.state = State::Running(Box::new(Running::new(session, Arc::new(*plan))));
                Ok(Some(Event::Ready))
            }
            (State::Greeting, other) => {
                Err(SessionError::Unexpected { expected: "Accept", found: other.to_string() })
            }
            (State::Running(mut running), message) => {
                let event = match running.take(message, &self.key)? {
                    Some(sums) => running.advance(sums, &self.key, self.custom.as_deref_mut())?,
                    None => None,
                };
                self.state = State::Running(running);
                Ok(event)
            }
        }
    }

    /// The next message to the server, whose chunk is encrypted now. `None` until the server says more or another batch
    /// is started.
    ///
    /// # Errors
    /// [`SessionError::Closed`] after the end.
    pub fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        match &mut self.state {
            State::Closed => Err(SessionError::Closed),
            State::Greeting => Ok(None),
            State::Running(running) => {
                Ok(running.next_message(self.pool.as_deref().unwrap_or(&self.ahead), rng))
            }
        }
    }

    /// Ends the session between two batches.
    ///
    /// # Errors
    /// [`SessionError::Unexpected`] within a batch, [`SessionError::Closed`] after the end.
    pub fn finish(&mut self) -> Result<Message, SessionError> {
        let found = "the end of the session";
        let running = self.take_running(found)?;
        if running.batches.is_empty() {
            return Ok(Message::Finish { session: running.session });
        }
        let expected = "the end of the batches under way first";
        Err(SessionError::Unexpected { expected, found: found.to_owned() })
    }

    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::Greeting | State::Closed => None,
        }
    }

    /// Consumes the state, which must be that of an accepted session.
    fn take_running(&mut self, found: &str) -> Result<Box<Running>, SessionError> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Running(running) => Ok(running),
            State::Closed => Err(SessionError::Closed),
            State::Greeting => Err(SessionError::Unexpected {
                expected: "the server's reply first",
                found: found.to_owned(),
            }),
        }
    }
}

impl Running {
    fn new(session: SessionId, plan: Arc<Plan>) -> Self {
        let (batches, awaited) = (VecDeque::new(), VecDeque::new());
        Self { session, plan, batches, next_round: 0, sending: None, awaited, sums: None }
    }

    /// The part of a tensor of sums that a message holds; all of it, decrypted, after the last.
    fn take(&mut self, message: Message, key: &SecretKey) -> Result<Option<FixedTensor>, SessionError> {
        let unexpected = |expected, message: &Message| {
            Err(SessionError::Unexpected { expected, found: message.to_string() })
        };
        let Some(&position) = self.awaited.front() else {
            return unexpected("nothing before the next batch", &message);
        };
        let (step, count) = (position.step, self.plan.batch);
        let in_step = |source| SessionError::Numbers { step, source };
        let segment = &self.plan.segments[step as usize];
        let sent = self.batches.iter().find(|batch| batch.position == position).map_or(0, |batch| batch.sent);
        let due = segment.sums_after(sent, count);
        match (self.sums.take(), message) {
            (None, Message::Sums { position: found, header }) if found == position && due > 0 => {
                let expected = segment.down_header(count);
                if header != expected {
                    let (expected, found) = (format!("{expected:?}"), format!("{header:?}"));
                    return Err(SessionError::Tensor { step, expected, found });
                }
                let most = segment.ciphertexts_down(count);
                self.sums = Some(Decryption::new(key.public_key(), header, most).map_err(in_step)?);
                Ok(None)
            }
            (None, other) => unexpected("Sums of the current step in this session", &other),
            (Some(mut sums), Message::Chunk { position: found, index, ciphertexts }) if found == position => {
                let found = sums.ciphertexts() + ciphertexts.ciphertext_count();
                if found > due {
                    let found = format!("{found} ciphertexts where {due} are due");
                    return Err(SessionError::Unexpected { expected: "sums of what was sent", found });
                }
                sums.push(index, &ciphertexts, key).map_err(in_step)?;
                if !sums.is_complete() {
                    self.sums = Some(sums);
                    return Ok(None);
                }
                sums.finish().map(Some).map_err(in_step)
            }
            (Some(_), other) => unexpected("the next Chunk of the sums that were begun", &other),
        }
    }

    /// The client's step on the sums of the tensor that was awaited first.
    fn advance(
        &mut self,
        sums: FixedTensor,
        key: &SecretKey,
        custom: Option<&mut StepFn>,
    ) -> Result<Option<Event>, SessionError> {
        let Some(position) = self.awaited.pop_front() else { return Ok(None) };
        let Some(at) = self.batches.iter().position(|batch| batch.position == position) else {
            return Ok(None);
        };
        let in_step = |source| SessionError::Numbers { step: position.step, source };
        let mut steps = Step::with_custom(&self.plan, custom, self.batches[at].saturations);
        match steps.advance(position.step as usize, sums).map_err(in_step)? {
            Some(values) => {
                let saturations = steps.saturations();
                let position = Position { step: position.step + 1, ..position };
                self.batches[at] = Batch::new(&self.plan, key, (position, values, saturations))?;
                Ok(None)
            }
            None => {
                self.batches.remove(at);
                Ok(Some(Event::Done(Box::new(steps.finish().map_err(in_step)?))))
            }
        }
    }

    /// Ciphertexts that the answers to what was sent will lead to.
    fn encryptions_awaited(&self) -> usize {
        let next = |batch: &Batch| {
            let segment = self.plan.segments.get(batch.position.step as usize + 1)?;
            batch.activations.is_none().then(|| segment.ciphertexts_up(self.plan.batch))
        };
        self.batches.iter().filter_map(next).sum()
    }

    fn next_message(&mut self, randomizer: &dyn Randomizer, rng: &mut dyn CryptoRng) -> Option<Message> {
        let sending = self.sending;
        let batch = self.batches.iter_mut().find(|batch| {
            batch.activations.is_some() && sending.is_none_or(|round| round == batch.position.round)
        })?;
        let (position, activations) = (batch.position, batch.activations.as_mut()?);
        if self.sending.is_none() {
            self.sending = Some(position.round);
            self.awaited.push_back(position);
            return Some(Message::Activations { position, header: activations.header() });
        }
        let ciphertexts = activations.next_chunk(randomizer, rng)?;
        let index = batch.chunks;
        batch.chunks += 1;
        batch.sent = activations.ciphertexts_made();
        if batch.sent == activations.ciphertext_count() {
            batch.activations = None;
            self.sending = None;
        }
        Some(Message::Chunk { position, index, ciphertexts })
    }
}

impl Batch {
    fn new(
        plan: &Plan,
        key: &SecretKey,
        (position, values, saturations): (Position, FixedTensor, u64),
    ) -> Result<Self, SessionError> {
        let segment = &plan.segments[position.step as usize];
        let activations = segment
            .arrange(values)
            .and_then(|values| Encryption::new(values, segment.up, key.public_key()))
            .map_err(|source| SessionError::Numbers { step: position.step, source })?;
        Ok(Self { position, activations: Some(activations), chunks: 0, sent: 0, saturations })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("key", &self.key).field("batch", &self.batch).finish_non_exhaustive()
    }
}
