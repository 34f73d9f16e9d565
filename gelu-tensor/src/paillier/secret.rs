//! Secret keys: what the primes make faster or possible.

use std::fmt;

use num_bigint::BigUint;
use num_integer::Integer;
use rand::CryptoRng;
use rayon::prelude::*;
use subtle::Choice;
use zeroize::Zeroizing;

use super::primes::{PerPrime, Prime};
use super::side::Side;
use super::{KeyParameters, KeyType, PublicKey, Randomizer};
use crate::Error;
use crate::arith::limbs::{add_shorter, from_biguint, from_le_bytes, mul_into, product, to_biguint};
use crate::arith::{Backend, Crt, Exponent, Factor, MAX_LANES, Residues, Ring};

/// A key pair: the primes p and q, and everything the owner's fast encryption and decryption need.
///
/// All of it is wiped when dropped; nothing of it is printed.
///
/// ```
/// use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
///
/// let parameters = KeyParameters { size: KeyBits::Bits1024, key_type: KeyType::Subgroup };
/// let key = SecretKey::generate(parameters, &mut rand::rng())?; // 1,024 bits: for tests only
/// let again = SecretKey::from_le_bytes(&key.to_le_bytes())?;
/// assert_eq!(again.public_key(), key.public_key());
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
pub struct SecretKey {
    public: PublicKey,
    primes: PerPrime<Prime>,
    p: Side,
    q: Side,
    /// `1 / q mod p`.
    q_inverse: Zeroizing<Vec<u64>>,
    /// The way between ciphertexts mod n^2 and mod p^2 and q^2.
    crt: Crt,
}

impl SecretKey {
    /// Returns a new key pair, of the default type for a mere size. A 2,048-bit one takes some tenths of a second.
    ///
    /// # Errors
    /// [`Error::Key`] when what was drawn makes no key, which no sound generator leads to.
    pub fn generate(parameters: impl Into<KeyParameters>, rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        let parameters = parameters.into();
        loop {
            let [p, q] = [Prime::random(parameters, rng), Prime::random(parameters, rng)];
            let primes = PerPrime { p, q };
            match primes.check_pair() {
                // gcd(p - 1, q - 1) was not 2, or p = q: draw again.
                Err(Error::PrimePair { .. }) => {}
                checked => return Self::with_new_h(primes, checked?, rng),
            }
        }
    }

    /// Returns the key pair of two primes in little-endian bytes, with a new random h; with the subgroup primes that divide
    /// p - 1 and q - 1, for a subgroup key.
    ///
    /// # Errors
    /// [`Error::Key`] when p or q is composite, has another size than half a [`KeyBits`](super::KeyBits) or is not
    /// 3 mod 4, or a subgroup prime is not what it should be; [`Error::PrimePair`] when they do not go together.
    #[cfg(test)]
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn from_primes(
        p: &[u8],
        q: &[u8],
        subgroup_primes: Option<[&[u8]; 2]>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let (primes, parameters) = check_primes(p, q, subgroup_primes)?;
        Self::with_new_h(primes, parameters, rng)
    }

    /// Draws h: `(-x^2)^n`, or `(-x^(2 beta))^n` for a subgroup key with the cofactors' product beta.
    fn with_new_h(
        primes: PerPrime<Prime>,
        parameters: KeyParameters,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let n = primes.n();
        let ring = Ring::new(&n, Backend::detect())?;
        let modulus = to_biguint(&n);
        // x is secret only in that nobody needs it.
        let x = loop {
            let mut x = vec![0; n.len()];
            x.iter_mut().for_each(|limb| *limb = rng.next_u64());
            let candidate = to_biguint(&x);
            if candidate < modulus && candidate.gcd(&modulus) == BigUint::from(1u8) {
                break x;
            }
        };
        let mut power = ring.lift(&x, 1);
        match parameters.key_type {
            KeyType::Djn => ring.square_assign(&mut power, 1),
            KeyType::Subgroup => {
                let exponent = Exponent::new(from_biguint(&primes.twice_cofactors(), n.len()));
                power = ring.power(&power, &exponent);
            }
        }
        let mut negative = ring.lift(&vec![0; n.len()], 1);
        ring.sub_assign(&mut negative, &power);
        let h = ring.lower(&ring.power(&negative, &Exponent::new(n)));
        Self::assemble(primes, parameters, &h, ring.backend())
    }

    /// Returns the key pair of what [`to_le_bytes`](Self::to_le_bytes) gives.
    ///
    /// # Errors
    /// [`Error::Key`] when p or q is composite, has another size than half a [`KeyBits`](super::KeyBits) or is not
    /// 3 mod 4, when a subgroup prime is not what it should be, or when h is not an n-th residue mod n^2 of the order
    /// that the key's type asks for; [`Error::PrimePair`] when the primes do not go together.
    pub fn from_le_bytes(bytes: &SecretKeyBytes) -> Result<Self, Error> {
        let SecretKeyBytes { p, q, subgroup_primes, h } = bytes;
        let subgroup_primes =
            subgroup_primes.as_ref().map(|primes| primes.each_ref().map(|prime| prime.as_slice()));
        let (primes, parameters) = check_primes(p, q, subgroup_primes)?;
        let bits = parameters.size.bits();
        if h.len() != bits / 4 {
            return Err(Error::Key {
                rule: "h must have twice as many bytes as n",
                found: format!("{} bytes for a key of {bits} bits", h.len()),
            });
        }
        Self::assemble(primes, parameters, &from_le_bytes(h), Backend::detect())
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
        Self::assemble(
            self.primes,
            self.public.parameters(),
            &from_le_bytes(&self.public.h_le_bytes()),
            backend,
        )
    }

    fn assemble(
        primes: PerPrime<Prime>,
        parameters: KeyParameters,
        h: &[u64],
        backend: Backend,
    ) -> Result<Self, Error> {
        let public =
            PublicKey::new(parameters.key_type, [&to_biguint(&primes.n()), &to_biguint(h)], backend)?;
        let side = |prime: &Prime, other: &Prime| {
            let ring = Ring::new(&prime.value, backend)?;
            Ok(Side::new(ring, &other.value, h, prime.order(parameters)))
        };
        let (p, q) = (side(&primes.p, &primes.q)?, side(&primes.q, &primes.p)?);
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
        Ok(Self { public, primes, p, q, q_inverse, crt })
    }

    /// Returns the public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Returns what a key file holds.
    pub fn to_le_bytes(&self) -> SecretKeyBytes {
        let PerPrime { p: (p, p_subgroup), q: (q, q_subgroup) } =
            self.primes.map(|prime| prime.to_le_bytes(self.public.parameters()));
        let subgroup_primes = p_subgroup.zip(q_subgroup).map(Into::into);
        SecretKeyBytes { p, q, subgroup_primes, h: self.public.h_le_bytes() }
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
                    || self.p.decrypt(&self.crt.project(Factor::P, &part)),
                    || self.q.decrypt(&self.crt.project(Factor::Q, &part)),
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
                    add_shorter(plaintext, m_q);
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
        if self.public.parameters().key_type == KeyType::Djn {
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

/// Primes from outside, in little-endian bytes.
fn check_primes(
    p: &[u8],
    q: &[u8],
    subgroup_primes: Option<[&[u8]; 2]>,
) -> Result<(PerPrime<Prime>, KeyParameters), Error> {
    let [p_subgroup, q_subgroup] = subgroup_primes.map_or([None; 2], |primes| primes.map(Some));
    let primes = PerPrime {
        p: Prime::check(p, p_subgroup, "p must be a prime that is 3 mod 4")?,
        q: Prime::check(q, q_subgroup, "q must be a prime that is 3 mod 4")?,
    };
    let parameters = primes.check_pair()?;
    Ok((primes, parameters))
}
