//! Sessions that hide the model: their account, and preparing while nobody asks.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::infer::{ServerModel, SessionError};
use gelu_models::plan::{Deployment, Quantization, Reveal};
use gelu_tensor::FixedTensor;
use gelu_tensor::paillier::{KeyBits, SecretKey};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha20Rng};

use super::super::{BackgroundSession, Phase, serve};
use super::*;
use crate::transport::InProcess;

struct Example {
    images: Array2<f32>,
    expected: FixedTensor,
    served: JoinHandle<(Vec<StepRecord>, Result<(), RunError>)>,
    opened: Result<HiddenSession<InProcess>, RunError>,
}

/// A session that prepares two queries at a time.
fn example(with: impl FnOnce(Client) -> Client) -> Example {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let mut model = ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).build().unwrap();
    model.initialize(Initializer::KaimingUniform, rng);
    let images = Array2::from_shape_fn((3, 4), |(i, j)| (i + j) as f32 / 6.0);
    model.calibrate(images.view()).unwrap();
    let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
    let expected = program.run_clear(images.view()).unwrap().integers;
    let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, rng).unwrap());
    let (near, far) = InProcess::pair();
    let server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));
    let served = thread::spawn(move || serve(far, server, &mut ChaCha20Rng::seed_from_u64(2)));
    let opened = HiddenSession::open(near, with(Client::new(key, 2, Reveal::Logits)), rng);
    Example { images, expected, served, opened }
}

#[test]
fn sessions_that_hide_the_model_tell_ahead_from_online() {
    let rng = &mut ChaCha20Rng::seed_from_u64(1);
    let Example { images, expected, served, opened } = example(|client| client);
    let mut session = opened.unwrap();
    session.prepare(rng).unwrap();
    assert_eq!(session.client().prepared(), 2);
    let Answer::Logits(outcome) = session.infer(images.view(), rng).unwrap() else { panic!("logits") };
    assert_eq!(outcome.integers, expected);
    let own = session.finish(rng).unwrap();
    let (other, ended) = served.join().unwrap();
    ended.unwrap();
    let of = |steps: &[StepRecord], phase| {
        let steps: Vec<StepRecord> = steps.iter().filter(|step| step.phase == phase).cloned().collect();
        let sum = |of: fn(&StepRecord) -> usize| steps.iter().map(of).sum::<usize>();
        let bytes = [sum(|step| step.bytes_in), sum(|step| step.bytes_out)];
        let ciphertexts = [sum(|step| step.ciphertexts_in), sum(|step| step.ciphertexts_out)];
        (bytes, ciphertexts, steps.iter().map(|step| step.products + step.checks).sum::<u64>(), steps.len())
    };
    // Two preparations of two queries each, of two layers: masks of both, circuits of one. Three images.
    for (phase, count) in [(Phase::Ahead, 2 * 3), (Phase::Online, 3 * 2)] {
        let ((sent, own_ct, _, steps), (heard, other_ct, operations, others)) =
            (of(&own, phase), of(&other, phase));
        assert_eq!((steps, others), (count, count));
        assert!(sent[0] > 0 && sent[1] > 0);
        assert_eq!((sent[0], sent[1], own_ct[0], own_ct[1]), (heard[1], heard[0], other_ct[1], other_ct[0]));
        assert_eq!((own_ct[0] > 0, operations > 0), (phase == Phase::Ahead, phase == Phase::Ahead));
    }
    let names: Vec<&str> = other.iter().take(5).map(|step| &step.step[..]).collect();
    assert_eq!(names[names.len() - 3..], ["multiply masks: fc1", "garble fc1", "multiply masks: fc2"]);
}

#[test]
fn queries_are_prepared_while_nobody_asks_up_to_a_bound_on_memory() {
    let session = example(|client| client).opened.unwrap();
    let bytes = session.client().hidden_plan().unwrap().client_bytes();
    let Example { images, expected, served, opened } = example(|client| client.keeping(5 * bytes));
    let session = BackgroundSession::new(opened.unwrap(), ChaCha20Rng::seed_from_u64(3)).unwrap();
    // Of two at a time, no more than five.
    assert_eq!((session.wait_until_full(), session.prepared()), (4, 4));
    let Ok(Answer::Logits(outcome)) = session.infer(images.clone().into_dyn()) else { panic!("logits") };
    assert_eq!(outcome.integers, expected);
    assert_eq!(session.wait_until_full(), 5);
    // Several ask at once, for more than is in stock.
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let Ok(Answer::Logits(outcome)) = session.infer(images.clone().into_dyn()) else {
                    panic!("logits")
                };
                assert_eq!(outcome.integers, expected);
            });
        }
    });
    let steps = session.finish().unwrap();
    let online = steps.iter().filter(|step| step.phase == Phase::Online).count();
    assert_eq!(online, 2 * 4 * images.nrows());
    served.join().unwrap().1.unwrap();
}

#[test]
fn whoever_asks_hears_why_a_session_failed_while_nobody_asked() {
    let Example { images, opened, .. } = example(|client| client);
    let session = BackgroundSession::new(opened.unwrap(), ChaCha20Rng::seed_from_u64(3)).unwrap();
    let wrong = session.infer(Array2::<f32>::zeros((1, 5)).into_dyn()).unwrap_err();
    assert!(matches!(wrong, RunError::Peer(SessionError::Images(_))), "{wrong}");
    session.wait_until_full();
    assert_eq!(session.infer(images.into_dyn()).unwrap_err(), wrong);
    assert_eq!(session.finish().unwrap_err(), wrong);
}

#[test]
fn a_query_that_needs_more_memory_than_there_may_be_is_refused() {
    let session = example(|client| client).opened.unwrap();
    let needed = session.client().hidden_plan().unwrap().client_bytes();
    let Example { served, opened, .. } = example(|client| client.keeping(needed - 1));
    assert_eq!(opened.unwrap_err(), RunError::Peer(SessionError::Memory { needed, allowed: needed - 1 }));
    assert!(matches!(served.join().unwrap().1, Err(RunError::Peer(SessionError::Aborted(_)))));
}
