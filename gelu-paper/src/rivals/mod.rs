//! Schemes that the paper's Table 2 names: doubly homomorphic encryption by Boneh, Goh and Nissim, and exponential ElGamal.

mod bgn;
mod elgamal;

pub use bgn::BgnKey;
pub use elgamal::ElGamalKey;

use std::ops::Neg;

use rand::CryptoRng;

/// A number as a scalar of either scheme's group.
fn signed<S: From<u64> + Neg<Output = S>>(number: i64) -> S {
    let magnitude = S::from(number.unsigned_abs());
    if number < 0 { -magnitude } else { magnitude }
}

/// Bytes that are uniform as a scalar once they are reduced.
fn wide(rng: &mut dyn CryptoRng) -> [u8; 64] {
    let mut bytes = [0; 64];
    rng.fill_bytes(&mut bytes);
    bytes
}
