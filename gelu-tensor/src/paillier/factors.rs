//! What can be told of a modulus without its factors.

use num_bigint::BigUint;

use crate::arith::limbs;

fn is_prime(number: u32) -> bool {
    (2..number)
        .take_while(|divisor| divisor * divisor <= number)
        .all(|divisor| !number.is_multiple_of(divisor))
}

/// 3, 5, 7, 11 and so on.
pub(super) fn odd_primes_below(limit: u32) -> Vec<u32> {
    (3..limit).step_by(2).filter(|&number| is_prime(number)).collect()
}

fn remainder(n: &BigUint, divisor: u32) -> u32 {
    let limbs: Vec<u64> = n.iter_u64_digits().collect();
    limbs::remainder(&limbs, divisor.into()) as u32
}

/// An odd prime factor below 1,000. One remainder tells of three primes, whose product is below 2^30.
pub(super) fn small_factor(n: &BigUint) -> Option<u32> {
    odd_primes_below(1000).chunks(3).find_map(|primes| {
        let rest = remainder(n, primes.iter().product());
        primes.iter().copied().find(|&prime| rest.is_multiple_of(prime))
    })
}

/// The prime k for which n is a k-th power, if there is one. n has no factor below 1,000 (10 bits).
pub(super) fn perfect_power(n: &BigUint) -> Option<u32> {
    (2..=(n.bits() / 9) as u32)
        .filter(|&k| is_prime(k) && may_be_power(n, k))
        .find(|&k| n.nth_root(k).pow(k) == *n)
}

/// Whether n is a k-th power modulo some small primes r with k | r - 1, where only one residue in k is one: what says
/// no is no power, so that roots need hardly ever be taken.
fn may_be_power(n: &BigUint, k: u32) -> bool {
    const PRIMES: usize = 8;
    let step = k * (1 + k % 2);
    (1..).map(|i| i * step + 1).filter(|&r| is_prime(r)).take(PRIMES).all(|r| {
        let (residue, modulus) = (u64::from(remainder(n, r)), u64::from(r));
        let exponent = (r - 1) / k;
        let power = (0..u32::BITS - exponent.leading_zeros()).rev().fold(1, |power, bit| {
            let factor = if exponent >> bit & 1 == 1 { residue } else { 1 };
            power * power % modulus * factor % modulus
        });
        residue == 0 || power == 1
    })
}
