//! What a ciphertext costs: encryption by the key's owner and by anyone else, decryption, addition of a plaintext.
//!
//! `cargo bench --bench paillier`; times are for a batch of 32 ciphertexts, with all cores at work.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed set-up ends the benchmark; criterion's macros have no docs"
)]

#[path = "../tests/integration/common/backend.rs"]
mod backend;

use std::time::Duration;

use backend::backend;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::tensor::{Contents, Packing};
use gelu_net::tensor::{FixedTensor, Format, Shape, SlotLayout};
use rand::{SeedableRng, rngs::ChaCha20Rng};

const BATCH: usize = 32;

fn paillier(c: &mut Criterion) {
    let mut group = c.benchmark_group("paillier");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(BATCH as u64));
    let sizes = [KeyBits::Bits1024, KeyBits::Bits2048, KeyBits::Bits3072];
    for (size, key_type) in sizes.into_iter().flat_map(|size| KeyType::ALL.map(|key_type| (size, key_type))) {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let key = SecretKey::generate(KeyParameters { size, key_type }, rng).unwrap().on(backend()).unwrap();
        let public = key.public_key();
        let format = Format::integers(1 << 20).unwrap();
        let values = (0..BATCH as i64).map(|i| i * 1000 - 7777).collect();
        let plain = FixedTensor::new(Shape::from([BATCH]), format, values).unwrap();
        let packing = Packing { batch: 1, slot_bits: 24, key: size };
        let layout = SlotLayout::images(packing, Contents::Integers(format)).unwrap();
        let encrypted = plain.encrypt(&layout, &key, rng).unwrap();
        let name = &format!("{}/{}", key_type.name(), size.bits());
        group.bench_function(BenchmarkId::new("encrypt/owner", name), |b| {
            b.iter(|| plain.encrypt(&layout, &key, rng).unwrap());
        });
        group.bench_function(BenchmarkId::new("encrypt/public", name), |b| {
            b.iter(|| plain.encrypt(&layout, public, rng).unwrap());
        });
        group.bench_function(BenchmarkId::new("decrypt", name), |b| {
            b.iter(|| encrypted.decrypt(&key).unwrap());
        });
        group.bench_function(BenchmarkId::new("add_plain", name), |b| {
            b.iter(|| encrypted.add_plain(&plain).unwrap());
        });
        group.bench_function(BenchmarkId::new("rerandomize", name), |b| {
            b.iter(|| encrypted.clone().rerandomize(rng));
        });
    }
    group.finish();
}

criterion_group!(benches, paillier);
criterion_main!(benches);
