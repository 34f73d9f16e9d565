//! Messages of private inference as bytes.

use gelu_models::infer::{Client, Message, Position, Server, SessionId};
use gelu_models::peer::AbortReason;
use gelu_models::plan::{Description, Preference};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, PublicKey};
use serde::{Deserialize, Serialize};

use super::frame::{Frame, Kind, Limits, build};
use super::keys::{public_key_of, public_key_payload};
use super::{WirePeer, chunk_payload};
use crate::WireError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloHeader {
    version: u16,
    key_bits: KeyBits,
    key_type: KeyType,
    batch: u32,
    prefer: Preference,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptHeader {
    session: SessionId,
    description: Box<Description>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TensorHeader<P> {
    pub(super) position: P,
    pub(super) index: u32,
    pub(super) key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FinishHeader {
    pub(super) session: SessionId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AbortHeader {
    pub(super) reason: AbortReason,
}

/// Returns a message as bytes.
///
/// # Errors
/// [`WireError::Header`] when the header is longer than 4 GiB.
pub fn encode_message(message: &Message) -> Result<Vec<u8>, WireError> {
    match message {
        Message::Hello { version, key, batch, prefer } => {
            let KeyParameters { size, key_type } = key.parameters();
            let (version, batch, prefer) = (*version, *batch, *prefer);
            let header = HelloHeader { version, key_bits: size, key_type, batch, prefer };
            build(Kind::Hello, &header, &public_key_payload(key))
        }
        Message::Accept { session, description } => {
            let description = description.clone();
            build(Kind::Accept, &AcceptHeader { session: *session, description }, &[])
        }
        Message::Tensor { position, index, ciphertexts } => {
            let key = ciphertexts.key().fingerprint_hex();
            let header = TensorHeader { position: *position, index: *index, key };
            build(Kind::Tensor, &header, &ciphertexts.encode())
        }
        Message::Finish { session } => build(Kind::Finish, &FinishHeader { session: *session }, &[]),
        Message::Abort { reason } => build(Kind::Abort, &AbortHeader { reason: *reason }, &[]),
    }
}

/// Returns the message in `bytes`, whose ciphertexts must be under `key`.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub fn decode_message(bytes: &[u8], key: Option<&PublicKey>) -> Result<Message, WireError> {
    decode_within(bytes, key, Limits::default())
}

pub(crate) fn decode_within(
    bytes: &[u8],
    key: Option<&PublicKey>,
    limits: Limits,
) -> Result<Message, WireError> {
    let frame = Frame::parse(bytes, limits)?;
    match frame.kind {
        Kind::Hello => {
            let HelloHeader { version, key_bits, key_type, batch, prefer } = frame.header()?;
            let parameters = KeyParameters { size: key_bits, key_type };
            Ok(Message::Hello { version, key: public_key_of(parameters, frame.payload)?, batch, prefer })
        }
        Kind::Accept => {
            frame.no_payload()?;
            let AcceptHeader { session, description } = frame.header()?;
            Ok(Message::Accept { session, description })
        }
        Kind::Tensor => {
            let TensorHeader::<Position> { position, index, key: found } = frame.header()?;
            let ciphertexts = chunk_payload(&frame, key, found)?;
            Ok(Message::Tensor { position, index, ciphertexts })
        }
        Kind::Finish => {
            frame.no_payload()?;
            let FinishHeader { session } = frame.header()?;
            Ok(Message::Finish { session })
        }
        Kind::Abort => {
            frame.no_payload()?;
            let AbortHeader { reason } = frame.header()?;
            Ok(Message::Abort { reason })
        }
        _ => {
            Err(WireError::Kind { expected: "a message of inference".into(), found: frame.kind.to_string() })
        }
    }
}

impl WirePeer for Client {
    fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
        encode_message(message)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Message, WireError> {
        decode_message(bytes, Some(self.key().public_key()))
    }
}

impl WirePeer for Server {
    fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
        encode_message(message)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Message, WireError> {
        decode_message(bytes, self.key())
    }
}
