//! The paper's networks of one hidden layer: their data, and training them in the clear.

use anyhow::Context;
use gelu_io::data::{KnownSet, ReadOptions, TrainingData};
use gelu_layers::{Activation, Initializer};
use gelu_models::Model;
use gelu_models::train::{Dataset, TrainConfig, TrainError, Trainer};
use gelu_models::zoo::{Network, Setting as NetworkSetting};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::Setting;

/// The share of a table that is held out to test with.
const HELD_OUT: f64 = 0.2;

/// A network of the paper's section 5.1: one hidden layer, for one data set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dense {
    pub(super) title: &'static str,
    /// The data set's name.
    pub(super) data: &'static str,
    /// Hidden neurons.
    pub(super) hidden: usize,
}

impl Dense {
    pub(super) const ALL: [Self; 4] = [
        Self { title: "Iris", data: "iris", hidden: 5 },
        Self { title: "Diabetes", data: "diabetes", hidden: 12 },
        Self { title: "kr-vs-kp", data: "kr-vs-kp", hidden: 15 },
        Self { title: "MNIST", data: "mnist", hidden: 300 },
    ];

    /// Whether the data set has more than a table's few thousand examples.
    pub(super) fn is_large(self) -> bool {
        self.data == "mnist"
    }

    /// What it is trained and tested with; the seed divides a table.
    pub(super) fn read(self, setting: &Setting, seed: u64) -> anyhow::Result<TrainingData> {
        let known = KnownSet::by_name(self.data).context(self.data)?;
        let path = setting.data.find(known)?;
        Ok(known.read(&path, &ReadOptions::default())?.training(HELD_OUT, seed)?)
    }

    /// What it is trained and tested with for each of some seeds; a large data set, which has a test part of its own, is read
    /// once for all of them.
    pub(super) fn read_all(self, setting: &Setting, seeds: u64) -> anyhow::Result<Vec<TrainingData>> {
        let seeds = if self.is_large() { 1 } else { seeds };
        (0..seeds).map(|seed| self.read(setting, seed)).collect()
    }

    /// What to do where the data set is missing.
    pub(super) fn missing(self) -> String {
        let Self { title, data, .. } = self;
        format!(
            "{title} was not found, and is left out. `gelu data --download {data}` fetches it, or says where it is to be had; the \
             next run then makes this part anew."
        )
    }

    /// The network with first weights of a seed.
    pub(super) fn model(self, data: &Dataset, activation: Activation, seed: u64) -> anyhow::Result<Model> {
        let setting = NetworkSetting {
            input: Some(data.shape().clone()),
            classes: Some(data.classes()),
            activation: Some(activation),
            ..NetworkSetting::default()
        };
        let mut model = Network::Mlp(vec![self.hidden]).build(&setting)?;
        model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(seed));
        Ok(model)
    }
}

/// A training run.
pub(super) struct Trained {
    /// The model at its end, if the loss stayed finite.
    pub(super) model: Option<Model>,
    /// The mean loss of each update's inputs, in nats.
    pub(super) losses: Vec<f64>,
}

/// Trains a network in the clear, on floats, until its end or until the loss is no longer finite.
pub(super) fn train(model: Model, config: TrainConfig, data: &Dataset) -> anyhow::Result<Trained> {
    let epochs = config.epochs;
    let mut trainer = Trainer::new(model, config)?;
    let mut losses = vec![];
    for _ in 0..epochs {
        // The trainer tells the mean of the epoch so far.
        let (mut done, mut sum) = (0, 0.0);
        let ended = trainer.train_epoch(data, |now| {
            let whole = now.loss * now.done as f64;
            losses.push((whole - sum) / (now.done - done) as f64);
            (done, sum) = (now.done, whole);
        });
        match ended {
            Ok(_) => {}
            Err(TrainError::Diverged { .. }) => return Ok(Trained { model: None, losses }),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Trained { model: Some(trainer.into_model()), losses })
}

#[cfg(test)]
mod tests {
    use gelu_models::train::Schedule;
    use ndarray::Array2;

    use super::*;

    /// Two classes that a line divides.
    fn data() -> Dataset {
        let inputs = Array2::from_shape_fn((64, 4), |(i, j)| ((i * 7 + j * 3) % 11) as f32 / 5.0 - 1.0);
        let labels = inputs.rows().into_iter().map(|row| usize::from(row[0] > 0.0)).collect();
        Dataset::new([4].into(), inputs, labels, 2).unwrap()
    }

    fn config(rate: f64) -> TrainConfig {
        let (momentum, batch_size, epochs) = (0.0, 8, 20);
        TrainConfig {
            learning_rate: rate,
            momentum,
            batch_size,
            epochs,
            schedule: Schedule::Constant,
            ..TrainConfig::default()
        }
    }

    #[test]
    fn losses_are_those_of_single_updates() {
        let [network, ..] = Dense::ALL;
        let model = network.model(&data(), Activation::Sigmoid, 1).unwrap();
        let trained = train(model, config(0.5), &data()).unwrap();
        assert_eq!(trained.losses.len(), 20 * 8);
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(mean(&trained.losses[152..]) < 0.7 * mean(&trained.losses[..8]), "{:?}", trained.losses);
        assert!(trained.model.is_some());
    }

    #[test]
    fn a_loss_without_bounds_ends_a_run() {
        let [network, ..] = Dense::ALL;
        let model = network.model(&data(), Activation::Square, 1).unwrap();
        let trained = train(model, config(50.0), &data()).unwrap();
        assert!(trained.model.is_none() && trained.losses.len() < 160);
    }
}
