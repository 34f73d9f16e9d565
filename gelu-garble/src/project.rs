//! Sizes of what a garbler sends.

use crate::{Error, Ring};

/// The most circuits side by side. It bounds how often a tweak is used, and so what that costs in security.
pub const MAX_WIDTH: usize = 4096;

/// Bytes that stand before the tables of a garbling.
pub const START_BYTES: usize = 16;

/// Bytes that the table of an AND takes for each of the circuits side by side.
pub const AND_BYTES: usize = 32;

/// Returns the bytes of a projection of so many bits of each circuit to shares of a ring.
pub fn projection_bytes(bits: usize, width: usize, ring: Ring) -> usize {
    ring.packed_bytes(width).saturating_mul(bits)
}

/// Returns the bytes by which so many bits of each circuit are shown to the evaluator.
pub fn reveal_bytes(bits: usize, width: usize) -> usize {
    width.div_ceil(8).saturating_mul(bits)
}

pub(crate) fn check_width(width: usize) -> Result<(), Error> {
    if (1..=MAX_WIDTH).contains(&width) {
        return Ok(());
    }
    Err(Error::Range { what: "circuits side by side", least: 1, most: MAX_WIDTH, found: width })
}

/// The weight of a bit in a ring: 2^`at`, or less that if it is the sign.
pub(crate) fn weight(at: usize, bits: usize, signed: bool) -> u64 {
    let weight = if at < 64 { 1u64 << at } else { 0 };
    if signed && at + 1 == bits { weight.wrapping_neg() } else { weight }
}
