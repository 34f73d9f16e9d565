use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, PublicKey, SecretKey, SecretKeyBytes};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::frame::{Frame, Kind, Limits, build};
use crate::WireError;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyHeader {
    key_bits: KeyBits,
    key_type: KeyType,
}

impl KeyHeader {
    fn of(key: &PublicKey) -> Self {
        let KeyParameters { size, key_type } = key.parameters();
        Self { key_bits: size, key_type }
    }

    fn parameters(&self) -> KeyParameters {
        KeyParameters { size: self.key_bits, key_type: self.key_type }
    }
}

/// Returns a public key as the bytes of a key file.
///
/// # Errors
/// Never in practice; see [`WireError::Header`].
pub fn encode_public_key(key: &PublicKey) -> Result<Vec<u8>, WireError> {
    build(Kind::PublicKey, &KeyHeader::of(key), &public_key_payload(key))
}

/// Returns the public key of a key file's bytes.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub fn decode_public_key(bytes: &[u8]) -> Result<PublicKey, WireError> {
    let frame = key_frame(bytes, Kind::PublicKey)?;
    let header: KeyHeader = frame.header()?;
    public_key_of(header.parameters(), frame.payload)
}

/// Returns a secret key as the bytes of a key file: p, q, the subgroup primes of a subgroup key, and h.
///
/// # Errors
/// Never in practice; see [`WireError::Header`].
pub fn encode_secret_key(key: &SecretKey) -> Result<Zeroizing<Vec<u8>>, WireError> {
    let SecretKeyBytes { p, q, subgroup_primes, h } = key.to_le_bytes();
    let mut payload = Zeroizing::new([&p[..], &q[..]].concat());
    subgroup_primes.iter().flatten().for_each(|prime| payload.extend_from_slice(prime));
    payload.extend_from_slice(&h);
    build(Kind::SecretKey, &KeyHeader::of(key.public_key()), &payload).map(Zeroizing::new)
}

/// Returns the secret key of a key file's bytes. Every part is checked: primes are tested again.
///
/// # Errors
/// [`WireError`] that says what was expected and found.
pub fn decode_secret_key(bytes: &[u8]) -> Result<SecretKey, WireError> {
    let frame = key_frame(bytes, Kind::SecretKey)?;
    let header: KeyHeader = frame.header()?;
    let half = header.key_bits.bits() / 16;
    let subgroup_prime = match header.key_type {
        KeyType::Djn => 0,
        KeyType::Subgroup => header.parameters().subgroup_prime() / 8,
    };
    let expected = 6 * half + 2 * subgroup_prime;
    if frame.payload.len() != expected {
        return Err(WireError::Length { expected, found: frame.payload.len() });
    }
    let secret = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
    let (p, rest) = frame.payload.split_at(half);
    let (q, rest) = rest.split_at(half);
    let (primes, h) = rest.split_at(2 * subgroup_prime);
    let (first, second) = primes.split_at(subgroup_prime);
    Ok(SecretKey::from_le_bytes(&SecretKeyBytes {
        p: secret(p),
        q: secret(q),
        subgroup_primes: (subgroup_prime > 0).then(|| [first, second].map(secret)),
        h: h.to_vec(),
    })?)
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

pub(super) fn public_key_of(parameters: KeyParameters, payload: &[u8]) -> Result<PublicKey, WireError> {
    let KeyParameters { size, key_type } = parameters;
    let length = size.bits() / 8;
    if payload.len() != 3 * length {
        return Err(WireError::Length { expected: 3 * length, found: payload.len() });
    }
    let (n, h) = payload.split_at(length);
    let key = PublicKey::from_le_bytes(key_type, n, h)?;
    if key.size() == size {
        return Ok(key);
    }
    let rule = "n must have the size that the header declares";
    Err(gelu_tensor::Error::Key { rule, found: format!("{} bits", key.size().bits()) }.into())
}
