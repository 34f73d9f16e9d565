//! Runs of training: clients take their places, and turns, and every change is on disk before its client hears of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gelu_io::session::{RunError, TrainingAccount, serve_turn};
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_models::Model;
use gelu_models::train::TrainConfig;
use gelu_models::train::private::{
    Change, CoordinatorConfig, Description, PrivateError, Server, TrainPlan, TrainingOptions,
};
use gelu_tensor::paillier::{KeyParameters, SecretKey};
use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::sync::Notify;
use tonic::Status;
use tracing::{info, warn};

use super::converse::Session;
use crate::ledger::{Enrolled, Kind};
use crate::proto::await_turn_response::State;
use crate::{Ledger, Refusal, ServiceError, proto};

/// How long a client's question for its turn is kept open, at most.
const POLL: Duration = Duration::from_secs(15);

/// Clients that a run may have.
const MOST_CLIENTS: u32 = 1000;

/// A model that clients are to train together: the model with its first weights, and how.
#[derive(Clone, Debug)]
pub struct Training {
    /// The model, with its first weights.
    pub model: Model,
    /// Keys, numbers, descent, turns.
    pub options: TrainingOptions,
    /// How many clients take part, 1 to 1,000. The run begins when all have come.
    pub clients: u32,
    /// Turns that a client may have in all; `None` for any number. A run that needs more than all clients may have does not
    /// come to its end.
    pub turns: Option<u64>,
    /// Where the weights are written after every turn, as safetensors.
    pub weights: Option<PathBuf>,
}

/// A run of training at work.
#[derive(Debug)]
pub(super) struct TrainingRun {
    model: String,
    training: Training,
    plan: Arc<TrainPlan>,
    parameters: Vec<u64>,
    key: Arc<SecretKey>,
    /// 16 random bytes.
    name: Vec<u8>,
    ledger: Arc<Ledger>,
    standing: Mutex<Standing>,
    changed: Notify,
}

/// How a run stands.
#[derive(Debug)]
struct Standing {
    members: Vec<Member>,
    /// `None` before all clients have come, while a turn is held, and where the state could not be read.
    server: Option<Box<Server>>,
    /// Iterations done, and of how many.
    progress: [u64; 2],
    /// The place whose turn is next.
    next: u32,
    /// The turn that is held.
    holder: Option<Arc<Session>>,
}

#[derive(Debug)]
struct Member {
    enrolled: Enrolled,
    /// When it was last heard of between turns.
    heard: Instant,
}

/// Why a turn was not held to its end.
enum Broken {
    Run(RunError<PrivateError>),
    Service(ServiceError),
}

impl From<RunError<PrivateError>> for Broken {
    fn from(error: RunError<PrivateError>) -> Self {
        Self::Run(error)
    }
}

impl TrainingRun {
    /// The run of a model, which goes on where the ledger has it.
    pub(super) fn new(model: &str, training: Training, ledger: Arc<Ledger>) -> Result<Self, ServiceError> {
        let refused = |error| ServiceError::Training { model: model.to_owned(), error: Box::new(error) };
        if !(1..=MOST_CLIENTS).contains(&training.clients) {
            let (what, expected) = ("clients", format!("1 to {MOST_CLIENTS}"));
            let found = training.clients.to_string();
            return Err(refused(PrivateError::Setting { what, expected, found }));
        }
        let TrainingOptions { key, backend, numbers, train, d_max, leakage } = &training.options;
        let description = Description::new(&training.model, train.batch_size, *numbers, *key, key.size);
        let plan = Arc::new(TrainPlan::new(description).map_err(refused)?);
        let parameters = plan.quantize(&training.model.weights()).map_err(refused)?;
        let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
        let secret = SecretKey::generate(*key, &mut rng).and_then(|key| key.on(*backend));
        let secret = secret.map_err(|error| refused(error.into()))?;
        let mut name = [0; 16];
        rng.fill_bytes(&mut name);
        let first: Vec<u8> = parameters.iter().flat_map(|parameter| parameter.to_le_bytes()).collect();
        let first = hmac_sha256::Hash::hash(&first);
        let terms = json!({
            "plan": plan.description(),
            "descent": train,
            "d_max": d_max,
            "leakage": leakage,
            "clients": training.clients,
            "first weights": first[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        });
        let kept = ledger.run(model, &terms, name)?;
        let standing = Standing { members: vec![], server: None, progress: [0, 0], next: 0, holder: None };
        let run = Self {
            model: model.to_owned(),
            training,
            plan,
            parameters,
            key: Arc::new(secret),
            name: kept.name.clone(),
            ledger,
            standing: Mutex::new(standing),
            changed: Notify::new(),
        };
        // What cannot be trained is refused now, and not when the last client has come.
        run.assemble(1, None)?;
        run.load(&mut run.standing())?;
        Ok(run)
    }

    /// A thread that panicked left no half-changed standing: what it held is read again.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self, error: PrivateError) -> ServiceError {
        ServiceError::Training { model: self.model.clone(), error: Box::new(error) }
    }

    /// The server of a run over so many inputs, at its beginning or where it was kept.
    fn assemble(
        &self,
        images: u64,
        state: Option<gelu_models::train::private::ServerState>,
    ) -> Result<Box<Server>, ServiceError> {
        let TrainingOptions { train, d_max, leakage, .. } = self.training.options.clone();
        let config = CoordinatorConfig { train, images, d_max, leakage };
        let (plan, key) = (self.plan.clone(), self.key.clone());
        let server = match state {
            None => Server::new(plan, key, config, self.parameters.clone()),
            Some(state) => Server::resume(plan, key, config, state).map(|mut server| {
                server.count_again();
                server
            }),
        };
        Ok(Box::new(server.map_err(|error| self.refused(error))?))
    }

    /// Takes the run as the ledger has it.
    fn load(&self, standing: &mut Standing) -> Result<(), ServiceError> {
        let kept = self.ledger.kept_run(&self.model)?;
        let heard = |enrolled: &Enrolled| {
            let known = standing.members.iter().find(|member| member.enrolled.place == enrolled.place);
            known.map_or_else(Instant::now, |member| member.heard)
        };
        let members = kept.members.into_iter().map(|enrolled| Member { heard: heard(&enrolled), enrolled });
        standing.members = members.collect();
        standing.server = None;
        let Some(state) = kept.state else { return self.begin_if_gathered(standing) };
        let server = self.assemble(standing.images(), Some(state))?;
        let clients = u64::from(self.training.clients);
        standing.next = match server.client() {
            Some(interrupted) => interrupted,
            None => (server.coordinator().turns % clients) as u32,
        };
        standing.take_back(server);
        Ok(())
    }

    /// Begins the run once all places are taken.
    fn begin_if_gathered(&self, standing: &mut Standing) -> Result<(), ServiceError> {
        if (standing.members.len() as u32) < self.training.clients {
            return Ok(());
        }
        let server = self.assemble(standing.images(), None)?;
        self.ledger.begin(&self.model, &server.state())?;
        info!(model = %self.model, clients = self.training.clients, images = standing.images(), "training begins");
        standing.next = 0;
        standing.take_back(server);
        Ok(())
    }

    /// What clients are told of the run.
    pub(super) fn listed(&self) -> proto::Training {
        self.list(&self.standing())
    }

    fn list(&self, standing: &Standing) -> proto::Training {
        let TrainingOptions { key: KeyParameters { size, key_type }, train, .. } = &self.training.options;
        let TrainConfig { batch_size, epochs, momentum, seed, .. } = train;
        proto::Training {
            run: Bytes::copy_from_slice(&self.name),
            clients: self.training.clients,
            enrolled: standing.members.len() as u32,
            key_bits: size.bits() as u32,
            key_type: key_type.name().to_owned(),
            batch: *batch_size as u32,
            epochs: *epochs,
            momentum: *momentum,
            seed: *seed,
            done: standing.progress[0],
            iterations: standing.progress[1],
        }
    }

    /// Answers a client that asks for its turn, when it has one or after a while.
    pub(super) async fn await_turn(
        self: &Arc<Self>,
        client: String,
        request: proto::AwaitTurnRequest,
        absence: Duration,
    ) -> Result<proto::AwaitTurnResponse, Status> {
        let since = Instant::now();
        loop {
            // Before the look, lest something change between that and the wait.
            let changed = self.changed.notified();
            let (run, client, request) = (Arc::clone(self), client.clone(), request.clone());
            let look = tokio::task::spawn_blocking(move || run.look(&client, &request, absence));
            let answer = look.await.map_err(|error| Refusal::Other.status(error.to_string()))??;
            let waits = matches!(answer.state(), State::Gathering | State::Waiting);
            if !waits || since.elapsed() >= POLL {
                return Ok(answer);
            }
            // Now and then, to notice those who have gone away.
            let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
        }
    }

    /// Gives a client its place if it has none, and says whether it has its turn.
    fn look(
        &self,
        client: &str,
        request: &proto::AwaitTurnRequest,
        absence: Duration,
    ) -> Result<proto::AwaitTurnResponse, Status> {
        let mut guard = self.standing();
        let standing = &mut *guard;
        let place = match standing.members.iter_mut().find(|member| member.enrolled.client == client) {
            Some(member) => {
                member.heard = Instant::now();
                let Enrolled { place, inputs, turns, .. } = member.enrolled;
                if let Some(allowed) = self.training.turns.filter(|&allowed| turns >= allowed)
                    && standing.server.as_ref().is_none_or(|server| !server.is_complete())
                {
                    return Err(Refusal::Budget.status(format!(
                        "this client has had {turns} turns, of {allowed} that it may have"
                    )));
                }
                if inputs != request.inputs {
                    return Err(Refusal::Enrolment.status(format!(
                        "this client takes part with {inputs} inputs, found {}",
                        request.inputs
                    )));
                }
                if request.place.is_some_and(|wanted| wanted != place) {
                    return Err(Refusal::Enrolment.status(format!("this client has place {}", place + 1)));
                }
                place
            }
            None => self.enroll(standing, client, request)?,
        };
        if standing.server.is_none()
            && standing.holder.is_none()
            && standing.members.len() as u32 == self.training.clients
        {
            self.load(standing).map_err(|error| self.cannot_go_on(&error))?;
        }
        let state = match &standing.server {
            _ if (standing.members.len() as u32) < self.training.clients => State::Gathering,
            Some(server) if server.is_complete() => State::Complete,
            Some(_) => {
                self.skip_absent(standing, absence);
                if standing.next == place { State::Yours } else { State::Waiting }
            }
            None => {
                // A client that asks is not in its turn any more, whatever became of it.
                if let Some(holder) = standing.holder.as_ref().filter(|_| standing.next == place) {
                    holder.link.end(ServiceError::Ended);
                }
                State::Waiting
            }
        };
        Ok(proto::AwaitTurnResponse { state: state.into(), place, training: Some(self.list(standing)) })
    }

    fn enroll(
        &self,
        standing: &mut Standing,
        client: &str,
        request: &proto::AwaitTurnRequest,
    ) -> Result<u32, Status> {
        let clients = self.training.clients;
        let is_free = |place: &u32| standing.members.iter().all(|member| member.enrolled.place != *place);
        let place = match request.place {
            Some(wanted) => Some(wanted).filter(|wanted| *wanted < clients && is_free(wanted)),
            None => (0..clients).find(is_free),
        };
        let place = place.ok_or_else(|| {
            Refusal::Enrolment.status(match request.place {
                Some(wanted) => {
                    format!("place {} of {clients} is taken, or there is none", u64::from(wanted) + 1)
                }
                None => format!("all {clients} places are taken"),
            })
        })?;
        if request.inputs == 0 || request.inputs > u64::from(u32::MAX) {
            let found = request.inputs;
            return Err(
                Refusal::Enrolment.status(format!("expected 1 to 2^32 inputs to train on, found {found}"))
            );
        }
        let enrolled = Enrolled { place, client: client.to_owned(), inputs: request.inputs, turns: 0 };
        self.ledger.enroll(&self.model, &enrolled).map_err(|error| self.cannot_go_on(&error))?;
        info!(model = %self.model, place, client, inputs = request.inputs, "takes part");
        standing.members.push(Member { enrolled, heard: Instant::now() });
        standing.members.sort_by_key(|member| member.enrolled.place);
        self.begin_if_gathered(standing).map_err(|error| self.cannot_go_on(&error))?;
        self.changed.notify_waiters();
        Ok(place)
    }

    /// Where the client whose turn it is has not been heard of for too long, the next one that has is next.
    fn skip_absent(&self, standing: &mut Standing, absence: Duration) {
        let clients = self.training.clients;
        let is_here = |place: u32| {
            let member = standing.members.iter().find(|member| member.enrolled.place == place);
            let may = |member: &Member| self.training.turns.is_none_or(|most| member.enrolled.turns < most);
            member.is_some_and(|member| member.heard.elapsed() < absence && may(member))
        };
        let next = (0..clients).map(|step| (standing.next + step) % clients).find(|&place| is_here(place));
        if let Some(next) = next.filter(|&next| next != standing.next) {
            warn!(model = %self.model, place = standing.next, next, "a client is away or has no turns left: the next one goes on");
            standing.next = next;
        }
    }

    /// What a client is told when the state cannot be kept or read; the log says why.
    fn cannot_go_on(&self, error: &ServiceError) -> Status {
        warn!(model = %self.model, %error, "training cannot go on");
        Refusal::State.status(ServiceError::StateUnkept.to_string())
    }

    /// Takes the turn for a client's conversation, and returns its place.
    pub(super) fn take(&self, client: &str, session: &Arc<Session>) -> Result<u32, Status> {
        let mut standing = self.standing();
        let next = standing.next;
        let member = standing.members.iter_mut().find(|member| member.enrolled.client == client);
        let Some(member) = member.filter(|member| member.enrolled.place == next) else {
            return Err(Refusal::Turn.status("another client has its turn, or this one has no place"));
        };
        member.heard = Instant::now();
        if standing.server.as_ref().is_none_or(|server| server.is_complete()) || standing.holder.is_some() {
            return Err(Refusal::Turn.status("no turn can begin at this moment"));
        }
        standing.holder = Some(Arc::clone(session));
        Ok(next)
    }

    /// Gives back a turn that did not begin.
    pub(super) fn give_back(&self) {
        self.standing().holder = None;
        self.changed.notify_waiters();
    }

    /// Holds a turn that was taken.
    pub(super) fn hold(
        &self,
        session: &Session,
        place: u32,
        is_stopping: &AtomicBool,
    ) -> (TrainingAccount, Result<(), ServiceError>) {
        let mut account = TrainingAccount::default();
        // Only the holder takes it.
        let Some(mut server) = self.standing().server.take() else {
            self.give_back();
            return (account, Err(ServiceError::Ended));
        };
        let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
        let served = serve_turn(&session.link, &mut server, &mut account, &mut rng, |server, change| {
            if change == Change::Granted && server.client() != Some(place) {
                let error = PrivateError::Grant("expected a client that says its own place");
                return Err(Broken::Run(RunError::Peer(error)));
            }
            self.keep(server, place, change).map_err(Broken::Service)?;
            match change {
                Change::Ended => Ok(()),
                _ if is_stopping.load(Ordering::SeqCst) => Err(Broken::Service(ServiceError::Stopped)),
                _ => Ok(()),
            }
        });
        let mut standing = self.standing();
        let ended = match served {
            Ok(()) => {
                if let Some(member) = standing.members.iter_mut().find(|of| of.enrolled.place == place) {
                    member.enrolled.turns += 1;
                    member.heard = Instant::now();
                }
                Ok(())
            }
            Err(Broken::Service(error)) => Err(error),
            // The client may come back, and find the turn where it was kept.
            Err(Broken::Run(RunError::Disconnected(_))) => {
                Err(session.link.why().unwrap_or(ServiceError::Ended))
            }
            // It broke the protocol, or gave up: so the turn is over, and comes to nothing.
            Err(Broken::Run(error)) => {
                server.abandon();
                let done = server.iterations_done();
                let kept = self.ledger.keep(&self.model, &server.state(), (place, Kind::GivenUp, done));
                let error = ServiceError::Stream { expected: "a turn of training", found: words(&error) };
                kept.and(Err(error))
            }
        };
        let is_over = matches!(ended, Ok(()) | Err(ServiceError::Stream { .. }));
        if is_over {
            standing.take_back(server);
            standing.next = (place + 1) % self.training.clients;
        } else if let Err(error) = self.load(&mut standing) {
            // It is tried again when somebody asks.
            warn!(model = %self.model, %error, "training cannot go on");
        }
        standing.holder = None;
        drop(standing);
        self.changed.notify_waiters();
        if let Err(error) = &ended {
            let said = match error {
                ServiceError::State { .. } => ServiceError::StateUnkept,
                error => error.clone(),
            };
            session.link.end(said);
        }
        (account, ended)
    }

    /// Keeps the state after a change; the client hears of it afterwards.
    fn keep(&self, server: &Server, place: u32, change: Change) -> Result<(), ServiceError> {
        let kind = match change {
            Change::Granted => Kind::Granted,
            Change::Updated => Kind::Updated,
            Change::Ended => Kind::Ended,
        };
        self.ledger.keep(&self.model, &server.state(), (place, kind, server.iterations_done()))?;
        self.standing().progress = [server.iterations_done(), server.iterations()];
        if change == Change::Ended {
            let done = server.iterations_done();
            info!(model = %self.model, place, done, of = server.iterations(), "trained");
            self.write(server);
        }
        Ok(())
    }

    /// Writes the weights. They can be had from the state as well, so a turn is not lost where they cannot be written.
    fn write(&self, server: &Server) {
        let Some(path) = &self.training.weights else { return };
        let written = || -> Result<(), Box<dyn std::error::Error>> {
            let mut model = self.training.model.clone();
            model.load(&self.plan.weights(&server.coordinator().parameters)?)?;
            Ok(model.weights().write(path, Dtype::F32)?)
        };
        if let Err(error) = written() {
            warn!(model = %self.model, path = %path.display(), %error, "the weights cannot be written");
        }
    }
}

impl Standing {
    /// Inputs of all clients.
    fn images(&self) -> u64 {
        self.members.iter().map(|member| member.enrolled.inputs).sum()
    }

    fn take_back(&mut self, server: Box<Server>) {
        self.progress = [server.iterations_done(), server.iterations()];
        self.server = Some(server);
    }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", words(source)),
        None => error.to_string(),
    }
}
