//! Runs of training: clients take their places, and turns, and every change is on disk before its client hears of it.

mod hold;
mod places;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use gelu_models::Model;
use gelu_models::train::TrainConfig;
use gelu_models::train::private::{
    CoordinatorConfig, Description, PrivateError, Server, ServerState, TrainPlan, TrainingOptions,
};
use gelu_tensor::paillier::{KeyParameters, SecretKey};
use rand::rngs::ChaCha20Rng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tracing::info;

use super::converse::Session;
use super::web::listed_run;
use crate::ledger::Enrolled;
use crate::{Ledger, ServiceError, proto};

/// Clients that a run may have.
const MOST_CLIENTS: u32 = 1000;

/// The last changes of a run that are told of.
const CHANGES_TOLD: u32 = 500;

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
    /// Turns that a client may begin in an hour; `None` for any number. One that was interrupted and goes on is not begun
    /// again.
    pub turns_an_hour: Option<u64>,
    /// Where the weights are written after every turn, as safetensors.
    pub weights: Option<PathBuf>,
}

/// A run of training at work.
#[derive(Debug)]
pub(super) struct TrainingRun {
    model: String,
    training: Training,
    plan: Arc<TrainPlan>,
    parameters: Vec<i64>,
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
    fn assemble(&self, images: u64, state: Option<ServerState>) -> Result<Box<Server>, ServiceError> {
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

    /// What anybody may know of the run, as JSON: how far it is, whose turn it is, and how it came there.
    pub(super) fn told(&self, name: &str) -> Result<Value, ServiceError> {
        let changes = self.ledger.changes(name, CHANGES_TOLD)?;
        let standing = self.standing();
        let has_begun = standing.server.is_some() || standing.holder.is_some();
        let is_complete = standing.server.as_ref().is_some_and(|server| server.is_complete());
        let members = standing.members.iter().map(|member| {
            let Enrolled { place, turns, .. } = member.enrolled;
            json!({ "place": place, "turns": turns })
        });
        Ok(json!({
            "model": name,
            "run": listed_run(self.list(&standing)),
            "members": members.collect::<Vec<Value>>(),
            "turn": (has_begun && !is_complete).then_some(standing.next),
            "is_held": standing.holder.is_some(),
            "is_complete": is_complete,
            "changes": changes,
        }))
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
}

impl Standing {
    /// Inputs of all clients.
    fn images(&self) -> u64 {
        self.members.iter().map(|member| member.enrolled.inputs).sum()
    }

    /// Whether a client's turn is held, or was interrupted.
    fn is_in_turn(&self, place: u32) -> bool {
        let interrupted = self.server.as_ref().and_then(|server| server.client());
        interrupted == Some(place) || (self.holder.is_some() && self.next == place)
    }

    fn take_back(&mut self, server: Box<Server>) {
        self.progress = [server.iterations_done(), server.iterations()];
        self.server = Some(server);
    }
}
