//! The base transfers of a session: Chou and Orlandi's oblivious transfer on ristretto255, with one point of the sender's for
//! all of them.

use std::fmt;

use curve25519_dalek::ristretto::{CompressedRistretto, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::IsIdentity;
use hmac_sha256::Hash;
use rand::CryptoRng;
use subtle::{Choice, ConditionallySelectable};
use zeroize::{Zeroize, Zeroizing};

use crate::Error;

/// How many base transfers a session takes: one for each bit of a label.
pub const BASE_TRANSFERS: usize = 128;

/// Bytes of a point.
pub const POINT_BYTES: usize = 32;

/// Two keys for each transfer, of which the receiver gets to know one.
pub(crate) type KeyPairs = Zeroizing<Vec<[u128; 2]>>;

/// The sender of base transfers, whose point has gone to the receiver.
pub(crate) struct BaseSender {
    secret: Scalar,
    point: CompressedRistretto,
}

impl BaseSender {
    pub(crate) fn new(rng: &mut dyn CryptoRng) -> Self {
        let secret = random_scalar(rng);
        let point = RistrettoPoint::mul_base(&secret).compress();
        Self { secret: *secret, point }
    }

    /// Returns the point that the receiver needs.
    pub(crate) fn point(&self) -> [u8; POINT_BYTES] {
        self.point.to_bytes()
    }

    /// Returns both keys of each transfer, given the receiver's points.
    ///
    /// # Errors
    /// [`Error::Length`] when they are not 128; [`Error::Point`].
    pub(crate) fn keys(self, points: &[u8]) -> Result<KeyPairs, Error> {
        let expected = BASE_TRANSFERS * POINT_BYTES;
        if points.len() != expected {
            return Err(Error::Length { what: "bytes of base transfers", expected, found: points.len() });
        }
        // a A, which the shared points of both choices differ by.
        let own = Zeroizing::new(self.secret * *Zeroizing::new(RistrettoPoint::mul_base(&self.secret)));
        let mut keys = Zeroizing::new(Vec::with_capacity(BASE_TRANSFERS));
        let (points, _) = points.as_chunks::<POINT_BYTES>();
        for (index, bytes) in points.iter().enumerate() {
            let point = decode(index, bytes)?;
            let shared = Zeroizing::new(self.secret * point);
            let other = Zeroizing::new(*shared - *own);
            let key = |shared: &RistrettoPoint| derive(index, [&self.point.to_bytes(), bytes], shared);
            keys.push([key(&shared), key(&other)]);
        }
        Ok(keys)
    }
}

impl Drop for BaseSender {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Does not print the secret.
impl fmt::Debug for BaseSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BaseSender").finish_non_exhaustive()
    }
}

/// Returns the receiver's points, and its key of each transfer: that of the bit of `choices`.
///
/// # Errors
/// [`Error::Point`] when the sender's point is none.
pub(crate) fn receive(
    sender: &[u8; POINT_BYTES],
    choices: u128,
    rng: &mut dyn CryptoRng,
) -> Result<(Vec<u8>, Zeroizing<Vec<u128>>), Error> {
    let point = decode(0, sender)?;
    let identity = RistrettoPoint::default();
    let mut points = Vec::with_capacity(BASE_TRANSFERS * POINT_BYTES);
    let mut keys = Zeroizing::new(Vec::with_capacity(BASE_TRANSFERS));
    for index in 0..BASE_TRANSFERS {
        let secret = random_scalar(rng);
        let choice = Choice::from((choices >> index & 1) as u8);
        let offset = RistrettoPoint::conditional_select(&identity, &point, choice);
        let own = (RistrettoPoint::mul_base(&secret) + offset).compress().to_bytes();
        let shared = Zeroizing::new(*secret * point);
        keys.push(derive(index, [sender, &own], &shared));
        points.extend(own);
    }
    Ok((points, keys))
}

fn random_scalar(rng: &mut dyn CryptoRng) -> Zeroizing<Scalar> {
    let mut bytes = Zeroizing::new([0; 64]);
    rng.fill_bytes(&mut *bytes);
    Zeroizing::new(Scalar::from_bytes_mod_order_wide(&bytes))
}

/// Returns a point that is not the identity.
fn decode(index: usize, bytes: &[u8; POINT_BYTES]) -> Result<RistrettoPoint, Error> {
    match CompressedRistretto(*bytes).decompress() {
        Some(point) if point.is_identity() => Err(Error::Point { index, found: "the identity" }),
        Some(point) => Ok(point),
        None => Err(Error::Point { index, found: "bytes that are no point" }),
    }
}

/// A key out of a shared point. It is bound to both sides' messages and to the transfer's place among the others.
fn derive(index: usize, messages: [&[u8; POINT_BYTES]; 2], shared: &RistrettoPoint) -> u128 {
    let mut hash = Hash::new();
    hash.update(b"gelu-garble base transfer 1");
    hash.update((index as u64).to_le_bytes());
    messages.iter().for_each(|message| hash.update(message));
    hash.update(*Zeroizing::new(shared.compress().to_bytes()));
    let digest = Zeroizing::new(hash.finalize());
    digest.iter().take(16).rev().fold(0, |key, &byte| key << 8 | u128::from(byte))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

    use super::*;

    /// Small multiples of the generator, from RFC 9496, appendix A.1.
    #[test]
    fn points_are_those_of_rfc_9496() {
        let multiples = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76",
            "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919",
            "94741f5d5d52755ece4f23f044ee27d5d1ea1e2bd196b462166b16152a9d0259",
        ];
        for (factor, expected) in multiples.iter().enumerate() {
            let point = RistrettoPoint::mul_base(&Scalar::from(factor as u64));
            let bytes = point.compress().to_bytes();
            assert_eq!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), *expected);
            assert_eq!(decode(3, &bytes).is_ok(), factor > 0);
        }
    }

    /// Encodings that must be refused, from RFC 9496, appendix A.2: not below the prime, negative, not of a square.
    #[test]
    fn bytes_that_are_no_point_are_refused() {
        let mut beyond = [0xff; 32];
        beyond[0] = 0xed;
        beyond[31] = 0x7f;
        let mut negative = [0; 32];
        negative[0] = 1;
        let refused = Err(Error::Point { index: 5, found: "bytes that are no point" });
        for bytes in [[0xff; 32], beyond, negative] {
            assert_eq!(decode(5, &bytes).map(|_| ()), refused);
        }
        assert_eq!(decode(5, &[0; 32]).map(|_| ()), Err(Error::Point { index: 5, found: "the identity" }));
    }

    #[test]
    fn the_receiver_has_the_key_that_it_chose_and_not_the_other() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let (sender, choices) = (BaseSender::new(rng), rng.random());
        let (points, chosen) = receive(&sender.point(), choices, rng).unwrap();
        let pairs = sender.keys(&points).unwrap();
        assert_eq!((pairs.len(), chosen.len()), (128, 128));
        for (index, (pair, chosen)) in pairs.iter().zip(chosen.iter()).enumerate() {
            let choice = (choices >> index & 1) as usize;
            assert_eq!(pair[choice], *chosen);
            assert_ne!(pair[1 - choice], *chosen);
        }
        let mut all: Vec<u128> = pairs.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 256);
    }

    #[test]
    fn malformed_messages_are_refused() {
        let rng = &mut ChaCha20Rng::seed_from_u64(2);
        let nothing = Error::Point { index: 0, found: "the identity" };
        assert_eq!(receive(&[0; 32], 5, rng).map(|_| ()), Err(nothing));
        let (points, _) = receive(&BaseSender::new(rng).point(), 5, rng).unwrap();
        for bytes in [&points[1..], &[&points[..], &[0]].concat(), &[]] {
            let refused =
                Error::Length { what: "bytes of base transfers", expected: 4096, found: bytes.len() };
            assert_eq!(BaseSender::new(rng).keys(bytes).map(|_| ()), Err(refused));
        }
        for (fill, found) in [(0, "the identity"), (0xff, "bytes that are no point")] {
            let mut points = points.clone();
            points[127 * 32..].fill(fill);
            let refused = Error::Point { index: 127, found };
            assert_eq!(BaseSender::new(rng).keys(&points).map(|_| ()), Err(refused));
        }
    }
}
