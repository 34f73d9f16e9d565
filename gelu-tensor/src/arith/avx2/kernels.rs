//! Batches of residues, four at a time.

use core::arch::x86_64::*;

use zeroize::Zeroizing;

use super::assembly::{Digit, Lanes, Modulus, Sums};
use super::lanes::{LANES, broadcast, load, load_digit, store};
use super::{LIMB_BITS, POWER_WINDOW, TILE};

/// Multiplies rows of `width` limbs with `factor(step, i)`, for each step in turn.
#[target_feature(enable = "avx2,fma")]
pub(super) fn mul_rows<'a, const N: usize>(
    modulus: &Modulus<N>,
    rows: &mut [u64],
    steps: usize,
    factor: impl Fn(usize, usize) -> &'a [u64],
    width: usize,
) {
    let mut sums = Sums::new(modulus);
    // Zeroed once for all rows, not for every four.
    let [mut x, mut y, mut out] = [zero_lanes::<N>(); 3];
    let [mut x, mut out] = [&mut x, &mut out];
    for (group, rows) in rows.chunks_mut(LANES * width).enumerate() {
        // Lanes without a row repeat the last one.
        let last = rows.len() / width - 1;
        load(vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
        for step in 0..steps {
            load(vectors(&mut y), |lane| factor(step, group * LANES + lane.min(last)));
            sums.product(x, &y, out);
            std::mem::swap(&mut x, &mut out);
        }
        store(rows, width, vectors(x));
    }
}

/// `rows[i] = rows[i]^(2^times)` for rows of `width` limbs.
#[target_feature(enable = "avx2,fma")]
pub(super) fn square_rows<const N: usize>(
    modulus: &Modulus<N>,
    rows: &mut [u64],
    times: usize,
    width: usize,
) {
    let mut sums = Sums::new(modulus);
    let [mut x, mut out] = [zero_lanes::<N>(); 2];
    let [mut x, mut out] = [&mut x, &mut out];
    for rows in rows.chunks_mut(LANES * width) {
        let last = rows.len() / width - 1;
        load(vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
        for _ in 0..times {
            sums.square(x, out);
            std::mem::swap(&mut x, &mut out);
        }
        store(rows, width, vectors(x));
    }
}

/// `rows[i] /= R` for rows of `width` limbs.
#[target_feature(enable = "avx2,fma")]
pub(super) fn reduce_rows<const N: usize>(modulus: &Modulus<N>, rows: &mut [u64], width: usize) {
    let mut sums = Sums::new(modulus);
    let [mut x, mut out] = [zero_lanes::<N>(); 2];
    for rows in rows.chunks_mut(LANES * width) {
        let last = rows.len() / width - 1;
        load(vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
        sums.reduce(&x, &mut out);
        store(rows, width, vectors(&mut out));
    }
}

/// `rows[i] *= 1 + m[i] n` for rows of `width` limbs, and as many m of half as many, given `R^2 mod n`.
#[target_feature(enable = "avx2,fma")]
pub(super) fn mul_one_plus_rows<const N: usize>(
    (modulus, inverse): (&Modulus<N>, Inverse),
    rows: &mut [u64],
    m: &[u64],
    r_squared: &[u64],
    width: usize,
) {
    let mut sums = Sums::new(modulus);
    let [mut x, mut factors] = [zero_lanes::<N>(); 2];
    let mut scale = factors[0];
    broadcast(scale.as_flattened_mut(), r_squared);
    for (rows, m) in rows.chunks_mut(LANES * width).zip(m.chunks(LANES * width / 2)) {
        let last = rows.len() / width - 1;
        load(vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
        let [m_lanes, factor] = &mut factors;
        load_digit(m_lanes.as_flattened_mut(), |lane| &m[lane.min(last) * width / 2..][..width / 2]);
        sums.digit_product(m_lanes, &scale, factor);
        multiply_one_plus(&mut sums, inverse, &mut x, factor);
        store(rows, width, vectors(&mut x));
    }
}

/// `x *= 1 + (m / R) n`, which changes the upper digit only.
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply_one_plus<const N: usize>(
    sums: &mut Sums<'_, N>,
    inverse: Inverse,
    [a, b]: &mut Lanes<N>,
    m: &Digit<N>,
) {
    let [mut product, _] = zero_lanes::<N>();
    sums.digit_product(a, m, &mut product);
    for (limb, &addend) in b.as_flattened_mut().iter_mut().zip(product.as_flattened()) {
        *limb = _mm256_add_pd(*limb, addend);
    }
    shorten(sums.modulus, inverse, b);
}

/// Raises rows of `width` limbs to one power, whose digits in base `2^POWER_WINDOW` come from the top.
#[target_feature(enable = "avx2,fma")]
pub(super) fn power_rows<const N: usize>(
    modulus: &Modulus<N>,
    rows: &mut [u64],
    digits: &[u64],
    one: &[u64],
    width: usize,
) {
    let mut sums = Sums::new(modulus);
    let [mut base, mut x, mut out, mut entry] = [zero_lanes::<N>(); 4];
    let [mut x, mut out] = [&mut x, &mut out];
    let mut powers = Zeroizing::new(Vec::with_capacity((2 * N * TILE) << POWER_WINDOW));
    for rows in rows.chunks_mut(LANES * width) {
        let last = rows.len() / width - 1;
        load(vectors(&mut base), |lane| &rows[lane.min(last) * width..][..width]);
        broadcast(vectors(x), one);
        powers.clear();
        powers.extend_from_slice(vectors(x));
        for _ in 1..1 << POWER_WINDOW {
            sums.product(&base, x, out);
            std::mem::swap(&mut x, &mut out);
            powers.extend_from_slice(vectors(x));
        }
        broadcast(vectors(x), one);
        for (index, &digit) in digits.iter().enumerate() {
            if index > 0 {
                for _ in 0..POWER_WINDOW {
                    sums.square(x, out);
                    std::mem::swap(&mut x, &mut out);
                }
            }
            select_entry(vectors(&mut entry), &powers, digit);
            sums.product(x, &entry, out);
            std::mem::swap(&mut x, &mut out);
        }
        store(rows, width, vectors(x));
    }
}

/// The entry `digit` of a table, reading every entry, so that no address depends on the digit.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn select_entry(out: &mut [__m256d], table: &[__m256d], digit: u64) {
    let digit = _mm256_set1_epi64x(digit as i64);
    out.fill(_mm256_setzero_pd());
    for (index, entry) in (0i64..).zip(table.chunks_exact(out.len())) {
        let here = _mm256_castsi256_pd(_mm256_cmpeq_epi64(digit, _mm256_set1_epi64x(index)));
        for (out, &vector) in out.iter_mut().zip(entry) {
            *out = _mm256_blendv_pd(*out, vector, here);
        }
    }
}

/// Adds to each row another, or subtracts it.
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_rows<const N: usize>(
    (modulus, inverse): (&Modulus<N>, Inverse),
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
        shorten_both(modulus, inverse, &mut x);
        store(rows, width, vectors(&mut x));
    }
}

/// About 1 over the limb of n that has its top bit, and which limb that is.
#[derive(Clone, Copy)]
pub(super) struct Inverse {
    pub(super) inverse: f64,
    pub(super) limb: usize,
}

/// Shortens both digits; a multiple of n that is taken from the lower one is one in the upper one.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn shorten_both<const N: usize>(
    modulus: &Modulus<N>,
    inverse: Inverse,
    [low, high]: &mut Lanes<N>,
) {
    let taken = shorten(modulus, inverse, low);
    high[0][0] = _mm256_add_pd(high[0][0], taken);
    shorten(modulus, inverse, high);
}

/// Subtracts the multiple of n that leaves no more than about half of n, and brings limbs of up to 2^52 in size back to 2^48;
/// which multiple it was.
#[target_feature(enable = "avx2,fma")]
pub(super) fn shorten<const N: usize>(
    modulus: &Modulus<N>,
    inverse: Inverse,
    digit: &mut Digit<N>,
) -> __m256d {
    const LIMB: f64 = (1u64 << LIMB_BITS) as f64;
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

/// All vectors of both digits, in order.
pub(super) fn vectors<const N: usize>(lanes: &mut Lanes<N>) -> &mut [__m256d] {
    lanes.as_flattened_mut().as_flattened_mut()
}

#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn zero_lanes<const N: usize>() -> Lanes<N> {
    [[[_mm256_setzero_pd(); TILE]; N]; 2]
}
