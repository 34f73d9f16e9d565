//! Batches of residues, four at a time.

use core::arch::x86_64::*;

use super::lanes::{LANES, load, store};
use super::product::{Digit, Lanes, Modulus, Term, reduce};
use super::{LIMB_BITS, TILE};

/// Multiplies rows of `width` limbs with `factor(step, i)`, for each step in turn.
#[target_feature(enable = "avx2,fma")]
pub(super) fn mul_rows<'a, const N: usize>(
    modulus: &Modulus<'_, N>,
    rows: &mut [u64],
    steps: usize,
    factor: impl Fn(usize, usize) -> &'a [u64],
    width: usize,
) {
    let [mut x, mut y, mut out] = [zero_lanes::<N>(); 3];
    let [mut x, mut out] = [&mut x, &mut out];
    for (group, rows) in rows.chunks_mut(LANES * width).enumerate() {
        // Lanes without a row repeat the last one.
        let last = rows.len() / width - 1;
        load(vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
        for step in 0..steps {
            load(vectors(&mut y), |lane| factor(step, group * LANES + lane.min(last)));
            mul(modulus, x, &y, out);
            std::mem::swap(&mut x, &mut out);
        }
        store(rows, width, vectors(x));
    }
}

/// `rows[i] = rows[i]^(2^times)` for rows of `width` limbs.
#[target_feature(enable = "avx2,fma")]
pub(super) fn square_rows<const N: usize>(
    modulus: &Modulus<'_, N>,
    rows: &mut [u64],
    times: usize,
    width: usize,
) {
    let [mut x, mut out] = [zero_lanes::<N>(); 2];
    let [mut x, mut out] = [&mut x, &mut out];
    for rows in rows.chunks_mut(LANES * width) {
        let last = rows.len() / width - 1;
        load(vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
        for _ in 0..times {
            square(modulus, x, out);
            std::mem::swap(&mut x, &mut out);
        }
        store(rows, width, vectors(x));
    }
}

/// Adds to each row another, or subtracts it.
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_rows<const N: usize>(
    (modulus, inverse): (&Modulus<'_, N>, Inverse),
    rows: &mut [u64],
    others: &[u64],
    subtract: bool,
    width: usize,
) {
    let [mut x, mut y] = [zero_lanes::<N>(); 2];
    for (rows, others) in rows.chunks_mut(LANES * width).zip(others.chunks(LANES * width)) {
        let last = rows.len() / width - 1;
        load(vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
        load(vectors(&mut y), |lane| &others[lane.min(last) * width..][..width]);
        for (x, &y) in vectors(&mut x).iter_mut().zip(vectors(&mut y).iter()) {
            *x = if subtract { _mm256_sub_pd(*x, y) } else { _mm256_add_pd(*x, y) };
        }
        let [low, high] = &mut x;
        // A multiple of n that is taken from the lower digit is one in the upper digit.
        let taken = shorten(modulus, inverse, low);
        high[0][0] = _mm256_add_pd(high[0][0], taken);
        shorten(modulus, inverse, high);
        store(rows, width, vectors(&mut x));
    }
}

/// About 1 over the limb of n that has its top bit, and which limb that is.
#[derive(Clone, Copy)]
pub(super) struct Inverse {
    pub(super) inverse: f64,
    pub(super) limb: usize,
}

/// Subtracts the multiple of n that leaves no more than about half of n, and brings limbs below 2^49 in size back to 2^48;
/// which multiple it was.
#[target_feature(enable = "avx2,fma")]
fn shorten<const N: usize>(modulus: &Modulus<'_, N>, inverse: Inverse, digit: &mut Digit<N>) -> __m256d {
    let digit = digit.as_flattened_mut();
    let quotient = _mm256_mul_pd(digit[inverse.limb], _mm256_set1_pd(inverse.inverse));
    let quotient = _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(quotient);
    // Adding this rounds to multiples of 2^49.
    let round = _mm256_set1_pd(1.5 * (1u64 << 52) as f64 * LIMB);
    let mut carry = _mm256_setzero_pd();
    for (limb, &n) in digit.iter_mut().zip(modulus.n.as_flattened()) {
        let value = _mm256_fnmadd_pd(quotient, n, _mm256_add_pd(*limb, carry));
        let rounded = _mm256_sub_pd(_mm256_add_pd(value, round), round);
        *limb = _mm256_sub_pd(value, rounded);
        carry = _mm256_mul_pd(rounded, _mm256_set1_pd(1.0 / LIMB));
    }
    quotient
}

const LIMB: f64 = (1u64 << LIMB_BITS) as f64;

/// All vectors of both digits, in order.
pub(super) fn vectors<const N: usize>(lanes: &mut Lanes<N>) -> &mut [__m256d] {
    lanes.as_flattened_mut().as_flattened_mut()
}

#[target_feature(enable = "avx2,fma")]
#[inline]
fn zero_lanes<const N: usize>() -> Lanes<N> {
    [[[_mm256_setzero_pd(); TILE]; N]; 2]
}

/// The n-adic Montgomery product.
#[target_feature(enable = "avx2,fma")]
fn mul<const N: usize>(modulus: &Modulus<'_, N>, [a, b]: &Lanes<N>, [c, d]: &Lanes<N>, out: &mut Lanes<N>) {
    reduce(modulus, &[Term::Product(a, c)], &[Term::Product(a, d), Term::Product(b, c)], out);
}

/// The n-adic Montgomery square.
#[target_feature(enable = "avx2,fma")]
fn square<const N: usize>(modulus: &Modulus<'_, N>, [a, b]: &Lanes<N>, out: &mut Lanes<N>) {
    let mut twice = *a;
    for limb in twice.as_flattened_mut() {
        *limb = _mm256_add_pd(*limb, *limb);
    }
    reduce(modulus, &[Term::Product(a, a)], &[Term::Twice(&twice, b)], out);
}

/// Products of limbs, as columns sum them, in chains that do not wait for each other, on registers alone; how many
/// multiply-adds: two for each product of four limbs.
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply_add_chains() -> usize {
    use core::hint::black_box;
    const TURNS: usize = 50_000;
    let [x, y] = [0.75, 0.5].map(|limb| _mm256_set1_pd(black_box(limb)));
    let mut sums = [[_mm256_setzero_pd(); 2]; 6];
    for _ in 0..TURNS {
        for [high, low] in &mut sums {
            let sum = _mm256_fmadd_pd(x, y, *high);
            *low = _mm256_add_pd(*low, _mm256_fmadd_pd(x, y, _mm256_sub_pd(*high, sum)));
            *high = sum;
        }
    }
    black_box(sums);
    2 * TURNS * sums.len()
}
