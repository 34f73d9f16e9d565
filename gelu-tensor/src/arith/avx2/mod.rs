//! The AVX2 backend: four residues at a time, on fused multiply-adds of doubles.
//!
//! Lane j of a vector belongs to residue j. Digits are signed, up to about n in size, in signed limbs of 49 bits that are
//! held as doubles; docs/arithmetic.md, section 8, says how their products are summed without an error, and derives the
//! bounds.
//!
//! This folder and `ifma` are the only places in the project with `unsafe` code. Here it calls functions compiled for
//! AVX2 and FMA, after [`Avx2::detect`] has found both; it loads and stores vectors from slices whose lengths it has
//! checked; and it reads and sets the processor's rounding mode.

mod digits;
mod environment;
mod kernels;
mod lanes;
mod product;
mod sums;

use core::arch::x86_64::__m256d;

use zeroize::{Zeroize, Zeroizing};

use self::digits::{Constants, to_signed, to_wide};
use self::environment::Nearest;
use self::kernels::Inverse;
use self::product::Modulus;
use super::kernel::{Instructions, Kernel};
use super::operands::Factors;
use super::portable;

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
        Box::new(Context::new(*self, n))
    }

    fn multiply_chains(&self) -> usize {
        // SAFETY: a safe function but for its target features, which the token proves.
        unsafe { kernels::multiply_add_chains() }
    }
}

/// Bits of an exponent that one table look-up takes.
const POWER_WINDOW: usize = 5;

const LIMB_BITS: usize = 49;
/// Limbs of a tile, and columns of a window.
const TILE: usize = 7;

/// Runs a const-generic function for the context's number of tiles.
macro_rules! for_tiles {
    ($context:expr, $function:ident ( $($argument:expr),* )) => {
        match $context.tiles {
            2 => $function::<2>($context, $($argument),*),
            3 => $function::<3>($context, $($argument),*),
            5 => $function::<5>($context, $($argument),*),
            6 => $function::<6>($context, $($argument),*),
            9 => $function::<9>($context, $($argument),*),
            _ => $function::<12>($context, $($argument),*),
        }
    };
}

/// The constants of a modulus.
pub(super) struct Context {
    /// The token stands for every call of a kernel below.
    avx2: Avx2,
    portable: portable::Context,
    tiles: usize,
    signed: Zeroizing<Vec<i64>>,
    n: Vec<__m256d>,
    k: Vec<__m256d>,
    minus_k: Vec<__m256d>,
    p: Vec<__m256d>,
    inverse: f64,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.n.zeroize();
        self.k.zeroize();
        self.minus_k.zeroize();
        self.p.zeroize();
        self.inverse.zeroize();
    }
}

impl Context {
    fn new(avx2: Avx2, n: &[u64]) -> Self {
        // Five bits more than n has, in whole tiles: 14, 21, 35, 42, 63 or 84 limbs.
        let tiles = (64 * n.len() + 5).div_ceil(LIMB_BITS * TILE);
        let Constants { n: signed, k, p } = Constants::new(n, tiles * TILE);
        let minus_k: Zeroizing<Vec<i64>> = Zeroizing::new(k.iter().map(|limb| -limb).collect());
        // SAFETY: a safe function but for its target features, which the token proves.
        let [n_lanes, k, minus_k, p] =
            [&signed, &k, &minus_k, &p].map(|limbs| unsafe { lanes::broadcast(limbs) });
        let inverse = reciprocal(signed[top_limb(n.len())]);
        Self { avx2, portable: portable::Context::new(n), tiles, signed, n: n_lanes, k, minus_k, p, inverse }
    }

    /// Limbs of one digit.
    fn limbs(&self) -> usize {
        self.tiles * TILE
    }

    fn modulus<const N: usize>(&self) -> Modulus<'_, N> {
        Modulus {
            n: &self.n.as_chunks::<TILE>().0.as_chunks::<N>().0[0],
            k: &self.k.as_chunks::<TILE>().0[0],
            minus_k: &self.minus_k.as_chunks::<TILE>().0[0],
            p: &self.p.as_chunks::<TILE>().0.as_chunks::<N>().0[0],
        }
    }

    fn inverse(&self) -> Inverse {
        Inverse { inverse: self.inverse, limb: top_limb(self.portable.modulus().len()) }
    }
}

/// The limb of 49 bits that has n's top bit, for n of so many 64-bit limbs.
fn top_limb(limbs: usize) -> usize {
    (64 * limbs - 1) / LIMB_BITS
}

/// About 1 over a positive limb, without a division, whose time may depend on it: 2^-20 off at most.
fn reciprocal(limb: i64) -> f64 {
    let limb = limb as f64;
    // Less than 1.5 2^-exponent and no less than 0.5 2^-exponent, so that Newton's iteration converges.
    let exponent = limb.to_bits() >> 52;
    let mut inverse = f64::from_bits((2 * 1023 - exponent) << 52) * 0.75;
    for _ in 0..6 {
        inverse *= 2.0 - limb * inverse;
    }
    inverse
}

impl Kernel for Context {
    fn portable(&self) -> &portable::Context {
        &self.portable
    }

    fn width(&self) -> usize {
        2 * self.limbs()
    }

    fn radix_bits(&self) -> usize {
        LIMB_BITS * self.limbs()
    }

    fn power_window(&self) -> usize {
        POWER_WINDOW
    }

    fn encode_digits(&self, digits: &[u64]) -> Zeroizing<Vec<u64>> {
        let mut residue = Zeroizing::new(Vec::with_capacity(self.width()));
        for digit in digits.chunks_exact(digits.len() / 2) {
            residue.extend(to_signed(digit, self.limbs()).iter().map(|&limb| to_bits(limb)));
        }
        residue
    }

    fn decode_digits(&self, residue: &[u64]) -> Zeroizing<Vec<u64>> {
        let n = (self.signed.as_slice(), self.portable.modulus());
        let mut digits = Zeroizing::new(vec![0; 2 * n.1.len()]);
        let (a, b) = digits.split_at_mut(n.1.len());
        let mut limbs = Zeroizing::new(residue.iter().map(|&bits| from_bits(bits)).collect::<Vec<i64>>());
        let (low, high) = limbs.split_at_mut(self.limbs());
        let (low_top, taken) = to_wide(a, low.iter().copied(), n);
        // What the lower digit has too much as 2 n, the upper digit has too much as 2.
        high[0] -= 2 * (1 - taken as i64);
        let (high_top, _) = to_wide(b, high.iter().copied(), n);
        self.portable.canonical(&mut digits, [low_top, high_top]);
        digits
    }

    fn mul(&self, x: &mut [u64], factors: Factors<'_>) {
        for_tiles!(self, mul(x, factors));
    }

    fn square(&self, x: &mut [u64], times: usize) {
        for_tiles!(self, square(x, times));
    }

    fn add(&self, x: &mut [u64], y: &[u64]) {
        for_tiles!(self, add(x, y, false));
    }

    fn sub(&self, x: &mut [u64], y: &[u64]) {
        for_tiles!(self, add(x, y, true));
    }

    fn mul_one_plus(&self, x: &mut [u64], m: &[u64], r: &[u64]) {
        let limbs = self.portable.modulus().len();
        let mut factors = Zeroizing::new(Vec::with_capacity(x.len()));
        let mut digits = Zeroizing::new(vec![0; 2 * limbs]);
        digits[0] = 1;
        for m in m.chunks_exact(limbs) {
            digits[limbs..].copy_from_slice(m);
            factors.extend_from_slice(&self.encode_digits(&digits));
        }
        self.mul(&mut factors, Factors::One(r));
        self.mul(x, Factors::Each(&factors));
    }
}

/// The bits of a limb as a double.
fn to_bits(limb: i64) -> u64 {
    (limb as f64).to_bits()
}

/// The limb that a double is, of less than 51 bits: by an addition without rounding.
fn from_bits(bits: u64) -> i64 {
    const OFFSET: f64 = 1.5 * (1u64 << 52) as f64;
    (f64::from_bits(bits) + OFFSET).to_bits().wrapping_sub(OFFSET.to_bits()) as i64
}

fn mul<const N: usize>(context: &Context, x: &mut [u64], factors: Factors<'_>) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let count = x.len() / width;
    let steps = match factors {
        Factors::Gather { entries, .. } => entries.len() / count.max(1),
        _ => 1,
    };
    let factor = |step: usize, residue: usize| match factors {
        Factors::Each(y) => &y[residue * width..][..width],
        Factors::Gather { tables, entries } => {
            let entry = entries[step * count + residue];
            tables[entry.table as usize].residue(entry.index as usize)
        }
        Factors::One(y) => &y[..width],
    };
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::mul_rows(&modulus, x, steps, factor, width) };
}

fn square<const N: usize>(context: &Context, x: &mut [u64], times: usize) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::square_rows(&modulus, x, times, width) };
}

fn add<const N: usize>(context: &Context, x: &mut [u64], y: &[u64], subtract: bool) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::add_rows((&modulus, context.inverse()), x, y, subtract, width) };
}
