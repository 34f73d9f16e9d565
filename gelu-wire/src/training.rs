//! Messages of private training as bytes.

use gelu_models::peer::Part;
use gelu_models::train::private::{Client, Description, Grant, Message, Position, Server};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, PublicKey};
use serde::{Deserialize, Serialize};

use super::frame::{Frame, Kind, Limits, build};
use super::keys::{public_key_of, public_key_payload};
use super::message::{AbortHeader, TensorHeader};
use super::{WirePeer, chunk_payload};
use crate::WireError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinHeader {
    version: u16,
    client: u32,
    key_bits: KeyBits,
    key_type: KeyType,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnHeader {
    description: Box<Description>,
    grant: Grant,
    begun: u32,
    key_bits: KeyBits,
    key_type: KeyType,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndedHeader {
    turn: u64,
}

/// The keys that ciphertexts of training can be under, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrainingKeys<'a> {
    /// The client's: of inputs, sums, errors, products and corrections.
    pub(crate) client: Option<&'a PublicKey>,
    /// The server's: of sums of steps.
    pub(crate) server: Option<&'a PublicKey>,
}

impl<'a> TrainingKeys<'a> {
    fn of(self, part: Part) -> Option<&'a PublicKey> {
        match part {
            Part::Total => self.server,
            _ => self.client,
        }
    }
}

/// A message of training as bytes.
///
/// # Errors
/// [`WireError::Header`] when the header is longer than 4 GiB.
pub(crate) fn encode_training(message: &Message) -> Result<Vec<u8>, WireError> {
    match message {
        Message::Join { version, client, key } => {
            let KeyParameters { size, key_type } = key.parameters();
            let header = JoinHeader { version: *version, client: *client, key_bits: size, key_type };
            build(Kind::Join, &header, &public_key_payload(key))
        }
        Message::Turn { description, grant, begun, key } => {
            let KeyParameters { size, key_type } = key.parameters();
            let header = TurnHeader {
                description: description.clone(),
                grant: grant.clone(),
                begun: *begun,
                key_bits: size,
                key_type,
            };
            build(Kind::Turn, &header, &public_key_payload(key))
        }
        Message::Tensor { position, index, ciphertexts } => {
            let key = ciphertexts.key().fingerprint_hex();
            let header = TensorHeader { position: *position, index: *index, key };
            build(Kind::Tensor, &header, &ciphertexts.encode())
        }
        Message::Ended { turn } => build(Kind::Ended, &EndedHeader { turn: *turn }, &[]),
        Message::Abort { reason } => build(Kind::Abort, &AbortHeader { reason: *reason }, &[]),
    }
}

/// The message of training in `bytes`, whose ciphertexts must be under the key of their part.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub(crate) fn decode_training(bytes: &[u8], keys: TrainingKeys<'_>) -> Result<Message, WireError> {
    let frame = Frame::parse(bytes, Limits::default())?;
    match frame.kind {
        Kind::Join => {
            let JoinHeader { version, client, key_bits, key_type } = frame.header()?;
            let parameters = KeyParameters { size: key_bits, key_type };
            Ok(Message::Join { version, client, key: public_key_of(parameters, frame.payload)? })
        }
        Kind::Turn => {
            let TurnHeader { description, grant, begun, key_bits, key_type } = frame.header()?;
            let key = public_key_of(KeyParameters { size: key_bits, key_type }, frame.payload)?;
            Ok(Message::Turn { description, grant, begun, key })
        }
        Kind::Tensor => {
            let TensorHeader::<Position> { position, index, key: found } = frame.header()?;
            let ciphertexts = chunk_payload(&frame, keys.of(position.part), found)?;
            Ok(Message::Tensor { position, index, ciphertexts })
        }
        Kind::Abort => {
            frame.no_payload()?;
            let AbortHeader { reason } = frame.header()?;
            Ok(Message::Abort { reason })
        }
        Kind::Ended => {
            frame.no_payload()?;
            let EndedHeader { turn } = frame.header()?;
            Ok(Message::Ended { turn })
        }
        _ => Err(WireError::Kind { expected: "a message of training".into(), found: frame.kind.to_string() }),
    }
}

impl WirePeer for Client {
    fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
        encode_training(message)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Message, WireError> {
        let keys = TrainingKeys { client: Some(self.key().public_key()), server: self.server_key() };
        decode_training(bytes, keys)
    }
}

impl WirePeer for Server {
    fn encode(message: &Message) -> Result<Vec<u8>, WireError> {
        encode_training(message)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Message, WireError> {
        let keys = TrainingKeys { client: self.client_key(), server: Some(self.key().public_key()) };
        decode_training(bytes, keys)
    }
}
