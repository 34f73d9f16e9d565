//! A client's state under a passphrase: a key by Argon2id (RFC 9106), and XChaCha20-Poly1305 with a fresh nonce for every write.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use gelu_io::files::{check_owner_only, read_limited};
use rand::{CryptoRng, Rng};
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

/// The longest passphrase.
const MOST_BYTES: u64 = 1 << 12;

/// A key from a passphrase.
pub(super) struct Seal {
    header: [u8; HEADER],
    cipher: XChaCha20Poly1305,
}

/// The first line of a file, which only its owner may be able to read.
pub(super) fn read_passphrase(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    check_owner_only(path)?;
    let bytes = Zeroizing::new(read_limited(path, MOST_BYTES)?);
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    ensure!(!line.is_empty(), "{}: expected a passphrase in the first line, found none", path.display());
    Ok(Zeroizing::new(line.to_vec()))
}

/// Whether these are the bytes of a sealed file.
pub(super) fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

impl Seal {
    /// A key with a new salt.
    pub(super) fn new<R: CryptoRng + ?Sized>(passphrase: &[u8], rng: &mut R) -> anyhow::Result<Self> {
        let mut header = [0; HEADER];
        header[..12].copy_from_slice(MAGIC);
        for (at, cost) in COSTS.into_iter().enumerate() {
            header[12 + 4 * at..][..4].copy_from_slice(&cost.to_le_bytes());
        }
        rng.fill_bytes(&mut header[24..]);
        Self::derive(passphrase, header)
    }

    /// The key of a sealed file.
    pub(super) fn of(passphrase: &[u8], bytes: &[u8]) -> anyhow::Result<Self> {
        let header = bytes.first_chunk().context("expected a sealed file, found the beginning of one")?;
        Self::derive(passphrase, *header)
    }

    fn derive(passphrase: &[u8], header: [u8; HEADER]) -> anyhow::Result<Self> {
        let cost = |at: usize| {
            header[12 + 4 * at..][..4].iter().rev().fold(0, |sum, &byte| sum << 8 | u32::from(byte))
        };
        let costs = [cost(0), cost(1), cost(2)];
        let within = costs.iter().zip(&MOST).all(|(cost, most)| (1..=*most).contains(cost));
        ensure!(within, "expected costs of at most {MOST:?}, found {costs:?}");
        let [memory, passes, lanes] = costs;
        let wrong = |error: argon2::Error| anyhow::anyhow!("{error}");
        let parameters = Params::new(memory, passes, lanes, Some(32)).map_err(wrong)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, parameters)
            .hash_password_into(passphrase, &header[24..], &mut *key)
            .map_err(wrong)?;
        Ok(Self { header, cipher: XChaCha20Poly1305::new((&*key).into()) })
    }

    /// What is in a file that was sealed with this key.
    pub(super) fn open(&self, bytes: &[u8]) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let sealed = bytes.strip_prefix(&self.header).and_then(|rest| rest.split_first_chunk::<NONCE>());
        let Some((nonce, sealed)) = sealed else {
            bail!("expected a sealed file, found the beginning of one")
        };
        let payload = Payload { msg: sealed, aad: &self.header };
        let opened = self.cipher.decrypt(&XNonce::from(*nonce), payload);
        Ok(Zeroizing::new(
            opened.map_err(|_| anyhow::anyhow!("the passphrase is another, or the file was changed"))?,
        ))
    }

    pub(super) fn seal<R: Rng + CryptoRng + ?Sized>(
        &self,
        plain: &[u8],
        rng: &mut R,
    ) -> anyhow::Result<Vec<u8>> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let payload = Payload { msg: plain, aad: &self.header };
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| anyhow::anyhow!("the state is too long to be sealed"))?;
        Ok([&self.header[..], &nonce, &sealed].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_the_passphrase_alone() {
        let rng = &mut rand::rng();
        let seal = Seal::new(b"correct horse", rng).unwrap();
        let [sealed, again] = [0, 1].map(|_| seal.seal(b"masks", rng).unwrap());
        assert!(is_sealed(&sealed) && !is_sealed(b"{\"run\"") && sealed != again);
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
