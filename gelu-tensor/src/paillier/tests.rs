use std::sync::LazyLock;

use num_bigint::{BigUint, RandomBits};
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::Error;
use crate::arith::limbs::{from_biguint, to_biguint};

static KEY: LazyLock<SecretKey> =
    LazyLock::new(|| SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(7)).unwrap());

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
    key.decrypt(ciphertexts).chunks_exact(key.public_key().size().limbs()).map(to_biguint).collect()
}

#[test]
fn both_ways_to_encrypt_round_trip_at_every_size() {
    for size in [KeyBits::Bits1024, KeyBits::Bits2048, KeyBits::Bits3072] {
        let mut rng = ChaCha20Rng::seed_from_u64(size.bits() as u64);
        let key = SecretKey::generate(size, &mut rng).unwrap();
        let values = plaintexts(&key, &mut rng);
        for randomizer in [&key as &dyn Randomizer, key.public_key()] {
            let ciphertexts = encrypt(randomizer, &values, &mut rng);
            assert_eq!(decrypt(&key, &ciphertexts), values);
            let other = encrypt(randomizer, &values, &mut rng);
            let bytes = key.public_key().encode(&ciphertexts);
            assert_ne!(bytes, key.public_key().encode(&other), "randomised");
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
    let (p, _, _) = KEY.to_le_bytes();
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
    assert!(matches!(public.decode(&good[1..]), Err(Error::Count { .. })));
}

#[test]
fn public_keys_from_outside_are_checked() {
    let public = KEY.public_key();
    let (n_bytes, h) = (public.n_le_bytes(), public.h_le_bytes());
    assert_eq!(&PublicKey::from_le_bytes(&n_bytes, &h).unwrap(), public);
    let (n, h_value) = (n(&KEY), BigUint::from_bytes_le(&h));
    let rejects = |n: &BigUint, h: &BigUint, text: &str| {
        let error = PublicKey::from_le_bytes(&n.to_bytes_le(), &h.to_bytes_le()).unwrap_err().to_string();
        assert!(error.contains(text), "{error} should contain {text}");
    };
    rejects(&(&n - 1u8), &h_value, "odd");
    rejects(&(&n >> 1), &h_value, "bits");
    rejects(&BigUint::ZERO, &h_value, "bits");
    let mut multiple = &n / 3u8 * 3u8;
    if !multiple.bit(0) {
        multiple -= 3u8;
    }
    rejects(&multiple, &h_value, "small factor");
    let (p, _, _) = KEY.to_le_bytes();
    rejects(&BigUint::from_bytes_le(&p).pow(2), &h_value, "power");
    rejects(&n, &BigUint::ZERO, "unit");
    rejects(&n, &BigUint::from(1u8), "unit");
    rejects(&n, &n, "unit");
    rejects(&n, &(&n * &n), "below n^2");
}

#[test]
fn secret_keys_from_outside_are_checked() {
    let (p, q, h) = KEY.to_le_bytes();
    let again = SecretKey::from_parts(&p, &q, &h).unwrap();
    assert_eq!(again.public_key(), KEY.public_key());
    let mut rng = ChaCha20Rng::seed_from_u64(0);
    let composite = (BigUint::from_bytes_le(&p) - 4u8).to_bytes_le();
    for error in [
        SecretKey::from_primes(&composite, &q, &mut rng).unwrap_err(),
        SecretKey::from_primes(&p, &p[..32], &mut rng).unwrap_err(),
        SecretKey::from_primes(&p, &[], &mut rng).unwrap_err(),
        SecretKey::from_parts(&p, &q, &h[1..]).unwrap_err(),
        SecretKey::from_parts(&p, &q, &BigUint::from(2u8).to_bytes_le()).unwrap_err(),
        SecretKey::from_parts(&p, &q, &from_two(h.len())).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Key { .. }), "{error}");
    }
    assert!(matches!(SecretKey::from_primes(&p, &p, &mut rng), Err(Error::PrimePair { .. })));
}

/// 2, which is no n-th residue, in the width of h.
fn from_two(width: usize) -> Vec<u8> {
    let mut bytes = vec![0; width];
    bytes[0] = 2;
    bytes
}

#[test]
fn secrets_are_not_printed() {
    let (p, _, _) = KEY.to_le_bytes();
    let p = BigUint::from_bytes_le(&p);
    let text = format!("{:?}", *KEY);
    assert!(!text.contains(&p.to_string()) && !text.contains(&format!("{p:x}")), "{text}");
}
