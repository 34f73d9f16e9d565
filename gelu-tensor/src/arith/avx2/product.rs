//! Products of four pairs of residues, window by window of seven columns.

use core::arch::x86_64::*;

use super::TILE;
use super::sums::{Carry, Shape, Sums, Tile};

pub(super) type Digit<const N: usize> = [Tile; N];
pub(super) type Lanes<const N: usize> = [Digit<N>; 2];

/// The constants of a modulus, the same in all lanes, for B = 2^343.
pub(super) struct Modulus<'a, const N: usize> {
    pub(super) n: &'a Digit<N>,
    /// K = -1 / n mod B.
    pub(super) k: &'a Tile,
    /// (K n + 1) / B.
    pub(super) p: &'a Digit<N>,
    /// - K.
    pub(super) minus_k: &'a Tile,
}

/// A product of digits that is part of a sum.
pub(super) enum Term<'a, const N: usize> {
    Product(&'a Digit<N>, &'a Digit<N>),
    /// The same with a digit that was doubled without a carry.
    Twice(&'a Digit<N>, &'a Digit<N>),
}

impl<const N: usize> Term<'_, N> {
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn add(&self, sums: &mut Sums, window: usize) {
        match self {
            Self::Product(x, y) => multiply_add(sums, *x, y, window, 1),
            Self::Twice(x, y) => multiply_add(sums, *x, y, window, 2),
        }
    }
}

/// Adds those products of x and y that fall into a window. Tiles of x below the first of y's length are not there.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn multiply_add<const N: usize>(sums: &mut Sums, x: &[Tile], y: &Digit<N>, window: usize, weight: usize) {
    let (skipped, y) = (N - x.len(), y.as_flattened());
    for i in window.saturating_sub(N).max(skipped)..N.min(window + 1) {
        let shape = match window - i {
            0 => Shape::Lower,
            at if at == N => Shape::Upper,
            _ => Shape::Full,
        };
        sums.multiply_add(&x[i - skipped], y, TILE * (window - i), shape, weight);
    }
}

/// Sums of products over R: the lower digit's sum, then the upper one's, from which the lower one's quotient by n is
/// subtracted.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn reduce<const N: usize>(
    modulus: &Modulus<'_, N>,
    low: &[Term<'_, N>],
    high: &[Term<'_, N>],
    out: &mut Lanes<N>,
) {
    let [out_low, out_high] = out;
    let quotient = reduce_digit(modulus, low, None, out_low);
    reduce_digit(modulus, high, Some(&quotient), out_high);
}

/// A sum over R, less a quotient; the sum's own quotient.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn reduce_digit<const N: usize>(
    modulus: &Modulus<'_, N>,
    terms: &[Term<'_, N>],
    less: Option<&Digit<N>>,
    out: &mut Digit<N>,
) -> Digit<N> {
    // Digits in base B of multiples of K n, and the last one of multiples of n: the quotient is K X + m B^(N - 1).
    let mut quotient = [[_mm256_setzero_pd(); TILE]; N];
    let mut carry = Carry::none();
    for window in 0..2 * N {
        let mut sums = Sums::new();
        if let Some(less) = less {
            subtract_quotient(&mut sums, modulus, less, window);
        }
        for term in terms {
            term.add(&mut sums, window);
        }
        multiply_add(&mut sums, &quotient[..N - 1], modulus.p, window, 1);
        if window >= N {
            multiply_add(&mut sums, &quotient[N - 1..], modulus.n, window, 1);
            carry = sums.settle(carry, &mut out[window - N]);
        } else {
            carry = sums.settle(carry, &mut quotient[window]);
        }
        if window == N - 1 {
            let last = &mut quotient[N - 1];
            carry = carry.plus(cancel(modulus, last));
        }
    }
    quotient
}

/// Subtracts those limbs of a quotient K X + m B^(N - 1) that fall into a window.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn subtract_quotient<const N: usize>(
    sums: &mut Sums,
    modulus: &Modulus<'_, N>,
    quotient: &Digit<N>,
    window: usize,
) {
    let shape = match window {
        0 => Shape::Lower,
        _ if window + 1 < N => Shape::Full,
        _ if window + 1 == N => {
            sums.subtract(&quotient[N - 1]);
            Shape::Upper
        }
        _ => return,
    };
    sums.multiply_add(modulus.minus_k, quotient.as_flattened(), TILE * window, shape, 1);
}

/// The multiple m of n that makes the limbs x of a window 0 takes their place; what the window carries then.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn cancel<const N: usize>(modulus: &Modulus<'_, N>, x: &mut Tile) -> Carry {
    let mut m = [_mm256_setzero_pd(); TILE];
    let mut sums = Sums::new();
    sums.multiply_add(x, modulus.k, 0, Shape::Lower, 1);
    sums.settle(Carry::none(), &mut m);
    let mut sums = Sums::new();
    sums.add(x);
    sums.multiply_add(&m, modulus.n[0].as_slice(), 0, Shape::Lower, 1);
    let carry = sums.settle(Carry::none(), x);
    *x = m;
    carry
}
