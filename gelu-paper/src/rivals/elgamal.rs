//! Exponential ElGamal: sums of ciphertexts, and products with numbers in the clear.

use curve25519_dalek::constants::{RISTRETTO_BASEPOINT_POINT, RISTRETTO_BASEPOINT_TABLE};
use curve25519_dalek::ristretto::{RistrettoBasepointTable, RistrettoPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity;
use rand::CryptoRng;

use super::{signed, wide};

/// A key pair over ristretto255, of 128-bit security.
pub struct ElGamalKey {
    secret: Scalar,
    public: RistrettoBasepointTable,
}

/// An encrypted number: `r G` and `r H + m G`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ElGamalCiphertext([RistrettoPoint; 2]);

impl ElGamalKey {
    /// Returns a key pair.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let secret = scalar(rng);
        Self { secret, public: RistrettoBasepointTable::create(&(secret * RISTRETTO_BASEPOINT_POINT)) }
    }

    /// Returns a number as a ciphertext.
    pub fn encrypt(&self, number: i64, rng: &mut dyn CryptoRng) -> ElGamalCiphertext {
        let r = scalar(rng);
        let hidden = &r * &self.public + &signed::<Scalar>(number) * RISTRETTO_BASEPOINT_TABLE;
        ElGamalCiphertext([&r * RISTRETTO_BASEPOINT_TABLE, hidden])
    }

    /// Returns the number in a ciphertext, if it is not beyond `most` in absolute value: it is searched for.
    pub fn decrypt(&self, ciphertext: &ElGamalCiphertext, most: i64) -> Option<i64> {
        let ElGamalCiphertext([r, hidden]) = ciphertext;
        let point = hidden - self.secret * r;
        let mut up = RistrettoPoint::identity();
        for number in 0..=most {
            if up == point {
                return Some(number);
            }
            if -up == point {
                return Some(-number);
            }
            up += RISTRETTO_BASEPOINT_POINT;
        }
        None
    }
}

impl ElGamalCiphertext {
    /// Returns a ciphertext of the sum of both numbers.
    pub fn add(&self, other: &Self) -> Self {
        Self([self.0[0] + other.0[0], self.0[1] + other.0[1]])
    }

    /// Returns a ciphertext of the product with a number in the clear.
    pub fn multiply(&self, number: i64) -> Self {
        let number: Scalar = signed(number);
        Self(self.0.map(|point| number * point))
    }
}

/// Uniform.
fn scalar(rng: &mut dyn CryptoRng) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&wide(rng))
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::ChaCha20Rng};

    use super::*;

    #[test]
    fn sums_and_products_with_numbers_decrypt() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let key = ElGamalKey::generate(rng);
        let [x, y] = [3, -5].map(|number| key.encrypt(number, rng));
        assert_eq!(key.decrypt(&x.add(&y), 10), Some(-2));
        assert_eq!(key.decrypt(&x.multiply(-7).add(&y.multiply(2)), 100), Some(-31));
        assert_eq!(key.decrypt(&x, 2), None);
        assert_ne!(key.encrypt(3, rng), x);
    }
}
