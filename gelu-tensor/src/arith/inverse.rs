//! Inverses mod n^2, and which residues have one.

use crypto_bigint::BoxedUint;
use num_bigint::BigUint;
use num_integer::Integer;

use super::limbs::to_biguint;
use super::{Residues, Ring};

impl Ring {
    /// `x[i] = 1 / x[i]`, or `None` when one of them is no unit. Variable-time: for public residues.
    ///
    /// One inversion mod n for the whole batch and three products for each residue (Montgomery's trick, on a tree of
    /// products, so that those of one level are done side by side).
    pub(crate) fn invert_vartime(&self, x: &Residues) -> Option<Residues> {
        if x.is_empty() {
            return Some(x.clone());
        }
        let mut products = x.clone();
        let mut halved = vec![];
        while products.len() > 1 {
            let next = self.halve(&products, 1);
            halved.push(std::mem::replace(&mut products, next));
        }
        let mut inverses = self.invert_one_vartime(&products)?;
        while let Some(products) = halved.pop() {
            // The inverse of a factor is the inverse of the product times the other factor.
            let half = products.len() / 2;
            let mut factors = inverses.gather((0..half).chain(0..half));
            self.mul_assign(&mut factors, &products.gather((half..2 * half).chain(0..half)));
            factors.append(&inverses.gather(half..inverses.len()));
            inverses = factors;
        }
        Some(inverses)
    }

    /// Inverts mod n, then lifts to n^2.
    fn invert_one_vartime(&self, x: &Residues) -> Option<Residues> {
        let n = BoxedUint::from_words(self.modulus().iter().copied()).to_odd().into_option()?;
        let low = BoxedUint::from_words(self.digits(x)[..self.limbs()].iter().copied());
        let inverse = low.invert_odd_mod_vartime(&n).into_option()?;
        Some(self.refine_inverse(x, &self.lift(inverse.as_words(), 1)))
    }

    /// `1 / x mod n^2`, given `y = 1 / x mod n`: one Newton step y (2 - x y).
    pub(crate) fn refine_inverse(&self, x: &Residues, y: &Residues) -> Residues {
        let mut correction = self.ones(1);
        self.add_assign(&mut correction, &self.ones(1));
        let mut product = x.clone();
        self.mul_assign(&mut product, y);
        self.sub_assign(&mut correction, &product);
        self.mul_assign(&mut correction, y);
        correction
    }

    /// The first residue that shares a factor with n, if any. Variable-time: for public residues.
    pub(crate) fn find_non_unit_vartime(&self, x: &Residues) -> Option<usize> {
        let n = to_biguint(self.modulus());
        let is_unit = |residue: &Residues| {
            let low = to_biguint(&self.digits(residue)[..self.limbs()]);
            low.gcd(&n) == BigUint::from(1u8)
        };
        // One gcd for the product of all.
        if x.is_empty() || is_unit(&self.fold_products(x.clone(), 1)) {
            return None;
        }
        (0..x.len()).find(|&index| !is_unit(&x.gather([index])))
    }
}
