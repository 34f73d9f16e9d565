//! What private training leaks, and what its masks prevent: the attacks of `gelu attack`, and statistics of what the
//! server receives.

#![allow(clippy::unwrap_used)]

#[path = "common/backend.rs"]
mod backend;

use std::process::Command;
use std::sync::{Arc, LazyLock};

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::attack::{Extraction, correlation, extract, observe};
use gelu_models::train::private::{
    Client, DMax, Description, FixedPoint, LayerLeakage, Leakage, LearnerConfig, MasterConfig, Server,
    TrainPlan,
};
use gelu_models::train::{Dataset, TrainConfig};
use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_tensor::{RingBits, Shape};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};
use serde_json::Value;

static KEYS: LazyLock<[Arc<SecretKey>; 2]> = LazyLock::new(|| {
    [1, 2].map(|seed| {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng).unwrap().on(backend::backend()).unwrap())
    })
});

const INPUTS: usize = 12;

fn plan(batch: usize) -> (Arc<TrainPlan>, Vec<u64>) {
    let mut model =
        ModelBuilder::new([INPUTS]).dense("fc1", 10).tanh().dense("fc2", 3).softmax().build().unwrap();
    model.initialise(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(4));
    let description = Description::new(&model, batch, FixedPoint::default(), [KeyBits::Bits1024.into(); 2]);
    let plan = Arc::new(TrainPlan::new(description).unwrap());
    let parameters = plan.quantise(&model.weights()).unwrap();
    (plan, parameters)
}

fn config(batch: usize, leakage: Leakage) -> MasterConfig {
    let train = TrainConfig { batch_size: batch, weight_decay: 0.0, ..TrainConfig::default() };
    MasterConfig { train, images: 64, d_max: DMax::Fixed(2), leakage }
}

/// The first layer shows each neuron's 13 unknowns in one equation for each input.
#[test]
fn weights_are_extracted_just_past_the_strict_bound_and_not_just_below_it() {
    let (plan, parameters) = plan(1);
    let leakage = &LayerLeakage::of(&plan)[0];
    let strict = leakage.strict_iterations() as usize;
    assert_eq!((strict, leakage.forward_unknowns), (INPUTS, INPUTS as u64 + 1));
    let (segment, ring) = (&plan.segments()[0], plan.numbers().ring);
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
    let layer = segment.terms()[0].layer();
    let weights = parameters[layer.weights.clone()].chunks_exact(INPUTS).zip(segment.bias(&parameters));
    for (row, (weights, bias)) in rows.iter().zip(weights) {
        let truth: Vec<i64> = weights.iter().chain([&bias]).map(|&x| ring.signed(x)).collect();
        assert_eq!(row, &truth);
    }
    // And the policy refuses exactly what the attack needs.
    let server = |batch| {
        let (plan, parameters) = self::plan(batch);
        let config = MasterConfig { d_max: DMax::Fixed(1), ..config(batch, Leakage::Strict) };
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
        let learner = LearnerConfig { client: 0, seed: run, momentum: 0.0 };
        let mut client = Client::new(KEYS[1].clone(), data, learner);
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

fn attack(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_gelu")).arg("attack").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_server_reconstructs_images_without_masks_and_noise_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let object = attack(&["reconstruct", "--count", "2", "--out", path, "--json"]);
    for image in object["correlations"].as_array().unwrap() {
        let [open, masked] = ["without_masks", "with_masks"]
            .map(|which| ["direct", "inverted"].map(|how| image[which][how].as_f64().unwrap()));
        assert!(open[0] > 0.99 && open[1] > 0.4, "{image}");
        // 784 pixels: a standard deviation of 0.036.
        assert!(masked[0].abs() < 0.2 && masked[1].abs() < 0.2, "{image}");
    }
    let picture = image::open(folder.path().join("reconstruct.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (5 * 240, 2 * 240));
}

#[test]
fn a_client_extracts_a_layer_past_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let object = attack(&["extract", "--inputs", "20", "--outputs", "7", "--out", path, "--json"]);
    assert_eq!((&object["past"]["recovered"], &object["past"]["of"]), (&147.into(), &147.into()));
    assert_eq!((&object["below"]["solved"], &object["below"]["rank"]), (&false.into(), &20.into()));
    assert_eq!(object["strict_samples"], 20);
    assert!(image::open(folder.path().join("extract.png")).is_ok());
}
