//! One conversation of a client over as many connections as it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gelu_io::transport::{Disconnected, Transport};
use gelu_wire::Outgoing;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{info, warn};

use super::{Dialer, Patience};
use crate::link::{Link, LinkPatience};
use crate::proto::{client_frame, server_frame};
use crate::{Refusal, SERVICE_VERSION, ServiceError, proto};

/// The client's end of a conversation with a server on another machine. Broken connections are made again, without the
/// peers above noticing.
#[derive(Debug)]
pub struct RemoteTransport {
    link: Arc<Link>,
    sent: AtomicU64,
    received: AtomicU64,
    task: Option<tokio::task::JoinHandle<()>>,
    runtime: Arc<Runtime>,
}

impl RemoteTransport {
    pub(super) fn open(
        dialer: Arc<Dialer>,
        runtime: Arc<Runtime>,
        topic: Topic,
    ) -> Result<Self, ServiceError> {
        let Patience { answer, reconnect, .. } = dialer.patience();
        let link = Arc::new(Link::new(LinkPatience { silence: answer, absence: reconnect }));
        let mut conversation = Conversation { dialer, link: Arc::clone(&link), topic, session: Bytes::new() };
        let streams = runtime.block_on(conversation.attach()).map_err(Broken::into_error)?;
        let task = runtime.spawn(conversation.run(streams));
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { link, sent, received, task: Some(task), runtime })
    }

    /// Returns why the conversation is over, if it is: more than [`Disconnected`] can say.
    pub fn why(&self) -> Option<ServiceError> {
        self.link.why().filter(|reason| !matches!(reason, ServiceError::Ended))
    }

    /// Returns the bytes of the messages so far: sent, and received.
    pub fn bytes(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }

    /// Listens no more: whoever waits for a message is told that the server is gone. What is sent still goes out, such as
    /// the message that ends the session at the server.
    pub fn stop_listening(&self) {
        self.link.stop_listening();
    }

    fn note(&self, message: Vec<u8>) -> Vec<u8> {
        self.received.fetch_add(message.len() as u64, Ordering::Relaxed);
        message
    }
}

impl Transport for RemoteTransport {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        let length = message.len() as u64;
        self.link.send(message)?;
        self.sent.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        self.link.receive().map(|message| self.note(message))
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        Ok(self.link.try_receive()?.map(|message| self.note(message)))
    }
}

impl Drop for RemoteTransport {
    /// What was said last still goes out, if that takes no longer than a second.
    fn drop(&mut self) {
        self.link.finish();
        if let Some(task) = self.task.take() {
            let abort = task.abort_handle();
            // A task that panicked is over, too.
            let _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), task).await });
            abort.abort();
        }
        self.link.end(ServiceError::Ended);
    }
}

/// What a conversation is about.
pub(super) struct Topic {
    pub(super) model: String,
    pub(super) about: About,
}

pub(super) enum About {
    /// Inputs of the client, for which the model may be hidden from it.
    Inputs { is_hidden: bool },
    /// The turn in a training run of a client that calls itself so.
    Turn { client: String },
}

/// One conversation over as many connections as it takes.
struct Conversation {
    dialer: Arc<Dialer>,
    link: Arc<Link>,
    topic: Topic,
    /// What the server called it; empty before.
    session: Bytes,
}

/// Both directions of one connection.
struct Streams {
    connection: u64,
    outgoing: mpsc::Sender<proto::ClientFrame>,
    incoming: Streaming<proto::ServerFrame>,
}

/// Why a connection is over.
enum Broken {
    /// Another may do.
    Connection(ServiceError),
    /// So is the conversation.
    Conversation(ServiceError),
}

impl Broken {
    fn into_error(self) -> ServiceError {
        match self {
            Self::Connection(error) | Self::Conversation(error) => error,
        }
    }
}

impl Conversation {
    /// Makes a connection and begins the conversation, or goes on with it.
    async fn attach(&mut self) -> Result<Streams, Broken> {
        let mut client = self.dialer.dial().await.map_err(|error| match error {
            ServiceError::Unreachable { .. } => Broken::Connection(error),
            _ => Broken::Conversation(error),
        })?;
        let (outgoing, frames) = mpsc::channel(2);
        let (training, hidden, name) = match &self.topic.about {
            About::Inputs { is_hidden } => (false, *is_hidden, String::new()),
            About::Turn { client } => (true, false, client.clone()),
        };
        let open = proto::Open {
            version: SERVICE_VERSION,
            model: self.topic.model.clone(),
            session: self.session.clone(),
            received: self.link.received(),
            training,
            client: name,
            hidden,
        };
        // The channel is empty.
        let _ = outgoing.try_send(frame(client_frame::Frame::Open(open)));
        let is_again = !self.session.is_empty();
        let broken = |status: &Status| match self.dialer.failure(status) {
            // The server may not have noticed yet that the connection before is gone.
            error @ ServiceError::Refused { refusal: Refusal::Connections, .. } if is_again => {
                Broken::Connection(error)
            }
            error @ ServiceError::Refused { .. } => Broken::Conversation(error),
            error => Broken::Connection(error),
        };
        let asked = self.dialer.in_time(client.converse(ReceiverStream::new(frames))).await;
        let answer = asked.map_err(Broken::Connection)?.map_err(|status| broken(&status))?;
        let mut incoming = answer.into_inner();
        let first = self.dialer.in_time(incoming.next()).await.map_err(Broken::Connection)?;
        let first = first.transpose().map_err(|status| broken(&status))?;
        let Some(proto::ServerFrame { frame: Some(server_frame::Frame::Opened(opened)) }) = first else {
            return Err(Broken::Conversation(ServiceError::Stream {
                expected: "a stream that begins with Opened",
                found: "another frame".to_owned(),
            }));
        };
        self.session = opened.session;
        let connection = self.link.connect(opened.received).map_err(Broken::Conversation)?;
        Ok(Streams { connection, outgoing, incoming })
    }

    /// Carries frames until the conversation is over.
    async fn run(mut self, mut streams: Streams) {
        loop {
            let connection = streams.connection;
            let broken = carry(&self.link, &self.dialer, streams).await;
            self.link.disconnect(connection);
            let problem = match broken {
                Broken::Conversation(reason) => return self.link.end(reason),
                Broken::Connection(problem) => problem,
            };
            warn!(%problem, "the connection broke");
            match self.reconnect(problem).await {
                Ok(again) => streams = again,
                Err(reason) => return self.link.end(reason),
            }
        }
    }

    async fn reconnect(&mut self, mut problem: ServiceError) -> Result<Streams, ServiceError> {
        let (since, limit) = (Instant::now(), self.dialer.patience().reconnect);
        let mut pause = Duration::from_millis(50);
        while since.elapsed() < limit {
            match self.attach().await {
                Ok(streams) => {
                    info!("connected again");
                    return Ok(streams);
                }
                Err(Broken::Conversation(reason)) => return Err(reason),
                Err(Broken::Connection(latest)) => problem = latest,
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(5));
        }
        let server = self.dialer.server().to_owned();
        Err(ServiceError::Lost { server, waited: limit, problem: problem.to_string() })
    }
}

async fn carry(link: &Link, dialer: &Dialer, streams: Streams) -> Broken {
    let Streams { connection, outgoing, mut incoming } = streams;
    let receiving = async {
        loop {
            let taken = match incoming.next().await {
                Some(Ok(proto::ServerFrame { frame: Some(server_frame::Frame::Data(data)) })) => {
                    link.deliver(connection, (data.number, data.message), data.received).await
                }
                Some(Ok(proto::ServerFrame { frame: Some(server_frame::Frame::Received(has)) })) => {
                    link.confirmed(connection, has)
                }
                Some(Ok(_)) => Err(ServiceError::Stream {
                    expected: "messages after the first frame",
                    found: "another frame".to_owned(),
                }),
                Some(Err(status)) => {
                    return match dialer.failure(&status) {
                        error @ ServiceError::Refused { .. } => Broken::Conversation(error),
                        error => Broken::Connection(error),
                    };
                }
                // The server has said all that it had to say.
                None => return Broken::Conversation(ServiceError::Ended),
            };
            if let Err(error) = taken {
                return Broken::Conversation(error);
            }
        }
    };
    let sending = async {
        loop {
            let next = match link.next(connection).await {
                Ok(Some(Outgoing::Message { number, message, received })) => {
                    client_frame::Frame::Data(proto::Data { number, message, received })
                }
                Ok(Some(Outgoing::Received(received))) => client_frame::Frame::Received(received),
                // What is left is to hear how the server ends.
                Ok(None) => std::future::pending().await,
                Err(error) => return Broken::Conversation(error),
            };
            if outgoing.send(frame(next)).await.is_err() {
                // The other direction knows why.
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        broken = receiving => broken,
        broken = sending => broken,
    }
}

fn frame(frame: client_frame::Frame) -> proto::ClientFrame {
    proto::ClientFrame { frame: Some(frame) }
}
