//! The client's side of private inference: the only place where a secret key and plaintexts are.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::sync::Arc;

use gelu_tensor::paillier::{Randomizer, RandomnessPool, SecretKey};
use gelu_tensor::{Decryption, Encryption, Error, FixedTensor};
use ndarray::{ArrayView, Dimension};
use rand::CryptoRng;

use super::{MAX_IN_FLIGHT, Message, PROTOCOL_VERSION, Position, SessionError, SessionId, accepted_plan};
use crate::peer::exchange::Outgoing;
use crate::peer::{Expected, Idle, Misuse, Part, Peer};
use crate::plan::{ClientFunction, Functions, Need, Outcome, Plan, Preference, Run};

/// Random factors that a client makes before it knows the plan: most networks take as many for their first tensor.
const FACTORS_WITHOUT_PLAN: usize = 64;

/// The most that it keeps, some hundred kilobytes.
const FACTORS_AHEAD: usize = 512;

/// As many as keep all threads busy for less than a millisecond or two, for which an answer may have to wait.
const FACTORS_AT_A_TIME: usize = 32;

/// The client's side of one session.
///
/// ```
/// use std::sync::Arc;
///
/// use gelu_layers::Initializer;
/// use gelu_models::ModelBuilder;
/// use gelu_models::infer::{Client, Event, Server, ServerModel};
/// use gelu_models::peer::Peer;
/// use gelu_models::plan::Quantization;
/// use gelu_tensor::paillier::{KeyBits, SecretKey};
/// use ndarray::array;
/// use rand::{SeedableRng, rngs::ChaCha20Rng};
///
/// let mut rng = ChaCha20Rng::seed_from_u64(1); // for an example: seed yours from the system
/// let mut model = ModelBuilder::new([4]).dense("fc", 2).build()?;
/// model.initialize(Initializer::KaimingUniform, &mut rng);
/// let inputs = array![[0.5, -0.25, 1.0, 0.0]];
/// let expected = model.logits(inputs.view())?;
/// let mut server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));
///
/// let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng)?); // 1,024 bits: for tests only
/// let mut client = Client::new(key, 1);
/// let mut logits = None;
/// while !server.is_closed() {
///     // Between two machines each message travels as bytes.
///     while !client.is_closed()
///         && let Some(message) = client.next_message(&mut rng)?
///     {
///         server.handle(message, &mut rng)?;
///     }
///     while !server.is_closed()
///         && let Some(message) = server.next_message(&mut rng)?
///     {
///         match client.handle(message, &mut rng)? {
///             Some(Event::Ready) => client.start(inputs.view())?,
///             Some(Event::Done(outcome)) => {
///                 logits = Some(outcome.logits);
///                 client.finish()?;
///             }
///             None => {}
///         }
///     }
/// }
/// let logits = logits.ok_or("the session ended early")?;
/// assert!((logits[[0, 1]] - f64::from(expected[[0, 1]])).abs() < 0.05);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    key: Arc<SecretKey>,
    pool: Option<Arc<RandomnessPool>>,
    /// Random factors made while there was nothing else to do.
    ahead: RandomnessPool,
    batch: u32,
    prefer: Preference,
    functions: Functions,
    state: State,
}

enum State {
    /// The hello is yet to be sent.
    New,
    /// It was sent.
    Greeting,
    Running(Box<Running>),
    Closed,
}

struct Running {
    session: SessionId,
    plan: Arc<Plan>,
    /// The batches in flight, oldest first: none overtakes another.
    batches: VecDeque<Batch>,
    next_round: u32,
    /// The batch whose tensors have been begun and not been sent to their end.
    sending: Option<u32>,
    /// The sums that the server has to send, in order: of which batch and segment.
    awaited: VecDeque<(u32, usize)>,
    /// The first of them, once they have begun.
    sums: Option<Decryption>,
    finishing: bool,
}

/// A batch on its way.
struct Batch {
    round: u32,
    run: Run,
    segment: usize,
    /// What is to be sent, term by term; the first may be in progress.
    inputs: VecDeque<Outgoing>,
    /// Ciphertexts sent of the last term, once those before were sent.
    sent: usize,
}

/// What a message led to.
#[derive(Debug)]
pub enum Event {
    /// The server has accepted: [`Client::start`] a batch.
    Ready,
    /// The oldest batch in flight is through; start another or [`Client::finish`].
    Done(Box<Outcome>),
}

impl Client {
    /// Returns a session for batches of `batch` images, whose first message is a hello.
    pub fn new(key: Arc<SecretKey>, batch: u32) -> Self {
        let ahead = RandomnessPool::new(key.clone(), FACTORS_AHEAD);
        let (prefer, functions) = (Preference::default(), Functions::default());
        Self { key, pool: None, ahead, batch, prefer, functions, state: State::New }
    }

    /// Returns the session for a plan that saves something else, where there is a choice, than the
    /// [default](Preference::default).
    pub fn preferring(self, prefer: Preference) -> Self {
        Self { prefer, ..self }
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

    /// Adds a function of one's own, which the graph calls by its name
    /// ([`ModelBuilder::client_function`](crate::ModelBuilder::client_function)).
    pub fn with_function(mut self, name: &str, function: Arc<ClientFunction>) -> Self {
        self.functions.insert(name, function);
        self
    }

    /// Returns the plan, once the server has accepted.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.running().map(|running| &running.plan)
    }

    /// Returns the number of batches in flight.
    pub fn batches_in_flight(&self) -> usize {
        self.running().map_or(0, |running| running.batches.len())
    }

    /// Returns whether [`start`](Self::start) may be called now.
    pub fn can_start(&self) -> bool {
        self.running().is_some_and(|running| running.batches.len() < MAX_IN_FLIGHT && !running.finishing)
    }

    /// Returns the key pair, whose public half decoding a message needs.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Quantizes a batch of images, `[images, elements]` or of the model's input shape, which [`next_message`](Peer::next_message) then encrypts and
    /// sends. At most two can be in flight.
    ///
    /// # Errors
    /// [`SessionError::Misuse`] when no batch may start now; [`SessionError::Images`] when the images are not as many as
    /// the session's batch, not of the model's input shape, or not finite. The session is closed then.
    pub fn start<D: Dimension>(&mut self, images: ArrayView<'_, f32, D>) -> Result<(), SessionError> {
        let can_start = self.can_start();
        let mut running = self.take_running()?;
        if !can_start {
            return Err(Misuse::BatchesInFlight.into());
        }
        let (expected, found) = (self.batch as usize, images.shape().first().copied().unwrap_or(0));
        if expected != found {
            return Err(SessionError::Images(Error::Count { what: "images of a batch", expected, found }));
        }
        let (run, need) =
            Run::start(running.plan.clone(), self.functions.clone(), images).map_err(SessionError::Images)?;
        let round = running.next_round;
        running.next_round = round.wrapping_add(1);
        let mut batch = Batch { round, run, segment: 0, inputs: VecDeque::new(), sent: 0 };
        batch.encrypt(need, &running.plan, &self.key)?;
        running.batches.push_back(batch);
        self.state = State::Running(running);
        Ok(())
    }

    /// Ends the session between two batches: the next message says so, and is the last.
    ///
    /// # Errors
    /// [`SessionError::Misuse`] within a batch, [`SessionError::Closed`] after the end.
    pub fn finish(&mut self) -> Result<(), SessionError> {
        let mut running = self.take_running()?;
        if !running.batches.is_empty() {
            return Err(Misuse::WithinBatch.into());
        }
        running.finishing = true;
        self.state = State::Running(running);
        Ok(())
    }

    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::New | State::Greeting | State::Closed => None,
        }
    }

    /// Consumes the state, which must be that of an accepted session.
    fn take_running(&mut self) -> Result<Box<Running>, SessionError> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Running(running) => Ok(running),
            State::Closed => Err(SessionError::Closed),
            State::New | State::Greeting => Err(Misuse::NotAccepted.into()),
        }
    }
}

impl Peer for Client {
    type Message = Message;
    type Event = Event;
    type Error = SessionError;

    /// Decrypts a chunk of sums, and computes the client's steps after the last.
    fn handle(&mut self, message: Message, _: &mut dyn CryptoRng) -> Result<Option<Event>, SessionError> {
        match (mem::replace(&mut self.state, State::Closed), message) {
            (State::Closed, _) => Err(SessionError::Closed),
            (_, Message::Abort { reason }) => Err(SessionError::Aborted(reason)),
            (State::Greeting, Message::Accept { session, description }) => {
                let asked = (self.key.public_key(), self.batch, self.prefer);
                let plan = accepted_plan(*description, asked).map_err(SessionError::Plan)?;
                self.state = State::Running(Box::new(Running::new(session, Arc::new(plan))));
                Ok(Some(Event::Ready))
            }
            (State::New | State::Greeting, other) => {
                Err(SessionError::Unexpected { expected: Expected::Accept, found: other.to_string() })
            }
            (State::Running(mut running), message) => {
                let event = match running.take(message, &self.key)? {
                    Some(sums) => running.advance(sums, &self.key)?,
                    None => None,
                };
                self.state = State::Running(running);
                Ok(event)
            }
        }
    }

    /// Encrypts the next chunk; `None` until the server says more or another batch is started.
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        match &mut self.state {
            State::Closed => Err(SessionError::Closed),
            State::New => {
                self.state = State::Greeting;
                let (key, batch, prefer) = (self.key.public_key().clone(), self.batch, self.prefer);
                Ok(Some(Message::Hello { version: PROTOCOL_VERSION, key, batch, prefer }))
            }
            State::Greeting => Ok(None),
            State::Running(running) if running.finishing => {
                let session = running.session;
                self.state = State::Closed;
                Ok(Some(Message::Finish { session }))
            }
            State::Running(running) => {
                Ok(running.next_message(self.pool.as_deref().unwrap_or(&self.ahead), rng))
            }
        }
    }

    /// Makes random factors of the next encryptions, a few at a time, until enough are ready or a pool has them.
    fn idle(&mut self, rng: &mut dyn CryptoRng) -> Idle {
        let wanted = match &self.state {
            _ if self.pool.is_some() => 0,
            State::Greeting => FACTORS_WITHOUT_PLAN,
            State::Running(running) => running.encryptions_awaited().min(self.ahead.capacity()),
            State::New | State::Closed => 0,
        };
        let missing = wanted.saturating_sub(self.ahead.ready());
        self.ahead.make(rng, missing.min(FACTORS_AT_A_TIME));
        if missing > 0 { Idle::Worked } else { Idle::Nothing }
    }

    fn close(&mut self) {
        self.state = State::Closed;
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}

impl Running {
    fn new(session: SessionId, plan: Arc<Plan>) -> Self {
        let (batches, awaited) = (VecDeque::new(), VecDeque::new());
        Self { session, plan, batches, next_round: 0, sending: None, awaited, sums: None, finishing: false }
    }

    /// The part of a tensor of sums that a message holds; all of it, decrypted, after the last.
    fn take(&mut self, message: Message, key: &SecretKey) -> Result<Option<FixedTensor>, SessionError> {
        let unexpected = |expected, message: &Message| {
            Err(SessionError::Unexpected { expected, found: message.to_string() })
        };
        let Some(&(round, index)) = self.awaited.front() else {
            return unexpected(Expected::Nothing, &message);
        };
        let segment = &self.plan.segments()[index];
        let part = Part::Sums { segment: index as u32 };
        let awaited = Position { session: self.session, round, part };
        match message {
            Message::Tensor { position, index: chunk, ciphertexts } if position == awaited => {
                let in_segment = |source| SessionError::Numbers { segment: index as u32, source };
                let mut sums = match self.sums.take() {
                    Some(sums) => sums,
                    None => Decryption::new(key.public_key(), segment.down_header()).map_err(in_segment)?,
                };
                let sent = self.batches.iter().find(|batch| batch.round == round).map_or(0, |b| b.sent);
                let (due, found) =
                    (segment.sums_after(sent), sums.ciphertexts() + ciphertexts.ciphertext_count());
                if found > due {
                    let found = format!("{found} ciphertexts where {due} are due");
                    return Err(SessionError::Unexpected { expected: Expected::SumsOfInputs, found });
                }
                sums.push(chunk, &ciphertexts, key).map_err(in_segment)?;
                if !sums.is_complete() {
                    self.sums = Some(sums);
                    return Ok(None);
                }
                sums.finish().map(Some).map_err(in_segment)
            }
            other => unexpected(Expected::Tensor { round, part }, &other),
        }
    }

    /// The client's steps on the sums of the tensor that was awaited first.
    fn advance(&mut self, sums: FixedTensor, key: &SecretKey) -> Result<Option<Event>, SessionError> {
        let Some((round, segment)) = self.awaited.pop_front() else { return Ok(None) };
        let Some(at) = self.batches.iter().position(|batch| batch.round == round) else { return Ok(None) };
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        match self.batches[at].run.take(sums).map_err(in_segment)? {
            need @ Need::Sums { .. } => {
                self.batches[at].encrypt(need, &self.plan, key)?;
                Ok(None)
            }
            Need::Nothing => match self.batches.remove(at) {
                Some(batch) => Ok(Some(Event::Done(Box::new(batch.run.finish().map_err(in_segment)?)))),
                None => Ok(None),
            },
        }
    }

    /// Ciphertexts that the answers to what was sent will lead to.
    fn encryptions_awaited(&self) -> usize {
        let next = |batch: &Batch| {
            let segment = self.plan.segments().get(batch.segment + 1)?;
            batch.inputs.is_empty().then(|| segment.ciphertexts_up())
        };
        self.batches.iter().filter_map(next).sum()
    }

    fn next_message(&mut self, randomizer: &dyn Randomizer, rng: &mut dyn CryptoRng) -> Option<Message> {
        let sending = self.sending;
        let batch = self
            .batches
            .iter_mut()
            .find(|batch| !batch.inputs.is_empty() && sending.is_none_or(|round| round == batch.round))?;
        if self.sending.is_none() {
            self.sending = Some(batch.round);
            self.awaited.push_back((batch.round, batch.segment));
        }
        let terms = self.plan.segments()[batch.segment].terms.len();
        let (segment, term) = (batch.segment as u32, (terms - batch.inputs.len()) as u32);
        let inputs = batch.inputs.front_mut()?;
        let (index, ciphertexts) = inputs.next(randomizer, rng)?;
        if term as usize + 1 == terms {
            batch.sent = inputs.ciphertexts();
        }
        if inputs.is_complete() {
            batch.inputs.pop_front();
        }
        if batch.inputs.is_empty() {
            self.sending = None;
        }
        let part = Part::Inputs { segment, term };
        let position = Position { session: self.session, round: batch.round, part };
        Some(Message::Tensor { position, index, ciphertexts })
    }
}

impl Batch {
    /// Takes what a run needs sums of as what is to be sent next.
    fn encrypt(&mut self, need: Need, plan: &Plan, key: &SecretKey) -> Result<(), SessionError> {
        let Need::Sums { segment, inputs } = need else { return Ok(()) };
        let layouts = &plan.segments()[segment].layout.ups;
        let encrypt = |(values, layout)| Encryption::new(values, layout, key.public_key()).map(Outgoing::new);
        let inputs = inputs.into_iter().zip(layouts).map(encrypt).collect::<Result<_, _>>();
        self.inputs = inputs.map_err(|source| SessionError::Numbers { segment: segment as u32, source })?;
        (self.segment, self.sent) = (segment, 0);
        Ok(())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("key", &self.key).field("batch", &self.batch).finish_non_exhaustive()
    }
}
