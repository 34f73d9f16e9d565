//! The circuits of activations: sums, rounding shifts, bounds, maxima, thresholds.
//!
//! A number is a slice of wires, the lowest bit first. A signed one is in two's complement. Counts of ANDs are those of
//! l bits.

mod arithmetic;
mod order;
#[cfg(test)]
mod tests;

pub use arithmetic::{Shifts, add, clamp, rounded_shift, shift};
pub use order::{argmax, max, offset_binary, select, thresholds};
