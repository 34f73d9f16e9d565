//! Four rows of limbs to vectors of four lanes and back.

use core::arch::x86_64::*;

/// Residues in a vector.
pub(super) const LANES: usize = 4;

/// `out[k]` takes limb k of each row, for as many limbs as `out` has, but for the last of an odd number.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn load<'a>(out: &mut [__m256d], row: impl Fn(usize) -> &'a [u64]) {
    let rows: [&[[u64; 2]]; LANES] = core::array::from_fn(|lane| row(lane).as_chunks::<2>().0);
    for (k, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        let pair = |lane: usize| {
            let limbs: &[u64; 2] = &rows[lane][k];
            // SAFETY: the array has two limbs of eight bytes, and the load needs no alignment.
            unsafe { _mm_loadu_pd(limbs.as_ptr().cast()) }
        };
        // Rows 0 and 2 in one register, 1 and 3 in the other.
        let even = _mm256_set_m128d(pair(2), pair(0));
        let odd = _mm256_set_m128d(pair(3), pair(1));
        *out = [_mm256_unpacklo_pd(even, odd), _mm256_unpackhi_pd(even, odd)];
    }
}

/// The reverse of [`load`] for the first `rows.len() / width` lanes.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn store(rows: &mut [u64], width: usize, vectors: &[__m256d]) {
    for (k, &[low, high]) in vectors.as_chunks::<2>().0.iter().enumerate() {
        let even = _mm256_unpacklo_pd(low, high);
        let odd = _mm256_unpackhi_pd(low, high);
        let pairs = [
            _mm256_castpd256_pd128(even),
            _mm256_castpd256_pd128(odd),
            _mm256_extractf128_pd::<1>(even),
            _mm256_extractf128_pd::<1>(odd),
        ];
        for (row, pair) in rows.chunks_exact_mut(width).zip(pairs) {
            let limbs: &mut [u64; 2] = &mut row.as_chunks_mut::<2>().0[k];
            // SAFETY: the array has two limbs of eight bytes, is borrowed by nobody else, and the store needs no alignment.
            unsafe { _mm_storeu_pd(limbs.as_mut_ptr().cast(), pair) };
        }
    }
}

/// The same with a digit for each row, which may have an odd number of limbs.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn load_digit<'a>(out: &mut [__m256d], row: impl Fn(usize) -> &'a [u64]) {
    load(out, &row);
    if out.len() % 2 == 1 {
        let [a, b, c, d]: [f64; LANES] =
            core::array::from_fn(|lane| f64::from_bits(row(lane)[out.len() - 1]));
        out[out.len() - 1] = _mm256_set_pd(d, c, b, a);
    }
}

/// Limb k of one residue or digit in all lanes of `out[k]`.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) fn broadcast(out: &mut [__m256d], limbs: &[u64]) {
    for (out, &limb) in out.iter_mut().zip(limbs) {
        *out = _mm256_set1_pd(f64::from_bits(limb));
    }
}

/// A limb in all lanes.
#[target_feature(enable = "avx2,fma")]
pub(super) fn in_all_lanes(limb: i64) -> __m256d {
    _mm256_set1_pd(limb as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::avx2::Avx2;

    #[test]
    fn load_then_store_gives_the_rows_back() {
        if Avx2::detect().is_none() {
            eprintln!("skipped: this processor has no AVX2 and FMA");
            return;
        }
        let width = 14;
        let rows: Vec<u64> = (0..4 * width as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let mut back = vec![0; 3 * width];
        // SAFETY: the processor has AVX2 and FMA, as was just checked; a vector is 32 bytes of which every pattern is an
        // array of four limbs.
        let columns: Vec<[u64; 4]> = unsafe {
            let mut vectors = vec![_mm256_setzero_pd(); 14];
            load(&mut vectors, |lane| &rows[lane * width..][..width]);
            store(&mut back, width, &vectors);
            vectors.iter().map(|&vector| core::mem::transmute(vector)).collect()
        };
        for (k, column) in columns.iter().enumerate() {
            assert_eq!(*column, core::array::from_fn(|lane| rows[lane * width + k]));
        }
        assert_eq!(back, rows[..3 * width]);
    }
}
