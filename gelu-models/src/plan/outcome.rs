//! What comes out of a run.

use std::collections::BTreeMap;

use gelu_layers::argmax;
use gelu_tensor::FixedTensor;
use ndarray::Array2;

use crate::ValueId;

/// How many inputs and activations were clamped to their declared range, value by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saturations(BTreeMap<ValueId, u64>);

impl Saturations {
    /// Returns the number in all.
    pub fn total(&self) -> u64 {
        self.0.values().fold(0, |sum, &count| sum.saturating_add(count))
    }

    /// Returns the values of which any were clamped, and how many of each, in the graph's order.
    pub fn by_value(&self) -> impl Iterator<Item = (ValueId, u64)> {
        self.0.iter().map(|(&value, &count)| (value, count))
    }

    /// Adds those of another batch.
    pub fn add(&mut self, other: &Self) {
        other.by_value().for_each(|(value, count)| self.count(value, count));
    }

    pub(super) fn count(&mut self, value: ValueId, count: u64) {
        if count > 0 {
            let counted = self.0.entry(value).or_default();
            *counted = counted.saturating_add(count);
        }
    }
}

/// What comes out at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The last segment's sums as integers.
    pub integers: FixedTensor,
    /// What [`Model::logits`](crate::Model::logits) gives: the outputs before the final softmax, `[images, outputs]`.
    pub logits: Array2<f64>,
    /// The outputs (probabilities, where the model ends in a softmax), `[images, outputs]`.
    pub outputs: Array2<f64>,
    /// Inputs and activations that were clamped to their declared range.
    pub saturations: Saturations,
}

impl Outcome {
    /// Returns for each image the index of its largest logit: the predicted class. The first of equals.
    pub fn predictions(&self) -> Vec<usize> {
        self.logits.outer_iter().map(|row| argmax(&row.to_vec())).collect()
    }
}
