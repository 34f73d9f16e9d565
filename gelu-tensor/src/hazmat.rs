//! Ciphertexts without a tensor around them: for protocols that do not pack numbers, and for timing the engine.
//!
//! What an [`EncTensor`](crate::EncTensor) takes care of is the caller's here:
//!
//! - Nothing knows what a ciphertext holds. Sums and multiples of numbers wrap mod n, and nobody refuses them.
//! - A result tells the key's owner by its randomness how it was made, until it is [hidden](Residues::hide).
//! - A random factor opens the ciphertext that it was used for, and two if it is used twice.
//! - What a decryption gives is not for whoever made the ciphertext.
//!
//! Batches of another key or backend, and of other lengths than an operation takes, are typed errors.
//!
//! ```
//! use gelu_tensor::hazmat::{Exponent, Residues};
//! use gelu_tensor::paillier::{KeyBits, SecretKey};
//!
//! let rng = &mut rand::rng();
//! let key = SecretKey::generate(KeyBits::Bits1024, rng)?; // 1,024 bits: for tests only
//! let public = key.public_key();
//! let numbers = [20u8, 1].map(Into::into);
//! let mut sums = Residues::encrypt(public, &numbers, rng)?;
//! let doubled = sums.power(public, &Exponent::of(public, &2u8.into())?)?;
//! sums.multiply(public, &doubled)?;
//! let sums = sums.hide(public, rng)?;
//! assert_eq!(sums.decrypt(&key)?, [60u8, 3].map(Into::into));
//! # Ok::<(), gelu_tensor::Error>(())
//! ```

use num_bigint::BigUint;
use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::Error;
use crate::arith::Comb;
use crate::arith::limbs::{from_biguint, to_biguint};
pub use crate::arith::{Exponent, Residues};
use crate::paillier::{Hiding, PublicKey, Randomizer, SecretKey};

impl Residues {
    /// Returns the residues of [encoded](Self::encode) ciphertexts, each of which was checked to be one.
    ///
    /// # Errors
    /// [`Error::Count`] when the bytes are not a whole number of ciphertexts; [`Error::Ciphertext`] when one is not below n^2,
    /// or shares a factor with n.
    pub fn decode(key: &PublicKey, ciphertexts: &[u8]) -> Result<Self, Error> {
        key.decode(ciphertexts)
    }

    /// Returns fresh encryptions of numbers below n.
    ///
    /// # Errors
    /// [`Error::Count`] when one is n or larger.
    pub fn encrypt(
        randomizer: &dyn Randomizer,
        numbers: &[BigUint],
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let key = randomizer.public_key();
        let mut plaintexts = Zeroizing::new(Vec::with_capacity(numbers.len() * key.ring().limbs()));
        for number in numbers {
            plaintexts.extend(limbs_of(key, number)?);
        }
        Ok(key.add_plaintexts(&randomizer.randomizers(rng, numbers.len()), &plaintexts))
    }

    /// Returns the residues as numbers below n^2, each in [`PublicKey::ciphertext_bytes`] bytes.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`].
    pub fn encode(&self, key: &PublicKey) -> Result<Vec<u8>, Error> {
        key.ring().check(self)?;
        Ok(key.encode(self))
    }

    /// Returns the numbers that they hold as ciphertexts, below n.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`]; [`Error::Randomness`] when a ciphertext was not made under the key.
    pub fn decrypt(&self, key: &SecretKey) -> Result<Vec<BigUint>, Error> {
        let ring = key.public_key().ring();
        ring.check(self)?;
        Ok(key.decrypt(self)?.chunks_exact(ring.limbs()).map(to_biguint).collect())
    }

    /// Multiplies each residue with that of the other batch in its place: the sums of what they hold.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`]; [`Error::Count`] when the batches differ in length.
    pub fn multiply(&mut self, key: &PublicKey, factors: &Self) -> Result<(), Error> {
        key.ring().check(self)?;
        key.ring().check(factors)?;
        let (expected, found) = (self.len(), factors.len());
        if found != expected {
            return Err(Error::Count { what: "factors of a batch", expected, found });
        }
        key.ring().mul_assign(self, factors);
        Ok(())
    }

    /// Squares each residue as many times: what they hold times a power of two.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`].
    pub fn square(&mut self, key: &PublicKey, times: usize) -> Result<(), Error> {
        key.ring().check(self)?;
        key.ring().square_assign(self, times);
        Ok(())
    }

    /// Returns a power of each residue, in a time that depends on the exponent's number of bits only.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`].
    pub fn power(&self, key: &PublicKey, exponent: &Exponent) -> Result<Self, Error> {
        key.ring().check(self)?;
        Ok(key.ring().power(self, exponent))
    }

    /// Returns the same numbers in ciphertexts whose randomness hides how they were made, whatever exponents were used, even
    /// from the key's owner.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`].
    pub fn hide(&self, key: &PublicKey, rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        key.ring().check(self)?;
        // Longer than any group of powers of h: those exponents are uniform in it.
        let hiding = Hiding::of(self.len(), 4 * key.size().bits());
        let fresh = key.hiding_exponents(rng, hiding).powers();
        Ok(key.multiply(self, &fresh.powers))
    }
}

impl Exponent {
    /// Returns a number as an exponent of as many bits as n has.
    ///
    /// # Errors
    /// [`Error::Count`] when it is n or larger.
    pub fn of(key: &PublicKey, number: &BigUint) -> Result<Self, Error> {
        Ok(Self::new(limbs_of(key, number)?))
    }
}

fn limbs_of(key: &PublicKey, number: &BigUint) -> Result<Vec<u64>, Error> {
    let found = number.bits() as usize;
    if number >= &key.modulus() {
        let what = "bits of a number below n";
        return Err(Error::Limit { what, limit: key.size().bits(), found });
    }
    Ok(from_biguint(number, key.ring().limbs()))
}

/// Powers of one base by a table of a few of its powers.
#[derive(Debug)]
pub struct FixedBase {
    key: PublicKey,
    comb: Comb,
    bits: usize,
}

impl FixedBase {
    /// Returns the table for exponents of up to `bits` bits of the one residue in `base`.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`]; [`Error::Count`] when it is not one.
    pub fn new(key: &PublicKey, base: &Residues, bits: usize) -> Result<Self, Error> {
        key.ring().check(base)?;
        if base.len() != 1 {
            return Err(Error::Count { what: "bases", expected: 1, found: base.len() });
        }
        Ok(Self { key: key.clone(), comb: Comb::quick(key.ring(), base, bits), bits })
    }

    /// Returns the power with each exponent, in a time that does not depend on their values.
    ///
    /// # Errors
    /// [`Error::Count`] when one has more bits than the table is for.
    pub fn power(&self, exponents: &[Exponent]) -> Result<Residues, Error> {
        let found = exponents.iter().map(Exponent::bits).max().unwrap_or(0);
        if found > self.bits {
            return Err(Error::Limit { what: "bits of an exponent", limit: self.bits, found });
        }
        Ok(self.comb.power(self.key.ring(), exponents))
    }
}
