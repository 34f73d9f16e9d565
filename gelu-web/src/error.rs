//! What can go wrong, and under which code JavaScript learns of it.

use gelu_models::infer::SessionError;
use gelu_models::peer::AbortReason;
use gelu_wire::{SequenceError, WireError};

/// Why something cannot be done, or a session is over.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A message broke the protocol, or a computation failed.
    #[error("{}", causes(.0))]
    Session(#[from] SessionError),
    /// A message that is none.
    #[error("a message could not be decoded: {}", causes(.0))]
    Wire(#[from] WireError),
    /// Frames that do not follow each other.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// A frame that is none, or not the one that is due.
    #[error("expected {expected}, found {found}")]
    Frame {
        /// What is due.
        expected: &'static str,
        /// What came.
        found: String,
    },
    /// A key that cannot be made or read.
    #[error("{0}")]
    Key(String),
    /// An input that is not what the model takes, or not due.
    #[error("{0}")]
    Input(String),
    /// The session is over.
    #[error("the session is over; connect again")]
    Over,
}

/// What kind of error it is, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The server does not do what it is asked for.
    Refused,
    /// The conversation is over before its end.
    Disconnected,
    /// The server's plan does not hold together, or is not for this client.
    Plan,
    /// The input is not what the model takes, or not due.
    Input,
    /// A key, or its passphrase.
    Key,
    /// The other side broke the protocol, or sent what cannot be decrypted.
    Protocol,
}

impl Code {
    /// Returns its name in JavaScript.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Disconnected => "disconnected",
            Self::Plan => "plan",
            Self::Input => "input",
            Self::Key => "key",
            Self::Protocol => "protocol",
        }
    }
}

impl Error {
    /// Returns what kind of error it is.
    pub fn code(&self) -> Code {
        match self {
            Self::Session(error) => match error {
                SessionError::Plan(_) => Code::Plan,
                SessionError::Images(_) | SessionError::Misuse(_) | SessionError::Memory { .. } => {
                    Code::Input
                }
                SessionError::Prepared { .. } => Code::Input,
                SessionError::Closed => Code::Disconnected,
                SessionError::Aborted(reason) => match reason {
                    AbortReason::Refused | AbortReason::Spent { .. } | AbortReason::TooFast { .. } => {
                        Code::Refused
                    }
                    AbortReason::BadPlan => Code::Plan,
                    AbortReason::Closed => Code::Disconnected,
                    _ => Code::Protocol,
                },
                _ => Code::Protocol,
            },
            Self::Wire(_) | Self::Sequence(_) | Self::Frame { .. } => Code::Protocol,
            Self::Key(_) => Code::Key,
            Self::Input(_) => Code::Input,
            Self::Over => Code::Disconnected,
        }
    }
}

/// An error and what lies below it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}
