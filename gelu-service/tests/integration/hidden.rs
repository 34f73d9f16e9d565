//! Inference that hides the model, over TLS on one machine.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gelu_io::session::{BackgroundSession, HiddenSession, RunError};
use gelu_io::transport::Transport;
use gelu_models::infer::SessionError;
use gelu_models::infer::hidden::{Answer, Client};
use gelu_models::peer::AbortReason;
use gelu_models::plan::Reveal;
use gelu_service::{Ledger, Limits, Modes, Refusal, ServiceError};
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::common::{KEY, Relay, all_end, expected, images, over_tls, remote, service, service_in, start};

/// Images one after the other, with two queries prepared together: the last sums of each, or its class.
fn hidden(transport: impl Transport, reveal: Reveal, count: usize) -> Result<Vec<i64>, RunError> {
    let rng = &mut rand::rng();
    let mut session = HiddenSession::open(transport, Client::new(Arc::clone(&KEY), 2, reveal), rng)?;
    let mut found = vec![];
    for image in images(count).outer_iter() {
        match session.infer(image.insert_axis(ndarray::Axis(0)).view(), rng)? {
            Answer::Logits(outcome) => found.extend_from_slice(outcome.integers.values()),
            Answer::Classes(classes) => found.extend(classes.iter().map(|&class| class as i64)),
        }
    }
    session.finish(rng)?;
    Ok(found)
}

/// The index of the largest of three sums, image by image.
fn classes(sums: &[i64]) -> Vec<i64> {
    let largest = |sums: &[i64]| (0..3).rev().max_by_key(|&class| sums[class]).unwrap() as i64;
    sums.chunks_exact(3).map(largest).collect()
}

#[test]
fn a_hidden_model_answers_over_tls_as_in_the_clear() {
    let server = start(Limits::default());
    let remote = remote(server.address()).hiding_model();
    let expected = expected(5);
    assert_eq!(hidden(remote.open("small").unwrap(), Reveal::Logits, 5).unwrap(), expected);
    assert_eq!(hidden(remote.open("small").unwrap(), Reveal::Class, 5).unwrap(), classes(&expected));
    all_end(&server);
}

/// What was prepared outlives the connection over which it came: the conversation goes on with it, and no query is used twice.
#[test]
fn a_broken_connection_costs_no_answer() {
    let server = start(Limits::default());
    let expected = expected(3);
    let open = |relay: &Relay| remote(relay.address).hiding_model().open("small").unwrap();
    let whole = {
        let relay = Relay::new(server.address(), vec![]);
        assert_eq!(hidden(open(&relay), Reveal::Logits, 3).unwrap(), expected);
        relay.bytes.load(Ordering::SeqCst)
    };
    let mut rng = ChaCha20Rng::seed_from_u64(12);
    for _ in 0..20 {
        let cut = rng.random_range(whole / 10..whole);
        let cuts = vec![cut, rng.random_range(0..whole), rng.random_range(0..4000)];
        let relay = Relay::new(server.address(), cuts.clone());
        let transport = Arc::new(open(&relay));
        let found = hidden(&transport, Reveal::Logits, 3);
        assert_eq!(
            found.unwrap_or_else(|error| panic!("{error}, {:?}, cuts {cuts:?}", transport.why())),
            expected
        );
    }
}

#[test]
fn a_conversation_that_was_left_alone_is_gone_with_what_was_prepared() {
    let server = start(Limits { absence: Duration::from_millis(500), ..Limits::default() });
    let relay = Relay::new(server.address(), [vec![40_000], vec![0; 5]].concat());
    let transport = Arc::new(remote(relay.address).hiding_model().open("small").unwrap());
    assert!(hidden(&transport, Reveal::Logits, 30).is_err());
    let why = transport.why().unwrap();
    assert!(matches!(why, ServiceError::Refused { refusal: Refusal::UnknownSession, .. }), "{why}");
}

/// A session that stays open between inputs, with a connection that breaks while nobody asks.
#[test]
fn queries_are_prepared_over_the_network_while_nobody_asks() {
    let server = start(Limits::default());
    let relay = Relay::new(server.address(), vec![60_000]);
    let transport = remote(relay.address).hiding_model().open("small").unwrap();
    let client = Client::new(Arc::clone(&KEY), 2, Reveal::Logits);
    let session = HiddenSession::open(transport, client, &mut rand::rng()).unwrap();
    let session = BackgroundSession::new(session, ChaCha20Rng::seed_from_u64(13)).unwrap();
    for (count, full) in [(1, 256), (3, 255)] {
        assert_eq!(session.wait_until_full(), full);
        let Ok(Answer::Logits(outcome)) = session.infer(images(count).into_dyn()) else { panic!("logits") };
        assert_eq!(outcome.integers.values(), expected(count));
    }
    session.finish().unwrap();
    all_end(&server);
}

#[test]
fn servers_decide_what_is_shown() {
    let refused = |error: ServiceError| matches!(error, ServiceError::Refused { refusal: Refusal::Mode, .. });
    let server = over_tls(service_in(Limits::default(), Modes::default()));
    let shown = remote(server.address());
    assert!(refused(shown.open("small").unwrap_err()));
    let offer = shown.find("small").unwrap();
    assert_eq!((offer.revealed, offer.hidden.unwrap().reveal), (None, Reveal::Logits));

    let server = over_tls(service_in(Limits::default(), Modes::revealed()));
    assert!(refused(remote(server.address()).hiding_model().open("small").unwrap_err()));
    assert!(shown_by(&server).hidden.is_none());

    let server = over_tls(service_in(Limits::default(), Modes::hidden(Reveal::Class)));
    let remote = remote(server.address()).hiding_model();
    assert_eq!(remote.find("small").unwrap().hidden.unwrap().reveal, Reveal::Class);
    let error = hidden(remote.open("small").unwrap(), Reveal::Logits, 1).unwrap_err();
    assert_eq!(error, RunError::Peer(SessionError::Aborted(AbortReason::Refused)));
    assert_eq!(hidden(remote.open("small").unwrap(), Reveal::Class, 2).unwrap(), classes(&expected(2)));
}

fn shown_by(server: &gelu_service::Running) -> gelu_service::Offer {
    remote(server.address()).find("small").unwrap()
}

/// A query counts when its input comes, and not when it is prepared.
#[test]
fn queries_count_against_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::open(folder.path()).unwrap());
    let server = over_tls(service(Limits::default()).with_ledger(Arc::clone(&ledger), Some(3)));
    let remote = remote(server.address()).hiding_model();
    assert_eq!(hidden(remote.open("small").unwrap(), Reveal::Logits, 2).unwrap(), expected(2));
    assert_eq!(ledger.usage().unwrap()[0].inputs, 2);
    let error = hidden(remote.open("small").unwrap(), Reveal::Class, 2).unwrap_err();
    assert_eq!(error, RunError::Peer(SessionError::Aborted(AbortReason::Spent { used: 3, allowed: 3 })));
}
