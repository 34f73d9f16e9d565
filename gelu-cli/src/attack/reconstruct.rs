use gelu_layers::Activation;
use gelu_tensor::Error;

/// What a server would see of one input, if gradients were not masked: those of a network of two dense layers, beside
/// the first layer's own weights. All row by row, a row for each neuron.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DenseGradients<'a> {
    /// Neurons of the first layer.
    pub(crate) hidden: usize,
    /// Its activation.
    pub(crate) activation: Activation,
    /// Its weights, `[hidden, inputs]`.
    pub(crate) weights: &'a [f64],
    /// Its biases.
    pub(crate) biases: &'a [f64],
    /// Gradients of its weights.
    pub(crate) first: &'a [f64],
    /// Gradients of its biases.
    pub(crate) first_biases: &'a [f64],
    /// Gradients of the second layer's weights, `[classes, hidden]`.
    pub(crate) second: &'a [f64],
    /// Gradients of its biases.
    pub(crate) second_biases: &'a [f64],
}

/// Two guesses of the input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reconstruction {
    /// A row of the first layer's gradient divided by its bias's: exact for one input.
    pub(crate) direct: Vec<f64>,
    /// The paper's way (section 4.3 and figure 1): the first layer's activations from the second layer's gradients, and
    /// the input from them by the Moore-Penrose inverse of the first layer's weights. What is orthogonal to these weights
    /// is lost.
    pub(crate) inverted: Vec<f64>,
}

/// Computes an input from gradients (IJCAI 2018 paper, section 4.3).
///
/// # Errors
/// [`Error::Count`] when the slices are not of a network's sizes.
pub(crate) fn reconstruct(seen: &DenseGradients<'_>) -> Result<Reconstruction, Error> {
    let (hidden, classes) = (seen.hidden, seen.second_biases.len());
    let inputs = seen.weights.len() / hidden.max(1);
    for (what, expected, found) in [
        ("weights of the first layer", hidden * inputs, seen.weights.len()),
        ("biases of the first layer", hidden, seen.biases.len()),
        ("gradients of the first layer's weights", hidden * inputs, seen.first.len()),
        ("gradients of the first layer's biases", hidden, seen.first_biases.len()),
        ("gradients of the second layer's weights", hidden * classes, seen.second.len()),
    ] {
        if expected != found || found == 0 {
            return Err(Error::Count { what, expected, found });
        }
    }
    let (row, divisor) = largest(seen.first_biases);
    let direct = seen.first[row * inputs..][..inputs].iter().map(|x| x / divisor).collect();
    let (row, divisor) = largest(seen.second_biases);
    let activations = seen.second[row * hidden..][..hidden].iter().map(|x| x / divisor);
    // Rectified neurons at zero tell nothing of their sums.
    let known: Vec<(usize, f64)> = activations
        .enumerate()
        .filter_map(|(neuron, a)| Some((neuron, inverse(seen.activation, a)? - seen.biases[neuron])))
        .collect();
    let rows: Vec<&[f64]> =
        known.iter().map(|(neuron, _)| &seen.weights[neuron * inputs..][..inputs]).collect();
    let mut gram: Vec<Vec<f64>> = rows.iter().map(|x| rows.iter().map(|y| dot(x, y)).collect()).collect();
    let trace: f64 = (0..gram.len()).map(|at| gram[at][at]).sum();
    // So little that it matters only where rows depend on each other.
    let ridge = 1e-9 * trace / gram.len().max(1) as f64;
    (0..gram.len()).for_each(|at| gram[at][at] += ridge);
    let factors = solve(gram, known.iter().map(|(_, sum)| *sum).collect());
    let mut inverted = vec![0.0; inputs];
    for (row, factor) in rows.iter().zip(factors) {
        inverted.iter_mut().zip(*row).for_each(|(x, weight)| *x += factor * weight);
    }
    Ok(Reconstruction { direct, inverted })
}

/// The entry of largest absolute value, never zero.
fn largest(values: &[f64]) -> (usize, f64) {
    let largest = (0..values.len()).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs())).unwrap_or(0);
    let value = values.get(largest).copied().unwrap_or(0.0);
    (largest, if value == 0.0 { f64::MIN_POSITIVE } else { value })
}

/// The sum that an activation came from, where it tells one.
fn inverse(activation: Activation, y: f64) -> Option<f64> {
    const LEAST: f64 = 1e-6;
    match activation {
        Activation::Sigmoid => {
            let y = y.clamp(LEAST, 1.0 - LEAST);
            Some((y / (1.0 - y)).ln())
        }
        Activation::Tanh => Some(y.clamp(LEAST - 1.0, 1.0 - LEAST).atanh()),
        Activation::Relu => (y > 0.0).then_some(y),
        _ => None,
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Solves a symmetric positive definite system by Cholesky's method.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Vec<f64> {
    let size = right.len();
    for column in 0..size {
        let Some((pivot, below)) = matrix[column..].split_first_mut() else { continue };
        let length = (pivot[column] - dot(&pivot[..column], &pivot[..column])).max(f64::MIN_POSITIVE).sqrt();
        pivot[column] = length;
        for row in below {
            row[column] = (row[column] - dot(&row[..column], &pivot[..column])) / length;
        }
    }
    for at in 0..size {
        right[at] = (right[at] - dot(&matrix[at][..at], &right[..at])) / matrix[at][at];
    }
    for at in (0..size).rev() {
        let rest: f64 = (at + 1..size).map(|below| matrix[below][at] * right[below]).sum();
        right[at] = (right[at] - rest) / matrix[at][at];
    }
    right
}

/// Pearson's correlation of two vectors of one length, from -1 to 1; 0 where one does not vary.
pub(crate) fn correlation(x: &[f64], y: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (x_mean, y_mean) = (mean(x), mean(y));
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| x.iter().zip(y).map(|(x, y)| f(x - x_mean, y - y_mean)).sum::<f64>();
    let scale = (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if scale > 0.0 { sum(&|x, y| x * y) / scale } else { 0.0 }
}
