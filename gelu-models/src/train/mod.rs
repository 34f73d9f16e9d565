//! Training in the clear, without files, clock or hidden randomness.
//!
//! A run is determined by the model's first weights, the [`TrainConfig`] and the [`Dataset`]: the number of threads,
//! and whether it was interrupted and resumed, change no bit of the result.

mod augmentation;
mod backprop;
mod config;
mod dataset;
mod error;
mod evaluate;
mod metrics;
pub mod private;
mod rounding;
mod state;
mod trainer;

pub use augmentation::Augmentation;
pub use config::{Schedule, TrainConfig};
pub use dataset::{Dataset, DatasetError, stratified_split};
pub use error::TrainError;
pub use evaluate::Evaluation;
pub use metrics::{ConfusionMatrix, area_under_curve};
pub use state::{PartOfEpoch, StateError, TrainState};
pub use trainer::{EpochStats, Progress, Trainer};

#[cfg(test)]
mod tests;
