//! Private training with both sides on this machine.

use std::sync::Arc;

use gelu_io::session::{Checkpoint, Go, RunError, TrainingAccount, run_turn};
use gelu_models::Model;
use gelu_models::train::TrainConfig;
use gelu_models::train::private::{
    Client, CoordinatorConfig, Description, ParticipantConfig, PrivateError, ResumeFault, Samples, Server,
    TrainPlan, TrainingOptions,
};
use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyParameters, SecretKey};
use rand::{CryptoRng, SeedableRng, rngs::ChaCha20Rng};

use crate::Result;

/// What a run starts from: on ciphertexts or, with a [`FixedTrainer`](gelu_models::train::private::FixedTrainer), in the clear.
#[derive(Clone)]
pub struct TrainingSetup {
    /// What is trained, on which numbers.
    pub plan: Arc<TrainPlan>,
    /// The server's part.
    pub config: CoordinatorConfig,
    /// The first weights, as the plan's integers.
    pub parameters: Vec<i64>,
    /// What each client holds, and how it works.
    pub clients: Vec<(Arc<dyn Samples>, ParticipantConfig)>,
    /// What computes on ciphertexts.
    pub backend: Backend,
}

impl TrainingSetup {
    /// Returns the setup of a run that trains a model from its present weights on what the clients hold. A batch that is
    /// larger than what a client holds is cut to that.
    ///
    /// # Errors
    /// [`Error::PrivateTraining`](crate::Error::PrivateTraining) when the model cannot be trained privately or an option is
    /// out of its range.
    pub fn new(model: &Model, clients: Vec<Arc<dyn Samples>>, options: &TrainingOptions) -> Result<Self> {
        let TrainingOptions { key, backend, numbers, train, d_max, leakage } = options;
        let least = clients.iter().map(|samples| samples.count()).min().unwrap_or(train.batch_size);
        // Clients without samples are refused elsewhere.
        let train = TrainConfig { batch_size: train.batch_size.min(least.max(1)), ..train.clone() };
        let description = Description::new(model, train.batch_size, *numbers, *key, key.size);
        let plan = Arc::new(TrainPlan::new(description)?);
        let parameters = plan.quantize(&model.weights())?;
        let images = clients.iter().map(|samples| samples.count() as u64).sum();
        let participant = |client| ParticipantConfig { client, seed: train.seed, momentum: train.momentum };
        let clients = (0..).zip(clients).map(|(client, samples)| (samples, participant(client))).collect();
        let config = CoordinatorConfig { train, images, d_max: *d_max, leakage: *leakage };
        Ok(Self { plan, config, parameters, clients, backend: *backend })
    }
}

/// Private training with all sides on this machine, joined by pipes of bytes: for demonstrations, tests, measurements and
/// experiments. Clients and server are the same state machines as over a network, and clients take turns.
pub struct LocalTraining {
    server: Server,
    clients: Vec<Client>,
    account: TrainingAccount,
}

/// A run between two iterations.
pub struct Moment<'a> {
    /// The server.
    pub server: &'a Server,
    /// All clients, in order.
    pub clients: Vec<&'a Client>,
    /// What the run has cost so far.
    pub account: &'a TrainingAccount,
}

impl Moment<'_> {
    /// Returns what [`LocalTraining::resume`] needs, with what the caller keeps besides. It holds weights and clients' steps:
    /// a secret.
    pub fn checkpoint<S>(&self, run: S) -> Checkpoint<S> {
        let clients = self.clients.iter().map(|client| client.state()).collect();
        Checkpoint { run, server: self.server.state(), clients, account: self.account.clone() }
    }
}

impl LocalTraining {
    /// Returns a run at its beginning, and makes its keys.
    ///
    /// # Errors
    /// [`Error::PrivateTraining`](crate::Error::PrivateTraining) when there is no client, a client's samples are not of the
    /// model's shape and classes, or the leakage policy allows no iteration.
    pub fn new(setup: TrainingSetup, rng: &mut dyn CryptoRng) -> Result<Self> {
        let TrainingSetup { plan, config, parameters, clients, backend } = setup;
        let server =
            Server::new(plan.clone(), server_key(&plan, rng)?.on(backend)?.into(), config, parameters)?;
        let mut members = vec![];
        for (samples, participant) in clients {
            members.push(Client::new(Arc::new(client_key(&plan, rng)?.on(backend)?), samples, participant));
        }
        Self::of(server, members, TrainingAccount::default())
    }

    /// Returns a run that goes on where a checkpoint of it was taken, with new keys.
    ///
    /// # Errors
    /// [`Error::PrivateTraining`](crate::Error::PrivateTraining) when the checkpoint is not of this run.
    pub fn resume<S>(
        setup: TrainingSetup,
        checkpoint: Checkpoint<S>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self> {
        let TrainingSetup { plan, config, clients, backend, .. } = setup;
        if checkpoint.clients.len() != clients.len() {
            return Err(PrivateError::Resume(ResumeFault::Clients).into());
        }
        let server = Server::resume(
            plan.clone(),
            server_key(&plan, rng)?.on(backend)?.into(),
            config,
            checkpoint.server,
        )?;
        let mut members = vec![];
        for ((samples, participant), state) in clients.into_iter().zip(checkpoint.clients) {
            let key = Arc::new(client_key(&plan, rng)?.on(backend)?);
            members.push(match state {
                None => Client::new(key, samples, participant),
                Some(state) => Client::resume(key, samples, participant, plan.description().clone(), state)?,
            });
        }
        Self::of(server, members, checkpoint.account)
    }

    fn of(server: Server, clients: Vec<Client>, account: TrainingAccount) -> Result<Self> {
        if clients.is_empty() {
            let (what, expected, found) = ("clients", "at least 1".to_owned(), "0".to_owned());
            return Err(PrivateError::Setting { what, expected, found }.into());
        }
        Ok(Self { server, clients, account })
    }

    /// Returns the server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Returns the clients.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Returns the run as it stands.
    pub fn moment(&self) -> Moment<'_> {
        Moment { server: &self.server, clients: self.clients.iter().collect(), account: &self.account }
    }

    /// Loads the weights of the last turn that ended into the model.
    ///
    /// # Errors
    /// [`Error::Load`](crate::Error::Load) when the model is not the one that is trained.
    pub fn load_into(&self, model: &mut Model) -> Result<()> {
        let weights = self.server.plan().weights(&self.server.coordinator().parameters)?;
        model.load(&weights)?;
        Ok(())
    }

    /// Runs one turn, of the client whose turn it is. `between` is asked before each iteration whether to go on.
    ///
    /// Returns whether the turn came to its end; if it was stopped, the same client goes on with it next.
    ///
    /// # Errors
    /// [`Error::PrivateTraining`](crate::Error::PrivateTraining), or what `between` gives. Nothing of the turn is left
    /// behind then.
    pub fn turn<E: From<RunError<PrivateError>>>(
        &mut self,
        rng: &mut dyn CryptoRng,
        mut between: impl FnMut(Moment<'_>) -> Result<Go, E>,
    ) -> Result<bool, E> {
        let at = (self.server.coordinator().turns % self.clients.len() as u64) as usize;
        let (before, rest) = self.clients.split_at_mut(at);
        let Some((client, after)) = rest.split_first_mut() else { return Ok(false) };
        let mut server_rng = ChaCha20Rng::from_rng(rng);
        let rngs: [&mut dyn CryptoRng; 2] = [&mut server_rng, rng];
        run_turn(&mut self.server, client, &mut self.account, rngs, |server, client, account| {
            let clients = before.iter().chain([client]).chain(&*after).collect();
            between(Moment { server, clients, account })
        })
    }

    /// Runs all turns that are left; `progress` hears before each iteration how many are done, and of how many.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn run(&mut self, rng: &mut dyn CryptoRng, mut progress: impl FnMut(u64, u64)) -> Result<()> {
        while !self.server.is_complete() {
            self.turn(rng, |moment| {
                progress(moment.server.iterations_done(), moment.server.iterations());
                Ok::<_, crate::Error>(Go::On)
            })?;
        }
        Ok(())
    }
}

fn server_key(plan: &TrainPlan, rng: &mut dyn CryptoRng) -> Result<SecretKey> {
    let KeyParameters { key_type, .. } = plan.description().client_key;
    let parameters = KeyParameters { size: plan.description().server_key, key_type };
    Ok(SecretKey::generate(parameters, rng)?)
}

fn client_key(plan: &TrainPlan, rng: &mut dyn CryptoRng) -> Result<SecretKey> {
    Ok(SecretKey::generate(plan.description().client_key, rng)?)
}
