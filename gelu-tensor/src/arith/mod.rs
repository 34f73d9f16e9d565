//! The big-integer engine: arithmetic in Z_{n^2} on batches of residues in Montgomery n-adic form.
//!
//! A residue c is held as the pair (a, b) with `c R = a + b n mod n^2`, both below n (on ifma and avxifma below 2 n, on avx512, avx2
//! and neon signed and about n at most). Products keep that form, so a ciphertext is converted only when it is decoded and encoded. Everything
//! is constant-time in the values of the residues unless its name says `_vartime`.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // see its documentation
mod adx;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // see its documentation
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // see its documentation
mod avx512;
mod backend;
mod comb;
mod crt;
mod digits;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod doubles;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)] // see its documentation
mod ifma;
mod inverse;
mod kernel;
pub(crate) mod limbs;
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)] // see its documentation
mod neon;
mod operands;
mod operations;
mod portable;
mod power;
mod residues;
mod ring;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
#[cfg(test)]
mod tests;

pub use backend::Backend;
pub(crate) use backend::MAX_LANES;
pub(crate) use comb::Comb;
pub(crate) use crt::{Crt, Factor};
pub use operations::Operations;
pub use power::Exponent;
pub(crate) use residues::Entry;
pub use residues::Residues;
pub(crate) use ring::Ring;

/// From 1 in Montgomery form to `2^exponent`, by squaring and doubling (`double` adds its second argument to the
/// first). The steps depend on the exponent only, which is public.
fn montgomery_power_of_two(
    one: &mut [u64],
    exponent: usize,
    square: impl Fn(&mut [u64]),
    double: impl Fn(&mut [u64], &[u64]),
) {
    for bit in (0..usize::BITS - exponent.leading_zeros()).rev() {
        square(one);
        if exponent >> bit & 1 == 1 {
            let same = zeroize::Zeroizing::new(one.to_vec());
            double(one, &same);
        }
    }
}
