//! The ring Z_{2^l} of masked values and of sums of them.
//!
//! Masked values are uniform numbers mod 2^l. A weighted sum of them that is computed over the integers, as Paillier's plaintexts
//! are, shows more than its residue; so a random multiple of 2^l is added before anybody sees it (flooding).

#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;

use crate::Error;

/// The number l of bits of the ring Z_{2^l}: as many as sums need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingBits(u32);

impl RingBits {
    /// Returns the smallest ring that holds integers of up to `bound` in absolute value, with their sign.
    ///
    /// # Errors
    /// [`Error::Overflow`] when that takes more than 64 bits.
    pub fn holding(bound: u64) -> Result<Self, Error> {
        let bits = 65 - bound.leading_zeros();
        if bits > 64 {
            return Err(Error::Overflow { needed_bits: bits as usize, available_bits: 64 });
        }
        Ok(Self(bits))
    }

    /// Returns the bit width *l* of the ring.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Returns the residue in `[0, 2^l)`.
    pub fn wrap(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.0))
    }
}

/// How a multiple of 2^l is added to a sum of at most `quotient` times 2^l in absolute value, so that it shows nothing
/// but its residue mod 2^l, to a statistical distance of 2^-`bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    /// l.
    pub ring: RingBits,
    /// Sums stay below this times 2^l in absolute value.
    pub quotient: u64,
    /// Bits of the statistical distance.
    pub bits: u32,
}

impl Flood {
    /// The largest quotient and the most bits.
    const MOST: (u64, u32) = (1 << 40, 64);

    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the quotient is zero or above 2^40, or the bits above 64.
    pub fn check(self) -> Result<Self, Error> {
        if (1..=Self::MOST.0).contains(&self.quotient) && self.bits <= Self::MOST.1 {
            return Ok(self);
        }
        let needed_bits = (64 - self.quotient.leading_zeros()) as usize + self.bits as usize;
        Err(Error::Overflow { needed_bits, available_bits: (40 + Self::MOST.1) as usize })
    }

    /// Returns the number of multiples to draw from.
    pub(crate) fn choices(self) -> u128 {
        u128::from(self.quotient) << self.bits
    }

    /// Returns the bits of a slot that holds a flooded sum; more than any slot has for sizes that
    /// [`check`](Self::check) refuses.
    pub fn slot_bits(self) -> usize {
        if self.check().is_err() {
            return usize::MAX;
        }
        // From -quotient to 2 quotient + choices, exclusively, after the lowest multiple is added.
        let most = self.choices() + 2 * u128::from(self.quotient);
        (self.ring.bits() + 128 - (most - 1).leading_zeros()) as usize
    }
}
