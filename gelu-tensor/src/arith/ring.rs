use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use num_bigint::BigUint;
use num_integer::Integer;
use zeroize::{Zeroize, Zeroizing};

use super::limbs::{add_assign, conditional_subtract, from_biguint, mul_into, sub_into, to_biguint};
use super::portable::{self, Modulus, Residue};
use super::residues::Residues;
use crate::Error;

/// Moduli this engine is built for, in bits: the primes and the products of keys of 1024, 2048, 3072 and 4096 bits.
pub const MODULUS_BITS: [usize; 6] = [512, 1024, 1536, 2048, 3072, 4096];

/// Runs a const-generic function for the ring's limb count, which [`Ring::new`] has checked.
macro_rules! for_limbs {
    ($limbs:expr, $function:ident ( $($argument:expr),* )) => {
        match $limbs {
            8 => $function::<8>($($argument),*),
            16 => $function::<16>($($argument),*),
            24 => $function::<24>($($argument),*),
            32 => $function::<32>($($argument),*),
            48 => $function::<48>($($argument),*),
            _ => $function::<64>($($argument),*),
        }
    };
}

/// The ring Z_{n^2} for an odd modulus n whose top bit is set.
///
/// Cheap to clone; clones share the constants and the operation counter. Batches of one ring must not be handed to
/// another. All operations take time that depends on the batch's length only, unless they say `_vartime`.
#[derive(Clone)]
pub struct Ring(Arc<Constants>);

struct Constants {
    limbs: usize,
    n: Vec<u64>,
    negative_inverse: u64,
    /// `R^(k+2) mod n^2` for k in 0..4: what lifts the k-th run of limbs of a wide integer into Montgomery form.
    lifts: Residues,
    /// `R^2 mod n`.
    r_squared: Vec<u64>,
    products: AtomicU64,
    squarings: AtomicU64,
}

impl Drop for Constants {
    fn drop(&mut self) {
        self.n.zeroize();
        self.negative_inverse.zeroize();
        self.r_squared.zeroize();
    }
}

/// How many operations mod n^2 a ring has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Operations {
    /// Products of two residues.
    pub products: u64,
    /// Squarings, which cost about 0.7 of a product.
    pub squarings: u64,
}

impl Operations {
    /// All of them.
    pub fn total(self) -> u64 {
        self.products + self.squarings
    }
}

impl std::ops::Sub for Operations {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { products: self.products - earlier.products, squarings: self.squarings - earlier.squarings }
    }
}

impl Ring {
    /// The ring mod n^2, for n as little-endian limbs.
    ///
    /// # Errors
    /// [`Error::Modulus`] when n is even, or not of one of [`MODULUS_BITS`] with its top bit set.
    pub fn new(n: &[u64]) -> Result<Self, Error> {
        let bits = super::limbs::bit_length_vartime(n);
        if !MODULUS_BITS.contains(&bits) || n.len() * 64 != bits || n[0].is_multiple_of(2) {
            return Err(Error::Modulus { bits, odd: n.first().is_some_and(|limb| limb % 2 == 1) });
        }
        Ok(for_limbs!(n.len(), build(n)))
    }

    /// Limbs of n.
    pub fn limbs(&self) -> usize {
        self.0.limbs
    }

    /// n as little-endian limbs.
    pub(crate) fn modulus(&self) -> &[u64] {
        &self.0.n
    }

    /// The operations done so far by this ring and its clones.
    pub fn operations(&self) -> Operations {
        Operations {
            products: self.0.products.load(Ordering::Relaxed),
            squarings: self.0.squarings.load(Ordering::Relaxed),
        }
    }

    /// The name of the backend that does the arithmetic.
    pub fn backend(&self) -> &'static str {
        "portable"
    }

    /// An empty batch with room for `capacity` residues.
    pub fn empty(&self, capacity: usize) -> Residues {
        Residues::new(2 * self.0.limbs, capacity)
    }

    /// A batch of `count` ones.
    pub fn ones(&self, count: usize) -> Residues {
        // R mod n^2 = (R - n) + 1 n in n-adic form, since R / 2 < n < R.
        let mut one = vec![0; 2 * self.0.limbs];
        let zero = vec![0; self.0.limbs];
        sub_into(&mut one[..self.0.limbs], &zero, &self.0.n);
        one[self.0.limbs] = 1;
        let mut out = self.empty(count);
        (0..count).for_each(|_| out.push_limbs(&one));
        out
    }

    /// `x[i] *= y[i]`. The batches have one length.
    pub fn mul_assign(&self, x: &mut Residues, y: &Residues) {
        debug_assert_eq!(x.len(), y.len());
        self.count_products(x.len());
        let constants = &*self.0;
        for_limbs!(self.0.limbs, mul_zip(constants, x.limbs_mut(), y.limbs()));
    }

    /// `x[i] *= table[indices[i]]`. As many indices as residues, each below the table's length.
    ///
    /// Reads the table at `indices`, so those must be public or the machine's cache trusted (see SECURITY.md).
    pub fn mul_assign_gather(&self, x: &mut Residues, table: &Residues, indices: &[u32]) {
        debug_assert_eq!(x.len(), indices.len());
        self.count_products(x.len());
        let constants = &*self.0;
        for_limbs!(self.0.limbs, mul_gather(constants, x.limbs_mut(), table.limbs(), indices));
    }

    /// `x[i] = x[i]^2`, `times` times over.
    pub fn square_assign(&self, x: &mut Residues, times: usize) {
        self.0.squarings.fetch_add((x.len() * times) as u64, Ordering::Relaxed);
        let constants = &*self.0;
        for_limbs!(self.0.limbs, square_all(constants, x.limbs_mut(), times));
    }

    /// Appends `x[i] * factor[at]` for every i in `range`, where x is the batch itself.
    ///
    /// This is how tables of powers and of subset products grow.
    pub fn push_multiples(&self, x: &mut Residues, range: Range<usize>, (factor, at): (&Residues, usize)) {
        let start = x.len();
        for index in range.clone() {
            let residue = x.residue(index).to_vec();
            x.push_limbs(&residue);
        }
        self.count_products(range.len());
        let constants = &*self.0;
        let width = 2 * self.0.limbs;
        let limbs = &mut x.limbs_mut()[start * width..];
        for_limbs!(self.0.limbs, mul_broadcast(constants, limbs, factor.residue(at)));
    }

    /// `x[i] += y[i] mod n^2`.
    pub(crate) fn add_assign(&self, x: &mut Residues, y: &Residues) {
        let constants = &*self.0;
        for_limbs!(self.0.limbs, add_zip(constants, x.limbs_mut(), y.limbs()));
    }

    /// `x[i] -= y[i] mod n^2`.
    pub(crate) fn sub_assign(&self, x: &mut Residues, y: &Residues) {
        let constants = &*self.0;
        for_limbs!(self.0.limbs, sub_zip(constants, x.limbs_mut(), y.limbs()));
    }

    /// `x[i] *= 1 + m[i] n`, for `m[i] < n` given as limbs, one after another: two half-size products each.
    ///
    /// This is Paillier's plaintext addition (and, on a power of h, encryption).
    pub(crate) fn mul_assign_one_plus(&self, x: &mut Residues, m: &[u64]) {
        debug_assert_eq!(m.len(), x.len() * self.0.limbs);
        let constants = &*self.0;
        for_limbs!(self.0.limbs, one_plus(constants, x.limbs_mut(), m));
    }

    /// Lifts integers into the ring: `count` little-endian integers of `wide.len() / count` limbs each, which must
    /// be a multiple of the ring's limbs and at most four times them. They are reduced mod n^2.
    pub(crate) fn lift(&self, wide: &[u64], count: usize) -> Residues {
        let width = 2 * self.0.limbs;
        let runs = wide.len() / count.max(1) / self.0.limbs;
        debug_assert!(runs <= 4 && runs * self.0.limbs * count == wide.len());
        let mut out = self.empty(count);
        out.push_limbs(&vec![0; width * count]);
        for run in 0..runs {
            let mut part = self.empty(count);
            for integer in wide.chunks_exact(runs * self.0.limbs) {
                // c = (c - k n) + k n with k = [c >= n], in n-adic form.
                let limbs = &integer[run * self.0.limbs..][..self.0.limbs];
                let mut residue = Zeroizing::new(vec![0; width]);
                let borrow = sub_into(&mut residue[..self.0.limbs], limbs, &self.0.n);
                let keep = borrow.wrapping_neg();
                for (r, &c) in residue.iter_mut().zip(limbs) {
                    *r = (*r & !keep) | (c & keep);
                }
                residue[self.0.limbs] = 1 - borrow;
                part.push_limbs(&residue);
            }
            self.count_products(count);
            let constants = &*self.0;
            for_limbs!(self.0.limbs, mul_broadcast(constants, part.limbs_mut(), self.0.lifts.residue(run)));
            self.add_assign(&mut out, &part);
        }
        out
    }

    /// The residues out of Montgomery form: for each its digits `a` and `b` with `c = a + b n`, both below n.
    pub(crate) fn digits(&self, x: &Residues) -> Zeroizing<Vec<u64>> {
        let mut out = x.clone();
        let mut one = vec![0; 2 * self.0.limbs];
        one[0] = 1;
        self.count_products(x.len());
        let constants = &*self.0;
        for_limbs!(self.0.limbs, mul_broadcast(constants, out.limbs_mut(), &one));
        Zeroizing::new(out.limbs().to_vec())
    }

    /// The residues as integers below n^2, of twice the ring's limbs each.
    pub(crate) fn lower(&self, x: &Residues) -> Zeroizing<Vec<u64>> {
        let mut out = self.digits(x);
        let mut product = Zeroizing::new(vec![0; 2 * self.0.limbs]);
        for digits in out.chunks_exact_mut(2 * self.0.limbs) {
            let (a, b) = digits.split_at(self.0.limbs);
            mul_into(&mut product, b, &self.0.n);
            let carry = add_assign(&mut product[..self.0.limbs], a);
            let mut upper = u64::from(carry);
            for limb in &mut product[self.0.limbs..] {
                let (sum, overflow) = limb.overflowing_add(upper);
                *limb = sum;
                upper = u64::from(overflow);
            }
            digits.copy_from_slice(&product);
        }
        out
    }

    /// `x[i] = 1 / x[i]`, or `None` when one of them is no unit. Variable-time: for public residues.
    ///
    /// One inversion mod n for the whole batch and three products for each residue (Montgomery's trick).
    pub fn invert_vartime(&self, x: &Residues) -> Option<Residues> {
        if x.is_empty() {
            return Some(x.clone());
        }
        let mut prefix = x.gather([0]);
        for i in 1..x.len() {
            let last = i - 1..i;
            self.push_multiples(&mut prefix, last, (x, i));
        }
        let mut inverse = self.invert_one_vartime(&prefix.gather([x.len() - 1]))?;
        let mut reversed = self.empty(x.len());
        for i in (1..x.len()).rev() {
            let mut one = inverse.clone();
            self.mul_assign(&mut one, &prefix.gather([i - 1]));
            reversed.append(&one);
            self.mul_assign(&mut inverse, &x.gather([i]));
        }
        reversed.append(&inverse);
        Some(reversed.gather((0..x.len()).rev()))
    }

    /// Inverts mod n, then lifts to n^2 by one Newton step y (2 - x y).
    fn invert_one_vartime(&self, x: &Residues) -> Option<Residues> {
        let n = to_biguint(&self.0.n);
        let low = to_biguint(&self.digits(x)[..self.0.limbs]);
        let inverse = from_biguint(&low.modinv(&n)?, self.0.limbs);
        let y = self.lift(&inverse, 1);
        let mut correction = self.ones(1);
        self.add_assign(&mut correction, &self.ones(1));
        let mut product = x.clone();
        self.mul_assign(&mut product, &y);
        self.sub_assign(&mut correction, &product);
        self.mul_assign(&mut correction, &y);
        Some(correction)
    }

    /// The first residue that shares a factor with n, if any. Variable-time: for public residues.
    pub fn find_non_unit_vartime(&self, x: &Residues) -> Option<usize> {
        let n = to_biguint(&self.0.n);
        let constants = &*self.0;
        let product = for_limbs!(self.0.limbs, low_product(constants, x.limbs()));
        let is_unit = |low: &[u64]| to_biguint(low).gcd(&n) == BigUint::from(1u8);
        if is_unit(&product) {
            return None;
        }
        (0..x.len()).find(|&index| !is_unit(&x.residue(index)[..self.0.limbs]))
    }

    pub(super) fn count_products(&self, count: usize) {
        self.0.products.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Does not print the modulus, which may be a secret prime.
impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ring({} bits, {})", 64 * self.0.limbs, self.backend())
    }
}

fn build<const L: usize>(n: &[u64]) -> Ring {
    let (n, _) = n.as_chunks::<L>();
    let n = &n[0];
    // Newton: every step doubles the correct bits of 1 / n mod 2^64, from 3.
    let inverse = (0..5).fold(n[0], |x, _| x.wrapping_mul(2u64.wrapping_sub(n[0].wrapping_mul(x))));
    let modulus = Modulus { n, negative_inverse: inverse.wrapping_neg() };

    // Powers of 2 by doubling, so that nothing variable-time touches a secret modulus.
    let mut power = [[0; L]; 2];
    power[0][0] = 1;
    let mut lifts = Residues::new(2 * L, 4);
    let mut r_squared = vec![];
    for exponent in 1..=5 {
        for _ in 0..64 * L {
            power = add(&modulus, &power, &power);
        }
        if exponent == 2 {
            r_squared = power[0].to_vec();
        }
        if exponent >= 2 {
            lifts.push_limbs(power.as_flattened());
        }
    }
    Ring(Arc::new(Constants {
        limbs: L,
        n: n.to_vec(),
        negative_inverse: modulus.negative_inverse,
        lifts,
        r_squared,
        products: AtomicU64::new(0),
        squarings: AtomicU64::new(0),
    }))
}

/// Views limbs as residues of L limbs a half.
fn view<const L: usize>(limbs: &[u64]) -> &[Residue<L>] {
    limbs.as_chunks::<L>().0.as_chunks::<2>().0
}

fn view_mut<const L: usize>(limbs: &mut [u64]) -> &mut [Residue<L>] {
    limbs.as_chunks_mut::<L>().0.as_chunks_mut::<2>().0
}

fn modulus<const L: usize>(constants: &Constants) -> Modulus<'_, L> {
    Modulus { n: &constants.n.as_chunks::<L>().0[0], negative_inverse: constants.negative_inverse }
}

fn mul_zip<const L: usize>(constants: &Constants, x: &mut [u64], y: &[u64]) {
    let modulus = modulus::<L>(constants);
    for (x, y) in view_mut::<L>(x).iter_mut().zip(view::<L>(y)) {
        *x = portable::mul(&modulus, x, y);
    }
}

fn mul_gather<const L: usize>(constants: &Constants, x: &mut [u64], table: &[u64], indices: &[u32]) {
    let modulus = modulus::<L>(constants);
    let table = view::<L>(table);
    for (x, &index) in view_mut::<L>(x).iter_mut().zip(indices) {
        *x = portable::mul(&modulus, x, &table[index as usize]);
    }
}

fn mul_broadcast<const L: usize>(constants: &Constants, x: &mut [u64], y: &[u64]) {
    let modulus = modulus::<L>(constants);
    let y = &view::<L>(y)[0];
    for x in view_mut::<L>(x) {
        *x = portable::mul(&modulus, x, y);
    }
}

fn square_all<const L: usize>(constants: &Constants, x: &mut [u64], times: usize) {
    let modulus = modulus::<L>(constants);
    for x in view_mut::<L>(x) {
        for _ in 0..times {
            *x = portable::square(&modulus, x);
        }
    }
}

fn one_plus<const L: usize>(constants: &Constants, x: &mut [u64], m: &[u64]) {
    let modulus = modulus::<L>(constants);
    let r_squared = &constants.r_squared.as_chunks::<L>().0[0];
    for ([a, b], m) in view_mut::<L>(x).iter_mut().zip(m.as_chunks::<L>().0) {
        let montgomery = portable::mul_mod_n(&modulus, m, r_squared);
        let product = portable::mul_mod_n(&modulus, a, &montgomery);
        *b = add_mod_n(&modulus, b, &product).0;
    }
}

/// `x + y mod n` for x, y below n, and whether n was subtracted.
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

fn add_zip<const L: usize>(constants: &Constants, x: &mut [u64], y: &[u64]) {
    let modulus = modulus::<L>(constants);
    for (x, y) in view_mut::<L>(x).iter_mut().zip(view::<L>(y)) {
        *x = add(&modulus, x, y);
    }
}

fn sub_zip<const L: usize>(constants: &Constants, x: &mut [u64], y: &[u64]) {
    let modulus = modulus::<L>(constants);
    for (x, y) in view_mut::<L>(x).iter_mut().zip(view::<L>(y)) {
        // n^2 - (c + d n) = (n - c) + (n - 1 - d) n, where n - c may be n itself: add takes care of neither, so
        // the low half is made canonical first.
        let mut low = [0; L];
        sub_into(&mut low, modulus.n, &y[0]);
        let (low, zero) = add_mod_n(&modulus, &[0; L], &low);
        let mut high = [0; L];
        sub_into(&mut high, modulus.n, &y[1]);
        let mut less_one = [0; L];
        let mut borrow = 1 - zero;
        for (out, limb) in less_one.iter_mut().zip(high) {
            let (difference, under) = limb.overflowing_sub(borrow);
            *out = difference;
            borrow = u64::from(under);
        }
        let (high, _) = add_mod_n(&modulus, &[0; L], &less_one);
        *x = add(&modulus, x, &[low, high]);
    }
}

/// The product of the low halves, mod n and times a power of R: for gcd checks.
fn low_product<const L: usize>(constants: &Constants, x: &[u64]) -> Vec<u64> {
    let modulus = modulus::<L>(constants);
    let mut one = [0; L];
    one[0] = 1;
    let (start, _) = conditional_subtract(one, 0, modulus.n);
    view::<L>(x).iter().fold(start, |product, [a, _]| portable::mul_mod_n(&modulus, &product, a)).to_vec()
}
