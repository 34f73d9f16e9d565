//! Little-endian 64-bit limbs: the few operations that everything above is made of, all in constant time.

use num_bigint::BigUint;
use subtle::{Choice, ConstantTimeEq};

/// `x + y -> x`, returning the carry.
#[inline(always)]
pub(crate) fn add_assign(x: &mut [u64], y: &[u64]) -> bool {
    let mut carry = false;
    for (x, &y) in x.iter_mut().zip(y) {
        (*x, carry) = x.carrying_add(y, carry);
    }
    carry
}

/// `x - y -> out`, returning the borrow (0 or 1).
#[inline(always)]
pub(crate) fn sub_into(out: &mut [u64], x: &[u64], y: &[u64]) -> u64 {
    let mut borrow = false;
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        (*out, borrow) = x.borrowing_sub(y, borrow);
    }
    u64::from(borrow)
}

/// `2 x`, with the bit that does not fit.
#[inline(always)]
pub(crate) fn double<const L: usize>(x: &[u64; L]) -> ([u64; L], u64) {
    let mut carry = 0;
    let doubled = x.map(|limb| {
        let low = (limb << 1) | carry;
        carry = limb >> 63;
        low
    });
    (doubled, carry)
}

/// `x + top 2^(64 L)`, less n if that does not make it negative, and whether n was subtracted (0 or 1).
///
/// The value must be below `2 n`.
#[inline(always)]
pub(crate) fn conditional_subtract<const L: usize>(x: [u64; L], top: u64, n: &[u64; L]) -> ([u64; L], u64) {
    let mut difference = [0; L];
    let borrow = sub_into(&mut difference, &x, n);
    // Keep x where the subtraction borrowed more than the top limb had.
    let subtracted = 1 - (borrow & !top & 1);
    let keep = subtracted.wrapping_sub(1);
    (std::array::from_fn(|i| (x[i] & keep) | (difference[i] & !keep)), subtracted)
}

/// `out = choice ? x : out`, for all limbs.
pub(crate) fn conditional_assign(out: &mut [u64], x: &[u64], choice: Choice) {
    let mask = u64::from(choice.unwrap_u8()).wrapping_neg();
    for (out, &x) in out.iter_mut().zip(x) {
        *out = (*out & !mask) | (x & mask);
    }
}

/// Copies row `digit` of `table` to `out`, reading every row, so that no address depends on the digit.
pub(crate) fn select_row(out: &mut [u64], table: &[u64], digit: u64) {
    out.fill(0);
    for (row, entry) in (0u64..).zip(table.chunks_exact(out.len())) {
        let mask = u64::from(row.ct_eq(&digit).unwrap_u8()).wrapping_neg();
        for (out, &limb) in out.iter_mut().zip(entry) {
            *out |= limb & mask;
        }
    }
}

/// The bits `[start, start + width)` of `limbs` (zero beyond their end); `width <= 63`.
#[inline]
pub(crate) fn bits(limbs: &[u64], BitRange { start, width }: BitRange) -> u64 {
    let (limb, shift) = (start / 64, start % 64);
    let low = limbs.get(limb).copied().unwrap_or(0) >> shift;
    let high = if shift == 0 { 0 } else { limbs.get(limb + 1).copied().unwrap_or(0) << (64 - shift) };
    (low | high) & ((1u64 << width) - 1)
}

/// A run of at most 63 bits within a number.
#[derive(Clone, Copy)]
pub(crate) struct BitRange {
    pub(crate) start: usize,
    pub(crate) width: usize,
}

/// `x y -> out`, where `out` has the limbs of both.
pub(crate) fn mul_into(out: &mut [u64], x: &[u64], y: &[u64]) {
    out.fill(0);
    for (i, &x) in x.iter().enumerate() {
        let mut carry = 0;
        for (t, &y) in out[i..].iter_mut().zip(y) {
            (*t, carry) = x.carrying_mul_add(y, *t, carry);
        }
        out[i + y.len()] = carry;
    }
}

/// Whether `x < y`, both with the same number of limbs.
pub(crate) fn less_than(x: &[u64], y: &[u64]) -> Choice {
    let mut borrow = false;
    for (&x, &y) in x.iter().zip(y) {
        (_, borrow) = x.borrowing_sub(y, borrow);
    }
    Choice::from(u8::from(borrow))
}

/// Bits of the highest set limb and all below it. Variable-time: for public numbers.
pub(crate) fn bit_length_vartime(limbs: &[u64]) -> usize {
    limbs
        .iter()
        .rposition(|&limb| limb != 0)
        .map_or(0, |top| 64 * (top + 1) - limbs[top].leading_zeros() as usize)
}

/// The number as a `BigUint`. Variable-time: for public numbers.
pub(crate) fn to_biguint(limbs: &[u64]) -> BigUint {
    let bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    BigUint::from_bytes_le(&bytes)
}

/// The number in `count` limbs; higher limbs are cut off. Variable-time: for public numbers.
pub(crate) fn from_biguint(value: &BigUint, count: usize) -> Vec<u64> {
    let mut limbs: Vec<u64> = value.iter_u64_digits().take(count).collect();
    limbs.resize(count, 0);
    limbs
}

/// Little-endian bytes to limbs; missing high bytes are zero.
pub(crate) fn from_le_bytes(bytes: &[u8]) -> Vec<u64> {
    bytes
        .chunks(8)
        .map(|chunk| {
            let mut limb = [0; 8];
            limb[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(limb)
        })
        .collect()
}
