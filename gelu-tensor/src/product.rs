//! A map as ciphertext products: what a plan chooses and states, and a server does.

use std::fmt;

use crate::arith::Operations;
use crate::enc_tensor::check_flood;
use crate::matmul::{MatmulShape, Matrix};
use crate::{
    Arrangement, Block, Contents, Error, Flood, IntWeights, LinearMap, SlotLayout, Strategy, WeightRange,
};

/// The weights of a map, as ciphertexts are multiplied with them.
#[derive(Clone, Copy, Debug)]
pub enum MapWeights<'a> {
    /// Signed integers of a few bits; the result is exact.
    Integers(&'a IntWeights),
    /// Numbers mod 2^l; only the result's residue mod 2^l counts.
    Residues {
        /// The weights, each below 2^l.
        values: &'a [u64],
        /// How the sums will be flooded. Its quotient bounds the sums of all terms and the bias that are added before
        /// that.
        flood: Flood,
    },
}

impl MapWeights<'_> {
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::Integers(weights) => weights.values().len(),
            Self::Residues { values, .. } => values.len(),
        }
    }

    /// What is public of them.
    pub(crate) fn public(&self) -> ProductWeights {
        match self {
            Self::Integers(weights) => ProductWeights::Integers(weights.range()),
            Self::Residues { flood, .. } => ProductWeights::Residues(*flood),
        }
    }

    /// What the slots hold after a product.
    pub(crate) fn contents(&self, map: &LinearMap, inputs: Contents) -> Result<Contents, Error> {
        let Contents::Integers(format) = inputs else {
            return Err(Error::Layout {
                operation: "a linear layer",
                expected: "integers",
                found: "residues".to_owned(),
            });
        };
        match *self {
            Self::Integers(weights) => {
                weights.check_rows(map)?;
                Ok(Contents::Integers(format.weighted_sum(weights.range(), map.most_terms())?))
            }
            Self::Residues { values, flood } => {
                if let Some(index) = values.iter().position(|&weight| weight != flood.ring.wrap(weight)) {
                    return Err(Error::Value { index, bound: flood.ring.wrap(u64::MAX) });
                }
                check_flood(map, format.bound(), flood.check()?)?;
                Ok(Contents::Residues(flood))
            }
        }
    }

    /// The matrix of a block, made non-negative.
    pub(crate) fn matrix(&self, block: &Block) -> Matrix {
        let range = self.public().range();
        let offset = if range.signed { 1i64 << (range.bits - 1) } else { 0 };
        let indices = block.weight_indices().iter().map(|&at| at as usize);
        let values = match self {
            Self::Integers(weights) => {
                indices.map(|at| (i64::from(weights.values()[at]) + offset) as u64).collect()
            }
            Self::Residues { values, .. } => indices.map(|at| values[at]).collect(),
        };
        Matrix { columns: block.taps(), range, values }
    }
}

/// How a map is multiplied with a tensor of some layout and number of groups: a strategy for each block, and what all
/// of them take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    strategies: Vec<Strategy>,
    operations: Operations,
    weight: u64,
}

impl Product {
    /// Returns the cheapest way for a workload, by an exact count of operations.
    ///
    /// # Errors
    /// [`Error::Layout`] when the layout is not one of the map's input.
    pub fn cheapest(
        map: &LinearMap,
        layout: &SlotLayout,
        Workload { weights, groups, lanes }: Workload,
    ) -> Result<Self, Error> {
        let weights = weights.range();
        let patches = match layout.arrangement() {
            Arrangement::Images => false,
            Arrangement::Patches(packed) if **packed == *map => true,
            _ => return Err(layout.misfit("a linear layer", "images, or im2col of the same layer")),
        };
        let mut product = Self { strategies: Vec::new(), operations: Operations::default(), weight: 0 };
        let mut last: Option<(MatmulShape, Strategy)> = None;
        for block in map.blocks() {
            let taps = layout.packs_of(block);
            let (columns, inputs) = match patches {
                true => (1, taps),
                false => (block.columns(), block.read()),
            };
            let padded = !patches && block.is_padded();
            let shape = MatmulShape {
                outputs: block.rows() * layout.fields(),
                taps,
                columns: groups * columns,
                ciphertexts: groups * inputs + usize::from(padded),
                weights,
            };
            let strategy = match last {
                Some((same, strategy)) if same == shape => strategy,
                _ => shape.cheapest(lanes),
            };
            last = Some((shape, strategy));
            product.strategies.push(strategy);
            product.operations = product.operations + shape.operations(strategy);
            product.weight = product.weight.saturating_add(shape.weight(strategy, lanes));
        }
        Ok(product)
    }

    /// Returns the strategy of each block.
    pub(crate) fn strategies(&self) -> &[Strategy] {
        &self.strategies
    }

    /// Returns the operations mod n^2 of all blocks, exactly.
    pub fn operations(&self) -> Operations {
        self.operations
    }

    /// Returns the time in hundredths of a product on vectors of the lanes it was chosen for, which are
    /// [filled](Workload::filled).
    pub fn weight(&self) -> u64 {
        self.weight
    }
}

/// Prints the strategy of all blocks, or the first and how many others there are: `subsets of 7`.
impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut different: Vec<&Strategy> = vec![];
        self.strategies.iter().for_each(|strategy| {
            if !different.contains(&strategy) {
                different.push(strategy);
            }
        });
        match &different[..] {
            [] => f.write_str("none"),
            [only] => write!(f, "{only}"),
            [first, others @ ..] => write!(f, "{first} and {} more", others.len()),
        }
    }
}

/// What a product is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What is public of the weights: the range of integers, or (for contents of residues) the ring.
    pub weights: ProductWeights,
    /// [Groups](SlotLayout::groups) that are multiplied together.
    pub groups: usize,
    /// Residues that the machine works on at a time: [`Backend::lanes`](crate::Backend::lanes).
    pub lanes: usize,
}

impl Workload {
    /// Returns how many residues in whole vectors take the time that `count` residues take: lanes that stay empty take as
    /// much as full ones, but where vectors have eight, a rest of up to four is left to vectors of four, which takes five
    /// eighths.
    pub fn filled(count: usize, lanes: usize) -> usize {
        match (lanes, count % 8) {
            (8, rest @ 1..=4) => count - rest + 5,
            _ => count.next_multiple_of(lanes),
        }
    }
}

/// What is public of a map's weights, as far as a product's cost depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductWeights {
    /// Integers of a range.
    Integers(WeightRange),
    /// Numbers mod 2^l.
    Residues(Flood),
}

impl ProductWeights {
    fn range(self) -> WeightRange {
        match self {
            Self::Integers(range) => range,
            // Numbers below 2^l.
            Self::Residues(flood) => WeightRange::of_ring(flood.ring.bits()),
        }
    }

    /// Returns the bits by which a product with a map makes the exponents of h in ciphertexts longer, in any layout.
    pub fn growth(self, map: &LinearMap) -> usize {
        // Not the most terms of an output: a tap of patches has a random factor also where it is padding.
        let taps = map.blocks().iter().map(Block::taps).max().unwrap_or(1);
        self.range().bits as usize + taps.ilog2() as usize + 1
    }
}
