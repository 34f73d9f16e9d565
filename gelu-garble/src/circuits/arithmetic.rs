//! Sums, shifts and bounds.

use super::order::greater_than;
use crate::Bits;

/// Returns the sum mod 2^l of two numbers of l bits (where one is longer, of the bits that both have): l - 1 ANDs.
pub fn add<B: Bits>(bits: &mut B, x: &[B::Wire], y: &[B::Wire]) -> Vec<B::Wire> {
    let mut sum = Vec::with_capacity(x.len());
    let mut carry: Option<B::Wire> = None;
    let last = x.len().min(y.len()).saturating_sub(1);
    for (at, (x, y)) in x.iter().zip(y).enumerate() {
        let Some(old) = carry.take() else {
            sum.push(bits.xor(x, y));
            carry = (at < last).then(|| bits.and(x, y));
            continue;
        };
        let with = bits.xor(x, &old);
        sum.push(bits.xor(&with, y));
        if at < last {
            let other = bits.xor(y, &old);
            let changed = bits.and(&with, &other);
            carry = Some(bits.xor(&changed, &old));
        }
    }
    sum
}

/// Returns `floor(x / 2^by)` of a signed number, or `x 2^-by` for a negative `by`. It costs no AND.
///
/// The result has as many bits as are left, at least the sign, or more by those that were shifted in.
pub fn shift<B: Bits>(bits: &mut B, x: &[B::Wire], by: i32) -> Vec<B::Wire> {
    let Some(sign) = x.last() else { return vec![] };
    if by >= 0 {
        let kept = x.get(by as usize..).filter(|kept| !kept.is_empty());
        return kept.map_or_else(|| vec![sign.clone()], <[_]>::to_vec);
    }
    let mut shifted = vec![bits.xor(sign, sign); by.unsigned_abs() as usize];
    shifted.extend_from_slice(x);
    shifted
}

/// By how many bits numbers are shifted down: see [`rounded_shift`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shifts {
    /// Those from zero up.
    pub positive: i32,
    /// Those below zero.
    pub negative: i32,
}

/// Returns a signed number divided by 2^shift and rounded to the nearest integer, halves away from zero, with another
/// shift for negative numbers if there is one (a leaky ReLU).
///
/// Where nothing is rounded, that is a [`shift`]. Otherwise it takes an addition of as many bits as the larger shift
/// makes necessary, at most l + 2, and a [`select`](super::select) if the shifts differ. Where negative numbers do not
/// matter because they become zero, it is cheaper to add 2^(shift - 1) beforehand.
pub fn rounded_shift<B: Bits>(bits: &mut B, x: &[B::Wire], shifts: Shifts) -> Vec<B::Wire> {
    let Some(sign) = x.last() else { return vec![] };
    // Beyond l, everything is rounded to zero.
    let most = x.len() as i32 + 1;
    let (positive, negative) = (shifts.positive.min(most), shifts.negative.min(most));
    let rounded = positive.max(negative).max(0) as usize;
    let mut numbers = x.to_vec();
    if rounded > 0 {
        // Half a unit, so that the shift rounds; one less below zero, so that halves go down there.
        numbers.resize(x.len().max(rounded) + 1, sign.clone());
        let half = |shift: i32| if shift > 0 { 1u128 << (shift - 1) } else { 0 };
        let (up, down) = (half(positive), half(negative).saturating_sub(1));
        let (none, above) = (bits.xor(sign, sign), bits.not(sign));
        let all = bits.not(&none);
        let addend: Vec<B::Wire> = (0..numbers.len())
            .map(|at| match (up >> at & 1, down >> at & 1) {
                (0, 0) => none.clone(),
                (1, 0) => above.clone(),
                (0, _) => sign.clone(),
                _ => all.clone(),
            })
            .collect();
        numbers = add(bits, &numbers, &addend);
    }
    let above = shift(bits, &numbers, positive);
    if positive == negative {
        return above;
    }
    let below = shift(bits, &numbers, negative);
    let length = above.len().max(below.len());
    let extended = |mut number: Vec<B::Wire>| {
        if let Some(sign) = number.last().cloned() {
            number.resize(length, sign);
        }
        number
    };
    super::select(bits, sign, &extended(below), &extended(above))
}

/// Returns a signed number, or the nearest number of `[least, most]` if it is not in there. With `least` of zero or more
/// the result has no sign, and as many bits as `most`; otherwise it is signed, and has as many as both need.
///
/// For bounds of 0 and a number of k bits: up to l ANDs to compare, and k to select.
pub fn clamp<B: Bits>(bits: &mut B, x: &[B::Wire], least: i64, most: i64) -> Vec<B::Wire> {
    let Some(sign) = x.last() else { return vec![] };
    let signed = |number: i64| 65 - (number ^ (number >> 63)).leading_zeros() as usize;
    // Wide enough for both bounds where all numbers could lie beyond one.
    let mut numbers = x.to_vec();
    let limit = 1i128 << (x.len() - 1).min(100);
    if i128::from(most) < -limit || i128::from(least) >= limit {
        numbers.resize(x.len().max(signed(least)).max(signed(most)), sign.clone());
    }
    let ordered = super::offset_binary(bits, &numbers);
    let zero = 1i128 << (numbers.len() - 1).min(100);
    let over = greater_than(bits, &ordered, i128::from(most) + zero);
    let within = greater_than(bits, &ordered, i128::from(least) + zero - 1);
    let none = bits.xor(sign, sign);
    let over = over.unwrap_or_else(|| none.clone());
    let within = within.unwrap_or_else(|| bits.not(&none));
    let under = bits.not(&within);
    let inside = bits.xor(&within, &over);
    let length = if least < 0 { signed(least).max(signed(most)) } else { signed(most) - 1 };
    let mut clamped = Vec::with_capacity(length);
    for at in 0..length {
        let mut bit = bits.and(numbers.get(at).unwrap_or(sign), &inside);
        if most >> at.min(63) & 1 == 1 {
            bit = bits.xor(&bit, &over);
        }
        if least >> at.min(63) & 1 == 1 {
            bit = bits.xor(&bit, &under);
        }
        clamped.push(bit);
    }
    clamped
}
