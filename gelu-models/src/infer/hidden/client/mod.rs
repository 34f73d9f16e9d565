//! The client's side: it has the image and the key, and sees of the model what masks leave.

mod ahead;
mod online;
mod running;

use std::fmt;
use std::mem;
use std::sync::Arc;

use gelu_garble::Opening;
use gelu_tensor::Error;
use gelu_tensor::paillier::{Randomizer, RandomnessPool, SecretKey};
use ndarray::{ArrayView, Dimension};
use rand::CryptoRng;

use self::online::Batch;
use self::running::Running;
use super::super::{Position, SessionError, SessionId, accepted_plan};
use super::material::Prepared;
use super::{Block, HIDDEN_VERSION, Message};
use crate::peer::{Expected, Idle, Misuse, Peer};
use crate::plan::{
    ClientFunction, Description, Functions, HiddenPlan, Outcome, Plan, PlanError, Preference, Reveal,
};

/// Random factors that are kept while there is nothing else to do.
const FACTORS_AHEAD: usize = 64;

/// The client's side of one session in which it does not see the model.
///
/// ```
/// use std::sync::Arc;
///
/// use gelu_models::infer::ServerModel;
/// use gelu_models::infer::hidden::{Answer, Client, Event, Server};
/// use gelu_models::peer::Peer;
/// use gelu_models::plan::{Quantization, Reveal};
/// use gelu_models::{ModelBuilder, plan::Deployment};
/// use gelu_layers::Initializer;
/// use gelu_tensor::paillier::{KeyBits, SecretKey};
/// use ndarray::array;
/// use rand::{SeedableRng, rngs::ChaCha20Rng};
///
/// let mut rng = ChaCha20Rng::seed_from_u64(1); // for an example: seed yours from the system
/// let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build()?;
/// model.initialize(Initializer::KaimingUniform, &mut rng);
/// let inputs = array![[0.5, -0.25, 1.0, 0.0]];
/// model.calibrate(inputs.view())?;
/// let expected = model.compile(&Quantization::default(), &Deployment::default())?.run_clear(inputs.view())?;
/// let mut server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));
///
/// let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng)?); // 1,024 bits: for tests only
/// let mut client = Client::new(key, 2, Reveal::Logits);
/// let mut outcome = None;
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
///             Some(Event::Ready) => client.prepare()?,
///             // Two queries can be answered at once now, with as little work as multiplying in the clear.
///             Some(Event::Prepared) => client.start(inputs.view())?,
///             Some(Event::Done(Answer::Logits(answer))) => {
///                 outcome = Some(answer);
///                 client.finish()?;
///             }
///             _ => {}
///         }
///     }
/// }
/// assert_eq!(outcome.ok_or("the session ended early")?.integers, expected.integers);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    key: Arc<SecretKey>,
    pool: Option<Arc<RandomnessPool>>,
    ahead: RandomnessPool,
    queries: u32,
    memory: usize,
    reveal: Reveal,
    prefer: Preference,
    functions: Functions,
    state: State,
}

enum State {
    New,
    Greeting(Opening),
    Running(Box<Running>),
    Closed,
}

/// What a message led to.
#[derive(Debug)]
pub enum Event {
    /// The server has accepted: [`Client::prepare`] or [`Client::start`].
    Ready,
    /// As many queries as are prepared together are in stock.
    Prepared,
    /// All images are through.
    Done(Answer),
}

/// What the client learns.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The outputs. Only clamped inputs are counted: of activations nobody knows.
    Logits(Box<Outcome>),
    /// For each image the index of its largest output, the first of equals.
    Classes(Vec<usize>),
}

impl Client {
    /// Bytes of memory for queries that are prepared and not yet used, if nothing else is [said](Self::keeping).
    pub const MEMORY: usize = 1_000_000_000;

    /// The most such queries: what a server keeps for a client.
    pub const MOST_PREPARED: usize = 256;

    /// Returns a session that prepares so many queries together, or as many as there is [memory](Self::keeping) for, and whose
    /// first message is a hello. What is learned at the end of each is what `reveal` says.
    pub fn new(key: Arc<SecretKey>, queries: u32, reveal: Reveal) -> Self {
        let ahead = RandomnessPool::new(key.clone(), FACTORS_AHEAD);
        let (prefer, functions) = (Preference::default(), Functions::default());
        let memory = Self::MEMORY;
        Self { key, pool: None, ahead, queries, memory, reveal, prefer, functions, state: State::New }
    }

    /// Returns the session with so many bytes of memory for queries that are prepared and not yet used, in place of
    /// [`MEMORY`](Self::MEMORY).
    pub fn keeping(self, bytes: usize) -> Self {
        Self { memory: bytes, ..self }
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

    /// Adds a function of one's own, which the graph calls by its name before its first or after its last linear layer.
    pub fn with_function(mut self, name: &str, function: Arc<ClientFunction>) -> Self {
        self.functions.insert(name, function);
        self
    }

    /// Returns the plan, once the server has accepted.
    pub fn plan(&self) -> Option<&Arc<Plan>> {
        self.running().map(|running| &running.plan)
    }

    /// Returns what hiding the model takes, once the server has accepted.
    pub fn hidden_plan(&self) -> Option<&HiddenPlan> {
        self.running().map(|running| &*running.hidden)
    }

    /// Returns how many queries are prepared and not yet used.
    pub fn prepared(&self) -> usize {
        self.running().map_or(0, |running| running.stock.len())
    }

    /// Returns whether a preparation was asked for that is not complete.
    pub fn is_preparing(&self) -> bool {
        self.running().is_some_and(|running| running.wanted > 0 || running.preparing.is_some())
    }

    /// Returns whether there is room for a preparation more ([`prepare`](Self::prepare)).
    pub fn has_room(&self) -> bool {
        self.running().is_some_and(|running| running.with_a_preparation_more() <= running.most)
    }

    /// Returns the key pair, whose public half decoding a message needs.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Prepares some queries more, as many as are prepared together: [`next_message`](Peer::next_message) does it where
    /// there is no image to go on with.
    ///
    /// # Errors
    /// [`SessionError::Prepared`] when they would be more than [may be](HiddenPlan::most_prepared);
    /// [`SessionError::Misuse`] before [`Event::Ready`]. The session is closed then.
    pub fn prepare(&mut self) -> Result<(), SessionError> {
        let mut running = self.take_running()?;
        let (expected, found) = (running.most, running.with_a_preparation_more());
        if found > expected {
            return Err(SessionError::Prepared { expected, found });
        }
        running.wanted += 1;
        self.state = State::Running(running);
        Ok(())
    }

    /// Quantizes images, `[images, elements]` or of the model's input shape. Each takes a prepared query, and waits for one to
    /// be prepared where there is none.
    ///
    /// # Errors
    /// [`SessionError::Misuse`] when no batch may start now; [`SessionError::Images`] when the images are none, not of the
    /// model's input shape, or not finite. The session is closed then.
    pub fn start<D: Dimension>(&mut self, images: ArrayView<'_, f32, D>) -> Result<(), SessionError> {
        let mut running = self.take_running()?;
        if running.batch.is_some() || running.finishing {
            return Err(Misuse::BatchesInFlight.into());
        }
        let started = Batch::start((&running.plan, &running.hidden), self.functions.clone(), images);
        running.batch = Some(started.map_err(SessionError::Images)?);
        self.state = State::Running(running);
        Ok(())
    }

    /// Ends the session between two batches: the next message says so, and is the last.
    ///
    /// # Errors
    /// [`SessionError::Misuse`] within a batch, [`SessionError::Closed`] after the end.
    pub fn finish(&mut self) -> Result<(), SessionError> {
        let mut running = self.take_running()?;
        if running.batch.is_some() {
            return Err(Misuse::WithinBatch.into());
        }
        running.finishing = true;
        self.state = State::Running(running);
        Ok(())
    }

    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::New | State::Greeting(_) | State::Closed => None,
        }
    }

    /// Consumes the state, which must be that of an accepted session.
    fn take_running(&mut self) -> Result<Box<Running>, SessionError> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Running(running) => Ok(running),
            State::Closed => Err(SessionError::Closed),
            State::New | State::Greeting(_) => Err(Misuse::NotAccepted.into()),
        }
    }

    fn accepted(
        &self,
        opening: Opening,
        (session, description): (SessionId, Description),
        transfers: &[u8],
    ) -> Result<Running, SessionError> {
        let found = description.batch;
        let asked = (self.key.public_key(), self.queries.min(found as u32), self.prefer);
        let plan = accepted_plan(description, asked).map_err(SessionError::Plan)?;
        let hidden = HiddenPlan::new(&plan, self.reveal).map_err(SessionError::Plan)?;
        let (needed, allowed) = (hidden.client_bytes(), self.memory);
        if needed > allowed {
            return Err(SessionError::Memory { needed, allowed });
        }
        let most = hidden.most_prepared(self.memory);
        let expected = most.min(self.queries as usize);
        if expected != found {
            return Err(SessionError::Plan(PlanError::Batch { expected, found }));
        }
        let receiver = opening.finish(transfers).map_err(SessionError::garbling(0))?;
        Ok(Running::new(session, (plan, hidden, most), receiver))
    }
}

impl Peer for Client {
    type Message = Message;
    type Event = Event;
    type Error = SessionError;

    /// Decrypts a chunk of masked sums, or evaluates a block of circuits.
    fn handle(&mut self, message: Message, _: &mut dyn CryptoRng) -> Result<Option<Event>, SessionError> {
        match (mem::replace(&mut self.state, State::Closed), message) {
            (State::Closed, _) => Err(SessionError::Closed),
            (_, Message::Abort { reason }) => Err(SessionError::Aborted(reason)),
            (State::Greeting(opening), Message::Accept { session, description, transfers }) => {
                let running = self.accepted(opening, (session, *description), &transfers)?;
                self.state = State::Running(Box::new(running));
                Ok(Some(Event::Ready))
            }
            (State::New | State::Greeting(_), other) => {
                Err(SessionError::Unexpected { expected: Expected::Accept, found: other.to_string() })
            }
            (State::Running(mut running), message) => {
                let event = running.take(message, &self.key)?;
                self.state = State::Running(running);
                Ok(event)
            }
        }
    }

    /// Says what an image needs next, and else the next masks or choices of a preparation; `None` until the server says
    /// more or something else is asked for.
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Closed => Err(SessionError::Closed),
            State::New => {
                let opening = Opening::new(rng);
                let hello = Message::Hello {
                    version: HIDDEN_VERSION,
                    key: self.key.public_key().clone(),
                    queries: self.queries,
                    memory: self.memory as u64,
                    reveal: self.reveal,
                    prefer: self.prefer,
                    opening: opening.message(),
                };
                self.state = State::Greeting(opening);
                Ok(Some(hello))
            }
            State::Greeting(opening) => {
                self.state = State::Greeting(opening);
                Ok(None)
            }
            State::Running(running) if running.finishing => {
                Ok(Some(Message::Finish { session: running.session }))
            }
            State::Running(mut running) => {
                let randomizer = self.pool.as_deref().unwrap_or(&self.ahead);
                let message = running.next_message((&self.key, randomizer), rng)?;
                self.state = State::Running(running);
                Ok(message)
            }
        }
    }

    /// Makes random factors of the first encryptions while the server makes its plan.
    fn idle(&mut self, rng: &mut dyn CryptoRng) -> Idle {
        let missing = match self.state {
            State::Greeting(_) if self.pool.is_none() => FACTORS_AHEAD.saturating_sub(self.ahead.ready()),
            _ => 0,
        };
        self.ahead.make(rng, missing);
        if missing > 0 { Idle::Worked } else { Idle::Nothing }
    }

    fn close(&mut self) {
        self.state = State::Closed;
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}

/// Does not print what is secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("key", &self.key)
            .field("queries", &self.queries)
            .finish_non_exhaustive()
    }
}
