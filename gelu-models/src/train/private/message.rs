//! What client and server of private training say to each other.

use std::fmt;

use gelu_tensor::EncChunk;
use gelu_tensor::paillier::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Description, Grant, PrivateError};
use crate::peer::{AbortReason, Conversation, Expected, Part, Place};

/// The version of the training protocol that this crate speaks.
pub(crate) const PRIVATE_VERSION: u16 = 3;

/// Where in a run a tensor belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Which turn, from 0.
    pub turn: u64,
    /// Which iteration of the turn, from 0.
    pub iteration: u32,
    /// Which tensor.
    pub part: Part,
}

impl Position {
    /// The error of a tensor that arrived where one of here is due.
    pub(super) fn instead_of(self, found: Self) -> PrivateError {
        let expected = Expected::Tensor { round: self.iteration, part: self.part };
        PrivateError::Unexpected { expected, found: found.to_string() }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turn, iteration, part } = self;
        write!(f, "{part} in iteration {iteration} of turn {turn}")
    }
}

/// All that client and server say to each other while they train.
#[derive(Clone, Debug)]
pub enum Message {
    /// Client: asks for a turn.
    Join {
        /// The protocol's version.
        version: u16,
        /// Which client.
        client: u32,
        /// Its key.
        key: PublicKey,
    },
    /// Server: grants one.
    Turn {
        /// What is trained, and how.
        description: Box<Description>,
        /// How long the turn is.
        grant: Grant,
        /// Iterations of it that were begun before it was interrupted; 0 for a new one.
        begun: u32,
        /// The server's key.
        key: PublicKey,
    },
    /// Either: the next ciphertexts of a tensor, whose header follows from the plan.
    Tensor {
        /// Where it belongs.
        position: Position,
        /// How many chunks of it came before.
        index: u32,
        /// The ciphertexts.
        ciphertexts: EncChunk,
    },
    /// Server: the turn has ended.
    Ended {
        /// The turn.
        turn: u64,
    },
    /// Either: ends the turn because of an error.
    Abort {
        /// Which kind of error.
        reason: AbortReason,
    },
}

impl Conversation for Message {
    fn abort(reason: AbortReason) -> Self {
        Self::Abort { reason }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Tensor { position, index, ciphertexts } => {
                Some(Place::of_chunk((position.iteration, position.part, *index), ciphertexts))
            }
            _ => None,
        }
    }
}

/// Prints the kind, and where it belongs.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { position, index, .. } => write!(f, "chunk {index} of the {position}"),
            Self::Join { .. } => f.write_str("Join"),
            Self::Turn { .. } => f.write_str("Turn"),
            Self::Ended { .. } => f.write_str("Ended"),
            Self::Abort { .. } => f.write_str("Abort"),
        }
    }
}
