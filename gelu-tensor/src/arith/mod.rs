//! The big-integer engine: arithmetic in Z_{n^2} on batches of residues in Montgomery n-adic form.
//!
//! A residue c is held as the pair (a, b) with `c R = a + b n mod n^2`, both below n. Products keep that form, so
//! a ciphertext is converted only when it is decoded and encoded. Everything is constant-time in the values of the
//! residues unless its name says `_vartime`.

mod backend;
mod comb;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // the one place for it: see its documentation
mod ifma;
pub(crate) mod limbs;
mod portable;
mod power;
mod residues;
mod ring;
#[cfg(test)]
mod tests;

pub use backend::Backend;
pub use comb::Comb;
pub use power::Exponent;
pub use residues::Residues;
pub use ring::{MODULUS_BITS, Operations, Ring};
