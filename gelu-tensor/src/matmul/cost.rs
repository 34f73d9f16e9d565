//! What a product costs, by an exact count of its operations, and the cheapest way to compute it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::arith::Operations;
use crate::{WeightRange, Workload};

/// How the powers that a product needs are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Strategy {
    /// For each group of this many inputs of a column, the table of all their subset products (the method of the
    /// four Russians): one product per output, bit of weight and group. Wins when many outputs share a column.
    Subset {
        /// Inputs in one group.
        inputs: usize,
    },
    /// For each ciphertext, the table of its powers below `2^bits`: one product per weight and window of its bits.
    /// Wins when few outputs share a column but many columns share a ciphertext.
    Window {
        /// Bits of a weight that one look-up takes.
        bits: usize,
    },
}

/// Prints `subsets of 7` or `windows of 4 bits`.
impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subset { inputs } => write!(f, "subsets of {inputs}"),
            Self::Window { bits } => write!(f, "windows of {bits} bits"),
        }
    }
}

/// The size of an integer matrix times a ciphertext matrix: what its cost depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MatmulShape {
    /// Rows of the integer matrix.
    pub(crate) outputs: usize,
    /// Ciphertexts in a column.
    pub(crate) taps: usize,
    /// Columns of ciphertexts.
    pub(crate) columns: usize,
    /// Distinct ciphertexts in all columns.
    pub(crate) ciphertexts: usize,
    /// The integers.
    pub(crate) weights: WeightRange,
}

impl MatmulShape {
    const MAX_SUBSET: usize = 10;
    const MAX_WINDOW: usize = 8;

    /// The cheapest strategy on vectors of so many lanes, by the count of its operations.
    pub(crate) fn cheapest(&self, lanes: usize) -> Strategy {
        let subsets = (1..=Self::MAX_SUBSET).map(|inputs| Strategy::Subset { inputs });
        let windows = (1..=Self::MAX_WINDOW).map(|bits| Strategy::Window { bits });
        let weight = |strategy: &Strategy| self.weight(*strategy, lanes);
        subsets.chain(windows).min_by_key(weight).unwrap_or(Strategy::Subset { inputs: 1 })
    }

    /// The operations mod n^2 that a strategy takes, exactly.
    pub(crate) fn operations(&self, strategy: Strategy) -> Operations {
        self.count(strategy, 1)
    }

    /// The time that a strategy takes on vectors of so many lanes, in hundredths of a product.
    pub(crate) fn weight(&self, strategy: Strategy, lanes: usize) -> u64 {
        self.count(strategy, lanes.max(1)).cost()
    }

    /// The operations, where what is done side by side [fills](Workload::filled) vectors.
    fn count(&self, strategy: Strategy, lanes: usize) -> Operations {
        let [outputs, taps, columns, ciphertexts] =
            [self.outputs, self.taps, self.columns, self.ciphertexts].map(|count| count as u64);
        let bits = u64::from(self.weights.bits);
        let filled = |count: u64| Workload::filled(count as usize, lanes) as u64;
        let (table_products, tables, digits, digit_bits) = match strategy {
            Strategy::Subset { inputs } => {
                let inputs = inputs as u64;
                let table = |size: u64| (1u64 << size) - size - 1;
                let (full, last) = (taps / inputs, taps % inputs);
                let rest = if last == 0 { 0 } else { filled(columns) * table(last) };
                let products = filled(columns * full) * table(inputs) + rest;
                (products, taps.div_ceil(inputs), bits, 1)
            }
            Strategy::Window { bits: window } => {
                let products = filled(ciphertexts) * ((1 << window) - 2);
                (products, taps, bits.div_ceil(window as u64), window as u64)
            }
        };
        // The first look-up of a part is a copy, and so is the first part; the offset of signed weights is a product.
        let (signed, outputs) = (u64::from(self.weights.signed), columns * outputs);
        let parts = super::parts(outputs as usize, digits as usize) as u64;
        let side_by_side = filled(outputs * parts) * (digits / parts * tables - 1);
        let look_ups = side_by_side + filled(outputs) * (parts - 1 + signed);
        let sums = columns * (tables - 1);
        // Montgomery's trick: three products for each column of a block but the first, and three for the one true
        // inversion (a lift of its inverse and Newton's step).
        let inversions = 3 * columns;
        Operations {
            products: table_products + look_ups + signed * (sums + inversions),
            squarings: filled(outputs * parts) * (digits / parts - 1) * digit_bits
                + filled(outputs) * (parts - 1) * (digits / parts) * digit_bits
                + signed * columns * (bits - 1),
        }
    }
}
