//! Every linear segment of Conv-1 and LeNet-5 on ciphertexts, as the plan for one image runs it, and the slot layouts
//! of one convolution against each other. Keys of 2,048 bits.
//!
//! `cargo bench --bench layers`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed set-up ends the benchmark; criterion's macros have no docs"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{options, shipped};
use criterion::{Criterion, criterion_group, criterion_main};
use gelu_net::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

const KEY: KeyBits = KeyBits::Bits2048;

fn random(rng: &mut ChaCha20Rng, shape: &Shape, images: usize, format: Format) -> FixedTensor {
    let bound = format.bound() as i64;
    let values = (0..images * shape.elements()).map(|_| rng.random_range(0..=bound)).collect();
    FixedTensor::new(shape.clone(), format, values).unwrap()
}

fn segments(c: &mut Criterion) {
    let mut group = c.benchmark_group("layers");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let key = SecretKey::generate(KEY, rng).unwrap();
    for name in ["conv1", "lenet5"] {
        let (model, ranges) = shipped(name);
        let program = model.plan(&PlanOptions { key: KEY, ..options(ranges) }).unwrap();
        for (segment, layer) in program.plan().segments.iter().zip(program.layers()) {
            let values = segment.arrange(random(rng, &segment.input, 1, segment.input_format)).unwrap();
            let encrypted = values.encrypt(segment.up, &key, rng).unwrap();
            // Product, bias and repacking; re-randomisation is in the bench `paillier`.
            group.bench_function(format!("{name}/{}", segment.name), |b| {
                b.iter(|| layer.forward_encrypted(&encrypted).unwrap().repack(segment.down.stacked).unwrap());
            });
        }
    }
    group.finish();
}

fn layouts(c: &mut Criterion) {
    let mut group = c.benchmark_group("layouts");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let key = SecretKey::generate(KEY, rng).unwrap();
    let (model, ranges) = shipped("conv1");
    let program = model.plan(&PlanOptions { key: KEY, ..options(ranges) }).unwrap();
    let (segment, layer) = (&program.plan().segments[0], &program.layers()[0]);
    let slot_bits = segment.output_format.slot_bits();
    let windows = layer.window().unwrap().over([1, 28, 28]).unwrap();
    let slots = KEY.slot_capacity_bits() / slot_bits;
    for (name, images, layout) in [
        ("one value, 1 image", 1, SlotLayout::one_value(slot_bits)),
        ("im2col, 1 image", 1, SlotLayout::im2col(windows, slot_bits, 1, KEY).unwrap()),
        ("batch, full", slots, SlotLayout::batch(slot_bits, slots, KEY).unwrap()),
        ("im2col, full", slots, SlotLayout::im2col(windows, slot_bits, slots, KEY).unwrap()),
    ] {
        let values = random(rng, &segment.input, images, segment.input_format);
        let encrypted = values.encrypt(layout, &key, rng).unwrap();
        group.bench_function(format!("conv1/{name}"), |b| {
            b.iter(|| layer.forward_encrypted(&encrypted).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, segments, layouts);
criterion_main!(benches);
