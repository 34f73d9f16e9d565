use std::fmt;

/// Degrees, and the bits of ciphertext moduli that they give 128 bits of security with, against classical attacks and for
/// secrets of small coefficients (Albrecht and others, "Homomorphic encryption standard", 2018, table 1).
const SECURE: [(usize, usize); 4] = [(2048, 54), (4096, 109), (8192, 218), (16384, 438)];
/// Primes of the ciphertext modulus have at most so many bits (the crate's limit).
const MOST_LIMB_BITS: usize = 62;
/// Limbs and channels beyond which nothing is looked for.
const MOST_LIMBS: usize = 8;
const MOST_CHANNELS: usize = 24;
/// Bits of a plaintext modulus: below this there are too few primes, above they leave no room for noise.
const PLAINTEXT_BITS: std::ops::RangeInclusive<usize> = 17..=60;
/// Bits by which the noise has to stay below where decryption fails.
const MARGIN: i64 = 4;

/// What is done to ciphertexts, all of a kind together: what their noise grows by, and what takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sums with small integer weights.
    Sums {
        /// The root of a sum's squares of weights is at most two to this.
        growth_bits: u32,
        /// Products of a weight and a ciphertext.
        products: usize,
    },
    /// So many products of two ciphertexts each, or squares.
    Products(usize),
    /// Back to two polynomials from three.
    Relinearize,
    /// Dropping the last prime of the ciphertext modulus, and most of the noise with it.
    SwitchDown,
}

/// Parameters of 128-bit security for a computation: one scheme for each plaintext modulus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Coefficients of a polynomial, and slots of a ciphertext.
    pub degree: usize,
    /// Bits of the primes of the ciphertext modulus.
    pub limb_bits: Vec<usize>,
    /// The plaintext moduli: different primes that are 1 mod twice the degree.
    pub plaintext_moduli: Vec<u64>,
    /// What the computation takes about, in microseconds on one thread: by this the parameters were chosen.
    pub cost_us: u64,
}

/// No parameters leave enough room for a computation's noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParametersError {
    /// Bits of the largest result.
    pub bits: u32,
}

impl fmt::Display for ParametersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no parameters of 128-bit security leave room for the noise of results of {} bits",
            self.bits
        )
    }
}

impl std::error::Error for ParametersError {}

impl Parameters {
    /// Returns the parameters by which a computation costs least, whose results are below 2^`bits` in absolute value.
    ///
    /// # Errors
    /// [`ParametersError`] when none leave room for the noise.
    pub fn choose(bits: u32, steps: &[Step]) -> Result<Self, ParametersError> {
        let mut best: Option<Self> = None;
        for (degree, most_bits) in SECURE {
            for limbs in 2..=MOST_LIMBS {
                let limb_bits = MOST_LIMB_BITS.min(most_bits / limbs);
                for channels in 1..=MOST_CHANNELS {
                    // A bit for the sign, and one because primes are smaller than the power of two.
                    let plaintext_bits = (bits as usize + 2).div_ceil(channels).max(*PLAINTEXT_BITS.start());
                    let cost_us = cost_us(degree, limbs, steps) * channels as u64;
                    if !PLAINTEXT_BITS.contains(&plaintext_bits)
                        || best.as_ref().is_some_and(|best| best.cost_us <= cost_us)
                        || room(degree, (limbs, limb_bits), plaintext_bits, steps) < MARGIN
                    {
                        continue;
                    }
                    let plaintext_moduli = plaintext_moduli(degree, plaintext_bits, channels);
                    let product =
                        plaintext_moduli.iter().map(|&modulus| (modulus as f64).log2()).sum::<f64>();
                    if plaintext_moduli.len() == channels && product > f64::from(bits) + 1.0 {
                        let limb_bits = vec![limb_bits; limbs];
                        best = Some(Self { degree, limb_bits, plaintext_moduli, cost_us });
                    }
                }
            }
        }
        best.ok_or(ParametersError { bits })
    }

    /// Returns the bits of the ciphertext modulus.
    pub fn modulus_bits(&self) -> usize {
        self.limb_bits.iter().sum()
    }

    /// Returns the integer from minus half to half the product of all plaintext moduli with these residues, one for each
    /// modulus. The product must be below 2^126.
    pub fn combine(&self, residues: impl IntoIterator<Item = u64>) -> i128 {
        let (mut value, mut product) = (0_i128, 1_i128);
        for (residue, &modulus) in residues.into_iter().zip(&self.plaintext_moduli) {
            let modulus = i128::from(modulus);
            let missing = (i128::from(residue) - value).rem_euclid(modulus);
            let inverse = power(product % modulus, modulus - 2, modulus);
            value += product * (missing * inverse % modulus);
            product *= modulus;
        }
        if value > product / 2 { value - product } else { value }
    }
}

/// `base` to the power of `exponent`, mod a prime below 2^60.
fn power(mut base: i128, mut exponent: i128, modulus: i128) -> i128 {
    let mut result = 1;
    while exponent > 0 {
        if exponent % 2 == 1 {
            result = result * base % modulus;
        }
        base = base * base % modulus;
        exponent /= 2;
    }
    result
}

/// The bits between the noise after all steps and where decryption fails, at any time; negative where it does.
///
/// How much each step adds was measured with the crate (degree 8192, plaintext modulus of 40 bits), and a bit added; runs
/// measure what is left (`Channel::headroom`).
fn room(degree: usize, (limbs, limb_bits): (usize, usize), plaintext_bits: usize, steps: &[Step]) -> i64 {
    let [limb_bits, plaintext_bits] = [limb_bits, plaintext_bits].map(|bits| bits as i64);
    let degree_bits = i64::from(degree.ilog2());
    let (mut limbs, mut noise) = (limbs as i64, 6);
    let left = |limbs: i64, noise: i64| limbs * limb_bits - plaintext_bits - 1 - noise;
    let mut least = left(limbs, noise);
    let mut is_dropped = false;
    for step in steps {
        match step {
            Step::Sums { growth_bits, .. } => noise += i64::from(*growth_bits),
            Step::Products(_) => noise += plaintext_bits + degree_bits + 2,
            // The key of a lower level has a prime more than the ciphertext, which takes its noise away.
            Step::Relinearize if is_dropped => noise = noise.max(degree_bits + 8) + 1,
            Step::Relinearize => noise = noise.max(limb_bits + degree_bits) + 1,
            Step::SwitchDown => {
                (limbs, noise, is_dropped) = (limbs - 1, (noise - limb_bits).max(degree_bits + 4) + 1, true);
            }
        }
        least = least.min(left(limbs, noise));
    }
    if limbs < 1 { i64::MIN } else { least }
}

/// What the steps take in one channel, from what they took with the crate at degree 8192 on an AMD EPYC (Zen 4): a product a
/// millisecond times the square of the limbs, and a weight's product 2.5 microseconds for each polynomial and limb.
fn cost_us(degree: usize, limbs: usize, steps: &[Step]) -> u64 {
    let (mut limbs, mut polynomials, mut nanoseconds) = (limbs as u64, 2, 0);
    for step in steps {
        match step {
            Step::Sums { products, .. } => nanoseconds += 2500 * polynomials * limbs * *products as u64,
            Step::Products(count) => {
                nanoseconds += 1_000_000 * limbs * limbs * *count as u64;
                polynomials = 3;
            }
            Step::Relinearize => polynomials = 2,
            Step::SwitchDown => limbs = limbs.saturating_sub(1),
        }
    }
    nanoseconds * degree as u64 / 8192 / 1000
}

/// The largest primes below 2^`bits` that are 1 mod twice the degree.
pub(super) fn plaintext_moduli(degree: usize, bits: usize, count: usize) -> Vec<u64> {
    let step = 2 * degree as u64;
    let first = ((1_u64 << bits) - 2) / step * step + 1;
    let (mut moduli, mut candidate) = (vec![], first);
    while moduli.len() < count && candidate > 1 << (bits - 1) {
        if is_prime(candidate) {
            moduli.push(candidate);
        }
        candidate -= step;
    }
    moduli
}

/// The test of Miller and Rabin with bases that decide it for all numbers of 64 bits (Sorenson and Webster, 2015).
fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if n < 2 || BASES.iter().any(|&base| n.is_multiple_of(base)) {
        return BASES.contains(&n);
    }
    let wide = i128::from(n);
    let twos = (n - 1).trailing_zeros();
    BASES.iter().all(|&base| {
        let mut x = power(i128::from(base), i128::from((n - 1) >> twos), wide);
        x == 1
            || (0..twos).any(|_| {
                let is_minus_one = x == wide - 1;
                x = x * x % wide;
                is_minus_one
            })
    })
}
