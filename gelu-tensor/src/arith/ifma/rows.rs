//! What is done to rows of limbs, as many at a time as there are lanes.

use zeroize::Zeroizing;

use super::POWER_WINDOW;
use super::kernels::{
    add, mul, mul_low, mul_one_plus, propagate_carries, reduce, square, vectors, zero_lanes,
};
use super::lanes::{GROUPS, broadcast, load, prefetch, select, select_entry, store};
use super::reduction::{TILE, Tables};
use super::vector::{MOST_LANES, Vector};
use crate::arith::kernel::Work;
use crate::arith::operands::Selection;

/// Rows of residues, of `width` limbs each, and the modulus that they are of.
pub(super) struct Rows<'a, V: Vector, const N: usize> {
    pub(super) tables: Tables<'a, V, N>,
    pub(super) limbs: &'a mut [u64],
    pub(super) width: usize,
}

impl<V: Vector, const N: usize> Rows<'_, V, N> {
    /// How many there are.
    #[inline(always)]
    fn count(&self) -> usize {
        self.limbs.len() / self.width
    }
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
        let Self { rows: Rows { tables, limbs, width }, steps, factor } = self;
        let token = tables.token;
        // Zeroed once for all rows, not for every vector.
        let [mut x, mut y, mut out] = [zero_lanes::<V, N>(token); 3];
        let [mut x, mut out] = [&mut x, &mut out];
        for (group, rows) in limbs.chunks_mut(V::LANES * width).enumerate() {
            // Lanes without a row repeat the last one.
            let last = rows.len() / width - 1;
            load(token, vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
            for step in 0..steps {
                load(token, vectors(&mut y), |lane| factor(step, group * V::LANES + lane.min(last)));
                mul(&tables, x, &y, out);
                std::mem::swap(&mut x, &mut out);
            }
            store(token, rows, width, vectors(x));
        }
    }
}

/// `rows[i] *= 1 + m[i] n` for as many m of as many limbs, given the lower half of `R^2 mod n^2`.
pub(super) struct MulOnePlus<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) m: &'a [u64],
    pub(super) r_squared: &'a [[u64; TILE]; N],
}

impl<V: Vector, const N: usize> Work for MulOnePlus<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { tables, limbs, width }, m, r_squared } = self;
        let token = tables.token;
        let [mut x, mut factor, mut out] = [zero_lanes::<V, N>(token); 3];
        let run = V::LANES * width;
        for (rows, m) in limbs.chunks_mut(run).zip(m.chunks(run)) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
            load(token, factor[0].as_flattened_mut(), |lane| &m[lane.min(last) * width..][..width]);
            mul_one_plus(&tables, &x, &factor[0], r_squared, &mut out);
            store(token, rows, width, vectors(&mut out));
        }
    }
}

/// `rows[i] /= R`.
pub(super) struct Reduce<'a, V: Vector, const N: usize>(pub(super) Rows<'a, V, N>);

impl<V: Vector, const N: usize> Work for Reduce<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Rows { tables, limbs, width } = self.0;
        let token = tables.token;
        let [mut x, mut out] = [zero_lanes::<V, N>(token); 2];
        for rows in limbs.chunks_mut(V::LANES * width) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
            reduce(&tables, &x, &mut out);
            store(token, rows, width, vectors(&mut out));
        }
    }
}

/// `rows[i] += y[i]`.
pub(super) struct Add<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) y: &'a [u64],
}

impl<V: Vector, const N: usize> Work for Add<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let Self { rows: Rows { tables, limbs, width }, y } = self;
        let token = tables.token;
        let [mut x, mut addend] = [zero_lanes::<V, N>(token); 2];
        let run = V::LANES * width;
        for (rows, y) in limbs.chunks_mut(run).zip(y.chunks(run)) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
            load(token, vectors(&mut addend), |lane| &y[lane.min(last) * width..][..width]);
            add(&tables, &mut x, &addend);
            store(token, rows, width, vectors(&mut x));
        }
    }
}

/// Multiplies each residue with an entry of every row of a comb, in each of its rounds, and squares it between them. Rows
/// of combs have 64 entries. The residues go through them together, so at most [`GROUPS`] vectors of them.
pub(super) struct MulSelected<'a, V: Vector, const N: usize> {
    pub(super) rows: Rows<'a, V, N>,
    pub(super) selection: Selection<'a>,
    /// The lower half of 1, for rows in factored form.
    pub(super) one: Option<&'a [[u64; TILE]; N]>,
}

impl<V: Vector, const N: usize> Work for MulSelected<'_, V, N> {
    #[inline(always)]
    fn run(self) {
        let last = self.rows.count() - 1;
        let Self { rows: Rows { tables, limbs: residues, width }, selection, one } = self;
        let Selection { rows, rounds, digit, .. } = selection;
        let token = tables.token;
        let groups = last / V::LANES + 1;
        let residue = |group: usize, lane: usize| (group * V::LANES + lane).min(last);
        let [mut x, mut out, mut entries] = [[zero_lanes::<V, N>(token); GROUPS]; 3];
        let mut sums = [zero_lanes::<V, N>(token); GROUPS];
        let [mut x, mut out] = [&mut x, &mut out];
        for (group, x) in x[..groups].iter_mut().enumerate() {
            load(token, vectors(x), |lane| &residues[residue(group, lane) * width..][..width]);
        }
        for (index, row) in (0..rounds).flat_map(|_| rows).enumerate() {
            if index > 0 && index.is_multiple_of(rows.len()) {
                for (x, out) in x[..groups].iter().zip(&mut *out) {
                    square(&tables, x, out);
                }
                std::mem::swap(&mut x, &mut out);
            }
            let mut digits = [[0; MOST_LANES]; GROUPS];
            for (group, digits) in digits.iter_mut().enumerate() {
                for (lane, out) in digits[..V::LANES].iter_mut().enumerate() {
                    *out = digit(index, residue(group, lane));
                }
            }
            select::<V, N>(token, &mut entries[..groups], row.limbs(), &digits);
            let next = rows[(index + 1) % rows.len()].limbs();
            let share = next.len().div_ceil(groups);
            for (group, (x, out)) in x[..groups].iter().zip(&mut *out).enumerate() {
                prefetch(&next[(group * share).min(next.len())..((group + 1) * share).min(next.len())]);
                let entry = &entries[group];
                if one.is_some() {
                    let sums = sums[group][0].as_flattened_mut();
                    for (sum, &addend) in sums.iter_mut().zip(entry[1].as_flattened()) {
                        *sum = sum.add(addend);
                    }
                    mul_low(&tables, x, &entry[0], out);
                } else {
                    mul(&tables, x, entry, out);
                }
            }
            std::mem::swap(&mut x, &mut out);
        }
        if let Some(one) = one {
            for ((x, sums), out) in x[..groups].iter().zip(&mut sums).zip(&mut *out) {
                propagate_carries(token, &mut sums[0]);
                mul_one_plus(&tables, x, &sums[0], one, out);
            }
            std::mem::swap(&mut x, &mut out);
        }
        for (group, x) in x[..groups].iter_mut().enumerate() {
            let start = group * V::LANES * width;
            let end = residues.len().min(start + V::LANES * width);
            store(token, &mut residues[start..end], width, vectors(x));
        }
    }
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
        let Self { rows: Rows { tables, limbs, width }, digits, one } = self;
        let token = tables.token;
        let [mut base, mut x, mut out, mut entry] = [zero_lanes::<V, N>(token); 4];
        let [mut x, mut out] = [&mut x, &mut out];
        for rows in limbs.chunks_mut(V::LANES * width) {
            let last = rows.len() / width - 1;
            load(token, vectors(&mut base), |lane| &rows[lane.min(last) * width..][..width]);
            broadcast(token, vectors(x), one);
            let mut powers = Zeroizing::new(Vec::with_capacity((2 * N * TILE) << POWER_WINDOW));
            powers.extend_from_slice(vectors(x));
            for _ in 1..1 << POWER_WINDOW {
                mul(&tables, &base, x, out);
                std::mem::swap(&mut x, &mut out);
                powers.extend_from_slice(vectors(x));
            }
            broadcast(token, vectors(x), one);
            for (index, &digit) in digits.iter().enumerate() {
                if index > 0 {
                    for _ in 0..POWER_WINDOW {
                        square(&tables, x, out);
                        std::mem::swap(&mut x, &mut out);
                    }
                }
                select_entry(token, vectors(&mut entry), powers.chunks_exact(2 * N * TILE), digit);
                mul(&tables, x, &entry, out);
                std::mem::swap(&mut x, &mut out);
            }
            store(token, rows, width, vectors(x));
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
        let Self { rows: Rows { tables, limbs, width }, times } = self;
        let token = tables.token;
        let [mut x, mut out] = [zero_lanes::<V, N>(token); 2];
        let [mut x, mut out] = [&mut x, &mut out];
        for rows in limbs.chunks_mut(V::LANES * width) {
            let last = rows.len() / width - 1;
            load(token, vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
            for _ in 0..times {
                square(&tables, x, out);
                std::mem::swap(&mut x, &mut out);
            }
            store(token, rows, width, vectors(x));
        }
    }
}
