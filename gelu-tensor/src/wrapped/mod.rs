//! Arithmetic mod 2^l on integers and under ciphertexts: what training on masked weights is made of.
//!
//! Masked weights are uniform numbers mod 2^l. A weighted sum of them that is computed over the integers, as Paillier's
//! plaintexts are, shows more than its residue; so a random multiple of 2^l is added before anybody sees it (flooding).

mod batch;
mod map;
#[cfg(test)]
mod tests;
mod update;

pub use batch::{EncBatch, Flood, WideLayout};
pub use map::{MapEntry, SparseMap};
pub use update::{EncRate, UpdateLayout};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The number l of bits of the ring Z_{2^l}.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct RingBits(u32);

impl RingBits {
    /// The sizes that can be chosen.
    pub const ALL: [Self; 4] = [Self(32), Self(40), Self(48), Self(64)];

    /// l.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The residue in `[0, 2^l)`.
    pub fn wrap(self, value: u64) -> u64 {
        value & (u64::MAX >> (64 - self.0))
    }

    /// The representative in `[-2^(l-1), 2^(l-1))`.
    pub fn signed(self, value: u64) -> i64 {
        let unused = 64 - self.0;
        (value << unused) as i64 >> unused
    }

    /// The largest absolute value that cannot be mistaken for another.
    pub fn bound(self) -> u64 {
        (1 << (self.0 - 1)) - 1
    }
}

impl Default for RingBits {
    fn default() -> Self {
        Self(40)
    }
}

impl From<RingBits> for u32 {
    fn from(ring: RingBits) -> Self {
        ring.0
    }
}

impl TryFrom<u32> for RingBits {
    type Error = Error;

    fn try_from(bits: u32) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|ring| ring.0 == bits).ok_or(Error::Count {
            what: "bits of the ring of masked weights (32, 40, 48 or 64)",
            expected: 40,
            found: bits as usize,
        })
    }
}

/// A run of up to 64 bits.
fn read_bits(limbs: &[u64], start: usize, width: usize) -> u64 {
    let (limb, shift) = (start / 64, start % 64);
    let low = limbs.get(limb).copied().unwrap_or(0) >> shift;
    let high = if shift == 0 { 0 } else { limbs.get(limb + 1).copied().unwrap_or(0) << (64 - shift) };
    (low | high) & (u64::MAX >> (64 - width))
}

/// Sets bits of a run of zeros from `start` on; the value must fit below the end.
fn write_bits(limbs: &mut [u64], start: usize, value: u64) {
    let (limb, shift) = (start / 64, start % 64);
    limbs[limb] |= value << shift;
    if shift > 0 && value >> (64 - shift) != 0 {
        limbs[limb + 1] |= value >> (64 - shift);
    }
}
