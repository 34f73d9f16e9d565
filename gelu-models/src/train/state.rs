use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TrainConfig;
use crate::{LoadError, Weights};

/// How far an epoch is that has not come to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOfEpoch {
    /// Inputs done.
    pub done: usize,
    /// Sum of their losses, in nats.
    pub loss: f64,
    /// Inputs with the right label.
    pub correct: usize,
}

/// A training run between two updates.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// What determines the run.
    pub config: TrainConfig,
    /// Epochs done.
    pub epochs_done: u32,
    /// What of the next epoch is done.
    pub part: PartOfEpoch,
    /// The scales of weights and values that are rounded, by their nodes' names.
    pub scales: BTreeMap<String, i32>,
    /// The model's weights, not rounded.
    pub weights: Weights,
    /// The optimizer's velocity, under the weights' names.
    pub velocity: Weights,
}

/// Why a state cannot be resumed from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The tensors are those of a model, not of a training run.
    #[error("expected a checkpoint with `{}` in its metadata, found {found}", TrainState::METADATA_KEY)]
    NoState {
        /// What is there instead.
        found: String,
    },
    /// Counters that no run can come to.
    #[error("{what}: expected {expected}, found {found}")]
    Progress {
        /// What is counted.
        what: &'static str,
        /// The range.
        expected: String,
        /// The count.
        found: u64,
    },
    /// The weights are not of this model.
    #[error("the weights of the checkpoint")]
    Weights(#[source] LoadError),
    /// The velocity is not of this model.
    #[error("the velocity of the checkpoint")]
    Velocity(#[source] LoadError),
}

/// The part of a state that is no tensor.
#[derive(Serialize, Deserialize)]
struct Header {
    config: TrainConfig,
    epochs_done: u32,
    part: PartOfEpoch,
    scales: BTreeMap<String, i32>,
}

const VELOCITY: &str = "velocity/";

impl TrainState {
    /// The key of [`Weights::metadata`] that makes a file of weights a checkpoint.
    pub(crate) const METADATA_KEY: &str = "gelu.training";

    /// Returns the state as one set of tensors, to be kept in a file: the velocity's names begin with `velocity/`.
    pub fn to_weights(&self) -> Weights {
        let mut weights = self.weights.clone();
        let velocity = self.velocity.tensors.iter();
        weights.tensors.extend(velocity.map(|(name, tensor)| (format!("{VELOCITY}{name}"), tensor.clone())));
        let header = Header {
            config: self.config.clone(),
            epochs_done: self.epochs_done,
            part: self.part,
            scales: self.scales.clone(),
        };
        // Numbers and fixed names only, which JSON can always hold.
        let header = serde_json::to_string(&header).unwrap_or_default();
        weights.metadata.insert(Self::METADATA_KEY.to_owned(), header);
        weights
    }

    /// Returns the state that [`to_weights`](Self::to_weights) kept.
    ///
    /// # Errors
    /// [`StateError::NoState`] when the metadata are not of a training run.
    pub fn from_weights(mut weights: Weights) -> Result<Self, StateError> {
        let header = weights.metadata.remove(Self::METADATA_KEY);
        let header = header.ok_or_else(|| StateError::NoState { found: "none".to_owned() })?;
        let header: Header = serde_json::from_str(&header)
            .map_err(|error| StateError::NoState { found: format!("one that cannot be read ({error})") })?;
        let mut velocity = Weights::default();
        for (name, tensor) in std::mem::take(&mut weights.tensors) {
            match name.strip_prefix(VELOCITY) {
                Some(name) => velocity.tensors.insert(name.to_owned(), tensor),
                None => weights.tensors.insert(name, tensor),
            };
        }
        let Header { config, epochs_done, part, scales } = header;
        Ok(Self { config, epochs_done, part, scales, weights, velocity })
    }
}
