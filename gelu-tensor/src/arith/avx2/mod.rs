//! The AVX2 backend: four residues at a time, on fused multiply-adds of doubles.
//!
//! Lane j of a vector belongs to residue j. Digits are signed, up to about n in size, in signed limbs of 49 bits that are
//! held as doubles; docs/arithmetic.md, section 8, says how their products are summed without an error, and derives the
//! bounds.
//!
//! The `unsafe` code of this folder calls functions compiled for AVX2 and FMA, after [`Avx2::detect`] has found both; it loads and stores vectors from slices whose lengths it has
//! checked; it calls functions in assembly on arrays whose types say how long they are; and it reads and sets the processor's
//! rounding mode. (A test also reads vectors as arrays of their limbs.)

mod assembly;
mod comb;
mod crt;
mod digits;
mod environment;
mod kernels;
mod lanes;
pub(super) mod select;
#[cfg(test)]
mod tests;

use core::arch::x86_64::__m256d;

use zeroize::{Zeroize, Zeroizing};

use self::assembly::Modulus;
use self::comb::SELECTED_TOGETHER;
use self::crt::{Rows, combine_rows, project_rows};
use self::digits::{Constants, to_signed, to_wide};
use self::environment::Nearest;
use self::kernels::Inverse;
use super::digits::Digits;
use super::kernel::{Instructions, Kernel};
use super::operands::{Factors, Selection};
use super::power::Exponent;

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
        unsafe { assembly::multiply_add_chains() }
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
    digits: Digits,
    tiles: usize,
    /// n in signed limbs.
    n: Zeroizing<Vec<i64>>,
    /// What [`Modulus`] has, one after another.
    constants: Zeroizing<Vec<__m256d>>,
    inverse: f64,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.inverse.zeroize();
    }
}

impl Context {
    fn new(avx2: Avx2, n: &[u64]) -> Self {
        // Five bits more than n has, in whole tiles: 14, 21, 35, 42, 63 or 84 limbs.
        let tiles = (64 * n.len() + 5).div_ceil(LIMB_BITS * TILE);
        let Constants { n: signed, k, p } = Constants::new(n, tiles * TILE);
        let limbs = signed.iter().chain(p.iter()).copied().chain(k.iter().copied());
        let limbs = limbs.chain(k.iter().map(|limb| -limb));
        // SAFETY: a safe function but for its target features, which the token proves.
        let constants = limbs.map(|limb| unsafe { lanes::in_all_lanes(limb) }).collect();
        let inverse = reciprocal(signed[top_limb(n.len())]);
        Self { avx2, digits: Digits::new(n), tiles, n: signed, constants: Zeroizing::new(constants), inverse }
    }

    /// Limbs of one digit.
    fn limbs(&self) -> usize {
        self.tiles * TILE
    }

    fn modulus<const N: usize>(&self) -> &Modulus<N> {
        let constants: &[__m256d] = &self.constants[..size_of::<Modulus<N>>() / size_of::<__m256d>()];
        // SAFETY: a modulus is vectors alone, as many as the slice has (slicing panics otherwise), in an order that its type
        // fixes (repr(C)).
        unsafe { &*constants.as_ptr().cast::<Modulus<N>>() }
    }

    fn inverse(&self) -> Inverse {
        Inverse { inverse: self.inverse, limb: top_limb(self.digits.modulus().len()) }
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
    fn digits(&self) -> &Digits {
        &self.digits
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
        let n = (self.n.as_slice(), self.digits.modulus());
        let mut digits = Zeroizing::new(vec![0; 2 * n.1.len()]);
        let (a, b) = digits.split_at_mut(n.1.len());
        let mut limbs = Zeroizing::new(residue.iter().map(|&bits| from_bits(bits)).collect::<Vec<i64>>());
        let (low, high) = limbs.split_at_mut(self.limbs());
        let (low_top, taken) = to_wide(a, low.iter().copied(), n);
        // What the lower digit has too much as 2 n, the upper digit has too much as 2.
        high[0] -= 2 * (1 - taken as i64);
        let (high_top, _) = to_wide(b, high.iter().copied(), n);
        self.digits.canonical(&mut digits, [low_top, high_top]);
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

    fn reduce(&self, x: &mut [u64]) {
        for_tiles!(self, reduce(x));
    }

    fn mul_one_plus(&self, x: &mut [u64], m: &[u64], r: &[u64]) {
        let mut signed = Zeroizing::new(Vec::with_capacity(x.len() / 2));
        for m in m.chunks_exact(self.digits.modulus().len()) {
            signed.extend(to_signed(m, self.limbs()).iter().map(|&limb| to_bits(limb)));
        }
        for_tiles!(self, mul_one_plus(x, &signed, r));
    }

    fn power(&self, x: &mut [u64], exponent: &Exponent, one: &[u64]) {
        for_tiles!(self, power(x, exponent, one));
    }

    /// Limb by limb the limbs of all entries, so that permutations select one for each lane.
    fn arrange_for_selection(&self, table: &[u64]) -> Zeroizing<Vec<u64>> {
        let (width, entries) = (self.width(), table.len() / self.width());
        let mut arranged = Zeroizing::new(vec![0; table.len()]);
        for (entry, residue) in table.chunks_exact(width).enumerate() {
            for (k, &limb) in residue.iter().enumerate() {
                arranged[k * entries + entry] = limb;
            }
        }
        arranged
    }

    /// As [`Ifma`](super::ifma) has them: pairs (a, s) with `a + b n = a (1 + n s / R)`.
    fn factored(&self, residues: &[u64], inverses: &[u64]) -> Option<Zeroizing<Vec<u64>>> {
        let (width, limbs) = (self.width(), self.limbs());
        let mut factored = Zeroizing::new(vec![0; residues.len()]);
        for (factored, residue) in factored.chunks_exact_mut(width).zip(residues.chunks_exact(width)) {
            factored[..limbs].copy_from_slice(&residue[limbs..]);
        }
        self.mul(&mut factored, Factors::Each(inverses));
        for (factored, residue) in factored.chunks_exact_mut(width).zip(residues.chunks_exact(width)) {
            factored.copy_within(..limbs, limbs);
            factored[..limbs].copy_from_slice(&residue[..limbs]);
        }
        Some(factored)
    }

    /// Any number: their sum is reduced on the way.
    fn most_factored_rows(&self) -> usize {
        usize::MAX
    }

    fn mul_selected(&self, x: &mut [u64], selection: Selection<'_>) {
        for_tiles!(self, mul_selected(x, selection));
    }

    fn cut_bits(&self) -> usize {
        self.radix_bits()
    }

    fn project(&self, (whole, residues): (&dyn Kernel, &[u64]), factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let whole = Rows { limbs: residues, width: whole.width() };
        let mut out = Zeroizing::new(vec![0; whole.count() * self.width()]);
        match self.tiles {
            2 => project::<2>(self, &mut out, whole, factors),
            3 => project::<3>(self, &mut out, whole, factors),
            5 => project::<5>(self, &mut out, whole, factors),
            _ => project::<6>(self, &mut out, whole, factors),
        }
        out
    }

    fn combine(&self, parts: [(&dyn Kernel, &[u64]); 2], factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let parts = parts.map(|(part, limbs)| Rows { limbs, width: part.width() });
        let mut out = Zeroizing::new(vec![0; parts[0].count() * self.width()]);
        match self.tiles {
            3 => combine::<3, 2>(self, &mut out, parts, factors),
            6 => combine::<6, 3>(self, &mut out, parts, factors),
            9 => combine::<9, 5>(self, &mut out, parts, factors),
            _ => combine::<12, 6>(self, &mut out, parts, factors),
        }
        out
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
    unsafe { kernels::mul_rows(modulus, x, steps, factor, width) };
}

fn square<const N: usize>(context: &Context, x: &mut [u64], times: usize) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::square_rows(modulus, x, times, width) };
}

fn add<const N: usize>(context: &Context, x: &mut [u64], y: &[u64], subtract: bool) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::add_rows((modulus, context.inverse()), x, y, subtract, width) };
}

fn reduce<const N: usize>(context: &Context, x: &mut [u64]) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::reduce_rows(modulus, x, width) };
}

fn mul_one_plus<const N: usize>(context: &Context, x: &mut [u64], m: &[u64], r: &[u64]) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::mul_one_plus_rows((modulus, context.inverse()), x, m, r, width) };
}

fn power<const N: usize>(context: &Context, x: &mut [u64], exponent: &Exponent, one: &[u64]) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let digits: Zeroizing<Vec<u64>> = Zeroizing::new(exponent.digits_from_top(POWER_WINDOW).collect());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::power_rows(modulus, x, &digits, one, width) };
}

fn mul_selected<const N: usize>(context: &Context, x: &mut [u64], selection: Selection<'_>) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    for (part, x) in x.chunks_mut(SELECTED_TOGETHER * width).enumerate() {
        let digit = |row: usize, residue: usize| (selection.digit)(row, part * SELECTED_TOGETHER + residue);
        let selection = Selection { digit: &digit, ..selection };
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { comb::mul_selected((modulus, context.inverse()), x, selection, width) };
    }
}

fn project<const N: usize>(context: &Context, out: &mut [u64], whole: Rows<'_>, factors: [&[u64]; 4]) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { project_rows((modulus, context.inverse()), out, width, whole, factors) };
}

fn combine<const N: usize, const M: usize>(
    context: &Context,
    out: &mut [u64],
    parts: [Rows<'_>; 2],
    factors: [&[u64]; 4],
) {
    let _: Avx2 = context.avx2;
    let (modulus, width) = (context.modulus::<N>(), context.width());
    let _nearest = Nearest::new();
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { combine_rows::<N, M>(modulus, out, width, parts, factors) };
}
