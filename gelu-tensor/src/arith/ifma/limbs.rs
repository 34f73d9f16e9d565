//! Limbs of 52 bits from limbs of 64 bits.

use num_bigint::BigUint;
use num_integer::Integer;

use super::LIMB_BITS;
use crate::arith::limbs::{BitRange, bits, to_biguint};

/// 64-bit limbs to limbs of 52 bits; what does not fit `narrow` must be zero.
pub(super) fn narrow_limbs(narrow: &mut [u64], wide: &[u64]) {
    for (i, limb) in narrow.iter_mut().enumerate() {
        *limb = bits(wide, BitRange { start: LIMB_BITS * i, width: LIMB_BITS });
    }
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
