//! Choices from tables of 64 numbers, for eight lanes, without an address that depends on what is chosen.

use core::arch::x86_64::*;

use crate::arith::doubles::vector::ENTRIES;

const LANES: usize = 8;

/// Entries that one permutation chooses from.
const PERMUTED: usize = 2 * LANES;

const PERMUTATIONS: usize = ENTRIES / PERMUTED;

/// A number of every entry of a table.
pub(in crate::arith) type Entries = [[__m512i; 2]; PERMUTATIONS];

#[target_feature(enable = "avx512f")]
#[inline]
pub(in crate::arith) fn entries(numbers: &[u64; ENTRIES]) -> Entries {
    let mut entries = [[_mm512_setzero_si512(); 2]; PERMUTATIONS];
    for (entry, numbers) in entries.as_flattened_mut().iter_mut().zip(numbers.as_chunks().0) {
        *entry = load(numbers);
    }
    entries
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(numbers: &[u64; LANES]) -> __m512i {
    // SAFETY: the array has eight numbers of eight bytes, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(numbers.as_ptr().cast()) }
}

/// An entry of a table for each lane.
#[derive(Clone, Copy)]
pub(in crate::arith) struct Choice {
    /// Which entry of a permutation.
    within: __m512i,
    /// All ones in the lanes where that permutation counts.
    here: [__m512i; PERMUTATIONS],
}

impl Choice {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(in crate::arith) fn new(digits: &[u64; LANES]) -> Self {
        // A permutation takes the lower four bits of a digit; the others say which permutation counts.
        let within = load(digits);
        let block = _mm512_srli_epi64::<{ PERMUTED.ilog2() }>(within);
        let mut here = [within; PERMUTATIONS];
        for (index, here) in (0i64..).zip(&mut here) {
            let equal = _mm512_cmpeq_epi64_mask(block, _mm512_set1_epi64(index));
            *here = _mm512_maskz_set1_epi64(equal, -1);
        }
        Self { within, here }
    }

    /// The number of the entry that each lane takes.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(in crate::arith) fn of(&self, entries: &Entries) -> __m512i {
        let mut chosen = _mm512_setzero_si512();
        for (&[low, high], &here) in entries.iter().zip(&self.here) {
            let candidate = _mm512_permutex2var_epi64(low, self.within, high);
            // (candidate & here) | chosen
            chosen = _mm512_ternarylogic_epi64::<0xEA>(candidate, here, chosen);
        }
        chosen
    }
}
