//! The loss of a classifier.

use gelu_tensor::Error;
use ndarray::{Array2, ArrayView2};

use crate::{argmax, softmax};

/// Softmax and cross-entropy of a batch, with their gradient.
#[derive(Clone, Debug)]
pub struct CrossEntropy {
    /// Sum over the images of `-ln(probability of the right class)`, in nats.
    pub loss: f64,
    /// Gradient of that sum with respect to the logits: the probabilities minus the one-hot labels, `[images, classes]`.
    pub gradient: Array2<f32>,
    /// How many images have their largest logit at their label.
    pub correct: usize,
}

impl CrossEntropy {
    /// Returns the cross-entropy between the softmax of `logits` (`[images, classes]`) and the labels, one for each image.
    ///
    /// ```
    /// use ndarray::array;
    ///
    /// let two = gelu_layers::CrossEntropy::of(array![[0.0, 0.0], [3.0, -3.0]].view(), &[1, 0])?;
    /// assert!((two.loss - 0.6956).abs() < 1e-3); // ln 2 and ln(1 + e^-6)
    /// # Ok::<(), gelu_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Count`] when there is not one label for each sample; [`Error::Limit`] when a label is no class.
    pub fn of(logits: ArrayView2<'_, f32>, labels: &[usize]) -> Result<Self, Error> {
        let (images, classes) = logits.dim();
        if labels.len() != images {
            return Err(Error::Count { what: "labels", expected: images, found: labels.len() });
        }
        if let Some(&label) = labels.iter().find(|&&label| label >= classes) {
            return Err(Error::Limit {
                what: "label of a sample",
                limit: classes.saturating_sub(1),
                found: label,
            });
        }
        let mut gradient = logits.to_owned();
        let mut loss = 0.0;
        let mut correct = 0;
        for ((row, mut gradient), &label) in logits.outer_iter().zip(gradient.outer_iter_mut()).zip(labels) {
            // From the logits rather than the probability, which may have underflowed to zero.
            let largest = row.fold(f64::NEG_INFINITY, |largest, &x| largest.max(f64::from(x)));
            let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
            loss += sum.ln() + largest - f64::from(row[label]);
            let mut probabilities = row.to_vec();
            correct += usize::from(argmax(&probabilities) == label);
            softmax(&mut probabilities);
            gradient.iter_mut().zip(probabilities).for_each(|(to, from)| *to = from);
            gradient[label] -= 1.0;
        }
        Ok(Self { loss, gradient, correct })
    }
}
