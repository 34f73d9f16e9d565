use std::sync::LazyLock;

use gelu_models::infer::hidden::{Answer, Client, Event, Message, Server};
use gelu_models::peer::{AbortReason, Conversation, Peer};
use gelu_models::plan::Reveal;
use proptest::prelude::*;
use serde_json::json;

use super::{KEY, MODEL, edited, images, public, rng};
use crate::frame::CIRCUIT_BYTES;
use crate::hidden::{decode_hidden, encode_hidden};
use crate::{Kind, WireError, WirePeer};

/// Every message of a session for each thing that can be revealed, as bytes.
static MESSAGES: LazyLock<Vec<(Kind, Vec<u8>)>> = LazyLock::new(|| {
    let mut all = vec![(Kind::Abort, encode_hidden(&Message::abort(AbortReason::BadPlan)).unwrap())];
    for reveal in [Reveal::Logits, Reveal::Class] {
        all.extend(session(reveal));
    }
    all
});

fn kind(message: &Message) -> Kind {
    match message {
        Message::Hello { .. } => Kind::HiddenHello,
        Message::Accept { .. } => Kind::HiddenAccept,
        Message::Tensor { .. } => Kind::Tensor,
        Message::Choices { .. } => Kind::Choices,
        Message::Tables { .. } => Kind::Tables,
        Message::Shares { .. } => Kind::Shares,
        Message::Labels { .. } => Kind::Labels,
        Message::Sums { .. } => Kind::Sums,
        Message::Finish { .. } => Kind::Finish,
        Message::Abort { .. } => Kind::Abort,
    }
}

/// A session whose messages travel as bytes, and its messages.
fn session(reveal: Reveal) -> Vec<(Kind, Vec<u8>)> {
    let rng = &mut rng();
    let (mut server, mut client) = (Server::new(MODEL.clone()), Client::new(KEY.clone(), 2, reveal));
    let (mut all, mut answers) = (vec![], 0);
    while !client.is_closed() {
        while !client.is_closed()
            && let Some(message) = client.next_message(rng).unwrap()
        {
            let bytes = Client::encode(&message).unwrap();
            server.handle(server.decode(&bytes).unwrap(), rng).unwrap();
            all.push((kind(&message), bytes));
        }
        while !server.is_closed()
            && let Some(message) = server.next_message(rng).unwrap()
        {
            let bytes = Server::encode(&message).unwrap();
            all.push((kind(&message), bytes.clone()));
            match client.handle(client.decode(&bytes).unwrap(), rng).unwrap() {
                Some(Event::Ready) => client.start(images().view()).unwrap(),
                Some(Event::Done(answer)) => {
                    assert_eq!(matches!(answer, Answer::Classes(_)), reveal == Reveal::Class);
                    answers += 1;
                    client.finish().unwrap();
                }
                _ => {}
            }
        }
    }
    assert!(server.is_closed() && answers == 1);
    all
}

fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    decode_hidden(bytes, Some(public()))
}

fn message(kind: Kind) -> &'static [u8] {
    &MESSAGES.iter().find(|(found, _)| *found == kind).unwrap().1
}

#[test]
fn every_message_of_the_hidden_mode_comes_back() {
    for (sent, bytes) in MESSAGES.iter() {
        let message = decode(bytes).unwrap();
        assert_eq!(kind(&message), *sent);
        assert_eq!(&encode_hidden(&message).unwrap(), bytes);
    }
    let kinds = MESSAGES.iter().map(|(kind, _)| *kind as u8).collect::<std::collections::BTreeSet<u8>>();
    assert_eq!(kinds.len(), 10);
}

#[test]
fn cut_and_lengthened_messages_are_refused() {
    for (_, bytes) in MESSAGES.iter() {
        for length in (0..18).chain([bytes.len() - 1]) {
            assert!(matches!(decode(&bytes[..length]), Err(WireError::Length { .. })));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(decode(&longer), Err(WireError::Length { .. })));
    }
}

#[test]
fn every_field_of_a_header_is_needed_and_no_other_taken() {
    for (kind, bytes) in MESSAGES.iter() {
        let without = edited(*kind, bytes, |header, _| {
            let header = header.as_object_mut().unwrap();
            let first = header.keys().next().unwrap().clone();
            header.remove(&first);
        });
        assert!(matches!(decode(&without), Err(WireError::Header { .. })), "{kind}");
        let more = edited(*kind, bytes, |header, _| header["more"] = json!(1));
        assert!(matches!(decode(&more), Err(WireError::Header { .. })), "{kind}");
    }
}

#[test]
fn bytes_that_do_not_belong_are_refused() {
    for kind in [Kind::Finish, Kind::Abort] {
        let payload = edited(kind, message(kind), |_, payload| payload.push(1));
        assert_eq!(decode(&payload).unwrap_err(), WireError::Length { expected: 0, found: 1 });
    }
    let hello = edited(Kind::HiddenHello, message(Kind::HiddenHello), |_, payload| payload.truncate(31));
    assert_eq!(decode(&hello).unwrap_err(), WireError::Length { expected: 32, found: 31 });
    let large =
        edited(Kind::Tables, message(Kind::Tables), |_, payload| payload.resize(CIRCUIT_BYTES + 1, 0));
    let error = decode(&large).unwrap_err();
    assert!(matches!(error, WireError::TooLarge { what: "payload", .. }), "{error}");
    let other = super::message(Kind::Accept);
    assert!(matches!(decode(other), Err(WireError::Kind { .. })));
    assert_eq!(decode_hidden(message(Kind::Tensor), None).unwrap_err(), WireError::NoKey);
}

proptest! {
    #[test]
    fn damaged_messages_of_the_hidden_mode_do_no_harm(
        which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte: u8,
    ) {
        let (_, bytes) = &MESSAGES[which.index(MESSAGES.len())];
        let mut bytes = bytes.clone();
        let at = at.index(bytes.len());
        bytes[at] ^= byte;
        if let Ok(message) = decode(&bytes) {
            prop_assert!(encode_hidden(&message).is_ok());
        }
    }
}
