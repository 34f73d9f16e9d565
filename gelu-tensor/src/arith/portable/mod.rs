//! The portable backend: 64-bit limbs, 128-bit partial products, one residue at a time.
//!
//! A residue is a pair `[a, b]` of numbers below n that stands for `(a + b n) / R mod n^2` with `R = 2^(64 L)`.
//! The modulus has its top bit set, so `R / 2 < n < R`; every bound of the kernels rests on that.

mod kernels;

use std::hint::black_box;

use zeroize::{Zeroize, Zeroizing};

use self::kernels::{Modulus, Residue};
use super::kernel::{Instructions, Kernel};
use super::limbs::{add_assign, conditional_subtract, sub_into};
use super::montgomery_power_of_two;
use super::operands::Factors;

/// Runs a const-generic function for the context's limb count, which the ring has checked.
macro_rules! for_limbs {
    ($context:expr, $function:ident ( $($argument:expr),* )) => {
        match $context.n.len() {
            8 => $function::<8>($context, $($argument),*),
            16 => $function::<16>($context, $($argument),*),
            24 => $function::<24>($context, $($argument),*),
            32 => $function::<32>($context, $($argument),*),
            48 => $function::<48>($context, $($argument),*),
            _ => $function::<64>($context, $($argument),*),
        }
    };
}

/// What any processor has.
pub(super) struct Portable;

impl Instructions for Portable {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::new(n))
    }

    fn multiply_chains(&self) -> usize {
        const TURNS: usize = 50_000;
        let seed: u64 = black_box(0x9E37_79B9_7F4A_7C15);
        let mut sums: [(u64, u64); 8] = std::array::from_fn(|i| (seed.wrapping_add(i as u64), 0));
        for _ in 0..TURNS {
            for (low, high) in &mut sums {
                (*low, *high) = seed.carrying_mul_add(*low, *high, 0);
            }
        }
        black_box(sums);
        TURNS * sums.len()
    }
}

/// The constants of a modulus.
pub(super) struct Context {
    n: Vec<u64>,
    negative_inverse: u64,
    /// `R^2 mod n`.
    r_squared: Vec<u64>,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.n.zeroize();
        self.negative_inverse.zeroize();
        self.r_squared.zeroize();
    }
}

impl Context {
    pub(super) fn new(n: &[u64]) -> Self {
        // Newton: every step doubles the correct bits of 1 / n mod 2^64, from 3.
        let inverse = (0..5).fold(n[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(x))));
        let mut context = Self { n: n.to_vec(), negative_inverse: inverse.wrapping_neg(), r_squared: vec![] };
        let radix_bits = 64 * n.len();
        let mut square = context.large_power_of_two(radix_bits);
        montgomery_power_of_two(&mut square, radix_bits, |x| context.square(x, 1), |x, y| context.add(x, y));
        context.r_squared = square[..n.len()].to_vec();
        context
    }

    pub(super) fn modulus(&self) -> &[u64] {
        &self.n
    }

    /// `2^exponent mod n^2` as digits `a + b n`, by doubling, for an exponent a little above the bits of n.
    pub(super) fn large_power_of_two(&self, exponent: usize) -> Zeroizing<Vec<u64>> {
        for_limbs!(self, large_power_of_two(exponent))
    }

    /// A number of n's limbs as digits: `c = (c - k n) + k n` with `k = [c >= n]`.
    pub(super) fn split(&self, c: &[u64]) -> Zeroizing<Vec<u64>> {
        let limbs = self.n.len();
        let mut digits = Zeroizing::new(vec![0; 2 * limbs]);
        let borrow = sub_into(&mut digits[..limbs], c, &self.n);
        let keep = borrow.wrapping_neg();
        for (digit, &c) in digits.iter_mut().zip(c) {
            *digit = (*digit & !keep) | (c & keep);
        }
        digits[limbs] = 1 - borrow;
        digits
    }

    /// Digits that may each be up to `2 n - 1`, with the bits that do not fit their limbs in `tops`, as digits below n.
    pub(super) fn canonical(&self, digits: &mut [u64], tops: [u64; 2]) {
        for_limbs!(self, canonical(digits, tops));
    }
}

impl Kernel for Context {
    fn portable(&self) -> &Self {
        self
    }

    fn width(&self) -> usize {
        2 * self.n.len()
    }

    fn radix_bits(&self) -> usize {
        64 * self.n.len()
    }

    fn power_window(&self) -> usize {
        5
    }

    fn encode_digits(&self, digits: &[u64]) -> Zeroizing<Vec<u64>> {
        Zeroizing::new(digits.to_vec())
    }

    fn decode_digits(&self, residue: &[u64]) -> Zeroizing<Vec<u64>> {
        Zeroizing::new(residue.to_vec())
    }

    fn mul(&self, x: &mut [u64], factors: Factors<'_>) {
        for_limbs!(self, mul(x, factors));
    }

    fn square(&self, x: &mut [u64], times: usize) {
        for_limbs!(self, square(x, times));
    }

    /// Also of digits.
    fn add(&self, x: &mut [u64], y: &[u64]) {
        for_limbs!(self, add_zip(x, y));
    }

    /// Also of digits.
    fn sub(&self, x: &mut [u64], y: &[u64]) {
        for_limbs!(self, sub_zip(x, y));
    }

    /// Since `(a + b n)(1 + m n) = a + (b + a m) n`, two half-size products.
    fn mul_one_plus(&self, x: &mut [u64], m: &[u64], _r: &[u64]) {
        for_limbs!(self, one_plus(x, m));
    }
}

/// Views limbs as residues of L limbs a half.
fn view<const L: usize>(limbs: &[u64]) -> &[Residue<L>] {
    limbs.as_chunks::<L>().0.as_chunks::<2>().0
}

fn view_mut<const L: usize>(limbs: &mut [u64]) -> &mut [Residue<L>] {
    limbs.as_chunks_mut::<L>().0.as_chunks_mut::<2>().0
}

fn modulus<const L: usize>(context: &Context) -> Modulus<'_, L> {
    Modulus { n: &context.n.as_chunks::<L>().0[0], negative_inverse: context.negative_inverse }
}

fn large_power_of_two<const L: usize>(context: &Context, exponent: usize) -> Zeroizing<Vec<u64>> {
    let modulus = modulus::<L>(context);
    let mut power = [[0; L]; 2];
    // n has its top bit set, so this is below n.
    power[0][L - 1] = 1 << 63;
    for _ in 64 * L - 1..exponent {
        power = add(&modulus, &power, &power);
    }
    Zeroizing::new(power.as_flattened().to_vec())
}

fn mul<const L: usize>(context: &Context, x: &mut [u64], factors: Factors<'_>) {
    let modulus = modulus::<L>(context);
    let x = view_mut::<L>(x);
    match factors {
        Factors::Each(y) => {
            x.iter_mut().zip(view::<L>(y)).for_each(|(x, y)| *x = kernels::mul(&modulus, x, y));
        }
        Factors::Gather { tables, entries } => {
            for entries in entries.chunks_exact(x.len().max(1)) {
                for (x, entry) in x.iter_mut().zip(entries) {
                    let factor = tables[entry.table as usize].residue(entry.index as usize);
                    *x = kernels::mul(&modulus, x, &view::<L>(factor)[0]);
                }
            }
        }
        Factors::One(y) => x.iter_mut().for_each(|x| *x = kernels::mul(&modulus, x, &view::<L>(y)[0])),
    }
}

fn square<const L: usize>(context: &Context, x: &mut [u64], times: usize) {
    let modulus = modulus::<L>(context);
    for x in view_mut::<L>(x) {
        for _ in 0..times {
            *x = kernels::square(&modulus, x);
        }
    }
}

fn one_plus<const L: usize>(context: &Context, x: &mut [u64], m: &[u64]) {
    let modulus = modulus::<L>(context);
    let r_squared = &context.r_squared.as_chunks::<L>().0[0];
    for ([a, b], m) in view_mut::<L>(x).iter_mut().zip(m.as_chunks::<L>().0) {
        let montgomery = kernels::mul_mod_n(&modulus, m, r_squared);
        let product = kernels::mul_mod_n(&modulus, a, &montgomery);
        *b = add_mod_n(&modulus, b, &product).0;
    }
}

fn canonical<const L: usize>(context: &Context, digits: &mut [u64], tops: [u64; 2]) {
    let modulus = modulus::<L>(context);
    for [a, b] in view_mut::<L>(digits) {
        let excess;
        (*a, excess) = conditional_subtract(*a, tops[0], modulus.n);
        let mut carry = [0; L];
        carry[0] = excess;
        // Below n first, so that the carry cannot overflow.
        *b = conditional_subtract(*b, tops[1], modulus.n).0;
        *b = add_mod_n(&modulus, b, &carry).0;
    }
}

/// `x + y mod n` for x, y below n (or one of them n), and whether n was subtracted.
fn add_mod_n<const L: usize>(modulus: &Modulus<L>, x: &[u64; L], y: &[u64; L]) -> ([u64; L], u64) {
    let mut sum = *x;
    let top = u64::from(add_assign(&mut sum, y));
    conditional_subtract(sum, top, modulus.n)
}

fn add<const L: usize>(modulus: &Modulus<L>, x: &Residue<L>, y: &Residue<L>) -> Residue<L> {
    let (low, carry) = add_mod_n(modulus, &x[0], &y[0]);
    let (high, _) = add_mod_n(modulus, &x[1], &y[1]);
    let mut one = [0; L];
    one[0] = carry;
    [low, add_mod_n(modulus, &high, &one).0]
}

fn add_zip<const L: usize>(context: &Context, x: &mut [u64], y: &[u64]) {
    let modulus = modulus::<L>(context);
    for (x, y) in view_mut::<L>(x).iter_mut().zip(view::<L>(y)) {
        *x = add(&modulus, x, y);
    }
}

fn sub_zip<const L: usize>(context: &Context, x: &mut [u64], y: &[u64]) {
    let modulus = modulus::<L>(context);
    for (x, y) in view_mut::<L>(x).iter_mut().zip(view::<L>(y)) {
        // n^2 - (c + d n) = (n - c) + (n - 1 - d) n, where n - c may be n itself and is then made 0 with a carry,
        // which the 1 that is taken from the high half makes up for.
        let mut low = [0; L];
        sub_into(&mut low, modulus.n, &y[0]);
        let (low, zero) = add_mod_n(&modulus, &[0; L], &low);
        let mut high = [0; L];
        sub_into(&mut high, modulus.n, &y[1]);
        let mut one = [0; L];
        one[0] = 1 - zero;
        let mut less_one = [0; L];
        sub_into(&mut less_one, &high, &one);
        let (high, _) = add_mod_n(&modulus, &[0; L], &less_one);
        *x = add(&modulus, x, &[low, high]);
    }
}
