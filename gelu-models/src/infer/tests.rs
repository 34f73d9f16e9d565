use std::sync::{Arc, LazyLock, Mutex};

use gelu_layers::Initializer;
use gelu_tensor::Shape;
use gelu_tensor::paillier::{KeyBits, Randomizer, SecretKey};
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::plan::{PlanError, PlanOptions};
use crate::{Model, ModelBuilder, WeightTensor};

static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| {
    Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(3)).unwrap())
});

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(4)
}

fn model(builder: ModelBuilder) -> Model {
    let mut model = builder.build().unwrap();
    model.initialise(Initializer::KaimingUniform, &mut rng());
    model
}

fn small() -> Model {
    model(ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).softmax())
}

fn images(count: usize) -> Array2<f32> {
    Array2::from_shape_fn((count, 4), |(i, j)| (i + 2 * j) as f32 / 10.0)
}

fn server(model: Model) -> Server {
    Server::new(Arc::new(ServerModel::new(model, PlanOptions::default())))
}

/// Opens a session and runs one batch.
fn run(server: &mut Server, client: (Client, Message), images: &Array2<f32>) -> Outcome {
    let (mut client, hello) = client;
    let accept = server.handle(hello, &mut rng()).unwrap().unwrap();
    assert!(matches!(client.handle(accept, &mut rng()).unwrap(), Event::Ready));
    let mut up = client.start(images.view(), &mut rng()).unwrap();
    loop {
        let sums = server.handle(up, &mut rng()).unwrap().unwrap();
        match client.handle(sums, &mut rng()).unwrap() {
            Event::Send(message) => up = *message,
            Event::Done(outcome) => return *outcome,
            Event::Ready => panic!("ready twice"),
        }
    }
}

#[test]
fn a_session_gives_what_the_clear_run_gives() {
    let images = images(3);
    let mut server = server(small());
    let outcome = run(&mut server, Client::new(Arc::clone(&KEY), 3), &images);
    let options = PlanOptions { key: KeyBits::Bits1024, batch: 3, ..PlanOptions::default() };
    assert_eq!(outcome, small().plan(&options).unwrap().run_clear(images.view()).unwrap());
    assert!(outcome.outputs.outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-12), "probabilities");
    assert_eq!(server.segment_name(1), Some("fc2"));
    assert_eq!(server.segment_name(2), None);
    assert_eq!(server.key(), Some(KEY.public_key()));
}

/// A function of one's own sees every segment in turn and replaces its activations.
#[test]
fn a_step_of_ones_own_replaces_the_activations() {
    let images = images(1);
    let seen = Arc::new(Mutex::new(vec![]));
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let log = Arc::clone(&seen);
    client.on_step(Box::new(move |segment, sums| {
        log.lock().unwrap().push((segment.name.clone(), sums.len()));
        sums.fill(0.0);
    }));
    let outcome = run(&mut server(small()), (client, hello), &images);
    assert_eq!(*seen.lock().unwrap(), [("fc1".to_owned(), 3), ("fc2".to_owned(), 2)]);
    assert_eq!(outcome.outputs, Array2::<f64>::zeros((1, 2)));
    // With nothing coming in, the logits are the biases.
    let biases = small().weights().tensors["fc2.bias"].data().to_vec();
    for (logit, bias) in outcome.logits.iter().zip(biases) {
        assert!((logit - f64::from(bias)).abs() < 1e-3);
    }
}

#[test]
fn a_model_may_begin_with_an_activation() {
    let build = || model(ModelBuilder::new([4]).square().dense("fc1", 3).tanh());
    let images = images(2);
    let outcome = run(&mut server(build()), Client::new(Arc::clone(&KEY), 2), &images);
    let float = build().forward(images.view()).unwrap();
    let close = |(found, expected): (&f64, &f32)| (found - f64::from(*expected)).abs() < 5e-3;
    assert!(outcome.outputs.iter().zip(&float).all(close), "{} {float}", outcome.outputs);
}

/// The prediction is that of the outputs, not of the sums before an activation that changes their order.
#[test]
fn activations_before_the_end_count_for_the_prediction() {
    for softmax in [false, true] {
        let builder = ModelBuilder::new([4]).dense("fc1", 6).square();
        let mut model = model(if softmax { builder.softmax() } else { builder });
        // The third output is the lowest sum and the largest square.
        let mut weights = model.weights();
        let rows = (0..24).map(|i| if i / 4 == 2 { -1.0 } else { 0.1 }).collect();
        let tensor = WeightTensor::new(Shape::from([6, 4]), rows).unwrap();
        weights.tensors.insert("fc1.weight".to_owned(), tensor);
        model.load(&weights).unwrap();
        let images = images(5);
        let program = model.plan(&PlanOptions::default()).unwrap();
        let outcome = program.run_clear(images.view()).unwrap();
        let float = model.logits(images.view()).unwrap();
        let error =
            outcome.logits.iter().zip(&float).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(error <= program.error_bound().unwrap() && error < 0.01, "{error}");
        let largest =
            |row: ndarray::ArrayView1<'_, f32>| (0..6).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
        assert_eq!(outcome.predictions(), float.outer_iter().map(largest).collect::<Vec<_>>());
        let sums = outcome.integers.values().chunks(6);
        let of_sums: Vec<_> = sums.map(|sums| (0..6).max_by_key(|&i| sums[i]).unwrap()).collect();
        assert_ne!(outcome.predictions(), of_sums, "the test tells the two apart");
    }
}

#[test]
fn values_that_are_no_numbers_are_clamped_and_counted() {
    let mut images = images(1);
    images[[0, 0]] = f32::NAN;
    images[[0, 1]] = f32::INFINITY;
    images[[0, 2]] = -7.0;
    let outcome = run(&mut server(small()), Client::new(Arc::clone(&KEY), 1), &images);
    assert_eq!(outcome.saturations, 3);
}

#[test]
fn a_wrong_batch_closes_the_client() {
    for (rows, columns) in [(1, 4), (3, 4), (2, 5), (0, 4)] {
        let mut server = server(small());
        let (mut client, hello) = Client::new(Arc::clone(&KEY), 2);
        client.handle(server.handle(hello, &mut rng()).unwrap().unwrap(), &mut rng()).unwrap();
        assert_eq!(client.plan().unwrap().batch, 2);
        let error = client.start(Array2::zeros((rows, columns)).view(), &mut rng()).unwrap_err();
        assert!(matches!(error, SessionError::Numbers { step: 0, .. }), "{error}");
        assert!(client.is_closed() && client.plan().is_none());
        assert_eq!(client.finish().unwrap_err(), SessionError::Closed);
    }
}

#[test]
fn nothing_may_start_before_the_server_has_accepted() {
    let (mut client, _) = Client::new(Arc::clone(&KEY), 1);
    let error = client.start(images(1).view(), &mut rng()).unwrap_err();
    assert!(
        matches!(error, SessionError::Unexpected { expected: "the server's reply first", .. }),
        "{error}"
    );
    let (mut client, _) = Client::new(Arc::clone(&KEY), 1);
    assert!(matches!(client.finish().unwrap_err(), SessionError::Unexpected { .. }));
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let error = client.handle(hello, &mut rng()).unwrap_err();
    assert!(matches!(error, SessionError::Unexpected { expected: "Accept", found } if found == "Hello"));
}

#[test]
fn plans_for_another_key_or_batch_are_refused() {
    for (batch, edit) in [(2, 1), (1, 2)] {
        let mut server = server(small());
        let (_, hello) = Client::new(Arc::clone(&KEY), batch);
        let accept = server.handle(hello, &mut rng()).unwrap().unwrap();
        let (mut client, _) = Client::new(Arc::clone(&KEY), edit);
        let error = client.handle(accept, &mut rng()).unwrap_err();
        let (expected, found) = (edit as usize, batch as usize);
        assert_eq!(error, SessionError::Plan(PlanError::Batch { expected, found }));
    }
    let mut server = server(small());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let Some(Message::Accept { session, mut plan }) = server.handle(hello, &mut rng()).unwrap() else {
        panic!("not accepted")
    };
    plan.key = KeyBits::Bits2048;
    let error = client.handle(Message::Accept { session, plan }, &mut rng()).unwrap_err();
    assert_eq!(error, SessionError::Plan(PlanError::Key { expected: 1024, found: 2048 }));
}

#[test]
fn the_first_of_equal_logits_is_predicted() {
    let model = small();
    let options = PlanOptions { key: KeyBits::Bits1024, ..PlanOptions::default() };
    let mut outcome = model.plan(&options).unwrap().run_clear(images(1).view()).unwrap();
    outcome.logits = ndarray::array![[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [f64::NEG_INFINITY, -1.0, -2.0]];
    assert_eq!(outcome.predictions(), [1, 0, 1]);
}
