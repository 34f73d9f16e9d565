use gelu_tensor::paillier::{KeyBits, PublicKey, Randomizer, SecretKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::frame::{Frame, Kind, Limits, WireError, build};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHeader {
    key_bits: KeyBits,
    key_type: KeyType,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyType {
    /// Damgård, Jurik and Nielsen.
    Djn,
}

/// A public key as the bytes of a key file.
///
/// # Errors
/// Never in practice; see [`WireError::Header`].
pub fn encode_public_key(key: &PublicKey) -> Result<Vec<u8>, WireError> {
    let header = KeyHeader { key_bits: key.size(), key_type: KeyType::Djn };
    build(Kind::PublicKey, &header, &public_key_payload(key))
}

/// The public key of a key file's bytes.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, WireError> {
    let frame = key_frame(bytes, Kind::PublicKey)?;
    let header: KeyHeader = frame.header()?;
    public_key_of(header.key_bits, frame.payload)
}

/// A secret key as the bytes of a key file: p, q and h.
///
/// # Errors
/// Never in practice; see [`WireError::Header`].
pub fn encode_secret_key(key: &SecretKey) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let (p, q, h) = key.to_le_bytes();
    let payload = Zeroizing::new([&p[..], &q[..], &h[..]].concat());
    let header = KeyHeader { key_bits: key.public_key().size(), key_type: KeyType::Djn };
    build(Kind::SecretKey, &header, &payload).map(Zeroizing::new)
}

/// The secret key of a key file's bytes. Every part is checked: primes are tested again.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub fn decode_secret_key(bytes: &[u8]) -> Result<SecretKey, WireError> {
    let frame = key_frame(bytes, Kind::SecretKey)?;
    let header: KeyHeader = frame.header()?;
    let half = header.key_bits.bits() / 16;
    if frame.payload.len() != 6 * half {
        return Err(WireError::Length { expected: 6 * half, found: frame.payload.len() });
    }
    let (p, rest) = frame.payload.split_at(half);
    let (q, h) = rest.split_at(half);
    Ok(SecretKey::from_parts(p, q, h)?)
}

fn key_frame(bytes: &[u8], expected: Kind) -> Result<Frame<'_>, WireError> {
    let frame = Frame::parse(bytes, Limits { header: 1 << 10, payload: 1 << 14 })?;
    if frame.kind == expected {
        Ok(frame)
    } else {
        Err(WireError::Kind { expected: expected.to_string(), found: frame.kind.to_string() })
    }
}

/// n, then h.
pub(super) fn public_key_payload(key: &PublicKey) -> Vec<u8> {
    [key.n_le_bytes(), key.h_le_bytes()].concat()
}

pub(super) fn public_key_of(size: KeyBits, payload: &[u8]) -> Result<PublicKey, WireError> {
    let length = size.bits() / 8;
    if payload.len() != 3 * length {
        return Err(WireError::Length { expected: 3 * length, found: payload.len() });
    }
    let (n, h) = payload.split_at(length);
    let key = PublicKey::from_le_bytes(n, h)?;
    if key.size() == size {
        return Ok(key);
    }
    let rule = "n must have the size that the header declares";
    Err(gelu_tensor::Error::Key { rule, found: format!("{} bits", key.size().bits()) }.into())
}
