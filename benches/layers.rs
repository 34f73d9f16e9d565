//! Every linear segment of Conv-1 and LeNet-5 on ciphertexts, as the plan for one image runs it, and the slot layouts
//! of one convolution against each other. Keys of 2,048 bits.
//!
//! `cargo bench --bench layers`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed set-up ends the benchmark; criterion's macros have no docs"
)]

#[path = "../tests/integration/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::time::Duration;

use common::{backend, deployment, quantization, shipped};
use criterion::{Criterion, criterion_group, criterion_main};
use gelu_net::prelude::*;
use gelu_net::tensor::{Contents, Packing, Product, Workload};
use gelu_net::tensor::{EncTensorBuilder, FixedTensor, Format, Shape, SlotLayout};
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
    let key = SecretKey::generate(KEY, rng).unwrap().on(backend()).unwrap();
    for name in ["conv1", "lenet5"] {
        let program = shipped(name).compile(&quantization(), &deployment(&key, 1)).unwrap();
        for (index, segment) in program.plan().segments().iter().enumerate() {
            let terms = segment.terms.iter().zip(&segment.layout.ups);
            let mut inputs: Vec<EncTensorBuilder> = terms
                .map(|(term, up)| {
                    let values = random(rng, term.map.input(), 1, term.format);
                    let values = values.encrypt(up, &key, rng).unwrap();
                    let (header, groups) = (values.header().clone(), segment.layout.groups_of_part());
                    let mut builder = EncTensorBuilder::new(key.public_key(), header, groups).unwrap();
                    let chunks = (0..).zip(values.chunks());
                    chunks.for_each(|(index, chunk)| builder.push(index, &chunk).unwrap());
                    builder
                })
                .collect();
            let mut next = || inputs.iter_mut().map(|input| input.next_part().unwrap()).collect::<Vec<_>>();
            let parts: Vec<_> = segment.layout.each_part().map(|(groups, _)| (groups, next())).collect();
            // Product, bias and repacking; re-randomization is in the bench `paillier`.
            group.bench_function(format!("{name}/{}", segment.name), |b| {
                b.iter(|| {
                    for (at, (groups, inputs)) in parts.iter().enumerate() {
                        let masks = segment.masks(groups.clone(), key.public_key(), rng).unwrap();
                        black_box(program.sums((index, at), inputs, masks).unwrap());
                    }
                });
            });
        }
    }
    group.finish();
}

fn layouts(c: &mut Criterion) {
    let mut group = c.benchmark_group("layouts");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let key = SecretKey::generate(KEY, rng).unwrap().on(backend()).unwrap();
    let deployment = deployment(&key, 1);
    let program = shipped("conv1").compile(&quantization(), &deployment).unwrap();
    let (segment, weights) = (&program.plan().segments()[0], &program.weights(0)[0]);
    let term = &segment.terms[0];
    let contents = Contents::Integers(term.format);
    let slot_bits = segment.format.slot_bits();
    let full = KEY.slot_capacity_bits() / slot_bits;
    let public = weights.range();
    for (name, batch, patches) in [
        ("one value, 1 image", 1, false),
        ("im2col, 1 image", 1, true),
        ("batch, full", full, false),
        ("im2col, full", full, true),
    ] {
        let packing = Packing { batch, slot_bits, key: KEY };
        let layout = match patches {
            true => SlotLayout::patches(&term.map, packing, contents).unwrap(),
            false => SlotLayout::images(packing, contents).unwrap(),
        };
        let values = random(rng, term.map.input(), batch, term.format);
        let encrypted = values.encrypt(&layout, &key, rng).unwrap();
        let workload = Workload { weights: public, groups: layout.groups(batch), lanes: deployment.lanes };
        let product = Product::cheapest(&term.map, &layout, workload).unwrap();
        group.bench_function(format!("conv1/{name}"), |b| {
            b.iter(|| encrypted.apply(&term.map, weights, &product).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, segments, layouts);
criterion_main!(benches);
