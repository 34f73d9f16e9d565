//! The NEON backend: [doubles](super::doubles) two at a time, on AArch64.
//!
//! The `unsafe` code of this folder calls intrinsics after [`Neon::detect`] has found their instructions; it loads and stores
//! vectors from arrays of as many limbs; and it reads and sets the processor's rounding mode.

pub(super) mod environment;

use core::arch::aarch64::*;
use core::hint::black_box;

use zeroize::Zeroize;

use self::environment::Nearest;
use super::doubles::vector::{Bits, ENTRIES, MOST_LANES, Vector};
use super::doubles::windows::Windows;
use super::doubles::{Context, LIMB_BITS, TILE};
use super::kernel::{Instructions, Kernel, Work};

/// An intrinsic on vectors, or on numbers beside a token.
macro_rules! instruction {
    ($call:expr) => {
        // SAFETY: a safe function but for its target features, which a token proves: one at hand, or the one that the
        // vectors were made with.
        unsafe { $call }
    };
}

/// Proof that this processor has NEON, made only by detection: its field is private.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        // Limbs chosen from tables are put together by their bytes.
        let found = cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("neon");
        found.then_some(Self(()))
    }
}

impl Instructions for Neon {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::<Pair>::new(*self, None, n))
    }

    fn multiply_chains(&self) -> usize {
        const TURNS: usize = 50_000;
        Pair::run(*self, Chains { token: *self, turns: TURNS });
        2 * TURNS * TILE
    }
}

/// Two doubles, made only with a token. They are held by their bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Pair(uint64x2_t);

impl Pair {
    #[inline(always)]
    fn of(doubles: float64x2_t) -> Self {
        Self(instruction!(vreinterpretq_u64_f64(doubles)))
    }

    #[inline(always)]
    fn doubles(self) -> float64x2_t {
        instruction!(vreinterpretq_f64_u64(self.0))
    }
}

impl Zeroize for Pair {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

const LANES: usize = 2;

/// Entries that one permutation chooses from: 64 bytes.
const PERMUTED: usize = 8;
/// Entries of half a table: as many bytes as a byte can count.
const HALF: usize = ENTRIES / 2;

/// An entry of a table for each lane.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    /// For each byte of a lane its place in the half of the table that has the entry.
    places: uint8x16_t,
    /// All ones where that is the upper half.
    upper: uint64x2_t,
}

impl Vector for Pair {
    type Token = Neon;
    type Nearest = Nearest;
    type Choice = Choice;
    type Half = Self;
    type Sums<'a, const N: usize> = Windows<'a, Self, N>;

    const LANES: usize = LANES;

    fn nearest(_: Neon) -> Nearest {
        Nearest::new()
    }

    #[inline(always)]
    fn run(_: Neon, work: impl Work) {
        #[target_feature(enable = "neon")]
        #[inline(never)]
        fn compiled(work: impl Work) {
            work.run();
        }
        instruction!(compiled(work));
    }

    #[inline(always)]
    fn splat(_: Neon, number: f64) -> Self {
        Self::of(instruction!(vdupq_n_f64(number)))
    }

    #[inline(always)]
    fn of_lanes(_: Neon, bits: [u64; MOST_LANES]) -> Self {
        // SAFETY: the array has at least two limbs of eight bytes, the load needs no more alignment than they have, and the
        // token proves the target features.
        Self(unsafe { vld1q_u64(bits.as_ptr()) })
    }

    #[inline(always)]
    fn of_rows<'a>(_: Neon, row: impl Fn(usize) -> &'a [u64; 2]) -> [Self; 2] {
        let (first, second): (&[u64; 2], &[u64; 2]) = (row(0), row(1));
        // SAFETY: each array has two limbs of eight bytes, the loads need no more alignment than they have, and the token
        // proves the target features.
        let (first, second) = unsafe { (vld1q_u64(first.as_ptr()), vld1q_u64(second.as_ptr())) };
        [Self(instruction!(vzip1q_u64(first, second))), Self(instruction!(vzip2q_u64(first, second)))]
    }

    #[inline(always)]
    fn to_rows<'a>([low, high]: [Self; 2], rows: impl Iterator<Item = &'a mut [u64; 2]>) {
        let pairs = [instruction!(vzip1q_u64(low.0, high.0)), instruction!(vzip2q_u64(low.0, high.0))];
        for (row, pair) in rows.zip(pairs) {
            // SAFETY: the array has two limbs of eight bytes, is borrowed by nobody else, the store needs no more alignment
            // than they have, and the vectors were made with a token.
            unsafe { vst1q_u64(row.as_mut_ptr(), pair) };
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self::of(instruction!(vaddq_f64(self.doubles(), other.doubles())))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self::of(instruction!(vsubq_f64(self.doubles(), other.doubles())))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self::of(instruction!(vmulq_f64(self.doubles(), other.doubles())))
    }

    #[inline(always)]
    fn multiply_sub(self, x: Self, y: Self) -> Self {
        Self::of(instruction!(vfmsq_f64(self.doubles(), x.doubles(), y.doubles())))
    }

    #[inline(always)]
    fn rounded(self) -> Self {
        Self::of(instruction!(vrndnq_f64(self.doubles())))
    }

    #[inline(always)]
    fn equal(_: Neon, x: u64, y: u64) -> Self {
        let [x, y] = [x, y].map(|number| instruction!(vdupq_n_u64(number)));
        Self(instruction!(vceqq_u64(x, y)))
    }

    #[inline(always)]
    fn replaced(self, mask: Self, other: Self) -> Self {
        Self(instruction!(vbslq_u64(mask.0, other.0, self.0)))
    }

    #[inline(always)]
    fn choice(token: Neon, digits: [u64; MOST_LANES]) -> Choice {
        // The first byte of the entry's in all bytes, and which of them each byte is.
        const EACH: u64 = 0x0101_0101_0101_0101;
        const WHICH: u64 = 0x0706_0504_0302_0100;
        const HALF_MASK: u64 = HALF as u64 - 1;
        let places = digits.map(|digit| 8 * (digit & HALF_MASK) * EACH + WHICH);
        let digits = Self::of_lanes(token, digits).0;
        Choice {
            places: instruction!(vreinterpretq_u8_u64(Self::of_lanes(token, places).0)),
            upper: instruction!(vtstq_u64(digits, vdupq_n_u64(HALF as u64))),
        }
    }

    #[inline(always)]
    fn chosen(limbs: &[u64; ENTRIES], choice: &Choice) -> Self {
        let size = instruction!(vdupq_n_u8((8 * PERMUTED) as u8));
        let mut halves = [instruction!(vdupq_n_u8(0)); 2];
        for (half, limbs) in halves.iter_mut().zip(limbs.as_chunks::<HALF>().0) {
            let mut places = choice.places;
            for limbs in limbs.as_chunks::<PERMUTED>().0 {
                // SAFETY: the array has 64 bytes, the load needs no alignment, and the choice was made with a token.
                let entries = unsafe { vld1q_u8_x4(limbs.as_ptr().cast()) };
                // Bytes whose place is not among these stay as they are.
                *half = instruction!(vqtbx4q_u8(*half, entries, places));
                places = instruction!(vsubq_u8(places, size));
            }
        }
        let [lower, upper] = halves.map(|half| instruction!(vreinterpretq_u64_u8(half)));
        Self(instruction!(vbslq_u64(choice.upper, upper, lower)))
    }
}

impl Bits for Pair {
    #[inline(always)]
    fn multiply_add(self, x: Self, y: Self) -> Self {
        Self::of(instruction!(vfmaq_f64(self.doubles(), x.doubles(), y.doubles())))
    }

    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        Self(instruction!(vaddq_u64(self.0, other.0)))
    }

    #[inline(always)]
    fn and_bits(self, other: Self) -> Self {
        Self(instruction!(vandq_u64(self.0, other.0)))
    }

    #[inline(always)]
    fn or_bits(self, other: Self) -> Self {
        Self(instruction!(vorrq_u64(self.0, other.0)))
    }

    #[inline(always)]
    fn carried(self) -> Self {
        Self(instruction!(vshrq_n_u64::<{ LIMB_BITS as i32 }>(self.0)))
    }
}

/// Products of limbs as columns sum them, in chains that do not wait for each other, on registers alone.
struct Chains {
    token: Neon,
    turns: usize,
}

impl Work for Chains {
    #[inline(always)]
    fn run(self) {
        let limb = Pair::splat(self.token, black_box(0.75));
        let mut sums = [[Pair::splat(self.token, 0.0); 2]; TILE];
        for _ in 0..self.turns {
            for [high, low] in &mut sums {
                let before = *high;
                *high = before.multiply_add(limb, limb);
                *low = low.add(before.sub(*high).multiply_add(limb, limb));
            }
        }
        black_box(sums);
    }
}
