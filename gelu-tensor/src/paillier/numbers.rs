//! One number a ciphertext, of any size below n: for protocols that do not pack.

use num_bigint::BigUint;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{PublicKey, Randomizer, SecretKey};
use crate::Error;
use crate::arith::limbs::{from_biguint, to_biguint};
use crate::arith::{Exponent, Residues};

impl PublicKey {
    /// n.
    pub fn modulus(&self) -> BigUint {
        to_biguint(self.ring().modulus())
    }

    /// The number's limbs as an exponent of n's bits.
    ///
    /// # Errors
    /// [`Error::Count`] when it is n or larger.
    pub fn exponent(&self, number: &BigUint) -> Result<Exponent, Error> {
        Ok(Exponent::new(self.limbs_of(number)?))
    }

    fn limbs_of(&self, number: &BigUint) -> Result<Vec<u64>, Error> {
        let bits = number.bits() as usize;
        if number >= &self.modulus() {
            let what = "bits of a number below n, at most";
            return Err(Error::Count { what, expected: self.size().bits(), found: bits });
        }
        Ok(from_biguint(number, self.ring().limbs()))
    }

    /// Fresh encryptions of numbers below n.
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
            plaintexts.extend(key.limbs_of(number)?);
        }
        Ok(key.add_plaintexts(&randomizer.randomizers(rng, numbers.len()), &plaintexts))
    }

    /// The same numbers in ciphertexts whose randomness hides how they were made, whatever exponents were used, even
    /// from the key's owner.
    pub fn hide(&self, mut ciphertexts: Residues, rng: &mut dyn CryptoRng) -> Residues {
        // Longer than any group of powers of h: those exponents are uniform in it.
        let longest = 4 * self.size().bits();
        let fresh = self.hiding_exponents(rng, ciphertexts.len(), longest).powers();
        self.ring().mul_assign(&mut ciphertexts, &fresh.powers);
        ciphertexts
    }
}

impl SecretKey {
    /// The numbers that ciphertexts hold, below n.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt).
    pub fn decrypt_numbers(&self, ciphertexts: &Residues) -> Result<Vec<BigUint>, Error> {
        let limbs = self.public_key().ring().limbs();
        Ok(self.decrypt(ciphertexts)?.chunks_exact(limbs).map(to_biguint).collect())
    }
}
