use rayon::prelude::*;

use super::{Columns, invert_sums, offset_weight, row_blocks};
use crate::arith::{Residues, Ring};
use crate::{Error, IntMatrix};

/// The product by tables of the powers below `2^window` of every ciphertext.
pub(super) fn multiply(
    ring: &Ring,
    matrix: &IntMatrix,
    columns: &Columns,
    window: usize,
) -> Result<Residues, Error> {
    let tables: Vec<Residues> = (0..columns.pool.len())
        .into_par_iter()
        .map(|input| {
            let mut table = ring.ones(1);
            table.append(&columns.pool.gather([input]));
            for power in 1..(1 << window) - 1 {
                ring.push_multiples(&mut table, power..power + 1, (&columns.pool, input));
            }
            table
        })
        .collect();
    let digits = Digits::new(matrix, window);
    let starts = if matrix.range().signed {
        let sums: Vec<Residues> =
            (0..columns.len()).into_par_iter().map(|column| column_sum(ring, columns, column)).collect();
        let mut all = ring.empty(sums.len());
        sums.iter().for_each(|sum| all.append(sum));
        let mut inverses = invert_sums(ring, &all)?;
        // Half the weights' range is bit `bits - 1`, which lies this far up in the top digit.
        ring.square_assign(&mut inverses, matrix.range().bits as usize - 1 - window * (digits.count - 1));
        Some(inverses)
    } else {
        None
    };
    let parts: Vec<Residues> = (0..columns.len())
        .into_par_iter()
        .flat_map(|column| row_blocks(matrix).into_par_iter().map(move |rows| (column, rows)))
        .map(|(column, rows)| {
            let start = starts.as_ref().map(|starts| starts.gather(rows.clone().map(|_| column)));
            digits.horner(ring, &tables, columns.column(column), rows, start)
        })
        .collect();
    let mut out = ring.empty(columns.len() * matrix.rows());
    parts.iter().for_each(|part| out.append(part));
    Ok(out)
}

fn column_sum(ring: &Ring, columns: &Columns, column: usize) -> Residues {
    let inputs = columns.column(column);
    let mut sum = columns.pool.gather([inputs[0] as usize]);
    for &input in &inputs[1..] {
        ring.mul_assign_gather(&mut sum, &[&columns.pool], &[input]);
    }
    sum
}

/// The digits of all weights in base `2^window`.
struct Digits {
    rows: usize,
    taps: usize,
    window: usize,
    count: usize,
    digits: Vec<u32>,
}

impl Digits {
    fn new(matrix: &IntMatrix, window: usize) -> Self {
        let (rows, taps) = (matrix.rows(), matrix.columns());
        let count = (matrix.range().bits as usize).div_ceil(window);
        let mut digits = vec![0; count * taps * rows];
        for row in 0..rows {
            for (tap, &weight) in matrix.row(row).iter().enumerate() {
                let weight = offset_weight(matrix, weight);
                for digit in 0..count {
                    digits[(digit * taps + tap) * rows + row] =
                        (weight >> (digit * window)) & ((1 << window) - 1);
                }
            }
        }
        Self { rows, taps, window, count, digits }
    }

    fn digits(&self, digit: usize, tap: usize, rows: std::ops::Range<usize>) -> &[u32] {
        &self.digits[(digit * self.taps + tap) * self.rows..][rows]
    }

    /// Horner's rule over the digits of a block of rows, from the top.
    fn horner(
        &self,
        ring: &Ring,
        tables: &[Residues],
        inputs: &[u32],
        rows: std::ops::Range<usize>,
        start: Option<Residues>,
    ) -> Residues {
        let signed = start.is_some();
        let mut out = start.unwrap_or_else(|| {
            let digits = self.digits(self.count - 1, 0, rows.clone());
            tables[inputs[0] as usize].gather(digits.iter().map(|&digit| digit as usize))
        });
        for digit in (0..self.count).rev() {
            let top = digit == self.count - 1;
            if !top {
                ring.square_assign(&mut out, self.window);
            }
            let done = usize::from(top && !signed);
            let tables: Vec<&Residues> =
                inputs[done..].iter().map(|&input| &tables[input as usize]).collect();
            let digits: Vec<u32> =
                (done..inputs.len()).flat_map(|tap| self.digits(digit, tap, rows.clone())).copied().collect();
            ring.mul_assign_gather(&mut out, &tables, &digits);
        }
        out
    }
}
