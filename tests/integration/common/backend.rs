//! The backend of tests and benches.

use gelu_net::tensor::Backend;

/// The backend that `GELU_BACKEND` names: all tests pass on either.
pub(crate) fn backend() -> Backend {
    std::env::var("GELU_BACKEND").map_or_else(|_| Backend::detect(), |name| name.parse().unwrap())
}
