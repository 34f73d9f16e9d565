//! Many sessions in one process: all come out right, and none waits for another's end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use gelu_net::io::session::{ClientSession, RunError, Turns, serve, serve_in_turns};
use gelu_net::io::transport::{Disconnected, InProcess, Transport};
use gelu_net::models::infer::SessionError;
use gelu_net::models::infer::{Client, Server};
use gelu_net::models::plan::PlanError;
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::RandomnessPool;

use crate::common::{KEY, backend, deployment, digits, key, quantization, shipped};

/// Sessions of one image each are through while another sends batch after batch, which it stops only then.
#[test]
fn small_sessions_finish_beside_a_large_one() {
    const MOST: usize = 400;
    let images = digits(12, 20);
    let served = Arc::new(ServerModel::new(shipped("conv1"), quantization()));
    let clear = served.program(&deployment(&KEY, 20)).unwrap().run_clear(images.view()).unwrap();
    let (end, theirs) = InProcess::pair();
    let over = AtomicBool::new(false);
    let (begun, has_begun) = channel();
    let batches = thread::scope(|scope| {
        scope.spawn(|| {
            let theirs = theirs;
            serve(&theirs, Server::new(Arc::clone(&served)).on(backend()), &mut rand::rng()).1.unwrap();
        });
        let large = scope.spawn(|| {
            let (end, begun) = (end, begun);
            let mut session =
                ClientSession::open(&end, Client::new(Arc::clone(&KEY), 20), &mut rand::rng()).unwrap();
            let endless = std::iter::repeat_n(images.view(), MOST);
            let batches = endless.take_while(|_| !over.load(Ordering::Relaxed));
            let mut count = 0;
            let done = |outcome| {
                assert_eq!(outcome, clear);
                count += 1;
                let _ = begun.send(());
            };
            session.infer_all(batches, &mut rand::rng(), done).unwrap();
            session.finish(&mut rand::rng()).unwrap();
            count
        });
        has_begun.recv().unwrap();
        let small: Vec<_> = (0..3)
            .map(|index| {
                let image = images.row(index).to_owned().insert_axis(ndarray::Axis(0));
                let local = LocalInference::shared(Arc::clone(&served), Arc::clone(&KEY), 1);
                scope.spawn(move || local.run(image.view(), &mut rand::rng(), |_| ()).unwrap().integers)
            })
            .collect();
        let integers: Vec<_> = small.into_iter().map(|small| small.join().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        for (integers, clear) in integers.iter().zip(clear.integers.values().chunks_exact(10)) {
            assert_eq!(integers, clear);
        }
        large.join().unwrap()
    });
    assert!(batches < MOST, "the small sessions finished first: {batches} batches");
}

/// Random factors from a pool make other ciphertexts and the same results; those that it lacks are made at once.
#[test]
fn a_pool_changes_no_result() {
    let images = digits(3, 2);
    let server = Arc::new(ServerModel::new(shipped("conv1"), quantization()));
    let local = || LocalInference::shared(Arc::clone(&server), Arc::clone(&KEY), 1);
    let without = local().run(images.view(), &mut rand::rng(), |_| ()).unwrap();
    let local = local().with_pool(64, &mut rand::rng());
    assert_eq!(local.pool().unwrap().ready(), 64);
    let with = local.run(images.view(), &mut rand::rng(), |_| ()).unwrap();
    assert_eq!(with.integers, without.integers);
    assert!(local.pool().unwrap().handed_out() >= 64);
    assert!(with.client.encryptions > 64);
}

#[test]
fn a_pool_of_another_key_is_refused() {
    let pool = RandomnessPool::new(key(77), 8);
    let mut client = Client::new(Arc::clone(&KEY), 1);
    let error = client.draw_from(Arc::new(pool)).unwrap_err();
    assert!(matches!(error, gelu_net::tensor::Error::ForeignKey { .. }), "{error}");
}

/// What the server refuses is told with its reason, not with what the client heard of it.
#[test]
fn the_side_that_failed_first_says_why() {
    let server = Arc::new(ServerModel::new(shipped("conv1"), quantization()));
    let images = ndarray::Array2::zeros((1025, 784));
    let error = LocalInference::shared(server, Arc::clone(&KEY), 1025)
        .run(images.view(), &mut rand::rng(), |_| ())
        .unwrap_err();
    let expected =
        PlanError::Option { what: "batch", expected: "at most 1024 images", found: "1025".to_owned() };
    assert!(
        matches!(&error, Error::Inference(RunError::Peer(SessionError::Refused(found))) if *found == expected),
        "{error:?}"
    );
}

/// An end that notes whose tensors it sends.
struct Noted<'a> {
    end: InProcess,
    who: usize,
    order: &'a Mutex<Vec<usize>>,
}

impl Transport for Noted<'_> {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        // The kind of a message: inputs and sums are tensors.
        if message[5] == 10 {
            self.order.lock().unwrap().push(self.who);
        }
        self.end.send(message)
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        self.end.receive()
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        self.end.try_receive()
    }
}

/// Sessions that all have two batches to be computed get one each before any gets the second.
#[test]
fn sessions_compute_in_turns_and_none_gets_ahead() {
    const SESSIONS: usize = 12;
    let mut model = ModelBuilder::new([6]).dense("fc", 3).build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut rand::rng());
    model.set_ranges(Some([("input", 1.0)].into_iter().collect()));
    let served = Arc::new(ServerModel::new(model, quantization()));
    let images = ndarray::Array2::from_shape_fn((2, 6), |(i, j)| (i + j) as f32 / 8.0);
    let clear = served.program(&deployment(&KEY, 1)).unwrap().run_clear(images.view()).unwrap();
    let (turns, order, asked) = (Arc::new(Turns::new(1)), Mutex::new(vec![]), Mutex::new(vec![]));
    thread::scope(|scope| {
        let held = turns.take();
        for who in 0..SESSIONS {
            let (end, theirs) = InProcess::pair();
            let (served, turns, order) = (Arc::clone(&served), Arc::clone(&turns), &order);
            scope.spawn(move || {
                let server = Server::new(served).on(backend());
                let noted = Noted { end: theirs, who, order };
                serve_in_turns(&noted, server, turns, &mut rand::rng()).1.unwrap();
            });
            let (images, clear, order) = (&images, &clear, &asked);
            scope.spawn(move || {
                let rng = &mut rand::rng();
                let end = Noted { end, who, order };
                let mut session = ClientSession::open(&end, Client::new(Arc::clone(&KEY), 1), rng).unwrap();
                let mut integers = vec![];
                let batches = images.axis_chunks_iter(ndarray::Axis(0), 1);
                session
                    .infer_all(batches, rng, |outcome| integers.extend(outcome.integers.values().to_vec()))
                    .unwrap();
                assert_eq!(integers, clear.integers.values());
                session.finish(rng).unwrap();
            });
        }
        // Both batches of all are on their way when the first turn begins.
        while turns.waiting() < SESSIONS || asked.lock().unwrap().len() < 2 * SESSIONS {
            thread::yield_now();
        }
        drop(held);
    });
    let order = order.into_inner().unwrap();
    assert_eq!(order.len(), 2 * SESSIONS);
    for who in 0..SESSIONS {
        assert_eq!(order[..SESSIONS].iter().filter(|&&of| of == who).count(), 1, "{order:?}");
    }
}
