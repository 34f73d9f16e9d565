use gelu_layers::{Activation, Conv2dConfig, Initializer};
use gelu_tensor::Shape;
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{augmentation::Augmentation, backprop::gradients, *};
use crate::{Model, ModelBuilder, Weights};

/// Images with a bright square in one of four corners: the label.
fn corners(images: usize) -> Dataset {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let labels: Vec<usize> = (0..images).map(|i| i % 4).collect();
    let inputs = Array2::from_shape_fn((images, 64), |(i, pixel)| {
        let corner = (pixel / 8 / 4) * 2 + pixel % 8 / 4;
        rng.random_range(0.0..0.5) + if corner == labels[i] { 0.4 } else { 0.0 }
    });
    Dataset::new(Shape::from([1, 8, 8]), inputs, labels, 4).unwrap()
}

fn model() -> Model {
    model_with(Activation::Relu)
}

fn model_with(activation: Activation) -> Model {
    let mut model = ModelBuilder::new([1, 8, 8])
        .conv2d("conv1", Conv2dConfig::new(3, [3, 3]))
        .mean_pool2d("pool1", [2, 2])
        .activation(activation)
        .flatten()
        .dense("fc1", 4)
        .softmax()
        .build()
        .unwrap();
    model.initialise(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
    model
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

#[test]
fn gradients_of_a_whole_model() {
    // Smooth, so that a difference quotient meets no kink.
    let mut model = model_with(Activation::Tanh);
    let data = corners(6);
    let found = gradients(&model, data.inputs(), data.labels()).unwrap();
    let mut loss = |layer: usize, at: (usize, usize), shift: f32| {
        model.parameters_mut().nth(layer).unwrap().weight[at] += shift;
        let loss = gradients(&model, data.inputs(), data.labels()).unwrap().loss;
        model.parameters_mut().nth(layer).unwrap().weight[at] -= shift;
        loss
    };
    for (layer, parameters) in found.parameters.iter().enumerate() {
        for (at, &expected) in parameters.weight.indexed_iter() {
            let slope = (loss(layer, at, 4e-3) - loss(layer, at, -4e-3)) / 8e-3;
            assert!((slope - f64::from(expected)).abs() < 1e-3, "layer {layer} {at:?}: {expected} {slope}");
        }
    }
}

#[test]
fn training_learns() {
    let data = corners(200);
    let config = TrainConfig { epochs: 12, ..TrainConfig::default() };
    let mut trainer = Trainer::new(model(), TrainConfig { batch_size: 10, ..config }).unwrap();
    let before = evaluate(trainer.model(), &data).unwrap();
    let mut calls = 0;
    let stats: Vec<_> = (0..12).map(|_| trainer.train_epoch(&data, |_| calls += 1).unwrap()).collect();
    let after = evaluate(trainer.model(), &data).unwrap();
    assert_eq!(calls, 12 * 20);
    assert!(after.accuracy > 0.95 && after.loss < before.loss, "{before:?} {after:?}");
    assert!(stats[11].loss < stats[0].loss && stats[11].learning_rate < 1e-9);
}

#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let whole = train(Trainer::new(model(), config()).unwrap(), 4);
    let half = train(Trainer::new(model(), config()).unwrap(), 2);
    let state = TrainState::from_weights(half.state().to_weights()).unwrap();
    assert_eq!(state, half.state());
    let resumed = train(Trainer::resume(self::model(), &state).unwrap(), 2);
    assert_eq!(whole.state(), resumed.state());
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| train(Trainer::new(model(), config()).unwrap(), 1)).state()
    };
    assert_eq!(with(1), with(3));
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
    let mut trainer = Trainer::new(model(), config()).unwrap();
    let binary = Dataset::new(Shape::from([1, 8, 8]), Array2::zeros((1, 64)), vec![0], 2).unwrap();
    let error = trainer.train_epoch(&binary, |_| ()).unwrap_err();
    assert_eq!(error, TrainError::Classes { expected: 4, found: 2 });
    let empty = Dataset::new(Shape::from([1, 8, 8]), Array2::zeros((0, 64)), vec![], 4).unwrap();
    assert_eq!(trainer.train_epoch(&empty, |_| ()).unwrap_err(), TrainError::Empty);
    let flat = Dataset::new(Shape::from([64]), Array2::zeros((1, 64)), vec![0], 4).unwrap();
    assert!(matches!(trainer.train_epoch(&flat, |_| ()), Err(TrainError::NoImages { .. })));
    let mut state = trainer.state();
    state.weights.tensors.remove("fc1.bias");
    assert!(matches!(Trainer::resume(model(), &state), Err(TrainError::State(StateError::Weights(_)))));
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
fn schedules() {
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
