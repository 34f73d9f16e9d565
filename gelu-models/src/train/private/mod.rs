//! Private training (IJCAI 2018 paper, section 4): clients train a shared model in turns; the server holds masked
//! weights while they do, and they hold only the masks.
//!
//! The weights live in the ring Z_{2^l}, so that masking is exact: a masked run gives the same weights as
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
