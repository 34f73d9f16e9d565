//! Keys for tests, on the backend that `GELU_BACKEND` names: all tests pass on either.

use rand::CryptoRng;

use crate::Error;
use crate::arith::Backend;
use crate::paillier::{KeyParameters, SecretKey};

/// The backend that tests are run on.
pub(crate) fn backend() -> Backend {
    std::env::var("GELU_BACKEND").map_or_else(|_| Backend::detect(), |name| name.parse().unwrap())
}

/// A new key.
pub(crate) fn secret_key(
    parameters: impl Into<KeyParameters>,
    rng: &mut dyn CryptoRng,
) -> Result<SecretKey, Error> {
    SecretKey::generate(parameters, rng)?.on(backend())
}
