//! Ciphertexts without a tensor around them: for protocols that do not pack numbers, and for timing the engine.
//!
//! What an [`EncTensor`](crate::EncTensor) takes care of is the caller's here:
//!
//! - Nothing knows what a ciphertext holds. Sums and multiples of numbers wrap mod n, and nobody refuses them.
//! - A result tells the key's owner by its randomness how it was made, until it is [hidden](hide).
//! - A random factor opens the ciphertext that it was used for, and two if it is used twice.
//! - What a decryption gives is not for whoever made the ciphertext.
//!
//! Batches of another key or backend, and of other lengths than an operation takes, are typed errors.
//!
//! ```
//! use gelu_tensor::hazmat;
//! use gelu_tensor::paillier::{KeyBits, SecretKey};
//!
//! let rng = &mut rand::rng();
//! let key = SecretKey::generate(KeyBits::Bits1024, rng)?; // 1,024 bits: for tests only
//! let public = key.public_key();
//! let numbers = [20u8, 1].map(Into::into);
//! let mut sums = hazmat::encrypt_numbers(public, &numbers, rng)?;
//! let doubled = hazmat::power(public, &sums, &hazmat::exponent(public, &2u8.into())?)?;
//! hazmat::multiply(public, &mut sums, &doubled)?;
//! let sums = hazmat::hide(public, sums, rng)?;
//! assert_eq!(hazmat::decrypt_numbers(&key, &sums)?, [60u8, 3].map(Into::into));
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

/// Returns the residues of [encoded](encode) ciphertexts, each of which was checked to be one.
///
/// # Errors
/// [`Error::Count`] when the bytes are not a whole number of ciphertexts; [`Error::Ciphertext`] when one is not below n^2,
/// or shares a factor with n.
pub fn decode(key: &PublicKey, ciphertexts: &[u8]) -> Result<Residues, Error> {
    key.decode(ciphertexts)
}

/// Returns the residues as numbers below n^2, each in [`PublicKey::ciphertext_bytes`] bytes.
///
/// # Errors
/// [`Error::ForeignResidues`].
pub fn encode(key: &PublicKey, residues: &Residues) -> Result<Vec<u8>, Error> {
    key.ring().check(residues)?;
    Ok(key.encode(residues))
}

/// Returns fresh encryptions of numbers below n.
///
/// # Errors
/// [`Error::Count`] when one is n or larger.
pub fn encrypt_numbers(
    randomizer: &dyn Randomizer,
    numbers: &[BigUint],
    rng: &mut dyn CryptoRng,
) -> Result<Residues, Error> {
    let key = randomizer.public_key();
    let mut plaintexts = Zeroizing::new(Vec::with_capacity(numbers.len() * key.ring().limbs()));
    for number in numbers {
        plaintexts.extend(limbs_of(key, number)?);
    }
    Ok(key.add_plaintexts(&randomizer.randomizers(rng, numbers.len()), &plaintexts))
}

/// Returns the numbers that ciphertexts hold, below n.
///
/// # Errors
/// [`Error::ForeignResidues`]; [`Error::Randomness`] when a ciphertext was not made under the key.
pub fn decrypt_numbers(key: &SecretKey, ciphertexts: &Residues) -> Result<Vec<BigUint>, Error> {
    let ring = key.public_key().ring();
    ring.check(ciphertexts)?;
    Ok(key.decrypt(ciphertexts)?.chunks_exact(ring.limbs()).map(to_biguint).collect())
}

/// Multiplies each residue with that of the other batch in its place: the sums of what they hold.
///
/// # Errors
/// [`Error::ForeignResidues`]; [`Error::Count`] when the batches differ in length.
pub fn multiply(key: &PublicKey, x: &mut Residues, y: &Residues) -> Result<(), Error> {
    key.ring().check(x)?;
    key.ring().check(y)?;
    if x.len() != y.len() {
        return Err(Error::Count { what: "factors of a batch", expected: x.len(), found: y.len() });
    }
    key.ring().mul_assign(x, y);
    Ok(())
}

/// Squares each residue as many times: what they hold times a power of two.
///
/// # Errors
/// [`Error::ForeignResidues`].
pub fn square(key: &PublicKey, x: &mut Residues, times: usize) -> Result<(), Error> {
    key.ring().check(x)?;
    key.ring().square_assign(x, times);
    Ok(())
}

/// Returns a power of each residue, in a time that depends on the exponent's number of bits only.
///
/// # Errors
/// [`Error::ForeignResidues`].
pub fn power(key: &PublicKey, x: &Residues, exponent: &Exponent) -> Result<Residues, Error> {
    key.ring().check(x)?;
    Ok(key.ring().power(x, exponent))
}

/// Returns a number as an exponent of as many bits as n has.
///
/// # Errors
/// [`Error::Count`] when it is n or larger.
pub fn exponent(key: &PublicKey, number: &BigUint) -> Result<Exponent, Error> {
    Ok(Exponent::new(limbs_of(key, number)?))
}

/// Returns the same numbers in ciphertexts whose randomness hides how they were made, whatever exponents were used, even
/// from the key's owner.
///
/// # Errors
/// [`Error::ForeignResidues`].
pub fn hide(key: &PublicKey, ciphertexts: Residues, rng: &mut dyn CryptoRng) -> Result<Residues, Error> {
    key.ring().check(&ciphertexts)?;
    // Longer than any group of powers of h: those exponents are uniform in it.
    let hiding = Hiding::of(ciphertexts.len(), 4 * key.size().bits());
    let fresh = key.hiding_exponents(rng, hiding).powers();
    Ok(key.multiply(&ciphertexts, &fresh.powers))
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
