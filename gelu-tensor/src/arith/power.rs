//! Exponents of public length and secret value.

use zeroize::Zeroizing;

use super::limbs::{BitRange, bits};

/// A non-negative exponent of a public number of bits. Wiped when dropped, never printed.
pub struct Exponent {
    limbs: Zeroizing<Vec<u64>>,
    bits: usize,
}

impl Exponent {
    /// Returns the exponent in little-endian limbs, which has at most `64 * limbs.len()` bits.
    pub fn new(limbs: Vec<u64>) -> Self {
        let bits = 64 * limbs.len();
        Self { limbs: Zeroizing::new(limbs), bits }
    }

    /// The same exponent, which is known to have at most `bits` bits.
    pub(crate) fn of_bits(self, bits: usize) -> Self {
        Self { bits: bits.min(self.bits), ..self }
    }

    /// Returns the number of bits that it may have: what the time of an exponentiation depends on.
    pub(crate) fn bits(&self) -> usize {
        self.bits
    }

    /// Its little-endian limbs.
    pub(crate) fn limbs(&self) -> &[u64] {
        &self.limbs
    }

    pub(super) fn window(&self, range: BitRange) -> u64 {
        bits(&self.limbs, range)
    }

    pub(super) fn bit(&self, at: usize) -> u64 {
        self.limbs.get(at / 64).map_or(0, |limb| limb >> (at % 64) & 1)
    }

    /// Its digits in base `2^width`, the highest first.
    pub(super) fn digits_from_top(&self, width: usize) -> impl Iterator<Item = u64> {
        (0..self.bits.div_ceil(width))
            .rev()
            .map(move |digit| self.window(BitRange { start: digit * width, width }))
    }
}
