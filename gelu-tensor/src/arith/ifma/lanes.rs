//! Eight rows of limbs to vectors of eight lanes and back.

use core::arch::x86_64::*;

use super::reduction::TILE;
use crate::arith::comb::WINDOW as COMB_WINDOW;

/// Residues in a vector.
pub(super) const LANES: usize = 8;

/// `out[k]` takes limb k of each row, for as many limbs as `out` has. Rows must have that many, rounded up to eight.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load<'a>(out: &mut [__m512i], row: impl Fn(usize) -> &'a [u64]) {
    let rows: [&[u64]; LANES] = core::array::from_fn(row);
    for (block, out) in out.chunks_mut(LANES).enumerate() {
        let mut vectors = [_mm512_setzero_si512(); LANES];
        for (vector, row) in vectors.iter_mut().zip(rows) {
            let limbs: &[u64] = &row[block * LANES..][..LANES];
            // SAFETY: the slice has eight limbs of eight bytes (slicing panics otherwise), and the load needs no alignment.
            *vector = unsafe { _mm512_loadu_si512(limbs.as_ptr().cast()) };
        }
        let columns = transpose(vectors);
        out.copy_from_slice(&columns[..out.len()]);
    }
}

/// The reverse of [`load`] for the first `rows.len() / width` lanes.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn store(rows: &mut [u64], width: usize, vectors: &[__m512i]) {
    for (block, vectors) in vectors.chunks(LANES).enumerate() {
        let mut columns = [_mm512_setzero_si512(); LANES];
        columns[..vectors.len()].copy_from_slice(vectors);
        for (row, vector) in rows.chunks_exact_mut(width).zip(transpose(columns)) {
            let limbs: &mut [u64] = &mut row[block * LANES..][..LANES];
            // SAFETY: the slice has eight limbs of eight bytes (slicing panics otherwise), is borrowed by nobody else, and
            // the store needs no alignment.
            unsafe { _mm512_storeu_si512(limbs.as_mut_ptr().cast(), vector) };
        }
    }
}

/// Limb k of one residue in all lanes of `out[k]`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn broadcast(out: &mut [__m512i], residue: &[u64]) {
    for (out, &limb) in out.iter_mut().zip(residue) {
        *out = _mm512_set1_epi64(limb as i64);
    }
}

/// `out[k]` takes vector k of the entry `digit`, reading every entry, so that no address depends on the digit.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn select_entry<'a>(
    out: &mut [__m512i],
    entries: impl Iterator<Item = &'a [__m512i]>,
    digit: u64,
) {
    let digit = _mm512_set1_epi64(digit as i64);
    for (index, entry) in (0i64..).zip(entries) {
        let here = _mm512_cmpeq_epi64_mask(digit, _mm512_set1_epi64(index));
        for (out, &vector) in out.iter_mut().zip(entry) {
            *out = _mm512_mask_mov_epi64(*out, here, vector);
        }
    }
}

/// Asks for limbs to be in the cache soon.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn prefetch(limbs: &[u64]) {
    for line in limbs.chunks(LANES) {
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
}

/// Groups of lanes that go through a table together, so that it is read once.
pub(super) const GROUPS: usize = 4;

/// Entries of a table.
const SELECTED_FROM: usize = 1 << COMB_WINDOW;

/// Entries that one permutation selects from.
const PERMUTED: usize = 2 * LANES;

/// Entry `digits[lane]` of a table of 64 entries, which holds limb after limb, for up to [`GROUPS`] groups of lanes:
/// `out[group][k]` takes limb k.
///
/// All entries are read, once for all groups, and selected by permutations in registers, so that no address depends
/// on a digit.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn select<const N: usize>(
    out: &mut [[[[__m512i; TILE]; N]; 2]],
    table: &[u64],
    digits: &[[u64; LANES]; GROUPS],
) {
    const B: usize = SELECTED_FROM / PERMUTED;
    let zero = _mm512_setzero_si512();
    // A permutation takes the lower four bits of a digit; the others say which permutation counts.
    let (mut within, mut here) = ([zero; GROUPS], [[zero; B]; GROUPS]);
    for ((digits, within), here) in digits.iter().zip(&mut within).zip(&mut here) {
        // SAFETY: the array has eight limbs of eight bytes, and the load needs no alignment.
        *within = unsafe { _mm512_loadu_si512(digits.as_ptr().cast()) };
        let block = _mm512_srli_epi64::<{ PERMUTED.ilog2() }>(*within);
        for (index, here) in (0i64..).zip(here) {
            let equal = _mm512_cmpeq_epi64_mask(block, _mm512_set1_epi64(index));
            *here = _mm512_maskz_set1_epi64(equal, -1);
        }
    }
    for (k, limbs) in table.as_chunks::<PERMUTED>().0.as_chunks::<B>().0.iter().take(2 * N * TILE).enumerate()
    {
        let mut entries = [[zero; 2]; B];
        for (entries, limbs) in entries.iter_mut().zip(limbs) {
            let (low, high) = limbs.split_at(LANES);
            // SAFETY: each half has eight limbs of eight bytes, for `limbs` is an array of sixteen that was split after
            // eight, and the loads need no alignment.
            *entries = [low, high].map(|limbs| unsafe { _mm512_loadu_si512(limbs.as_ptr().cast()) });
        }
        for (group, out) in out.iter_mut().enumerate() {
            let mut selected = zero;
            for ([low, high], here) in entries.iter().zip(&here[group]) {
                let candidate = _mm512_permutex2var_epi64(*low, within[group], *high);
                // (candidate & here) | selected
                selected = _mm512_ternarylogic_epi64::<0xEA>(candidate, *here, selected);
            }
            out.as_flattened_mut().as_flattened_mut()[k] = selected;
        }
    }
}

/// Transposes an 8x8 matrix of 64-bit numbers.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(r: [__m512i; LANES]) -> [__m512i; LANES] {
    // Pairs of rows: [r0.0 r1.0 r0.2 r1.2 ...] and [r0.1 r1.1 r0.3 r1.3 ...].
    let low = |a, b| _mm512_unpacklo_epi64(a, b);
    let high = |a, b| _mm512_unpackhi_epi64(a, b);
    let pairs = [
        low(r[0], r[1]),
        high(r[0], r[1]),
        low(r[2], r[3]),
        high(r[2], r[3]),
        low(r[4], r[5]),
        high(r[4], r[5]),
        low(r[6], r[7]),
        high(r[6], r[7]),
    ];
    // Quarters of 128 bits: even ones of two pairs, then odd ones.
    let even = |a, b| _mm512_shuffle_i64x2::<0b10_00_10_00>(a, b);
    let odd = |a, b| _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b);
    let quads = [
        even(pairs[0], pairs[2]),
        even(pairs[1], pairs[3]),
        odd(pairs[0], pairs[2]),
        odd(pairs[1], pairs[3]),
        even(pairs[4], pairs[6]),
        even(pairs[5], pairs[7]),
        odd(pairs[4], pairs[6]),
        odd(pairs[5], pairs[7]),
    ];
    [
        even(quads[0], quads[4]),
        even(quads[1], quads[5]),
        even(quads[2], quads[6]),
        even(quads[3], quads[7]),
        odd(quads[0], quads[4]),
        odd(quads[1], quads[5]),
        odd(quads[2], quads[6]),
        odd(quads[3], quads[7]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::ifma::Ifma;

    #[test]
    fn load_then_store_gives_the_rows_back() {
        if Ifma::detect().is_none() {
            eprintln!("skipped: this processor has no AVX-512 IFMA");
            return;
        }
        let width = 24;
        let rows: Vec<u64> = (0..8 * width as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let mut back = vec![0; 5 * width];
        // SAFETY: the processor has AVX-512 F, as was just checked; a vector is 64 bytes of which every pattern is an array
        // of eight limbs.
        let columns: Vec<[u64; 8]> = unsafe {
            let mut vectors = vec![_mm512_setzero_si512(); 20];
            load(&mut vectors, |lane| &rows[lane * width..][..width]);
            store(&mut back, width, &vectors);
            vectors.iter().map(|&vector| core::mem::transmute(vector)).collect()
        };
        for (k, column) in columns.iter().enumerate() {
            assert_eq!(*column, core::array::from_fn(|lane| rows[lane * width + k]));
        }
        for (lane, row) in back.chunks(width).enumerate() {
            assert_eq!(row[..20], rows[lane * width..][..20]);
        }
    }
}
