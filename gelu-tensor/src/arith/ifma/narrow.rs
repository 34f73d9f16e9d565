//! Vectors of 256 bits: four residues each.
//!
//! The multiply-adds have two encodings, which are different features of a processor: VEX (AVX-IFMA) and EVEX (AVX-512 IFMA with
//! VL), which has twice as many registers. All else is AVX2. Each type is compiled for its own features, so that no instruction of the one is in the other.

use core::arch::x86_64::*;

use zeroize::Zeroize;

use super::LIMB_BITS;
use super::vector::{ENTRIES, MOST_LANES, Vector};
use crate::arith::avx2::select::Choice;
use crate::arith::kernel::Work;

const LANES: usize = 4;

/// Proof that this processor has some features.
macro_rules! token {
    ($(#[$docs:meta])* $token:ident, [$($feature:tt),*]) => {
        $(#[$docs])*
        #[derive(Clone, Copy, Debug)]
        pub(in crate::arith) struct $token(());

        impl $token {
            pub(super) fn detect() -> Option<Self> {
                let found = true $(&& std::arch::is_x86_feature_detected!($feature))*;
                found.then_some(Self(()))
            }
        }
    };
}

/// A vector type for one encoding.
macro_rules! four_lanes {
    (
        $(#[$docs:meta])* $vector:ident, $token:ident, $registers:literal, $features:literal, $low:ident, $high:ident
    ) => {
        $(#[$docs])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(super) struct $vector(__m256i);

        impl Zeroize for $vector {
            fn zeroize(&mut self) {
                self.0.zeroize();
            }
        }

        impl Vector for $vector {
            type Token = $token;
            type Mask = __m256i;
            type Entries<'a> = &'a [u64; ENTRIES];
            type Choice = Choice;

            const LANES: usize = LANES;
            const ALL_SUMS_FIT: bool = $registers >= 32;

            #[inline(always)]
            fn run(_: $token, work: impl Work) {
                #[target_feature(enable = $features)]
                #[inline(never)]
                fn compiled(work: impl Work) {
                    work.run();
                }
                instruction!(compiled(work));
            }

            #[inline(always)]
            fn splat(_: $token, limb: u64) -> Self {
                Self(instruction!(_mm256_set1_epi64x(limb as i64)))
            }

            #[inline(always)]
            fn load(_: $token, limbs: &[u64]) -> Self {
                let limbs: &[u64] = &limbs[..LANES];
                // SAFETY: the slice has four limbs of eight bytes (slicing panics otherwise), the load needs no alignment,
                // and the token proves the target features.
                Self(unsafe { _mm256_loadu_si256(limbs.as_ptr().cast()) })
            }

            #[inline(always)]
            fn store(self, limbs: &mut [u64]) {
                let limbs: &mut [u64] = &mut limbs[..LANES];
                // SAFETY: the slice has four limbs of eight bytes (slicing panics otherwise), is borrowed by nobody else,
                // the store needs no alignment, and the vector was made with a token.
                unsafe { _mm256_storeu_si256(limbs.as_mut_ptr().cast(), self.0) };
            }

            #[inline(always)]
            fn transpose(square: &mut [Self]) {
                let Some(square) = square.first_chunk_mut::<LANES>() else { return };
                let [r0, r1, r2, r3] = *square;
                let ([p0, p1], [p2, p3]) = (r0.pairs(r1), r2.pairs(r3));
                let ([c0, c2], [c1, c3]) = (p0.halves(p2), p1.halves(p3));
                *square = [c0, c1, c2, c3];
            }

            #[inline(always)]
            fn add(self, other: Self) -> Self {
                Self(instruction!(_mm256_add_epi64(self.0, other.0)))
            }

            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                Self(instruction!(_mm256_sub_epi64(self.0, other.0)))
            }

            #[inline(always)]
            fn and(self, other: Self) -> Self {
                Self(instruction!(_mm256_and_si256(self.0, other.0)))
            }

            #[inline(always)]
            fn or(self, other: Self) -> Self {
                Self(instruction!(_mm256_or_si256(self.0, other.0)))
            }

            #[inline(always)]
            fn carried(self) -> Self {
                Self(instruction!(_mm256_srli_epi64::<{ LIMB_BITS as i32 }>(self.0)))
            }

            #[inline(always)]
            fn multiply_add_low(self, x: Self, y: Self) -> Self {
                Self(instruction!($low(self.0, x.0, y.0)))
            }

            #[inline(always)]
            fn multiply_add_high(self, x: Self, y: Self) -> Self {
                Self(instruction!($high(self.0, x.0, y.0)))
            }

            #[inline(always)]
            fn equal(self, other: Self) -> __m256i {
                instruction!(_mm256_cmpeq_epi64(self.0, other.0))
            }

            #[inline(always)]
            fn replaced(self, mask: __m256i, other: Self) -> Self {
                Self(instruction!(_mm256_blendv_epi8(self.0, other.0, mask)))
            }

            #[inline(always)]
            fn masked(self, mask: __m256i) -> Self {
                self.and(Self(mask))
            }

            #[inline(always)]
            fn entries(_: $token, limbs: &[u64; ENTRIES]) -> &[u64; ENTRIES] {
                limbs
            }

            #[inline(always)]
            fn choice(_: $token, [a, b, c, d, ..]: [u64; MOST_LANES]) -> Choice {
                instruction!(Choice::new(&[a, b, c, d]))
            }

            #[inline(always)]
            fn chosen(entries: &[u64; ENTRIES], choice: &Choice) -> Self {
                Self(instruction!(choice.of(entries)))
            }
        }

        impl $vector {
            #[inline(always)]
            fn pairs(self, other: Self) -> [Self; 2] {
                [
                    Self(instruction!(_mm256_unpacklo_epi64(self.0, other.0))),
                    Self(instruction!(_mm256_unpackhi_epi64(self.0, other.0))),
                ]
            }

            /// Lower halves and upper halves.
            #[inline(always)]
            fn halves(self, other: Self) -> [Self; 2] {
                [
                    Self(instruction!(_mm256_permute2x128_si256::<0x20>(self.0, other.0))),
                    Self(instruction!(_mm256_permute2x128_si256::<0x31>(self.0, other.0))),
                ]
            }
        }
    };
}

token! {
    /// Proof that this processor has AVX2 and AVX-IFMA, made only by detection: its field is private.
    AvxIfma, ["avx2", "avxifma"]
}

token! {
    /// Proof that this processor has AVX2 and AVX-512 F, IFMA and VL, made only by detection: its field is private.
    Avx512Vl, ["avx2", "avx512f", "avx512ifma", "avx512vl"]
}

four_lanes! {
    /// With multiply-adds of AVX-IFMA.
    Vex, AvxIfma, 16, "avx2,avxifma", _mm256_madd52lo_avx_epu64, _mm256_madd52hi_avx_epu64
}

four_lanes! {
    /// With multiply-adds of AVX-512 IFMA and VL.
    Evex, Avx512Vl, 32, "avx2,avx512f,avx512ifma,avx512vl", _mm256_madd52lo_epu64, _mm256_madd52hi_epu64
}

#[cfg(test)]
four_lanes! {
    /// The same in the way of [`Vex`], for processors that do not have it.
    LikeVex, Avx512Vl, 16, "avx2,avx512f,avx512ifma,avx512vl", _mm256_madd52lo_epu64, _mm256_madd52hi_epu64
}
