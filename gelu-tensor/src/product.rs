//! A map as ciphertext products: what a plan chooses and states, and a server does.

use std::fmt;

use crate::arith::Operations;
use crate::matmul::{MatmulShape, Matrix};
use crate::{Arrangement, Block, Contents, Error, IntWeights, LinearMap, SlotLayout, Strategy, WeightRange};

impl IntWeights {
    /// What the slots hold after a product.
    pub(crate) fn contents(&self, map: &LinearMap, inputs: Contents) -> Result<Contents, Error> {
        let Contents::Integers(format) = inputs else {
            return Err(Error::Layout {
                operation: "a linear layer",
                expected: "integers",
                found: "residues".to_owned(),
            });
        };
        self.check_rows(map)?;
        Ok(Contents::Integers(format.weighted_sum(self.range(), map.most_terms())?))
    }

    /// The matrix of a block, made non-negative.
    pub(crate) fn matrix(&self, block: &Block) -> Matrix {
        let range = self.range();
        let offset = if range.signed { 1i64 << (range.bits - 1) } else { 0 };
        let indices = block.weight_indices().iter().map(|&at| at as usize);
        let values = indices.map(|at| (i64::from(self.values()[at]) + offset) as u64).collect();
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
    /// What is public of the weights.
    pub weights: WeightRange,
    /// [Groups](SlotLayout::groups) that are multiplied together.
    pub groups: usize,
    /// Residues that the machine works on at a time: [`Backend::lanes`](crate::Backend::lanes).
    pub lanes: usize,
}

impl Workload {
    /// Returns how many residues in whole vectors take the time that `count` residues take: lanes that stay empty take as
    /// much as full ones, but where vectors have eight, a rest of up to four is left to vectors of four, which takes five
    /// eighths (with IFMA; four fifths without).
    pub fn filled(count: usize, lanes: usize) -> usize {
        match (lanes, count % 8) {
            (8, rest @ 1..=4) => count - rest + 5,
            _ => count.next_multiple_of(lanes),
        }
    }
}

impl WeightRange {
    /// Returns the bits by which a product with a map makes the exponents of h in ciphertexts longer, in any layout.
    pub fn growth(self, map: &LinearMap) -> usize {
        // Not the most terms of an output: a tap of patches has a random factor also where it is padding.
        let taps = map.blocks().iter().map(Block::taps).max().unwrap_or(1);
        self.bits as usize + taps.ilog2() as usize + 1
    }
}
