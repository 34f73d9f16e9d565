use gelu_tensor::Error;
use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Model, Node};

/// Largest magnitudes seen while a model ran on calibration data: what a fixed-point plan needs to place the binary
/// point. As JSON it travels with the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ranges {
    /// Largest |input element|.
    pub input: f32,
    /// Largest |output| of each activation but the final softmax, in order.
    pub activations: Vec<f32>,
}

impl Ranges {
    /// The key of [`Weights::metadata`](crate::Weights::metadata) under which the ranges travel, as JSON.
    pub const METADATA_KEY: &str = "gelu.ranges";

    fn maximum(mut self, other: Self) -> Self {
        self.input = self.input.max(other.input);
        self.activations.iter_mut().zip(other.activations).for_each(|(a, b)| *a = a.max(b));
        self
    }
}

impl Model {
    /// The largest magnitudes of the inputs and of every activation's outputs over a batch of `[images, elements]`.
    ///
    /// # Errors
    /// [`Error::Count`] when `inputs` has another number of columns than an input image has elements.
    pub fn calibrate(&self, inputs: ArrayView2<'_, f32>) -> Result<Ranges, Error> {
        let activations =
            self.nodes_to_logits().iter().filter(|node| matches!(node, Node::Activation(_))).count();
        let nothing = || Ranges { input: 0.0, activations: vec![0.0; activations] };
        let chunk = |x: ArrayView2<'_, f32>| {
            let mut ranges = Ranges { input: magnitude(x), activations: Vec::with_capacity(activations) };
            self.run(x, |node, output| {
                if matches!(node, Node::Activation(_)) {
                    ranges.activations.push(magnitude(output.view()));
                }
            })?;
            Ok(ranges)
        };
        let chunks: Vec<_> = inputs.axis_chunks_iter(Axis(0), 64).collect();
        chunks.into_par_iter().map(chunk).try_reduce(nothing, |a, b| Ok(a.maximum(b)))
    }
}

fn magnitude(x: ArrayView2<'_, f32>) -> f32 {
    x.fold(0.0, |largest, &x| largest.max(x.abs()))
}
