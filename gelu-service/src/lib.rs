#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod client;
mod error;
#[cfg(any(test, fuzzing))]
#[allow(missing_docs, unreachable_pub, reason = "for fuzz targets and tests only")]
pub mod fuzzing;
mod ledger;
mod link;
mod proto;
mod server;
mod stream;
mod tls;
mod trial;
mod workers;

pub use client::{
    Cost, HiddenCost, Membership, Moment, Offer, Patience, Remote, RemoteTraining, RemoteTransport,
    TrainingOffer,
};
pub use error::{Refusal, ServiceError};
pub use ledger::{Enrolled, Ledger, TrainingSummary, Usage};
pub use server::{Limits, Modes, Running, Service, Steps, Training, Web, append_message, split_messages};
pub use tls::{ClientSecurity, Credentials, Fingerprint, ServerSecurity};
pub use trial::{TrialAuthority, TrialCertificate};
pub use workers::WorkerPool;

/// The port that servers listen on where nothing else is said.
pub const DEFAULT_PORT: u16 = 7443;

/// The port that browsers are answered on where nothing else is said.
pub const DEFAULT_WEB_PORT: u16 = 7480;

/// The version of the service: what streams carry around the messages of gelu-wire.
pub const SERVICE_VERSION: u32 = 1;
