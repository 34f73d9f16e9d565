//! What a plan saves where it has a choice.

use serde::{Deserialize, Serialize};

/// What a plan saves where it has a choice: how many values share a ciphertext trades bytes for products.
///
/// It changes no result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// The time of a run over a link of medium speed, 60 Mbit/s for keys of 2048 bits: the computation of both sides, and
    /// for each ciphertext the time of 200 products.
    #[default]
    Balance,
    /// Bytes, up and down together.
    Bytes,
    /// Time alone, as on one machine or over a fast link.
    Time,
}

impl Preference {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Balance, Self::Bytes, Self::Time];

    /// What is to be made small: of two layouts the one that comes first in this order is taken. `time` is that of both
    /// sides' computation in hundredths of a product.
    pub(super) fn weight(self, time: u64, ciphertexts: usize) -> (u64, u64) {
        let ciphertexts = ciphertexts as u64;
        match self {
            Self::Balance => (time.saturating_add(ciphertexts.saturating_mul(TRANSFER)), ciphertexts),
            Self::Bytes => (ciphertexts, time),
            Self::Time => (time, ciphertexts),
        }
    }
}

/// A ciphertext on its way in hundredths of a product: 200 products, or some 65 us, which half a kilobyte takes at 60
/// Mbit/s. Without it single images would be stacked less, for hardly any gain of time.
const TRANSFER: u64 = 20_000;

/// Prints `bytes`.
impl std::fmt::Display for Preference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Balance => "balance",
            Self::Bytes => "bytes",
            Self::Time => "time",
        })
    }
}
