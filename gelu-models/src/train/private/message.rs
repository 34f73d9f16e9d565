use std::fmt;

use gelu_tensor::EncChunk;
use gelu_tensor::paillier::PublicKey;
use serde::{Deserialize, Serialize};

use super::{Description, Grant};

/// The version of the training protocol that this crate speaks.
pub const PRIVATE_VERSION: u16 = 1;

/// Which tensor of an iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// Client: what goes into a segment.
    Inputs(u32),
    /// Server: its flooded sums.
    Sums(u32),
    /// Client: the errors of a segment's sums.
    Errors(u32),
    /// Server: their flooded products with the weights.
    Products(u32),
    /// Client: the masked steps, under the server's key.
    Update,
    /// Client: the sum of all steps of the turn, under the server's key.
    Total,
}

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

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turn, iteration, part } = self;
        match part {
            Part::Inputs(segment) => write!(f, "inputs of segment {segment}")?,
            Part::Sums(segment) => write!(f, "sums of segment {segment}")?,
            Part::Errors(segment) => write!(f, "errors of segment {segment}")?,
            Part::Products(segment) => write!(f, "products of segment {segment}")?,
            Part::Update => f.write_str("masked steps")?,
            Part::Total => f.write_str("sum of steps")?,
        }
        write!(f, " in iteration {iteration} of turn {turn}")
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
        /// Iterations of it that were done before it was interrupted.
        done: u32,
        /// The server's key.
        key: PublicKey,
        /// The secret part of the learning rate under it: the paper's encrypted eta.
        rate: EncChunk,
    },
    /// Either: the next ciphertexts of a tensor.
    Tensor {
        /// Where it belongs.
        position: Position,
        /// How many chunks of it came before.
        index: u32,
        /// The ciphertexts.
        ciphertexts: EncChunk,
    },
    /// Server: the masked steps of an iteration have been taken.
    Updated {
        /// The turn.
        turn: u64,
        /// The iteration.
        iteration: u32,
    },
    /// Server: the turn has ended.
    Ended {
        /// The turn.
        turn: u64,
    },
}

/// The kinds of [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// [`Message::Join`].
    Join,
    /// [`Message::Turn`].
    Turn,
    /// [`Message::Tensor`].
    Tensor,
    /// [`Message::Updated`].
    Updated,
    /// [`Message::Ended`].
    Ended,
}

impl Message {
    /// Its kind.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Join { .. } => MessageKind::Join,
            Self::Turn { .. } => MessageKind::Turn,
            Self::Tensor { .. } => MessageKind::Tensor,
            Self::Updated { .. } => MessageKind::Updated,
            Self::Ended { .. } => MessageKind::Ended,
        }
    }

    /// Which tensor it is of, if it is of one.
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::Tensor { position, .. } => Some(position.part),
            _ => None,
        }
    }

    /// The chunks of a tensor as messages.
    pub(super) fn tensor(position: Position, chunks: Vec<EncChunk>) -> Vec<Self> {
        let message = |(index, ciphertexts)| Self::Tensor { position, index, ciphertexts };
        (0..).zip(chunks).map(message).collect()
    }
}

/// A tensor that arrives chunk by chunk.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) position: Position,
    count: usize,
    found: usize,
    chunks: Vec<EncChunk>,
}

impl Arrival {
    /// A tensor of `count` ciphertexts.
    pub(super) fn new(position: Position, count: usize) -> Self {
        Self { position, count, found: 0, chunks: vec![] }
    }

    /// Takes a chunk; all of them, once they are complete.
    pub(super) fn push(
        &mut self,
        position: Position,
        index: u32,
        chunk: EncChunk,
    ) -> Result<Option<Vec<EncChunk>>, super::PrivateError> {
        if position != self.position {
            let expected = self.position.to_string();
            return Err(super::PrivateError::Place { expected, found: position });
        }
        let (expected, next) = (self.chunks.len(), index as usize);
        if next != expected {
            let what = "index of the next chunk";
            return Err(gelu_tensor::Error::Count { what, expected, found: next }.into());
        }
        self.found += chunk.ciphertext_count();
        if self.found > self.count {
            let what = "ciphertexts of a tensor";
            return Err(gelu_tensor::Error::Count { what, expected: self.count, found: self.found }.into());
        }
        self.chunks.push(chunk);
        Ok((self.found == self.count).then(|| std::mem::take(&mut self.chunks)))
    }
}
