//! Products with entries of tables, selected without an address that depends on which.

use core::arch::x86_64::*;

use super::TILE;
use super::assembly::{Lanes, Modulus, Sums};
use super::kernels::{Inverse, multiply_one_plus, shorten, vectors, zero_lanes};
use super::lanes::{LANES, load, store};
use super::select::{Choice, ENTRIES};
use crate::arith::operands::Selection;

/// Groups of lanes that go through a table together, so that it is read once.
const GROUPS: usize = 4;

/// Residues that [`mul_selected`] takes.
pub(super) const SELECTED_TOGETHER: usize = GROUPS * LANES;

/// Digits that are summed before the sum is shortened: its limbs stay within 9 · 2^48.
const SUMMED_TOGETHER: usize = 8;

/// Multiplies each of up to [`SELECTED_TOGETHER`] residues of `width` limbs with an entry of every row of a comb, in
/// each of its rounds, and squares it between them. Rows have 64 entries.
#[target_feature(enable = "avx2,fma")]
pub(super) fn mul_selected<const N: usize>(
    (modulus, inverse): (&Modulus<N>, Inverse),
    residues: &mut [u64],
    selection: Selection<'_>,
    width: usize,
) {
    let Selection { rows, rounds, digit, factored } = selection;
    let last = residues.len() / width - 1;
    let groups = last / LANES + 1;
    let residue = |group: usize, lane: usize| (group * LANES + lane).min(last);
    let mut sums = Sums::new(modulus);
    let [mut x, mut entries] = [[zero_lanes::<N>(); GROUPS]; 2];
    let mut exponents = [zero_lanes::<N>()[0]; GROUPS];
    let mut out = zero_lanes::<N>();
    for (group, x) in x[..groups].iter_mut().enumerate() {
        load(vectors(x), |lane| &residues[residue(group, lane) * width..][..width]);
    }
    for (index, row) in (0..rounds).flat_map(|_| rows).enumerate() {
        if index > 0 && index.is_multiple_of(rows.len()) {
            for x in &mut x[..groups] {
                sums.square(x, &mut out);
                *x = out;
            }
        }
        let digits =
            std::array::from_fn(|group| std::array::from_fn(|lane| digit(index, residue(group, lane))));
        select::<N>(&mut entries[..groups], row.limbs(), &digits);
        for ((x, entry), exponent) in x[..groups].iter_mut().zip(&entries).zip(&mut exponents) {
            if factored.is_some() {
                for (sum, &addend) in exponent.as_flattened_mut().iter_mut().zip(entry[1].as_flattened()) {
                    *sum = _mm256_add_pd(*sum, addend);
                }
                if index % SUMMED_TOGETHER == SUMMED_TOGETHER - 1 {
                    shorten(modulus, inverse, exponent);
                }
                sums.product_low(x, &entry[0], &mut out);
            } else {
                sums.product(x, entry, &mut out);
            }
            *x = out;
        }
    }
    for (group, x) in x[..groups].iter_mut().enumerate() {
        if factored.is_some() {
            // The sum of s R is an exponent in Montgomery form.
            shorten(modulus, inverse, &mut exponents[group]);
            multiply_one_plus(&mut sums, inverse, x, &exponents[group]);
        }
        let start = group * LANES * width;
        let end = residues.len().min(start + LANES * width);
        store(&mut residues[start..end], width, vectors(x));
    }
}

/// Entry `digits[lane]` of a table of 64 entries, which holds limb after limb, for up to [`GROUPS`] groups of lanes:
/// `out[group][k]` takes limb k. All entries are read, once for all groups.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn select<const N: usize>(out: &mut [Lanes<N>], table: &[u64], digits: &[[u64; LANES]; GROUPS]) {
    let choices = digits.each_ref().map(|digits| Choice::new(digits));
    for (k, limbs) in table.as_chunks::<ENTRIES>().0.iter().take(2 * N * TILE).enumerate() {
        for (out, choice) in out.iter_mut().zip(&choices) {
            out.as_flattened_mut().as_flattened_mut()[k] = _mm256_castsi256_pd(choice.of(limbs));
        }
    }
}
