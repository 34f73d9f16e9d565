//! Numbers and ciphertexts: fixed-point tensors, Paillier keys and ciphertexts, slot layouts and the ciphertext
//! matrix product that every linear layer of gelu-net is lowered to.

pub mod arith;
mod chunk;
mod enc_tensor;
mod error;
mod fixed_tensor;
mod format;
mod layout;
mod lowering;
mod matmul;
pub mod paillier;
mod shape;
#[cfg(test)]
mod tests;
mod window;
mod wrapped;

pub use chunk::{CHUNK_BYTES, Decryption, EncChunk, EncTensorBuilder, Encryption};
pub use enc_tensor::{EncTensor, EncTensorHeader};
pub use error::Error;
pub use fixed_tensor::FixedTensor;
pub use format::{Format, IntMatrix, MAX_BOUND, WeightRange};
pub use layout::{Arrangement, SlotLayout};
pub use matmul::{MatmulShape, Strategy};
pub use shape::Shape;
pub use window::{Window, WindowTap, Windows};
pub use wrapped::{EncBatch, EncRate, Flood, MapEntry, RingBits, SparseMap, UpdateLayout, WideLayout};
