//! Paillier's cryptosystem (EUROCRYPT '99) with the keys and the encryption of Damgård, Jurik and Nielsen
//! ("A generalization of Paillier's public-key system with applications to electronic voting", 2010, section 4).
//!
//! A ciphertext of m is `(1 + m n) h^rho mod n^2` with `h = (-x^2)^n` and rho of half as many bits as n; or, for
//! [subgroup keys](KeyType::Subgroup), with an h of small order and a shorter rho.

mod factors;
mod hiding;
mod parameters;
mod pool;
mod primes;
mod public;
mod secret;
mod side;
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod vectors;

use rand::CryptoRng;

use crate::arith::Residues;

pub use hiding::{HidingExponents, HidingRandomizers};
pub use parameters::{Hiding, KeyBits, KeyParameters, KeyType};
pub use pool::{Filler, RandomnessPool};
pub use public::PublicKey;
pub use secret::{SecretKey, SecretKeyBytes};

/// Who can make the random factors `h^rho` of ciphertexts: anyone by the public key, its owner faster by the primes,
/// and a [pool](RandomnessPool) that has made some before.
pub trait Randomizer: sealed::Sealed + Sync {
    /// Returns the key under which it encrypts.
    fn public_key(&self) -> &PublicKey;

    /// Returns `count` fresh encryptions of zero. Never hand one out twice.
    fn randomizers(&self, rng: &mut dyn CryptoRng, count: usize) -> Residues;
}

/// A foreign one could give residues of another ring, or others than it was asked for.
mod sealed {
    pub trait Sealed {}

    impl Sealed for super::PublicKey {}
    impl Sealed for super::SecretKey {}
    impl Sealed for super::RandomnessPool {}
}
