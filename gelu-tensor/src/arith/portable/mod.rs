//! The portable backend: 64-bit limbs, 128-bit partial products, one residue at a time.
//!
//! A residue is a pair `[a, b]` of numbers below n that stands for `(a + b n) / R mod n^2` with `R = 2^(64 L)`.
//! The modulus has its top bit set, so `R / 2 < n < R`; every bound of the kernels rests on that.
//!
//! What it is made of are rows: the products of a number with one limb, added to another number. They are Rust here, and
//! [assembly](super::adx) for processors that have better instructions for them.

mod kernels;
pub(super) mod rows;

use std::hint::black_box;

use zeroize::{Zeroize, Zeroizing};

use self::kernels::Modulus;
use self::rows::Rows;
use super::digits::{Digits, add_mod_n, array, for_limbs, view, view_mut};
use super::kernel::{Instructions, Kernel};
use super::montgomery_power_of_two;
use super::operands::Factors;

/// What any processor has: rows in Rust.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Instructions for Portable {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::new(*self, n))
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

/// The constants of a modulus, and how rows are multiplied.
pub(super) struct Context<R> {
    rows: R,
    digits: Digits,
    negative_inverse: u64,
    /// `R^2 mod n`.
    r_squared: Zeroizing<Vec<u64>>,
}

impl<R> Drop for Context<R> {
    fn drop(&mut self) {
        self.negative_inverse.zeroize();
    }
}

impl<R: Rows> Context<R> {
    pub(super) fn new(rows: R, n: &[u64]) -> Self {
        // Newton: every step doubles the correct bits of 1 / n mod 2^64, from 3.
        let inverse = (0..5).fold(n[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(x))));
        let negative_inverse = inverse.wrapping_neg();
        let r_squared = Zeroizing::default();
        let mut context = Self { rows, digits: Digits::new(n), negative_inverse, r_squared };
        let radix_bits = 64 * n.len();
        let mut square = context.digits.large_power_of_two(radix_bits);
        montgomery_power_of_two(&mut square, radix_bits, |x| context.square(x, 1), |x, y| context.add(x, y));
        context.r_squared = Zeroizing::new(square[..n.len()].to_vec());
        context
    }

    fn limbs(&self) -> usize {
        self.digits.modulus().len()
    }

    fn modulus<const L: usize>(&self) -> Modulus<'_, L, R> {
        let n = array(self.digits.modulus());
        Modulus { rows: self.rows, n, negative_inverse: self.negative_inverse }
    }
}

impl<R: Rows> Kernel for Context<R> {
    fn digits(&self) -> &Digits {
        &self.digits
    }

    fn width(&self) -> usize {
        2 * self.limbs()
    }

    fn radix_bits(&self) -> usize {
        64 * self.limbs()
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
        for_limbs!(self.limbs(), mul(self, x, factors));
    }

    fn square(&self, x: &mut [u64], times: usize) {
        for_limbs!(self.limbs(), square(self, x, times));
    }

    fn add(&self, x: &mut [u64], y: &[u64]) {
        self.digits.add(x, y);
    }

    fn sub(&self, x: &mut [u64], y: &[u64]) {
        self.digits.sub(x, y);
    }

    /// Since `(a + b n)(1 + m n) = a + (b + a m) n`, two half-size products.
    fn mul_one_plus(&self, x: &mut [u64], m: &[u64], _r: &[u64]) {
        for_limbs!(self.limbs(), one_plus(self, x, m));
    }
}

fn mul<const L: usize>(context: &Context<impl Rows>, x: &mut [u64], factors: Factors<'_>) {
    let modulus = context.modulus::<L>();
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

fn square<const L: usize>(context: &Context<impl Rows>, x: &mut [u64], times: usize) {
    let modulus = context.modulus::<L>();
    for x in view_mut::<L>(x) {
        for _ in 0..times {
            *x = kernels::square(&modulus, x);
        }
    }
}

fn one_plus<const L: usize>(context: &Context<impl Rows>, x: &mut [u64], m: &[u64]) {
    let modulus = context.modulus::<L>();
    let r_squared = array::<L>(&context.r_squared);
    for ([a, b], m) in view_mut::<L>(x).iter_mut().zip(m.as_chunks::<L>().0) {
        let montgomery = kernels::mul_mod_n(&modulus, m, r_squared);
        let product = kernels::mul_mod_n(&modulus, a, &montgomery);
        *b = add_mod_n(modulus.n, b, &product).0;
    }
}
