//! What several tests and benches start from: the shipped networks and the drawn digits.

#![allow(dead_code, reason = "every test and bench includes this file and uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use gelu_net::io::data::Images;
use gelu_net::io::digits::{SampleOptions, sample_digits};
use gelu_net::io::weights::read_safetensors;
use gelu_net::prelude::*;
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha20Rng};

/// A key for tests.
pub(crate) static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| key(1));

/// A key of 1,024 bits.
pub(crate) fn key(seed: u64) -> Arc<SecretKey> {
    Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(seed)).unwrap())
}

/// The same key again: it is not to be cloned, but a test may.
pub(crate) fn copy(key: &SecretKey) -> SecretKey {
    SecretKey::from_le_bytes(&key.to_le_bytes()).unwrap()
}

/// The file of a network's weights that this project ships.
pub(crate) fn weights_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).with_extension("safetensors")
}

/// A network with its shipped weights, and the ranges that came with them.
pub(crate) fn shipped(name: &str) -> (Model, Ranges) {
    let weights = read_safetensors(&weights_file(name)).unwrap();
    let mut model = zoo::by_name(name).unwrap();
    model.load(&weights).unwrap();
    let ranges = serde_json::from_str(&weights.metadata[Ranges::METADATA_KEY]).unwrap();
    (model, ranges)
}

/// The weight bits that the shipped weights were tuned to.
pub(crate) fn layer_bits(name: &str) -> BTreeMap<String, u32> {
    let weights = read_safetensors(&weights_file(name)).unwrap();
    serde_json::from_str(&weights.metadata[PlanOptions::LAYER_BITS_KEY]).unwrap()
}

/// The options that `gelu infer` uses, but for tuned bits.
pub(crate) fn options(ranges: Ranges) -> PlanOptions {
    PlanOptions { ranges: Some(ranges), ..PlanOptions::default() }
}

/// Drawn digits, `[count, 784]` of 0 to 1.
pub(crate) fn digits(seed: u64, count: usize) -> Array2<f32> {
    let all = sample_digits(SampleOptions { seed, per_digit: count.div_ceil(10) });
    pixels(all.first(count).images())
}

/// Pixels scaled to 0..1.
pub(crate) fn pixels(images: &Images) -> Array2<f32> {
    let [height, width] = images.size();
    let pixels = images.pixels().iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    Array2::from_shape_vec((images.count(), height * width), pixels).unwrap()
}
