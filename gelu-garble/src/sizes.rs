//! Sizes of what crosses between the parties.

#[cfg(feature = "two-party")]
use crate::Error;
use crate::Ring;

/// The most circuits side by side. It bounds how often a tweak is used, and so what that costs in security.
pub const MAX_WIDTH: usize = 4096;

/// Bytes of a label.
pub const LABEL_BYTES: usize = 16;

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

/// Returns the bytes of the message for so many transfers of labels: 16 each, rounded up to 128 transfers.
pub fn extension_bytes(count: usize) -> usize {
    count.div_ceil(128).saturating_mul(128 * LABEL_BYTES)
}

#[cfg(feature = "two-party")]
pub(crate) fn check_width(width: usize) -> Result<(), Error> {
    if (1..=MAX_WIDTH).contains(&width) {
        return Ok(());
    }
    Err(Error::Range { what: "circuits side by side", least: 1, most: MAX_WIDTH, found: width })
}
