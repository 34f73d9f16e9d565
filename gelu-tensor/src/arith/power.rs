use zeroize::Zeroizing;

use super::limbs::{BitRange, bits};
use super::{Residues, Ring};

/// Bits of an exponent that one table look-up takes.
const WINDOW: usize = 5;

/// A non-negative exponent of a public number of bits. Wiped when dropped, never printed.
pub struct Exponent {
    limbs: Zeroizing<Vec<u64>>,
    bits: usize,
}

impl Exponent {
    /// The exponent in little-endian limbs, which has at most `64 * limbs.len()` bits.
    pub fn new(limbs: Vec<u64>) -> Self {
        let bits = 64 * limbs.len();
        Self { limbs: Zeroizing::new(limbs), bits }
    }

    /// How many bits it may have: what the time of an exponentiation depends on.
    pub fn bits(&self) -> usize {
        self.bits
    }

    pub(super) fn window(&self, range: BitRange) -> u64 {
        bits(&self.limbs, range)
    }
}

impl Ring {
    /// `x[i]^exponent`, by fixed windows. The time depends on the exponent's bit count, not on its value, and no
    /// address depends on either.
    pub fn power(&self, x: &Residues, exponent: &Exponent) -> Residues {
        let mut tables = vec![self.ones(1); x.len()];
        let mut power = self.ones(x.len());
        for _ in 1..1 << WINDOW {
            self.mul_assign(&mut power, x);
            for (index, table) in tables.iter_mut().enumerate() {
                table.append(&power.gather([index]));
            }
        }
        let mut out = self.ones(x.len());
        for window in (0..exponent.bits().div_ceil(WINDOW)).rev() {
            self.square_assign(&mut out, WINDOW);
            let digit = exponent.window(BitRange { start: window * WINDOW, width: WINDOW });
            self.mul_assign_selected(&mut out, tables.iter(), std::iter::repeat(digit));
        }
        out
    }
}
