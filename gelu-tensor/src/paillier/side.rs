use zeroize::Zeroizing;

use crate::Error;
use crate::arith::limbs::{add_assign, conditional_assign, less_than, sub_into};
use crate::arith::{Comb, Exponent, Residues, Ring};

/// One prime's half of the owner's work by the Chinese remainder theorem: arithmetic mod p^2 in p-adic form.
pub(super) struct Side {
    ring: Ring,
    /// p - 1.
    order: Exponent,
    /// `1 / L((1 + n)^(p - 1) mod p^2) mod p = -1 / q mod p`, in little-endian limbs.
    decryption_factor: Zeroizing<Vec<u64>>,
    comb: Comb,
}

impl Side {
    /// The side of `prime`, where `other` is the other prime and h the key's h as limbs of n^2.
    pub(super) fn new(prime: &[u64], other: &[u64], h: &[u64]) -> Result<Self, Error> {
        let ring = Ring::new(prime)?;
        let mut order = prime.to_vec();
        order[0] -= 1;
        let h = ring.lift(h, 1);
        let h_inverse = inverse_mod_prime(&ring, &ring.digits(&h)[..prime.len()]);
        let h_inverse = ring.refine_inverse(&h, &ring.lift(&h_inverse, 1));
        let comb = Comb::wide(&ring, &h, &h_inverse, 64 * prime.len());
        let mut side =
            Self { ring, order: Exponent::new(order), decryption_factor: Zeroizing::new(vec![]), comb };
        let mut minus_inverse = Zeroizing::new(vec![0; prime.len()]);
        sub_into(&mut minus_inverse, prime, &side.inverse_mod_prime(other));
        side.decryption_factor = minus_inverse;
        Ok(side)
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// p, as limbs.
    pub(super) fn prime(&self) -> &[u64] {
        self.ring.modulus()
    }

    /// `1 / x mod p` by Fermat's little theorem, for x of p's limbs that p does not divide.
    pub(super) fn inverse_mod_prime(&self, x: &[u64]) -> Zeroizing<Vec<u64>> {
        inverse_mod_prime(&self.ring, x)
    }

    /// `h^exponents mod p^2`.
    pub(super) fn randomizers(&self, exponents: &[Exponent]) -> Residues {
        self.comb.power(&self.ring, exponents)
    }

    /// Whether h is an n-th residue: its order divides p - 1.
    pub(super) fn has_order_of_group(&self, h: &[u64]) -> bool {
        let power = self.ring.power(&self.ring.lift(h, 1), &self.order);
        let digits = self.ring.digits(&power);
        digits[0] == 1 && digits[1..].iter().all(|&limb| limb == 0)
    }

    /// The plaintexts mod p of `count` ciphertexts given as integers below n^2.
    pub(super) fn decrypt(&self, ciphertexts: &[u64], count: usize) -> Zeroizing<Vec<u64>> {
        let limbs = self.ring.limbs();
        let powers = self.ring.power(&self.ring.lift(ciphertexts, count), &self.order);
        let digits = self.ring.digits(&powers);
        // The powers are 1 + L p: the upper digits are L.
        let quotients: Vec<u64> =
            digits.chunks_exact(2 * limbs).flat_map(|digits| &digits[limbs..]).copied().collect();
        self.mul_mod_prime(&Zeroizing::new(quotients), &self.decryption_factor)
    }

    /// `x[i] y mod p` for any number of x, each of p's limbs.
    pub(super) fn mul_mod_prime(&self, x: &[u64], y: &[u64]) -> Zeroizing<Vec<u64>> {
        let limbs = self.ring.limbs();
        let count = x.len() / limbs;
        let mut products = self.ring.lift(x, count);
        let factor = self.ring.lift(y, 1).gather((0..count).map(|_| 0));
        self.ring.mul_assign(&mut products, &factor);
        let digits = self.ring.digits(&products);
        Zeroizing::new(digits.chunks_exact(2 * limbs).flat_map(|digits| &digits[..limbs]).copied().collect())
    }

    /// `x - y mod p` for x below p and y below 2 p.
    pub(super) fn sub_mod_prime(&self, x: &[u64], y: &[u64]) -> Zeroizing<Vec<u64>> {
        let mut reduced = Zeroizing::new(vec![0; x.len()]);
        sub_into(&mut reduced, y, self.prime());
        conditional_assign(&mut reduced, y, less_than(y, self.prime()));
        let mut difference = Zeroizing::new(vec![0; x.len()]);
        let borrow = less_than(x, &reduced);
        sub_into(&mut difference, x, &reduced);
        let mut wrapped = Zeroizing::new(difference.to_vec());
        add_assign(&mut wrapped, self.prime());
        conditional_assign(&mut difference, &wrapped, borrow);
        difference
    }
}

fn inverse_mod_prime(ring: &Ring, x: &[u64]) -> Zeroizing<Vec<u64>> {
    let mut exponent = ring.modulus().to_vec();
    // p is odd and larger than 2, so this borrows at most once; the top limb is never touched.
    let (low, borrow) = exponent[0].overflowing_sub(2);
    exponent[0] = low;
    let mut borrow = u64::from(borrow);
    for limb in &mut exponent[1..] {
        let (difference, under) = limb.overflowing_sub(borrow);
        *limb = difference;
        borrow = u64::from(under);
    }
    let inverse = ring.power(&ring.lift(x, 1), &Exponent::new(exponent));
    Zeroizing::new(ring.digits(&inverse)[..x.len()].to_vec())
}
