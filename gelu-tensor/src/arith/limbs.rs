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

/// `x + y -> x`, where y has fewer limbs and the sum fits.
pub(crate) fn add_shorter(x: &mut [u64], y: &[u64]) {
    let (low, high) = x.split_at_mut(y.len());
    let mut carry = add_assign(low, y);
    for limb in high {
        (*limb, carry) = limb.carrying_add(0, carry);
    }
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

/// `x - y mod n -> out`, for x and y below n.
pub(crate) fn sub_mod(out: &mut [u64], x: &[u64], y: &[u64], n: &[u64]) {
    let negative = Choice::from(sub_into(out, x, y) as u8);
    let mask = u64::from(negative.unwrap_u8()).wrapping_neg();
    let mut carry = false;
    for (out, &n) in out.iter_mut().zip(n) {
        (*out, carry) = out.carrying_add(n & mask, carry);
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

/// The same for `width <= 128`.
#[inline]
pub(crate) fn wide_bits(limbs: &[u64], BitRange { start, width }: BitRange) -> u128 {
    let (limb, shift) = (start / 64, start % 64);
    let at = |index: usize| u128::from(limbs.get(index).copied().unwrap_or(0));
    let low = (at(limb) | at(limb + 1) << 64) >> shift;
    let high = if shift == 0 { 0 } else { at(limb + 2) << (128 - shift) };
    (low | high) & (u128::MAX >> (128 - width))
}

/// A run of 1 to 128 bits within a number.
#[derive(Clone, Copy)]
pub(crate) struct BitRange {
    pub(crate) start: usize,
    pub(crate) width: usize,
}

/// Sets bits of a run of zeros from `start` on; what lies beyond the end must be zero.
#[inline]
pub(crate) fn set_bits(limbs: &mut [u64], start: usize, value: u128) {
    let (limb, shift) = (start / 64, start % 64);
    let low = value << shift;
    let high = if shift == 0 { 0 } else { (value >> (128 - shift)) as u64 };
    let parts = [low as u64, (low >> 64) as u64, high];
    limbs.iter_mut().skip(limb).zip(parts).for_each(|(limb, part)| *limb |= part);
}

/// Limbs of `width` bits to 64-bit limbs, returning the bits above them.
#[cfg(any(target_arch = "x86_64", all(target_arch = "wasm32", target_feature = "simd128")))]
#[inline]
pub(crate) fn widen(wide: &mut [u64], limbs: impl Iterator<Item = u64>, width: usize) -> u64 {
    wide.fill(0);
    let mut top = 0;
    for (i, limb) in limbs.enumerate() {
        let (index, shift) = (width * i / 64, width * i % 64);
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

/// `x y`.
pub(crate) fn product(x: &[u64], y: &[u64]) -> Vec<u64> {
    let mut out = vec![0; x.len() + y.len()];
    mul_into(&mut out, x, y);
    out
}

/// The remainder by a public divisor.
pub(crate) fn remainder(limbs: &[u64], divisor: u64) -> u64 {
    limbs.iter().rev().fold(0, |rest, &limb| {
        let wide = u128::from(rest) << 64 | u128::from(limb);
        (wide % u128::from(divisor)) as u64
    })
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
    BigUint::from_bytes_le(&to_le_bytes(limbs))
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

/// Limbs to little-endian bytes.
pub(crate) fn to_le_bytes(limbs: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(8 * limbs.len());
    limbs.iter().for_each(|limb| bytes.extend_from_slice(&limb.to_le_bytes()));
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Limbs of all ones and all zeros are where carries go wrong.
    fn limbs(count: usize) -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], count)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn runs_of_bits_are_those_of_the_number(
            limbs in limbs(5), start in 0usize..400, width in 1usize..129,
        ) {
            let number = to_biguint(&limbs);
            let expected = (&number >> start) % (BigUint::from(1u8) << width);
            prop_assert_eq!(BigUint::from(wide_bits(&limbs, BitRange { start, width })), expected.clone());
            if width <= 63 {
                prop_assert_eq!(BigUint::from(bits(&limbs, BitRange { start, width })), expected);
            }
        }

        #[test]
        fn bits_that_are_set_are_read_and_nothing_else_changes(
            start in 0usize..193, width in 1usize..129, value: u128, ones: bool,
        ) {
            let value = if ones { u128::MAX } else { value } >> (128 - width);
            let all = BigUint::from(value) << start;
            let mut limbs = vec![0; 5];
            set_bits(&mut limbs, start, value);
            prop_assert_eq!(to_biguint(&limbs), all.clone());
            prop_assert_eq!(wide_bits(&limbs, BitRange { start, width }), value);
            // Between neighbors on both sides.
            let below = (BigUint::from(1u8) << start) - 1u8;
            let mut neighbors = from_biguint(&(&below | (BigUint::from(1u8) << 319)), 5);
            set_bits(&mut neighbors, start, if start + width <= 319 { value } else { 0 });
            let expected = if start + width <= 319 { &all | &below } else { below };
            prop_assert_eq!(to_biguint(&neighbors), expected | (BigUint::from(1u8) << 319));
            // Just as many limbs as there are bits: zeros beyond are not missed.
            let mut tight = vec![0; (start + width).div_ceil(64)];
            set_bits(&mut tight, start, value);
            prop_assert_eq!(to_biguint(&tight), all);
        }

        #[test]
        fn differences_are_those_mod_n(n in limbs(4), x in limbs(4), y in limbs(4), apart in 0u64..3) {
            let n = to_biguint(&n) | BigUint::from(1u8);
            let x = to_biguint(&x) % &n;
            // Any two numbers, the same, and neighbors.
            let close = (&x + apart) % &n;
            for y in [to_biguint(&y) % &n, close] {
                let mut out = vec![0; 4];
                let [x_limbs, y_limbs, n_limbs] = [&x, &y, &n].map(|number| from_biguint(number, 4));
                sub_mod(&mut out, &x_limbs, &y_limbs, &n_limbs);
                prop_assert_eq!(to_biguint(&out), (&n + &x - &y) % &n);
                prop_assert_eq!(bool::from(less_than(&x_limbs, &y_limbs)), x < y);
            }
        }
    }
}
