//! The primes of subgroup keys (Ma, Han, Lei, ACSAC 2021, section 3): `p = 2 p' k + 1` with a secret prime p' of 224 or
//! 256 bits and an odd k without small factors.

use crypto_bigint::BoxedUint;
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use num_bigint::BigUint;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::KeyParameters;
use crate::Error;
use crate::arith::limbs::{from_le_bytes, mul_into, to_biguint};

/// Factors below this are small.
const SMALL: u64 = 2000;

/// Little-endian bytes of a secret number.
type Bytes = Zeroizing<Vec<u8>>;

/// A prime p and its subgroup prime, in little-endian bytes.
pub(super) fn random_prime(
    parameters: KeyParameters,
    rng: &mut dyn CryptoRng,
) -> Result<(Bytes, Bytes), Error> {
    let failed = || Error::Key { rule: "primes must exist", found: "no prime".into() };
    let bits = parameters.subgroup_prime();
    // With its two top bits set, so that p can have them.
    let sieve = SmallFactorsSieveFactory::<BoxedUint>::new(Flavor::Any, bits as u32, SetBits::TwoMsb)
        .map_err(|_| failed())?;
    let order = sieve_and_find(rng, sieve, |_, candidate| is_prime(Flavor::Any, candidate))
        .map_err(|_| failed())?
        .ok_or_else(failed)?;
    let mut order = Zeroizing::new(order.as_words().to_vec());
    order.truncate(bits.div_ceil(64));

    let limbs = parameters.size.limbs() / 2;
    let cofactor_bits = 64 * limbs - bits;
    let small: Vec<u64> =
        (3..SMALL).step_by(2).filter(|r| (3..*r).take_while(|d| d * d <= *r).all(|d| r % d != 0)).collect();
    let mut cofactor = Zeroizing::new(vec![0; cofactor_bits.div_ceil(64)]);
    let mut prime = Zeroizing::new(vec![0; order.len() + cofactor.len()]);
    loop {
        // 2 k: of all bits but those of p', and 2 mod 4.
        cofactor.iter_mut().for_each(|limb| *limb = rng.next_u64());
        let top = cofactor.len() - 1;
        let excess = 64 * cofactor.len() - cofactor_bits;
        cofactor[top] = (cofactor[top] | 1 << 63) >> excess;
        cofactor[0] = cofactor[0] & !3 | 2;
        mul_into(&mut prime, &order, &cofactor);
        prime[0] |= 1;
        // As p has its two top bits set, n has all its bits.
        let fits = prime[limbs - 1] >> 62 == 3 && prime[limbs..].iter().all(|&limb| limb == 0);
        if fits
            && small.iter().all(|&r| remainder(&prime, r) != 0 && remainder(&cofactor, r) != 0)
            && is_prime(Flavor::Any, &BoxedUint::from_words(prime[..limbs].iter().copied()))
        {
            let bytes = |limbs: &[u64], count: usize| -> Bytes {
                Zeroizing::new(limbs.iter().flat_map(|limb| limb.to_le_bytes()).take(count).collect())
            };
            return Ok((bytes(&prime, 8 * limbs), bytes(&order, bits / 8)));
        }
    }
}

/// The subgroup prime of `prime`, in whole limbs.
///
/// # Errors
/// [`Error::Key`] when it has another size than the key asks for, is composite, or does not divide p - 1 exactly once.
pub(super) fn check_prime(
    parameters: KeyParameters,
    bytes: &[u8],
    prime: &[u64],
) -> Result<Zeroizing<Vec<u64>>, Error> {
    let bits = parameters.subgroup_prime();
    let error = |found: String| Error::Key {
        rule: "the subgroup primes must have the size for the key and divide p - 1 and q - 1 once",
        found,
    };
    if bytes.len() != bits / 8 || bytes[bytes.len() - 1] >> 7 == 0 {
        return Err(error(format!("a number in {} bytes", bytes.len())));
    }
    let padding = bytes.len().next_multiple_of(8) - bytes.len();
    let padded = Zeroizing::new([bytes, &vec![0; padding]].concat());
    let order = Zeroizing::new(from_le_bytes(&padded));
    if !is_prime(Flavor::Any, &BoxedUint::from_words(order.iter().copied())) {
        return Err(error("a composite number".into()));
    }
    let (subgroup, less_one) = (to_biguint(&order), to_biguint(prime) - 1u8);
    let cofactor = cofactor(prime, &order);
    if &cofactor * &subgroup * 2u8 != less_one || (cofactor % subgroup) == BigUint::ZERO {
        return Err(error("one that does not".into()));
    }
    Ok(order)
}

/// k, for `p = 2 p' k + 1`.
pub(super) fn cofactor(prime: &[u64], order: &[u64]) -> BigUint {
    (to_biguint(prime) - 1u8) / (to_biguint(order) * 2u8)
}

fn remainder(limbs: &[u64], divisor: u64) -> u64 {
    limbs.iter().rev().fold(0, |rest, &limb| {
        let wide = u128::from(rest) << 64 | u128::from(limb);
        (wide % u128::from(divisor)) as u64
    })
}
