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

#[path = "../tests/integration/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{backend, digits, key_of, quantization, shipped};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gelu_models::infer::hidden::{Client, Event, Server};
use gelu_models::peer::Peer;
use gelu_models::plan::Reveal;
use gelu_net::layers::Initializer;
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use ndarray::Array2;
use rand::{RngExt, SeedableRng};

/// As many images as the widest slots leave room for in a ciphertext.
fn full_batch(model: &Model) -> usize {
    let deployment =
        Deployment { key: KeyBits::Bits2048.into(), lanes: backend().lanes(), ..Deployment::default() };
    model.compile(&quantization(), &deployment).unwrap().plan().full_batch()
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
    fn new(model: &Arc<ServerModel>, key_type: KeyType, queries: u32) -> Self {
        let key = key_of(KeyParameters { size: KeyBits::Bits2048, key_type }, 1);
        let client = Client::new(key, queries, Reveal::Logits);
        let server = Server::new(Arc::clone(model)).on(backend());
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

/// ResNet-20 for images of 3x32x32, with weights that nobody trained.
fn resnet20() -> (Model, Array2<f32>) {
    let rng = &mut rand::rngs::ChaCha8Rng::seed_from_u64(1);
    let mut model = zoo::resnet20(10).unwrap();
    model.initialize(Initializer::KaimingUniform, rng);
    let images = Array2::from_shape_simple_fn((4, 3 * 32 * 32), || rng.random::<f32>());
    model.calibrate(images.view()).unwrap();
    (model, images.select(ndarray::Axis(0), &[0]))
}

fn hidden(c: &mut Criterion) {
    let mut group = c.benchmark_group("hidden models");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(2));
    let of_keys = [(KeyType::Subgroup, 1), (KeyType::Subgroup, 25), (KeyType::Djn, 1), (KeyType::Djn, 25)];
    let small = |name| (name, (shipped(name), digits(1, 1)), &of_keys[..]);
    for (name, (model, inputs), ahead) in
        [small("conv1"), small("lenet5"), ("resnet20", resnet20(), &of_keys[..1])]
    {
        let model = Arc::new(ServerModel::new(model, quantization()));
        for &(key_type, queries) in ahead {
            let id = BenchmarkId::new(format!("{name}, {}, ahead", key_type.name()), queries);
            group.throughput(Throughput::Elements(u64::from(queries))).sample_size(10);
            group.bench_function(id, |b| {
                let new = || Hidden::new(&model, key_type, queries);
                b.iter_batched_ref(new, Hidden::prepare, BatchSize::PerIteration);
            });
        }
        let most = ahead.iter().map(|(_, queries)| *queries).max().unwrap();
        let mut hidden = Hidden::new(&model, KeyType::Subgroup, most);
        group.throughput(Throughput::Elements(1)).sample_size(if most > 1 { 50 } else { 10 });
        group.bench_function(BenchmarkId::new(format!("{name}, online"), 1), |b| {
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
        let segments = hidden.client.hidden_plan().unwrap().segments().iter();
        let bytes = segments.fold([0; 4], |[tables, transfers, shares, answer], own| {
            [tables + own.tables, transfers + own.transfers, shares + own.shares, answer + own.answer]
        });
        println!("{name}: bytes of tables, transfers, shares and answers: {bytes:?}");
    }
    group.finish();
}

criterion_group!(benches, models, hidden);
criterion_main!(benches);
