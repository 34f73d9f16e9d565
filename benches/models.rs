//! Whole inferences, both sides on this machine and every byte encoded: one image, and a full batch for LeNet-5. And with the
//! model hidden, without encoding: what is done ahead, for one query and for 25 together, and what with the image. Keys of
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

use std::time::{Duration, Instant};

use common::{backend, digits, key_of, quantization, shipped};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gelu_models::infer::hidden::{Client, Event, Server};
use gelu_models::peer::Peer;
use gelu_models::plan::Reveal;
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;

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

/// Both sides of a session that hides the model.
struct Hidden {
    client: Client,
    server: Server,
}

impl Hidden {
    fn new(key_type: KeyType, queries: u32) -> Self {
        let key = key_of(KeyParameters { size: KeyBits::Bits2048, key_type }, 1);
        let client = Client::new(key, queries, Reveal::Logits);
        let server = Server::new(ServerModel::new(shipped("lenet5"), quantization()).into()).on(backend());
        let mut new = Self { client, server };
        assert!(matches!(new.event(), Event::Ready));
        new
    }

    fn event(&mut self) -> Event {
        let mut rng = rand::rng();
        loop {
            while let Some(message) = self.client.next_message(&mut rng).unwrap() {
                self.server.handle(message, &mut rng).unwrap();
            }
            while let Some(message) = self.server.next_message(&mut rng).unwrap() {
                if let Some(event) = self.client.handle(message, &mut rng).unwrap() {
                    return event;
                }
            }
        }
    }

    fn prepare(&mut self) {
        self.client.prepare().unwrap();
        assert!(matches!(self.event(), Event::Prepared));
    }
}

fn hidden(c: &mut Criterion) {
    let mut group = c.benchmark_group("hidden models");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(2));
    for (key_type, queries) in
        [(KeyType::Subgroup, 1), (KeyType::Subgroup, 25), (KeyType::Djn, 1), (KeyType::Djn, 25)]
    {
        group.throughput(Throughput::Elements(u64::from(queries)));
        group.bench_function(BenchmarkId::new(format!("lenet5, {}, ahead", key_type.name()), queries), |b| {
            b.iter_batched_ref(|| Hidden::new(key_type, queries), Hidden::prepare, BatchSize::PerIteration);
        });
    }
    let inputs = digits(1, 1);
    let mut hidden = Hidden::new(KeyType::Subgroup, 25);
    group.throughput(Throughput::Elements(1)).sample_size(50);
    group.bench_function(BenchmarkId::new("lenet5, online", 1), |b| {
        b.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                if hidden.client.prepared() == 0 {
                    hidden.prepare();
                }
                let start = Instant::now();
                hidden.client.start(inputs.view()).unwrap();
                assert!(matches!(hidden.event(), Event::Done(_)));
                taken += start.elapsed();
            }
            taken
        });
    });
    group.finish();
}

criterion_group!(benches, models, hidden);
criterion_main!(benches);
