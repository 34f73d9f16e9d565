//! What a server says of a run of training, and what a client keeps of its part in it.

use std::fmt;

use gelu_io::session::TrainingAccount;
use gelu_models::train::private::{Client, ClientState, Description, Statistics};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};
use serde::{Deserialize, Serialize};

use crate::{ServiceError, proto};

/// A run of training that a server offers to take part in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingOffer {
    /// Which run it is.
    pub run: [u8; 16],
    /// How many clients take part.
    pub clients: u32,
    /// How many of them have come.
    pub enrolled: u32,
    /// The keys that they need.
    pub key: KeyParameters,
    /// Inputs to one update.
    pub batch: u32,
    /// Passes over the data.
    pub epochs: u32,
    /// Of the clients' gradient descent.
    pub momentum: f64,
    /// Determines the order of their inputs and how they round.
    pub seed: u64,
    /// Iterations done.
    pub done: u64,
    /// Iterations of the whole run; 0 before all clients have come.
    pub iterations: u64,
}

impl TrainingOffer {
    /// What a server says of a run is checked as everything from outside.
    pub(super) fn read(said: proto::Training) -> Result<Self, ServiceError> {
        let wrong = |found: String| ServiceError::Stream {
            expected: "a run of training with its name and its clients' keys",
            found,
        };
        let size = KeyBits::ALL.into_iter().find(|size| size.bits() as u64 == u64::from(said.key_bits));
        let key_type = KeyType::ALL.into_iter().find(|key_type| key_type.name() == said.key_type);
        let (Some(size), Some(key_type)) = (size, key_type) else {
            return Err(wrong(format!("keys of {} bits and type `{}`", said.key_bits, said.key_type)));
        };
        Ok(Self {
            run: said.run[..].try_into().map_err(|_| wrong(format!("a name of {} bytes", said.run.len())))?,
            clients: said.clients,
            enrolled: said.enrolled,
            key: KeyParameters { size, key_type },
            batch: said.batch,
            epochs: said.epochs,
            momentum: said.momentum,
            seed: said.seed,
            done: said.done,
            iterations: said.iterations,
        })
    }
}

/// What a client keeps of its part in a run. It holds sums of its steps, so it is a secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// Which run it is.
    pub(super) run: [u8; 16],
    /// What the client calls itself, where it has no certificate.
    pub(super) client: String,
    /// Its place, once it has one.
    pub(super) place: Option<u32>,
    /// Inputs that it trains on.
    pub(super) inputs: u64,
    /// What is trained, once that is known.
    pub(super) description: Option<Description>,
    pub(super) state: Option<ClientState>,
    /// What the turns have cost that are over.
    pub(super) account: TrainingAccount,
}

/// Prints no secret.
impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("place", &self.place).finish_non_exhaustive()
    }
}

impl Membership {
    /// Returns which run it is.
    pub fn run(&self) -> [u8; 16] {
        self.run
    }

    /// Returns the client's place, from 0, once it has one.
    pub fn place(&self) -> Option<u32> {
        self.place
    }

    /// Returns what the client has met while training.
    pub fn statistics(&self) -> Statistics {
        self.state.as_ref().map_or(Statistics::default(), |state| state.participant.statistics)
    }

    /// Returns what the client's turns have cost, as far as they are over.
    pub fn account(&self) -> &TrainingAccount {
        &self.account
    }
}

impl Membership {
    /// Takes the state of the client, so that it can be kept.
    pub(super) fn take(&mut self, client: &Client) {
        self.state = client.state();
        self.description = client.description().cloned();
    }
}
