//! Private training (IJCAI 2018 paper, section 4): clients train a shared model in turns; the server's weights stay as they
//! are while they do, and each client corrects what its own steps would have changed.
//!
//! Weights are fixed-point numbers, so that nothing is lost: a run on ciphertexts gives the same weights as
//! [`FixedTrainer`], which does the same arithmetic without encryption, bit for bit.

mod client;
mod coordinator;
mod error;
mod fixed;
mod ledger;
mod message;
mod options;
mod paper;
mod participant;
mod pass;
mod plan;
mod samples;
mod server;

pub use client::{Client, ClientState, Event};
pub use coordinator::{CoordinatorConfig, CoordinatorState, DMax, Grant};
pub use error::{PrivateError, ResumeFault};
pub use fixed::FixedTrainer;
pub use ledger::{LayerLeakage, Leakage, Ledger};
pub(crate) use message::PRIVATE_VERSION;
pub use message::{Message, Position};
pub use options::TrainingOptions;
pub use paper::PaperTrainer;
pub use participant::{ParticipantConfig, ParticipantState, Statistics};
pub use plan::{Back, Description, FixedPoint, LayerSpan, TrainPlan, TrainSegment, TrainTerm};
pub use samples::{Augmented, Samples, Shard};
pub use server::{Change, Server, ServerState};

#[cfg(test)]
mod tests;
