use gelu_layers::{Activation, Conv2dConfig, Initializer};
use gelu_models::train::{Dataset, Schedule, TrainConfig, TrainError, Trainer};
use gelu_models::zoo::{Network as ZooNetwork, Setting};
use gelu_models::{GraphError, Model, ModelBuilder};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// A network of the paper's section 5.2, with squares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Conv(5x5, stride 2, 5 filters), square, mean pooling, square, Dense(10).
    Conv1,
    /// Conv(5x5, 6 filters), mean pooling, square, Conv(5x5, 16 filters), mean pooling, square, Dense(120), Dense(84), Dense(10):
    /// as the paper lists it, with nothing between the dense layers.
    Lenet5,
}

impl Architecture {
    /// Returns the name that `gelu` has for the network.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conv1 => "conv1",
            Self::Lenet5 => "lenet5",
        }
    }

    /// Returns the model with weights that are zero.
    fn model(self) -> anyhow::Result<Model> {
        Ok(match self {
            Self::Conv1 => {
                let setting = Setting { activation: Some(Activation::Square), ..Setting::default() };
                ZooNetwork::Conv1.build(&setting)?
            }
            Self::Lenet5 => lenet5()?,
        })
    }
}

fn lenet5() -> Result<Model, GraphError> {
    ModelBuilder::new([1, 28, 28])
        .conv2d("conv1", Conv2dConfig::new(6, [5, 5]))
        .avg_pool2d("pool1", [2, 2])
        .square()
        .conv2d("conv2", Conv2dConfig::new(16, [5, 5]))
        .avg_pool2d("pool2", [2, 2])
        .square()
        .flatten()
        .dense("fc1", 120)
        .dense("fc2", 84)
        .dense("fc3", 10)
        .softmax()
        .build()
}

/// Returns the network trained in the clear. Squares make training unstable: where the loss leaves all bounds, it starts again
/// with a smaller learning rate.
///
/// # Errors
/// When it does so at the smallest rate too; what the data set does not fit.
pub fn train(
    architecture: Architecture,
    dataset: &Dataset,
    epochs: u32,
    mut progress: impl FnMut(&str),
) -> anyhow::Result<Model> {
    const RATES: [f64; 4] = [0.02, 0.01, 0.003, 0.001];
    let mut last = None;
    for rate in RATES {
        let mut model = architecture.model()?;
        model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
        let config = TrainConfig {
            learning_rate: rate,
            epochs,
            warm_up: 0.5,
            schedule: Schedule::Cosine,
            seed: 1,
            ..TrainConfig::default()
        };
        let mut trainer = Trainer::new(model, config)?;
        let trained = (0..epochs).try_for_each(|epoch| {
            let stats = trainer.train_epoch(dataset, |_| ())?;
            progress(&format!("epoch {} of {epochs}: accuracy {:.2} %", epoch + 1, 100.0 * stats.accuracy));
            Ok(())
        });
        match trained {
            Ok(()) => return Ok(trainer.into_model()),
            Err(error @ TrainError::Diverged { .. }) => {
                progress(&format!("learning rate {rate}: {error}"));
                last = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no epochs"), anyhow::Error::from))
}
