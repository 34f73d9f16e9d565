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

/// The server's reply to a hello.
fn accept(server: &mut Server, hello: Message) -> Message {
    server.handle(hello, &mut rng()).unwrap();
    server.next_message(&mut rng()).unwrap().unwrap()
}

/// Carries messages until neither side has anything to say; what came out.
fn converse(server: &mut Server, client: &mut Client) -> Vec<Outcome> {
    let rng = &mut rng();
    let mut outcomes = vec![];
    loop {
        let mut quiet = true;
        while let Some(up) = client.next_message(rng).unwrap() {
            server.handle(up, rng).unwrap();
            quiet = false;
        }
        while let Some(down) = server.next_message(rng).unwrap() {
            if let Some(Event::Done(outcome)) = client.handle(down).unwrap() {
                outcomes.push(*outcome);
            }
            quiet = false;
        }
        if quiet {
            return outcomes;
        }
    }
}

/// A session that has been accepted.
fn opened(model: Model, batch: u32) -> (Server, Client) {
    opened_with(&KEY, model, batch)
}

fn opened_with(key: &Arc<SecretKey>, model: Model, batch: u32) -> (Server, Client) {
    let mut server = server(model);
    let (mut client, hello) = Client::new(Arc::clone(key), batch);
    let accept = accept(&mut server, hello);
    assert!(matches!(client.handle(accept).unwrap(), Some(Event::Ready)));
    (server, client)
}

/// Opens a session and runs one batch.
fn run(server: &mut Server, client: (Client, Message), images: &Array2<f32>) -> Outcome {
    let (mut client, hello) = client;
    client.handle(accept(server, hello)).unwrap();
    client.start(images.view()).unwrap();
    let mut outcomes = converse(server, &mut client);
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
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

/// Factors that a client makes while it waits are as many as it can need, and change nothing.
#[test]
fn factors_made_ahead_are_used_and_change_nothing() {
    let images = images(3);
    let mut server = server(small());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 3);
    let rng = &mut rng();
    let mut times = 0;
    while client.prepare(rng) {
        times += 1;
    }
    // Nothing is known of the plan yet: 64 factors, 32 at a time.
    assert_eq!(times, 2);
    client.handle(accept(&mut server, hello)).unwrap();
    assert!(!client.prepare(rng), "nothing has been sent that the server could answer");
    client.start(images.view()).unwrap();
    while let Some(up) = client.next_message(rng).unwrap() {
        server.handle(up, rng).unwrap();
    }
    // The factors of the second tensor are left of the first ones.
    assert!(!client.prepare(rng));
    let outcome = converse(&mut server, &mut client).remove(0);
    let options = PlanOptions { key: KeyBits::Bits1024, batch: 3, ..PlanOptions::default() };
    assert_eq!(outcome, small().plan(&options).unwrap().run_clear(images.view()).unwrap());
    client.close();
    assert!(!client.prepare(rng));
}

/// A tensor of more ciphertexts than there are factors ahead: those of the next one are made while its answer is
/// awaited, as far as the bound allows.
#[test]
fn factors_are_made_for_the_next_tensor_and_no_more() {
    let (mut server, mut client) = opened(wide(700), 1);
    let rng = &mut rng();
    client.start(wide_images(1).view()).unwrap();
    while let Some(up) = client.next_message(rng).unwrap() {
        server.handle(up, rng).unwrap();
    }
    let awaited = client.plan().unwrap().segments[1].ciphertexts_up(1);
    let mut times = 0;
    while client.prepare(rng) {
        times += 1;
    }
    assert_eq!(times, awaited.min(512).div_ceil(32));
    assert_eq!(converse(&mut server, &mut client).len(), 1);
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
        let (_, mut client) = opened(small(), 2);
        assert_eq!(client.plan().unwrap().batch, 2);
        let error = client.start(Array2::zeros((rows, columns)).view()).unwrap_err();
        assert!(matches!(error, SessionError::Numbers { step: 0, .. }), "{error}");
        assert!(client.is_closed() && client.plan().is_none());
        assert_eq!(client.finish().unwrap_err(), SessionError::Closed);
    }
}

#[test]
fn nothing_may_start_before_the_server_has_accepted() {
    let (mut client, _) = Client::new(Arc::clone(&KEY), 1);
    let error = client.start(images(1).view()).unwrap_err();
    assert!(
        matches!(error, SessionError::Unexpected { expected: "the server's reply first", .. }),
        "{error}"
    );
    let (mut client, _) = Client::new(Arc::clone(&KEY), 1);
    assert!(matches!(client.finish().unwrap_err(), SessionError::Unexpected { .. }));
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let error = client.handle(hello).unwrap_err();
    assert!(matches!(error, SessionError::Unexpected { expected: "Accept", found } if found == "Hello"));
}

#[test]
fn plans_for_another_key_or_batch_are_refused() {
    for (batch, edit) in [(2, 1), (1, 2)] {
        let mut server = server(small());
        let (_, hello) = Client::new(Arc::clone(&KEY), batch);
        let accept = accept(&mut server, hello);
        let (mut client, _) = Client::new(Arc::clone(&KEY), edit);
        let error = client.handle(accept).unwrap_err();
        let (expected, found) = (edit as usize, batch as usize);
        assert_eq!(error, SessionError::Plan(PlanError::Batch { expected, found }));
    }
    let mut server = server(small());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let Message::Accept { session, mut plan } = accept(&mut server, hello) else { panic!("not accepted") };
    plan.key = KeyBits::Bits2048;
    let error = client.handle(Message::Accept { session, plan }).unwrap_err();
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

fn wide(outputs: usize) -> Model {
    model(ModelBuilder::new([128]).dense("fc1", outputs).relu().dense("fc2", 2))
}

fn wide_images(count: usize) -> Array2<f32> {
    Array2::from_shape_fn((count, 128), |(i, j)| ((i + 3 * j) % 16) as f32 / 16.0)
}

/// What the two sides do, in order: the server takes a chunk before the client has encrypted the next, and gives sums
/// of the first images before the client has encrypted the last.
#[test]
fn the_server_works_while_the_client_encrypts() {
    let rng = &mut rng();
    let (mut server, mut client) = opened(wide(64), 200);
    let images = wide_images(200);
    client.start(images.view()).unwrap();
    let (mut trace, mut outcome) = (vec![], None);
    while outcome.is_none() {
        // As little as possible of each in turn.
        if let Some(up) = client.next_message(rng).unwrap() {
            trace.push(format!("client: {up}"));
            server.handle(up, rng).unwrap();
        }
        if let Some(down) = server.next_message(rng).unwrap() {
            trace.push(format!("server: {down}"));
            if let Some(Event::Done(done)) = client.handle(down).unwrap() {
                outcome = Some(*done);
            }
        }
    }
    let is_up = |line: &String| line.starts_with("client: Chunk") && line.ends_with("batch 0, step 0");
    let last_up = trace.iter().rposition(is_up).unwrap();
    let first_sums = trace.iter().position(|line| line == "server: Chunk 0 of batch 0, step 0").unwrap();
    assert!(first_sums < last_up, "{trace:#?}");
    let options = PlanOptions { key: KeyBits::Bits1024, batch: 200, ..PlanOptions::default() };
    assert_eq!(outcome.unwrap(), wide(64).plan(&options).unwrap().run_clear(images.view()).unwrap());
}

/// A second batch goes up, and is taken, before the server has computed anything of the first; both come out right and
/// in order.
#[test]
fn two_batches_are_under_way() {
    let rng = &mut rng();
    let (mut server, mut client) = opened(small(), 2);
    let batches = [images(2), Array2::from_elem((2, 4), 0.25)];
    batches.iter().for_each(|images| client.start(images.view()).unwrap());
    let mut rounds = vec![];
    while let Some(up) = client.next_message(rng).unwrap() {
        rounds.push(up.position().unwrap().round);
        server.handle(up, rng).unwrap();
    }
    assert_eq!(rounds, [0, 0, 1, 1]);
    let first = server.next_message(rng).unwrap().unwrap();
    assert_eq!(first.to_string(), "Sums of batch 0, step 0");
    client.handle(first).unwrap();
    assert!(client.batches_under_way() == 2 && server.batches_under_way() == 2);
    let outcomes = converse(&mut server, &mut client);
    let options = PlanOptions { key: KeyBits::Bits1024, batch: 2, ..PlanOptions::default() };
    let program = small().plan(&options).unwrap();
    let clear = batches.map(|images| program.run_clear(images.view()).unwrap());
    assert_eq!(outcomes, clear);
    assert_eq!(client.finish().unwrap().to_string(), "Finish");
}

/// A server's work comes in units whose size does not grow with the batch: where sessions take turns by the unit, one
/// of a single image is through while a large batch has hardly begun.
#[test]
fn a_small_session_does_not_wait_for_a_large_batch() {
    let rng = &mut rng();
    // A key of its own: others count their operations on the shared one at the same time.
    let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, rng).unwrap());
    let (mut large, mut large_client) = opened_with(&key, wide(64), 400);
    large_client.start(wide_images(400).view()).unwrap();
    while let Some(up) = large_client.next_message(rng).unwrap() {
        large.handle(up, rng).unwrap();
    }
    let (mut small, mut small_client) = opened(wide(64), 1);
    small_client.start(wide_images(1).view()).unwrap();
    let operations = |server: &Server| server.key().unwrap().ring().operations().total();
    let mut turns = vec![];
    let mut done = false;
    while !done {
        let before = operations(&large);
        large.next_message(rng).unwrap().unwrap();
        turns.push(operations(&large) - before);
        while let Some(up) = small_client.next_message(rng).unwrap() {
            small.handle(up, rng).unwrap();
        }
        if let Some(down) = small.next_message(rng).unwrap() {
            done = matches!(small_client.handle(down).unwrap(), Some(Event::Done(_)));
        }
    }
    let so_far: u64 = turns.iter().sum();
    let mut rest = 0;
    while large.next_message(rng).unwrap().is_some() {
        rest += 1;
    }
    assert!(rest > 0, "the large batch went on after {} turns", turns.len());
    let segment = &large_client.plan().unwrap().segments[0];
    let all = segment.operations.total();
    let longest = turns.iter().max().unwrap();
    assert!(so_far < all && *longest < all / 4, "{so_far} of {all}, at most {longest} in a unit");
}
