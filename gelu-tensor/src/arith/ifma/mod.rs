//! The AVX-512 IFMA backend: eight residues at a time, limbs of 52 bits.
//!
//! Lane j of a vector belongs to residue j. With `R = 2^(52 L) >= 16 n`, a product of halves below 2 n is again below
//! 2 n without any final subtraction:
//!
//! - low half: `a c / R + n < 4 n^2 / R + n <= n / 4 + n`;
//! - high half: `(a d + b c + V - m) / R + n < (8 n^2 + V) / R + n < n / 2 + 3 + n`, for `V < 2 R + n` a multiple of
//!   n that keeps the difference positive.
//!
//! The limbs of V are stored redundantly, each at least 2^52 - 1, so that `V - m` needs no borrow. A 64-bit
//! accumulator takes `6 L <= 480` halves of limb products, each below 2^52, without a carry in between.
//!
//! The `unsafe` code of this folder does two things: it calls functions compiled for AVX-512 IFMA, after [`Ifma::detect`] has found it, and it loads and stores vectors from slices whose lengths it
//! has checked. The functions called are safe in every other respect: wrong lengths make them panic or give wrong
//! numbers, and never touch other memory. (A test also reads vectors as arrays of their limbs.)

mod crt;
mod kernels;
mod lanes;
mod reduction;

use zeroize::{Zeroize, Zeroizing};

use self::crt::{Rows, combine, project};
use self::kernels::SELECTED_TOGETHER;
use self::reduction::{TILE, Tables};
use super::digits::Digits;
use super::kernel::{Instructions, Kernel};
use super::operands::{Factors, Selection};
use super::power::Exponent;

/// Proof that this processor has AVX-512 F and IFMA, made only by detection: its field is private.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ifma(());

impl Ifma {
    pub(super) fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512ifma");
        found.then_some(Self(()))
    }
}

impl Instructions for Ifma {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::new(*self, n))
    }

    fn multiply_chains(&self) -> usize {
        // SAFETY: a safe function but for its target features, which the token proves.
        unsafe { kernels::multiply_add_chains() }
    }
}

/// Bits of an exponent that one table look-up takes.
const POWER_WINDOW: usize = 4;

const LIMB_BITS: usize = 52;
const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;

/// Runs a const-generic function for the context's number of tiles.
macro_rules! for_tiles {
    ($context:expr, $function:ident ( $($argument:expr),* )) => {
        match $context.tiles {
            2 => $function::<2>($context, $($argument),*),
            4 => $function::<4>($context, $($argument),*),
            6 => $function::<6>($context, $($argument),*),
            8 => $function::<8>($context, $($argument),*),
            12 => $function::<12>($context, $($argument),*),
            _ => $function::<16>($context, $($argument),*),
        }
    };
}

/// The constants of a modulus.
pub(super) struct Context {
    /// The token stands for every call of a kernel below.
    ifma: Ifma,
    digits: Digits,
    tiles: usize,
    n: Vec<u64>,
    /// The redundant limbs of V.
    lift: Vec<u64>,
    negative_inverse: u64,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.n.zeroize();
        self.lift.zeroize();
        self.negative_inverse.zeroize();
    }
}

impl Context {
    fn new(ifma: Ifma, n: &[u64]) -> Self {
        // Four bits more than n has, in whole tiles: 10, 20, 30, 40, 60 or 80 limbs.
        let tiles = (64 * n.len() + 4).div_ceil(LIMB_BITS).div_ceil(TILE);
        let limbs = tiles * TILE;
        let mut narrow = vec![0; limbs];
        narrow_limbs(&mut narrow, n);
        let inverse = (0..5).fold(n[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(x))));
        let lift = redundant_multiple(n, limbs);
        let negative_inverse = inverse.wrapping_neg() & LIMB_MASK;
        Self { ifma, digits: Digits::new(n), tiles, n: narrow, lift, negative_inverse }
    }

    /// Limbs of one half.
    fn limbs(&self) -> usize {
        self.tiles * TILE
    }

    fn tables<const N: usize>(&self) -> Tables<'_, N> {
        Tables {
            n: &self.n.as_chunks::<TILE>().0.as_chunks::<N>().0[0],
            lift: &self.lift.as_chunks::<TILE>().0.as_chunks::<N>().0[0],
            negative_inverse: self.negative_inverse,
        }
    }
}

impl Kernel for Context {
    fn digits(&self) -> &Digits {
        &self.digits
    }

    /// Limbs of one residue, in whole runs of eight, which transposing needs.
    fn width(&self) -> usize {
        (2 * self.limbs()).next_multiple_of(lanes::LANES)
    }

    fn radix_bits(&self) -> usize {
        LIMB_BITS * self.limbs()
    }

    fn power_window(&self) -> usize {
        POWER_WINDOW
    }

    fn encode_digits(&self, digits: &[u64]) -> Zeroizing<Vec<u64>> {
        let mut residue = Zeroizing::new(vec![0; self.width()]);
        let (a, b) = digits.split_at(digits.len() / 2);
        narrow_limbs(&mut residue[..self.limbs()], a);
        narrow_limbs(&mut residue[self.limbs()..2 * self.limbs()], b);
        residue
    }

    fn decode_digits(&self, residue: &[u64]) -> Zeroizing<Vec<u64>> {
        let limbs = self.digits.modulus().len();
        let mut digits = Zeroizing::new(vec![0; 2 * limbs]);
        let (a, b) = digits.split_at_mut(limbs);
        let tops = [
            widen_limbs(a, &residue[..self.limbs()]),
            widen_limbs(b, &residue[self.limbs()..2 * self.limbs()]),
        ];
        self.digits.canonical(&mut digits, tops);
        digits
    }

    fn mul(&self, x: &mut [u64], factors: Factors<'_>) {
        for_tiles!(self, mul(x, factors));
    }

    fn square(&self, x: &mut [u64], times: usize) {
        for_tiles!(self, square(x, times));
    }

    /// Limb by limb the limbs of all entries, so that a permutation selects one for each lane.
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

    /// Residues `a + b n`, given their inverses, as pairs (a, s) with `a + b n = a (1 + n s / R)`: `s = b R / a`.
    ///
    /// With a Montgomery form a = c R, the inverse's low half is R / c, and the product of b with it `b / c`.
    fn factored(&self, residues: &[u64], inverses: &[u64]) -> Option<Zeroizing<Vec<u64>>> {
        let (width, limbs) = (self.width(), self.limbs());
        let mut factored = Zeroizing::new(vec![0; residues.len()]);
        for (factored, residue) in factored.chunks_exact_mut(width).zip(residues.chunks_exact(width)) {
            factored[..limbs].copy_from_slice(&residue[limbs..2 * limbs]);
        }
        self.mul(&mut factored, Factors::Each(inverses));
        for (factored, residue) in factored.chunks_exact_mut(width).zip(residues.chunks_exact(width)) {
            factored.copy_within(..limbs, limbs);
            factored[..limbs].copy_from_slice(&residue[..limbs]);
        }
        Some(factored)
    }

    fn mul_selected(&self, x: &mut [u64], selection: Selection<'_>) {
        for_tiles!(self, mul_selected(x, selection));
    }

    fn power(&self, x: &mut [u64], exponent: &Exponent, one: &[u64]) {
        for_tiles!(self, power(x, exponent, one));
    }

    fn add(&self, x: &mut [u64], y: &[u64]) {
        for_tiles!(self, add(x, y));
    }

    fn reduce(&self, x: &mut [u64]) {
        for_tiles!(self, reduce(x));
    }

    fn mul_one_plus(&self, x: &mut [u64], m: &[u64], r: &[u64]) {
        let mut narrow = Zeroizing::new(vec![0; x.len()]);
        let wide = m.chunks_exact(self.digits.modulus().len());
        for (narrow, m) in narrow.chunks_exact_mut(self.width()).zip(wide) {
            narrow_limbs(&mut narrow[..self.limbs()], m);
        }
        for_tiles!(self, mul_one_plus(x, &narrow, r));
    }

    fn cut_bits(&self) -> usize {
        self.radix_bits()
    }

    fn project(&self, (whole, residues): (&dyn Kernel, &[u64]), factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let mut out = Zeroizing::new(vec![0; residues.len() / whole.width() * self.width()]);
        let whole = Rows { limbs: residues, width: whole.width() };
        for_tiles!(self, project(&mut out, whole, factors));
        out
    }

    fn combine(&self, parts: [(&dyn Kernel, &[u64]); 2], factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let parts = parts.map(|(part, limbs)| Rows { limbs, width: part.width() });
        let mut out = Zeroizing::new(vec![0; parts[0].count() * self.width()]);
        for_tiles!(self, combine(&mut out, parts, factors));
        out
    }
}

fn mul<const N: usize>(context: &Context, x: &mut [u64], factors: Factors<'_>) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
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
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::mul_rows(&tables, x, steps, factor, width) };
}

fn add<const N: usize>(context: &Context, x: &mut [u64], y: &[u64]) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    let run = lanes::LANES * width;
    for (x, y) in x.chunks_mut(run).zip(y.chunks(run)) {
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { kernels::add_rows(&tables, x, y, width) };
    }
}

fn mul_selected<const N: usize>(context: &Context, x: &mut [u64], selection: Selection<'_>) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    let one = selection.factored.map(|one| halves(one)[0]);
    for (part, x) in x.chunks_mut(SELECTED_TOGETHER * width).enumerate() {
        let digit = |row: usize, residue: usize| (selection.digit)(row, part * SELECTED_TOGETHER + residue);
        let selection = Selection { digit: &digit, ..selection };
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { kernels::mul_selected(&tables, x, selection, one, width) };
    }
}

/// The halves of a residue, in tiles.
fn halves<const N: usize>(residue: &[u64]) -> [&[[u64; TILE]; N]; 2] {
    let halves = residue.as_chunks::<TILE>().0.as_chunks::<N>().0;
    [&halves[0], &halves[1]]
}

fn reduce<const N: usize>(context: &Context, x: &mut [u64]) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    for x in x.chunks_mut(lanes::LANES * width) {
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { kernels::reduce_rows(&tables, x, width) };
    }
}

fn mul_one_plus<const N: usize>(context: &Context, x: &mut [u64], m: &[u64], r: &[u64]) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    let run = lanes::LANES * width;
    for (x, m) in x.chunks_mut(run).zip(m.chunks(run)) {
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { kernels::mul_one_plus_rows(&tables, x, m, halves(r)[0], width) };
    }
}

fn power<const N: usize>(context: &Context, x: &mut [u64], exponent: &Exponent, one: &[u64]) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    for x in x.chunks_mut(lanes::LANES * width) {
        let digits = exponent.digits_from_top(POWER_WINDOW);
        // SAFETY: a safe function but for its target features, which the context's token proves.
        unsafe { kernels::power_rows(&tables, x, digits, one, width) };
    }
}

fn square<const N: usize>(context: &Context, x: &mut [u64], times: usize) {
    let _: Ifma = context.ifma;
    let (tables, width) = (context.tables::<N>(), context.width());
    // SAFETY: a safe function but for its target features, which the context's token proves.
    unsafe { kernels::square_rows(&tables, x, times, width) };
}

/// 64-bit limbs to limbs of 52 bits; what does not fit `narrow` must be zero.
fn narrow_limbs(narrow: &mut [u64], wide: &[u64]) {
    for (i, limb) in narrow.iter_mut().enumerate() {
        let (index, shift) = (LIMB_BITS * i / 64, LIMB_BITS * i % 64);
        let low = wide.get(index).copied().unwrap_or(0) >> shift;
        let high = if shift > 12 { wide.get(index + 1).copied().unwrap_or(0) << (64 - shift) } else { 0 };
        *limb = (low | high) & LIMB_MASK;
    }
}

/// Limbs of 52 bits to 64-bit limbs, returning the bits above them.
fn widen_limbs(wide: &mut [u64], narrow: &[u64]) -> u64 {
    wide.fill(0);
    let mut top = 0;
    for (i, &limb) in narrow.iter().enumerate() {
        let (index, shift) = (LIMB_BITS * i / 64, LIMB_BITS * i % 64);
        let spread = u128::from(limb) << shift;
        for (offset, part) in [spread as u64, (spread >> 64) as u64].into_iter().enumerate() {
            match wide.get_mut(index + offset) {
                Some(wide) => *wide |= part,
                // The value is below 2^(64 limbs + 1): only its top bit can land here.
                None => top |= part,
            }
        }
    }
    top
}

/// A multiple of n from `2 R` up, below `2 R + n`, in `limbs` limbs that are each at least 2^52 - 1.
fn redundant_multiple(n: &[u64], limbs: usize) -> Vec<u64> {
    use num_bigint::BigUint;
    use num_integer::Integer;

    use crate::arith::limbs::to_biguint;

    // Division by a secret prime takes a time that depends on it; this runs once when a key is made or loaded, among
    // the other checks of it (see SECURITY.md).
    let n = to_biguint(n);
    let twice_r = BigUint::from(2u8) << (LIMB_BITS * limbs);
    let multiple = twice_r.next_multiple_of(&n);
    // 2^52 in every limb, which carries 1 into the limb above.
    let spread = (0..limbs).fold(BigUint::ZERO, |sum, i| sum + (BigUint::from(1u8) << (LIMB_BITS * (i + 1))));
    let rest = multiple - spread;
    let digits: Vec<u64> = rest
        .to_radix_le(2)
        .chunks(LIMB_BITS)
        .map(|bits| bits.iter().rev().fold(0, |limb, &bit| (limb << 1) | u64::from(bit)))
        .collect();
    let mut out: Vec<u64> =
        (0..limbs).map(|i| digits.get(i).copied().unwrap_or(0) + (1 << LIMB_BITS)).collect();
    // What is left above the highest limb stays there redundantly: it is at most 1.
    out[limbs - 1] += digits.get(limbs).copied().unwrap_or(0) << LIMB_BITS;
    out
}
