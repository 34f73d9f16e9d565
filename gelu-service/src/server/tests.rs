//! Streams that no client of ours would make.

use std::time::Duration;

use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::plan::Quantization;
use rand::{SeedableRng, rngs::ChaCha20Rng};
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::*;
use crate::SERVICE_VERSION;
use crate::proto::client_frame::Frame;
use crate::proto::gelu_client::GeluClient;
use crate::proto::{ClientFrame, Data, Open};

fn start(limits: Limits) -> Running {
    let mut model = ModelBuilder::new([4]).dense("fc", 2).build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha20Rng::seed_from_u64(1));
    let model = Arc::new(ServerModel::new(model, Quantization::default()));
    let service = Service::new(limits).with_model("m", model, Modes::revealed()).unwrap();
    service.start("127.0.0.1:0", &ServerSecurity::Loopback).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn client(server: &Running) -> GeluClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address())).unwrap();
    GeluClient::new(endpoint.connect().await.unwrap())
}

fn open() -> Open {
    Open { version: SERVICE_VERSION, model: "m".to_owned(), ..Open::default() }
}

fn data(number: u64, message: Vec<u8>) -> Frame {
    Frame::Data(Data { number, message: message.into(), received: 0 })
}

/// The status that a stream of these frames ends with; it stays open behind them.
fn status_after(server: &Running, frames: Vec<Frame>) -> Status {
    runtime().block_on(async {
        let frames = frames.into_iter().map(|frame| ClientFrame { frame: Some(frame) });
        let stream = tokio_stream::iter(frames).chain(tokio_stream::pending());
        let mut answers = match client(server).await.converse(stream).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status,
        };
        loop {
            match answers.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status,
                None => return Status::ok("ended"),
            }
        }
    })
}

fn refusal_after(server: &Running, frames: Vec<Frame>) -> Option<Refusal> {
    Refusal::of(&status_after(server, frames))
}

/// None of them waits for its client to come back.
fn all_end(server: &Running) {
    let since = Instant::now();
    while server.sessions() > 0 && since.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(server.sessions(), 0);
}

#[test]
fn another_version_of_the_service_is_refused() {
    let server = start(Limits::default());
    let version = SERVICE_VERSION + 1;
    assert_eq!(refusal_after(&server, vec![Frame::Open(Open { version, ..open() })]), Some(Refusal::Version));
    let listed = runtime().block_on(async {
        client(&server).await.list_models(proto::ListModelsRequest { version }).await.unwrap_err()
    });
    assert_eq!((Refusal::of(&listed), listed.code()), (Some(Refusal::Version), Code::FailedPrecondition));
    assert_eq!(server.sessions(), 0);
}

#[test]
fn streams_begin_with_open_and_in_time() {
    let server = start(Limits { opening: Duration::from_millis(200), ..Limits::default() });
    assert_eq!(refusal_after(&server, vec![]), Some(Refusal::Late));
    for first in [Frame::Received(0), data(0, vec![1])] {
        assert_eq!(refusal_after(&server, vec![first]), Some(Refusal::Malformed));
    }
    assert_eq!(server.sessions(), 0);
}

#[test]
fn conversations_that_nobody_has_are_not_gone_on_with() {
    let server = start(Limits::default());
    for session in [vec![7; 16], vec![7; 5], vec![0; 1000]] {
        let open = Open { session: session.into(), ..open() };
        assert_eq!(refusal_after(&server, vec![Frame::Open(open)]), Some(Refusal::UnknownSession));
    }
    // One that begins has received nothing.
    let open = Open { received: 1, ..open() };
    assert_eq!(refusal_after(&server, vec![Frame::Open(open)]), Some(Refusal::Malformed));
    all_end(&server);
}

#[test]
fn frames_against_the_rules_end_the_conversation() {
    let server = start(Limits::default());
    for frames in [
        vec![Frame::Open(open())],
        vec![data(1, vec![1])],
        vec![data(u64::MAX, vec![1])],
        vec![data(0, vec![1]), data(0, vec![1])],
        vec![Frame::Received(u64::MAX)],
    ] {
        let frames = [vec![Frame::Open(open())], frames].concat();
        let status = status_after(&server, frames);
        assert_eq!(Refusal::of(&status), Some(Refusal::Malformed), "{status}");
    }
    // Bytes that are no message of gelu-wire: the server says so in one, and ends.
    let status = status_after(&server, vec![Frame::Open(open()), data(0, b"no message".to_vec())]);
    assert_eq!(status.code(), Code::Ok);
    // More than any message has is not even read.
    let status = status_after(&server, vec![Frame::Open(open()), data(0, vec![0; CLIENT_FRAME_BYTES])]);
    assert_eq!(Refusal::of(&status), Some(Refusal::Malformed), "{status}");
    all_end(&server);
}
