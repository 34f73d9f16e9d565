use rayon::prelude::*;

use super::limbs::BitRange;
use super::{Exponent, Residues, Ring};

/// Bits of an exponent that one row of a table takes: larger rows save products, but cost more products to make, and
/// reads, because every entry of a row is read to hide which one is used.
const WINDOW: usize = 5;

/// The same for tables that make many powers.
const WIDE_WINDOW: usize = 6;

/// Rows of a table that one task makes.
const ROWS_TOGETHER: usize = 8;

/// Powers of one base, `base^(digit 2^(w i))` for windows of w bits, so that a power of it costs one product for w
/// bits of exponent and no squaring (Brickell, Gordon, McCurley and Wilson, EUROCRYPT '92).
#[derive(Debug)]
pub struct Comb {
    window: usize,
    /// Tables of `2^window` residues in the order that the backend selects from.
    rows: Vec<Residues>,
    factored: bool,
}

impl Comb {
    /// The table for exponents of up to `exponent_bits` bits of the one residue in `base`, made quickly.
    pub fn new(ring: &Ring, base: &Residues, exponent_bits: usize) -> Self {
        let rows = make_rows(ring, base, exponent_bits.div_ceil(WINDOW), WINDOW);
        let rows = rows.par_iter().map(|row| ring.arrange_for_selection(row)).collect();
        Self { window: WINDOW, rows, factored: false }
    }

    /// A table that takes several times as long to make, and saves a third of the time of every power. It takes the
    /// inverse of the base as well.
    pub fn wide(ring: &Ring, base: &Residues, inverse: &Residues, exponent_bits: usize) -> Self {
        let count = exponent_bits.div_ceil(WIDE_WINDOW);
        let rows = make_rows(ring, base, count, WIDE_WINDOW);
        let inverses = make_rows(ring, inverse, count, WIDE_WINDOW);
        let factored: Option<Vec<Residues>> =
            rows.par_iter().zip(&inverses).map(|(row, inverses)| ring.factored(row, inverses)).collect();
        let (rows, factored) = factored.map_or((rows, false), |factored| (factored, true));
        let rows = rows.par_iter().map(|row| ring.arrange_for_selection(row)).collect();
        Self { window: WIDE_WINDOW, rows, factored }
    }

    /// Products that one power takes with a table that was made quickly, for an exponent of `exponent_bits` bits.
    pub fn products(exponent_bits: usize) -> u64 {
        exponent_bits.div_ceil(WINDOW) as u64
    }

    /// `base^exponents[i]` for each exponent, which must not have more bits than the table was made for.
    ///
    /// Constant-time: every entry of every row is read.
    pub fn power(&self, ring: &Ring, exponents: &[Exponent]) -> Residues {
        let window = self.window;
        debug_assert!(exponents.iter().all(|exponent| exponent.bits() <= self.rows.len() * window));
        let mut out = ring.ones(exponents.len());
        let bits = exponents.iter().map(Exponent::bits).max().unwrap_or(0);
        let rows = &self.rows[..bits.div_ceil(window)];
        ring.mul_assign_selected(&mut out, (rows, self.factored), &|row, residue| {
            exponents[residue].window(BitRange { start: row * window, width: window })
        });
        out
    }
}

/// Row i: the powers below `2^window` of `base^(2^(window i))`.
fn make_rows(ring: &Ring, base: &Residues, count: usize, window: usize) -> Vec<Residues> {
    let mut base = base.gather([0]);
    let bases: Vec<Residues> = (0..count)
        .map(|_| {
            let row_base = base.clone();
            ring.square_assign(&mut base, window);
            row_base
        })
        .collect();
    // Rows grow side by side, so that a batch is never a single residue.
    bases
        .par_chunks(ROWS_TOGETHER)
        .flat_map_iter(|bases| {
            let mut factors = ring.empty(bases.len());
            bases.iter().for_each(|base| factors.append(base));
            let mut powers = ring.ones(bases.len());
            let mut rows = vec![ring.ones(1); bases.len()];
            for _ in 1..1 << window {
                ring.mul_assign(&mut powers, &factors);
                for (index, row) in rows.iter_mut().enumerate() {
                    row.append(&powers.gather([index]));
                }
            }
            rows
        })
        .collect()
}
