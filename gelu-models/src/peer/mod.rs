//! The shape that all sides of all conversations have: state machines without I/O, clock or randomness of their own.

mod error;
pub(crate) mod exchange;

use std::fmt;

use gelu_tensor::paillier::PublicKey;
use gelu_tensor::{EncChunk, Operations};
use rand::CryptoRng;
use serde::{Deserialize, Serialize};

pub use error::{AbortReason, Blame, Expected, Misuse, PeerError};

/// One side of a conversation. It takes what comes ([`handle`](Self::handle)) and is asked for what it has to say
/// ([`next_message`](Self::next_message)), one message and a bounded unit of computation at a time; carrying messages is
/// the caller's part.
///
/// Every message consumes the state it starts from: whatever goes wrong leaves a closed conversation.
pub trait Peer {
    /// What both sides say to each other.
    type Message: Conversation;
    /// What a message can lead to that the caller wants to know.
    type Event;
    /// Why the conversation ends before its end.
    type Error: PeerError;

    /// Takes a message from the other side.
    ///
    /// # Errors
    /// When the state does not allow it, or a computation fails. The conversation is closed then.
    fn handle(
        &mut self,
        message: Self::Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Self::Event>, Self::Error>;

    /// Makes the next message to the other side; `None` until that says more, or the caller wants something.
    ///
    /// # Errors
    /// When a computation fails, or the conversation is closed. It is closed then.
    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Self::Message>, Self::Error>;

    /// Returns whether the next message takes computing: where many conversations share a machine, each waits for its turn
    /// then. What is sent already made, or not at all, needs none.
    fn has_work(&self) -> bool {
        true
    }

    /// Uses time in which there is nothing to take and nothing to say for something that will be needed. It changes no
    /// result.
    fn idle(&mut self, rng: &mut dyn CryptoRng) -> Idle;

    /// Ends the conversation: what must happen when a message could not even be decoded.
    fn close(&mut self);

    /// Returns whether the conversation is over.
    fn is_closed(&self) -> bool;

    /// Returns the operations mod n^2 on the other side's ciphertexts so far.
    fn operations(&self) -> Counted {
        Counted::default()
    }
}

/// Operations mod n^2 on ciphertexts of the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Those that plans count: products, sums, repacking, re-randomization.
    pub computing: Operations,
    /// Those of decoding ciphertexts and checking them and the key.
    pub checking: Operations,
}

impl Counted {
    /// Those on ciphertexts under a key so far.
    pub(crate) fn under(key: Option<&PublicKey>) -> Self {
        key.map_or(Self::default(), |key| Self {
            computing: key.operations(),
            checking: key.check_operations(),
        })
    }
}

impl std::ops::Sub for Counted {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { computing: self.computing - earlier.computing, checking: self.checking - earlier.checking }
    }
}

/// What came of idle time.
pub enum Idle {
    /// There was nothing to do.
    Nothing,
    /// Something was made; there may be more.
    Worked,
    /// Work that another thread can do. It returns the operations that it took.
    Background(Box<dyn FnOnce() -> Operations + Send>),
}

/// What drivers and accounts need to know of a message.
pub trait Conversation: fmt::Display + Send {
    /// Returns the message that ends a conversation because of an error.
    fn abort(reason: AbortReason) -> Self;

    /// Returns which chunk of which tensor, or which block of circuits, the message carries, if it carries one.
    fn place(&self) -> Option<Place>;
}

/// A chunk of a tensor, or a block of circuits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which batch or preparation of a session or iteration of a turn, or which query (its lowest 32 bits), from 0.
    pub round: u32,
    /// Which tensor.
    pub part: Part,
    /// How many chunks of it came before.
    pub index: u32,
    /// Ciphertexts of the chunk.
    pub ciphertexts: usize,
}

impl Place {
    /// The place of a chunk.
    pub(crate) fn of_chunk((round, part, index): (u32, Part, u32), chunk: &EncChunk) -> Self {
        Self { round, part, index, ciphertexts: chunk.ciphertext_count() }
    }
}

impl<P: Peer> Peer for &mut P {
    type Message = P::Message;
    type Event = P::Event;
    type Error = P::Error;

    fn handle(
        &mut self,
        message: Self::Message,
        rng: &mut dyn CryptoRng,
    ) -> Result<Option<Self::Event>, Self::Error> {
        (**self).handle(message, rng)
    }

    fn next_message(&mut self, rng: &mut dyn CryptoRng) -> Result<Option<Self::Message>, Self::Error> {
        (**self).next_message(rng)
    }

    fn has_work(&self) -> bool {
        (**self).has_work()
    }

    fn idle(&mut self, rng: &mut dyn CryptoRng) -> Idle {
        (**self).idle(rng)
    }

    fn close(&mut self) {
        (**self).close();
    }

    fn is_closed(&self) -> bool {
        (**self).is_closed()
    }

    fn operations(&self) -> Counted {
        (**self).operations()
    }
}

/// Which tensor of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Part {
    /// Client: what goes into a term of a segment.
    Inputs {
        /// Which segment of the plan, from 0.
        segment: u32,
        /// Which of its terms, from 0.
        term: u32,
    },
    /// Server: the sums of a segment.
    Sums {
        /// Which segment of the plan, from 0.
        segment: u32,
    },
    /// Client, training: the errors of a segment's sums, for one of its terms.
    Errors {
        /// Which segment of the plan, from 0.
        segment: u32,
        /// Which of its terms, from 0.
        term: u32,
    },
    /// Server, training: their products with the weights of that term.
    Products {
        /// Which segment of the plan, from 0.
        segment: u32,
        /// Which of its terms, from 0.
        term: u32,
    },
    /// Client, hidden mode, ahead: its part of the transfers of labels for a segment's circuits.
    Choices {
        /// Which segment of the plan, from 0.
        segment: u32,
    },
    /// Server, hidden mode, ahead: a segment's garbled circuits.
    Tables {
        /// Which segment of the plan, from 0.
        segment: u32,
    },
    /// Client, hidden mode: a segment's inputs less the masks.
    Shares {
        /// Which segment of the plan, from 0.
        segment: u32,
    },
    /// Server, hidden mode: the labels of its shares of a segment's sums, or at the end the shares.
    Labels {
        /// Which segment of the plan, from 0.
        segment: u32,
    },
    /// Client, training: what the steps of the turn so far change of a segment's sums, the learning rate apart.
    SumCorrections {
        /// Which segment of the plan, from 0.
        segment: u32,
    },
    /// Client, training: what the steps of the turn so far change of the products of errors with the weights of a term, the
    /// learning rate apart.
    ProductCorrections {
        /// Which segment of the plan, from 0.
        segment: u32,
        /// Which of its terms, from 0.
        term: u32,
    },
    /// Client, training: the sum of all steps of the turn, under the server's key.
    Total,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inputs { segment, term: 0 } => write!(f, "inputs of segment {segment}"),
            Self::Inputs { segment, term } => write!(f, "inputs of term {term} of segment {segment}"),
            Self::Sums { segment } => write!(f, "sums of segment {segment}"),
            Self::Errors { segment, term: 0 } => write!(f, "errors of segment {segment}"),
            Self::Errors { segment, term } => write!(f, "errors of segment {segment} for term {term}"),
            Self::Products { segment, term: 0 } => write!(f, "products of segment {segment}"),
            Self::Products { segment, term } => write!(f, "products of term {term} of segment {segment}"),
            Self::Choices { segment } => write!(f, "choices for segment {segment}"),
            Self::Tables { segment } => write!(f, "tables of segment {segment}"),
            Self::Shares { segment } => write!(f, "shares for segment {segment}"),
            Self::Labels { segment } => write!(f, "labels for segment {segment}"),
            Self::SumCorrections { segment } => write!(f, "corrections of the sums of segment {segment}"),
            Self::ProductCorrections { segment, term: 0 } => {
                write!(f, "corrections of the products of segment {segment}")
            }
            Self::ProductCorrections { segment, term } => {
                write!(f, "corrections of the products of term {term} of segment {segment}")
            }
            Self::Total => f.write_str("sum of steps"),
        }
    }
}
