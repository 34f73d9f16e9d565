//! Private inference over TLS on one machine: the integers are those of the clear computation, whatever breaks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use gelu_io::transport::{Disconnected, Transport};
use gelu_models::infer::Message;
use gelu_models::peer::AbortReason;
use gelu_models::plan::Reveal;
use gelu_service::{Limits, Refusal, ServiceError};
use gelu_wire::encode_message;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::common::{Relay, expected, images, infer, remote, start};

#[test]
fn results_over_tls_equal_the_clear_computation() {
    let server = start(Limits::default());
    let remote = remote(server.address());
    let transport = remote.open("small").unwrap();
    assert_eq!(infer(&transport, 5).unwrap(), expected(5));
    let (sent, received) = transport.bytes();
    assert!(sent > 10_000 && received > 1_000, "{sent} {received}");
    assert!(remote.fingerprint().is_some());
}

#[test]
fn who_listens_no_more_does_not_wait_and_can_still_end_the_session() {
    let server = start(Limits::default());
    let transport = Arc::new(remote(server.address()).open("small").unwrap());
    let waiting = {
        let transport = Arc::clone(&transport);
        // The server has nothing to say before the hello, for as long as it takes one.
        thread::spawn(move || transport.receive())
    };
    let since = Instant::now();
    transport.stop_listening();
    assert_eq!(waiting.join().unwrap(), Err(Disconnected));
    assert_eq!(transport.try_receive(), Err(Disconnected));
    assert_eq!(server.sessions(), 1);
    let abort = encode_message(&Message::Abort { reason: AbortReason::Closed }).unwrap();
    transport.send(abort).unwrap();
    drop(transport);
    while server.sessions() > 0 {
        assert!(since.elapsed() < Duration::from_secs(10), "the server keeps the session");
        thread::yield_now();
    }
}

#[test]
fn models_are_listed_with_what_a_client_has_to_know() {
    let server = start(Limits::default());
    let remote = remote(server.address());
    let offers = remote.offers().unwrap();
    assert_eq!(offers.len(), 1);
    let offer = remote.find("small").unwrap();
    assert_eq!((offer.interface.input.dims(), offer.interface.outputs), (&[1, 6, 6][..], 3));
    let cost = offer.revealed.unwrap();
    assert_eq!(cost.round_trips, 2);
    assert!(cost.products > 0 && cost.up.1 == cost.up.0 * 512);
    let cost = offer.hidden.unwrap();
    assert_eq!((cost.round_trips, cost.reveal), (2, Reveal::Logits));
    assert!(
        cost.ands > 0
            && cost.products > 0
            && cost.ahead.1 > cost.online.1
            && cost.online.0 < cost.online.1 / 10
    );
    let missing = remote.find("large").unwrap_err();
    assert!(matches!(missing, ServiceError::Refused { refusal: Refusal::UnknownModel, .. }), "{missing}");
    let missing = remote.open("large").unwrap_err();
    assert!(matches!(missing, ServiceError::Refused { refusal: Refusal::UnknownModel, .. }), "{missing}");
    assert!(missing.to_string().contains("the models here are small"), "{missing}");
}

#[test]
fn sessions_at_once_all_finish_with_their_own_results() {
    let server = start(Limits { sessions_per_client: 64, ..Limits::default() });
    let expected = Arc::new(expected(2));
    let threads: Vec<_> = (0..32)
        .map(|_| {
            let (remote, expected) = (remote(server.address()), Arc::clone(&expected));
            thread::spawn(move || assert_eq!(infer(&remote.open("small").unwrap(), 2).unwrap(), *expected))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let since = Instant::now();
    while server.sessions() > 0 && since.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.sessions(), 0);
}

/// The connection breaks at random bytes, again and again.
#[test]
fn a_broken_connection_is_made_again_and_nothing_is_lost() {
    let server = start(Limits::default());
    let expected = expected(3);
    let whole = {
        let relay = Relay::new(server.address(), vec![]);
        let transport = remote(relay.address).open("small").unwrap();
        assert_eq!(infer(&transport, 3).unwrap(), expected);
        relay.bytes.load(Ordering::SeqCst)
    };
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    // The first connection lasts at least until the conversation has begun.
    for _ in 0..20 {
        let cut = rng.random_range(whole / 10..whole);
        let relay =
            Relay::new(server.address(), vec![cut, rng.random_range(0..whole), rng.random_range(0..4000)]);
        let transport = remote(relay.address).open("small").unwrap();
        let found = infer(&transport, 3);
        let why = transport.why();
        assert_eq!(found.unwrap_or_else(|error| panic!("{error}, {why:?}, cut at {cut}")), expected);
    }
}

#[test]
fn a_conversation_that_was_left_alone_for_too_long_is_gone() {
    let server = start(Limits { absence: Duration::from_millis(500), ..Limits::default() });
    // The first connection breaks after the handshake and the first messages; others find nobody for a while.
    let relay = Relay::new(server.address(), [vec![20_000], vec![0; 5]].concat());
    let transport = remote(relay.address).open("small").unwrap();
    assert!(infer(&transport, 30).is_err());
    let why = transport.why().unwrap();
    assert!(matches!(why, ServiceError::Refused { refusal: Refusal::UnknownSession, .. }), "{why}");
}

#[test]
fn a_conversation_that_takes_longer_than_a_stopping_server_waits_is_told_so() {
    let server = start(Limits { grace: Duration::from_millis(50), ..Limits::default() });
    let transport = remote(server.address()).open("small").unwrap();
    server.stop();
    assert!(infer(&transport, 1).is_err());
    let why = transport.why().unwrap();
    assert!(matches!(why, ServiceError::Refused { refusal: Refusal::Stopping, .. }), "{why}");
}

#[test]
fn a_server_that_stops_lets_conversations_end_and_takes_no_new_ones() {
    let server = start(Limits::default());
    let remote = remote(server.address());
    let transport = remote.open("small").unwrap();
    let stopping = thread::spawn(move || server.stop());
    let since = Instant::now();
    let refused = loop {
        match remote.open("small") {
            Err(error) => break error,
            Ok(_) => assert!(since.elapsed() < Duration::from_secs(10)),
        }
    };
    assert!(matches!(refused, ServiceError::Refused { refusal: Refusal::Stopping, .. }), "{refused}");
    assert_eq!(infer(&transport, 2).unwrap(), expected(2));
    stopping.join().unwrap();
    assert!(matches!(remote.open("small"), Err(ServiceError::Unreachable { .. })));
    assert_eq!(images(2).len(), 72);
}
