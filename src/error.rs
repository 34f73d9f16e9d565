//! One error for programs that use all of the library.

use gelu_io::session::RunError;
use gelu_io::transport::Disconnected;
use gelu_models::infer::SessionError;
use gelu_models::plan::PlanError;
use gelu_models::train::private::PrivateError;
use gelu_models::train::{DatasetError, StateError, TrainError};
use gelu_models::{FoldError, GraphError, LoadError};
use gelu_wire::WireError;

/// What any part of the library can fail with. Each variant is the error of the part that failed, unchanged; match on it
/// to act, print it (with its [sources](std::error::Error::source)) to say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Numbers, keys, ciphertexts or tensors do not fit together.
    #[error(transparent)]
    Tensor(#[from] gelu_tensor::Error),
    /// A network cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// Weights do not fit a network.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A normalization cannot be folded into the first layer.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// A network has no plan for a key and a batch.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A session of private inference ended early.
    #[error(transparent)]
    Inference(#[from] RunError<SessionError>),
    /// A turn of private training ended early.
    #[error(transparent)]
    PrivateTraining(#[from] RunError<PrivateError>),
    /// Training in the clear cannot go on.
    #[error(transparent)]
    Training(#[from] TrainError),
    /// A data set is not one.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A checkpoint of training in the clear is not one of this run.
    #[error(transparent)]
    State(#[from] StateError),
    /// A message cannot be decoded.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Io(#[from] gelu_io::Error),
    /// A session cannot have a thread of its own.
    #[error("the system refuses a thread for a session")]
    Thread(#[source] std::io::Error),
    /// A run that went on in another session met another model.
    #[error(
        "expected the model that the run began with, found another plan: the server offers another model now; begin again"
    )]
    OtherModel,
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        Self::Inference(RunError::Peer(error))
    }
}

impl From<PrivateError> for Error {
    fn from(error: PrivateError) -> Self {
        Self::PrivateTraining(RunError::Peer(error))
    }
}

impl From<Disconnected> for Error {
    fn from(error: Disconnected) -> Self {
        Self::Inference(RunError::Disconnected(error))
    }
}

/// The result of anything in the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;
