use std::fmt;

use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{EncChunk, EncTensorHeader};
use serde::{Deserialize, Serialize};

use crate::plan::Plan;

/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 2;

/// The most batches of one session that may be under way at a time: while the server works on one, the client encrypts
/// the next.
pub const BATCHES_UNDER_WAY: usize = 2;

/// A random name that the server gives a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub [u8; 16]);

/// Where in a session a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The session.
    pub session: SessionId,
    /// Which batch of the session, from 0.
    pub round: u32,
    /// Which segment of the plan, from 0.
    pub step: u32,
}

/// All that client and server say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// Client: asks for a session.
    Hello {
        /// The protocol's version.
        version: u16,
        /// The key that everything will be encrypted under.
        key: PublicKey,
        /// Images in a batch.
        batch: u32,
    },
    /// Server: grants it and says how to go on.
    Accept {
        /// The session's name.
        session: SessionId,
        /// How the model is run.
        plan: Box<Plan>,
    },
    /// Client: the encrypted input of a segment; its chunks follow.
    Activations {
        /// Where it belongs.
        position: Position,
        /// What is public of it.
        header: EncTensorHeader,
    },
    /// Server: the encrypted weighted sums of a segment; their chunks follow.
    Sums {
        /// Where they belong.
        position: Position,
        /// What is public of them.
        header: EncTensorHeader,
    },
    /// Either: the next ciphertexts of the tensor that was begun.
    Chunk {
        /// Where the tensor belongs.
        position: Position,
        /// How many chunks of it came before.
        index: u32,
        /// The ciphertexts.
        ciphertexts: EncChunk,
    },
    /// Client: ends the session.
    Finish {
        /// The session's name.
        session: SessionId,
    },
    /// Either: ends the session because of an error.
    Abort {
        /// Which kind of error.
        reason: AbortReason,
    },
}

/// The kinds of [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// [`Message::Hello`].
    Hello,
    /// [`Message::Accept`].
    Accept,
    /// [`Message::Activations`].
    Activations,
    /// [`Message::Sums`].
    Sums,
    /// [`Message::Chunk`].
    Chunk,
    /// [`Message::Finish`].
    Finish,
    /// [`Message::Abort`].
    Abort,
}

impl Message {
    /// Its kind.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Hello { .. } => MessageKind::Hello,
            Self::Accept { .. } => MessageKind::Accept,
            Self::Activations { .. } => MessageKind::Activations,
            Self::Sums { .. } => MessageKind::Sums,
            Self::Chunk { .. } => MessageKind::Chunk,
            Self::Finish { .. } => MessageKind::Finish,
            Self::Abort { .. } => MessageKind::Abort,
        }
    }

    /// Where in the session it belongs, if it is of a tensor.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Activations { position, .. }
            | Self::Sums { position, .. }
            | Self::Chunk { position, .. } => Some(*position),
            Self::Hello { .. } | Self::Accept { .. } | Self::Finish { .. } | Self::Abort { .. } => None,
        }
    }

    /// How many ciphertexts it carries.
    pub fn ciphertext_count(&self) -> usize {
        match self {
            Self::Chunk { ciphertexts, .. } => ciphertexts.ciphertext_count(),
            _ => 0,
        }
    }
}

/// Prints the kind, and where it belongs.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind())?;
        if let Self::Chunk { index, .. } = self {
            write!(f, " {index}")?;
        }
        match self.position() {
            Some(Position { round, step, .. }) => write!(f, " of batch {round}, step {step}"),
            None => Ok(()),
        }
    }
}

/// Why a peer ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AbortReason {
    /// A message came that the state does not allow.
    UnexpectedMessage,
    /// A message could not be decoded.
    Malformed,
    /// The protocol's versions differ.
    Version,
    /// A tensor was not what the plan says, or its ciphertexts were none.
    BadTensor,
    /// The plan did not hold together.
    BadPlan,
    /// There is no plan for the key or the batch.
    Refused,
    /// The session had ended.
    Closed,
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnexpectedMessage => "it received a message that it did not expect",
            Self::Malformed => "it received a message that it could not decode",
            Self::Version => "it speaks another version of the protocol",
            Self::BadTensor => "it received a tensor that is not what the plan says",
            Self::BadPlan => "it received a plan that does not hold together",
            Self::Refused => "it has no plan for this key or batch",
            Self::Closed => "its session had ended",
        })
    }
}
