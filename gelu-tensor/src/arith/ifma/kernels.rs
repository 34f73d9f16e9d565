//! Products and squares of eight residues, column by column in tiles of 5x5 limbs.
//!
//! A tile adds the 25 products of five limbs of one factor and five of the other to nine columns, all in registers;
//! tiles on one diagonal share their columns, so that accumulators are moved only once a diagonal. Low and high halves
//! of products have accumulators of their own, which halves the chains of dependent instructions. See
//! [`reduction`](super::reduction) for the rest of a diagonal.

use core::arch::x86_64::*;

use super::lanes::{LANES, load, select, store};
use super::reduction::{Half, Reduction, TILE, Tables, multiply_add};
use super::{LIMB_BITS, LIMB_MASK};
use crate::arith::Residues;

type Lanes<const N: usize> = [Half<N>; 2];

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
    let low_quotient = Reduction::new(tables).run(None, &mut out[0], |sums, i, j| {
        multiply_add(sums, &a[i], &c[j]);
    });
    Reduction::new(tables).run(Some(&low_quotient), &mut out[1], |sums, i, j| {
        multiply_add(sums, &a[i], &d[j]);
        multiply_add(sums, &b[i], &c[j]);
    });
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
