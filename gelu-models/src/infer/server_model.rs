//! What a server offers to all of its clients.

use std::sync::{Arc, OnceLock};

use crate::Model;
use crate::plan::{Deployment, Lowered, PlanError, Program, Quantization};

/// A model that a server offers to clients of any key and batch: the network, and how its numbers are rounded.
#[derive(Debug)]
pub struct ServerModel {
    model: Model,
    quantization: Quantization,
    max_batch: usize,
    /// What is the same for all clients.
    lowered: OnceLock<Result<Arc<Lowered>, PlanError>>,
    #[cfg(feature = "hidden")]
    lowered_hidden: OnceLock<Result<Arc<Lowered>, PlanError>>,
}

impl ServerModel {
    /// Returns the model, to be rounded as given when the first client comes.
    pub fn new(model: Model, quantization: Quantization) -> Self {
        Self {
            model,
            quantization,
            max_batch: 1024,
            lowered: OnceLock::new(),
            #[cfg(feature = "hidden")]
            lowered_hidden: OnceLock::new(),
        }
    }

    /// Returns the network.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Returns the program for a client's key and batch on a machine of so many lanes.
    ///
    /// # Errors
    /// [`PlanError`] when the batch is zero or too large, or the numbers do not fit the key.
    pub fn program(&self, deployment: &Deployment) -> Result<Program, PlanError> {
        self.lowered(&self.lowered, false, deployment)
    }

    /// Returns the program for a client that is not to see the model: see [`Model::compile_hidden`].
    ///
    /// # Errors
    /// As [`program`](Self::program).
    #[cfg(feature = "hidden")]
    pub fn hidden_program(&self, deployment: &Deployment) -> Result<Program, PlanError> {
        self.lowered(&self.lowered_hidden, true, deployment)
    }

    fn lowered(
        &self,
        lowered: &OnceLock<Result<Arc<Lowered>, PlanError>>,
        hidden: bool,
        deployment: &Deployment,
    ) -> Result<Program, PlanError> {
        if deployment.batch > self.max_batch {
            let found = deployment.batch.to_string();
            return Err(PlanError::Option { what: "batch", expected: "at most 1024 images", found });
        }
        let lower = || Lowered::new(&self.model, &self.quantization, hidden).map(Arc::new);
        lowered.get_or_init(lower).as_ref().map_err(PlanError::clone)?.program(deployment)
    }
}
