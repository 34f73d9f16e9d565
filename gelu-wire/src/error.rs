use gelu_models::peer::AbortReason;

use crate::frame::{Kind, VERSION};

/// Bytes that are no message, tensor or key of gelu-net.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end before the lengths that they declare, or go on after them.
    #[error("length: expected {expected} bytes, found {found}")]
    Length {
        /// The declared length.
        expected: usize,
        /// The bytes there are.
        found: usize,
    },
    /// A declared length is above the limit.
    #[error("{what}: expected at most {limit} bytes, found {found}")]
    TooLarge {
        /// Header or payload.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The declared length.
        found: u64,
    },
    /// The bytes are of something else altogether.
    #[error("expected bytes that begin with \"GELU\", found {found:02x?}")]
    Magic {
        /// The first bytes.
        found: Vec<u8>,
    },
    /// Another version of the format.
    #[error("format version: expected {VERSION}, found {found}; use the same release on both sides")]
    Version {
        /// The version.
        found: u8,
    },
    /// A frame of another kind than is needed.
    #[error("expected {expected}, found {found}")]
    Kind {
        /// What is needed.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A header that does not describe what it should.
    #[error("header of {kind}: {problem}")]
    Header {
        /// The frame's kind.
        kind: Kind,
        /// What is wrong with it.
        problem: String,
    },
    /// Ciphertexts before a key has been agreed on.
    #[error("ciphertexts arrived before a key was agreed on")]
    NoKey,
    /// Ciphertexts under another key.
    #[error("expected ciphertexts under key {expected}, found some under key {found}")]
    ForeignKey {
        /// The fingerprint of the session's key.
        expected: String,
        /// That of the ciphertexts.
        found: String,
    },
    /// A key or a tensor that breaks a rule.
    #[error(transparent)]
    Content(#[from] gelu_tensor::Error),
}

impl WireError {
    /// Returns what the other side is told when its message could not be decoded.
    pub fn reason(&self) -> AbortReason {
        match self {
            Self::Content(_) | Self::ForeignKey { .. } => AbortReason::BadTensor,
            _ => AbortReason::Malformed,
        }
    }
}
