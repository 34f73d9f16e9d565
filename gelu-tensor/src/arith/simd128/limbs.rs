//! Limbs of 28 bits, two in 64 bits, from limbs of 64 bits and back.

use zeroize::Zeroizing;

use crate::arith::limbs::{BitRange, bits, widen};

pub(super) const LIMB_BITS: usize = 28;
pub(super) const MASK: u32 = (1 << LIMB_BITS) - 1;

/// The most pairs of limbs in a half.
const MOST_PAIRS: usize = 74;

/// Both limbs of a pair.
fn limbs_of(pair: u64) -> [u64; 2] {
    [pair & 0xFFFF_FFFF, pair >> 32]
}

/// 64-bit limbs to pairs of limbs; what does not fit must be zero.
pub(super) fn narrow(pairs: &mut [u64], wide: &[u64]) {
    let limb = |i: usize| bits(wide, BitRange { start: LIMB_BITS * i, width: LIMB_BITS });
    for (at, pair) in pairs.iter_mut().enumerate() {
        *pair = limb(2 * at) | limb(2 * at + 1) << 32;
    }
}

/// Pairs of limbs to 64-bit limbs, returning the bits above them.
pub(super) fn widen_pairs(wide: &mut [u64], pairs: &[u64]) -> u64 {
    widen(wide, pairs.iter().flat_map(|&pair| limbs_of(pair)), LIMB_BITS)
}

/// `x + y -> x`, less a number if that does not make it negative, and whether it was taken off (0 or 1): below that number, if
/// the sum is below twice of it.
pub(super) fn add_below(x: &mut [u64], y: &[u64], less: Option<&[u64]>) -> u64 {
    let mask = u64::from(MASK);
    let mut carry = 0;
    for (x, &y) in x.iter_mut().zip(y) {
        // Each sum is below 2^30.
        let [a, b] = limbs_of(x.wrapping_add(y));
        let a = a.wrapping_add(carry);
        let b = b.wrapping_add(a >> LIMB_BITS);
        *x = a & mask | (b & mask) << 32;
        carry = b >> LIMB_BITS;
    }
    let Some(less) = less else { return 0 };
    let mut difference = Zeroizing::new([0; MOST_PAIRS]);
    // 2^28 is lent to every limb, and what of it is left carried.
    let lent = 1 << LIMB_BITS;
    let mut carry = 1;
    for ((out, &x), &n) in difference.iter_mut().zip(&*x).zip(less) {
        let ([a, b], [c, d]) = (limbs_of(x), limbs_of(n));
        let a = (a + (lent - 1) + carry).wrapping_sub(c);
        let b = (b + (lent - 1) + (a >> LIMB_BITS)).wrapping_sub(d);
        *out = a & mask | (b & mask) << 32;
        carry = b >> LIMB_BITS;
    }
    // All ones where nothing was borrowed.
    let taken = carry.wrapping_neg();
    x.iter_mut().zip(difference.iter()).for_each(|(x, &less)| *x = *x & !taken | less & taken);
    carry
}

/// The multiple `n 2^k` of n in [R, 2 R), whose limbs are each at least 2^28 - 1 and below 2^30, in pairs.
pub(super) fn redundant(n: &[u64], pairs: usize) -> Zeroizing<Vec<u64>> {
    let shift = LIMB_BITS * 2 * pairs + 1 - 64 * n.len();
    let (words, bits) = (shift / 64, shift % 64);
    let mut multiple = Zeroizing::new(vec![0; n.len() + words + 1]);
    for (at, &limb) in n.iter().enumerate() {
        multiple[words + at] |= limb << bits;
        multiple[words + at + 1] |= if bits > 0 { limb >> (64 - bits) } else { 0 };
    }
    // One pair more, for the bit above the highest limb, which is 1.
    let mut out = Zeroizing::new(vec![0; pairs + 1]);
    narrow(&mut out, &multiple);
    debug_assert_eq!(out[pairs], 1);
    out.truncate(pairs);
    // 2^28 to every limb, of which the limb above lacks 1: that bit, where there is no limb above.
    for pair in out.iter_mut() {
        *pair += u64::from(MASK) | u64::from(MASK) << 32;
    }
    out[0] += 1;
    out
}
