//! Activations between two linear layers: on integers, and in reals as they are computed where there is no step on integers.
//!
//! `cargo bench -p gelu-layers`

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed set-up ends the benchmark; criterion's macros have no docs"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gelu_layers::{Activation, ClientOp, IntegerStep};
use gelu_tensor::{FixedTensor, Format, Shape};
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

/// Values of a layer.
const VALUES: usize = 1 << 14;

fn steps(c: &mut Criterion) {
    let mut group = c.benchmark_group("steps");
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(VALUES as u64));
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let format = Format::integers((1 << 22) - 1).unwrap().with_scale_bits(15).unwrap();
    let sums = (0..VALUES).map(|_| rng.random_range(-400_000..400_000)).collect();
    let sums = FixedTensor::new(Shape::from([VALUES]), format, sums).unwrap();
    for (activation, values) in [
        (Activation::Relu, Format::integers(751).unwrap().with_scale_bits(6).unwrap()),
        (Activation::LeakyRelu { slope: 0.125 }, Format::integers(751).unwrap().with_scale_bits(6).unwrap()),
        (Activation::Sigmoid, Format::integers(1024).unwrap().with_scale_bits(10).unwrap()),
        (Activation::Tanh, Format::integers(1024).unwrap().with_scale_bits(10).unwrap()),
    ] {
        let step = IntegerStep::new(Some(activation), format, values).unwrap();
        group.bench_function(BenchmarkId::new("on integers", activation), |b| {
            b.iter(|| step.apply_all(black_box(sums.values())));
        });
        let (op, scale) = (ClientOp::Activation(activation), f64::from(values.scale_bits()).exp2());
        let bound = values.bound() as f64;
        group.bench_function(BenchmarkId::new("in reals", activation), |b| {
            b.iter(|| {
                let reals = black_box(&sums).reals();
                let results = op.forward(&[sums.shape()], &[&reals]).unwrap();
                let mut clamped = 0u64;
                let round = |x: &f64| {
                    let rounded = (x * scale).round();
                    clamped += u64::from(rounded.abs() > bound);
                    rounded.clamp(-bound, bound) as i64
                };
                let results: Vec<i64> = results.iter().map(round).collect();
                (results, clamped)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
