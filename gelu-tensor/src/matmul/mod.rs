//! The one primitive of the server: an integer matrix times a matrix of ciphertexts.
//!
//! A column of the ciphertext matrix is a list of ciphertexts out of a pool, so that im2col copies nothing. Negative
//! weights: with k bits, `sum w c = sum u c - 2^(k-1) sum c` for `u = w + 2^(k-1) >= 0`, so that the columns' sums
//! are inverted, and not the outputs. No operation depends on the value of a weight.

mod cost;
mod look_ups;
mod tables;
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;

use std::ops::Range;

pub(crate) use cost::MatmulShape;
pub use cost::Strategy;
use rayon::prelude::*;

use self::look_ups::LookUps;
use self::tables::Tables;
use crate::arith::{Entry, MAX_LANES, Residues, Ring};
use crate::{Error, WeightRange};

/// Columns whose subset tables are held at a time, which bounds their memory.
const COLUMN_BLOCK: usize = 64;

/// A matrix of ciphertexts as lists of indices into a pool.
pub(crate) struct Columns {
    pool: Residues,
    indices: Vec<u32>,
    taps: usize,
}

impl Columns {
    /// The columns over a pool whose `taps` entries each are the `indices`; `None` is an encryption of zero.
    pub(crate) fn new(
        ring: &Ring,
        mut pool: Residues,
        taps: usize,
        indices: impl IntoIterator<Item = Option<usize>>,
    ) -> Self {
        let zero = pool.len() as u32;
        let indices: Vec<u32> =
            indices.into_iter().map(|index| index.map_or(zero, |index| index as u32)).collect();
        if indices.contains(&zero) {
            pool.append(&ring.ones(1));
        }
        Self { pool, indices, taps }
    }

    fn len(&self) -> usize {
        self.indices.len() / self.taps
    }

    fn column(&self, column: usize) -> &[u32] {
        &self.indices[column * self.taps..][..self.taps]
    }
}

/// A matrix of integer weights made non-negative, of up to 64 bits each.
pub(crate) struct Matrix {
    /// How many columns.
    pub(crate) columns: usize,
    /// Bits of a weight, and whether half their range has to be taken off again.
    pub(crate) range: WeightRange,
    /// Row by row.
    pub(crate) values: Vec<u64>,
}

impl Matrix {
    /// The matrix for columns of which several share a ciphertext as fields: a row becomes as many, the first of which has
    /// the weights of the last fields. Moved up by a field each, the products with them add up to a polynomial whose middle
    /// coefficient is the row's sum.
    pub(crate) fn with_fields(self, fields: usize) -> Self {
        if fields == 1 {
            return self;
        }
        let zero = if self.range.signed { 1 << (self.range.bits - 1) } else { 0 };
        let packs = self.columns.div_ceil(fields);
        let mut values = Vec::with_capacity(self.rows() * fields * packs);
        for row in self.values.chunks_exact(self.columns) {
            for field in (0..fields).rev() {
                let weights = (0..packs).map(|pack| row.get(pack * fields + field));
                values.extend(weights.map(|weight| weight.copied().unwrap_or(zero)));
            }
        }
        Self { columns: packs, range: self.range, values }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.columns
    }
}

/// `matrix` times every column: for each column, the ciphertexts of all rows, in order.
///
/// # Errors
/// [`Error::Count`] when the matrix has another number of columns than there are taps; [`Error::Ciphertext`] when a
/// ciphertext is no unit.
pub(crate) fn multiply(
    ring: &Ring,
    matrix: &Matrix,
    columns: &Columns,
    strategy: Strategy,
) -> Result<Residues, Error> {
    if matrix.columns != columns.taps {
        return Err(Error::Count {
            what: "inputs of a matrix row",
            expected: matrix.columns,
            found: columns.taps,
        });
    }
    let look_ups = LookUps::new(matrix, strategy);
    let block = match strategy {
        Strategy::Subset { .. } => COLUMN_BLOCK,
        Strategy::Window { .. } => columns.len(),
    };
    let mut out = ring.empty(columns.len() * matrix.rows());
    for start in (0..columns.len()).step_by(block) {
        let block = start..columns.len().min(start + block);
        let tables = Tables::new(ring, columns, block.clone(), strategy);
        let count = block.len() * matrix.rows();
        // An inversion leaves cores idle, which work on the sums meanwhile.
        let (mut sums, offsets) = rayon::join(
            || horner(ring, &look_ups, &tables, (count, matrix.rows())),
            || matrix.range.signed.then(|| offsets(ring, matrix, &tables)).transpose(),
        );
        if let Some(offsets) = offsets? {
            sums.par_iter_mut().enumerate().for_each(|(part, sums)| {
                let first = part * MAX_LANES;
                let columns = (first..first + sums.len()).map(|output| output / matrix.rows());
                ring.mul_assign(sums, &offsets.gather(columns));
            });
        }
        sums.iter().for_each(|sums| out.append(sums));
        // Wiping them takes as long as a few hundred products.
        tables.batches.into_par_iter().for_each(drop);
    }
    Ok(out)
}

/// The outputs of some columns, column by column, without the offset of signed weights, in runs of a few: Horner's rule
/// over the digits of the weights, from the top, in as many parts as [`parts`] says, and then over the parts.
fn horner(ring: &Ring, look_ups: &LookUps, tables: &Tables, (count, rows): (usize, usize)) -> Vec<Residues> {
    let parts = parts(count, look_ups.digits);
    let digits = look_ups.digits / parts;
    let runs = |count: usize| {
        (0..count.div_ceil(MAX_LANES))
            .into_par_iter()
            .map(move |run| run * MAX_LANES..count.min((run + 1) * MAX_LANES))
    };
    // Output by output, part by part.
    let sums = runs(count * parts).map(|run| {
        let entries = |digit: usize| {
            let look_ups: Vec<_> = run
                .clone()
                .map(|at| (at / parts, at % parts * digits + digit))
                .map(|(output, digit)| (output / rows, look_ups.of(output % rows, digit)))
                .collect();
            let entry = |table: usize, &(column, digits): &(usize, &[u32])| {
                tables.entry(column, table, digits[table])
            };
            (0..tables.per_column())
                .flat_map(|table| look_ups.iter().map(move |look_up| entry(table, look_up)))
                .collect::<Vec<Entry>>()
        };
        let top = entries(0);
        let (first, others) = top.split_at(run.len());
        let mut sums = tables.gather(ring, first.iter().copied());
        ring.mul_assign_gather(&mut sums, &tables.batches, others);
        for digit in 1..digits {
            ring.square_assign(&mut sums, look_ups.digit_bits);
            ring.mul_assign_gather(&mut sums, &tables.batches, &entries(digit));
        }
        sums
    });
    let sums: Vec<Residues> = sums.collect();
    if parts == 1 {
        return sums;
    }
    let whole = |outputs: Range<usize>| {
        let of = |part: usize| {
            let mut factors = ring.empty(outputs.len());
            for at in outputs.clone().map(|output| output * parts + part) {
                factors.append_one(&sums[at / MAX_LANES], at % MAX_LANES);
            }
            factors
        };
        let mut whole = of(0);
        for part in 1..parts {
            ring.square_assign(&mut whole, look_ups.digit_bits * digits);
            ring.mul_assign(&mut whole, &of(part));
        }
        whole
    };
    runs(count).map(whole).collect()
}

/// In how many parts, of equally many digits, Horner's rule goes over so many digits of the weights of so many outputs.
/// Few outputs leave lanes and threads empty, which the digits fill if each is a part.
fn parts(outputs: usize, digits: usize) -> usize {
    const FEW: usize = 4 * MAX_LANES;
    if outputs < FEW && !outputs.is_multiple_of(MAX_LANES) { digits } else { 1 }
}

/// For each column what takes the offset of signed weights back: `-2^(k-1)` times the sum of its ciphertexts, for
/// weights of k bits.
fn offsets(ring: &Ring, matrix: &Matrix, tables: &Tables) -> Result<Residues, Error> {
    let sums = tables.column_sums(ring);
    let rule = "must be a unit mod n^2";
    let mut offsets = ring.invert_vartime(&sums).ok_or(Error::Ciphertext { index: 0, rule })?;
    ring.square_assign(&mut offsets, matrix.range.bits as usize - 1);
    Ok(offsets)
}
