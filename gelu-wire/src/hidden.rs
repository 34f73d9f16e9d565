//! Messages of inference that hides the model as bytes.

use gelu_models::infer::hidden::{Block, Client, Message, Server};
use gelu_models::infer::{Position, SessionId};
use gelu_models::plan::{Description, Preference, Reveal};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, PublicKey};
use serde::{Deserialize, Serialize};

use super::frame::{CIRCUIT_BYTES, Frame, Kind, Limits, build};
use super::keys::{public_key_of, public_key_payload};
use super::message::{AbortHeader, FinishHeader, TensorHeader};
use super::{WirePeer, chunk_payload};
use crate::WireError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloHeader {
    version: u16,
    key_bits: KeyBits,
    key_type: KeyType,
    queries: u32,
    memory: u64,
    reveal: Reveal,
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
struct SharesHeader {
    query: u64,
    segment: u32,
}

/// Returns a message as bytes.
///
/// # Errors
/// [`WireError::Header`] when the header is longer than 4 GiB.
pub(crate) fn encode_hidden(message: &Message) -> Result<Vec<u8>, WireError> {
    match message {
        Message::Hello { version, key, queries, memory, reveal, prefer, opening } => {
            let KeyParameters { size, key_type } = key.parameters();
            let (version, queries, memory) = (*version, *queries, *memory);
            let (key_bits, reveal, prefer) = (size, *reveal, *prefer);
            let header = HelloHeader { version, key_bits, key_type, queries, memory, reveal, prefer };
            build(Kind::HiddenHello, &header, &[&public_key_payload(key)[..], &opening[..]].concat())
        }
        Message::Accept { session, description, transfers } => {
            let header = AcceptHeader { session: *session, description: description.clone() };
            build(Kind::HiddenAccept, &header, transfers)
        }
        Message::Tensor { position, index, ciphertexts } => {
            let key = ciphertexts.key().fingerprint_hex();
            let header = TensorHeader { position: *position, index: *index, key };
            build(Kind::Tensor, &header, &ciphertexts.encode())
        }
        Message::Choices { block, choices } => build(Kind::Choices, block, choices),
        Message::Tables { block, tables } => build(Kind::Tables, block, tables),
        Message::Shares { query, segment, shares } => {
            build(Kind::Shares, &SharesHeader { query: *query, segment: *segment }, shares)
        }
        Message::Labels { block, labels } => build(Kind::Labels, block, labels),
        Message::Sums { query, segment, shares } => {
            build(Kind::Sums, &SharesHeader { query: *query, segment: *segment }, shares)
        }
        Message::Finish { session } => build(Kind::Finish, &FinishHeader { session: *session }, &[]),
        Message::Abort { reason } => build(Kind::Abort, &AbortHeader { reason: *reason }, &[]),
    }
}

/// Returns the message in `bytes`, whose ciphertexts must be under `key`.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub(crate) fn decode_hidden(bytes: &[u8], key: Option<&PublicKey>) -> Result<Message, WireError> {
    let frame = Frame::parse(bytes, Limits { payload: CIRCUIT_BYTES, ..Limits::default() })?;
    match frame.kind {
        Kind::HiddenHello => {
            let HelloHeader { version, key_bits, key_type, queries, memory, reveal, prefer } =
                frame.header()?;
            let Some((key, opening)) = frame.payload.split_last_chunk() else {
                return Err(WireError::Length { expected: 32, found: frame.payload.len() });
            };
            let key = public_key_of(KeyParameters { size: key_bits, key_type }, key)?;
            Ok(Message::Hello { version, key, queries, memory, reveal, prefer, opening: *opening })
        }
        Kind::HiddenAccept => {
            let AcceptHeader { session, description } = frame.header()?;
            Ok(Message::Accept { session, description, transfers: frame.payload.to_vec() })
        }
        Kind::Tensor => {
            let TensorHeader::<Position> { position, index, key: found } = frame.header()?;
            let ciphertexts = chunk_payload(&frame, key, found)?;
            Ok(Message::Tensor { position, index, ciphertexts })
        }
        Kind::Choices => {
            let block: Block = frame.header()?;
            Ok(Message::Choices { block, choices: frame.payload.to_vec() })
        }
        Kind::Tables => {
            let block: Block = frame.header()?;
            Ok(Message::Tables { block, tables: frame.payload.to_vec() })
        }
        Kind::Shares => {
            let SharesHeader { query, segment } = frame.header()?;
            Ok(Message::Shares { query, segment, shares: frame.payload.to_vec() })
        }
        Kind::Labels => {
            let block: Block = frame.header()?;
            Ok(Message::Labels { block, labels: frame.payload.to_vec() })
        }
        Kind::Sums => {
            let SharesHeader { query, segment } = frame.header()?;
            Ok(Message::Sums { query, segment, shares: frame.payload.to_vec() })
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
        _ => Err(WireError::Kind {
            expected: "a message of the hidden mode".into(),
            found: frame.kind.to_string(),
        }),
    }
}

impl WirePeer for Client {
    fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
        encode_hidden(message)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Message, WireError> {
        decode_hidden(bytes, Some(self.key().public_key()))
    }
}

impl WirePeer for Server {
    fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
        encode_hidden(message)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Message, WireError> {
        decode_hidden(bytes, self.key())
    }
}
