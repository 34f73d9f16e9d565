use gelu_layers::{CrossEntropy, Mode};
use gelu_tensor::Error;
use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Dataset;
use crate::Model;
use crate::model::Reading;

/// How well a model does on a data set.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Share of inputs with the right label, from 0 to 1.
    pub accuracy: f64,
}

impl Model {
    /// Returns how well the model does on a data set, on floats, with values rounded to the formats that they were trained to.
    /// A model that does not end in a softmax is taken to give logits.
    ///
    /// # Errors
    /// [`Error::Count`] when the inputs have not the model's number of elements, or there are more classes than outputs.
    pub fn evaluate(&self, dataset: &Dataset) -> Result<Evaluation, Error> {
        const CHUNK: usize = 64;
        let chunk = |(x, labels): (ArrayView2<'_, f32>, &[usize])| {
            let result =
                CrossEntropy::of(self.run(x, Mode::Inference, Reading::Rounded, |_, _| ())?.view(), labels)?;
            Ok((result.loss, result.correct))
        };
        let inputs = dataset.inputs();
        let images: Vec<_> = inputs.axis_chunks_iter(Axis(0), CHUNK).collect();
        let batches = images.into_par_iter().zip(dataset.labels().par_chunks(CHUNK));
        let results: Vec<_> = batches.map(chunk).collect::<Result<_, Error>>()?;
        // Added in order, so that the sum does not depend on the threads.
        let (loss, correct) =
            results.iter().fold((0.0, 0), |sum, result| (sum.0 + result.0, sum.1 + result.1));
        let images = dataset.len().max(1) as f64;
        Ok(Evaluation { loss: loss / images, accuracy: correct as f64 / images })
    }
}
