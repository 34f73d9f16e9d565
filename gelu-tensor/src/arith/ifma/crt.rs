//! From residues mod n^2 to those mod the squares of its factors, and back. See [`Crt`](crate::arith::Crt).

use super::kernels::{subtract_twice_modulus, vectors, zero_lanes};
use super::lanes::{LANES, load, store};
use super::reduction::{Reduction, TILE, Tables, add, multiply_add_same};
use super::{Context, Ifma, halves};
use crate::arith::kernel::Kernel;

/// See [`Kernel::project`](crate::arith::kernel::Kernel::project).
pub(super) fn project<const N: usize>(
    context: &Context,
    out: &mut [u64],
    whole: Rows<'_>,
    [_, one, cofactor, cofactor_r]: [&[u64]; 4],
) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    // n and R n are multiples of the modulus: their low halves are 0.
    let (one, cofactors) = (halves::<N>(one), [cofactor, cofactor_r].map(|factor| halves::<N>(factor)[1]));
    for (out, rows) in out.chunks_mut(LANES * width).zip(whole.groups()) {
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { project_rows(&tables, out, width, rows, [one, cofactors]) };
    }
}

/// See [`Kernel::combine`](crate::arith::kernel::Kernel::combine).
pub(super) fn combine<const N: usize>(
    context: &Context,
    out: &mut [u64],
    [p, q]: [Rows<'_>; 2],
    factors: [&[u64]; 4],
) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    let factors = factors.map(halves::<N>);
    for (out, (p, q)) in out.chunks_mut(LANES * width).zip(p.groups().zip(q.groups())) {
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { combine_rows(&tables, out, width, [p, q], &factors) };
    }
}

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

    /// As many rows at a time as there are lanes.
    fn groups(self) -> impl Iterator<Item = Self> {
        let width = self.width;
        self.limbs.chunks(LANES * width).map(move |limbs| Self { limbs, width })
    }

    /// A row, or the last one where there are not as many.
    fn at(self, row: usize) -> &'a [u64] {
        let last = self.count() - 1;
        &self.limbs[row.min(last) * self.width..][..self.width]
    }
}

/// From residues mod n^2 to residues mod p^2, for a factor p of n with half as many limbs: up to eight rows of `width`
/// limbs each, given the residue of 1 mod p^2, `n / p mod p` and `R n / p mod p` (see docs/arithmetic.md, section 6).
#[target_feature(enable = "avx512f,avx512ifma")]
fn project_rows<const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    width: usize,
    whole: Rows<'_>,
    [[one_low, one_high], [cofactor, cofactor_r]]: [[&[[u64; TILE]; N]; 2]; 2],
) {
    let mut x = [zero_lanes::<N>(); 2];
    load(x.as_flattened_mut().as_flattened_mut().as_flattened_mut(), |lane| whole.at(lane));
    let [[a0, a1], [b0, b1]] = &x;
    let mut out = zero_lanes::<N>();
    let low_quotient = Reduction::new(tables).run(None, &mut out[0], |sums, i, j| {
        add(sums, &a0[i], j);
        multiply_add_same(sums, &a1[i], &one_low[j]);
    });
    Reduction::new(tables).run(Some(&low_quotient), &mut out[1], |sums, i, j| {
        multiply_add_same(sums, &a1[i], &one_high[j]);
        multiply_add_same(sums, &b0[i], &cofactor[j]);
        multiply_add_same(sums, &b1[i], &cofactor_r[j]);
    });
    // b0 may be as large as R, so that the high half may be a little above 2 p.
    subtract_twice_modulus(tables, &mut out[1]);
    store(rows, width, vectors(&mut out));
}

/// The factors that halves of residues mod p^2 and mod q^2 are multiplied with: two for p, two for q.
type Idempotents<'a, const N: usize> = [[&'a [[u64; TILE]; N]; 2]; 4];

/// From residues mod p^2 and mod q^2 to the residues mod n^2 that are both: up to eight rows of `width` limbs each,
/// 12 L^2 multiply-adds.
#[target_feature(enable = "avx512f,avx512ifma")]
fn combine_rows<const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    width: usize,
    parts: [Rows<'_>; 2],
    factors: &Idempotents<'_, N>,
) {
    // Both halves of a residue mod p^2 are as long as one half mod n^2.
    let mut x = zero_lanes::<N>();
    for (x, part) in x.iter_mut().zip(parts) {
        load(x.as_flattened_mut(), |lane| part.at(lane));
    }
    let [p, q] = &x;
    let mut out = zero_lanes::<N>();
    let product = |sums: &mut _, i: usize, j: usize, half: usize| {
        if i < N / 2 {
            for (x, factor) in [&p[i], &p[N / 2 + i], &q[i], &q[N / 2 + i]].into_iter().zip(factors) {
                multiply_add_same(sums, x, &factor[half][j]);
            }
        }
    };
    let low_quotient = Reduction::new(tables).run(None, &mut out[0], |sums, i, j| product(sums, i, j, 0));
    Reduction::new(tables).run(Some(&low_quotient), &mut out[1], |sums, i, j| product(sums, i, j, 1));
    store(rows, width, vectors(&mut out));
}
