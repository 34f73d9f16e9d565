//! Numbers as signed limbs of 49 bits: between them and 64-bit limbs, and the constants of a modulus. Integers alone, and
//! in constant time, for a modulus may be a secret prime.

use zeroize::Zeroizing;

use super::{LIMB_BITS, TILE};
use crate::arith::limbs::{BitRange, bits, mul_into, set_bits, sub_into};

const HALF_LIMB: i64 = 1 << (LIMB_BITS - 1);
const TILE_BITS: usize = TILE * LIMB_BITS;

/// 64-bit limbs as signed ones, each at least -2^48 and below 2^48. What does not fit is dropped.
pub(super) fn to_signed(wide: &[u64], count: usize) -> Zeroizing<Vec<i64>> {
    let mut carry = 0;
    let limbs = (0..count).map(|i| {
        let limb = bits(wide, BitRange { start: LIMB_BITS * i, width: LIMB_BITS }) as i64 + carry;
        carry = (limb + HALF_LIMB) >> LIMB_BITS;
        limb - (carry << LIMB_BITS)
    });
    Zeroizing::new(limbs.collect())
}

/// `x + 2 n` for a digit x from -2 n to 2 n, less 2 n where that leaves no less than 0: n's 64-bit limbs, with what is above
/// them, and whether 2 n was subtracted (0 or 1).
pub(super) fn to_wide(out: &mut [u64], x: impl Iterator<Item = i64>, n: (&[i64], &[u64])) -> (u64, u64) {
    let limbs = out.len();
    let mut sum = Zeroizing::new(vec![0; limbs + 1]);
    let mut carry = 0;
    for (i, (limb, n)) in x.zip(n.0).enumerate() {
        let limb = limb + 2 * n + carry;
        carry = limb >> LIMB_BITS;
        set_bits(&mut sum, LIMB_BITS * i, (limb - (carry << LIMB_BITS)) as u128);
    }
    let mut less = sum.clone();
    let borrow = (0..2).fold(0, |borrow, _| {
        let whole = Zeroizing::new(less.to_vec());
        let below = sub_into(&mut less[..limbs], &whole[..limbs], n.1);
        borrow + sub_into(&mut less[limbs..], &whole[limbs..], &[below])
    });
    // At most one of the two subtractions goes below 0.
    let keep = borrow.wrapping_neg();
    for (less, &sum) in less.iter_mut().zip(sum.iter()) {
        *less = (*less & !keep) | (sum & keep);
    }
    out.copy_from_slice(&less[..limbs]);
    (less[limbs], 1 - borrow)
}

/// The constants of a modulus n, for B = 2^343, in signed limbs.
pub(super) struct Constants {
    pub(super) n: Zeroizing<Vec<i64>>,
    /// K = -1 / n mod B, at least -B / 2 and below B / 2.
    pub(super) k: Zeroizing<Vec<i64>>,
    /// (K n + 1) / B.
    pub(super) p: Zeroizing<Vec<i64>>,
}

impl Constants {
    pub(super) fn new(n: &[u64], count: usize) -> Self {
        let signed = to_signed(n, count);
        let k = negative_inverse(n);
        let mut p = Zeroizing::new(Vec::with_capacity(count));
        let mut sum = 1i128;
        for column in 0..count + TILE {
            let terms = (0..TILE.min(column + 1)).filter(|i| column - i < count);
            sum += terms.map(|i| i128::from(k[i]) * i128::from(signed[column - i])).sum::<i128>();
            let carry = (sum + i128::from(HALF_LIMB)) >> LIMB_BITS;
            if column >= TILE {
                p.push((sum - (carry << LIMB_BITS)) as i64);
            }
            sum = carry;
        }
        Self { n: signed, k, p }
    }
}

/// -1 / n mod 2^343, in signed limbs.
fn negative_inverse(n: &[u64]) -> Zeroizing<Vec<i64>> {
    const LIMBS: usize = TILE_BITS.div_ceil(64);
    // Newton: every step doubles the correct bits of 1 / n, from 3.
    let mut inverse = Zeroizing::new([0; LIMBS]);
    inverse[0] = n[0];
    let mut product = Zeroizing::new([0; 2 * LIMBS]);
    for _ in 0..7 {
        // 2 - n x
        mul_into(&mut *product, &n[..LIMBS], &*inverse);
        let mut correction = Zeroizing::new([0; LIMBS]);
        let mut two = [0; LIMBS];
        two[0] = 2;
        sub_into(&mut *correction, &two, &product[..LIMBS]);
        mul_into(&mut *product, &*correction, &*inverse);
        inverse.copy_from_slice(&product[..LIMBS]);
    }
    let mut negative = Zeroizing::new([0; LIMBS]);
    sub_into(&mut *negative, &[0; LIMBS], &*inverse);
    to_signed(&*negative, TILE)
}

#[cfg(test)]
mod tests {
    use num_bigint::{BigInt, BigUint};
    use proptest::prelude::*;

    use super::*;
    use crate::arith::limbs::{from_biguint, to_biguint};

    fn value(limbs: &[i64]) -> BigInt {
        assert!(limbs.iter().all(|limb| (-HALF_LIMB..HALF_LIMB).contains(limb)));
        limbs.iter().rev().fold(BigInt::ZERO, |sum, &limb| (sum << LIMB_BITS) + limb)
    }

    proptest! {
        #[test]
        fn signed_limbs_are_the_number_and_back(
            n in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], 8),
            x in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], 8),
            negative: bool,
        ) {
            let mut n = n;
            n[0] |= 1;
            n[7] |= 1 << 63;
            let number = to_biguint(&n);
            let signed = to_signed(&n, 2 * TILE);
            prop_assert_eq!(value(&signed), BigInt::from(number.clone()));
            let constants = Constants::new(&n, 2 * TILE);
            let kn_plus_1 = value(&constants.k) * BigInt::from(number.clone()) + 1;
            prop_assert_eq!(value(&constants.p) << TILE_BITS, kn_plus_1);
            let twice = BigInt::from(number.clone()) * 2;
            let x: BigInt = BigInt::from(to_biguint(&x)) % (&twice + 1);
            let x = if negative { -x } else { x };
            let wide = from_biguint(&x.magnitude().clone(), 9);
            let limbs = to_signed(&wide, 2 * TILE);
            let limbs = limbs.iter().map(|&limb| if x < BigInt::ZERO { -limb } else { limb });
            let mut out = [0; 8];
            let (top, taken) = to_wide(&mut out, limbs, (&signed, &n));
            let found = BigInt::from(to_biguint(&out) + (BigUint::from(top) << 512));
            prop_assert!(top <= 1 && taken <= 1 && found <= twice);
            prop_assert_eq!(found, x + if taken == 1 { BigInt::ZERO } else { twice });
        }
    }
}
