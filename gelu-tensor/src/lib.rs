//! Numbers and ciphertexts: fixed-point tensors, Paillier keys and ciphertexts, slot layouts and the ciphertext
//! matrix product that every linear layer of gelu-net is lowered to.

pub mod arith;
mod error;
pub mod paillier;
mod shape;
mod window;

pub use error::Error;
pub use shape::Shape;
pub use window::{Window, WindowTap, Windows};
