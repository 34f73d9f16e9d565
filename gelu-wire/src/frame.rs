use std::fmt;

use gelu_tensor::EncChunk;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::WireError;

const MAGIC: [u8; 4] = *b"GELU";
pub(crate) const VERSION: u8 = 1;
const PREFIX: usize = 18;

/// The most bytes that are taken from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of a header. Default: 1 MiB.
    pub(crate) header: usize,
    /// Bytes of a payload. Default: those of a chunk of ciphertexts, [`EncChunk::BYTES`].
    pub(crate) payload: usize,
}

/// The most bytes of a message about circuits: a block of them, with some room.
pub(crate) const CIRCUIT_BYTES: usize = 1 << 23;

/// The most bytes of a message that this crate decodes: the header and the payload of a frame at their limits. What carries
/// messages can refuse more before it is there.
pub const MESSAGE_BYTES: usize =
    PREFIX + HEADER_BYTES + if cfg!(feature = "hidden") { CIRCUIT_BYTES } else { EncChunk::BYTES };

const HEADER_BYTES: usize = 1 << 20;

impl Default for Limits {
    fn default() -> Self {
        Self { header: HEADER_BYTES, payload: EncChunk::BYTES }
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A client's request for a session.
    Hello = 1,
    /// A server's consent.
    Accept = 2,
    /// The end of a session.
    Finish = 5,
    /// The end of a session by an error.
    Abort = 6,
    /// A client's request for a turn of training.
    Join = 8,
    /// A server's grant of one.
    Turn = 9,
    /// Ciphertexts of a tensor.
    Tensor = 10,
    /// The end of a turn.
    Ended = 12,
    /// Inference that hides the model: a client's request for a session.
    HiddenHello = 20,
    /// A server's consent to it.
    HiddenAccept = 21,
    /// A client's part of transfers of labels.
    Choices = 22,
    /// Garbled circuits.
    Tables = 23,
    /// Shares of a segment's inputs.
    Shares = 24,
    /// Labels of a server's shares.
    Labels = 25,
    /// A server's shares of the last sums.
    Sums = 26,
    /// A public key.
    PublicKey = 16,
    /// A secret key.
    SecretKey = 17,
}

impl Kind {
    const ALL: [Self; 17] = [
        Self::Hello,
        Self::Accept,
        Self::Finish,
        Self::Abort,
        Self::Join,
        Self::Turn,
        Self::Tensor,
        Self::Ended,
        Self::HiddenHello,
        Self::HiddenAccept,
        Self::Choices,
        Self::Tables,
        Self::Shares,
        Self::Labels,
        Self::Sums,
        Self::PublicKey,
        Self::SecretKey,
    ];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "a Hello message",
            Self::Accept => "an Accept message",
            Self::Finish => "a Finish message",
            Self::Abort => "an Abort message",
            Self::Join => "a Join message",
            Self::Turn => "a Turn message",
            Self::Tensor => "a Tensor message",
            Self::Ended => "an Ended message",
            Self::HiddenHello => "a Hello message of the hidden mode",
            Self::HiddenAccept => "an Accept message of the hidden mode",
            Self::Choices => "a Choices message",
            Self::Tables => "a Tables message",
            Self::Shares => "a Shares message",
            Self::Labels => "a Labels message",
            Self::Sums => "a Sums message",
            Self::PublicKey => "a public key",
            Self::SecretKey => "a secret key",
        })
    }
}

/// One frame, its header still encoded.
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    header: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(crate) fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, WireError> {
        let truncated = WireError::Length { expected: PREFIX, found: bytes.len() };
        let Some((magic, rest)) = bytes.split_first_chunk::<4>() else { return Err(truncated) };
        if *magic != MAGIC {
            return Err(WireError::Magic { found: magic.to_vec() });
        }
        let Some((&[version, kind], rest)) = rest.split_first_chunk::<2>() else { return Err(truncated) };
        if version != VERSION {
            return Err(WireError::Version { found: version });
        }
        let kind =
            Kind::ALL.into_iter().find(|&known| known as u8 == kind).ok_or_else(|| WireError::Kind {
                expected: "a kind of frame that is known".into(),
                found: format!("kind {kind}"),
            })?;
        let Some((header, rest)) = rest.split_first_chunk::<4>() else { return Err(truncated) };
        let Some((payload, rest)) = rest.split_first_chunk::<8>() else { return Err(truncated) };
        let header = within("header", u64::from(u32::from_le_bytes(*header)), limits.header)?;
        let payload = within("payload", u64::from_le_bytes(*payload), limits.payload)?;
        if rest.len() != header + payload {
            return Err(WireError::Length { expected: PREFIX + header + payload, found: bytes.len() });
        }
        let (header, payload) = rest.split_at(header);
        Ok(Self { kind, header, payload })
    }

    pub(crate) fn header<T: DeserializeOwned>(&self) -> Result<T, WireError> {
        serde_json::from_slice(self.header)
            .map_err(|error| WireError::Header { kind: self.kind, problem: error.to_string() })
    }

    /// Refuses a payload where none belongs.
    pub(crate) fn no_payload(&self) -> Result<(), WireError> {
        match self.payload.len() {
            0 => Ok(()),
            found => Err(WireError::Length { expected: 0, found }),
        }
    }
}

fn within(what: &'static str, found: u64, limit: usize) -> Result<usize, WireError> {
    usize::try_from(found).ok().filter(|&length| length <= limit).ok_or(WireError::TooLarge {
        what,
        limit,
        found,
    })
}

/// Builds a frame.
pub(crate) fn build(kind: Kind, header: &impl Serialize, payload: &[u8]) -> Result<Vec<u8>, WireError> {
    let header =
        serde_json::to_vec(header).map_err(|error| WireError::Header { kind, problem: error.to_string() })?;
    let length = u32::try_from(header.len())
        .map_err(|error| WireError::Header { kind, problem: error.to_string() })?;
    let mut bytes = Vec::with_capacity(PREFIX + header.len() + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[VERSION, kind as u8]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(payload);
    Ok(bytes)
}
