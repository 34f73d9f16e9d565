//! From residues mod n^2 to those mod the squares of its factors, and back. See [`Crt`](crate::arith::Crt).

use super::kernels::{Lanes, Scaled, reduce_halves, subtract_twice_modulus, vectors, zero_lanes};
use super::lanes::{load, store};
use super::reduction::{Addend, Half, Product, Sums, TILE, multiply_add_same};
use super::rows::Rows;
use super::vector::Vector;
use crate::arith::kernel::Work;

/// Rows of a number of limbs each, of another modulus.
#[derive(Clone, Copy)]
pub(super) struct Others<'a> {
    pub(super) limbs: &'a [u64],
    pub(super) width: usize,
}

impl<'a> Others<'a> {
    pub(super) fn count(self) -> usize {
        self.limbs.len() / self.width
    }

    /// A row, or the last one where there are not as many.
    #[inline(always)]
    fn at(self, row: usize) -> &'a [u64] {
        let last = self.count() - 1;
        &self.limbs[row.min(last) * self.width..][..self.width]
    }
}

/// A number that is the same in all lanes.
type Same<'a, const N: usize> = &'a [[u64; TILE]; N];

/// From residues mod n^2 to residues mod p^2, for a factor p of n with half as many limbs: as many rows as there are of
/// the whole, given both halves of the residue of 1 mod p^2, `n / p mod p` and `R n / p mod p` (see docs/arithmetic.md,
/// section 6).
pub(super) struct Project<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) whole: Others<'a>,
    pub(super) one: [Same<'a, N>; 2],
    pub(super) cofactors: [Same<'a, N>; 2],
}

impl<V: Vector, const N: usize> Work for Project<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { tables, limbs, width }, whole, one, cofactors } = self;
        let token = tables.token;
        let mut x: [Lanes<V, N>; 2] = [zero_lanes(token); 2];
        let mut out = zero_lanes::<V, N>(token);
        for (group, rows) in limbs.chunks_mut(V::LANES * width).enumerate() {
            load(token, x.as_flattened_mut().as_flattened_mut().as_flattened_mut(), |lane| {
                whole.at(group * V::LANES + lane)
            });
            let [[a0, a1], [b0, b1]] = &x;
            let scaled = |number, scale| Scaled { token, number, scale };
            let low = (Addend(a0), scaled(a1, one[0]));
            let high = (scaled(a1, one[1]), (scaled(b0, cofactors[0]), scaled(b1, cofactors[1])));
            reduce_halves(&tables, &mut out, &low, &high);
            // b0 may be as large as R, so that the high half may be a little above 2 p.
            subtract_twice_modulus(&tables, &mut out[1]);
            store(token, rows, width, vectors(&mut out));
        }
    }
}

/// From residues mod p^2 and mod q^2 to the residues mod n^2 that are both, 12 L^2 multiply-adds: given what the halves of
/// residues mod p^2 and mod q^2 are multiplied with.
pub(super) struct Combine<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) parts: [Others<'a>; 2],
    pub(super) factors: [[Same<'a, N>; 2]; 4],
}

impl<V: Vector, const N: usize> Work for Combine<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { tables, limbs, width }, parts, factors } = self;
        let token = tables.token;
        // Both halves of a residue mod p^2 are as long as one half mod n^2.
        let [mut parts_of_x, mut out] = [zero_lanes::<V, N>(token); 2];
        for (group, rows) in limbs.chunks_mut(V::LANES * width).enumerate() {
            for (x, part) in parts_of_x.iter_mut().zip(parts) {
                load(token, x.as_flattened_mut(), |lane| part.at(group * V::LANES + lane));
            }
            let product = |half| Combination { token, parts: &parts_of_x, factors: &factors, half };
            reduce_halves(&tables, &mut out, &product(0), &product(1));
            store(token, rows, width, vectors(&mut out));
        }
    }
}

/// The sum of the products of four short numbers, two to a part, with one half of their factors.
struct Combination<'a, V: Vector, const N: usize> {
    token: V::Token,
    parts: &'a [Half<V, N>; 2],
    factors: &'a [[Same<'a, N>; 2]; 4],
    half: usize,
}

impl<V: Vector, const N: usize> Product<V> for Combination<'_, V, N> {
    #[inline(always)]
    fn add<const PART: u8>(&self, sums: &mut Sums<V>, i: usize, j: usize) {
        if i < N / 2 {
            let [p, q] = self.parts;
            let numbers = [&p[i], &p[N / 2 + i], &q[i], &q[N / 2 + i]];
            for (x, factor) in numbers.into_iter().zip(self.factors) {
                multiply_add_same::<V, PART>(self.token, sums, x, &factor[self.half][j]);
            }
        }
    }
}
