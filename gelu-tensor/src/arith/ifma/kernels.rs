//! Products and squares of as many residues as there are lanes, column by column in tiles of 5x5 limbs.
//!
//! A tile adds the 25 products of five limbs of one factor and five of the other to nine columns, all in registers;
//! tiles on one diagonal share their columns, so that accumulators are moved only once a diagonal. Low and high halves
//! of products have accumulators of their own, which halves the chains of dependent instructions. See
//! [`reduction`](super::reduction) for the rest of a diagonal.

use core::hint::black_box;

use super::reduction::{
    Addend, HIGH, Half, Product, Reduction, Sums, TILE, Tables, Times, multiply_add, multiply_add_same,
};
use super::vector::Vector;
use super::{LIMB_BITS, LIMB_MASK};
use crate::arith::kernel::Work;

pub(super) type Lanes<V, const N: usize> = [Half<V, N>; 2];

/// All vectors of both halves, in order.
#[inline(always)]
pub(super) fn vectors<V, const N: usize>(lanes: &mut Lanes<V, N>) -> &mut [V] {
    lanes.as_flattened_mut().as_flattened_mut()
}

#[inline(always)]
pub(super) fn zero_lanes<V: Vector, const N: usize>(token: V::Token) -> Lanes<V, N> {
    const { assert!(2 * N * TILE >= V::LANES) };
    [[[V::splat(token, 0); TILE]; N]; 2]
}

/// Reduces the sum of a low half, and that of a high half with the quotient of the low one: in a function of its own, which
/// all that do the same share.
#[inline(always)]
pub(super) fn reduce_halves<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    out: &mut Lanes<V, N>,
    low: &impl Product<V>,
    high: &impl Product<V>,
) {
    V::run(tables.token, Halves { tables, out, low, high });
}

struct Halves<'a, V: Vector, const N: usize, A, B> {
    tables: &'a Tables<'a, V, N>,
    out: &'a mut Lanes<V, N>,
    low: &'a A,
    high: &'a B,
}

impl<V: Vector, const N: usize, A: Product<V>, B: Product<V>> Work for Halves<'_, V, N, A, B> {
    #[inline(always)]
    fn run(self) {
        let Self { tables, out: [out_low, out_high], low, high } = self;
        let quotient = Reduction::new(tables).run(None, out_low, low);
        Reduction::new(tables).run(Some(&quotient), out_high, high);
    }
}

/// The n-adic Montgomery product, 10 L^2 multiply-adds.
#[inline(always)]
pub(super) fn mul<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    [a, b]: &Lanes<V, N>,
    [c, d]: &Lanes<V, N>,
    out: &mut Lanes<V, N>,
) {
    reduce_halves(tables, out, &Times(a, c), &(Times(a, d), Times(b, c)));
}

/// The product with a factor whose high half is zero, 8 L^2 multiply-adds.
#[inline(always)]
pub(super) fn mul_low<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    [a, b]: &Lanes<V, N>,
    c: &Half<V, N>,
    out: &mut Lanes<V, N>,
) {
    reduce_halves(tables, out, &Times(a, c), &Times(b, c));
}

/// The product of x with 1 + (m scale / R) n, which changes the high half only: 8 L^2 multiply-adds.
#[inline(always)]
pub(super) fn mul_one_plus<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    [a, b]: &Lanes<V, N>,
    m: &Half<V, N>,
    scale: &[[u64; TILE]; N],
    out: &mut Lanes<V, N>,
) {
    let token = tables.token;
    let [mut factor, _] = zero_lanes::<V, N>(token);
    Reduction::new(tables).run(None, &mut factor, &Scaled { token, number: m, scale });
    out[0] = *a;
    Reduction::new(tables).run(None, &mut out[1], &Times(a, &factor));
    for (limb, &addend) in out[1].as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        *limb = limb.add(addend);
    }
    subtract_twice_modulus(tables, &mut out[1]);
}

/// The product of a number with one that is the same in all lanes.
pub(super) struct Scaled<'a, V: Vector, const N: usize> {
    pub(super) token: V::Token,
    pub(super) number: &'a Half<V, N>,
    pub(super) scale: &'a [[u64; TILE]; N],
}

impl<V: Vector, const N: usize> Product<V> for Scaled<'_, V, N> {
    #[inline(always)]
    fn add<const PART: u8>(&self, sums: &mut Sums<V>, i: usize, j: usize) {
        multiply_add_same::<V, PART>(self.token, sums, &self.number[i], &self.scale[j]);
    }
}

/// `x / R`: two reductions, 4 L^2 multiply-adds.
#[inline(always)]
pub(super) fn reduce<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    [a, b]: &Lanes<V, N>,
    out: &mut Lanes<V, N>,
) {
    reduce_halves(tables, out, &Addend(a), &Addend(b));
}

/// `x + y -> x`.
#[inline(always)]
pub(super) fn add<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    x: &mut Lanes<V, N>,
    y: &Lanes<V, N>,
) {
    for (half, addend) in x.iter_mut().zip(y) {
        for (limb, &addend) in half.as_flattened_mut().iter_mut().zip(addend.as_flattened()) {
            *limb = limb.add(addend);
        }
    }
    let [low, high] = x;
    // What is taken from the low half as 2 n is 2 in the high one.
    let taken = subtract_twice_modulus(tables, low);
    subtract_twice_modulus(tables, high);
    high[0][0] = high[0][0].add(V::splat(tables.token, 2).masked(taken));
    subtract_twice_modulus(tables, high);
}

/// Brings a half below 4 n in limbs of up to 63 bits below 2 n, in limbs of 52 bits: subtracts 2 n in the lanes
/// that it returns.
#[inline(always)]
pub(super) fn subtract_twice_modulus<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    half: &mut Half<V, N>,
) -> V::Mask {
    // A limb of the difference may be negative: 2^8 times 2^52 are added to it, and carried with what it carries.
    const SPARE: u64 = 1 << 8;
    let token = tables.token;
    let mask = V::splat(token, LIMB_MASK);
    propagate_carries(token, half);
    let mut less = *half;
    let none = V::splat(token, SPARE);
    let mut carry = none;
    for (limb, &n) in less.as_flattened_mut().iter_mut().zip(tables.n.as_flattened()) {
        let subtrahend = V::splat(token, (SPARE << LIMB_BITS) - SPARE - 2 * n);
        let difference = limb.add(subtrahend).add(carry);
        *limb = difference.and(mask);
        carry = difference.carried();
    }
    let taken = carry.equal(none);
    for (limb, &less) in half.as_flattened_mut().iter_mut().zip(less.as_flattened()) {
        *limb = limb.replaced(taken, less);
    }
    taken
}

/// Limbs of up to 64 bits as limbs of 52 bits.
#[inline(always)]
pub(super) fn propagate_carries<V: Vector, const N: usize>(token: V::Token, half: &mut Half<V, N>) {
    let mask = V::splat(token, LIMB_MASK);
    let mut carry = V::splat(token, 0);
    for limb in half.as_flattened_mut() {
        let sum = limb.add(carry);
        *limb = sum.and(mask);
        carry = sum.carried();
    }
}

/// The n-adic Montgomery square, 7 L^2 multiply-adds.
#[inline(always)]
pub(super) fn square<V: Vector, const N: usize>(
    tables: &Tables<'_, V, N>,
    [a, b]: &Lanes<V, N>,
    out: &mut Lanes<V, N>,
) {
    let twice = Twice::new(tables.token, a);
    reduce_halves(tables, out, &twice, &Times(&twice.twice, b));
}

/// A number below 2 n, and twice that: their product is twice the square, of which every second half is left out.
struct Twice<'a, V: Vector, const N: usize> {
    once: &'a Half<V, N>,
    /// In limbs of 52 bits.
    twice: Half<V, N>,
    /// For each tile the lanes into whose lowest limb a bit was carried.
    carried: [V::Mask; N],
}

impl<'a, V: Vector, const N: usize> Twice<'a, V, N> {
    #[inline(always)]
    fn new(token: V::Token, once: &'a Half<V, N>) -> Self {
        let (mask, one) = (V::splat(token, LIMB_MASK), V::splat(token, 1));
        let mut twice = *once;
        let mut carry = V::splat(token, 0);
        let mut carried = [carry.equal(one); N];
        for (tile, carried) in twice.iter_mut().zip(&mut carried) {
            *carried = carry.equal(one);
            for limb in tile {
                let doubled = limb.add(*limb);
                *limb = doubled.and(mask).or(carry);
                carry = doubled.carried();
            }
        }
        Self { once, twice, carried }
    }
}

impl<V: Vector, const N: usize> Product<V> for Twice<'_, V, N> {
    #[inline(always)]
    fn add<const PART: u8>(&self, sums: &mut Sums<V>, i: usize, j: usize) {
        let Self { once, twice, carried } = self;
        if i < j {
            multiply_add::<V, PART>(sums, &twice[i], &once[j]);
        } else if i == j {
            multiply_add::<V, PART>(sums, &once[i], &once[i]);
            // The tiles of 2 a below this one lack the bit that doubling carried into it.
            if PART != HIGH {
                for (sum, &limb) in sums[0].iter_mut().zip(&once[i]) {
                    *sum = sum.add(limb.masked(carried[i]));
                }
            }
        }
    }
}

/// Multiply-adds in chains that do not wait for each other, on registers alone: how many times all of [`CHAINS`].
pub(super) struct Chains<V: Vector> {
    pub(super) token: V::Token,
    pub(super) turns: usize,
}

/// As many as fill the pipes, and fit into 16 registers with both factors.
pub(super) const CHAINS: usize = 12;

impl<V: Vector> Work for Chains<V> {
    #[inline(always)]
    fn run(self) {
        let [x, y] = [0x9_E377_9B97_F4A7, 0x1_2345_6789_ABCD].map(black_box);
        let [x, y] = [V::splat(self.token, x), V::splat(self.token, y)];
        let mut sums = [V::splat(self.token, 0); CHAINS];
        for _ in 0..self.turns {
            for sum in &mut sums {
                *sum = sum.multiply_add_low(x, y);
            }
        }
        black_box(sums);
    }
}
