//! Servers that no client should trust: what they say is refused, and they are told.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use gelu_io::session::{ClientSession, RunError};
use gelu_layers::Initializer;
use gelu_models::ModelBuilder;
use gelu_models::infer::{Client, Message, Server, ServerModel, SessionError};
use gelu_models::peer::{AbortReason, Peer};
use gelu_models::plan::Quantization;
use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_wire::{decode_message, encode_message};
use rand::{SeedableRng, rngs::ChaCha20Rng};
use serde_json::{Value, json};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::proto::gelu_server::{Gelu, GeluServer};
use crate::proto::{client_frame, server_frame};

/// A server that answers a hello with a plan that was tampered with, and reports what it is told then.
struct Hostile {
    tamper: fn(&mut Value),
    told: Sender<Message>,
}

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(6)
}

fn data(number: u64, message: Vec<u8>) -> proto::ServerFrame {
    let data = proto::Data { number, message: message.into(), received: 0 };
    proto::ServerFrame { frame: Some(server_frame::Frame::Data(data)) }
}

/// What an honest server consents to, with another description.
fn accept(hello: Message, tamper: fn(&mut Value)) -> Vec<u8> {
    let mut model = ModelBuilder::new([4]).dense("fc", 2).build().unwrap();
    model.initialize(Initializer::KaimingUniform, &mut rng());
    model.set_ranges(Some([("input", 1.0)].into_iter().collect()));
    let mut server = Server::new(Arc::new(ServerModel::new(model, Quantization::default())));
    server.handle(hello, &mut rng()).unwrap();
    let accept = encode_message(&server.next_message(&mut rng()).unwrap().unwrap()).unwrap();
    // The header follows the prefix of 18 bytes, in which its length is at 6.
    let mut header: Value = serde_json::from_slice(&accept[18..]).unwrap();
    tamper(&mut header["description"]);
    let header = serde_json::to_vec(&header).unwrap();
    let length = (header.len() as u32).to_le_bytes();
    [&accept[..6], &length, &accept[10..18], &header].concat()
}

#[tonic::async_trait]
impl Gelu for Hostile {
    type ConverseStream = Pin<Box<dyn Stream<Item = Result<proto::ServerFrame, Status>> + Send>>;

    async fn list_models(
        &self,
        _: Request<proto::ListModelsRequest>,
    ) -> Result<Response<proto::ListModelsResponse>, Status> {
        let model = proto::Model { input: vec![u64::MAX, 2], outputs: 3, ..proto::Model::default() };
        Ok(Response::new(proto::ListModelsResponse { models: vec![model] }))
    }

    async fn converse(
        &self,
        request: Request<Streaming<proto::ClientFrame>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let (tamper, told) = (self.tamper, self.told.clone());
        let mut number = 0;
        let answers = request.into_inner().filter_map(move |frame| match frame.ok()?.frame? {
            client_frame::Frame::Open(_) => {
                let session = Bytes::from_static(&[3; 16]);
                let opened = proto::Opened { session, received: 0, kept_seconds: 1 };
                Some(Ok(proto::ServerFrame { frame: Some(server_frame::Frame::Opened(opened)) }))
            }
            client_frame::Frame::Data(sent) => match decode_message(&sent.message, None).unwrap() {
                hello @ Message::Hello { .. } => {
                    number += 1;
                    Some(Ok(data(number - 1, accept(hello, tamper))))
                }
                other => {
                    told.send(other).unwrap();
                    None
                }
            },
            client_frame::Frame::Received(_) => None,
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// Starts one, which ends with the runtime.
fn hostile(tamper: fn(&mut Value)) -> (Runtime, SocketAddr, Receiver<Message>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let (told, hears) = channel();
    let server = tonic::transport::Server::builder().add_service(GeluServer::new(Hostile { tamper, told }));
    runtime.spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (runtime, address, hears)
}

fn remote(address: SocketAddr) -> Remote {
    let limit = Duration::from_secs(5);
    let patience = Patience { connect: limit, answer: limit, reconnect: limit };
    Remote::new(&format!("http://{address}"), &ClientSecurity::Loopback, patience).unwrap()
}

#[test]
fn plans_beyond_what_a_client_takes_are_refused_and_the_server_is_told() {
    type Tamper = fn(&mut Value);
    let cases: [(Tamper, &str, AbortReason); 4] = [
        // Another batch, and another preference, than were asked for.
        (|description| description["batch"] = json!(1000), "1000", AbortReason::BadPlan),
        (|description| description["prefer"] = json!("time"), "time", AbortReason::BadPlan),
        // Sums of a size that no slot of the key has.
        (
            |description| description["numbers"]["segments"][0]["bias_exponent"] = json!(4000),
            "",
            AbortReason::BadPlan,
        ),
        // More values than any network may have.
        (|description| description["graph"]["input"] = json!([100_000_000]), "", AbortReason::Malformed),
    ];
    let key = Arc::new(SecretKey::generate(KeyBits::Bits1024, &mut rng()).unwrap());
    for (tamper, found, reason) in cases {
        let (_runtime, address, hears) = hostile(tamper);
        let transport = remote(address).open("m").unwrap();
        let client = Client::new(Arc::clone(&key), 1);
        let error = ClientSession::open(&transport, client, &mut rng()).unwrap_err();
        match &error {
            RunError::Peer(SessionError::Plan(error)) => {
                assert!(error.to_string().contains(found), "{error}")
            }
            RunError::Wire(_) => assert_eq!(reason, AbortReason::Malformed),
            other => panic!("{other}"),
        }
        let told = hears.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(matches!(told, Message::Abort { reason: found } if found == reason), "{told} {error:?}");
    }
}

#[test]
fn what_no_model_can_be_is_not_listed() {
    let (_runtime, address, _hears) = hostile(|_| ());
    let error = remote(address).offers().unwrap_err();
    assert!(matches!(error, ServiceError::Stream { .. }), "{error}");
}
