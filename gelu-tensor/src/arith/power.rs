use zeroize::Zeroizing;

use super::limbs::{BitRange, bits, select_row};
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
        let width = self.width();
        let tables: Vec<Residues> = (0..x.len())
            .map(|i| {
                let mut table = self.ones(1);
                for power in 0..(1 << WINDOW) - 1 {
                    self.push_multiples(&mut table, power..power + 1, (x, i));
                }
                table
            })
            .collect();
        let mut out = self.ones(x.len());
        let mut factor = self.ones(x.len());
        for window in (0..exponent.bits().div_ceil(WINDOW)).rev() {
            self.square_assign(&mut out, WINDOW);
            let digit = exponent.window(BitRange { start: window * WINDOW, width: WINDOW });
            for (factor, table) in factor.limbs_mut().chunks_exact_mut(width).zip(&tables) {
                select_row(factor, table.limbs(), digit);
            }
            self.mul_assign(&mut out, &factor);
        }
        out
    }
}
