//! Batches of residues, as many at a time as there are lanes.

use zeroize::Zeroizing;

use super::lanes::{broadcast, load, load_digit, select_entry, store};
use super::sums::{Digit, Lanes, Modulus, Sums};
use super::vector::Vector;
use super::{LIMB_BITS, POWER_WINDOW, TILE};
use crate::arith::kernel::Work;

/// Rows of residues, of `width` limbs each, and the modulus that they are of.
pub(super) struct Rows<'a, V: Vector, const N: usize> {
    pub(super) modulus: Modulus<'a, V, N>,
    pub(super) limbs: &'a mut [u64],
    pub(super) width: usize,
}

/// Multiplies rows with `factor(step, i)`, for each step in turn.
pub(super) struct Mul<'a, V: Vector, const N: usize, F> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) steps: usize,
    pub(super) factor: F,
}

impl<'a, V: Vector, const N: usize, F: Fn(usize, usize) -> &'a [u64]> Work for Mul<'a, V, N, F> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs, width }, steps, factor } = self;
        let token = modulus.token;
        let mut sums = V::Sums::<'_, N>::new(modulus);
        // Zeroed once for all rows, not for every vector.
        let [mut x, mut y, mut out] = [zero_lanes::<V, N>(token); 3];
        let [mut x, mut out] = [&mut x, &mut out];
        for (group, rows) in limbs.chunks_mut(V::LANES * width).enumerate() {
            // Lanes without a row repeat the last one.
            let last = rows.len() / width - 1;
            load(token, vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
            for step in 0..steps {
                load(token, vectors(&mut y), |lane| factor(step, group * V::LANES + lane.min(last)));
                sums.product(x, &y, out);
                std::mem::swap(&mut x, &mut out);
            }
            store(rows, width, vectors(x));
        }
    }
}

/// `rows[i] = rows[i]^(2^times)`.
pub(super) struct Square<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) times: usize,
}

impl<V: Vector, const N: usize> Work for Square<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs, width }, times } = self;
        let token = modulus.token;
        let mut sums = V::Sums::<'_, N>::new(modulus);
        let [mut x, mut out] = [zero_lanes::<V, N>(token); 2];
        let [mut x, mut out] = [&mut x, &mut out];
        for rows in limbs.chunks_mut(V::LANES * width) {
            let last = rows.len() / width - 1;
            load(token, vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
            for _ in 0..times {
                sums.square(x, out);
                std::mem::swap(&mut x, &mut out);
            }
            store(rows, width, vectors(x));
        }
    }
}

/// `rows[i] /= R`.
pub(super) struct Reduce<'a, V: Vector, const N: usize>(pub(super) Rows<'a, V, N>);

impl<V: Vector, const N: usize> Work for Reduce<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Rows { modulus, limbs, width } = self.0;
        let token = modulus.token;
        let mut sums = V::Sums::<'_, N>::new(modulus);
        let [mut x, mut out] = [zero_lanes::<V, N>(token); 2];
        for rows in limbs.chunks_mut(V::LANES * width) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
            sums.reduce(&x, &mut out);
            store(rows, width, vectors(&mut out));
        }
    }
}

/// `rows[i] *= 1 + m[i] n` for as many m of half as many limbs, given `R^2 mod n`.
pub(super) struct MulOnePlus<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) m: &'a [u64],
    pub(super) r_squared: &'a [u64],
}

impl<V: Vector, const N: usize> Work for MulOnePlus<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs, width }, m, r_squared } = self;
        let token = modulus.token;
        let mut sums = V::Sums::<'_, N>::new(modulus);
        let [mut x, mut factors] = [zero_lanes::<V, N>(token); 2];
        let mut scale = factors[0];
        broadcast(token, scale.as_flattened_mut(), r_squared);
        let run = V::LANES * width;
        for (rows, m) in limbs.chunks_mut(run).zip(m.chunks(run / 2)) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
            let [m_lanes, factor] = &mut factors;
            load_digit(token, m_lanes.as_flattened_mut(), |lane| {
                &m[lane.min(last) * width / 2..][..width / 2]
            });
            sums.digit_product(m_lanes, &scale, factor);
            multiply_one_plus(&modulus, &mut sums, &mut x, factor);
            store(rows, width, vectors(&mut x));
        }
    }
}

/// `x *= 1 + (m / R) n`, which changes the upper digit only.
#[inline(always)]
pub(super) fn multiply_one_plus<'a, V: Vector, const N: usize>(
    modulus: &Modulus<'a, V, N>,
    sums: &mut V::Sums<'a, N>,
    [a, b]: &mut Lanes<V, N>,
    m: &Digit<V, N>,
) {
    let [mut product, _] = zero_lanes::<V, N>(modulus.token);
    sums.digit_product(a, m, &mut product);
    for (limb, &addend) in b.as_flattened_mut().iter_mut().zip(product.as_flattened()) {
        *limb = limb.add(addend);
    }
    shorten(modulus, b);
}

/// Raises rows to one power, whose digits in base `2^POWER_WINDOW` come from the top.
pub(super) struct Power<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) digits: &'a [u64],
    pub(super) one: &'a [u64],
}

impl<V: Vector, const N: usize> Work for Power<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs, width }, digits, one } = self;
        let token = modulus.token;
        let mut sums = V::Sums::<'_, N>::new(modulus);
        let [mut base, mut x, mut out, mut entry] = [zero_lanes::<V, N>(token); 4];
        let [mut x, mut out] = [&mut x, &mut out];
        let mut powers = Zeroizing::new(Vec::with_capacity((2 * N * TILE) << POWER_WINDOW));
        for rows in limbs.chunks_mut(V::LANES * width) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut base), |lane| &rows[lane.min(last) * width..][..width]);
            broadcast(token, vectors(x), one);
            powers.clear();
            powers.extend_from_slice(vectors(x));
            for _ in 1..1 << POWER_WINDOW {
                sums.product(&base, x, out);
                std::mem::swap(&mut x, &mut out);
                powers.extend_from_slice(vectors(x));
            }
            broadcast(token, vectors(x), one);
            for (index, &digit) in digits.iter().enumerate() {
                if index > 0 {
                    for _ in 0..POWER_WINDOW {
                        sums.square(x, out);
                        std::mem::swap(&mut x, &mut out);
                    }
                }
                select_entry(token, vectors(&mut entry), &powers, digit);
                sums.product(x, &entry, out);
                std::mem::swap(&mut x, &mut out);
            }
            store(rows, width, vectors(x));
        }
    }
}

/// `rows[i] += y[i]`, or `-=`.
pub(super) struct Add<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) y: &'a [u64],
    pub(super) subtract: bool,
}

impl<V: Vector, const N: usize> Work for Add<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs, width }, y: others, subtract } = self;
        let token = modulus.token;
        let [mut x, mut y] = [zero_lanes::<V, N>(token); 2];
        let run = V::LANES * width;
        for (rows, others) in limbs.chunks_mut(run).zip(others.chunks(run)) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
            load(token, vectors(&mut y), |lane| &others[lane.min(last) * width..][..width]);
            for (x, &y) in vectors(&mut x).iter_mut().zip(vectors(&mut y).iter()) {
                *x = if subtract { x.sub(y) } else { x.add(y) };
            }
            shorten_both(&modulus, &mut x);
            store(rows, width, vectors(&mut x));
        }
    }
}

/// Shortens both digits; a multiple of n that is taken from the lower one is one in the upper one.
#[inline(always)]
pub(super) fn shorten_both<V: Vector, const N: usize>(
    modulus: &Modulus<'_, V, N>,
    [low, high]: &mut Lanes<V, N>,
) {
    let taken = shorten(modulus, low);
    high[0][0] = high[0][0].add(taken);
    shorten(modulus, high);
}

/// Subtracts the multiple of n that leaves no more than about half of n, and brings limbs of up to 2^52 in size back to 2^48;
/// which multiple it was.
#[inline(always)]
pub(super) fn shorten<V: Vector, const N: usize>(modulus: &Modulus<'_, V, N>, digit: &mut Digit<V, N>) -> V {
    const LIMB: f64 = (1u64 << LIMB_BITS) as f64;
    let splat = |number| V::splat(modulus.token, number);
    let digit = digit.as_flattened_mut();
    let quotient = digit[modulus.top_limb].mul(splat(modulus.inverse)).rounded();
    // Adding this rounds to multiples of 2^49.
    let round = splat(1.5 * (1u64 << 52) as f64 * LIMB);
    let mut carry = splat(0.0);
    for (limb, &n) in digit.iter_mut().zip(modulus.n().as_flattened()) {
        let value = limb.add(carry).multiply_sub(quotient, n);
        let rounded = value.add(round).sub(round);
        *limb = value.sub(rounded);
        carry = rounded.mul(splat(1.0 / LIMB));
    }
    quotient
}

/// All vectors of both digits, in order.
#[inline(always)]
pub(super) fn vectors<V, const N: usize>(lanes: &mut Lanes<V, N>) -> &mut [V] {
    lanes.as_flattened_mut().as_flattened_mut()
}

#[inline(always)]
pub(super) fn zero_lanes<V: Vector, const N: usize>(token: V::Token) -> Lanes<V, N> {
    [[[V::splat(token, 0.0); TILE]; N]; 2]
}
