//! Whole inferences, both sides on this machine and every byte encoded: one image, and a full batch for LeNet-5. Keys of
//! 2,048 bits.
//!
//! `cargo bench --bench models`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed set-up ends the benchmark; criterion's macros have no docs"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{backend, digits, key_of, quantization, shipped};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gelu_net::prelude::*;

/// As many images as the widest slots leave room for in a ciphertext.
fn full_batch(model: &Model) -> usize {
    let deployment =
        Deployment { key: KeyBits::Bits2048.into(), lanes: backend().lanes(), ..Deployment::default() };
    let program = model.compile(&quantization(), &deployment).unwrap();
    let widest = program.plan().segments().iter().map(|segment| segment.format.slot_bits()).max().unwrap();
    KeyBits::Bits2048.slot_capacity_bits() / widest
}

fn models(c: &mut Criterion) {
    let mut group = c.benchmark_group("models");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(2));
    let full = full_batch(&shipped("lenet5"));
    for (name, images) in [("conv1", 1), ("lenet5", 1), ("lenet5", full)] {
        let key = key_of(KeyBits::Bits2048, 1);
        let local =
            LocalInference::shared(ServerModel::new(shipped(name), quantization()).into(), key, images);
        let inputs = digits(1, images);
        group.throughput(Throughput::Elements(images as u64));
        group.bench_function(BenchmarkId::new(name, images), |b| {
            b.iter(|| local.run(inputs.view(), &mut rand::rng(), |_| ()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, models);
criterion_main!(benches);
