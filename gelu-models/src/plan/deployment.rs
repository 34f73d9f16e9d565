//! What a plan is to run on.

use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyParameters};

use super::{PlanError, Preference};

/// What a plan is to run on: the client's key and batch, and the server's machine. Products, slots and layouts follow
/// from it; numbers do not, so that all deployments of one [`Quantization`](super::Quantization) give the same outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Size and type of the client's key. Default: 3072 bits, [`KeyType::Djn`](gelu_tensor::paillier::KeyType::Djn).
    pub key: KeyParameters,
    /// Images that go through together. Default: 1.
    pub batch: usize,
    /// Residues that the server works on at a time, 1 to 64: what vectors that are not
    /// [full](gelu_tensor::Workload::filled) cost. Default: those of the machine's [fastest backend](Backend::detect).
    pub lanes: usize,
    /// What is saved where there is a choice. Default: [`Preference::Balance`].
    pub prefer: Preference,
}

impl Deployment {
    /// Checks the ranges of batch and lanes.
    pub(super) fn check(&self) -> Result<(), PlanError> {
        let option = |what, expected, found: usize| {
            Err(PlanError::Option { what, expected, found: found.to_string() })
        };
        if !(1..=64).contains(&self.lanes) {
            return option("lanes", "1 to 64", self.lanes);
        }
        if !(1..=1 << 20).contains(&self.batch) {
            return option("batch", "1 to 2^20 images", self.batch);
        }
        Ok(())
    }
}

impl Default for Deployment {
    fn default() -> Self {
        let (lanes, prefer) = (Backend::detect().lanes(), Preference::default());
        Self { key: KeyBits::Bits3072.into(), batch: 1, lanes, prefer }
    }
}
