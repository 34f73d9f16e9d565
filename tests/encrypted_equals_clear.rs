//! From images to logits: what comes off ciphertexts is what integers in the clear give, bit for bit, and both are as
//! near to the real network as the plan says.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{KEY, copy, digits, options, shipped};
use gelu_net::models::WeightTensor;
use gelu_net::prelude::*;
use gelu_net::tensor::{Arrangement, Error};
use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;
use proptest::strategy::Strategy;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

/// Runs `images` in sessions of `batch` and compares them with the clear run of the same plan.
fn encrypted(model: Model, options: &PlanOptions, batch: usize, images: ArrayView2<'_, f32>) -> LocalReport {
    let server = ServerModel::new(model, options.clone());
    let clear =
        server.program(KeyBits::Bits1024, batch.min(images.nrows())).unwrap().run_clear(images).unwrap();
    let report = LocalInference::new(server, copy(&KEY), batch).run(images, |_| ()).unwrap();
    assert_eq!(report.integers, clear.integers.values(), "batches of {batch}");
    assert_eq!(report.logits, clear.logits);
    assert_eq!(report.outputs, clear.outputs);
    assert_eq!(report.predictions, clear.predictions());
    assert_eq!(report.saturations, clear.saturations);
    report
}

fn largest_difference(a: &Array2<f64>, b: &Array2<f32>) -> f64 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max)
}

#[test]
fn conv1_on_every_batch_size() {
    // Seven images in batches of three: the last batch has one. Forty take more than one ciphertext's slots.
    for (count, batch) in [(1, 1), (7, 3), (2, 5), (40, 40)] {
        let (model, ranges) = shipped("conv1");
        encrypted(model, &options(ranges), batch, digits(2, count).view());
    }
}

#[test]
fn subgroup_keys_give_the_same() {
    let parameters = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };
    for (name, count, batch) in [("conv1", 7, 3), ("lenet5", 1, 1)] {
        let (model, ranges) = shipped(name);
        let server = ServerModel::new(model, options(ranges));
        let images = digits(6, count);
        let clear = server.program(parameters, batch).unwrap().run_clear(images.view()).unwrap();
        let key = SecretKey::generate(parameters, &mut ChaCha20Rng::seed_from_u64(3)).unwrap();
        let report = LocalInference::new(server, key, batch).run(images.view(), |_| ()).unwrap();
        assert_eq!(report.integers, clear.integers.values(), "{name}");
    }
}

#[test]
fn lenet5_on_every_batch_size() {
    for (count, batch) in [(1, 1), (4, 3)] {
        let (model, ranges) = shipped("lenet5");
        encrypted(model, &options(ranges), batch, digits(3, count).view());
    }
}

/// The bound is a worst case, which grows with every layer: what becomes of it in practice is printed beside it.
#[test]
fn logits_are_within_the_plans_bound_of_the_real_network() {
    for name in ["conv1", "lenet5"] {
        let (model, ranges) = shipped(name);
        let images = digits(4, 100);
        // A wide range, so that nothing is clamped: then the bound holds.
        let options =
            PlanOptions { range_margin: 4.0, weight_bits: 12, activation_bits: 14, ..options(ranges) };
        let program = model.plan(&options).unwrap();
        let clear = program.run_clear(images.view()).unwrap();
        assert_eq!(clear.saturations, 0, "{name}");
        let error = largest_difference(&clear.logits, &model.logits(images.view()).unwrap());
        let bound = program.error_bound().unwrap();
        println!("{name}: logits are off by {error:.5} at most, the bound is {bound:.3}");
        assert!(error <= bound + 1e-4, "{name}: {error} against {bound}");
        // What is left of the worst case in practice: logits are some tens.
        assert!(error < 0.1, "{name}: {error}");
        encrypted(model, &options, 1, digits(4, 1).view());
    }
}

#[test]
fn more_bits_come_nearer() {
    let (model, ranges) = shipped("lenet5");
    let images = digits(5, 30);
    let float = model.logits(images.view()).unwrap();
    let errors: Vec<[f64; 2]> = [(8, 8, 8), (12, 12, 8), (16, 16, 12)]
        .map(|(weight_bits, activation_bits, input_bits)| {
            let options = PlanOptions {
                weight_bits,
                activation_bits,
                input_bits,
                range_margin: 2.0,
                ..options(ranges.clone())
            };
            let program = model.plan(&options).unwrap();
            let clear = program.run_clear(images.view()).unwrap();
            assert_eq!(clear.saturations, 0);
            [largest_difference(&clear.logits, &float), program.error_bound().unwrap()]
        })
        .to_vec();
    for pair in errors.windows(2) {
        assert!(pair[1][0] < pair[0][0] && pair[1][1] < pair[0][1], "{errors:?}");
    }
}

#[test]
fn values_beyond_the_declared_range_are_clamped_and_counted() {
    let (model, mut ranges) = shipped("conv1");
    ranges.activations.iter_mut().for_each(|range| *range /= 8.0);
    let report = encrypted(model, &options(ranges), 2, digits(6, 2).view());
    assert!(report.saturations > 0);
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let run = |rows, columns| {
        let (model, ranges) = shipped("conv1");
        let local = LocalInference::new(ServerModel::new(model, options(ranges)), copy(&KEY), 1);
        local.run(Array2::<f32>::zeros((rows, columns)).view(), |_| ()).unwrap_err().to_string()
    };
    let message = run(1, 783);
    assert!(message.contains("expected 784, found 783"), "{message}");
    assert!(run(0, 784).contains("found 0"), "{}", run(0, 784));
}

/// A description of a small model: an image, convolutions and poolings, then dense layers.
#[derive(Clone, Debug)]
struct Description {
    input: [usize; 3],
    convolutions: Vec<Node>,
    dense: Vec<(usize, Option<Activation>)>,
}

#[derive(Clone, Debug)]
struct Node {
    /// Output channels of a convolution; `None` for pooling.
    channels: Option<usize>,
    window: Window,
    activation: Option<Activation>,
}

fn window() -> impl Strategy<Value = Window> {
    ([1usize..=3, 1..=3], [1usize..=2, 1..=2], [0usize..=1, 0..=1]).prop_map(|(kernel, stride, padding)| {
        Window { kernel, stride, padding: [padding[0].min(kernel[0] - 1), padding[1].min(kernel[1] - 1)] }
    })
}

fn activation() -> impl Strategy<Value = Option<Activation>> {
    let all: Vec<_> = Activation::ALL.into_iter().filter(|a| *a != Activation::Softmax).map(Some).collect();
    prop::sample::select([all, vec![None]].concat())
}

fn node() -> impl Strategy<Value = Node> {
    (prop::option::weighted(0.7, 1usize..=3), window(), activation())
        .prop_map(|(channels, window, activation)| Node { channels, window, activation })
}

/// A network whose convolution is dead behind its ReLU: found by the property below.
#[test]
fn a_dead_convolution_is_exact() {
    let mut model = ModelBuilder::new([1, 4, 4])
        .conv2d("conv0", Conv2dConfig::new(2, [1, 3]))
        .relu()
        .flatten()
        .dense("fc0", 1)
        .relu()
        .softmax()
        .build()
        .unwrap();
    model.initialise(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(11));
    let mut weights = model.weights();
    let bias = WeightTensor::new(Shape::from([2]), vec![-100.0; 2]).unwrap();
    weights.tensors.insert("conv0.bias".into(), bias);
    model.load(&weights).unwrap();
    let images = Array2::from_elem((2, 16), 0.5);
    let ranges = model.calibrate(images.view()).unwrap();
    assert_eq!(ranges.activations[0], 0.0);
    assert_eq!(encrypted(model, &options(ranges), 2, images.view()).saturations, 0);
}

fn description() -> impl Strategy<Value = Description> {
    (
        [1usize..=2, 4..=7, 4..=7],
        prop::collection::vec(node(), 0..=2),
        prop::collection::vec((1usize..=4, activation()), 0..=2),
    )
        .prop_filter("at least one layer", |(_, convolutions, dense)| convolutions.len() + dense.len() > 0)
        .prop_map(|(input, convolutions, dense)| Description { input, convolutions, dense })
}

fn build(description: &Description) -> Option<Model> {
    let mut builder = ModelBuilder::new(description.input);
    for (i, node) in description.convolutions.iter().enumerate() {
        builder = match node.channels {
            Some(channels) => {
                let config = Conv2dConfig::new(channels, node.window.kernel)
                    .with_stride(node.window.stride)
                    .with_padding(node.window.padding);
                builder.conv2d(&format!("conv{i}"), config)
            }
            None => builder.mean_pool2d_with(&format!("pool{i}"), node.window),
        };
        builder = node.activation.into_iter().fold(builder, ModelBuilder::activation);
    }
    builder = builder.flatten();
    for (i, (width, activation)) in description.dense.iter().enumerate() {
        builder = builder.dense(&format!("fc{i}"), *width);
        builder = activation.iter().copied().fold(builder, ModelBuilder::activation);
    }
    // A window may not fit what is left of the image.
    let mut model = builder.softmax().build().ok()?;
    model.initialise(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(11));
    Some(model)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any small network, through whole sessions: encoded, encrypted, decoded, decrypted.
    #[test]
    fn any_network_encrypted_equals_clear(
        description in description(), batch in 1usize..=3, extra in 0usize..=1, seed in any::<u64>(),
    ) {
        let model = build(&description);
        prop_assume!(model.is_some());
        let model = model.unwrap();
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let elements = model.input_shape().elements();
        let images = Array2::from_shape_fn((batch + extra, elements), |_| rng.random_range(0.0..1.0f32));
        let ranges = model.calibrate(images.view()).unwrap();
        let options = options(ranges);
        let program = model.plan(&options).unwrap();
        let report = encrypted(model, &options, batch, images.view());
        prop_assert_eq!(report.saturations, 0, "calibrated on these very images");

        let float = build(&description).unwrap().logits(images.view()).unwrap();
        let error = largest_difference(&report.logits, &float);
        prop_assert!(error <= program.error_bound().unwrap() + 1e-3, "{} against {}", error, program.error_bound().unwrap());
        for segment in &report.plan.segments {
            let repeated = matches!(segment.down.arrangement, Arrangement::Patches(_));
            prop_assert!(!repeated, "{} comes down as im2col", segment.name);
        }
    }
}

/// Without calibration the worst case counts, and a network that is too deep for it is refused when it is planned.
#[test]
fn the_worst_case_is_refused_when_it_does_not_fit() {
    let mut builder = ModelBuilder::new([1, 9, 9]).flatten();
    for i in 0..9 {
        builder = builder.dense(&format!("fc{i}"), 40).square();
    }
    let model = builder.build().unwrap();
    let error = model
        .plan(&PlanOptions { activation_bits: 24, weight_bits: 24, ..PlanOptions::default() })
        .unwrap_err();
    let gelu_net::models::plan::PlanError::Numbers { source, .. } = &error else { panic!("{error}") };
    assert!(matches!(source, Error::Overflow { .. }), "{error}");
}
