use gelu_layers::{InputGradient, Parameters, cross_entropy};
use gelu_tensor::Error;
use ndarray::{Array2, ArrayView2};

use crate::{Model, Node};

/// Loss and gradients, summed over a batch.
pub(super) struct BatchGradients {
    pub(super) loss: f64,
    pub(super) correct: usize,
    /// In the order of [`Model::parameters`].
    pub(super) parameters: Vec<Parameters>,
}

impl BatchGradients {
    /// Adds `other`, number by number.
    pub(super) fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.correct += other.correct;
        for (sum, other) in self.parameters.iter_mut().zip(&other.parameters) {
            sum.weight += &other.weight;
            sum.bias += &other.bias;
        }
    }
}

/// Cross-entropy of the softmax of the model's logits, and its gradients with respect to all parameters.
pub(super) fn gradients(
    model: &Model,
    x: ArrayView2<'_, f32>,
    labels: &[usize],
) -> Result<BatchGradients, Error> {
    let nodes = model.nodes_to_logits();
    let mut inputs: Vec<Array2<f32>> = Vec::with_capacity(nodes.len() + 1);
    inputs.push(x.to_owned());
    let logits = model.run(x, |_, output| inputs.push(output.clone()))?;
    let loss = cross_entropy(logits.view(), labels)?;

    let weighted = |node: &Node| matches!(node, Node::Linear { layer, .. } if layer.parameters().is_some());
    let first = nodes.iter().position(weighted).unwrap_or(nodes.len());
    let mut gradient = loss.gradient;
    let mut parameters = Vec::new();
    for (i, (node, input)) in nodes.iter().zip(&inputs).enumerate().skip(first).rev() {
        let wanted = if i > first { InputGradient::Wanted } else { InputGradient::Skipped };
        match node {
            Node::Linear { layer, .. } => {
                let gradients = layer.backward(input.view(), gradient.view(), wanted)?;
                parameters.extend(gradients.parameters);
                let Some(input) = gradients.input else { break };
                gradient = input;
            }
            Node::Activation(activation) => gradient = activation.backward(input.view(), gradient.view())?,
        }
    }
    parameters.reverse();
    Ok(BatchGradients { loss: loss.loss, correct: loss.correct, parameters })
}
