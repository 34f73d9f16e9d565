use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use gelu_tensor::arith::Operations;
use gelu_tensor::paillier::{KeyParameters, PublicKey};
use gelu_tensor::{EncTensorBuilder, EncTensorHeader};
use rand::CryptoRng;

use super::{BATCHES_UNDER_WAY, Message, PROTOCOL_VERSION, Position, SessionError, SessionId};
use crate::Model;
use crate::plan::{PlanError, PlanOptions, Program, Segment};

/// A model that a server offers: the network, and how it is to be planned for any client.
#[derive(Debug)]
pub struct ServerModel {
    model: Model,
    options: PlanOptions,
    max_batch: usize,
}

impl ServerModel {
    /// The model with options of which key and batch are each client's own choice.
    pub fn new(model: Model, options: PlanOptions) -> Self {
        Self { model, options, max_batch: 1024 }
    }

    /// The network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The program for a client's key and batch.
    ///
    /// # Errors
    /// [`PlanError`] when the batch is zero or too large, or the numbers do not fit the key.
    pub fn program(&self, key: impl Into<KeyParameters>, batch: usize) -> Result<Program, PlanError> {
        if batch > self.max_batch {
            let found = batch.to_string();
            return Err(PlanError::Option { what: "batch", expected: "at most 1024 images", found });
        }
        let KeyParameters { size, key_type } = key.into();
        self.model.plan(&PlanOptions { key: size, key_type, batch, ..self.options.clone() })
    }
}

/// Work for a session that changes no result, done before it is needed.
#[derive(Debug)]
pub struct Preparation {
    key: PublicKey,
    /// Of each segment the ciphertexts re-randomised together, and the bits of what their exponents hide.
    replies: Vec<(usize, usize)>,
}

impl Preparation {
    /// Does it. How many operations it took.
    pub fn run(self) -> Operations {
        let made = self.replies.iter().map(|&(count, bits)| self.key.prepare_rerandomisation(count, bits));
        made.fold(Operations::default(), |sum, made| sum + made)
    }
}

/// The server's side of one session.
#[derive(Debug)]
pub struct Server {
    model: Arc<ServerModel>,
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
    /// The tensors that came, in order; of the last chunks may be missing.
    jobs: VecDeque<Job>,
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
    step: u32,
    /// Whether its input has begun to come.
    begun: bool,
}

/// A segment on a tensor.
#[derive(Debug)]
struct Job {
    position: Position,
    input: EncTensorBuilder,
    /// Chunks of sums so far.
    chunks: u32,
}

impl Server {
    /// A session that waits for a client's hello.
    pub fn new(model: Arc<ServerModel>) -> Self {
        Self { model, state: State::Listening }
    }

    /// The key of the client, which decoding its next message needs; `None` before its hello and after the end.
    pub fn key(&self) -> Option<&PublicKey> {
        self.computing().map(|computing| &computing.key)
    }

    /// The name of a segment of the session's plan.
    pub fn segment_name(&self, step: u32) -> Option<&str> {
        let segments = &self.computing()?.program.plan().segments;
        segments.get(step as usize).map(|segment| segment.name.as_str())
    }

    /// How many batches are under way.
    pub fn batches_under_way(&self) -> usize {
        self.computing().map_or(0, |computing| computing.batches.under_way.len())
    }

    /// Tables of the client's key that its replies will take; `None` before its hello. Whoever runs a session can have
    /// them made by another thread while the client encrypts.
    pub fn preparation(&self) -> Option<Preparation> {
        let Computing { key, program, .. } = self.computing()?;
        let plan = program.plan();
        let reply = |segment: &Segment| {
            let mut part = segment.down_header(plan.batch);
            part.batch = segment.images_at_a_time(plan.batch);
            (part.layout.ciphertexts(part.batch, &part.shape), hidden_bits(segment, key))
        };
        Some(Preparation { key: key.clone(), replies: plan.segments.iter().map(reply).collect() })
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Ends the session: what must happen when a message could not even be decoded.
    pub fn close(&mut self) {
        self.state = State::Closed;
    }

    /// Takes a message. What there is to say to it comes from [`next_message`](Self::next_message); the client's last
    /// closes the session.
    ///
    /// # Errors
    /// [`SessionError`]; the session is closed then.
    pub fn handle(&mut self, message: Message, rng: &mut dyn CryptoRng) -> Result<(), SessionError> {
        // The state is consumed: whatever goes wrong leaves a closed session.
        match (mem::replace(&mut self.state, State::Closed), message) {
            (State::Closed, _) => Err(SessionError::Closed),
            (_, Message::Abort { reason }) => Err(SessionError::Aborted(reason)),
            (State::Listening, Message::Hello { version, key, batch }) => {
                if version != PROTOCOL_VERSION {
                    return Err(SessionError::Version { expected: PROTOCOL_VERSION, found: version });
                }
                let program =
                    self.model.program(key.parameters(), batch as usize).map_err(SessionError::Refused)?;
                let mut session = SessionId([0; 16]);
                rng.fill_bytes(&mut session.0);
                let plan = Box::new(program.plan().clone());
                let outgoing = VecDeque::from([Message::Accept { session, plan }]);
                let batches = Batches { under_way: VecDeque::new(), next_round: 0 };
                let jobs = VecDeque::new();
                self.state =
                    State::Computing(Box::new(Computing { key, program, session, outgoing, batches, jobs }));
                Ok(())
            }
            (State::Listening, other) => {
                Err(SessionError::Unexpected { expected: "Hello", found: other.to_string() })
            }
            (State::Computing(mut computing), message) => {
                if !computing.is_end(&message) {
                    computing.take(message)?;
                    self.state = State::Computing(computing);
                }
                Ok(())
            }
        }
    }

    /// The next message to the client, computed now in a unit of bounded size: some images of one segment, as the plan
    /// allows, however large the batch. `None` until the client says more.
    ///
    /// # Errors
    /// [`SessionError`]; the session is closed then.
    pub fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
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

    fn computing(&self) -> Option<&Computing> {
        match &self.state {
            State::Computing(computing) => Some(computing),
            State::Listening | State::Closed => None,
        }
    }
}

impl Computing {
    /// Whether the client may end the session now, and does.
    fn is_end(&self, message: &Message) -> bool {
        let done = self.outgoing.is_empty() && self.batches.under_way.is_empty();
        matches!(message, Message::Finish { session } if done && *session == self.session)
    }

    fn take(&mut self, message: Message) -> Result<(), SessionError> {
        let unexpected = |expected, message: &Message| {
            Err(SessionError::Unexpected { expected, found: message.to_string() })
        };
        match (self.jobs.back_mut().filter(|job| !job.input.is_complete()), message) {
            (Some(job), Message::Chunk { position, index, ciphertexts }) if position == job.position => job
                .input
                .push(index, &ciphertexts)
                .map_err(|source| SessionError::Numbers { step: position.step, source }),
            (Some(_), other) => unexpected("the next Chunk of the tensor that was begun", &other),
            (None, Message::Activations { position, header })
                if position.session == self.session && self.batches.begin(position) =>
            {
                self.jobs.push_back(Job::new(&self.program, &self.key, position, header)?);
                Ok(())
            }
            (None, other) => unexpected("Activations of the next step in this session", &other),
        }
    }

    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        if self.outgoing.is_empty()
            && let Some(job) = self.jobs.front_mut()
        {
            self.outgoing.extend(job.advance(&self.program, &self.key, rng)?);
        }
        let message = self.outgoing.pop_front();
        // Only with the last of its sums in hand can a client go on.
        if self.outgoing.is_empty()
            && self.jobs.front().is_some_and(|job| job.input.is_empty())
            && let Some(job) = self.jobs.pop_front()
        {
            self.batches.end(job.position, self.program.layers().len());
        }
        Ok(message)
    }
}

impl Batches {
    /// Whether the input of a segment may come now; then it is noted that it does.
    fn begin(&mut self, position: Position) -> bool {
        let Position { round, step, .. } = position;
        if let Some(batch) = self.under_way.iter_mut().find(|batch| batch.round == round) {
            return !mem::replace(&mut batch.begun, true) && batch.step == step;
        }
        let free = self.under_way.len() < BATCHES_UNDER_WAY;
        let allowed = free && round == self.next_round && step == 0;
        if allowed {
            self.next_round = round.wrapping_add(1);
            self.under_way.push_back(Batch { round, step, begun: true });
        }
        allowed
    }

    /// Notes that the sums of a segment were sent.
    fn end(&mut self, position: Position, steps: usize) {
        if position.step as usize + 1 == steps {
            self.under_way.retain(|batch| batch.round != position.round);
        }
        for batch in self.under_way.iter_mut().filter(|batch| batch.round == position.round) {
            (batch.step, batch.begun) = (position.step + 1, false);
        }
    }
}

impl Job {
    fn new(
        program: &Program,
        key: &PublicKey,
        position: Position,
        header: EncTensorHeader,
    ) -> Result<Self, SessionError> {
        let (plan, step) = (program.plan(), position.step);
        let segment = &plan.segments[step as usize];
        let expected = segment.up_header(plan.batch);
        if header != expected {
            let (expected, found) = (format!("{expected:?}"), format!("{header:?}"));
            return Err(SessionError::Tensor { step, expected, found });
        }
        let part = segment.images_at_a_time(plan.batch);
        let input = EncTensorBuilder::new(key, header, part, segment.ciphertexts_up(plan.batch))
            .map_err(|source| SessionError::Numbers { step, source })?;
        Ok(Self { position, input, chunks: 0 })
    }

    /// The segment on the next images, if they have come: product, bias, repacking, re-randomisation.
    fn advance(
        &mut self,
        program: &Program,
        key: &PublicKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Message>, SessionError> {
        let (position, step, plan) = (self.position, self.position.step, program.plan());
        let in_step = |source| SessionError::Numbers { step, source };
        let Some(images) = self.input.next_part().map_err(in_step)? else { return Ok(vec![]) };
        let (layer, segment) = (&program.layers()[step as usize], &plan.segments[step as usize]);
        let header = segment.down_header(plan.batch);
        let count = header.layout.ciphertexts(images.batch(), &header.shape);
        let exponents = key.hiding_exponents(rng, count, hidden_bits(segment, key));
        // Stacking leaves cores idle, which make the random factors meanwhile.
        let (sums, fresh) = rayon::join(
            || layer.forward_encrypted(&images).and_then(|sums| sums.repack(segment.down.stacked)),
            || exponents.powers(),
        );
        let sums = sums.map_err(in_step)?.rerandomize_with(fresh, rng);
        let mut messages = vec![];
        if self.chunks == 0 {
            messages.push(Message::Sums { position, header });
        }
        for ciphertexts in sums.chunks() {
            messages.push(Message::Chunk { position, index: self.chunks, ciphertexts });
            self.chunks += 1;
        }
        Ok(messages)
    }
}

/// About how many bits the exponents in a segment's sums have: stacking shifts those of the client's encryptions by a
/// whole plaintext.
fn hidden_bits(segment: &Segment, key: &PublicKey) -> usize {
    let shifted = if segment.down.stacked > 1 { key.size().bits() } else { 0 };
    key.parameters().encryption_exponent().max(shifted)
}
