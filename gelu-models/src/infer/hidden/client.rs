//! The client's side: it has the image and the key, and sees of the model what masks leave.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use gelu_garble::{Evaluator, LabelReceiver, Labels, Opening};
use gelu_tensor::paillier::{Randomizer, RandomnessPool, SecretKey};
use gelu_tensor::{Decryption, Encryption, Error, FixedTensor};
use ndarray::{ArrayView, Dimension};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::super::{Position, SessionError, SessionId, accepted_plan};
use super::circuit::sum_shares;
use super::material::{Prepared, PreparedBlock, PreparedSegment};
use super::server::blocks;
use super::{Block, FLOOD_BITS, HIDDEN_VERSION, MOST_PREPARED, Message};
use crate::peer::exchange::Outgoing;
use crate::peer::{Expected, Idle, Misuse, Part, Peer};
use crate::plan::{
    Behind, ClientFunction, Functions, HiddenPlan, Need, Outcome, Plan, Preference, Reveal, Run, masks_of,
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

struct Running {
    session: SessionId,
    plan: Arc<Plan>,
    hidden: Arc<HiddenPlan>,
    receiver: LabelReceiver,
    outgoing: VecDeque<Message>,
    /// Preparations that were asked for and have not begun.
    wanted: u32,
    preparing: Option<Preparing>,
    next_preparation: u32,
    stock: VecDeque<Prepared>,
    batch: Option<Batch>,
    finishing: bool,
}

/// Queries that are prepared together.
struct Preparing {
    number: u32,
    /// What is to be sent: of which segment and term.
    masks: VecDeque<(u32, u32, Outgoing)>,
    /// Segments whose sums have come, and what has come of the next.
    summed: usize,
    sums: Option<Decryption>,
    /// The circuits whose choices are to be sent, and those whose tables are to come.
    blocks: VecDeque<(Block, Range<usize>)>,
    awaited: VecDeque<(Block, Range<usize>)>,
    prepared: Vec<Prepared>,
}

/// Images on their way.
struct Batch {
    run: Run,
    /// Of each segment's terms the inputs that follow from the images alone.
    known: Vec<Vec<Option<FixedTensor>>>,
    /// The next image.
    next: usize,
    online: Vec<Online>,
    /// Of each image the last sums, or its class.
    results: Vec<Option<Zeroizing<Vec<i64>>>>,
}

/// An image with a prepared query.
struct Online {
    image: usize,
    prepared: Prepared,
    segment: usize,
    /// Blocks of the segment that were evaluated.
    blocks: u32,
    /// Of each segment so far the shares of its results, reader by reader.
    results: Vec<Vec<Zeroizing<Vec<u64>>>>,
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
    /// Returns a session that prepares so many queries together, whose first message is a hello. What is learned at the end of
    /// each is what `reveal` says.
    pub fn new(key: Arc<SecretKey>, queries: u32, reveal: Reveal) -> Self {
        let ahead = RandomnessPool::new(key.clone(), FACTORS_AHEAD);
        let (prefer, functions) = (Preference::default(), Functions::default());
        Self { key, pool: None, ahead, queries, reveal, prefer, functions, state: State::New }
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

    /// Returns the key pair, whose public half decoding a message needs.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Prepares some queries more, as many as are prepared together: [`next_message`](Peer::next_message) does it where
    /// there is no image to go on with.
    ///
    /// # Errors
    /// [`SessionError::Prepared`] when they would be more than [`MOST_PREPARED`]; [`SessionError::Misuse`] before
    /// [`Event::Ready`]. The session is closed then.
    pub fn prepare(&mut self) -> Result<(), SessionError> {
        let mut running = self.take_running()?;
        let coming = running.wanted as usize + usize::from(running.preparing.is_some()) + 1;
        let found = coming.saturating_mul(self.queries as usize).saturating_add(running.stock.len());
        if found > MOST_PREPARED {
            return Err(SessionError::Prepared { expected: MOST_PREPARED, found });
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
        let count = images.shape().first().copied().unwrap_or(0);
        let start = Run::start(running.plan.clone(), self.functions.clone(), images);
        let (mut run, need) = start.map_err(SessionError::Images)?;
        let mut first = match need {
            Need::Sums { inputs, .. } => inputs,
            Need::Nothing => vec![],
        }
        .into_iter();
        let mut known = vec![];
        for (segment, own) in running.plan.segments().iter().enumerate() {
            let mut inputs = vec![];
            for (at, term) in own.terms.iter().enumerate() {
                inputs.push(match (segment, running.hidden.source(segment, at)) {
                    (0, _) => first.next(),
                    (_, None) => Some(run.known(term).map_err(SessionError::Images)?),
                    (_, Some(_)) => None,
                });
            }
            known.push(inputs);
        }
        let results = (0..count).map(|_| None).collect();
        running.batch = Some(Batch { run, known, next: 0, online: vec![], results });
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
        (session, description): (SessionId, crate::plan::Description),
        transfers: &[u8],
    ) -> Result<Running, SessionError> {
        let asked = (self.key.public_key(), self.queries, self.prefer);
        let plan = accepted_plan(description, asked).map_err(SessionError::Plan)?;
        let hidden = HiddenPlan::new(&plan, self.reveal, FLOOD_BITS).map_err(SessionError::Plan)?;
        let receiver = opening.finish(transfers).map_err(SessionError::garbling(0))?;
        Ok(Running {
            session,
            plan: Arc::new(plan),
            hidden: Arc::new(hidden),
            receiver,
            outgoing: VecDeque::new(),
            wanted: 0,
            preparing: None,
            next_preparation: 0,
            stock: VecDeque::new(),
            batch: None,
            finishing: false,
        })
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

impl Running {
    fn take(&mut self, message: Message, key: &SecretKey) -> Result<Option<Event>, SessionError> {
        match message {
            Message::Tensor { .. } | Message::Tables { .. } => self.prepared(message, key),
            Message::Labels { block, ref labels } => {
                let due = self.online(block.query).is_some_and(|(_, online)| {
                    (online.segment, online.blocks) == (block.segment as usize, block.block)
                });
                match due {
                    true => self.evaluate(block, labels),
                    false => Err(unexpected(Expected::Labels, &message)),
                }
            }
            Message::Sums { query, segment, ref shares } => {
                let last = self.hidden.segments().len() - 1;
                let is_last = matches!(self.hidden.segments()[last].behind, Behind::Sums);
                let is_last = is_last && segment as usize == last;
                match self.online(query).is_some_and(|(_, online)| is_last && online.segment == last) {
                    true => self.last_sums(query, shares),
                    false => Err(unexpected(Expected::Labels, &message)),
                }
            }
            other => Err(unexpected(Expected::Nothing, &other)),
        }
    }

    fn online(&mut self, query: u64) -> Option<(usize, &mut Online)> {
        let online = self.batch.as_mut()?.online.iter_mut().enumerate();
        online.into_iter().find(|(_, online)| online.prepared.query == query)
    }

    /// Takes what belongs to a preparation.
    fn prepared(&mut self, message: Message, key: &SecretKey) -> Result<Option<Event>, SessionError> {
        let Some(preparing) = &mut self.preparing else {
            return Err(unexpected(Expected::Nothing, &message));
        };
        let queries = preparing.prepared.len();
        let part = Part::Sums { segment: preparing.summed as u32 };
        let round = preparing.number;
        match message {
            Message::Tensor { position, index, ciphertexts }
                if preparing.summed < self.hidden.segments().len()
                    && position == (Position { session: self.session, round, part }) =>
            {
                let segment = preparing.summed;
                let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
                let own = &self.hidden.segments()[segment];
                let header = || own.down_header(&self.plan.segments()[segment], queries);
                let mut sums = match preparing.sums.take() {
                    Some(sums) => sums,
                    None => Decryption::new(key.public_key(), header()).map_err(in_segment)?,
                };
                sums.push(index, &ciphertexts, key).map_err(in_segment)?;
                if !sums.is_complete() {
                    preparing.sums = Some(sums);
                    return Ok(None);
                }
                let sums = sums.finish_residues().map_err(in_segment)?;
                for (prepared, sums) in preparing.prepared.iter_mut().zip(sums.chunks_exact(own.values)) {
                    prepared.segments[segment].sums = Zeroizing::new(sums.to_vec());
                }
                preparing.summed += 1;
            }
            Message::Tables { block, tables }
                if preparing.awaited.front().is_some_and(|(due, _)| *due == block) =>
            {
                let Some((_, sums)) = preparing.awaited.pop_front() else { return Ok(None) };
                let own = &self.hidden.segments()[block.segment as usize];
                let (expected, found) = (own.table_bytes(sums.len()), tables.len());
                if expected != found {
                    let source = gelu_garble::Error::Length { what: "bytes of tables", expected, found };
                    return Err(SessionError::garbling(block.segment)(source));
                }
                let first = u64::from(round) * queries as u64;
                let prepared = &mut preparing.prepared[(block.query - first) as usize];
                let blocks = &mut prepared.segments[block.segment as usize].blocks;
                if let Some(Some(block)) = blocks.get_mut(block.block as usize) {
                    block.tables = tables;
                }
            }
            Message::Tables { .. } => return Err(unexpected(Expected::Tables, &message)),
            other => return Err(unexpected(Expected::Tensor { round, part }, &other)),
        }
        let is_complete = preparing.summed == self.hidden.segments().len()
            && preparing.blocks.is_empty()
            && preparing.awaited.is_empty();
        if is_complete && let Some(preparing) = self.preparing.take() {
            self.stock.extend(preparing.prepared);
            return Ok(Some(Event::Prepared));
        }
        Ok(None)
    }

    /// Evaluates a block, whose material is spent by it.
    fn evaluate(&mut self, block: Block, labels: &[u8]) -> Result<Option<Event>, SessionError> {
        let segment = block.segment as usize;
        let hidden = Arc::clone(&self.hidden);
        let own = &hidden.segments()[segment];
        let sums = own.blocks().nth(block.block as usize).unwrap_or_default().len();
        let Some((at, online)) = self.online(block.query) else { return Ok(None) };
        let blocks = &mut online.prepared.segments[segment].blocks;
        let Some(spent) = blocks.get_mut(block.block as usize).and_then(Option::take) else {
            return Ok(None);
        };
        online.blocks += 1;
        let mut evaluate = || {
            let mut evaluator = Evaluator::new(&spent.tables, own.width(sums))?;
            let labels = Labels::from_le_bytes(labels, own.labels(sums))?;
            let [a, b] = [&spent.labels, &labels].map(|labels| evaluator.input(labels));
            let result = own.circuit(&mut evaluator, &a?, &b?);
            let class = match own.behind {
                Behind::Class => evaluator.reveal(&result.wires).first().copied(),
                Behind::Step(..) | Behind::Sums => None,
            };
            for (ring, results) in own.reader_rings().zip(&mut online.results[segment]) {
                results.extend(evaluator.project(&result.wires, ring).iter());
            }
            evaluator.finish()?;
            Ok(class)
        };
        let class = evaluate().map_err(SessionError::garbling(block.segment))?;
        if let Some(class) = class {
            return self.answered(at, Zeroizing::new(vec![class as i64]));
        }
        if own.blocks().count() == online.blocks as usize {
            (online.segment, online.blocks) = (segment + 1, 0);
            self.send_shares(at)?;
        }
        Ok(None)
    }

    fn last_sums(&mut self, query: u64, shares: &[u8]) -> Result<Option<Event>, SessionError> {
        let last = self.hidden.segments().len() - 1;
        let (ring, values) = (self.hidden.segments()[last].shared, self.hidden.segments()[last].values);
        let others = ring.unpack(shares, values).map_err(SessionError::garbling(last as u32))?;
        let Some((at, online)) = self.online(query) else { return Ok(None) };
        let own = &online.prepared.segments[last].sums;
        let sums = own.iter().zip(&others).map(|(a, b)| ring.signed(ring.wrap(a.wrapping_add(*b))));
        let sums = Zeroizing::new(sums.collect());
        self.answered(at, sums)
    }

    /// Ends an image, and with the last the batch.
    fn answered(
        &mut self,
        online: usize,
        result: Zeroizing<Vec<i64>>,
    ) -> Result<Option<Event>, SessionError> {
        let Some(batch) = &mut self.batch else { return Ok(None) };
        let online = batch.online.remove(online);
        batch.results[online.image] = Some(result);
        if !batch.results.iter().all(Option::is_some) {
            return Ok(None);
        }
        let Some(Batch { mut run, results, .. }) = self.batch.take() else { return Ok(None) };
        let all: Vec<i64> = results.iter().flatten().flat_map(|result| result.iter().copied()).collect();
        if self.hidden.reveal() == Reveal::Class {
            let classes = all.into_iter().map(|class| class as usize).collect();
            return Ok(Some(Event::Done(Answer::Classes(classes))));
        }
        let last = self.plan.segments().len() - 1;
        let segment = &self.plan.segments()[last];
        let in_segment = |source| SessionError::Numbers { segment: last as u32, source };
        let sums = FixedTensor::new(segment.shape.clone(), segment.format, all).map_err(in_segment)?;
        run.take_last(sums).map_err(in_segment)?;
        let outcome = run.finish().map_err(in_segment)?;
        Ok(Some(Event::Done(Answer::Logits(Box::new(outcome)))))
    }

    /// Says an image's inputs of its next segment, less the masks.
    fn send_shares(&mut self, at: usize) -> Result<(), SessionError> {
        let Some(batch) = &mut self.batch else { return Ok(()) };
        let online = &mut batch.online[at];
        let segment = online.segment;
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        let (ring, terms) = (self.hidden.segments()[segment].shared, &self.plan.segments()[segment].terms);
        let masks = mem::take(&mut online.prepared.segments[segment].masks);
        let mut shares = vec![];
        for (index, (term, masks)) in terms.iter().zip(masks).enumerate() {
            let inputs = match (&batch.known[segment][index], self.hidden.source(segment, index)) {
                (Some(known), _) => {
                    let elements = term.map.input().elements();
                    let image = &known.values()[online.image * elements..][..elements];
                    Zeroizing::new(image.iter().map(|&value| value as u64).collect())
                }
                (None, Some((from, reader))) => {
                    sum_shares(term, &online.results[from][reader]).map_err(in_segment)?
                }
                (None, None) => Zeroizing::default(),
            };
            let masked =
                inputs.iter().zip(masks.iter()).map(|(input, mask)| ring.wrap(input.wrapping_sub(*mask)));
            shares.extend(ring.pack(&masked.collect::<Vec<_>>()));
        }
        let (query, segment) = (online.prepared.query, segment as u32);
        self.outgoing.push_back(Message::Shares { query, segment, shares });
        Ok(())
    }

    fn next_message(
        &mut self,
        (key, randomizer): (&SecretKey, &dyn Randomizer),
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Message>, SessionError> {
        self.begin_images()?;
        if let Some(message) = self.outgoing.pop_front() {
            return Ok(Some(message));
        }
        if self.preparing.is_none() && self.wanted > 0 {
            self.wanted -= 1;
            self.preparing = Some(self.new_preparation(key, rng)?);
        }
        let Some(preparing) = &mut self.preparing else { return Ok(None) };
        // Choices first: the server garbles while the client encrypts.
        if let Some((block, _)) = preparing.blocks.front()
            && (block.segment as usize) < preparing.summed
        {
            return preparing.choose(&self.hidden, &mut self.receiver);
        }
        let Some((segment, term, masks)) = preparing.masks.front_mut() else { return Ok(None) };
        let part = Part::Inputs { segment: *segment, term: *term };
        let position = Position { session: self.session, round: preparing.number, part };
        let message = masks.next(randomizer, rng);
        let message = message.map(|(index, ciphertexts)| Message::Tensor { position, index, ciphertexts });
        if masks.is_complete() {
            preparing.masks.pop_front();
        }
        Ok(message)
    }

    /// Gives images the queries in stock, and asks for more where they are not enough.
    fn begin_images(&mut self) -> Result<(), SessionError> {
        while let Some(batch) = &mut self.batch
            && batch.next < batch.results.len()
        {
            let Some(prepared) = self.stock.pop_front() else {
                if self.preparing.is_none() && self.wanted == 0 {
                    self.wanted = 1;
                }
                break;
            };
            let readers =
                |own: &crate::plan::HiddenSegment| own.reader_rings().map(|_| Zeroizing::default()).collect();
            let results = self.hidden.segments().iter().map(readers).collect();
            let image = batch.next;
            batch.next += 1;
            batch.online.push(Online { image, prepared, segment: 0, blocks: 0, results });
            let at = batch.online.len() - 1;
            self.send_shares(at)?;
        }
        Ok(())
    }

    /// Draws the masks of some queries.
    fn new_preparation(
        &mut self,
        key: &SecretKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Preparing, SessionError> {
        let (number, queries) = (self.next_preparation, self.plan.description().batch);
        self.next_preparation = number.wrapping_add(1);
        let first = u64::from(number) * queries as u64;
        let new = |query| Prepared { query, segments: vec![] };
        let mut prepared: Vec<Prepared> = (first..first + queries as u64).map(new).collect();
        let mut masks = VecDeque::new();
        for (segment, (own, planned)) in (0..).zip(self.hidden.segments().iter().zip(self.plan.segments())) {
            let in_segment = |source| SessionError::Numbers { segment, source };
            prepared.iter_mut().for_each(|query| query.segments.push(PreparedSegment::default()));
            for (index, term) in (0..).zip(&planned.terms) {
                let elements = term.map.input().elements();
                let drawn = (0..queries * elements).map(|_| own.shared.wrap(rng.next_u64()));
                let drawn: Zeroizing<Vec<u64>> = Zeroizing::new(drawn.collect());
                for (query, masks) in prepared.iter_mut().zip(drawn.chunks_exact(elements)) {
                    query.segments[segment as usize].masks.push(Zeroizing::new(masks.to_vec()));
                }
                let signed = drawn.iter().map(|&mask| own.shared.signed(mask)).collect();
                let format = masks_of(own.ring, term).map_err(in_segment)?;
                let encryption = FixedTensor::new(term.map.input().clone(), format, signed)
                    .and_then(|values| {
                        Encryption::new(values, &own.layout.ups[index as usize], key.public_key())
                    })
                    .map_err(in_segment)?;
                masks.push_back((segment, index, Outgoing::new(encryption)));
            }
        }
        let blocks = blocks(&self.hidden, number, queries);
        let awaited = VecDeque::new();
        Ok(Preparing { number, masks, summed: 0, sums: None, blocks, awaited, prepared })
    }
}

impl Preparing {
    /// The choices for the next block.
    fn choose(
        &mut self,
        hidden: &HiddenPlan,
        receiver: &mut LabelReceiver,
    ) -> Result<Option<Message>, SessionError> {
        let Some((block, sums)) = self.blocks.pop_front() else { return Ok(None) };
        let own = &hidden.segments()[block.segment as usize];
        let first = u64::from(self.number) * self.prepared.len() as u64;
        let prepared = &mut self.prepared[(block.query - first) as usize].segments[block.segment as usize];
        let choices = own.choices(&prepared.sums[sums.clone()]);
        let extended = choices.and_then(|choices| receiver.extend(&choices));
        let (choices, labels) = extended.map_err(SessionError::garbling(block.segment))?;
        prepared.blocks.push(Some(PreparedBlock { labels, tables: vec![] }));
        self.awaited.push_back((block, sums));
        Ok(Some(Message::Choices { block, choices }))
    }
}

fn unexpected(expected: Expected, message: &Message) -> SessionError {
    SessionError::Unexpected { expected, found: message.to_string() }
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
