use gelu_tensor::{Shape, Window, WindowTap};
use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::*;

fn random(rng: &mut ChaCha8Rng, [rows, columns]: [usize; 2]) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
}

/// The sum of products of a layer's output and `direction`: a scalar whose gradient is known by `backward`.
fn along(y: &Array2<f32>, direction: &Array2<f32>) -> f64 {
    y.iter().zip(direction).map(|(&y, &d)| f64::from(y) * f64::from(d)).sum()
}

fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * (1.0 + expected.abs()),
        "expected {expected}, found {found}"
    );
}

/// Every partial derivative against a central difference. A linear layer has no error of truncation, so that the
/// step can be large and rounding is all that is left.
fn check_gradients(layer: &mut dyn Linear, seed: u64) {
    const STEP: f32 = 0.5;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    Initializer::KaimingUniform.fill(layer, &mut rng);
    let x = random(&mut rng, [3, layer.input_shape().elements()]);
    let direction = random(&mut rng, [3, layer.output_shape().elements()]);
    let gradients = layer.backward(x.view(), direction.view(), InputGradient::Wanted).unwrap();

    let input = gradients.input.unwrap();
    for at in 0..x.len().min(60) {
        let at = (at * 7 % x.nrows(), at * 13 % x.ncols());
        let value = |shift: f32| {
            let mut x = x.clone();
            x[at] += shift;
            along(&layer.forward(x.view()).unwrap(), &direction)
        };
        let slope = (value(STEP) - value(-STEP)) / f64::from(2.0 * STEP);
        assert_close(f64::from(input[at]), slope, 1e-4);
    }

    let Some(parameters) = gradients.parameters else { return };
    for at in 0..parameters.weight.len() {
        let at = (at / parameters.weight.ncols(), at % parameters.weight.ncols());
        let mut value = |shift: f32| {
            layer.parameters_mut().unwrap().weight[at] += shift;
            let value = along(&layer.forward(x.view()).unwrap(), &direction);
            layer.parameters_mut().unwrap().weight[at] -= shift;
            value
        };
        let slope = (value(STEP) - value(-STEP)) / f64::from(2.0 * STEP);
        assert_close(f64::from(parameters.weight[at]), slope, 1e-4);
    }
    for at in 0..parameters.bias.len() {
        let mut value = |shift: f32| {
            layer.parameters_mut().unwrap().bias[at] += shift;
            let value = along(&layer.forward(x.view()).unwrap(), &direction);
            layer.parameters_mut().unwrap().bias[at] -= shift;
            value
        };
        let slope = (value(STEP) - value(-STEP)) / f64::from(2.0 * STEP);
        assert_close(f64::from(parameters.bias[at]), slope, 1e-4);
    }
}

fn naive_convolution(layer: &Conv2d, x: ArrayView2<'_, f32>) -> Array2<f32> {
    let [channels, height, width] = layer.windows().input();
    let Window { kernel, stride, padding } = layer.windows().window();
    let [rows, columns] = layer.windows().output();
    let Parameters { weight, bias } = layer.parameters().unwrap();
    Array2::from_shape_fn((x.nrows(), layer.output_shape().elements()), |(image, element)| {
        let [out, row, column] = [element / (rows * columns), element / columns % rows, element % columns];
        let mut sum = f64::from(bias[out]);
        for channel in 0..channels {
            for ky in 0..kernel[0] {
                for kx in 0..kernel[1] {
                    let [y, x_] = [row * stride[0] + ky, column * stride[1] + kx];
                    let inside = (padding[0]..height + padding[0]).contains(&y)
                        && (padding[1]..width + padding[1]).contains(&x_);
                    if inside {
                        let at = (channel * height + y - padding[0]) * width + x_ - padding[1];
                        let tap = (channel * kernel[0] + ky) * kernel[1] + kx;
                        sum += f64::from(weight[[out, tap]]) * f64::from(x[[image, at]]);
                    }
                }
            }
        }
        sum as f32
    })
}

fn naive_pooling(layer: &MeanPool2d, x: ArrayView2<'_, f32>) -> Array2<f32> {
    let windows = layer.windows();
    let area = windows.window().kernel.iter().product::<usize>();
    Array2::from_shape_fn((x.nrows(), layer.output_shape().elements()), |(image, element)| {
        let [channel, position] = [element / windows.positions(), element % windows.positions()];
        let taps = channel * area..(channel + 1) * area;
        let read = taps.filter_map(|tap| windows.element(WindowTap { position, tap }));
        (read.map(|at| f64::from(x[[image, at]])).sum::<f64>() / area as f64) as f32
    })
}

prop_compose! {
    fn windows()(
        input in [1usize..4, 3usize..9, 3usize..9],
        kernel in [1usize..4, 1usize..4],
        stride in [1usize..4, 1usize..4],
        padding in [0usize..3, 0usize..3],
    ) -> (Shape, Window) {
        let padding = [padding[0].min(kernel[0] - 1), padding[1].min(kernel[1] - 1)];
        (Shape::from(input), Window { kernel, stride, padding })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn convolution_equals_the_naive_loops(
        (input, window) in windows(), out_channels in 1usize..5, images in 0usize..4, seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut layer = Conv2d::new(Conv2dConfig { out_channels, window }, &input).unwrap();
        Initializer::KaimingUniform.fill(&mut layer, &mut rng);
        let x = random(&mut rng, [images, input.elements()]);
        let found = layer.forward(x.view()).unwrap();
        let expected = naive_convolution(&layer, x.view());
        prop_assert_eq!(found.dim(), expected.dim());
        prop_assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-5));
    }

    #[test]
    fn pooling_equals_the_naive_loops((input, window) in windows(), images in 0usize..4, seed: u64) {
        let layer = MeanPool2d::new(window, &input).unwrap();
        let x = random(&mut ChaCha8Rng::seed_from_u64(seed), [images, input.elements()]);
        let found = layer.forward(x.view()).unwrap();
        let expected = naive_pooling(&layer, x.view());
        prop_assert_eq!(found.dim(), expected.dim());
        prop_assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-5));
    }

    #[test]
    fn gradients_of_convolution_and_pooling((input, window) in windows(), seed: u64) {
        check_gradients(&mut Conv2d::new(Conv2dConfig { out_channels: 2, window }, &input).unwrap(), seed);
        check_gradients(&mut MeanPool2d::new(window, &input).unwrap(), seed);
    }
}

#[test]
fn gradients_of_dense_and_flatten() {
    check_gradients(&mut Dense::new(5, &Shape::from([7])).unwrap(), 1);
    check_gradients(&mut Flatten::new(&Shape::from([2, 3, 4])), 2);
}

#[test]
fn gradients_of_activations() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let x = random(&mut rng, [4, 6]) * 3.0;
    let direction = random(&mut rng, [4, 6]);
    for activation in Activation::ALL {
        let gradient = activation.backward(x.view(), direction.view()).unwrap();
        for at in ndarray::indices(x.dim()) {
            // Softmax is computed in f32, hence the coarser step; the others are checked in f64 below.
            let value = |shift: f32| {
                let mut x = x.clone();
                x[at] += shift;
                along(&activation.forward(x.view()), &direction)
            };
            assert_close(f64::from(gradient[at]), (value(5e-3) - value(-5e-3)) / 1e-2, 1e-3);
        }
    }
}

#[test]
fn derivatives_of_activations() {
    for activation in Activation::ALL.into_iter().filter(|&activation| activation != Activation::Softmax) {
        for x in [-4.0, -1.3, -0.01, 0.02, 0.7, 3.1] {
            let slope = (activation.apply(x + 1e-5).unwrap() - activation.apply(x - 1e-5).unwrap()) / 2e-5;
            assert_close(activation.derivative(x).unwrap(), slope, 1e-8);
        }
    }
}

#[test]
fn taylor_polynomials_approach_the_sigmoid() {
    let sigmoid = Activation::Sigmoid.apply(0.3).unwrap();
    let third = Activation::SigmoidTaylor3.apply(0.3).unwrap();
    let fifth = Activation::SigmoidTaylor5.apply(0.3).unwrap();
    assert!((third - sigmoid).abs() < 0.3f64.powi(5) / 400.0);
    assert!((fifth - sigmoid).abs() < 0.3f64.powi(7) * 17.0 / 80_000.0);
}

#[test]
fn names_of_activations_can_be_read_back() {
    for activation in Activation::ALL {
        assert_eq!(activation.to_string().parse(), Ok(activation));
    }
    assert_eq!("gelu".parse::<Activation>().unwrap_err().found, "gelu");
}

#[test]
fn softmax_of_large_logits_is_finite() {
    let x = ndarray::array![[1000.0, 999.0], [-1000.0, 0.0]];
    let y = Activation::Softmax.forward(x.view());
    assert!((y[[0, 0]] - 0.731_058_6).abs() < 1e-6);
    assert_eq!(y[[1, 1]], 1.0);
}

#[test]
fn cross_entropy_and_its_gradient() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let logits = random(&mut rng, [5, 3]) * 2.0;
    let labels = [0, 2, 1, 1, 0];
    let loss = |x: &Array2<f32>| cross_entropy(x.view(), &labels).unwrap().loss;
    let gradient = cross_entropy(logits.view(), &labels).unwrap().gradient;
    for at in ndarray::indices(logits.dim()) {
        let [mut above, mut below] = [logits.clone(), logits.clone()];
        above[at] += 1e-2;
        below[at] -= 1e-2;
        let step = f64::from(above[at]) - f64::from(below[at]);
        assert_close(f64::from(gradient[at]), (loss(&above) - loss(&below)) / step, 1e-4);
    }
    let huge = cross_entropy(ndarray::array![[500.0, -500.0]].view(), &[1]).unwrap();
    assert_eq!((huge.loss, huge.correct), (1000.0, 0));
}

#[test]
fn wrong_shapes_are_errors() {
    let conv = Conv2d::new(Conv2dConfig::new(2, [3, 3]), &Shape::from([1, 5, 5])).unwrap();
    assert!(conv.forward(Array2::zeros((1, 24)).view()).is_err());
    let backward = |x: usize, grad: [usize; 2]| {
        let [x, grad] = [Array2::zeros((2, x)), Array2::zeros((grad[0], grad[1]))];
        conv.backward(x.view(), grad.view(), InputGradient::Wanted)
    };
    assert!(backward(25, [2, 18]).is_ok());
    assert!(backward(24, [2, 18]).is_err());
    assert!(backward(25, [2, 17]).is_err());
    assert!(backward(25, [1, 18]).is_err());
    assert!(Conv2d::new(Conv2dConfig::new(0, [3, 3]), &Shape::from([1, 5, 5])).is_err());
    assert!(Conv2d::new(Conv2dConfig::new(usize::MAX, [3, 3]), &Shape::from([1, 5, 5])).is_err());
    assert!(Dense::new(3, &Shape::from([1, 5, 5])).is_err());
    assert!(cross_entropy(Array2::zeros((2, 3)).view(), &[0]).is_err());
    assert!(cross_entropy(Array2::zeros((1, 3)).view(), &[3]).is_err());
    assert!(Activation::Relu.backward(Array2::zeros((1, 3)).view(), Array2::zeros((1, 2)).view()).is_err());
}

#[test]
fn layers_beyond_all_bounds_are_errors() {
    let huge = 1 << 40;
    for (input, kernel, padding) in [
        ([huge, 3, 3], [1, 1], [0, 0]),
        ([1, huge, huge], [1, 1], [0, 0]),
        ([1, 3, 3], [huge, huge], [huge - 1, huge - 1]),
        ([usize::MAX, 1, 1], [2, 2], [1, 1]),
    ] {
        let (input, window) = (Shape::from(input), Window::new(kernel).with_padding(padding));
        assert!(Conv2d::new(Conv2dConfig { out_channels: 1, window }, &input).is_err());
        assert!(MeanPool2d::new(window, &input).is_err());
    }
    assert!(Dense::new(usize::MAX, &Shape::from([usize::MAX])).is_err());
}

#[test]
fn initial_values_stay_within_their_bounds() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut layer = Conv2d::new(Conv2dConfig::new(8, [3, 3]), &Shape::from([4, 6, 6])).unwrap();
    let largest = |layer: &Conv2d| layer.parameters().unwrap().weight.fold(0f32, |m, w| m.max(w.abs()));
    Initializer::KaimingUniform.fill(&mut layer, &mut rng);
    assert!((0.14..=1.0 / 6.0).contains(&largest(&layer)));
    Initializer::XavierUniform.fill(&mut layer, &mut rng);
    assert!((0.2..=0.2358).contains(&largest(&layer)));
    assert_eq!(layer.parameters().unwrap().bias.sum(), 0.0);
    Initializer::Zeros.fill(&mut layer, &mut rng);
    assert_eq!(largest(&layer), 0.0);
}

mod fixed;
mod trainable;
