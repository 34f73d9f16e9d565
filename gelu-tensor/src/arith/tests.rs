//! The engine against num-bigint, with random and extreme values, for every size of modulus.

use num_bigint::{BigUint, RandomBits};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::limbs::{from_biguint, to_biguint};
use super::ring::MODULUS_BITS;
use super::{Backend, Comb, Crt, Exponent, Factor, Residues, Ring};

fn random_modulus(rng: &mut ChaCha20Rng, bits: usize) -> BigUint {
    let mut n: BigUint = rng.sample(RandomBits::new(bits as u64));
    n.set_bit(0, true);
    n.set_bit(bits as u64 - 1, true);
    n
}

/// The smallest, the largest and random moduli of every size.
fn moduli(rng: &mut ChaCha20Rng) -> Vec<BigUint> {
    let one = BigUint::from(1u8);
    MODULUS_BITS
        .iter()
        .flat_map(|&bits| [(&one << (bits - 1)) + &one, (&one << bits) - &one, random_modulus(rng, bits)])
        .collect()
}

/// Each modulus with every backend that this machine has, or that is emulated where it does not.
fn rings(moduli: impl IntoIterator<Item = BigUint>) -> Vec<(BigUint, Ring)> {
    let is_tested = |backend: &Backend| backend.is_available() || backend.emulation().is_some();
    let backends = Backend::ALL.into_iter().filter(is_tested);
    moduli
        .into_iter()
        .flat_map(|n| backends.clone().map(move |backend| (n.clone(), backend)))
        .map(|(n, backend)| {
            let limbs = from_biguint(&n, n.bits().div_ceil(64) as usize);
            let ring = Ring::new(&limbs, backend).unwrap();
            assert_eq!(ring.backend(), backend);
            (n, ring)
        })
        .collect()
}

/// 0, 1, n - 1, n, n + 1, n^2 - n, n^2 - 1 and random values below n^2.
fn values(rng: &mut ChaCha20Rng, n: &BigUint) -> Vec<BigUint> {
    let one = BigUint::from(1u8);
    let square = n * n;
    let mut values =
        vec![BigUint::ZERO, one.clone(), n - &one, n.clone(), n + &one, &square - n, &square - &one];
    for _ in 0..5 {
        let value: BigUint = rng.sample(RandomBits::new(square.bits()));
        values.push(value % &square);
    }
    values
}

fn lift(ring: &Ring, values: &[BigUint]) -> Residues {
    let limbs: Vec<u64> = values.iter().flat_map(|v| from_biguint(v, 2 * ring.limbs())).collect();
    ring.lift(&limbs, values.len())
}

fn lower(ring: &Ring, residues: &Residues) -> Vec<BigUint> {
    ring.lower(residues).chunks_exact(2 * ring.limbs()).map(to_biguint).collect()
}

#[test]
fn every_operation_equals_num_bigint() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (n, ring) in rings(moduli(&mut rng)) {
        let square = &n * &n;
        let x = values(&mut rng, &n);
        let residues = lift(&ring, &x);
        assert_eq!(lower(&ring, &residues), x, "decoding and encoding mod {n:x}^2");
        for shift in 0..x.len() {
            let mut y = x.clone();
            y.rotate_left(shift);
            let other = lift(&ring, &y);
            let check = |operation: fn(&Ring, &mut Residues, &Residues),
                         oracle: fn(&BigUint, &BigUint, &BigUint) -> BigUint| {
                let mut out = residues.clone();
                operation(&ring, &mut out, &other);
                let expected: Vec<_> = x.iter().zip(&y).map(|(x, y)| oracle(x, y, &square)).collect();
                assert_eq!(lower(&ring, &out), expected, "mod {n:x}^2");
            };
            check(Ring::mul_assign, |x, y, m| x * y % m);
            check(Ring::add_assign, |x, y, m| (x + y) % m);
            check(Ring::sub_assign, |x, y, m| (m + x - y) % m);
            check(|ring, x, _| ring.square_assign(x, 1), |x, _, m| x * x % m);
        }
        assert_eq!(lower(&ring, &ring.ones(2)), vec![BigUint::from(1u8); 2]);
    }
}

#[test]
fn one_plus_multiples_of_n() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for (n, ring) in rings(moduli(&mut rng)) {
        let x = values(&mut rng, &n);
        let one = BigUint::from(1u8);
        let mut m: Vec<BigUint> =
            (0..x.len()).map(|_| rng.sample::<BigUint, _>(RandomBits::new(n.bits())) % &n).collect();
        m[0] = BigUint::ZERO;
        m[1] = &n - &one;
        m[6] = &n - &one;
        let limbs: Vec<u64> = m.iter().flat_map(|m| from_biguint(m, ring.limbs())).collect();
        let mut residues = lift(&ring, &x);
        ring.mul_assign_one_plus(&mut residues, &limbs);
        let expected: Vec<_> = x.iter().zip(&m).map(|(x, m)| x * (&one + m * &n) % (&n * &n)).collect();
        assert_eq!(lower(&ring, &residues), expected);
    }
}

#[test]
fn integers_of_four_runs_are_reduced() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    for (n, ring) in rings([512, 1024].map(|bits| random_modulus(&mut rng, bits))) {
        for value in [(BigUint::from(1u8) << (4 * n.bits())) - 1u8, rng.sample(RandomBits::new(4 * n.bits()))]
        {
            let residue = ring.lift(&from_biguint(&value, 4 * ring.limbs()), 1);
            assert_eq!(lower(&ring, &residue)[0], value % (&n * &n));
        }
    }
}

/// Vectors that are not full do what full ones do, and touch nothing beyond.
#[test]
fn batches_of_all_lengths_are_parts_of_longer_ones() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    for (n, ring) in rings(MODULUS_BITS.map(|bits| random_modulus(&mut rng, bits))) {
        let x: Vec<BigUint> = (0..2).flat_map(|_| values(&mut rng, &n)).take(17).collect();
        let y: Vec<BigUint> = x.iter().rev().cloned().collect();
        let m: Vec<u64> = y.iter().flat_map(|y| from_biguint(&(y % &n), ring.limbs())).collect();
        let exponent = Exponent::new(vec![0xFEDC_BA98_7654_3210]);
        let work = |count: usize| {
            let mut out = lift(&ring, &x[..count]);
            let y = lift(&ring, &y[..count]);
            ring.add_assign(&mut out, &y);
            ring.mul_assign(&mut out, &y);
            ring.sub_assign(&mut out, &y);
            ring.square_assign(&mut out, 2);
            ring.mul_assign_one_plus(&mut out, &m[..count * ring.limbs()]);
            lower(&ring, &ring.power(&out, &exponent))
        };
        let all = work(17);
        for count in 0..17 {
            assert_eq!(work(count), all[..count], "{count} residues, {}", ring.backend());
        }
    }
}

/// Factors of every size with their top two bits set, the smallest and the largest that are coprime, and random ones:
/// what is computed mod the squares of both holds mod the square of their product.
#[test]
fn residues_go_to_the_factors_and_back() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let one = BigUint::from(1u8);
    for bits in [512, 1024, 1536, 2048] {
        let least = (BigUint::from(3u8) << (bits - 2)) + &one;
        let most = (&one << bits) - &one;
        let mut random = random_modulus(&mut rng, bits);
        random.set_bit(bits as u64 - 2, true);
        for [p, q] in [[&least, &most], [&most, &least], [&(&most - 2u8), &most], [&random, &least]] {
            let n = p * q;
            let squares = [p, q].map(|factor| factor * factor);
            // 1 mod p^2 and 0 mod q^2: p and q need not be primes, only coprime.
            let Some(inverse) = squares[1].modinv(&squares[0]) else { continue };
            let idempotent = &squares[1] * inverse;
            let x = values(&mut rng, &n);
            let all = [n.clone(), p.clone(), q.clone()].map(|modulus| rings([modulus]));
            for at in 0..all[0].len() {
                let [(_, whole), (_, p_ring), (_, q_ring)] = all.each_ref().map(|rings| &rings[at]);
                let crt = Crt::new(whole, [p_ring, q_ring], &lift(whole, std::slice::from_ref(&idempotent)));
                let residues = lift(whole, &x);
                let parts = [Factor::P, Factor::Q].map(|factor| crt.project(factor, &residues));
                for ((part, ring), square) in parts.iter().zip([p_ring, q_ring]).zip(&squares) {
                    let expected: Vec<_> = x.iter().map(|x| x % square).collect();
                    assert_eq!(lower(ring, part), expected, "{bits} bits, {}", whole.backend());
                }
                let back = crt.combine(parts.each_ref());
                assert_eq!(lower(whole, &back), x, "{bits} bits, {}", whole.backend());
                // Unlike parts, and operations on what came out.
                let rotated = parts[1].gather((0..x.len()).map(|i| (i + 3) % x.len()));
                let mut mixed = crt.combine([&parts[0], &rotated]);
                whole.square_assign(&mut mixed, 1);
                for (i, found) in lower(whole, &mixed).iter().enumerate() {
                    let other = &x[(i + 3) % x.len()];
                    assert_eq!(found % &squares[0], &x[i] * &x[i] % &squares[0]);
                    assert_eq!(found % &squares[1], other * other % &squares[1]);
                }
            }
        }
    }
}

#[test]
fn powers_equal_num_bigint() {
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    for (n, ring) in rings([512, 1024].map(|bits| random_modulus(&mut rng, bits))) {
        let square = &n * &n;
        let x = values(&mut rng, &n);
        let residues = lift(&ring, &x);
        for exponent in [
            BigUint::ZERO,
            BigUint::from(1u8),
            (BigUint::from(1u8) << 192) - 1u8,
            rng.sample(RandomBits::new(192)),
        ] {
            let limbs = from_biguint(&exponent, 3);
            let expected: Vec<_> = x.iter().map(|x| x.modpow(&exponent, &square)).collect();
            assert_eq!(lower(&ring, &ring.power(&residues, &Exponent::new(limbs.clone()))), expected);
            let last = residues.gather([x.len() - 1]);
            let comb = Comb::quick(&ring, &last, 192);
            let exponents = [Exponent::new(limbs.clone()), Exponent::new(limbs)];
            let expected = vec![expected[x.len() - 1].clone(); 2];
            assert_eq!(lower(&ring, &comb.power(&ring, &exponents)), expected);
        }
        // 33 powers are one more than go through a table together.
        let (unit, inverse) = (0..residues.len())
            .rev()
            .find_map(|index| {
                let unit = residues.gather([index]);
                ring.invert_vartime(&unit).map(|inverse| (unit, inverse))
            })
            .unwrap();
        let comb = Comb::wide(&ring, &unit, &inverse, 192);
        let exponents: Vec<BigUint> = (0..33).map(|_| rng.sample(RandomBits::new(192))).collect();
        let base = &lower(&ring, &unit)[0];
        let expected: Vec<_> = exponents.iter().map(|exponent| base.modpow(exponent, &square)).collect();
        let exponents: Vec<_> =
            exponents.iter().map(|exponent| Exponent::new(from_biguint(exponent, 3))).collect();
        for count in [1, 9, 33] {
            assert_eq!(lower(&ring, &comb.power(&ring, &exponents[..count])), expected[..count]);
        }
    }
}

/// Combs have a row for 6 bits of an exponent, which has at most as many bits as the modulus: p's on its owner's side,
/// half of n's elsewhere.
#[test]
fn sums_of_factored_rows_stay_below_the_radix() {
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    for (n, ring) in rings(moduli(&mut rng))
        .into_iter()
        .filter(|(_, ring)| matches!(ring.backend(), Backend::AvxIfma | Backend::Ifma))
    {
        let bits = n.bits() as usize;
        let radix = BigUint::from(1u8) << ((bits + 4).div_ceil(52).next_multiple_of(5) * 52);
        let rows = ring.most_factored_rows();
        assert!(&n * 2u8 * rows <= radix, "{rows} rows of {bits} bits");
        let longest = if bits > 2048 { 2048 } else { bits };
        assert!(longest.div_ceil(super::comb::WINDOW) <= rows, "{rows} rows of {bits} bits");
    }
}

#[test]
fn inverses_and_units() {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    // n = p q with small p: residues that share p with n are easy to make.
    let p = BigUint::from(65_537u32);
    let n = loop {
        let n = &p * rng.sample::<BigUint, _>(RandomBits::new(496));
        if n.bits() == 512 && n.bit(0) {
            break n;
        }
    };
    let square = &n * &n;
    let units: Vec<BigUint> = (0..9)
        .map(|_| {
            loop {
                let value: BigUint = rng.sample::<BigUint, _>(RandomBits::new(1024)) % &square;
                if num_integer::Integer::gcd(&value, &n) == BigUint::from(1u8) {
                    break value;
                }
            }
        })
        .collect();
    for (_, ring) in rings([n]) {
        let mut x = units.clone();
        let inverses = ring.invert_vartime(&lift(&ring, &x)).unwrap();
        for (inverse, x) in lower(&ring, &inverses).iter().zip(&x) {
            assert_eq!(inverse * x % &square, BigUint::from(1u8));
        }
        assert_eq!(ring.find_non_unit_vartime(&lift(&ring, &x)), None);
        x[7] = &p * 12_345u32;
        assert_eq!(ring.find_non_unit_vartime(&lift(&ring, &x)), Some(7));
        assert!(ring.invert_vartime(&lift(&ring, &x)).is_none());
        assert_eq!(ring.find_non_unit_vartime(&lift(&ring, &[BigUint::ZERO])), Some(0));
    }
}

#[test]
fn moduli_of_other_forms_are_refused() {
    assert!(Ring::new(&[1; 5], Backend::Portable).is_err());
    assert!(Ring::new(&[], Backend::Portable).is_err());
    let mut even = vec![u64::MAX; 16];
    even[0] -= 1;
    assert!(Ring::new(&even, Backend::Portable).is_err());
    let mut short = vec![u64::MAX; 16];
    short[15] >>= 1;
    assert!(Ring::new(&short, Backend::Portable).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Limbs of all ones and all zeros are where carries go wrong.
    #[test]
    fn products_of_patterned_limbs(
        n in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], 16),
        x in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], 32),
        y in prop::collection::vec(prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()], 32),
    ) {
        let mut n = n;
        n[0] |= 1;
        n[15] |= 1 << 63;
        let n = to_biguint(&n);
        let square = &n * &n;
        let (x, y) = (to_biguint(&x) % &square, to_biguint(&y) % &square);
        for (_, ring) in rings([n]) {
            let mut product = lift(&ring, std::slice::from_ref(&x));
            ring.mul_assign(&mut product, &lift(&ring, std::slice::from_ref(&y)));
            prop_assert_eq!(&lower(&ring, &product)[0], &(&x * &y % &square));
            let mut residue = lift(&ring, std::slice::from_ref(&x));
            ring.square_assign(&mut residue, 2);
            prop_assert_eq!(&lower(&ring, &residue)[0], &x.modpow(&BigUint::from(4u8), &square));
        }
    }
}
