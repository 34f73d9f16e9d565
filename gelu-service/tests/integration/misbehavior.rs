//! Clients with a certificate that do not keep to the protocol, each beside one that does: the first ends with an error
//! that says why, on both sides, and the other with its results.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use gelu_io::session::Session;
use gelu_io::transport::Transport;
use gelu_models::infer::{Client, Event, Message, SessionId};
use gelu_models::peer::{AbortReason, Part, Peer};
use gelu_service::{
    ClientSecurity, Credentials, Limits, Patience, Refusal, Remote, RemoteTransport, Running, ServerSecurity,
    ServiceError, TrialAuthority,
};
use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_wire::{decode_message, encode_message};
use rand::{SeedableRng, rngs::ChaCha20Rng};
use rustls::pki_types::pem::PemObject;

use crate::common::{
    AUTHORITY, KEY, Relay, all_end, client_security, counted, expected, images, infer, remote, service,
};

/// A server with counters that can be read.
fn start(limits: Limits) -> Running {
    start_with(limits, &AUTHORITY.certificate())
}

/// One for clients of an authority.
fn start_with(limits: Limits, clients: &str) -> Running {
    let own = AUTHORITY.server(&["127.0.0.1".to_owned()]).unwrap();
    let credentials =
        Credentials::from_pem(own.certificate.as_bytes(), own.key.as_bytes(), clients.as_bytes()).unwrap();
    let service = service(limits).with_metrics("127.0.0.1:0".parse().unwrap());
    service.start("127.0.0.1:0", &ServerSecurity::Tls(credentials)).unwrap()
}

const BROKE_OFF: &str = "gelu_ended_total{model=\"small\",outcome=\"broke off\"}";
const FINISHED: &str = "gelu_ended_total{model=\"small\",outcome=\"finished\"}";

fn refused(refusal: &str) -> String {
    format!("gelu_refused_total{{reason=\"{refusal}\"}}")
}

/// Runs a session that keeps to the rules for as long as another does not, and then checks that nothing of the other is
/// left.
fn beside(server: &Running, misbehave: impl FnOnce()) {
    let address = server.address();
    let before = counted(server, FINISHED);
    let honest = thread::spawn(move || {
        let transport = remote(address).open("small").unwrap();
        assert_eq!(infer(&transport, 30).unwrap(), expected(30));
    });
    misbehave();
    honest.join().unwrap();
    all_end(server);
    assert!(counted(server, FINISHED) > before);
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(4)
}

fn encode(message: &Message) -> Vec<u8> {
    encode_message(message).unwrap()
}

fn hello() -> Message {
    Client::new(Arc::clone(&KEY), 1).next_message(&mut rng()).unwrap().unwrap()
}

/// What the server says before it ends the conversation.
fn told(transport: &RemoteTransport) -> Option<AbortReason> {
    loop {
        let bytes = transport.receive().ok()?;
        if let Message::Abort { reason } = decode_message(&bytes, Some(KEY.public_key())).unwrap() {
            return Some(reason);
        }
    }
}

/// Says these messages, and returns what the server makes of them.
fn reason_after(address: SocketAddr, messages: impl IntoIterator<Item = Vec<u8>>) -> Option<AbortReason> {
    let transport = remote(address).open("small").unwrap();
    for message in messages {
        // The server may have ended it meanwhile.
        let _ = transport.send(message);
    }
    told(&transport)
}

/// A session up to its first inputs, which are the last of the messages, and the client that made them.
fn opened(transport: &RemoteTransport) -> (Client, Message) {
    let mut session = Session::new(transport, Client::new(Arc::clone(&KEY), 1), ());
    assert!(matches!(session.step(&mut rng()), Ok(Some(Event::Ready))));
    let (mut client, ()) = session.into_parts();
    client.start(images(1).view()).unwrap();
    let inputs = client.next_message(&mut rng()).unwrap().unwrap();
    (client, inputs)
}

#[test]
fn another_version_of_the_protocol_is_refused() {
    let server = start(Limits::default());
    beside(&server, || {
        let Message::Hello { version, key, batch, prefer } = hello() else { panic!() };
        let other = Message::Hello { version: version + 1, key, batch, prefer };
        assert_eq!(reason_after(server.address(), [encode(&other)]), Some(AbortReason::Version));
    });
    assert_eq!(counted(&server, BROKE_OFF), 1);
}

#[test]
fn keys_that_are_none_are_refused() {
    let server = start(Limits::default());
    let whole = encode(&hello());
    let at = whole.len() - 3 * 128;
    let changed = |at: usize, bytes: &[u8]| {
        let mut message = whole.clone();
        message[at..at + bytes.len()].copy_from_slice(bytes);
        message
    };
    // n: even, zero, divisible by 3. h: zero, one, not below n^2.
    let one = [&[1][..], &[0; 255]].concat();
    let keys = [
        changed(at, &[0]),
        changed(at, &[0; 128]),
        changed(at, &[[0xff; 127].as_slice(), &[0xf0]].concat()),
        changed(at + 128, &[0; 256]),
        changed(at + 128, &one),
        changed(at + 128, &[0xff; 256]),
    ];
    beside(&server, || {
        for message in &keys {
            let reason = reason_after(server.address(), [message.clone()]);
            assert_eq!(reason, Some(AbortReason::BadTensor), "of {:?}", &message[at..at + 4]);
        }
        assert_eq!(
            reason_after(server.address(), [whole[..at + 100].to_vec()]),
            Some(AbortReason::Malformed)
        );
    });
    assert_eq!(counted(&server, BROKE_OFF), keys.len() as u64 + 1);
}

/// Lengths of headers and payloads are not taken at their word, nor is a batch.
#[test]
fn lengths_of_millions_are_refused_before_memory_is_taken() {
    let server = start(Limits::default());
    beside(&server, || {
        for (at, length) in [(6, 4), (10, 8)] {
            for value in [1_000_000_u64, u64::from(u32::MAX), u64::MAX] {
                let mut message = encode(&hello());
                message[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
                let reason = reason_after(server.address(), [message]);
                assert_eq!(reason, Some(AbortReason::Malformed), "{value} at {at}");
            }
        }
        for batch in [0, 1_000_000, u32::MAX] {
            let Message::Hello { version, key, prefer, .. } = hello() else { panic!() };
            let reason =
                reason_after(server.address(), [encode(&Message::Hello { version, key, batch, prefer })]);
            assert_eq!(reason, Some(AbortReason::Refused), "{batch}");
        }
    });
    assert_eq!(counted(&server, BROKE_OFF), 9);
}

#[test]
fn inputs_under_another_key_or_of_another_session_are_refused() {
    let server = start(Limits::default());
    let stranger = SecretKey::generate(KeyBits::Bits1024, &mut rng()).unwrap();
    beside(&server, || {
        let transport = remote(server.address()).open("small").unwrap();
        let (_, inputs) = opened(&transport);
        let Message::Tensor { position, index, ciphertexts } = &inputs else { panic!() };
        let bytes = ciphertexts.encode();
        let width = KEY.public_key().ciphertext_bytes();
        // Ciphertexts of one key that say they are of another.
        let foreign =
            gelu_tensor::EncChunk::decode(stranger.public_key(), &[&[2][..], &vec![0; width - 1]].concat());
        let (position, index) = (*position, *index);
        let foreign = Message::Tensor { position, index, ciphertexts: foreign.unwrap() };
        transport.send(encode(&foreign)).unwrap();
        assert_eq!(told(&transport), Some(AbortReason::BadTensor));

        // Numbers that are no ciphertexts: zero, and not below n^2.
        for byte in [0, 0xff] {
            let transport = remote(server.address()).open("small").unwrap();
            let mut message = encode(&opened(&transport).1);
            let at = message.len() - bytes.len();
            message[at..at + width].fill(byte);
            transport.send(message).unwrap();
            assert_eq!(told(&transport), Some(AbortReason::BadTensor));
        }

        let transport = remote(server.address()).open("small").unwrap();
        let (_, inputs) = opened(&transport);
        let Message::Tensor { mut position, index, ciphertexts } = inputs else { panic!() };
        position.session = SessionId([0; 16]);
        transport.send(encode(&Message::Tensor { position, index, ciphertexts })).unwrap();
        assert_eq!(told(&transport), Some(AbortReason::UnexpectedMessage));
    });
    assert_eq!(counted(&server, BROKE_OFF), 4);
}

/// A second hello ends the conversation, however many follow; and conversations beyond the limit are refused.
#[test]
fn floods_of_hellos_are_cut_off() {
    let server = start(Limits { sessions_per_client: 4, ..Limits::default() });
    beside(&server, || {
        let hellos = std::iter::repeat_n(encode(&hello()), 1000);
        assert_eq!(reason_after(server.address(), hellos), Some(AbortReason::UnexpectedMessage));
        all_but(&server, 1);
        let flooding = remote(server.address());
        let mut held = vec![];
        let mut busy = 0;
        for _ in 0..100 {
            match flooding.open("small") {
                Ok(transport) => {
                    transport.send(encode(&hello())).unwrap();
                    held.push(transport);
                }
                Err(ServiceError::Refused { refusal: Refusal::Busy, .. }) => busy += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((held.len(), busy), (4, 96));
        assert!(server.sessions() <= 5);
        assert_eq!(counted(&server, &refused("too many conversations")), busy);
        for transport in held {
            transport.send(encode(&Message::Abort { reason: AbortReason::Closed })).unwrap();
        }
    });
}

/// Waits until at most so many conversations are left.
fn all_but(server: &Running, most: usize) {
    let since = Instant::now();
    while server.sessions() > most && since.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that come one at a time keep a conversation no longer than silence does.
#[test]
fn a_stream_that_trickles_is_let_go() {
    let server = start(Limits { silence: Duration::from_millis(700), ..Limits::default() });
    // Some messages, and then a byte every twenty milliseconds.
    let relay = Relay::trickling(server.address(), 12_000, Duration::from_millis(20));
    let since = Instant::now();
    beside(&server, || {
        let patience = Patience { answer: Duration::from_secs(20), ..Patience::default() };
        let url = format!("https://{}", relay.address);
        let slow = Remote::new(&url, &client_security(), patience).unwrap();
        let transport = slow.open("small").unwrap();
        all_but(&server, 2);
        let begun = Instant::now();
        thread::spawn(move || infer(&transport, 5).unwrap_err());
        while counted(&server, BROKE_OFF) == 0 && begun.elapsed() < Duration::from_secs(15) {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(counted(&server, BROKE_OFF), 1);
    });
    assert!(since.elapsed() < Duration::from_secs(30));
}

/// A client that asks and does not read what it is told: what it is told is two batches at most, and it is let go.
#[test]
fn a_client_that_never_reads_is_let_go() {
    let server = start(Limits { silence: Duration::from_millis(700), ..Limits::default() });
    beside(&server, || {
        let relay = Relay::deaf(server.address(), 6_000);
        let url = format!("https://{}", relay.address);
        let deaf = Remote::new(&url, &client_security(), Patience::default()).unwrap();
        let transport = deaf.open("small").unwrap();
        thread::spawn(move || infer(&transport, 200).unwrap_err());
        let begun = Instant::now();
        while counted(&server, BROKE_OFF) == 0 && begun.elapsed() < Duration::from_secs(15) {
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(counted(&server, BROKE_OFF), 1);
    });
}

/// Certificates that the server does not take: of an authority that it does not know, expired, for servers only.
#[test]
fn clients_are_told_that_their_certificate_is_not_taken() {
    let [stranger, expired] = [2, 0].map(|days| TrialAuthority::new(days).unwrap());
    let both = [AUTHORITY.certificate(), expired.certificate()].concat();
    let server = start_with(Limits::default(), &both);
    let of_server = AUTHORITY.server(&["localhost".to_owned()]).unwrap();
    let certificates = [stranger.client("s").unwrap(), expired.client("e").unwrap(), of_server];
    // Certificates hold from yesterday, one of these for no day more.
    thread::sleep(Duration::from_millis(1100));
    beside(&server, || {
        for own in certificates {
            let credentials = Credentials::from_pem(
                own.certificate.as_bytes(),
                own.key.as_bytes(),
                AUTHORITY.certificate().as_bytes(),
            );
            let security = ClientSecurity::Tls { credentials: credentials.unwrap(), known: None };
            let url = format!("https://{}", server.address());
            let remote = Remote::new(&url, &security, Patience::default()).unwrap();
            for error in [remote.offers().unwrap_err(), remote.open("small").unwrap_err()] {
                let is_typed = matches!(&error, ServiceError::Refused { refusal: Refusal::Identity, .. });
                assert!(is_typed, "{error}");
            }
        }
    });
    // gRPC tries more than once.
    assert!(counted(&server, &refused("certificate")) >= 6);
}

/// A client without any certificate gets through its half of the handshake, and then an alert.
#[test]
fn clients_without_a_certificate_are_not_talked_to() {
    let server = start(Limits::default());
    beside(&server, || {
        let mut roots = rustls::RootCertStore::empty();
        let authority = AUTHORITY.certificate();
        let parsed = rustls::pki_types::CertificateDer::pem_slice_iter(authority.as_bytes());
        parsed.for_each(|certificate| roots.add(certificate.unwrap()).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        let _ = tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let error = tls.read_to_end(&mut vec![]).unwrap_err();
        assert!(error.to_string().contains("CertificateRequired"), "{error}");
    });
    assert_eq!(counted(&server, &refused("certificate")), 1);
}

/// What a server says of another model than the one that was agreed on, or of the wrong size, is the client's to refuse.
#[test]
fn a_conversation_is_about_the_model_that_it_was_opened_for() {
    let server = start(Limits::default());
    beside(&server, || {
        let error = remote(server.address()).open("other").unwrap_err();
        assert!(matches!(error, ServiceError::Refused { refusal: Refusal::UnknownModel, .. }), "{error}");
        // Inputs of a segment that the model does not have.
        let transport = remote(server.address()).open("small").unwrap();
        let Message::Tensor { mut position, index, ciphertexts } = opened(&transport).1 else { panic!() };
        position.part = Part::Inputs { segment: 7, term: 0 };
        transport.send(encode(&Message::Tensor { position, index, ciphertexts })).unwrap();
        assert_eq!(told(&transport), Some(AbortReason::UnexpectedMessage));
    });
    assert_eq!(counted(&server, &refused("no such model")), 1);
}
