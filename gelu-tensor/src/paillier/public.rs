//! Public keys: their checks, tables and encryptions, and the encoding of ciphertexts.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use num_bigint::BigUint;
use rand::CryptoRng;
use rayon::prelude::*;

use super::factors::{perfect_power, small_factor};
use super::{KeyBits, KeyParameters, KeyType, Randomizer};
use crate::Error;
use crate::arith::limbs::{from_biguint, from_le_bytes, to_biguint, to_le_bytes};
use crate::arith::{Backend, Comb, Exponent, MAX_LANES, Operations, Residues, Ring};

/// The most ciphertexts that share a pass over a comb's table.
const MOST_TOGETHER: usize = 32;

/// A checked public key: n, h, and the tables that encryption needs. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    parameters: KeyParameters,
    ring: Ring,
    /// The same ring with a count of its own: what decoding and its checks take.
    checking: Ring,
    h: Residues,
    h_inverse: Residues,
    fingerprint: [u8; 32],
    /// The table for encryption.
    encryption: OnceLock<Comb>,
    hiding: [OnceLock<Comb>; 2],
}

impl PublicKey {
    /// Returns the key of n and h, each in little-endian bytes (h in twice as many as n), after every check that can be made
    /// without the primes. That h of a subgroup key has a small order is not among them.
    ///
    /// # Errors
    /// [`Error::Key`] when n has another size than [`KeyBits`] allows, is even, has a factor below 1,000 or is a
    /// perfect power; when h is not below n^2, no unit, or 1.
    pub fn from_le_bytes(key_type: KeyType, n: &[u8], h: &[u8]) -> Result<Self, Error> {
        let [n, h] = [n, h].map(BigUint::from_bytes_le);
        check_size(&n)?;
        if let Some(factor) = small_factor(&n) {
            return Err(key_error("n must have no small factor", format!("a multiple of {factor}")));
        }
        if let Some(root) = perfect_power(&n) {
            return Err(key_error("n must not be a perfect power", format!("a power of exponent {root}")));
        }
        Self::new(key_type, [&n, &h], Backend::detect())
    }

    /// Returns the key with its arithmetic done by another backend than the [fastest](Backend::detect) there is, which keys
    /// are made on. Ciphertexts under one do not go with those under the other, except as bytes.
    ///
    /// # Errors
    /// [`Error::Backend`] when this machine does not have it.
    pub fn on(self, backend: Backend) -> Result<Self, Error> {
        if self.backend() == backend {
            return Ok(self);
        }
        let ring = Ring::new(self.0.ring.modulus(), backend)?;
        let to = ring.counted_apart();
        let h = [&self.0.h, &self.0.h_inverse].map(|h| to.lift(&self.0.ring.lower(h), 1));
        Ok(Self::of(self.parameters(), ring, h, self.0.fingerprint))
    }

    /// Returns the backend that does the key's arithmetic.
    pub fn backend(&self) -> Backend {
        self.0.ring.backend()
    }

    /// The key of n and h, without the checks that take long and tell its owner nothing.
    pub(super) fn new(
        key_type: KeyType,
        [modulus, value]: [&BigUint; 2],
        backend: Backend,
    ) -> Result<Self, Error> {
        let size = check_size(modulus)?;
        if *value >= modulus * modulus {
            return Err(key_error("h must be below n^2", format!("{} bits", value.bits())));
        }
        let ring = Ring::new(&from_biguint(modulus, size.limbs()), backend)?;
        let apart = ring.counted_apart();
        let h = apart.lift(&from_biguint(value, 2 * size.limbs()), 1);
        let inverse = apart.invert_vartime(&h).filter(|_| *value != BigUint::from(1u8));
        let Some(inverse) = inverse else {
            return Err(key_error("h must be a unit mod n^2 other than 1", "one that is not".into()));
        };
        let mut digest = hmac_sha256::Hash::new();
        digest.update(match key_type {
            KeyType::Djn => b"gelu-net paillier public key v1".as_slice(),
            KeyType::Subgroup => b"gelu-net paillier subgroup public key v1",
        });
        digest.update(modulus.to_bytes_le());
        digest.update(value.to_bytes_le());
        let parameters = KeyParameters { size, key_type };
        Ok(Self::of(parameters, ring, [h, inverse], digest.finalize()))
    }

    fn of(parameters: KeyParameters, ring: Ring, h: [Residues; 2], fingerprint: [u8; 32]) -> Self {
        let checking = ring.counted_apart();
        let (encryption, hiding) = (OnceLock::new(), Default::default());
        let [h, h_inverse] = h;
        Self(Arc::new(Inner { parameters, ring, checking, h, h_inverse, fingerprint, encryption, hiding }))
    }

    /// Returns the size of n.
    pub fn size(&self) -> KeyBits {
        self.0.parameters.size
    }

    /// Returns the size of n and how the key is made.
    pub fn parameters(&self) -> KeyParameters {
        self.0.parameters
    }

    /// The ring of its ciphertexts.
    pub(crate) fn ring(&self) -> &Ring {
        &self.0.ring
    }

    /// Returns the operations mod n^2 that computing with its ciphertexts has taken so far.
    pub fn operations(&self) -> Operations {
        self.0.ring.operations()
    }

    /// Returns n.
    pub fn modulus(&self) -> BigUint {
        to_biguint(self.0.ring.modulus())
    }

    /// Returns the operations mod n^2 that decoding and checking of ciphertexts (and of the key) have taken so far, which
    /// [`operations`](Self::operations) leaves out.
    pub fn check_operations(&self) -> Operations {
        self.0.checking.operations()
    }

    /// Returns n in little-endian bytes.
    pub fn n_le_bytes(&self) -> Vec<u8> {
        to_le_bytes(self.0.ring.modulus())
    }

    pub(super) fn h(&self) -> &Residues {
        &self.0.h
    }

    /// Tables of h for short and for long hiding exponents.
    pub(super) fn hiding_tables(&self) -> &[OnceLock<Comb>; 2] {
        &self.0.hiding
    }

    /// Returns h in little-endian bytes, twice as many as n's.
    pub fn h_le_bytes(&self) -> Vec<u8> {
        to_le_bytes(&self.0.ring.lower(&self.0.h))
    }

    /// Returns a SHA-256 over a label of the key's type, n and h: what ciphertexts carry to say whose they are.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.0.fingerprint
    }

    /// Returns the fingerprint in hexadecimal.
    pub fn fingerprint_hex(&self) -> String {
        self.0.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the bytes of one encoded ciphertext: a number below n^2, little-endian.
    pub fn ciphertext_bytes(&self) -> usize {
        2 * self.size().bits() / 8
    }

    /// Encodes ciphertexts as numbers below n^2 of [`ciphertext_bytes`](Self::ciphertext_bytes) each.
    pub(crate) fn encode(&self, ciphertexts: &Residues) -> Vec<u8> {
        let encode = |range| to_le_bytes(&self.0.ring.lower(&ciphertexts.gather(range)));
        in_runs(ciphertexts.len(), encode).concat()
    }

    /// Decodes and checks ciphertexts.
    ///
    /// # Errors
    /// [`Error::Count`] when the bytes are not a whole number of ciphertexts; [`Error::Ciphertext`] when one is not
    /// below n^2, or shares a factor with n (zero does).
    pub(crate) fn decode(&self, bytes: &[u8]) -> Result<Residues, Error> {
        let width = self.ciphertext_bytes();
        if !bytes.len().is_multiple_of(width) {
            return Err(Error::Multiple { what: "bytes of ciphertexts", of: width, found: bytes.len() });
        }
        let n = to_biguint(self.0.ring.modulus());
        let square = from_biguint(&(&n * &n), 2 * self.size().limbs());
        let limbs = from_le_bytes(bytes);
        for (index, value) in limbs.chunks_exact(square.len()).enumerate() {
            if value.iter().rev().ge(square.iter().rev()) {
                return Err(Error::Ciphertext { index, rule: "must be below n^2" });
            }
        }
        let count = bytes.len() / width;
        // With products of a few each, so that one gcd tells of all.
        let checking = &self.0.checking;
        let parts = in_runs(count, |range| {
            let part =
                checking.lift(&limbs[range.start * square.len()..range.end * square.len()], range.len());
            let product = checking.fold_products(part.clone(), 1);
            (part, product)
        });
        let [mut residues, mut products] = [count, parts.len()].map(|capacity| checking.empty(capacity));
        for (part, product) in &parts {
            residues.append(part);
            products.append(product);
        }
        let found =
            checking.find_non_unit_vartime(&products).and_then(|_| checking.find_non_unit_vartime(&residues));
        match found {
            Some(index) => Err(Error::Ciphertext { index, rule: "must be a unit mod n^2, so not zero" }),
            None => Ok(residues),
        }
    }

    /// Refuses another key, and the same on another backend.
    ///
    /// # Errors
    /// [`Error::ForeignKey`]; [`Error::Backend`].
    pub fn check_same(&self, other: &Self) -> Result<(), Error> {
        if self == other {
            let wanted = other.backend();
            return match wanted == self.backend() {
                true => Ok(()),
                false => Err(Error::Backend { wanted: wanted.to_string() }),
            };
        }
        Err(Error::ForeignKey {
            expected: Fingerprint(self.fingerprint()).to_string(),
            found: Fingerprint(other.fingerprint()).to_string(),
        })
    }

    /// The ciphertexts of the sums with `plaintexts`, of n's limbs each.
    pub(crate) fn add_plaintexts(&self, ciphertexts: &Residues, plaintexts: &[u64]) -> Residues {
        let (ring, limbs) = (&self.0.ring, self.0.ring.limbs());
        self.in_parallel(ciphertexts.len(), |range| {
            let mut sums = ciphertexts.gather(range.clone());
            ring.mul_assign_one_plus(&mut sums, &plaintexts[range.start * limbs..range.end * limbs]);
            sums
        })
    }

    /// The products of two batches of ciphertexts.
    pub(crate) fn multiply(&self, x: &Residues, y: &Residues) -> Residues {
        self.in_parallel(x.len(), |range| {
            let mut products = x.gather(range.clone());
            self.0.ring.mul_assign(&mut products, &y.gather(range));
            products
        })
    }

    /// Runs `work` on [runs](in_runs) of a few indices in parallel and joins the residues it makes, in order.
    pub(crate) fn in_parallel(
        &self,
        count: usize,
        work: impl Fn(Range<usize>) -> Residues + Sync,
    ) -> Residues {
        match <[Residues; 1]>::try_from(in_runs(count, work)) {
            Ok([only]) => only,
            Err(parts) => {
                let mut out = self.0.ring.empty(count);
                parts.iter().for_each(|part| out.append(part));
                out
            }
        }
    }

    /// `count` secret exponents rho of fresh encryptions.
    pub(super) fn exponents(&self, rng: &mut dyn CryptoRng, count: usize) -> Vec<Exponent> {
        random_exponents(rng, count, self.0.parameters.encryption_exponent())
    }
}

/// The size of n, which is odd.
fn check_size(n: &BigUint) -> Result<KeyBits, Error> {
    let size = KeyBits::try_from(n.bits() as usize)?;
    if n.bit(0) { Ok(size) } else { Err(key_error("n must be odd", "an even n".into())) }
}

fn key_error(rule: &'static str, found: String) -> Error {
    Error::Key { rule, found }
}

/// Runs `work` on runs of a few indices in parallel: what it makes, in order. A single run stays on the calling thread.
fn in_runs<T: Send>(count: usize, work: impl Fn(Range<usize>) -> T + Sync) -> Vec<T> {
    let batch = batch_for(count, rayon::current_num_threads());
    if (1..=batch).contains(&count) {
        return vec![work(0..count)];
    }
    let run = |index| work(index * batch..count.min((index + 1) * batch));
    (0..count.div_ceil(batch)).into_par_iter().map(run).collect()
}

/// Ciphertexts of one task: whole vectors or half ones, as few that all threads have work to the end, and up to [`MOST_TOGETHER`],
/// for every task reads the comb's table once.
fn batch_for(count: usize, threads: usize) -> usize {
    const HALF: usize = MAX_LANES / 2;
    // In sixths of the time of a vector's products: half a vector takes four, a pass over the table three.
    let time = |halves: &usize| {
        count.div_ceil(halves * HALF).div_ceil(threads) * (6 * (halves / 2) + 4 * (halves % 2) + 3)
    };
    HALF * (1..=MOST_TOGETHER / HALF).rev().min_by_key(time).unwrap_or(1)
}

pub(super) fn random_exponents(rng: &mut dyn CryptoRng, count: usize, bits: usize) -> Vec<Exponent> {
    (0..count).map(|_| Exponent::new((0..bits / 64).map(|_| rng.next_u64()).collect())).collect()
}

/// Makes `h^rho` by a fixed-base comb mod n^2, whose table is made at the first call.
impl Randomizer for PublicKey {
    fn public_key(&self) -> &PublicKey {
        self
    }

    fn randomizers(&self, rng: &mut dyn CryptoRng, count: usize) -> Residues {
        let ring = &self.0.ring;
        let comb = self.0.encryption.get().unwrap_or_else(|| {
            // Made before the lock is taken: a thread that waits for others meanwhile may be given another encryption,
            // which would wait for this lock for ever.
            let exponent = self.0.parameters.encryption_exponent();
            let comb = Comb::wide(ring, &self.0.h, &self.0.h_inverse, exponent);
            self.0.encryption.get_or_init(|| comb)
        });
        let exponents = self.exponents(rng, count);
        self.in_parallel(count, |range| comb.power(ring, &exponents[range]))
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.fingerprint == other.0.fingerprint
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyParameters { size, key_type } = self.0.parameters;
        write!(f, "PublicKey({size} bits, {key_type}, {})", Fingerprint(&self.0.fingerprint))
    }
}

/// Prints the first eight bytes in hexadecimal.
pub(crate) struct Fingerprint<'a>(pub(crate) &'a [u8; 32]);

impl fmt::Display for Fingerprint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
