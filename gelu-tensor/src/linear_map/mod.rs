//! The one description of a linear layer: an integer (or real) matrix applied to a tensor, without its weights.
//!
//! A matrix of a convolutional network is mostly zeros and repeats its weights. A [`LinearMap`] keeps it as blocks: a
//! block is one small matrix of weight indices and the columns of inputs that it multiplies, each with the outputs that
//! its rows give. A dense layer is one block with one column, a convolution one block with a column for each position, a
//! grouped one a block for each group, the way back from errors to inputs is the [transposed](LinearMap::transposed)
//! map. What a map is applied to (integers, reals, ciphertexts) is up to the caller, and so are the weights.

mod apply;
mod compose;
mod layers;
mod part;
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;

use std::collections::HashMap;

pub use layers::Filters;

use crate::{Error, Shape};

/// The index that stands for a zero of padding among a block's inputs.
pub(crate) const PADDING: u32 = u32::MAX;

/// Entries of one block's weights or columns, and products of a map whose entries are listed one by one: a slip in a
/// configuration beyond it, and more memory than a layer needs.
const MOST_INDICES: usize = 1 << 26;

/// One product of a linear map: output += weight x input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapEntry {
    /// Which element of the output.
    pub output: u32,
    /// Which element of the input.
    pub input: u32,
    /// Which weight.
    pub weight: u32,
}

/// A linear map between two tensors: blocks of a small matrix of weight indices, with its columns of input indices and
/// outputs.
///
/// No two rows give the same output; an output that no row gives is zero.
///
/// ```
/// use gelu_tensor::{Filters, LinearMap, Window};
///
/// // Two 3x3 filters over an image of one channel and 5x5 pixels: one block with a column for each of 3x3 positions.
/// let windows = Window::new([3, 3]).over([1, 5, 5])?;
/// let map = LinearMap::convolution(&windows, Filters { count: 2, groups: 1 })?;
/// assert_eq!((map.blocks().len(), map.columns(), map.weights()), (1, Some(9), 18));
/// let sums = map.apply(&[1.0; 18], &[2.0; 25])?;
/// assert_eq!(sums, [18.0; 18]);
/// // The way back from errors of the output to errors of the input has the same weights.
/// assert_eq!(map.transposed()?.output().dims(), [1, 5, 5]);
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearMap {
    input: Shape,
    output: Shape,
    weights: usize,
    most_terms: usize,
    blocks: Vec<Block>,
}

/// Columns of inputs that are multiplied by the same matrix.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    taps: usize,
    /// Rows of `taps` weight indices each.
    weights: Vec<u32>,
    /// Column by column, `taps` inputs each.
    inputs: Vec<u32>,
    /// Column by column, one output for each row.
    outputs: Vec<u32>,
    read: usize,
    padded: bool,
}

impl Block {
    fn new([taps, elements]: [usize; 2], weights: Vec<u32>, [inputs, outputs]: [Vec<u32>; 2]) -> Self {
        let padded = inputs.contains(&PADDING);
        let real = inputs.iter().filter(|&&input| input != PADDING);
        // One of many blocks does not go over all elements.
        let read = if elements > inputs.len() {
            let mut read: Vec<u32> = real.copied().collect();
            read.sort_unstable();
            read.dedup();
            read.len()
        } else {
            let mut read = vec![false; elements];
            real.for_each(|&input| read[input as usize] = true);
            read.into_iter().filter(|&read| read).count()
        };
        Self { taps, weights, inputs, outputs, read, padded }
    }

    /// How many different inputs the columns read.
    pub(crate) fn read(&self) -> usize {
        self.read
    }

    /// Whether a column reads padding.
    pub(crate) fn is_padded(&self) -> bool {
        self.padded
    }

    /// Returns the number of inputs in a column.
    pub fn taps(&self) -> usize {
        self.taps
    }

    /// Returns the number of rows of the matrix: outputs of a column.
    pub fn rows(&self) -> usize {
        self.weights.len() / self.taps
    }

    /// Returns the number of columns.
    pub fn columns(&self) -> usize {
        self.inputs.len() / self.taps
    }

    /// Returns the indices of the matrix's weights, row by row.
    pub fn weight_indices(&self) -> &[u32] {
        &self.weights
    }

    /// Returns the element that a tap of a column reads; `None` for a zero of padding.
    pub fn input(&self, column: usize, tap: usize) -> Option<usize> {
        let input = self.inputs[column * self.taps + tap];
        (input != PADDING).then_some(input as usize)
    }

    /// Returns the element that a row makes of a column.
    pub fn output(&self, column: usize, row: usize) -> usize {
        self.outputs[column * self.rows() + row] as usize
    }

    /// The columns: the inputs and the outputs of each.
    fn pairs(&self) -> impl Iterator<Item = (&[u32], &[u32])> {
        self.inputs.chunks_exact(self.taps).zip(self.outputs.chunks_exact(self.rows()))
    }
}

impl LinearMap {
    fn new([input, output]: [Shape; 2], weights: usize, blocks: Vec<Block>) -> Self {
        let terms = |column: &[u32]| column.iter().filter(|&&input| input != PADDING).count();
        let most = |block: &Block| block.inputs.chunks_exact(block.taps).map(terms).max().unwrap_or(0);
        let most_terms = blocks.iter().map(most).max().unwrap_or(0);
        Self { input, output, weights, most_terms, blocks }
    }

    /// Returns the map of `entries` between tensors of two shapes with so many weights: outputs of the same inputs are
    /// the rows of one column, and columns of the same matrix one block.
    ///
    /// # Errors
    /// [`Error::Count`] when an entry lies outside, or there are none, or more than 2^26.
    pub(crate) fn from_entries(
        shapes: [Shape; 2],
        weights: usize,
        mut entries: Vec<MapEntry>,
    ) -> Result<Self, Error> {
        check_size("products of a linear map", entries.len())?;
        for (what, limit, largest) in [
            ("inputs of a linear map", shapes[0].elements(), entries.iter().map(|entry| entry.input).max()),
            ("outputs of a linear map", shapes[1].elements(), entries.iter().map(|entry| entry.output).max()),
            ("weights of a linear map", weights, entries.iter().map(|entry| entry.weight).max()),
        ] {
            let found = largest.unwrap_or(0) as usize + 1;
            if found > limit {
                return Err(Error::Limit { what, limit, found });
            }
        }
        entries.sort_unstable();
        let mut columns = Columns::default();
        for row in entries.chunk_by(|a, b| a.output == b.output) {
            let column = columns.find(row.iter().map(|entry| entry.input).collect());
            columns.push(column, row[0].output, row.iter().map(|entry| entry.weight));
        }
        let blocks = columns.into_blocks(shapes[0].elements());
        Ok(Self::new(shapes, weights, blocks))
    }

    /// Returns the map from outputs back to inputs, with the same weights: what errors go through in a backward pass.
    ///
    /// # Errors
    /// [`Error::Count`] when the map has more than 2^26 products.
    pub fn transposed(&self) -> Result<Self, Error> {
        check_size("products of a linear map", self.products())?;
        let entries = self.entries().map(|entry| MapEntry {
            output: entry.input,
            input: entry.output,
            weight: entry.weight,
        });
        let shapes = [self.output.clone(), self.input.clone()];
        Self::from_entries(shapes, self.weights, entries.collect())
    }

    /// Returns the same map between tensors of other shapes with as many elements.
    ///
    /// # Errors
    /// [`Error::Shape`] when a shape has another number of elements.
    pub fn reshaped(self, [input, output]: [Shape; 2]) -> Result<Self, Error> {
        for (expected, found) in [(&self.input, &input), (&self.output, &output)] {
            if expected.elements() != found.elements() {
                let (expected, found) = (expected.clone(), found.clone());
                return Err(Error::Shape { what: "reshaped linear map", expected, found });
            }
        }
        Ok(Self { input, output, ..self })
    }

    /// Returns all products but those with padding, block by block.
    pub fn entries(&self) -> impl Iterator<Item = MapEntry> {
        self.blocks.iter().flat_map(|block| {
            block.pairs().flat_map(move |(inputs, outputs)| {
                outputs.iter().zip(block.weights.chunks_exact(block.taps)).flat_map(
                    move |(&output, weights)| {
                        let taps = inputs.iter().zip(weights).filter(|(input, _)| **input != PADDING);
                        taps.map(move |(&input, &weight)| MapEntry { output, input, weight })
                    },
                )
            })
        })
    }

    /// Returns the shape of the tensor that the map takes.
    pub fn input(&self) -> &Shape {
        &self.input
    }

    /// Returns the shape of the tensor that the map gives.
    pub fn output(&self) -> &Shape {
        &self.output
    }

    /// Returns the number of different weights.
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// Returns the number of indices that the map holds: of weights, inputs and outputs of its blocks.
    pub fn indices(&self) -> usize {
        let indices = |block: &Block| block.weights.len() + block.inputs.len() + block.outputs.len();
        self.blocks.iter().map(indices).sum()
    }

    /// Returns the blocks.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Returns the largest number of inputs that one output weighs, padding left out.
    pub fn most_terms(&self) -> usize {
        self.most_terms
    }

    /// Returns the number of products of a weight and an input for one tensor, padding included.
    pub fn products(&self) -> usize {
        self.blocks.iter().map(|block| block.weights.len() * block.columns()).sum()
    }

    /// Returns the number of columns of each block if it is the same for all and they give all outputs: then slots can
    /// run over them (im2col), and every output has one.
    pub fn columns(&self) -> Option<usize> {
        let columns = self.blocks.first()?.columns();
        let given: usize = self.blocks.iter().map(|block| block.outputs.len()).sum();
        let equal = self.blocks.iter().all(|block| block.columns() == columns);
        (equal && given == self.output.elements()).then_some(columns)
    }

    /// Returns whether both maps give the same outputs in the same rows of the same columns, so that their products can
    /// be added slot by slot when slots run over columns.
    pub fn has_outputs_of(&self, other: &Self) -> bool {
        self.output == other.output
            && self.blocks.len() == other.blocks.len()
            && self
                .blocks
                .iter()
                .zip(&other.blocks)
                .all(|(a, b)| a.rows() == b.rows() && a.outputs == b.outputs)
    }
}

/// Columns that become blocks.
#[derive(Default)]
struct Columns {
    /// Inputs, outputs and weights (row by row) of each.
    columns: Vec<(Vec<u32>, Vec<u32>, Vec<u32>)>,
    by_inputs: HashMap<Vec<u32>, usize>,
}

impl Columns {
    /// The column of these inputs.
    fn find(&mut self, inputs: Vec<u32>) -> usize {
        let columns = &mut self.columns;
        *self.by_inputs.entry(inputs).or_insert_with_key(|inputs| {
            columns.push((inputs.clone(), vec![], vec![]));
            columns.len() - 1
        })
    }

    /// Adds a column of inputs of its own, whose one row has a single weight.
    fn add(&mut self, inputs: Vec<u32>, output: u32) {
        let weights = vec![0; inputs.len()];
        self.columns.push((inputs, vec![output], weights));
    }

    fn push(&mut self, column: usize, output: u32, weights: impl Iterator<Item = u32>) {
        self.columns[column].1.push(output);
        self.columns[column].2.extend(weights);
    }

    /// Columns of the same matrix are one block.
    fn into_blocks(self, elements: usize) -> Vec<Block> {
        let mut blocks: Vec<(usize, Vec<u32>, [Vec<u32>; 2])> = vec![];
        let mut by_matrix: HashMap<(usize, Vec<u32>), usize> = HashMap::new();
        for (inputs, outputs, weights) in self.columns {
            let taps = inputs.len();
            let block = *by_matrix.entry((taps, weights)).or_insert_with_key(|(taps, weights)| {
                blocks.push((*taps, weights.clone(), Default::default()));
                blocks.len() - 1
            });
            blocks[block].2[0].extend(inputs);
            blocks[block].2[1].extend(outputs);
        }
        let block = |(taps, weights, columns)| Block::new([taps, elements], weights, columns);
        blocks.into_iter().map(block).collect()
    }
}

/// Refuses an empty list and one of more than 2^26 entries, before it is made.
fn check_size(what: &'static str, found: usize) -> Result<(), Error> {
    if (1..=MOST_INDICES).contains(&found) {
        Ok(())
    } else {
        Err(Error::Range { what, least: 1, most: MOST_INDICES, found })
    }
}
