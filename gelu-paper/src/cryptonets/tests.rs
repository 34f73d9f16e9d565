#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use gelu_io::digits::SampleDigits;
use gelu_layers::{Conv2dConfig, Initializer};
use gelu_models::{Model, ModelBuilder};
use ndarray::Array2;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::*;
use crate::bfv::Parameters;

/// A small network with a bias in every layer.
fn small() -> Model {
    let builder = ModelBuilder::new([1, 8, 8]).conv2d("conv1", Conv2dConfig::new(2, [3, 3]));
    let builder = builder.avg_pool2d("pool1", [2, 2]).square().flatten().dense("fc1", 4).square();
    let mut model = builder.dense("fc2", 5).dense("fc3", 3).softmax().build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(7));
    model
}

fn images(count: usize) -> Array2<f32> {
    Array2::from_shape_fn((count, 64), |(image, pixel)| ((image * 7 + pixel * 3) % 11) as f32 / 10.0)
}

#[test]
fn integers_are_those_of_the_model_but_for_rounding() {
    let model = small();
    let network = Network::quantize(&model, Bits { input: 8, weight: 9 }).unwrap();
    let images = images(20);
    let logits = model.logits(images.view()).unwrap();
    let integers = network.run_clear(&network.integers(images.view()));
    let factor = integers[[0, 0]] as f64 / f64::from(logits[[0, 0]]);
    for ((class, image), &integer) in integers.indexed_iter() {
        let (found, expected) = (integer as f64 / factor, f64::from(logits[[image, class]]));
        assert!((found - expected).abs() < 2e-2, "{found} {expected}");
    }
}

#[test]
fn ciphertexts_give_the_integers_of_the_clear() {
    let network = Network::quantize(&small(), Bits { input: 3, weight: 4 }).unwrap();
    let images = images(2048);
    let trial = network.trial(images.view(), &[0; 2048]);
    let chosen = network.plan(trial.bits).unwrap();
    let integers = network.integers(images.view());
    let clear = network.run_clear(&integers);
    assert!(
        clear.iter().all(|x| x.abs() < 1 << trial.bits)
            && clear.iter().any(|x| x.abs() >= 1 << (trial.bits - 1))
    );
    // As chosen, but smaller, which is quick and not secure. What is 1 mod a multiple of the degree is so mod the degree.
    let parameters = Parameters { degree: 2048, ..chosen.parameters };
    let [mut pass, also] = [true, false].map(|switches_down| {
        let plan = Plan { parameters: parameters.clone(), switches_down, bits: trial.bits };
        let pass = run(&network, &plan, &integers, |_| ()).unwrap();
        assert!(pass.headroom > 0, "{} with a switch: {switches_down}", pass.headroom);
        pass
    });
    assert_eq!((&pass.outputs, &also.outputs), (&clear, &clear));
    // A fresh ciphertext is one polynomial and a seed; a result has three.
    let polynomial = 2048 * 62 / 8;
    assert!(pass.bytes < also.bytes && pass.bytes > 64 * polynomial, "{} {}", pass.bytes, also.bytes);
    pass.steps.truncate(3);
    let names: Vec<&str> = pass.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["encrypt", "affine map 1", "square 1"]);
    let too_many = Array2::zeros((64, 2049));
    let plan = Plan { parameters, switches_down: true, bits: trial.bits };
    assert!(run(&network, &plan, &too_many, |_| ()).is_err());
}

#[test]
fn other_activations_are_refused() {
    let model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build().unwrap();
    let error = Network::quantize(&model, Bits { input: 3, weight: 4 }).unwrap_err();
    assert!(error.to_string().contains("squares between them"), "{error}");
}

#[test]
fn squares_learn_digits() {
    let drawn = SampleDigits { seed: 1, per_digit: 20 }.draw();
    let pixels = drawn.images().to_inputs().into_shape_with_order((200, 784)).unwrap();
    let labels: Vec<usize> = drawn.labels().iter().map(|&label| label.into()).collect();
    let dataset =
        gelu_models::train::Dataset::new([1, 28, 28].into(), pixels.clone(), labels.clone(), 10).unwrap();
    let model = train(Architecture::Conv1, &dataset, 8, |_| ()).unwrap();
    let network = Network::quantize(&model, Bits { input: 4, weight: 6 }).unwrap();
    assert!(network.trial(pixels.view(), &labels).accuracy > 0.8);
    assert_eq!(network.layers().iter().map(|layer| layer.rows.len()).collect::<Vec<_>>(), [720, 180, 10]);
}
