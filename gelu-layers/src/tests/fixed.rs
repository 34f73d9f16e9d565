//! Affine maps, their composition, and layers on integers in the clear and on ciphertexts.

use std::sync::LazyLock;

use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_tensor::{Error, FixedTensor, Format, Shape, SlotLayout, Window};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::*;

static KEY: LazyLock<SecretKey> =
    LazyLock::new(|| SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(8)).unwrap());

fn initialised(mut layer: Box<dyn Linear>, seed: u64) -> Box<dyn Linear> {
    Initializer::KaimingUniform.fill(layer.as_mut(), &mut ChaCha20Rng::seed_from_u64(seed));
    if let Some(parameters) = layer.parameters_mut() {
        parameters.bias.iter_mut().enumerate().for_each(|(i, bias)| *bias = 0.3 - 0.1 * i as f32);
    }
    layer
}

fn conv(channels: usize, window: Window, input: &Shape) -> Option<Box<dyn Linear>> {
    let config =
        Conv2dConfig::new(channels, window.kernel).with_stride(window.stride).with_padding(window.padding);
    Some(Box::new(Conv2d::new(config, input).ok()?))
}

fn window() -> impl Strategy<Value = Window> {
    ([1usize..=3, 1..=3], [1usize..=3, 1..=3], [0usize..=1, 0..=1]).prop_map(|(kernel, stride, padding)| {
        Window { kernel, stride, padding: [padding[0].min(kernel[0] - 1), padding[1].min(kernel[1] - 1)] }
    })
}

/// Values of the whole range of a format, in multiples that an f32 holds.
fn values(seed: u64, shape: &Shape, images: usize, format: Format) -> FixedTensor {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let bound = format.bound() as i64;
    let values = (0..images * shape.elements()).map(|_| rng.random_range(-bound..=bound)).collect();
    FixedTensor::new(shape.clone(), format, values).unwrap()
}

fn reals(x: &FixedTensor) -> Array2<f32> {
    let reals = x.values().iter().map(|&value| x.format().real(value) as f32).collect();
    Array2::from_shape_vec((x.batch(), x.shape().elements()), reals).unwrap()
}

fn largest_difference(a: &Array2<f32>, b: &Array2<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn largest_rounding(integer: &IntegerLinear, affine: &Affine) -> f64 {
    integer.rounding(affine, 1.0).unwrap().into_iter().fold(0.0, f64::max)
}

/// One layer on reals, on integers and on ciphertexts under every layout that it takes.
fn check_layer(layer: &dyn Linear, batch: usize, seed: u64) {
    let format = Format::new(255, 8).unwrap();
    let x = values(seed, layer.input_shape(), batch, format);
    let fixed = layer.forward_fixed(&x, 10).unwrap();
    assert_eq!((fixed.shape(), fixed.batch()), (layer.output_shape(), batch));

    // Near the reals: every weight is off by at most half its unit, and every input is at most 1.
    let integer = layer.affine().quantise(10).unwrap();
    let bound = largest_rounding(&integer, &layer.affine()) + 0.5 * fixed.format().real(1) + 1e-4;
    let difference = largest_difference(&reals(&fixed), &layer.forward(reals(&x).view()).unwrap());
    assert!(f64::from(difference) <= bound, "{difference} against {bound}");
    assert!(fixed.values().iter().all(|value| value.unsigned_abs() <= fixed.format().bound()));
    assert_eq!(integer.range().output_format(format).unwrap(), fixed.format());

    let slot_bits = fixed.format().slot_bits();
    let mut layouts = vec![
        (x.clone(), SlotLayout::one_value(slot_bits)),
        (x.clone(), SlotLayout::batch(slot_bits, batch, KeyBits::Bits1024).unwrap()),
    ];
    if let Some(window) = integer.window() {
        let input = layer.input_shape().as_image("test").unwrap();
        let pooled = matches!(integer.form(), AffineForm::Pooling(_));
        let x = if pooled { x.clone().split_channels().unwrap() } else { x };
        let windows = window.over([if pooled { 1 } else { input[0] }, input[1], input[2]]).unwrap();
        let layout = SlotLayout::im2col(windows, slot_bits, x.batch(), KeyBits::Bits1024).unwrap();
        layouts.push((x, layout));
    }
    let rng = &mut ChaCha20Rng::seed_from_u64(seed);
    for (x, layout) in layouts {
        let encrypted = x.encrypt(layout, &*KEY, rng).unwrap();
        let sums = layer.forward_encrypted(&encrypted, 10).unwrap();
        let found = sums.decrypt(&KEY).unwrap().reshape(layer.output_shape().clone()).unwrap();
        assert_eq!(found, fixed, "{layout}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn convolutions_on_ciphertexts_equal_those_in_the_clear(
        input in [1usize..=2, 3..=5, 3..=5], channels in 1usize..=3, window in window(),
        batch in 1usize..=3, seed in any::<u64>(),
    ) {
        let layer = conv(channels, window, &Shape::from(input));
        prop_assume!(layer.is_some());
        check_layer(initialised(layer.unwrap(), seed).as_ref(), batch, seed);
    }

    #[test]
    fn poolings_on_ciphertexts_equal_those_in_the_clear(
        input in [1usize..=3, 3..=6, 3..=6], window in window(), batch in 1usize..=3, seed in any::<u64>(),
    ) {
        let layer = MeanPool2d::new(window, &Shape::from(input));
        prop_assume!(layer.is_ok());
        check_layer(&layer.unwrap(), batch, seed);
    }

    #[test]
    fn dense_layers_on_ciphertexts_equal_those_in_the_clear(
        inputs in 1usize..=9, outputs in 1usize..=5, batch in 1usize..=3, seed in any::<u64>(),
    ) {
        let layer = Box::new(Dense::new(outputs, &Shape::from([inputs])).unwrap());
        check_layer(initialised(layer, seed).as_ref(), batch, seed);
    }

    /// A chain as one map gives the reals that its layers give one after another, whatever they are.
    #[test]
    fn composed_maps_equal_their_layers_in_turn(
        input in [1usize..=2, 4..=8, 4..=8], first in window(), second in window(), kinds in 0usize..4,
        channels in 1usize..=3, seed in any::<u64>(),
    ) {
        let input = Shape::from(input);
        let image = |pool: bool, window: Window, input: &Shape| -> Option<Box<dyn Linear>> {
            if pool { Some(Box::new(MeanPool2d::new(window, input).ok()?)) } else { conv(channels, window, input) }
        };
        let mut layers = vec![];
        let mut shape = input.clone();
        for (pool, window) in [(kinds & 1 == 1, first), (kinds & 2 == 2, second)] {
            let layer = image(pool, window, &shape);
            prop_assume!(layer.is_some());
            let layer = initialised(layer.unwrap(), seed);
            shape = layer.output_shape().clone();
            layers.push(layer);
        }
        let flatten = Flatten::new(&shape);
        layers.push(Box::new(flatten.clone()));
        layers.push(initialised(Box::new(Dense::new(3, flatten.output_shape()).unwrap()), seed ^ 1));
        // Multiples of 2^-8, so that inputs have no rounding of their own.
        let x = values(seed, &input, 2, Format::new(255, 8).unwrap());
        let mut expected = reals(&x);
        let mut affine: Option<Affine> = None;
        for layer in &layers {
            expected = layer.forward(expected.view()).unwrap();
            let next = layer.affine();
            let chain = match affine {
                None => next,
                Some(before) => before.then(&next).unwrap(),
            };
            prop_assert_eq!(chain.input_shape(), &input);
            prop_assert_eq!(chain.output_shape(), layer.output_shape());
            let integer = chain.quantise(24).unwrap();
            let found = reals(&integer.forward_fixed(&x).unwrap());
            let difference = largest_difference(&found, &expected);
            let bound = largest_rounding(&integer, &chain) + 1e-4;
            prop_assert!(f64::from(difference) <= bound, "{} against {}", difference, bound);
            // What an output moves by when every input moves by up to 1 is at most what errors of 1 spread to.
            let spread = chain.spread(&vec![1.0; input.elements()]).unwrap();
            let zero = FixedTensor::new(input.clone(), x.format(), vec![0; input.elements()]).unwrap();
            let at_zero = reals(&integer.forward_fixed(&zero).unwrap());
            for image in found.outer_iter() {
                for ((moved, at_zero), spread) in image.iter().zip(&at_zero).zip(&spread) {
                    prop_assert!(f64::from((moved - at_zero).abs()) <= spread + 1e-3);
                }
            }
            affine = Some(chain);
        }
    }
}

#[test]
fn flatten_changes_the_shape_alone() {
    check_flatten(&Flatten::new(&Shape::from([2, 3, 2])));
}

fn check_flatten(layer: &Flatten) {
    let x = values(1, layer.input_shape(), 2, Format::new(255, 8).unwrap());
    let fixed = layer.forward_fixed(&x, 10).unwrap();
    assert_eq!((fixed.values(), fixed.shape().dims()), (x.values(), &[12][..]));
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let encrypted = x.encrypt(SlotLayout::one_value(12), &*KEY, rng).unwrap();
    let found = layer.forward_encrypted(&encrypted, 10).unwrap().decrypt(&KEY).unwrap();
    assert_eq!(found.values(), fixed.values());
}

#[test]
fn a_convolution_and_a_pooling_stay_a_convolution() {
    let shape = Shape::from([2, 8, 8]);
    let first = conv(3, Window::new([3, 3]).with_stride([1, 2]), &shape).unwrap();
    let pool = MeanPool2d::new(Window::new([2, 3]).with_stride([2, 1]), first.output_shape()).unwrap();
    let fused = first.affine().then(&pool.affine()).unwrap();
    let window = Window::new([4, 7]).with_stride([2, 2]);
    assert_eq!(fused.form(), AffineForm::Convolution(window));
    assert_eq!(fused.quantise(8).unwrap().range().taps, 2 * 4 * 7);
    // A padded pooling sees zeros where the convolution would see more of the image: no convolution any more.
    let padded = MeanPool2d::new(Window::new([2, 2]).with_padding([1, 1]), first.output_shape()).unwrap();
    assert_eq!(first.affine().then(&padded.affine()).unwrap().form(), AffineForm::Dense);
}

#[test]
fn chains_and_bits_that_do_not_fit_are_refused() {
    let dense = |inputs, outputs| Dense::new(outputs, &Shape::from([inputs])).unwrap();
    let error = dense(4, 3).affine().then(&dense(2, 3).affine()).unwrap_err();
    assert!(
        matches!(error, Error::Shape { expected, found, .. } if (&expected, &found) == (&[2].into(), &[3].into()))
    );
    for bits in [0, 1, 25] {
        assert!(matches!(dense(2, 2).affine().quantise(bits), Err(Error::Count { .. })), "{bits}");
    }
    let mut layer = dense(2, 2);
    layer.parameters_mut().unwrap().weight[[1, 0]] = f32::NAN;
    assert!(matches!(layer.affine().quantise(8), Err(Error::Count { what: "finite weights", .. })));
    let large = Shape::from([1, 100, 100]);
    let conv = conv(2, Window::new([3, 3]), &large).unwrap();
    let wide = dense(conv.output_shape().elements(), 9000);
    assert!(matches!(conv.affine().then(&wide.affine()), Err(Error::Count { .. })));
}

/// The largest weight of either sign, and zeros, come through the rounding as they should.
#[test]
fn extreme_weights_are_rounded_into_range() {
    let mut layer = Dense::new(1, &Shape::from([3])).unwrap();
    layer.parameters_mut().unwrap().weight.assign(&ndarray::array![[1.0, -1.0, 0.0]]);
    let integer = layer.affine().quantise(8).unwrap();
    // 1.0 is 128 units of 2^-7, one more than 8 bits hold.
    assert!((largest_rounding(&integer, &layer.affine()) - 1.0 / 128.0).abs() < 1e-12);
    let one = FixedTensor::new(Shape::from([3]), Format::new(1, 0).unwrap(), vec![1, 0, 0, 0, 1, 0]).unwrap();
    assert_eq!(integer.forward_fixed(&one).unwrap().values(), [127, -128]);
    let zeros = Dense::new(1, &Shape::from([3])).unwrap().affine().quantise(8).unwrap();
    assert_eq!(zeros.forward_fixed(&one).unwrap().values(), [0, 0]);
}
