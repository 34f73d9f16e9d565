//! A client's side of private training: the only place where its data, activations and gradients are.

mod turn;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use gelu_tensor::Decryption;
use gelu_tensor::paillier::{PublicKey, SecretKey};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

use super::participant::Participant;
use super::{
    Description, Message, PRIVATE_VERSION, ParticipantConfig, ParticipantState, Position, PrivateError,
    Samples, Statistics, TrainPlan,
};
use crate::peer::exchange::Outgoing;
use crate::peer::{Idle, Misuse, Part, Peer};

/// A client's side of private training.
pub struct Client {
    key: Arc<SecretKey>,
    samples: Arc<dyn Samples>,
    config: ParticipantConfig,
    member: Option<Member>,
    state: State,
    /// What is to be sent before anything else, in order.
    outgoing: VecDeque<Planned>,
}

/// What a client has once it knows what is trained.
struct Member {
    plan: Arc<TrainPlan>,
    participant: Participant,
    turn: Option<ClientTurn>,
    /// What the run is resumed from if the iteration that is in progress comes to nothing.
    before: Option<ParticipantState>,
}

struct ClientTurn {
    number: u64,
    server: PublicKey,
}

/// What comes next.
enum State {
    /// Nothing: no turn is in progress.
    Idle,
    /// The server's grant.
    Granting,
    /// The caller, who may keep the state first.
    Ready,
    /// An answer of the server to what was sent: sums or products.
    Awaiting(Box<Awaited>),
    /// The server's word that it took the sum of all steps.
    Ending,
}

struct Awaited {
    part: Part,
    /// What has come of it.
    answer: Option<Decryption>,
}

/// What is to be sent.
enum Planned {
    Message(Box<Message>),
    /// A tensor that is encrypted chunk by chunk, under the own key or the server's.
    Tensor {
        position: Position,
        tensor: Box<Outgoing>,
        own_key: bool,
    },
}

/// What a message led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An iteration may begin, or the turn end: keep the state if need be, then [`Client::proceed`].
    Ready,
    /// The turn has ended.
    Ended,
}

/// What of a client is kept. It holds the sum of its steps and its momentum, so it is a secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientState {
    /// Its arithmetic.
    pub participant: ParticipantState,
}

impl Client {
    /// Returns a client that trains on `samples`.
    pub fn new(key: Arc<SecretKey>, samples: Arc<dyn Samples>, config: ParticipantConfig) -> Self {
        Self { key, samples, config, member: None, state: State::Idle, outgoing: VecDeque::new() }
    }

    /// Returns a client of a run that was interrupted; it may have another key. It goes on with the iteration that was in
    /// progress, or the one after what was kept.
    ///
    /// # Errors
    /// [`PrivateError`] when the state is not of this run.
    pub fn resume(
        key: Arc<SecretKey>,
        samples: Arc<dyn Samples>,
        config: ParticipantConfig,
        description: Description,
        state: ClientState,
    ) -> Result<Self, PrivateError> {
        let mut client = Self::new(key, samples, config);
        client.member(description)?.participant.restore(state.participant)?;
        Ok(client)
    }

    /// Returns what [`resume`](Self::resume) needs; `None` before the first turn. It stands for the point between two
    /// iterations that was passed last, so who keeps it at every [`Event::Ready`], before [`proceed`](Self::proceed), loses
    /// nothing whichever side fails.
    pub fn state(&self) -> Option<ClientState> {
        let Member { participant, before, .. } = self.member.as_ref()?;
        let participant = before.as_ref().unwrap_or(participant.state()).clone();
        Some(ClientState { participant })
    }

    /// Returns what is trained, and how; `None` before the first turn.
    pub fn description(&self) -> Option<&Description> {
        Some(self.member.as_ref()?.plan.description())
    }

    /// Returns what the client has met while training.
    pub fn statistics(&self) -> Statistics {
        self.member.as_ref().map_or(Statistics::default(), |member| member.participant.state().statistics)
    }

    /// Returns the sums of the client's steps in the turn that is in progress.
    pub fn totals(&self) -> Option<&[i64]> {
        let (_, _, totals) = self.member.as_ref()?.participant.state().turn.as_ref()?;
        Some(totals)
    }

    /// Returns the client's key.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Returns the server's key, in a turn.
    pub fn server_key(&self) -> Option<&PublicKey> {
        Some(&self.member.as_ref()?.turn.as_ref()?.server)
    }

    /// Asks for a turn: the next message says so.
    ///
    /// # Errors
    /// [`Misuse::TurnInProgress`] when one is.
    pub fn join(&mut self) -> Result<(), PrivateError> {
        if !matches!(self.state, State::Idle) {
            return Err(Misuse::TurnInProgress.into());
        }
        self.state = State::Granting;
        let (client, key) = (self.config.client, self.key.public_key().clone());
        let join = Message::Join { version: PRIVATE_VERSION, client, key };
        self.outgoing.push_back(Planned::Message(Box::new(join)));
        Ok(())
    }

    /// Gives up the turn that is in progress; nothing of it remains but the place in the data.
    pub fn abandon(&mut self) {
        self.state = State::Idle;
        self.outgoing.clear();
        if let Some(member) = &mut self.member {
            member.participant.end();
            (member.turn, member.before) = (None, None);
        }
    }

    /// Begins the next iteration, or ends the turn after its last, after [`Event::Ready`].
    ///
    /// # Errors
    /// [`Misuse::NotReady`] when it is not time; [`PrivateError::Diverged`] when an input is not a number.
    pub fn proceed(&mut self) -> Result<(), PrivateError> {
        let state = std::mem::replace(&mut self.state, State::Idle);
        if !matches!(state, State::Ready) {
            self.state = state;
            return Err(Misuse::NotReady.into());
        }
        let member = self.member_mut()?;
        member.before = Some(member.participant.state().clone());
        let need = member.participant.proceed()?;
        self.ask(need)?;
        Ok(())
    }
}

impl Peer for Client {
    type Message = Message;
    type Event = Event;
    type Error = PrivateError;

    /// Takes a message, and gives what it led to. An error ends the turn.
    fn handle(&mut self, message: Message, _: &mut dyn CryptoRng) -> Result<Option<Event>, PrivateError> {
        self.take(message).inspect_err(|_| self.abandon())
    }

    /// Encrypts the next chunk; `None` until the server or the caller wants more.
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Message>, PrivateError> {
        self.make(rng).inspect_err(|_| self.abandon())
    }

    fn idle(&mut self, _: &mut dyn CryptoRng) -> Idle {
        Idle::Nothing
    }

    /// Gives up the turn that is in progress.
    fn close(&mut self) {
        self.abandon();
    }

    /// Whether no turn is in progress.
    fn is_closed(&self) -> bool {
        matches!(self.state, State::Idle)
    }
}

/// Prints no secret.
impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.config).field("key", &self.key).finish_non_exhaustive()
    }
}

/// Prints no secret.
impl fmt::Debug for ClientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientState").finish_non_exhaustive()
    }
}
