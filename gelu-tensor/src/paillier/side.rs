//! One prime's half of the owner's work.

use rand::CryptoRng;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use crate::arith::limbs::{conditional_assign, less_than, sub_into, sub_mod};
use crate::arith::{Comb, Exponent, Residues, Ring};

/// One prime's half of the owner's work by the Chinese remainder theorem: arithmetic mod p^2 in p-adic form.
pub(super) struct Side {
    ring: Ring,
    /// What the order of h mod p^2 divides: p - 1, or less for a subgroup key.
    order: Exponent,
    /// `1 / L((1 + n)^order mod p^2) mod p = 1 / (order q) mod p`, in little-endian limbs.
    decryption_factor: Zeroizing<Vec<u64>>,
    comb: Comb,
}

impl Side {
    /// The side of the prime of a ring, where `other` is the other prime and h the key's h as limbs of n^2, whose order mod
    /// p^2 divides `order`.
    pub(super) fn new(ring: Ring, other: &[u64], h: &[u64], order: Exponent) -> Self {
        let h = ring.lift(h, 1);
        let h_inverse = inverse_mod_prime(&ring, &ring.digits(&h)[..ring.limbs()]);
        let h_inverse = ring.refine_inverse(&h, &ring.lift(&h_inverse, 1));
        let comb = Comb::wide(&ring, &h, &h_inverse, order.bits());
        let mut side = Self { ring, order, decryption_factor: Zeroizing::new(vec![]), comb };
        let mut order = Zeroizing::new(side.order.limbs().to_vec());
        order.resize(other.len(), 0);
        side.decryption_factor = side.inverse_mod_prime(&side.mul_mod_prime(&order, other));
        side
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

    /// A secret exponent below the order of h, of the given parity if any.
    pub(super) fn random_exponent(&self, rng: &mut dyn CryptoRng, parity: Option<u64>) -> Exponent {
        let (order, bits) = (self.order.limbs(), self.order.bits());
        let mut limbs = Zeroizing::new(vec![0; order.len()]);
        // What is thrown away says nothing of what is kept.
        loop {
            limbs.iter_mut().for_each(|limb| *limb = rng.next_u64());
            limbs[order.len() - 1] >>= 64 * order.len() - bits;
            if bool::from(less_than(&limbs, order)) && parity.is_none_or(|parity| limbs[0] % 2 == parity) {
                return Exponent::new(limbs.to_vec()).of_bits(bits);
            }
        }
    }

    /// `h^exponents mod p^2`.
    pub(super) fn randomizers(&self, exponents: &[Exponent]) -> Residues {
        self.comb.power(&self.ring, exponents)
    }

    /// Whether the order of h mod p^2 divides what it should, so that it is an n-th residue, and is more than 2.
    pub(super) fn has_order_of_group(&self, h: &[u64]) -> bool {
        let is_one = |power: &Residues| {
            let digits = self.ring.digits(power);
            digits[0] == 1 && digits[1..].iter().all(|&limb| limb == 0)
        };
        let h = self.ring.lift(h, 1);
        let mut square = h.clone();
        self.ring.square_assign(&mut square, 1);
        is_one(&self.ring.power(&h, &self.order)) && !is_one(&square)
    }

    /// The plaintexts mod p of ciphertexts mod p^2, and whether the random factors of all of them vanished. Where they
    /// did not, a plaintext means nothing.
    pub(super) fn decrypt(&self, ciphertexts: &Residues) -> (Zeroizing<Vec<u64>>, Choice) {
        let limbs = self.ring.limbs();
        let digits = self.ring.digits(&self.ring.power(ciphertexts, &self.order));
        // The powers are 1 + L p: the upper digits are L. A random factor r^n vanishes exactly when the lower digit is
        // 1, for r^order = 1 + k p makes (1 + k p)^n = 1 mod p^2.
        let mut quotients = Zeroizing::new(Vec::with_capacity(ciphertexts.len() * limbs));
        let mut remains = 0;
        for digits in digits.chunks_exact(2 * limbs) {
            let (lower, upper) = digits.split_at(limbs);
            remains |= lower[1..].iter().fold(lower[0] ^ 1, |bits, limb| bits | limb);
            quotients.extend_from_slice(upper);
        }
        (self.mul_mod_prime(&quotients, &self.decryption_factor), remains.ct_eq(&0))
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

    /// `x - y mod p` for x below p and y below 2 p, each of p's limbs.
    pub(super) fn sub_mod_prime(&self, x: &[u64], y: &[u64]) -> Zeroizing<Vec<u64>> {
        let mut reduced = Zeroizing::new(vec![0; x.len()]);
        sub_into(&mut reduced, y, self.prime());
        conditional_assign(&mut reduced, y, less_than(y, self.prime()));
        let mut difference = Zeroizing::new(vec![0; x.len()]);
        sub_mod(&mut difference, x, &reduced, self.prime());
        difference
    }
}

fn inverse_mod_prime(ring: &Ring, x: &[u64]) -> Zeroizing<Vec<u64>> {
    let [mut exponent, mut two] = [vec![0; x.len()], vec![0; x.len()]];
    two[0] = 2;
    sub_into(&mut exponent, ring.modulus(), &two);
    let inverse = ring.power(&ring.lift(x, 1), &Exponent::new(exponent));
    Zeroizing::new(ring.digits(&inverse)[..x.len()].to_vec())
}
