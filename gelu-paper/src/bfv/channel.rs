use std::sync::Arc;

use fhe::bfv::{
    BfvParameters, BfvParametersBuilder, Ciphertext, Encoding, Plaintext, RelinearizationKey, SecretKey,
};
use fhe_math::rq::Context;
use fhe_math::zq::Modulus;
use fhe_traits::{FheDecoder, FheDecrypter, FheEncoder, FheEncrypter};
use rand_fhe::{CryptoRng, RngCore};

use super::Parameters;

/// The scheme for one plaintext modulus, with its keys.
#[derive(Debug)]
pub struct Channel {
    parameters: Arc<BfvParameters>,
    secret: SecretKey,
    /// One for each level, as far as ciphertexts of it can be relinearized.
    relinearization: Vec<RelinearizationKey>,
}

impl Channel {
    /// Returns the channel of a plaintext modulus, with new keys; `levels` is the number of levels that are relinearized at.
    ///
    /// # Errors
    /// The crate's, for parameters that it does not take.
    pub fn new<R: RngCore + CryptoRng>(
        parameters: &Parameters,
        plaintext_modulus: u64,
        levels: usize,
        rng: &mut R,
    ) -> fhe::Result<Self> {
        let parameters = BfvParametersBuilder::new()
            .set_degree(parameters.degree)
            .set_plaintext_modulus(plaintext_modulus)
            .set_moduli_sizes(&parameters.limb_bits)
            .build_arc()?;
        let secret = SecretKey::random(&parameters, rng);
        // A key one level above the ciphertexts has a prime more, which takes its noise away again.
        let key =
            |level: usize| RelinearizationKey::new_leveled(&secret, level, level.saturating_sub(1), rng);
        let relinearization = (0..levels).map(key).collect::<fhe::Result<_>>()?;
        Ok(Self { parameters, secret, relinearization })
    }

    /// Returns the plaintext modulus.
    pub fn plaintext_modulus(&self) -> u64 {
        self.parameters.plaintext()
    }

    /// Returns the number of slots of a ciphertext.
    pub fn slots(&self) -> usize {
        self.parameters.degree()
    }

    /// How many primes of the ciphertext modulus a ciphertext has lost.
    fn level(&self, ciphertext: &Ciphertext) -> usize {
        // The crate's own way copies whole contexts.
        self.parameters.moduli().len() - ciphertext[0].ctx().moduli().len()
    }

    fn residue(&self, value: i128) -> u64 {
        value.rem_euclid(i128::from(self.plaintext_modulus())) as u64
    }

    /// Returns integers, one in a slot, reduced by the plaintext modulus and encrypted under the secret key: what costs a
    /// client least.
    ///
    /// # Errors
    /// When there are more than slots.
    pub fn encrypt<R: RngCore + CryptoRng>(&self, values: &[i128], rng: &mut R) -> fhe::Result<Ciphertext> {
        let residues: Vec<u64> = values.iter().map(|&value| self.residue(value)).collect();
        let plaintext = Plaintext::try_encode(&residues, Encoding::simd(), &self.parameters)?;
        self.secret.try_encrypt(&plaintext, rng)
    }

    /// Returns the residues in a ciphertext's slots.
    ///
    /// # Errors
    /// The crate's.
    pub fn decrypt(&self, ciphertext: &Ciphertext) -> fhe::Result<Vec<u64>> {
        let plaintext = self.secret.try_decrypt(ciphertext)?;
        Vec::try_decode(&plaintext, Encoding::simd_at_level(self.level(ciphertext)))
    }

    /// Returns what has to be added to all coefficients of a ciphertext's first polynomial, by the primes of its modulus, to add
    /// an integer to all slots.
    ///
    /// A polynomial without other coefficients has the same value in all slots, and the same in all places of its transform.
    pub(super) fn constant(&self, context: &Context, value: i128) -> Vec<u64> {
        let (modulus, moduli) = (u128::from(self.plaintext_modulus()), context.moduli());
        let residue = moduli
            .iter()
            .fold(u128::from(self.residue(value)), |x, &q| x * (u128::from(q) % modulus) % modulus);
        // Minus the residue of the ciphertext modulus times the value, divided by the plaintext modulus.
        let divided = |operators: &Modulus| {
            let inverse = operators.inv(operators.reduce(self.plaintext_modulus())).unwrap_or_default();
            operators.neg(operators.mul(operators.reduce_u128(residue), inverse))
        };
        context.moduli_operators().iter().map(divided).collect()
    }

    /// Back to two polynomials from the three of a product.
    ///
    /// # Errors
    /// When it has not three, or the channel was made for fewer levels.
    pub fn relinearize(&self, ciphertext: &mut Ciphertext) -> fhe::Result<()> {
        let level = self.level(ciphertext);
        let key = self.relinearization.get(level);
        let missing = || fhe::Error::DefaultError(format!("no key for relinearizing at level {level}"));
        key.ok_or_else(missing)?.relinearizes(ciphertext)
    }

    /// Returns how often a ciphertext can be doubled until it no longer decrypts to what it should: the noise budget in
    /// bits. It is measured without looking at the noise itself.
    ///
    /// # Errors
    /// The crate's.
    pub fn headroom(&self, ciphertext: &Ciphertext) -> fhe::Result<u32> {
        let modulus = self.plaintext_modulus();
        let mut expected = self.decrypt(ciphertext)?;
        let mut doubled = ciphertext.clone();
        // At the latest when the doubled noise has gone round the whole modulus.
        for count in 0..self.parameters.moduli_sizes().iter().sum::<usize>() as u32 {
            doubled = &doubled + &doubled;
            expected.iter_mut().for_each(|x| *x = (*x * 2) % modulus);
            if self.decrypt(&doubled)? != expected {
                return Ok(count);
            }
        }
        Ok(0)
    }
}
