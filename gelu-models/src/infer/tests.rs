use std::sync::{Arc, LazyLock};

use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_tensor::{Error, FixedTensor, Format, Operations, Packing, Shape, SlotLayout, WeightRange};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::peer::{Blame, Conversation, Expected, Idle, Misuse, Part, Peer, PeerError};
use crate::plan::{Deployment, Outcome, PlanError, Preference, Program, Quantization};
use crate::tests::{calibrated, random_model, secret_key};
use crate::{Model, ModelBuilder};

fn key(seed: u64) -> Arc<SecretKey> {
    Arc::new(secret_key(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(seed)))
}

static KEY: LazyLock<Arc<SecretKey>> = LazyLock::new(|| key(3));

/// A key whose ring counts the operations of one test alone.
static COUNTED: LazyLock<Arc<SecretKey>> = LazyLock::new(|| key(5));

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(4)
}

fn small() -> Model {
    calibrated(ModelBuilder::new([4]).dense("fc1", 3).relu().dense("fc2", 2).softmax())
}

/// Its second segment is a sum of two terms, of which the first has more inputs than the last.
fn branched() -> Model {
    calibrated(
        ModelBuilder::new([4])
            .residual_with(|main| main.dense("a", 6).relu().dense("b", 2), |shortcut| shortcut.dense("c", 2)),
    )
}

/// Its tensors take several chunks.
fn wide(outputs: usize) -> Model {
    calibrated(ModelBuilder::new([128]).dense("fc1", outputs).relu().dense("fc2", 2))
}

fn images(count: usize) -> Array2<f32> {
    Array2::from_shape_fn((count, 4), |(i, j)| ((i + 2 * j) % 11) as f32 / 11.0)
}

fn wide_images(count: usize) -> Array2<f32> {
    Array2::from_shape_fn((count, 128), |(i, j)| ((i + 3 * j) % 16) as f32 / 16.0)
}

fn serve(model: Model) -> Server {
    Server::new(Arc::new(ServerModel::new(model, Quantization::default()))).on(KEY.public_key().backend())
}

fn program(model: &Model, batch: usize) -> Program {
    let lanes = KEY.public_key().backend().lanes();
    let deployment = Deployment { key: KeyBits::Bits1024.into(), batch, lanes, ..Deployment::default() };
    model.compile(&Quantization::default(), &deployment).unwrap()
}

fn clear(model: &Model, images: &Array2<f32>) -> Outcome {
    program(model, images.nrows()).run_clear(images.view()).unwrap()
}

/// What a client with this key says first.
fn hello_of(key: &SecretKey) -> Message {
    let (key, prefer) = (key.public_key().clone(), Preference::default());
    Message::Hello { version: PROTOCOL_VERSION, key, batch: 1, prefer }
}

/// The server's reply to a client's hello.
fn accept(server: &mut Server, client: &mut Client) -> Message {
    let hello = client.next_message(&mut rng()).unwrap().unwrap();
    server.handle(hello, &mut rng()).unwrap();
    server.next_message(&mut rng()).unwrap().unwrap()
}

/// A session that has been accepted.
fn opened(model: Model, batch: u32) -> (Server, Client) {
    opened_with(&KEY, model, batch)
}

fn opened_with(key: &Arc<SecretKey>, model: Model, batch: u32) -> (Server, Client) {
    let mut server = serve(model);
    let mut client = Client::new(Arc::clone(key), batch);
    let accept = accept(&mut server, &mut client);
    assert!(matches!(client.handle(accept, &mut rng()).unwrap(), Some(Event::Ready)));
    (server, client)
}

/// All that a client has to say.
fn said(client: &mut Client) -> Vec<Message> {
    let rng = &mut rng();
    std::iter::from_fn(|| client.next_message(rng).unwrap()).collect()
}

/// All that a server answers to that.
fn answers(server: &mut Server, messages: &[Message]) -> Vec<Message> {
    let rng = &mut rng();
    for message in messages {
        server.handle(message.clone(), rng).unwrap();
    }
    std::iter::from_fn(|| server.next_message(rng).unwrap()).collect()
}

/// Carries messages until neither side has anything to say; what came out.
fn converse(server: &mut Server, client: &mut Client) -> Vec<Outcome> {
    let mut outcomes = vec![];
    loop {
        let up = said(client);
        let down = answers(server, &up);
        if up.is_empty() && down.is_empty() {
            return outcomes;
        }
        for message in down {
            if let Some(Event::Done(outcome)) = client.handle(message, &mut rng()).unwrap() {
                outcomes.push(*outcome);
            }
        }
    }
}

/// A message of a tensor at another place.
fn moved(message: &Message, edit: impl FnOnce(&mut Position, &mut u32)) -> Message {
    let mut message = message.clone();
    match &mut message {
        Message::Tensor { position, index, .. } => edit(position, index),
        other => panic!("{other} is of no tensor"),
    }
    message
}

fn with_chunk(message: &Message, of: &Message) -> Message {
    match (message, of) {
        (Message::Tensor { position, index, .. }, Message::Tensor { ciphertexts, .. }) => {
            Message::Tensor { position: *position, index: *index, ciphertexts: ciphertexts.clone() }
        }
        _ => panic!("no tensors"),
    }
}

#[test]
fn a_session_gives_what_the_clear_run_gives() {
    let images = images(3);
    let (mut server, mut client) = opened(small(), 3);
    client.start(images.view()).unwrap();
    let outcomes = converse(&mut server, &mut client);
    assert_eq!(outcomes, [clear(&small(), &images)]);
    assert!(outcomes[0].outputs.outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-12), "probabilities");
    assert_eq!(outcomes[0].saturations.total(), 0);
    assert_eq!(server.program().unwrap().plan().segments()[1].name, "fc2");
    assert_eq!(server.key(), Some(KEY.public_key()));
    client.finish().unwrap();
    let end = said_last(&mut client);
    assert!(matches!(end, Message::Finish { .. }));
    server.handle(end, &mut rng()).unwrap();
    assert!(server.is_closed() && client.is_closed());
    assert!(server.key().is_none() && server.program().is_none() && client.plan().is_none());
}

fn said_last(client: &mut Client) -> Message {
    client.next_message(&mut rng()).unwrap().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Any small network, whatever its branches: ciphertexts give what integers in the clear give, for as many operations
    /// as the plan says.
    #[test]
    fn any_network_encrypted_equals_clear(seed: u64, batch in 1usize..4, batches in 1usize..3) {
        let model = random_model(seed);
        let (mut server, mut client) = opened_with(&COUNTED, model.clone(), batch as u32);
        let rng = &mut rng();
        let mut counted = Operations::default();
        let mut done = 0;
        let inputs: Vec<Array2<f32>> =
            (0..batches).map(|at| crate::tests::images(&model, batch, seed ^ at as u64)).collect();
        inputs.iter().for_each(|images| client.start(images.view()).unwrap());
        while done < batches {
            while let Some(up) = client.next_message(rng).unwrap() {
                server.handle(up, rng).unwrap();
            }
            // The client computes under the same key: what it does meanwhile is not the server's.
            let before = server.operations().computing;
            let down = server.next_message(rng).unwrap();
            counted = counted + (server.operations().computing - before);
            let Some(down) = down else { continue };
            if let Some(Event::Done(outcome)) = client.handle(down, rng).unwrap() {
                prop_assert_eq!(*outcome, clear(&model, &inputs[done]));
                done += 1;
            }
        }
        let plan = client.plan().unwrap();
        prop_assert_eq!(counted, plan.operations() * batches as u64);
        let program = program(&model, batch);
        prop_assert_eq!(plan.description(), program.plan().description());
    }
}

/// Times that a peer used idle time.
fn idle(client: &mut Client) -> usize {
    let rng = &mut rng();
    let mut times = 0;
    loop {
        match client.idle(rng) {
            Idle::Worked => times += 1,
            Idle::Nothing => return times,
            Idle::Background(_) => panic!("a client works in its own thread"),
        }
    }
}

/// Factors that a client makes while it waits are as many as it can need, and change nothing.
#[test]
fn factors_made_ahead_are_used_and_change_nothing() {
    let images = images(3);
    let mut server = serve(small());
    let mut client = Client::new(Arc::clone(&KEY), 3);
    assert_eq!(idle(&mut client), 0, "nothing has been said yet");
    let hello = said_last(&mut client);
    // Nothing is known of the plan yet: 64 factors, 32 at a time.
    assert_eq!(idle(&mut client), 2);
    assert_eq!(idle(&mut client), 0);
    for answer in answers(&mut server, &[hello]) {
        client.handle(answer, &mut rng()).unwrap();
    }
    assert_eq!(idle(&mut client), 0, "nothing has been sent that the server could answer");
    client.start(images.view()).unwrap();
    let down = {
        let up = said(&mut client);
        answers(&mut server, &up)
    };
    // The factors of the second tensor are left of the first ones.
    assert_eq!(idle(&mut client), 0);
    for message in down {
        client.handle(message, &mut rng()).unwrap();
    }
    let outcome = converse(&mut server, &mut client).remove(0);
    assert_eq!(outcome, clear(&small(), &images));
    client.close();
    assert_eq!(idle(&mut client), 0);
}

/// A tensor of more ciphertexts than there are factors ahead: those of the next one are made while its answer is
/// awaited, as far as the bound allows.
#[test]
fn factors_are_made_for_the_next_tensor_and_no_more() {
    let (mut server, mut client) = opened(wide(700), 1);
    client.start(wide_images(1).view()).unwrap();
    let up = said(&mut client);
    let awaited = client.plan().unwrap().segments()[1].ciphertexts_up();
    assert_eq!(idle(&mut client), awaited.min(512).div_ceil(32));
    for message in answers(&mut server, &up) {
        client.handle(message, &mut rng()).unwrap();
    }
    assert_eq!(converse(&mut server, &mut client).len(), 1);
}

/// The tables for its replies, which another thread makes; nobody has to.
#[test]
fn a_server_makes_its_tables_once_and_they_change_nothing() {
    let key = key(6);
    let mut listening = serve(small());
    assert!(matches!(listening.idle(&mut rng()), Idle::Nothing));
    let (mut server, mut client) = opened_with(&key, small(), 2);
    let before = server.operations().computing;
    match server.idle(&mut rng()) {
        Idle::Background(work) => assert!(work().total() > 0),
        _ => panic!("there are tables to be made"),
    }
    assert!(matches!(server.idle(&mut rng()), Idle::Nothing));
    assert_eq!(server.operations().computing, before, "no plan counts them");
    client.start(images(2).view()).unwrap();
    assert_eq!(converse(&mut server, &mut client), [clear(&small(), &images(2))]);
    // Another session of the same key finds them made.
    let (mut server, _) = opened_with(&key, small(), 2);
    match server.idle(&mut rng()) {
        Idle::Background(work) => assert_eq!(work(), Operations::default()),
        _ => panic!("it cannot know before it looks"),
    }
}

#[test]
fn functions_of_the_clients_own_are_the_clients() {
    let build = || {
        let builder = ModelBuilder::new([4]).dense("a", 3).client_function("double", [3]).dense("b", 2);
        let mut model = builder.build().unwrap();
        crate::tests::fill(&mut model, 5);
        model.set_ranges(Some([("double", 4.0)].into_iter().collect()));
        model
    };
    let double = |x: &[f64]| x.iter().map(|x| 2.0 * x).collect::<Vec<_>>();
    let mut server = serve(build());
    let mut client = Client::new(Arc::clone(&KEY), 2).with_function("double", Arc::new(double));
    let accept = accept(&mut server, &mut client);
    client.handle(accept, &mut rng()).unwrap();
    client.start(images(2).view()).unwrap();
    let mut functions = crate::plan::Functions::default();
    functions.insert("double", Arc::new(double));
    let expected = program(&build(), 2).run_clear_with(functions, images(2).view()).unwrap();
    assert_eq!(converse(&mut server, &mut client), [expected]);

    // A client that lacks it learns so by an error, and its session ends.
    let (mut server, mut client) = opened(build(), 2);
    client.start(images(2).view()).unwrap();
    let up = said(&mut client);
    let mut down = answers(&mut server, &up);
    let error = client.handle(down.remove(0), &mut rng()).unwrap_err();
    assert!(
        matches!(error, SessionError::Numbers { segment: 0, source: Error::MissingFunction { .. } }),
        "{error}"
    );
    assert!(client.is_closed());
}

#[test]
fn a_model_may_begin_with_an_activation() {
    let model = calibrated(ModelBuilder::new([4]).square().dense("fc1", 3).tanh());
    let images = images(2);
    let (mut server, mut client) = opened(model.clone(), 2);
    client.start(images.view()).unwrap();
    let outcome = converse(&mut server, &mut client).remove(0);
    let float = model.forward(images.view()).unwrap();
    let close = |(found, expected): (&f64, &f32)| (found - f64::from(*expected)).abs() < 5e-3;
    assert!(outcome.outputs.iter().zip(&float).all(close), "{} {float}", outcome.outputs);
}

#[test]
fn values_beyond_the_range_are_counted_and_those_that_are_no_numbers_refused() {
    let (mut server, mut client) = opened(small(), 1);
    let mut wild = images(1);
    (wild[[0, 0]], wild[[0, 2]]) = (f32::MAX, -7.0);
    client.start(wild.view()).unwrap();
    let outcome = converse(&mut server, &mut client).remove(0);
    assert_eq!(outcome, clear(&small(), &wild));
    assert!(outcome.saturations.total() >= 2);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (_, mut client) = opened(small(), 1);
        let mut images = images(1);
        images[[0, 1]] = bad;
        let error = client.start(images.view()).unwrap_err();
        let source = Error::NotFinite { what: "elements of input images", found: 1, of: 4 };
        assert_eq!(error, SessionError::Images(source));
        assert_eq!(error.blame(), Blame::Caller);
        assert!(client.is_closed());
    }
}

#[test]
fn a_wrong_batch_closes_the_client() {
    for (rows, columns) in [(1, 4), (3, 4), (2, 5), (0, 4)] {
        let (_, mut client) = opened(small(), 2);
        assert_eq!(client.plan().unwrap().description().batch, 2);
        let error = client.start(Array2::zeros((rows, columns)).view()).unwrap_err();
        assert!(matches!(error, SessionError::Images(_)), "{error}");
        assert!(client.is_closed() && client.plan().is_none());
        assert_eq!(client.finish().unwrap_err(), SessionError::Closed);
    }
}

#[test]
fn nothing_may_start_before_the_server_has_accepted() {
    for greeted in [false, true] {
        let client = || {
            let mut client = Client::new(Arc::clone(&KEY), 1);
            if greeted {
                said_last(&mut client);
                assert!(client.next_message(&mut rng()).unwrap().is_none(), "one hello is enough");
            }
            assert!(!client.can_start() && client.plan().is_none());
            client
        };
        let mut early = client();
        let error = early.start(images(1).view()).unwrap_err();
        assert!(matches!(error, SessionError::Misuse(Misuse::NotAccepted)), "{error}");
        assert!(early.is_closed());
        assert!(matches!(client().finish().unwrap_err(), SessionError::Misuse(Misuse::NotAccepted)));
        let hello = said_last(&mut Client::new(Arc::clone(&KEY), 1));
        let error = client().handle(hello, &mut rng()).unwrap_err();
        assert!(
            matches!(error, SessionError::Unexpected { expected: Expected::Accept, found } if found == "Hello")
        );
    }
    // Nor is anything accepted that nobody asked for.
    let accept = accept(&mut serve(small()), &mut Client::new(Arc::clone(&KEY), 1));
    let mut silent = Client::new(Arc::clone(&KEY), 1);
    assert!(matches!(silent.handle(accept, &mut rng()), Err(SessionError::Unexpected { .. })));
}

#[test]
fn plans_for_another_batch_or_that_do_not_hold_together_are_refused() {
    let refused = |batch: u32, edit: &dyn Fn(&mut crate::plan::Description)| {
        let mut message = accept(&mut serve(small()), &mut Client::new(Arc::clone(&KEY), 2));
        match &mut message {
            Message::Accept { description, .. } => edit(description),
            other => panic!("{other}"),
        }
        let mut client = Client::new(Arc::clone(&KEY), batch);
        said_last(&mut client);
        let error = client.handle(message, &mut rng()).unwrap_err();
        assert!(client.is_closed());
        assert_eq!(error.reason(), Some(AbortReason::BadPlan));
        match error {
            SessionError::Plan(error) => error,
            other => panic!("{other}"),
        }
    };
    assert_eq!(refused(1, &|_| ()), PlanError::Batch { expected: 1, found: 2 });
    assert_eq!(refused(2, &|of| of.batch = usize::MAX), PlanError::Batch { expected: 2, found: usize::MAX });
    // A plan by which values would share ciphertexts otherwise than the client has asked for.
    let (expected, found) = (Preference::Balance, Preference::Bytes);
    assert_eq!(refused(2, &|of| of.prefer = found), PlanError::Preference { expected, found });
    let error = refused(2, &|of| drop(of.numbers.segments.pop()));
    assert!(matches!(error, PlanError::Description { expected: 2, found: 1, .. }), "{error}");
    let range = WeightRange::signed(8).unwrap().with_scale_bits(i32::MAX);
    let error = refused(2, &|of| of.numbers.segments[0].weights[0] = range);
    assert!(matches!(&error, PlanError::Numbers { name, .. } if name == "fc1"), "{error}");
    assert!(matches!(refused(2, &|of| of.lanes = 0), PlanError::Option { what: "lanes", .. }));
    // Slots that the client's key has no room for.
    let error = refused(2, &|of| {
        _ = of.numbers.formats.insert(0, Format::integers(1 << 61).unwrap().with_scale_bits(8).unwrap())
    });
    assert!(matches!(error, PlanError::Numbers { .. }), "{error}");
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
            if let Some(Event::Done(done)) = client.handle(down, rng).unwrap() {
                outcome = Some(*done);
            }
        }
    }
    let is_up =
        |line: &String| line.starts_with("client: chunk") && line.ends_with("inputs of segment 0 of batch 0");
    let last_up = trace.iter().rposition(is_up).unwrap();
    let first = "server: chunk 0 of the sums of segment 0 of batch 0";
    let first_sums = trace.iter().position(|line| line == first).unwrap();
    assert!(first_sums < last_up, "{trace:#?}");
    assert_eq!(outcome.unwrap(), clear(&wide(64), &images));
}

/// A second batch goes up, and is taken, before the server has computed anything of the first; both come out right and
/// in order.
#[test]
fn two_batches_are_under_way() {
    let rng = &mut rng();
    let (mut server, mut client) = opened(small(), 2);
    let batches = [images(2), Array2::from_elem((2, 4), 0.25)];
    for images in &batches {
        assert!(client.can_start());
        client.start(images.view()).unwrap();
    }
    assert!(!client.can_start());
    let mut rounds = vec![];
    while let Some(up) = client.next_message(rng).unwrap() {
        rounds.push(up.position().unwrap().round);
        server.handle(up, rng).unwrap();
    }
    assert_eq!(rounds, [0, 1]);
    let first = server.next_message(rng).unwrap().unwrap();
    assert_eq!(first.to_string(), "chunk 0 of the sums of segment 0 of batch 0");
    client.handle(first, rng).unwrap();
    assert!(client.batches_in_flight() == 2 && server.batches_in_flight() == 2);
    let outcomes = converse(&mut server, &mut client);
    assert_eq!(outcomes, batches.map(|images| clear(&small(), &images)));
    assert!(client.batches_in_flight() == 0 && server.batches_in_flight() == 0);
    // As many as one likes, one after another.
    for round in 2..5 {
        client.start(images(2).view()).unwrap();
        let up = said(&mut client);
        assert!(up.iter().all(|message| message.position().unwrap().round == round));
        for message in answers(&mut server, &up) {
            client.handle(message, rng).unwrap();
        }
        assert_eq!(converse(&mut server, &mut client).len(), 1);
    }
    client.finish().unwrap();
    assert!(!client.can_start());
    assert_eq!(said_last(&mut client).to_string(), "Finish");
}

#[test]
fn no_third_batch_starts_and_no_session_ends_within_one() {
    let start = || {
        let (server, mut client) = opened(small(), 1);
        client.start(images(1).view()).unwrap();
        (server, client)
    };
    let (_, mut client) = start();
    client.start(images(1).view()).unwrap();
    let error = client.start(images(1).view()).unwrap_err();
    assert!(matches!(error, SessionError::Misuse(Misuse::BatchesInFlight)));
    assert!(client.is_closed());
    let (_, mut client) = start();
    let error = client.finish().unwrap_err();
    assert!(matches!(error, SessionError::Misuse(Misuse::WithinBatch)));
    assert!(client.is_closed());
    let (_, mut client) = opened(small(), 1);
    client.finish().unwrap();
    assert!(matches!(client.start(images(1).view()), Err(SessionError::Misuse(Misuse::BatchesInFlight))));
    // The server does not take one either, however it came.
    let (mut server, mut client) = start();
    client.start(images(1).view()).unwrap();
    let up = said(&mut client);
    for message in &up {
        server.handle(message.clone(), &mut rng()).unwrap();
    }
    let third = moved(&up[0], |position, _| position.round = 2);
    assert!(matches!(server.handle(third, &mut rng()), Err(SessionError::Unexpected { .. })));
}

/// A server's work comes in units whose size does not grow with the batch: where sessions take turns by the unit, one
/// of a single image is through while a large batch has hardly begun.
#[test]
fn a_small_session_does_not_wait_for_a_large_batch() {
    let rng = &mut rng();
    // A key of its own: others count their operations on the shared one at the same time.
    let key = key(7);
    let (mut large, mut large_client) = opened_with(&key, wide(64), 400);
    large_client.start(wide_images(400).view()).unwrap();
    while let Some(up) = large_client.next_message(rng).unwrap() {
        large.handle(up, rng).unwrap();
    }
    let (mut small, mut small_client) = opened(wide(64), 1);
    small_client.start(wide_images(1).view()).unwrap();
    let operations = |server: &Server| server.operations().computing.total();
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
            done = matches!(small_client.handle(down, rng).unwrap(), Some(Event::Done(_)));
        }
    }
    let so_far: u64 = turns.iter().sum();
    let mut rest = 0;
    while large.next_message(rng).unwrap().is_some() {
        rest += 1;
    }
    assert!(rest > 0, "the large batch went on after {} turns", turns.len());
    let all = large_client.plan().unwrap().segments()[0].layout.operations.total();
    let longest = turns.iter().max().unwrap();
    assert!(so_far < all && *longest < all / 4, "{so_far} of {all}, at most {longest} in a unit");
}

/// A refusal of a server: whatever went wrong, the session is over.
fn refused_by(server: &mut Server, message: Message) -> SessionError {
    let error = server.handle(message, &mut rng()).unwrap_err();
    assert!(server.is_closed() && server.key().is_none());
    let hello = said_last(&mut Client::new(Arc::clone(&KEY), 1));
    assert_eq!(server.handle(hello, &mut rng()).unwrap_err(), SessionError::Closed);
    assert_eq!(server.next_message(&mut rng()).unwrap_err(), SessionError::Closed);
    assert!(matches!(server.idle(&mut rng()), Idle::Nothing));
    error
}

fn unexpected(error: &SessionError) -> bool {
    let told = error.reason() == Some(AbortReason::UnexpectedMessage);
    matches!(error, SessionError::Unexpected { .. }) && told
}

#[test]
fn a_server_listens_to_a_hello_of_its_version_and_of_a_batch_it_takes() {
    let hello = |version: u16, batch: u32| {
        let (key, prefer) = (KEY.public_key().clone(), Preference::default());
        Message::Hello { version, key, batch, prefer }
    };
    for version in [0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, u16::MAX] {
        let error = refused_by(&mut serve(small()), hello(version, 1));
        assert_eq!(error, SessionError::Version { expected: PROTOCOL_VERSION, found: version });
        assert_eq!(error.reason(), Some(AbortReason::Version));
    }
    for batch in [0, 1025, u32::MAX] {
        let error = refused_by(&mut serve(small()), hello(PROTOCOL_VERSION, batch));
        assert!(matches!(&error, SessionError::Refused(PlanError::Option { what: "batch", .. })), "{error}");
        assert_eq!(error.reason(), Some(AbortReason::Refused));
    }
    serve(small()).handle(hello(PROTOCOL_VERSION, 1024), &mut rng()).unwrap();
    // A model that was not calibrated has no plan for anybody.
    let mut raw = ModelBuilder::new([4]).dense("a", 2).relu().dense("b", 2).build().unwrap();
    crate::tests::fill(&mut raw, 1);
    let error = refused_by(&mut serve(raw), hello(PROTOCOL_VERSION, 1));
    assert_eq!(error, SessionError::Refused(PlanError::NoRange { node: "relu1".to_owned() }));
    let (_, mut client) = opened(small(), 1);
    client.start(images(1).view()).unwrap();
    let inputs = said_last(&mut client);
    let session = inputs.position().unwrap().session;
    for early in
        [inputs, Message::Finish { session }, accept(&mut serve(small()), &mut Client::new(KEY.clone(), 1))]
    {
        let error = refused_by(&mut serve(small()), early);
        assert!(matches!(&error, SessionError::Unexpected { expected: Expected::Hello, .. }), "{error}");
    }
}

#[test]
fn a_server_refuses_tensors_out_of_place() {
    type Edit = dyn Fn(&mut Position, &mut u32);
    let edits: [&Edit; 13] = [
        &|position, _| position.session.0[15] ^= 1,
        &|position, _| position.round = 1,
        &|position, _| position.round = u32::MAX,
        &|position, _| position.part = Part::Inputs { segment: 1, term: 0 },
        &|position, _| position.part = Part::Inputs { segment: u32::MAX, term: 0 },
        &|position, _| position.part = Part::Inputs { segment: 0, term: 1 },
        &|position, _| position.part = Part::Inputs { segment: 0, term: u32::MAX },
        &|position, _| position.part = Part::Sums { segment: 0 },
        &|position, _| position.part = Part::Errors { segment: 0, term: 0 },
        &|position, _| position.part = Part::Products { segment: 0, term: 0 },
        &|position, _| position.part = Part::SumCorrections { segment: 0 },
        &|position, _| position.part = Part::Total,
        &|position, _| (position.round, position.part) = (1, Part::Inputs { segment: 1, term: 0 }),
    ];
    for (at, edit) in edits.iter().enumerate() {
        let (mut server, mut client) = opened(small(), 1);
        client.start(images(1).view()).unwrap();
        let bad = moved(&said_last(&mut client), edit);
        let found = bad.to_string();
        let error = refused_by(&mut server, bad);
        assert!(matches!(&error, SessionError::Unexpected { found: f, .. } if *f == found), "{at}: {error}");
        assert!(unexpected(&error));
    }
    // The wrong chunk of the right tensor.
    for index in [1, u32::MAX] {
        let (mut server, mut client) = opened(small(), 1);
        client.start(images(1).view()).unwrap();
        let error = refused_by(&mut server, moved(&said_last(&mut client), |_, at| *at = index));
        assert!(
            matches!(error, SessionError::Numbers { segment: 0, source: Error::Order { expected: 0, .. } }),
            "{error}"
        );
        assert_eq!(error.reason(), Some(AbortReason::BadTensor));
    }
}

#[test]
fn a_server_refuses_what_comes_twice_early_or_late() {
    // After the inputs of the first segment, which have all come.
    let ready = || {
        let (mut server, mut client) = opened(small(), 1);
        client.start(images(1).view()).unwrap();
        let up = said(&mut client);
        assert_eq!(up.len(), 1);
        server.handle(up[0].clone(), &mut rng()).unwrap();
        (server, client, up[0].clone())
    };
    let second = |message: &Message| {
        moved(message, |position, _| position.part = Part::Inputs { segment: 1, term: 0 })
    };
    let (mut server, _, inputs) = ready();
    assert!(unexpected(&refused_by(&mut server, inputs)), "twice");
    let (mut server, _, inputs) = ready();
    assert!(unexpected(&refused_by(&mut server, moved(&inputs, |_, index| *index = 1))), "one more chunk");
    let (mut server, _, inputs) = ready();
    assert!(unexpected(&refused_by(&mut server, second(&inputs))), "before the sums were sent");
    let (mut server, _, inputs) = ready();
    let session = inputs.position().unwrap().session;
    assert!(unexpected(&refused_by(&mut server, Message::Finish { session })), "within a batch");
    let (mut server, client, _) = ready();
    let hello = hello_of(client.key());
    assert!(unexpected(&refused_by(&mut server, hello)), "a second session in one");

    // After the sums of the first segment.
    let (mut server, mut client, inputs) = ready();
    let sums = server.next_message(&mut rng()).unwrap().unwrap();
    assert!(unexpected(&refused_by(&mut server, inputs)), "late");
    let (mut server, _, _) = ready();
    server.next_message(&mut rng()).unwrap().unwrap();
    assert!(unexpected(&refused_by(&mut server, sums.clone())), "its own");
    // Between two batches, only the session's own end is one.
    client.handle(sums, &mut rng()).unwrap();
    let (mut server, mut client) = opened(small(), 1);
    client.start(images(1).view()).unwrap();
    let inputs = said_last(&mut client);
    for message in answers(&mut server, std::slice::from_ref(&inputs)) {
        client.handle(message, &mut rng()).unwrap();
    }
    assert_eq!(converse(&mut server, &mut client).len(), 1);
    assert!(unexpected(&refused_by(&mut server, inputs)), "of a batch that is through");
    let (mut server, _) = opened(small(), 1);
    assert!(unexpected(&refused_by(&mut server, Message::Finish { session: SessionId([7; 16]) })));
}

#[test]
fn chunks_of_a_tensor_follow_each_other_without_anything_between() {
    let begun = || {
        let (mut server, mut client) = opened(wide(3), 200);
        client.start(wide_images(200).view()).unwrap();
        client.start(wide_images(200).view()).unwrap();
        let up = said(&mut client);
        let chunks = up.iter().filter(|message| message.position().unwrap().round == 0).count();
        assert!(chunks > 2 && up.len() == 2 * chunks);
        server.handle(up[0].clone(), &mut rng()).unwrap();
        (server, up, chunks)
    };
    let (mut server, up, chunks) = begun();
    assert!(unexpected(&refused_by(&mut server, up[chunks].clone())), "the other batch's");
    for other in [0, 2] {
        let (mut server, up, _) = begun();
        let error = refused_by(&mut server, up[other].clone());
        assert!(
            matches!(error, SessionError::Numbers { segment: 0, source: Error::Order { .. } }),
            "{error}"
        );
    }
    type Edit = dyn Fn(&mut Position, &mut u32);
    let edits: [&Edit; 4] = [
        &|position, _| position.session.0[3] ^= 1,
        &|position, _| position.round = 1,
        &|position, _| position.part = Part::Inputs { segment: 1, term: 0 },
        &|position, _| position.part = Part::Inputs { segment: 0, term: 1 },
    ];
    for edit in edits {
        let (mut server, up, _) = begun();
        assert!(unexpected(&refused_by(&mut server, moved(&up[1], edit))));
    }
    let (mut server, up, _) = begun();
    let session = up[0].position().unwrap().session;
    assert!(unexpected(&refused_by(&mut server, Message::Finish { session })));
    // In their order they are taken.
    let (mut server, up, _) = begun();
    assert!(!answers(&mut server, &up[1..]).is_empty());
}

#[test]
fn a_server_refuses_too_many_ciphertexts_and_those_under_another_key() {
    let first = |key: &Arc<SecretKey>, batch: u32| {
        let (server, mut client) = opened_with(key, small(), batch);
        client.start(images(batch as usize).view()).unwrap();
        (server, said_last(&mut client))
    };
    let (mut server, inputs) = first(&KEY, 1);
    let (_, more) = first(&KEY, 200);
    let error = refused_by(&mut server, with_chunk(&inputs, &more));
    assert!(matches!(error, SessionError::Numbers { segment: 0, source: Error::Limit { .. } }), "{error}");
    let (mut server, inputs) = first(&KEY, 1);
    let (_, foreign) = first(&key(9), 1);
    let error = refused_by(&mut server, with_chunk(&inputs, &foreign));
    assert!(matches!(error, SessionError::Numbers { source: Error::ForeignKey { .. }, .. }), "{error}");
    assert_eq!(error.reason(), Some(AbortReason::BadTensor));
}

/// A refusal of a client: whatever went wrong, the session is over.
fn refused_by_client(client: &mut Client, message: Message) -> SessionError {
    let error = client.handle(message.clone(), &mut rng()).unwrap_err();
    assert!(client.is_closed() && client.plan().is_none() && !client.can_start());
    assert_eq!(client.handle(message, &mut rng()).unwrap_err(), SessionError::Closed);
    assert_eq!(client.next_message(&mut rng()).unwrap_err(), SessionError::Closed);
    assert_eq!(client.start(images(1).view()).unwrap_err(), SessionError::Closed);
    assert_eq!(client.finish().unwrap_err(), SessionError::Closed);
    error
}

/// A session of one image at the server's first sums, and these.
fn awaiting(model: Model, key: &Arc<SecretKey>) -> (Server, Client, Message) {
    let (mut server, mut client) = opened_with(key, model, 1);
    client.start(images(1).view()).unwrap();
    let up = said(&mut client);
    let mut down = answers(&mut server, &up);
    assert_eq!(down.len(), 1);
    (server, client, down.remove(0))
}

#[test]
fn a_client_refuses_sums_out_of_place() {
    type Edit = dyn Fn(&mut Position, &mut u32);
    let edits: [&Edit; 8] = [
        &|position, _| position.session.0[0] ^= 1,
        &|position, _| position.round = 1,
        &|position, _| position.round = u32::MAX,
        &|position, _| position.part = Part::Sums { segment: 1 },
        &|position, _| position.part = Part::Sums { segment: u32::MAX },
        &|position, _| position.part = Part::Inputs { segment: 0, term: 0 },
        &|position, _| position.part = Part::Products { segment: 0, term: 0 },
        &|position, _| position.part = Part::Total,
    ];
    for (at, edit) in edits.iter().enumerate() {
        let (_, mut client, sums) = awaiting(small(), &KEY);
        let error = refused_by_client(&mut client, moved(&sums, edit));
        assert!(unexpected(&error), "{at}: {error}");
    }
    for index in [1, u32::MAX] {
        let (_, mut client, sums) = awaiting(small(), &KEY);
        let error = refused_by_client(&mut client, moved(&sums, |_, at| *at = index));
        assert!(
            matches!(error, SessionError::Numbers { segment: 0, source: Error::Order { expected: 0, .. } }),
            "{error}"
        );
    }
    // Messages of other kinds.
    let session = SessionId([0; 16]);
    let hello = hello_of(&KEY);
    let again = accept(&mut serve(small()), &mut Client::new(Arc::clone(&KEY), 1));
    for other in [hello, again, Message::Finish { session }] {
        let (_, mut client, _) = awaiting(small(), &KEY);
        assert!(unexpected(&refused_by_client(&mut client, other.clone())), "{other}");
        let (_, mut client) = opened(small(), 1);
        let error = refused_by_client(&mut client, other);
        assert!(matches!(&error, SessionError::Unexpected { expected: Expected::Nothing, .. }), "{error}");
    }
}

#[test]
fn a_client_refuses_sums_that_come_twice_early_or_late() {
    // Before anything was sent.
    let (_, _, sums) = awaiting(small(), &KEY);
    let (mut server, mut client) = opened(small(), 1);
    let early = moved(&sums, |position, _| position.session = session_of(&server));
    assert!(unexpected(&refused_by_client(&mut client, early.clone())));
    let (_, mut client) = opened(small(), 1);
    client.start(images(1).view()).unwrap();
    assert!(unexpected(&refused_by_client(&mut client, early)), "it was started, but nothing was sent");
    server.close();

    // Twice: before and after the next inputs were sent.
    for sent in [false, true] {
        let (_, mut client, sums) = awaiting(small(), &KEY);
        client.handle(sums.clone(), &mut rng()).unwrap();
        if sent {
            assert_eq!(said(&mut client).len(), 1);
        }
        assert!(unexpected(&refused_by_client(&mut client, sums)));
    }
    // After the end of the batch.
    let (mut server, mut client, sums) = awaiting(small(), &KEY);
    client.handle(sums, &mut rng()).unwrap();
    let up = said(&mut client);
    let last = answers(&mut server, &up).remove(0);
    assert!(matches!(client.handle(last.clone(), &mut rng()).unwrap(), Some(Event::Done(_))));
    assert!(unexpected(&refused_by_client(&mut client, last)));

    // When the first of two chunks of the inputs was sent.
    let images = Array2::from_elem((1, 3000), 0.5f32);
    let start = || {
        let (server, mut client) = opened(calibrated(ModelBuilder::new([3000]).dense("fc1", 3)), 1);
        client.start(images.view()).unwrap();
        (server, client)
    };
    let (mut server, mut client) = start();
    let up = said(&mut client);
    assert!(up.len() > 1);
    let sums = answers(&mut server, &up).remove(0);
    let (server, mut client) = start();
    said_last(&mut client);
    let early = moved(&sums, |position, _| position.session = session_of(&server));
    let error = refused_by_client(&mut client, early);
    assert!(matches!(&error, SessionError::Unexpected { expected: Expected::SumsOfInputs, .. }), "{error}");
}

/// The name that a server gave its session.
fn session_of(server: &Server) -> SessionId {
    // All servers of these tests draw it from the same randomness.
    assert!(server.key().is_some());
    let mut session = SessionId([0; 16]);
    rand::Rng::fill_bytes(&mut rng(), &mut session.0);
    session
}

#[test]
fn a_client_refuses_ciphertexts_that_no_honest_server_sends() {
    let (_, mut client, sums) = awaiting(small(), &KEY);
    let (mut server, mut other) = opened(small(), 200);
    other.start(images(200).view()).unwrap();
    let up = said(&mut other);
    let more = answers(&mut server, &up);
    let error = refused_by_client(&mut client, with_chunk(&sums, &more[0]));
    assert!(matches!(&error, SessionError::Unexpected { expected: Expected::SumsOfInputs, .. }), "{error}");

    let (_, mut client, sums) = awaiting(small(), &KEY);
    let (_, _, foreign) = awaiting(small(), &key(9));
    let error = refused_by_client(&mut client, with_chunk(&sums, &foreign));
    assert!(matches!(error, SessionError::Numbers { source: Error::ForeignKey { .. }, .. }), "{error}");
    assert_eq!(error.reason(), Some(AbortReason::BadTensor));

    // A number that no sum of this plan can be.
    let (_, mut client, sums) = awaiting(small(), &KEY);
    let count = client.plan().unwrap().segments()[0].ciphertexts_down();
    let (shape, format) = (Shape::from([count]), Format::integers(1 << 60).unwrap());
    let large = FixedTensor::new(shape, format, vec![1 << 60; count]).unwrap();
    let packing = Packing { batch: 1, slot_bits: 62, key: KeyBits::Bits1024 };
    let layout = SlotLayout::images(packing, gelu_tensor::Contents::Integers(format)).unwrap();
    let chunk = large.encrypt(&layout, KEY.as_ref(), &mut rng()).unwrap().chunks().remove(0);
    let forged = match sums {
        Message::Tensor { position, index, .. } => Message::Tensor { position, index, ciphertexts: chunk },
        other => panic!("{other}"),
    };
    let error = refused_by_client(&mut client, forged);
    assert!(
        matches!(error, SessionError::Numbers { segment: 0, source: Error::Plaintext { .. } }),
        "{error}"
    );
}

/// The terms of a sum go up one after another, and nothing comes down before the last.
#[test]
fn terms_of_a_segment_go_up_one_after_another() {
    // At the inputs of the segment of two terms.
    let begin = || {
        let (server, mut client, sums) = awaiting(branched(), &KEY);
        client.handle(sums, &mut rng()).unwrap();
        let up = said(&mut client);
        let names: Vec<String> = up.iter().map(Message::to_string).collect();
        assert_eq!(
            names,
            [
                "chunk 0 of the inputs of segment 1 of batch 0",
                "chunk 0 of the inputs of term 1 of segment 1 of batch 0"
            ]
        );
        (server, client, up)
    };
    let (mut server, mut client, up) = begin();
    assert!(answers(&mut server, &up[..1]).is_empty());
    let down = answers(&mut server, &up[1..]);
    let outcomes: Vec<_> =
        down.iter().filter_map(|message| client.handle(message.clone(), &mut rng()).unwrap()).collect();
    match &outcomes[..] {
        [Event::Done(outcome)] => assert_eq!(**outcome, clear(&branched(), &images(1))),
        other => panic!("{other:?}"),
    }
    for (taken, refused) in [(0, 1), (1, 0)] {
        let (mut server, _, up) = begin();
        answers(&mut server, &up[..taken]);
        assert!(unexpected(&refused_by(&mut server, up[refused].clone())), "{taken} {refused}");
    }
    for part in [
        Part::Inputs { segment: 1, term: 2 },
        Part::Inputs { segment: 0, term: 1 },
        Part::Inputs { segment: 2, term: 1 },
        Part::Inputs { segment: 1, term: u32::MAX },
    ] {
        let (mut server, _, up) = begin();
        answers(&mut server, &up[..1]);
        let bad = moved(&up[1], |position, _| position.part = part);
        assert!(unexpected(&refused_by(&mut server, bad)), "{part}");
    }
    // Sums after the first term only.
    let (_, mut client, sums) = awaiting(branched(), &KEY);
    client.handle(sums, &mut rng()).unwrap();
    client.next_message(&mut rng()).unwrap().unwrap();
    let error = refused_by_client(&mut client, down[0].clone());
    assert!(matches!(&error, SessionError::Unexpected { expected: Expected::SumsOfInputs, .. }), "{error}");
    // With a second batch in flight, its terms wait for theirs.
    let (mut server, mut client) = opened(branched(), 1);
    let batches = [images(1), Array2::from_elem((1, 4), -0.5)];
    batches.iter().for_each(|images| client.start(images.view()).unwrap());
    assert_eq!(converse(&mut server, &mut client), batches.map(|images| clear(&branched(), &images)));
}

/// A convolution that is flattened, and a dense layer: the sums lie in the same order, under another shape.
#[test]
fn terms_of_other_shapes_are_added() {
    let convolution = gelu_layers::Conv2dConfig::new(2, [2, 2]);
    let model = calibrated(ModelBuilder::new([1, 3, 3]).residual_with(
        |main| main.conv2d("a", convolution).flatten(),
        |shortcut| shortcut.flatten().dense("b", 8),
    ));
    for batch in [1, 3] {
        let (mut server, mut client) = opened(model.clone(), batch);
        let images = crate::tests::images(&model, batch as usize, 1);
        client.start(images.view()).unwrap();
        assert_eq!(client.plan().unwrap().segments().len(), 1);
        assert_eq!(converse(&mut server, &mut client), [clear(&model, &images)]);
    }
}

/// Terms of several chunks each.
#[test]
fn terms_of_several_chunks_come_out_right() {
    let model =
        calibrated(ModelBuilder::new([128]).residual_with(
            |main| main.dense("a", 90).relu().dense("b", 3),
            |shortcut| shortcut.dense("c", 3),
        ));
    let (mut server, mut client) = opened(model.clone(), 150);
    let batches = [wide_images(150), wide_images(150).map(|x| 1.0 - x)];
    batches.iter().for_each(|images| client.start(images.view()).unwrap());
    assert_eq!(converse(&mut server, &mut client), batches.map(|images| clear(&model, &images)));
}

#[test]
fn what_the_other_side_gives_up_is_over() {
    let reasons = [
        AbortReason::UnexpectedMessage,
        AbortReason::Malformed,
        AbortReason::Version,
        AbortReason::BadTensor,
        AbortReason::BadPlan,
        AbortReason::Refused,
        AbortReason::Spent { used: 7, allowed: 9 },
        AbortReason::Failed,
        AbortReason::Closed,
    ];
    for reason in reasons {
        let error = refused_by(&mut serve(small()), Message::abort(reason));
        assert_eq!(error, SessionError::Aborted(reason));
        assert_eq!(error.reason(), None, "it knows already");
        assert!(error.to_string().contains(&reason.to_string()));
        let (mut server, mut client, _) = awaiting(small(), &KEY);
        assert_eq!(refused_by(&mut server, Message::abort(reason)), SessionError::Aborted(reason));
        let mut new = Client::new(Arc::clone(&KEY), 1);
        assert_eq!(refused_by_client(&mut new, Message::abort(reason)), SessionError::Aborted(reason));
        assert_eq!(refused_by_client(&mut client, Message::abort(reason)), SessionError::Aborted(reason));
    }
    assert_eq!(SessionError::Closed.reason(), Some(AbortReason::Closed));
}

/// Lets in so many inputs, and counts how often it is asked.
#[derive(Debug)]
struct Allowance {
    left: std::sync::Mutex<usize>,
    asked: std::sync::atomic::AtomicUsize,
}

impl Gate for Allowance {
    fn admit(&self, inputs: usize) -> Result<(), Denied> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut left = self.left.lock().unwrap();
        *left = left.checked_sub(inputs).ok_or(Denied::Spent { used: 3, allowed: 3 })?;
        Ok(())
    }
}

/// A gate is asked once for a batch, whatever its segments and chunks, and the client hears why it lets no more in.
#[test]
fn a_gate_is_asked_before_every_batch_and_ends_the_session() {
    let allowance = Arc::new(Allowance { left: 3.into(), asked: 0.into() });
    let mut server = serve(small()).with_gate(Arc::clone(&allowance) as Arc<dyn Gate>);
    let mut client = Client::new(Arc::clone(&KEY), 1);
    let rng = &mut rng();
    let inputs = Array2::from_elem((1, small().input_shape().elements()), 0.5);
    let mut done = 0;
    let denied = 'session: loop {
        while let Some(message) = client.next_message(rng).unwrap() {
            if let Err(error) = server.handle(message, rng) {
                break 'session error;
            }
        }
        while let Some(message) = server.next_message(rng).unwrap() {
            match client.handle(message, rng).unwrap() {
                Some(Event::Ready) => client.start(inputs.view()).unwrap(),
                Some(Event::Done(_)) => {
                    done += 1;
                    client.start(inputs.view()).unwrap();
                }
                None => {}
            }
        }
    };
    assert_eq!((done, allowance.asked.load(std::sync::atomic::Ordering::Relaxed)), (3, 4));
    assert_eq!(denied, SessionError::Denied(Denied::Spent { used: 3, allowed: 3 }));
    assert!(server.is_closed());
    let told = Message::abort(denied.reason().unwrap());
    let error = refused_by_client(&mut client, told);
    assert_eq!(error, SessionError::Aborted(AbortReason::Spent { used: 3, allowed: 3 }));
    assert_eq!(SessionError::Denied(Denied::Unknown { problem: String::new() }).blame(), Blame::File);
}

#[test]
fn what_was_closed_stays_closed() {
    let (mut server, mut client, sums) = awaiting(small(), &KEY);
    server.close();
    client.close();
    assert!(server.is_closed() && client.is_closed());
    assert_eq!(refused_by(&mut server, sums.clone()), SessionError::Closed);
    assert_eq!(refused_by_client(&mut client, sums), SessionError::Closed);
    assert_eq!(server.operations(), crate::peer::Counted::default());
    assert_eq!((server.batches_in_flight(), client.batches_in_flight()), (0, 0));
}

#[test]
fn messages_say_what_they_are_and_where_they_belong() {
    let (_, _, sums) = awaiting(small(), &KEY);
    let hello = said_last(&mut Client::new(Arc::clone(&KEY), 1));
    let abort = Message::abort(AbortReason::Failed);
    let finish = Message::Finish { session: SessionId([1; 16]) };
    assert_eq!([&hello, &finish, &abort].map(ToString::to_string), ["Hello", "Finish", "Abort"]);
    assert!(
        [&hello, &finish, &abort]
            .iter()
            .all(|message| message.place().is_none() && message.position().is_none())
    );
    let place = sums.place().unwrap();
    assert_eq!((place.round, place.part, place.index), (0, Part::Sums { segment: 0 }, 0));
    assert!(place.ciphertexts > 0);
    // Nothing secret, and nothing large, where a log would show it.
    let (server, client) = opened(small(), 1);
    assert!(format!("{client:?}").len() < 400);
    drop(server);
}

/// A driver may keep the state machine and lend it.
#[test]
fn a_borrowed_peer_is_the_peer() {
    fn open<S: Peer<Message = Message>, C: Peer<Message = Message>>(mut server: S, mut client: C) {
        let rng = &mut rng();
        let hello = client.next_message(rng).unwrap().unwrap();
        server.handle(hello, rng).unwrap();
        let accept = server.next_message(rng).unwrap().unwrap();
        client.handle(accept, rng).unwrap();
        assert!(matches!(client.idle(rng), Idle::Nothing));
        assert_eq!(client.operations(), crate::peer::Counted::default());
        server.close();
        assert!(server.is_closed() && !client.is_closed());
        assert_eq!(server.next_message(rng).unwrap_err().reason(), Some(AbortReason::Closed));
    }
    let (mut server, mut client) = (serve(small()), Client::new(Arc::clone(&KEY), 1));
    open(&mut server, &mut client);
    assert!(server.is_closed() && client.can_start());
}

/// Factors that a pool made serve as well as one's own, but only those of the same key.
#[test]
fn a_pool_is_of_the_clients_key() {
    use gelu_tensor::paillier::RandomnessPool;
    let pool = |key: &Arc<SecretKey>| {
        let pool = RandomnessPool::new(key.clone(), 64);
        pool.make(&mut rng(), 64);
        Arc::new(pool)
    };
    let mut client = Client::new(Arc::clone(&KEY), 1);
    let foreign = client.draw_from(pool(&key(9))).unwrap_err();
    assert!(matches!(foreign, Error::ForeignKey { .. }), "{foreign}");
    client.draw_from(pool(&KEY)).unwrap();
    let mut server = serve(small());
    let accept = accept(&mut server, &mut client);
    client.handle(accept, &mut rng()).unwrap();
    assert_eq!(idle(&mut client), 0, "the pool has them");
    client.start(images(1).view()).unwrap();
    assert_eq!(converse(&mut server, &mut client), [clear(&small(), &images(1))]);
}
