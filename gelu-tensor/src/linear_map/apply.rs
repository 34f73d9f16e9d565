//! Maps on numbers in the clear.

use std::num::Wrapping;
use std::ops::{Add, Mul};

use rayon::prelude::*;

use super::{LinearMap, PADDING};
use crate::Error;

impl LinearMap {
    /// Returns the map of each tensor of a batch, one after another. Integers of [`Wrapping`] wrap.
    ///
    /// # Errors
    /// [`Error::Count`] when weights or inputs are not as many as the map has.
    pub fn apply<T>(&self, weights: &[T], inputs: &[T]) -> Result<Vec<T>, Error>
    where
        T: Copy + Default + Send + Sync + Add<Output = T> + Mul<Output = T>,
    {
        check("weights of a linear map", self.weights, weights.len())?;
        let (from, to) = (self.input.elements(), self.output.elements());
        let matrix = |block: &super::Block| block.weights.iter().map(|&at| weights[at as usize]).collect();
        let matrices: Vec<Vec<T>> = self.blocks.iter().map(matrix).collect();
        let mut out = vec![T::default(); self.batch(inputs.len(), from)? * to];
        out.par_chunks_exact_mut(to).zip(inputs.par_chunks_exact(from)).for_each(|(out, inputs)| {
            let mut column = vec![];
            for (block, matrix) in self.blocks.iter().zip(&matrices) {
                for (taps, outputs) in block.pairs() {
                    column.clear();
                    column
                        .extend(taps.iter().map(|&at| inputs.get(at as usize).copied().unwrap_or_default()));
                    for (&output, row) in outputs.iter().zip(matrix.chunks_exact(block.taps)) {
                        out[output as usize] =
                            row.iter().zip(&column).fold(T::default(), |sum, (&w, &x)| sum + w * x);
                    }
                }
            }
        });
        Ok(out)
    }

    /// Returns the map of each tensor of a batch of signed integers with weights mod 2^64: sums mod 2^64, which are
    /// exact where bounds say that none overflows.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn apply_wrapping(&self, weights: &[u64], inputs: &[i64]) -> Result<Vec<u64>, Error> {
        let weights: Vec<Wrapping<u64>> = weights.iter().copied().map(Wrapping).collect();
        let inputs: Vec<Wrapping<u64>> = inputs.iter().map(|&x| Wrapping(x as u64)).collect();
        Ok(self.apply(&weights, &inputs)?.into_iter().map(|Wrapping(sum)| sum).collect())
    }

    /// Returns the largest sum of the absolute values of a row's weights: what no output exceeds for inputs of up to 1.
    ///
    /// # Errors
    /// [`Error::Count`] when the weights are not as many as the map has.
    pub(crate) fn largest_row_sum(&self, weights: &[i32]) -> Result<u64, Error> {
        check("weights of a linear map", self.weights, weights.len())?;
        let magnitude = |&at: &u32| u64::from(weights[at as usize].unsigned_abs());
        let rows = self.blocks.iter().flat_map(|block| block.weights.chunks_exact(block.taps));
        Ok(rows.map(|row| row.iter().map(magnitude).sum()).max().unwrap_or(0))
    }

    /// Returns for each weight the sum over all tensors of a batch and products of the output's error times the input:
    /// its gradient. Wrapping.
    ///
    /// # Errors
    /// [`Error::Count`] when inputs and errors are not those of one batch.
    pub fn gradient(&self, inputs: &[i64], errors: &[i64]) -> Result<Vec<i64>, Error> {
        let (from, to) = (self.input.elements(), self.output.elements());
        check("errors of a batch", self.batch(inputs.len(), from)? * to, errors.len())?;
        let add = |mut sum: Vec<i64>, part: Vec<i64>| {
            sum.iter_mut().zip(&part).for_each(|(sum, part)| *sum = sum.wrapping_add(*part));
            sum
        };
        let zeros = || vec![0i64; self.weights];
        Ok(inputs
            .par_chunks_exact(from)
            .zip(errors.par_chunks_exact(to))
            .fold(zeros, |mut sums, (inputs, errors)| {
                let mut column = vec![];
                for block in &self.blocks {
                    for (taps, outputs) in block.pairs() {
                        column.clear();
                        column.extend(taps.iter().map(|&at| inputs.get(at as usize).copied().unwrap_or(0)));
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

    /// Returns for each output the sum of its weights' magnitudes times the bounds of what they weigh, saturating: by
    /// how much it can be off zero at most.
    ///
    /// # Errors
    /// [`Error::Count`] when weights or bounds are not as many as the map has.
    pub fn bounds(&self, magnitudes: &[u64], inputs: &[u64]) -> Result<Vec<u64>, Error> {
        check("weights of a linear map", self.weights, magnitudes.len())?;
        check("inputs of a linear map", self.input.elements(), inputs.len())?;
        let mut sums = vec![0u64; self.output.elements()];
        for entry in self.entries() {
            let product = magnitudes[entry.weight as usize].saturating_mul(inputs[entry.input as usize]);
            let sum = &mut sums[entry.output as usize];
            *sum = sum.saturating_add(product);
        }
        Ok(sums)
    }

    /// Returns which elements of the input the map reads at all.
    pub fn used_inputs(&self) -> Vec<bool> {
        let mut used = vec![false; self.input.elements()];
        let inputs = self.blocks.iter().flat_map(|block| &block.inputs);
        inputs.filter(|&&input| input != PADDING).for_each(|&input| used[input as usize] = true);
        used
    }

    /// Tensors in a batch of so many numbers.
    fn batch(&self, numbers: usize, elements: usize) -> Result<usize, Error> {
        check("numbers of whole tensors", numbers.next_multiple_of(elements.max(1)).max(1), numbers)?;
        Ok(numbers / elements)
    }
}

fn check(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::Count { what, expected, found }) }
}
