//! The server's side of private training: the only place where the weights are. They stay as they are for a turn.

mod turn;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use gelu_tensor::Decryption;
use gelu_tensor::paillier::{PublicKey, SecretKey};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use super::coordinator::{Coordinator, CoordinatorState, MOST_RATE};
use super::ledger::LayerLeakage;
use super::plan::Multiplication;
use super::{CoordinatorConfig, Grant, Message, PrivateError, ResumeFault, TrainPlan};
use crate::peer::exchange::Incoming;
use crate::peer::{Counted, Idle, Peer};

/// The server's side of private training.
pub struct Server {
    plan: Arc<TrainPlan>,
    key: Arc<SecretKey>,
    coordinator: Coordinator,
    turn: Option<ServerTurn>,
    /// A turn that was interrupted, for the client that comes back.
    interrupted: Option<TurnState>,
    /// What is sent before anything else is computed.
    outgoing: VecDeque<Message>,
}

struct ServerTurn {
    client: PublicKey,
    state: TurnState,
    stage: Stage,
    /// Whether nothing has come since an interrupted turn goes on: the client may have done an iteration more than the server
    /// knows.
    is_resumed: bool,
    /// For each exchange.
    multiplications: Vec<Multiplication>,
}

/// How far an iteration is.
enum Stage {
    /// Between two iterations.
    Between,
    /// The tensors of an exchange, as they arrive.
    Exchange { index: usize, inputs: Incoming },
    /// The sum of all steps of the turn.
    Total(Decryption),
}

impl Stage {
    /// An exchange of an iteration, or what comes after the last.
    fn exchange(plan: &TrainPlan, index: usize, iteration: u32) -> Self {
        match plan.exchanges().get(index) {
            Some(exchange) => Self::Exchange { index, inputs: Incoming::new(exchange.ups(iteration).len()) },
            None => Self::Between,
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
    /// Iterations that have been answered to their end.
    done: u32,
    /// Iterations that were begun once more after an interruption.
    #[serde(default)]
    again: u32,
}

impl TurnState {
    /// Iterations that the client may have seen, the one in progress included.
    fn seen(&self) -> u32 {
        self.done.saturating_add(1).min(self.grant.iterations).saturating_add(self.again)
    }
}

/// What a message led to: the server's state has changed, and is to be kept, if it is kept, before the server goes on and
/// tells the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A turn was granted, or one that was interrupted goes on.
    Granted,
    /// The client has begun another iteration.
    Iterated,
    /// The turn has ended, and the weights are others.
    Ended,
}

/// What of a server is kept between iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerState {
    coordinator: CoordinatorState,
    turn: Option<TurnState>,
}

#[cfg(test)]
impl ServerState {
    /// The client whose turn was in progress, if one was.
    pub(crate) fn client(&self) -> Option<u32> {
        self.turn.as_ref().map(|turn| turn.client)
    }
}

impl Server {
    /// Returns a server that trains these parameters ([`TrainPlan::quantize`]).
    ///
    /// # Errors
    /// [`PrivateError`] when a setting is out of its range, or the leakage policy allows no iteration.
    pub fn new(
        plan: Arc<TrainPlan>,
        key: Arc<SecretKey>,
        config: CoordinatorConfig,
        parameters: Vec<i64>,
    ) -> Result<Self, PrivateError> {
        let coordinator = Coordinator::new(plan.clone(), config, parameters)?;
        Self::assemble(plan, key, coordinator, None)
    }

    /// Returns the server of a run that was interrupted; it may have another key.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`PrivateError::Resume`] when the state is not of this run.
    pub fn resume(
        plan: Arc<TrainPlan>,
        key: Arc<SecretKey>,
        config: CoordinatorConfig,
        state: ServerState,
    ) -> Result<Self, PrivateError> {
        let ServerState { coordinator, turn } = state;
        if turn.as_ref().is_some_and(|turn| turn.grant.turn != coordinator.turns) {
            return Err(PrivateError::Resume(ResumeFault::Turn));
        }
        let coordinator = Coordinator::resume(plan.clone(), config, coordinator)?;
        let left = coordinator.iterations() - coordinator.state().iterations;
        if turn.as_ref().is_some_and(|turn| {
            !turn.grant.is_of(&plan)
                || turn.done > turn.grant.iterations
                || u64::from(turn.grant.iterations) > left
                || !(1..=MOST_RATE).contains(&turn.rate)
        }) {
            return Err(PrivateError::Resume(ResumeFault::Counters));
        }
        Self::assemble(plan, key, coordinator, turn)
    }

    fn assemble(
        plan: Arc<TrainPlan>,
        key: Arc<SecretKey>,
        coordinator: Coordinator,
        interrupted: Option<TurnState>,
    ) -> Result<Self, PrivateError> {
        let (expected, found) = (plan.description().server_key, key.public_key().size());
        if expected != found {
            return Err(PrivateError::KeySize { expected, found });
        }
        Ok(Self { plan, key, coordinator, turn: None, interrupted, outgoing: VecDeque::new() })
    }

    /// Returns what [`resume`](Self::resume) needs: the run as it was between the last two iterations. To be kept at every
    /// [`Change`] where nothing may be lost.
    pub fn state(&self) -> ServerState {
        ServerState { coordinator: self.coordinator.state().clone(), turn: self.turn_state().cloned() }
    }

    /// The turn that is in progress, or was interrupted.
    fn turn_state(&self) -> Option<&TurnState> {
        self.turn.as_ref().map(|turn| &turn.state).or(self.interrupted.as_ref())
    }

    /// Returns whose turn is in progress or was interrupted.
    pub fn client(&self) -> Option<u32> {
        self.turn_state().map(|turn| turn.client)
    }

    /// Returns the parameters at the beginning of the turn that is in progress, or after the last one, and what clients
    /// have seen.
    pub fn coordinator(&self) -> &CoordinatorState {
        self.coordinator.state()
    }

    /// Returns the number of iterations done so far, those of a turn that is in progress included.
    pub fn iterations_done(&self) -> u64 {
        self.coordinator.state().iterations + self.turn_state().map_or(0, |turn| u64::from(turn.done))
    }

    /// Returns what an iteration shows of each layer.
    pub fn leakage(&self) -> &[LayerLeakage] {
        self.coordinator.leakage()
    }

    /// Returns what is trained, and how.
    pub fn plan(&self) -> &TrainPlan {
        &self.plan
    }

    /// Returns the number of iterations of the whole run.
    pub fn iterations(&self) -> u64 {
        self.coordinator.iterations()
    }

    /// Returns whether all iterations have been done.
    pub fn is_complete(&self) -> bool {
        self.coordinator.state().iterations >= self.iterations()
    }

    /// Returns the client's key, in a turn: what its ciphertexts are decoded with.
    pub fn client_key(&self) -> Option<&PublicKey> {
        self.turn.as_ref().map(|turn| &turn.client)
    }

    /// Returns the server's own key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Takes note that the client may have seen the iteration that was in progress when the turn was interrupted: for who
    /// keeps the state at every [`Change`], and resumes from it. A strict leakage policy lets a turn go on only where it
    /// allows the iterations that are seen once more.
    pub fn count_again(&mut self) {
        if let Some(turn) = &mut self.interrupted {
            turn.again = turn.again.saturating_add(1);
        }
    }

    /// Gives up the turn that is in progress, because its client has vanished: the weights are those with which it began,
    /// and only the ledger remembers what the client has seen.
    pub fn abandon(&mut self) {
        self.outgoing.clear();
        let turn = self.turn.take().map(|turn| turn.state).or(self.interrupted.take());
        if let Some(turn) = turn {
            // The iteration that was in progress may have been seen as well.
            self.coordinator.note(turn.client, turn.seen());
        }
    }
}

impl Peer for Server {
    type Message = Message;
    type Event = Change;
    type Error = PrivateError;

    /// Takes a message. An error ends the turn as if the client had vanished.
    fn handle(&mut self, message: Message, _: &mut dyn CryptoRng) -> Result<Option<Change>, PrivateError> {
        self.take(message).inspect_err(|_| self.close())
    }

    /// Whether the tensors of an exchange have come, or a part of them, whose answer is not computed yet.
    fn has_work(&self) -> bool {
        let stage = self.turn.as_ref().map(|turn| &turn.stage);
        self.outgoing.is_empty() && matches!(stage, Some(Stage::Exchange { inputs, .. }) if inputs.has_part())
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

    /// Gives up the turn that is in progress, if there is one.
    fn close(&mut self) {
        self.outgoing.clear();
        if self.turn.is_some() {
            self.abandon();
        }
    }

    /// Whether no turn is in progress, and all has been said about the last.
    fn is_closed(&self) -> bool {
        self.turn.is_none() && self.outgoing.is_empty()
    }

    fn operations(&self) -> Counted {
        Counted::under(self.client_key())
    }
}

/// Prints no weight.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("key", &self.key).finish_non_exhaustive()
    }
}
