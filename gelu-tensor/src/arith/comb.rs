//! Tables for powers of one base: encryption and re-randomization.

use rayon::prelude::*;

use super::limbs::BitRange;
use super::{Exponent, MAX_LANES, Operations, Residues, Ring};

/// Bits of an exponent that one row of a table takes. Larger rows save products, but cost more products to make, and
/// reads, because every entry of a row is read to hide which one is used.
pub(super) const WINDOW: usize = 6;

/// Powers of one base by tables of a few of its powers.
///
/// A [quick](Self::quick) table takes little more to make than the squarings of the base: its rows hold the products
/// of six powers of the base that lie far apart, and an exponentiation squares a few times (Lim and Lee, CRYPTO '94).
/// A [wide](Self::wide) one holds `base^(digit 2^(6 i))`, so that nothing is squared (Brickell, Gordon, McCurley and
/// Wilson, EUROCRYPT '92).
#[derive(Debug)]
pub(crate) struct Comb {
    /// Tables of `2^WINDOW` residues in the order that the backend selects from.
    rows: Vec<Residues>,
    /// How many times a power goes through all rows.
    rounds: usize,
    factored: bool,
}

impl Comb {
    /// The table for exponents of up to `exponent_bits` bits of the one residue in `base`, made quickly.
    pub(crate) fn quick(ring: &Ring, base: &Residues, exponent_bits: usize) -> Self {
        let rounds = quick_rounds(exponent_bits);
        // Row r takes bits k + rounds (r + MAX_LANES i) of an exponent, for i in 0..WINDOW, in round k from the top.
        let bases = powers_of_two(ring, base, [WINDOW * MAX_LANES, rounds]);
        let mut rows = vec![ring.ones(1); MAX_LANES];
        let mut table = ring.ones(MAX_LANES);
        for i in 0..WINDOW {
            let factors = bases.gather(i * MAX_LANES..(i + 1) * MAX_LANES);
            let known = table.len() / MAX_LANES;
            for entry in 0..known {
                let mut products = table.gather(entry * MAX_LANES..(entry + 1) * MAX_LANES);
                ring.mul_assign(&mut products, &factors);
                table.append(&products);
            }
        }
        for (r, row) in rows.iter_mut().enumerate() {
            *row = ring
                .arrange_for_selection(&table.gather((0..1 << WINDOW).map(|entry| entry * MAX_LANES + r)));
        }
        Self { rows, rounds, factored: false }
    }

    /// A table that takes many times as long to make, and saves a fifth to a third of the time of every power. It
    /// takes the inverse of the base as well.
    pub(crate) fn wide(ring: &Ring, base: &Residues, inverse: &Residues, exponent_bits: usize) -> Self {
        let count = exponent_bits.div_ceil(WINDOW);
        let rows = power_rows(ring, &powers_of_two(ring, base, [count, WINDOW]));
        let inverses = power_rows(ring, &powers_of_two(ring, inverse, [count, WINDOW]));
        let may_factor = count <= ring.most_factored_rows();
        let factored: Option<Vec<Residues>> = rows
            .par_iter()
            .zip(&inverses)
            .map(|(row, inverses)| may_factor.then(|| ring.factored(row, inverses)).flatten())
            .collect();
        let (rows, factored) = factored.map_or((rows, false), |factored| (factored, true));
        let rows = rows.par_iter().map(|row| ring.arrange_for_selection(row)).collect();
        Self { rows, rounds: 1, factored }
    }

    /// Operations that one power takes with a table that was made quickly, for an exponent of `exponent_bits` bits.
    pub(crate) fn quick_operations(exponent_bits: usize) -> Operations {
        let rounds = quick_rounds(exponent_bits) as u64;
        Operations { products: rounds * MAX_LANES as u64, squarings: rounds - 1 }
    }

    /// `base^exponents[i]` for each exponent, which must not have more bits than the table was made for.
    ///
    /// Constant-time: every entry of every row is read.
    pub(crate) fn power(&self, ring: &Ring, exponents: &[Exponent]) -> Residues {
        let Self { rows, rounds, factored } = self;
        debug_assert!(exponents.iter().all(|exponent| exponent.bits() <= rows.len() * rounds * WINDOW));
        let mut out = ring.ones(exponents.len());
        if *rounds == 1 {
            ring.mul_assign_selected(&mut out, (rows, *factored), 1, &|row, residue| {
                exponents[residue].window(BitRange { start: row * WINDOW, width: WINDOW })
            });
        } else {
            ring.mul_assign_selected(&mut out, (rows, *factored), *rounds, &|index, residue| {
                let (round, row) = (rounds - 1 - index / MAX_LANES, index % MAX_LANES);
                (0..WINDOW).fold(0, |digit, i| {
                    digit | exponents[residue].bit(round + rounds * (row + MAX_LANES * i)) << i
                })
            });
        }
        out
    }
}

/// Rounds of a table that is made quickly; more than one, which tells it from a wide one.
fn quick_rounds(exponent_bits: usize) -> usize {
    exponent_bits.div_ceil(WINDOW * MAX_LANES).max(2)
}

/// `base^(2^(step i))` for i in 0..count.
fn powers_of_two(ring: &Ring, base: &Residues, [count, step]: [usize; 2]) -> Residues {
    let mut power = base.gather([0]);
    let mut powers = power.clone();
    for _ in 1..count {
        ring.square_assign(&mut power, step);
        powers.append(&power);
    }
    powers
}

/// Row i: the powers below `2^WINDOW` of base i.
fn power_rows(ring: &Ring, bases: &Residues) -> Vec<Residues> {
    let count = bases.len();
    // Rows grow side by side, so that a batch is never a single residue.
    let starts: Vec<usize> = (0..count).step_by(MAX_LANES).collect();
    starts
        .par_iter()
        .flat_map_iter(|&start| {
            let factors = bases.gather(start..count.min(start + MAX_LANES));
            let mut powers = ring.ones(factors.len());
            let mut rows = vec![ring.ones(1); factors.len()];
            for _ in 1..1 << WINDOW {
                ring.mul_assign(&mut powers, &factors);
                for (index, row) in rows.iter_mut().enumerate() {
                    row.append(&powers.gather([index]));
                }
            }
            rows
        })
        .collect()
}
