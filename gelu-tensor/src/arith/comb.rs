use super::limbs::{BitRange, select_row};
use super::{Exponent, Residues, Ring};

/// Bits of an exponent that one table row takes: larger rows save products and cost reads, because every entry of
/// a row is read to hide which one is used.
const WINDOW: usize = 5;

/// Powers of one base, `base^(digit 2^(5 i))`, so that a power of it costs one product for five bits of exponent
/// and no squaring (Brickell, Gordon, McCurley and Wilson, EUROCRYPT '92).
#[derive(Debug)]
pub struct Comb {
    rows: Vec<Residues>,
}

impl Comb {
    /// The table for exponents of up to `exponent_bits` bits of the one residue in `base`.
    pub fn new(ring: &Ring, base: &Residues, exponent_bits: usize) -> Self {
        let mut base = base.gather([0]);
        let rows = (0..exponent_bits.div_ceil(WINDOW))
            .map(|_| {
                let mut row = ring.ones(1);
                for digit in 0..(1 << WINDOW) - 1 {
                    ring.push_multiples(&mut row, digit..digit + 1, (&base, 0));
                }
                ring.square_assign(&mut base, WINDOW);
                row
            })
            .collect();
        Self { rows }
    }

    /// `base^exponents[i]` for each exponent, which must not have more bits than the table was made for.
    ///
    /// Constant-time: every entry of every row is read.
    pub fn power(&self, ring: &Ring, exponents: &[Exponent]) -> Residues {
        debug_assert!(exponents.iter().all(|exponent| exponent.bits() <= self.rows.len() * WINDOW));
        let width = ring.width();
        let mut out = ring.ones(exponents.len());
        let mut factor = out.clone();
        for (index, row) in self.rows.iter().enumerate() {
            let range = BitRange { start: index * WINDOW, width: WINDOW };
            for (factor, exponent) in factor.limbs_mut().chunks_exact_mut(width).zip(exponents) {
                select_row(factor, row.limbs(), exponent.window(range));
            }
            ring.mul_assign(&mut out, &factor);
        }
        out
    }
}
