//! A client's side of private training: the only place where its data, activations, gradients and masks are.

mod turn;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use gelu_tensor::paillier::{PublicKey, SecretKey};
use gelu_tensor::{Decryption, EncRate};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::participant::{Need, Participant};
use super::{
    Description, Message, PRIVATE_VERSION, ParticipantConfig, ParticipantState, Position, PrivateError,
    ResumeFault, Samples, Statistics, TrainPlan,
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
    /// What has to be added to the server's masked parameters, mod 2^l.
    masks: Zeroizing<Vec<u64>>,
    turn: Option<ClientTurn>,
    /// What the run is resumed from if the iteration that is in progress comes to nothing.
    before: Option<Kept>,
    /// What holds instead if the server had taken the steps that were being sent when the run was interrupted.
    next: Option<Kept>,
}

/// A participant and the masks, between two iterations.
type Kept = (ParticipantState, Zeroizing<Vec<u64>>);

struct ClientTurn {
    number: u64,
    iteration: u32,
    rate: EncRate,
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
    /// That the caller has the steps masked.
    Stepped(Need),
    /// The caller, who may keep the state before these go out.
    Masked(Vec<Planned>, Receipt),
    /// An answer of the server to what was sent: sums or products.
    Awaiting(Box<Awaited>),
    /// The server's word that it took what was sent last.
    Sent(Receipt),
}

/// What the server takes at the end of an iteration.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Receipt {
    /// The steps of the iteration.
    Steps,
    /// The sum of all steps of the turn.
    Total,
}

struct Awaited {
    part: Part,
    /// What has come of it.
    answer: Option<Decryption>,
    /// What it is an answer to.
    sent: Vec<Zeroizing<Vec<i64>>>,
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
    /// An iteration may begin: keep the state if need be, then [`Client::proceed`].
    Ready,
    /// The steps of an iteration are known: [`Client::mask`] them, keep the state if need be, then [`Client::proceed`].
    Stepped,
    /// The turn has ended.
    Ended,
}

/// What of a client is kept. It holds the masks, so it is a secret.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientState {
    /// Its arithmetic.
    pub participant: ParticipantState,
    /// Its masks mod 2^l.
    pub masks: Zeroizing<Vec<u64>>,
    /// The same once the server has taken the steps that are about to be sent, which the client cannot know before it hears
    /// of it; `None` between two iterations.
    #[serde(default)]
    pub next: Option<Box<ClientState>>,
}

impl ClientState {
    fn of((participant, masks): Kept) -> Self {
        Self { participant, masks, next: None }
    }
}

impl Client {
    /// Returns a client that trains on `samples`.
    pub fn new(key: Arc<SecretKey>, samples: Arc<dyn Samples>, config: ParticipantConfig) -> Self {
        Self { key, samples, config, member: None, state: State::Idle, outgoing: VecDeque::new() }
    }

    /// Returns a client of a run that was interrupted; it may have another key. It goes on where the server is: before the
    /// iteration that was in progress, or after it.
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
        let member = client.member(description)?;
        let check = |masks: &[u64]| {
            let checked = member.plan.check_parameters(masks);
            checked.map_err(|_| PrivateError::Resume(ResumeFault::Masks))
        };
        check(&state.masks)?;
        if let Some(next) = state.next {
            check(&next.masks)?;
            // The participant says whether the state can be its own.
            member.participant.restore(next.participant.clone())?;
            member.next = Some((next.participant, next.masks));
        }
        member.participant.restore(state.participant)?;
        member.masks = state.masks;
        Ok(client)
    }

    /// Returns what [`resume`](Self::resume) needs; `None` before the first turn. At any time it stands for the point between
    /// two iterations that was passed last. From [`mask`](Self::mask) on until the server has answered, it stands for the next
    /// such point as well, so who keeps it before [`proceed`](Self::proceed) loses nothing whichever side fails.
    pub fn state(&self) -> Option<ClientState> {
        let Member { participant, masks, before, next, .. } = self.member.as_ref()?;
        let now = || (participant.state().clone(), masks.clone());
        let receipt = match &self.state {
            State::Idle | State::Granting | State::Ready => {
                let next = next.clone().map(|next| Box::new(ClientState::of(next)));
                return Some(ClientState { next, ..ClientState::of(now()) });
            }
            State::Stepped(_) | State::Awaiting(_) => None,
            State::Masked(_, receipt) | State::Sent(receipt) => Some(*receipt),
        };
        let mut state = ClientState::of(before.clone().unwrap_or_else(now));
        state.next = receipt.map(|receipt| {
            let mut next = ClientState::of(now());
            if receipt == Receipt::Total {
                next.participant.turn = None;
            }
            Box::new(next)
        });
        Some(state)
    }

    /// Returns what is trained, and how; `None` before the first turn.
    pub fn description(&self) -> Option<&Description> {
        Some(self.member.as_ref()?.plan.description())
    }

    /// Returns what the client has met while training.
    pub fn statistics(&self) -> Statistics {
        self.member.as_ref().map_or(Statistics::default(), |member| member.participant.state().statistics)
    }

    /// Returns the masks that have to be added to the server's parameters, for tests and for the paper's assertion that
    /// both sides' parameters meet; empty before the first turn.
    pub fn masks(&self) -> &[u64] {
        self.member.as_ref().map_or(&[], |member| &member.masks)
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
            member.masks.iter_mut().for_each(|mask| *mask = 0);
            (member.turn, member.before, member.next) = (None, None, None);
        }
    }

    /// Masks the steps of an iteration (Algorithm 3), after [`Event::Stepped`]. The sum of all steps needs no mask.
    ///
    /// # Errors
    /// [`Misuse::NotReady`] when it is not time.
    pub fn mask(&mut self, rng: &mut dyn CryptoRng) -> Result<(), PrivateError> {
        if !matches!(self.state, State::Stepped(_)) {
            return Err(Misuse::NotReady.into());
        }
        let State::Stepped(need) = std::mem::replace(&mut self.state, State::Idle) else {
            return Err(Misuse::NotReady.into());
        };
        let masked = self.mask_steps(need, rng);
        masked.inspect_err(|_| self.abandon())
    }

    /// Begins the next iteration, after [`Event::Ready`]; or sends the steps of this one, once they are masked.
    ///
    /// # Errors
    /// [`Misuse::NotReady`] when it is not time.
    pub fn proceed(&mut self) -> Result<(), PrivateError> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Ready => {
                let member = self.member_mut()?;
                member.before = Some((member.participant.state().clone(), member.masks.clone()));
                let need = member.participant.next_batch()?;
                self.ask(need)?;
                Ok(())
            }
            State::Masked(planned, receipt) => {
                self.outgoing.extend(planned);
                self.state = State::Sent(receipt);
                Ok(())
            }
            state => {
                self.state = state;
                Err(Misuse::NotReady.into())
            }
        }
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
