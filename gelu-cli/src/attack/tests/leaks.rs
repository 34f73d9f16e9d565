//! What private training shows a client, and what its policy refuses to show.

use std::sync::{Arc, LazyLock};

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::train::TrainConfig;
use gelu_models::train::private::{
    CoordinatorConfig, DMax, Description, FixedPoint, LayerLeakage, Leakage, Server, TrainPlan,
};
use gelu_tensor::paillier::{KeyBits, SecretKey};
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::super::extract::{Extraction, extract};
use crate::model_args::backend;

static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng).unwrap().on(backend().unwrap()).unwrap())
});

const INPUTS: usize = 12;

fn plan(batch: usize) -> (Arc<TrainPlan>, Vec<i64>) {
    let mut model =
        ModelBuilder::new([INPUTS]).dense("fc1", 10).tanh().dense("fc2", 3).softmax().build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(4));
    let description =
        Description::new(&model, batch, FixedPoint::default(), KeyBits::Bits1024.into(), KeyBits::Bits1024);
    let plan = Arc::new(TrainPlan::new(description).unwrap());
    let parameters = plan.quantize(&model.weights()).unwrap();
    (plan, parameters)
}

fn config(batch: usize, leakage: Leakage) -> CoordinatorConfig {
    let train = TrainConfig { batch_size: batch, weight_decay: 0.0, ..TrainConfig::default() };
    CoordinatorConfig { train, images: 64, d_max: DMax::Fixed(2), leakage }
}

/// The first layer shows each neuron's 13 unknowns in one equation for each input.
#[test]
fn weights_are_extracted_just_past_the_strict_bound_and_not_just_below_it() {
    let (plan, parameters) = plan(1);
    let leakage = &LayerLeakage::of(&plan)[0];
    let strict = leakage.strict_iterations() as usize;
    assert_eq!((strict, leakage.forward_unknowns), (INPUTS, INPUTS as u64 + 1));
    let segment = &plan.segments()[0];
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let vectors: Vec<i64> = (0..(strict + 1) * INPUTS).map(|_| rng.random_range(-256..=256)).collect();
    // What the client decrypts: tests of the protocol show that it is this, bit for bit.
    let sums = segment.sums(&parameters, &[&vectors]).unwrap();
    let below = extract([INPUTS, 10], &vectors[INPUTS..], &sums[10..]).unwrap();
    assert_eq!(below, Extraction::Open { rank: INPUTS, unknowns: INPUTS + 1 });
    let Extraction::Solved { rows } = extract([INPUTS, 10], &vectors, &sums).unwrap() else {
        unreachable!("as many equations as unknowns")
    };
    let layer = &segment.terms[0].layer;
    let weights = parameters[layer.weights.clone()].chunks_exact(INPUTS).zip(segment.bias(&parameters));
    for (row, (weights, bias)) in rows.iter().zip(weights) {
        let truth: Vec<i64> = weights.iter().copied().chain([bias]).collect();
        assert_eq!(row, &truth);
    }
    // And the policy refuses exactly what the attack needs.
    let server = |batch| {
        let (plan, parameters) = self::plan(batch);
        let config = CoordinatorConfig { d_max: DMax::Fixed(1), ..config(batch, Leakage::Strict) };
        Server::new(plan, KEY.clone(), config, parameters)
    };
    // The second layer shows its 3 weights of an input in one error for each image.
    assert!(server(2).is_ok());
    assert!(server(3).unwrap_err().to_string().contains("`fc2`"));
}
