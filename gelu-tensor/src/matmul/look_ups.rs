//! Weights as look-ups into tables: which entries are multiplied, digit by digit.

use rayon::prelude::*;

use super::{Matrix, Strategy};

/// Which entry of each of a column's tables an output takes: digits of its weights, from the top.
pub(super) struct LookUps {
    /// Tables of one column.
    pub(super) tables: usize,
    /// Digits of a weight.
    pub(super) digits: usize,
    /// Bits of a digit: squarings from one to the next.
    pub(super) digit_bits: usize,
    /// Row by row, digit by digit, table by table.
    entries: Vec<u32>,
}

impl LookUps {
    pub(super) fn new(matrix: &Matrix, strategy: Strategy) -> Self {
        let (taps, bits) = (matrix.columns, matrix.range.bits as usize);
        let (tables, digit_bits) = match strategy {
            Strategy::Subset { inputs } => (taps.div_ceil(inputs), 1),
            Strategy::Window { bits } => (taps, bits),
        };
        let digits = bits.div_ceil(digit_bits);
        let mut entries = vec![0u32; matrix.rows() * digits * tables];
        entries.par_chunks_mut(digits * tables).enumerate().for_each(|(row, entries)| {
            let weights = matrix.values[row * taps..][..taps].iter().copied();
            let digits = entries.chunks_exact_mut(tables).zip((0..digits).rev());
            match strategy {
                Strategy::Subset { inputs } => {
                    // Input by input of all groups, so that the loops below run over neighbors.
                    let mut by_input = vec![0u64; inputs * tables];
                    for (tap, weight) in weights.enumerate() {
                        by_input[tap % inputs * tables + tap / inputs] = weight;
                    }
                    for (entries, bit) in digits {
                        for (input, weights) in by_input.chunks_exact(tables).enumerate() {
                            for (entry, weight) in entries.iter_mut().zip(weights) {
                                *entry |= ((weight >> bit & 1) as u32) << input;
                            }
                        }
                    }
                }
                Strategy::Window { bits } => {
                    for (entries, digit) in digits {
                        for (entry, weight) in entries.iter_mut().zip(weights.clone()) {
                            *entry = (weight >> (digit * bits) & ((1 << bits) - 1)) as u32;
                        }
                    }
                }
            }
        });
        Self { tables, digits, digit_bits, entries }
    }

    /// The entry that an output takes of each table of its column for one digit, counted from the top.
    pub(super) fn of(&self, row: usize, digit: usize) -> &[u32] {
        &self.entries[(row * self.digits + digit) * self.tables..][..self.tables]
    }
}
