//! The portable kernels, one residue at a time, with L limbs a half.
//!
//! They are `#[inline]` so that they are compiled with their callers: otherwise the compiler leaves the loops over few limbs
//! rolled, and products mod p^2 take a third longer.

use std::array;

use crate::arith::limbs::{add_assign, conditional_subtract, double, sub_into};

/// What the kernels need to know of a modulus.
pub(super) struct Modulus<'a, const L: usize> {
    pub(super) n: &'a [u64; L],
    /// `-1 / n mod 2^64`.
    pub(super) negative_inverse: u64,
}

/// One residue: the two halves of its n-adic form.
pub(super) type Residue<const L: usize> = [[u64; L]; 2];

/// Limbs of a row that are worked on together, in registers.
const CHUNK: usize = 4;

/// `accumulator += x y` over as many limbs as both have, returning the carry.
///
/// Two chains of additions run side by side, `x y` and its sum with the accumulator, and each keeps its own carry
/// from chunk to chunk, so that neither waits for the other.
#[inline(always)]
fn multiply_add_row(accumulator: &mut [u64], y: &[u64], x: u64) -> u64 {
    let (chunks, rest) = accumulator.as_chunks_mut::<CHUNK>();
    let (y_chunks, y_rest) = y.as_chunks::<CHUNK>();
    let mut high = 0;
    let mut product_carry = false;
    let mut sum_carry = false;
    for (t, y) in chunks.iter_mut().zip(y_chunks) {
        let mut product = [0; CHUNK];
        for (product, &y) in product.iter_mut().zip(y) {
            let (low, next) = x.carrying_mul(y, 0);
            (*product, product_carry) = low.carrying_add(high, product_carry);
            high = next;
        }
        for (t, product) in t.iter_mut().zip(product) {
            (*t, sum_carry) = t.carrying_add(product, sum_carry);
        }
    }
    // The sum is below 2^64 times the chunks' range, so its highest limb takes both carries.
    high = high.wrapping_add(u64::from(product_carry)).wrapping_add(u64::from(sum_carry));
    for (t, &y) in rest.iter_mut().zip(y_rest) {
        (*t, high) = x.carrying_mul_add(y, *t, high);
    }
    high
}

/// Stores `carries + pending` at `limb` and returns what does not fit.
#[inline(always)]
fn settle(limb: &mut u64, carries: &[u64]) -> u64 {
    let sum = carries.iter().fold(u128::from(*limb), |sum, &carry| sum + u128::from(carry));
    *limb = sum as u64;
    (sum >> 64) as u64
}

/// Montgomery-reduces the double-width `t`: leaves `t / R` (not yet below n) in its upper half and returns the
/// quotient digits m of `t + m n = (t / R) R`, with the carry out of the upper half.
#[inline(always)]
fn reduce<const L: usize>(modulus: &Modulus<L>, t: &mut Residue<L>) -> ([u64; L], u64) {
    let mut quotient = [0; L];
    let mut pending = 0;
    let t = t.as_flattened_mut();
    for i in 0..L {
        let digit = t[i].wrapping_mul(modulus.negative_inverse);
        quotient[i] = digit;
        let carry = multiply_add_row(&mut t[i..i + L], modulus.n, digit);
        pending = settle(&mut t[i + L], &[carry, pending]);
    }
    (quotient, pending)
}

/// `2 n - m` as L limbs and the top one. Not negative, because m < R < 2 n.
#[inline(always)]
fn twice_modulus_minus<const L: usize>(modulus: &Modulus<L>, m: &[u64; L]) -> ([u64; L], u64) {
    let (twice, top) = double(modulus.n);
    let mut difference = [0; L];
    let borrow = sub_into(&mut difference, &twice, m);
    (difference, top.wrapping_sub(borrow))
}

/// The n-adic Montgomery product (5 L^2 limb products).
///
/// With `a c + m n = t R`: the low half is t, the high half `(a d + b c + 2 n - m) / R mod n`.
#[inline]
pub(super) fn mul<const L: usize>(modulus: &Modulus<L>, x: &Residue<L>, y: &Residue<L>) -> Residue<L> {
    let [a, b] = x;
    let [c, d] = y;

    let mut quotient = [0; L];
    let mut low = [[0; L]; 2];
    let mut pending = 0;
    {
        let t = low.as_flattened_mut();
        for i in 0..L {
            let first = multiply_add_row(&mut t[i..i + L], c, a[i]);
            let digit = t[i].wrapping_mul(modulus.negative_inverse);
            quotient[i] = digit;
            let second = multiply_add_row(&mut t[i..i + L], modulus.n, digit);
            pending = settle(&mut t[i + L], &[first, second, pending]);
        }
    }
    // a c / R + n < 2 n. An n taken off the low half is a one for the high half.
    let (low, excess) = conditional_subtract(low[1], pending, modulus.n);

    let (start, top) = twice_modulus_minus(modulus, &quotient);
    let mut high = [start, [0; L]];
    let mut pending = 0;
    {
        let t = high.as_flattened_mut();
        t[L] = top;
        for i in 0..L {
            let first = multiply_add_row(&mut t[i..i + L], d, a[i]);
            let second = multiply_add_row(&mut t[i..i + L], c, b[i]);
            let digit = t[i].wrapping_mul(modulus.negative_inverse);
            let third = multiply_add_row(&mut t[i..i + L], modulus.n, digit);
            pending = settle(&mut t[i + L], &[first, second, third, pending]);
        }
    }
    [low, reduce_high(modulus, high[1], pending, excess)]
}

/// Makes a high half canonical: a number up to `(2 (n - 1)^2 + 2 n) / R + n <= 3 n - 2`, plus the excess of the
/// low half, so that two subtractions do.
#[inline(always)]
fn reduce_high<const L: usize>(modulus: &Modulus<L>, value: [u64; L], top: u64, excess: u64) -> [u64; L] {
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
pub(super) fn square<const L: usize>(modulus: &Modulus<L>, x: &Residue<L>) -> Residue<L> {
    let [a, b] = x;
    let mut low = square_wide(a);
    let (quotient, carry) = reduce(modulus, &mut low);
    let (low, excess) = conditional_subtract(low[1], carry, modulus.n);

    let mut high = [[0; L]; 2];
    {
        let t = high.as_flattened_mut();
        for i in 0..L {
            t[i + L] = multiply_add_row(&mut t[i..i + L], b, a[i]);
        }
    }
    // 2 a b + 2 n - m < 2 n^2 + 2 n: one bit more than 2 L limbs hold.
    let top = double_in_place(high.as_flattened_mut());
    let (start, start_top) = twice_modulus_minus(modulus, &quotient);
    let mut addend = [start, [0; L]];
    addend[1][0] = start_top;
    let carry = add_assign(high.as_flattened_mut(), addend.as_flattened());
    let (_, pending) = reduce(modulus, &mut high);
    [low, reduce_high(modulus, high[1], pending + top + u64::from(carry), excess)]
}

#[inline(always)]
fn double_in_place(limbs: &mut [u64]) -> u64 {
    let mut carry = 0;
    for limb in limbs {
        let next = *limb >> 63;
        *limb = (*limb << 1) | carry;
        carry = next;
    }
    carry
}

/// `a * a`: the products of unequal limbs once, doubled, then the squares of the limbs.
#[inline(always)]
fn square_wide<const L: usize>(a: &[u64; L]) -> Residue<L> {
    let mut wide = [[0; L]; 2];
    let t = wide.as_flattened_mut();
    for i in 0..L {
        t[i + L] = multiply_add_row(&mut t[2 * i + 1..i + L], &a[i + 1..], a[i]);
    }
    double_in_place(t);
    let mut carry = false;
    for i in 0..L {
        let (low, high) = a[i].carrying_mul(a[i], 0);
        (t[2 * i], carry) = t[2 * i].carrying_add(low, carry);
        (t[2 * i + 1], carry) = t[2 * i + 1].carrying_add(high, carry);
    }
    wide
}

/// The Montgomery product mod n of two numbers below n.
#[inline]
pub(super) fn mul_mod_n<const L: usize>(modulus: &Modulus<L>, x: &[u64; L], y: &[u64; L]) -> [u64; L] {
    let mut wide = [[0; L]; 2];
    {
        let t = wide.as_flattened_mut();
        for i in 0..L {
            t[i + L] = multiply_add_row(&mut t[i..i + L], y, x[i]);
        }
    }
    let (_, carry) = reduce(modulus, &mut wide);
    conditional_subtract(wide[1], carry, modulus.n).0
}
