//! Gradients of a whole network, by going back through its graph.

use gelu_layers::{BatchStatistics, CrossEntropy, InputGradient, Mode, Parameters};
use gelu_tensor::Error;
use ndarray::{Array2, ArrayView2, Axis};

use crate::model::{Reading, matrix};
use crate::{Model, Op, ValueId};

/// Loss and gradients, summed over a batch.
pub(super) struct BatchGradients {
    pub(super) loss: f64,
    pub(super) correct: usize,
    /// Of the layers that have parameters, in order.
    pub(super) parameters: Vec<Parameters>,
    /// Of the batch norms, in order.
    pub(super) statistics: Vec<BatchStatistics>,
}

impl BatchGradients {
    /// Adds `other`, number by number.
    pub(super) fn add(&mut self, other: &Self) {
        self.loss += other.loss;
        self.correct += other.correct;
        for (sum, other) in self.parameters.iter_mut().zip(&other.parameters) {
            sum.weight.iter_mut().zip(&other.weight).for_each(|(sum, x)| *sum += x);
            sum.bias.iter_mut().zip(&other.bias).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Cross-entropy of the softmax of the model's logits, and its gradients with respect to all parameters.
pub(super) fn gradients(
    model: &Model,
    x: ArrayView2<'_, f32>,
    labels: &[usize],
) -> Result<BatchGradients, Error> {
    let graph = model.graph();
    let mut values: Vec<Array2<f32>> = Vec::with_capacity(graph.nodes().len() + 1);
    let logits = model.run(x, Mode::Training, Reading::Rounded, |_, value| values.push(value.clone()))?;
    let loss = CrossEntropy::of(logits.view(), labels)?;

    // What depends on a parameter, so that errors have to go back to it.
    let mut trained = vec![false; graph.nodes().len() + 1];
    for (place, node) in graph.nodes().iter().enumerate() {
        let own = model.layer(place).is_some_and(|layer| layer.has_parameters());
        trained[place + 1] = own || node.inputs.iter().any(|input| trained[input.index()]);
    }
    let mut errors: Vec<Option<Array2<f32>>> = vec![None; values.len() + 1];
    errors[graph.logits().index()] = Some(loss.gradient);
    let (mut parameters, mut statistics) = (vec![], vec![]);
    for (place, node) in graph.nodes().iter().enumerate().take(values.len() - 1).rev() {
        let output = ValueId::of_node(place);
        if !trained[output.index()] {
            continue;
        }
        // A value that nothing but the loss's other branches read has no error.
        let error = errors[output.index()].take();
        let error = error.unwrap_or_else(|| Array2::zeros(values[output.index()].dim()));
        let inputs: Vec<&Array2<f32>> = node.inputs.iter().map(|input| &values[input.index()]).collect();
        let back: Vec<Option<Array2<f32>>> = match (&node.op, model.layer(place)) {
            (Op::Linear(_), Some(layer)) => {
                let wanted = match trained[node.inputs[0].index()] {
                    true => InputGradient::Wanted,
                    false => InputGradient::Skipped,
                };
                let source = node.inputs[0];
                let read = model.rounded(source, inputs[0]);
                let mut gradients = layer.backward(read.view(), error.view(), wanted)?;
                if layer.has_parameters() {
                    parameters.push(gradients.parameters);
                }
                statistics.extend(layer.batch_statistics(read.view()));
                // Rounding passes errors on, but for what it cuts off.
                if let (Some(format), Some(back)) = (model.format(source), &mut gradients.input) {
                    let limit = (format.real(format.bound() as i64)) as f32;
                    ndarray::Zip::from(back).and(inputs[0]).for_each(|back, x| {
                        if x.abs() > limit {
                            *back = 0.0;
                        }
                    });
                }
                vec![gradients.input]
            }
            (Op::Client(op), _) => {
                let slices: Vec<&[f32]> = inputs.iter().filter_map(|x| x.as_slice()).collect();
                let error = error.as_standard_layout();
                let back =
                    op.backward(&model.input_shapes(node), &slices, error.as_slice().unwrap_or(&[]))?;
                back.into_iter()
                    .map(|values| matrix(x.nrows(), values).map(Some))
                    .collect::<Result<_, _>>()?
            }
            (Op::Concat, _) => {
                let (mut parts, mut rest) = (vec![], error.view());
                for input in &inputs {
                    let (part, others) = rest.split_at(Axis(1), input.ncols());
                    parts.push(Some(part.to_owned()));
                    rest = others;
                }
                parts
            }
            _ => vec![Some(error.clone()), Some(error)],
        };
        for (input, back) in node.inputs.iter().zip(back) {
            if let (true, Some(back)) = (trained[input.index()], back) {
                match &mut errors[input.index()] {
                    Some(sum) => *sum += &back,
                    none => *none = Some(back),
                }
            }
        }
    }
    parameters.reverse();
    statistics.reverse();
    Ok(BatchGradients { loss: loss.loss, correct: loss.correct, parameters, statistics })
}
