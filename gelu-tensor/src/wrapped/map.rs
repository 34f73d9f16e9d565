use std::collections::HashMap;

use rayon::prelude::*;

use crate::Error;

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

/// A linear map whose matrix is mostly zeros or repeats its weights, as that of a convolution and its transpose do: as
/// dense blocks, of which each is one small matrix times some columns of inputs.
#[derive(Clone, Debug)]
pub struct SparseMap {
    inputs: usize,
    outputs: usize,
    weights: usize,
    blocks: Vec<Block>,
}

/// Columns that have the same matrix.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// Rows of `taps` weights.
    pub(super) weights: Vec<u32>,
    pub(super) taps: usize,
    /// Column by column, `taps` inputs each.
    pub(super) inputs: Vec<u32>,
    /// Column by column, one output for each row.
    pub(super) outputs: Vec<u32>,
}

impl Block {
    pub(super) fn rows(&self) -> usize {
        self.weights.len() / self.taps
    }

    pub(super) fn columns(&self) -> usize {
        self.inputs.len() / self.taps
    }
}

impl SparseMap {
    /// The most products that one map may have.
    const MOST: usize = 1 << 24;

    /// The map of `entries` between vectors of `[inputs, outputs]` elements with `weights` weights.
    ///
    /// # Errors
    /// [`Error::Count`] when an entry is outside them, or there are none, or more than 2^24.
    pub fn new([inputs, outputs, weights]: [usize; 3], mut entries: Vec<MapEntry>) -> Result<Self, Error> {
        let count = entries.len();
        if entries.is_empty() || count > Self::MOST {
            let what = "products of a linear map, 1 to 2^24";
            return Err(Error::Count { what, expected: count.clamp(1, Self::MOST), found: count });
        }
        for (what, limit, largest) in [
            ("inputs of a linear map, above", inputs, entries.iter().map(|entry| entry.input).max()),
            ("outputs of a linear map, above", outputs, entries.iter().map(|entry| entry.output).max()),
            ("weights of a linear map, above", weights, entries.iter().map(|entry| entry.weight).max()),
        ] {
            let found = largest.unwrap_or(0) as usize;
            if found >= limit {
                return Err(Error::Count { what, expected: limit, found });
            }
        }
        entries.sort_unstable();
        // Outputs of the same inputs are the rows of one column.
        let mut columns: Vec<(Vec<u32>, Vec<u32>, Vec<u32>)> = vec![];
        let mut by_inputs: HashMap<Vec<u32>, usize> = HashMap::new();
        for row in entries.chunk_by(|a, b| a.output == b.output) {
            let inputs: Vec<u32> = row.iter().map(|entry| entry.input).collect();
            let column = *by_inputs.entry(inputs).or_insert_with_key(|inputs| {
                columns.push((inputs.clone(), vec![], vec![]));
                columns.len() - 1
            });
            columns[column].1.push(row[0].output);
            columns[column].2.extend(row.iter().map(|entry| entry.weight));
        }
        // Columns of the same matrix are one block.
        let mut blocks: Vec<Block> = vec![];
        let mut by_matrix: HashMap<(usize, Vec<u32>), usize> = HashMap::new();
        for (inputs, outputs, matrix) in columns {
            let taps = inputs.len();
            let block = *by_matrix.entry((taps, matrix)).or_insert_with_key(|(taps, matrix)| {
                blocks.push(Block { weights: matrix.clone(), taps: *taps, inputs: vec![], outputs: vec![] });
                blocks.len() - 1
            });
            blocks[block].inputs.extend(inputs);
            blocks[block].outputs.extend(outputs);
        }
        Ok(Self { inputs, outputs, weights, blocks })
    }

    /// The map from outputs back to inputs, with the same weights.
    ///
    /// # Errors
    /// None that [`new`](Self::new) has not seen.
    pub fn transposed(&self) -> Result<Self, Error> {
        let entries =
            self.entries().map(|entry| MapEntry { output: entry.input, input: entry.output, ..entry });
        Self::new([self.outputs, self.inputs, self.weights], entries.collect())
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = MapEntry> {
        self.blocks.iter().flat_map(|block| {
            let columns = block.inputs.chunks_exact(block.taps).zip(block.outputs.chunks_exact(block.rows()));
            columns.flat_map(move |(inputs, outputs)| {
                outputs.iter().zip(block.weights.chunks_exact(block.taps)).flat_map(
                    move |(&output, weights)| {
                        let taps = inputs.iter().zip(weights);
                        taps.map(move |(&input, &weight)| MapEntry { output, input, weight })
                    },
                )
            })
        })
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Elements of an input vector.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Elements of an output vector.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// How many different weights it has.
    pub fn weights(&self) -> usize {
        self.weights
    }

    /// The most inputs that one output weighs.
    pub fn most_taps(&self) -> usize {
        self.blocks.iter().map(|block| block.taps).max().unwrap_or(0)
    }

    /// Products of a weight and an input for one vector.
    pub fn products(&self) -> usize {
        self.blocks.iter().map(|block| block.weights.len() * block.columns()).sum()
    }

    /// For each output the sum of the absolute values of its weights, saturating.
    pub fn absolute_row_sums(&self, weights: &[u64]) -> Vec<u64> {
        let mut sums = vec![0u64; self.outputs];
        for entry in self.entries() {
            let sum = &mut sums[entry.output as usize];
            *sum = sum.saturating_add(weights[entry.weight as usize]);
        }
        sums
    }

    /// For each output the sum of its inputs, whatever the weights; saturating.
    pub fn absolute_sums_of(&self, inputs: &[u64]) -> Vec<u64> {
        let mut sums = vec![0u64; self.outputs];
        for entry in self.entries() {
            let sum = &mut sums[entry.output as usize];
            *sum = sum.saturating_add(inputs[entry.input as usize]);
        }
        sums
    }

    /// The map of each vector (`inputs` integers, one after another) with weights mod 2^64, wrapping.
    ///
    /// # Errors
    /// [`Error::Count`] when weights or inputs are not as many as the map has.
    pub fn forward(&self, weights: &[u64], vectors: &[i64]) -> Result<Vec<u64>, Error> {
        self.check(weights.len(), "weights of a linear map", self.weights)?;
        let matrices: Vec<Vec<u64>> = self
            .blocks
            .iter()
            .map(|block| block.weights.iter().map(|&at| weights[at as usize]).collect())
            .collect();
        let mut out = vec![0u64; self.images(vectors, self.inputs)? * self.outputs];
        out.par_chunks_exact_mut(self.outputs).zip(vectors.par_chunks_exact(self.inputs)).for_each(
            |(out, vector)| {
                let mut column = vec![];
                for (block, matrix) in self.blocks.iter().zip(&matrices) {
                    let columns =
                        block.inputs.chunks_exact(block.taps).zip(block.outputs.chunks_exact(block.rows()));
                    for (inputs, outputs) in columns {
                        column.clear();
                        column.extend(inputs.iter().map(|&input| vector[input as usize] as u64));
                        for (&output, row) in outputs.iter().zip(matrix.chunks_exact(block.taps)) {
                            let products = row.iter().zip(&column).map(|(&w, &x)| w.wrapping_mul(x));
                            out[output as usize] = products.fold(0, u64::wrapping_add);
                        }
                    }
                }
            },
        );
        Ok(out)
    }

    /// For each weight the sum over all vectors and products of the output's error times the input, `[inputs]` and
    /// `[outputs]` integers for each vector: the gradient. Wrapping.
    ///
    /// # Errors
    /// [`Error::Count`] when inputs and errors are not of the same whole number of vectors.
    pub fn gradient(&self, vectors: &[i64], errors: &[i64]) -> Result<Vec<i64>, Error> {
        let images = self.images(vectors, self.inputs)?;
        self.check(errors.len(), "errors of a batch", images * self.outputs)?;
        let add = |mut sum: Vec<i64>, part: Vec<i64>| {
            sum.iter_mut().zip(&part).for_each(|(sum, part)| *sum = sum.wrapping_add(*part));
            sum
        };
        let zeros = || vec![0i64; self.weights];
        Ok(vectors
            .par_chunks_exact(self.inputs)
            .zip(errors.par_chunks_exact(self.outputs))
            .fold(zeros, |mut sums, (vector, errors)| {
                let mut column = vec![];
                for block in &self.blocks {
                    let columns =
                        block.inputs.chunks_exact(block.taps).zip(block.outputs.chunks_exact(block.rows()));
                    for (inputs, outputs) in columns {
                        column.clear();
                        column.extend(inputs.iter().map(|&input| vector[input as usize]));
                        for (&output, row) in outputs.iter().zip(block.weights.chunks_exact(block.taps)) {
                            let error = errors[output as usize];
                            if error != 0 {
                                for (&at, &x) in row.iter().zip(&column) {
                                    let sum = &mut sums[at as usize];
                                    *sum = sum.wrapping_add(error.wrapping_mul(x));
                                }
                            }
                        }
                    }
                }
                sums
            })
            .reduce(zeros, add))
    }

    fn images(&self, vectors: &[i64], elements: usize) -> Result<usize, Error> {
        self.check(
            vectors.len(),
            "inputs of whole vectors",
            vectors.len().next_multiple_of(elements.max(1)).max(1),
        )?;
        Ok(vectors.len() / elements)
    }

    fn check(&self, found: usize, what: &'static str, expected: usize) -> Result<(), Error> {
        if found == expected { Ok(()) } else { Err(Error::Count { what, expected, found }) }
    }
}
