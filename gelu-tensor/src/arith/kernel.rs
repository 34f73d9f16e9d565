//! What every backend does: arithmetic mod the square of one modulus, a batch of residues at a time.

use zeroize::Zeroizing;

use super::digits::Digits;
use super::limbs::select_row;
use super::operands::{Factors, Selection};
use super::power::Exponent;

/// A backend that this processor has.
pub(super) trait Instructions {
    /// Its arithmetic mod n^2.
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel>;

    /// Multiplies limbs in chains that do not wait for each other; how many times.
    fn multiply_chains(&self) -> usize;
}

/// Something that is compiled for the instructions of a backend.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) trait Work {
    /// To be inlined.
    fn run(self);
}

/// A backend with the constants of one modulus n. [`Ring`](super::Ring) calls it once for each batch.
///
/// A residue has [`width`](Self::width) limbs in the backend's own form and stands for `(a + b n) / R mod n^2`. The R of a
/// modulus is no larger than the square of that of a modulus with half as many bits, and no smaller than that. What has a body here is in terms of what has none; a
/// backend overrides it where it can do better.
pub(super) trait Kernel: Send + Sync {
    /// Arithmetic on digits, which all backends share.
    fn digits(&self) -> &Digits;

    /// Limbs of one residue.
    fn width(&self) -> usize;

    /// log2 R.
    fn radix_bits(&self) -> usize;

    /// Bits of an exponent that one look-up of [`power`](Self::power) takes.
    fn power_window(&self) -> usize;

    /// Digits `a + b n` of 64-bit limbs as the limbs of a residue. The value does not change: Montgomery form is the
    /// caller's.
    fn encode_digits(&self, digits: &[u64]) -> Zeroizing<Vec<u64>>;

    /// The other way round; both digits are below n then.
    fn decode_digits(&self, residue: &[u64]) -> Zeroizing<Vec<u64>>;

    /// `x[i] *= factor`.
    fn mul(&self, x: &mut [u64], factors: Factors<'_>);

    /// `x[i] = x[i]^(2^times)`.
    fn square(&self, x: &mut [u64], times: usize);

    /// `x[i] += y[i]`.
    fn add(&self, x: &mut [u64], y: &[u64]);

    /// `x[i] *= 1 + m[i] n`, given the residue of R (that is, R in Montgomery form).
    fn mul_one_plus(&self, x: &mut [u64], m: &[u64], r: &[u64]);

    /// `x[i] -= y[i]`. Differences are rare, so they take the way over canonical digits.
    fn sub(&self, x: &mut [u64], y: &[u64]) {
        for (x, y) in x.chunks_exact_mut(self.width()).zip(y.chunks_exact(self.width())) {
            let mut digits = self.decode_digits(x);
            self.digits().sub(&mut digits, &self.decode_digits(y));
            x.copy_from_slice(&self.encode_digits(&digits));
        }
    }

    /// `x[i] /= R`: out of Montgomery form.
    fn reduce(&self, x: &mut [u64]) {
        let mut one = vec![0; 2 * self.digits().modulus().len()];
        one[0] = 1;
        self.mul(x, Factors::One(&self.encode_digits(&one)));
    }

    /// `x[i] = x[i]^exponent`, given the residue of 1. Reads all entries of its tables.
    fn power(&self, x: &mut [u64], exponent: &Exponent, one: &[u64]) {
        let (width, window) = (one.len(), self.power_window());
        for x in x.chunks_exact_mut(width) {
            let mut powers = Zeroizing::new(Vec::with_capacity(width << window));
            powers.extend_from_slice(one);
            for power in 1..1 << window {
                powers.extend_from_within((power - 1) * width..);
                self.mul(&mut powers[power * width..], Factors::One(x));
            }
            let mut factor = Zeroizing::new(vec![0; width]);
            x.copy_from_slice(one);
            for (index, digit) in exponent.digits_from_top(window).enumerate() {
                if index > 0 {
                    self.square(x, window);
                }
                select_row(&mut factor, &powers, digit);
                self.mul(x, Factors::One(&factor));
            }
        }
    }

    /// A table of residues in the order that [`mul_selected`](Self::mul_selected) selects from.
    fn arrange_for_selection(&self, table: &[u64]) -> Zeroizing<Vec<u64>> {
        Zeroizing::new(table.to_vec())
    }

    /// Residues in a form that makes products with them cheaper, given their inverses; `None` where there is none.
    fn factored(&self, _residues: &[u64], _inverses: &[u64]) -> Option<Zeroizing<Vec<u64>>> {
        None
    }

    /// The most rows in factored form that may be multiplied up: the sum of their s, each below 2 n, must stay below R
    /// (docs/arithmetic.md, section 2).
    fn most_factored_rows(&self) -> usize {
        let spare = self.radix_bits() - 64 * self.digits().modulus().len();
        1 << spare.saturating_sub(1).min(31)
    }

    /// Multiplies `x[i]` with entry `digit(row, i)` of each row, round by round, reading all entries.
    fn mul_selected(&self, x: &mut [u64], selection: Selection<'_>) {
        let mut factors = Zeroizing::new(vec![0; x.len()]);
        for (index, row) in (0..selection.rounds).flat_map(|_| selection.rows).enumerate() {
            if index > 0 && index.is_multiple_of(selection.rows.len()) {
                self.square(x, 1);
            }
            for (residue, factor) in factors.chunks_exact_mut(self.width()).enumerate() {
                select_row(factor, row.limbs(), (selection.digit)(index, residue));
            }
            self.mul(x, Factors::Each(&factors));
        }
    }

    /// Bits at which [`project`](Self::project) cuts the halves of residues mod n^2.
    fn cut_bits(&self) -> usize {
        64 * self.digits().modulus().len()
    }

    /// Residues mod the square of another kernel's modulus, of which this one's is a factor of half the limbs, of the same
    /// backend. Each half of them is cut in two; what the four parts are multiplied with is made by [`Crt`](super::Crt).
    fn project(&self, (whole, residues): (&dyn Kernel, &[u64]), factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let limbs = self.digits().modulus().len();
        let digits = decode_all((whole, residues));
        self.sum_of_products(digits.len(), factors, &|part, at| {
            self.digits().split(&digits[at][part * limbs..][..limbs])
        })
    }

    /// The other way round, from residues mod the squares of both factors, given what their four halves are multiplied with.
    fn combine(&self, parts: [(&dyn Kernel, &[u64]); 2], factors: [&[u64]; 4]) -> Zeroizing<Vec<u64>> {
        let limbs = self.digits().modulus().len();
        let digits = parts.map(decode_all);
        self.sum_of_products(digits[0].len(), factors, &|half, at| {
            let mut digit = Zeroizing::new(vec![0; 2 * limbs]);
            let half = &digits[half / 2][at][half % 2 * limbs / 2..][..limbs / 2];
            digit[..limbs / 2].copy_from_slice(half);
            digit
        })
    }

    /// For each of `count` residues the sum of the four numbers whose digits are given times the factors, over R.
    fn sum_of_products(
        &self,
        count: usize,
        factors: [&[u64]; 4],
        digits: &dyn Fn(usize, usize) -> Zeroizing<Vec<u64>>,
    ) -> Zeroizing<Vec<u64>> {
        let mut sums = Zeroizing::new(vec![0; count * self.width()]);
        let mut products = sums.clone();
        for (number, factor) in factors.into_iter().enumerate() {
            for (at, product) in products.chunks_exact_mut(self.width()).enumerate() {
                product.copy_from_slice(&self.encode_digits(&digits(number, at)));
            }
            self.mul(&mut products, Factors::One(factor));
            self.add(&mut sums, &products);
        }
        sums
    }
}

/// The digits of residues.
fn decode_all((kernel, residues): (&dyn Kernel, &[u64])) -> Vec<Zeroizing<Vec<u64>>> {
    residues.chunks_exact(kernel.width()).map(|residue| kernel.decode_digits(residue)).collect()
}
