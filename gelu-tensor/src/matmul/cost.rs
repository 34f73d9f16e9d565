use std::fmt;

use serde::{Deserialize, Serialize};

use crate::WeightRange;
use crate::arith::Operations;

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
pub struct MatmulShape {
    /// Rows of the integer matrix.
    pub outputs: usize,
    /// Ciphertexts in a column.
    pub taps: usize,
    /// Columns of ciphertexts.
    pub columns: usize,
    /// Distinct ciphertexts in all columns.
    pub ciphertexts: usize,
    /// The integers.
    pub weights: WeightRange,
}

impl MatmulShape {
    const MAX_SUBSET: usize = 10;
    const MAX_WINDOW: usize = 8;

    /// The cheapest strategy, by the count of its operations.
    pub fn cheapest(&self) -> Strategy {
        let subsets = (1..=Self::MAX_SUBSET).map(|inputs| Strategy::Subset { inputs });
        let windows = (1..=Self::MAX_WINDOW).map(|bits| Strategy::Window { bits });
        let cost = |strategy: &Strategy| self.operations(*strategy).cost();
        subsets.chain(windows).min_by_key(cost).unwrap_or(Strategy::Subset { inputs: 1 })
    }

    /// The operations mod n^2 that a strategy takes, exactly.
    pub fn operations(&self, strategy: Strategy) -> Operations {
        let [outputs, taps, columns, ciphertexts] =
            [self.outputs, self.taps, self.columns, self.ciphertexts].map(|count| count as u64);
        let bits = u64::from(self.weights.bits);
        let signed = u64::from(self.weights.signed);
        match strategy {
            Strategy::Subset { inputs } => {
                let inputs = inputs as u64;
                let groups = taps.div_ceil(inputs);
                let table = |size: u64| (1u64 << size) - size - 1;
                let last = taps - (groups - 1) * inputs;
                let tables = (groups - 1) * table(inputs) + table(last);
                // The column's sum is a product of the tables' last entries.
                let sum = signed * (groups - 1);
                // Without an inverse sum to start from, the first look-up is a copy.
                let look_ups = outputs * (bits * groups - (1 - signed));
                Operations {
                    products: columns * (tables + sum + look_ups)
                        + signed * self.inversions(columns, super::COLUMN_BLOCK),
                    squarings: columns * outputs * (bits - 1),
                }
            }
            Strategy::Window { bits: window } => {
                let window = window as u64;
                let digits = bits.div_ceil(window);
                let tables = ciphertexts * ((1 << window) - 2);
                let sum = signed * (taps - 1);
                let look_ups = outputs * (digits * taps - (1 - signed));
                let shift = signed * (bits - 1 - window * (digits - 1));
                Operations {
                    products: tables
                        + columns * (sum + look_ups)
                        + signed * self.inversions(columns, self.columns),
                    squarings: columns * (outputs * (digits - 1) * window + shift),
                }
            }
        }
    }

    /// Products of Montgomery's trick over runs of `block` columns: three for each but the first, four for the one
    /// true inversion (taking digits, two lifts of its inverse by Newton's step).
    fn inversions(&self, columns: u64, block: usize) -> u64 {
        3 * columns.saturating_sub(columns.div_ceil(block as u64)) + 4 * columns.div_ceil(block as u64)
    }
}
