//! Messages that are wrong, replayed, truncated, reordered or corrupt: each ends the session with the right error on
//! the right side, and the other side is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;
use std::thread;

use common::{KEY, key};
use gelu_net::io::session::{ClientSession, RunError, serve};
use gelu_net::io::transport::{Disconnected, InProcess};
use gelu_net::io::wire::{Limits, WireError, decode_message, encode_message};
use gelu_net::models::infer::{AbortReason, Position, SessionError, SessionId};
use gelu_net::models::plan::PlanError;
use gelu_net::prelude::*;
use ndarray::Array2;
use num_bigint::BigUint;
use rand::{SeedableRng, rngs::ChaCha20Rng};

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(9)
}

fn server_model() -> Arc<ServerModel> {
    let mut model = ModelBuilder::new([5]).dense("fc1", 3).relu().dense("fc2", 2).softmax().build().unwrap();
    model.initialise(Initializer::KaimingUniform, &mut rng());
    Arc::new(ServerModel::new(model, PlanOptions::default()))
}

fn images(count: usize) -> Array2<f32> {
    Array2::from_shape_fn((count, 5), |(i, j)| (i * 5 + j) as f32 / 20.0)
}

fn encode(message: &Message) -> Vec<u8> {
    encode_message(message).unwrap()
}

/// A server in a thread of its own, and the client's end of its transport.
struct Remote {
    end: InProcess,
    server: thread::JoinHandle<Result<(), RunError>>,
}

impl Remote {
    fn new() -> Self {
        let (end, theirs) = InProcess::pair();
        let server = thread::spawn(move || serve(&theirs, Server::new(server_model()), &mut rng()).1);
        Self { end, server }
    }

    fn send(&self, bytes: Vec<u8>) {
        self.end.send(bytes).unwrap();
    }

    fn receive(&self) -> Message {
        decode_message(&self.end.receive().unwrap(), Some(KEY.public_key()), Limits::default()).unwrap()
    }

    fn exchange(&self, message: &Message) -> Message {
        self.send(encode(message));
        self.receive()
    }

    /// The server has told us `reason` and failed; it takes nothing more.
    fn fails(self, reason: AbortReason) -> RunError {
        assert!(matches!(self.receive(), Message::Abort { reason: found } if found == reason));
        let error = self.server.join().unwrap().unwrap_err();
        assert_eq!(self.end.receive().unwrap_err(), Disconnected);
        error
    }

    /// A session up to the first activations, which are not sent yet.
    fn open(batch: u32) -> (Self, Client, Message) {
        let remote = Self::new();
        let (mut client, hello) = Client::new(Arc::clone(&KEY), batch);
        assert!(matches!(client.handle(remote.exchange(&hello), &mut rng()), Ok(Event::Ready)));
        let start = client.start(images(batch as usize).view(), &mut rng()).unwrap();
        (remote, client, start)
    }
}

fn next(client: &mut Client, message: Message) -> Message {
    match client.handle(message, &mut rng()).unwrap() {
        Event::Send(message) => *message,
        other => panic!("expected another message, found {other:?}"),
    }
}

fn unexpected(error: &RunError, wanted: &str, received: &str) {
    match error {
        RunError::Session(SessionError::Unexpected { expected, found }) => {
            assert!(expected.contains(wanted) && found.contains(received), "{error}");
        }
        _ => panic!("{error:?}"),
    }
}

fn at(message: &Message, edit: impl FnOnce(&mut Position)) -> Message {
    let mut message = message.clone();
    match &mut message {
        Message::Activations { position, .. } | Message::Sums { position, .. } => edit(position),
        _ => panic!("no tensor"),
    }
    message
}

#[test]
fn an_honest_session_runs_many_batches() {
    let (remote, mut client, mut up) = Remote::open(2);
    for round in 0..3 {
        let second = next(&mut client, remote.exchange(&up));
        let done = client.handle(remote.exchange(&second), &mut rng()).unwrap();
        assert!(matches!(done, Event::Done(_)), "round {round}");
        up = client.start(images(2).view(), &mut rng()).unwrap();
    }
    drop(client);
    let (remote, mut client, up) = Remote::open(1);
    let second = next(&mut client, remote.exchange(&up));
    client.handle(remote.exchange(&second), &mut rng()).unwrap();
    let finish = client.finish().unwrap();
    assert!(client.is_closed());
    remote.send(encode(&finish));
    assert_eq!(remote.server.join().unwrap(), Ok(()));
}

/// What the server does with one wrong message in place of the first activations.
fn server_on(bad: impl FnOnce(&Message) -> Vec<u8>, reason: AbortReason) -> RunError {
    let (remote, _, start) = Remote::open(1);
    remote.send(bad(&start));
    remote.fails(reason)
}

#[test]
fn the_server_refuses_tensors_of_another_place() {
    let wrong_step = |m: &Message| encode(&at(m, |position| position.step = 1));
    let wrong_round = |m: &Message| encode(&at(m, |position| position.round = 1));
    let wrong_session = |m: &Message| encode(&at(m, |position| position.session = SessionId([7; 16])));
    for bad in [&wrong_step as &dyn Fn(&Message) -> Vec<u8>, &wrong_round, &wrong_session] {
        let error = server_on(bad, AbortReason::UnexpectedMessage);
        unexpected(&error, "Activations of the next step in this session", "Activations of batch");
    }
}

#[test]
fn the_server_refuses_messages_of_the_wrong_kind() {
    let sums = |message: &Message| match message.clone() {
        Message::Activations { position, tensor } => encode(&Message::Sums { position, tensor }),
        _ => panic!("no activations"),
    };
    unexpected(&server_on(sums, AbortReason::UnexpectedMessage), "Activations", "Sums of batch 0, step 0");
    let hello = |_: &Message| encode(&Client::new(Arc::clone(&KEY), 1).1);
    unexpected(&server_on(hello, AbortReason::UnexpectedMessage), "Activations", "Hello");
    let finish = |_: &Message| encode(&Message::Finish { session: SessionId([7; 16]) });
    unexpected(&server_on(finish, AbortReason::UnexpectedMessage), "Activations", "Finish");

    let remote = Remote::new();
    remote.send(encode(&Message::Finish { session: SessionId([0; 16]) }));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "Hello", "Finish");
}

#[test]
fn the_server_refuses_a_finish_within_a_batch() {
    let (remote, mut client, start) = Remote::open(1);
    let Message::Activations { position, .. } = &start else { panic!("no activations") };
    let session = position.session;
    next(&mut client, remote.exchange(&start));
    remote.send(encode(&Message::Finish { session }));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "Activations of the next step", "Finish");
}

#[test]
fn the_server_refuses_a_replay() {
    let (remote, mut client, start) = Remote::open(1);
    let second = next(&mut client, remote.exchange(&start));
    remote.send(encode(&start));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "next step", "batch 0, step 0");

    // The last message of a batch, in the next one.
    let (remote, mut client, start) = Remote::open(1);
    let second = (second, next(&mut client, remote.exchange(&start))).1;
    remote.exchange(&second);
    remote.send(encode(&second));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "next step", "batch 0, step 1");
}

#[test]
fn the_server_refuses_tensors_that_are_not_the_plans() {
    let other = |message: &Message| match message.clone() {
        Message::Activations { position, .. } => {
            let values = FixedTensor::new(Shape::from([5]), Format::new(3, 2).unwrap(), vec![1; 5]).unwrap();
            let tensor = values.encrypt(SlotLayout::one_value(20), &**KEY, &mut rng()).unwrap();
            encode(&Message::Activations { position, tensor })
        }
        _ => panic!("no activations"),
    };
    let error = server_on(other, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Session(SessionError::Tensor { step: 0, .. })), "{error:?}");
}

#[test]
fn the_server_refuses_another_key() {
    let foreign = |message: &Message| match message.clone() {
        Message::Activations { position, tensor } => {
            let values = tensor.decrypt(&KEY).unwrap();
            let tensor = values.encrypt(tensor.layout(), &*key(2), &mut rng()).unwrap();
            encode(&Message::Activations { position, tensor })
        }
        _ => panic!("no activations"),
    };
    let error = server_on(foreign, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Wire(WireError::ForeignKey { .. })), "{error:?}");

    // One that skips the wire format gets no further.
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let accept = server.handle(hello, &mut rng()).unwrap().unwrap();
    client.handle(accept, &mut rng()).unwrap();
    let start = client.start(images(1).view(), &mut rng()).unwrap();
    let Message::Activations { position, tensor } = start else { panic!("no activations") };
    let values = tensor.decrypt(&KEY).unwrap();
    let tensor = values.encrypt(tensor.layout(), &*key(2), &mut rng()).unwrap();
    let error = server.handle(Message::Activations { position, tensor }, &mut rng()).unwrap_err();
    assert!(matches!(error, SessionError::Tensor { step: 0, .. }), "{error:?}");
    assert!(server.is_closed() && server.key().is_none());
}

#[test]
fn the_server_refuses_what_it_cannot_decode() {
    let cut = |message: &Message| {
        let mut bytes = encode(message);
        bytes.pop();
        bytes
    };
    let error = server_on(cut, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Length { .. })), "{error:?}");
    let magic = |message: &Message| {
        let mut bytes = encode(message);
        bytes[0] ^= 1;
        bytes
    };
    let error = server_on(magic, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Magic { .. })), "{error:?}");
    let header = |message: &Message| {
        let mut bytes = encode(message);
        bytes[18] = b'[';
        bytes
    };
    let error = server_on(header, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Header { .. })), "{error:?}");
    let zero = |message: &Message| {
        let mut bytes = encode(message);
        let start = bytes.len() - 256;
        bytes[start..].fill(0);
        bytes
    };
    let error = server_on(zero, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Wire(WireError::Content(_))), "{error:?}");
}

#[test]
fn the_server_refuses_what_it_does_not_offer() {
    for batch in [0, 1025] {
        let remote = Remote::new();
        remote.send(encode(&Client::new(Arc::clone(&KEY), batch).1));
        let error = remote.fails(AbortReason::Refused);
        assert!(
            matches!(
                error,
                RunError::Session(SessionError::Refused(PlanError::Option { what: "batch", .. }))
            ),
            "{error:?}"
        );
    }
    let remote = Remote::new();
    remote.send(encode(&Message::Hello { version: 2, key: KEY.public_key().clone(), batch: 1 }));
    let error = remote.fails(AbortReason::Version);
    assert_eq!(error, RunError::Session(SessionError::Version { expected: 1, found: 2 }));
    let remote = Remote::new();
    let (_, mut client, start) = Remote::open(1);
    remote.send(encode(&start));
    assert_eq!(remote.fails(AbortReason::Malformed), RunError::Wire(WireError::NoKey));
    let error = client.handle(Message::Abort { reason: AbortReason::Malformed }, &mut rng()).unwrap_err();
    assert_eq!(error, SessionError::Aborted(AbortReason::Malformed));
}

#[test]
fn an_abort_ends_the_server_without_a_word() {
    let (remote, _, _) = Remote::open(1);
    remote.send(encode(&Message::Abort { reason: AbortReason::BadPlan }));
    assert_eq!(remote.end.receive().unwrap_err(), Disconnected);
    let error = remote.server.join().unwrap().unwrap_err();
    assert_eq!(error, RunError::Session(SessionError::Aborted(AbortReason::BadPlan)));

    let (remote, _, _) = Remote::open(1);
    drop(remote.end);
    assert_eq!(remote.server.join().unwrap().unwrap_err(), RunError::Disconnected(Disconnected));
}

#[test]
fn a_closed_session_takes_nothing() {
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    client.handle(server.handle(hello.clone(), &mut rng()).unwrap().unwrap(), &mut rng()).unwrap();
    let start = client.start(images(1).view(), &mut rng()).unwrap();
    assert!(server.handle(hello.clone(), &mut rng()).is_err());
    assert!(server.is_closed());
    for message in [start, hello, Message::Abort { reason: AbortReason::Closed }] {
        assert_eq!(server.handle(message, &mut rng()).unwrap_err(), SessionError::Closed);
    }

    // After an orderly end too.
    let (mut server, mut client) = (Server::new(server_model()), Client::new(Arc::clone(&KEY), 1));
    let accept = server.handle(client.1.clone(), &mut rng()).unwrap().unwrap();
    client.0.handle(accept.clone(), &mut rng()).unwrap();
    let finish = client.0.finish().unwrap();
    assert!(server.handle(finish.clone(), &mut rng()).unwrap().is_none());
    assert_eq!(server.handle(finish, &mut rng()).unwrap_err(), SessionError::Closed);
    assert_eq!(client.0.handle(accept, &mut rng()).unwrap_err(), SessionError::Closed);
    assert_eq!(client.0.finish().unwrap_err(), SessionError::Closed);
    assert_eq!(client.0.start(images(1).view(), &mut rng()).unwrap_err(), SessionError::Closed);
}

/// What a client does when the server's reply to its first activations is tampered with, and what the server hears.
fn client_on(tamper: impl FnOnce(&Message, &Message) -> Vec<u8> + Send, told: AbortReason) -> RunError {
    let (client_end, server_end) = InProcess::pair();
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let mut server = Server::new(server_model());
            let receive = |server: &Server| {
                decode_message(&server_end.receive().unwrap(), server.key(), Limits::default()).unwrap()
            };
            let hello = receive(&server);
            let accept = server.handle(hello, &mut rng()).unwrap().unwrap();
            server_end.send(encode(&accept)).unwrap();
            let activations = receive(&server);
            let sums = server.handle(activations.clone(), &mut rng()).unwrap().unwrap();
            server_end.send(tamper(&activations, &sums)).unwrap();
            let last = receive(&server);
            assert!(matches!(last, Message::Abort { reason } if reason == told), "{last:?}");
            let error = server.handle(last, &mut rng()).unwrap_err();
            assert_eq!(error, SessionError::Aborted(told));
            assert!(server.is_closed());
        });
        let client = Client::new(Arc::clone(&KEY), 1);
        let mut session = ClientSession::open(&client_end, client, &mut rng()).unwrap();
        let error = session.infer(images(1).view(), &mut rng()).unwrap_err();
        assert!(session.client().is_closed());
        let again = session.infer(images(1).view(), &mut rng()).unwrap_err();
        assert_eq!(again, RunError::Session(SessionError::Closed));
        serving.join().unwrap();
        error
    })
}

#[test]
fn the_client_refuses_messages_out_of_place() {
    let step = |_: &Message, sums: &Message| encode(&at(sums, |position| position.step = 1));
    let round = |_: &Message, sums: &Message| encode(&at(sums, |position| position.round = 3));
    let session =
        |_: &Message, sums: &Message| encode(&at(sums, |position| position.session = SessionId([0; 16])));
    let activations = |activations: &Message, _: &Message| encode(activations);
    let hello = |_: &Message, _: &Message| encode(&Client::new(Arc::clone(&KEY), 1).1);
    for (bad, found) in [
        (&step as &(dyn Fn(&Message, &Message) -> Vec<u8> + Sync), "Sums of batch 0, step 1"),
        (&round, "Sums of batch 3, step 0"),
        (&session, "Sums of batch 0, step 0"),
        (&activations, "Activations of batch 0, step 0"),
        (&hello, "Hello"),
    ] {
        let error = client_on(bad, AbortReason::UnexpectedMessage);
        unexpected(&error, "Sums of the current step in this session", found);
    }
}

#[test]
fn the_client_refuses_what_is_no_sum() {
    let cut = |_: &Message, sums: &Message| encode(sums)[..200].to_vec();
    let error = client_on(cut, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Length { .. })), "{error:?}");

    let swapped = |activations: &Message, sums: &Message| match (activations.clone(), sums.clone()) {
        (Message::Activations { tensor, .. }, Message::Sums { position, .. }) => {
            encode(&Message::Sums { position, tensor })
        }
        _ => panic!("no tensors"),
    };
    let error = client_on(swapped, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Session(SessionError::Tensor { step: 0, .. })), "{error:?}");

    // A flipped bit makes another ciphertext, whose plaintext is a random number of 1,024 bits.
    let flipped = |_: &Message, sums: &Message| {
        let mut bytes = encode(sums);
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
        bytes
    };
    let error = client_on(flipped, AbortReason::BadTensor);
    // It is the last ciphertext; how many there are depends on the server's vectors.
    let RunError::Session(SessionError::Numbers { step: 0, source }) = error else { panic!("{error:?}") };
    assert!(matches!(source, gelu_net::tensor::Error::Plaintext { .. }), "{source:?}");
}

/// The sums are right, but re-randomised by a number of the server's own choice in place of a power of h: a client with a
/// subgroup key could not read them. Which of the ciphertexts it was the server is not told.
#[test]
fn the_client_refuses_random_factors_outside_its_keys_group() {
    let parameters = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };
    let key = Arc::new(SecretKey::generate(parameters, &mut rng()).unwrap());
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&key), 1);
    client.handle(server.handle(hello, &mut rng()).unwrap().unwrap(), &mut rng()).unwrap();
    let start = client.start(images(1).view(), &mut rng()).unwrap();
    let sums = server.handle(start, &mut rng()).unwrap().unwrap();
    let Message::Sums { position, tensor } = sums else { panic!("no sums") };

    let (public, mut bytes) = (key.public_key(), tensor.encode_ciphertexts());
    let n = BigUint::from_bytes_le(&public.n_le_bytes());
    let square = &n * &n;
    let width = public.ciphertext_bytes();
    let other = BigUint::from_bytes_le(&bytes[..width]) * BigUint::from(2u8).modpow(&n, &square) % square;
    bytes[..width].fill(0);
    let other = other.to_bytes_le();
    bytes[..other.len()].copy_from_slice(&other);
    let tensor = EncTensor::decode(public, tensor.header(), &bytes).unwrap();
    let error = client.handle(Message::Sums { position, tensor }, &mut rng()).unwrap_err();
    assert_eq!(error, SessionError::Numbers { step: 0, source: gelu_net::tensor::Error::Randomness });
    assert_eq!(error.reason(), AbortReason::BadTensor);
    assert!(client.is_closed());
}

#[test]
fn the_client_refuses_a_plan_that_does_not_hold_together() {
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let accept = server.handle(hello, &mut rng()).unwrap().unwrap();
    let Message::Accept { session, mut plan } = accept else { panic!("not accepted") };
    plan.segments[1].down.slot_bits -= 1;
    let error = client.handle(Message::Accept { session, plan }, &mut rng()).unwrap_err();
    assert!(matches!(error, SessionError::Plan(PlanError::Segment { .. })), "{error:?}");
    assert_eq!(error.reason(), AbortReason::BadPlan);
    assert!(client.is_closed());
}
