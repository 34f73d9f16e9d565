//! Limbs of 52 bits from limbs of 64 bits and back.

use num_bigint::BigUint;
use num_integer::Integer;

use super::{LIMB_BITS, LIMB_MASK};
use crate::arith::limbs::to_biguint;

/// 64-bit limbs to limbs of 52 bits; what does not fit `narrow` must be zero.
pub(super) fn narrow_limbs(narrow: &mut [u64], wide: &[u64]) {
    for (i, limb) in narrow.iter_mut().enumerate() {
        let (index, shift) = (LIMB_BITS * i / 64, LIMB_BITS * i % 64);
        let low = wide.get(index).copied().unwrap_or(0) >> shift;
        let high = if shift > 12 { wide.get(index + 1).copied().unwrap_or(0) << (64 - shift) } else { 0 };
        *limb = (low | high) & LIMB_MASK;
    }
}

/// Limbs of 52 bits to 64-bit limbs, returning the bits above them.
pub(super) fn widen_limbs(wide: &mut [u64], narrow: &[u64]) -> u64 {
    wide.fill(0);
    let mut top = 0;
    for (i, &limb) in narrow.iter().enumerate() {
        let (index, shift) = (LIMB_BITS * i / 64, LIMB_BITS * i % 64);
        let spread = u128::from(limb) << shift;
        for (offset, part) in [spread as u64, (spread >> 64) as u64].into_iter().enumerate() {
            match wide.get_mut(index + offset) {
                Some(wide) => *wide |= part,
                // The value is below 2^(64 limbs + 1): only its top bit can land here.
                None => top |= part,
            }
        }
    }
    top
}

/// A multiple of n from `2 R` up, below `2 R + n`, in `limbs` limbs that are each at least 2^52 - 1.
pub(super) fn redundant_multiple(n: &[u64], limbs: usize) -> Vec<u64> {
    // Division by a secret prime takes a time that depends on it; this runs once when a key is made or loaded, among
    // the other checks of it (see SECURITY.md).
    let n = to_biguint(n);
    let twice_r = BigUint::from(2u8) << (LIMB_BITS * limbs);
    let multiple = twice_r.next_multiple_of(&n);
    // 2^52 in every limb, which carries 1 into the limb above.
    let spread = (0..limbs).fold(BigUint::ZERO, |sum, i| sum + (BigUint::from(1u8) << (LIMB_BITS * (i + 1))));
    let rest = multiple - spread;
    let digits: Vec<u64> = rest
        .to_radix_le(2)
        .chunks(LIMB_BITS)
        .map(|bits| bits.iter().rev().fold(0, |limb, &bit| (limb << 1) | u64::from(bit)))
        .collect();
    let mut out: Vec<u64> =
        (0..limbs).map(|i| digits.get(i).copied().unwrap_or(0) + (1 << LIMB_BITS)).collect();
    // What is left above the highest limb stays there redundantly: it is at most 1.
    out[limbs - 1] += digits.get(limbs).copied().unwrap_or(0) << LIMB_BITS;
    out
}
