//! What rivals compute on: the scheme of Brakerski, Fan and Vercauteren by the crate `fhe`, its parameters, and vectors of integers
//! in its slots.
//!
//! A ciphertext of degree N holds N integers modulo a prime, its plaintext modulus, which is 1 mod 2 N. Integers that are
//! larger are computed with modulo several such primes, in a [`Channel`] each, and put together by the Chinese remainder
//! theorem ([`Parameters::combine`]), as CryptoNets does.

mod channel;
mod parameters;
mod sums;
#[cfg(test)]
mod tests;

pub use channel::Channel;
pub use parameters::{Parameters, ParametersError, Step};
pub use sums::{SumRow, Sums, Term};
