use rayon::prelude::*;

use super::{COLUMN_BLOCK, Columns, invert_sums, offset_weight, row_blocks};
use crate::arith::{Residues, Ring};
use crate::{Error, IntMatrix};

/// The product by tables of subset products of `group` inputs each.
pub(super) fn multiply(
    ring: &Ring,
    matrix: &IntMatrix,
    columns: &Columns,
    group: usize,
) -> Result<Residues, Error> {
    let look_ups = LookUps::new(matrix, group);
    let mut out = ring.empty(columns.len() * matrix.rows());
    for start in (0..columns.len()).step_by(COLUMN_BLOCK) {
        let block: Vec<usize> = (start..columns.len().min(start + COLUMN_BLOCK)).collect();
        let tables: Vec<Vec<Residues>> = block
            .par_iter()
            .map(|&column| {
                columns
                    .column(column)
                    .par_chunks(group)
                    .map(|inputs| subset_products(ring, &columns.pool, inputs))
                    .collect()
            })
            .collect();
        let starts = if matrix.range().signed {
            let mut sums = ring.empty(block.len());
            tables.iter().for_each(|tables| sums.append(&column_sum(ring, tables)));
            Some(invert_sums(ring, &sums)?)
        } else {
            None
        };
        let parts: Vec<Residues> = (0..block.len())
            .into_par_iter()
            .flat_map(|column| row_blocks(matrix).into_par_iter().map(move |rows| (column, rows)))
            .map(|(column, rows)| {
                let start = starts.as_ref().map(|starts| starts.gather(rows.clone().map(|_| column)));
                look_ups.horner(ring, &tables[column], rows, start)
            })
            .collect();
        parts.iter().for_each(|part| out.append(part));
    }
    Ok(out)
}

/// The products of all subsets of `inputs`: entry i multiplies those whose bit is set in i.
fn subset_products(ring: &Ring, pool: &Residues, inputs: &[u32]) -> Residues {
    let mut table = ring.ones(1);
    for (bit, &input) in inputs.iter().enumerate() {
        table.append(&pool.gather([input as usize]));
        ring.push_multiples(&mut table, 1..1 << bit, (pool, input as usize));
    }
    table
}

fn column_sum(ring: &Ring, tables: &[Residues]) -> Residues {
    let last = |table: &Residues| table.gather([table.len() - 1]);
    let mut sum = last(&tables[0]);
    tables[1..].iter().for_each(|table| ring.mul_assign(&mut sum, &last(table)));
    sum
}

/// Which table entry each output takes, for every bit of the weights and every group of inputs.
struct LookUps {
    rows: usize,
    bits: u32,
    groups: usize,
    entries: Vec<u32>,
}

impl LookUps {
    fn new(matrix: &IntMatrix, group: usize) -> Self {
        let (rows, bits) = (matrix.rows(), matrix.range().bits);
        let groups = matrix.columns().div_ceil(group);
        let mut entries = vec![0u32; bits as usize * groups * rows];
        for row in 0..rows {
            for (g, weights) in matrix.row(row).chunks(group).enumerate() {
                for (input, &weight) in weights.iter().enumerate() {
                    let weight = offset_weight(matrix, weight);
                    for bit in 0..bits {
                        entries[(bit as usize * groups + g) * rows + row] |= ((weight >> bit) & 1) << input;
                    }
                }
            }
        }
        Self { rows, bits, groups, entries }
    }

    fn entries(&self, bit: u32, group: usize, rows: std::ops::Range<usize>) -> &[u32] {
        &self.entries[(bit as usize * self.groups + group) * self.rows..][rows]
    }

    /// Horner's rule over the bits of a block of rows, from the top.
    fn horner(
        &self,
        ring: &Ring,
        tables: &[Residues],
        rows: std::ops::Range<usize>,
        start: Option<Residues>,
    ) -> Residues {
        let signed = start.is_some();
        let mut out = start.unwrap_or_else(|| {
            let entries = self.entries(self.bits - 1, 0, rows.clone());
            tables[0].gather(entries.iter().map(|&entry| entry as usize))
        });
        for bit in (0..self.bits).rev() {
            let top = bit == self.bits - 1;
            if !top {
                ring.square_assign(&mut out, 1);
            }
            let done = usize::from(top && !signed);
            let entries: Vec<u32> = (done..tables.len())
                .flat_map(|group| self.entries(bit, group, rows.clone()))
                .copied()
                .collect();
            ring.mul_assign_gather(&mut out, &tables.iter().skip(done).collect::<Vec<_>>(), &entries);
        }
        out
    }
}
