//! Private training without encryption, on the same integers.

use std::sync::Arc;

use super::coordinator::{Coordinator, CoordinatorState};
use super::participant::{Need, Participant};
use super::{
    CoordinatorConfig, LayerLeakage, ParticipantConfig, ParticipantState, PrivateError, ResumeFault, Samples,
    Statistics, TrainPlan,
};
use crate::peer::Part;

/// Training in turns on the very integers of private training, without encryption.
///
/// With the same settings and seeds it gives the same weights as [`Client`](super::Client) and
/// [`Server`](super::Server), bit for bit: it is what they are tested against, and much faster.
///
/// ```
/// use std::sync::Arc;
///
/// use gelu_layers::Initializer;
/// use gelu_models::ModelBuilder;
/// use gelu_models::train::private::{
///     CoordinatorConfig, DMax, Description, FixedPoint, FixedTrainer, Leakage, ParticipantConfig, Samples,
///     TrainPlan,
/// };
/// use gelu_models::train::{Dataset, TrainConfig};
/// use gelu_tensor::{Shape, paillier::KeyBits};
/// use ndarray::array;
/// use rand::{SeedableRng, rngs::ChaCha8Rng};
///
/// let mut model = ModelBuilder::new([2]).dense("fc1", 4).tanh().dense("fc2", 2).softmax().build()?;
/// model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
/// let inputs = array![[0.0, 1.0], [1.0, 0.0], [0.2, 0.9], [0.8, 0.1]];
/// let data: Arc<dyn Samples> = Arc::new(Dataset::new(Shape::from([2]), inputs, vec![0, 1, 0, 1], 2)?);
///
/// let key = KeyBits::Bits2048;
/// let description = Description::new(&model, 2, FixedPoint::default(), key.into(), key);
/// let plan = Arc::new(TrainPlan::new(description)?);
/// let first = plan.quantize(&model.weights())?;
/// let train = TrainConfig { batch_size: 2, epochs: 3, weight_decay: 0.0, ..TrainConfig::default() };
/// let config = CoordinatorConfig { train, images: 4, d_max: DMax::Auto, leakage: Leakage::Off };
/// let participant = ParticipantConfig { client: 0, seed: 1, momentum: 0.9 };
/// let mut trainer = FixedTrainer::new(plan.clone(), config, first, [(data, participant)])?;
/// while !trainer.is_complete() {
///     trainer.turn()?;
/// }
/// model.load(&plan.weights(&trainer.coordinator().parameters)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FixedTrainer {
    plan: Arc<TrainPlan>,
    coordinator: Coordinator,
    participants: Vec<Participant>,
}

impl FixedTrainer {
    /// Returns a run of some clients from these parameters.
    ///
    /// # Errors
    /// As [`Server::new`](super::Server::new) and for each client.
    pub fn new(
        plan: Arc<TrainPlan>,
        config: CoordinatorConfig,
        parameters: Vec<i64>,
        clients: impl IntoIterator<Item = (Arc<dyn Samples>, ParticipantConfig)>,
    ) -> Result<Self, PrivateError> {
        let coordinator = Coordinator::new(plan.clone(), config, parameters)?;
        let participants = clients
            .into_iter()
            .map(|(samples, config)| Participant::new(plan.clone(), samples, config))
            .collect::<Result<Vec<_>, _>>()?;
        if participants.is_empty() {
            return Err(PrivateError::no_clients());
        }
        Ok(Self { plan, coordinator, participants })
    }

    /// Takes the run up again between two turns.
    ///
    /// # Errors
    /// [`PrivateError::Resume`] when the state is not of this run.
    pub fn restore(
        &mut self,
        config: CoordinatorConfig,
        state: CoordinatorState,
        participants: Vec<ParticipantState>,
    ) -> Result<(), PrivateError> {
        if participants.len() != self.participants.len() {
            return Err(PrivateError::Resume(ResumeFault::Clients));
        }
        self.coordinator = Coordinator::resume(self.plan.clone(), config, state)?;
        self.participants
            .iter_mut()
            .zip(participants)
            .try_for_each(|(participant, state)| participant.restore(state))
    }

    /// Returns the parameters, and how far the run is.
    pub fn coordinator(&self) -> &CoordinatorState {
        self.coordinator.state()
    }

    /// Returns the clients' states.
    pub fn participants(&self) -> Vec<ParticipantState> {
        self.participants.iter().map(|participant| participant.state().clone()).collect()
    }

    /// Returns what the clients have met, one after another.
    pub fn statistics(&self) -> Vec<Statistics> {
        self.participants.iter().map(|participant| participant.state().statistics).collect()
    }

    /// Returns what an iteration shows of each layer.
    pub fn leakage(&self) -> &[LayerLeakage] {
        self.coordinator.leakage()
    }

    /// Returns the number of iterations of the whole run.
    pub fn iterations(&self) -> u64 {
        self.coordinator.iterations()
    }

    /// Returns whether all iterations have been done.
    pub fn is_complete(&self) -> bool {
        self.coordinator.state().iterations >= self.iterations()
    }

    /// Runs one turn of the client whose turn it is.
    ///
    /// # Errors
    /// [`PrivateError`]; the parameters are then those before the turn.
    pub fn turn(&mut self) -> Result<(), PrivateError> {
        let client = (self.coordinator.state().turns % self.participants.len() as u64) as usize;
        let (grant, rate) = self.coordinator.grant(client as u32)?;
        let participant = &mut self.participants[client];
        let parameters = self.plan.rounded(&self.coordinator.state().parameters);
        participant.begin(grant)?;
        let mut need = participant.proceed()?;
        let totals = loop {
            need = match need {
                Need::Sums(index, values) => {
                    let sums = self.plan.segments()[index].sums(&parameters, &values)?;
                    let part = Part::Sums { segment: index as u32 };
                    let sums = corrected(participant, (part, rate), sums, &values)?;
                    participant.sums(index, &sums)?
                }
                Need::Products(place, errors) => {
                    let term = &self.plan.segments()[place[0]].terms[place[1]];
                    let products = term.products(&parameters, &errors)?;
                    let [segment, term] = place.map(|at| at as u32);
                    let part = Part::Products { segment, term };
                    let products = corrected(participant, (part, rate), products, &[&errors[..]])?;
                    participant.products(place, &products)?
                }
                Need::Nothing(_) => participant.proceed()?,
                Need::Total(totals) => break totals,
            };
        };
        let iterations = participant.state().turn.as_ref().map_or(0, |(_, done, _)| *done);
        participant.end();
        self.coordinator.finish(client as u32, (iterations, 0, rate), &totals)
    }
}

/// Sums, or products, of the weights of a turn's beginning as those of its present ones.
fn corrected(
    participant: &Participant,
    (part, rate): (Part, u64),
    mut sums: Vec<i64>,
    sent: &[impl AsRef<[i64]>],
) -> Result<Vec<i64>, PrivateError> {
    if let Some(corrections) = participant.corrections(part, sent)? {
        sums.iter_mut().zip(corrections).for_each(|(sum, correction)| *sum += rate as i64 * correction);
    }
    Ok(sums)
}
