//! AVX-512: eight residues in a vector.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::LIMB_BITS;
use super::vector::{ENTRIES, MOST_LANES, Vector};
use crate::arith::avx512::select::{self, Choice, Entries};
use crate::arith::kernel::Work;

/// Proof that this processor has AVX-512 F and IFMA, made only by detection: its field is private.
#[derive(Clone, Copy, Debug)]
pub(in crate::arith) struct Ifma(());

impl Ifma {
    pub(in crate::arith) fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512ifma");
        found.then_some(Self(()))
    }
}

/// Made only with a token.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Wide(__m512i);

impl Zeroize for Wide {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

const LANES: usize = 8;

impl Vector for Wide {
    type Token = Ifma;
    type Mask = __mmask8;
    type Entries<'a> = Entries;
    type Choice = Choice;

    const LANES: usize = LANES;
    const ALL_SUMS_FIT: bool = true;

    #[inline(always)]
    fn run(_: Ifma, work: impl Work) {
        #[target_feature(enable = "avx512f,avx512ifma")]
        #[inline(never)]
        fn compiled(work: impl Work) {
            work.run();
        }
        instruction!(compiled(work));
    }

    #[inline(always)]
    fn splat(_: Ifma, limb: u64) -> Self {
        Self(instruction!(_mm512_set1_epi64(limb as i64)))
    }

    #[inline(always)]
    fn load(_: Ifma, limbs: &[u64]) -> Self {
        let limbs: &[u64] = &limbs[..LANES];
        // SAFETY: the slice has eight limbs of eight bytes (slicing panics otherwise), the load needs no alignment, and the
        // token proves the target features.
        Self(unsafe { _mm512_loadu_si512(limbs.as_ptr().cast()) })
    }

    #[inline(always)]
    fn store(self, limbs: &mut [u64]) {
        let limbs: &mut [u64] = &mut limbs[..LANES];
        // SAFETY: the slice has eight limbs of eight bytes (slicing panics otherwise), is borrowed by nobody else, the store
        // needs no alignment, and the vector was made with a token.
        unsafe { _mm512_storeu_si512(limbs.as_mut_ptr().cast(), self.0) };
    }

    #[inline(always)]
    fn transpose(square: &mut [Self]) {
        let Some(square) = square.first_chunk_mut::<LANES>() else { return };
        let [r0, r1, r2, r3, r4, r5, r6, r7] = *square;
        // Pairs of rows: [r0.0 r1.0 r0.2 r1.2 ...] and [r0.1 r1.1 r0.3 r1.3 ...].
        let [p0, p1] = r0.pairs(r1);
        let [p2, p3] = r2.pairs(r3);
        let [p4, p5] = r4.pairs(r5);
        let [p6, p7] = r6.pairs(r7);
        // Quarters of 128 bits: even ones of two pairs, and odd ones.
        let ([q0, q2], [q1, q3]) = (p0.quarters(p2), p1.quarters(p3));
        let ([q4, q6], [q5, q7]) = (p4.quarters(p6), p5.quarters(p7));
        let ([c0, c4], [c1, c5]) = (q0.quarters(q4), q1.quarters(q5));
        let ([c2, c6], [c3, c7]) = (q2.quarters(q6), q3.quarters(q7));
        *square = [c0, c1, c2, c3, c4, c5, c6, c7];
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(instruction!(_mm512_add_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(instruction!(_mm512_sub_epi64(self.0, other.0)))
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(instruction!(_mm512_and_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(instruction!(_mm512_or_si512(self.0, other.0)))
    }

    #[inline(always)]
    fn carried(self) -> Self {
        Self(instruction!(_mm512_srli_epi64::<{ LIMB_BITS as u32 }>(self.0)))
    }

    #[inline(always)]
    fn multiply_add_low(self, x: Self, y: Self) -> Self {
        Self(instruction!(_mm512_madd52lo_epu64(self.0, x.0, y.0)))
    }

    #[inline(always)]
    fn multiply_add_high(self, x: Self, y: Self) -> Self {
        Self(instruction!(_mm512_madd52hi_epu64(self.0, x.0, y.0)))
    }

    #[inline(always)]
    fn equal(self, other: Self) -> __mmask8 {
        instruction!(_mm512_cmpeq_epi64_mask(self.0, other.0))
    }

    #[inline(always)]
    fn replaced(self, mask: __mmask8, other: Self) -> Self {
        Self(instruction!(_mm512_mask_mov_epi64(self.0, mask, other.0)))
    }

    #[inline(always)]
    fn masked(self, mask: __mmask8) -> Self {
        Self(instruction!(_mm512_maskz_mov_epi64(mask, self.0)))
    }

    #[inline(always)]
    fn entries(_: Ifma, limbs: &[u64; ENTRIES]) -> Entries {
        instruction!(select::entries(limbs))
    }

    #[inline(always)]
    fn choice(_: Ifma, digits: [u64; MOST_LANES]) -> Choice {
        instruction!(Choice::new(&digits))
    }

    #[inline(always)]
    fn chosen(entries: Entries, choice: &Choice) -> Self {
        Self(instruction!(choice.of(&entries)))
    }
}

impl Wide {
    #[inline(always)]
    fn pairs(self, other: Self) -> [Self; 2] {
        [
            Self(instruction!(_mm512_unpacklo_epi64(self.0, other.0))),
            Self(instruction!(_mm512_unpackhi_epi64(self.0, other.0))),
        ]
    }

    #[inline(always)]
    fn quarters(self, other: Self) -> [Self; 2] {
        [
            Self(instruction!(_mm512_shuffle_i64x2::<0b10_00_10_00>(self.0, other.0))),
            Self(instruction!(_mm512_shuffle_i64x2::<0b11_01_11_01>(self.0, other.0))),
        ]
    }
}
