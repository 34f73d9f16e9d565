//! Errors of the library as Python's exceptions, which `gelu/_exceptions.py` defines.

use gelu_net::Error;
use gelu_net::io::onnx::ImportError;
use gelu_net::io::session::RunError;
use gelu_service::ServiceError;
use pyo3::prelude::*;

/// The exceptions' classes.
mod class {
    use pyo3::import_exception;

    import_exception!(gelu._exceptions, GeluError);
    import_exception!(gelu._exceptions, TensorError);
    import_exception!(gelu._exceptions, ModelError);
    import_exception!(gelu._exceptions, UnsupportedModel);
    import_exception!(gelu._exceptions, PlanError);
    import_exception!(gelu._exceptions, InferenceError);
    import_exception!(gelu._exceptions, DisconnectedError);
    import_exception!(gelu._exceptions, TrainingError);
    import_exception!(gelu._exceptions, WireError);
    import_exception!(gelu._exceptions, FileError);
    import_exception!(gelu._exceptions, ServiceError);
    import_exception!(gelu._exceptions, SecretKeyError);
    import_exception!(gelu._exceptions, ForkError);
}
pub(crate) use class::{ForkError, InferenceError, SecretKeyError, TensorError};

/// The result of anything that Python calls.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// What becomes an exception: an error of the library, or an exception already.
#[derive(Debug)]
pub(crate) enum Failure {
    Library(Error),
    Import(ImportError),
    Service(ServiceError),
    Python(PyErr),
}

/// An error with what caused it, in one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            Failure::Service(error) => class::ServiceError::new_err(text(&error)),
            Failure::Import(ImportError::File(error)) => class::FileError::new_err(text(&error)),
            Failure::Import(error) => {
                let nodes: Vec<(String, String, String, &str)> = match &error {
                    ImportError::Unsupported { unsupported, .. } => unsupported
                        .iter()
                        .map(|one| (one.node.clone(), one.operator.clone(), one.reason.clone(), one.advice))
                        .collect(),
                    _ => vec![],
                };
                class::UnsupportedModel::new_err((text(&error), nodes))
            }
            Failure::Library(error) => {
                let text = text(&error);
                match error {
                    Error::Tensor(_) => class::TensorError::new_err(text),
                    Error::Graph(_) | Error::Load(_) | Error::Fold(_) => class::ModelError::new_err(text),
                    Error::Plan(_) => class::PlanError::new_err(text),
                    Error::Inference(RunError::Disconnected(_)) => class::DisconnectedError::new_err(text),
                    Error::Inference(_) | Error::OtherModel => class::InferenceError::new_err(text),
                    Error::PrivateTraining(_) | Error::Training(_) | Error::Dataset(_) | Error::State(_) => {
                        class::TrainingError::new_err(text)
                    }
                    Error::Wire(_) => class::WireError::new_err(text),
                    Error::Io(_) => class::FileError::new_err(text),
                    _ => class::GeluError::new_err(text),
                }
            }
        }
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

/// Errors of the library's parts are those of the library.
macro_rules! of_the_library {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::Library(error.into())
            }
        }
    )*};
}

of_the_library!(
    Error,
    gelu_net::tensor::Error,
    gelu_net::models::GraphError,
    gelu_net::models::LoadError,
    gelu_net::models::FoldError,
    gelu_net::models::plan::PlanError,
    gelu_net::models::train::TrainError,
    gelu_net::models::train::DatasetError,
    gelu_net::models::train::private::PrivateError,
    gelu_net::wire::WireError,
    gelu_net::io::Error,
);
