//! What client and server of private inference say to each other.

use std::fmt;

use gelu_tensor::EncChunk;
use gelu_tensor::paillier::PublicKey;
use serde::{Deserialize, Serialize};

use crate::peer::{AbortReason, Conversation, Part, Place};
use crate::plan::{Description, Preference};

/// The version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 4;

/// The most batches of one session that may be in flight at a time: while the server works on one, the client encrypts
/// the next.
pub(crate) const MAX_IN_FLIGHT: usize = 2;

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
    /// Which tensor: inputs or sums of a segment.
    pub part: Part,
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
        /// What the plan is to save where there is a choice.
        prefer: Preference,
    },
    /// Server: grants it and says how to go on.
    Accept {
        /// The session's name.
        session: SessionId,
        /// What the plan follows from.
        description: Box<Description>,
    },
    /// Either: the next ciphertexts of a tensor, whose header follows from the plan.
    Tensor {
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

impl Message {
    /// Returns where in the session it belongs, if it is of a tensor.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Tensor { position, .. } => Some(*position),
            _ => None,
        }
    }
}

impl Conversation for Message {
    fn abort(reason: AbortReason) -> Self {
        Self::Abort { reason }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Tensor { position, index, ciphertexts } => {
                Some(Place::of_chunk((position.round, position.part, *index), ciphertexts))
            }
            _ => None,
        }
    }
}

/// Prints the kind, and where it belongs.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { position: Position { round, part, .. }, index, .. } => {
                write!(f, "chunk {index} of the {part} of batch {round}")
            }
            Self::Hello { .. } => f.write_str("Hello"),
            Self::Accept { .. } => f.write_str("Accept"),
            Self::Finish { .. } => f.write_str("Finish"),
            Self::Abort { .. } => f.write_str("Abort"),
        }
    }
}
