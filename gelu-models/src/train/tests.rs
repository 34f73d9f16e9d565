use gelu_layers::{Activation, BatchNorm2dConfig, Conv2dConfig, DenseConfig, Initializer, LinearConfig};
use gelu_tensor::{Error, Format, Shape, Window};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{augmentation::Augmentation, backprop::gradients, *};
use crate::{LoadError, LoadProblem, Model, ModelBuilder, Weights};

/// Images with a bright square in one of four corners: the label.
pub(super) fn corners(images: usize) -> Dataset {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let labels: Vec<usize> = (0..images).map(|i| i % 4).collect();
    let inputs = Array2::from_shape_fn((images, 64), |(i, pixel)| {
        let corner = (pixel / 8 / 4) * 2 + pixel % 8 / 4;
        rng.random_range(0.0..0.5) + if corner == labels[i] { 0.4 } else { 0.0 }
    });
    Dataset::new(Shape::from([1, 8, 8]), inputs, labels, 4).unwrap()
}

fn initialized(builder: ModelBuilder) -> Model {
    let mut model = builder.build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
    model
}

fn model() -> Model {
    model_with(Activation::Relu)
}

fn model_with(activation: Activation) -> Model {
    initialized(
        ModelBuilder::new([1, 8, 8])
            .conv2d("conv1", Conv2dConfig::new(3, [3, 3]))
            .avg_pool2d("pool1", [2, 2])
            .activation(activation)
            .flatten()
            .dense("fc1", 4)
            .softmax(),
    )
}

fn conv(channels: usize, kernel: usize) -> Conv2dConfig {
    Conv2dConfig::new(channels, [kernel, kernel])
}

/// A network with every kind of node that can be trained, and every way to join branches.
fn everything(activation: Activation) -> Model {
    let late = BatchNorm2dConfig { epsilon: 1e-2, ..BatchNorm2dConfig::default() };
    initialized(
        ModelBuilder::new([1, 8, 8])
            .conv2d("stem", conv(4, 3).with_padding([1, 1]).without_bias())
            .batch_norm2d("stem_norm")
            .activation(activation)
            .residual(|block| {
                let depthwise = conv(4, 3).with_padding_sides([[2, 0], [0, 2]]).with_groups(4);
                block.conv2d("depthwise", depthwise).activation(activation)
            })
            .max_pool2d([2, 2])
            .residual_with(
                |block| {
                    block
                        .conv2d("dilated", conv(6, 3).with_padding([2, 2]).with_dilation([2, 2]))
                        .batch_norm2d("dilated_norm")
                        .activation(activation)
                        .conv2d("strided", conv(6, 2).with_stride([2, 2]).with_groups(2))
                },
                |block| block.conv2d("shortcut", conv(6, 1)).avg_pool2d("shortcut_pool", [2, 2]),
            )
            .activation(activation)
            .concat([&|branch: ModelBuilder| branch.conv2d("left", conv(2, 1)), &|branch: ModelBuilder| {
                branch.avg_pool2d_with("right", Window::new([3, 3]).with_padding([1, 1]))
            }])
            .activation(activation)
            .gated(|gate| gate.global_avg_pool2d().flatten().dense("gate", 8).sigmoid())
            .gated(|gate| gate.conv2d("factor", conv(8, 1)).tanh())
            .linear("late_norm", LinearConfig::BatchNorm2d(late))
            .flatten()
            .dense("hidden", DenseConfig::new(8).without_bias())
            .activation(activation)
            .dense("fc", 4)
            .softmax(),
    )
}

fn config() -> TrainConfig {
    TrainConfig {
        epochs: 4,
        batch_size: 40,
        augmentation: Some(Augmentation::LIGHT),
        ..TrainConfig::default()
    }
}

fn train(mut trainer: Trainer, epochs: u32) -> Trainer {
    let data = corners(150);
    for _ in 0..epochs {
        trainer.train_epoch(&data, |_| ()).unwrap();
    }
    trainer
}

/// Compares all gradients of a batch with difference quotients.
fn check_gradients(mut model: Model, data: &Dataset, tolerance: f64) {
    const STEP: f32 = 2e-3;
    let found = gradients(&model, data.inputs(), data.labels()).unwrap();
    let names: Vec<String> = {
        let trained = model.layers().filter(|(_, layer)| layer.has_parameters());
        trained.map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(names.len(), found.parameters.len());
    let mut slope = |name: &str, is_bias: bool, at: usize| {
        let mut loss = |shift: f32| {
            let mut layers = model.layers_mut();
            let parameters = layers.find(|(layer, _)| *layer == name).unwrap().1.parameters_mut();
            let values = if is_bias { &mut parameters.bias } else { &mut parameters.weight };
            let before = values[at];
            values[at] += shift;
            drop(layers);
            let loss = gradients(&model, data.inputs(), data.labels()).unwrap().loss;
            let mut layers = model.layers_mut();
            let parameters = layers.find(|(layer, _)| *layer == name).unwrap().1.parameters_mut();
            let values = if is_bias { &mut parameters.bias } else { &mut parameters.weight };
            values[at] = before;
            loss
        };
        (loss(STEP) - loss(-STEP)) / f64::from(2.0 * STEP)
    };
    for (name, parameters) in names.iter().zip(&found.parameters) {
        for (is_bias, values) in [(false, &parameters.weight), (true, &parameters.bias)] {
            for (at, &expected) in values.iter().enumerate() {
                let slope = slope(name, is_bias, at);
                let allowed = tolerance * (1.0 + slope.abs());
                assert!(
                    (slope - f64::from(expected)).abs() < allowed,
                    "{name}, bias {is_bias}, {at}: {expected} {slope}"
                );
            }
        }
    }
}

#[test]
fn gradients_of_a_whole_model_are_difference_quotients() {
    // Smooth, so that a difference quotient meets no kink.
    check_gradients(model_with(Activation::Tanh), &corners(6), 1e-3);
}

#[test]
fn gradients_of_a_graph_with_every_kind_of_node_are_difference_quotients() {
    // A maximum changes its place now and then.
    check_gradients(everything(Activation::Gelu), &corners(5), 1e-2);
}

#[test]
fn training_learns() {
    let data = corners(200);
    let config = TrainConfig { epochs: 12, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model(), TrainConfig { batch_size: 10, ..config }).unwrap();
    let before = trainer.model().evaluate(&data).unwrap();
    let mut calls = 0;
    let stats: Vec<_> = (0..12).map(|_| trainer.train_epoch(&data, |_| calls += 1).unwrap()).collect();
    let after = trainer.model().evaluate(&data).unwrap();
    assert_eq!(calls, 12 * 20);
    assert!(after.accuracy > 0.95 && after.loss < before.loss, "{before:?} {after:?}");
    assert!(stats[11].loss < stats[0].loss && stats[11].learning_rate < 1e-9);
}

/// By running statistics as well, which are what is left of the batches.
#[test]
fn a_graph_with_every_kind_of_node_learns() {
    let data = corners(200);
    let config = TrainConfig { learning_rate: 0.08, epochs: 10, batch_size: 10, ..TrainConfig::default() };
    let mut trainer = Trainer::new(everything(Activation::Relu), config).unwrap();
    let before = trainer.model().evaluate(&data).unwrap();
    let stats: Vec<_> = (0..10).map(|_| trainer.train_epoch(&data, |_| ()).unwrap()).collect();
    let after = trainer.model().evaluate(&data).unwrap();
    assert!(stats[9].loss < 0.5 * stats[0].loss, "{stats:?}");
    assert!(after.accuracy > 0.95 && after.loss < 0.5 * before.loss, "{before:?} {after:?}");
}

#[test]
fn running_statistics_are_those_of_the_last_batch_where_momentum_is_one() {
    let norm = BatchNorm2dConfig { momentum: 1.0, ..BatchNorm2dConfig::default() };
    let model = initialized(
        ModelBuilder::new([1, 8, 8])
            .linear("norm", LinearConfig::BatchNorm2d(norm))
            .global_avg_pool2d()
            .flatten()
            .dense("fc", 4)
            .softmax(),
    );
    let data = corners(12);
    let config = TrainConfig { batch_size: 12, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model, config).unwrap();
    trainer.train_epoch(&data, |_| ()).unwrap();
    let (_, layer) = trainer.model().layers().next().unwrap();
    let statistics = layer.statistics().unwrap();
    let values = data.inputs().iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
    // As PyTorch keeps it: divided by one value less.
    let variance = squares / (values.len() - 1) as f64;
    assert!((f64::from(statistics.mean[0]) - mean).abs() < 1e-5);
    assert!((f64::from(statistics.variance[0]) - variance).abs() < 1e-5);
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    for model in [model, || everything(Activation::Relu)] {
        let whole = train(Trainer::new(model(), config()).unwrap(), 4);
        let half = train(Trainer::new(model(), config()).unwrap(), 2);
        let state = TrainState::from_weights(half.state().to_weights()).unwrap();
        assert_eq!(state, half.state());
        let resumed = train(Trainer::resume(model(), &state).unwrap(), 2);
        assert_eq!(whole.state(), resumed.state());
    }
    // Stopped within an epoch, after every update; with weights and values that are rounded from the third epoch on, too.
    for (weight_bits, activation_bits) in [(None, None), (Some(3), None), (None, Some(4)), (Some(3), Some(3))]
    {
        let config = TrainConfig { weight_bits, activation_bits, epochs: 4, ..config() };
        let whole = train(Trainer::new(model(), config.clone()).unwrap(), 4);
        let mut trainer = Trainer::new(model(), config).unwrap();
        let (data, mut stops) = (corners(150), 0);
        while trainer.epochs_done() < 4 {
            stops += usize::from(trainer.train_while(&data, |_| false).unwrap().is_none());
            let state = TrainState::from_weights(trainer.state().to_weights()).unwrap();
            trainer = Trainer::resume(model(), &state).unwrap();
        }
        assert!(stops >= 4, "{stops}");
        assert_eq!(whole.state(), trainer.state());
        assert_eq!(whole.model().weights(), trainer.model().weights());
    }

    let state = train(Trainer::new(everything(Activation::Relu), config()).unwrap(), 1).state();
    let running = state.weights.tensors.get("stem_norm.running_mean").unwrap();
    assert!(running.data().iter().any(|&mean| mean != 0.0));
    assert!(state.velocity.tensors.keys().all(|name| !name.contains("running")));
}

/// Errors pass the rounding of a value, but not where it is cut off.
#[test]
fn rounding_passes_errors_on_within_its_range() {
    let mut model = ModelBuilder::new([1]).dense("fc1", 1).relu().dense("fc2", 2).softmax().build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
    for (layer, weights) in model.layers_mut().map(|(_, layer)| layer).zip([vec![1.0], vec![0.5, -0.5]]) {
        layer.parameters_mut().weight.copy_from_slice(&weights);
        layer.parameters_mut().bias.fill(0.0);
    }
    let of = |model: &Model, x: f32| {
        gradients(model, Array2::from_elem((1, 1), x).view(), &[0]).unwrap().parameters
    };
    let exact = of(&model, 2.0);
    model.set_formats([("relu1".to_owned(), Format::integers(3).unwrap())].into());
    assert_eq!(of(&model, 2.0)[1].weight, exact[1].weight);
    // 2.4 is read as 2, and so is its error.
    let rounded = of(&model, 2.4);
    assert_eq!(rounded[1].weight, exact[1].weight);
    assert_eq!(rounded[0].bias, exact[0].bias);
    assert!(rounded[0].bias[0] != 0.0);
    // 10 is read as 3, whatever the layer before it does.
    let cut = of(&model, 10.0);
    assert_eq!(cut[1].weight, of(&model, 3.0)[1].weight);
    assert_eq!(cut[0].bias, [0.0]);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for model in [model, || everything(Activation::Silu)] {
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| train(Trainer::new(model(), config()).unwrap(), 1)).state()
        };
        assert_eq!(with(1), with(3));
    }
}

#[test]
fn seeds_matter() {
    let other = TrainConfig { seed: 1, ..config() };
    let [a, b] = [config(), other].map(|config| train(Trainer::new(model(), config).unwrap(), 1));
    assert_ne!(a.model().weights(), b.model().weights());
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let bad = TrainConfig { learning_rate: f64::NAN, ..config() };
    assert!(matches!(Trainer::new(model(), bad), Err(TrainError::Config { what: "learning rate", .. })));
    let logits = ModelBuilder::new([4]).dense("fc1", 2).build().unwrap();
    assert!(matches!(Trainer::new(logits, config()), Err(TrainError::NoSoftmax { .. })));
    let own = ModelBuilder::new([4]).client_function("own", [3]).dense("fc1", 2).softmax().build().unwrap();
    assert!(matches!(Trainer::new(own, config()), Err(TrainError::Tensor(Error::ClientFunction))));
    let mut trainer = Trainer::new(model(), config()).unwrap();
    let binary = Dataset::new(Shape::from([1, 8, 8]), Array2::zeros((1, 64)), vec![0], 2).unwrap();
    let error = trainer.train_epoch(&binary, |_| ()).unwrap_err();
    assert_eq!(error, TrainError::Classes { expected: 4, found: 2 });
    let empty = Dataset::new(Shape::from([1, 8, 8]), Array2::zeros((0, 64)), vec![], 4).unwrap();
    assert_eq!(trainer.train_epoch(&empty, |_| ()).unwrap_err(), TrainError::Empty);
    let flat = Dataset::new(Shape::from([64]), Array2::zeros((1, 64)), vec![0], 4).unwrap();
    assert!(matches!(trainer.train_epoch(&flat, |_| ()), Err(TrainError::NoImages { .. })));
    let small = Dataset::new(Shape::from([1, 4, 4]), Array2::zeros((1, 16)), vec![0], 4).unwrap();
    assert_eq!(
        trainer.train_epoch(&small, |_| ()).unwrap_err(),
        TrainError::Tensor(Error::Shape {
            what: "inputs of a model",
            expected: [1, 8, 8].into(),
            found: [16].into()
        })
    );
    // Nothing of these is in the weights.
    assert_eq!(trainer.model().weights(), model().weights());
}

#[test]
fn counters_that_no_run_can_come_to_are_refused() {
    let state = train(Trainer::new(model(), config()).unwrap(), 1).state();
    let refused = |change: &dyn Fn(&mut TrainState)| {
        let mut state = state.clone();
        change(&mut state);
        let trained = Trainer::resume(model(), &state).and_then(|mut t| t.train_epoch(&corners(150), |_| ()));
        matches!(trained, Err(TrainError::State(StateError::Progress { .. })))
    };
    assert!(!refused(&|_| ()));
    assert!(refused(&|state| state.epochs_done = u32::MAX));
    assert!(refused(&|state| state.part.done = usize::MAX));
    assert!(refused(&|state| state.part.done = 150));
    assert!(refused(&|state| state.part.done = 1));
    assert!(refused(&|state| state.part.correct = 1));
    assert!(refused(&|state| state.part.loss = f64::INFINITY));
}

#[test]
fn states_of_other_models_are_refused() {
    let problem = |state: &TrainState| match Trainer::resume(everything(Activation::Relu), state) {
        Err(TrainError::State(
            StateError::Weights(LoadError { problems }) | StateError::Velocity(LoadError { problems }),
        )) => problems,
        other => panic!("{other:?}"),
    };
    let state = Trainer::new(everything(Activation::Relu), config()).unwrap().state();
    for name in ["fc.bias", "stem_norm.running_var"] {
        let mut missing = state.clone();
        missing.weights.tensors.remove(name);
        assert!(
            matches!(&problem(&missing)[..], [LoadProblem::Missing { name: found, .. }] if found == name)
        );
    }
    let mut missing = state.clone();
    missing.velocity.tensors.remove("stem_norm.weight");
    assert!(
        matches!(&problem(&missing)[..], [LoadProblem::Missing { name, .. }] if name == "stem_norm.weight")
    );
    let mut unused = state.clone();
    let tensor = unused.weights.tensors["fc.bias"].clone();
    unused.velocity.tensors.insert("other.bias".to_owned(), tensor);
    assert!(matches!(&problem(&unused)[..], [LoadProblem::Unused { name, .. }] if name == "other.bias"));
    assert!(matches!(TrainState::from_weights(Weights::default()), Err(StateError::NoState { .. })));
}

#[test]
fn divergence_is_an_error() {
    let config = TrainConfig { learning_rate: 1e30, augmentation: None, ..config() };
    let mut trainer = Trainer::new(model(), config).unwrap();
    let mut epochs = (0..4).map(|_| trainer.train_epoch(&corners(150), |_| ()));
    assert!(epochs.any(|result| matches!(result, Err(TrainError::Diverged { .. }))));
}

#[test]
fn datasets_are_checked() {
    let new = |inputs, labels| Dataset::new(Shape::from([2]), inputs, labels, 3).unwrap_err();
    assert_eq!(new(Array2::zeros((1, 3)), vec![0]), DatasetError::Columns { expected: 2, found: 3 });
    assert_eq!(new(Array2::zeros((2, 2)), vec![0]), DatasetError::Labels { expected: 2, found: 1 });
    let error = DatasetError::Label { index: 1, classes: 3, found: 3 };
    assert_eq!(new(Array2::zeros((2, 2)), vec![0, 3]), error);
    assert_eq!(new(Array2::from_elem((1, 2), f32::NAN), vec![0]), DatasetError::NotFinite { index: 0 });
}

#[test]
fn a_split_keeps_every_input_once() {
    let [kept, held_out] = corners(50).split(0.2, 3);
    assert_eq!((kept.len(), held_out.len()), (40, 10));
    let mut sums: Vec<f32> =
        kept.inputs().outer_iter().chain(held_out.inputs().outer_iter()).map(|r| r.sum()).collect();
    let mut expected: Vec<f32> = corners(50).inputs().outer_iter().map(|row| row.sum()).collect();
    sums.sort_by(f32::total_cmp);
    expected.sort_by(f32::total_cmp);
    assert_eq!(sums, expected);
}

#[test]
fn a_split_keeps_the_share_of_every_class() {
    let labels: Vec<usize> = (0..100).map(|i| usize::from(i % 10 == 0) + 2 * usize::from(i == 5)).collect();
    let [kept, held_out] = stratified_split(&labels, 0.2, 7);
    let count = |part: &[usize], class: usize| part.iter().filter(|&&i| labels[i] == class).count();
    assert_eq!([0, 1, 2].map(|class| count(&held_out, class)), [18, 2, 0]);
    assert_eq!([0, 1, 2].map(|class| count(&kept, class)), [71, 8, 1]);
    assert_eq!(stratified_split(&labels, 0.2, 7), [kept.clone(), held_out]);
    assert_ne!(stratified_split(&labels, 0.2, 8)[0], kept);
    assert!(stratified_split(&[], 0.2, 0).iter().all(Vec::is_empty));
    // A class keeps one at least.
    assert_eq!(stratified_split(&[0, 0, 1, 1], 1.0, 0).map(|part| part.len()), [2, 2]);
}

#[test]
fn schedules_are_what_their_names_say_and_print_as_they_are_read() {
    let at = |schedule, epochs| {
        TrainConfig { learning_rate: 1.0, epochs: 10, warm_up: 2.0, schedule, ..TrainConfig::default() }
            .learning_rate_at(epochs)
    };
    assert_eq!(at(Schedule::Constant, 1.0), 0.5);
    assert_eq!(at(Schedule::Constant, 9.0), 1.0);
    assert!((at(Schedule::Cosine, 5.0) - 0.5).abs() < 1e-12);
    assert_eq!(at("step:3:0.5".parse().unwrap(), 6.5), 0.25);
    for text in ["constant", "cosine", "step:10:0.1"] {
        assert_eq!(text.parse::<Schedule>().unwrap().to_string(), text);
    }
    for text in ["", "linear", "step:0:0.1", "step:3", "step:3:2", "step:x:0.1"] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}

#[test]
fn an_augmentation_of_zero_changes_nothing_and_a_light_one_little() {
    let data = corners(1);
    let change = |augmentation: Augmentation| {
        let mut target = ndarray::Array1::zeros(64);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        augmentation.apply(data.inputs().row(0), target.view_mut(), [1, 8, 8], &mut rng);
        target
    };
    let none = change(Augmentation { shift: 0.0, rotation: 0.0, scale: 0.0, shear: 0.0 });
    assert_eq!(none, data.inputs().row(0));
    let light = change(Augmentation::LIGHT);
    assert_ne!(light, data.inputs().row(0));
    assert!(light.iter().all(|pixel| (0.0..=1.0).contains(pixel)) && light.sum() > 0.5 * none.sum());
}
