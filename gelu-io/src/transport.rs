//! How encoded messages travel. So far within one process; both ends hold bytes only.

use std::ops::Deref;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

/// One end of a connection that carries encoded messages, in order, both ways.
pub trait Transport {
    /// Sends one encoded message.
    ///
    /// # Errors
    /// [`Disconnected`] when the other end is gone.
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected>;

    /// Waits for one encoded message.
    ///
    /// # Errors
    /// [`Disconnected`] when the other end is gone and nothing is left.
    fn receive(&self) -> Result<Vec<u8>, Disconnected>;

    /// Returns one encoded message, if one has arrived.
    ///
    /// # Errors
    /// [`Disconnected`] when the other end is gone and nothing is left.
    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected>;
}

/// What leads to a transport is one.
impl<P: Deref<Target: Transport>> Transport for P {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        (**self).send(message)
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        (**self).receive()
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        (**self).try_receive()
    }
}

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Disconnected;

/// One end of a pipe between two threads.
///
/// Sending never waits, so that two ends that both have much to send cannot block each other. What may lie in the pipe
/// is bounded by the protocol: the tensors of the batches that may be in flight.
#[derive(Debug)]
pub struct InProcess {
    outgoing: Sender<Vec<u8>>,
    incoming: Receiver<Vec<u8>>,
}

impl InProcess {
    /// Returns both ends of a new pipe.
    pub fn pair() -> (Self, Self) {
        let (to_second, from_first) = channel();
        let (to_first, from_second) = channel();
        (
            Self { outgoing: to_second, incoming: from_second },
            Self { outgoing: to_first, incoming: from_first },
        )
    }
}

impl Transport for InProcess {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        self.outgoing.send(message).map_err(|_| Disconnected)
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        self.incoming.recv().map_err(|_| Disconnected)
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        match self.incoming.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Disconnected),
        }
    }
}
