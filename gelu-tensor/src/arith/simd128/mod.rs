//! The simd128 backend: limbs of 28 bits, one residue at a time, by WebAssembly's vectors of 128 bits.
//!
//! A vector holds four limbs of a number. Four rows of a product (four limbs of one factor times all of the other) are added to
//! the columns at a time; columns are 64 bits wide and carry nothing on the way. docs/arithmetic.md, section 10, derives the bounds:
//! with `R = 2^(28 L) >= 16 n` halves stay below 2 n, as on the ifma backend.
//!
//! All instructions are safe functions here, for an engine refuses a module with instructions that it lacks.

mod kernels;
mod limbs;

use core::hint::black_box;

use zeroize::{Zeroize, Zeroizing};

use self::kernels::{Half, Tables};
use self::limbs::{LIMB_BITS, MASK, add_below, narrow, redundant, widen_pairs};
use super::digits::Digits;
use super::kernel::{Instructions, Kernel};
use super::operands::Factors;

/// Limbs in a vector.
const BLOCK: usize = 4;

/// What an engine has that runs this module at all.
#[derive(Clone, Copy)]
pub(super) struct Simd128;

impl Instructions for Simd128 {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::new(n))
    }

    fn multiply_chains(&self) -> usize {
        const TURNS: usize = 50_000;
        black_box(kernels::chains(TURNS, black_box(0x0FED_CBA9)));
        TURNS * kernels::CHAINS
    }
}

/// Runs a const-generic function for the context's number of blocks.
macro_rules! for_blocks {
    ($context:expr, $function:ident ( $($argument:expr),* )) => {
        match $context.blocks {
            5 => $function::<5>($context, $($argument),*),
            10 => $function::<10>($context, $($argument),*),
            14 => $function::<14>($context, $($argument),*),
            19 => $function::<19>($context, $($argument),*),
            28 => $function::<28>($context, $($argument),*),
            _ => $function::<37>($context, $($argument),*),
        }
    };
}

/// The constants of a modulus.
struct Context {
    digits: Digits,
    blocks: usize,
    /// n, and twice n, in pairs of limbs.
    n: Zeroizing<Vec<u64>>,
    twice: Zeroizing<Vec<u64>>,
    /// The redundant limbs of a multiple of n that is at least R, in pairs.
    lift: Zeroizing<Vec<u64>>,
    negative_inverse: u32,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.negative_inverse.zeroize();
    }
}

impl Context {
    fn new(n: &[u64]) -> Self {
        // Four bits more than n has, in whole blocks: 20, 40, 56, 76, 112 or 148 limbs.
        let blocks = (64 * n.len() + 4).div_ceil(LIMB_BITS).div_ceil(BLOCK);
        let pairs = 2 * blocks;
        let mut own = Zeroizing::new(vec![0; pairs]);
        narrow(&mut own, n);
        let mut twice = own.clone();
        add_below(&mut twice, &own, None);
        let inverse = (0..5).fold(n[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(x))));
        let negative_inverse = inverse.wrapping_neg() as u32 & MASK;
        let lift = redundant(n, pairs);
        Self { digits: Digits::new(n), blocks, n: own, twice, lift, negative_inverse }
    }

    /// Pairs of limbs of one half.
    fn pairs(&self) -> usize {
        2 * self.blocks
    }

    fn tables<const N: usize>(&self) -> Tables<N> {
        Tables::new(&self.n, &self.lift, self.negative_inverse)
    }
}

impl Kernel for Context {
    fn digits(&self) -> &Digits {
        &self.digits
    }

    fn width(&self) -> usize {
        2 * self.pairs()
    }

    fn radix_bits(&self) -> usize {
        LIMB_BITS * BLOCK * self.blocks
    }

    fn power_window(&self) -> usize {
        5
    }

    fn encode_digits(&self, digits: &[u64]) -> Zeroizing<Vec<u64>> {
        let mut residue = Zeroizing::new(vec![0; self.width()]);
        let halves = digits.chunks_exact(digits.len() / 2);
        residue.chunks_exact_mut(self.pairs()).zip(halves).for_each(|(half, digit)| narrow(half, digit));
        residue
    }

    fn decode_digits(&self, residue: &[u64]) -> Zeroizing<Vec<u64>> {
        let limbs = self.digits.modulus().len();
        let mut digits = Zeroizing::new(vec![0; 2 * limbs]);
        let (a, b) = residue.split_at(self.pairs());
        let (low, high) = digits.split_at_mut(limbs);
        let tops = [widen_pairs(low, a), widen_pairs(high, b)];
        self.digits.canonical(&mut digits, tops);
        digits
    }

    fn mul(&self, x: &mut [u64], factors: Factors<'_>) {
        for_blocks!(self, mul(x, factors));
    }

    fn square(&self, x: &mut [u64], times: usize) {
        for_blocks!(self, square(x, times));
    }

    fn add(&self, x: &mut [u64], y: &[u64]) {
        let width = self.width();
        for (x, y) in x.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            let ((a, b), (c, d)) = (x.split_at_mut(self.pairs()), y.split_at(self.pairs()));
            // What is taken from the low half as 2 n is 2 in the high one.
            let taken = add_below(a, c, Some(&self.twice));
            add_below(b, d, Some(&self.twice));
            let mut two = Zeroizing::new(vec![0; self.pairs()]);
            two[0] = 2 * taken;
            add_below(b, &two, Some(&self.twice));
        }
    }

    fn mul_one_plus(&self, x: &mut [u64], m: &[u64], r: &[u64]) {
        for_blocks!(self, mul_one_plus(x, m, r));
    }
}

fn mul<const N: usize>(context: &Context, x: &mut [u64], factors: Factors<'_>) {
    let tables = context.tables::<N>();
    let width = context.width();
    let count = x.len() / width;
    for (at, x) in x.chunks_exact_mut(width).enumerate() {
        let mut value = kernels::load(x);
        let mut times = |factor: &[u64]| value = kernels::mul::<N>(&tables, &value, &kernels::load(factor));
        match factors {
            Factors::Each(y) => times(&y[at * width..][..width]),
            Factors::One(y) => times(y),
            Factors::Gather { tables, entries } => {
                for entries in entries.chunks_exact(count) {
                    times(tables[entries[at].table as usize].residue(entries[at].index as usize));
                }
            }
        }
        kernels::store(x, &value);
    }
}

fn square<const N: usize>(context: &Context, x: &mut [u64], times: usize) {
    let tables = context.tables::<N>();
    for x in x.chunks_exact_mut(context.width()) {
        let mut value = kernels::load::<N>(x);
        for _ in 0..times {
            value = kernels::square(&tables, &value);
        }
        kernels::store(x, &value);
    }
}

fn mul_one_plus<const N: usize>(context: &Context, x: &mut [u64], m: &[u64], r: &[u64]) {
    let tables = context.tables::<N>();
    let pairs = context.pairs();
    let [r_squared, _]: [Half<N>; 2] = kernels::load(r);
    let m = m.chunks_exact(context.digits.modulus().len());
    let mut product = Zeroizing::new(vec![0; 2 * pairs]);
    for (x, m) in x.chunks_exact_mut(context.width()).zip(m) {
        narrow(&mut product[..pairs], m);
        let [m, _] = kernels::load(&product);
        let factor = kernels::mul_half(&tables, &m, &r_squared);
        let [a, _] = kernels::load(x);
        kernels::store(&mut product, &[kernels::mul_half(&tables, &a, &factor), factor]);
        add_below(&mut x[pairs..], &product[..pairs], Some(&context.twice));
    }
}
