//! One product and one squaring mod n^2 on every backend of the machine, against num-bigint in the same run.
//!
//! `cargo bench --bench arith`; times are for a batch of 64, so that the throughput is what counts.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a failed set-up ends the benchmark; criterion's macros have no docs"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gelu_net::prelude::*;
use gelu_net::tensor::Backend;
use gelu_net::tensor::hazmat::Residues;
use gelu_net::tensor::paillier::Randomizer;
use num_bigint::BigUint;
use rand::{SeedableRng, rngs::ChaCha20Rng};

const BATCH: usize = 64;

fn numbers(key: &PublicKey, residues: &Residues) -> Vec<BigUint> {
    residues.encode(key).unwrap().chunks(key.ciphertext_bytes()).map(BigUint::from_bytes_le).collect()
}

fn arithmetic(c: &mut Criterion) {
    let mut group = c.benchmark_group("arith");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(BATCH as u64));
    for size in [KeyBits::Bits1024, KeyBits::Bits2048, KeyBits::Bits3072] {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut key = SecretKey::generate(size, &mut rng).unwrap();
        let bits = size.bits();
        for backend in Backend::ALL.into_iter().filter(|backend| backend.is_available()) {
            key = key.on(backend).unwrap();
            let public = key.public_key();
            let [mut x, y] = [(); 2].map(|()| key.randomizers(&mut rng, BATCH));
            group.bench_function(BenchmarkId::new(format!("product/{backend}"), bits), |b| {
                b.iter(|| black_box(&mut x).multiply(public, &y));
            });
            group.bench_function(BenchmarkId::new(format!("square/{backend}"), bits), |b| {
                b.iter(|| black_box(&mut x).square(public, 1));
            });
        }
        let public = key.public_key();
        let [big_x, big_y] = [(); 2].map(|()| numbers(public, &key.randomizers(&mut rng, BATCH)));
        let n = BigUint::from_bytes_le(&public.n_le_bytes());
        let square = &n * &n;
        group.bench_function(BenchmarkId::new("product/num-bigint", bits), |b| {
            b.iter(|| {
                for (x, y) in big_x.iter().zip(&big_y) {
                    black_box(x * y % &square);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, arithmetic);
criterion_main!(benches);
