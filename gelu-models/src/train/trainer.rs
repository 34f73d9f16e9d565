//! Training in the clear, on floats.

use std::collections::BTreeMap;

use gelu_layers::Parameters;
use ndarray::{Array2, ArrayView2, Axis};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::backprop::{BatchGradients, gradients};
use super::rounding::Rounding;
use super::{Dataset, PartOfEpoch, StateError, TrainConfig, TrainError, TrainState};
use crate::{LoadError, LoadProblem, Model};

/// How far an epoch is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Inputs done.
    pub done: usize,
    /// Inputs in the epoch.
    pub of: usize,
    /// Mean loss so far, in nats.
    pub loss: f64,
}

/// What one epoch did. Loss and accuracy are those met while training, on augmented inputs if there is augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochStats {
    /// The epoch, from 1.
    pub epoch: u32,
    /// Learning rate at its end.
    pub learning_rate: f64,
    /// Mean loss, in nats.
    pub loss: f64,
    /// Share of inputs with the right label, from 0 to 1.
    pub accuracy: f64,
}

/// A training run: a model, its optimizer and how far it has come.
///
/// ```
/// use gelu_layers::Initializer;
/// use gelu_models::ModelBuilder;
/// use gelu_models::train::{Dataset, TrainConfig, Trainer};
/// use gelu_tensor::Shape;
/// use ndarray::array;
/// use rand::{SeedableRng, rngs::ChaCha8Rng};
///
/// let inputs = array![[0.0, 1.0], [1.0, 0.0], [0.2, 0.9], [0.8, 0.1]];
/// let data = Dataset::new(Shape::from([2]), inputs, vec![0, 1, 0, 1], 2)?;
/// let mut model = ModelBuilder::new([2]).dense("fc1", 8).relu().dense("fc2", 2).softmax().build()?;
/// model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
///
/// let config = TrainConfig { batch_size: 2, epochs: 20, ..TrainConfig::default() };
/// let mut trainer = Trainer::new(model, config)?;
/// while trainer.epochs_done() < trainer.config().epochs {
///     trainer.train_epoch(&data, |_| ())?;
/// }
/// let model = trainer.into_model();
/// assert_eq!(model.evaluate(&data)?.accuracy, 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Trainer {
    /// With the weights that updates are applied to.
    model: Model,
    /// How weights and activations are rounded, where that is asked for.
    rounding: Option<Rounding>,
    /// The model with rounded weights, in the second half of such a run.
    rounded: Option<Model>,
    config: TrainConfig,
    /// Of the layers that have parameters, in order.
    velocity: Vec<Parameters>,
    epochs_done: u32,
    part: PartOfEpoch,
}

/// Inputs that one task takes through the model. It is fixed, so that sums are formed in the same order whatever the
/// number of threads.
const CHUNK: usize = 16;

/// Inputs on which the sizes of activations are measured.
const SAMPLE: usize = 512;

impl Trainer {
    /// Returns a run from the model's present weights.
    ///
    /// # Errors
    /// [`TrainError::Config`] and [`TrainError::NoSoftmax`].
    pub fn new(model: Model, config: TrainConfig) -> Result<Self, TrainError> {
        if let Some((what, expected, found)) = config.fault() {
            return Err(TrainError::Config { what, expected, found });
        }
        if !model.ends_in_softmax() {
            return Err(TrainError::NoSoftmax { found: model.output_shape().clone() });
        }
        if model.has_client_functions() {
            return Err(gelu_tensor::Error::ClientFunction.into());
        }
        let velocity = parameters(&model).map(Parameters::zeros_like).collect();
        let rounding = Rounding::new(&model, &config)?;
        let (epochs_done, part) = (0, PartOfEpoch::default());
        Ok(Self { model, rounding, rounded: None, config, velocity, epochs_done, part })
    }

    /// Returns a run from where `state` was taken, which goes on as if it had not been interrupted.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`TrainError::State`] when the state is not of this model.
    pub fn resume(mut model: Model, state: &TrainState) -> Result<Self, TrainError> {
        // The model carries the velocity for a moment, since it knows the names and checks the shapes. Running statistics
        // have none.
        let report = model.load_partial(&state.velocity).map_err(StateError::Velocity)?;
        let running = |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
        let missing = report.missing.into_iter().filter(|(name, _)| !running(name));
        let missing = missing.map(|(name, expected)| LoadProblem::Missing { name, expected });
        let unused = report.unused.into_iter().map(|(name, found)| LoadProblem::Unused { name, found });
        let problems: Vec<LoadProblem> = missing.chain(unused).collect();
        if !problems.is_empty() {
            return Err(StateError::Velocity(LoadError { problems }).into());
        }
        let velocity = parameters(&model).cloned().collect();
        model.load(&state.weights).map_err(StateError::Weights)?;
        let TrainState { config, epochs_done, part, scales, .. } = state;
        if *epochs_done > config.epochs {
            let expected = format!("at most {}", config.epochs);
            let found = u64::from(*epochs_done);
            return Err(StateError::Progress { what: "epochs done", expected, found }.into());
        }
        if part.correct > part.done || !part.loss.is_finite() {
            let (expected, found) = (format!("at most {}", part.done), part.correct as u64);
            return Err(StateError::Progress { what: "right answers of an epoch", expected, found }.into());
        }
        let trainer = Self::new(model, config.clone())?;
        let mut trainer = Self { velocity, epochs_done: *epochs_done, part: *part, ..trainer };
        if !scales.is_empty() {
            trainer
                .begin_rounding(scales, Array2::zeros((0, trainer.model.input_shape().elements())).view())?;
        }
        Ok(trainer)
    }

    /// Returns everything that is needed to [`resume`](Self::resume).
    pub fn state(&self) -> TrainState {
        TrainState {
            config: self.config.clone(),
            epochs_done: self.epochs_done,
            part: self.part,
            scales: match (&self.rounding, &self.rounded) {
                (Some(rounding), Some(_)) => rounding.scales(),
                _ => BTreeMap::new(),
            },
            weights: self.model.weights(),
            velocity: self.model.named(&self.velocity),
        }
    }

    /// Returns the model as it is now: in the second half of a run with [few bits](TrainConfig::weight_bits), with rounded
    /// weights and the formats of rounded activations.
    pub fn model(&self) -> &Model {
        self.rounded.as_ref().unwrap_or(&self.model)
    }

    /// Ends the run and returns the [model](Self::model).
    pub fn into_model(self) -> Model {
        self.rounded.unwrap_or(self.model)
    }

    /// Returns what determines the run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Returns the number of epochs done, without one that has not come to its end.
    pub fn epochs_done(&self) -> u32 {
        self.epochs_done
    }

    /// Returns what is done of an epoch that has not come to its end.
    pub fn part_of_epoch(&self) -> PartOfEpoch {
        self.part
    }

    /// Makes one pass over `dataset`, or the rest of one, in an order drawn from the seed and the epoch. `progress` is
    /// called after every update.
    ///
    /// # Errors
    /// [`TrainError`] when the data set does not fit the model, or the loss is no longer finite.
    pub fn train_epoch(
        &mut self,
        dataset: &Dataset,
        mut progress: impl FnMut(Progress),
    ) -> Result<EpochStats, TrainError> {
        loop {
            let ended = self.train_while(dataset, |now| {
                progress(now);
                true
            })?;
            if let Some(stats) = ended {
                return Ok(stats);
            }
        }
    }

    /// Goes on with a pass over `dataset`, as [`train_epoch`](Self::train_epoch) does, while `go_on`, which is called after
    /// every update, returns true.
    ///
    /// Returns what the epoch did, or nothing where it was stopped before its end: it goes on from there when this is
    /// called again, or when a run is [resumed](Self::resume) from the [state](Self::state).
    ///
    /// # Errors
    /// As [`train_epoch`](Self::train_epoch).
    pub fn train_while(
        &mut self,
        dataset: &Dataset,
        mut go_on: impl FnMut(Progress) -> bool,
    ) -> Result<Option<EpochStats>, TrainError> {
        self.check(dataset)?;
        let sample = dataset.len().min(SAMPLE);
        self.begin_rounding(&BTreeMap::new(), dataset.inputs().split_at(Axis(0), sample).0)?;
        let mut order: Vec<usize> = (0..dataset.len()).collect();
        order.shuffle(&mut self.rng(0));

        let (epoch, of) = (self.epochs_done + 1, dataset.len());
        let batch_size = self.config.batch_size;
        let mut learning_rate = 0.0;
        for (batch, indices) in order.chunks(batch_size).enumerate().skip(self.part.done / batch_size) {
            let sum = self.batch_gradients(dataset, indices)?;
            if !sum.loss.is_finite() {
                return Err(TrainError::Diverged { epoch, batch: batch + 1, loss: sum.loss });
            }
            self.part.done += indices.len();
            let position = f64::from(self.epochs_done) + self.part.done as f64 / of as f64;
            learning_rate = self.config.learning_rate_at(position);
            self.update(&sum, indices.len(), learning_rate);
            self.part.loss += sum.loss;
            self.part.correct += sum.correct;
            let PartOfEpoch { done, loss, .. } = self.part;
            if !go_on(Progress { done, of, loss: loss / done as f64 }) && done < of {
                return Ok(None);
            }
        }
        let PartOfEpoch { loss, correct, .. } = std::mem::take(&mut self.part);
        self.epochs_done = epoch;
        let (loss, accuracy) = (loss / of as f64, correct as f64 / of as f64);
        Ok(Some(EpochStats { epoch, learning_rate, loss, accuracy }))
    }

    /// Rounds weights and activations from the second half of the run on, at scales that were kept or that suit them as they
    /// are on some inputs.
    fn begin_rounding(
        &mut self,
        kept: &BTreeMap<String, i32>,
        inputs: ArrayView2<'_, f32>,
    ) -> Result<(), TrainError> {
        let Some(rounding) = &mut self.rounding else { return Ok(()) };
        if self.rounded.is_none() && self.epochs_done >= self.config.epochs / 2 {
            rounding.fix_scales(&self.model, kept, inputs)?;
            rounding.clip(&mut self.model);
            self.rounded = Some(rounding.of(&self.model));
        }
        Ok(())
    }

    fn check(&self, dataset: &Dataset) -> Result<(), TrainError> {
        let expected = self.model.output_shape().elements();
        if dataset.classes() != expected {
            return Err(TrainError::Classes { expected, found: dataset.classes() });
        }
        if dataset.is_empty() {
            return Err(TrainError::Empty);
        }
        let PartOfEpoch { done, .. } = self.part;
        if done >= dataset.len() || !done.is_multiple_of(self.config.batch_size) {
            let expected = format!("whole batches, of {} inputs", dataset.len());
            let found = done as u64;
            return Err(StateError::Progress { what: "inputs done of an epoch", expected, found }.into());
        }
        if self.config.augmentation.is_some() && dataset.shape().dims().len() != 3 {
            return Err(TrainError::NoImages { found: dataset.shape().clone() });
        }
        Ok(())
    }

    /// Gradients summed over the inputs at `indices`.
    fn batch_gradients(&self, dataset: &Dataset, indices: &[usize]) -> Result<BatchGradients, TrainError> {
        let chunk = |indices: &[usize]| {
            let labels: Vec<usize> = indices.iter().map(|&index| dataset.labels()[index]).collect();
            gradients(self.model(), self.inputs(dataset, indices)?.view(), &labels)
        };
        // A batch norm needs the whole batch at once.
        let norms = self.model.layers().any(|(_, layer)| layer.statistics().is_some());
        let together = if norms { indices.len() } else { CHUNK };
        let parts: Vec<_> = indices.par_chunks(together).map(chunk).collect::<Result<_, _>>()?;
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or(TrainError::Empty)?;
        Ok(parts.fold(first, |mut sum, part| {
            sum.add(&part);
            sum
        }))
    }

    /// The inputs at `indices`, augmented if the run says so.
    fn inputs(&self, dataset: &Dataset, indices: &[usize]) -> Result<Array2<f32>, gelu_tensor::Error> {
        let Some(augmentation) = self.config.augmentation else {
            return Ok(dataset.inputs().select(Axis(0), indices));
        };
        let image = dataset.shape().as_image("dimensions of an augmented input")?;
        let mut x = Array2::zeros((indices.len(), dataset.shape().elements()));
        for (&index, target) in indices.iter().zip(x.outer_iter_mut()) {
            let source = dataset.inputs();
            augmentation.apply(source.row(index), target, image, &mut self.rng(index as u64 + 1));
        }
        Ok(x)
    }

    /// The randomness of one purpose in this epoch, independent of what was drawn before it.
    fn rng(&self, purpose: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream((u64::from(self.epochs_done) << 32) ^ purpose);
        rng
    }

    fn update(&mut self, sum: &BatchGradients, images: usize, learning_rate: f64) {
        let [momentum, decay, rate] =
            [self.config.momentum, self.config.weight_decay, learning_rate].map(|value| value as f32);
        let scale = 1.0 / images as f32;
        let layers = self.model.layers_mut().map(|(_, layer)| layer).filter(|layer| layer.has_parameters());
        let mut statistics = sum.statistics.iter();
        for ((layer, velocity), gradient) in layers.zip(&mut self.velocity).zip(&sum.parameters) {
            let normalizes = layer.statistics().is_some();
            if let (true, Some(batch)) = (normalizes, normalizes.then(|| statistics.next()).flatten()) {
                layer.update_statistics(batch);
            }
            let parameters = layer.parameters_mut();
            let step = |w: &mut f32, v: &mut f32, g: f32, decay: f32| {
                *v = momentum * *v + scale * g + decay * *w;
                *w -= rate * *v;
            };
            let weights = parameters.weight.iter_mut().zip(&mut velocity.weight).zip(&gradient.weight);
            weights.for_each(|((w, v), &g)| step(w, v, g, decay));
            let biases = parameters.bias.iter_mut().zip(&mut velocity.bias).zip(&gradient.bias);
            biases.for_each(|((b, v), &g)| step(b, v, g, 0.0));
        }
        if let (Some(rounding), Some(rounded)) = (&self.rounding, &mut self.rounded) {
            rounding.clip(&mut self.model);
            *rounded = rounding.of(&self.model);
        }
    }
}

/// The parameters of the layers that have any, in order.
fn parameters(model: &Model) -> impl Iterator<Item = &Parameters> {
    let layers = model.layers().map(|(_, layer)| layer).filter(|layer| layer.has_parameters());
    layers.map(|layer| layer.parameters())
}
