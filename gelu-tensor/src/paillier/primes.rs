//! The primes of a key: drawn at random, or checked where they come from outside.
//!
//! Those of subgroup keys (Ma, Han, Lei, ACSAC 2021, section 3) are `p = 2 p' k + 1` with a secret prime p' of 160 to 256
//! bits and an odd k without small factors.

use crypto_bigint::BoxedUint;
use crypto_primes::{Flavor, is_prime};
use num_bigint::BigUint;
use num_integer::Integer;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::factors::odd_primes_below;
use super::{KeyBits, KeyParameters, KeyType};
use crate::Error;
use crate::arith::Exponent;
use crate::arith::limbs::{
    bit_length_vartime, from_biguint, from_le_bytes, mul_into, product, remainder, to_biguint, to_le_bytes,
};

/// Factors below this are small.
const SMALL: u32 = 2000;

/// Limbs of a secret number.
pub(super) type Limbs = Zeroizing<Vec<u64>>;

/// One of something for each prime.
pub(super) struct PerPrime<T> {
    pub(super) p: T,
    pub(super) q: T,
}

impl<T> PerPrime<T> {
    pub(super) fn map<U>(&self, of: impl Fn(&T) -> U) -> PerPrime<U> {
        PerPrime { p: of(&self.p), q: of(&self.q) }
    }
}

/// A prime that is 3 mod 4, with its top bit set.
pub(super) struct Prime {
    pub(super) value: Limbs,
    /// Of a subgroup key the prime that divides it less 1 exactly once and makes up half the order of h.
    pub(super) subgroup: Option<Limbs>,
}

impl Prime {
    /// A new one with its two top bits set, so that n has all its bits.
    pub(super) fn random(parameters: KeyParameters, rng: &mut dyn CryptoRng) -> Self {
        let limbs = parameters.size.limbs() / 2;
        let small: Vec<u64> = odd_primes_below(SMALL).into_iter().map(u64::from).collect();
        if parameters.key_type == KeyType::Djn {
            return Self { value: random_prime(64 * limbs, 3, &small, rng), subgroup: None };
        }
        let bits = parameters.subgroup_prime();
        let order = random_prime(bits, 1, &small, rng);
        let cofactor_bits = 64 * limbs - bits;
        let mut cofactor = Zeroizing::new(vec![0; cofactor_bits.div_ceil(64)]);
        let mut prime = Zeroizing::new(vec![0; order.len() + cofactor.len()]);
        loop {
            // 2 k: of all bits but those of p', and 2 mod 4.
            draw(&mut cofactor, cofactor_bits, 1, rng);
            cofactor[0] = cofactor[0] & !3 | 2;
            mul_into(&mut prime, &order, &cofactor);
            prime[0] |= 1;
            if prime[limbs - 1] >> 62 == 3
                && prime[limbs..].iter().all(|&limb| limb == 0)
                && small.iter().all(|&r| remainder(&prime, r) != 0 && remainder(&cofactor, r) != 0)
                && is_prime_number(&prime[..limbs])
            {
                prime.truncate(limbs);
                return Self { value: prime, subgroup: Some(order) };
            }
        }
    }

    /// The prime of little-endian bytes from outside.
    ///
    /// # Errors
    /// [`Error::Key`] with `rule` when it is composite, has another size than half a [`KeyBits`] or is not 3 mod 4; when the
    /// subgroup prime has another size than a key of twice the prime's asks for, is composite, or does not divide it less 1
    /// exactly once.
    pub(super) fn check(bytes: &[u8], subgroup: Option<&[u8]>, rule: &'static str) -> Result<Self, Error> {
        let value = Zeroizing::new(from_le_bytes(bytes));
        let size = KeyBits::try_from(128 * value.len()).ok();
        let Some(size) = size.filter(|_| value[value.len() - 1] >> 63 == 1) else {
            return Err(Error::Key { rule, found: format!("a number in {} bytes", bytes.len()) });
        };
        if value[0] % 4 != 3 || !is_prime_number(&value) {
            return Err(Error::Key { rule, found: "a number that is not".into() });
        }
        let mut prime = Self { value, subgroup: None };
        if let Some(subgroup) = subgroup {
            prime.subgroup = Some(prime.check_subgroup(size, subgroup)?);
        }
        Ok(prime)
    }

    fn check_subgroup(&self, size: KeyBits, bytes: &[u8]) -> Result<Limbs, Error> {
        let bits = KeyParameters { size, key_type: KeyType::Subgroup }.subgroup_prime();
        let error = |found: String| Error::Key {
            rule: "the subgroup primes must have the size for the key and divide p - 1 and q - 1 once",
            found,
        };
        if bytes.len() != bits / 8 || bytes[bytes.len() - 1] >> 7 == 0 {
            return Err(error(format!("a number in {} bytes", bytes.len())));
        }
        let order = Zeroizing::new(from_le_bytes(bytes));
        if !is_prime_number(&order) {
            return Err(error("a composite number".into()));
        }
        let (subgroup, cofactor) = (to_biguint(&order), cofactor(&self.value, &order));
        if &cofactor * &subgroup * 2u8 != to_biguint(&self.value) - 1u8
            || (cofactor % subgroup) == BigUint::ZERO
        {
            return Err(error("one that does not".into()));
        }
        Ok(order)
    }

    /// What the order of h modulo the square of the prime divides.
    pub(super) fn order(&self, parameters: KeyParameters) -> Exponent {
        let bits = parameters.decryption_exponent();
        let order = match &self.subgroup {
            None => to_biguint(&self.value) - 1u8,
            Some(subgroup) => to_biguint(subgroup) * 2u8,
        };
        Exponent::new(from_biguint(&order, bits.div_ceil(64))).of_bits(bits)
    }

    /// Little-endian bytes of the prime and of its subgroup prime.
    pub(super) fn to_le_bytes(
        &self,
        parameters: KeyParameters,
    ) -> (Zeroizing<Vec<u8>>, Option<Zeroizing<Vec<u8>>>) {
        let subgroup = self.subgroup.as_ref().map(|subgroup| {
            let mut bytes = Zeroizing::new(to_le_bytes(subgroup));
            bytes.truncate(parameters.subgroup_prime() / 8);
            bytes
        });
        (Zeroizing::new(to_le_bytes(&self.value)), subgroup)
    }
}

impl PerPrime<Prime> {
    /// What makes the two primes a key.
    ///
    /// # Errors
    /// [`Error::PrimePair`] when they do not go together; [`Error::Key`] when n has too few bits.
    pub(super) fn check_pair(&self) -> Result<KeyParameters, Error> {
        let (p, q) = (&self.p.value, &self.q.value);
        let pair_error = |rule| Err(Error::PrimePair { rule });
        if p.len() != q.len() {
            return pair_error("p and q must have the same number of bits");
        }
        if p == q {
            return pair_error("p and q must differ");
        }
        let less_one = |prime: &[u64]| to_biguint(prime) - 1u8;
        if less_one(p).gcd(&less_one(q)) != BigUint::from(2u8) {
            return pair_error("gcd(p - 1, q - 1) must be 2");
        }
        let size = KeyBits::try_from(bit_length_vartime(&self.n()))?;
        let key_type = if self.p.subgroup.is_some() { KeyType::Subgroup } else { KeyType::Djn };
        Ok(KeyParameters { size, key_type })
    }

    pub(super) fn n(&self) -> Vec<u64> {
        product(&self.p.value, &self.q.value)
    }

    /// Twice the product of the cofactors of a subgroup key; 2 for any other key.
    pub(super) fn twice_cofactors(&self) -> BigUint {
        let of = |prime: &Prime| {
            prime.subgroup.as_ref().map_or(BigUint::from(1u8), |order| cofactor(&prime.value, order))
        };
        of(&self.p) * of(&self.q) * 2u8
    }
}

/// k, for `p = 2 p' k + 1`.
fn cofactor(prime: &[u64], order: &[u64]) -> BigUint {
    (to_biguint(prime) - 1u8) / (to_biguint(order) * 2u8)
}

fn is_prime_number(limbs: &[u64]) -> bool {
    is_prime(Flavor::Any, &*Zeroizing::new(BoxedUint::from_words(limbs.iter().copied())))
}

/// A prime of so many bits, of which the two highest and those of `low` are set: all such are equally likely.
fn random_prime(bits: usize, low: u64, small: &[u64], rng: &mut dyn CryptoRng) -> Limbs {
    let mut candidate = Zeroizing::new(vec![0; bits.div_ceil(64)]);
    loop {
        draw(&mut candidate, bits, 2, rng);
        candidate[0] |= low;
        if small.iter().all(|&r| remainder(&candidate, r) != 0) && is_prime_number(&candidate) {
            return candidate;
        }
    }
}

/// A random number of so many bits, of which the `ones` highest are set.
fn draw(number: &mut [u64], bits: usize, ones: usize, rng: &mut dyn CryptoRng) {
    number.iter_mut().for_each(|limb| *limb = rng.next_u64());
    let (top, excess) = (number.len() - 1, 64 * number.len() - bits);
    number[top] = (number[top] | !(u64::MAX >> ones)) >> excess;
}
