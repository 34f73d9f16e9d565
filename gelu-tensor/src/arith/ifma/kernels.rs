//! Products and squares of eight residues, column by column in tiles of 5x5 limbs.
//!
//! A tile adds the 25 products of five limbs of one factor and five of the other to nine columns, all in registers;
//! tiles on one diagonal share their columns, so that accumulators are moved only once a diagonal. Low and high halves
//! of products have accumulators of their own, which halves the chains of dependent instructions. See
//! [`reduction`](super::reduction) for the rest of a diagonal.

use core::arch::x86_64::*;
use core::hint::black_box;

use zeroize::Zeroizing;

use super::lanes::{GROUPS, LANES, broadcast, load, prefetch, select, select_entry, store};
use super::reduction::{Half, Reduction, TILE, Tables, add, multiply_add, multiply_add_same};
use super::{LIMB_BITS, LIMB_MASK, POWER_WINDOW};
use crate::arith::operands::Selection;

type Lanes<const N: usize> = [Half<N>; 2];

/// Multiplies rows of `width` limbs with `factor(step, i)`, for each step in turn.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_rows<'a, const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    steps: usize,
    factor: impl Fn(usize, usize) -> &'a [u64],
    width: usize,
) {
    // Zeroed once for all rows, not for every eight.
    let [mut x, mut y, mut out] = [zero_lanes::<N>(); 3];
    let [mut x, mut out] = [&mut x, &mut out];
    for (group, rows) in rows.chunks_mut(LANES * width).enumerate() {
        // Lanes without a row repeat the last one.
        let last = rows.len() / width - 1;
        load(vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
        for step in 0..steps {
            load(vectors(&mut y), |lane| factor(step, group * LANES + lane.min(last)));
            mul(tables, x, &y, out);
            std::mem::swap(&mut x, &mut out);
        }
        store(rows, width, vectors(x));
    }
}

/// `rows[i] *= 1 + m[i] n` for up to eight rows, and as many m, of `width` limbs, given the lower half of `R^2 mod n^2`.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_one_plus_rows<const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    m: &[u64],
    r_squared: &[[u64; TILE]; N],
    width: usize,
) {
    let last = rows.len() / width - 1;
    let [mut x, mut factor, mut out] = [zero_lanes::<N>(); 3];
    load(vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
    load(factor[0].as_flattened_mut(), |lane| &m[lane.min(last) * width..][..width]);
    mul_one_plus(tables, &x, &factor[0], r_squared, &mut out);
    store(rows, width, vectors(&mut out));
}

/// `rows[i] /= R` for up to eight rows of `width` limbs: two reductions, 4 L^2 multiply-adds.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn reduce_rows<const N: usize>(tables: &Tables<'_, N>, rows: &mut [u64], width: usize) {
    let last = rows.len() / width - 1;
    let [mut x, mut out] = [zero_lanes::<N>(); 2];
    load(vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
    let [a, b] = &x;
    let low_quotient = Reduction::new(tables).run(None, &mut out[0], |sums, i, j| add(sums, &a[i], j));
    Reduction::new(tables).run(Some(&low_quotient), &mut out[1], |sums, i, j| add(sums, &b[i], j));
    store(rows, width, vectors(&mut out));
}

/// `rows[i] += y[i]` for up to eight rows of `width` limbs.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add_rows<const N: usize>(tables: &Tables<'_, N>, rows: &mut [u64], y: &[u64], width: usize) {
    let last = rows.len() / width - 1;
    let [mut x, mut addend] = [zero_lanes::<N>(); 2];
    load(vectors(&mut x), |lane| &rows[lane.min(last) * width..][..width]);
    load(vectors(&mut addend), |lane| &y[lane.min(last) * width..][..width]);
    let [low, high] = &mut x;
    for (half, addend) in [&mut *low, &mut *high].into_iter().zip(&addend) {
        for (limb, &addend) in half.as_flattened_mut().iter_mut().zip(addend.as_flattened()) {
            *limb = _mm512_add_epi64(*limb, addend);
        }
    }
    // What is taken from the low half as 2 n is 2 in the high one.
    let taken = subtract_twice_modulus(tables, low);
    subtract_twice_modulus(tables, high);
    high[0][0] = _mm512_mask_add_epi64(high[0][0], taken, high[0][0], _mm512_set1_epi64(2));
    subtract_twice_modulus(tables, high);
    store(rows, width, vectors(&mut x));
}

/// Brings a half below 4 n in limbs of up to 63 bits below 2 n, in limbs of 52 bits: subtracts 2 n in the lanes
/// that it returns.
#[target_feature(enable = "avx512f")]
pub(super) fn subtract_twice_modulus<const N: usize>(tables: &Tables<'_, N>, half: &mut Half<N>) -> __mmask8 {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    propagate_carries(half);
    let mut less = *half;
    let mut borrow = _mm512_setzero_si512();
    for (limb, &n) in less.as_flattened_mut().iter_mut().zip(tables.n.as_flattened()) {
        let difference = _mm512_sub_epi64(*limb, _mm512_set1_epi64(2 * n as i64));
        let difference = _mm512_add_epi64(difference, borrow);
        *limb = _mm512_and_si512(difference, mask);
        borrow = _mm512_srai_epi64::<{ LIMB_BITS as u32 }>(difference);
    }
    let taken = _mm512_cmpeq_epi64_mask(borrow, _mm512_setzero_si512());
    for (limb, &less) in half.as_flattened_mut().iter_mut().zip(less.as_flattened()) {
        *limb = _mm512_mask_mov_epi64(*limb, taken, less);
    }
    taken
}

/// Residues that [`mul_selected`] takes.
pub(super) const SELECTED_TOGETHER: usize = GROUPS * LANES;

/// Multiplies each of up to [`SELECTED_TOGETHER`] residues of `width` limbs with an entry of every row of a comb, in
/// each of its rounds, and squares it between them. Rows have 64 entries.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_selected<const N: usize>(
    tables: &Tables<'_, N>,
    residues: &mut [u64],
    selection: Selection<'_>,
    one: Option<&[[u64; TILE]; N]>,
    width: usize,
) {
    let Selection { rows, rounds, digit, .. } = selection;
    let last = residues.len() / width - 1;
    let groups = last / LANES + 1;
    let residue = |group: usize, lane: usize| (group * LANES + lane).min(last);
    let [mut x, mut out, mut entries] = [[zero_lanes::<N>(); GROUPS]; 3];
    let mut sums = [zero_lanes::<N>(); GROUPS];
    let [mut x, mut out] = [&mut x, &mut out];
    for (group, x) in x[..groups].iter_mut().enumerate() {
        load(vectors(x), |lane| &residues[residue(group, lane) * width..][..width]);
    }
    for (index, row) in (0..rounds).flat_map(|_| rows).enumerate() {
        if index > 0 && index.is_multiple_of(rows.len()) {
            for (x, out) in x[..groups].iter().zip(&mut *out) {
                square(tables, x, out);
            }
            std::mem::swap(&mut x, &mut out);
        }
        let digits =
            std::array::from_fn(|group| std::array::from_fn(|lane| digit(index, residue(group, lane))));
        select::<N>(&mut entries[..groups], row.limbs(), &digits);
        let next = rows[(index + 1) % rows.len()].limbs();
        let share = next.len().div_ceil(groups);
        for (group, (x, out)) in x[..groups].iter().zip(&mut *out).enumerate() {
            prefetch(&next[(group * share).min(next.len())..((group + 1) * share).min(next.len())]);
            let entry = &entries[group];
            if one.is_some() {
                let sums = sums[group][0].as_flattened_mut();
                for (sum, &addend) in sums.iter_mut().zip(entry[1].as_flattened()) {
                    *sum = _mm512_add_epi64(*sum, addend);
                }
                mul_low(tables, x, &entry[0], out);
            } else {
                mul(tables, x, entry, out);
            }
        }
        std::mem::swap(&mut x, &mut out);
    }
    if let Some(one) = one {
        for ((x, sums), out) in x[..groups].iter().zip(&mut sums).zip(&mut *out) {
            propagate_carries(&mut sums[0]);
            mul_one_plus(tables, x, &sums[0], one, out);
        }
        std::mem::swap(&mut x, &mut out);
    }
    for (group, x) in x[..groups].iter_mut().enumerate() {
        let start = group * LANES * width;
        let end = residues.len().min(start + LANES * width);
        store(&mut residues[start..end], width, vectors(x));
    }
}

/// Raises up to eight rows of `width` limbs to one power, whose digits in base `2^POWER_WINDOW` come from the top.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn power_rows<const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    digits: impl Iterator<Item = u64>,
    one: &[u64],
    width: usize,
) {
    let last = rows.len() / width - 1;
    let [mut base, mut x, mut out, mut entry] = [zero_lanes::<N>(); 4];
    let [mut x, mut out] = [&mut x, &mut out];
    load(vectors(&mut base), |lane| &rows[lane.min(last) * width..][..width]);
    broadcast(vectors(x), one);
    let mut powers = Zeroizing::new(Vec::with_capacity((2 * N * TILE) << POWER_WINDOW));
    powers.extend_from_slice(vectors(x));
    for _ in 1..1 << POWER_WINDOW {
        mul(tables, &base, x, out);
        std::mem::swap(&mut x, &mut out);
        powers.extend_from_slice(vectors(x));
    }
    broadcast(vectors(x), one);
    for (index, digit) in digits.enumerate() {
        if index > 0 {
            for _ in 0..POWER_WINDOW {
                square(tables, x, out);
                std::mem::swap(&mut x, &mut out);
            }
        }
        select_entry(vectors(&mut entry), powers.chunks_exact(2 * N * TILE), digit);
        mul(tables, x, &entry, out);
        std::mem::swap(&mut x, &mut out);
    }
    store(rows, width, vectors(x));
}

/// `rows[i] = rows[i]^(2^times)` for rows of `width` limbs.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn square_rows<const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    times: usize,
    width: usize,
) {
    let [mut x, mut out] = [zero_lanes::<N>(); 2];
    let [mut x, mut out] = [&mut x, &mut out];
    for rows in rows.chunks_mut(LANES * width) {
        let last = rows.len() / width - 1;
        load(vectors(x), |lane| &rows[lane.min(last) * width..][..width]);
        for _ in 0..times {
            square(tables, x, out);
            std::mem::swap(&mut x, &mut out);
        }
        store(rows, width, vectors(x));
    }
}

/// All vectors of both halves, in order.
pub(super) fn vectors<const N: usize>(lanes: &mut Lanes<N>) -> &mut [__m512i] {
    lanes.as_flattened_mut().as_flattened_mut()
}

#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn zero_lanes<const N: usize>() -> Lanes<N> {
    const { assert!(2 * N * TILE >= LANES) };
    [[[_mm512_setzero_si512(); TILE]; N]; 2]
}

/// The n-adic Montgomery product, 10 L^2 multiply-adds.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn mul<const N: usize>(tables: &Tables<'_, N>, x: &Lanes<N>, y: &Lanes<N>, out: &mut Lanes<N>) {
    let [a, b] = x;
    let [c, d] = y;
    let low_quotient = Reduction::new(tables).run(None, &mut out[0], |sums, i, j| {
        multiply_add(sums, &a[i], &c[j]);
    });
    Reduction::new(tables).run(Some(&low_quotient), &mut out[1], |sums, i, j| {
        multiply_add(sums, &a[i], &d[j]);
        multiply_add(sums, &b[i], &c[j]);
    });
}

/// The product with a factor whose high half is zero, 8 L^2 multiply-adds.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn mul_low<const N: usize>(tables: &Tables<'_, N>, [a, b]: &Lanes<N>, c: &Half<N>, out: &mut Lanes<N>) {
    let low_quotient = Reduction::new(tables).run(None, &mut out[0], |sums, i, j| {
        multiply_add(sums, &a[i], &c[j]);
    });
    Reduction::new(tables).run(Some(&low_quotient), &mut out[1], |sums, i, j| {
        multiply_add(sums, &b[i], &c[j]);
    });
}

/// The product of x with 1 + (m scale / R) n, which changes the high half only: 8 L^2 multiply-adds.
#[target_feature(enable = "avx512f,avx512ifma")]
fn mul_one_plus<const N: usize>(
    tables: &Tables<'_, N>,
    [a, b]: &Lanes<N>,
    m: &Half<N>,
    scale: &[[u64; TILE]; N],
    out: &mut Lanes<N>,
) {
    let [mut factor, _] = zero_lanes::<N>();
    Reduction::new(tables).run(None, &mut factor, |sums, i, j| multiply_add_same(sums, &m[i], &scale[j]));
    out[0] = *a;
    Reduction::new(tables).run(None, &mut out[1], |sums, i, j| multiply_add(sums, &a[i], &factor[j]));
    for (limb, &addend) in out[1].as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        *limb = _mm512_add_epi64(*limb, addend);
    }
    subtract_twice_modulus(tables, &mut out[1]);
}

/// Limbs of up to 64 bits as limbs of 52 bits.
#[target_feature(enable = "avx512f")]
fn propagate_carries<const N: usize>(half: &mut Half<N>) {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let mut carry = _mm512_setzero_si512();
    for limb in half.as_flattened_mut() {
        let sum = _mm512_add_epi64(*limb, carry);
        *limb = _mm512_and_si512(sum, mask);
        carry = _mm512_srli_epi64::<{ LIMB_BITS as u32 }>(sum);
    }
}

/// The n-adic Montgomery square, 7 L^2 multiply-adds.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn square<const N: usize>(tables: &Tables<'_, N>, x: &Lanes<N>, out: &mut Lanes<N>) {
    let [a, b] = x;
    let (twice, carried) = double(a);
    let low_quotient = Reduction::new(tables).run(None, &mut out[0], |sums, i, j| {
        if i < j {
            multiply_add(sums, &twice[i], &a[j]);
        } else if i == j {
            multiply_add(sums, &a[i], &a[i]);
            // The tiles of 2 a below this one lack the bit that doubling carried into it.
            for (sum, &limb) in sums[0].iter_mut().zip(&a[i]) {
                *sum = _mm512_mask_add_epi64(*sum, carried[i], *sum, limb);
            }
        }
    });
    Reduction::new(tables).run(Some(&low_quotient), &mut out[1], |sums, i, j| {
        multiply_add(sums, &twice[i], &b[j]);
    });
}

/// 2 a for a below 2 n, in limbs of 52 bits, and for each tile the lanes into whose lowest limb a bit was carried.
#[target_feature(enable = "avx512f")]
#[inline]
fn double<const N: usize>(a: &Half<N>) -> (Half<N>, [__mmask8; N]) {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let mut out = *a;
    let mut carried = [0; N];
    let mut carry = _mm512_setzero_si512();
    for (tile, carried) in out.iter_mut().zip(&mut carried) {
        *carried = _mm512_test_epi64_mask(carry, carry);
        for limb in tile {
            let doubled = _mm512_or_si512(_mm512_slli_epi64::<1>(*limb), carry);
            carry = _mm512_srli_epi64::<{ LIMB_BITS as u32 - 1 }>(*limb);
            *limb = _mm512_and_si512(doubled, mask);
        }
    }
    (out, carried)
}

/// Multiply-adds in chains that do not wait for each other, on registers alone; how many.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn multiply_add_chains() -> usize {
    const TURNS: usize = 50_000;
    let [x, y] = [0x9_E377_9B97_F4A7, 0x1_2345_6789_ABCD].map(|limb| _mm512_set1_epi64(black_box(limb)));
    let mut sums = [_mm512_setzero_si512(); 16];
    for _ in 0..TURNS {
        for sum in &mut sums {
            *sum = _mm512_madd52lo_epu64(*sum, x, y);
        }
    }
    black_box(sums);
    TURNS * sums.len()
}
