//! The server's side: it has the model, and sees of an image what masks leave.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use gelu_garble::{Delta, Garbler, LabelSeed, LabelSender, Labels};
use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{Backend, EncChunk, EncTensorBuilder};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::super::{Gate, Position, ServerModel, SessionError, SessionId, tables_of_replies};
use super::circuit::sum_shares;
use super::material::{Material, SegmentMaterial};
use super::{Block, FLOOD_BITS, HIDDEN_VERSION, MOST_PREPARED, Message};
use crate::peer::exchange::Incoming;
use crate::peer::{Counted, Expected, Idle, Part, Peer};
use crate::plan::{Behind, Deployment, HiddenPlan, Program, Reveal};

/// The server's side of one session whose client does not see the model. [`Client`](super::Client) shows a whole session.
#[derive(Debug)]
pub struct Server {
    model: Arc<ServerModel>,
    backend: Backend,
    gate: Option<Arc<dyn Gate>>,
    reveal: Reveal,
    state: State,
}

#[derive(Debug)]
enum State {
    Listening,
    Computing(Box<Computing>),
    Closed,
}

struct Computing {
    key: PublicKey,
    program: Program,
    hidden: HiddenPlan,
    /// The integer weights of each segment's terms, mod 2^64, and its biases with what rounding adds.
    weights: Vec<SegmentWeights>,
    session: SessionId,
    delta: Delta,
    sender: LabelSender,
    /// What is sent before anything else is computed.
    outgoing: VecDeque<Message>,
    preparing: Option<Preparing>,
    next_preparation: u32,
    stock: BTreeMap<u64, Material>,
    next_query: u64,
    online: Vec<Online>,
    /// Inputs of segments that have come and are not multiplied yet.
    jobs: VecDeque<OnlineJob>,
    unprepared: bool,
    gate: Option<Arc<dyn Gate>>,
}

struct SegmentWeights {
    terms: Vec<Vec<u64>>,
    bias: Vec<u64>,
}

/// Queries that are prepared together.
struct Preparing {
    number: u32,
    /// The segments whose masks came, in order; of the last, chunks may be missing.
    jobs: VecDeque<Job>,
    /// Segments whose masks have begun to come.
    begun: usize,
    /// The circuits whose choices are yet to come.
    blocks: VecDeque<(Block, Range<usize>)>,
    /// Those that are yet to be garbled, with the labels of zero of the client's shares.
    garbling: VecDeque<(Block, Range<usize>, Labels)>,
    materials: Vec<Material>,
}

/// A segment on masks.
struct Job {
    segment: usize,
    inputs: Incoming,
    masks: Zeroizing<Vec<u64>>,
}

/// A query with its image.
struct Online {
    query: u64,
    material: Material,
    /// The segment whose shares are due.
    segment: usize,
    /// Whether they have come.
    begun: bool,
}

struct OnlineJob {
    query: u64,
    segment: usize,
    inputs: Vec<Zeroizing<Vec<i64>>>,
}

impl Server {
    /// Returns a session that waits for a client's hello.
    pub fn new(model: Arc<ServerModel>) -> Self {
        let (backend, reveal) = (Backend::detect(), Reveal::Logits);
        Self { model, backend, gate: None, reveal, state: State::Listening }
    }

    /// Returns the session with what a client may learn at most: who asks for more is refused. Logits, if this is not said.
    pub fn revealing(self, reveal: Reveal) -> Self {
        Self { reveal, ..self }
    }

    /// Returns the session with someone who is asked before every query.
    pub fn with_gate(self, gate: Arc<dyn Gate>) -> Self {
        Self { gate: Some(gate), ..self }
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

    /// Returns how many queries are prepared and not yet used.
    pub fn prepared(&self) -> usize {
        self.computing().map_or(0, |computing| computing.stock.len())
    }

    fn computing(&self) -> Option<&Computing> {
        match &self.state {
            State::Computing(computing) => Some(computing),
            State::Listening | State::Closed => None,
        }
    }

    fn accept(
        &self,
        (version, key): (u16, PublicKey),
        hello: (Deployment, Reveal, [u8; gelu_garble::POINT_BYTES]),
        rng: &mut dyn CryptoRng,
    ) -> Result<Computing, SessionError> {
        if version != HIDDEN_VERSION {
            return Err(SessionError::Version { expected: HIDDEN_VERSION, found: version });
        }
        let (deployment, reveal, opening) = hello;
        if (self.reveal, reveal) == (Reveal::Class, Reveal::Logits) {
            return Err(SessionError::NotRevealed);
        }
        let numbers = |source| SessionError::Numbers { segment: 0, source };
        // Before a plan for as many is made.
        let (expected, found) = (MOST_PREPARED, deployment.batch);
        if found > expected {
            return Err(SessionError::Prepared { expected, found });
        }
        let program = self.model.program(&deployment).map_err(SessionError::Refused)?;
        let hidden = HiddenPlan::new(program.plan(), reveal, FLOOD_BITS).map_err(SessionError::Refused)?;
        let delta = Delta::random(rng);
        let (sender, transfers) =
            LabelSender::new(&delta, &opening, rng).map_err(SessionError::garbling(0))?;
        let mut session = SessionId([0; 16]);
        rng.fill_bytes(&mut session.0);
        let mut weights = vec![];
        for (index, own) in hidden.segments().iter().enumerate() {
            let terms = program.weights(index).iter();
            let terms =
                terms.map(|term| term.values().iter().map(|&weight| i64::from(weight) as u64).collect());
            let offset = match &own.behind {
                Behind::Step(step, _) => step.offset(),
                Behind::Class | Behind::Sums => 0,
            };
            let bias = program.bias(index).map_err(numbers)?;
            let bias = bias.map_or_else(|| vec![0; own.values], |bias| bias.values().to_vec());
            let bias = bias.into_iter().map(|bias| bias.wrapping_add(offset) as u64).collect();
            weights.push(SegmentWeights { terms: terms.collect(), bias });
        }
        let description = Box::new(program.plan().description().clone());
        let outgoing = VecDeque::from([Message::Accept { session, description, transfers }]);
        Ok(Computing {
            key,
            program,
            hidden,
            weights,
            session,
            delta,
            sender,
            outgoing,
            preparing: None,
            next_preparation: 0,
            stock: BTreeMap::new(),
            next_query: 0,
            online: vec![],
            jobs: VecDeque::new(),
            unprepared: true,
            gate: self.gate.clone(),
        })
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
            (State::Listening, Message::Hello { version, key, queries, reveal, prefer, opening }) => {
                let in_first = |source| SessionError::Numbers { segment: 0, source };
                let key = key.on(self.backend).map_err(in_first)?;
                let (batch, lanes) = (queries as usize, self.backend.lanes());
                let deployment = Deployment { key: key.parameters(), batch, lanes, prefer };
                let computing = self.accept((version, key), (deployment, reveal, opening), rng)?;
                self.state = State::Computing(Box::new(computing));
            }
            (State::Listening, other) => {
                return Err(SessionError::Unexpected { expected: Expected::Hello, found: other.to_string() });
            }
            (State::Computing(computing), Message::Finish { session })
                if computing.online.is_empty() && session == computing.session => {}
            (State::Computing(mut computing), message) => {
                computing.take(message)?;
                self.state = State::Computing(computing);
            }
        }
        Ok(None)
    }

    /// Computes the next answer in a unit of bounded size: a segment on an image's shares first, then a block of circuits,
    /// then some masks of one segment. `None` until the client says more.
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
            let ahead = |preparing: &Preparing| {
                !preparing.garbling.is_empty()
                    || preparing.jobs.front().is_some_and(|job| job.inputs.has_part())
            };
            let ahead = computing.preparing.as_ref().is_some_and(ahead);
            computing.outgoing.is_empty() && (ahead || !computing.jobs.is_empty())
        })
    }

    /// The tables of the client's key that replies will take, which another thread can make while the client encrypts.
    fn idle(&mut self, _: &mut dyn CryptoRng) -> Idle {
        let State::Computing(computing) = &mut self.state else { return Idle::Nothing };
        if !mem::take(&mut computing.unprepared) {
            return Idle::Nothing;
        }
        tables_of_replies(&computing.key, computing.hidden.segments().iter().map(|segment| &segment.layout))
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
    fn take(&mut self, message: Message) -> Result<(), SessionError> {
        let found = message.to_string();
        let unexpected = |expected| SessionError::Unexpected { expected, found };
        match message {
            Message::Tensor { position, index, ciphertexts } => {
                let Position { session, round, part: Part::Inputs { segment, term } } = position else {
                    return Err(unexpected(Expected::Masks));
                };
                let place = (round, segment as usize, term as usize);
                if session != self.session || !self.begin(place)? {
                    return Err(unexpected(Expected::Masks));
                }
                self.masks((segment as usize, term as usize), (index, &ciphertexts))
            }
            Message::Choices { block, choices } => {
                let due = self.preparing.as_ref().and_then(|preparing| preparing.blocks.front());
                if due.is_none_or(|(due, _)| *due != block) {
                    return Err(unexpected(Expected::Choices));
                }
                self.choices(block, &choices)
            }
            Message::Shares { query, segment, shares } => {
                if !self.is_due(query, segment as usize) {
                    return Err(unexpected(Expected::Shares));
                }
                self.shares((query, segment as usize), &shares)
            }
            _ => Err(unexpected(Expected::Masks)),
        }
    }

    /// Whether the masks of a term may come now; a preparation begins with the first.
    fn begin(&mut self, (round, segment, term): (u32, usize, usize)) -> Result<bool, SessionError> {
        let queries = self.program.plan().description().batch;
        if self.preparing.is_none() {
            if (round, segment, term) != (self.next_preparation, 0, 0) {
                return Ok(false);
            }
            let (expected, found) = (MOST_PREPARED, self.stock.len() + queries);
            if found > expected {
                return Err(SessionError::Prepared { expected, found });
            }
            self.next_preparation = round.wrapping_add(1);
            let materials = (0..queries).map(|_| Material::of(&self.hidden)).collect();
            let blocks = blocks(&self.hidden, round, queries);
            let (jobs, garbling) = (VecDeque::new(), VecDeque::new());
            let preparing = Preparing { number: round, jobs, begun: 0, blocks, garbling, materials };
            self.preparing = Some(preparing);
        }
        let Some(preparing) = &mut self.preparing else { return Ok(false) };
        if preparing.jobs.back().is_none_or(|job| job.inputs.due().is_none()) {
            if segment != preparing.begun || segment >= self.hidden.segments().len() {
                return Ok(false);
            }
            preparing.begun += 1;
            let inputs = Incoming::new(self.program.plan().segments()[segment].terms.len());
            preparing.jobs.push_back(Job { segment, inputs, masks: Zeroizing::default() });
        }
        let due = preparing.jobs.back().map(|job| (job.segment, job.inputs.due()));
        Ok(preparing.number == round && due == Some((segment, Some(term))))
    }

    fn masks(
        &mut self,
        (segment, term): (usize, usize),
        (index, ciphertexts): (u32, &EncChunk),
    ) -> Result<(), SessionError> {
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        let queries = self.program.plan().description().batch;
        let own = &self.hidden.segments()[segment];
        let planned = &self.program.plan().segments()[segment];
        let Some(job) = self.preparing.as_mut().and_then(|preparing| preparing.jobs.back_mut()) else {
            return Ok(());
        };
        let begin = || {
            let images = own.layout.parts.first().map_or(1, |part| part.images);
            EncTensorBuilder::new(&self.key, own.up_header(planned, term, queries), images)
        };
        job.inputs.push((index, ciphertexts), begin).map_err(in_segment)
    }

    fn choices(&mut self, block: Block, choices: &[u8]) -> Result<(), SessionError> {
        let Some(preparing) = &mut self.preparing else { return Ok(()) };
        let Some((_, sums)) = preparing.blocks.pop_front() else { return Ok(()) };
        let labels = self.hidden.segments()[block.segment as usize].labels(sums.len());
        let zeros = self.sender.extend(choices, labels).map_err(SessionError::garbling(block.segment))?;
        preparing.garbling.push_back((block, sums, zeros));
        Ok(())
    }

    /// Whether a query may come with its shares of a segment now.
    fn is_due(&self, query: u64, segment: usize) -> bool {
        match self.online.iter().find(|online| online.query == query) {
            Some(online) => online.segment == segment && !online.begun,
            None => segment == 0 && query >= self.next_query && self.stock.contains_key(&query),
        }
    }

    fn shares(&mut self, (query, segment): (u64, usize), shares: &[u8]) -> Result<(), SessionError> {
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        if segment == 0 {
            if let Some(gate) = &self.gate {
                gate.admit(1)?;
            }
            // Numbers only rise: what was prepared for those before will not be used.
            self.stock = self.stock.split_off(&query);
            self.next_query = query + 1;
            let Some(material) = self.stock.remove(&query) else { return Ok(()) };
            self.online.push(Online { query, material, segment, begun: false });
        }
        let Some(online) = self.online.iter_mut().find(|online| online.query == query) else {
            return Ok(());
        };
        online.begun = true;
        let (plan, own) = (self.program.plan(), &self.hidden.segments()[segment]);
        let (mut rest, mut inputs) = (shares, vec![]);
        for (at, term) in plan.segments()[segment].terms.iter().enumerate() {
            let count = term.map.input().elements();
            let (part, others) = rest.split_at(rest.len().min(own.shared.packed_bytes(count)));
            rest = others;
            let part = own.shared.unpack(part, count).map_err(SessionError::garbling(segment as u32))?;
            let mut part = Zeroizing::new(part);
            if let Some((from, reader)) = self.hidden.source(segment, at) {
                let results = &online.material.segments[from].results[reader];
                let results = sum_shares(term, results).map_err(in_segment)?;
                part.iter_mut().zip(results.iter()).for_each(|(x, y)| *x = x.wrapping_add(*y));
            }
            inputs.push(Zeroizing::new(part.iter().map(|&x| x as i64).collect()));
        }
        if !rest.is_empty() {
            let (expected, found) = (shares.len() - rest.len(), shares.len());
            let source = gelu_garble::Error::Length { what: "bytes of shares", expected, found };
            return Err(SessionError::garbling(segment as u32)(source));
        }
        self.jobs.push_back(OnlineJob { query, segment, inputs });
        Ok(())
    }

    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        if self.outgoing.is_empty() {
            if let Some(job) = self.jobs.pop_front() {
                self.answer(&job)?;
            } else if let Some(preparing) = &mut self.preparing {
                if let Some((block, sums, zeros)) = preparing.garbling.pop_front() {
                    let tables = preparing.garble((&self.delta, &self.hidden), (block, sums, &zeros), rng);
                    let tables = tables.map_err(SessionError::garbling(block.segment))?;
                    self.outgoing.push_back(Message::Tables { block, tables });
                } else {
                    self.multiply(rng)?;
                }
                self.store();
            }
        }
        Ok(self.outgoing.pop_front())
    }

    /// A segment on the next masks, if they have come: products, masks of the server's own, re-randomization.
    fn multiply(&mut self, rng: &mut dyn CryptoRng) -> Result<(), SessionError> {
        let queries = self.program.plan().description().batch;
        let Some(preparing) = &mut self.preparing else { return Ok(()) };
        let Some(job) = preparing.jobs.front_mut() else { return Ok(()) };
        let Some((at, masks)) = job.inputs.next_part() else { return Ok(()) };
        let index = job.segment;
        let own = &self.hidden.segments()[index];
        let in_segment = |source| SessionError::Numbers { segment: index as u32, source };
        let Some(part) = own.layout.images().nth(at) else { return Ok(()) };
        let exponents = self.key.hiding_exponents(rng, part.hiding);
        let (sums, fresh) =
            rayon::join(|| self.program.sums_of_masks(index, own, (part, &masks)), || exponents.powers());
        let random = (0..part.images * own.values).map(|_| own.shared.wrap(rng.next_u64()));
        let random: Zeroizing<Vec<u64>> = Zeroizing::new(random.collect());
        let sums = sums.and_then(|sums| sums.flood(&random, rng)).map_err(in_segment)?;
        job.masks.extend(random.iter());
        let position = Position {
            session: self.session,
            round: preparing.number,
            part: Part::Sums { segment: index as u32 },
        };
        let chunks = job.inputs.number(sums.rerandomize_with(fresh, rng).chunks());
        let message = |(index, ciphertexts)| Message::Tensor { position, index, ciphertexts };
        self.outgoing.extend(chunks.into_iter().map(message));
        if job.inputs.is_answered() && job.masks.len() == queries * own.values {
            for (material, masks) in preparing.materials.iter_mut().zip(job.masks.chunks_exact(own.values)) {
                material.segments[index].masks = Zeroizing::new(masks.to_vec());
            }
            preparing.jobs.pop_front();
        }
        Ok(())
    }

    /// Takes a preparation that is complete into stock.
    fn store(&mut self) {
        let segments = self.hidden.segments().len();
        let is_complete = |preparing: &Preparing| {
            let jobs = preparing.begun == segments && preparing.jobs.is_empty();
            jobs && preparing.blocks.is_empty() && preparing.garbling.is_empty()
        };
        if self.preparing.as_ref().is_some_and(is_complete)
            && let Some(preparing) = self.preparing.take()
        {
            let first = u64::from(preparing.number) * preparing.materials.len() as u64;
            self.stock.extend((first..).zip(preparing.materials));
        }
    }

    /// The labels of the server's shares of a segment's sums; at the end those shares themselves, if the client is to have them.
    fn answer(&mut self, job: &OnlineJob) -> Result<(), SessionError> {
        let &OnlineJob { query, segment, .. } = job;
        let in_segment = |source| SessionError::Numbers { segment: segment as u32, source };
        let own = &self.hidden.segments()[segment];
        let Some(at) = self.online.iter().position(|online| online.query == query) else { return Ok(()) };
        let material = mem::take(&mut self.online[at].material.segments[segment]);
        let SegmentWeights { terms: weights, bias } = &self.weights[segment];
        let masked = material.masks.iter().zip(bias);
        let mut shares: Zeroizing<Vec<u64>> =
            Zeroizing::new(masked.map(|(mask, bias)| bias.wrapping_sub(*mask)).collect());
        let terms = self.program.plan().segments()[segment].terms.iter().zip(weights);
        for ((term, weights), input) in terms.zip(&job.inputs) {
            let sums = Zeroizing::new(term.map.apply_wrapping(weights, input).map_err(in_segment)?);
            shares.iter_mut().zip(sums.iter()).for_each(|(share, sum)| *share = share.wrapping_add(*sum));
        }
        shares.iter_mut().for_each(|share| *share = own.shared.wrap(*share));
        for ((block, sums), seed) in (0..).zip(own.blocks()).zip(&material.seeds) {
            let labels = || {
                let values = own.choices(&shares[sums.clone()])?;
                let zeros = Labels::of_seed(seed, own.labels(sums.len()));
                self.delta.active(&zeros, &values)
            };
            let labels = labels().map_err(SessionError::garbling(segment as u32))?.to_le_bytes();
            let block = Block { query, segment: segment as u32, block };
            self.outgoing.push_back(Message::Labels { block, labels });
        }
        if matches!(own.behind, Behind::Sums) {
            self.outgoing.push_back(Message::Sums {
                query,
                segment: segment as u32,
                shares: own.shared.pack(&shares),
            });
        }
        self.online[at].segment += 1;
        self.online[at].begun = false;
        // Its results are what the next segments need.
        self.online[at].material.segments[segment].results = material.results;
        if self.online[at].segment == self.hidden.segments().len() {
            self.online.remove(at);
        }
        Ok(())
    }
}

impl Preparing {
    /// Garbles a block of circuits.
    fn garble(
        &mut self,
        (delta, hidden): (&Delta, &HiddenPlan),
        (block, sums, zeros): (Block, Range<usize>, &Labels),
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, gelu_garble::Error> {
        let own = &hidden.segments()[block.segment as usize];
        let seed = LabelSeed::random(rng);
        let others = Labels::of_seed(&seed, own.labels(sums.len()));
        let mut garbler = Garbler::new(delta, own.width(sums.len()), rng)?;
        garbler.reserve(own.ands / own.width(own.values).max(1));
        let [a, b] = [zeros, &others].map(|zeros| garbler.input(zeros));
        let result = own.circuit(&mut garbler, &a?, &b?);
        let first = u64::from(self.number) * self.materials.len() as u64;
        let material = &mut self.materials[(block.query - first) as usize].segments[block.segment as usize];
        material.seeds.push(seed);
        if matches!(own.behind, Behind::Class) {
            garbler.reveal(&result.wires);
        }
        for (ring, shares) in own.reader_rings().zip(&mut material.results) {
            let share = garbler.project(&result.wires, result.signed, ring);
            shares.extend(share.iter().map(|share| ring.wrap(share.wrapping_add(result.base as u64))));
        }
        garbler.finish()
    }
}

impl Material {
    fn of(hidden: &HiddenPlan) -> Self {
        let segment = |own: &crate::plan::HiddenSegment| {
            let results = own.reader_rings().map(|_| Zeroizing::default()).collect();
            SegmentMaterial { results, ..SegmentMaterial::default() }
        };
        Self { segments: hidden.segments().iter().map(segment).collect() }
    }
}

/// The circuits of a preparation, in the order in which they are asked for: segment by segment, of all queries.
pub(super) fn blocks(
    hidden: &HiddenPlan,
    preparation: u32,
    queries: usize,
) -> VecDeque<(Block, Range<usize>)> {
    let first = u64::from(preparation) * queries as u64;
    let of_segment = |(segment, own): (u32, &crate::plan::HiddenSegment)| {
        let blocks: Vec<_> = (0..).zip(own.blocks()).collect();
        let query = move |query| {
            let block = move |(block, sums)| (Block { query, segment, block }, sums);
            blocks.clone().into_iter().map(block)
        };
        (first..first + queries as u64).flat_map(query).collect::<Vec<_>>()
    };
    (0..).zip(hidden.segments()).flat_map(of_segment).collect()
}

/// Does not print what is secret.
impl fmt::Debug for Computing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computing").field("stock", &self.stock.len()).finish_non_exhaustive()
    }
}
