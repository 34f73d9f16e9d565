use std::fmt;

use crypto_bigint::BoxedUint;
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use num_bigint::BigUint;
use num_integer::Integer;
use rand::CryptoRng;
use rayon::prelude::*;
use subtle::Choice;
use zeroize::Zeroizing;

use super::side::Side;
use super::{KeyBits, KeyParameters, KeyType, PublicKey, Randomizer, subgroup};
use crate::Error;
use crate::arith::limbs::{bit_length_vartime, from_biguint, from_le_bytes, mul_into, to_biguint};
use crate::arith::{Backend, Crt, Exponent, MAX_LANES, Residues, Ring};

/// A key pair: the primes p and q, and everything the owner's fast encryption and decryption need.
///
/// All of it is wiped when dropped; nothing of it is printed.
pub struct SecretKey {
    public: PublicKey,
    p: Side,
    q: Side,
    /// `1 / q mod p`.
    q_inverse: Zeroizing<Vec<u64>>,
    /// The way between ciphertexts mod n^2 and mod p^2 and q^2.
    crt: Crt,
    /// Of a subgroup key the primes that divide p - 1 and q - 1 and make up the order of h.
    subgroup: Option<[Limbs; 2]>,
}

impl SecretKey {
    /// A new key pair, of the default type for a mere size. A 2,048-bit one takes some tenths of a second.
    ///
    /// # Errors
    /// [`Error::Key`] when no primes were found, which a sound generator makes impossible in practice.
    pub fn generate(parameters: impl Into<KeyParameters>, rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        let parameters = parameters.into();
        loop {
            let result = match parameters.key_type {
                KeyType::Djn => {
                    let p = random_prime_3_mod_4(parameters.size, rng)?;
                    let q = random_prime_3_mod_4(parameters.size, rng)?;
                    Self::from_primes(&p, &q, None, rng)
                }
                KeyType::Subgroup => {
                    let [(p, p_subgroup), (q, q_subgroup)] =
                        [subgroup::random_prime(parameters, rng)?, subgroup::random_prime(parameters, rng)?];
                    Self::from_primes(&p, &q, Some([&p_subgroup, &q_subgroup]), rng)
                }
            };
            match result {
                // gcd(p - 1, q - 1) was not 2, or p = q: draw again.
                Err(Error::PrimePair { .. }) => {}
                result => return result,
            }
        }
    }

    /// The key pair of two primes in little-endian bytes, with a new random h; with the subgroup primes that divide
    /// p - 1 and q - 1, for a subgroup key.
    ///
    /// # Errors
    /// [`Error::Key`] when p or q is composite, has another size than half a [`KeyBits`](super::KeyBits) or is not
    /// 3 mod 4, or a subgroup prime is not what it should be; [`Error::PrimePair`] when they do not go together.
    pub fn from_primes(
        p: &[u8],
        q: &[u8],
        subgroup_primes: Option<[&[u8]; 2]>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let primes = Primes::check(p, q, subgroup_primes)?;
        let n = product(&primes.p, &primes.q);
        let ring = Ring::new(&n, Backend::detect())?;
        let modulus = to_biguint(&n);
        // x is secret only in that nobody needs it; h = (-x^2)^n, or (-x^(2 beta))^n.
        let x = loop {
            let mut x = vec![0; n.len()];
            x.iter_mut().for_each(|limb| *limb = rng.next_u64());
            let candidate = to_biguint(&x);
            if candidate < modulus && candidate.gcd(&modulus) == BigUint::from(1u8) {
                break x;
            }
        };
        let power = match &primes.subgroup {
            None => {
                let mut square = ring.lift(&x, 1);
                ring.square_assign(&mut square, 1);
                square
            }
            Some(primes_of_order) => {
                let [p, q] = [(&primes.p, &primes_of_order[0]), (&primes.q, &primes_of_order[1])]
                    .map(|(prime, order)| subgroup::cofactor(prime, order));
                let beta = Zeroizing::new(from_biguint(&(p * q * 2u8), n.len()));
                ring.power(&ring.lift(&x, 1), &Exponent::new(beta.to_vec()))
            }
        };
        let mut negative = ring.lift(&vec![0; n.len()], 1);
        ring.sub_assign(&mut negative, &power);
        let h = ring.lower(&ring.power(&negative, &Exponent::new(n)));
        Self::assemble(primes, &h, ring.backend())
    }

    /// The key pair of what [`to_le_bytes`](Self::to_le_bytes) gives.
    ///
    /// # Errors
    /// As [`from_primes`](Self::from_primes), and [`Error::Key`] when h is not an n-th residue mod n^2 of the order
    /// that the key's type asks for.
    pub fn from_le_bytes(bytes: &SecretKeyBytes) -> Result<Self, Error> {
        let SecretKeyBytes { p, q, subgroup_primes, h } = bytes;
        let subgroup_primes =
            subgroup_primes.as_ref().map(|primes| primes.each_ref().map(|prime| prime.as_slice()));
        let primes = Primes::check(p, q, subgroup_primes)?;
        let bits = primes.parameters.size.bits();
        if h.len() != bits / 4 {
            return Err(Error::Key {
                rule: "h must have twice as many bytes as n",
                found: format!("{} bytes for a key of {bits} bits", h.len()),
            });
        }
        Self::assemble(primes, &from_le_bytes(h), Backend::detect())
    }

    /// Returns the key pair with its arithmetic done by another backend than the [fastest](Backend::detect) there is, which
    /// keys are made on. See [`PublicKey::on`]; its tables are made anew.
    ///
    /// # Errors
    /// [`Error::Backend`] when this machine does not have it.
    pub fn on(self, backend: Backend) -> Result<Self, Error> {
        if self.public.backend() == backend {
            return Ok(self);
        }
        let [p, q] = [&self.p, &self.q].map(|side| Zeroizing::new(side.prime().to_vec()));
        let primes = Primes { parameters: self.public.parameters(), p, q, subgroup: self.subgroup };
        Self::assemble(primes, &from_le_bytes(&self.public.h_le_bytes()), backend)
    }

    fn assemble(primes: Primes, h: &[u64], backend: Backend) -> Result<Self, Error> {
        let [p, q] = [&primes.p, &primes.q];
        let (n, key_type) = (to_le_bytes(&product(p, q)), primes.parameters.key_type);
        let public = PublicKey::from_owner(key_type, &n, &to_le_bytes(h), backend)?;
        debug_assert_eq!(public.parameters(), primes.parameters);
        let [p_order, q_order] = [0, 1].map(|side| primes.order(side));
        let [p_ring, q_ring] = [Ring::new(p, backend)?, Ring::new(q, backend)?];
        let (p, q) = (Side::new(p_ring, q, h, p_order), Side::new(q_ring, p, h, q_order));
        if !p.has_order_of_group(h) || !q.has_order_of_group(h) {
            return Err(Error::Key {
                rule: "h must be an n-th residue mod n^2, of the order that the key's type asks for",
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
        let crt = Crt::new(public.ring(), [p.ring(), q.ring()], &public.ring().lift(&wide, 1));
        Ok(Self { public, p, q, q_inverse, crt, subgroup: primes.subgroup })
    }

    /// Returns the public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// What a key file holds.
    pub fn to_le_bytes(&self) -> SecretKeyBytes {
        let bits = self.public.parameters().subgroup_prime();
        let subgroup_prime = |limbs: &Limbs| {
            let mut bytes = to_le_bytes(limbs);
            bytes.truncate(bits / 8);
            bytes
        };
        SecretKeyBytes {
            p: to_le_bytes(self.p.prime()),
            q: to_le_bytes(self.q.prime()),
            subgroup_primes: self.subgroup.as_ref().map(|primes| primes.each_ref().map(subgroup_prime)),
            h: self.public.h_le_bytes(),
        }
    }

    /// The plaintexts of ciphertexts: numbers below n of n's limbs each, one after another.
    ///
    /// By the Chinese remainder theorem; constant-time in the primes and in the plaintexts.
    ///
    /// # Errors
    /// [`Error::Randomness`] when one of them has a random factor that decryption does not remove, which would make its
    /// plaintext a meaningless number: with a subgroup key one outside the key's group. With any other key every unit
    /// decrypts.
    pub(crate) fn decrypt(&self, ciphertexts: &Residues) -> Result<Zeroizing<Vec<u64>>, Error> {
        let (count, limbs) = (ciphertexts.len(), self.public.size().limbs());
        let starts: Vec<usize> = (0..count).step_by(MAX_LANES).collect();
        let parts: Vec<_> = starts
            .into_par_iter()
            .map(|start| {
                let part = ciphertexts.gather(start..count.min(start + MAX_LANES));
                let ((m_p, p_vanished), (m_q, q_vanished)) = rayon::join(
                    || self.p.decrypt(&self.crt.project(0, &part)),
                    || self.q.decrypt(&self.crt.project(1, &part)),
                );
                // m = m_q + q ((m_p - m_q) / q mod p)
                let half = limbs / 2;
                let mut differences = Zeroizing::new(Vec::with_capacity(m_p.len()));
                for (m_p, m_q) in m_p.chunks_exact(half).zip(m_q.chunks_exact(half)) {
                    differences.extend_from_slice(&self.p.sub_mod_prime(m_p, m_q));
                }
                let factors = self.p.mul_mod_prime(&differences, &self.q_inverse);
                let mut plaintexts = Zeroizing::new(vec![0; part.len() * limbs]);
                let halves = factors.chunks_exact(half).zip(m_q.chunks_exact(half));
                for (plaintext, (factor, m_q)) in plaintexts.chunks_exact_mut(limbs).zip(halves) {
                    mul_into(plaintext, factor, self.q.prime());
                    add_with_carry(plaintext, m_q);
                }
                (plaintexts, p_vanished & q_vanished)
            })
            .collect();
        let mut out = Zeroizing::new(Vec::with_capacity(count * limbs));
        let mut vanished = Choice::from(1);
        for (part, part_vanished) in &parts {
            out.extend_from_slice(part);
            vanished &= *part_vanished;
        }
        // One answer for the whole batch, after all of the work.
        if bool::from(vanished) { Ok(out) } else { Err(Error::Randomness) }
    }

    /// Exponents for the powers of h mod p^2 and mod q^2.
    ///
    /// For a subgroup key each is uniform below the order of h there, twice the subgroup prime. Those of one power have
    /// the same parity, which makes them the residues of one exponent mod twice the product of the subgroup primes.
    pub(super) fn exponents(&self, rng: &mut dyn CryptoRng, count: usize) -> OwnerExponents {
        if self.subgroup.is_none() {
            return OwnerExponents { p: self.public.exponents(rng, count), q: None };
        }
        let mut exponents = OwnerExponents { p: vec![], q: Some(vec![]) };
        for _ in 0..count {
            let p = self.p.random_exponent(rng, None);
            let parity = p.limbs()[0] % 2;
            exponents.p.push(p);
            exponents.q.get_or_insert_default().push(self.q.random_exponent(rng, Some(parity)));
        }
        exponents
    }

    /// `h^exponents mod n^2`, from the powers mod p^2 and q^2.
    pub(super) fn powers_of_h(&self, [p, q]: [&[Exponent]; 2]) -> Residues {
        self.crt.combine([&self.p.randomizers(p), &self.q.randomizers(q)])
    }
}

/// The parts of a secret key in little-endian bytes. Wiped when dropped.
#[derive(Clone)]
pub struct SecretKeyBytes {
    /// The prime p.
    pub p: Zeroizing<Vec<u8>>,
    /// The prime q.
    pub q: Zeroizing<Vec<u8>>,
    /// Of a subgroup key the primes that divide p - 1 and q - 1 and make up the order of h.
    pub subgroup_primes: Option<[Zeroizing<Vec<u8>>; 2]>,
    /// h, which is public.
    pub h: Vec<u8>,
}

pub(super) struct OwnerExponents {
    pub(super) p: Vec<Exponent>,
    /// Where they differ from those mod p^2.
    pub(super) q: Option<Vec<Exponent>>,
}

/// Makes `h^rho` by combs mod p^2 and q^2.
impl Randomizer for SecretKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn randomizers(&self, rng: &mut dyn CryptoRng, count: usize) -> Residues {
        let OwnerExponents { p, q } = self.exponents(rng, count);
        let q = q.as_ref().unwrap_or(&p);
        self.public.in_parallel(count, |range| self.powers_of_h([&p[range.clone()], &q[range]]))
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

/// The primes of a key, checked.
struct Primes {
    parameters: KeyParameters,
    p: Limbs,
    q: Limbs,
    /// The primes that divide p - 1 and q - 1 and make up the order of h.
    subgroup: Option<[Limbs; 2]>,
}

impl Primes {
    fn check(p: &[u8], q: &[u8], subgroup_primes: Option<[&[u8]; 2]>) -> Result<Self, Error> {
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
        let size = KeyBits::try_from(bit_length_vartime(&product(&p, &q)))?;
        let Some([p_subgroup, q_subgroup]) = subgroup_primes else {
            return Ok(Self {
                parameters: KeyParameters { size, key_type: KeyType::Djn },
                p,
                q,
                subgroup: None,
            });
        };
        let parameters = KeyParameters { size, key_type: KeyType::Subgroup };
        let subgroup = Some([
            subgroup::check_prime(parameters, p_subgroup, &p)?,
            subgroup::check_prime(parameters, q_subgroup, &q)?,
        ]);
        Ok(Self { parameters, p, q, subgroup })
    }

    /// What the order of h modulo the square of p (side 0) or q divides.
    fn order(&self, side: usize) -> Exponent {
        let bits = self.parameters.decryption_exponent();
        let order = match &self.subgroup {
            None => to_biguint([&self.p, &self.q][side]) - 1u8,
            Some(primes) => to_biguint(&primes[side]) * 2u8,
        };
        Exponent::new(from_biguint(&order, bits.div_ceil(64))).of_bits(bits)
    }
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

fn to_le_bytes(limbs: &[u64]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect())
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
