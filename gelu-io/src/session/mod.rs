//! Runs one side of a conversation over a transport: the same driver for inference and training, clients and servers.

mod account;
#[cfg(feature = "hidden")]
mod background;
#[cfg(feature = "hidden")]
mod hidden;
mod inference;
mod training;
mod turns;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use gelu_models::infer::SessionError;
use gelu_models::peer::{AbortReason, Conversation, Counted, Idle, Peer, PeerError, Place};
use rand::CryptoRng;

pub use account::{Account, Phase, Role, Seen, StepRecord};
#[cfg(feature = "hidden")]
pub use background::BackgroundSession;
#[cfg(feature = "hidden")]
pub use hidden::HiddenSession;
pub use inference::{ClientSession, serve, serve_in_turns};
pub use training::{Checkpoint, Go, PartTotals, TrainingAccount, run_turn, serve_turn, take_turn};
pub use turns::Turns;

use crate::transport::{Disconnected, Transport};
use gelu_wire::{WireError, WirePeer};

/// Why a conversation ended before its end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<E: std::error::Error = SessionError> {
    /// A message broke the protocol, or a computation failed.
    #[error(transparent)]
    Peer(E),
    /// A message could not be decoded.
    #[error("a message could not be decoded")]
    Wire(#[source] WireError),
    /// The other side is gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
    /// The two sides wait for each other.
    #[error("protocol stalled: both sides are waiting for a message")]
    Stalled,
}

impl<E: std::error::Error> From<WireError> for RunError<E> {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// What one unit of a peer's work was, and what it took.
#[derive(Clone, Debug)]
pub struct Work {
    /// What was done.
    pub kind: WorkKind,
    /// The chunk of a tensor that was taken or made.
    pub place: Option<Place>,
    /// Bytes of the message that was taken or made.
    pub bytes: usize,
    /// Seconds that it took: decoding, computing and encoding, without waiting.
    pub seconds: f64,
    /// Operations on the other side's ciphertexts.
    pub operations: Counted,
}

/// The kinds of [`Work`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// A message was taken.
    Took,
    /// A message was made.
    Made,
    /// Idle time was used.
    Idle,
    /// Another thread used it.
    Background,
}

/// Sees every unit of a peer's work: an account of a session, or a progress display.
pub trait Observer<P> {
    /// Takes note of a unit of work, with the peer as it is after it.
    fn did(&mut self, peer: &P, work: &Work);
}

/// Sees nothing.
impl<P> Observer<P> for () {
    fn did(&mut self, _: &P, _: &Work) {}
}

impl<P, O: Observer<P>> Observer<P> for &mut O {
    fn did(&mut self, peer: &P, work: &Work) {
        (**self).did(peer, work);
    }
}

/// What came of asking a peer to go on.
#[derive(Debug)]
pub enum Progress<E> {
    /// Something that the caller wants to know.
    Event(E),
    /// A unit of work was done.
    Worked,
    /// There is nothing to do before the other side says more.
    Waiting,
}

/// One side of a conversation: a peer, its end of a transport, and whoever looks on.
#[derive(Debug)]
pub struct Session<T, P, O> {
    transport: T,
    peer: P,
    observer: O,
    background: (Sender<Work>, Receiver<Work>),
    turns: Option<Arc<Turns>>,
}

impl<T: Transport, P: WirePeer, O: Observer<P>> Session<T, P, O> {
    /// Returns a session that has said and heard nothing yet.
    pub fn new(transport: T, peer: P, observer: O) -> Self {
        Self { transport, peer, observer, background: channel(), turns: None }
    }

    /// Returns the session with its computing done in turns with others.
    pub(crate) fn in_turns(self, turns: Arc<Turns>) -> Self {
        Self { turns: Some(turns), ..self }
    }

    /// Returns the peer.
    pub fn peer(&self) -> &P {
        &self.peer
    }

    /// Returns the observer.
    pub(crate) fn observer(&self) -> &O {
        &self.observer
    }

    /// Ends the session, after waiting for background work, and returns its parts.
    pub fn into_parts(self) -> (P, O) {
        let Self { peer, mut observer, background: (sender, receiver), .. } = self;
        drop(sender);
        receiver.iter().for_each(|work| observer.did(&peer, &work));
        (peer, observer)
    }

    /// Takes a message that has arrived, or makes one, or uses the time for something that will be needed. Never waits.
    /// What has arrived is taken first, so that the other side need not wait for being heard.
    ///
    /// # Errors
    /// [`RunError`]; the peer is closed then, and the other side told.
    pub fn poll(&mut self, rng: &mut dyn CryptoRng) -> Result<Progress<P::Event>, RunError<P::Error>> {
        let polled = self.poll_inner(rng);
        self.guard(polled)
    }

    /// Does one unit of work, as [`poll`](Self::poll) does, and waits for a message where there is none to do.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn work(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<P::Event>, RunError<P::Error>> {
        match self.poll(rng)? {
            Progress::Event(event) => Ok(Some(event)),
            Progress::Worked => Ok(None),
            Progress::Waiting => {
                let received = self.transport.receive().map_err(RunError::from);
                let bytes = self.guard(received)?;
                let taken = self.take(&bytes, rng);
                self.guard(taken)
            }
        }
    }

    /// Goes on until there is an event, or the peer has closed (`None`). Waits where there is nothing to do.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn step(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<P::Event>, RunError<P::Error>> {
        while !self.peer.is_closed() {
            if let Some(event) = self.work(rng)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Does what a caller wants of the peer, and notes the time that it takes for `place`.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub fn ask<R>(
        &mut self,
        place: Option<Place>,
        want: impl FnOnce(&mut P) -> Result<R, P::Error>,
    ) -> Result<R, RunError<P::Error>> {
        let start = Instant::now();
        let wanted = want(&mut self.peer).map_err(RunError::Peer);
        let work = Work {
            kind: WorkKind::Took,
            place,
            bytes: 0,
            seconds: start.elapsed().as_secs_f64(),
            operations: Counted::default(),
        };
        self.observer.did(&self.peer, &work);
        self.guard(wanted)
    }

    fn poll_inner(&mut self, rng: &mut dyn CryptoRng) -> Result<Progress<P::Event>, RunError<P::Error>> {
        if let Some(bytes) = self.transport.try_receive()? {
            return Ok(self.take(&bytes, rng)?.map_or(Progress::Worked, Progress::Event));
        }
        let turn = self.turns.as_ref().filter(|_| self.peer.has_work()).map(|turns| turns.take());
        let (start, before) = (Instant::now(), self.peer.operations());
        let made = self.peer.next_message(rng).map_err(RunError::Peer)?;
        drop(turn);
        if let Some(message) = made {
            let bytes = P::encode(&message)?;
            self.note(WorkKind::Made, (message.place(), bytes.len()), (start, before));
            self.transport.send(bytes)?;
            return Ok(Progress::Worked);
        }
        let (start, before) = (Instant::now(), self.peer.operations());
        match self.peer.idle(rng) {
            Idle::Nothing => Ok(Progress::Waiting),
            Idle::Worked => {
                self.note(WorkKind::Idle, (None, 0), (start, before));
                Ok(Progress::Worked)
            }
            Idle::Background(work) => {
                let sender = self.background.0.clone();
                rayon::spawn(move || {
                    let start = Instant::now();
                    let computing = work();
                    // The session may be over already.
                    let _ = sender.send(Work {
                        kind: WorkKind::Background,
                        place: None,
                        bytes: 0,
                        seconds: start.elapsed().as_secs_f64(),
                        operations: Counted { computing, ..Counted::default() },
                    });
                });
                Ok(Progress::Worked)
            }
        }
    }

    fn take(
        &mut self,
        bytes: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<P::Event>, RunError<P::Error>> {
        let (start, before) = (Instant::now(), self.peer.operations());
        let message = self.peer.decode(bytes)?;
        let place = message.place();
        let event = self.peer.handle(message, rng).map_err(RunError::Peer)?;
        self.note(WorkKind::Took, (place, bytes.len()), (start, before));
        Ok(event)
    }

    fn note(
        &mut self,
        kind: WorkKind,
        (place, bytes): (Option<Place>, usize),
        (start, before): (Instant, Counted),
    ) {
        let seconds = start.elapsed().as_secs_f64();
        let after = self.peer.operations();
        // A peer that has another key now, or none any more, has counted from zero.
        let total = |counted: Counted| (counted.computing + counted.checking).total();
        let operations = match total(after) < total(before) {
            true => Counted::default(),
            false => after - before,
        };
        self.observer.did(&self.peer, &Work { kind, place, bytes, seconds, operations });
    }

    /// Closes the peer and tells the other side when something goes wrong.
    fn guard<R>(&mut self, result: Result<R, RunError<P::Error>>) -> Result<R, RunError<P::Error>> {
        result.inspect_err(|error| {
            self.peer.close();
            if let Some(reason) = reason::<P>(error)
                && let Ok(bytes) = P::encode(&P::Message::abort(reason))
            {
                // The receiver may already be gone.
                let _ = self.transport.send(bytes);
            }
        })
    }
}

/// What the peer is told; `None` where it knows, or is gone.
fn reason<P: Peer>(error: &RunError<P::Error>) -> Option<AbortReason> {
    match error {
        RunError::Peer(error) => error.reason(),
        RunError::Wire(error) => Some(error.reason()),
        RunError::Disconnected(_) | RunError::Stalled => None,
    }
}
