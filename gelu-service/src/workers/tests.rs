//! Workers over the network service: the same integers as one machine, whatever becomes of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gelu_io::session::ClientSession;
use gelu_layers::{Conv2dConfig, Initializer};
use gelu_models::infer::{Client, ServerModel, Workers};
use gelu_models::plan::{Deployment, Program, Quantization};
use gelu_models::{Model, ModelBuilder};
use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_tensor::{EncTensor, FixedTensor};
use ndarray::Array2;
use rand::rngs::ChaCha20Rng;
use rand::{RngExt, SeedableRng};

use tonic::transport::Endpoint;

use super::WorkerPool;
use crate::proto::worker_client::WorkerClient;
use crate::{
    ClientSecurity, Limits, Modes, Patience, Refusal, Remote, Running, SERVICE_VERSION, ServerSecurity,
    Service, proto,
};

fn model(seed: u64) -> Model {
    let mut model = ModelBuilder::new([1, 6, 6])
        .conv2d("conv", Conv2dConfig::new(5, [3, 3]))
        .relu()
        .flatten()
        .dense("fc1", 40)
        .relu()
        .dense("fc2", 3)
        .build()
        .unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(seed));
    model.calibrate(images(8).view()).unwrap();
    model
}

fn images(count: usize) -> Array2<f32> {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    Array2::from_shape_fn((count, 36), |_| rng.random_range(0.0..1.0))
}

fn offered(seed: u64) -> Service {
    let model = Arc::new(ServerModel::new(model(seed), Quantization::default()));
    Service::new(Limits::default()).with_model("small", model, Modes::revealed()).unwrap()
}

fn worker(seed: u64) -> Running {
    offered(seed).as_worker().start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap()
}

fn pool(addresses: &[SocketAddr]) -> Arc<WorkerPool> {
    let addresses: Vec<String> = addresses.iter().map(|address| format!("http://{address}")).collect();
    let patience = Patience { connect: Duration::from_secs(2), ..Patience::default() };
    Arc::new(WorkerPool::new(&addresses, &ClientSecurity::Loopback, patience).unwrap())
}

fn key() -> Arc<SecretKey> {
    Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(5)).unwrap())
}

fn program(key: &SecretKey, batch: usize) -> Program {
    let server = ServerModel::new(model(1), Quantization::default());
    let key = key.public_key().parameters();
    server.program(&Deployment { key, batch, ..Deployment::default() }).unwrap()
}

/// Inputs of a part of a segment, encrypted.
fn inputs(program: &Program, segment: usize, part: usize, key: &SecretKey) -> Vec<EncTensor> {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let planned = &program.plan().segments()[segment];
    let batch = program.plan().description().batch;
    let whole = program.shard(segment, part).unwrap();
    let headers = program.shard_inputs(&whole).unwrap();
    let terms = planned.terms.iter().zip(&planned.layout.ups).zip(headers);
    let encrypted = terms.map(|((term, up), header)| {
        let shape = term.map.input().clone();
        let bound = term.format.bound() as i64;
        let values = (0..batch * shape.elements()).map(|_| rng.random_range(-bound..=bound)).collect();
        let values = FixedTensor::new(shape, term.format, values).unwrap();
        let encrypted = values.encrypt(up, key, &mut rng).unwrap();
        assert_eq!(*encrypted.header(), header, "one part");
        encrypted
    });
    encrypted.collect()
}

/// Conversations through a server whose work others do.
fn infer(server: &Running, count: usize) -> Vec<i64> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let address = format!("http://{}", server.address());
    let remote = Remote::new(&address, &ClientSecurity::Loopback, Patience::default()).unwrap();
    let transport = remote.open("small").unwrap();
    let mut session = ClientSession::open(&transport, Client::new(key(), 1), &mut rng).unwrap();
    let mut integers = vec![];
    let images = images(count);
    let batches = images.axis_chunks_iter(ndarray::Axis(0), 1);
    session
        .infer_all(batches, &mut rng, |outcome| integers.extend_from_slice(outcome.integers.values()))
        .unwrap();
    session.finish(&mut rng).unwrap();
    integers
}

fn expected(count: usize) -> Vec<i64> {
    program(&key(), 1).run_clear(images(count).view()).unwrap().integers.values().to_vec()
}

#[test]
fn workers_give_the_integers_of_one_machine() {
    let machines = [worker(1), worker(1)];
    let pool = pool(&machines.each_ref().map(Running::address));
    let service = offered(1).with_workers(Arc::clone(&pool));
    let server = service.start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap();
    assert_eq!(infer(&server, 12), expected(12));
    let computed = pool.computed();
    assert!(computed.iter().all(|(_, shards)| *shards >= 12), "{computed:?}");
}

/// Of two machines one goes away in the middle, and comes back; then both go away.
#[test]
fn a_lost_workers_work_is_done_elsewhere() {
    let (one, two) = (worker(1), worker(1));
    let (kept, lost) = (one.address(), two.address());
    let pool = pool(&[kept, lost]);
    let server = offered(1).with_workers(Arc::clone(&pool));
    let server = server.start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap();
    assert_eq!(infer(&server, 2), expected(2));
    drop(two);
    assert_eq!(infer(&server, 6), expected(6));
    let before = pool.computed();
    let again = offered(1).as_worker().start(lost, &ServerSecurity::Loopback).unwrap();
    let is_used = || pool.computed()[1].1 > before[1].1;
    for _ in 0..200 {
        assert_eq!(infer(&server, 2), expected(2));
        if is_used() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(is_used(), "it was found again");
    drop((one, again));
    let before = pool.computed();
    assert_eq!(infer(&server, 4), expected(4));
    assert_eq!(pool.computed(), before, "the server does it itself");
}

/// A worker with other weights has no part in it, and one that is none neither.
#[test]
fn machines_without_the_model_are_left_out() {
    let machines =
        [worker(2), offered(1).start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap(), worker(1)];
    let pool = pool(&machines.each_ref().map(Running::address));
    let server = offered(1).with_workers(Arc::clone(&pool));
    let server = server.start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap();
    assert_eq!(infer(&server, 6), expected(6));
    let shards: Vec<usize> = pool.computed().into_iter().map(|(_, shards)| shards).collect();
    assert_eq!(shards[..2], [0, 0]);
    assert!(shards[2] >= 6, "{shards:?}");
}

/// The same seed gives the same ciphertexts, wherever they are computed: a reply that was lost can be made again.
#[test]
fn a_reply_follows_from_its_inputs_and_seed() {
    let key = key();
    for batch in [1, 3] {
        let program = program(&key, batch);
        let machine = worker(1);
        let pools = [pool(&[machine.address()]), pool(&["127.0.0.1:9".parse().unwrap()])];
        for segment in 0..program.plan().segments().len() {
            let inputs = inputs(&program, segment, 0, &key);
            let replies = pools.each_ref().map(|pool| {
                let mut rng = ChaCha20Rng::seed_from_u64(11);
                pool.reply(&program, segment, 0, &inputs, &mut rng).unwrap().encode_ciphertexts()
            });
            assert_eq!(replies[0], replies[1]);
        }
        assert!(pools[0].computed()[0].1 > 0);
    }
}

/// What no coordinator sends is refused, and the worker goes on. Programs that are not ready come first.
#[test]
fn bad_requests_are_refused() {
    let key = key();
    let program = program(&key, 1);
    let machine = worker(1);
    let pool = pool(&[machine.address()]);
    let tensors = inputs(&program, 1, 0, &key);
    let units = program.shard(1, 0).unwrap().units.len() as u64;
    let good = proto::ComputeRequest {
        units,
        seed: vec![7; 32].into(),
        ..pool.request(&program, (1, 0), key.public_key(), &tensors).unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", machine.address())).unwrap();
    let mut client = WorkerClient::new(runtime.block_on(endpoint.connect()).unwrap());
    let mut ask = |request: &proto::ComputeRequest| {
        let answer = runtime.block_on(client.compute(request.clone()));
        answer.map(|answer| answer.into_inner().ciphertexts.len()).map_err(|status| Refusal::of(&status))
    };
    let zeros = vec![0u8; good.inputs[0].len()];
    let mut larger = good.inputs[0].to_vec();
    larger.extend_from_slice(&[1; 8]);
    let bad = |change: fn(&mut proto::ComputeRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    for (request, refusal) in [
        (bad(|it| it.version = SERVICE_VERSION + 1), Refusal::Version),
        (bad(|it| it.batch = u64::MAX), Refusal::UnknownModel),
        (bad(|it| it.lanes = 3), Refusal::UnknownModel),
        (bad(|it| it.prefer = "nothing".into()), Refusal::Malformed),
        (bad(|it| it.seed = vec![1; 31].into()), Refusal::Malformed),
        (bad(|it| it.program = vec![1; 32].into()), Refusal::UnknownModel),
        (bad(|it| it.program = vec![1; 3].into()), Refusal::Malformed),
        (bad(|it| it.key = vec![1; 40].into()), Refusal::Malformed),
        (bad(|it| it.segment = 9), Refusal::Malformed),
        (bad(|it| it.part = u64::MAX), Refusal::Malformed),
        (bad(|it| it.first_unit = u64::MAX), Refusal::Malformed),
        (bad(|it| it.units = 0), Refusal::Malformed),
        (bad(|it| it.units = u64::MAX), Refusal::Malformed),
        (bad(|it| it.inputs.clear()), Refusal::Malformed),
        (proto::ComputeRequest { inputs: vec![zeros.into()], ..good.clone() }, Refusal::Malformed),
        (proto::ComputeRequest { inputs: vec![larger.into()], ..good.clone() }, Refusal::Malformed),
    ] {
        assert_eq!(ask(&request), Err(Some(refusal)));
    }
    assert!(ask(&good).is_ok());
}
