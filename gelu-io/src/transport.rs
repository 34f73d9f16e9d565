//! How encoded messages travel. So far within one process; both ends hold bytes only.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

/// One end of a pipe between two threads that carries encoded messages.
///
/// Sending never waits, so that two ends that both have much to send cannot block each other. What may lie in the pipe
/// is bounded by the protocol: the tensors of [`BATCHES_UNDER_WAY`](gelu_models::infer::BATCHES_UNDER_WAY) batches.
#[derive(Debug)]
pub struct InProcess {
    outgoing: Sender<Vec<u8>>,
    incoming: Receiver<Vec<u8>>,
}

/// The other end is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct Disconnected;

impl InProcess {
    /// Both ends of a new pipe.
    pub fn pair() -> (Self, Self) {
        let (to_second, from_first) = channel();
        let (to_first, from_second) = channel();
        (
            Self { outgoing: to_second, incoming: from_second },
            Self { outgoing: to_first, incoming: from_first },
        )
    }

    /// Sends one encoded message.
    ///
    /// # Errors
    /// [`Disconnected`] when the other end is gone.
    pub fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        self.outgoing.send(message).map_err(|_| Disconnected)
    }

    /// Waits for one encoded message.
    ///
    /// # Errors
    /// [`Disconnected`] when the other end is gone and nothing is left.
    pub fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        self.incoming.recv().map_err(|_| Disconnected)
    }

    /// One encoded message, if one has come.
    ///
    /// # Errors
    /// [`Disconnected`] when the other end is gone and nothing is left.
    pub fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        match self.incoming.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Disconnected),
        }
    }
}
