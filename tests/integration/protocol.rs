//! Messages that are wrong, replayed, truncated, reordered or corrupt: each ends the session with the right error on
//! the right side, and the other side is told.

mod channel;
mod descriptions;

use std::sync::{Arc, LazyLock};
use std::thread;

use gelu_net::io::session::{ClientSession, RunError, serve};
use gelu_net::io::transport::{Disconnected, InProcess, Transport};
use gelu_net::models::infer::{Client, Event, Message, Server};
use gelu_net::models::infer::{PROTOCOL_VERSION, Position, SessionError, SessionId};
use gelu_net::models::peer::Peer;
use gelu_net::models::peer::{AbortReason, Expected, Misuse, Part, PeerError};
use gelu_net::models::plan::Outcome;
use gelu_net::models::plan::PlanError;
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;
use gelu_net::tensor::{Contents, EncChunk, Error, Packing};
use gelu_net::tensor::{FixedTensor, Format, Shape, SlotLayout};
use gelu_net::wire::{WireError, decode_message, encode_message};
use ndarray::Array2;
use num_bigint::BigUint;
use proptest::prelude::*;
use rand::{SeedableRng, rngs::ChaCha20Rng};

use crate::common::networks::randomize;
use crate::common::{KEY, backend, deployment, key, key_of, quantization};

/// What gives these small networks one value to a ciphertext on every backend, so that tensors have chunks to be cut,
/// repeated and reordered.
const PREFER: Preference = Preference::Time;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(9)
}

fn inputs(segment: u32, term: u32) -> Part {
    Part::Inputs { segment, term }
}

/// A chain of two dense layers over so many features.
fn chain(features: usize) -> Arc<ServerModel> {
    let mut model =
        ModelBuilder::new([features]).dense("fc1", 3).relu().dense("fc2", 2).softmax().build().unwrap();
    randomize(&mut model, 9);
    model.set_ranges(Some([("input", 1.0), ("relu1", 3.0)].into_iter().collect()));
    Arc::new(ServerModel::new(model, quantization()))
}

/// The same with a branch, so that two tensors go up for the second segment.
fn branched() -> Arc<ServerModel> {
    let mut model = ModelBuilder::new([5])
        .dense("fc1", 4)
        .relu()
        .residual_with(|main| main.dense("main", 3).tanh().dense("main2", 2), |short| short.dense("short", 2))
        .relu()
        .dense("fc2", 2)
        .build()
        .unwrap();
    randomize(&mut model, 9);
    model.set_ranges(Some([("input", 1.0), ("relu1", 3.0), ("relu2", 3.0)].into_iter().collect()));
    Arc::new(ServerModel::new(model, quantization()))
}

/// The server's side, on the backend of these tests.
fn serving(model: &Arc<ServerModel>) -> Server {
    Server::new(Arc::clone(model)).on(backend())
}

fn images(count: usize) -> Array2<f32> {
    Array2::from_shape_fn((count, 5), |(i, j)| (i * 5 + j) as f32 / 20.0)
}

fn encode(message: &Message) -> Vec<u8> {
    encode_message(message).unwrap()
}

fn client(batch: u32) -> Client {
    Client::new(Arc::clone(&KEY), batch).preferring(PREFER)
}

/// The client's first message.
fn hello(batch: u32) -> Message {
    client(batch).next_message(&mut rng()).unwrap().unwrap()
}

/// All that the client has to say now: of these models one chunk a tensor.
fn said(client: &mut Client) -> Vec<Message> {
    std::iter::from_fn(|| client.next_message(&mut rng()).unwrap()).collect()
}

fn take(server: &mut Server, message: Message) {
    assert!(server.handle(message, &mut rng()).unwrap().is_none());
}

/// Both sides after the server has accepted; no batch was started.
fn opened(model: &Arc<ServerModel>, key: &Arc<SecretKey>, batch: u32) -> (Server, Client) {
    let rng = &mut rng();
    let (mut server, mut client) = (serving(model), Client::new(Arc::clone(key), batch).preferring(PREFER));
    server.handle(client.next_message(rng).unwrap().unwrap(), rng).unwrap();
    let event = client.handle(server.next_message(rng).unwrap().unwrap(), rng).unwrap();
    assert!(matches!(event, Some(Event::Ready)));
    (server, client)
}

/// A server in a thread of its own, and the client's end of its transport.
struct Remote {
    end: InProcess,
    server: thread::JoinHandle<Result<(), RunError>>,
}

impl Remote {
    fn new() -> Self {
        Self::seeded(9)
    }

    /// Its session's name follows from the seed.
    fn seeded(seed: u64) -> Self {
        let (end, theirs) = InProcess::pair();
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let server = thread::spawn(move || serve(&theirs, serving(&chain(5)), &mut rng).1);
        Self { end, server }
    }

    fn send(&self, bytes: Vec<u8>) {
        self.end.send(bytes).unwrap();
    }

    fn receive(&self) -> Message {
        decode_message(&self.end.receive().unwrap(), Some(KEY.public_key())).unwrap()
    }

    /// The server has told us `reason` and failed; it takes nothing more.
    fn fails(self, reason: AbortReason) -> RunError {
        let told = self.receive();
        assert!(matches!(told, Message::Abort { reason: found } if found == reason), "{told:?}");
        let error = self.server.join().unwrap().unwrap_err();
        assert_eq!(self.end.receive().unwrap_err(), Disconnected);
        error
    }

    /// A session up to the first activations, which are not sent yet.
    fn open(batch: u32) -> (Self, Client) {
        let remote = Self::new();
        let mut client = client(batch);
        remote.send_all(&mut client);
        assert!(matches!(client.handle(remote.receive(), &mut rng()), Ok(Some(Event::Ready))));
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
            match client.handle(self.receive(), &mut rng()).unwrap() {
                Some(Event::Done(outcome)) => return Some(*outcome),
                _ if client.batches_in_flight() == 0 => return None,
                _ => {}
            }
            self.send_all(client);
        }
    }
}

/// A message that is none of those that the state allows.
fn unexpected(error: &RunError, wanted: &[Expected], received: &str) {
    match error {
        RunError::Peer(SessionError::Unexpected { expected, found }) => {
            assert!(wanted.contains(expected) && found.contains(received), "{error}");
        }
        _ => panic!("{error:?}"),
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, SessionError>) -> RunError {
    RunError::Peer(result.unwrap_err())
}

/// A tensor of the first segment is not what the plan says.
fn bad_tensor(source: Error) -> RunError {
    RunError::Peer(SessionError::Numbers { segment: 0, source })
}

fn order([expected, found]: [u32; 2]) -> RunError {
    bad_tensor(Error::Order { expected, found })
}

fn at(message: &Message, edit: impl FnOnce(&mut Position)) -> Message {
    let mut message = message.clone();
    let Message::Tensor { position, .. } = &mut message else { panic!("no tensor") };
    edit(position);
    message
}

fn of_part(message: &Message, part: Part) -> Message {
    at(message, |position| position.part = part)
}

/// The same chunk under another index.
fn with_index(message: &Message, new: u32) -> Message {
    let mut message = message.clone();
    let Message::Tensor { index, .. } = &mut message else { panic!("no tensor") };
    *index = new;
    message
}

/// The same chunk as chunks of one ciphertext.
fn split(chunk: &Message) -> Vec<Message> {
    let Message::Tensor { position, ciphertexts, .. } = chunk else { panic!("no tensor") };
    let (key, bytes) = (KEY.public_key(), ciphertexts.encode());
    let one = |(index, bytes)| {
        let ciphertexts = EncChunk::decode(key, bytes).unwrap();
        Message::Tensor { position: *position, index, ciphertexts }
    };
    (0..).zip(bytes.chunks(key.ciphertext_bytes())).map(one).collect()
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
    client.finish().unwrap();
    let finish = client.next_message(&mut rng()).unwrap().unwrap();
    assert!(client.is_closed());
    remote.send(encode(&finish));
    assert_eq!(remote.server.join().unwrap(), Ok(()));
}

/// What the server does with wrong messages in place of the first chunk, which is the first tensor.
fn server_on(bad: impl FnOnce(&Message) -> Vec<Vec<u8>>, reason: AbortReason) -> RunError {
    let (remote, mut client) = Remote::open(1);
    let messages = said(&mut client);
    assert_eq!(messages.len(), 1);
    bad(&messages[0]).into_iter().for_each(|bytes| remote.send(bytes));
    remote.fails(reason)
}

#[test]
fn the_server_refuses_tensors_of_another_place() {
    type Edit = fn(&mut Position);
    let edits: [(Edit, &str); 9] = [
        (|position| position.part = inputs(1, 0), "the inputs of segment 1 of batch 0"),
        (|position| position.part = inputs(u32::MAX, 0), "the inputs of segment 4294967295 of batch 0"),
        (|position| position.part = inputs(0, 1), "the inputs of term 1 of segment 0 of batch 0"),
        (|position| position.part = Part::Sums { segment: 0 }, "the sums of segment 0 of batch 0"),
        (
            |position| position.part = Part::Errors { segment: 0, term: 0 },
            "the errors of segment 0 of batch 0",
        ),
        (
            |position| position.part = Part::SumCorrections { segment: 0 },
            "the corrections of the sums of segment 0 of batch 0",
        ),
        (|position| position.round = 1, "the inputs of segment 0 of batch 1"),
        (|position| position.round = u32::MAX, "the inputs of segment 0 of batch 4294967295"),
        (|position| position.session = SessionId([7; 16]), "the inputs of segment 0 of batch 0"),
    ];
    for (edit, found) in edits {
        let expected = &[Expected::Inputs];
        let first = |chunk: &Message| vec![encode(&at(chunk, edit))];
        let error = server_on(first, AbortReason::UnexpectedMessage);
        unexpected(&error, expected, &format!("chunk 0 of {found}"));
        let second = |chunk: &Message| {
            let ones = split(chunk);
            vec![encode(&ones[0]), encode(&at(&ones[1], edit))]
        };
        let error = server_on(second, AbortReason::UnexpectedMessage);
        unexpected(&error, expected, "chunk 1 of");
    }
}

/// A tensor is its chunks, each once and in order, without anything between.
#[test]
fn the_server_refuses_chunks_out_of_order() {
    for index in [1, u32::MAX] {
        let skipped = |chunk: &Message| vec![encode(&with_index(chunk, index))];
        let error = server_on(skipped, AbortReason::BadTensor);
        assert_eq!(error, order([0, index]));
        let later = |chunk: &Message| {
            let ones = split(chunk);
            vec![encode(&ones[0]), encode(&with_index(&ones[1], index.wrapping_add(1)))]
        };
        let error = server_on(later, AbortReason::BadTensor);
        assert_eq!(error, order([1, index.wrapping_add(1)]));
    }
    let finish = |chunk: &Message| {
        let session = chunk.position().unwrap().session;
        vec![encode(&split(chunk)[0]), encode(&Message::Finish { session })]
    };
    unexpected(&server_on(finish, AbortReason::UnexpectedMessage), &[Expected::Inputs], "Finish");
    let again = |chunk: &Message| vec![encode(&split(chunk)[0]), encode(&hello(1))];
    unexpected(&server_on(again, AbortReason::UnexpectedMessage), &[Expected::Inputs], "Hello");
    let between = |chunk: &Message| {
        let next = at(&split(chunk)[0], |position| position.round = 1);
        vec![encode(&split(chunk)[0]), encode(&next)]
    };
    unexpected(&server_on(between, AbortReason::UnexpectedMessage), &[Expected::Inputs], "of batch 1");
}

/// Chunks of one ciphertext are as good; the same one again, or one more than the tensor has, is not.
#[test]
fn the_server_refuses_chunks_too_many() {
    let (remote, mut client) = Remote::open(1);
    let messages = said(&mut client);
    let ones = split(&messages[0]);
    assert_eq!(ones.len(), 5);
    ones.iter().for_each(|message| remote.send(encode(message)));
    assert!(remote.answer(&mut client).is_some());

    let twice = |chunk: &Message| {
        let first = encode(&split(chunk)[0]);
        vec![first.clone(), first]
    };
    let error = server_on(twice, AbortReason::BadTensor);
    assert_eq!(error, order([1, 0]));

    let over = |chunk: &Message| vec![encode(&split(chunk)[0]), encode(&with_index(chunk, 1))];
    let error = server_on(over, AbortReason::BadTensor);
    assert_eq!(error, bad_tensor(Error::Limit { what: "ciphertexts of a tensor", limit: 5, found: 6 }));

    let (remote, mut client) = Remote::open(1);
    let messages = said(&mut client);
    remote.send(encode(&messages[0]));
    remote.send(encode(&with_index(&messages[0], 1)));
    // Sums may have been sent before the last chunk was read.
    while !matches!(remote.receive(), Message::Abort { reason: AbortReason::UnexpectedMessage }) {}
    let error = remote.server.join().unwrap().unwrap_err();
    unexpected(&error, &[Expected::Inputs], "chunk 1 of the inputs of segment 0 of batch 0");
}

/// The terms of a segment come one after another, each whole, and each once.
#[test]
fn the_server_refuses_terms_out_of_order() {
    let rng = &mut rng();
    // Up to the second segment's two tensors, the last of which is not sent.
    let up_to_terms = |rng: &mut ChaCha20Rng| {
        let (mut server, mut client) = opened(&branched(), &KEY, 1);
        client.start(images(1).view()).unwrap();
        let mut messages = said(&mut client);
        while messages.len() < 2 {
            messages.into_iter().for_each(|message| take(&mut server, message));
            while let Some(down) = server.next_message(rng).unwrap() {
                client.handle(down, rng).unwrap();
            }
            messages = said(&mut client);
        }
        (server, client, messages)
    };
    let (mut server, mut client, messages) = up_to_terms(rng);
    let [first, second] = &messages[..] else { panic!("two terms") };
    let segment = messages[0].position().unwrap().part;
    let Part::Inputs { segment, term: 0 } = segment else { panic!("{segment}") };
    assert_eq!(second.position().unwrap().part, inputs(segment, 1));
    for message in &messages {
        assert!(server.next_message(rng).unwrap().is_none(), "nothing to compute before the last term");
        server.handle(message.clone(), rng).unwrap();
    }
    while let Some(down) = server.next_message(rng).unwrap() {
        client.handle(down, rng).unwrap();
    }
    assert!(!said(&mut client).is_empty(), "the honest client goes on");

    let wrong: [(Vec<Message>, &str); 6] = [
        (vec![second.clone()], "term 1"),
        (vec![first.clone(), first.clone()], "segment"),
        (vec![first.clone(), of_part(second, inputs(segment, 2))], "term 2"),
        (vec![first.clone(), of_part(second, inputs(segment + 1, 1))], "term 1"),
        (vec![first.clone(), of_part(second, inputs(segment + 1, 0))], "segment"),
        (vec![split(first)[0].clone(), second.clone()], "term 1"),
    ];
    for (messages, found) in wrong {
        // Of the same randomness, and so of the same name as the session of the messages.
        let (mut server, _, _) = up_to_terms(rng);
        let errors: Vec<_> =
            messages.into_iter().filter_map(|message| server.handle(message, rng).err()).collect();
        let [error] = &errors[..] else { panic!("{errors:?}") };
        unexpected(&RunError::Peer(error.clone()), &[Expected::Inputs], found);
        assert!(server.is_closed());
    }
}

/// Two batches may be in flight, and no third.
#[test]
fn the_server_refuses_a_third_batch_under_way() {
    let (mut server, mut client) = opened(&chain(5), &KEY, 1);
    let rng = &mut rng();
    client.start(images(1).view()).unwrap();
    client.start(images(1).view()).unwrap();
    assert!(!client.can_start());
    let messages = said(&mut client);
    assert_eq!(messages.len(), 2);
    messages.iter().for_each(|message| take(&mut server, message.clone()));
    assert_eq!(server.batches_in_flight(), 2);
    let third = at(&messages[1], |position| position.round = 2);
    let error = refused(server.handle(third, rng));
    unexpected(&error, &[Expected::Inputs], "inputs of segment 0 of batch 2");
    assert!(server.is_closed());
    let error = refused(client.start(images(1).view()));
    assert_eq!(error, RunError::Peer(SessionError::Misuse(Misuse::BatchesInFlight)));
    assert!(client.is_closed());
}

#[test]
fn the_server_refuses_messages_of_the_wrong_kind() {
    let again = |_: &Message| vec![encode(&hello(1))];
    unexpected(&server_on(again, AbortReason::UnexpectedMessage), &[Expected::Inputs], "Hello");
    let finish = |_: &Message| vec![encode(&Message::Finish { session: SessionId([7; 16]) })];
    unexpected(&server_on(finish, AbortReason::UnexpectedMessage), &[Expected::Inputs], "Finish");
    let (mut server, _) = opened(&chain(5), &KEY, 1);
    let description = server.program().unwrap().plan().description().clone();
    let accept = Message::Accept { session: SessionId([0; 16]), description: Box::new(description) };
    let error = refused(server.handle(accept.clone(), &mut rng()));
    unexpected(&error, &[Expected::Inputs], "Accept");
    let accept = |_: &Message| vec![encode(&accept)];
    unexpected(&server_on(accept, AbortReason::UnexpectedMessage), &[Expected::Inputs], "Accept");

    let remote = Remote::new();
    remote.send(encode(&Message::Finish { session: SessionId([0; 16]) }));
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), &[Expected::Hello], "Finish");
}

/// Receives until the client has the sums of a whole tensor and goes on.
fn next_activations(remote: &Remote, client: &mut Client) -> Vec<Message> {
    loop {
        client.handle(remote.receive(), &mut rng()).unwrap();
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
    unexpected(&remote.fails(AbortReason::UnexpectedMessage), &[Expected::Inputs], "Finish");
}

#[test]
fn the_server_refuses_a_replay() {
    let (remote, mut client) = Remote::open(1);
    let first = remote.send_all(&mut client);
    next_activations(&remote, &mut client);
    remote.send(encode(&first[0]));
    let error = remote.fails(AbortReason::UnexpectedMessage);
    unexpected(&error, &[Expected::Inputs], "chunk 0 of the inputs of segment 0 of batch 0");

    // The last message of a batch, in the next one.
    let (remote, mut client) = Remote::open(1);
    remote.send_all(&mut client);
    let second = next_activations(&remote, &mut client);
    second.iter().for_each(|message| remote.send(encode(message)));
    remote.answer(&mut client).unwrap();
    remote.send(encode(&second[0]));
    let error = remote.fails(AbortReason::UnexpectedMessage);
    unexpected(&error, &[Expected::Inputs], "chunk 0 of the inputs of segment 1 of batch 0");

    // All of a session's messages in another one, which has another name.
    let (remote, mut client) = Remote::open(1);
    let recorded = said(&mut client);
    let other = Remote::seeded(10);
    other.send(encode(&hello(1)));
    assert!(matches!(other.receive(), Message::Accept { .. }));
    recorded.iter().for_each(|message| other.send(encode(message)));
    unexpected(&other.fails(AbortReason::UnexpectedMessage), &[Expected::Inputs], "inputs of segment 0");
    drop(remote);
}

/// As many ciphertexts as a chunk has, under another key.
fn foreign(chunk: &Message) -> Message {
    let Message::Tensor { position, index, ciphertexts } = chunk else { panic!("no tensor") };
    let count = ciphertexts.ciphertext_count();
    let format = Format::integers(3).unwrap().with_scale_bits(2).unwrap();
    let values = FixedTensor::new(Shape::from([count]), format, vec![1; count]).unwrap();
    let packing = Packing { batch: 1, slot_bits: 20, key: KeyBits::Bits1024 };
    let layout = SlotLayout::images(packing, Contents::Integers(format)).unwrap();
    let tensor = values.encrypt(&layout, &*key(2), &mut rng()).unwrap();
    let ciphertexts = tensor.chunks().remove(0);
    Message::Tensor { position: *position, index: *index, ciphertexts }
}

#[test]
fn the_server_refuses_another_key() {
    let bad = |chunk: &Message| vec![encode(&foreign(chunk))];
    let error = server_on(bad, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Wire(WireError::ForeignKey { .. })), "{error:?}");

    // One that skips the wire format gets no further.
    let (mut server, mut client) = opened(&chain(5), &KEY, 1);
    client.start(images(1).view()).unwrap();
    let messages = said(&mut client);
    let error = server.handle(foreign(&messages[0]), &mut rng()).unwrap_err();
    let SessionError::Numbers { segment: 0, source } = error else { panic!("{error:?}") };
    assert!(matches!(source, Error::ForeignKey { .. }), "{source:?}");
    assert!(server.is_closed() && server.key().is_none());
}

#[test]
fn the_server_refuses_what_it_cannot_decode() {
    let edited = |edit: fn(&mut Vec<u8>)| {
        move |chunk: &Message| {
            let mut bytes = encode(chunk);
            edit(&mut bytes);
            vec![bytes]
        }
    };
    let error = server_on(edited(|bytes| bytes.truncate(bytes.len() - 1)), AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Length { .. })), "{error:?}");
    let error = server_on(edited(|bytes| bytes[0] ^= 1), AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Magic { .. })), "{error:?}");
    let error = server_on(edited(|bytes| bytes[18] = b'['), AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Header { .. })), "{error:?}");
    let zero = |bytes: &mut Vec<u8>| {
        let zeros = bytes.len() - 256;
        bytes[zeros..].fill(0);
    };
    let error = server_on(edited(zero), AbortReason::BadTensor);
    assert!(matches!(error, RunError::Wire(WireError::Content(_))), "{error:?}");
    // In the middle of a tensor as well.
    let later = |chunk: &Message| {
        let ones = split(chunk);
        let mut bytes = encode(&ones[1]);
        bytes.truncate(100);
        vec![encode(&ones[0]), bytes]
    };
    let error = server_on(later, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Length { .. })), "{error:?}");
}

#[test]
fn the_server_refuses_what_it_does_not_offer() {
    for batch in [0, 1025, u32::MAX] {
        let remote = Remote::new();
        remote.send(encode(&hello(batch)));
        let error = remote.fails(AbortReason::Refused);
        let is_option =
            matches!(error, RunError::Peer(SessionError::Refused(PlanError::Option { what: "batch", .. })));
        assert!(is_option, "{error:?}");
    }
    for version in [0, PROTOCOL_VERSION - 1, PROTOCOL_VERSION + 1, u16::MAX] {
        let remote = Remote::new();
        let (key, prefer) = (KEY.public_key().clone(), Preference::default());
        remote.send(encode(&Message::Hello { version, key, batch: 1, prefer }));
        let error = remote.fails(AbortReason::Version);
        let (expected, found) = (PROTOCOL_VERSION, version);
        assert_eq!(error, RunError::Peer(SessionError::Version { expected, found }));
    }
    let remote = Remote::new();
    let (_other, mut client) = Remote::open(1);
    remote.send(encode(&said(&mut client)[0]));
    assert_eq!(remote.fails(AbortReason::Malformed), RunError::Wire(WireError::NoKey));
    let error = client.handle(Message::Abort { reason: AbortReason::Malformed }, &mut rng()).unwrap_err();
    assert_eq!(error, SessionError::Aborted(AbortReason::Malformed));
}

#[test]
fn an_abort_ends_the_server_without_a_word() {
    let (remote, _) = Remote::open(1);
    remote.send(encode(&Message::Abort { reason: AbortReason::BadPlan }));
    assert_eq!(remote.end.receive().unwrap_err(), Disconnected);
    let error = remote.server.join().unwrap().unwrap_err();
    assert_eq!(error, RunError::Peer(SessionError::Aborted(AbortReason::BadPlan)));

    let (remote, _) = Remote::open(1);
    drop(remote.end);
    assert_eq!(remote.server.join().unwrap().unwrap_err(), RunError::Disconnected(Disconnected));
}

#[test]
fn a_closed_session_takes_nothing() {
    let rng = &mut rng();
    let (mut server, mut client) = opened(&chain(5), &KEY, 1);
    client.start(images(1).view()).unwrap();
    let first = client.next_message(rng).unwrap().unwrap();
    assert!(server.handle(hello(1), rng).is_err());
    assert!(server.is_closed());
    for message in [first, hello(1), Message::Abort { reason: AbortReason::Closed }] {
        assert_eq!(server.handle(message, rng).unwrap_err(), SessionError::Closed);
    }
    assert_eq!(server.next_message(rng).unwrap_err(), SessionError::Closed);
    assert_eq!(SessionError::Closed.reason(), Some(AbortReason::Closed));

    // After an orderly end too.
    let (mut server, mut client) = opened(&chain(5), &KEY, 1);
    client.finish().unwrap();
    let finish = client.next_message(rng).unwrap().unwrap();
    server.handle(finish.clone(), rng).unwrap();
    assert!(server.is_closed() && client.is_closed());
    assert_eq!(server.handle(finish.clone(), rng).unwrap_err(), SessionError::Closed);
    assert_eq!(client.handle(finish, rng).unwrap_err(), SessionError::Closed);
    assert_eq!(client.finish().unwrap_err(), SessionError::Closed);
    assert_eq!(client.start(images(1).view()).unwrap_err(), SessionError::Closed);
    assert_eq!(client.next_message(rng).unwrap_err(), SessionError::Closed);

    // A session that is given up is closed, on either side.
    let (mut server, mut client) = opened(&chain(5), &KEY, 1);
    server.close();
    client.close();
    assert!(server.is_closed() && client.is_closed() && client.plan().is_none() && server.key().is_none());
    assert_eq!(client.start(images(1).view()).unwrap_err(), SessionError::Closed);
}

/// What a client does when the server's reply to its first activations is tampered with, and what the server hears.
/// `tamper` gets the chunk of the activations, and of the sums.
fn client_on(tamper: impl FnOnce(&Message, &Message) -> Vec<Vec<u8>> + Send, told: AbortReason) -> RunError {
    let (client_end, server_end) = InProcess::pair();
    thread::scope(|scope| {
        let serving = scope.spawn(move || {
            let rng = &mut rng();
            let mut server = serving(&chain(5));
            let receive =
                |server: &Server| decode_message(&server_end.receive().unwrap(), server.key()).unwrap();
            let hello = receive(&server);
            server.handle(hello, rng).unwrap();
            server_end.send(encode(&server.next_message(rng).unwrap().unwrap())).unwrap();
            let up = receive(&server);
            server.handle(up.clone(), rng).unwrap();
            let down = server.next_message(rng).unwrap().unwrap();
            for bytes in tamper(&up, &down) {
                server_end.send(bytes).unwrap();
            }
            let last = receive(&server);
            assert!(matches!(last, Message::Abort { reason } if reason == told), "{last:?}");
            let error = server.handle(last, rng).unwrap_err();
            assert_eq!(error, SessionError::Aborted(told));
            assert!(server.is_closed());
        });
        let mut session = ClientSession::open(&client_end, client(1), &mut rng()).unwrap();
        let error = session.infer(images(1).view(), &mut rng()).unwrap_err();
        assert!(session.client().is_closed());
        let again = session.infer(images(1).view(), &mut rng()).unwrap_err();
        assert_eq!(again, RunError::Peer(SessionError::Closed));
        serving.join().unwrap();
        error
    })
}

#[test]
fn the_client_refuses_messages_out_of_place() {
    type Tamper = fn(&Message, &Message) -> Vec<Vec<u8>>;
    let sums_of = |segment: u32| Expected::Tensor { round: 0, part: Part::Sums { segment } };
    let (awaited, again) = (&[sums_of(0)][..], &[Expected::Nothing, sums_of(1)][..]);
    let cases: [(Tamper, &[Expected], &str); 10] = [
        (|_, sums| vec![encode(&of_part(sums, Part::Sums { segment: 1 }))], awaited, "sums of segment 1"),
        (|_, sums| vec![encode(&at(sums, |p| p.round = 3))], awaited, "sums of segment 0 of batch 3"),
        (|_, sums| vec![encode(&at(sums, |p| p.session = SessionId([0; 16])))], awaited, "sums of segment 0"),
        (|_, sums| vec![encode(&of_part(sums, inputs(0, 0)))], awaited, "inputs of segment 0 of batch 0"),
        (|_, sums| vec![encode(&of_part(sums, Part::Total))], awaited, "sum of steps of batch 0"),
        (|up, _| vec![encode(up)], awaited, "inputs of segment 0 of batch 0"),
        (|_, _| vec![encode(&hello(1))], awaited, "Hello"),
        (|_, _| vec![encode(&Message::Finish { session: SessionId([0; 16]) })], awaited, "Finish"),
        // The client's own chunk has more ciphertexts than the sums.
        (
            |up, _| vec![encode(&of_part(up, Part::Sums { segment: 0 }))],
            &[Expected::SumsOfInputs],
            "5 ciphertexts where",
        ),
        // The same sums again, whether or not the client has begun with the next segment.
        (|_, sums| vec![encode(sums), encode(sums)], again, "sums of segment 0 of batch 0"),
    ];
    for (tamper, expected, found) in cases {
        unexpected(&client_on(tamper, AbortReason::UnexpectedMessage), expected, found);
    }
}

/// Sums can follow only from what was sent: of half a tensor there are none, unless they are of whole parts of the batch.
#[test]
fn the_client_refuses_sums_of_what_it_has_not_sent() {
    let rng = &mut rng();
    let (mut server, mut client) = opened(&chain(6000), &KEY, 1);
    client.start(Array2::from_elem((1, 6000), 0.5).view()).unwrap();
    let first = client.next_message(rng).unwrap().unwrap();
    server.handle(first.clone(), rng).unwrap();
    assert!(server.next_message(rng).unwrap().is_none());
    let early = of_part(&split(&first)[0], Part::Sums { segment: 0 });
    let error = refused(client.handle(early, rng));
    unexpected(&error, &[Expected::SumsOfInputs], "1 ciphertexts where 0 are due");
    assert!(client.is_closed());

    // Nor are there any before a batch, or a second plan.
    let (_, mut client) = opened(&chain(5), &KEY, 1);
    let error = refused(client.handle(of_part(&first, Part::Sums { segment: 0 }), rng));
    unexpected(&error, &[Expected::Nothing], "sums of segment 0");
    let (server, mut client) = opened(&chain(5), &KEY, 1);
    let description = Box::new(server.program().unwrap().plan().description().clone());
    let accept = Message::Accept { session: SessionId([0; 16]), description };
    let error = refused(client.handle(accept, rng));
    unexpected(&error, &[Expected::Nothing], "Accept");
}

#[test]
fn the_client_refuses_what_is_no_sum() {
    let cut = |_: &Message, sums: &Message| vec![encode(sums)[..100].to_vec()];
    let error = client_on(cut, AbortReason::Malformed);
    assert!(matches!(error, RunError::Wire(WireError::Length { .. })), "{error:?}");

    let skipped = |_: &Message, sums: &Message| vec![encode(&with_index(sums, 1))];
    let error = client_on(skipped, AbortReason::BadTensor);
    assert_eq!(error, order([0, 1]));

    let other = |_: &Message, sums: &Message| vec![encode(&foreign(sums))];
    let error = client_on(other, AbortReason::BadTensor);
    assert!(matches!(error, RunError::Wire(WireError::ForeignKey { .. })), "{error:?}");

    // A flipped bit makes another ciphertext, whose plaintext is a random number of 1,024 bits.
    let flipped = |_: &Message, sums: &Message| {
        let mut bytes = encode(sums);
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
        vec![bytes]
    };
    let error = client_on(flipped, AbortReason::BadTensor);
    // It is the last ciphertext; how many there are depends on the server's vectors.
    let RunError::Peer(SessionError::Numbers { segment: 0, source }) = error else { panic!("{error:?}") };
    assert!(matches!(source, Error::Plaintext { .. }), "{source:?}");
}

/// The sums are right, but re-randomized by a number of the server's own choice in place of a power of h: a client with a
/// subgroup key could not read them. Which of the ciphertexts it was the server is not told.
#[test]
fn the_client_refuses_random_factors_outside_its_keys_group() {
    let key = key_of(KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup }, 9);
    let (mut server, mut client) = opened(&chain(5), &key, 1);
    client.start(images(1).view()).unwrap();
    said(&mut client).into_iter().for_each(|message| take(&mut server, message));
    let sums = server.next_message(&mut rng()).unwrap().unwrap();
    let Message::Tensor { position, index, ciphertexts } = sums else { panic!("no sums") };

    let (public, mut bytes) = (key.public_key(), ciphertexts.encode());
    let n = BigUint::from_bytes_le(&public.n_le_bytes());
    let square = &n * &n;
    let width = public.ciphertext_bytes();
    let other = BigUint::from_bytes_le(&bytes[..width]) * BigUint::from(2u8).modpow(&n, &square) % square;
    bytes[..width].fill(0);
    let other = other.to_bytes_le();
    bytes[..other.len()].copy_from_slice(&other);
    let ciphertexts = EncChunk::decode(public, &bytes).unwrap();
    let error = client.handle(Message::Tensor { position, index, ciphertexts }, &mut rng()).unwrap_err();
    assert_eq!(error, SessionError::Numbers { segment: 0, source: Error::Randomness });
    assert_eq!(error.reason(), Some(AbortReason::BadTensor));
    assert!(client.is_closed());
}

/// All that is said in a session of two batches, by the client and by the server, in chunks of one ciphertext.
fn recorded() -> [Vec<Message>; 2] {
    let rng = &mut rng();
    let (mut server, mut client) = (serving(&branched()), client(1));
    let [mut up, mut down] = [vec![], vec![]];
    let mut done = 0;
    while done < 2 {
        while let Some(message) = client.next_message(rng).unwrap() {
            up.extend(if message.position().is_some() { split(&message) } else { vec![message.clone()] });
            server.handle(message, rng).unwrap();
        }
        while let Some(message) = server.next_message(rng).unwrap() {
            down.extend(if message.position().is_some() { split(&message) } else { vec![message.clone()] });
            match client.handle(message, rng).unwrap() {
                Some(Event::Ready) => (0..2).for_each(|_| client.start(images(1).view()).unwrap()),
                Some(Event::Done(_)) => done += 1,
                None => {}
            }
        }
    }
    client.finish().unwrap();
    up.push(client.next_message(rng).unwrap().unwrap());
    [up, down]
}

static RECORDED: LazyLock<[Vec<Message>; 2]> = LazyLock::new(recorded);

/// What is done to a sequence of messages: two are swapped, one is said again, or left out.
#[derive(Clone, Debug)]
struct Edit {
    kind: u8,
    from: prop::sample::Index,
    to: prop::sample::Index,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = (0u8..3, any::<prop::sample::Index>(), any::<prop::sample::Index>());
    prop::collection::vec(edit.prop_map(|(kind, from, to)| Edit { kind, from, to }), 0..3)
}

/// The places of so many messages in the order in which they come then.
fn disturbed(count: usize, edits: &[Edit]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for Edit { kind, from, to } in edits {
        let (from, to) = (from.index(order.len()), to.index(order.len()));
        match kind {
            0 => order.swap(from, to),
            1 => order.insert(to, order[from]),
            _ => {
                order.remove(from);
            }
        }
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order: a server takes the whole session, or says what it did not expect and is closed.
    #[test]
    fn a_server_takes_no_session_but_an_honest_one(edits in edits()) {
        let messages = &RECORDED[0];
        let rng = &mut rng();
        let mut server = serving(&branched());
        let (mut taken, mut failed) = (vec![], false);
        for at in disturbed(messages.len(), &edits) {
            let message = messages[at].clone();
            if server.is_closed() {
                prop_assert_eq!(server.handle(message, rng).unwrap_err(), SessionError::Closed);
                continue;
            }
            match server.handle(message, rng) {
                Ok(_) => taken.push(at),
                Err(SessionError::Unexpected { .. } | SessionError::Numbers { .. }) => {
                    prop_assert!(server.is_closed() && server.key().is_none());
                    failed = true;
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
            while !server.is_closed() && server.next_message(rng).unwrap().is_some() {}
        }
        if server.is_closed() && !failed {
            // The end may come early, between batches: then everything up to there was taken, and of no batch a part.
            let (sent, end) = (taken.len() - 1, messages.len() - 1);
            prop_assert!(taken.into_iter().eq((0..sent).chain([end])), "the session came to its end");
            let round = |at: usize| match &messages[at] {
                Message::Tensor { position, .. } => Some(position.round),
                _ => None,
            };
            prop_assert!((sent..end).all(|later| (0..sent).all(|at| round(at) != round(later))));
        }
    }

    /// So does a client, and whatever was moved about, what comes out is right.
    #[test]
    fn a_client_takes_no_session_but_an_honest_one(edits in edits()) {
        let messages = &RECORDED[1];
        let rng = &mut rng();
        let mut client = client(1);
        said(&mut client);
        let (mut taken, mut done) = (vec![], 0);
        for at in disturbed(messages.len(), &edits) {
            let message = messages[at].clone();
            if client.is_closed() {
                prop_assert_eq!(client.handle(message, rng).unwrap_err(), SessionError::Closed);
                continue;
            }
            match client.handle(message, rng) {
                Ok(event) => {
                    taken.push(at);
                    match event {
                        Some(Event::Ready) => (0..2).for_each(|_| client.start(images(1).view()).unwrap()),
                        Some(Event::Done(outcome)) => {
                            done += 1;
                            prop_assert_eq!(&*outcome, &*CLEAR);
                        }
                        None => {}
                    }
                    said(&mut client);
                }
                Err(SessionError::Unexpected { .. } | SessionError::Numbers { .. }) => {
                    prop_assert!(client.is_closed() && client.plan().is_none());
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
        // Sums are awaited in one order only.
        prop_assert_eq!(done == 2, taken.len() == messages.len());
        prop_assert!(taken.iter().copied().eq(0..taken.len()));
    }
}

/// What comes of the batches of these sessions.
static CLEAR: LazyLock<Outcome> = LazyLock::new(|| {
    let program = branched().program(&deployment(&KEY, 1)).unwrap();
    program.run_clear(images(1).view()).unwrap()
});
