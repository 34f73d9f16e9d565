//! What client and server say to each other when the model is hidden.

use std::fmt;

use gelu_garble::POINT_BYTES;
use gelu_tensor::EncChunk;
use gelu_tensor::paillier::PublicKey;
use serde::{Deserialize, Serialize};

use super::super::{Position, SessionId};
use crate::peer::{AbortReason, Conversation, Part, Place};
use crate::plan::{Description, Preference, Reveal};

/// Circuits of a query that are garbled together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Which query of the session, from 0.
    pub query: u64,
    /// Which segment of the plan, from 0.
    pub segment: u32,
    /// How many blocks of it come before.
    pub block: u32,
}

/// All that client and server say to each other when the model is hidden.
#[derive(Clone, Debug)]
pub enum Message {
    /// Client: asks for a session.
    Hello {
        /// The protocol's version.
        version: u16,
        /// The key that masks will be encrypted under.
        key: PublicKey,
        /// Queries that are prepared together, if memory has room for them.
        queries: u32,
        /// Bytes of memory that the client keeps prepared queries in.
        memory: u64,
        /// What the client is to learn at the end.
        reveal: Reveal,
        /// What the plan is to save where there is a choice.
        prefer: Preference,
        /// The beginning of the oblivious transfers.
        opening: [u8; POINT_BYTES],
    },
    /// Server: grants it and says how to go on.
    Accept {
        /// The session's name.
        session: SessionId,
        /// What the plan follows from.
        description: Box<Description>,
        /// The answer to the opening.
        transfers: Vec<u8>,
    },
    /// Either, ahead: the next ciphertexts of masks, or of their sums. Rounds are preparations.
    Tensor {
        /// Where the tensor belongs.
        position: Position,
        /// How many chunks of it came before.
        index: u32,
        /// The ciphertexts.
        ciphertexts: EncChunk,
    },
    /// Client, ahead: its part of the transfers of the labels of its shares.
    Choices {
        /// Which circuits.
        block: Block,
        /// As [`LabelReceiver::extend`](gelu_garble::LabelReceiver::extend) gives them.
        choices: Vec<u8>,
    },
    /// Server, ahead: garbled circuits.
    Tables {
        /// Which circuits.
        block: Block,
        /// As [`Garbler::finish`](gelu_garble::Garbler::finish) gives them.
        tables: Vec<u8>,
    },
    /// Client: its inputs of a segment less its masks, of all terms one after another, mod 2^l.
    Shares {
        /// Which query.
        query: u64,
        /// Which segment.
        segment: u32,
        /// The numbers, packed.
        shares: Vec<u8>,
    },
    /// Server: the labels of its shares of a segment's sums.
    Labels {
        /// Which circuits.
        block: Block,
        /// The labels.
        labels: Vec<u8>,
    },
    /// Server: its shares of the last sums, if the client is to have them.
    Sums {
        /// Which query.
        query: u64,
        /// Which segment: the last.
        segment: u32,
        /// The numbers, packed.
        shares: Vec<u8>,
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

impl Conversation for Message {
    fn abort(reason: AbortReason) -> Self {
        Self::Abort { reason }
    }

    fn place(&self) -> Option<Place> {
        match self {
            Self::Tensor { position, index, ciphertexts } => {
                Some(Place::of_chunk((position.round, position.part, *index), ciphertexts))
            }
            Self::Choices { block, .. } => Some(block.place(Part::Choices { segment: block.segment })),
            Self::Tables { block, .. } => Some(block.place(Part::Tables { segment: block.segment })),
            Self::Labels { block, .. } => Some(block.place(Part::Labels { segment: block.segment })),
            Self::Shares { query, segment, .. } => {
                let block = Block { query: *query, segment: *segment, block: 0 };
                Some(block.place(Part::Shares { segment: *segment }))
            }
            Self::Sums { query, segment, .. } => {
                let block = Block { query: *query, segment: *segment, block: 0 };
                Some(block.place(Part::Labels { segment: *segment }))
            }
            Self::Hello { .. } | Self::Accept { .. } | Self::Finish { .. } | Self::Abort { .. } => None,
        }
    }
}

impl Block {
    fn place(self, part: Part) -> Place {
        Place { round: self.query as u32, part, index: self.block, ciphertexts: 0 }
    }
}

/// Prints the kind, and where it belongs.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { position: Position { round, part, .. }, index, .. } => {
                write!(f, "chunk {index} of the {part} of preparation {round}")
            }
            Self::Choices { block, .. } => write!(f, "choices for {block}"),
            Self::Tables { block, .. } => write!(f, "tables of {block}"),
            Self::Labels { block, .. } => write!(f, "labels for {block}"),
            Self::Shares { query, segment, .. } => {
                write!(f, "shares for segment {segment} of query {query}")
            }
            Self::Sums { query, .. } => write!(f, "shares of the last sums of query {query}"),
            Self::Hello { .. } => f.write_str("Hello"),
            Self::Accept { .. } => f.write_str("Accept"),
            Self::Finish { .. } => f.write_str("Finish"),
            Self::Abort { .. } => f.write_str("Abort"),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { query, segment, block } = self;
        write!(f, "block {block} of segment {segment} of query {query}")
    }
}
