//! The one primitive of the server: an integer matrix times a matrix of ciphertexts.
//!
//! A column of the ciphertext matrix is a list of ciphertexts out of a pool, so that im2col copies nothing. Negative
//! weights: with k bits, `sum w c = sum u c - 2^(k-1) sum c` for `u = w + 2^(k-1) >= 0`, and Horner's rule over the
//! digits of u starts from the inverse of the column's sum, at the digit that holds bit k - 1, so that the
//! subtraction costs no product of its own. No operation depends on the value of a weight.

mod cost;
mod subset;
#[cfg(test)]
mod tests;
mod window;

pub use cost::{MatmulShape, Strategy};

use crate::arith::{Residues, Ring};
use crate::{Error, IntMatrix};

/// Columns that are worked on at a time, which bounds the memory of their tables.
const COLUMN_BLOCK: usize = 64;

/// Outputs that one task computes together.
const ROW_BLOCK: usize = 8;

/// A matrix of ciphertexts as lists of indices into a pool.
pub(crate) struct Columns {
    pool: Residues,
    indices: Vec<u32>,
    taps: usize,
}

impl Columns {
    /// The columns over `inputs` whose `taps` entries each are the `indices`; `None` is an encryption of zero.
    pub(crate) fn new(
        ring: &Ring,
        inputs: &Residues,
        taps: usize,
        indices: impl IntoIterator<Item = Option<usize>>,
    ) -> Self {
        let zero = inputs.len() as u32;
        let indices: Vec<u32> =
            indices.into_iter().map(|index| index.map_or(zero, |index| index as u32)).collect();
        let mut pool = inputs.clone();
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

/// `matrix` times every column: for each column, the ciphertexts of all rows, in order.
///
/// # Errors
/// [`Error::Count`] when the matrix has another number of columns than there are taps; [`Error::Ciphertext`] when a
/// ciphertext is no unit.
pub(crate) fn multiply(
    ring: &Ring,
    matrix: &IntMatrix,
    columns: &Columns,
    strategy: Strategy,
) -> Result<Residues, Error> {
    if matrix.columns() != columns.taps {
        return Err(Error::Count {
            what: "inputs of a matrix row",
            expected: matrix.columns(),
            found: columns.taps,
        });
    }
    match strategy {
        Strategy::Subset { inputs } => subset::multiply(ring, matrix, columns, inputs),
        Strategy::Window { bits } => window::multiply(ring, matrix, columns, bits),
    }
}

/// The inverses of column sums, or the error that names a ciphertext with none.
fn invert_sums(ring: &Ring, sums: &Residues) -> Result<Residues, Error> {
    ring.invert_vartime(sums).ok_or(Error::Ciphertext { index: 0, rule: "must be a unit mod n^2" })
}

/// The weight as a non-negative integer: offset by half the range when it is signed.
fn offset_weight(matrix: &IntMatrix, weight: i32) -> u32 {
    let range = matrix.range();
    let offset = if range.signed { 1i64 << (range.bits - 1) } else { 0 };
    (i64::from(weight) + offset) as u32
}

/// The weights of a block of rows.
fn row_blocks(matrix: &IntMatrix) -> Vec<std::ops::Range<usize>> {
    (0..matrix.rows()).step_by(ROW_BLOCK).map(|start| start..matrix.rows().min(start + ROW_BLOCK)).collect()
}
