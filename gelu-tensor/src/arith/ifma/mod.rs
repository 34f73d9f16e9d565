//! The IFMA backends: limbs of 52 bits, eight residues at a time (AVX-512) or four (AVX-IFMA).
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
//! All of it is one text, over [vectors](vector::Vector) of either width. Its `unsafe` code is in `wide` and `narrow`, which
//! make such vectors of the processor's. There it calls intrinsics, and functions compiled for them, after detection has
//! found them; and it loads and stores vectors from slices whose lengths it has checked. The functions called are safe in
//! every other respect: wrong lengths make them panic or give wrong numbers, and never touch other memory.

/// An intrinsic on vectors, or on numbers beside a token.
macro_rules! instruction {
    ($call:expr) => {
        // SAFETY: a safe function but for its target features, which a token proves: one at hand, or the one that the
        // vectors were made with.
        unsafe { $call }
    };
}

mod crt;
#[cfg(test)]
mod emulated;
mod kernels;
mod lanes;
mod limbs;
mod narrow;
mod reduction;
mod rows;
mod vector;
mod wide;

use zeroize::{Zeroize, Zeroizing};

use self::crt::Others;
#[cfg(test)]
pub(super) use self::emulated::Emulation;
use self::kernels::CHAINS;
use self::lanes::GROUPS;
use self::limbs::{narrow_limbs, redundant_multiple};
#[cfg(test)]
use self::narrow::LikeVex;
use self::narrow::{Avx512Vl, AvxIfma, Evex, Vex};
use self::reduction::{TILE, Tables};
use self::rows::Rows;
use self::vector::Vector;
pub(super) use self::wide::Ifma;
use self::wide::Wide;
use super::digits::Digits;
use super::kernel::{Instructions, Kernel};
use super::limbs::widen;
use super::operands::{Factors, Selection};
use super::power::Exponent;

impl Instructions for Ifma {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        let mut context = Context::<Wide>::new(*self, n);
        context.half = Avx512Vl::detect();
        Box::new(context)
    }

    fn multiply_chains(&self) -> usize {
        multiply_chains::<Wide>(*self)
    }
}

/// Multiply-adds of four residues at a time, in the encoding that this processor has.
pub(super) enum FourLanes {
    Vex(AvxIfma),
    Evex(Avx512Vl),
}

impl FourLanes {
    pub(super) fn detect() -> Option<Self> {
        AvxIfma::detect().map(Self::Vex).or_else(|| Avx512Vl::detect().map(Self::Evex))
    }
}

impl Instructions for FourLanes {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        match *self {
            Self::Vex(token) => Box::new(Context::<Vex>::new(token, n)),
            #[cfg(not(test))]
            Self::Evex(token) => Box::new(Context::<Evex>::new(token, n)),
            // Hardly any processor that tests run on has VEX. Evex itself is tested as half of a wide vector.
            #[cfg(test)]
            Self::Evex(token) => Box::new(Context::<LikeVex>::new(token, n)),
        }
    }

    fn multiply_chains(&self) -> usize {
        match *self {
            Self::Vex(token) => multiply_chains::<Vex>(token),
            Self::Evex(token) => multiply_chains::<Evex>(token),
        }
    }
}

fn multiply_chains<V: Vector>(token: V::Token) -> usize {
    const TURNS: usize = 50_000;
    V::run(token, kernels::Chains::<V> { token, turns: TURNS });
    TURNS * CHAINS
}

/// Bits of an exponent that one table look-up takes.
const POWER_WINDOW: usize = 4;

const LIMB_BITS: usize = 52;
const LIMB_MASK: u64 = (1 << LIMB_BITS) - 1;

/// Runs a const-generic function for the context's number of tiles.
macro_rules! for_tiles {
    ($context:expr, $function:ident ( $($argument:expr),* )) => {
        match $context.tiles {
            2 => $function::<V, 2>($context, $($argument),*),
            4 => $function::<V, 4>($context, $($argument),*),
            6 => $function::<V, 6>($context, $($argument),*),
            8 => $function::<V, 8>($context, $($argument),*),
            12 => $function::<V, 12>($context, $($argument),*),
            _ => $function::<V, 16>($context, $($argument),*),
        }
    };
}

/// The constants of a modulus.
struct Context<V: Vector> {
    /// Stands for every vector that is made below.
    token: V::Token,
    /// For vectors of half as many lanes, which take what fills no more than those.
    half: Option<Avx512Vl>,
    digits: Digits,
    tiles: usize,
    n: Vec<u64>,
    /// The redundant limbs of V.
    lift: Vec<u64>,
    negative_inverse: u64,
}

impl<V: Vector> Drop for Context<V> {
    fn drop(&mut self) {
        self.n.zeroize();
        self.lift.zeroize();
        self.negative_inverse.zeroize();
    }
}

impl<V: Vector> Context<V> {
    fn new(token: V::Token, n: &[u64]) -> Self {
        // Four bits more than n has, in whole tiles: 10, 20, 30, 40, 60 or 80 limbs.
        let tiles = (64 * n.len() + 4).div_ceil(LIMB_BITS).div_ceil(TILE);
        let limbs = tiles * TILE;
        let mut narrow = vec![0; limbs];
        narrow_limbs(&mut narrow, n);
        let inverse = (0..5).fold(n[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(x))));
        let lift = redundant_multiple(n, limbs);
        let negative_inverse = inverse.wrapping_neg() & LIMB_MASK;
        Self { token, half: None, digits: Digits::new(n), tiles, n: narrow, lift, negative_inverse }
    }

    /// Limbs of one half.
    fn limbs(&self) -> usize {
        self.tiles * TILE
    }

    fn rows<'a, const N: usize>(&'a self, limbs: &'a mut [u64]) -> Rows<'a, V, N> {
        self.rows_of(self.token, limbs)
    }

    /// Rows for vectors of any kind.
    fn rows_of<'a, W: Vector, const N: usize>(
        &'a self,
        token: W::Token,
        limbs: &'a mut [u64],
    ) -> Rows<'a, W, N> {
        let tables = Tables {
            token,
            n: &self.n.as_chunks::<TILE>().0.as_chunks::<N>().0[0],
            lift: &self.lift.as_chunks::<TILE>().0.as_chunks::<N>().0[0],
            negative_inverse: self.negative_inverse,
        };
        Rows { tables, limbs, width: self.width() }
    }

    /// Residues for whole vectors, and those at the end that half a vector holds, where there are such.
    fn split<'a>(&self, x: &'a mut [u64]) -> (&'a mut [u64], Option<(Avx512Vl, &'a mut [u64])>) {
        let rest = x.len() / self.width() % V::LANES;
        match self.half {
            Some(half) if (1..=Evex::LANES).contains(&rest) => {
                let (whole, rest) = x.split_at_mut(x.len() - rest * self.width());
                (whole, Some((half, rest)))
            }
            _ => (x, None),
        }
    }
}

impl<V: Vector> Kernel for Context<V> {
    fn digits(&self) -> &Digits {
        &self.digits
    }

    /// Limbs of one residue, in whole runs of as many as there are lanes, which transposing needs.
    fn width(&self) -> usize {
        (2 * self.limbs()).next_multiple_of(V::LANES)
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
            widen(a, residue[..self.limbs()].iter().copied(), LIMB_BITS),
            widen(b, residue[self.limbs()..2 * self.limbs()].iter().copied(), LIMB_BITS),
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
        let whole = Others { limbs: residues, width: whole.width() };
        for_tiles!(self, project(&mut out, whole, factors));
        out
    }

    fn combine(&self, parts: [(&dyn Kernel, &[u64]); 2], factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let parts = parts.map(|(part, limbs)| Others { limbs, width: part.width() });
        let mut out = Zeroizing::new(vec![0; parts[0].count() * self.width()]);
        for_tiles!(self, combine(&mut out, parts, factors));
        out
    }
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
    let (whole, rest) = context.split(x);
    let first = whole.len() / width;
    if !whole.is_empty() {
        V::run(context.token, rows::Mul { rows: context.rows::<N>(whole), steps, factor });
    }
    if let Some((half, rest)) = rest {
        let factor = |step: usize, residue: usize| factor(step, first + residue);
        Evex::run(half, rows::Mul { rows: context.rows_of::<Evex, N>(half, rest), steps, factor });
    }
}

fn square<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], times: usize) {
    let (whole, rest) = context.split(x);
    if !whole.is_empty() {
        V::run(context.token, rows::Square { rows: context.rows::<N>(whole), times });
    }
    if let Some((half, rest)) = rest {
        Evex::run(half, rows::Square { rows: context.rows_of::<Evex, N>(half, rest), times });
    }
}

fn add<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], y: &[u64]) {
    V::run(context.token, rows::Add { rows: context.rows::<N>(x), y });
}

fn reduce<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64]) {
    V::run(context.token, rows::Reduce(context.rows::<N>(x)));
}

fn mul_one_plus<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], m: &[u64], r: &[u64]) {
    V::run(context.token, rows::MulOnePlus { rows: context.rows::<N>(x), m, r_squared: halves(r)[0] });
}

fn power<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], exponent: &Exponent, one: &[u64]) {
    let digits: Zeroizing<Vec<u64>> = Zeroizing::new(exponent.digits_from_top(POWER_WINDOW).collect());
    let (whole, rest) = context.split(x);
    if !whole.is_empty() {
        V::run(context.token, rows::Power { rows: context.rows::<N>(whole), digits: &digits, one });
    }
    if let Some((half, rest)) = rest {
        Evex::run(half, rows::Power { rows: context.rows_of::<Evex, N>(half, rest), digits: &digits, one });
    }
}

fn mul_selected<V: Vector, const N: usize>(context: &Context<V>, x: &mut [u64], selection: Selection<'_>) {
    let together = GROUPS * V::LANES;
    let one = selection.factored.map(|one| halves(one)[0]);
    let (whole, rest) = context.split(x);
    let first = whole.len() / context.width();
    for (part, x) in whole.chunks_mut(together * context.width()).enumerate() {
        let digit = |row: usize, residue: usize| (selection.digit)(row, part * together + residue);
        let selection = Selection { digit: &digit, ..selection };
        V::run(context.token, rows::MulSelected { rows: context.rows::<N>(x), selection, one });
    }
    if let Some((half, rest)) = rest {
        let digit = |row: usize, residue: usize| (selection.digit)(row, first + residue);
        let selection = Selection { digit: &digit, ..selection };
        Evex::run(half, rows::MulSelected { rows: context.rows_of::<Evex, N>(half, rest), selection, one });
    }
}

fn project<V: Vector, const N: usize>(
    context: &Context<V>,
    out: &mut [u64],
    whole: Others<'_>,
    [_, one, cofactor, cofactor_r]: [&[u64]; 4],
) {
    // n and R n are multiples of the modulus: their low halves are 0.
    let cofactors = [cofactor, cofactor_r].map(|factor| halves::<N>(factor)[1]);
    V::run(context.token, crt::Project { rows: context.rows::<N>(out), whole, one: halves(one), cofactors });
}

fn combine<V: Vector, const N: usize>(
    context: &Context<V>,
    out: &mut [u64],
    parts: [Others<'_>; 2],
    factors: [&[u64]; 4],
) {
    let factors = factors.map(halves::<N>);
    V::run(context.token, crt::Combine { rows: context.rows::<N>(out), parts, factors });
}

/// The halves of a residue, in tiles.
fn halves<const N: usize>(residue: &[u64]) -> [&[[u64; TILE]; N]; 2] {
    let halves = residue.as_chunks::<TILE>().0.as_chunks::<N>().0;
    [&halves[0], &halves[1]]
}
