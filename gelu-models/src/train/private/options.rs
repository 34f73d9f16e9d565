//! What of a run is free to choose.

use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};

use super::{DMax, FixedPoint, Leakage};
use crate::train::TrainConfig;

/// What of a private training run is free to choose.
#[derive(Clone, Debug)]
pub struct TrainingOptions {
    /// The keys of clients and server, which are made anew.
    pub key: KeyParameters,
    /// What computes on ciphertexts.
    pub backend: Backend,
    /// Bits of weights, activations and errors.
    pub numbers: FixedPoint,
    /// Learning rate, momentum, batch size, epochs, seed. There is no weight decay, and clients augment their own samples.
    pub train: TrainConfig,
    /// How many iterations a client may run in one turn.
    pub d_max: DMax,
    /// What a turn may show a client of the weights.
    pub leakage: Leakage,
}

impl TrainingOptions {
    /// Inputs to one update, unless something else is asked for: as many as fill the slots of a ciphertext, with the numbers of
    /// [`FixedPoint::default`] and clients' keys of 2048 bits.
    pub const BATCH: usize = 60;
}

impl Default for TrainingOptions {
    fn default() -> Self {
        Self {
            key: KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Djn },
            backend: Backend::detect(),
            numbers: FixedPoint::default(),
            train: TrainConfig { weight_decay: 0.0, batch_size: Self::BATCH, ..TrainConfig::default() },
            d_max: DMax::default(),
            leakage: Leakage::default(),
        }
    }
}
