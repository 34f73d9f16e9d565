//! Plans: what can be trained, and what is refused.

use gelu_layers::{ClientOp, Conv2dConfig, DenseConfig, LinearConfig};
use gelu_tensor::{Error, Window};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::peer::{AbortReason, Part, PeerError};
use crate::{Graph, Node, Op, ValueId, Weights, zoo};

fn refused(model: &Model) -> PrivateError {
    TrainPlan::new(describe(model, 1, FixedPoint::default())).unwrap_err()
}

fn dense(features: usize, outputs: usize) -> Model {
    ModelBuilder::new([features]).dense("fc", outputs).softmax().build().unwrap()
}

#[test]
fn a_full_batch_leaves_no_slot_for_another_input_and_is_the_usual_one() {
    let plan = |batch| {
        let usual = describe(&dense(3, 20), batch, FixedPoint::default());
        TrainPlan::new(Description { client_key: KeyBits::Bits2048.into(), ..usual }).unwrap()
    };
    let full = plan(1).full_batch();
    assert_eq!(full, TrainingOptions::BATCH);
    let ciphertexts = |batch| plan(batch).header(Part::Sums { segment: 0 }).unwrap().ciphertexts();
    assert_eq!(ciphertexts(full), 20);
    assert!(ciphertexts(full + 1) > 20);
}

#[test]
fn what_cannot_be_trained_privately_is_refused() {
    let logits = ModelBuilder::new([4]).dense("fc", 2).build().unwrap();
    assert_eq!(refused(&logits), PrivateError::NoSoftmax { found: Shape::from([2]) });
    let image = || ModelBuilder::new([1, 4, 4]);
    let norm = image().conv2d("conv", Conv2dConfig::new(2, [2, 2])).batch_norm2d("norm").relu();
    let norm = norm.flatten().dense("fc", 2).softmax().build().unwrap();
    let untrainable = |name: &str, op: &str| PrivateError::Untrainable { name: name.into(), op: op.into() };
    assert_eq!(refused(&norm), untrainable("norm", "batch-norm2d"));
    let own = ModelBuilder::new([4]).client_function("own", [3]).dense("fc", 2).softmax().build().unwrap();
    assert_eq!(refused(&own), untrainable("own", "own"));
    let nothing = image().global_avg_pool2d().flatten().softmax().build().unwrap();
    assert_eq!(refused(&nothing), PrivateError::NoWeights);
    for error in [refused(&logits), refused(&norm), refused(&own), refused(&nothing)] {
        assert_eq!(error.reason(), Some(AbortReason::BadPlan));
    }
}

#[test]
fn settings_out_of_their_range_are_refused() {
    let usual = describe(&dense(3, 2), 1, FixedPoint::default());
    let number = |change: &dyn Fn(&mut FixedPoint)| {
        let mut description = usual.clone();
        change(&mut description.numbers);
        description
    };
    for (what, description) in [
        ("batch", Description { batch: 0, ..usual.clone() }),
        ("batch", Description { batch: (1 << 16) + 1, ..usual.clone() }),
        ("batch", Description { batch: usize::MAX, ..usual.clone() }),
        ("lanes", Description { lanes: 0, ..usual.clone() }),
        ("lanes", Description { lanes: usize::MAX, ..usual.clone() }),
        ("fractional bits of weights", number(&|numbers| numbers.weight_bits = 23)),
        ("fractional bits of weights", number(&|numbers| numbers.weight_bits = 7)),
        ("fractional bits of weights in products", number(&|numbers| numbers.product_bits = 3)),
        ("fractional bits of weights in products", number(&|numbers| numbers.product_bits = 19)),
        ("bits of inputs", number(&|numbers| numbers.input_bits = 0)),
        ("bits of inputs", number(&|numbers| numbers.input_bits = u32::MAX)),
        ("log2 of the range of inputs", number(&|numbers| numbers.input_range = i32::MIN)),
        ("bits of activations", number(&|numbers| numbers.activation_bits = 21)),
        ("log2 of the range of activations", number(&|numbers| numbers.activation_range = 17)),
        ("bits of errors", number(&|numbers| numbers.error_bits = 21)),
        ("bits of sums", number(&|numbers| numbers.sum_bits = 23)),
        ("bits of sums", number(&|numbers| numbers.sum_bits = 57)),
    ] {
        let error = TrainPlan::new(description).unwrap_err();
        assert!(
            matches!(error, PrivateError::Setting { what: found, .. } if found == what),
            "{what}: {error}"
        );
    }
    // Inputs whose unit is above one.
    let coarse = number(&|numbers| (numbers.input_bits, numbers.input_range) = (8, 9));
    let error = TrainPlan::new(coarse).unwrap_err();
    assert!(matches!(error, PrivateError::Layer { source: Error::Scale { .. }, .. }), "{error}");
}

#[test]
fn networks_and_batches_that_are_too_large_are_refused_before_anything_large_is_made() {
    let too_large = |graph: Graph, batch: usize| {
        let usual = describe(&dense(3, 2), batch, FixedPoint::default());
        match TrainPlan::new(Description { graph: Arc::new(graph), ..usual }) {
            Err(PrivateError::TooLarge { what, expected, found }) => {
                assert!(found > expected);
                what
            }
            other => panic!("{other:?}"),
        }
    };
    let softmax = |mut nodes: Vec<Node>, input: Shape| {
        let last = ValueId::of_node(nodes.len() - 1);
        let op = Op::Client(ClientOp::Softmax);
        nodes.push(Node { name: "softmax".into(), op, inputs: vec![last] });
        let output = ValueId::of_node(nodes.len() - 1);
        Graph::new(input, nodes, output).unwrap()
    };
    let chain = |ops: Vec<LinearConfig>, input: [usize; 3]| {
        let ops = ops.into_iter().chain([LinearConfig::Flatten]);
        let node = |(at, config): (usize, LinearConfig)| Node {
            name: format!("node{at}"),
            op: Op::Linear(config),
            inputs: vec![if at == 0 { ValueId::INPUT } else { ValueId::of_node(at - 1) }],
        };
        softmax(ops.enumerate().map(node).collect(), Shape::from(input))
    };
    let (products, values) = ("products for an input", "values in a batch");
    let fc = |outputs| LinearConfig::Dense(DenseConfig::new(outputs));
    let conv = |channels, kernel| LinearConfig::Conv2d(Conv2dConfig::new(channels, kernel));
    let flat = [1 << 13, 1, 1];
    assert_eq!(too_large(chain(vec![LinearConfig::Flatten, fc(1 << 10)], flat), 1 << 16), values);
    // A few weights, but many positions.
    assert_eq!(too_large(chain(vec![conv(1 << 10, [5, 5])], [1, 64, 64]), 1), products);
    // A mean over windows that overlap, of a layer with few outputs that sees much: the sums would be many.
    let mean = LinearConfig::AvgPool2d(Window::new([16, 16]).into());
    assert_eq!(too_large(chain(vec![conv(1, [1, 1]), mean], [1 << 13, 32, 32]), 1), products);
    // Just below.
    let model = dense(1 << 12, 1 << 8);
    assert!(TrainPlan::new(describe(&model, 1 << 10, FixedPoint::default())).is_ok());
}

/// Sums of sums would have twice as many terms each time, and divisors of means a huge multiple in common.
#[test]
fn graphs_that_grow_beyond_all_bounds_have_a_plan_or_an_error() {
    let mut builder = ModelBuilder::new([2]).dense("fc", 2);
    for _ in 0..100 {
        builder = builder.residual(|b| b);
    }
    let model = builder.softmax().build().unwrap();
    let plan = TrainPlan::new(describe(&model, 1, FixedPoint::default())).unwrap();
    assert_eq!((plan.segments().len(), plan.parameters()), (1, 6));

    let mut builder = ModelBuilder::new([1, 1, 1100]);
    builder = builder.conv2d("first", Conv2dConfig::new(1, [1, 1])).tanh();
    let mean = |b: ModelBuilder, size: usize| {
        let conv = Conv2dConfig::new(1, [1, 1101 - size]);
        b.conv2d(&format!("conv{size}"), conv).global_avg_pool2d()
    };
    builder = builder.residual_with(
        |b| {
            b.residual_with(
                |b| b.residual_with(|b| mean(b, 1009), |b| mean(b, 1013)),
                |b| b.residual_with(|b| mean(b, 1019), |b| mean(b, 1021)),
            )
        },
        |b| {
            b.residual_with(
                |b| b.residual_with(|b| mean(b, 1031), |b| mean(b, 1033)),
                |b| b.residual_with(|b| mean(b, 1039), |b| mean(b, 1049)),
            )
        },
    );
    let model = builder.flatten().softmax().build().unwrap();
    let error = refused(&model);
    assert!(matches!(error, PrivateError::Layer { source: Error::Overflow { .. }, .. }), "{error}");
}

fn numbers_in<'a>(value: &'a mut Value, found: &mut Vec<&'a mut Value>) {
    match value {
        Value::Number(_) => found.push(value),
        Value::Array(values) => values.iter_mut().for_each(|value| numbers_in(value, found)),
        Value::Object(fields) => fields.values_mut().for_each(|value| numbers_in(value, found)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A description from a peer, with some numbers changed.
    #[test]
    fn no_description_makes_a_plan_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..13usize), 1..4),
    ) {
        let all = graphs::all();
        let (_, model) = &all[which.index(all.len())];
        let mut value = serde_json::to_value(describe(model, 2, FixedPoint::default())).unwrap();
        let same: Description = serde_json::from_value(value.clone()).unwrap();
        prop_assert_eq!(same, describe(model, 2, FixedPoint::default()));
        let mut numbers = vec![];
        numbers_in(&mut value, &mut numbers);
        for (at, to) in changes {
            let count = numbers.len();
            let number = [0, 1, 2, 3, 7, 60, 1000, 1 << 16, 1 << 26, 1 << 32, 1 << 53, u64::MAX >> 1, u64::MAX][to];
            *numbers[at.index(count)] = number.into();
        }
        if let Ok(description) = serde_json::from_value::<Description>(value)
            && let Ok(plan) = TrainPlan::new(description)
        {
            prop_assert!(plan.parameters() > 0);
        }
    }
}

#[test]
fn every_layer_is_trained_once_whoever_reads_what_it_makes() {
    for (name, model) in graphs::all() {
        let plan = TrainPlan::new(describe(&model, 1, FixedPoint::default())).unwrap();
        let mut layers: Vec<&str> = plan.layers().map(|layer| layer.name.as_str()).collect();
        let mut expected: Vec<&str> =
            model.layers().filter(|(_, layer)| layer.has_parameters()).map(|(name, _)| name).collect();
        layers.sort_unstable();
        expected.sort_unstable();
        assert_eq!(layers, expected, "{name}");
        assert_eq!(plan.parameters(), model.parameter_count(), "{name}");
    }
}

#[test]
fn terms_of_a_sum_and_the_mean_after_a_layer_are_one_segment() {
    let names = |name: &str| {
        let (_, model) = graphs::all().into_iter().find(|(found, _)| *found == name).unwrap();
        let plan = TrainPlan::new(describe(&model, 1, FixedPoint::default())).unwrap();
        plan.segments().iter().map(|segment| segment.name.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("means of four and of two"), ["a+p", "b+q", "classes"]);
    assert_eq!(names("a shortcut with a layer"), ["a", "b", "c+d", "classes"]);
    assert_eq!(names("a mean of four beside one of nine"), ["a", "b+p+c+q", "classes"]);
    assert_eq!(names("a shortcut"), ["a", "b", "c", "classes"]);
    assert_eq!(names("a layer that is read with its mean"), ["a", "classes"]);
}

#[test]
fn weights_become_integers_and_reals_again() {
    for (name, mut model) in graphs::all() {
        model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
        let plan = TrainPlan::new(describe(&model, 1, FixedPoint::default())).unwrap();
        let parameters = plan.quantize(&model.weights()).unwrap();
        let reals = plan.weights(&parameters).unwrap();
        let expected = model.weights();
        assert!(reals.tensors.keys().eq(expected.tensors.keys()), "{name}");
        for (tensor, expected) in reals.tensors.values().zip(expected.tensors.values()) {
            assert_eq!(tensor.shape(), expected.shape(), "{name}");
            let pairs = tensor.data().iter().zip(expected.data());
            assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 2f32.powi(-18)), "{name}");
        }
        assert_eq!(plan.quantize(&reals).unwrap(), parameters, "{name}");
    }
    let run = small();
    assert!(matches!(run.plan.weights(&run.parameters[1..]), Err(PrivateError::Parameters { .. })));
    let mut weights = run.plan.weights(&run.parameters).unwrap();
    let bad = |weights: &Weights| match run.plan.quantize(weights) {
        Err(PrivateError::Model { found, .. }) => found,
        other => panic!("{other:?}"),
    };
    let tensor = |shape: [usize; 2], value| {
        crate::WeightTensor::new(Shape::from(shape), vec![value; shape[0] * shape[1]]).unwrap()
    };
    for wrong in
        [tensor([3, 4], 0.0), tensor([4, 3], f32::NAN), tensor([4, 3], f32::INFINITY), tensor([4, 3], 32.0)]
    {
        weights.tensors.insert("fc1.weight".to_owned(), wrong);
        assert_eq!(bad(&weights), "fc1.weight");
    }
    weights.tensors.remove("fc1.weight");
    assert_eq!(bad(&weights), "fc1.weight");
}

#[test]
fn a_plan_has_the_tensors_of_its_exchanges_and_no_others() {
    let (_, model) = graphs::all().into_iter().find(|(name, _)| *name == "a shortcut with a layer").unwrap();
    let plan = TrainPlan::new(describe(&model, 2, FixedPoint::default())).unwrap();
    for part in plan.exchanges().iter().flat_map(|exchange| exchange.ups(1).iter().chain([&exchange.down])) {
        assert_eq!(plan.header(*part).unwrap().batch, 2, "{part}");
    }
    for part in [
        Part::Inputs { segment: 2, term: 2 },
        Part::Inputs { segment: 4, term: 0 },
        Part::Sums { segment: u32::MAX },
        // Nothing before the first layer is trained.
        Part::Errors { segment: 0, term: 0 },
        Part::Products { segment: 0, term: 0 },
        Part::Errors { segment: 1, term: 1 },
    ] {
        let error = plan.header(part).unwrap_err();
        assert!(matches!(error, PrivateError::Model { .. }), "{error}");
    }
}

#[test]
fn the_ledger_counts_equations_of_the_layers_of_lenet5() {
    const BATCH: u64 = 20;
    let description = describe(&zoo::lenet5().unwrap(), BATCH as usize, FixedPoint::default());
    let plan = TrainPlan::new(description).unwrap();
    let found = LayerLeakage::of(&plan);
    let expected = [
        // 12x12 positions after the mean; a kernel's 25 weights and bias. Nothing before it is trained.
        ("conv1", 144, 26, 0, 6 * 25),
        // 4x4 positions; the mean's sums of a channel are those of 11x11 windows, which 16 kernels of 25 weights see.
        ("conv2", 16, 151, 121, 16 * 25),
        ("fc1", 1, 257, 1, 120),
        ("fc2", 1, 121, 1, 84),
        ("fc3", 1, 85, 1, 10),
    ];
    let expected =
        expected.map(|(layer, forward, forward_unknowns, backward, backward_unknowns)| LayerLeakage {
            layer: layer.to_owned(),
            forward: BATCH * forward,
            forward_unknowns,
            backward: BATCH * backward,
            backward_unknowns,
        });
    assert_eq!(found, expected);
    let solvable: Vec<u32> = found.iter().map(LayerLeakage::strict_iterations).collect();
    assert_eq!(solvable, [0, 0, 5, 4, 0]);
}

#[test]
fn the_ledger_counts_channels_of_groups_and_biases_where_there_are_any() {
    let (_, model) = graphs::all().into_iter().find(|(name, _)| name.contains("groups")).unwrap();
    let plan = TrainPlan::new(describe(&model, 2, FixedPoint::default())).unwrap();
    let leakage = &LayerLeakage::of(&plan)[1];
    // Of 2 channels of 6x5, by 4 kernels of 3x2 in 2 groups, over 6 + 1 rows and 5 + 1 columns.
    assert_eq!((leakage.forward, leakage.forward_unknowns), (2 * 3 * 4, 6));
    assert_eq!((leakage.backward, leakage.backward_unknowns), (2 * 30, 2 * 6));
}

#[test]
fn the_strict_policy_refuses_a_convolution_and_says_why() {
    let mut lenet = zoo::lenet5().unwrap();
    lenet.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
    let plan = Arc::new(TrainPlan::new(describe(&lenet, 20, FixedPoint::default())).unwrap());
    let parameters = plan.quantize(&lenet.weights()).unwrap();
    let run = Run::new(dense(3, 3), Setup { batch: 1, images: 8, ..Setup::default() });
    let mut config = run.config.clone();
    config.train.batch_size = 20;
    (config.leakage, config.d_max) = (Leakage::Strict, DMax::Auto);
    let trainer = FixedTrainer::new(plan, config, parameters, [run.participant(0)]);
    let Err(PrivateError::Leakage { layer, equations, unknowns, .. }) = trainer.map(|_| ()) else {
        panic!("the strict policy must refuse LeNet-5")
    };
    // Conv1 with its pooling shows each kernel's 26 numbers in 144 equations an image.
    assert_eq!((layer.as_str(), equations, unknowns), ("conv1", 20 * 144, 26));
    // A dense layer of 3 inputs and 4 outputs: 4 unknowns a row, so 3 images may be seen.
    let model = ModelBuilder::new([3]).dense("fc1", 4).tanh().dense("fc2", 3).softmax().build().unwrap();
    let mut run = Run::new(model, Setup { batch: 1, images: 8, ..Setup::default() });
    run.config.leakage = Leakage::Strict;
    run.config.d_max = DMax::Fixed(3);
    let refused = run.try_server(0);
    assert!(matches!(refused, Err(PrivateError::Leakage { .. })), "{refused:?}");
    run.config.d_max = DMax::Fixed(2);
    assert!(run.try_server(0).is_ok());
}

#[test]
fn the_papers_policy_counts_iterations_and_off_counts_nothing() {
    let mut run = small();
    run.config.leakage = Leakage::Paper;
    // The narrowest layer has three inputs: below 3 + 2.
    run.config.d_max = DMax::Fixed(4);
    assert!(run.try_server(0).is_ok());
    for wrong in [0, 5] {
        run.config.d_max = DMax::Fixed(wrong);
        let refused = run.try_server(0);
        assert!(matches!(refused, Err(PrivateError::Setting { what: "d-max", .. })), "{refused:?}");
    }
    run.config.leakage = Leakage::Off;
    assert!(run.try_server(0).is_ok());
    run.config.d_max = DMax::Auto;
    let mut lengths = std::collections::HashSet::new();
    for seed in 0..60 {
        run.config.train.seed = seed;
        let mut fixed = run.fixed();
        fixed.turn().unwrap();
        lengths.insert(fixed.coordinator().iterations);
    }
    assert_eq!(lengths, [2, 3, 4].into());
}

#[test]
fn weights_with_sums_of_too_many_bits_are_refused() {
    let mut run = small();
    run.parameters[0] = (1 << 23) - 1;
    let description = run.plan.description().clone();
    let numbers = FixedPoint { sum_bits: 24, ..description.numbers };
    run.plan = Arc::new(TrainPlan::new(Description { numbers, ..description }).unwrap());
    assert!(matches!(run.fixed().turn(), Err(PrivateError::LargeSums { .. })));
    let (mut server, mut client) = (run.server(0), run.client(0, 0));
    let refused = whole_turn(&mut server, &mut client, 1);
    assert!(matches!(refused, Err(PrivateError::LargeSums { .. })), "{refused:?}");
    assert!(server.is_closed() && client.is_closed());
}

#[test]
fn servers_and_participants_check_what_they_are_given() {
    let run = small();
    let mut parameters = run.parameters.clone();
    parameters[0] = 1 << 23;
    let server = |parameters: Vec<i64>, config: CoordinatorConfig, key: &Arc<SecretKey>| {
        Server::new(run.plan.clone(), key.clone(), config, parameters).unwrap_err()
    };
    for wrong in [parameters, run.parameters[1..].to_vec()] {
        let error = server(wrong, run.config.clone(), &KEYS[0]);
        assert!(matches!(error, PrivateError::Parameters { .. }), "{error}");
    }
    let changed = |change: &dyn Fn(&mut CoordinatorConfig)| {
        let mut config = run.config.clone();
        change(&mut config);
        server(run.parameters.clone(), config, &KEYS[0])
    };
    let setting = |error| match error {
        PrivateError::Setting { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(setting(changed(&|config| config.train.batch_size = 3)), "batch size");
    assert_eq!(setting(changed(&|config| config.images = 0)), "images of a run");
    assert_eq!(setting(changed(&|config| config.train.weight_decay = 0.1)), "weight decay");
    assert_eq!(setting(changed(&|config| config.train.weight_bits = Some(3))), "weight bits");
    assert_eq!(setting(changed(&|config| config.train.activation_bits = Some(4))), "activation bits");
    assert_eq!(setting(changed(&|config| config.train.input_bits = Some(5))), "input bits");
    assert_eq!(setting(changed(&|config| config.train.learning_rate = -1.0)), "learning rate");
    let large = secret_key(KeyBits::Bits2048, &mut ChaCha20Rng::seed_from_u64(1));
    assert_eq!(
        server(run.parameters.clone(), run.config.clone(), &Arc::new(large)),
        PrivateError::KeySize { expected: KeyBits::Bits1024, found: KeyBits::Bits2048 }
    );

    let fixed = |data: Arc<Dataset>, momentum: f64| {
        let participant = ParticipantConfig { client: 0, seed: 1, momentum };
        let clients = [(data as Arc<dyn Samples>, participant)];
        let made = FixedTrainer::new(run.plan.clone(), run.config.clone(), run.parameters.clone(), clients);
        setting(made.map(|_| ()).unwrap_err())
    };
    let data =
        |features: usize, count: usize, classes: usize| dataset(Shape::from([features]), count, classes, 1);
    assert_eq!(fixed(data(4, 2, 3), 0.0), "elements of an input");
    assert_eq!(fixed(data(3, 2, 4), 0.0), "classes");
    assert_eq!(fixed(data(3, 0, 3), 0.0), "inputs of a client");
    assert_eq!(fixed(data(3, 2, 3), 1.0), "momentum");
    assert_eq!(fixed(data(3, 2, 3), f64::NAN), "momentum");
}
