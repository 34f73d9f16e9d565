//! The model owner's side: models by name, conversations with limits, a stop that loses nothing.

mod accept;
mod account;
mod admission;
mod carry;
mod converse;
mod limits;
mod metrics;
mod modes;
mod steps;
#[cfg(test)]
mod tests;
mod training;
mod web;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gelu_io::session::Turns;
use gelu_models::Interface;
use gelu_models::infer::ServerModel;
use gelu_models::plan::PlanError;
use gelu_tensor::Backend;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tracing::{info, warn};

use self::accept::{Entrance, accept};
use self::admission::refuse_beyond;
pub(crate) use self::converse::check_version;
use self::converse::{Session, SessionName};
pub use self::limits::Limits;
use self::metrics::Metrics;
pub use self::modes::Modes;
pub use self::steps::{Steps, append_message, split_messages};
pub use self::training::Training;
use self::training::TrainingRun;
pub use self::web::Web;
use crate::proto;
use crate::proto::gelu_server::GeluServer;
use crate::proto::worker_server::WorkerServer;
use crate::stream::{CLIENT_FRAME_BYTES, SERVER_FRAME_BYTES};
use crate::workers::{Prepared, WORK_BYTES};
use crate::{Ledger, Refusal, ServerSecurity, ServiceError, WorkerPool};

/// What a server offers: models by name.
#[derive(Debug)]
pub struct Service {
    models: BTreeMap<String, Offered>,
    backend: Backend,
    limits: Limits,
    metrics: Option<SocketAddr>,
    ledger: Option<(Arc<Ledger>, Option<u64>)>,
    rate: Option<u64>,
    workers: Option<Arc<WorkerPool>>,
    is_worker: bool,
    web: Option<Web>,
}

#[derive(Debug)]
struct Offered {
    subject: Subject,
    listed: proto::Model,
}

/// What a model is offered for.
#[derive(Debug)]
enum Subject {
    Inference(Arc<ServerModel>, Modes),
    Training(Arc<TrainingRun>),
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    service: Service,
    sessions: Mutex<HashMap<SessionName, Arc<Session>>>,
    is_stopping: AtomicBool,
    metrics: Arc<Metrics>,
    turns: Arc<Turns>,
    /// Of a worker: programs that it has ready, and its turn to compute.
    prepared: Mutex<Prepared>,
    computing: Arc<Semaphore>,
}

impl Service {
    /// Returns a service without models, with the given limits.
    pub fn new(limits: Limits) -> Self {
        Self {
            models: BTreeMap::new(),
            backend: Backend::detect(),
            limits,
            metrics: None,
            ledger: None,
            rate: None,
            workers: None,
            is_worker: false,
            web: None,
        }
    }

    /// Computes on this backend.
    pub fn on(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// Has other machines compute the replies of conversations in which clients see weighted sums; what is done for models that
    /// are hidden from their clients is done here.
    pub fn with_workers(self, workers: Arc<WorkerPool>) -> Self {
        Self { workers: Some(workers), ..self }
    }

    /// Computes for other servers, in the place of holding conversations: who may connect may have any segment of the models
    /// computed on any ciphertexts.
    pub fn as_worker(self) -> Self {
        Self { is_worker: true, ..self }
    }

    /// Keeps account of what each client asks for, and lets none have more inputs of a model than the budget, where one is
    /// given. Clients are told apart by their certificates' keys; those without TLS are one.
    pub fn with_ledger(self, ledger: Arc<Ledger>, budget: Option<u64>) -> Self {
        Self { ledger: Some((ledger, budget)), ..self }
    }

    /// Lets no client have more inputs of a model than this in an hour, by the [ledger](Self::with_ledger), which is needed for
    /// that.
    pub fn with_rate(self, inputs_an_hour: u64) -> Self {
        Self { rate: Some(inputs_an_hour), ..self }
    }

    /// Answers Prometheus at `http://ADDRESS/metrics`, without TLS: an address that others reach shows them how busy the server
    /// is.
    pub fn with_metrics(self, address: SocketAddr) -> Self {
        Self { metrics: Some(address), ..self }
    }

    /// Serves browsers as well, at an address of their own.
    pub fn with_web(self, web: Web) -> Self {
        Self { web: Some(web), ..self }
    }

    /// Offers a model under a name, in the place of another of that name, and in these modes.
    ///
    /// # Errors
    /// [`PlanError`] when the model cannot be run in one of the modes under a key of 2,048 bits.
    pub fn with_model(
        mut self,
        name: &str,
        model: Arc<ServerModel>,
        modes: Modes,
    ) -> Result<Self, PlanError> {
        let listed = listed(name, model.model().interface());
        let listed = modes.listed(listed, &model, self.backend)?;
        self.models.insert(name.to_owned(), Offered { subject: Subject::Inference(model, modes), listed });
        Ok(self)
    }

    /// Has clients train a model under a name, in the place of another of that name. The run is kept in the service's ledger,
    /// and goes on where it is there.
    ///
    /// # Errors
    /// [`ServiceError::Training`] when the model cannot be trained so; [`ServiceError::State`] when the ledger cannot be used or
    /// has a run of that name with other settings; [`ServiceError::NoLedger`] without one
    /// ([`with_ledger`](Self::with_ledger)).
    pub fn with_training(mut self, name: &str, training: Training) -> Result<Self, ServiceError> {
        let (ledger, _) = self.ledger.as_ref().ok_or(ServiceError::NoLedger)?;
        let listed = listed(name, training.model.interface());
        let run = Arc::new(TrainingRun::new(name, training, Arc::clone(ledger))?);
        self.models.insert(name.to_owned(), Offered { subject: Subject::Training(run), listed });
        Ok(self)
    }

    /// Listens on an address and serves until it is told to stop, on threads of its own.
    ///
    /// # Errors
    /// [`ServiceError`] when there is nothing to offer, the certificates cannot be used, a server without TLS would be
    /// reached by other machines, or the address cannot be listened on.
    pub fn start(
        mut self,
        address: impl ToSocketAddrs + fmt::Debug,
        security: &ServerSecurity,
    ) -> Result<Running, ServiceError> {
        if self.models.is_empty() {
            return Err(ServiceError::NoModel);
        }
        let asked = address.to_socket_addrs().ok().and_then(|mut found| found.next());
        let asked = asked.ok_or_else(|| ServiceError::Address { found: format!("{address:?}") })?;
        let acceptor = |config| TlsAcceptor::from(Arc::new(config));
        let web = self.web.take();
        let tls = match security {
            ServerSecurity::Tls(credentials) => Some(acceptor(credentials.server_config()?)),
            ServerSecurity::Loopback => {
                let reached = [Some(asked), web.as_ref().map(|web| web.listen)];
                match reached.into_iter().flatten().find(|address| !address.ip().is_loopback()) {
                    Some(address) => return Err(ServiceError::Unprotected { address }),
                    None => None,
                }
            }
        };
        let web_tls = match (&web, security) {
            (Some(web), ServerSecurity::Tls(credentials)) => {
                Some(acceptor(credentials.web_config(web.is_open)?))
            }
            _ => None,
        };
        let problem = cannot_listen(asked);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gelu-service")
            .enable_all()
            .build()
            .map_err(problem)?;
        let bind = |asked| {
            let problem = cannot_listen(asked);
            let listener = runtime.block_on(TcpListener::bind(asked)).map_err(problem)?;
            let address = listener.local_addr().map_err(problem)?;
            Ok::<_, ServiceError>((listener, address))
        };
        let (listener, address) = bind(asked)?;
        let entrance = Entrance { tls, is_open: false, may_train: true };
        let mut web_address = None;
        let mut entrances = Entrances { grpc: (listener, entrance), web: None };
        if let Some(web) = web {
            let (listener, address) = bind(web.listen)?;
            web_address = Some(address);
            let entrance = Entrance { tls: web_tls, is_open: web.is_open, may_train: false };
            entrances.web = Some((listener, entrance, web));
        }
        let metrics_listener = self.metrics.map(bind).transpose()?;
        let metrics_address = metrics_listener.as_ref().map(|(_, address)| *address);
        let shared = Arc::new(Shared::new(self));
        if let Some((listener, _)) = metrics_listener {
            runtime.spawn(metrics::answer(listener, Arc::clone(&shared.metrics)));
        }
        let (stop, stopped) = watch::channel(false);
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("gelu-service".to_owned())
                .spawn(move || shared.run(runtime, entrances, stopped))
                .map_err(problem)?
        };
        info!(%address, "listening");
        Ok(Running { address, metrics_address, web_address, stop, thread: Some(thread), shared })
    }
}

/// Where connections come in.
struct Entrances {
    grpc: (TcpListener, Entrance),
    web: Option<(TcpListener, Entrance, Web)>,
}

/// A server at work. It stops when it is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    web_address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Running {
    /// Returns where it listens: with the port that the system chose where none was given.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where Prometheus is answered, if it is.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Returns where browsers are answered, if they are.
    pub fn web_address(&self) -> Option<SocketAddr> {
        self.web_address
    }

    /// Returns how many conversations there are.
    pub fn sessions(&self) -> usize {
        self.shared.sessions().len()
    }

    /// Takes no more conversations, waits for those that there are as long as the limits allow, and stops.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // The thread may be gone already.
        let _ = self.stop.send(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            warn!("the server's thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn new(service: Service) -> Self {
        // Where others compute, all of them are to have something to do.
        let elsewhere = service.workers.as_ref().map(|workers| Turns::new(2 * workers.machines()));
        let turns = Arc::new(elsewhere.unwrap_or_default());
        Self {
            service,
            sessions: Mutex::new(HashMap::new()),
            is_stopping: AtomicBool::new(false),
            metrics: Arc::new(Metrics::new(Arc::clone(&turns))),
            turns,
            prepared: Mutex::default(),
            computing: Arc::new(Semaphore::new(1)),
        }
    }

    /// A thread that panicked left the table whole: entries come and go in one step.
    fn sessions(&self) -> MutexGuard<'_, HashMap<SessionName, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: Arc<Self>, runtime: Runtime, entrances: Entrances, mut stopped: watch::Receiver<bool>) {
        let limits = self.service.limits;
        runtime.block_on(async {
            let (health, health_service) = tonic_health::server::health_reporter();
            health.set_serving::<GeluServer<Arc<Self>>>().await;
            let come_in = |(listener, entrance)| {
                let (connections, incoming) = mpsc::channel(1);
                let metrics = Arc::clone(&self.metrics);
                (tokio::spawn(accept(listener, entrance, limits, connections, metrics)), incoming)
            };
            let (quit, quitting) = watch::channel(false);
            let (accepting, incoming) = come_in(entrances.grpc);
            let (alive, mut dead) = mpsc::channel(1);
            let web_accepting = entrances.web.map(|(listener, entrance, web)| {
                let door = web::Door::new(Arc::clone(&self), web, entrance.tls.is_none(), alive);
                let (accepting, incoming) = come_in((listener, entrance));
                tokio::spawn(web::answer(door, incoming, quitting.clone()));
                accepting
            });
            let gelu = (!self.service.is_worker).then(|| {
                GeluServer::new(Arc::clone(&self))
                    .max_decoding_message_size(CLIENT_FRAME_BYTES)
                    .max_encoding_message_size(SERVER_FRAME_BYTES)
            });
            let worker = self.service.is_worker.then(|| {
                WorkerServer::new(Arc::clone(&self))
                    .max_decoding_message_size(WORK_BYTES)
                    .max_encoding_message_size(WORK_BYTES)
            });
            let mut quitting = quitting;
            let serving = tokio::spawn(
                Server::builder()
                    .layer(InterceptorLayer::new(refuse_beyond(Arc::clone(&self.metrics))))
                    .initial_stream_window_size(1 << 20)
                    .initial_connection_window_size(4 << 20)
                    .max_concurrent_streams(256)
                    .http2_keepalive_interval(Some(Duration::from_secs(20)))
                    .http2_keepalive_timeout(Some(Duration::from_secs(20)))
                    .add_service(health_service)
                    .add_optional_service(reflection())
                    .add_optional_service(gelu)
                    .add_optional_service(worker)
                    .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move {
                        // The sender goes with the server.
                        let _ = quitting.wait_for(|&quit| quit).await;
                    }),
            );
            // The sender is gone only when nobody holds the server any more.
            let _ = stopped.wait_for(|&stop| stop).await;
            self.is_stopping.store(true, Ordering::SeqCst);
            health.set_not_serving::<GeluServer<Arc<Self>>>().await;
            info!(sessions = self.sessions().len(), "stopping");
            let since = Instant::now();
            while since.elapsed() < limits.grace && !self.sessions().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            for session in self.sessions().values() {
                session.link.end(ServiceError::Stopped);
            }
            accepting.abort();
            if let Some(accepting) = web_accepting {
                accepting.abort();
            }
            // Connections are told, and streams get their last frames.
            let _ = quit.send(true);
            let closed = async { tokio::join!(serving, dead.recv()) };
            if tokio::time::timeout(Duration::from_secs(2), closed).await.is_err() {
                warn!("some connections did not close in time");
            }
        });
        runtime.shutdown_timeout(Duration::from_secs(2));
        info!("stopped");
    }

    /// The models that are offered for inference.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Arc<ServerModel>> {
        self.service.models.values().filter_map(|offered| match &offered.subject {
            Subject::Inference(model, _) => Some(model),
            Subject::Training(_) => None,
        })
    }

    pub(crate) fn backend(&self) -> Backend {
        self.service.backend
    }

    pub(crate) fn prepared(&self) -> &Mutex<Prepared> {
        &self.prepared
    }

    pub(crate) fn computing(&self) -> &Arc<Semaphore> {
        &self.computing
    }

    /// Notes how many conversations there are now.
    fn count_sessions(&self) {
        let sessions = self.sessions().len();
        self.metrics.sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
    }

    pub(crate) fn refuse_when_stopping(&self) -> Result<(), tonic::Status> {
        match self.is_stopping.load(Ordering::SeqCst) {
            true => {
                Err(Refusal::Stopping.status("the server is about to stop and takes no new conversations"))
            }
            false => Ok(()),
        }
    }
}

impl Offered {
    /// What clients are told of it now.
    fn listed(&self) -> proto::Model {
        let training = match &self.subject {
            Subject::Inference(..) => None,
            Subject::Training(run) => Some(run.listed()),
        };
        proto::Model { training, ..self.listed.clone() }
    }
}

/// What a client has to know of a model, whatever it costs.
fn listed(name: &str, interface: Interface) -> proto::Model {
    let Interface { input, outputs, info } = interface;
    // A tree of numbers and names has a form in JSON.
    let preprocessing = info.preprocessing.and_then(|it| serde_json::to_string(&it).ok());
    proto::Model {
        name: name.to_owned(),
        input: input.dims().iter().map(|&extent| extent as u64).collect(),
        outputs: outputs as u64,
        preprocessing: preprocessing.unwrap_or_default(),
        classes: info.classes,
        ..proto::Model::default()
    }
}

fn cannot_listen(address: SocketAddr) -> impl Fn(std::io::Error) -> ServiceError + Copy {
    move |error| ServiceError::Listen { address, problem: error.to_string() }
}

/// Says what the service's messages are, for tools such as grpcurl; `None` where its description cannot be read.
fn reflection() -> Option<ServerReflectionServer<impl ServerReflection>> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .build_v1()
        .ok()
}
