use std::fmt;
use std::sync::Arc;

use gelu_tensor::paillier::{PublicKey, Randomizer, SecretKey};
use gelu_tensor::{EncBatch, EncChunk, EncRate};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use super::ledger::LayerLeakage;
use super::master::{Master, MasterState};
use super::message::Arrival;
use super::{Grant, MasterConfig, Message, PRIVATE_VERSION, Part, Position, PrivateError, TrainPlan};

/// The server's side of private training: the only place where the weights are, between turns; in one they are masked.
pub struct Server {
    plan: Arc<TrainPlan>,
    key: Arc<SecretKey>,
    master: Master,
    turn: Option<Turn>,
    /// A turn that was interrupted, for the client that comes back.
    interrupted: Option<TurnState>,
}

struct Turn {
    client: PublicKey,
    state: TurnState,
    arrival: Arrival,
    /// The update that was taken last, when it is sent once more.
    again: Option<Arrival>,
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
            turn.masked.len() != plan.parameters() || turn.grant.turn != master.turns || turn.done == 0
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
        Ok(Self { plan, key, master, turn: None, interrupted })
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
        let turn = self.turn.take().map(|turn| turn.state).or(self.interrupted.take());
        if let Some(turn) = turn {
            // The iteration that was under way may have been seen as well.
            self.master.note(turn.client, turn.done + 1);
        }
    }

    /// Takes a message and gives what to send. An error ends the turn as if the client had vanished.
    ///
    /// # Errors
    /// [`PrivateError`].
    pub fn handle(
        &mut self,
        message: Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Message>, PrivateError> {
        let result = self.take(message, rng);
        if result.is_err() && self.turn.is_some() {
            self.abandon();
        }
        result
    }

    fn take(&mut self, message: Message, rng: &mut dyn CryptoRng) -> Result<Vec<Message>, PrivateError> {
        let found = message.kind();
        match message {
            Message::Join { version, client, key } if self.turn.is_none() => {
                if version != PRIVATE_VERSION {
                    return Err(PrivateError::Version { expected: PRIVATE_VERSION, found: version });
                }
                Ok(vec![self.begin(client, key, rng)?])
            }
            Message::Tensor { position, index, ciphertexts } => {
                let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
                let last = turn.state.done.checked_sub(1);
                if position.part == Part::Update && Some(position.iteration) == last {
                    return self.update_again(position, index, ciphertexts);
                }
                // After the errors of the last segment a turn may go on or end.
                let ends = turn.arrival.position.part == Part::Update && position.part == Part::Total;
                if ends && index == 0 {
                    let (layout, elements) = self.plan.total_layout()?;
                    turn.arrival = Arrival::new(
                        Position { part: Part::Total, ..turn.arrival.position },
                        layout.groups() * elements,
                    );
                }
                match turn.arrival.push(position, index, ciphertexts)? {
                    Some(chunks) => self.answer(position, &chunks, rng),
                    None => Ok(vec![]),
                }
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
        if key.size() != self.plan.description().client_key {
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
        let arrival = self.first_arrival(&state)?;
        self.turn = Some(Turn { client: key, state, arrival, again: None });
        Ok(message)
    }

    /// The inputs of the first segment, of the next iteration.
    fn first_arrival(&self, state: &TurnState) -> Result<Arrival, PrivateError> {
        let position = Position { turn: state.grant.turn, iteration: state.done, part: Part::Inputs(0) };
        let segment = &self.plan.segments()[0];
        let layout = self.plan.layout(segment.forward_flood)?;
        Ok(Arrival::new(position, layout.groups() * segment.map.inputs()))
    }

    fn answer(
        &mut self,
        position: Position,
        chunks: &[EncChunk],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<Message>, PrivateError> {
        let plan = self.plan.clone();
        let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
        let (ring, masked) = (plan.numbers().ring, &mut turn.state.masked);
        match position.part {
            Part::Inputs(index) => {
                let segment = &plan.segments()[index as usize];
                let (map, flood) = (&segment.map, segment.forward_flood);
                let batch = EncBatch::from_chunks(&turn.client, map.inputs(), plan.layout(flood)?, chunks)?;
                let sums = map.sums_encrypted(&batch, segment.weights(masked), ring)?;
                let sums = sums.flooded(&segment.bias(masked), flood, rng)?;
                let next = index as usize + 1;
                turn.arrival = if next < plan.segments().len() {
                    let segment = &plan.segments()[next];
                    let layout = plan.layout(segment.forward_flood)?;
                    let position = Position { part: Part::Inputs(index + 1), ..position };
                    Arrival::new(position, layout.groups() * segment.map.inputs())
                } else {
                    after_backward(&plan, position, plan.segments().len())?
                };
                Ok(Message::tensor(Position { part: Part::Sums(index), ..position }, sums.into_chunks()))
            }
            Part::Errors(index) => {
                let segment = &plan.segments()[index as usize];
                let flood = segment.backward_flood.ok_or(PrivateError::State("no errors go back here"))?;
                let map = &segment.map;
                let batch = EncBatch::from_chunks(&turn.client, map.outputs(), plan.layout(flood)?, chunks)?;
                let products = map.products_encrypted(&batch, segment.weights(masked), ring)?;
                let products = products.flooded(&[], flood, rng)?;
                turn.arrival = after_backward(&plan, position, index as usize)?;
                Ok(Message::tensor(
                    Position { part: Part::Products(index), ..position },
                    products.into_chunks(),
                ))
            }
            Part::Update => {
                if turn.state.done + 1 >= turn.state.grant.iterations {
                    return Err(PrivateError::State("the last iteration of a turn ends it"));
                }
                let steps = plan.update_layout().decrypt(&self.key, turn.state.rate, chunks)?;
                for (weight, step) in masked.iter_mut().zip(steps.iter()) {
                    *weight = ring.wrap(weight.wrapping_sub(*step));
                }
                turn.state.done += 1;
                turn.again = None;
                let arrival = self.turn.as_ref().map(|turn| self.first_arrival(&turn.state)).transpose()?;
                if let (Some(turn), Some(arrival)) = (&mut self.turn, arrival) {
                    turn.arrival = arrival;
                }
                Ok(vec![Message::Updated { turn: position.turn, iteration: position.iteration }])
            }
            Part::Total => {
                let (layout, elements) = plan.total_layout()?;
                let batch = EncBatch::from_chunks(self.key.public_key(), elements, layout, chunks)?;
                let values = batch.decrypt_low(&self.key, layout.slot_bits as u32)?;
                let total = |at: usize| {
                    values[at % layout.width * elements + at / layout.width] as i64
                        - TrainPlan::total_offset()
                };
                let totals: Vec<i64> = (0..plan.parameters()).map(total).collect();
                let iterations = turn.state.done + 1;
                self.master.finish(turn.state.client, (iterations, turn.state.rate), &totals)?;
                self.turn = None;
                Ok(vec![Message::Ended { turn: position.turn }])
            }
            Part::Sums(_) | Part::Products(_) => Err(PrivateError::State("no tensor of the client's")),
        }
    }

    /// An update that was sent twice is taken once: the second time it is only counted.
    fn update_again(
        &mut self,
        position: Position,
        index: u32,
        chunk: EncChunk,
    ) -> Result<Vec<Message>, PrivateError> {
        let count = self.plan.update_layout().ciphertexts(self.key.public_key().size())?;
        let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
        let expected = Position { turn: turn.state.grant.turn, ..position };
        let again = turn.again.get_or_insert_with(|| Arrival::new(expected, count));
        if again.push(position, index, chunk)?.is_none() {
            return Ok(vec![]);
        }
        turn.again = None;
        Ok(vec![Message::Updated { turn: position.turn, iteration: position.iteration }])
    }
}

/// What comes after the errors of segment `before` (or the sums of the last): those of another, or the steps.
fn after_backward(plan: &TrainPlan, position: Position, before: usize) -> Result<Arrival, PrivateError> {
    let next = plan.backward().find(|&index| index < before);
    let Some((index, segment)) = next.map(|index| (index, &plan.segments()[index])) else {
        let count = plan.update_layout().ciphertexts(plan.description().server_key)?;
        return Ok(Arrival::new(Position { part: Part::Update, ..position }, count));
    };
    let flood = segment.backward_flood.ok_or(PrivateError::State("no errors go back here"))?;
    let count = plan.layout(flood)?.groups() * segment.map.outputs();
    Ok(Arrival::new(Position { part: Part::Errors(index as u32), ..position }, count))
}

/// Prints no weight.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("key", &self.key).finish_non_exhaustive()
    }
}
