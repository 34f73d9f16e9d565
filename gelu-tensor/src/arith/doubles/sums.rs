//! Sums over R of products mod n^2: what every operation is made of.

use super::vector::Vector;
use super::{LIMB_BITS, TILE};

pub(in crate::arith) type Tile<V> = [V; TILE];
pub(in crate::arith) type Digit<V, const N: usize> = [Tile<V>; N];
pub(in crate::arith) type Lanes<V, const N: usize> = [Digit<V, N>; 2];

/// 1.5 2^101: sums from here on are rounded to multiples of 2^49.
pub(in crate::arith) const HIGH: u64 = (1023 + 52 + LIMB_BITS as u64) << 52 | 1 << 51;
/// 1.5 2^52: the bits of a sum with an integer are those of this number plus the integer.
pub(in crate::arith) const LOW: u64 = (1023 + 52) << 52 | 1 << 51;
pub(in crate::arith) const HALF_LIMB: u64 = 1 << (LIMB_BITS - 1);
/// What makes columns positive, so that logical shifts carry.
const BIAS: u64 = 1 << 62;
/// What a column has beside the sums: BIAS and half a limb, so that limbs are rounded, less the bits of LOW.
pub(in crate::arith) const COLUMN: u64 = (BIAS + HALF_LIMB).wrapping_sub(LOW);
/// The bits of a limb in a column.
pub(in crate::arith) const LIMB: u64 = (1 << LIMB_BITS) - 1;
/// What makes the bits of a limb those of a double from 2^52 on, which is [`OFFSET`] too large.
pub(in crate::arith) const DOUBLE: u64 = (1023 + 52) << 52;
pub(in crate::arith) const OFFSET: f64 = ((1u64 << 52) + HALF_LIMB) as f64;

/// What a column takes from one whose upper sums were taken so often: [`COLUMN`], less the BIAS that the column below
/// carries, and less the bits of HIGH, which its upper sums have once more than they were taken.
pub(in crate::arith) const fn column_above(taken: u64) -> u64 {
    COLUMN.wrapping_sub((BIAS >> LIMB_BITS).wrapping_add(HIGH.wrapping_mul(taken + 1)))
}

/// A modulus n of N tiles with its constants, for B = 2^343.
#[derive(Clone, Copy)]
pub(in crate::arith) struct Modulus<'a, V: Vector, const N: usize> {
    pub(in crate::arith) token: V::Token,
    /// n, then `(K n + 1) / B`, then K = -1 / n mod B and -K of a tile each: the same in all lanes.
    pub(in crate::arith) constants: &'a [Tile<V>],
    /// About 1 over the limb of n that has its top bit, and which limb that is.
    pub(super) inverse: f64,
    pub(super) top_limb: usize,
}

impl<'a, V: Vector, const N: usize> Modulus<'a, V, N> {
    /// The tiles of n.
    #[inline(always)]
    pub(super) fn n(&self) -> &'a [Tile<V>] {
        &self.constants[..N]
    }
}

/// Sums over R of products mod n^2, with the space that they need.
pub(in crate::arith) trait Sums<'a, V: Vector, const N: usize> {
    fn new(modulus: Modulus<'a, V, N>) -> Self;

    /// `x y / R`.
    fn product(&mut self, x: &Lanes<V, N>, y: &Lanes<V, N>, out: &mut Lanes<V, N>);

    /// `x y / R` for y whose upper digit is 0.
    fn product_low(&mut self, x: &Lanes<V, N>, y: &Digit<V, N>, out: &mut Lanes<V, N>);

    /// `x^2 / R`.
    fn square(&mut self, x: &Lanes<V, N>, out: &mut Lanes<V, N>);

    /// `x / R`.
    fn reduce(&mut self, x: &Lanes<V, N>, out: &mut Lanes<V, N>);

    /// `x y / R mod n`.
    fn digit_product(&mut self, x: &Digit<V, N>, y: &Digit<V, N>, out: &mut Digit<V, N>);

    /// The sum of four digits times four factors over R, of which the last two have lower digits 0: `y` has both lower
    /// digits that count, then all upper ones. N is 6 at most.
    fn project(&mut self, x: &[Digit<V, N>; 4], y: &[Digit<V, N>; 6], out: &mut Lanes<V, N>);

    /// The sum of four digits of half the length times four factors over R: `y` has all lower digits, then all upper ones.
    fn combine<const M: usize>(&mut self, x: &[Digit<V, M>; 4], y: &[Digit<V, N>; 8], out: &mut Lanes<V, N>);
}
