//! Digits `a + b n` of 64-bit limbs, both below n: the form that residues of all backends are made from and read as.

use zeroize::Zeroizing;

use super::limbs::{add_assign, conditional_subtract, sub_into};

/// Runs a const-generic function for a number of 64-bit limbs, which the ring has checked.
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
pub(super) use for_limbs;

/// A pair of digits with L limbs each.
pub(super) type Pair<const L: usize> = [[u64; L]; 2];

/// Views limbs as pairs of digits.
pub(super) fn view<const L: usize>(limbs: &[u64]) -> &[Pair<L>] {
    limbs.as_chunks::<L>().0.as_chunks::<2>().0
}

pub(super) fn view_mut<const L: usize>(limbs: &mut [u64]) -> &mut [Pair<L>] {
    limbs.as_chunks_mut::<L>().0.as_chunks_mut::<2>().0
}

/// Arithmetic on digits for a modulus n whose top bit is set.
pub(super) struct Digits {
    n: Zeroizing<Vec<u64>>,
}

impl Digits {
    pub(super) fn new(n: &[u64]) -> Self {
        Self { n: Zeroizing::new(n.to_vec()) }
    }

    pub(super) fn modulus(&self) -> &[u64] {
        &self.n
    }

    /// `x[i] += y[i]`.
    pub(super) fn add(&self, x: &mut [u64], y: &[u64]) {
        for_limbs!(self.n.len(), add_zip(&self.n, x, y));
    }

    /// `x[i] -= y[i]`.
    pub(super) fn sub(&self, x: &mut [u64], y: &[u64]) {
        for_limbs!(self.n.len(), sub_zip(&self.n, x, y));
    }

    /// `2^exponent mod n^2`, by doubling, for an exponent a little above the bits of n.
    pub(super) fn large_power_of_two(&self, exponent: usize) -> Zeroizing<Vec<u64>> {
        for_limbs!(self.n.len(), large_power_of_two(&self.n, exponent))
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
    #[cfg(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        all(target_arch = "wasm32", target_feature = "simd128")
    ))]
    pub(super) fn canonical(&self, digits: &mut [u64], tops: [u64; 2]) {
        for_limbs!(self.n.len(), canonical(&self.n, digits, tops));
    }
}

/// The modulus as an array.
pub(super) fn array<const L: usize>(n: &[u64]) -> &[u64; L] {
    &n.as_chunks::<L>().0[0]
}

/// `x + y mod n` for x, y below n (or one of them n), and whether n was subtracted.
pub(super) fn add_mod_n<const L: usize>(n: &[u64; L], x: &[u64; L], y: &[u64; L]) -> ([u64; L], u64) {
    let mut sum = *x;
    let top = u64::from(add_assign(&mut sum, y));
    conditional_subtract(sum, top, n)
}

fn add<const L: usize>(n: &[u64; L], x: &Pair<L>, y: &Pair<L>) -> Pair<L> {
    let (low, carry) = add_mod_n(n, &x[0], &y[0]);
    let (high, _) = add_mod_n(n, &x[1], &y[1]);
    let mut one = [0; L];
    one[0] = carry;
    [low, add_mod_n(n, &high, &one).0]
}

fn add_zip<const L: usize>(n: &[u64], x: &mut [u64], y: &[u64]) {
    let n = array::<L>(n);
    for (x, y) in view_mut::<L>(x).iter_mut().zip(view::<L>(y)) {
        *x = add(n, x, y);
    }
}

fn sub_zip<const L: usize>(n: &[u64], x: &mut [u64], y: &[u64]) {
    let n = array::<L>(n);
    for (x, y) in view_mut::<L>(x).iter_mut().zip(view::<L>(y)) {
        // n^2 - (c + d n) = (n - c) + (n - 1 - d) n, where n - c may be n itself and is then made 0 with a carry,
        // which the 1 that is taken from the high half makes up for.
        let mut low = [0; L];
        sub_into(&mut low, n, &y[0]);
        let (low, zero) = add_mod_n(n, &[0; L], &low);
        let mut high = [0; L];
        sub_into(&mut high, n, &y[1]);
        let mut one = [0; L];
        one[0] = 1 - zero;
        let mut less_one = [0; L];
        sub_into(&mut less_one, &high, &one);
        let (high, _) = add_mod_n(n, &[0; L], &less_one);
        *x = add(n, x, &[low, high]);
    }
}

fn large_power_of_two<const L: usize>(n: &[u64], exponent: usize) -> Zeroizing<Vec<u64>> {
    let n = array::<L>(n);
    let mut power = [[0; L]; 2];
    // n has its top bit set, so this is below n.
    power[0][L - 1] = 1 << 63;
    for _ in 64 * L - 1..exponent {
        power = add(n, &power, &power);
    }
    Zeroizing::new(power.as_flattened().to_vec())
}

#[cfg(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
fn canonical<const L: usize>(n: &[u64], digits: &mut [u64], tops: [u64; 2]) {
    let n = array::<L>(n);
    for [a, b] in view_mut::<L>(digits) {
        let excess;
        (*a, excess) = conditional_subtract(*a, tops[0], n);
        let mut carry = [0; L];
        carry[0] = excess;
        // Below n first, so that the carry cannot overflow.
        *b = conditional_subtract(*b, tops[1], n).0;
        *b = add_mod_n(n, b, &carry).0;
    }
}
