//! CryptoNets' way to run a network: square activations, integers, one image in each slot.
//!
//! After Gilad-Bachrach and others, "CryptoNets: Applying neural networks to encrypted data with high throughput and
//! accuracy", ICML 2016. Linear layers that follow one another are one affine map, as there. Every element of an image is a
//! ciphertext, which holds that element of as many images as there are slots.

mod network;
mod run;
#[cfg(test)]
mod tests;
mod train;

pub use network::{Bits, Network, NetworkError, Plan, Trial};
pub use run::{Pass, PassStep, run};
pub use train::{Architecture, train};
