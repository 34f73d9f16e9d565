use gelu_models::infer::{AbortReason, Message, Position, SessionId};
use gelu_models::plan::Plan;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, PublicKey};
use gelu_tensor::{EncChunk, EncTensorHeader};
use serde::{Deserialize, Serialize};

use super::frame::{Frame, Kind, Limits, WireError, build};
use super::keys::{public_key_of, public_key_payload};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloHeader {
    version: u16,
    key_bits: KeyBits,
    key_type: KeyType,
    batch: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptHeader {
    session: SessionId,
    plan: Box<Plan>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorHeader {
    position: Position,
    tensor: EncTensorHeader,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChunkHeader {
    position: Position,
    index: u32,
    key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FinishHeader {
    session: SessionId,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AbortHeader {
    reason: AbortReason,
}

/// A message as bytes.
///
/// # Errors
/// [`WireError::Header`] when the header is longer than 4 GiB.
pub fn encode_message(message: &Message) -> Result<Vec<u8>, WireError> {
    match message {
        Message::Hello { version, key, batch } => {
            let KeyParameters { size, key_type } = key.parameters();
            let header = HelloHeader { version: *version, key_bits: size, key_type, batch: *batch };
            build(Kind::Hello, &header, &public_key_payload(key))
        }
        Message::Accept { session, plan } => {
            build(Kind::Accept, &AcceptHeader { session: *session, plan: plan.clone() }, &[])
        }
        Message::Activations { position, header } => build_tensor(Kind::Activations, *position, header),
        Message::Sums { position, header } => build_tensor(Kind::Sums, *position, header),
        Message::Chunk { position, index, ciphertexts } => {
            let key = ciphertexts.key().fingerprint_hex();
            let header = ChunkHeader { position: *position, index: *index, key };
            build(Kind::Chunk, &header, &ciphertexts.encode())
        }
        Message::Finish { session } => build(Kind::Finish, &FinishHeader { session: *session }, &[]),
        Message::Abort { reason } => build(Kind::Abort, &AbortHeader { reason: *reason }, &[]),
    }
}

fn build_tensor(kind: Kind, position: Position, header: &EncTensorHeader) -> Result<Vec<u8>, WireError> {
    build(kind, &TensorHeader { position, tensor: header.clone() }, &[])
}

/// The message in `bytes`, whose ciphertexts must be under `key`.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub fn decode_message(bytes: &[u8], key: Option<&PublicKey>, limits: Limits) -> Result<Message, WireError> {
    let frame = Frame::parse(bytes, limits)?;
    match frame.kind {
        Kind::Hello => {
            let HelloHeader { version, key_bits, key_type, batch } = frame.header()?;
            let parameters = KeyParameters { size: key_bits, key_type };
            Ok(Message::Hello { version, key: public_key_of(parameters, frame.payload)?, batch })
        }
        Kind::Accept => {
            frame.no_payload()?;
            let AcceptHeader { session, plan } = frame.header()?;
            Ok(Message::Accept { session, plan })
        }
        Kind::Activations => {
            frame.no_payload()?;
            let TensorHeader { position, tensor } = frame.header()?;
            Ok(Message::Activations { position, header: tensor })
        }
        Kind::Sums => {
            frame.no_payload()?;
            let TensorHeader { position, tensor } = frame.header()?;
            Ok(Message::Sums { position, header: tensor })
        }
        Kind::Chunk => decode_chunk(&frame, key),
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

fn decode_chunk(frame: &Frame<'_>, key: Option<&PublicKey>) -> Result<Message, WireError> {
    let key = key.ok_or(WireError::NoKey)?;
    let ChunkHeader { position, index, key: found } = frame.header()?;
    let expected = key.fingerprint_hex();
    if found != expected {
        return Err(WireError::ForeignKey { expected, found });
    }
    Ok(Message::Chunk { position, index, ciphertexts: EncChunk::decode(key, frame.payload)? })
}
