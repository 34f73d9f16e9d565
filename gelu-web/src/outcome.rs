//! What comes out of an input.

use gelu_models::infer::hidden::Answer;
use gelu_models::plan::Outcome;

/// What a client learns of one input.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The outputs before a final softmax. None where the server reveals the class alone.
    pub logits: Vec<f64>,
    /// The outputs, where the network ends in a softmax.
    pub probabilities: Option<Vec<f64>>,
    /// The index of the largest logit, the first of equals.
    pub class: usize,
    /// The last sums as the integers that were decrypted. None where the server reveals the class alone.
    pub integers: Vec<i64>,
    /// Inputs and activations that were clamped to their declared range.
    pub clamped: u64,
}

impl Output {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let logits: Vec<f64> = outcome.logits.iter().copied().collect();
        let outputs: Vec<f64> = outcome.outputs.iter().copied().collect();
        let class = outcome.predictions().first().copied().unwrap_or(0);
        let integers = outcome.integers.values().to_vec();
        let probabilities = (outputs != logits).then_some(outputs);
        Self { logits, probabilities, class, integers, clamped: outcome.saturations.total() }
    }

    pub(crate) fn of_answer(answer: &Answer) -> Self {
        match answer {
            Answer::Logits(outcome) => Self::of(outcome),
            Answer::Classes(classes) => Self {
                logits: vec![],
                probabilities: None,
                class: classes.first().copied().unwrap_or(0),
                integers: vec![],
                clamped: 0,
            },
        }
    }
}
