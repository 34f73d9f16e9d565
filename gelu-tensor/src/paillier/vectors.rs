//! Known answers made by python-paillier (see `make_vectors.py` beside them).

use num_bigint::BigUint;
use rand::{SeedableRng, rngs::ChaCha20Rng};
use serde::Deserialize;

use super::{PublicKey, SecretKey};
use crate::arith::limbs::{from_biguint, to_biguint};
use crate::arith::{Exponent, Residues};

const VECTORS: &str = include_str!("../../../tests/vectors/paillier/vectors.json");

#[derive(Deserialize)]
struct Vectors {
    bits: usize,
    n: String,
    p: String,
    q: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    m: String,
    r: String,
    c: String,
    sum: String,
    scalar: String,
    multiple: String,
}

fn number(hex: &str) -> BigUint {
    BigUint::parse_bytes(hex.as_bytes(), 16).unwrap()
}

/// Each key of the vectors, with its h drawn anew: phe has none, and decryption does not depend on it.
fn keys() -> Vec<(Vectors, SecretKey)> {
    let vectors: Vec<Vectors> = serde_json::from_str(VECTORS).unwrap();
    assert_eq!(vectors.iter().map(|vectors| vectors.bits).collect::<Vec<_>>(), [1024, 2048]);
    let key = |vectors: &Vectors| {
        let [p, q] = [&vectors.p, &vectors.q].map(|prime| number(prime).to_bytes_le());
        SecretKey::from_primes(&p, &q, None, &mut ChaCha20Rng::seed_from_u64(1))
            .and_then(|key| key.on(crate::testing::backend()))
            .unwrap()
    };
    let with_key = |vectors| {
        let key = key(&vectors);
        (vectors, key)
    };
    vectors.into_iter().map(with_key).collect()
}

/// A column of the cases as ciphertexts from outside.
fn ciphertexts(key: &PublicKey, vectors: &Vectors, column: fn(&Case) -> &String) -> Residues {
    let bytes = vectors.cases.iter().flat_map(|case| {
        let mut bytes = number(column(case)).to_bytes_le();
        bytes.resize(key.ciphertext_bytes(), 0);
        bytes
    });
    key.decode(&bytes.collect::<Vec<u8>>()).unwrap()
}

fn column(vectors: &Vectors, column: fn(&Case) -> &String) -> Vec<BigUint> {
    vectors.cases.iter().map(|case| number(column(case))).collect()
}

fn decrypt(key: &SecretKey, ciphertexts: &Residues) -> Vec<BigUint> {
    key.decrypt(ciphertexts).unwrap().chunks_exact(key.public_key().size().limbs()).map(to_biguint).collect()
}

#[test]
fn the_secret_key_decrypts_them() {
    for (vectors, key) in keys() {
        let public = key.public_key();
        let n = number(&vectors.n);
        assert_eq!(
            (public.size().bits(), BigUint::from_bytes_le(&public.n_le_bytes())),
            (vectors.bits, n.clone())
        );
        let m = column(&vectors, |case| &case.m);
        assert_eq!(decrypt(&key, &ciphertexts(public, &vectors, |case| &case.c)), m);
        let sums: Vec<_> = (0..m.len()).map(|i| (&m[i] + &m[(i + 1) % m.len()]) % &n).collect();
        assert_eq!(decrypt(&key, &ciphertexts(public, &vectors, |case| &case.sum)), sums);
        let scalars = column(&vectors, |case| &case.scalar);
        let multiples: Vec<_> = m.iter().zip(&scalars).map(|(m, scalar)| m * scalar % &n).collect();
        assert_eq!(decrypt(&key, &ciphertexts(public, &vectors, |case| &case.multiple)), multiples);
    }
}

#[test]
fn the_ring_encrypts_to_the_same_ciphertexts() {
    for (vectors, key) in keys() {
        let ring = key.public_key().ring();
        let limbs = key.public_key().size().limbs();
        let flat =
            |numbers: Vec<BigUint>| numbers.iter().flat_map(|x| from_biguint(x, limbs)).collect::<Vec<_>>();
        let factors = ring.lift(&flat(column(&vectors, |case| &case.r)), vectors.cases.len());
        let mut found = ring.power(&factors, &Exponent::new(from_biguint(&number(&vectors.n), limbs)));
        ring.mul_assign_one_plus(&mut found, &flat(column(&vectors, |case| &case.m)));
        let expected = ciphertexts(key.public_key(), &vectors, |case| &case.c);
        assert_eq!(key.public_key().encode(&found), key.public_key().encode(&expected));
    }
}

#[test]
fn the_ring_adds_and_multiplies_to_the_same_ciphertexts() {
    for (vectors, key) in keys() {
        let (public, ring) = (key.public_key(), key.public_key().ring());
        let (c, count) = (ciphertexts(public, &vectors, |case| &case.c), vectors.cases.len());
        let mut sums = c.clone();
        ring.mul_assign(&mut sums, &c.gather((1..=count).map(|next| next % count)));
        let expected = ciphertexts(public, &vectors, |case| &case.sum);
        assert_eq!(public.encode(&sums), public.encode(&expected));

        let n = number(&vectors.n);
        let expected = public.encode(&ciphertexts(public, &vectors, |case| &case.multiple));
        for (i, case) in vectors.cases.iter().enumerate() {
            // Scalars in the upper third are negative numbers to phe: it inverts and raises to n - scalar.
            let scalar = number(&case.scalar);
            let one = c.gather([i]);
            let negative = &n - &n / 3u8 <= scalar;
            let (base, scalar) =
                if negative { (ring.invert_vartime(&one).unwrap(), &n - scalar) } else { (one, scalar) };
            let power = ring.power(&base, &Exponent::new(from_biguint(&scalar, public.size().limbs())));
            let width = public.ciphertext_bytes();
            assert_eq!(public.encode(&power), &expected[i * width..][..width], "case {i}");
        }
    }
}
