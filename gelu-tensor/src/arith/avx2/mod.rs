//! The AVX2 backend: [doubles](super::doubles) four at a time, with sums of products in assembly.
//!
//! The `unsafe` code of this folder calls intrinsics, and functions compiled for AVX2 and FMA, after [`Avx2::detect`] has found
//! both; it loads and stores vectors from arrays of as many limbs; it calls functions in assembly, of which the AVX-512
//! backend has the same, on arrays whose types or lengths say how long they are; and it reads and sets the processor's
//! rounding mode.

/// An intrinsic on vectors, or on numbers beside a token.
macro_rules! instruction {
    ($call:expr) => {
        // SAFETY: a safe function but for its target features, which a token proves: one at hand, or the one that the
        // vectors were made with.
        unsafe { $call }
    };
}
pub(super) use instruction;

pub(super) mod assembly;
pub(super) mod environment;
pub(super) mod functions;
pub(super) mod select;

use core::arch::x86_64::*;

use zeroize::Zeroize;

use self::assembly::{Assembled, Constants, Sums};
use self::environment::Nearest;
use self::functions::{Functions, YMM};
use self::select::Choice;
use super::doubles::Context;
use super::doubles::vector::{ENTRIES, MOST_LANES, Vector};
use super::kernel::{Instructions, Kernel, Work};

/// Proof that this processor has AVX2 and FMA, made only by detection: its field is private.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
        found.then_some(Self(()))
    }
}

impl Instructions for Avx2 {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::<Quad>::new(*self, None, n))
    }

    fn multiply_chains(&self) -> usize {
        assembly::multiply_add_chains::<Quad>(*self)
    }
}

/// Four doubles, made only with a token.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Quad(__m256d);

impl Zeroize for Quad {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

// SAFETY: a vector is a register of 32 bytes, and its token proves AVX2 and FMA.
unsafe impl Assembled for Quad {
    const FUNCTIONS: Functions = YMM;

    fn constants() -> *const u64 {
        static CONSTANTS: Constants<{ Quad::LANES }> = Constants::new();
        CONSTANTS.start()
    }
}

impl Vector for Quad {
    type Token = Avx2;
    type Nearest = Nearest;
    type Choice = Choice;
    type Half = Self;
    type Sums<'a, const N: usize> = Sums<'a, Self, N>;

    const LANES: usize = select::LANES;

    fn nearest(_: Avx2) -> Nearest {
        Nearest::new()
    }

    #[inline(always)]
    fn run(_: Avx2, work: impl Work) {
        #[target_feature(enable = "avx2,fma")]
        #[inline(never)]
        fn compiled(work: impl Work) {
            work.run();
        }
        instruction!(compiled(work));
    }

    #[inline(always)]
    fn splat(_: Avx2, number: f64) -> Self {
        Self(instruction!(_mm256_set1_pd(number)))
    }

    #[inline(always)]
    fn of_lanes(_: Avx2, bits: [u64; MOST_LANES]) -> Self {
        // SAFETY: the array has at least four limbs of eight bytes, the load needs no alignment, and the token proves the
        // target features.
        Self(unsafe { _mm256_loadu_pd(bits.as_ptr().cast()) })
    }

    #[inline(always)]
    fn of_rows<'a>(_: Avx2, row: impl Fn(usize) -> &'a [u64; 2]) -> [Self; 2] {
        let pair = |lane: usize| {
            let limbs: &[u64; 2] = row(lane);
            // SAFETY: the array has two limbs of eight bytes, the load needs no alignment, and every x86-64 processor has
            // SSE2.
            unsafe { _mm_loadu_pd(limbs.as_ptr().cast()) }
        };
        // Rows 0 and 2 in one register, 1 and 3 in the other.
        let even = instruction!(_mm256_set_m128d(pair(2), pair(0)));
        let odd = instruction!(_mm256_set_m128d(pair(3), pair(1)));
        let (low, high) =
            (instruction!(_mm256_unpacklo_pd(even, odd)), instruction!(_mm256_unpackhi_pd(even, odd)));
        [Self(low), Self(high)]
    }

    #[inline(always)]
    fn to_rows<'a>([low, high]: [Self; 2], rows: impl Iterator<Item = &'a mut [u64; 2]>) {
        let even = instruction!(_mm256_unpacklo_pd(low.0, high.0));
        let odd = instruction!(_mm256_unpackhi_pd(low.0, high.0));
        let pairs = [
            instruction!(_mm256_castpd256_pd128(even)),
            instruction!(_mm256_castpd256_pd128(odd)),
            instruction!(_mm256_extractf128_pd::<1>(even)),
            instruction!(_mm256_extractf128_pd::<1>(odd)),
        ];
        for (row, pair) in rows.zip(pairs) {
            // SAFETY: the array has two limbs of eight bytes, is borrowed by nobody else, the store needs no alignment, and
            // every x86-64 processor has SSE2.
            unsafe { _mm_storeu_pd(row.as_mut_ptr().cast(), pair) };
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(instruction!(_mm256_add_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(instruction!(_mm256_sub_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(instruction!(_mm256_mul_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn multiply_sub(self, x: Self, y: Self) -> Self {
        Self(instruction!(_mm256_fnmadd_pd(x.0, y.0, self.0)))
    }

    #[inline(always)]
    fn rounded(self) -> Self {
        const MODE: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        Self(instruction!(_mm256_round_pd::<MODE>(self.0)))
    }

    #[inline(always)]
    fn equal(_: Avx2, x: u64, y: u64) -> Self {
        let (x, y) = (instruction!(_mm256_set1_epi64x(x as i64)), instruction!(_mm256_set1_epi64x(y as i64)));
        Self(instruction!(_mm256_castsi256_pd(_mm256_cmpeq_epi64(x, y))))
    }

    #[inline(always)]
    fn replaced(self, mask: Self, other: Self) -> Self {
        Self(instruction!(_mm256_blendv_pd(self.0, other.0, mask.0)))
    }

    #[inline(always)]
    fn choice(_: Avx2, [a, b, c, d, ..]: [u64; MOST_LANES]) -> Choice {
        instruction!(Choice::new(&[a, b, c, d]))
    }

    #[inline(always)]
    fn chosen(limbs: &[u64; ENTRIES], choice: &Choice) -> Self {
        Self(instruction!(_mm256_castsi256_pd(choice.of(limbs))))
    }
}

#[cfg(test)]
impl super::doubles::vector::Bits for Quad {
    #[inline(always)]
    fn multiply_add(self, x: Self, y: Self) -> Self {
        Self(instruction!(_mm256_fmadd_pd(x.0, y.0, self.0)))
    }

    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        let [x, y] = [self, other].map(|vector| instruction!(_mm256_castpd_si256(vector.0)));
        Self(instruction!(_mm256_castsi256_pd(_mm256_add_epi64(x, y))))
    }

    #[inline(always)]
    fn and_bits(self, other: Self) -> Self {
        Self(instruction!(_mm256_and_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn or_bits(self, other: Self) -> Self {
        Self(instruction!(_mm256_or_pd(self.0, other.0)))
    }

    #[inline(always)]
    fn carried(self) -> Self {
        let bits = instruction!(_mm256_castpd_si256(self.0));
        let carried = instruction!(_mm256_srli_epi64::<{ super::doubles::LIMB_BITS as i32 }>(bits));
        Self(instruction!(_mm256_castsi256_pd(carried)))
    }
}
