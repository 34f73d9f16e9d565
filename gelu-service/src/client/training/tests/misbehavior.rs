//! Clients that break the protocol of training in their turn: the turn ends with an error that says why, on both sides, and the
//! next client goes on.

use gelu_io::session::Session;
use gelu_io::transport::Transport;
use gelu_models::peer::{AbortReason, Part, Peer};
use gelu_models::train::private::{Message, Position};
use gelu_wire::WirePeer;

use super::*;
use crate::client::conversation::RemoteTransport;

fn encode(message: &Message) -> Vec<u8> {
    <Client as WirePeer>::encode(message).unwrap()
}

/// A client that does what it wants in its turns, beside one that keeps to the rules.
struct Bad {
    training: RemoteTraining,
    rng: ChaCha20Rng,
}

impl Bad {
    fn open(&mut self) -> RemoteTransport {
        while self.training.await_turn().unwrap() != State::Yours {}
        let name = self.training.membership.client.clone();
        self.training
            .remote
            .open_about(Topic { model: "small".to_owned(), about: About::Turn { client: name } })
            .unwrap()
    }

    fn client(&self) -> Client {
        let config = ParticipantConfig { client: 0, seed: 0, momentum: 0.0 };
        Client::new(self.training.key.clone(), self.training.samples.0.clone(), config)
    }

    fn join(&mut self) -> Message {
        let mut client = self.client();
        client.join().unwrap();
        client.next_message(&mut self.rng).unwrap().unwrap()
    }

    /// A turn up to its first tensor, which is not sent.
    fn inputs(&mut self, transport: &RemoteTransport) -> (Position, u32, gelu_tensor::EncChunk) {
        let mut session = Session::new(transport, self.client(), ());
        session.ask(None, |client| client.join()).unwrap();
        assert!(matches!(session.step(&mut self.rng), Ok(Some(Event::Ready))));
        let (mut client, ()) = session.into_parts();
        client.proceed().unwrap();
        match client.next_message(&mut self.rng).unwrap() {
            Some(Message::Tensor { position, index, ciphertexts }) => (position, index, ciphertexts),
            other => panic!("{other:?}"),
        }
    }
}

/// What the server says before it ends the turn, in words of the protocol and of the service.
fn told(transport: &RemoteTransport) -> (Option<AbortReason>, String) {
    let mut reason = None;
    while let Ok(bytes) = transport.receive() {
        // Of other messages, some need a key to be read.
        let said = String::from_utf8_lossy(&bytes).into_owned();
        for known in [
            AbortReason::Version,
            AbortReason::BadPlan,
            AbortReason::BadTensor,
            AbortReason::Malformed,
            AbortReason::UnexpectedMessage,
        ] {
            if bytes == encode(&Message::Abort { reason: known }) {
                reason = Some(known);
            }
        }
        assert!(said.starts_with("GELU"));
    }
    match transport.why() {
        Some(ServiceError::Refused { refusal: Refusal::Malformed, message, .. }) => (reason, message),
        other => panic!("{other:?}"),
    }
}

/// Has one client misbehave in several turns of its own, each followed by one of a client that does not, and both come to
/// the end of the run.
fn beside(misbehave: impl FnOnce(&mut Bad)) {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(folder.path(), None, (10, Limits::default()));
    let mut second = client(&server, 1);
    let mut bad = Bad { training: client(&server, 0), rng: ChaCha20Rng::seed_from_u64(9) };
    std::thread::scope(|scope| {
        let honest = scope.spawn(move || {
            let rng = &mut ChaCha20Rng::seed_from_u64(3);
            let ended: Result<bool, Box<dyn std::error::Error>> = second.run(rng, |_| Ok(Go::On));
            assert!(ended.unwrap());
            second.offer.done
        });
        misbehave(&mut bad);
        assert_eq!(run(&mut bad.training), Ok(true));
        assert_eq!(honest.join().unwrap(), 40);
    });
    assert_eq!((bad.training.offer.done, bad.training.offer.iterations), (40, 40));
    let since = Instant::now();
    while server.sessions() > 0 && since.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.sessions(), 0);
    Ledger::open(folder.path()).unwrap().verify().unwrap();
}

/// Says these messages in a turn, and returns what the server makes of them.
fn after(bad: &mut Bad, messages: impl IntoIterator<Item = Vec<u8>>) -> (Option<AbortReason>, String) {
    let transport = bad.open();
    for message in messages {
        // The server may have ended it meanwhile.
        let _ = transport.send(message);
    }
    told(&transport)
}

#[test]
fn another_version_or_a_key_of_another_plan_is_refused() {
    beside(|bad| {
        let Message::Join { version, client, key } = bad.join() else { panic!() };
        let later = Message::Join { version: version + 1, client, key };
        let (reason, words) = after(bad, [encode(&later)]);
        assert_eq!(reason, Some(AbortReason::Version));
        assert!(words.contains("version"), "{words}");
        let other = SecretKey::generate(KeyBits::Bits2048, &mut bad.rng).unwrap();
        let larger = Message::Join { version, client, key: other.public_key().clone() };
        let (reason, words) = after(bad, [encode(&larger)]);
        assert_eq!(reason, Some(AbortReason::BadPlan));
        assert!(words.contains("1024") && words.contains("2048"), "{words}");
    });
}

#[test]
fn keys_that_are_none_are_refused() {
    beside(|bad| {
        let whole = encode(&bad.join());
        let at = whole.len() - 3 * 128;
        let one = [&[1][..], &[0; 255]].concat();
        // n: even, zero. h: one, not below n^2. And one that is cut off.
        for (offset, bytes) in [(0, vec![0]), (0, vec![0; 128]), (128, one), (128, vec![0xff; 256])] {
            let mut message = whole.clone();
            message[at + offset..at + offset + bytes.len()].copy_from_slice(&bytes);
            assert_eq!(after(bad, [message]).0, Some(AbortReason::BadTensor));
        }
        assert_eq!(after(bad, [whole[..at + 100].to_vec()]).0, Some(AbortReason::Malformed));
    });
}

#[test]
fn lengths_of_millions_are_refused_before_memory_is_taken() {
    beside(|bad| {
        for (at, length) in [(6, 4), (10, 8)] {
            for value in [1_000_000_u64, u64::MAX] {
                let mut message = encode(&bad.join());
                message[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
                assert_eq!(after(bad, [message]).0, Some(AbortReason::Malformed), "{value} at {at}");
            }
        }
    });
}

#[test]
fn messages_out_of_turn_and_floods_of_joins_are_cut_off() {
    beside(|bad| {
        let join = encode(&bad.join());
        for message in [Message::Ended { turn: 0 }, Message::Ended { turn: 1 }] {
            let message = encode(&message);
            assert_eq!(after(bad, [message.clone()]).0, Some(AbortReason::UnexpectedMessage));
            assert_eq!(after(bad, [join.clone(), message]).0, Some(AbortReason::UnexpectedMessage));
        }
        let (reason, words) = after(bad, std::iter::repeat_n(join, 1000));
        assert_eq!(reason, Some(AbortReason::UnexpectedMessage));
        assert!(words.contains("Join"), "{words}");
        // Conversations for a turn that is another's do not begin.
        for _ in 0..50 {
            let topic =
                Topic { model: "small".to_owned(), about: About::Turn { client: "stranger".to_owned() } };
            let refused = bad.training.remote.open_about(topic).unwrap_err();
            assert!(matches!(refused, ServiceError::Refused { refusal: Refusal::Turn, .. }), "{refused}");
        }
    });
}

#[test]
fn steps_that_are_repeated_skipped_or_of_another_plan_are_refused() {
    beside(|bad| {
        type Change = fn(&mut Position, &mut u32);
        let cases: [(Change, AbortReason); 5] = [
            (|_, index| *index += 1, AbortReason::BadTensor),
            (|position, _| position.iteration += 1, AbortReason::UnexpectedMessage),
            (|position, _| position.turn += 1, AbortReason::UnexpectedMessage),
            (
                |position, _| position.part = Part::Inputs { segment: 7, term: 0 },
                AbortReason::UnexpectedMessage,
            ),
            (
                |position, _| position.part = Part::Errors { segment: 0, term: 0 },
                AbortReason::UnexpectedMessage,
            ),
        ];
        for (change, expected) in cases {
            let transport = bad.open();
            let (mut position, mut index, ciphertexts) = bad.inputs(&transport);
            change(&mut position, &mut index);
            transport.send(encode(&Message::Tensor { position, index, ciphertexts })).unwrap();
            assert_eq!(told(&transport).0, Some(expected), "{position} {index}");
        }
        let transport = bad.open();
        let (position, index, ciphertexts) = bad.inputs(&transport);
        let message = encode(&Message::Tensor { position, index, ciphertexts });
        for _ in 0..3 {
            let _ = transport.send(message.clone());
        }
        assert!(matches!(told(&transport).0, Some(AbortReason::UnexpectedMessage | AbortReason::BadTensor)));
    });
}

/// One says nothing in its turn, the other asks and reads nothing. Neither has its turn for longer than silence lasts, and it is
/// the next client's then.
#[test]
fn clients_that_say_or_read_nothing_lose_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { silence: Duration::from_millis(400), ..Limits::default() };
    let server = serve(folder.path(), None, (2, limits));
    let mut second = client(&server, 1);
    let mut bad = Bad { training: client(&server, 0), rng: ChaCha20Rng::seed_from_u64(9) };
    std::thread::scope(|scope| {
        let honest = scope.spawn(move || run(&mut second));
        let silent = bad.open();
        let since = Instant::now();
        assert!(silent.receive().is_err());
        let why = silent.why().unwrap();
        assert!(matches!(why, ServiceError::Refused { refusal: Refusal::Late, .. }), "{why}");

        let deaf = bad.open();
        let (position, index, ciphertexts) = bad.inputs(&deaf);
        deaf.send(encode(&Message::Tensor { position, index, ciphertexts })).unwrap();
        while deaf.why().is_none() && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The other has its turn before this one has its own again, although nobody was away.
        while bad.training.await_turn().unwrap() != State::Yours {}
        assert!(since.elapsed() < Limits::default().absence / 4);
        assert!(bad.training.offer.done >= 2, "{:?}", bad.training.offer);
        let why = deaf.why().unwrap();
        assert!(matches!(why, ServiceError::Refused { refusal: Refusal::Late, .. }), "{why}");
        assert_eq!(run(&mut bad.training), Ok(true));
        assert_eq!(honest.join().unwrap(), Ok(true));
    });
}
