//! From images to logits: what comes off ciphertexts is what integers in the clear give, bit for bit, and both are as
//! near to the real network as the program says.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use gelu_net::InferenceReport;
use gelu_net::io::session::RunError;
use gelu_net::layers::{AvgPool2dConfig, AxisSlice, SliceConfig};
use gelu_net::models::WeightTensor;
use gelu_net::models::infer::SessionError;
use gelu_net::models::plan::PlanError;
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::tensor::{Arrangement, Backend, Error as TensorError, Shape, Window};
use ndarray::Array2;
use proptest::prelude::*;
use proptest::strategy::{Strategy, ValueTree};
use rand::{SeedableRng, rngs::ChaCha20Rng};

use crate::common::networks::{Network, calibrate, inputs, network, randomize, small_resnet};
use crate::common::{
    KEY, deployment, digits, encrypted, encrypted_preferring, key_of, quantization, shipped,
};

fn largest_difference(a: &Array2<f64>, b: &Array2<f32>) -> f64 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max)
}

/// How far the report's logits are from the real network's, which is no more than the program says.
fn check_bound(
    model: &Model,
    quantization: &Quantization,
    report: &InferenceReport,
    images: &Array2<f32>,
) -> f64 {
    assert_eq!(report.saturations.total(), 0, "calibrated on these very images");
    let float = model.logits(images.view()).unwrap();
    let error = largest_difference(&report.logits, &float);
    let bound = model.compile(quantization, &Deployment::default()).unwrap().error_bound().unwrap();
    // The real network's own rounding.
    let largest = float.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    let rounding = 1e-3 + 1e-4 * f64::from(largest);
    assert!(error <= bound + rounding, "{error} against {bound}");
    error
}

#[test]
fn conv1_on_every_batch_size() {
    // Seven images in batches of three: the last batch has one. Forty take more than one ciphertext's slots.
    for (count, batch) in [(1, 1), (7, 3), (2, 5), (40, 40)] {
        encrypted(shipped("conv1"), &quantization(), &KEY, (batch, digits(2, count).view()));
    }
}

#[test]
fn lenet5_on_every_batch_size() {
    for (count, batch) in [(1, 1), (4, 3)] {
        encrypted(shipped("lenet5"), &quantization(), &KEY, (batch, digits(3, count).view()));
    }
}

/// The bits that came with the weights.
#[test]
fn tuned_bits_are_taken_from_the_model() {
    let tuned = encrypted(shipped("lenet5"), &Quantization::default(), &KEY, (1, digits(3, 1).view()));
    let others = encrypted(shipped("lenet5"), &quantization(), &KEY, (1, digits(3, 1).view()));
    assert!(tuned.server.unwrap().products < others.server.unwrap().products);
}

#[test]
fn keys_of_both_types_give_the_same() {
    for key_type in KeyType::ALL {
        let key = key_of(KeyParameters { size: KeyBits::Bits1024, key_type }, 3);
        encrypted(shipped("conv1"), &quantization(), &key, (3, digits(6, 7).view()));
        encrypted(shipped("lenet5"), &quantization(), &key, (1, digits(6, 1).view()));
        let model = small_resnet();
        let images = inputs(&model, 5, 8);
        encrypted(model, &quantization(), &key, (2, images.view()));
    }
}

#[test]
fn a_residual_network_under_keys_of_2048_bits_of_both_types() {
    for key_type in KeyType::ALL {
        let key = key_of(KeyParameters { size: KeyBits::Bits2048, key_type }, 4);
        let mut model = small_resnet();
        let images = inputs(&model, 3, 9);
        calibrate(&mut model, &images);
        let report = encrypted(model.clone(), &quantization(), &key, (3, images.view()));
        let error = check_bound(&model, &quantization(), &report, &images);
        assert!(error < 0.1, "what is left of the worst case: {error}");
        let names: Vec<_> = report.plan.segments().iter().map(|segment| &segment.name).collect();
        assert_eq!(names[2], "a2+a2_norm", "the identity is added by the client");
        assert_eq!(names[4], "b2+b2_norm+b_shortcut+b_shortcut_norm", "a projection by the server");
        assert_eq!(report.plan.segments()[4].terms.len(), 2);
    }
}

/// A network that is described by what is done to a builder over images of 2x6x6.
fn built(build: impl FnOnce(ModelBuilder) -> ModelBuilder) -> (Model, Array2<f32>) {
    let mut model = build(ModelBuilder::new([2, 6, 6])).flatten().dense("last", 3).build().unwrap();
    randomize(&mut model, 6);
    let images = inputs(&model, 4, 6);
    calibrate(&mut model, &images);
    (model, images)
}

/// Every kind of node, where it stands between others that do something to it.
#[test]
fn every_kind_of_node_is_exact() {
    type Build = fn(ModelBuilder) -> ModelBuilder;
    fn conv(channels: usize) -> Conv2dConfig {
        Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1])
    }
    fn pool() -> Window {
        Window::new([3, 2]).with_stride([2, 1]).with_padding([1, 0])
    }
    let all: &[(&str, Build)] = &[
        ("groups", |b| b.conv2d("c", Conv2dConfig::new(4, [3, 3]).with_groups(2)).relu()),
        ("depthwise", |b| {
            b.conv2d("c", Conv2dConfig::new(2, [2, 3]).with_groups(2)).relu().conv2d("d", conv(3))
        }),
        ("dilation", |b| b.conv2d("c", Conv2dConfig::new(3, [2, 2]).with_dilation([3, 2])).relu()),
        ("padding of one side", |b| {
            b.conv2d("c", Conv2dConfig::new(2, [3, 3]).with_padding_sides([[2, 0], [0, 1]])).relu()
        }),
        ("stride", |b| b.conv2d("c", conv(3).with_stride([2, 3])).relu()),
        ("no bias", |b| b.conv2d("c", conv(3).without_bias()).relu()),
        ("max pooling", |b| b.conv2d("c", conv(2)).max_pool2d([2, 2]).relu()),
        ("max pooling of padding", |b| b.conv2d("c", conv(2)).relu().max_pool2d_with(pool())),
        ("max pooling first", |b| {
            b.max_pool2d_with(pool().with_dilation([2, 1])).conv2d("c", conv(2)).relu()
        }),
        ("mean pooling before an activation", |b| b.conv2d("c", conv(2)).avg_pool2d("p", [2, 3]).relu()),
        ("mean pooling after an activation", |b| b.conv2d("c", conv(2)).relu().avg_pool2d("p", [2, 3])),
        ("mean pooling of padding", |b| b.conv2d("c", conv(2)).avg_pool2d_with("p", pool()).relu()),
        ("mean pooling of pixels alone", |b| {
            let mean = AvgPool2dConfig::new(pool()).excluding_padding().with_ceil_mode();
            b.conv2d("c", conv(2)).avg_pool2d_with("p", mean).relu().avg_pool2d_with("q", mean)
        }),
        ("slices", |b| {
            let last = |channels: usize| {
                let rows = AxisSlice { start: 5, step: -2, count: 3 };
                SliceConfig::new(vec![AxisSlice::range(channels - 1, 1), rows, AxisSlice::range(1, 3)])
            };
            b.residual_with(|b| b.slice(last(2)), |b| b.conv2d("c", conv(2)).slice(last(2))).relu()
        }),
        ("mean pooling first", |b| b.avg_pool2d_with("p", pool()).conv2d("c", conv(2)).relu()),
        ("global pooling", |b| b.conv2d("c", conv(3)).global_avg_pool2d().relu()),
        ("global pooling after an activation", |b| b.conv2d("c", conv(3)).relu().global_avg_pool2d()),
        ("batch norm", |b| b.conv2d("c", conv(3)).batch_norm2d("n").relu()),
        ("batch norm before", |b| b.batch_norm2d("n").conv2d("c", conv(3)).relu()),
        ("batch norm alone", |b| b.relu().batch_norm2d("n").relu()),
        ("identity", |b| b.residual(|b| b.conv2d("c", conv(2)).relu().conv2d("d", conv(2))).relu()),
        ("identity of a sum", |b| b.conv2d("c", conv(2)).residual(|b| b.conv2d("d", conv(2))).relu()),
        ("projection", |b| {
            let strided = conv(3).with_stride([2, 2]);
            b.residual_with(
                |b| b.conv2d("c", strided).batch_norm2d("n").relu().conv2d("d", conv(3)),
                |b| b.conv2d("e", Conv2dConfig::new(3, [1, 1]).with_stride([2, 2])).batch_norm2d("m"),
            )
            .relu()
        }),
        ("sum of itself", |b| b.conv2d("c", conv(2)).residual(|b| b).relu()),
        ("sum across flattening", |b| b.conv2d("c", conv(2)).flatten().residual(|b| b.dense("d", 72)).relu()),
        ("sum of pixels and sums", |b| b.residual(|b| b.conv2d("c", conv(2)).relu()).conv2d("d", conv(1))),
        ("concat", |b| {
            let one = |b: ModelBuilder| b.conv2d("c", conv(1)).relu();
            let two = |b: ModelBuilder| b.conv2d("d", conv(2)).batch_norm2d("n");
            b.concat([&one, &|b| b, &two]).conv2d("e", conv(2)).activation(Activation::Silu)
        }),
        ("gate", |b| {
            b.conv2d("c", conv(3)).gated(|b| {
                let squeezed = b.global_avg_pool2d().flatten().dense("g", 2).relu();
                squeezed.dense("h", 3).activation(Activation::HardSigmoid)
            })
        }),
    ];
    for (what, build) in all {
        let (model, images) = built(build);
        for batch in [1, 3] {
            println!("{what}, batches of {batch}");
            let report = encrypted(model.clone(), &quantization(), &KEY, (batch, images.view()));
            check_bound(&model, &quantization(), &report, &images);
        }
    }
}

#[test]
fn every_activation_is_exact() {
    let more = [Activation::LeakyRelu { slope: -0.5 }, Activation::Clip { min: 0.25, max: 0.5 }];
    for activation in Activation::ALL.into_iter().chain(more) {
        let (model, images) = built(|builder| {
            let conv = Conv2dConfig::new(2, [3, 3]);
            builder.activation(activation).conv2d("c", conv).activation(activation).square()
        });
        println!("{activation}");
        let report = encrypted(model.clone(), &quantization(), &KEY, (4, images.view()));
        check_bound(&model, &quantization(), &report, &images);
    }
}

/// A function of the client's own, which the server knows by its name alone: a sum of cosines of each channel.
#[test]
fn a_function_of_the_clients_own_is_exact() {
    let mut model = ModelBuilder::new([2, 6, 6])
        .conv2d("c", Conv2dConfig::new(2, [3, 3]))
        .client_function("waves", [2])
        .dense("last", 3)
        .softmax()
        .build()
        .unwrap();
    randomize(&mut model, 2);
    let waves: Arc<gelu_net::models::plan::ClientFunction> =
        Arc::new(|x: &[f64]| x.chunks(16).map(|channel| channel.iter().map(|x| x.cos()).sum()).collect());
    let images = inputs(&model, 5, 3);
    let ranges = [("input", 1.0), ("waves", 16.0)].into_iter().collect();
    let server = Arc::new(ServerModel::new(model, Quantization { ranges: Some(ranges), ..quantization() }));
    let mut functions = gelu_net::models::plan::Functions::default();
    functions.insert("waves", Arc::clone(&waves));
    let program = server.program(&deployment(&KEY, 2)).unwrap();
    let clear = program.run_clear_with(functions, images.view()).unwrap();
    let local = || LocalInference::shared(Arc::clone(&server), Arc::clone(&KEY), 2);
    let report = local().with_function("waves", waves).run(images.view(), &mut rand::rng(), |_| ()).unwrap();
    assert_eq!((&report.integers[..], &report.outputs), (clear.integers.values(), &clear.outputs));
    assert_eq!(report.saturations.total(), 0);

    // Without it, or with one that makes too little, the client says what is missing.
    let refused = |local: LocalInference| {
        let error = local.run(images.view(), &mut rand::rng(), |_| ()).unwrap_err();
        match error {
            Error::Inference(RunError::Peer(SessionError::Numbers { source, .. })) => source,
            other => refused_images(other),
        }
    };
    let error = refused(local());
    assert_eq!(error, TensorError::MissingFunction { name: "waves".to_owned() });
    let error = refused(local().with_function("waves", Arc::new(|_| vec![1.0])));
    assert!(matches!(error, TensorError::Count { expected: 2, found: 1, .. }), "{error}");
    assert!(program.error_bound().unwrap().is_infinite(), "nothing is known of the function");
    // Not even where its values are weighed with nothing.
    let mut blind = server.model().clone();
    blind.layers_mut().for_each(|(_, layer)| layer.parameters_mut().weight.fill(0.0));
    let ranges = [("input", 1.0), ("waves", 16.0)].into_iter().collect();
    let blind = blind
        .compile(&Quantization { ranges: Some(ranges), ..quantization() }, &Deployment::default())
        .unwrap();
    assert!(blind.error_bound().unwrap().is_infinite());
}

/// Factors that only the client ever has count in the bound, though nothing of their size follows from a declared range.
#[test]
fn the_bound_counts_values_that_are_never_encrypted() {
    let leaky = Activation::LeakyRelu { slope: 0.5 };
    let gated = |builder: ModelBuilder| builder.gated(|gate| gate.dense("gate", 4).sigmoid());
    let mut largest = 0f64;
    for builder in [
        gated(ModelBuilder::new([4]).activation(leaky)),
        gated(ModelBuilder::new([4])),
        gated(ModelBuilder::new([4]).dense("fc", 4)).square(),
    ] {
        let mut model = builder.build().unwrap();
        randomize(&mut model, 3);
        let images = inputs(&model, 6, 4);
        calibrate(&mut model, &images);
        let coarse = Quantization {
            weight_bits: 5,
            activation_bits: Some(6),
            input_bits: Some(5),
            range_margin: 2.0,
            ..quantization()
        };
        let report = encrypted(model.clone(), &coarse, &KEY, (6, images.view()));
        let error = check_bound(&model, &coarse, &report, &images);
        let bound = model.compile(&coarse, &Deployment::default()).unwrap().error_bound().unwrap();
        assert!(bound >= error && bound.is_finite(), "{error} against {bound}");
        largest = largest.max(error);
    }
    assert!(largest > 0.002, "{largest}: a bound of nothing is no bound");
}

/// The bound is a worst case, which grows with every layer: what becomes of it in practice is printed beside it.
#[test]
fn logits_are_within_the_programs_bound_of_the_real_network() {
    for name in ["conv1", "lenet5"] {
        let model = shipped(name);
        let images = digits(4, 100);
        // A wide range, so that nothing is clamped: then the bound holds.
        let fine =
            Quantization { range_margin: 4.0, weight_bits: 12, activation_bits: Some(14), ..quantization() };
        let program = model.compile(&fine, &Deployment::default()).unwrap();
        let clear = program.run_clear(images.view()).unwrap();
        assert_eq!(clear.saturations.total(), 0, "{name}");
        let error = largest_difference(&clear.logits, &model.logits(images.view()).unwrap());
        let bound = program.error_bound().unwrap();
        println!("{name}: logits are off by {error:.5} at most, the bound is {bound:.3}");
        assert!(error <= bound + 1e-4, "{name}: {error} against {bound}");
        // What is left of the worst case in practice: logits are some tens.
        assert!(error < 0.1, "{name}: {error}");
        encrypted(model, &fine, &KEY, (1, digits(4, 1).view()));
    }
}

#[test]
fn more_bits_come_nearer() {
    let resnet = small_resnet();
    let inputs = inputs(&resnet, 30, 5);
    for (model, images) in [(shipped("lenet5"), digits(5, 30)), (resnet, inputs)] {
        let float = model.logits(images.view()).unwrap();
        let errors: Vec<[f64; 2]> = [(8, 8, 8), (12, 12, 10), (16, 16, 14)]
            .map(|(weight_bits, activation_bits, input_bits)| {
                let bits = Quantization {
                    weight_bits,
                    activation_bits: Some(activation_bits),
                    input_bits: Some(input_bits),
                    ..quantization()
                };
                let program = model
                    .compile(&Quantization { range_margin: 2.0, ..bits }, &Deployment::default())
                    .unwrap();
                let clear = program.run_clear(images.view()).unwrap();
                assert_eq!(clear.saturations.total(), 0);
                [largest_difference(&clear.logits, &float), program.error_bound().unwrap()]
            })
            .to_vec();
        for pair in errors.windows(2) {
            assert!(pair[1][0] < pair[0][0] && pair[1][1] < pair[0][1], "{errors:?}");
        }
    }
}

#[test]
fn values_beyond_the_declared_range_are_clamped_and_counted() {
    let mut model = shipped("conv1");
    let mut ranges = model.ranges().unwrap().clone();
    ranges.widen(1.0 / 8.0);
    model.set_ranges(Some(ranges));
    let report = encrypted(model, &quantization(), &KEY, (2, digits(6, 2).view()));
    assert!(report.saturations.total() > 0);
    // So are elements of the input.
    let brighter = digits(6, 1) * 1.5;
    let report = encrypted(shipped("conv1"), &quantization(), &KEY, (1, brighter.view()));
    assert!(report.saturations.total() >= brighter.iter().filter(|&&pixel| pixel > 1.01).count() as u64);
}

/// What a client says about images before it encrypts any.
fn refused_images(error: Error) -> TensorError {
    match error {
        Error::Inference(RunError::Peer(SessionError::Images(source))) => source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let run = |images: Array2<f32>| {
        let server = Arc::new(ServerModel::new(shipped("conv1"), quantization()));
        let local = LocalInference::shared(server, Arc::clone(&KEY), 1);
        local.run(images.view(), &mut rand::rng(), |_| ()).unwrap_err()
    };
    let error = run(Array2::zeros((1, 783)));
    assert!(
        matches!(&error, Error::Tensor(TensorError::Shape { found, .. }) if found.dims() == [783]),
        "{error}"
    );
    let error = refused_images(run(Array2::zeros((0, 784))));
    assert!(matches!(error, TensorError::Count { expected: 1, found: 0, .. }), "{error}");
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut images = Array2::zeros((1, 784));
        images[[0, 77]] = bad;
        let error = refused_images(run(images));
        assert!(matches!(error, TensorError::NotFinite { found: 1, of: 784, .. }), "{error}");
    }
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
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(11));
    let mut weights = model.weights();
    let bias = WeightTensor::new(Shape::from([2]), vec![-100.0; 2]).unwrap();
    weights.tensors.insert("conv0.bias".into(), bias);
    model.load(&weights).unwrap();
    let images = Array2::from_elem((2, 16), 0.5);
    model.calibrate(images.view()).unwrap();
    assert_eq!(model.ranges().unwrap().get("relu1"), Some(0.0));
    assert_eq!(encrypted(model, &quantization(), &KEY, (2, images.view())).saturations.total(), 0);
}

/// Bits of weights, activations and inputs.
fn bits() -> impl Strategy<Value = Quantization> {
    (7u32..=12, 9u32..=13, 7u32..=10).prop_map(|(weight_bits, activation_bits, input_bits)| Quantization {
        weight_bits,
        activation_bits: Some(activation_bits),
        input_bits: Some(input_bits),
        range_margin: 2.0,
        ..quantization()
    })
}

fn check_network(
    network: &Network,
    quantization: &Quantization,
    key: &Arc<SecretKey>,
    images: (usize, usize),
) {
    check_preferring(Preference::default(), network, quantization, key, images);
}

fn check_preferring(
    prefer: Preference,
    network: &Network,
    quantization: &Quantization,
    key: &Arc<SecretKey>,
    (batch, extra): (usize, usize),
) {
    let (model, images) = network.calibrated(batch + extra);
    let report = encrypted_preferring(prefer, model.clone(), quantization, key, (batch, images.view()));
    check_bound(&model, quantization, &report, &images);
    for segment in report.plan.segments() {
        let repeated = matches!(segment.layout.down.arrangement(), Arrangement::Patches(_));
        assert!(!repeated, "{} comes down as im2col", segment.name);
    }
}

/// What the properties below are tried on has all that a graph can have.
#[test]
fn networks_at_random_have_nodes_and_segments_of_all_kinds() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for _ in 0..400 {
        let (model, _) = network().new_tree(&mut runner).unwrap().current().calibrated(2);
        let plan = model.compile(&quantization(), &Deployment::default()).unwrap().plan().clone();
        let kinds = plan.graph().nodes().iter().map(|node| node.op.to_string());
        seen.extend(kinds.map(|kind| kind.split([' ', ':']).next().unwrap_or_default().to_owned()));
        for segment in plan.segments() {
            let terms = &segment.terms;
            let layout = &segment.layout;
            let repeated = matches!(layout.ups[0].arrangement(), Arrangement::Patches(_));
            let blocks = terms.iter().any(|term| term.map.blocks().len() > 1);
            let same_source = terms.iter().skip(1).any(|term| term.source == terms[0].source);
            for (is, what) in [
                (terms.len() == 2, "two terms"),
                (terms.len() > 2, "several terms"),
                (terms.len() > 1 && same_source, "terms of one value"),
                (terms.len() > 1 && repeated, "terms by im2col"),
                (terms.iter().any(|term| term.sums.is_some()), "sums in place of a mean"),
                (blocks && repeated, "blocks by im2col"),
                (blocks && !repeated, "blocks one by one"),
                (terms.iter().any(|term| term.map.columns().is_none()), "blocks that differ"),
                (layout.down.stacked() > 1, "stacked sums"),
                (layout.down.fields() > 1, "packed inputs"),
                (layout.down.fields() > 1 && terms.len() > 1, "packed inputs of several terms"),
            ] {
                if is {
                    seen.insert(what.to_owned());
                }
            }
        }
        let ends =
            if plan.client_steps(Some(plan.segments().len() - 1)).is_empty() { "sums" } else { "a step" };
        seen.insert(format!("ends in {ends}"));
    }
    let activations = Activation::ALL.map(|activation| activation.to_string());
    let activations = activations.iter().map(|name| name.split(':').next().unwrap_or_default());
    let expected = [
        "conv2d",
        "dense",
        "avg-pool2d",
        "global-avg-pool2d",
        "batch-norm2d",
        "flatten",
        "add",
        "concat",
        "max-pool",
        "mul",
        "softmax",
        "two terms",
        "several terms",
        "terms of one value",
        "terms by im2col",
        "sums in place of a mean",
        "blocks by im2col",
        "blocks one by one",
        "blocks that differ",
        "stacked sums",
        "packed inputs",
        "packed inputs of several terms",
        "ends in sums",
        "ends in a step",
    ];
    let missing: Vec<_> =
        expected.into_iter().chain(activations).filter(|what| !seen.contains(*what)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any small network, through whole sessions: encoded, encrypted, decoded, decrypted.
    #[test]
    fn any_network_encrypted_equals_clear(
        network in network(), bits in bits(), batch in 1usize..=3, extra in 0usize..=1, single: bool,
    ) {
        check_network(&network, &bits, if single { &PORTABLE_KEY } else { &KEY }, (batch, extra));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same with more images than one ciphertext has slots, and keys of the other type.
    #[test]
    fn any_network_in_large_batches_encrypted_equals_clear(
        network in network(), bits in bits(), batch in 30usize..=80, extra in 0usize..=3,
    ) {
        check_network(&network, &bits, &SUBGROUP_KEY, (batch, extra));
    }

    /// Whatever is saved, the same comes out.
    #[test]
    fn any_network_by_any_preference_encrypted_equals_clear(
        network in network(), bits in bits(), prefer in prop::sample::select(Preference::ALL.to_vec()),
        batch in 1usize..=4, extra in 0usize..=1,
    ) {
        check_preferring(prefer, &network, &bits, &KEY, (batch, extra));
    }
}

#[test]
fn lenet5_by_every_preference() {
    for prefer in Preference::ALL {
        let images = digits(3, 3);
        let report = encrypted_preferring(
            prefer,
            shipped("lenet5"),
            &Quantization::default(),
            &KEY,
            (1, images.view()),
        );
        let packed = report.plan.segments().iter().any(|segment| segment.layout.down.fields() > 1);
        assert!(packed || prefer == Preference::Time, "{prefer}");
    }
}

/// A key whose sessions are planned and run for single residues, not for vectors of them.
static PORTABLE_KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    Arc::new(SecretKey::generate(KeyBits::Bits1024, rng).unwrap().on(Backend::Portable).unwrap())
});

static SUBGROUP_KEY: LazyLock<Arc<SecretKey>> =
    LazyLock::new(|| key_of(KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup }, 7));

/// A network whose sums could be longer than an integer is refused when it is planned, and one whose values are of
/// unknown magnitude.
#[test]
fn numbers_that_fit_no_integer_are_refused() {
    let mut model = ModelBuilder::new([1 << 15]).dense("fc1", 2).build().unwrap();
    // As large as weights can be: what is stated of a row's sum says so, or it would make the sums narrower.
    model.layers_mut().for_each(|(_, layer)| layer.parameters_mut().weight.fill(0.999));
    let wide = Quantization { weight_bits: 24, input_bits: Some(24), ..quantization() };
    let error = model.compile(&wide, &Deployment::default()).unwrap_err();
    let PlanError::Numbers { name, source } = &error else { panic!("{error}") };
    assert!(name == "fc1" && matches!(source, TensorError::Overflow { needed_bits: 64, .. }), "{error}");
    assert!(model.compile(&Quantization { weight_bits: 20, ..wide }, &Deployment::default()).is_ok());
    let model = ModelBuilder::new([4]).dense("fc1", 4).relu().dense("fc2", 2).build().unwrap();
    assert_eq!(
        model.compile(&quantization(), &Deployment::default()).unwrap_err(),
        PlanError::NoRange { node: "relu1".to_owned() }
    );
}
