//! What a client may have of a model, by the ledger.

use std::sync::Arc;

use gelu_models::infer::{Denied, Gate};

use crate::ServiceError;
use crate::ledger::{Ledger, Taken};

/// A client's account for a model.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) ledger: Arc<Ledger>,
    pub(super) client: String,
    pub(super) model: String,
    pub(super) budget: Option<u64>,
    pub(super) rate: Option<u64>,
}

impl Gate for Account {
    fn admit(&self, inputs: usize) -> Result<(), Denied> {
        let unknown = |error: ServiceError| Denied::Unknown { problem: error.to_string() };
        if let Some(allowed) = self.rate
            && let Some(seconds) =
                self.ledger.pass((&self.client, &self.model), inputs as u64, allowed).map_err(unknown)?
        {
            return Err(Denied::TooFast { allowed, seconds });
        }
        match self.ledger.take((&self.client, &self.model), inputs as u64, self.budget) {
            Ok(Taken::Yes) => Ok(()),
            Ok(Taken::Spent { used, allowed }) => Err(Denied::Spent { used, allowed }),
            Err(error) => Err(unknown(error)),
        }
    }
}
