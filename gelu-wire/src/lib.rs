#![doc = include_str!("../README.md")]
//!
//! # Format
//!
//! ```text
//! offset  bytes  what
//! 0       4      "GELU"
//! 4       1      version of the format, 1
//! 5       1      kind
//! 6       4      length H of the header, little-endian
//! 10      8      length P of the payload, little-endian
//! 18      H      header, JSON
//! 18 + H  P      payload: keys, or ciphertexts of fixed width, little-endian
//! ```
//!
//! The lengths must be those of the bytes exactly, and within limits: 1 MiB for a header, a chunk
//! of ciphertexts ([`EncChunk::BYTES`](gelu_tensor::EncChunk::BYTES)) for a payload, or 8 MiB where circuits are meant. A ciphertext is one number below n^2 in
//! as many bytes as n^2 has, so that there is one encoding of it. Ciphertexts are decoded only with the key at hand
//! under which they must be, and checked against it.

#![forbid(unsafe_code)]

mod error;
mod frame;
#[cfg(feature = "hidden")]
mod hidden;
mod keys;
mod message;
#[cfg(feature = "sealed")]
mod sealed;
mod sequence;
#[cfg(test)]
mod tests;
mod training;

use gelu_models::peer::Peer;
use gelu_tensor::EncChunk;
use gelu_tensor::paillier::PublicKey;

use self::frame::Frame;
pub use error::WireError;
pub use frame::{Kind, MESSAGE_BYTES};
pub use keys::{decode_public_key, decode_secret_key, encode_public_key, encode_secret_key};
pub use message::{decode_message, encode_message};
#[cfg(feature = "sealed")]
pub use sealed::{Seal, SealError};
pub use sequence::{Outgoing, Sequence, SequenceError};

/// A peer whose messages have an encoding.
pub trait WirePeer: Peer {
    /// Returns a message as bytes.
    ///
    /// # Errors
    /// [`WireError::Header`] when its header is longer than 4 GiB.
    fn encode(message: &Self::Message) -> Result<Vec<u8>, WireError>;

    /// Returns the message in `bytes`, whose ciphertexts must be under the keys that the peer knows.
    ///
    /// # Errors
    /// [`WireError`] that says what was expected and found.
    fn decode(&self, bytes: &[u8]) -> Result<Self::Message, WireError>;
}

impl<P: WirePeer> WirePeer for &mut P {
    fn encode(message: &Self::Message) -> Result<Vec<u8>, WireError> {
        P::encode(message)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Self::Message, WireError> {
        (**self).decode(bytes)
    }
}

/// The ciphertexts of a frame, which must be under `key`: its fingerprint is the one that was `found` in the header.
fn chunk_payload(frame: &Frame<'_>, key: Option<&PublicKey>, found: String) -> Result<EncChunk, WireError> {
    let key = key.ok_or(WireError::NoKey)?;
    let expected = key.fingerprint_hex();
    if found != expected {
        return Err(WireError::ForeignKey { expected, found });
    }
    Ok(EncChunk::decode(key, frame.payload)?)
}
