//! What several tests and benches start from: the shipped networks, the drawn digits, and networks at random.

#![allow(dead_code, reason = "benches include this file, too, and use a part of it")]

mod backend;
pub(crate) mod networks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

pub(crate) use backend::backend;
use gelu_net::InferenceReport;
use gelu_net::io::data::Images;
use gelu_net::io::digits::SampleDigits;
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use ndarray::{Array2, ArrayView2};
use rand::{SeedableRng, rngs::ChaCha20Rng};

/// A key for tests.
pub(crate) static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| key(1));

/// A key of 1,024 bits.
pub(crate) fn key(seed: u64) -> Arc<SecretKey> {
    key_of(KeyBits::Bits1024, seed)
}

/// A key of any size and type.
pub(crate) fn key_of(parameters: impl Into<KeyParameters>, seed: u64) -> Arc<SecretKey> {
    let key = SecretKey::generate(parameters, &mut ChaCha20Rng::seed_from_u64(seed)).unwrap();
    Arc::new(key.on(backend()).unwrap())
}

/// The file of a network's weights that this project ships.
pub(crate) fn weights_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).with_extension("safetensors")
}

/// A network with its shipped weights, and the ranges and tuned bits that came with them.
pub(crate) fn shipped(name: &str) -> Model {
    let mut model = name.parse::<zoo::Network>().unwrap().build(&zoo::Setting::default()).unwrap();
    model.load(&Weights::read(weights_file(name)).unwrap()).unwrap();
    assert!(model.ranges().is_some() && !model.layer_bits().is_empty());
    model
}

/// How `gelu infer` rounds, but for tuned bits.
pub(crate) fn quantization() -> Quantization {
    Quantization {
        layer_bits: Some(BTreeMap::new()),
        activation_bits: Some(10),
        input_bits: Some(8),
        ..Quantization::default()
    }
}

/// What sessions of a key's owner run on in tests, where both sides have the key's backend.
pub(crate) fn deployment(key: &SecretKey, batch: usize) -> Deployment {
    let key = key.public_key();
    Deployment { key: key.parameters(), batch, lanes: key.backend().lanes(), ..Deployment::default() }
}

/// Drawn digits, `[count, 784]` of 0 to 1.
pub(crate) fn digits(seed: u64, count: usize) -> Array2<f32> {
    let all = SampleDigits { seed, per_digit: count.div_ceil(10) }.draw();
    pixels(all.first(count).images())
}

/// Pixels scaled to 0..1.
pub(crate) fn pixels(images: &Images) -> Array2<f32> {
    let [height, width] = images.size();
    images.to_inputs().into_shape_with_order((images.count(), height * width)).unwrap()
}

/// Runs `images` in sessions of `batch` and compares all that comes out with the clear run of the same plan.
pub(crate) fn encrypted(
    model: Model,
    quantization: &Quantization,
    key: &Arc<SecretKey>,
    images: (usize, ArrayView2<'_, f32>),
) -> InferenceReport {
    encrypted_preferring(Preference::default(), model, quantization, key, images)
}

/// The same by plans that save something else.
pub(crate) fn encrypted_preferring(
    prefer: Preference,
    model: Model,
    quantization: &Quantization,
    key: &Arc<SecretKey>,
    (batch, images): (usize, ArrayView2<'_, f32>),
) -> InferenceReport {
    let server = Arc::new(ServerModel::new(model, quantization.clone()));
    let deployment = Deployment { prefer, ..deployment(key, batch.min(images.nrows())) };
    let program = server.program(&deployment).unwrap();
    let clear = program.run_clear(images).unwrap();
    let local = LocalInference::shared(server, Arc::clone(key), batch).preferring(prefer);
    let report = local.run(images, &mut rand::rng(), |_| ()).unwrap();
    assert_eq!(report.integers, clear.integers.values(), "batches of {batch}");
    assert_eq!(report.logits, clear.logits);
    assert_eq!(report.outputs, clear.outputs);
    assert_eq!(report.predictions, clear.predictions());
    assert_eq!(report.saturations, clear.saturations);
    report
}
