//! From residues mod n^2 to those mod the squares of its factors, and back. See [`Crt`](crate::arith::Crt).

use super::TILE;
use super::assembly::{Digit, Modulus, Sums};
use super::kernels::{Inverse, shorten_both, vectors, zero_lanes};
use super::lanes::{LANES, broadcast, load_digit, store};

/// Rows of a number of limbs each.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) limbs: &'a [u64],
    pub(super) width: usize,
}

impl<'a> Rows<'a> {
    pub(super) fn count(self) -> usize {
        self.limbs.len() / self.width
    }

    /// Limbs of one digit of a row, or of the last one where there are not as many.
    fn digit(self, row: usize, digit: usize) -> &'a [u64] {
        let row = row.min(self.count() - 1);
        &self.limbs[row * self.width + digit * self.width / 2..][..self.width / 2]
    }
}

/// From residues mod n^2 to residues mod p^2, for a factor p of n, given what the four parts of a residue are multiplied with
/// (see docs/arithmetic.md, section 6).
#[target_feature(enable = "avx2,fma")]
pub(super) fn project_rows<const N: usize>(
    (modulus, inverse): (&Modulus<N>, Inverse),
    rows: &mut [u64],
    width: usize,
    whole: Rows<'_>,
    [one, r, cofactor, cofactor_r]: [&[u64]; 4],
) {
    let mut sums = Sums::new(modulus);
    let zero = zero_lanes::<N>()[0];
    let limbs = TILE * N;
    // Multiples of n are multiples of p: their lower digits are 0.
    let mut factors = [zero; 6];
    let digits =
        [&one[..limbs], &r[..limbs], &one[limbs..], &r[limbs..], &cofactor[limbs..], &cofactor_r[limbs..]];
    for (factor, digit) in factors.iter_mut().zip(digits) {
        broadcast(factor.as_flattened_mut(), digit);
    }
    let (mut x, mut out) = ([zero; 4], zero_lanes::<N>());
    for (group, rows) in rows.chunks_mut(LANES * width).enumerate() {
        let (halves, _) = x.as_chunks_mut::<2>();
        for (digit, halves) in halves.iter_mut().enumerate() {
            // What n's digits have less than twice p's limbs stays 0.
            let halves = &mut halves.as_flattened_mut().as_flattened_mut()[..whole.width / 2];
            load_digit(halves, |lane| whole.digit(group * LANES + lane, digit));
        }
        sums.project(&x, &factors, &mut out);
        // Lower halves may be as large as R / 2, so that digits may be above n.
        shorten_both(modulus, inverse, &mut out);
        store(rows, width, vectors(&mut out));
    }
}

/// From residues mod p^2 and mod q^2 to the residues mod n^2 that are both.
#[target_feature(enable = "avx2,fma")]
pub(super) fn combine_rows<const N: usize, const M: usize>(
    modulus: &Modulus<N>,
    rows: &mut [u64],
    width: usize,
    parts: [Rows<'_>; 2],
    factors: [&[u64]; 4],
) {
    let mut sums = Sums::new(modulus);
    let mut out = zero_lanes::<N>();
    let zero: Digit<M> = zero_lanes::<M>()[0];
    let (mut x, mut y) = ([zero; 4], [out[0]; 8]);
    for (k, factor) in factors.iter().enumerate() {
        for (digit, limbs) in factor.chunks_exact(TILE * N).enumerate() {
            broadcast(y[4 * digit + k].as_flattened_mut(), limbs);
        }
    }
    for (group, rows) in rows.chunks_mut(LANES * width).enumerate() {
        for (k, x) in x.iter_mut().enumerate() {
            load_digit(x.as_flattened_mut(), |lane| parts[k / 2].digit(group * LANES + lane, k % 2));
        }
        sums.combine(&x, &y, &mut out);
        store(rows, width, vectors(&mut out));
    }
}
