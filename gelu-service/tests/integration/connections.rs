//! One certificate does not take the connections of all: beyond its own it is told so, and others get in.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use gelu_service::{
    ClientSecurity, Limits, Patience, Refusal, Remote, Running, ServerSecurity, ServiceError,
    TrialCertificate,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::common::{AUTHORITY, counted, expected, infer, remote, service};

const REFUSED: &str = "gelu_refused_total{reason=\"too many connections\"}";

fn start(limits: Limits) -> Running {
    let own = AUTHORITY.server(&["127.0.0.1".to_owned()]).unwrap();
    let service = service(limits).with_metrics("127.0.0.1:0".parse().unwrap());
    service.start("127.0.0.1:0", &ServerSecurity::Tls(own.credentials().unwrap())).unwrap()
}

/// A connection that gets through its handshake and then says nothing.
fn idle(address: SocketAddr, own: &TrialCertificate) -> (rustls::ClientConnection, TcpStream) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(own.authority.as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    (connection, stream)
}

fn busy(error: &ServiceError) -> bool {
    matches!(error, ServiceError::Refused { refusal: Refusal::Connections, message, .. } if message.contains("may have 3 connections"))
}

#[test]
fn a_certificate_beyond_its_connections_is_told_so_and_others_get_in() {
    let opening = Duration::from_secs(1);
    let limits = Limits { connections: 9, connections_per_client: 3, opening, ..Limits::default() };
    let server = start(limits);
    let own = AUTHORITY.client("greedy").unwrap();
    let security = ClientSecurity::Tls { credentials: own.credentials().unwrap(), known: None };
    let url = format!("https://{}", server.address());
    let greedy = Remote::new(&url, &security, Patience::default()).unwrap();
    let held: Vec<_> = (0..3).map(|_| greedy.open("small").unwrap()).collect();
    for _ in 0..3 {
        let error = greedy.open("small").unwrap_err();
        assert!(busy(&error), "{error}");
        assert!(error.to_string().contains("too many connections"), "{error}");
        let error = greedy.offers().unwrap_err();
        assert!(busy(&error), "{error}");
    }
    assert_eq!(counted(&server, REFUSED), 6);

    // Any number that say nothing leave places for others, before those that are there are closed.
    let since = Instant::now();
    let silent: Vec<_> = (0..40).map(|_| idle(server.address(), &own)).collect();
    assert_eq!(infer(&remote(server.address()).open("small").unwrap(), 1).unwrap(), expected(1));
    while counted(&server, REFUSED) < 6 + 36 && since.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(10));
    }
    assert!(counted(&server, REFUSED) >= 6 + 36);

    // Those that were let in are unharmed, and make room when they end, as do those that were told.
    for transport in held {
        assert_eq!(infer(&transport, 1).unwrap(), expected(1));
    }
    let since = Instant::now();
    let again = loop {
        match greedy.open("small") {
            Ok(transport) => break transport,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(10), "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(infer(&again, 1).unwrap(), expected(1));
    drop(silent);
}
