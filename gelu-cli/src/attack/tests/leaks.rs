//! What private training leaks, and what its masks prevent, with statistics of what the server receives.

use std::sync::{Arc, LazyLock};

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::train::private::{
    Client, CoordinatorConfig, DMax, Description, FixedPoint, LayerLeakage, Leakage, ParticipantConfig,
    Server, TrainPlan,
};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_tensor::{RingBits, Shape};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::super::extract::{Extraction, extract};
use super::super::observe::observe;
use super::super::reconstruct::correlation;
use crate::model_args::backend;

static KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    [1, 2].map(|seed| {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng).unwrap().on(backend().unwrap()).unwrap())
    })
});

const INPUTS: usize = 12;

fn plan(batch: usize) -> (Arc<TrainPlan>, Vec<u64>) {
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
    let (segment, ring) = (&plan.segments()[0], plan.description().numbers.ring);
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let vectors: Vec<i64> = (0..(strict + 1) * INPUTS).map(|_| rng.random_range(-256..=256)).collect();
    // What the client has once its masks are off: tests of the protocol show that it is this, bit for bit.
    let sums: Vec<i64> =
        segment.sums(&parameters, &[&vectors]).unwrap().into_iter().map(|x| ring.signed(x)).collect();
    let below = extract([INPUTS, 10], &vectors[INPUTS..], &sums[10..]).unwrap();
    assert_eq!(below, Extraction::Open { rank: INPUTS, unknowns: INPUTS + 1 });
    let Extraction::Solved { rows } = extract([INPUTS, 10], &vectors, &sums).unwrap() else {
        unreachable!("as many equations as unknowns")
    };
    let layer = &segment.terms[0].layer;
    let weights = parameters[layer.weights.clone()].chunks_exact(INPUTS).zip(segment.bias(&parameters));
    for (row, (weights, bias)) in rows.iter().zip(weights) {
        let truth: Vec<i64> = weights.iter().chain([&bias]).map(|&x| ring.signed(x)).collect();
        assert_eq!(row, &truth);
    }
    // And the policy refuses exactly what the attack needs.
    let server = |batch| {
        let (plan, parameters) = self::plan(batch);
        let config = CoordinatorConfig { d_max: DMax::Fixed(1), ..config(batch, Leakage::Strict) };
        Server::new(plan, KEYS[0].clone(), config, parameters)
    };
    // The second layer shows its 3 weights of an input in one error for each image.
    assert!(server(2).is_ok());
    assert!(server(3).unwrap_err().to_string().contains("`fc2`"));
}

/// Steps and what the server receives for them, over many first iterations.
fn updates(runs: u64) -> (Vec<f64>, Vec<u64>) {
    let (plan, parameters) = plan(2);
    let (mut steps, mut received) = (vec![], vec![]);
    for run in 0..runs {
        let mut rng = ChaCha20Rng::seed_from_u64(run);
        let inputs = Array2::from_shape_fn((2, INPUTS), |_| rng.random_range(-1.0..1.0f32));
        let data = Arc::new(Dataset::new(Shape::from([INPUTS]), inputs, vec![0, 1], 3).unwrap());
        let config = config(2, Leakage::Paper);
        let mut server = Server::new(plan.clone(), KEYS[0].clone(), config, parameters.clone()).unwrap();
        let participant = ParticipantConfig { client: 0, seed: run, momentum: 0.0 };
        let mut client = Client::new(KEYS[1].clone(), data, participant);
        let update = observe(&mut server, &mut client, &mut rng).unwrap();
        steps.extend(update.steps.iter().map(|&step| step as f64));
        received.extend(update.received);
    }
    (steps, received)
}

/// How far 64 buckets are from equal, in standard deviations of chi-square (63 degrees of freedom).
fn chi_square(values: &[u64], bucket: impl Fn(u64) -> u64) -> f64 {
    let mut counts = [0f64; 64];
    values.iter().for_each(|&value| counts[bucket(value) as usize] += 1.0);
    let expected = values.len() as f64 / 64.0;
    let sum: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
    (sum - 63.0) / 126f64.sqrt()
}

#[test]
fn masked_steps_are_uniform_over_the_ring_and_tell_nothing_of_the_true_ones() {
    let (steps, received) = updates(120);
    let ring = RingBits::default();
    assert!(received.len() > 15_000 && received.iter().all(|&value| value == ring.wrap(value)));
    let top = |value: u64| value >> (ring.bits() - 6);
    let low = |value: u64| value & 63;
    // Six standard deviations: less than once in a million runs.
    assert!(chi_square(&received, top).abs() < 6.0 && chi_square(&received, low).abs() < 6.0);
    // The test can fail: without masks it does.
    let unmasked: Vec<u64> = steps.iter().map(|&step| ring.wrap(step as i64 as u64)).collect();
    assert!(chi_square(&unmasked, top) > 1000.0);
    let reals: Vec<f64> = received.iter().map(|&value| ring.signed(value) as f64).collect();
    let noise = 6.0 / (reals.len() as f64).sqrt();
    assert!(correlation(&steps, &reals).abs() < noise);
    assert!(correlation(&steps, &steps) > 0.999);
}
