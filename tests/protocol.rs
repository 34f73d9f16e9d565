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
use gelu_net::models::infer::{AbortReason, Outcome, Position, SessionError, SessionId};
use gelu_net::models::plan::PlanError;
use gelu_net::prelude::*;
use gelu_net::tensor::{EncChunk, EncTensorHeader};
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

    /// The server has told us `reason` and failed; it takes nothing more.
    fn fails(self, reason: AbortReason) -> RunError {
        assert!(matches!(self.receive(), Message::Abort { reason: found } if found == reason));
        let error = self.server.join().unwrap().unwrap_err();
        assert_eq!(self.end.receive().unwrap_err(), Disconnected);
        error
    }

    /// A session up to the first activations, which are not sent yet.
    fn open(batch: u32) -> (Self, Client) {
        let remote = Self::new();
        let (mut client, hello) = Client::new(Arc::clone(&KEY), batch);
        remote.send(encode(&hello));
        assert!(matches!(client.handle(remote.receive()), Ok(Some(Event::Ready))));
        client.start(images(batch as usize).view()).unwrap();
        (remote, client)
    }

    /// Sends all that the client has to say.
    fn send_all(&self, client: &mut Client) -> Vec<Message> {
        let messages = said(client);
        messages.iter().for_each(|message| self.send(encode(message)));
        messages
    }

    /// Carries messages to and fro until the server has answered everything.
    fn answer(&self, client: &mut Client) -> Option<Outcome> {
        loop {
            match client.handle(self.receive()).unwrap() {
                Some(Event::Done(outcome)) => return Some(*outcome),
                _ if client.batches_under_way() == 0 => return None,
                _ => {}
            }
            let next = said(client);
            next.iter().for_each(|message| self.send(encode(message)));
        }
    }
}

/// All that the client has to say now: of these models one beginning and one chunk a tensor.
fn said(client: &mut Client) -> Vec<Message> {
    std::iter::from_fn(|| client.next_message(&mut rng()).unwrap()).collect()
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
        Message::Activations { position, .. }
        | Message::Sums { position, .. }
        | Message::Chunk { position, .. } => edit(position),
        _ => panic!("no tensor"),
    }
    message
}

/// The same chunk under another index.
fn with_index(message: &Message, index: u32) -> Message {
    match message.clone() {
        Message::Chunk { position, ciphertexts, .. } => Message::Chunk { position, index, ciphertexts },
        other => panic!("no chunk: {other}"),
    }
}

#[test]
fn an_honest_session_runs_many_batches() {
    let (remote, mut client) = Remote::open(2);
    for round in 0..3 {
        remote.send_all(&mut client);
        assert!(remote.answer(&mut client).is_some(), "round {round}");
        client.start(images(2).view()).unwrap();
    }
    drop(client);
    let (remote, mut client) = Remote::open(1);
    remote.send_all(&mut client);
    remote.answer(&mut client).unwrap();
    let finish = client.finish().unwrap();
    assert!(client.is_closed());
    remote.send(encode(&finish));
    assert_eq!(remote.server.join().unwrap(), Ok(()));
}

/// What the server does with wrong messages in place of the first activations: their beginning, and a chunk.
fn server_on(bad: impl FnOnce([&Message; 2]) -> Vec<Vec<u8>>, reason: AbortReason) -> RunError {
    let (remote, mut client) = Remote::open(1);
    let messages = said(&mut client);
    bad([&messages[0], &messages[1]]).into_iter().for_each(|bytes| remote.send(bytes));
    remote.fails(reason)
}

#[test]
fn the_server_refuses_tensors_of_another_place() {
    let edits: [fn(&mut Position); 3] = [
        |position| position.step = 1,
        |position| position.round = 1,
        |position| position.session = SessionId([7; 16]),
    ];
    for edit in edits {
        let begun = |[start, _]: [&Message; 2]| vec![encode(&at(start, edit))];
        let error = server_on(begun, AbortReason::UnexpectedMessage);
        unexpected(&error, "Activations of the next step in this session", "Activations of batch");
        let chunk = |[start, chunk]: [&Message; 2]| vec![encode(start), encode(&at(chunk, edit))];
        let error = server_on(chunk, AbortReason::UnexpectedMessage);
        unexpected(&error, "the next Chunk of the tensor that was begun", "Chunk 0 of batch");
    }
}

/// A tensor is its beginning and then its chunks, each once and in order, without anything between.
#[test]
fn the_server_refuses_chunks_out_of_order() {
    let early = |[_, chunk]: [&Message; 2]| vec![encode(chunk)];
    let error = server_on(early, AbortReason::UnexpectedMessage);
    unexpected(&error, "Activations of the next step", "Chunk 0 of batch 0, step 0");

    let begun_twice = |[start, _]: [&Message; 2]| vec![encode(start), encode(start)];
    let error = server_on(begun_twice, AbortReason::UnexpectedMessage);
    unexpected(&error, "the next Chunk", "Activations of batch 0, step 0");

    let finish = |[start, _]: [&Message; 2]| {
        let session = start.position().unwrap().session;
        vec![encode(start), encode(&Message::Finish { session })]
    };
    unexpected(&server_on(finish, AbortReason::UnexpectedMessage), "the next Chunk", "Finish");

    for index in [1, u32::MAX] {
        let skipped = |[start, chunk]: [&Message; 2]| vec![encode(start), encode(&with_index(chunk, index))];
        let error = server_on(skipped, AbortReason::BadTensor);
        let (what, found) = ("index of the next chunk", index as usize);
        let source = gelu_net::tensor::Error::Count { what, expected: 0, found };
        assert_eq!(error, RunError::Session(SessionError::Numbers { step: 0, source }));
    }
}

/// Chunks of one ciphertext are as good; the same one again, or one more than the tensor has, is not.
#[test]
fn the_server_refuses_chunks_too_many() {
    let split = |chunk: &Message| -> Vec<Message> {
        let Message::Chunk { position, ciphertexts, .. } = chunk else { panic!("no chunk") };
        let (key, bytes) = (KEY.public_key(), ciphertexts.encode());
        let one = |(index, bytes)| {
            let ciphertexts = EncChunk::decode(key, bytes).unwrap();
            Message::Chunk { position: *position, index, ciphertexts }
        };
        (0..).zip(bytes.chunks(key.ciphertext_bytes())).map(one).collect()
    };
    let (remote, mut client) = Remote::open(1);
    let messages = said(&mut client);
    let ones = split(&messages[1]);
    assert!(ones.len() > 2);
    messages[..1].iter().chain(&ones).for_each(|message| remote.send(encode(message)));
    assert!(remote.answer(&mut client).is_some());

    let twice = |[start, chunk]: [&Message; 2]| {
        let first = encode(&split(chunk)[0]);
        vec![encode(start), first.clone(), first]
    };
    let error = server_on(twice, AbortReason::BadTensor);
    let source = gelu_net::tensor::Error::Count { what: "index of the next chunk", expected: 1, found: 0 };
    assert_eq!(error, RunError::Session(SessionError::Numbers { step: 0, source }));

    let over = |[start, chunk]: [&Message; 2]| {
        let first = encode(&split(chunk)[0]);
        vec![encode(start), first, encode(&with_index(chunk, 1))]
    };
    let error = server_on(over, AbortReason::BadTensor);
    let (expected, found) = (ones.len(), ones.len() + 1);
    let source = gelu_net::tensor::Error::Count { what: "ciphertexts of a tensor", expected, found };
    assert_eq!(error, RunError::Session(SessionError::Numbers { step: 0, source }));

    let after =
        |[start, chunk]: [&Message; 2]| vec![encode(start), encode(chunk), encode(&with_index(chunk, 1))];
    let (remote, mut client) = Remote::open(1);
    let messages = said(&mut client);
    after([&messages[0], &messages[1]]).into_iter().for_each(|bytes| remote.send(bytes));
    // Sums may have been sent before the last chunk was read.
    while !matches!(remote.receive(), Message::Abort { reason: AbortReason::UnexpectedMessage }) {}
    let error = remote.server.join().unwrap().unwrap_err();
    unexpected(&error, "Activations of the next step", "Chunk 1 of batch 0, step 0");
}

/// Two batches may be under way, and no third.
#[test]
fn the_server_refuses_a_third_batch_under_way() {
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    let rng = &mut rng();
    server.handle(hello, rng).unwrap();
    client.handle(server.next_message(rng).unwrap().unwrap()).unwrap();
    client.start(images(1).view()).unwrap();
    client.start(images(1).view()).unwrap();
    assert!(!client.may_start());
    let messages = said(&mut client);
    assert_eq!(messages.len(), 4);
    messages.iter().for_each(|message| server.handle(message.clone(), rng).unwrap());
    assert_eq!(server.batches_under_way(), 2);
    let third = at(&messages[2], |position| position.round = 2);
    let error = server.handle(third, rng).unwrap_err();
    unexpected(&error.into(), "Activations of the next step", "Activations of batch 2, step 0");
    assert!(server.is_closed());
    let error = client.start(images(1).view()).unwrap_err();
    unexpected(&error.into(), "the end of a batch under way first", "the start of a batch");
    assert!(client.is_closed());
}

#[test]
fn the_server_refuses_messages_of_the_wrong_kind() {
    let sums = |[start, _]: [&Message; 2]| match start.clone() {
        Message::Activations { position, header } => vec![encode(&Message::Sums { position, header })],
        _ => panic!("no activations"),
    };
    unexpected(&server_on(sums, AbortReason::UnexpectedMessage), "Activations", "Sums of batch 0, step 0");
    let hello = |_: [&Message; 2]| vec![encode(&Client::new(Arc::clone(&KEY), 1).1)];
    unexpected(&server_on(hello, AbortReason::UnexpectedMessage), "Activations", "Hello");
    let finish = |_: [&Message; 2]| vec![encode(&Message::Finish { session: SessionId([7; 16]) })];
    unexpected(&server_on(finish, AbortReason::UnexpectedMessage), "Activations", "Finish");

    let remote = Remote::new();
    remote.send(encode(&Message::Finish { session: SessionId([0; 16]) }));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "Hello", "Finish");
}

/// Receives until the client has the sums of a whole tensor and goes on.
fn next_activations(remote: &Remote, client: &mut Client) -> Vec<Message> {
    loop {
        client.handle(remote.receive()).unwrap();
        let next = said(client);
        if !next.is_empty() {
            return next;
        }
    }
}

#[test]
fn the_server_refuses_a_finish_within_a_batch() {
    let (remote, mut client) = Remote::open(1);
    let session = remote.send_all(&mut client)[0].position().unwrap().session;
    next_activations(&remote, &mut client);
    remote.send(encode(&Message::Finish { session }));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "Activations of the next step", "Finish");
}

#[test]
fn the_server_refuses_a_replay() {
    let (remote, mut client) = Remote::open(1);
    let first = remote.send_all(&mut client);
    next_activations(&remote, &mut client);
    remote.send(encode(&first[0]));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "next step", "batch 0, step 0");

    // The last message of a batch, in the next one.
    let (remote, mut client) = Remote::open(1);
    remote.send_all(&mut client);
    let second = next_activations(&remote, &mut client);
    second.iter().for_each(|message| remote.send(encode(message)));
    remote.answer(&mut client).unwrap();
    remote.send(encode(&second[0]));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), "next step", "batch 0, step 1");
}

#[test]
fn the_server_refuses_tensors_that_are_not_the_plans() {
    type Edit = fn(&mut EncTensorHeader);
    let edits: [Edit; 4] = [
        |header| header.batch = 2,
        |header| header.batch = usize::MAX,
        |header| header.format = Format::new(3, 2).unwrap(),
        |header| header.layout.slot_bits += 1,
    ];
    for edit in edits {
        let other = |[start, _]: [&Message; 2]| match start.clone() {
            Message::Activations { position, mut header } => {
                edit(&mut header);
                vec![encode(&Message::Activations { position, header })]
            }
            _ => panic!("no activations"),
        };
        let error = server_on(other, AbortReason::BadTensor);
        assert!(matches!(error, RunError::Session(SessionError::Tensor { step: 0, .. })), "{error:?}");
    }
}

/// A chunk as it comes, under another key.
fn foreign(chunk: &Message) -> Message {
    let Message::Chunk { position, index, ciphertexts } = chunk else { panic!("no chunk") };
    let count = ciphertexts.ciphertext_count();
    let values = FixedTensor::new(Shape::from([count]), Format::new(3, 2).unwrap(), vec![1; count]).unwrap();
    let tensor = values.encrypt(SlotLayout::one_value(20), &*key(2), &mut rng()).unwrap();
    let ciphertexts = tensor.chunks().next().unwrap();
    Message::Chunk { position: *position, index: *index, ciphertexts }
}

#[test]
fn the_server_refuses_another_key() {
    let bad = |[start, chunk]: [&Message; 2]| vec![encode(start), encode(&foreign(chunk))];
    let error = server_on(bad, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Wire(WireError::ForeignKey { .. })), "{error:?}");

    // One that skips the wire format gets no further.
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    server.handle(hello, &mut rng()).unwrap();
    client.handle(server.next_message(&mut rng()).unwrap().unwrap()).unwrap();
    client.start(images(1).view()).unwrap();
    let messages = said(&mut client);
    server.handle(messages[0].clone(), &mut rng()).unwrap();
    let error = server.handle(foreign(&messages[1]), &mut rng()).unwrap_err();
    let SessionError::Numbers { step: 0, source } = error else { panic!("{error:?}") };
    assert!(matches!(source, gelu_net::tensor::Error::ForeignKey { .. }), "{source:?}");
    assert!(server.is_closed() && server.key().is_none());
}

#[test]
fn the_server_refuses_what_it_cannot_decode() {
    let cut = |[start, chunk]: [&Message; 2]| {
        let mut bytes = encode(chunk);
        bytes.pop();
        vec![encode(start), bytes]
    };
    let error = server_on(cut, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Length { .. })), "{error:?}");
    let magic = |[start, _]: [&Message; 2]| {
        let mut bytes = encode(start);
        bytes[0] ^= 1;
        vec![bytes]
    };
    let error = server_on(magic, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Magic { .. })), "{error:?}");
    let header = |[start, _]: [&Message; 2]| {
        let mut bytes = encode(start);
        bytes[18] = b'[';
        vec![bytes]
    };
    let error = server_on(header, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Header { .. })), "{error:?}");
    let zero = |[start, chunk]: [&Message; 2]| {
        let mut bytes = encode(chunk);
        let zeros = bytes.len() - 256;
        bytes[zeros..].fill(0);
        vec![encode(start), bytes]
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
    remote.send(encode(&Message::Hello { version: 1, key: KEY.public_key().clone(), batch: 1 }));
    let error = remote.fails(AbortReason::Version);
    assert_eq!(error, RunError::Session(SessionError::Version { expected: 2, found: 1 }));
    let remote = Remote::new();
    let (_other, mut client) = Remote::open(1);
    remote.send(encode(&said(&mut client)[1]));
    assert_eq!(remote.fails(AbortReason::Malformed), RunError::Wire(WireError::NoKey));
    let error = client.handle(Message::Abort { reason: AbortReason::Malformed }).unwrap_err();
    assert_eq!(error, SessionError::Aborted(AbortReason::Malformed));
}

#[test]
fn an_abort_ends_the_server_without_a_word() {
    let (remote, _) = Remote::open(1);
    remote.send(encode(&Message::Abort { reason: AbortReason::BadPlan }));
    assert_eq!(remote.end.receive().unwrap_err(), Disconnected);
    let error = remote.server.join().unwrap().unwrap_err();
    assert_eq!(error, RunError::Session(SessionError::Aborted(AbortReason::BadPlan)));

    let (remote, _) = Remote::open(1);
    drop(remote.end);
    assert_eq!(remote.server.join().unwrap().unwrap_err(), RunError::Disconnected(Disconnected));
}

#[test]
fn a_closed_session_takes_nothing() {
    let rng = &mut rng();
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    server.handle(hello.clone(), rng).unwrap();
    client.handle(server.next_message(rng).unwrap().unwrap()).unwrap();
    client.start(images(1).view()).unwrap();
    let start = client.next_message(rng).unwrap().unwrap();
    assert!(server.handle(hello.clone(), rng).is_err());
    assert!(server.is_closed());
    for message in [start, hello, Message::Abort { reason: AbortReason::Closed }] {
        assert_eq!(server.handle(message, rng).unwrap_err(), SessionError::Closed);
    }
    assert_eq!(server.next_message(rng).unwrap_err(), SessionError::Closed);

    // After an orderly end too.
    let (mut server, mut client) = (Server::new(server_model()), Client::new(Arc::clone(&KEY), 1));
    server.handle(client.1.clone(), rng).unwrap();
    let accept = server.next_message(rng).unwrap().unwrap();
    client.0.handle(accept.clone()).unwrap();
    let finish = client.0.finish().unwrap();
    server.handle(finish.clone(), rng).unwrap();
    assert!(server.is_closed());
    assert_eq!(server.handle(finish, rng).unwrap_err(), SessionError::Closed);
    assert_eq!(client.0.handle(accept).unwrap_err(), SessionError::Closed);
    assert_eq!(client.0.finish().unwrap_err(), SessionError::Closed);
    assert_eq!(client.0.start(images(1).view()).unwrap_err(), SessionError::Closed);
    assert_eq!(client.0.next_message(rng).unwrap_err(), SessionError::Closed);
}

/// What a client does when the server's reply to its first activations is tampered with, and what the server hears.
/// `tamper` gets the beginning and the chunk of the activations, and of the sums.
fn client_on(
    tamper: impl FnOnce([&Message; 2], [&Message; 2]) -> Vec<Vec<u8>> + Send,
    told: AbortReason,
) -> RunError {
    let (client_end, server_end) = InProcess::pair();
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let rng = &mut rng();
            let mut server = Server::new(server_model());
            let receive = |server: &Server| {
                decode_message(&server_end.receive().unwrap(), server.key(), Limits::default()).unwrap()
            };
            let hello = receive(&server);
            server.handle(hello, rng).unwrap();
            server_end.send(encode(&server.next_message(rng).unwrap().unwrap())).unwrap();
            let up = [receive(&server), receive(&server)];
            up.iter().for_each(|message| server.handle(message.clone(), rng).unwrap());
            let down = [(); 2].map(|()| server.next_message(rng).unwrap().unwrap());
            let [[start, chunk], [sums, sums_chunk]] = [&up, &down];
            for bytes in tamper([start, chunk], [sums, sums_chunk]) {
                server_end.send(bytes).unwrap();
            }
            let last = receive(&server);
            assert!(matches!(last, Message::Abort { reason } if reason == told), "{last:?}");
            let error = server.handle(last, rng).unwrap_err();
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
    type Tamper = fn([&Message; 2], [&Message; 2]) -> Vec<Vec<u8>>;
    let sums = "Sums of the current step in this session";
    let chunk = "the next Chunk of the sums that were begun";
    let cases: [(Tamper, &str, &str); 9] = [
        (|_, [sums, _]| vec![encode(&at(sums, |p| p.step = 1))], sums, "Sums of batch 0, step 1"),
        (|_, [sums, _]| vec![encode(&at(sums, |p| p.round = 3))], sums, "Sums of batch 3, step 0"),
        (
            |_, [sums, _]| vec![encode(&at(sums, |p| p.session = SessionId([0; 16])))],
            sums,
            "Sums of batch 0, step 0",
        ),
        (|[start, _], _| vec![encode(start)], sums, "Activations of batch 0, step 0"),
        (|_, _| vec![encode(&Client::new(Arc::clone(&KEY), 1).1)], sums, "Hello"),
        (|_, [_, chunk]| vec![encode(chunk)], sums, "Chunk 0 of batch 0, step 0"),
        (|_, [sums, _]| vec![encode(sums), encode(sums)], chunk, "Sums of batch 0, step 0"),
        (
            |_, [sums, chunk]| vec![encode(sums), encode(&at(chunk, |p| p.round = 1))],
            chunk,
            "Chunk 0 of batch 1, step 0",
        ),
        // The client's own chunk has more ciphertexts than the sums.
        (
            |[_, chunk], [sums, _]| vec![encode(sums), encode(chunk)],
            "sums of what was sent",
            "ciphertexts where",
        ),
    ];
    for (tamper, expected, found) in cases {
        unexpected(&client_on(tamper, AbortReason::UnexpectedMessage), expected, found);
    }
}

#[test]
fn the_client_refuses_what_is_no_sum() {
    let cut = |_: [&Message; 2], [sums, _]: [&Message; 2]| vec![encode(sums)[..100].to_vec()];
    let error = client_on(cut, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Length { .. })), "{error:?}");

    let swapped = |[start, _]: [&Message; 2], [sums, _]: [&Message; 2]| match (start, sums) {
        (Message::Activations { header, .. }, Message::Sums { position, .. }) => {
            vec![encode(&Message::Sums { position: *position, header: header.clone() })]
        }
        _ => panic!("no tensors"),
    };
    let error = client_on(swapped, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Session(SessionError::Tensor { step: 0, .. })), "{error:?}");

    let skipped =
        |_: [&Message; 2], [sums, chunk]: [&Message; 2]| vec![encode(sums), encode(&with_index(chunk, 1))];
    let error = client_on(skipped, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Session(SessionError::Numbers { step: 0, .. })), "{error:?}");

    // A flipped bit makes another ciphertext, whose plaintext is a random number of 1,024 bits.
    let flipped = |_: [&Message; 2], [sums, chunk]: [&Message; 2]| {
        let mut bytes = encode(chunk);
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
        vec![encode(sums), bytes]
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
    server.handle(hello, &mut rng()).unwrap();
    client.handle(server.next_message(&mut rng()).unwrap().unwrap()).unwrap();
    client.start(images(1).view()).unwrap();
    said(&mut client).into_iter().for_each(|message| server.handle(message, &mut rng()).unwrap());
    client.handle(server.next_message(&mut rng()).unwrap().unwrap()).unwrap();
    let chunk = server.next_message(&mut rng()).unwrap().unwrap();
    let Message::Chunk { position, index, ciphertexts } = chunk else { panic!("no sums") };

    let (public, mut bytes) = (key.public_key(), ciphertexts.encode());
    let n = BigUint::from_bytes_le(&public.n_le_bytes());
    let square = &n * &n;
    let width = public.ciphertext_bytes();
    let other = BigUint::from_bytes_le(&bytes[..width]) * BigUint::from(2u8).modpow(&n, &square) % square;
    bytes[..width].fill(0);
    let other = other.to_bytes_le();
    bytes[..other.len()].copy_from_slice(&other);
    let ciphertexts = EncChunk::decode(public, &bytes).unwrap();
    let error = client.handle(Message::Chunk { position, index, ciphertexts }).unwrap_err();
    assert_eq!(error, SessionError::Numbers { step: 0, source: gelu_net::tensor::Error::Randomness });
    assert_eq!(error.reason(), AbortReason::BadTensor);
    assert!(client.is_closed());
}

#[test]
fn the_client_refuses_a_plan_that_does_not_hold_together() {
    let mut server = Server::new(server_model());
    let (mut client, hello) = Client::new(Arc::clone(&KEY), 1);
    server.handle(hello, &mut rng()).unwrap();
    let accept = server.next_message(&mut rng()).unwrap().unwrap();
    let Message::Accept { session, mut plan } = accept else { panic!("not accepted") };
    plan.segments[1].down.slot_bits -= 1;
    let error = client.handle(Message::Accept { session, plan }).unwrap_err();
    assert!(matches!(error, SessionError::Plan(PlanError::Segment { .. })), "{error:?}");
    assert_eq!(error.reason(), AbortReason::BadPlan);
    assert!(client.is_closed());
}
