//! Conversations: opening them, going on with them over another stream, and the thread that computes.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gelu_io::session::{Observer, serve_in_turns};
use gelu_models::infer::{Server, ServerModel, SessionError, Workers, hidden};
use gelu_models::plan::Reveal;
use gelu_wire::WirePeer;
use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::accept::Peer;
use super::account::Account;
use super::carry::{carry, frame, status_of};
use super::training::TrainingRun;
use super::{Modes, Offered, Shared, Subject};
use crate::link::{Link, LinkPatience};
use crate::proto::gelu_server::Gelu;
use crate::proto::{client_frame, server_frame};
use crate::{Fingerprint, Refusal, SERVICE_VERSION, proto};

/// The random name of a conversation: who knows it and has the certificate that it was opened with can go on with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SessionName(pub(super) [u8; 16]);

impl SessionName {
    fn random() -> Self {
        let mut name = Self([0; 16]);
        rand::rng().fill_bytes(&mut name.0);
        name
    }
}

/// A conversation that is being held, or waits for its client to come back.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) link: Link,
    model: String,
    identity: Option<Fingerprint>,
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
        let models = self.service.models.values().map(Offered::listed).collect();
        Ok(Response::new(proto::ListModelsResponse { models }))
    }

    async fn await_turn(
        &self,
        request: Request<proto::AwaitTurnRequest>,
    ) -> Result<Response<proto::AwaitTurnResponse>, Status> {
        let peer = peer_of(request.extensions())?;
        let request = request.into_inner();
        check_version(request.version)?;
        self.refuse_when_stopping()?;
        let run = self.training(&request.model)?;
        let client = peer.name(&request.client)?;
        run.await_turn(client, request, self.service.limits.absence).await.map(Response::new)
    }

    async fn converse(
        &self,
        request: Request<Streaming<proto::ClientFrame>>,
    ) -> Result<Response<Self::ConverseStream>, Status> {
        let peer = peer_of(request.extensions())?;
        let answers = self.open(peer, request.into_inner()).await?;
        Ok(Response::new(Box::pin(answers)))
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<proto::ServerFrame, Status>> + Send>>;

impl Shared {
    /// Opens a conversation with the frames of a stream, or goes on with one, and returns the frames that answer.
    pub(super) async fn open<S>(
        self: &Arc<Self>,
        peer: Peer,
        frames: S,
    ) -> Result<ReceiverStream<Result<proto::ServerFrame, Status>>, Status>
    where
        S: Stream<Item = Result<proto::ClientFrame, Status>> + Unpin + Send + 'static,
    {
        self.open_inner(peer, frames).await.inspect_err(|status| self.note_refusal(status))
    }

    pub(crate) fn note_refusal(&self, status: &Status) {
        let refusal = Refusal::of(status).unwrap_or(Refusal::Other);
        warn!(%refusal, reason = status.message(), "refused");
        self.metrics.refused(refusal);
    }

    async fn open_inner<S>(
        self: &Arc<Self>,
        peer: Peer,
        mut frames: S,
    ) -> Result<ReceiverStream<Result<proto::ServerFrame, Status>>, Status>
    where
        S: Stream<Item = Result<proto::ClientFrame, Status>> + Unpin + Send + 'static,
    {
        let first = tokio::time::timeout(self.service.limits.opening, frames.next()).await;
        let first = first.map_err(|_| Refusal::Late.status("the first frame took too long"))?.transpose()?;
        let Some(proto::ClientFrame { frame: Some(client_frame::Frame::Open(open)) }) = first else {
            return Err(Refusal::Malformed.status("expected a stream to begin with Open"));
        };
        check_version(open.version)?;
        let (name, session) = match open.session.is_empty() {
            true => self.begin(SessionName::random(), &open, peer)?,
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
        Ok(ReceiverStream::new(receiver))
    }
}

fn peer_of(extensions: &tonic::Extensions) -> Result<Peer, Status> {
    let peer = extensions.get::<Peer>().copied();
    peer.ok_or_else(|| Refusal::Other.status("the connection has no address"))
}

/// The longest name that a client without a certificate may have.
const NAME_BYTES: usize = 64;

impl Peer {
    /// Who a client is: its certificate's key, or what it calls itself where there are no certificates.
    fn name(&self, said: &str) -> Result<String, Status> {
        match self.identity {
            Some(key) => Ok(key.to_string()),
            None if (1..=NAME_BYTES).contains(&said.len()) => Ok(said.to_owned()),
            None => Err(Refusal::Malformed.status(format!(
                "expected a client's name of 1 to {NAME_BYTES} bytes, found {}",
                said.len()
            ))),
        }
    }
}

pub(super) fn unknown_session() -> Status {
    Refusal::UnknownSession
        .status("the conversation ended, was left alone for too long, or is of another server process")
}

pub(crate) fn check_version(found: u32) -> Result<(), Status> {
    match found {
        SERVICE_VERSION => Ok(()),
        _ => Err(Refusal::Version.status(format!(
            "expected version {SERVICE_VERSION} of the service, found {found}; use the same release on both sides"
        ))),
    }
}

impl Shared {
    fn offered(&self, model: &str) -> Result<&Offered, Status> {
        self.service.models.get(model).ok_or_else(|| {
            let names: Vec<&str> = self.service.models.keys().map(String::as_str).collect();
            Refusal::UnknownModel.status(format!("the models here are {}", names.join(", ")))
        })
    }

    fn training(&self, model: &str) -> Result<&Arc<TrainingRun>, Status> {
        match &self.offered(model)?.subject {
            Subject::Training(run) => Ok(run),
            Subject::Inference(..) => {
                Err(Refusal::UnknownModel
                    .status(format!("`{model}` is offered for inference, not for training")))
            }
        }
    }

    /// The model of a name, if it is offered in the mode that is asked for.
    fn inference(&self, model: &str, is_hidden: bool) -> Result<(&Arc<ServerModel>, Modes), Status> {
        match &self.offered(model)?.subject {
            Subject::Inference(_, modes) if is_hidden && modes.hidden.is_none() => {
                Err(Refusal::Mode.status(format!("`{model}` is not offered hidden from its clients")))
            }
            Subject::Inference(_, modes) if !is_hidden && !modes.is_revealed => {
                Err(Refusal::Mode.status(format!("`{model}` is hidden from its clients here")))
            }
            Subject::Inference(model, modes) => Ok((model, *modes)),
            Subject::Training(_) => Err(Refusal::UnknownModel
                .status(format!("`{model}` is being trained, and not offered for inference"))),
        }
    }

    /// Begins a conversation, if there is room for it.
    pub(super) fn begin(
        self: &Arc<Self>,
        name: SessionName,
        open: &proto::Open,
        peer: Peer,
    ) -> Result<(SessionName, Arc<Session>), Status> {
        self.refuse_when_stopping()?;
        let limits = self.service.limits;
        // What is wrong with the request is said before there is a conversation.
        let subject = match open.training {
            true if !peer.may_train => {
                return Err(Refusal::Enrolment.status("runs of training are taken part in over gRPC"));
            }
            true => Subject::Training(Arc::clone(self.training(&open.model)?)),
            false => {
                let (model, modes) = self.inference(&open.model, open.hidden)?;
                Subject::Inference(Arc::clone(model), modes)
            }
        };
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
            if sessions.contains_key(&name) {
                return Err(unknown_session());
            }
            sessions.insert(name, Arc::clone(&session));
        }
        self.count_sessions();
        let began = match subject {
            Subject::Inference(model, modes) => {
                let reveal = modes.hidden.filter(|_| open.hidden);
                self.begin_inference(name, &session, model, reveal)
            }
            Subject::Training(run) => {
                peer.name(&open.client).and_then(|client| self.begin_turn(name, &session, run, &client))
            }
        };
        if let Err(status) = began {
            self.forget(name);
            return Err(status);
        }
        info!(session = %name, model = %open.model, address = %peer.address, client = ?peer.identity, "begins");
        Ok((name, session))
    }

    fn begin_inference(
        self: &Arc<Self>,
        name: SessionName,
        session: &Arc<Session>,
        model: Arc<ServerModel>,
        hidden: Option<Reveal>,
    ) -> Result<(), Status> {
        let gate = self.service.ledger.as_ref().map(|(ledger, budget)| {
            let client = session.identity.map_or("without a certificate".to_owned(), |key| key.to_string());
            let (ledger, model, budget) = (Arc::clone(ledger), session.model.clone(), *budget);
            Arc::new(Account { ledger, client, model, budget, rate: self.service.rate })
        });
        let Some(reveal) = hidden else {
            let mut server = Server::new(model).on(self.service.backend);
            if let Some(gate) = gate {
                server = server.with_gate(gate);
            }
            if let Some(workers) = &self.service.workers {
                server = server.with_workers(Arc::clone(workers) as Arc<dyn Workers>);
            }
            return self.spawn(name, session, move |shared, session| shared.hold(name, session, server));
        };
        let mut server = hidden::Server::new(model).on(self.service.backend).revealing(reveal);
        if let Some(gate) = gate {
            server = server.with_gate(gate);
        }
        self.spawn(name, session, move |shared, session| shared.hold(name, session, server))
    }

    fn begin_turn(
        self: &Arc<Self>,
        name: SessionName,
        session: &Arc<Session>,
        run: Arc<TrainingRun>,
        client: &str,
    ) -> Result<(), Status> {
        let place = run.take(client, session)?;
        let held = Arc::clone(&run);
        let spawned =
            self.spawn(name, session, move |shared, session| shared.hold_turn(name, session, &held, place));
        spawned.inspect_err(|_| run.give_back())
    }

    fn spawn(
        self: &Arc<Self>,
        name: SessionName,
        session: &Arc<Session>,
        hold: impl FnOnce(&Self, &Session) + Send + 'static,
    ) -> Result<(), Status> {
        let (shared, session) = (Arc::clone(self), Arc::clone(session));
        let thread = std::thread::Builder::new().name(format!("session {name}"));
        match thread.spawn(move || hold(&shared, &session)) {
            Ok(_) => Ok(()),
            Err(error) => Err(Refusal::Busy.status(format!("no thread for the conversation: {error}"))),
        }
    }

    /// Finds the conversation that a client wants to go on with over another stream.
    fn resume(&self, open: &proto::Open, peer: Peer) -> Result<(SessionName, Arc<Session>), Status> {
        let name = SessionName(open.session[..].try_into().map_err(|_| unknown_session())?);
        let session = self.find(name, peer).filter(|session| session.model == open.model);
        let session = session.ok_or_else(unknown_session)?;
        self.metrics.resumed();
        info!(session = %name, address = %peer.address, "goes on");
        Ok((name, session))
    }

    /// A client's own conversation. Of others' it does not learn that they exist.
    pub(super) fn find(&self, name: SessionName, peer: Peer) -> Option<Arc<Session>> {
        self.sessions().get(&name).filter(|session| session.identity == peer.identity).cloned()
    }

    /// Holds a conversation to its end.
    fn hold<P>(&self, name: SessionName, session: &Session, server: P)
    where
        P: WirePeer<Error = SessionError>,
        gelu_io::session::Account: Observer<P>,
    {
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
        self.release(name, session);
    }

    /// Holds a turn of training to its end.
    fn hold_turn(&self, name: SessionName, session: &Session, run: &TrainingRun, place: u32) {
        let start = Instant::now();
        let (account, ended) = run.hold(session, place, (&self.is_stopping, Arc::clone(&self.turns)));
        session.link.finish();
        self.metrics.turn_ended(&session.model, &account, ended.is_ok());
        let (seconds, busy) = (start.elapsed().as_secs_f64(), account.server_seconds());
        match ended {
            Ok(()) => info!(session = %name, place, busy, seconds, "turn ended"),
            Err(error) => warn!(session = %name, place, busy, seconds, reason = %error, "turn broke off"),
        }
        self.release(name, session);
    }

    /// Forgets a conversation that is over, once its last words have gone out.
    fn release(&self, name: SessionName, session: &Session) {
        let since = Instant::now();
        while !session.link.is_flushed() && since.elapsed() < self.service.limits.opening {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.forget(name);
    }

    pub(super) fn forget(&self, name: SessionName) {
        self.sessions().remove(&name);
        self.count_sessions();
    }
}
