//! The AVX-512 backend without IFMA: [doubles](super::doubles) eight at a time, on processors from Skylake-X on.
//!
//! Sums of products are the assembly of the [AVX2 backend](super::avx2), on registers twice as wide.
//!
//! The `unsafe` code of this folder calls intrinsics, and functions compiled for AVX-512 F, after [`Avx512::detect`] has found
//! it, and loads and stores vectors from arrays of as many limbs.

pub(super) mod select;

use core::arch::x86_64::*;

use zeroize::Zeroize;

use self::select::Choice;
use super::avx2::assembly::{Assembled, Constants, Sums, multiply_add_chains};
use super::avx2::environment::Nearest;
use super::avx2::functions::{Functions, ZMM};
use super::avx2::{Avx2, Quad, instruction};
use super::doubles::Context;
use super::doubles::vector::{ENTRIES, MOST_LANES, Vector};
use super::kernel::{Instructions, Kernel, Work};

/// Proof that this processor has AVX-512 F, made only by detection: its field is private.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_x86_feature_detected!("avx512f").then_some(Self(()))
    }
}

impl Instructions for Avx512 {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::<Oct>::new(*self, Avx2::detect(), n))
    }

    fn multiply_chains(&self) -> usize {
        multiply_add_chains::<Oct>(*self)
    }
}

/// Eight doubles, made only with a token.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Oct(__m512d);

impl Oct {
    #[inline(always)]
    fn of(bits: __m512i) -> Self {
        Self(instruction!(_mm512_castsi512_pd(bits)))
    }

    /// Only beside a token.
    #[inline(always)]
    fn load(limbs: &[u64; MOST_LANES]) -> Self {
        // SAFETY: the array has eight limbs of eight bytes, the load needs no alignment, and the token proves the target
        // features.
        Self(unsafe { _mm512_loadu_pd(limbs.as_ptr().cast()) })
    }

    #[inline(always)]
    fn bits(self) -> __m512i {
        instruction!(_mm512_castpd_si512(self.0))
    }
}

/// Two limbs of every second row in a register: of four rows from the given one on. No closure in [`Vector::of_rows`]: the
/// compiler may leave one out of line, and then compiles it and each of its instructions for any processor.
#[inline(always)]
fn every_second<'a>(row: &impl Fn(usize) -> &'a [u64; 2], first: usize) -> __m512i {
    let pairs = instruction!(_mm512_castsi128_si512(pair(row(first))));
    let pairs = instruction!(_mm512_inserti32x4::<1>(pairs, pair(row(first + 2))));
    let pairs = instruction!(_mm512_inserti32x4::<2>(pairs, pair(row(first + 4))));
    instruction!(_mm512_inserti32x4::<3>(pairs, pair(row(first + 6))))
}

#[inline(always)]
fn pair(limbs: &[u64; 2]) -> __m128i {
    // SAFETY: the array has two limbs of eight bytes, the load needs no alignment, and every x86-64 processor has SSE2.
    unsafe { _mm_loadu_si128(limbs.as_ptr().cast()) }
}

impl Zeroize for Oct {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

// SAFETY: a vector is a register of 64 bytes, and its token proves AVX-512 F.
unsafe impl Assembled for Oct {
    const FUNCTIONS: Functions = ZMM;

    fn constants() -> *const u64 {
        static CONSTANTS: Constants<MOST_LANES> = Constants::new();
        CONSTANTS.start()
    }
}

impl Vector for Oct {
    type Token = Avx512;
    type Nearest = Nearest;
    type Choice = Choice;
    type Half = Quad;
    type Sums<'a, const N: usize> = Sums<'a, Self, N>;

    const LANES: usize = MOST_LANES;

    fn nearest(_: Avx512) -> Nearest {
        Nearest::new()
    }

    #[inline(always)]
    fn run(_: Avx512, work: impl Work) {
        #[target_feature(enable = "avx512f")]
        #[inline(never)]
        fn compiled(work: impl Work) {
            work.run();
        }
        instruction!(compiled(work));
    }

    #[inline(always)]
    fn splat(_: Avx512, number: f64) -> Self {
        Self(instruction!(_mm512_set1_pd(number)))
    }

    #[inline(always)]
    fn of_lanes(_: Avx512, bits: [u64; MOST_LANES]) -> Self {
        Self::load(&bits)
    }

    #[inline(always)]
    fn of_rows<'a>(_: Avx512, row: impl Fn(usize) -> &'a [u64; 2]) -> [Self; 2] {
        let (even, odd) = (every_second(&row, 0), every_second(&row, 1));
        let low = instruction!(_mm512_unpacklo_epi64(even, odd));
        let high = instruction!(_mm512_unpackhi_epi64(even, odd));
        [Self::of(low), Self::of(high)]
    }

    #[inline(always)]
    fn to_rows<'a>([low, high]: [Self; 2], rows: impl Iterator<Item = &'a mut [u64; 2]>) {
        let even = instruction!(_mm512_unpacklo_epi64(low.bits(), high.bits()));
        let odd = instruction!(_mm512_unpackhi_epi64(low.bits(), high.bits()));
        let pairs = [
            instruction!(_mm512_castsi512_si128(even)),
            instruction!(_mm512_castsi512_si128(odd)),
            instruction!(_mm512_extracti32x4_epi32::<1>(even)),
            instruction!(_mm512_extracti32x4_epi32::<1>(odd)),
            instruction!(_mm512_extracti32x4_epi32::<2>(even)),
            instruction!(_mm512_extracti32x4_epi32::<2>(odd)),
            instruction!(_mm512_extracti32x4_epi32::<3>(even)),
            instruction!(_mm512_extracti32x4_epi32::<3>(odd)),
        ];
        for (row, pair) in rows.zip(pairs) {
            // SAFETY: the array has two limbs of eight bytes, is borrowed by nobody else, the store needs no alignment, and
            // every x86-64 processor has SSE2.
            unsafe { _mm_storeu_si128(row.as_mut_ptr().cast(), pair) };
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(instruction!(_mm512_add_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(instruction!(_mm512_sub_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(instruction!(_mm512_mul_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn multiply_sub(self, x: Self, y: Self) -> Self {
        Self(instruction!(_mm512_fnmadd_pd(x.0, y.0, self.0)))
    }

    #[inline(always)]
    fn rounded(self) -> Self {
        const MODE: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(instruction!(_mm512_roundscale_pd::<MODE>(self.0)))
    }

    #[inline(always)]
    fn equal(_: Avx512, x: u64, y: u64) -> Self {
        let (x, y) = (instruction!(_mm512_set1_epi64(x as i64)), instruction!(_mm512_set1_epi64(y as i64)));
        Self::of(instruction!(_mm512_maskz_set1_epi64(_mm512_cmpeq_epi64_mask(x, y), -1)))
    }

    #[inline(always)]
    fn replaced(self, mask: Self, other: Self) -> Self {
        // mask ? other : self
        const CHOOSE: i32 = 0xCA;
        Self::of(instruction!(_mm512_ternarylogic_epi64::<CHOOSE>(mask.bits(), other.bits(), self.bits())))
    }

    #[inline(always)]
    fn choice(_: Avx512, digits: [u64; MOST_LANES]) -> Choice {
        instruction!(Choice::new(&digits))
    }

    #[inline(always)]
    fn chosen(limbs: &[u64; ENTRIES], choice: &Choice) -> Self {
        Self::of(instruction!(choice.of(&select::entries(limbs))))
    }
}

#[cfg(test)]
impl super::doubles::vector::Bits for Oct {
    #[inline(always)]
    fn multiply_add(self, x: Self, y: Self) -> Self {
        Self(instruction!(_mm512_fmadd_pd(x.0, y.0, self.0)))
    }

    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        Self::of(instruction!(_mm512_add_epi64(self.bits(), other.bits())))
    }

    #[inline(always)]
    fn and_bits(self, other: Self) -> Self {
        Self::of(instruction!(_mm512_and_si512(self.bits(), other.bits())))
    }

    #[inline(always)]
    fn or_bits(self, other: Self) -> Self {
        Self::of(instruction!(_mm512_or_si512(self.bits(), other.bits())))
    }

    #[inline(always)]
    fn carried(self) -> Self {
        Self::of(instruction!(_mm512_srli_epi64::<{ super::doubles::LIMB_BITS as u32 }>(self.bits())))
    }
}
