use std::fmt;

use crypto_bigint::BoxedUint;
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use num_bigint::BigUint;
use num_integer::Integer;
use rand::CryptoRng;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::side::Side;
use super::{KeyBits, PublicKey, Randomizer};
use crate::Error;
use crate::arith::limbs::{bit_length_vartime, from_le_bytes, mul_into, to_biguint};
use crate::arith::{Exponent, Residues, Ring};

/// A key pair: the primes p and q, and everything the owner's fast encryption and decryption need.
///
/// All of it is wiped when dropped; nothing of it is printed.
pub struct SecretKey {
    public: PublicKey,
    p: Side,
    q: Side,
    /// `1 / q mod p`.
    q_inverse: Zeroizing<Vec<u64>>,
    /// The numbers mod n^2 that are 1 mod p^2 and 0 mod q^2, and the other way round, for lifting.
    idempotents: [Residues; 2],
}

impl SecretKey {
    /// A new key pair. A 2,048-bit one takes some tenths of a second.
    ///
    /// # Errors
    /// [`Error::Key`] when no primes were found, which a sound generator makes impossible in practice.
    pub fn generate(size: KeyBits, rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        loop {
            let p = random_prime_3_mod_4(size, rng)?;
            let q = random_prime_3_mod_4(size, rng)?;
            match Self::from_primes(&p, &q, rng) {
                // gcd(p - 1, q - 1) was not 2, or p = q: draw again.
                Err(Error::PrimePair { .. }) => {}
                result => return result,
            }
        }
    }

    /// The key pair of two primes in little-endian bytes, with a new random h.
    ///
    /// # Errors
    /// [`Error::Key`] when p or q is composite, has another size than half a [`KeyBits`] or is not 3 mod 4;
    /// [`Error::PrimePair`] when they do not go together.
    pub fn from_primes(p: &[u8], q: &[u8], rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        let (size, p, q) = check_primes(p, q)?;
        let n = product(&p, &q);
        let ring = Ring::new(&n)?;
        let modulus = to_biguint(&n);
        // x is secret only in that nobody needs it; h = (-x^2)^n.
        let x = loop {
            let mut x = vec![0; n.len()];
            x.iter_mut().for_each(|limb| *limb = rng.next_u64());
            let candidate = to_biguint(&x);
            if candidate < modulus && candidate.gcd(&modulus) == BigUint::from(1u8) {
                break x;
            }
        };
        let mut square = ring.lift(&x, 1);
        ring.square_assign(&mut square, 1);
        let mut negative = ring.lift(&vec![0; n.len()], 1);
        ring.sub_assign(&mut negative, &square);
        let h = ring.lower(&ring.power(&negative, &Exponent::new(n.clone())));
        Self::assemble(size, &p, &q, &h)
    }

    /// The key pair of two primes and the h of its public key, all in little-endian bytes.
    ///
    /// # Errors
    /// As [`from_primes`](Self::from_primes), and [`Error::Key`] when h is not an n-th residue mod n^2.
    pub fn from_parts(p: &[u8], q: &[u8], h: &[u8]) -> Result<Self, Error> {
        let (size, p, q) = check_primes(p, q)?;
        if h.len() != size.bits() / 4 {
            return Err(Error::Key {
                rule: "h must have twice as many bytes as n",
                found: format!("{} bytes for a key of {} bits", h.len(), size.bits()),
            });
        }
        Self::assemble(size, &p, &q, &from_le_bytes(h))
    }

    fn assemble(size: KeyBits, p: &[u64], q: &[u64], h: &[u64]) -> Result<Self, Error> {
        let bytes = |limbs: &[u64]| -> Vec<u8> { limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect() };
        let public = PublicKey::from_owner(&bytes(&product(p, q)), &bytes(h))?;
        debug_assert_eq!(public.size(), size);
        let (p, q) = (Side::new(p, q, h)?, Side::new(q, p, h)?);
        if !p.has_order_of_group(h) || !q.has_order_of_group(h) {
            return Err(Error::Key {
                rule: "h must be an n-th residue mod n^2",
                found: "one that is not".into(),
            });
        }
        let q_inverse = p.inverse_mod_prime(q.prime());
        // q^2 / q^2 mod p^2: the inverse of q mod p, lifted to p^2 and squared, times q^2.
        let ring = p.ring();
        let mut inverse = ring.refine_inverse(&ring.lift(q.prime(), 1), &ring.lift(&q_inverse, 1));
        ring.square_assign(&mut inverse, 1);
        let mut wide = Zeroizing::new(vec![0; 4 * q.prime().len()]);
        mul_into(&mut wide, &ring.lower(&inverse), &product(q.prime(), q.prime()));
        let ring = public.ring();
        let one_mod_p = ring.lift(&wide, 1);
        let mut one_mod_q = ring.ones(1);
        ring.sub_assign(&mut one_mod_q, &one_mod_p);
        let idempotents = [one_mod_p, one_mod_q].map(|x| ring.lifting_factor(&x));
        Ok(Self { public, p, q, q_inverse, idempotents })
    }

    /// The primes p and q and h, in little-endian bytes: what a key file holds.
    pub fn to_le_bytes(&self) -> (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>, Vec<u8>) {
        let bytes = |limbs: &[u64]| {
            Zeroizing::new(limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect::<Vec<u8>>())
        };
        (bytes(self.p.prime()), bytes(self.q.prime()), self.public.h_le_bytes())
    }

    /// The plaintexts of ciphertexts: numbers below n of n's limbs each, one after another.
    ///
    /// By the Chinese remainder theorem; constant-time in the primes and in the plaintexts.
    pub fn decrypt(&self, ciphertexts: &Residues) -> Zeroizing<Vec<u64>> {
        let width = 2 * self.public.size().limbs();
        let wide = self.public.ring().lower(ciphertexts);
        let parts: Vec<_> = wide
            .par_chunks(8 * width)
            .map(|wide| {
                let count = wide.len() / width;
                let (m_p, m_q) = rayon::join(|| self.p.decrypt(wide, count), || self.q.decrypt(wide, count));
                let mut plaintexts = Zeroizing::new(Vec::with_capacity(wide.len() / 2));
                let half = width / 4;
                for (m_p, m_q) in m_p.chunks_exact(half).zip(m_q.chunks_exact(half)) {
                    // m = m_q + q ((m_p - m_q) / q mod p)
                    let difference = self.p.sub_mod_prime(m_p, m_q);
                    let factor = self.p.mul_mod_prime(&difference, &self.q_inverse);
                    let mut plaintext = Zeroizing::new(vec![0; 2 * half]);
                    mul_into(&mut plaintext, &factor, self.q.prime());
                    add_with_carry(&mut plaintext, m_q);
                    plaintexts.extend_from_slice(&plaintext);
                }
                plaintexts
            })
            .collect();
        let mut out = Zeroizing::new(Vec::with_capacity(wide.len() / 2));
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out
    }

    /// `h^exponents mod n^2`, from the powers mod p^2 and q^2.
    fn powers_of_h(&self, exponents: &[Exponent]) -> Residues {
        let ring = self.public.ring();
        let [c_p, c_q] = [(&self.p, 0), (&self.q, 1)].map(|(side, index)| {
            let powers = side.ring().lower(&side.randomizers(exponents));
            ring.lift_times(&powers, &self.idempotents[index])
        });
        let mut powers = c_p;
        ring.add_assign(&mut powers, &c_q);
        powers
    }
}

/// Makes `h^rho` by combs mod p^2 and q^2.
impl Randomizer for SecretKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn randomizers(&self, rng: &mut dyn CryptoRng, count: usize) -> Residues {
        let exponents = self.public.exponents(rng, count);
        self.public.in_parallel(count, |range| self.powers_of_h(&exponents[range]))
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public)
    }
}

fn random_prime_3_mod_4(size: KeyBits, rng: &mut dyn CryptoRng) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |_| Error::Key { rule: "primes must exist", found: "no prime".into() };
    let bits = (size.bits() / 2) as u32;
    let sieve =
        SmallFactorsSieveFactory::<BoxedUint>::new(Flavor::Any, bits, SetBits::TwoMsb).map_err(failed)?;
    let prime = sieve_and_find(rng, sieve, |_, candidate| {
        candidate.as_words()[0] % 4 == 3 && is_prime(Flavor::Any, candidate)
    })
    .map_err(failed)?;
    match prime {
        Some(prime) => Ok(Zeroizing::new(prime.to_le_bytes().to_vec())),
        None => Err(Error::Key { rule: "primes must exist", found: "no prime".into() }),
    }
}

type Limbs = Zeroizing<Vec<u64>>;

fn check_primes(p: &[u8], q: &[u8]) -> Result<(KeyBits, Limbs, Limbs), Error> {
    let p = check_prime(p, "p must be a prime that is 3 mod 4")?;
    let q = check_prime(q, "q must be a prime that is 3 mod 4")?;
    let pair_error = |rule| Error::PrimePair { rule };
    if p.len() != q.len() {
        return Err(pair_error("p and q must have the same number of bits"));
    }
    if p == q {
        return Err(pair_error("p and q must differ"));
    }
    let less_one = |prime: &[u64]| to_biguint(prime) - 1u8;
    if less_one(&p).gcd(&less_one(&q)) != BigUint::from(2u8) {
        return Err(pair_error("gcd(p - 1, q - 1) must be 2"));
    }
    let bits = bit_length_vartime(&product(&p, &q));
    Ok((KeyBits::try_from(bits)?, p, q))
}

fn check_prime(bytes: &[u8], rule: &'static str) -> Result<Limbs, Error> {
    let limbs = Zeroizing::new(from_le_bytes(bytes));
    let sizes = KeyBits::ALL.map(|size| size.limbs() / 2);
    if !sizes.contains(&limbs.len()) || limbs[limbs.len() - 1] >> 63 == 0 {
        return Err(Error::Key { rule, found: format!("a number in {} bytes", bytes.len()) });
    }
    if limbs[0] % 4 != 3 || !is_prime(Flavor::Any, &BoxedUint::from_words(limbs.iter().copied())) {
        return Err(Error::Key { rule, found: "a number that is not".into() });
    }
    Ok(limbs)
}

fn product(x: &[u64], y: &[u64]) -> Vec<u64> {
    let mut out = vec![0; x.len() + y.len()];
    mul_into(&mut out, x, y);
    out
}

/// `x += y`, where y has fewer limbs and the sum fits.
fn add_with_carry(x: &mut [u64], y: &[u64]) {
    let mut carry = false;
    for (i, limb) in x.iter_mut().enumerate() {
        (*limb, carry) = limb.carrying_add(y.get(i).copied().unwrap_or(0), carry);
    }
}
