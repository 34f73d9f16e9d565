//! Some of a map's outputs alone: what one of several machines computes.

use super::{Block, LinearMap};
use crate::{Error, Shape};

impl LinearMap {
    /// Returns whether both maps read the same inputs in the same columns, so that im2col for one is im2col for the other.
    pub(crate) fn has_inputs_of(&self, other: &Self) -> bool {
        let blocks = self.blocks.iter().zip(&other.blocks);
        self.input == other.input
            && self.blocks.len() == other.blocks.len()
            && blocks.into_iter().all(|(a, b)| a.taps == b.taps && a.inputs == b.inputs)
    }

    /// Returns the map to some of the outputs, which are given in ascending order and become a tensor of one axis. Weights
    /// keep their indices, and the most terms stay those of the whole map, so that bounds do too.
    ///
    /// # Errors
    /// [`Error::Limit`] when an output lies outside; [`Error::Layout`] when a row of a block gives some of them and others
    /// as well, or they are not in ascending order.
    pub fn to_outputs(&self, outputs: &[u32]) -> Result<Self, Error> {
        if let Some(&last) = outputs.last()
            && last as usize >= self.output.elements()
        {
            let (limit, found) = (self.output.elements(), last as usize + 1);
            return Err(Error::Limit { what: "outputs of a linear map", limit, found });
        }
        let misfit = |found: &str| Error::Layout {
            operation: "a part of a linear map",
            expected: "outputs in ascending order that are whole rows",
            found: found.to_owned(),
        };
        if !outputs.is_sorted_by(|a, b| a < b) {
            return Err(misfit("another order"));
        }
        let mut places = vec![None; self.output.elements()];
        for (place, &output) in outputs.iter().enumerate() {
            places[output as usize] = Some(place as u32);
        }
        let mut blocks = vec![];
        for block in &self.blocks {
            let rows = block.rows();
            let mut kept = vec![];
            for row in 0..rows {
                let given =
                    (0..block.columns()).filter(|&column| places[block.output(column, row)].is_some());
                match given.count() {
                    0 => {}
                    all if all == block.columns() => kept.push(row),
                    _ => return Err(misfit("some outputs of a row")),
                }
            }
            if kept.is_empty() {
                continue;
            }
            let weights = kept.iter().flat_map(|&row| &block.weights[row * block.taps..][..block.taps]);
            let columns = 0..block.columns();
            let kept_outputs = columns.flat_map(|column| {
                let places = &places;
                kept.iter().filter_map(move |&row| places[block.output(column, row)])
            });
            blocks.push(Block {
                taps: block.taps,
                weights: weights.copied().collect(),
                inputs: block.inputs.clone(),
                outputs: kept_outputs.collect(),
                read: block.read,
                padded: block.padded,
            });
        }
        Ok(Self {
            input: self.input.clone(),
            output: Shape::from([outputs.len()]),
            weights: self.weights,
            most_terms: self.most_terms,
            blocks,
        })
    }
}
