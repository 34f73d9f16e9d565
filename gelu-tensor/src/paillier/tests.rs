//! Keys of both types, encryption and decryption, against num-bigint; keys and ciphertexts from outside.

use std::sync::LazyLock;

use num_bigint::{BigUint, RandomBits};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::Error;
use crate::arith::limbs::{from_biguint, to_biguint};

static KEY: LazyLock<SecretKey> = LazyLock::new(|| {
    crate::testing::secret_key(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(7)).unwrap()
});

static SUBGROUP_KEY: LazyLock<SecretKey> = LazyLock::new(|| {
    let parameters = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };
    crate::testing::secret_key(parameters, &mut ChaCha20Rng::seed_from_u64(8)).unwrap()
});

fn n(key: &SecretKey) -> BigUint {
    BigUint::from_bytes_le(&key.public_key().n_le_bytes())
}

fn plaintexts(key: &SecretKey, rng: &mut ChaCha20Rng) -> Vec<BigUint> {
    let n = n(key);
    let mut values = vec![BigUint::ZERO, BigUint::from(1u8), &n - 1u8, &n >> 1];
    values.extend((0..7).map(|_| rng.sample::<BigUint, _>(RandomBits::new(n.bits())) % &n));
    values
}

fn encrypt(randomizer: &dyn Randomizer, values: &[BigUint], rng: &mut ChaCha20Rng) -> Residues {
    let key = randomizer.public_key();
    let limbs: Vec<u64> = values.iter().flat_map(|v| from_biguint(v, key.size().limbs())).collect();
    let mut ciphertexts = randomizer.randomizers(rng, values.len());
    key.ring().mul_assign_one_plus(&mut ciphertexts, &limbs);
    ciphertexts
}

fn decrypt(key: &SecretKey, ciphertexts: &Residues) -> Vec<BigUint> {
    key.decrypt(ciphertexts).unwrap().chunks_exact(key.public_key().size().limbs()).map(to_biguint).collect()
}

#[test]
fn both_ways_to_encrypt_round_trip_at_every_size() {
    let sizes = KeyBits::ALL;
    for (size, key_type) in sizes.into_iter().flat_map(|size| KeyType::ALL.map(|key_type| (size, key_type))) {
        let mut rng = ChaCha20Rng::seed_from_u64(size.bits() as u64);
        let key = crate::testing::secret_key(KeyParameters { size, key_type }, &mut rng).unwrap();
        let values = plaintexts(&key, &mut rng);
        for randomizer in [&key as &dyn Randomizer, key.public_key()] {
            let ciphertexts = encrypt(randomizer, &values, &mut rng);
            assert_eq!(decrypt(&key, &ciphertexts), values);
            let other = encrypt(randomizer, &values, &mut rng);
            let bytes = key.public_key().encode(&ciphertexts);
            assert_ne!(bytes, key.public_key().encode(&other), "randomized");
            assert_eq!(decrypt(&key, &key.public_key().decode(&bytes).unwrap()), values);
        }
    }
}

/// The owner's short cut gives the very same powers of h as the public comb.
#[test]
fn owner_and_public_randomizers_are_equal() {
    let public = KEY.public_key();
    let by_owner = KEY.randomizers(&mut ChaCha20Rng::seed_from_u64(1), 9);
    let by_anyone = public.randomizers(&mut ChaCha20Rng::seed_from_u64(1), 9);
    assert_eq!(public.encode(&by_owner), public.encode(&by_anyone));
}

#[test]
fn sums_and_multiples_of_plaintexts() {
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let values = plaintexts(&KEY, &mut rng);
    let ring = KEY.public_key().ring();
    let mut sums = encrypt(&*KEY, &values, &mut rng);
    ring.square_assign(&mut sums, 1);
    ring.mul_assign(&mut sums, &encrypt(&*KEY, &values, &mut rng));
    let expected: Vec<_> = values.iter().map(|v| v * 3u8 % n(&KEY)).collect();
    assert_eq!(decrypt(&KEY, &sums), expected);
    let inverse = ring.invert_vartime(&sums).unwrap();
    let expected: Vec<_> = expected.iter().map(|v| (n(&KEY) - v) % n(&KEY)).collect();
    assert_eq!(decrypt(&KEY, &inverse), expected);
}

#[test]
fn ciphertexts_from_outside_are_checked() {
    let public = KEY.public_key();
    let width = public.ciphertext_bytes();
    let n = n(&KEY);
    let encode = |value: BigUint| {
        let mut bytes = value.to_bytes_le();
        bytes.resize(width, 0);
        bytes
    };
    let good = encode(BigUint::from(2u8));
    let p = KEY.to_le_bytes().p;
    for (bad, rule) in [
        (BigUint::ZERO, "must be a unit mod n^2, so not zero"),
        (n.clone(), "must be a unit mod n^2, so not zero"),
        (BigUint::from_bytes_le(&p) * 3u8, "must be a unit mod n^2, so not zero"),
        (&n * &n, "must be below n^2"),
        ((BigUint::from(1u8) << (8 * width)) - 1u8, "must be below n^2"),
    ] {
        let bytes = [good.clone(), encode(bad)].concat();
        assert_eq!(public.decode(&bytes).unwrap_err(), Error::Ciphertext { index: 1, rule });
    }
    assert!(public.decode(&encode(&n * &n - 1u8)).is_ok());
    assert!(matches!(public.decode(&good[1..]), Err(Error::Multiple { .. })));
}

#[test]
fn public_keys_from_outside_are_checked() {
    let public = KEY.public_key();
    let (n_bytes, h) = (public.n_le_bytes(), public.h_le_bytes());
    assert_eq!(&PublicKey::from_le_bytes(KeyType::Djn, &n_bytes, &h).unwrap(), public);
    let (n, h_value) = (n(&KEY), BigUint::from_bytes_le(&h));
    let rejects = |n: &BigUint, h: &BigUint, text: &str| {
        let error = PublicKey::from_le_bytes(KeyType::Djn, &n.to_bytes_le(), &h.to_bytes_le())
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{error} should contain {text}");
    };
    rejects(&(&n - 1u8), &h_value, "odd");
    rejects(&(&n >> 1), &h_value, "bits");
    rejects(&BigUint::ZERO, &h_value, "bits");
    for factor in [3u32, 5, 7, 11, 499, 983, 991, 997] {
        let multiple = &n / factor * factor;
        let odd = if multiple.bit(0) { multiple } else { multiple - factor };
        rejects(&odd, &h_value, "small factor");
    }
    let p = KEY.to_le_bytes().p;
    rejects(&BigUint::from_bytes_le(&p).pow(2), &h_value, "power of exponent 2");
    for exponent in [3, 5, 7, 13, 31, 89] {
        // The root of a number of 1,024 bits, without a small factor.
        let mut root: BigUint = BigUint::from(3u8) << 1022;
        root = root.nth_root(exponent) | BigUint::from(1u8);
        while (3u32..1000).step_by(2).any(|factor| &root % factor == BigUint::ZERO) {
            root -= 2u8;
        }
        rejects(&root.pow(exponent), &h_value, &format!("power of exponent {exponent}"));
    }
    rejects(&n, &BigUint::ZERO, "unit");
    rejects(&n, &BigUint::from(1u8), "unit");
    rejects(&n, &n, "unit");
    rejects(&n, &(&n * &n), "below n^2");
}

#[test]
fn secret_keys_from_outside_are_checked() {
    let good = KEY.to_le_bytes();
    let again = SecretKey::from_le_bytes(&good).unwrap();
    assert_eq!(again.public_key(), KEY.public_key());
    let mut rng = ChaCha20Rng::seed_from_u64(0);
    let (p, q, h) = (&good.p, &good.q, &good.h);
    let composite = (BigUint::from_bytes_le(p) - 4u8).to_bytes_le();
    let with_h =
        |h: &[u8]| SecretKey::from_le_bytes(&SecretKeyBytes { h: h.to_vec(), ..good.clone() }).unwrap_err();
    for error in [
        SecretKey::from_primes(&composite, q, None, &mut rng).unwrap_err(),
        SecretKey::from_primes(p, &p[..32], None, &mut rng).unwrap_err(),
        SecretKey::from_primes(p, &[], None, &mut rng).unwrap_err(),
        with_h(&h[1..]),
        with_h(&BigUint::from(2u8).to_bytes_le()),
        with_h(&from_two(h.len())),
    ] {
        assert!(matches!(error, Error::Key { .. }), "{error}");
    }
    assert!(matches!(SecretKey::from_primes(p, p, None, &mut rng), Err(Error::PrimePair { .. })));
}

#[test]
fn subgroup_keys_from_outside_are_checked() {
    let good = SUBGROUP_KEY.to_le_bytes();
    let again = SecretKey::from_le_bytes(&good).unwrap();
    assert_eq!(again.public_key(), SUBGROUP_KEY.public_key());
    let [p_order, q_order] = good.subgroup_primes.clone().unwrap();
    let number = |bytes: &[u8]| BigUint::from_bytes_le(bytes);
    assert_eq!((number(&good.p) - 1u8) % (number(&p_order) * 2u8), BigUint::ZERO);
    let changed = |primes: [&[u8]; 2], h: &[u8]| {
        let subgroup_primes = Some(primes.map(|prime| prime.to_vec().into()));
        let bytes = SecretKeyBytes { subgroup_primes, h: h.to_vec(), ..good.clone() };
        SecretKey::from_le_bytes(&bytes).unwrap_err().to_string()
    };
    let rule = "must have the size for the key and divide p - 1 and q - 1 once";
    // Of the other prime, too short, with its top bit clear, composite.
    let composite = (number(&p_order) + 2u8).to_bytes_le();
    let mut small = p_order.to_vec();
    small[19] = 1;
    for bad in [&q_order[..], &p_order[1..], &[], &composite, &small] {
        assert!(changed([bad, &q_order], &good.h).contains(rule));
    }
    assert!(changed([&p_order, &p_order], &good.h).contains(rule));
    // An h of a larger order, that of the same primes' other key type, and one of order 2.
    let larger = SecretKey::from_primes(&good.p, &good.q, None, &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    let n = n(&SUBGROUP_KEY);
    let minus_one = (&n * &n - 1u8).to_bytes_le();
    for h in [larger.to_le_bytes().h, minus_one] {
        assert!(changed([&p_order, &q_order], &h).contains("of the order that the key's type asks for"));
    }
    assert_ne!(larger.public_key().fingerprint(), SUBGROUP_KEY.public_key().fingerprint());
}

/// h generates a group of twice as many elements as the product of the subgroup primes, and no part of it.
#[test]
fn the_order_of_a_subgroup_keys_h() {
    let SecretKeyBytes { p, q, subgroup_primes, h } = SUBGROUP_KEY.to_le_bytes();
    let [p_order, q_order] = subgroup_primes.unwrap().map(|prime| BigUint::from_bytes_le(&prime));
    let (n, h) = (n(&SUBGROUP_KEY), BigUint::from_bytes_le(&h));
    let power = |exponent: &BigUint| h.modpow(exponent, &(&n * &n));
    let one = BigUint::from(1u8);
    assert_eq!(power(&(&p_order * &q_order * 2u8)), one);
    for part in [&p_order * &q_order, &p_order * 2u8, &q_order * 2u8] {
        assert_ne!(power(&part), one);
    }
    // What the owner makes without the public exponent lies in it too.
    let powers = SUBGROUP_KEY.randomizers(&mut ChaCha20Rng::seed_from_u64(2), 9);
    let encoded = SUBGROUP_KEY.public_key().encode(&powers);
    for c in encoded.chunks(SUBGROUP_KEY.public_key().ciphertext_bytes()).map(BigUint::from_bytes_le) {
        let root = c.modpow(&(&p_order * &q_order), &(&n * &n));
        assert!(root == one || root == power(&(&p_order * &q_order)));
    }
    assert!(BigUint::from_bytes_le(&p) * BigUint::from_bytes_le(&q) == n);
}

/// Ciphertexts from `numbers`, as if from outside.
fn from_numbers(key: &PublicKey, numbers: &[BigUint]) -> Residues {
    let encode = |number: &BigUint| {
        let mut bytes = number.to_bytes_le();
        bytes.resize(key.ciphertext_bytes(), 0);
        bytes
    };
    key.decode(&numbers.iter().flat_map(encode).collect::<Vec<u8>>()).unwrap()
}

fn to_numbers(key: &PublicKey, ciphertexts: &Residues) -> Vec<BigUint> {
    key.encode(ciphertexts).chunks(key.ciphertext_bytes()).map(BigUint::from_bytes_le).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// A random factor outside the group, of any ciphertext of a batch that spans several vectors: decryption under a
    /// subgroup key refuses the batch, that under the other type removes it.
    #[test]
    fn random_factors_outside_the_group(seed in any::<u64>(), at in 0usize..19) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        for key in [&*KEY, &*SUBGROUP_KEY] {
            let (n, public) = (n(key), key.public_key());
            let values: Vec<BigUint> =
                (0..19).map(|_| rng.sample::<BigUint, _>(RandomBits::new(n.bits())) % &n).collect();
            let mut numbers = to_numbers(public, &encrypt(public, &values, &mut rng));
            prop_assert_eq!(decrypt(key, &from_numbers(public, &numbers)), values.clone());
            let r = rng.sample::<BigUint, _>(RandomBits::new(n.bits())) % &n;
            let square = &n * &n;
            numbers[at] = &numbers[at] * r.modpow(&n, &square) % &square;
            let outside = from_numbers(public, &numbers);
            match public.parameters().key_type {
                KeyType::Djn => prop_assert_eq!(decrypt(key, &outside), values),
                KeyType::Subgroup => prop_assert_eq!(key.decrypt(&outside), Err(Error::Randomness)),
            }
        }
    }
}

/// A factor outside the group modulo one prime alone is refused; so is one whose order divides a cofactor. The roots of
/// 1, of which h generates two, vanish all four.
#[test]
fn decryption_refuses_exactly_what_it_cannot_remove() {
    let (key, rng) = (&*SUBGROUP_KEY, &mut ChaCha20Rng::seed_from_u64(4));
    let public = key.public_key();
    let (n, bytes) = (n(key), key.to_le_bytes());
    let square = &n * &n;
    let [p, q] = [&bytes.p, &bytes.q].map(|prime| BigUint::from_bytes_le(prime));
    let [p_order, q_order] = bytes.subgroup_primes.unwrap().map(|prime| BigUint::from_bytes_le(&prime));
    let one = BigUint::from(1u8);
    // 1 mod the square of one prime and `value` mod that of the other.
    let one_and = |prime: &BigUint, other: &BigUint, value: &BigUint| {
        let [modulus, one_there] = [prime * prime, other * other];
        let inverse = one_there.modinv(&modulus).unwrap();
        (&one + ((value + &modulus - &one) % &modulus) * inverse % &modulus * one_there) % &square
    };
    let values = plaintexts(key, rng);
    let numbers = to_numbers(public, &encrypt(key, &values, rng));
    let times = |factor: &BigUint| {
        let mut numbers = numbers.clone();
        numbers[3] = &numbers[3] * factor % &square;
        key.decrypt(&from_numbers(public, &numbers))
    };
    let minus_one = &square - 1u8;
    let half_roots = [one_and(&p, &q, &minus_one), one_and(&q, &p, &minus_one)];
    for root in [one.clone(), minus_one].iter().chain(&half_roots) {
        assert_eq!(root * root % &square, one);
        let plaintexts = times(root).unwrap();
        assert_eq!(plaintexts.chunks_exact(16).map(to_biguint).collect::<Vec<_>>(), values);
    }
    for (prime, other, order) in [(&p, &q, &p_order), (&q, &p, &q_order)] {
        let residue = BigUint::from(3u8).modpow(&n, &square);
        let outside = one_and(prime, other, &residue);
        assert_eq!(times(&outside), Err(Error::Randomness));
        assert_eq!(times(&outside.modpow(&(order * 2u8), &square)), Err(Error::Randomness));
        assert!(times(&outside.modpow(&((prime - 1u8) / order), &square)).is_ok());
    }
}

/// The owner's two exponents are the residues of one, and what comes of them is the power with that one.
#[test]
fn powers_by_the_owner_of_a_subgroup_key_equal_num_bigint() {
    let key = &*SUBGROUP_KEY;
    let exponents = key.exponents(&mut ChaCha20Rng::seed_from_u64(6), 9);
    let (p, q) = (&exponents.p, exponents.q.as_ref().unwrap());
    let found = to_numbers(key.public_key(), &key.powers_of_h([p, q]));
    let SecretKeyBytes { subgroup_primes, h, .. } = key.to_le_bytes();
    let [p_order, q_order] = subgroup_primes.unwrap().map(|prime| BigUint::from_bytes_le(&prime));
    let (n, h) = (n(key), BigUint::from_bytes_le(&h));
    let inverse = p_order.modinv(&q_order).unwrap();
    for ((p, q), found) in p.iter().zip(q).zip(found) {
        let [p, q] = [p, q].map(|exponent| to_biguint(exponent.limbs()));
        assert!(p < &p_order * 2u8 && q < &q_order * 2u8);
        // A multiple of the order is added, so that the difference is no negative number; it is even.
        let half = (&q + &q_order * 8u8 - &p) / 2u8 * &inverse % &q_order;
        let combined = &p + &p_order * 2u8 * half;
        assert_eq!(&combined % (&q_order * 2u8), q);
        assert_eq!(found, h.modpow(&combined, &(&n * &n)));
    }
}

/// 2, which is no n-th residue, in the width of h.
fn from_two(width: usize) -> Vec<u8> {
    let mut bytes = vec![0; width];
    bytes[0] = 2;
    bytes
}

#[test]
fn secrets_are_not_printed() {
    let p = KEY.to_le_bytes().p;
    let p = BigUint::from_bytes_le(&p);
    let text = format!("{:?}", *KEY);
    assert!(!text.contains(&p.to_string()) && !text.contains(&format!("{p:x}")), "{text}");
}
