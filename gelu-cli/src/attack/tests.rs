mod leaks;

use gelu_layers::Activation;
use gelu_tensor::Error;
use ndarray::Array2;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::extract::{Extraction, extract};
use super::reconstruct::{DenseGradients, Reconstruction, correlation, reconstruct};

proptest! {
    #[test]
    fn as_many_equations_as_unknowns_are_solved_and_one_fewer_are_not(seed: u64, inputs in 1..12usize, outputs in 1..5usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weights: Vec<Vec<i64>> =
            (0..outputs).map(|_| (0..=inputs).map(|_| rng.random_range(-(1i64 << 40)..1 << 40)).collect()).collect();
        let vectors: Vec<i64> = (0..(inputs + 1) * inputs).map(|_| rng.random_range(-4096..4096)).collect();
        let sums: Vec<i64> = vectors
            .chunks_exact(inputs)
            .flat_map(|vector| {
                let sum = |row: &Vec<i64>| {
                    row[inputs] + row.iter().zip(vector).map(|(w, x)| w * x).sum::<i64>()
                };
                weights.iter().map(sum).collect::<Vec<_>>()
            })
            .collect();
        let sizes = [inputs, outputs];
        // Random vectors are in general position but for one in thousands.
        if let Extraction::Solved { rows } = extract(sizes, &vectors, &sums).unwrap() {
            prop_assert_eq!(rows, weights);
        } else {
            prop_assert!(inputs == 1, "general position");
        }
        if inputs > 1 {
            let fewer = extract(sizes, &vectors[inputs..], &sums[outputs..]).unwrap();
            prop_assert_eq!(fewer, Extraction::Open { rank: inputs, unknowns: inputs + 1 });
        }
        let mut wrong = [&sums[..], &sums[..outputs]].concat();
        let last = wrong.len() - 1;
        wrong[last] += 1;
        prop_assert!(extract(sizes, &[&vectors[..], &vectors[..inputs]].concat(), &wrong).is_err());
    }
}

#[test]
fn correlation_is_one_for_lines_and_zero_for_constants() {
    let x = [1.0, 2.0, 3.0, 5.0];
    let line: Vec<f64> = x.iter().map(|x| 7.0 - 2.0 * x).collect();
    assert!((correlation(&x, &line) + 1.0).abs() < 1e-12);
    assert_eq!(correlation(&x, &[4.0; 4]), 0.0);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let refused = |result: Result<Extraction, Error>| matches!(result, Err(Error::Count { .. }));
    assert!(refused(extract([2, 1], &[1, 2, 3], &[1])));
    assert!(refused(extract([2, 1], &[1, 2], &[1, 2])));
    assert!(refused(extract([2, 1], &[], &[])));
    let network = Network::new(Activation::Tanh, 4, 3);
    let gradients = network.gradients(&[0.5; 4]);
    let seen = network.seen(&gradients);
    assert!(reconstruct(&seen).is_ok());
    for wrong in [
        DenseGradients { first: &seen.first[1..], ..seen },
        DenseGradients { first_biases: &[], ..seen },
        DenseGradients { second: &seen.second[1..], ..seen },
        DenseGradients { biases: &seen.biases[1..], ..seen },
        DenseGradients { weights: &[], ..seen },
    ] {
        assert!(matches!(reconstruct(&wrong), Err(Error::Count { .. })), "{wrong:?}");
    }
}

/// Two dense layers of reals.
struct Network {
    activation: Activation,
    weights: [Array2<f64>; 2],
    biases: [Vec<f64>; 2],
}

/// Of one input: those of weights and biases, layer by layer.
type LayerGradients = [(Vec<f64>, Vec<f64>); 2];

impl Network {
    fn new(activation: Activation, hidden: usize, inputs: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let weights = [(hidden, inputs), (3, hidden)]
            .map(|shape| Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0)));
        let biases = [hidden, 3].map(|rows| (0..rows).map(|_| rng.random_range(-0.1..0.1)).collect());
        Self { activation, weights, biases }
    }

    fn gradients(&self, input: &[f64]) -> LayerGradients {
        let layer = |at: usize, x: &[f64]| -> Vec<f64> {
            let rows = self.weights[at].outer_iter().zip(&self.biases[at]);
            rows.map(|(row, bias)| bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()).collect()
        };
        let input = &input[..self.weights[0].ncols()];
        let sums = layer(0, input);
        let hidden: Vec<f64> = sums.iter().map(|&sum| self.activation.apply(sum)).collect();
        let mut errors = layer(1, &hidden);
        gelu_layers::softmax(&mut errors);
        errors[1] -= 1.0;
        let back = |(neuron, &sum): (usize, &f64)| {
            let column = self.weights[1].column(neuron);
            let error: f64 = column.iter().zip(&errors).map(|(w, error)| w * error).sum();
            error * self.activation.derivative(sum)
        };
        let below: Vec<f64> = sums.iter().enumerate().map(back).collect();
        let outer =
            |errors: &[f64], x: &[f64]| errors.iter().flat_map(|e| x.iter().map(move |x| e * x)).collect();
        [(outer(&below, input), below.clone()), (outer(&errors, &hidden), errors.clone())]
    }

    fn seen<'a>(&'a self, gradients: &'a LayerGradients) -> DenseGradients<'a> {
        DenseGradients {
            hidden: self.weights[0].nrows(),
            activation: self.activation,
            weights: self.weights[0].as_slice().unwrap(),
            biases: &self.biases[0],
            first: &gradients[0].0,
            first_biases: &gradients[0].1,
            second: &gradients[1].0,
            second_biases: &gradients[1].1,
        }
    }
}

#[test]
fn an_input_is_computed_from_gradients_both_ways() {
    let input = [0.3, -0.7, 0.1, 0.9];
    let near = |found: &[f64]| found.iter().zip(&input).all(|(a, b)| (a - b).abs() < 1e-4);
    for activation in [Activation::Sigmoid, Activation::Tanh, Activation::Relu] {
        // Enough neurons that even those of ReLU that are not zero tell all of the input.
        let network = Network::new(activation, 16, input.len());
        let gradients = network.gradients(&input);
        let Reconstruction { direct, inverted } = reconstruct(&network.seen(&gradients)).unwrap();
        assert!(near(&direct) && near(&inverted), "{activation}: {direct:?} {inverted:?}");
    }
    // What is orthogonal to all weights is lost on the second way only.
    let network = Network::new(Activation::Tanh, 2, input.len());
    let gradients = network.gradients(&input);
    let Reconstruction { direct, inverted } = reconstruct(&network.seen(&gradients)).unwrap();
    assert!(near(&direct) && !near(&inverted));
}
