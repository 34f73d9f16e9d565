use rayon::prelude::*;

use super::limbs::BitRange;
use super::{Exponent, Residues, Ring};

/// Bits of an exponent that one table row takes: larger rows save products and cost reads, because every entry of
/// a row is read to hide which one is used.
pub(super) const WINDOW: usize = 5;

/// Rows of a table that one task makes.
const ROWS_TOGETHER: usize = 8;

/// Powers of one base, `base^(digit 2^(5 i))`, so that a power of it costs one product for five bits of exponent
/// and no squaring (Brickell, Gordon, McCurley and Wilson, EUROCRYPT '92).
#[derive(Debug)]
pub struct Comb {
    /// Tables of 32 residues in the order that the backend selects from.
    rows: Vec<Residues>,
}

impl Comb {
    /// The table for exponents of up to `exponent_bits` bits of the one residue in `base`.
    pub fn new(ring: &Ring, base: &Residues, exponent_bits: usize) -> Self {
        let mut base = base.gather([0]);
        let bases: Vec<Residues> = (0..exponent_bits.div_ceil(WINDOW))
            .map(|_| {
                let row_base = base.clone();
                ring.square_assign(&mut base, WINDOW);
                row_base
            })
            .collect();
        // Rows grow side by side, so that a batch is never a single residue.
        let rows = bases
            .par_chunks(ROWS_TOGETHER)
            .flat_map_iter(|bases| {
                let mut factors = ring.empty(bases.len());
                bases.iter().for_each(|base| factors.append(base));
                let mut powers = ring.ones(bases.len());
                let mut rows = vec![ring.ones(1); bases.len()];
                for _ in 1..1 << WINDOW {
                    ring.mul_assign(&mut powers, &factors);
                    for (index, row) in rows.iter_mut().enumerate() {
                        row.append(&powers.gather([index]));
                    }
                }
                rows.into_iter().map(|row| ring.arrange_for_selection(row))
            })
            .collect();
        Self { rows }
    }

    /// Products that one power takes, for an exponent of `exponent_bits` bits.
    pub fn products(exponent_bits: usize) -> u64 {
        exponent_bits.div_ceil(WINDOW) as u64
    }

    /// `base^exponents[i]` for each exponent, which must not have more bits than the table was made for.
    ///
    /// Constant-time: every entry of every row is read.
    pub fn power(&self, ring: &Ring, exponents: &[Exponent]) -> Residues {
        debug_assert!(exponents.iter().all(|exponent| exponent.bits() <= self.rows.len() * WINDOW));
        let mut out = ring.ones(exponents.len());
        let bits = exponents.iter().map(Exponent::bits).max().unwrap_or(0);
        ring.mul_assign_rows(&mut out, &self.rows[..bits.div_ceil(WINDOW)], &|row, residue| {
            exponents[residue].window(BitRange { start: row * WINDOW, width: WINDOW })
        });
        out
    }
}
