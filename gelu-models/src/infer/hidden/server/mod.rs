//! The server's side: it has the model, and sees of an image what masks leave.

mod ahead;
mod online;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::sync::Arc;

use gelu_garble::{Delta, LabelSender, POINT_BYTES};
use gelu_tensor::Backend;
use gelu_tensor::paillier::PublicKey;
use rand::CryptoRng;

use self::ahead::Preparing;
use self::online::{Online, OnlineJob};
use super::super::{Gate, Position, ServerModel, SessionError, SessionId, tables_of_replies};
use super::material::Material;
use super::{Block, HIDDEN_VERSION, Message};
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
        hello: (Deployment, usize, Reveal, [u8; POINT_BYTES]),
        rng: &mut dyn CryptoRng,
    ) -> Result<Computing, SessionError> {
        if version != HIDDEN_VERSION {
            return Err(SessionError::Version { expected: HIDDEN_VERSION, found: version });
        }
        let (mut deployment, memory, reveal, opening) = hello;
        if (self.reveal, reveal) == (Reveal::Class, Reveal::Logits) {
            return Err(SessionError::NotRevealed);
        }
        // Before a plan for as many is made.
        let (expected, found) = (super::Client::MOST_PREPARED, deployment.batch);
        if found > expected {
            return Err(SessionError::Prepared { expected, found });
        }
        let numbers = |source| SessionError::Numbers { segment: 0, source };
        let plan = |deployment: &Deployment| {
            let program = self.model.hidden_program(deployment)?;
            let hidden = HiddenPlan::new(program.plan(), reveal)?;
            Ok((program, hidden))
        };
        let (mut program, mut hidden) = plan(&deployment).map_err(SessionError::Refused)?;
        // What a query takes does not depend on how many are prepared together.
        let most = hidden.most_prepared(memory);
        if deployment.batch > most {
            deployment.batch = most;
            (program, hidden) = plan(&deployment).map_err(SessionError::Refused)?;
        }
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
                Behind::Step { step, .. } => step.offset(),
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
            (State::Listening, Message::Hello { version, key, queries, memory, reveal, prefer, opening }) => {
                let in_first = |source| SessionError::Numbers { segment: 0, source };
                let key = key.on(self.backend).map_err(in_first)?;
                let (batch, lanes) = (queries as usize, self.backend.lanes());
                let deployment = Deployment { key: key.parameters(), batch, lanes, prefer };
                let memory = usize::try_from(memory).unwrap_or(usize::MAX);
                let computing = self.accept((version, key), (deployment, memory, reveal, opening), rng)?;
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
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, SessionError> {
        if self.outgoing.is_empty() {
            if let Some(job) = self.jobs.pop_front() {
                self.answer(&job)?;
            } else if let Some(preparing) = &mut self.preparing {
                if let Some((block, circuits, zeros)) = preparing.garbling.pop_front() {
                    let tables =
                        preparing.garble((&self.delta, &self.hidden), (block, circuits, &zeros), rng);
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
}

/// Does not print what is secret.
impl fmt::Debug for Computing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computing").field("stock", &self.stock.len()).finish_non_exhaustive()
    }
}
