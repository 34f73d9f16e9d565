//! From residues mod n^2 to those mod the squares of its factors, and back. See [`Crt`](crate::arith::Crt).

use super::TILE;
use super::lanes::{broadcast, load_digit, store};
use super::rows::{Rows, shorten_both, vectors, zero_lanes};
use super::sums::{Digit, Sums};
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

    /// Limbs of one digit of a row, or of the last one where there are not as many.
    #[inline(always)]
    fn digit(self, row: usize, digit: usize) -> &'a [u64] {
        let row = row.min(self.count() - 1);
        &self.limbs[row * self.width + digit * self.width / 2..][..self.width / 2]
    }
}

/// From residues mod n^2 to residues mod p^2, for a factor p of n, given what the four parts of a residue are multiplied with
/// (see docs/arithmetic.md, section 6).
pub(super) struct Project<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) whole: Others<'a>,
    pub(super) factors: [&'a [u64]; 4],
}

impl<V: Vector, const N: usize> Work for Project<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs: rows, width }, whole, factors } = self;
        let [one, r, cofactor, cofactor_r] = factors;
        let token = modulus.token;
        let mut sums = V::Sums::<'_, N>::new(modulus);
        let zero = zero_lanes::<V, N>(token)[0];
        let limbs = TILE * N;
        // Multiples of n are multiples of p: their lower digits are 0.
        let mut factors = [zero; 6];
        let digits = [
            &one[..limbs],
            &r[..limbs],
            &one[limbs..],
            &r[limbs..],
            &cofactor[limbs..],
            &cofactor_r[limbs..],
        ];
        for (factor, digit) in factors.iter_mut().zip(digits) {
            broadcast(token, factor.as_flattened_mut(), digit);
        }
        let (mut x, mut out) = ([zero; 4], zero_lanes::<V, N>(token));
        for (group, rows) in rows.chunks_mut(V::LANES * width).enumerate() {
            let (halves, _) = x.as_chunks_mut::<2>();
            for (digit, halves) in halves.iter_mut().enumerate() {
                // What n's digits have less than twice p's limbs stays 0.
                let halves = &mut halves.as_flattened_mut().as_flattened_mut()[..whole.width / 2];
                load_digit(token, halves, |lane| whole.digit(group * V::LANES + lane, digit));
            }
            sums.project(&x, &factors, &mut out);
            // Lower halves may be as large as R / 2, so that digits may be above n.
            shorten_both(&modulus, &mut out);
            store(rows, width, vectors(&mut out));
        }
    }
}

/// From residues mod p^2 and mod q^2 to the residues mod n^2 that are both, for p and q of M tiles.
pub(super) struct Combine<'a, V: Vector, const N: usize, const M: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) parts: [Others<'a>; 2],
    pub(super) factors: [&'a [u64]; 4],
}

impl<V: Vector, const N: usize, const M: usize> Work for Combine<'_, V, N, M> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs: rows, width }, parts, factors } = self;
        let token = modulus.token;
        let mut sums = V::Sums::<'_, N>::new(modulus);
        let mut out = zero_lanes::<V, N>(token);
        let zero: Digit<V, M> = zero_lanes::<V, M>(token)[0];
        let (mut x, mut y) = ([zero; 4], [out[0]; 8]);
        for (k, factor) in factors.iter().enumerate() {
            for (digit, limbs) in factor.chunks_exact(TILE * N).enumerate() {
                broadcast(token, y[4 * digit + k].as_flattened_mut(), limbs);
            }
        }
        for (group, rows) in rows.chunks_mut(V::LANES * width).enumerate() {
            for (k, x) in x.iter_mut().enumerate() {
                load_digit(token, x.as_flattened_mut(), |lane| {
                    parts[k / 2].digit(group * V::LANES + lane, k % 2)
                });
            }
            sums.combine(&x, &y, &mut out);
            store(rows, width, vectors(&mut out));
        }
    }
}
