//! Private training without masks and encryption, on the same integers.

use std::sync::Arc;

use super::learner::{Learner, Need};
use super::master::{Master, MasterState};
use super::{
    LayerLeakage, LearnerConfig, LearnerState, MasterConfig, PrivateError, ResumeFault, Samples, Statistics,
    TrainPlan,
};

/// Training in turns on the very integers of private training, without masks and encryption.
///
/// With the same settings and seeds it gives the same weights as [`Client`](super::Client) and
/// [`Server`](super::Server), bit for bit: it is what they are tested against, and much faster.
pub struct FixedTrainer {
    plan: Arc<TrainPlan>,
    master: Master,
    learners: Vec<Learner>,
}

impl FixedTrainer {
    /// A run of some clients from these parameters.
    ///
    /// # Errors
    /// As [`Server::new`](super::Server::new) and for each client.
    pub fn new(
        plan: Arc<TrainPlan>,
        config: MasterConfig,
        parameters: Vec<u64>,
        clients: impl IntoIterator<Item = (Arc<dyn Samples>, LearnerConfig)>,
    ) -> Result<Self, PrivateError> {
        let master = Master::new(plan.clone(), config, parameters)?;
        let learners = clients
            .into_iter()
            .map(|(samples, config)| Learner::new(plan.clone(), samples, config))
            .collect::<Result<Vec<_>, _>>()?;
        if learners.is_empty() {
            return Err(PrivateError::no_clients());
        }
        Ok(Self { plan, master, learners })
    }

    /// Takes the run up again between two turns.
    ///
    /// # Errors
    /// [`PrivateError::Resume`] when the state is not of this run.
    pub fn restore(
        &mut self,
        config: MasterConfig,
        state: MasterState,
        learners: Vec<LearnerState>,
    ) -> Result<(), PrivateError> {
        if learners.len() != self.learners.len() {
            return Err(PrivateError::Resume(ResumeFault::Clients));
        }
        self.master = Master::resume(self.plan.clone(), config, state)?;
        self.learners.iter_mut().zip(learners).try_for_each(|(learner, state)| learner.restore(state))
    }

    /// The parameters, and how far the run is.
    pub fn master(&self) -> &MasterState {
        self.master.state()
    }

    /// The clients' states.
    pub fn learners(&self) -> Vec<LearnerState> {
        self.learners.iter().map(|learner| learner.state().clone()).collect()
    }

    /// What the clients have met, one after another.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.learners.iter().map(|learner| learner.state().statistics).collect()
    }

    /// What an iteration shows of each layer.
    pub fn leakage(&self) -> &[LayerLeakage] {
        self.master.leakage()
    }

    /// Iterations of the whole run.
    pub fn iterations(&self) -> u64 {
        self.master.iterations()
    }

    /// Whether all of them have been done.
    pub fn is_complete(&self) -> bool {
        self.master.state().iterations >= self.iterations()
    }

    /// One turn of the client whose turn it is.
    ///
    /// # Errors
    /// [`PrivateError`]; the parameters are then those before the turn.
    pub fn turn(&mut self) -> Result<(), PrivateError> {
        let (grant, rate) = self.master.grant()?;
        let client = (grant.turn % self.learners.len() as u64) as usize;
        let learner = &mut self.learners[client];
        let mut parameters = self.master.state().parameters.clone();
        learner.begin(grant)?;
        let mut need = learner.next_batch()?;
        let totals = loop {
            need = match need {
                Need::Sums(index, values) => {
                    learner.sums(index, &self.plan.segments()[index].sums(&parameters, &values)?)?
                }
                Need::Products(place, errors) => {
                    let term = &self.plan.segments()[place[0]].terms()[place[1]];
                    learner.products(place, &term.products(&parameters, &errors)?)?
                }
                Need::Update(_) => {
                    let totals = learner.state().turn.as_ref().map_or(&[][..], |(_, _, totals)| totals);
                    parameters = self.master.after(rate, totals);
                    learner.next_batch()?
                }
                Need::Total(totals) => break totals,
            };
        };
        let iterations = learner.state().turn.as_ref().map_or(0, |(_, done, _)| *done);
        learner.end();
        self.master.finish(client as u32, (iterations, rate), &totals)
    }
}
