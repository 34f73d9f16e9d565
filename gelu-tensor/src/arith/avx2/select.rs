//! Choices from tables of 64 numbers, for four lanes, without an address that depends on what is chosen.

use core::arch::x86_64::*;

use crate::arith::comb::WINDOW;
use crate::arith::doubles::vector::ENTRIES;

pub(super) const LANES: usize = 4;

/// An entry of a table for each lane.
#[derive(Clone, Copy)]
pub(in crate::arith) struct Choice {
    /// The lowest two bits, as pairs of indices of 32 bits.
    within: __m256i,
    /// Each of the others, where a blend looks for it: at the top.
    bits: [__m256d; WINDOW - 2],
}

impl Choice {
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in crate::arith) fn new(digits: &[u64; LANES]) -> Self {
        // SAFETY: the array has four limbs of eight bytes, and the load needs no alignment.
        let digits = unsafe { _mm256_loadu_si256(digits.as_ptr().cast()) };
        let first = _mm256_slli_epi64::<1>(_mm256_and_si256(digits, _mm256_set1_epi64x(3)));
        let second = _mm256_slli_epi64::<32>(_mm256_add_epi64(first, _mm256_set1_epi64x(1)));
        let mut bits = [_mm256_setzero_pd(); WINDOW - 2];
        let mut shifted = _mm256_slli_epi64::<{ u64::BITS as i32 - WINDOW as i32 }>(digits);
        for bit in bits.iter_mut().rev() {
            *bit = _mm256_castsi256_pd(shifted);
            shifted = _mm256_slli_epi64::<1>(shifted);
        }
        Self { within: _mm256_or_si256(first, second), bits }
    }

    /// The number of the entry that each lane takes.
    ///
    /// All are read, and chosen in registers: the lowest two bits of a digit by a permutation, the others by blends.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(in crate::arith) fn of(&self, table: &[u64; ENTRIES]) -> __m256i {
        let [b2, b3, b4, b5] = self.bits;
        let four = |at: usize| {
            let limbs: &[u64; LANES] = &table.as_chunks::<LANES>().0[at];
            // SAFETY: the array has four limbs of eight bytes, and the load needs no alignment.
            let entries = unsafe { _mm256_loadu_si256(limbs.as_ptr().cast()) };
            _mm256_castsi256_pd(_mm256_permutevar8x32_epi32(entries, self.within))
        };
        let eight = |at: usize| _mm256_blendv_pd(four(at), four(at + 1), b2);
        let sixteen = |at: usize| _mm256_blendv_pd(eight(at), eight(at + 2), b3);
        let half = |at: usize| _mm256_blendv_pd(sixteen(at), sixteen(at + 4), b4);
        _mm256_castpd_si256(_mm256_blendv_pd(half(0), half(8), b5))
    }
}
