use gelu_tensor::{Shape, Window};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::{Conv2d, Conv2dConfig, Dense, InputGradient, Linear, MeanPool2d, TrainableMap};

fn integers(rng: &mut ChaCha8Rng, count: usize) -> Vec<i64> {
    (0..count).map(|_| rng.random_range(-9..=9)).collect()
}

fn reals(rows: usize, values: &[i64]) -> Array2<f32> {
    let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
    Array2::from_shape_vec((rows, values.len() / rows), values).unwrap()
}

fn as_reals(values: &[u64]) -> Vec<f32> {
    values.iter().map(|&value| value as i64 as f32).collect()
}

/// The integer map against float layers, on small integers, where floats are exact: sums, products, gradient.
fn compare(map: &TrainableMap, layers: &[Box<dyn Linear>], weights: &[i64], rng: &mut ChaCha8Rng) {
    let images = 2;
    let inputs = integers(rng, images * map.inputs());
    let errors = integers(rng, images * map.outputs());
    let scale = (map.scale_bits() as f32).exp2();
    let wide: Vec<u64> = weights.iter().map(|&weight| weight as u64).collect();

    let mut values = vec![reals(images, &inputs)];
    for layer in layers {
        values.push(layer.forward(values[values.len() - 1].view()).unwrap());
    }
    let expected: Vec<f32> = values[layers.len()].iter().map(|x| x * scale).collect();
    assert_eq!(as_reals(&map.sums(&wide, &inputs).unwrap()), expected);

    let mut gradient = reals(images, &errors);
    let mut of_weights = None;
    for (layer, x) in layers.iter().zip(&values).rev() {
        let gradients = layer.backward(x.view(), gradient.view(), InputGradient::Wanted).unwrap();
        gradient = gradients.input.unwrap();
        of_weights = gradients.parameters.map(|parameters| parameters.weight);
    }
    let expected: Vec<f32> = gradient.iter().map(|x| x * scale).collect();
    assert_eq!(as_reals(&map.products(&wide, &errors).unwrap()), expected);

    let found = map.gradient(&inputs, &errors).unwrap();
    let expected = of_weights.map_or(vec![], |weights| weights.iter().map(|x| x * scale).collect());
    assert_eq!(found.iter().map(|&x| x as f32).collect::<Vec<_>>(), expected);
    assert_eq!(map.weights(), weights.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn convolutions_with_and_without_pooling_are_the_float_layers(seed: u64, pooled: bool) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut up_to = |most: usize| rng.random_range(1..=most);
        let (kernels, input) = (up_to(3), [up_to(2), 5 + up_to(4), 5 + up_to(4)]);
        let mut window = Window::new([up_to(3), up_to(3)]).with_stride([up_to(2), up_to(2)]);
        if window.kernel[0] > 1 && window.kernel[1] > 1 {
            window = window.with_padding([up_to(2) - 1, up_to(2) - 1]);
        }
        let pool = Window::new([2, up_to(2)]).with_stride([up_to(2), up_to(2)]);
        let pool = pooled.then_some(pool);
        let map = TrainableMap::convolution(input, kernels, window, pool).unwrap();
        let mut config = Conv2dConfig::new(kernels, window.kernel);
        config.window = window;
        let mut convolution = Conv2d::new(config, &Shape::from(input)).unwrap();
        let weights = integers(&mut rng, map.weights());
        convolution.parameters_mut().unwrap().weight.iter_mut().zip(&weights).for_each(|(to, &w)| *to = w as f32);
        let shape = convolution.output_shape().clone();
        let mut layers: Vec<Box<dyn Linear>> = vec![Box::new(convolution)];
        if let Some(pool) = pool {
            layers.push(Box::new(MeanPool2d::new(pool, &shape).unwrap()));
        }
        compare(&map, &layers, &weights, &mut rng);
    }

    #[test]
    fn dense_layers_and_means_are_the_float_layers(seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let [inputs, outputs] = [rng.random_range(1..9), rng.random_range(1..9)];
        let map = TrainableMap::dense([inputs, outputs]).unwrap();
        let mut dense = Dense::new(outputs, &Shape::from([inputs])).unwrap();
        let weights = integers(&mut rng, map.weights());
        dense.parameters_mut().unwrap().weight.iter_mut().zip(&weights).for_each(|(to, &w)| *to = w as f32);
        compare(&map, &[Box::new(dense)], &weights, &mut rng);

        let input = [rng.random_range(1..3), rng.random_range(4..7), rng.random_range(4..7)];
        let mut window = Window::new([2, 4]).with_stride([rng.random_range(1..3), rng.random_range(1..3)]);
        if rng.random_bool(0.5) {
            window = window.with_padding([1, 1]);
        }
        let map = TrainableMap::pooling(input, window).unwrap();
        assert!(map.is_fixed());
        compare(&map, &[Box::new(MeanPool2d::new(window, &Shape::from(input)).unwrap())], &[], &mut rng);
    }
}

#[test]
fn a_mean_whose_area_is_no_power_of_two_has_rounded_weights() {
    let map = TrainableMap::pooling([1, 3, 3], Window::new([3, 3])).unwrap();
    let sums = map.sums(&[], &[9; 9]).unwrap();
    assert_eq!((sums[0], map.scale_bits()), (81 * 7282, 16));
    assert!(TrainableMap::convolution([1, 9, 9], 1, Window::new([2, 2]), Some(Window::new([3, 3]))).is_err());
    assert!(!TrainableMap::pools(Window::new([2, 2]).with_padding([1, 1])));
}

#[test]
fn sizes_that_no_machine_holds_are_refused() {
    let most = usize::MAX;
    assert!(TrainableMap::dense([most, 2]).is_err());
    assert!(TrainableMap::dense([1 << 14, 1 << 14]).is_err());
    assert!(TrainableMap::convolution([1, 1 << 20, 1 << 20], 1, Window::new([1, 1]), None).is_err());
    assert!(TrainableMap::pooling([1 << 20, 1 << 10, 1 << 10], Window::new([2, 2])).is_err());
    assert!(TrainableMap::pooling([1, 4, 4], Window::new([most, most])).is_err());
}
