//! Clients and servers that are not what they should be: each ends with an error that says why, and harms nobody else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use gelu_service::{
    ClientSecurity, Credentials, Fingerprint, Ledger, Limits, Patience, Refusal, Remote, ServerSecurity,
    ServiceError, TrialAuthority,
};

use crate::common::{AUTHORITY, client_security, expected, infer, remote, service, start};

fn patience() -> Patience {
    Patience { connect: Duration::from_secs(5), ..Patience::default() }
}

fn with(credentials: Credentials) -> ClientSecurity {
    ClientSecurity::Tls { credentials, known: None }
}

/// Whether the server still serves others.
fn still_serves(address: std::net::SocketAddr) {
    assert_eq!(infer(&remote(address).open("small").unwrap(), 1).unwrap(), expected(1));
}

#[test]
fn certificates_of_another_authority_are_refused_on_both_sides() {
    let server = start(Limits::default());
    let url = format!("https://{}", server.address());
    let stranger = TrialAuthority::new(2).unwrap();
    // The client trusts the server, and not the other way round.
    let own = stranger.client("stranger").unwrap();
    let mixed = Credentials::from_pem(
        own.certificate.as_bytes(),
        own.key.as_bytes(),
        AUTHORITY.certificate().as_bytes(),
    );
    let error = Remote::new(&url, &with(mixed.unwrap()), patience()).unwrap().offers().unwrap_err();
    assert!(matches!(error, ServiceError::Refused { refusal: Refusal::Identity, .. }), "{error}");
    // The client does not trust the server.
    let error =
        Remote::new(&url, &with(own.credentials().unwrap()), patience()).unwrap().offers().unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    still_serves(server.address());
}

#[test]
fn a_certificate_for_servers_is_none_for_clients() {
    let server = start(Limits::default());
    let own = AUTHORITY.server(&["localhost".to_owned()]).unwrap().credentials().unwrap();
    let url = format!("https://{}", server.address());
    assert!(Remote::new(&url, &with(own), patience()).unwrap().offers().is_err());
}

#[test]
fn a_certificate_that_has_expired_is_refused() {
    let server = start(Limits::default());
    // Certificates hold from yesterday, these for no day more.
    let expired = TrialAuthority::new(0).unwrap();
    let credentials = expired.server(&["127.0.0.1".to_owned()]).unwrap().credentials().unwrap();
    let late = service(Limits::default()).start("127.0.0.1:0", &ServerSecurity::Tls(credentials)).unwrap();
    thread::sleep(Duration::from_millis(1100));
    let own = expired.client("late").unwrap();
    let url = format!("https://{}", late.address());
    let error =
        Remote::new(&url, &with(own.credentials().unwrap()), patience()).unwrap().offers().unwrap_err();
    assert!(error.to_string().to_lowercase().contains("expired"), "{error}");
    still_serves(server.address());
}

#[test]
fn a_server_with_another_key_than_the_known_one_is_not_talked_to() {
    let server = start(Limits::default());
    let known: Fingerprint = "ab".repeat(32).parse().unwrap();
    let ClientSecurity::Tls { credentials, .. } = client_security() else { panic!() };
    let security = ClientSecurity::Tls { credentials, known: Some(known) };
    let remote = Remote::new(&format!("https://{}", server.address()), &security, patience()).unwrap();
    let error = remote.offers().unwrap_err();
    assert!(matches!(error, ServiceError::ForeignServer { expected, .. } if expected == known), "{error}");
    assert!(matches!(remote.open("small"), Err(ServiceError::ForeignServer { .. })));
}

#[test]
fn without_tls_only_this_machine_is_reached() {
    let all = service(Limits::default()).start("0.0.0.0:0", &ServerSecurity::Loopback);
    assert!(matches!(all, Err(ServiceError::Unprotected { .. })));
    let far = Remote::new("http://example.com:7443", &ClientSecurity::Loopback, patience());
    assert!(matches!(far, Err(ServiceError::UnprotectedServer { .. })));
    for wrong in ["ftp://localhost", "localhost:1", "https://localhost", "http://localhost/path", ""] {
        let found = Remote::new(wrong, &ClientSecurity::Loopback, patience());
        assert!(found.is_err(), "{wrong}");
    }
    let server = service(Limits::default()).start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap();
    let url = format!("http://{}", server.address());
    let remote = Remote::new(&url, &ClientSecurity::Loopback, patience()).unwrap();
    assert_eq!(infer(&remote.open("small").unwrap(), 1).unwrap(), expected(1));
    assert_eq!(remote.fingerprint(), None);
}

#[test]
fn more_conversations_than_allowed_are_refused() {
    for (limits, allowed) in [
        (Limits { sessions: 2, ..Limits::default() }, 2),
        (Limits { sessions_per_client: 1, ..Limits::default() }, 1),
    ] {
        let server = start(limits);
        let remote = remote(server.address());
        let held: Vec<_> = (0..allowed).map(|_| remote.open("small").unwrap()).collect();
        let error = remote.open("small").unwrap_err();
        assert!(matches!(error, ServiceError::Refused { refusal: Refusal::Busy, .. }), "{error}");
        assert_eq!(server.sessions(), allowed);
        // Those that were let in are unharmed, and make room when they end.
        for transport in held {
            assert_eq!(infer(&transport, 1).unwrap(), expected(1));
        }
        let since = Instant::now();
        while server.sessions() > 0 && since.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        still_serves(server.address());
    }
}

/// The budget is one certificate's, and holds over conversations and restarts of the server.
#[test]
fn a_client_over_its_budget_is_told_what_it_has_used() {
    let folder = tempfile::tempdir().unwrap();
    let credentials = || AUTHORITY.server(&["127.0.0.1".to_owned()]).unwrap().credentials().unwrap();
    let start = || {
        let ledger = Arc::new(Ledger::open(folder.path()).unwrap());
        let service = service(Limits::default()).with_ledger(ledger, Some(5));
        service.start("127.0.0.1:0", &ServerSecurity::Tls(credentials())).unwrap()
    };
    let server = start();
    let client = remote(server.address());
    assert_eq!(infer(&client.open("small").unwrap(), 2).unwrap(), expected(2));
    assert_eq!(infer(&client.open("small").unwrap(), 2).unwrap(), expected(2));
    // With one input left, the first batch is answered and the second is not.
    let error = infer(&client.open("small").unwrap(), 2).unwrap_err().to_string();
    assert!(error.contains("of the 5 inputs that it grants this client, 5 are used"), "{error}");
    server.stop();
    let server = start();
    // Each call makes a certificate of its own.
    assert_eq!(infer(&remote(server.address()).open("small").unwrap(), 3).unwrap(), expected(3));
    let ledger = Ledger::open(folder.path()).unwrap();
    let mut inputs: Vec<u64> = ledger.usage().unwrap().iter().map(|usage| usage.inputs).collect();
    inputs.sort_unstable();
    assert_eq!(inputs, [3, 5]);
}

/// A ledger that cannot be written lets nobody in: a budget that is not kept is none.
#[test]
fn without_an_account_nothing_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::open(folder.path()).unwrap());
    let broken = rusqlite::Connection::open(ledger.path()).unwrap();
    broken.execute_batch("DROP TABLE usage").unwrap();
    let service = service(Limits::default()).with_ledger(ledger, None);
    let server = service.start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap();
    let url = format!("http://{}", server.address());
    let remote = Remote::new(&url, &ClientSecurity::Loopback, patience()).unwrap();
    let error = infer(&remote.open("small").unwrap(), 1).unwrap_err().to_string();
    assert!(error.contains("could not go on by itself"), "{error}");
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let server = start(Limits { silence: Duration::from_millis(200), ..Limits::default() });
    let transport = remote(server.address()).open("small").unwrap();
    let since = Instant::now();
    while server.sessions() > 0 && since.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.sessions(), 0);
    thread::sleep(Duration::from_millis(100));
    assert!(infer(&transport, 1).is_err());
    let why = transport.why().unwrap();
    assert!(matches!(why, ServiceError::Refused { refusal: Refusal::Late, .. }), "{why}");
}

/// Connections that never finish their handshake do not keep others out for long, nor forever those that fill all places.
#[test]
fn a_handshake_that_takes_too_long_is_cut_off() {
    let limits = Limits { opening: Duration::from_secs(2), connections: 4, ..Limits::default() };
    let server = start(limits);
    let mut slow: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    slow[0].write_all(&[22, 3, 1]).unwrap();
    still_serves(server.address());
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

#[test]
fn bytes_that_are_no_tls_harm_nobody() {
    let server = start(Limits::default());
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = vec![];
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // An alert, or nothing.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.len() < 100);
    still_serves(server.address());
}
