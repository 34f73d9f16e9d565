//! What the errors of all conversations have in common: what was expected, who is to blame, what the other side is told.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Part;

/// An error of one side of a conversation.
pub trait PeerError: std::error::Error + Send + Sync + 'static {
    /// Returns who is to blame.
    fn blame(&self) -> Blame;

    /// Returns what the other side is told: enough to know who is to blame, nothing about our values; `None` where it
    /// knows already.
    fn reason(&self) -> Option<AbortReason>;
}

/// Who has to change something before an attempt can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Whoever made the call: its arguments or its order.
    Caller,
    /// The other side.
    Peer,
    /// What was read from a file, such as a kept state.
    File,
    /// This library.
    Bug,
}

/// What a state allows, where something else was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expected {
    /// A client's request for a session.
    Hello,
    /// A client's request for a turn.
    Join,
    /// The server's answer to a hello.
    Accept,
    /// The server's grant of a turn.
    Grant,
    /// The next chunk of a segment's inputs, of this session.
    Inputs,
    /// A chunk of this tensor, of this session or turn.
    Tensor {
        /// Which batch of a session or iteration of a turn, from 0.
        round: u32,
        /// Which tensor.
        part: Part,
    },
    /// The next masks of a preparation, of this session.
    Masks,
    /// The choices for the next circuits of a preparation.
    Choices,
    /// The tables of the next circuits of a preparation.
    Tables,
    /// The shares of the next segment of a query that was prepared and not used.
    Shares,
    /// The labels, or shares of sums, that follow from the shares that were sent.
    Labels,
    /// No more sums than follow from the inputs that were sent.
    SumsOfInputs,
    /// Ciphertexts.
    Ciphertexts,
    /// The end of the turn.
    Ended,
    /// Nothing, until this side has sent something.
    Nothing,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "a client's hello",
            Self::Join => "a client that joins",
            Self::Accept => "the server's acceptance",
            Self::Grant => "the grant of a turn",
            Self::Inputs => "the next chunk of a segment's inputs in this session",
            Self::Tensor { round, part } => {
                return write!(f, "the next chunk of the {part} of round {round}");
            }
            Self::Masks => "the next masks of a preparation in this session",
            Self::Choices => "the choices for the next circuits of a preparation",
            Self::Tables => "the tables of the next circuits of a preparation",
            Self::Shares => "the shares of the next segment of a query that was prepared and not used",
            Self::Labels => "what follows from the shares sent",
            Self::SumsOfInputs => "no more sums than follow from the inputs sent",
            Self::Ciphertexts => "ciphertexts",
            Self::Ended => "the end of the turn",
            Self::Nothing => "no message before the next of this side",
        })
    }
}

/// A call that the state of a peer does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The server has not accepted yet.
    #[error("the server has not accepted the session yet: wait for `Event::Ready`")]
    NotAccepted,
    /// As many batches are in flight as may be.
    #[error("too many batches are in flight: wait for `Event::Done`")]
    BatchesInFlight,
    /// A batch, or a turn, has not ended.
    #[error("a session ends between batches: wait for `Event::Done`")]
    WithinBatch,
    /// A turn is in progress.
    #[error("a turn is in progress: wait for `Event::Ended`, or abandon it")]
    TurnInProgress,
    /// The client is not where it waits for its caller.
    #[error("`proceed` is for after `Event::Ready`")]
    NotReady,
}

/// Why a peer ended a conversation.
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
    /// There is no plan for the key or the batch, or no turn to be had.
    Refused,
    /// The client has had as much as it may ask for.
    Spent {
        /// Inputs that it has had.
        used: u64,
        /// Inputs that it may have in all.
        allowed: u64,
    },
    /// The client has had as much as it may ask for in an hour.
    TooFast {
        /// Inputs that it may have in an hour.
        allowed: u64,
        /// Seconds until its hour ends.
        seconds: u64,
    },
    /// A computation of the other side's own failed.
    Failed,
    /// The conversation had ended.
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
            Self::Refused => "it has no plan or turn for this client",
            Self::Spent { used, allowed } => {
                return write!(
                    f,
                    "of the {allowed} inputs that it grants this client, {used} are used, and the rest is less than a batch"
                );
            }
            Self::TooFast { allowed, seconds } => {
                return write!(
                    f,
                    "it grants this client {allowed} inputs an hour, and what is left of them is less than a batch for another \
                     {seconds} s"
                );
            }
            Self::Failed => "it could not go on by itself",
            Self::Closed => "its session had ended",
        })
    }
}
