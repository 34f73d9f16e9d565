//! Browsers' way in: the page, its headers, and the same conversations over WebSocket and step by step.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use gelu_io::session::{ClientSession, RunError};
use gelu_io::transport::{Disconnected, Transport};
use gelu_models::infer::Client;
use gelu_models::plan::{Outcome, Reveal};
use gelu_service::{
    Limits, Modes, Running, SERVICE_VERSION, ServerSecurity, Web, append_message, split_messages,
};
use prost::Message as _;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream as AsyncStream;
use tokio::runtime::Runtime;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

#[allow(dead_code, unreachable_pub, missing_docs, clippy::all, reason = "generated")]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/gelu.v1.rs"));
}

use proto::{ClientFrame, Data, Open, ServerFrame, client_frame, server_frame};

use crate::common::{AUTHORITY, KEY, Relay, counted, expected, images, model, service, service_in};

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A server that is stopped with conversations that nobody ended does not wait for them.
fn limits() -> Limits {
    Limits { grace: Duration::from_millis(200), ..Limits::default() }
}

fn start(limits: Limits, web: Web) -> Running {
    let service = service(limits).with_metrics(local()).with_web(web);
    service.start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap()
}

fn plain() -> Running {
    start(limits(), Web::new(local()))
}

/// Sends a request and returns the status, the head and the body of the answer.
fn ask(address: SocketAddr, request: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    answer(stream)
}

fn answer(mut stream: impl Read) -> (u16, String, Vec<u8>) {
    let mut bytes = vec![];
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = bytes[end + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    (status, head, body)
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = vec![];
    loop {
        let end = bytes.windows(2).position(|at| at == b"\r\n").unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        if length == 0 {
            return whole;
        }
        whole.extend_from_slice(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 2 + length + 2..];
    }
}

fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n"),
        b"",
    )
}

fn post(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    ask(address, &head, body)
}

/// A client that carries a request for everything that it has to say.
struct Stepping {
    address: SocketAddr,
    path: String,
    outgoing: RefCell<Vec<u8>>,
    arrived: RefCell<VecDeque<Vec<u8>>>,
    requests: Cell<usize>,
}

impl Stepping {
    fn new(address: SocketAddr, name: &str) -> Self {
        let path = format!("/v1/sessions/{name}/step?model=small&hidden=0");
        Self {
            address,
            path,
            outgoing: RefCell::default(),
            arrived: RefCell::default(),
            requests: Cell::new(0),
        }
    }

    fn exchange(&self) {
        let (status, _, reply) = post(self.address, &self.path, "", &self.outgoing.take());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&reply));
        self.arrived.borrow_mut().extend(split_messages(&reply).unwrap());
        self.requests.set(self.requests.get() + 1);
    }
}

impl Transport for Stepping {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        append_message(&mut self.outgoing.borrow_mut(), &message);
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        if self.arrived.borrow().is_empty() {
            self.exchange();
        }
        self.try_receive()?.ok_or(Disconnected)
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        Ok(self.arrived.borrow_mut().pop_front())
    }
}

/// A client over WebSocket, which comes back where its connection breaks.
struct Socket {
    address: SocketAddr,
    runtime: Runtime,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    stream: Option<WebSocketStream<AsyncStream>>,
    session: Vec<u8>,
    sent: Vec<Vec<u8>>,
    /// Of them, over this connection or known to have arrived.
    next: usize,
    received: u64,
    connections: usize,
}

async fn connect(address: SocketAddr) -> Result<WebSocketStream<AsyncStream>, Error> {
    let stream = AsyncStream::connect(address).await?;
    let request = format!("ws://{address}/v1/converse").into_client_request()?;
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

fn frame(frame: client_frame::Frame) -> Message {
    Message::Binary(ClientFrame { frame: Some(frame) }.encode_to_vec().into())
}

fn opening() -> Open {
    Open { version: SERVICE_VERSION, model: "small".to_owned(), ..Open::default() }
}

impl Socket {
    fn new(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { address, runtime, state: RefCell::default() }
    }

    /// Tries as often as it takes.
    fn persist<R>(&self, mut act: impl AsyncFnMut(&mut State) -> Result<R, Error>) -> R {
        let mut state = self.state.borrow_mut();
        let since = Instant::now();
        loop {
            let done = self.runtime.block_on(async {
                if state.stream.is_none() {
                    self.open(&mut state).await?;
                }
                act(&mut state).await
            });
            match done {
                Ok(done) => return done,
                Err(error) => {
                    assert!(since.elapsed() < Duration::from_secs(20), "{error}");
                    state.stream = None;
                }
            }
        }
    }

    async fn open(&self, state: &mut State) -> Result<(), Error> {
        let mut stream = connect(self.address).await?;
        let open = Open { session: state.session.clone().into(), received: state.received, ..opening() };
        stream.send(frame(client_frame::Frame::Open(open))).await?;
        loop {
            match stream.next().await.ok_or(Error::ConnectionClosed)?? {
                Message::Binary(bytes) => {
                    let opened = match ServerFrame::decode(bytes).unwrap().frame {
                        Some(server_frame::Frame::Opened(opened)) => opened,
                        other => panic!("{other:?}"),
                    };
                    state.session = opened.session.into();
                    state.next = opened.received as usize;
                    state.stream = Some(stream);
                    state.connections += 1;
                    return Ok(());
                }
                Message::Close(close) => panic!("{close:?}"),
                _ => {}
            }
        }
    }
}

async fn flush(state: &mut State) -> Result<(), Error> {
    while let Some(message) = state.sent.get(state.next) {
        let data =
            Data { number: state.next as u64, message: message.clone().into(), received: state.received };
        let stream = state.stream.as_mut().ok_or(Error::ConnectionClosed)?;
        stream.send(frame(client_frame::Frame::Data(data))).await?;
        state.next += 1;
    }
    Ok(())
}

impl Transport for Socket {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        self.state.borrow_mut().sent.push(message);
        self.persist(flush);
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        Ok(self.persist(async |state: &mut State| {
            flush(state).await?;
            loop {
                let stream = state.stream.as_mut().ok_or(Error::ConnectionClosed)?;
                let Message::Binary(bytes) = stream.next().await.ok_or(Error::ConnectionClosed)?? else {
                    continue;
                };
                if let Some(server_frame::Frame::Data(data)) = ServerFrame::decode(bytes).unwrap().frame {
                    assert_eq!(data.number, state.received);
                    state.received += 1;
                    return Ok(data.message.into());
                }
            }
        }))
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        Ok(None)
    }
}

fn infer(transport: impl Transport, count: usize) -> Result<Vec<i64>, RunError> {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let images = images(count);
    let mut session = ClientSession::open(transport, Client::new(Arc::clone(&KEY), 1), &mut rng)?;
    let mut outcomes: Vec<Outcome> = vec![];
    let batches = images.axis_chunks_iter(ndarray::Axis(0), 1);
    session.infer_all(batches, &mut rng, |outcome| outcomes.push(outcome))?;
    session.finish(&mut rng)?;
    Ok(outcomes.iter().flat_map(|outcome| outcome.integers.values()).copied().collect())
}

/// The close frame, and how many data frames came before, after these messages.
fn closed_after(address: SocketAddr, messages: Vec<Message>) -> (u16, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stream = connect(address).await.unwrap();
        for message in messages {
            // The server may have closed already.
            let _ = stream.send(message).await;
        }
        while let Some(message) = stream.next().await {
            if let Message::Close(Some(close)) = message.unwrap() {
                return (close.code.into(), close.reason.to_string());
            }
        }
        panic!("closed without a reason");
    })
}

fn all_end(server: &Running) {
    let since = Instant::now();
    while server.sessions() > 0 && since.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.sessions(), 0);
}

#[test]
fn results_over_a_websocket_equal_the_clear_computation() {
    let server = plain();
    assert_eq!(infer(Socket::new(server.web_address().unwrap()), 3).unwrap(), expected(3));
    all_end(&server);
}

#[test]
fn a_broken_websocket_is_made_again_and_nothing_is_lost() {
    let server = plain();
    let expected = expected(2);
    let whole = {
        let relay = Relay::new(server.web_address().unwrap(), vec![]);
        assert_eq!(infer(Socket::new(relay.address), 2).unwrap(), expected);
        relay.bytes.load(Ordering::SeqCst)
    };
    let mut rng = ChaCha20Rng::seed_from_u64(12);
    let mut resumed = 0;
    for _ in 0..8 {
        // What is said last nobody waits for.
        let cuts = vec![rng.random_range(whole / 10..whole * 9 / 10), rng.random_range(0..whole / 2)];
        let relay = Relay::new(server.web_address().unwrap(), cuts);
        let socket = Socket::new(relay.address);
        // The host is that of the relay, on this machine as well.
        assert_eq!(infer(&socket, 2).unwrap(), expected);
        resumed += socket.state.borrow().connections - 1;
    }
    assert!(resumed > 4, "{resumed}");
    assert!(counted(&server, "gelu_resumed_total") as usize >= resumed);
}

#[test]
fn steps_by_post_give_the_same_integers() {
    let server = plain();
    let stepping = Stepping::new(server.web_address().unwrap(), "00112233445566778899aabbccddeeff");
    assert_eq!(infer(&stepping, 2).unwrap(), expected(2));
    // What was said last.
    stepping.exchange();
    assert_eq!(server.sessions(), 0);
    assert!(stepping.requests.get() >= 4, "{}", stepping.requests.get());
    assert_eq!(counted(&server, "gelu_batches_total{model=\"small\"}"), 2);
}

#[test]
fn bad_websockets_are_told_why_and_leave_nothing() {
    let limits = Limits { opening: Duration::from_millis(300), ..limits() };
    let server = start(limits, Web::new(local()));
    let address = server.web_address().unwrap();
    let open = |open: Open| frame(client_frame::Frame::Open(open));
    let data = |number, bytes: Vec<u8>| {
        frame(client_frame::Frame::Data(Data { number, message: bytes.into(), received: 0 }))
    };
    for (messages, reason) in [
        (vec![], "late:"),
        (vec![Message::Text("hello".into())], "malformed:"),
        (vec![Message::Binary(vec![0xff; 9].into())], "malformed:"),
        (vec![Message::Binary(vec![].into())], "malformed:"),
        (vec![open(Open { version: 99, ..opening() })], "version:"),
        (vec![open(Open { model: "none".to_owned(), ..opening() })], "unknown-model:"),
        (vec![open(Open { session: vec![7; 16].into(), ..opening() })], "unknown-session:"),
        (vec![open(Open { session: vec![7; 5].into(), ..opening() })], "unknown-session:"),
        (vec![open(Open { training: true, client: "north".to_owned(), ..opening() })], "enrolment:"),
        (vec![open(opening()), open(opening())], "malformed:"),
        (vec![open(opening()), Message::Text("hello".into())], "malformed:"),
        (vec![open(opening()), data(3, vec![1])], "malformed:"),
    ] {
        let (code, found) = closed_after(address, messages);
        assert!(code == 4000 && found.starts_with(reason) && found.len() <= 123, "{code} {found}, {reason}");
    }
    // Bytes that are no message of gelu-wire: the server says so in one, and ends.
    assert_eq!(closed_after(address, vec![open(opening()), data(0, b"none".to_vec())]).0, 1000);
    // More than any message has.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut stream = connect(address).await.unwrap();
        let _ = stream.send(Message::Binary(vec![0; 2 << 20].into())).await;
        let closed = tokio::time::timeout(Duration::from_secs(10), async {
            while let Some(Ok(message)) = stream.next().await {
                if message.is_close() {
                    return;
                }
            }
        });
        closed.await.unwrap();
    });
    // A name of a conversation is taken by its own way in only once.
    let (status, _, body) = get(address, "/v1/converse", "");
    assert!((400..500).contains(&status), "{status} {}", String::from_utf8_lossy(&body));
    // What its client leaves is kept for a while, and then it is not.
    assert!(server.sessions() <= 1);
}

#[test]
fn bad_steps_are_told_why() {
    let server = plain();
    let address = server.web_address().unwrap();
    let name = "0123456789abcdef0123456789abcdef";
    let of = |query: &str| format!("/v1/sessions/{name}/step{query}");
    for (path, body, status, error) in [
        (of(""), &b""[..], 404, "unknown-session"),
        (of("?model=none"), b"", 404, "unknown-model"),
        (of("?model=small&hidden=2"), b"", 400, "malformed"),
        ("/v1/sessions/xyz/step?model=small".to_owned(), b"", 400, "malformed"),
        (of("?model=small"), b"\x05\0\0\0ab", 400, "malformed"),
        (of("?model=small"), b"\xff\xff\xff\xff", 400, "malformed"),
    ] {
        let (found, _, answer) = post(address, &path, "", body);
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((found, answer["error"].as_str()), (status, Some(error)), "{answer}");
    }
    // What is no message of gelu-wire, the reply says.
    let mut request = vec![];
    append_message(&mut request, b"abc");
    let (status, _, reply) = post(address, &of("?model=small").replace("0123", "3210"), "", &request);
    assert_eq!((status, split_messages(&reply).unwrap().len()), (200, 1));
    for path in ["/v1/sessions", "/nothing", "/../Cargo.toml", "/index.html"] {
        assert_eq!(get(address, path, "").0, 404, "{path}");
    }
    assert_eq!(post(address, "/v1/models", "", b"").0, 405);
}

#[test]
fn conversations_of_both_ways_in_count_together() {
    let server = start(Limits { sessions: 1, ..limits() }, Web::new(local()));
    let address = server.web_address().unwrap();
    let socket = Socket::new(address);
    socket.persist(async |_: &mut State| Ok(()));
    let (status, _, answer) =
        post(address, &format!("/v1/sessions/{}/step?model=small", "0".repeat(32)), "", b"");
    assert_eq!(status, 503, "{}", String::from_utf8_lossy(&answer));
    let (code, reason) = closed_after(address, vec![frame(client_frame::Frame::Open(opening()))]);
    assert!(code == 4000 && reason.starts_with("busy:"), "{code} {reason}");
}

#[test]
fn models_are_listed_as_json() {
    let server = plain();
    let (status, head, body) = get(server.web_address().unwrap(), "/v1/models", "");
    let models: Value = serde_json::from_slice(&body).unwrap();
    assert!(status == 200 && head.contains("content-type: application/json"), "{head}");
    assert_eq!(models[0]["name"], "small");
    assert_eq!(models[0]["input"], serde_json::json!([1, 6, 6]));
    assert_eq!(models[0]["outputs"], 3);
    assert!(models[0]["cost"]["bytes_up"].as_u64().unwrap() > 0);
    assert!(models[0]["hidden"]["online_up"].as_u64().unwrap() > 0);
    assert_eq!(get(server.web_address().unwrap(), "/v1/training", "").2, b"[]");
    assert_eq!(model().interface().outputs, 3);
    let server = service_in(limits(), Modes::hidden(Reveal::Class)).with_web(Web::new(local()));
    let server = server.start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap();
    let models: Value =
        serde_json::from_slice(&get(server.web_address().unwrap(), "/v1/models", "").2).unwrap();
    assert_eq!((&models[0]["cost"], &models[0]["hidden"]["logits"]), (&Value::Null, &Value::Bool(false)));
}

#[test]
fn a_page_is_served_with_what_holds_it_together() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index.html"), "<!doctype html><title>t</title>").unwrap();
    std::fs::write(folder.path().join("a.wasm"), b"\0asm").unwrap();
    let server = start(limits(), Web::new(local()).with_page(folder.path()).unwrap());
    let address = server.web_address().unwrap();
    // Files are those that were there when the server began.
    std::fs::remove_file(folder.path().join("a.wasm")).unwrap();
    let (status, head, body) = get(address, "/", "");
    assert_eq!((status, &body[..]), (200, &b"<!doctype html><title>t</title>"[..]));
    for line in [
        "content-type: text/html; charset=utf-8",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-embedder-policy: require-corp",
        "cross-origin-resource-policy: same-origin",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "script-src 'self' 'wasm-unsafe-eval'",
        "frame-ancestors 'none'",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    let (_, head, body) = get(address, "/a.wasm", "");
    assert!(head.contains("content-type: application/wasm") && body == b"\0asm", "{head}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let (status, head, body) = get(address, "/a.wasm", &format!("if-none-match: {tag}\r\n"));
    assert_eq!((status, body.len()), (304, 0));
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert!(get(address, "/missing", "").1.contains("x-content-type-options: nosniff"));
}

#[test]
fn pages_of_others_are_let_in_by_their_origin_only() {
    let server = start(limits(), Web::new(local()).with_origin("https://pages.example").unwrap());
    let address = server.web_address().unwrap();
    let path = format!("/v1/sessions/{}/step?model=none", "0".repeat(32));
    let from = |origin: &str| post(address, &path, &format!("origin: {origin}\r\n"), b"");
    assert_eq!(from("https://evil.example").0, 403);
    assert_eq!(from("null").0, 403);
    assert_eq!(from(&format!("http://{address}")).0, 404);
    let (status, head, _) = from("https://pages.example");
    assert!(status == 404 && head.contains("access-control-allow-origin: https://pages.example"), "{head}");
    let (status, head, _) = get(address, "/v1/models", "origin: https://evil.example\r\n");
    assert!(status == 200 && !head.contains("access-control-allow-origin"), "{head}");
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\norigin: https://evil.example\r\n";
    assert_eq!(get(address, "/v1/converse", upgrade).0, 403);
    let preflight = format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\norigin: https://pages.example\r\n\r\n"
    );
    let (status, head, _) = ask(address, &preflight, b"");
    assert!(status == 204 && head.contains("access-control-allow-methods: get, post"), "{head}");
    // Without TLS, another name for this address is another page's trick.
    let rebound = "GET /v1/models HTTP/1.1\r\nhost: evil.example:7480\r\nconnection: close\r\n\r\n";
    assert_eq!(ask(address, rebound, b"").0, 403);
    assert_eq!(ask(address, "GET /v1/models HTTP/1.0\r\n\r\n", b"").0, 403);
}

#[test]
fn over_tls_browsers_need_a_certificate_unless_they_are_told_otherwise() {
    let start = |web: Web| {
        let own = AUTHORITY.server(&["127.0.0.1".to_owned()]).unwrap().credentials().unwrap();
        service(limits()).with_web(web).start("127.0.0.1:0", &ServerSecurity::Tls(own)).unwrap()
    };
    let try_get = |server: &Running| -> std::io::Result<(u16, String, Vec<u8>)> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(AUTHORITY.certificate().as_bytes()).unwrap()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(server.web_address().unwrap())?;
        let mut stream = rustls::Stream::new(&mut connection, &mut stream);
        stream.write_all(b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(answer(first.chain(stream)))
    };
    let closed = start(Web::new(local()));
    assert!(try_get(&closed).is_err());
    let open = start(Web::new(local()).open_to_all());
    let (status, _, body) = try_get(&open).unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    // Without TLS no other machine is let in.
    let web = Web::new("0.0.0.0:0".parse().unwrap());
    let refused = service(limits()).with_web(web).start("127.0.0.1:0", &ServerSecurity::Loopback);
    assert!(refused.unwrap_err().to_string().contains("expected TLS"));
}

#[test]
fn connections_that_say_nothing_are_closed() {
    let opening = Duration::from_millis(300);
    let server = start(Limits { connections: 2, opening, ..limits() }, Web::new(local()));
    let address = server.web_address().unwrap();
    let silent: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    // There are no others, until these are closed.
    assert_eq!(get(address, "/v1/models", "").0, 200);
    // A body that does not come.
    let path = format!("/v1/sessions/{}/step?model=small", "1".repeat(32));
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 100\r\n\r\n"
    );
    assert_eq!(ask(address, &head, b"abc").0, 408);
    drop(silent);
}
