//! The server's side of private inference.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::mem;
use std::sync::Arc;

use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{Backend, EncTensorBuilder};
use rand::CryptoRng;

use super::{
    Gate, MAX_IN_FLIGHT, Message, PROTOCOL_VERSION, Position, ServerModel, SessionError, SessionId, Workers,
    tables_of_replies,
};
use crate::peer::exchange::Incoming;
use crate::peer::{Counted, Expected, Idle, Part, Peer};
use crate::plan::{Deployment, Program};

/// The server's side of one session: it grants what a client asks for, and computes on what it sends. [`Client`] shows a
/// whole session.
///
/// [`Client`]: super::Client
///
/// ```
/// use std::sync::Arc;
///
/// use gelu_layers::Initializer;
/// use gelu_models::ModelBuilder;
/// use gelu_models::infer::{Client, Message, Server, ServerModel};
/// use gelu_models::peer::Peer;
/// use gelu_models::plan::Quantization;
/// use gelu_tensor::paillier::{KeyBits, SecretKey};
/// use rand::{SeedableRng, rngs::ChaCha20Rng};
///
/// let mut rng = ChaCha20Rng::seed_from_u64(1); // for an example: seed yours from the system
/// let mut model = ModelBuilder::new([4]).dense("fc", 2).build()?;
/// model.initialize(Initializer::KaimingUniform, &mut rng);
/// let mut server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));
///
/// let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng)?); // 1,024 bits: for tests only
/// let hello = Client::new(key, 60).next_message(&mut rng)?.ok_or("a client speaks first")?;
/// server.handle(hello, &mut rng)?;
/// assert!(matches!(server.next_message(&mut rng)?, Some(Message::Accept { .. })));
/// let plan = server.program().ok_or("there is a client")?.plan();
/// assert_eq!(plan.description().batch, 60);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Server {
    model: Arc<ServerModel>,
    backend: Backend,
    gate: Option<Arc<dyn Gate>>,
    workers: Option<Arc<dyn Workers>>,
    state: State,
}

#[derive(Debug)]
enum State {
    Listening,
    Computing(Box<Computing>),
    Closed,
}

#[derive(Debug)]
struct Computing {
    key: PublicKey,
    program: Program,
    session: SessionId,
    /// What is sent before anything else is computed.
    outgoing: VecDeque<Message>,
    batches: Batches,
    /// The segments whose inputs came, in order; of the last, chunks may be missing.
    jobs: VecDeque<Job>,
    /// Whether the tables of the client's key are yet to be made.
    unprepared: bool,
    gate: Option<Arc<dyn Gate>>,
    workers: Option<Arc<dyn Workers>>,
}

/// The batches in flight, oldest first.
#[derive(Debug)]
struct Batches {
    in_flight: VecDeque<Batch>,
    next_round: u32,
}

#[derive(Debug)]
struct Batch {
    round: u32,
    /// The next segment.
    segment: u32,
    /// Whether its inputs have begun to come.
    begun: bool,
}

/// A segment on a batch.
#[derive(Debug)]
struct Job {
    round: u32,
    segment: usize,
    /// A tensor for each term.
    inputs: Incoming,
}

impl Server {
    /// Returns a session that waits for a client's hello.
    pub fn new(model: Arc<ServerModel>) -> Self {
        Self { model, backend: Backend::detect(), gate: None, workers: None, state: State::Listening }
    }

    /// Returns the session with someone who is asked before every batch.
    pub fn with_gate(self, gate: Arc<dyn Gate>) -> Self {
        Self { gate: Some(gate), ..self }
    }

    /// Returns the session with machines that compute its replies.
    pub fn with_workers(self, workers: Arc<dyn Workers>) -> Self {
        Self { workers: Some(workers), ..self }
    }

    /// Returns the session with its arithmetic done, and its plan made, for another backend than the
    /// [fastest](Backend::detect).
    pub fn on(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// Returns the key of the client, which decoding its next message needs; `None` before its hello and after the end.
    pub fn key(&self) -> Option<&PublicKey> {
        self.computing().map(|computing| &computing.key)
    }

    /// Returns the program of the session, once there is one.
    pub fn program(&self) -> Option<&Program> {
        self.computing().map(|computing| &computing.program)
    }

    /// Returns the number of batches in flight.
    pub fn batches_in_flight(&self) -> usize {
        self.computing().map_or(0, |computing| computing.batches.in_flight.len())
    }

    fn computing(&self) -> Option<&Computing> {
        match &self.state {
            State::Computing(computing) => Some(computing),
            State::Listening | State::Closed => None,
        }
    }
}

impl Peer for Server {
    type Message = Message;
    type Event = Infallible;
    type Error = SessionError;

    /// Takes a message. The client's last closes the session.
    fn handle(
        &mut self,
        message: Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Infallible>, SessionError> {
        match (mem::replace(&mut self.state, State::Closed), message) {
            (State::Closed, _) => return Err(SessionError::Closed),
            (_, Message::Abort { reason }) => return Err(SessionError::Aborted(reason)),
            (State::Listening, Message::Hello { version, key, batch, prefer }) => {
                if version != PROTOCOL_VERSION {
                    return Err(SessionError::Version { expected: PROTOCOL_VERSION, found: version });
                }
                let in_first = |source| SessionError::Numbers { segment: 0, source };
                let key = key.on(self.backend).map_err(in_first)?;
                let lanes = self.backend.lanes();
                let deployment = Deployment { key: key.parameters(), batch: batch as usize, lanes, prefer };
                let program = self.model.program(&deployment).map_err(SessionError::Refused)?;
                let mut session = SessionId([0; 16]);
                rng.fill_bytes(&mut session.0);
                let description = Box::new(program.plan().description().clone());
                self.state = State::Computing(Box::new(Computing {
                    key,
                    program,
                    session,
                    outgoing: VecDeque::from([Message::Accept { session, description }]),
                    batches: Batches { in_flight: VecDeque::new(), next_round: 0 },
                    jobs: VecDeque::new(),
                    unprepared: true,
                    gate: self.gate.clone(),
                    workers: self.workers.clone(),
                }));
            }
            (State::Listening, other) => {
                return Err(SessionError::Unexpected { expected: Expected::Hello, found: other.to_string() });
            }
            (State::Computing(mut computing), message) => {
                if !computing.is_end(&message) {
                    computing.take(message)?;
                    self.state = State::Computing(computing);
                }
            }
        }
        Ok(None)
    }

    /// Computes the next sums in a unit of bounded size: a part of one segment, as the plan says, however large the
    /// batch. `None` until the client says more.
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Closed => Err(SessionError::Closed),
            State::Listening => {
                self.state = State::Listening;
                Ok(None)
            }
            State::Computing(mut computing) => {
                let message = computing.next_message(rng)?;
                self.state = State::Computing(computing);
                Ok(message)
            }
        }
    }

    fn has_work(&self) -> bool {
        self.computing().is_some_and(|computing| {
            computing.outgoing.is_empty() && computing.jobs.front().is_some_and(|job| job.inputs.has_part())
        })
    }

    /// The tables of the client's key that replies will take, which another thread can make while the client encrypts.
    fn idle(&mut self, _: &mut dyn CryptoRng) -> Idle {
        let State::Computing(computing) = &mut self.state else { return Idle::Nothing };
        if !mem::take(&mut computing.unprepared) || computing.workers.is_some() {
            return Idle::Nothing;
        }
        tables_of_replies(
            &computing.key,
            computing.program.plan().segments().iter().map(|segment| &segment.layout),
        )
    }

    fn close(&mut self) {
        self.state = State::Closed;
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
    fn operations(&self) -> Counted {
        Counted::under(self.key())
    }
}

impl Computing {
    /// Whether the client may end the session now, and does.
    fn is_end(&self, message: &Message) -> bool {
        let done = self.outgoing.is_empty() && self.batches.in_flight.is_empty();
        matches!(message, Message::Finish { session } if done && *session == self.session)
    }

    fn take(&mut self, message: Message) -> Result<(), SessionError> {
        let found = message.to_string();
        let unexpected = || SessionError::Unexpected { expected: Expected::Inputs, found };
        let Message::Tensor { position, index, ciphertexts } = message else { return Err(unexpected()) };
        let Position { session, round, part: Part::Inputs { segment, term } } = position else {
            return Err(unexpected());
        };
        let in_segment = |source| SessionError::Numbers { segment, source };
        if self.jobs.back().is_none_or(|job| job.inputs.due().is_none()) {
            if session != self.session || term != 0 || !self.batches.begin(round, segment) {
                return Err(unexpected());
            }
            if segment == 0
                && let Some(gate) = &self.gate
            {
                gate.admit(self.program.plan().description().batch)?;
            }
            let terms = self.program.plan().segments()[segment as usize].terms.len();
            self.jobs.push_back(Job { round, segment: segment as usize, inputs: Incoming::new(terms) });
        }
        let Some(job) = self.jobs.back_mut() else { return Err(unexpected()) };
        let due = (self.session, job.round, job.segment, job.inputs.due());
        if due != (session, round, segment as usize, Some(term as usize)) {
            return Err(unexpected());
        }
        let planned = &self.program.plan().segments()[job.segment];
        let begin = || {
            let groups = planned.layout.groups_of_part();
            EncTensorBuilder::new(&self.key, planned.up_header(term as usize), groups)
        };
        job.inputs.push((index, &ciphertexts), begin).map_err(in_segment)
    }

    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        if self.outgoing.is_empty()
            && let Some(job) = self.jobs.front_mut()
        {
            self.outgoing.extend(job.advance(&self.program, self.workers.as_deref(), self.session, rng)?);
        }
        let message = self.outgoing.pop_front();
        // Only with the last of its sums in hand can a client go on.
        if self.outgoing.is_empty()
            && self.jobs.front().is_some_and(|job| job.inputs.is_answered())
            && let Some(job) = self.jobs.pop_front()
        {
            self.batches.end(job.round, job.segment as u32, self.program.plan().segments().len());
        }
        Ok(message)
    }
}

impl Batches {
    /// Whether the inputs of a segment may come now; then it is noted that they do.
    fn begin(&mut self, round: u32, segment: u32) -> bool {
        if let Some(batch) = self.in_flight.iter_mut().find(|batch| batch.round == round) {
            return !mem::replace(&mut batch.begun, true) && batch.segment == segment;
        }
        let free = self.in_flight.len() < MAX_IN_FLIGHT;
        let allowed = free && round == self.next_round && segment == 0;
        if allowed {
            self.next_round = round.wrapping_add(1);
            self.in_flight.push_back(Batch { round, segment, begun: true });
        }
        allowed
    }

    /// Notes that the sums of a segment were sent.
    fn end(&mut self, round: u32, segment: u32, segments: usize) {
        if segment as usize + 1 == segments {
            self.in_flight.retain(|batch| batch.round != round);
        }
        for batch in self.in_flight.iter_mut().filter(|batch| batch.round == round) {
            (batch.segment, batch.begun) = (segment + 1, false);
        }
    }
}

impl Job {
    /// The reply to the next part, if it has come.
    fn advance(
        &mut self,
        program: &Program,
        workers: Option<&dyn Workers>,
        session: SessionId,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Message>, SessionError> {
        let Some((at, inputs)) = self.inputs.next_part() else { return Ok(vec![]) };
        let in_segment = |source| SessionError::Numbers { segment: self.segment as u32, source };
        let sums = match workers {
            Some(workers) => workers.reply(program, self.segment, at, &inputs, rng),
            None => program.shard(self.segment, at).and_then(|shard| program.reply(&shard, &inputs, rng)),
        };
        let part = Part::Sums { segment: self.segment as u32 };
        let position = Position { session, round: self.round, part };
        let chunks = self.inputs.number(sums.map_err(in_segment)?.chunks());
        let message = |(index, ciphertexts)| Message::Tensor { position, index, ciphertexts };
        Ok(chunks.into_iter().map(message).collect())
    }
}
