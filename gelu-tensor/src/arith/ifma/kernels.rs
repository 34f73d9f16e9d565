//! Products and squares of eight residues, column by column in tiles of 5x5 limbs.
//!
//! A tile adds the 25 products of five limbs of one factor and five of the other to nine columns, all in registers;
//! tiles on one diagonal share their columns, so that accumulators are moved only once a diagonal. Low and high halves
//! of products have accumulators of their own, which halves the chains of dependent instructions.

use core::arch::x86_64::*;

use super::lanes::{LANES, load, select, store};
use super::{LIMB_BITS, LIMB_MASK};
use crate::arith::Residues;

/// Limbs on the side of a tile.
pub(super) const TILE: usize = 5;

type Tile = [__m512i; TILE];
type Half<const N: usize> = [Tile; N];
type Lanes<const N: usize> = [Half<N>; 2];
/// The columns that a diagonal of tiles adds to, with what is carried from the diagonal before.
type Columns = [__m512i; 2 * TILE];
/// Sums of the low and of the high halves of a diagonal's products; the high ones belong one column up.
type Sums = [[__m512i; 2 * TILE - 1]; 2];

/// The constants of a modulus, the same in all lanes.
pub(super) struct Tables<'a, const N: usize> {
    pub(super) n: &'a [[u64; TILE]; N],
    pub(super) lift: &'a [[u64; TILE]; N],
    pub(super) negative_inverse: u64,
}

/// `rows[i] *= factor(i)` for up to eight rows of `width` limbs.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_rows<'a, const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    factor: impl Fn(usize) -> &'a [u64],
    width: usize,
) {
    let last = rows.len() / width - 1;
    let mut x = zero_lanes::<N>();
    let mut y = zero_lanes::<N>();
    // Lanes without a row repeat the last one.
    load(x.as_flattened_mut().as_flattened_mut(), |lane| &rows[lane.min(last) * width..][..width]);
    load(y.as_flattened_mut().as_flattened_mut(), |lane| factor(lane.min(last)));
    let mut out = zero_lanes::<N>();
    mul(tables, &x, &y, &mut out);
    store(rows, width, out.as_flattened().as_flattened());
}

/// Multiplies each of up to eight residues of `width` limbs with an entry of every table, which hold 32 entries each,
/// limb by limb.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_selected<const N: usize>(
    tables: &Tables<'_, N>,
    residues: &mut [u64],
    selection: &[Residues],
    digits: &dyn Fn(usize) -> [u64; LANES],
    width: usize,
) {
    let last = residues.len() / width - 1;
    let mut x = zero_lanes::<N>();
    let mut y = zero_lanes::<N>();
    let mut out = zero_lanes::<N>();
    load(x.as_flattened_mut().as_flattened_mut(), |lane| &residues[lane.min(last) * width..][..width]);
    for (index, table) in selection.iter().enumerate() {
        select(y.as_flattened_mut().as_flattened_mut(), table.limbs(), digits(index));
        mul(tables, &x, &y, &mut out);
        std::mem::swap(&mut x, &mut out);
    }
    store(residues, width, x.as_flattened().as_flattened());
}

/// `rows[i] = rows[i]^(2^times)` for up to eight rows of `width` limbs.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn square_rows<const N: usize>(
    tables: &Tables<'_, N>,
    rows: &mut [u64],
    times: usize,
    width: usize,
) {
    let last = rows.len() / width - 1;
    let mut x = zero_lanes::<N>();
    load(x.as_flattened_mut().as_flattened_mut(), |lane| &rows[lane.min(last) * width..][..width]);
    for _ in 0..times {
        let mut out = zero_lanes::<N>();
        square(tables, &x, &mut out);
        x = out;
    }
    store(rows, width, x.as_flattened().as_flattened());
}

#[target_feature(enable = "avx512f")]
#[inline]
fn zero_lanes<const N: usize>() -> Lanes<N> {
    const { assert!(2 * N * TILE >= LANES) };
    [[[_mm512_setzero_si512(); TILE]; N]; 2]
}

/// The n-adic Montgomery product, 10 L^2 multiply-adds.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn mul<const N: usize>(tables: &Tables<'_, N>, x: &Lanes<N>, y: &Lanes<N>, out: &mut Lanes<N>) {
    let [a, b] = x;
    let [c, d] = y;
    let quotient = reduce(tables, None, &mut out[0], |sums, diagonal| {
        for i in tiles_on::<N>(diagonal) {
            multiply_add(sums, &a[i], &c[diagonal - i]);
        }
    });
    reduce(tables, Some(&quotient), &mut out[1], |sums, diagonal| {
        for i in tiles_on::<N>(diagonal) {
            multiply_add(sums, &a[i], &d[diagonal - i]);
            multiply_add(sums, &b[i], &c[diagonal - i]);
        }
    });
}

/// The n-adic Montgomery square, 7 L^2 multiply-adds: tiles off the middle once, doubled.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn square<const N: usize>(tables: &Tables<'_, N>, x: &Lanes<N>, out: &mut Lanes<N>) {
    let [a, b] = x;
    let quotient = reduce(tables, None, &mut out[0], |sums, diagonal| {
        for i in tiles_on::<N>(diagonal).take_while(|i| 2 * i < diagonal) {
            multiply_add(sums, &a[i], &a[diagonal - i]);
        }
        double(sums);
        if diagonal % 2 == 0 {
            multiply_add(sums, &a[diagonal / 2], &a[diagonal / 2]);
        }
    });
    reduce(tables, Some(&quotient), &mut out[1], |sums, diagonal| {
        for i in tiles_on::<N>(diagonal) {
            multiply_add(sums, &a[i], &b[diagonal - i]);
        }
        double(sums);
    });
}

/// First indices of the tiles (i, diagonal - i).
#[inline]
fn tiles_on<const N: usize>(diagonal: usize) -> impl Iterator<Item = usize> {
    diagonal.saturating_sub(N - 1)..=diagonal.min(N - 1)
}

/// Montgomery-reduces what `product` adds to the sums of each diagonal, into limbs of 52 bits, and returns the
/// quotient digits. With the `quotient` of the low half, `V - m` is added first.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn reduce<const N: usize>(
    tables: &Tables<'_, N>,
    low_quotient: Option<&Half<N>>,
    out: &mut Half<N>,
    product: impl Fn(&mut Sums, usize),
) -> Half<N> {
    let zero = _mm512_setzero_si512();
    let negative_inverse = _mm512_set1_epi64(tables.negative_inverse as i64);
    let mut quotient = [[zero; TILE]; N];
    let mut columns = [zero; 2 * TILE];
    for diagonal in 0..2 * N - 1 {
        let mut sums = [[zero; 2 * TILE - 1]; 2];
        product(&mut sums, diagonal);
        if diagonal < N {
            if let Some(m) = low_quotient {
                for i in 0..TILE {
                    let lift = _mm512_set1_epi64(tables.lift[diagonal][i] as i64);
                    columns[i] = _mm512_add_epi64(columns[i], _mm512_sub_epi64(lift, m[diagonal][i]));
                }
            }
            for (i, digits) in quotient[..diagonal].iter().enumerate() {
                multiply_add_modulus(&mut sums, digits, &tables.n[diagonal - i]);
            }
            collect(&mut columns, &sums);
            quotient[diagonal] = quotient_digits(&mut columns, &tables.n[0], negative_inverse);
        } else {
            for (i, digits) in quotient.iter().enumerate().skip(diagonal - (N - 1)) {
                multiply_add_modulus(&mut sums, digits, &tables.n[diagonal - i]);
            }
            collect(&mut columns, &sums);
            out[diagonal - N] = settle(&mut columns);
        }
        for i in 0..TILE {
            columns[i] = columns[i + TILE];
            columns[i + TILE] = zero;
        }
    }
    out[N - 1] = settle(&mut columns);
    quotient
}

/// Adds the products of two tiles' limbs.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn multiply_add(sums: &mut Sums, x: &Tile, y: &Tile) {
    for (j, &limb) in y.iter().enumerate() {
        multiply_add_limb(sums, x, limb, j);
    }
}

/// Adds the products of a tile's limbs with limbs of the modulus.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn multiply_add_modulus(sums: &mut Sums, x: &Tile, n: &[u64; TILE]) {
    for (j, &limb) in n.iter().enumerate() {
        multiply_add_limb(sums, x, _mm512_set1_epi64(limb as i64), j);
    }
}

/// Adds the products of a tile's limbs with the limb `at` of another.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn multiply_add_limb(sums: &mut Sums, x: &Tile, limb: __m512i, at: usize) {
    let [low, high] = sums;
    for i in 0..TILE {
        low[i + at] = _mm512_madd52lo_epu64(low[i + at], x[i], limb);
    }
    for i in 0..TILE {
        high[i + at] = _mm512_madd52hi_epu64(high[i + at], x[i], limb);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn double(sums: &mut Sums) {
    for sum in sums.as_flattened_mut() {
        *sum = _mm512_slli_epi64::<1>(*sum);
    }
}

/// Adds a diagonal's sums to the columns they belong to.
#[target_feature(enable = "avx512f")]
#[inline]
fn collect(columns: &mut Columns, [low, high]: &Sums) {
    for i in 0..2 * TILE - 1 {
        columns[i] = _mm512_add_epi64(columns[i], low[i]);
        columns[i + 1] = _mm512_add_epi64(columns[i + 1], high[i]);
    }
}

/// The next five quotient digits, which make the five lowest columns multiples of 2^52; their rest is carried up.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn quotient_digits(columns: &mut Columns, n: &[u64; TILE], negative_inverse: __m512i) -> Tile {
    let zero = _mm512_setzero_si512();
    let mut digits = [zero; TILE];
    for i in 0..TILE {
        let digit = _mm512_madd52lo_epu64(zero, columns[i], negative_inverse);
        digits[i] = digit;
        for (j, &limb) in n.iter().enumerate() {
            let limb = _mm512_set1_epi64(limb as i64);
            columns[i + j] = _mm512_madd52lo_epu64(columns[i + j], digit, limb);
            columns[i + j + 1] = _mm512_madd52hi_epu64(columns[i + j + 1], digit, limb);
        }
        carry(columns, i);
    }
    digits
}

/// The five lowest columns as limbs of 52 bits; the rest is carried up.
#[target_feature(enable = "avx512f")]
#[inline]
fn settle(columns: &mut Columns) -> Tile {
    let mask = _mm512_set1_epi64(LIMB_MASK as i64);
    let mut limbs = [_mm512_setzero_si512(); TILE];
    for i in 0..TILE {
        limbs[i] = _mm512_and_si512(columns[i], mask);
        carry(columns, i);
    }
    limbs
}

#[target_feature(enable = "avx512f")]
#[inline]
fn carry(columns: &mut Columns, i: usize) {
    let high = _mm512_srli_epi64::<{ LIMB_BITS as u32 }>(columns[i]);
    columns[i + 1] = _mm512_add_epi64(columns[i + 1], high);
}
