//! The server's side of private inference.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::mem;
use std::sync::{Arc, OnceLock};

use gelu_tensor::paillier::{KeyParameters, PublicKey};
use gelu_tensor::{Backend, EncTensor, EncTensorBuilder, Operations};
use rand::CryptoRng;

use super::{BATCHES_UNDER_WAY, Message, PROTOCOL_VERSION, Position, SessionError, SessionId};
use crate::Model;
use crate::peer::{AbortReason, Counted, Idle, Part, Peer};
use crate::plan::{Lowered, PlanError, PlanOptions, Program};

/// A model that a server offers: the network, and how it is to be planned for any client.
#[derive(Debug)]
pub struct ServerModel {
    model: Model,
    options: PlanOptions,
    max_batch: usize,
    /// What is the same for all clients.
    lowered: OnceLock<Result<Arc<Lowered>, PlanError>>,
}

impl ServerModel {
    /// Returns the model with options of which key and batch are each client's own choice.
    pub fn new(model: Model, options: PlanOptions) -> Self {
        Self { model, options, max_batch: 1024, lowered: OnceLock::new() }
    }

    /// Returns the network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Returns the program for a client's key and batch.
    ///
    /// # Errors
    /// [`PlanError`] when the batch is zero or too large, or the numbers do not fit the key.
    pub fn program(&self, key: impl Into<KeyParameters>, batch: usize) -> Result<Program, PlanError> {
        if batch > self.max_batch {
            let found = batch.to_string();
            return Err(PlanError::Option { what: "batch", expected: "at most 1024 images", found });
        }
        let lower = || Lowered::new(&self.model, &self.options).map(Arc::new);
        self.lowered.get_or_init(lower).as_ref().map_err(PlanError::clone)?.program(key.into(), batch)
    }
}

/// The server's side of one session.
#[derive(Debug)]
pub struct Server {
    model: Arc<ServerModel>,
    backend: Backend,
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
}

/// The batches under way, oldest first.
#[derive(Debug)]
struct Batches {
    under_way: VecDeque<Batch>,
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
    /// The tensors of the terms that have come or begun to come.
    inputs: Vec<EncTensorBuilder>,
    terms: usize,
    /// Parts of the batch that were computed.
    parts: usize,
    /// Chunks of sums so far.
    chunks: u32,
}

impl Server {
    /// Returns a session that waits for a client's hello.
    pub fn new(model: Arc<ServerModel>) -> Self {
        Self { model, backend: Backend::detect(), state: State::Listening }
    }

    /// Returns the session with its arithmetic done by another backend than the [fastest](Backend::detect).
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

    /// Returns the number of batches under way.
    pub fn batches_under_way(&self) -> usize {
        self.computing().map_or(0, |computing| computing.batches.under_way.len())
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
            (State::Listening, Message::Hello { version, key, batch }) => {
                if version != PROTOCOL_VERSION {
                    return Err(SessionError::Version { expected: PROTOCOL_VERSION, found: version });
                }
                let in_first = |source| SessionError::Numbers { segment: 0, source };
                let key = key.on(self.backend).map_err(in_first)?;
                let program =
                    self.model.program(key.parameters(), batch as usize).map_err(SessionError::Refused)?;
                let mut session = SessionId([0; 16]);
                rng.fill_bytes(&mut session.0);
                let description = Box::new(program.plan().description().clone());
                self.state = State::Computing(Box::new(Computing {
                    key,
                    program,
                    session,
                    outgoing: VecDeque::from([Message::Accept { session, description }]),
                    batches: Batches { under_way: VecDeque::new(), next_round: 0 },
                    jobs: VecDeque::new(),
                    unprepared: true,
                }));
            }
            (State::Listening, other) => {
                return Err(SessionError::Unexpected { expected: "Hello", found: other.to_string() });
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

    /// Computes the next sums in a unit of bounded size: some images of one segment, as the plan says, however large the
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

    /// The tables of the client's key that replies will take, which another thread can make while the client encrypts.
    fn idle(&mut self, _: &mut dyn CryptoRng) -> Idle {
        let State::Computing(computing) = &mut self.state else { return Idle::Nothing };
        if !mem::take(&mut computing.unprepared) {
            return Idle::Nothing;
        }
        let key = computing.key.clone();
        let parts = computing.program.plan().segments().iter().flat_map(|segment| &segment.layout().parts);
        let replies: Vec<_> = parts.map(|part| (part.ciphertexts, part.hidden_bits)).collect();
        Idle::Background(Box::new(move || {
            let made = replies.iter().map(|&(count, bits)| key.prepare_rerandomisation(count, bits));
            made.fold(Operations::default(), |sum, made| sum + made)
        }))
    }

    fn close(&mut self) {
        self.state = State::Closed;
    }

    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    fn reason(error: &SessionError) -> Option<AbortReason> {
        error.reason()
    }

    fn operations(&self) -> Counted {
        self.key().map_or(Counted::default(), |key| Counted {
            computing: key.operations(),
            checking: key.check_operations(),
        })
    }
}

impl Computing {
    /// Whether the client may end the session now, and does.
    fn is_end(&self, message: &Message) -> bool {
        let done = self.outgoing.is_empty() && self.batches.under_way.is_empty();
        matches!(message, Message::Finish { session } if done && *session == self.session)
    }

    fn take(&mut self, message: Message) -> Result<(), SessionError> {
        let unexpected = |message: &Message| {
            let expected = "the next chunk of a segment's inputs in this session";
            Err(SessionError::Unexpected { expected, found: message.to_string() })
        };
        let Message::Tensor { position, index, ciphertexts } = message else { return unexpected(&message) };
        let Position { session, round, part: Part::Inputs { segment, term } } = position else {
            return unexpected(&Message::Tensor { position, index, ciphertexts });
        };
        let in_segment = |source| SessionError::Numbers { segment, source };
        let job = match self.jobs.back_mut().filter(|job| !job.has_come()) {
            Some(job) => job,
            None if session == self.session && term == 0 && self.batches.begin(round, segment) => {
                let terms = self.program.plan().segments()[segment as usize].terms().len();
                let segment = segment as usize;
                self.jobs.push_back(Job { round, segment, inputs: vec![], terms, parts: 0, chunks: 0 });
                match self.jobs.back_mut() {
                    Some(job) => job,
                    None => return Ok(()),
                }
            }
            None => return unexpected(&Message::Tensor { position, index, ciphertexts }),
        };
        let place = (job.round, job.segment as u32, job.next_term());
        if session != self.session || place != (round, segment, term as usize) {
            return unexpected(&Message::Tensor { position, index, ciphertexts });
        }
        if job.inputs.len() == term as usize {
            let segment = &self.program.plan().segments()[segment as usize];
            let images = segment.layout().parts.first().map_or(1, |part| part.images);
            let input = EncTensorBuilder::new(&self.key, segment.up_header(term as usize), images);
            job.inputs.push(input.map_err(in_segment)?);
        }
        job.inputs[term as usize].push(index, &ciphertexts).map_err(in_segment)
    }

    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        if self.outgoing.is_empty()
            && let Some(job) = self.jobs.front_mut()
        {
            self.outgoing.extend(job.advance(&self.program, &self.key, self.session, rng)?);
        }
        let message = self.outgoing.pop_front();
        // Only with the last of its sums in hand can a client go on.
        if self.outgoing.is_empty()
            && self.jobs.front().is_some_and(|job| job.is_done())
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
        if let Some(batch) = self.under_way.iter_mut().find(|batch| batch.round == round) {
            return !mem::replace(&mut batch.begun, true) && batch.segment == segment;
        }
        let free = self.under_way.len() < BATCHES_UNDER_WAY;
        let allowed = free && round == self.next_round && segment == 0;
        if allowed {
            self.next_round = round.wrapping_add(1);
            self.under_way.push_back(Batch { round, segment, begun: true });
        }
        allowed
    }

    /// Notes that the sums of a segment were sent.
    fn end(&mut self, round: u32, segment: u32, segments: usize) {
        if segment as usize + 1 == segments {
            self.under_way.retain(|batch| batch.round != round);
        }
        for batch in self.under_way.iter_mut().filter(|batch| batch.round == round) {
            (batch.segment, batch.begun) = (segment + 1, false);
        }
    }
}

impl Job {
    /// The term whose chunks come next.
    fn next_term(&self) -> usize {
        match self.inputs.last() {
            Some(last) if !last.is_complete() => self.inputs.len() - 1,
            _ => self.inputs.len(),
        }
    }

    /// Whether all inputs have come.
    fn has_come(&self) -> bool {
        self.next_term() == self.terms
    }

    /// Whether all sums have been computed.
    fn is_done(&self) -> bool {
        self.has_come() && self.inputs.iter().all(EncTensorBuilder::is_empty)
    }

    /// The segment on the next images, if they have come: products, biases, repacking, re-randomization.
    fn advance(
        &mut self,
        program: &Program,
        key: &PublicKey,
        session: SessionId,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Message>, SessionError> {
        if self.inputs.len() < self.terms || !self.inputs.iter().all(EncTensorBuilder::has_part) {
            return Ok(vec![]);
        }
        let images: Vec<EncTensor> = self.inputs.iter_mut().filter_map(|input| input.next_part()).collect();
        let segment = &program.plan().segments()[self.segment];
        let Some(part) = segment.layout().images().nth(self.parts) else { return Ok(vec![]) };
        let exponents = key.hiding_exponents(rng, part.ciphertexts, part.hidden_bits);
        // Stacking leaves cores idle, which make the random factors meanwhile.
        let (sums, fresh) = rayon::join(|| program.sums(self.segment, part, &images), || exponents.powers());
        let sums = sums.map_err(|source| SessionError::Numbers { segment: self.segment as u32, source })?;
        let part = Part::Sums { segment: self.segment as u32 };
        let position = Position { session, round: self.round, part };
        let chunks = sums.rerandomize_with(fresh, rng).chunks();
        let messages = (self.chunks..).zip(chunks).map(|(index, ciphertexts)| Message::Tensor {
            position,
            index,
            ciphertexts,
        });
        let messages: Vec<Message> = messages.collect();
        self.chunks += messages.len() as u32;
        self.parts += 1;
        Ok(messages)
    }
}
