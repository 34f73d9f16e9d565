//! Products with entries of tables, selected without an address that depends on which.

use super::lanes::{GROUPS, load, select, store};
use super::rows::{Rows, multiply_one_plus, shorten, vectors, zero_lanes};
use super::sums::Sums;
use super::vector::{MOST_LANES, Vector};
use crate::arith::kernel::Work;
use crate::arith::operands::Selection;

/// Digits that are summed before the sum is shortened: its limbs stay within 9 · 2^48.
const SUMMED_TOGETHER: usize = 8;

/// Multiplies each residue with an entry of every row of a comb, in each of its rounds, and squares it between them. Rows
/// of combs have 64 entries. The residues go through them together, so at most [`GROUPS`] vectors of them.
pub(super) struct MulSelected<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) selection: Selection<'a>,
}

impl<V: Vector, const N: usize> Work for MulSelected<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { modulus, limbs: residues, width }, selection } = self;
        let Selection { rows, rounds, digit, factored } = selection;
        let token = modulus.token;
        let last = residues.len() / width - 1;
        let groups = last / V::LANES + 1;
        let residue = |group: usize, lane: usize| (group * V::LANES + lane).min(last);
        let mut sums = V::Sums::<'_, N>::new(modulus);
        let [mut x, mut entries] = [[zero_lanes::<V, N>(token); GROUPS]; 2];
        let mut exponents = [zero_lanes::<V, N>(token)[0]; GROUPS];
        let mut out = zero_lanes::<V, N>(token);
        for (group, x) in x[..groups].iter_mut().enumerate() {
            load(token, vectors(x), |lane| &residues[residue(group, lane) * width..][..width]);
        }
        for (index, row) in (0..rounds).flat_map(|_| rows).enumerate() {
            if index > 0 && index.is_multiple_of(rows.len()) {
                for x in &mut x[..groups] {
                    sums.square(x, &mut out);
                    *x = out;
                }
            }
            let mut digits = [[0; MOST_LANES]; GROUPS];
            for (group, digits) in digits.iter_mut().enumerate() {
                for (lane, out) in digits[..V::LANES].iter_mut().enumerate() {
                    *out = digit(index, residue(group, lane));
                }
            }
            select::<V, N>(token, &mut entries[..groups], row.limbs(), &digits);
            for ((x, entry), exponent) in x[..groups].iter_mut().zip(&entries).zip(&mut exponents) {
                if factored.is_some() {
                    for (sum, &addend) in exponent.as_flattened_mut().iter_mut().zip(entry[1].as_flattened())
                    {
                        *sum = sum.add(addend);
                    }
                    if index % SUMMED_TOGETHER == SUMMED_TOGETHER - 1 {
                        shorten(&modulus, exponent);
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
                shorten(&modulus, &mut exponents[group]);
                multiply_one_plus(&modulus, &mut sums, x, &exponents[group]);
            }
            let start = group * V::LANES * width;
            let end = residues.len().min(start + V::LANES * width);
            store(&mut residues[start..end], width, vectors(x));
        }
    }
}
