//! Conversations: opening them, going on with them over another stream, and the thread that computes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gelu_io::session::serve_in_turns;
use gelu_models::infer::{Denied, Gate, Server};
use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::Shared;
use super::accept::Peer;
use crate::ledger::{Ledger, Taken};
use crate::link::{Link, LinkPatience, Outgoing};
use crate::proto::gelu_server::Gelu;
use crate::proto::{client_frame, server_frame};
use crate::{Fingerprint, Refusal, SERVICE_VERSION, ServiceError, proto};

/// The random name of a conversation: who knows it and has the certificate that it was opened with can go on with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionName([u8; 16]);

/// A conversation that is being held, or waits for its client to come back.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    model: String,
    identity: Option<Fingerprint>,
}

/// A client's account for a model.
#[derive(Debug)]
struct Account {
    ledger: Arc<Ledger>,
    client: String,
    model: String,
    budget: Option<u64>,
}

impl Gate for Account {
    fn admit(&self, inputs: usize) -> Result<(), Denied> {
        match self.ledger.take((&self.client, &self.model), inputs as u64, self.budget) {
            Ok(Taken::Yes) => Ok(()),
            Ok(Taken::Spent { used, allowed }) => Err(Denied::Spent { used, allowed }),
            Err(error) => Err(Denied::Unknown { problem: error.to_string() }),
        }
    }
}

/// Prints the beginning only: the whole name is half of what it takes to go on with the conversation.
impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[tonic::async_trait]
impl Gelu for Arc<Shared> {
    type ConverseStream = Frames;

    async fn list_models(
        &self,
        request: Request<proto::ListModelsRequest>,
    ) -> Result<Response<proto::ListModelsResponse>, Status> {
        check_version(request.into_inner().version)?;
        let models = self.service.models.values().map(|offered| offered.listed.clone()).collect();
        Ok(Response::new(proto::ListModelsResponse { models }))
    }

    async fn converse(
        &self,
        request: Request<Streaming<proto::ClientFrame>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        self.open(request).await.inspect_err(|status| {
            let refusal = Refusal::of(status).unwrap_or(Refusal::Other);
            warn!(%refusal, reason = status.message(), "refused");
            self.metrics.refused(refusal);
        })
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<proto::ServerFrame, Status>> + Send>>;

impl Shared {
    async fn open(
        self: &Arc<Self>,
        request: Request<Streaming<proto::ClientFrame>>,
    ) -> Result<Response<Frames>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let peer = peer.ok_or_else(|| Refusal::Other.status("the connection has no address"))?;
        let mut frames = request.into_inner();
        let first = tokio::time::timeout(self.service.limits.opening, frames.next()).await;
        let first = first.map_err(|_| Refusal::Late.status("the first frame took too long"))?.transpose()?;
        let Some(proto::ClientFrame { frame: Some(client_frame::Frame::Open(open)) }) = first else {
            return Err(Refusal::Malformed.status("expected a stream to begin with Open"));
        };
        check_version(open.version)?;
        let (name, session) = match open.session.is_empty() {
            true => self.begin(&open, peer)?,
            false => self.resume(&open, peer)?,
        };
        let connection = session.link.connect(open.received).map_err(|error| {
            // One that has just begun does not wait for a client that will not come.
            if open.session.is_empty() {
                session.link.end(error.clone());
            }
            status_of(error)
        })?;
        let (sender, receiver) = mpsc::channel(2);
        let opened = proto::Opened {
            session: Bytes::copy_from_slice(&name.0),
            received: session.link.received(),
            kept_seconds: self.service.limits.absence.as_secs() as u32,
        };
        // The channel is empty.
        let _ = sender.try_send(Ok(frame(server_frame::Frame::Opened(opened))));
        let last_words = self.service.limits.opening;
        tokio::spawn(async move {
            tokio::select! {
                () = carry(&session.link, connection, frames, sender) => {}
                // A client that reads nothing does not keep what it was told in memory.
                () = async { session.link.over().await; tokio::time::sleep(last_words).await } => {}
            }
            session.link.disconnect(connection);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn check_version(found: u32) -> Result<(), Status> {
    match found {
        SERVICE_VERSION => Ok(()),
        _ => Err(Refusal::Version.status(format!(
            "expected version {SERVICE_VERSION} of the service, found {found}; use the same release on both sides"
        ))),
    }
}

fn frame(frame: server_frame::Frame) -> proto::ServerFrame {
    proto::ServerFrame { frame: Some(frame) }
}

fn status_of(error: ServiceError) -> Status {
    let refusal = match &error {
        ServiceError::Stream { .. } => Refusal::Malformed,
        ServiceError::Silent { .. } => Refusal::Late,
        ServiceError::Ended => Refusal::UnknownSession,
        ServiceError::Stopped => Refusal::Stopping,
        _ => Refusal::Other,
    };
    refusal.status(error.to_string())
}

impl Shared {
    /// Begins a conversation, if there is room for it.
    fn begin(
        self: &Arc<Self>,
        open: &proto::Open,
        peer: Peer,
    ) -> Result<(SessionName, Arc<Session>), Status> {
        self.refuse_when_stopping()?;
        let limits = self.service.limits;
        let Some(offered) = self.service.models.get(&open.model) else {
            let names: Vec<&str> = self.service.models.keys().map(String::as_str).collect();
            return Err(Refusal::UnknownModel.status(format!("the models here are {}", names.join(", "))));
        };
        let mut name = SessionName([0; 16]);
        rand::rng().fill_bytes(&mut name.0);
        let patience = LinkPatience { silence: limits.silence, absence: limits.absence };
        let session = Arc::new(Session {
            link: Link::new(patience),
            model: open.model.clone(),
            identity: peer.identity,
        });
        {
            let mut sessions = self.sessions();
            let of_client = sessions.values().filter(|session| session.identity == peer.identity).count();
            let full =
                |limit| Refusal::Busy.status(format!("{limit} conversations at a time; try again later"));
            if sessions.len() >= limits.sessions {
                return Err(full(limits.sessions));
            }
            if of_client >= limits.sessions_per_client {
                return Err(full(limits.sessions_per_client));
            }
            sessions.insert(name, Arc::clone(&session));
        }
        self.count_sessions();
        let mut server = Server::new(Arc::clone(&offered.model)).on(self.service.backend);
        if let Some((ledger, budget)) = &self.service.ledger {
            let client = peer.identity.map_or("without a certificate".to_owned(), |key| key.to_string());
            let (ledger, model, budget) = (Arc::clone(ledger), open.model.clone(), *budget);
            server = server.with_gate(Arc::new(Account { ledger, client, model, budget }));
        }
        let (shared, held) = (Arc::clone(self), Arc::clone(&session));
        info!(session = %name, model = %open.model, address = %peer.address, client = ?peer.identity, "begins");
        let spawned = std::thread::Builder::new()
            .name(format!("session {name}"))
            .spawn(move || shared.hold(name, &held, server));
        if let Err(error) = spawned {
            self.sessions().remove(&name);
            self.count_sessions();
            return Err(Refusal::Busy.status(format!("no thread for the conversation: {error}")));
        }
        Ok((name, session))
    }

    /// Finds the conversation that a client wants to go on with.
    fn resume(&self, open: &proto::Open, peer: Peer) -> Result<(SessionName, Arc<Session>), Status> {
        let unknown = || {
            Refusal::UnknownSession.status(
                "the conversation ended, was left alone for too long, or is of another server process",
            )
        };
        let name = SessionName(open.session[..].try_into().map_err(|_| unknown())?);
        let session = self.sessions().get(&name).cloned().ok_or_else(unknown)?;
        // Of one's own conversation nobody forgets what it is about, and of others' nobody shall learn that it exists.
        if session.identity != peer.identity || session.model != open.model {
            return Err(unknown());
        }
        self.metrics.resumed();
        info!(session = %name, address = %peer.address, "goes on");
        Ok((name, session))
    }

    /// Holds a conversation to its end.
    fn hold(&self, name: SessionName, session: &Session, server: Server) {
        let start = Instant::now();
        let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
        let turns = Arc::clone(&self.turns);
        let (steps, ended) = serve_in_turns(&session.link, server, turns, &mut rng);
        session.link.finish();
        self.metrics.ended(&session.model, &steps, ended.is_ok());
        let busy: f64 = steps.iter().map(|step| step.seconds).sum();
        let products: u64 = steps.iter().map(|step| step.products).sum();
        let batches = steps.iter().filter_map(|step| step.batch).max().map_or(0, |last| last + 1);
        let seconds = start.elapsed().as_secs_f64();
        match ended {
            Ok(()) => info!(session = %name, batches, products, busy, seconds, "ended"),
            Err(error) => {
                let reason = session.link.why().map_or_else(|| error.to_string(), |why| why.to_string());
                warn!(session = %name, batches, products, busy, seconds, reason, "broke off");
            }
        }
        // The last words still go out.
        let since = Instant::now();
        while !session.link.is_flushed() && since.elapsed() < self.service.limits.opening {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.sessions().remove(&name);
        self.count_sessions();
    }
}

/// Carries frames between a stream and a link until one of them ends.
async fn carry(
    link: &Link,
    connection: u64,
    mut frames: Streaming<proto::ClientFrame>,
    sender: mpsc::Sender<Result<proto::ServerFrame, Status>>,
) {
    let incoming = async {
        loop {
            let taken = match frames.next().await {
                Some(Ok(proto::ClientFrame { frame: Some(client_frame::Frame::Data(data)) })) => {
                    link.deliver(connection, (data.number, data.message), data.received).await
                }
                Some(Ok(proto::ClientFrame { frame: Some(client_frame::Frame::Received(has)) })) => {
                    link.confirmed(connection, has)
                }
                Some(Ok(_)) => Err(ServiceError::Stream {
                    expected: "messages after the first frame",
                    found: "another frame".to_owned(),
                }),
                Some(Err(status)) if status.code() == Code::OutOfRange => Err(ServiceError::Stream {
                    expected: "frames within the limit",
                    found: status.message().to_owned(),
                }),
                // The connection broke, or the client has hung up and may come back.
                Some(Err(_)) | None => return None,
            };
            if let Err(error) = taken {
                return Some(error);
            }
        }
    };
    let outgoing = async {
        loop {
            let next = match link.next(connection).await {
                Ok(Outgoing::Message { number, message, received }) => {
                    server_frame::Frame::Data(proto::Data { number, message, received })
                }
                Ok(Outgoing::Received(received)) => server_frame::Frame::Received(received),
                Ok(Outgoing::End) => return None,
                Err(error) => return Some(error),
            };
            if sender.send(Ok(frame(next))).await.is_err() {
                return Some(ServiceError::Ended);
            }
        }
    };
    tokio::select! {
        broken = incoming => {
            let status = match broken {
                Some(error) => {
                    if matches!(error, ServiceError::Stream { .. }) {
                        link.end(error.clone());
                    }
                    status_of(error)
                }
                // No refusal: the client may come back.
                None => Status::unavailable("the client's half of the stream ended"),
            };
            let _ = sender.try_send(Err(status));
        },
        ended = outgoing => if let Some(error) = ended {
            let _ = sender.try_send(Err(status_of(error)));
        },
    }
}
