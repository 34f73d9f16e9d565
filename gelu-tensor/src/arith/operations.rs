//! Counts of operations mod n^2: what plans weigh and rings count.

use serde::{Deserialize, Serialize};

/// How many operations mod n^2 a ring has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operations {
    /// Products of two residues.
    pub products: u64,
    /// Squarings, which cost about 0.7 of a product.
    pub squarings: u64,
}

impl Operations {
    /// Returns the number of all of them.
    pub fn total(self) -> u64 {
        self.products + self.squarings
    }

    /// Returns their cost in hundredths of a product: a squaring takes 3.5 L^2 limb products against 5 L^2.
    pub fn cost(self) -> u64 {
        100 * self.products + 70 * self.squarings
    }
}

impl std::ops::Add for Operations {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { products: self.products + other.products, squarings: self.squarings + other.squarings }
    }
}

impl std::ops::Mul<u64> for Operations {
    type Output = Self;

    fn mul(self, times: u64) -> Self {
        Self { products: self.products * times, squarings: self.squarings * times }
    }
}

impl std::ops::Sub for Operations {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { products: self.products - earlier.products, squarings: self.squarings - earlier.squarings }
    }
}
