//! Maps on batches of floats, as matrix products of their blocks.

use gelu_tensor::{Block, LinearMap};
use ndarray::{Array2, ArrayView2};

/// The columns of a block, one a row: `[images x columns, taps]`.
fn gather(block: &Block, x: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut columns = Array2::zeros((x.nrows() * block.columns(), block.taps()));
    let mut rows = columns.outer_iter_mut();
    for image in x.outer_iter() {
        for column in 0..block.columns() {
            let Some(mut row) = rows.next() else { return columns };
            for (tap, to) in row.iter_mut().enumerate() {
                *to = block.input(column, tap).map_or(0.0, |input| image[input]);
            }
        }
    }
    columns
}

/// The matrix of a block, `[rows, taps]`.
fn matrix(block: &Block, weights: &[f32]) -> Array2<f32> {
    let taps = block.taps();
    Array2::from_shape_fn((block.rows(), taps), |(row, tap)| {
        weights[block.weight_indices()[row * taps + tap] as usize]
    })
}

/// `[images, inputs]` to `[images, outputs]`; a bias for each of equally many outputs, or none.
pub(crate) fn forward(map: &LinearMap, weights: &[f32], bias: &[f32], x: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut y = Array2::zeros((x.nrows(), map.output().elements()));
    for block in map.blocks() {
        let product = gather(block, x).dot(&matrix(block, weights).t());
        let mut products = product.outer_iter();
        for mut image in y.outer_iter_mut() {
            for column in 0..block.columns() {
                let Some(product) = products.next() else { break };
                product.iter().enumerate().for_each(|(row, &sum)| image[block.output(column, row)] = sum);
            }
        }
    }
    if !bias.is_empty() {
        let spread = map.output().elements() / bias.len();
        for mut image in y.outer_iter_mut() {
            image.iter_mut().enumerate().for_each(|(at, y)| *y += bias[at / spread]);
        }
    }
    y
}

/// The gradients with respect to the input (if wanted) and the weights, given input and gradient of the output.
pub(crate) fn backward(
    map: &LinearMap,
    weights: &[f32],
    [x, grad]: [ArrayView2<'_, f32>; 2],
    wanted: bool,
) -> (Option<Array2<f32>>, Vec<f32>) {
    let mut of_weights = vec![0.0; weights.len()];
    let mut of_input = wanted.then(|| Array2::<f32>::zeros(x.dim()));
    for block in map.blocks() {
        // The gradient of the products, `[images x columns, rows]`.
        let mut products = Array2::zeros((x.nrows() * block.columns(), block.rows()));
        let mut rows = products.outer_iter_mut();
        for image in grad.outer_iter() {
            for column in 0..block.columns() {
                let Some(mut product) = rows.next() else { break };
                product.iter_mut().enumerate().for_each(|(row, to)| *to = image[block.output(column, row)]);
            }
        }
        let of_matrix = products.t().dot(&gather(block, x));
        let indices = block.weight_indices().iter();
        indices.zip(&of_matrix).for_each(|(&at, grad)| of_weights[at as usize] += grad);
        if let Some(of_input) = &mut of_input {
            let columns = products.dot(&matrix(block, weights));
            let mut rows = columns.outer_iter();
            for mut image in of_input.outer_iter_mut() {
                for column in 0..block.columns() {
                    let Some(row) = rows.next() else { break };
                    for (tap, grad) in row.iter().enumerate() {
                        if let Some(input) = block.input(column, tap) {
                            image[input] += grad;
                        }
                    }
                }
            }
        }
    }
    (of_input, of_weights)
}
