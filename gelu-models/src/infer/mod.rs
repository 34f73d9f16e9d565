//! Private inference (the forward part of Algorithm 1 of the IJCAI 2018 paper): a client and a server as state
//! machines without I/O, clock or randomness of their own.
//!
//! ```text
//! client                                          server
//! Hello {key, batch, preference}        ->
//!                                       <-        Accept {session, description}
//! Tensor {round 0, inputs of segment 0} ->
//! ... chunk by chunk                    <-        Tensor {round 0, sums of segment 0} ...
//! Finish                                ->
//! ```
//!
//! Either side takes what comes (`handle`) and says what it has to say (`next_message`), one message and a bounded unit
//! of computation at a time, so that one computes what the other has not asked for yet: the client encrypts a chunk
//! while the server checks the one before, and a batch while the server works on another. At most two batches are in flight;
//! the chunks of a tensor follow each other without anything between, and the server answers in the order in which tensors
//! came.
//!
//! Every message consumes the state it starts from, so that one that comes twice, early or late ends the session.

mod client;
mod gate;
#[cfg(feature = "hidden")]
pub mod hidden;
mod message;
mod server;
mod server_model;
#[cfg(test)]
mod tests;
mod workers;

pub use client::{Client, Event};
pub use gate::{Denied, Gate};
pub(crate) use message::MAX_IN_FLIGHT;
pub use message::{Message, PROTOCOL_VERSION, Position, SessionId};
pub use server::Server;
pub use server_model::ServerModel;
pub use workers::Workers;

use gelu_tensor::Operations;
use gelu_tensor::paillier::PublicKey;

use crate::peer::{AbortReason, Blame, Expected, Idle, Misuse, PeerError};
use crate::plan::{Description, Layout, Plan, PlanError, Preference};

/// Why a session ended before its end. The session is closed then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer sent another message than the protocol allows now: one that is replayed, early, late or out of order.
    #[error("unexpected message: expected {expected}, received {found}")]
    Unexpected {
        /// What the state allows.
        expected: Expected,
        /// What arrived.
        found: String,
    },
    /// The caller asked for something that the state does not allow.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// The peer speaks another version of the protocol.
    #[error("protocol version: expected {expected}, received {found}; use the same release on both sides")]
    Version {
        /// Ours.
        expected: u16,
        /// The peer's.
        found: u16,
    },
    /// The images of a batch are not what the session is for.
    #[error("images of a batch")]
    Images(#[source] gelu_tensor::Error),
    /// The peer sent a plan that does not hold together.
    #[error("the server's plan does not hold together")]
    Plan(#[source] PlanError),
    /// The server has no plan for what the client asks.
    #[error("there is no plan for this client")]
    Refused(#[source] PlanError),
    /// The client may not have this batch.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A computation failed.
    #[error("segment {segment}")]
    Numbers {
        /// The segment.
        segment: u32,
        /// What failed.
        source: gelu_tensor::Error,
    },
    /// What garbling or its transfers take is not what the plan says.
    #[cfg(feature = "hidden")]
    #[error("circuits of segment {segment}")]
    Garbling {
        /// The segment.
        segment: u32,
        /// What failed.
        source: gelu_garble::Error,
    },
    /// The client asks for logits of a model that reveals classes only.
    #[cfg(feature = "hidden")]
    #[error("the server reveals the class of an input, and not the logits; ask for the class")]
    NotRevealed,
    /// More queries would be prepared than a server keeps.
    #[cfg(feature = "hidden")]
    #[error(
        "{found} queries would be prepared, and a server keeps at most {expected}; ask for fewer at a time, or use some"
    )]
    Prepared {
        /// The most.
        expected: usize,
        /// How many there would be.
        found: usize,
    },
    /// A prepared query takes more memory than the client may use for them.
    #[cfg(feature = "hidden")]
    #[error("a prepared query takes {needed} bytes of memory here, and {allowed} are allowed; allow more")]
    Memory {
        /// Bytes of a query.
        needed: usize,
        /// Bytes that are allowed.
        allowed: usize,
    },
    /// The peer ended the session.
    #[error("the peer ended the session: {0}")]
    Aborted(AbortReason),
    /// The session had ended already.
    #[error("the session has ended; open a new one")]
    Closed,
}

/// The tables of a client's key that the replies of these layouts will take, which another thread can make while the client
/// encrypts.
fn tables_of_replies<'a>(key: &PublicKey, layouts: impl Iterator<Item = &'a Layout>) -> Idle {
    let replies: Vec<_> = layouts.flat_map(|layout| &layout.parts).map(|part| part.hiding).collect();
    let key = key.clone();
    Idle::Background(Box::new(move || {
        let made = replies.iter().map(|&reply| key.prepare_rerandomization(reply));
        made.fold(Operations::default(), |sum, made| sum + made)
    }))
}

/// The plan of what a server has accepted, if it is what its client asked for.
fn accepted_plan(
    description: Description,
    (key, batch, prefer): (&PublicKey, u32, Preference),
) -> Result<Plan, PlanError> {
    let (expected, found) = (batch as usize, description.batch);
    if expected != found {
        return Err(PlanError::Batch { expected, found });
    }
    let (expected, found) = (prefer, description.prefer);
    if expected != found {
        return Err(PlanError::Preference { expected, found });
    }
    Plan::new(description, key.parameters())
}

#[cfg(feature = "hidden")]
impl SessionError {
    /// What becomes of an error of garbling in a segment.
    fn garbling(segment: u32) -> impl Fn(gelu_garble::Error) -> Self {
        move |source| Self::Garbling { segment, source }
    }
}

impl PeerError for SessionError {
    fn blame(&self) -> Blame {
        match self {
            Self::Misuse(_) | Self::Images(_) | Self::Closed => Blame::Caller,
            #[cfg(feature = "hidden")]
            Self::Memory { .. } => Blame::Caller,
            Self::Denied(Denied::Unknown { .. }) => Blame::File,
            _ => Blame::Peer,
        }
    }

    fn reason(&self) -> Option<AbortReason> {
        Some(match self {
            Self::Unexpected { .. } => AbortReason::UnexpectedMessage,
            Self::Version { .. } => AbortReason::Version,
            Self::Numbers { .. } => AbortReason::BadTensor,
            #[cfg(feature = "hidden")]
            Self::Garbling { .. } => AbortReason::BadTensor,
            #[cfg(feature = "hidden")]
            Self::Prepared { .. } | Self::Memory { .. } | Self::NotRevealed => AbortReason::Refused,
            Self::Plan(_) => AbortReason::BadPlan,
            Self::Refused(_) => AbortReason::Refused,
            Self::Denied(Denied::Spent { used, allowed }) => {
                AbortReason::Spent { used: *used, allowed: *allowed }
            }
            Self::Denied(Denied::TooFast { allowed, seconds }) => {
                AbortReason::TooFast { allowed: *allowed, seconds: *seconds }
            }
            Self::Misuse(_) | Self::Images(_) | Self::Denied(Denied::Unknown { .. }) => AbortReason::Failed,
            Self::Closed => AbortReason::Closed,
            Self::Aborted(_) => return None,
        })
    }
}
