//! What garbling and transfers cost, on one core.
//!
//! `cargo bench -p gelu-garble`: ANDs per second of garbling and evaluation by the number of circuits side by side, the base
//! transfers of a session, and extensions in transfers per second.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed set-up ends the benchmark; criterion's macros have no docs"
)]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gelu_garble::{
    Bits, Choices, Clear, Delta, Evaluator, Garbler, LabelSender, Labels, MAX_WIDTH, Opening, Ring, circuits,
};
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

/// Bits of the sums of a layer, of its shift and of its bound: those of the largest layer of LeNet-5.
const BITS: u32 = 22;
const SHIFT: i32 = 7;
const BOUND: i64 = 867;

/// A ReLU on shares: their sum, a shift, bounds.
fn step<B: Bits>(bits: &mut B, input: &[B::Wire]) -> Vec<B::Wire> {
    let (x, y) = input.split_at(BITS as usize);
    let sum = circuits::add(bits, x, y);
    let shifted = circuits::shift(bits, &sum, SHIFT);
    circuits::clamp(bits, &shifted, 0, BOUND)
}

fn garbling(c: &mut Criterion) {
    let mut group = c.benchmark_group("garble");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let (delta, ring) = (Delta::random(rng), Ring::new(25).unwrap());
    let mut counter = Clear::new(0);
    let input = counter.input(&[], 2 * BITS).unwrap();
    step(&mut counter, &input);
    let ands = counter.ands();
    for width in [64, 256, 1024, MAX_WIDTH] {
        let values: Vec<u64> = (0..width).map(|_| rng.random()).collect();
        let zeros = Labels::random(width * 2 * BITS as usize, rng);
        let mut garble = || {
            let mut garbler = Garbler::new(&delta, width, rng).unwrap();
            garbler.reserve(ands + 10);
            let input = garbler.input(&zeros).unwrap();
            let output = step(&mut garbler, &input);
            (garbler.project(&output, false, ring), garbler.finish().unwrap())
        };
        group.throughput(Throughput::Elements((ands * width) as u64));
        group.bench_function(BenchmarkId::new("ANDs garbled", width), |b| b.iter(&mut garble));
        let labels = delta.active(&zeros, &Choices::of_numbers(&values, 2 * BITS).unwrap()).unwrap();
        let (_, message) = garble();
        group.bench_function(BenchmarkId::new("ANDs evaluated", width), |b| {
            b.iter(|| {
                let mut evaluator = Evaluator::new(&message, width).unwrap();
                let input = evaluator.input(&labels).unwrap();
                let output = step(&mut evaluator, &input);
                let share = evaluator.project(&output, ring);
                evaluator.finish().unwrap();
                share
            });
        });
    }
    group.finish();
}

fn transfers(c: &mut Criterion) {
    let mut group = c.benchmark_group("transfers");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let rng = &mut ChaCha20Rng::seed_from_u64(2);
    let delta = Delta::random(rng);
    let point = Opening::new(rng).message();
    group.bench_function("base, sender of labels", |b| {
        b.iter(|| LabelSender::new(&delta, &point, rng).unwrap());
    });
    let (_, answer) = LabelSender::new(&delta, &point, rng).unwrap();
    group.bench_function("base, receiver of labels", |b| {
        b.iter(|| Opening::new(rng).finish(&answer).unwrap())
    });
    let opening = Opening::new(rng);
    let (mut sender, answer) = LabelSender::new(&delta, &opening.message(), rng).unwrap();
    let mut receiver = opening.finish(&answer).unwrap();
    for log in [15, 20] {
        let numbers: Vec<u64> = (0..1 << (log - 5)).map(|_| rng.random()).collect();
        let choices = Choices::of_numbers(&numbers, 32).unwrap();
        group.throughput(Throughput::Elements(1 << log));
        let name = format!("2^{log}");
        group.bench_function(BenchmarkId::new("extension, receiver", &name), |b| {
            b.iter(|| receiver.extend(&choices).unwrap());
        });
        let (message, _) = receiver.extend(&choices).unwrap();
        group.bench_function(BenchmarkId::new("extension, sender", &name), |b| {
            b.iter(|| sender.extend(&message, choices.len()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, garbling, transfers);
criterion_main!(benches);
