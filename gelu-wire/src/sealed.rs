//! Secrets under a passphrase: a key by Argon2id (RFC 9106), and XChaCha20-Poly1305 with a fresh nonce for every write.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::CryptoRng;
use zeroize::Zeroizing;

/// What a sealed file begins with.
const MAGIC: &[u8; 12] = b"GELU-SEALED\x01";

/// Magic, three costs of 4 bytes (little-endian), salt.
const HEADER: usize = 12 + 3 * 4 + 16;

const NONCE: usize = 24;

/// KiB of memory, passes, lanes: the second choice of RFC 9106, section 4.
const COSTS: [u32; 3] = [64 << 10, 3, 4];

/// The most that a file may ask for: 1 GiB, 64 passes, 16 lanes.
const MOST: [u32; 3] = [1 << 20, 64, 16];

/// A key from a passphrase, which seals a client's state or key as bytes, and opens them.
///
/// ```
/// use gelu_wire::Seal;
/// use rand::{SeedableRng, rngs::ChaCha20Rng};
///
/// let rng = &mut ChaCha20Rng::seed_from_u64(1); // for an example: seed yours from the system
/// let sealed = Seal::new(b"correct horse", rng)?.seal(b"secret", rng)?;
/// assert!(Seal::is_sealed(&sealed));
/// assert_eq!(*Seal::of(b"correct horse", &sealed)?.open(&sealed)?, b"secret");
/// assert!(Seal::of(b"correct house", &sealed)?.open(&sealed).is_err());
/// # Ok::<(), gelu_wire::SealError>(())
/// ```
pub struct Seal {
    header: [u8; HEADER],
    cipher: XChaCha20Poly1305,
}

/// Why something cannot be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The bytes are not those of something sealed, or are cut.
    #[error("expected a sealed file, found the beginning of one")]
    Truncated,
    /// Deriving the key would take more than anyone's does.
    #[error("expected costs of at most {most:?}, found {found:?}")]
    Costs {
        /// KiB of memory, passes and lanes.
        most: [u32; 3],
        /// What the bytes ask for.
        found: [u32; 3],
    },
    /// The key cannot be derived.
    #[error("the passphrase's key cannot be derived: {problem}")]
    Derivation {
        /// Why not.
        problem: String,
    },
    /// What was sealed cannot be had.
    #[error("the passphrase is another, or the file was changed")]
    Wrong,
    /// There is too much to seal.
    #[error("the state is too long to be sealed")]
    TooLong,
}

impl Seal {
    /// Returns whether these are the bytes of something sealed.
    pub fn is_sealed(bytes: &[u8]) -> bool {
        bytes.starts_with(MAGIC)
    }

    /// Returns a key with a new salt. It takes 64 MiB of memory and some tenths of a second.
    ///
    /// # Errors
    /// [`SealError::Derivation`], when there is not as much memory.
    pub fn new<R: CryptoRng + ?Sized>(passphrase: &[u8], rng: &mut R) -> Result<Self, SealError> {
        let mut header = [0; HEADER];
        header[..12].copy_from_slice(MAGIC);
        for (at, cost) in COSTS.into_iter().enumerate() {
            header[12 + 4 * at..][..4].copy_from_slice(&cost.to_le_bytes());
        }
        rng.fill_bytes(&mut header[24..]);
        Self::derive(passphrase, header)
    }

    /// Returns the key of something sealed, if the passphrase is the one: [`open`](Self::open) tells.
    ///
    /// # Errors
    /// [`SealError`] when the bytes are cut, or ask for more than a gibibyte of memory, 64 passes or 16 lanes.
    pub fn of(passphrase: &[u8], bytes: &[u8]) -> Result<Self, SealError> {
        let header = bytes.first_chunk().ok_or(SealError::Truncated)?;
        Self::derive(passphrase, *header)
    }

    fn derive(passphrase: &[u8], header: [u8; HEADER]) -> Result<Self, SealError> {
        let cost = |at: usize| {
            header[12 + 4 * at..][..4].iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte))
        };
        let costs = [cost(0), cost(1), cost(2)];
        let within = costs.iter().zip(&MOST).all(|(cost, most)| (1..=*most).contains(cost));
        if !within {
            return Err(SealError::Costs { most: MOST, found: costs });
        }
        let [memory, passes, lanes] = costs;
        let wrong = |error: argon2::Error| SealError::Derivation { problem: error.to_string() };
        let parameters = Params::new(memory, passes, lanes, Some(32)).map_err(wrong)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into(passphrase, &header[24..], &mut *key)
            .map_err(wrong)?;
        Ok(Self { header, cipher: XChaCha20Poly1305::new((&*key).into()) })
    }

    /// Returns what was sealed with this key.
    ///
    /// # Errors
    /// [`SealError::Wrong`] when it was sealed with another, or changed since; [`SealError::Truncated`] when it was cut.
    pub fn open(&self, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let sealed = bytes.strip_prefix(&self.header).and_then(|rest| rest.split_first_chunk::<NONCE>());
        let (nonce, sealed) = sealed.ok_or(SealError::Truncated)?;
        let payload = Payload { msg: sealed, aad: &self.header };
        let opened = self.cipher.decrypt(&XNonce::from(*nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| SealError::Wrong)
    }

    /// Returns these bytes, sealed with a fresh nonce.
    ///
    /// # Errors
    /// [`SealError::TooLong`] beyond 256 GiB.
    pub fn seal<R: CryptoRng + ?Sized>(&self, plain: &[u8], rng: &mut R) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: plain, aad: &self.header };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| SealError::TooLong)?;
        Ok([&self.header[..], &nonce, &sealed].concat())
    }
}

/// Prints nothing of the key.
impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::ChaCha20Rng};

    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_the_passphrase_alone() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let seal = Seal::new(b"correct horse", rng).unwrap();
        let [sealed, again] = [0, 1].map(|_| seal.seal(b"masks", rng).unwrap());
        assert!(Seal::is_sealed(&sealed) && !Seal::is_sealed(b"{\"run\"") && sealed != again);
        assert!(!sealed.windows(5).any(|window| window == b"masks"));
        let opened =
            |passphrase: &[u8], bytes: &[u8]| Seal::of(passphrase, bytes).and_then(|seal| seal.open(bytes));
        assert_eq!(*opened(b"correct horse", &sealed).unwrap(), b"masks");
        let error = opened(b"correct house", &sealed).unwrap_err().to_string();
        assert!(error.contains("the passphrase is another"), "{error}");
        // Costs that nobody would pay, a salt, a nonce, a ciphertext, a tag that were changed, and a file that was cut.
        for at in [14, 16, 25, 45, 65, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[at] ^= 0x80;
            assert!(opened(b"correct horse", &changed).is_err(), "byte {at}");
        }
        for length in [0, 11, 39, 60, sealed.len() - 1] {
            assert!(opened(b"correct horse", &sealed[..length]).is_err(), "{length} bytes");
        }
    }
}
