//! What determines a gradient descent: `gelu train` and `gelu serve --train` have the same options.

use gelu_layers::Initializer;
use gelu_models::train::{Schedule, TrainConfig};

/// Epochs, batches, learning rate, first weights.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DescentArgs {
    /// Passes over the data.
    #[arg(long, default_value_t = 10)]
    pub(crate) epochs: u32,
    /// Inputs to one update of the weights [default: 60, as many as fill a ciphertext under keys of 2048 bits; on floats
    /// in the clear 64].
    #[arg(long, alias = "batch")]
    batch_size: Option<usize>,
    /// Learning rate at its full value.
    #[arg(long, default_value_t = 0.05)]
    pub(crate) lr: f64,
    /// Momentum of the gradient descent.
    #[arg(long, default_value_t = 0.9)]
    pub(crate) momentum: f64,
    /// How the learning rate changes: constant, cosine, or step:EPOCHS:FACTOR.
    #[arg(long, default_value = "cosine")]
    pub(crate) schedule: Schedule,
    /// Epochs over which the learning rate first rises from zero.
    #[arg(long, default_value_t = 0.0, value_name = "EPOCHS")]
    pub(crate) warm_up: f64,
    /// How the first weights are drawn: kaiming-uniform, as PyTorch does; he-uniform, which suits deep networks without
    /// batch norm; xavier-uniform; or zeros.
    #[arg(long, default_value = "kaiming-uniform")]
    pub(crate) initializer: Initializer,
    /// Determines first weights, order and augmentation: the same seed gives the same weights.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}

impl DescentArgs {
    /// The options, as they are written without their dashes.
    pub(crate) const NAMES: [&str; 8] =
        ["epochs", "batch-size", "lr", "momentum", "schedule", "warm-up", "initializer", "seed"];

    /// The descent, without weight decay and augmentation; `batch` inputs to an update where nothing else is asked for.
    pub(crate) fn config(&self, batch: usize) -> TrainConfig {
        TrainConfig {
            learning_rate: self.lr,
            momentum: self.momentum,
            weight_decay: 0.0,
            batch_size: self.batch_size.unwrap_or(batch),
            epochs: self.epochs,
            schedule: self.schedule,
            warm_up: self.warm_up,
            seed: self.seed,
            ..TrainConfig::default()
        }
    }
}
