//! Doubly homomorphic encryption: sums, and one product of two ciphertexts.
//!
//! Boneh, Goh and Nissim (TCC 2005) have it in groups of composite order. Here it is in groups of prime order by Freeman's
//! conversion (EUROCRYPT 2010), which is faster: a ciphertext is two points of a group, a product four values of the pairing.

use bls12_381::{G1Affine, G1Projective, G2Affine, G2Projective, Gt, Scalar, pairing};
use rand::CryptoRng;

use super::{signed, wide};

/// A key pair over BLS12-381, of about 120-bit security.
pub struct BgnKey {
    /// What lies on this line through the origin is noise, on either side of the pairing.
    noise: [[Scalar; 2]; 2],
    left: [G1Projective; 2],
    right: [G2Projective; 2],
}

/// An encrypted number for the left side of a product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Left([G1Projective; 2]);

/// An encrypted number for its right side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Right([G2Projective; 2]);

/// An encrypted sum of products.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Products([Gt; 4]);

impl BgnKey {
    /// Returns a key pair.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let noise = [(); 2].map(|()| [scalar(rng), scalar(rng)]);
        let left = noise[0].map(|x| G1Projective::generator() * x);
        let right = noise[1].map(|x| G2Projective::generator() * x);
        Self { noise, left, right }
    }

    /// Returns a number as a ciphertext for the left side: the number times (1, 0), and noise.
    pub fn encrypt_left(&self, number: i64, rng: &mut dyn CryptoRng) -> Left {
        let r = scalar(rng);
        let [x, y] = self.left.map(|point| point * r);
        Left([x + G1Projective::generator() * signed::<Scalar>(number), y])
    }

    /// Returns a number as a ciphertext for the right side.
    pub fn encrypt_right(&self, number: i64, rng: &mut dyn CryptoRng) -> Right {
        let r = scalar(rng);
        let [x, y] = self.right.map(|point| point * r);
        Right([x + G2Projective::generator() * signed::<Scalar>(number), y])
    }

    /// Returns the sum in a ciphertext of products, if it is not beyond `most` in absolute value: it is searched for.
    pub fn decrypt(&self, products: &Products, most: i64) -> Option<i64> {
        // What is orthogonal to the noise of a side takes it off.
        let across = self.noise.map(|[x, y]| [y, -x]);
        let factors = [0, 1].map(|i| [0, 1].map(|j| across[0][i] * across[1][j]));
        let terms = products.0.iter().zip(factors.iter().flatten());
        let value = terms.fold(Gt::identity(), |sum, (value, factor)| sum + value * factor);
        let unit = pairing(&G1Affine::generator(), &G2Affine::generator()) * factors[0][0];
        let mut up = Gt::identity();
        for number in 0..=most {
            if up == value {
                return Some(number);
            }
            if -up == value {
                return Some(-number);
            }
            up += unit;
        }
        None
    }
}

impl Left {
    /// Returns a ciphertext of the sum of both numbers.
    pub fn add(&self, other: &Self) -> Self {
        Self([self.0[0] + other.0[0], self.0[1] + other.0[1]])
    }

    /// Returns a ciphertext of the product of both numbers.
    pub fn multiply(&self, other: &Right) -> Products {
        let (left, right) = (self.0.map(G1Affine::from), other.0.map(G2Affine::from));
        let [a, b] = left.map(|left| right.map(|right| pairing(&left, &right)));
        Products([a[0], a[1], b[0], b[1]])
    }
}

impl Products {
    /// Returns a ciphertext of the sum of both.
    pub fn add(&self, other: &Self) -> Self {
        let mut sum = *self;
        sum.0.iter_mut().zip(other.0).for_each(|(x, y)| *x += y);
        sum
    }
}

/// Uniform.
fn scalar(rng: &mut dyn CryptoRng) -> Scalar {
    Scalar::from_bytes_wide(&wide(rng))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::ChaCha20Rng};

    use super::*;

    #[test]
    fn products_of_sums_decrypt() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let key = BgnKey::generate(rng);
        let [x, y] = [3, -5].map(|number| key.encrypt_left(number, rng));
        let z = key.encrypt_right(4, rng);
        assert_eq!(key.decrypt(&x.multiply(&z), 20), Some(12));
        assert_eq!(key.decrypt(&x.add(&y).multiply(&z).add(&x.multiply(&z)), 20), Some(4));
        assert_eq!(key.decrypt(&y.multiply(&z), 5), None);
        assert_ne!(key.encrypt_left(3, rng), x);
    }
}
