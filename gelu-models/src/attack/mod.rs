//! Attacks on private training, so that what is said of its leaks can be tried out: a client that solves for weights,
//! and a server that computes images from gradients.

mod extract;
mod observe;
mod reconstruct;
#[cfg(test)]
mod tests;

pub use extract::{Extraction, extract};
pub use observe::{ObservedUpdate, observe};
pub use reconstruct::{DenseGradients, Reconstruction, correlation, reconstruct};
