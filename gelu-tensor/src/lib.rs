#![doc = include_str!("../README.md")]

mod arith;
mod chunk;
mod enc_tensor;
mod error;
mod fixed_tensor;
mod format;
pub mod hazmat;
mod layout;
mod linear_map;
mod matmul;
mod packing;
pub mod paillier;
mod product;
mod ring2k;
mod shape;
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod testing;
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;
mod window;

pub use arith::{Backend, Operations};
pub use chunk::{Decryption, EncChunk, EncTensorBuilder, Encryption};
pub use enc_tensor::{EncTensor, EncTensorHeader};
pub use error::Error;
pub use fixed_tensor::FixedTensor;
pub use format::{Format, IntWeights, WeightRange};
pub use layout::{Arrangement, Contents, Masks, Packing, SlotLayout};
pub use linear_map::{Block, Filters, LinearMap, MapEntry};
pub use matmul::Strategy;
pub use product::{Product, Workload};
pub use ring2k::{Flood, RingBits};
pub use shape::Shape;
pub use window::{Window, WindowTap, Windows};
