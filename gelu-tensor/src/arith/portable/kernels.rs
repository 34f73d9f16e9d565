//! The portable kernels, one residue at a time, with L limbs a half.
//!
//! They are `#[inline]` so that they are compiled with their callers: otherwise the compiler leaves the loops over few limbs
//! rolled, and products mod p^2 take a third longer.

use std::array;

use super::rows::Rows;
use crate::arith::digits::Pair;
use crate::arith::limbs::{add_assign, conditional_subtract, double, sub_into};

/// What the kernels need to know of a modulus.
pub(super) struct Modulus<'a, const L: usize, R> {
    pub(super) rows: R,
    pub(super) n: &'a [u64; L],
    /// `-1 / n mod 2^64`.
    pub(super) negative_inverse: u64,
}

/// Montgomery's reduction of what `add` adds to `t`, limb by limb: it is called for each i with the L limbs from i on, and
/// returns what did not fit them. Leaves `t / R` (not yet below n) in the upper half and returns the quotient digits m of
/// `t + m n = (t / R) R`, with the carry out of the upper half.
#[inline(always)]
fn reduce<const L: usize, const K: usize>(
    modulus: &Modulus<L, impl Rows>,
    t: &mut Pair<L>,
    add: impl Fn(&mut [u64; L], usize) -> [u64; K],
) -> ([u64; L], u64) {
    let mut quotient = [0; L];
    let mut pending = 0;
    let t = t.as_flattened_mut();
    for i in 0..L {
        let row = &mut t[i..i + L].as_chunks_mut().0[0];
        let carries = add(row, i);
        let digit = row[0].wrapping_mul(modulus.negative_inverse);
        quotient[i] = digit;
        let last = modulus.rows.multiply_add(row, modulus.n, digit);
        let sum = carries.into_iter().chain([last, pending, t[i + L]]).map(u128::from).sum::<u128>();
        t[i + L] = sum as u64;
        pending = (sum >> 64) as u64;
    }
    (quotient, pending)
}

/// `2 n - m`, what the sum of a high half begins with. Not negative, because m < R < 2 n.
#[inline(always)]
fn twice_modulus_minus<const L: usize>(modulus: &Modulus<L, impl Rows>, m: &[u64; L]) -> Pair<L> {
    let (twice, top) = double(modulus.n);
    let mut difference = [[0; L]; 2];
    let borrow = sub_into(&mut difference[0], &twice, m);
    difference[1][0] = top.wrapping_sub(borrow);
    difference
}

/// The n-adic Montgomery product (5 L^2 limb products).
///
/// With `a c + m n = t R`: the low half is t, the high half `(a d + b c + 2 n - m) / R mod n`.
#[inline]
pub(super) fn mul<const L: usize>(modulus: &Modulus<L, impl Rows>, x: &Pair<L>, y: &Pair<L>) -> Pair<L> {
    let rows = modulus.rows;
    let [a, b] = x;
    let [c, d] = y;
    let mut low = [[0; L]; 2];
    let (quotient, carry) = reduce(modulus, &mut low, |t, i| [rows.multiply_add(t, c, a[i])]);
    // a c / R + n < 2 n. An n taken off the low half is a one for the high half.
    let (low, excess) = conditional_subtract(low[1], carry, modulus.n);

    let mut high = twice_modulus_minus(modulus, &quotient);
    let (_, carry) =
        reduce(modulus, &mut high, |t, i| [rows.multiply_add(t, d, a[i]), rows.multiply_add(t, c, b[i])]);
    [low, reduce_high(modulus, high[1], carry, excess)]
}

/// Makes a high half canonical: a number up to `(2 (n - 1)^2 + 2 n) / R + n <= 3 n - 2`, plus the excess of the
/// low half, so that two subtractions do.
#[inline(always)]
fn reduce_high<const L: usize>(
    modulus: &Modulus<L, impl Rows>,
    value: [u64; L],
    top: u64,
    excess: u64,
) -> [u64; L] {
    let mut value = value;
    let mut addend = [0; L];
    addend[0] = excess;
    let top = top + u64::from(add_assign(&mut value, &addend));
    let mut difference = [0; L];
    let borrow = sub_into(&mut difference, &value, modulus.n);
    let below = u64::from(top < borrow);
    let top = top.wrapping_sub(borrow) & below.wrapping_sub(1);
    let keep = below.wrapping_neg();
    let once = array::from_fn(|i| (value[i] & keep) | (difference[i] & !keep));
    conditional_subtract(once, top, modulus.n).0
}

/// The n-adic Montgomery square (3.5 L^2 limb products).
#[inline]
pub(super) fn square<const L: usize>(modulus: &Modulus<L, impl Rows>, x: &Pair<L>) -> Pair<L> {
    let rows = modulus.rows;
    let [a, b] = x;
    let mut low = square_wide(rows, a);
    let (quotient, carry) = reduce(modulus, &mut low, |_, _| []);
    let (low, excess) = conditional_subtract(low[1], carry, modulus.n);

    let (twice, bit) = double(a);
    let mut high = twice_modulus_minus(modulus, &quotient);
    let (_, carry) = reduce(modulus, &mut high, |t, i| [rows.multiply_add(t, b, twice[i])]);
    // The bit of 2 a that does not fit L limbs, times b.
    let [_, mut high] = high;
    let more = b.map(|limb| limb & bit.wrapping_neg());
    let carry = carry + u64::from(add_assign(&mut high, &more));
    [low, reduce_high(modulus, high, carry, excess)]
}

/// `a * a`: the products of unequal limbs once, doubled, then the squares of the limbs.
#[inline(always)]
fn square_wide<const L: usize>(rows: impl Rows, a: &[u64; L]) -> Pair<L> {
    let mut wide = [[0; L]; 2];
    let t = wide.as_flattened_mut();
    for i in 0..L {
        t[i + L] = rows.multiply_add_any(&mut t[2 * i + 1..i + L], &a[i + 1..], a[i]);
    }
    let (mut shifted, mut carry) = (0, false);
    for (t, &limb) in t.as_chunks_mut::<2>().0.iter_mut().zip(a) {
        let (low, high) = limb.carrying_mul(limb, 0);
        let [x, y] = *t;
        (t[0], carry) = (x << 1 | shifted).carrying_add(low, carry);
        (t[1], carry) = (y << 1 | x >> 63).carrying_add(high, carry);
        shifted = y >> 63;
    }
    wide
}

/// The Montgomery product mod n of two numbers below n.
#[inline]
pub(super) fn mul_mod_n<const L: usize>(
    modulus: &Modulus<L, impl Rows>,
    x: &[u64; L],
    y: &[u64; L],
) -> [u64; L] {
    let mut t = [[0; L]; 2];
    let (_, carry) = reduce(modulus, &mut t, |t, i| [modulus.rows.multiply_add(t, y, x[i])]);
    conditional_subtract(t[1], carry, modulus.n).0
}
