//! One side of a conversation that outlives its connections: its numbered messages, and who waits for them. The state machines
//! above see one stream that neither loses nor repeats anything.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gelu_io::transport::{Disconnected, Transport};
use gelu_wire::{Outgoing, Sequence};
use tokio::sync::Notify;

use crate::ServiceError;

/// Bytes of messages that have arrived and wait for being read: then the sender has to wait, too.
const INBOX_BYTES: usize = 4 << 20;

/// One side of a conversation.
#[derive(Debug)]
pub(crate) struct Link {
    state: Mutex<State>,
    /// Something has arrived, or the conversation is over.
    arrived: Condvar,
    /// There may be something to send.
    to_send: Notify,
    /// There may be room in the inbox.
    room: Notify,
    patience: LinkPatience,
}

/// How long a side waits for the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkPatience {
    /// For a message, while there is a connection.
    pub(crate) silence: Duration,
    /// For another connection.
    pub(crate) absence: Duration,
}

#[derive(Debug)]
struct State {
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    sequence: Sequence<Bytes>,
    /// Which connection this is, from 1.
    connection: u64,
    is_connected: bool,
    /// Since when there has been a connection, or none.
    since: Instant,
    heard: Instant,
    /// This side says no more.
    is_finished: bool,
    /// This side listens no more.
    is_deaf: bool,
    /// This side has taken all that has arrived, and waits for more.
    is_waiting: bool,
    end: Option<ServiceError>,
}

impl Link {
    pub(crate) fn new(patience: LinkPatience) -> Self {
        let now = Instant::now();
        Self {
            state: Mutex::new(State {
                inbox: VecDeque::new(),
                inbox_bytes: 0,
                sequence: Sequence::default(),
                connection: 0,
                is_connected: false,
                since: now,
                heard: now,
                is_finished: false,
                is_deaf: false,
                is_waiting: false,
                end: None,
            }),
            arrived: Condvar::new(),
            to_send: Notify::new(),
            room: Notify::new(),
            patience,
        }
    }

    /// A thread that panicked held no half-changed state: each change is whole before the lock is given back.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that have arrived so far.
    pub(crate) fn received(&self) -> u64 {
        self.state().sequence.received()
    }

    /// Takes a new connection in the place of the one before, over which the other side says how many messages it has.
    ///
    /// # Errors
    /// When it cannot have so many, or claims to lack some that it had.
    pub(crate) fn connect(&self, has: u64) -> Result<u64, ServiceError> {
        let mut state = self.state();
        if let Some(end) = &state.end {
            return Err(end.clone());
        }
        state.sequence.resume(has)?;
        state.connection += 1;
        state.is_connected = true;
        state.since = Instant::now();
        state.heard = state.since;
        let connection = state.connection;
        drop(state);
        self.wake();
        Ok(connection)
    }

    /// Takes a new connection of a client that has all that was sent over the one before.
    pub(crate) fn connect_again(&self) -> Result<u64, ServiceError> {
        let has = self.state().sequence.sent();
        self.connect(has)
    }

    /// Notes that a connection is gone, unless another has taken its place.
    pub(crate) fn disconnect(&self, connection: u64) {
        let mut state = self.state();
        if state.connection == connection && state.is_connected {
            state.is_connected = false;
            state.since = Instant::now();
        }
        drop(state);
        self.wake();
    }

    /// Takes a message that arrived over a connection. Waits while too many others have not been read.
    pub(crate) async fn deliver(
        &self,
        connection: u64,
        (number, message): (u64, Bytes),
        has: u64,
    ) -> Result<(), ServiceError> {
        loop {
            // Before the look, lest room be made between that and the wait.
            let room = self.room.notified();
            {
                let mut state = self.state();
                state.check(connection)?;
                if state.inbox_bytes < INBOX_BYTES {
                    state.sequence.arrived(number, has)?;
                    state.heard = Instant::now();
                    state.inbox_bytes += message.len();
                    state.is_waiting = false;
                    state.inbox.push_back(message);
                    let is_receipt_due = state.sequence.is_receipt_due();
                    drop(state);
                    self.arrived.notify_all();
                    if is_receipt_due {
                        self.to_send.notify_waiters();
                    }
                    return Ok(());
                }
            }
            room.await;
        }
    }

    /// Takes the other side's word for how many messages it has.
    pub(crate) fn confirmed(&self, connection: u64, has: u64) -> Result<(), ServiceError> {
        let mut state = self.state();
        state.check(connection)?;
        state.heard = Instant::now();
        Ok(state.sequence.confirmed(has)?)
    }

    /// Waits for something to send over a connection; `None` once everything has been sent, and there will be no more.
    pub(crate) async fn next(&self, connection: u64) -> Result<Option<Outgoing<Bytes>>, ServiceError> {
        loop {
            let to_send = self.to_send.notified();
            {
                let mut state = self.state();
                if state.connection != connection || !state.is_connected {
                    return Err(ServiceError::Ended);
                }
                if let Some(outgoing) = state.sequence.next_message() {
                    return Ok(Some(outgoing));
                }
                if let Some(end) = &state.end {
                    return Err(end.clone());
                }
                if state.is_finished {
                    return Ok(None);
                }
                if let Some(receipt) = state.sequence.next_receipt() {
                    return Ok(Some(receipt));
                }
            }
            to_send.await;
        }
    }

    /// Waits for what this side says to all that has arrived; `None` once it has said everything and waits for more, or will
    /// say no more.
    pub(crate) async fn answer(&self, connection: u64) -> Result<Option<Bytes>, ServiceError> {
        loop {
            let to_send = self.to_send.notified();
            {
                let mut state = self.state();
                if state.connection != connection || !state.is_connected {
                    return Err(ServiceError::Ended);
                }
                if let Some(Outgoing::Message { message, .. }) = state.sequence.next_message() {
                    return Ok(Some(message));
                }
                if let Some(end) = &state.end {
                    return Err(end.clone());
                }
                if state.is_finished || state.is_waiting {
                    return Ok(None);
                }
            }
            to_send.await;
        }
    }

    /// Says that this side will say no more: what was said still goes out.
    pub(crate) fn finish(&self) {
        self.state().is_finished = true;
        self.wake();
    }

    /// Whether this side says no more.
    pub(crate) fn is_finished(&self) -> bool {
        self.state().is_finished
    }

    /// Says that this side will listen no more: who waits for a message is told that the other side is gone.
    pub(crate) fn stop_listening(&self) {
        self.state().is_deaf = true;
        self.wake();
    }

    /// Ends the conversation; the first reason stays.
    pub(crate) fn end(&self, reason: ServiceError) {
        self.state().end.get_or_insert(reason);
        self.wake();
    }

    /// Why the conversation is over, if it is.
    pub(crate) fn why(&self) -> Option<ServiceError> {
        self.state().end.clone()
    }

    /// Waits until this side says no more, or the conversation is over.
    pub(crate) async fn over(&self) {
        loop {
            let changed = self.to_send.notified();
            {
                let state = self.state();
                if state.is_finished || state.end.is_some() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Whether everything that was said has been sent over the connection that there is.
    pub(crate) fn is_flushed(&self) -> bool {
        let state = self.state();
        state.end.is_some() || state.sequence.is_flushed()
    }

    fn wake(&self) {
        self.arrived.notify_all();
        self.to_send.notify_waiters();
        self.room.notify_waiters();
    }

    fn take(&self, state: &mut State) -> Option<Vec<u8>> {
        let message = state.inbox.pop_front()?;
        state.inbox_bytes -= message.len();
        self.room.notify_waiters();
        Some(message.into())
    }
}

impl State {
    fn check(&self, connection: u64) -> Result<(), ServiceError> {
        match &self.end {
            Some(end) => Err(end.clone()),
            None if self.connection != connection => Err(ServiceError::Ended),
            None => Ok(()),
        }
    }

    /// What the wait for a message ends with now, if it ends, or how long it may go on.
    fn wait(&self, patience: LinkPatience) -> Result<Duration, ServiceError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let (from, limit) = match self.is_connected {
            true => (self.heard.max(self.since), patience.silence),
            false => (self.since, patience.absence),
        };
        let left = limit.saturating_sub(from.elapsed());
        if left.is_zero() { Err(ServiceError::Silent { waited: limit }) } else { Ok(left) }
    }
}

impl Transport for Link {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        let mut state = self.state();
        if state.end.is_some() || state.is_finished {
            return Err(Disconnected);
        }
        state.sequence.push(message.into());
        drop(state);
        self.to_send.notify_waiters();
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        let mut state = self.state();
        // The other side's silence counts from when this side began to listen.
        state.heard = Instant::now();
        loop {
            if state.is_deaf {
                return Err(Disconnected);
            }
            if let Some(message) = self.take(&mut state) {
                return Ok(message);
            }
            match state.wait(self.patience) {
                Ok(left) => {
                    state.is_waiting = true;
                    self.to_send.notify_waiters();
                    let waited = self.arrived.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                Err(reason) => {
                    state.end.get_or_insert(reason);
                    drop(state);
                    self.wake();
                    return Err(Disconnected);
                }
            }
        }
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        let mut state = self.state();
        if state.is_deaf {
            return Err(Disconnected);
        }
        match self.take(&mut state) {
            Some(message) => Ok(Some(message)),
            None if state.end.is_some() => Err(Disconnected),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
