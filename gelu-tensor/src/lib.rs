//! Numbers and ciphertexts: fixed-point tensors, Paillier keys and ciphertexts, slot layouts and the ciphertext
//! matrix product that every linear layer of gelu-net is lowered to.
//!
//! | to | take |
//! |---|---|
//! | make, read and use keys | [`paillier`] |
//! | hold fixed-point numbers in the clear | [`FixedTensor`], with a [`Format`] |
//! | say where they lie in ciphertexts | [`SlotLayout`] |
//! | compute on ciphertexts | [`EncTensor`], with a [`LinearMap`] for layers |
//! | send and receive them in pieces | [`Encryption`], [`EncTensorBuilder`], [`Decryption`] |
//! | work on ciphertexts without a tensor | [`hazmat`] |
//!
//! A fully connected layer on encrypted numbers:
//!
//! ```
//! use std::sync::Arc;
//!
//! use gelu_tensor::paillier::{KeyBits, SecretKey};
//! use gelu_tensor::{
//!     Backend, Contents, FixedTensor, Format, IntWeights, LinearMap, MapWeights, Packing, Product,
//!     ProductWeights, Shape, SlotLayout, WeightRange, Workload,
//! };
//!
//! let rng = &mut rand::rng();
//! let key = SecretKey::generate(KeyBits::Bits1024, rng)?; // 1,024 bits: for tests only
//!
//! // Two images of three integers, none beyond 100 in absolute value, with no fractional bits.
//! let format = Format::new(100, 0)?;
//! let images = FixedTensor::new(Shape::from([3]), format, vec![1, 2, 3, -100, 0, 100])?;
//!
//! // What the server has: two outputs, each a weighted sum of three inputs.
//! let map = Arc::new(LinearMap::dense(images.shape(), 2)?);
//! let range = WeightRange::signed(4, 0)?;
//! let weights = IntWeights::new(range, vec![1, 1, 1, 7, 0, -8])?;
//!
//! // A slot of a ciphertext is an image, and as wide as the sums need it.
//! let slot_bits = format.weighted_sum(range, map.most_terms())?.slot_bits();
//! let packing = Packing { batch: 2, slot_bits, key: KeyBits::Bits1024 };
//! let layout = SlotLayout::images(packing, Contents::Integers(format))?;
//! let encrypted = images.encrypt(&layout, key.public_key(), rng)?;
//!
//! // Without the secret key; fresh randomness hides how the sums came about.
//! let lanes = Backend::detect().lanes();
//! let product = Product::cheapest(&map, &layout, Workload { weights: ProductWeights::Integers(range), batch: 2, lanes })?;
//! let sums = encrypted.apply(&map, &MapWeights::Integers(&weights), &product)?.rerandomize(rng);
//!
//! let sums = sums.decrypt(&key)?;
//! assert_eq!(sums.values(), [6, -17, 0, -1500]);
//! assert_eq!(sums, images.apply(&map, &weights)?);
//! # Ok::<(), gelu_tensor::Error>(())
//! ```

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
mod testing;
#[cfg(test)]
mod tests;
mod update;
mod window;

pub use arith::{Backend, MAX_LANES, Operations};
pub use chunk::{CHUNK_BYTES, Decryption, EncChunk, EncTensorBuilder, Encryption};
pub use enc_tensor::{EncTensor, EncTensorHeader};
pub use error::Error;
pub use fixed_tensor::FixedTensor;
pub use format::{Format, IntWeights, WeightRange};
pub use layout::{Arrangement, Contents, Packing, SlotLayout};
pub use linear_map::{Block, Filters, LinearMap, MapEntry};
pub use matmul::Strategy;
pub use product::{MapWeights, Product, ProductWeights, Workload};
pub use ring2k::{Flood, RingBits};
pub use shape::Shape;
pub use update::{EncRate, UpdateLayout};
pub use window::{Window, WindowTap, Windows};
