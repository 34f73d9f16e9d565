//! Random factors that hide how ciphertexts were made, even from the key's owner.

use std::ops::Range;

use rand::CryptoRng;

use super::public::random_exponents;
use super::{Hiding, PublicKey};
use crate::arith::{Comb, Exponent, MAX_LANES, Operations, Residues};

impl PublicKey {
    /// Makes the table that re-randomizing ciphertexts takes, if there is none yet: work that can be done before the
    /// ciphertexts come. Returns what it took, which [`operations`](Self::operations) leaves out.
    pub fn prepare_rerandomization(&self, hiding: Hiding) -> Operations {
        self.hiding_comb(self.parameters().hiding_exponent(hiding)).1
    }

    /// Returns random exponents of h, one for each ciphertext, that hide how these were made even from the key's owner.
    pub fn hiding_exponents(&self, rng: &mut dyn CryptoRng, hiding: Hiding) -> HidingExponents {
        let bits = self.parameters().hiding_exponent(hiding);
        HidingExponents {
            key: self.clone(),
            exponents: random_exponents(rng, hiding.ciphertexts, bits),
            bits,
        }
    }

    /// The table for exponents of so many bits, and what it took if it was made now.
    fn hiding_comb(&self, bits: usize) -> (&Comb, Operations) {
        let [short, long] = self.hiding_tables();
        let comb = if bits <= self.parameters().short_exponent() { short } else { long };
        let ring = self.ring().counted_apart();
        // A quick table is made by one thread: none that waits for others may hold this lock.
        let comb = comb.get_or_init(|| Comb::quick(&ring, self.h(), bits));
        (comb, ring.operations())
    }
}

/// Secret exponents of what re-randomizes a tensor: drawn first, so that the powers can be made beside other work.
pub struct HidingExponents {
    key: PublicKey,
    exponents: Vec<Exponent>,
    bits: usize,
}

impl HidingExponents {
    /// Returns the operations mod n^2 that each power takes, for exponents of so many bits, once there is a table.
    pub fn operations_each(bits: usize) -> Operations {
        Comb::quick_operations(bits)
    }

    /// Returns their powers of h.
    pub fn powers(&self) -> HidingRandomizers {
        let (comb, _) = self.key.hiding_comb(self.bits);
        let power = |range: Range<usize>| comb.power(self.key.ring(), &self.exponents[range]);
        // Two halves of a vector take a third more than a whole one, and other threads have other work meanwhile.
        let powers = match self.exponents.len() {
            count @ 0..=MAX_LANES => power(0..count),
            count => self.key.in_parallel(count, power),
        };
        HidingRandomizers { key: self.key.clone(), powers, bits: self.bits }
    }
}

/// Random factors that re-randomize a tensor, each to be used once.
pub struct HidingRandomizers {
    pub(crate) key: PublicKey,
    pub(crate) powers: Residues,
    /// Bits of their exponents.
    pub(crate) bits: usize,
}
