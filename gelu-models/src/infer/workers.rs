//! Machines that compute for a server.

use std::fmt;

use gelu_tensor::{EncTensor, Error};
use rand::CryptoRng;

use crate::plan::Program;

/// Machines that compute a server's replies. They have its model, see ciphertexts, and hold no key.
pub trait Workers: fmt::Debug + Send + Sync {
    /// Returns the reply to a part of a batch in a segment, as [`Program::reply`] computes it on its shards.
    ///
    /// # Errors
    /// [`Error`] when the inputs are not those of the part. That a machine is lost is no error: its work is done
    /// elsewhere.
    fn reply(
        &self,
        program: &Program,
        segment: usize,
        part: usize,
        inputs: &[EncTensor],
        rng: &mut dyn CryptoRng,
    ) -> Result<EncTensor, Error>;
}
