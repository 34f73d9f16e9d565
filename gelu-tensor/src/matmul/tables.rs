//! Tables of products of ciphertexts, which all outputs of a product share.

use std::ops::Range;

use rayon::prelude::*;

use super::{Columns, Strategy};
use crate::arith::{Entry, MAX_LANES, Residues, Ring};

/// The tables of products of some columns' ciphertexts.
///
/// Tables of one size are made side by side, as many as a vector has lanes: batch `table` holds the first entries of
/// all of them, then the second ones, and so on.
pub(super) struct Tables {
    pub(super) batches: Vec<Residues>,
    places: Vec<Place>,
    per_column: usize,
}

/// Where one table lies among those that were made side by side with it.
#[derive(Clone, Copy, Default)]
struct Place {
    batch: u32,
    first: u32,
    stride: u32,
    /// The entry for every one of its inputs, once.
    whole: u32,
}

impl Tables {
    pub(super) fn new(ring: &Ring, columns: &Columns, block: Range<usize>, strategy: Strategy) -> Self {
        match strategy {
            Strategy::Subset { inputs } => Self::subsets(ring, columns, block, inputs),
            Strategy::Window { bits } => Self::powers(ring, columns, block, bits),
        }
    }

    /// For each column and group of `group` inputs the products of all subsets: entry i multiplies the inputs whose
    /// bit is set in i.
    fn subsets(ring: &Ring, columns: &Columns, block: Range<usize>, group: usize) -> Self {
        let per_column = columns.taps.div_ceil(group);
        let all = |groups: Range<usize>| {
            block.clone().flat_map(move |column| groups.clone().map(move |group| (column, group)))
        };
        // The last group of a column may be smaller.
        let full: Vec<_> = all(0..columns.taps / group).collect();
        let rest: Vec<_> = all(columns.taps / group..per_column).collect();
        let runs: Vec<_> = full.chunks(MAX_LANES).chain(rest.chunks(MAX_LANES)).collect();
        let inputs = |(column, index): (usize, usize)| {
            let start = index * group;
            &columns.column(column)[start..columns.taps.min(start + group)]
        };
        let mut places = vec![Place::default(); block.len() * per_column];
        for (batch, run) in runs.iter().enumerate() {
            for (first, &(column, group)) in run.iter().enumerate() {
                places[(column - block.start) * per_column + group] = Place {
                    batch: batch as u32,
                    first: first as u32,
                    stride: run.len() as u32,
                    whole: (1 << inputs((column, group)).len()) - 1,
                };
            }
        }
        let batches = runs
            .par_iter()
            .map(|run| {
                let inputs: Vec<&[u32]> = run.iter().map(|&table| inputs(table)).collect();
                let mut products = ring.empty(run.len() << inputs[0].len());
                products.append(&ring.ones(run.len()));
                for input in 0..inputs[0].len() {
                    let factors = columns.pool.gather(inputs.iter().map(|inputs| inputs[input] as usize));
                    products.append(&factors);
                    ring.push_multiples(&mut products, run.len()..run.len() << input, &factors);
                }
                products
            })
            .collect();
        Self { batches, places, per_column }
    }

    /// For each ciphertext of the pool its powers below `2^window`.
    fn powers(ring: &Ring, columns: &Columns, block: Range<usize>, window: usize) -> Self {
        let count = columns.pool.len();
        let batches = (0..count.div_ceil(MAX_LANES))
            .into_par_iter()
            .map(|batch| {
                let factors = columns.pool.gather(batch * MAX_LANES..count.min((batch + 1) * MAX_LANES));
                let mut powers = ring.empty(factors.len() << window);
                powers.append(&ring.ones(factors.len()));
                powers.append(&factors);
                for power in 1..(1 << window) - 1 {
                    let last = power * factors.len()..(power + 1) * factors.len();
                    ring.push_multiples(&mut powers, last, &factors);
                }
                powers
            })
            .collect();
        let place = |&input: &u32| {
            let (batch, first) = (input as usize / MAX_LANES, input as usize % MAX_LANES);
            let stride = MAX_LANES.min(count - batch * MAX_LANES);
            Place { batch: batch as u32, first: first as u32, stride: stride as u32, whole: 1 }
        };
        let places = block.flat_map(|column| columns.column(column)).map(place).collect();
        Self { batches, places, per_column: columns.taps }
    }

    /// Tables of one column.
    pub(super) fn per_column(&self) -> usize {
        self.per_column
    }

    /// The entry of a column's table for a digit.
    pub(super) fn entry(&self, column: usize, table: usize, digit: u32) -> Entry {
        let place = self.places[column * self.per_column + table];
        Entry { table: place.batch, index: digit * place.stride + place.first }
    }

    /// The residues at these entries.
    pub(super) fn gather(&self, ring: &Ring, entries: impl Iterator<Item = Entry>) -> Residues {
        let mut out = ring.empty(entries.size_hint().0);
        for entry in entries {
            out.append_one(&self.batches[entry.table as usize], entry.index as usize);
        }
        out
    }

    /// For each column the sum of all its ciphertexts.
    pub(super) fn column_sums(&self, ring: &Ring) -> Residues {
        let columns = self.places.len() / self.per_column;
        let parts: Vec<Residues> = (0..columns.div_ceil(MAX_LANES))
            .into_par_iter()
            .map(|part| part * MAX_LANES..columns.min((part + 1) * MAX_LANES))
            .map(|part| {
                let whole = |column: usize, table: usize| {
                    self.entry(column, table, self.places[column * self.per_column + table].whole)
                };
                let tables = 0..self.per_column;
                let entries = tables.flat_map(|table| part.clone().map(move |column| whole(column, table)));
                ring.fold_products(self.gather(ring, entries), part.len())
            })
            .collect();
        let mut sums = ring.empty(columns);
        parts.iter().for_each(|part| sums.append(part));
        sums
    }
}
