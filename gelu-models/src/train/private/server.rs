//! The server's side of private training: the only place where the weights are, between turns; in one they are masked.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use gelu_tensor::paillier::{PublicKey, SecretKey};
use gelu_tensor::{
    Decryption, EncChunk, EncRate, EncTensor, EncTensorBuilder, Flood, LinearMap, MapWeights, Product,
};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use super::ledger::LayerLeakage;
use super::master::{Master, MasterState};
use super::{Grant, MasterConfig, Message, PRIVATE_VERSION, Position, PrivateError, TrainPlan};
use crate::peer::{AbortReason, Counted, Idle, Part, Peer};
use crate::plan::Layout;

/// The server's side of private training.
pub struct Server {
    plan: Arc<TrainPlan>,
    key: Arc<SecretKey>,
    master: Master,
    turn: Option<Turn>,
    /// A turn that was interrupted, for the client that comes back.
    interrupted: Option<TurnState>,
    /// What is sent before anything else is computed.
    outgoing: VecDeque<Message>,
}

struct Turn {
    client: PublicKey,
    state: TurnState,
    stage: Stage,
    /// How many ciphertexts have come of the update that was taken last, when it is sent once more.
    again: (u32, usize),
}

/// How far an iteration is.
enum Stage {
    /// The tensors of an exchange that have come or begun to come, and how much of the answer was sent.
    Exchange { index: usize, inputs: Vec<EncTensorBuilder>, parts: usize, chunks: u32 },
    /// The steps, or the sum of all steps of the turn.
    Steps(Option<(Part, Decryption)>),
}

impl Stage {
    /// The beginning of an iteration, or what comes after an exchange.
    fn exchange(plan: &TrainPlan, index: usize) -> Self {
        match index < plan.exchanges().len() {
            true => Self::Exchange { index, inputs: vec![], parts: 0, chunks: 0 },
            false => Self::Steps(None),
        }
    }
}

/// A turn between two of its iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnState {
    client: u32,
    grant: Grant,
    rate: u64,
    /// Iterations done.
    done: u32,
    /// The masked parameters mod 2^l.
    masked: Vec<u64>,
}

/// What of a server is kept between iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerState {
    master: MasterState,
    turn: Option<TurnState>,
}

impl ServerState {
    /// The client whose turn was under way, if one was.
    pub fn client(&self) -> Option<u32> {
        self.turn.as_ref().map(|turn| turn.client)
    }
}

impl Server {
    /// A server that trains these parameters ([`TrainPlan::quantise`]).
    ///
    /// # Errors
    /// [`PrivateError`] when a setting is out of its range, or the leakage policy allows no iteration.
    pub fn new(
        plan: Arc<TrainPlan>,
        key: Arc<SecretKey>,
        config: MasterConfig,
        parameters: Vec<u64>,
    ) -> Result<Self, PrivateError> {
        let master = Master::new(plan.clone(), config, parameters)?;
        Self::assemble(plan, key, master, None)
    }

    /// A server of a run that was interrupted; it may have another key.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`PrivateError::State`] when the state is not of this run.
    pub fn resume(
        plan: Arc<TrainPlan>,
        key: Arc<SecretKey>,
        config: MasterConfig,
        state: ServerState,
    ) -> Result<Self, PrivateError> {
        let ServerState { master, turn } = state;
        if turn.as_ref().is_some_and(|turn| {
            let ring = plan.numbers().ring;
            turn.masked.len() != plan.parameters()
                || turn.masked.iter().any(|&weight| weight != ring.wrap(weight))
                || turn.grant.turn != master.turns
                || turn.done == 0
        }) {
            return Err(PrivateError::State("its turn must be the next of the run"));
        }
        let master = Master::resume(plan.clone(), config, master)?;
        Self::assemble(plan, key, master, turn)
    }

    fn assemble(
        plan: Arc<TrainPlan>,
        key: Arc<SecretKey>,
        master: Master,
        interrupted: Option<TurnState>,
    ) -> Result<Self, PrivateError> {
        if key.public_key().size() != plan.description().server_key {
            return Err(PrivateError::State("the plan must be for the sizes of the keys"));
        }
        Ok(Self { plan, key, master, turn: None, interrupted, outgoing: VecDeque::new() })
    }

    /// What [`resume`](Self::resume) needs: the run between two iterations. To be taken when the client says
    /// [`Event::Ready`](super::Event::Ready), or between turns.
    pub fn state(&self) -> ServerState {
        let under_way = self.turn.as_ref().map(|turn| &turn.state).or(self.interrupted.as_ref());
        let turn = under_way.filter(|turn| turn.done > 0).cloned();
        ServerState { master: self.master.state().clone(), turn }
    }

    /// The parameters at the beginning of the turn that is under way, or after the last one, and what clients have
    /// seen.
    pub fn master(&self) -> &MasterState {
        self.master.state()
    }

    /// The masked parameters, in a turn.
    pub fn masked(&self) -> Option<&[u64]> {
        self.turn.as_ref().map(|turn| &turn.state.masked[..])
    }

    /// Whether these masks and the masked parameters add up to the parameters of the beginning of the turn less the
    /// rate times these sums of steps: what holds between any two iterations. Only who holds both sides can ask.
    pub fn agrees(&self, masks: &[u64], totals: &[i64]) -> bool {
        let Some(Turn { state, .. }) = &self.turn else { return false };
        let ring = self.plan.numbers().ring;
        let sums = state.masked.iter().zip(masks).map(|(masked, mask)| ring.wrap(masked.wrapping_add(*mask)));
        masks.len() == state.masked.len() && sums.eq(self.master.after(state.rate, totals))
    }

    /// Iterations done so far, those of a turn that is under way included.
    pub fn iterations_done(&self) -> u64 {
        let turn = self.turn.as_ref().map(|turn| &turn.state).or(self.interrupted.as_ref());
        self.master.state().iterations + turn.map_or(0, |turn| u64::from(turn.done))
    }

    /// What an iteration shows of each layer.
    pub fn leakage(&self) -> &[LayerLeakage] {
        self.master.leakage()
    }

    /// What is trained, and how.
    pub fn plan(&self) -> &TrainPlan {
        &self.plan
    }

    /// Iterations of the whole run.
    pub fn iterations(&self) -> u64 {
        self.master.iterations()
    }

    /// Whether all of them have been done.
    pub fn is_complete(&self) -> bool {
        self.master.state().iterations >= self.iterations()
    }

    /// The client's key, in a turn: what its ciphertexts are decoded with.
    pub fn client_key(&self) -> Option<&PublicKey> {
        self.turn.as_ref().map(|turn| &turn.client)
    }

    /// The server's own key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Gives up the turn that is under way, because its client has vanished: the weights are those with which it began,
    /// and only the ledger remembers what the client has seen.
    pub fn abandon(&mut self) {
        self.outgoing.clear();
        let turn = self.turn.take().map(|turn| turn.state).or(self.interrupted.take());
        if let Some(turn) = turn {
            // The iteration that was under way may have been seen as well.
            self.master.note(turn.client, turn.done + 1);
        }
    }

    fn take(&mut self, message: Message, rng: &mut dyn CryptoRng) -> Result<(), PrivateError> {
        let found = message.to_string();
        match message {
            Message::Abort { reason } => Err(PrivateError::Aborted(reason)),
            Message::Join { version, client, key } if self.turn.is_none() => {
                if version != PRIVATE_VERSION {
                    return Err(PrivateError::Version { expected: PRIVATE_VERSION, found: version });
                }
                let key = key.on(self.key.public_key().backend())?;
                let granted = self.begin(client, key, rng)?;
                self.outgoing.push_back(granted);
                Ok(())
            }
            Message::Tensor { position, index, ciphertexts } if self.turn.is_some() => {
                self.tensor(position, index, &ciphertexts)
            }
            _ => {
                let expected = if self.turn.is_none() { "a client that joins" } else { "ciphertexts" };
                Err(PrivateError::Unexpected { expected, found })
            }
        }
    }

    fn begin(
        &mut self,
        client: u32,
        key: PublicKey,
        rng: &mut dyn CryptoRng,
    ) -> Result<Message, PrivateError> {
        if key.size() != self.plan.description().client_key.size {
            return Err(PrivateError::State("the plan must be for the sizes of the keys"));
        }
        let state = match self.interrupted.take() {
            Some(turn) if turn.client == client => turn,
            vanished => {
                if let Some(turn) = vanished {
                    self.master.note(turn.client, turn.done + 1);
                }
                let (grant, rate) = self.master.grant()?;
                let masked = self.master.state().parameters.clone();
                TurnState { client, grant, rate, done: 0, masked }
            }
        };
        let rate = EncRate::encrypt(state.rate, &self.key, rng)?;
        let message = Message::Turn {
            description: Box::new(self.plan.description().clone()),
            grant: state.grant.clone(),
            done: state.done,
            key: self.key.public_key().clone(),
            rate,
        };
        let stage = Stage::exchange(&self.plan, 0);
        self.turn = Some(Turn { client: key, state, stage, again: (0, 0) });
        Ok(message)
    }

    /// Takes a chunk of the tensor that is due.
    fn tensor(&mut self, position: Position, chunk: u32, ciphertexts: &EncChunk) -> Result<(), PrivateError> {
        let (plan, key) = (self.plan.clone(), self.key.clone());
        let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
        let own = Position { turn: turn.state.grant.turn, iteration: turn.state.done, ..position };
        if position.part == Part::Update && Some(position.iteration) == turn.state.done.checked_sub(1) {
            let again = Position { iteration: position.iteration, ..own };
            return if position == again {
                self.update_again(position, chunk, ciphertexts)
            } else {
                Err(PrivateError::Place { expected: again.to_string(), found: position })
            };
        }
        let place = |part: Part| {
            let expected = Position { part, ..own };
            match position == expected {
                true => Ok(()),
                false => Err(PrivateError::Place { expected: expected.to_string(), found: position }),
            }
        };
        match &mut turn.stage {
            Stage::Exchange { index, inputs, .. } => {
                let exchange = &plan.exchanges()[*index];
                let complete = inputs.last().is_none_or(EncTensorBuilder::is_complete);
                let next = if complete { inputs.len() } else { inputs.len() - 1 };
                let Some(&part) = exchange.ups.get(next) else {
                    let expected = "no tensor before the answer to the last";
                    return Err(PrivateError::Unexpected { expected, found: position.to_string() });
                };
                place(part)?;
                if next == inputs.len() {
                    let images =
                        plan.product(exchange.down)?.layout.parts.first().map_or(1, |part| part.images);
                    inputs.push(EncTensorBuilder::new(&turn.client, plan.header(part)?, images)?);
                }
                inputs[next].push(chunk, ciphertexts)?;
            }
            // After the errors of the first segment a turn may go on or end.
            Stage::Steps(arrival) => {
                let part = match (&arrival, position.part) {
                    (Some((part, _)), _) => *part,
                    (None, Part::Total) => Part::Total,
                    (None, _) => Part::Update,
                };
                place(part)?;
                let (_, mut steps) = match arrival.take() {
                    Some(arrival) => arrival,
                    None => (part, Decryption::new(key.public_key(), plan.header(part)?)?),
                };
                steps.push(chunk, ciphertexts, &key)?;
                match steps.is_complete() {
                    false => *arrival = Some((part, steps)),
                    true if part == Part::Total => self.end(steps)?,
                    true => self.update(steps)?,
                }
            }
        }
        Ok(())
    }

    /// Takes the steps of an iteration.
    fn update(&mut self, steps: Decryption) -> Result<(), PrivateError> {
        let (plan, ring) = (self.plan.clone(), self.plan.numbers().ring);
        let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
        if turn.state.done + 1 >= turn.state.grant.iterations {
            return Err(PrivateError::State("the last iteration of a turn ends it"));
        }
        let size = self.key.public_key().size();
        let steps = plan.update_layout().read(size, turn.state.rate, &steps.finish_residues()?)?;
        for (weight, step) in turn.state.masked.iter_mut().zip(steps.iter()) {
            *weight = ring.wrap(weight.wrapping_sub(*step));
        }
        let iteration = turn.state.done;
        turn.state.done += 1;
        turn.again = (0, 0);
        turn.stage = Stage::exchange(&plan, 0);
        self.outgoing.push_back(Message::Updated { turn: turn.state.grant.turn, iteration });
        Ok(())
    }

    /// An update that was sent twice is taken once: the second time it is only counted.
    fn update_again(
        &mut self,
        Position { turn: number, iteration, .. }: Position,
        chunk: u32,
        ciphertexts: &EncChunk,
    ) -> Result<(), PrivateError> {
        let count = self.plan.update_layout().ciphertexts(self.key.public_key().size())?;
        let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
        let (expected, found) = (turn.again.0, turn.again.1 + ciphertexts.ciphertext_count());
        if chunk != expected || found > count {
            let what = "chunks of an update that is sent again";
            let (expected, found) = (expected as usize, chunk as usize);
            return Err(gelu_tensor::Error::Count { what, expected, found }.into());
        }
        turn.again = (chunk + 1, found);
        if found == count {
            turn.again = (0, 0);
            self.outgoing.push_back(Message::Updated { turn: number, iteration });
        }
        Ok(())
    }

    /// Ends the turn with the sum of its steps (Algorithm 5).
    fn end(&mut self, totals: Decryption) -> Result<(), PrivateError> {
        let totals = totals.finish()?;
        let turn = self.turn.as_ref().ok_or(PrivateError::State("no turn is under way"))?;
        let (client, number) = (turn.state.client, turn.state.grant.turn);
        let iterations = (turn.state.done + 1, turn.state.rate);
        self.master.finish(client, iterations, &totals.values()[..self.plan.parameters()])?;
        self.turn = None;
        self.outgoing.push_back(Message::Ended { turn: number });
        Ok(())
    }

    /// Computes the next part of the answer to an exchange whose tensors have come.
    fn advance(&mut self, rng: &mut dyn CryptoRng) -> Result<(), PrivateError> {
        let plan = self.plan.clone();
        let Some(Turn { client, state, stage, .. }) = &mut self.turn else { return Ok(()) };
        let Stage::Exchange { index, inputs, parts, chunks } = stage else { return Ok(()) };
        let exchange = &plan.exchanges()[*index];
        if inputs.len() < exchange.ups.len() || !inputs.iter().all(EncTensorBuilder::has_part) {
            return Ok(());
        }
        let images: Vec<EncTensor> = inputs.iter_mut().filter_map(|input| input.next_part()).collect();
        let Multiplication { layout, flood, terms, bias } = plan.product(exchange.down)?;
        let Some(part) = layout.images().nth(*parts) else { return Ok(()) };
        let exponents = client.hiding_exponents(rng, part.ciphertexts, part.hidden_bits);
        let shape = plan.header(exchange.down)?.shape;
        let multiply = || {
            let mut sums: Option<EncTensor> = None;
            for ((map, weights), (input, product)) in terms.iter().zip(images.iter().zip(&part.products)) {
                let values = &state.masked[weights.clone()];
                // Of a layer before and one after flattening the shapes differ.
                let term = multiply(input, map, (values, flood), product)?.reshape(shape.clone())?;
                sums = Some(match sums {
                    None => term,
                    Some(sums) => sums.add(&term)?,
                });
            }
            let sums = sums.ok_or(PrivateError::State("an exchange has tensors"))?;
            Ok::<_, PrivateError>(sums.repack(layout.down.stacked())?)
        };
        let (sums, fresh) = rayon::join(multiply, || exponents.powers());
        let bias = bias.map_or(vec![], |segment| segment.bias(&state.masked));
        let sums = sums?.flood(&bias, rng)?.rerandomize_with(fresh, rng);
        let position = Position { turn: state.grant.turn, iteration: state.done, part: exchange.down };
        for ciphertexts in sums.chunks() {
            self.outgoing.push_back(Message::Tensor { position, index: *chunks, ciphertexts });
            *chunks += 1;
        }
        *parts += 1;
        if inputs.iter().all(EncTensorBuilder::is_empty) {
            *stage = Stage::exchange(&plan, *index + 1);
        }
        Ok(())
    }
}

impl Peer for Server {
    type Message = Message;
    type Event = Infallible;
    type Error = PrivateError;

    /// Takes a message. An error ends the turn as if the client had vanished.
    fn handle(
        &mut self,
        message: Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Infallible>, PrivateError> {
        self.take(message, rng).inspect_err(|_| self.close())?;
        Ok(None)
    }

    /// Computes the next sums or products in a unit of bounded size; `None` until the client says more.
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, PrivateError> {
        if self.outgoing.is_empty()
            && let Err(error) = self.advance(rng)
        {
            self.close();
            return Err(error);
        }
        Ok(self.outgoing.pop_front())
    }

    fn idle(&mut self, _: &mut dyn CryptoRng) -> Idle {
        Idle::Nothing
    }

    /// Gives up the turn that is under way, if there is one.
    fn close(&mut self) {
        self.outgoing.clear();
        if self.turn.is_some() {
            self.abandon();
        }
    }

    /// Whether no turn is under way, and all has been said about the last.
    fn is_closed(&self) -> bool {
        self.turn.is_none() && self.outgoing.is_empty()
    }

    fn reason(error: &PrivateError) -> Option<AbortReason> {
        error.reason()
    }

    fn operations(&self) -> Counted {
        self.client_key().map_or(Counted::default(), |key| Counted {
            computing: key.operations(),
            checking: key.check_operations(),
        })
    }
}

/// What a server computes for a tensor of sums or products.
struct Multiplication<'a> {
    layout: &'a Layout,
    flood: Flood,
    /// The maps, and where their weights lie among all parameters.
    terms: Vec<(&'a Arc<LinearMap>, std::ops::Range<usize>)>,
    /// The segment whose biases are added.
    bias: Option<&'a super::TrainSegment>,
}

impl TrainPlan {
    fn product(&self, part: Part) -> Result<Multiplication<'_>, PrivateError> {
        let absent =
            || PrivateError::Model { rule: "the plan must have the tensor", found: part.to_string() };
        match part {
            Part::Sums { segment } => {
                let segment = self.segments().get(segment as usize).ok_or_else(absent)?;
                let terms = segment.terms().iter();
                Ok(Multiplication {
                    layout: segment.layout(),
                    flood: segment.flood(),
                    terms: terms.map(|term| (term.map(), term.layer().weights.clone())).collect(),
                    bias: Some(segment),
                })
            }
            Part::Products { segment, term } => {
                let segment = self.segments().get(segment as usize).ok_or_else(absent)?;
                let term = segment.terms().get(term as usize).ok_or_else(absent)?;
                let back = term.back().ok_or_else(absent)?;
                Ok(Multiplication {
                    layout: back.layout(),
                    flood: back.flood(),
                    terms: vec![(back.map(), term.layer().weights.clone())],
                    bias: None,
                })
            }
            _ => Err(absent()),
        }
    }
}

fn multiply(
    input: &EncTensor,
    map: &Arc<LinearMap>,
    (values, flood): (&[u64], Flood),
    product: &Product,
) -> Result<EncTensor, gelu_tensor::Error> {
    input.apply(map, &MapWeights::Residues { values, flood }, product)
}

/// Prints no weight.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("key", &self.key).finish_non_exhaustive()
    }
}
