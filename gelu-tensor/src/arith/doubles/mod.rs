//! Doubles: as many residues at a time as a vector has lanes, on fused multiply-adds.
//!
//! Lane j of a vector belongs to residue j. Digits are signed, up to about n in size, in signed limbs of 49 bits that are
//! held as doubles; docs/arithmetic.md, section 8, says how their products are summed without an error, and derives the
//! bounds.
//!
//! All of it is one text, over [vectors](vector::Vector) of eight lanes (`avx512`), four (`avx2`) or two (`neon`), but
//! for the [sums](sums::Sums) of products: on x86-64 they are in assembly.

mod comb;
mod crt;
mod digits;
mod lanes;
mod rows;
pub(super) mod sums;
#[cfg(test)]
pub(super) mod tests;
pub(super) mod vector;
#[cfg(any(test, target_arch = "aarch64"))]
pub(super) mod window;
#[cfg(any(test, target_arch = "aarch64"))]
pub(super) mod windows;

use zeroize::{Zeroize, Zeroizing};

use self::crt::Others;
use self::digits::{Constants, to_signed, to_wide};
use self::lanes::GROUPS;
use self::rows::Rows;
use self::sums::{Modulus, Tile};
use self::vector::Vector;
use super::digits::Digits;
use super::kernel::{Kernel, Work};
use super::operands::{Factors, Selection};
use super::power::Exponent;

/// Bits of an exponent that one table look-up takes.
const POWER_WINDOW: usize = 5;

pub(super) const LIMB_BITS: usize = 49;
/// Limbs of a tile, and columns of a window.
pub(super) const TILE: usize = 7;

/// Runs a const-generic function for the context's number of tiles.
macro_rules! for_tiles {
    ($context:expr, $function:ident ( $($argument:expr),* )) => {
        match $context.tiles {
            2 => $function::<V, 2>($context, $($argument),*),
            3 => $function::<V, 3>($context, $($argument),*),
            5 => $function::<V, 5>($context, $($argument),*),
            6 => $function::<V, 6>($context, $($argument),*),
            9 => $function::<V, 9>($context, $($argument),*),
            _ => $function::<V, 12>($context, $($argument),*),
        }
    };
}

/// Runs work on whole vectors of residues, then on a rest for half a vector, given rows and which residue is their first.
macro_rules! run_split {
    ($context:ident, $x:ident, |$rows:ident, $first:ident| $work:expr) => {{
        let (whole, rest) = $context.split($x);
        let first_of_rest = whole.len() / $context.width();
        if !whole.is_empty() {
            let ($rows, $first) = ($context.rows::<N>(whole), 0);
            $context.whole.run($work);
        }
        if let Some(half) = &$context.half
            && !rest.is_empty()
        {
            let ($rows, $first) = ($context.rows_of::<_, N>(half, rest), first_of_rest);
            half.run($work);
        }
    }};
}

/// The constants of a modulus.
pub(super) struct Context<V: Vector> {
    whole: Spread<V>,
    /// For vectors of half as many lanes, which take what fills no more than those.
    half: Option<Spread<V::Half>>,
    digits: Digits,
    tiles: usize,
    /// n in signed limbs.
    n: Zeroizing<Vec<i64>>,
    inverse: f64,
}

/// The constants of a [`Modulus`], in all lanes.
struct Spread<V: Vector> {
    /// Stands for every vector that is made below.
    token: V::Token,
    constants: Zeroizing<Vec<Tile<V>>>,
}

impl<V: Vector> Spread<V> {
    fn new(token: V::Token, Constants { n, k, p }: &Constants) -> Self {
        let negative: Zeroizing<Vec<i64>> = Zeroizing::new(k.iter().map(|limb| -limb).collect());
        let tile = |limbs: &[i64; TILE]| limbs.map(|limb| V::splat(token, limb as f64));
        let constants =
            [n, p, k, &negative].into_iter().flat_map(|limbs| limbs.as_chunks().0).map(tile).collect();
        Self { token, constants: Zeroizing::new(constants) }
    }

    /// Does something with numbers rounded to nearest.
    fn run(&self, work: impl Work) {
        let _nearest = V::nearest(self.token);
        V::run(self.token, work);
    }
}

impl<V: Vector> Drop for Context<V> {
    fn drop(&mut self) {
        self.inverse.zeroize();
    }
}

impl<V: Vector> Context<V> {
    pub(super) fn new(token: V::Token, half: Option<<V::Half as Vector>::Token>, n: &[u64]) -> Self {
        // Five bits more than n has, in whole tiles: 14, 21, 35, 42, 63 or 84 limbs.
        let tiles = (64 * n.len() + 5).div_ceil(LIMB_BITS * TILE);
        let constants = Constants::new(n, tiles * TILE);
        let whole = Spread::new(token, &constants);
        let half = half.map(|half| Spread::new(half, &constants));
        let inverse = reciprocal(constants.n[top_limb(n.len())]);
        Self { whole, half, digits: Digits::new(n), tiles, n: constants.n, inverse }
    }

    /// Limbs of one digit.
    fn limbs(&self) -> usize {
        self.tiles * TILE
    }

    fn rows<'a, const N: usize>(&'a self, limbs: &'a mut [u64]) -> Rows<'a, V, N> {
        self.rows_of(&self.whole, limbs)
    }

    /// The same in vectors of this size or half of it.
    fn rows_of<'a, W: Vector, const N: usize>(
        &'a self,
        of: &'a Spread<W>,
        limbs: &'a mut [u64],
    ) -> Rows<'a, W, N> {
        Rows { modulus: self.modulus(of), limbs, width: self.width() }
    }

    fn modulus<'a, W: Vector, const N: usize>(&self, of: &'a Spread<W>) -> Modulus<'a, W, N> {
        let top_limb = top_limb(self.digits.modulus().len());
        Modulus { token: of.token, constants: &of.constants, inverse: self.inverse, top_limb }
    }

    /// Residues for whole vectors, and those at the end that half a vector takes, if there are such vectors.
    fn split<'a>(&self, x: &'a mut [u64]) -> (&'a mut [u64], &'a mut [u64]) {
        let rest = x.len() / self.width() % V::LANES;
        let halved = self.half.is_some() && rest <= V::Half::LANES;
        x.split_at_mut(x.len() - if halved { rest * self.width() } else { 0 })
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

impl<V: Vector> Kernel for Context<V> {
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

    /// As ifma has them: pairs (a, s) with `a + b n = a (1 + n s / R)`.
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
        let whole = Others { limbs: residues, width: whole.width() };
        let mut out = Zeroizing::new(vec![0; whole.count() * self.width()]);
        match self.tiles {
            2 => project::<V, 2>(self, &mut out, whole, factors),
            3 => project::<V, 3>(self, &mut out, whole, factors),
            5 => project::<V, 5>(self, &mut out, whole, factors),
            _ => project::<V, 6>(self, &mut out, whole, factors),
        }
        out
    }

    fn combine(&self, parts: [(&dyn Kernel, &[u64]); 2], factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let parts = parts.map(|(part, limbs)| Others { limbs, width: part.width() });
        let mut out = Zeroizing::new(vec![0; parts[0].count() * self.width()]);
        match self.tiles {
            3 => combine::<V, 3, 2>(self, &mut out, parts, factors),
            6 => combine::<V, 6, 3>(self, &mut out, parts, factors),
            9 => combine::<V, 9, 5>(self, &mut out, parts, factors),
            _ => combine::<V, 12, 6>(self, &mut out, parts, factors),
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

fn mul<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], factors: Factors<'_>) {
    let width = context.width();
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
    let from = |first: usize| move |step: usize, residue: usize| factor(step, first + residue);
    run_split!(context, x, |rows, first| rows::Mul { rows, steps, factor: from(first) });
}

fn square<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], times: usize) {
    run_split!(context, x, |rows, _first| rows::Square { rows, times });
}

fn add<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], y: &[u64], subtract: bool) {
    context.whole.run(rows::Add { rows: context.rows::<N>(x), y, subtract });
}

fn reduce<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64]) {
    context.whole.run(rows::Reduce(context.rows::<N>(x)));
}

fn mul_one_plus<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], m: &[u64], r: &[u64]) {
    context.whole.run(rows::MulOnePlus { rows: context.rows::<N>(x), m, r_squared: r });
}

fn power<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], exponent: &Exponent, one: &[u64]) {
    let digits: Zeroizing<Vec<u64>> = Zeroizing::new(exponent.digits_from_top(POWER_WINDOW).collect());
    run_split!(context, x, |rows, _first| rows::Power { rows, digits: &digits, one });
}

fn mul_selected<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], selection: Selection<'_>) {
    let together = GROUPS * V::LANES;
    for (part, x) in x.chunks_mut(together * context.width()).enumerate() {
        let before = part * together;
        run_split!(context, x, |rows, first| comb::MulSelected {
            rows,
            selection: Selection {
                digit: &|row, residue| (selection.digit)(row, before + first + residue),
                ..selection
            },
        });
    }
}

fn project<V: Vector, const N: usize>(
    context: &Context<V>,
    out: &mut [u64],
    whole: Others<'_>,
    factors: [&[u64]; 4],
) {
    context.whole.run(crt::Project { rows: context.rows::<N>(out), whole, factors });
}

fn combine<V: Vector, const N: usize, const M: usize>(
    context: &Context<V>,
    out: &mut [u64],
    parts: [Others<'_>; 2],
    factors: [&[u64]; 4],
) {
    context.whole.run(crt::Combine::<V, N, M> { rows: context.rows::<N>(out), parts, factors });
}
