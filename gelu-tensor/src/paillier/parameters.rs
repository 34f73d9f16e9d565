//! Sizes and types of keys, and the lengths of exponents that follow from them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// log2 of the statistical distance at which an exponent hides another.
const HIDING_BITS: usize = 64;

/// The sizes of n that keys come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub enum KeyBits {
    /// 80-bit security: for tests and for comparison with the paper only.
    Bits1024,
    /// 112-bit security.
    Bits2048,
    /// 128-bit security.
    Bits3072,
    /// More than 128-bit security.
    Bits4096,
}

impl KeyBits {
    /// All of them, smallest first.
    pub const ALL: [Self; 4] = [Self::Bits1024, Self::Bits2048, Self::Bits3072, Self::Bits4096];

    /// Returns the size in bits.
    pub fn bits(self) -> usize {
        match self {
            Self::Bits1024 => 1024,
            Self::Bits2048 => 2048,
            Self::Bits3072 => 3072,
            Self::Bits4096 => 4096,
        }
    }

    /// Limbs of n.
    pub(crate) fn limbs(self) -> usize {
        self.bits() / 64
    }

    /// Returns the bits that the slots of one plaintext may fill together: two fewer than n has, so that every sum of slots
    /// and its negative stay below n.
    pub fn slot_capacity_bits(self) -> usize {
        self.bits() - 2
    }
}

impl From<KeyBits> for usize {
    fn from(size: KeyBits) -> Self {
        size.bits()
    }
}

impl TryFrom<usize> for KeyBits {
    type Error = Error;

    fn try_from(bits: usize) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|size| size.bits() == bits).ok_or_else(|| Error::Key {
            rule: "n must have 1024, 2048, 3072 or 4096 bits",
            found: format!("{bits} bits"),
        })
    }
}

/// Prints `2048`.
impl fmt::Display for KeyBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bits().fmt(f)
    }
}

impl FromStr for KeyBits {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|size| size.to_string() == text).ok_or_else(|| Error::Key {
            rule: "n must have 1024, 2048, 3072 or 4096 bits",
            found: format!("`{text}`"),
        })
    }
}

/// How a key is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// Damgård, Jurik and Nielsen's: exponents of half as many bits as n. Rests on the hardness of factoring and of
    /// deciding composite residuosity alone.
    #[default]
    Djn,
    /// Ma, Han and Lei's ("Optimized Paillier's cryptosystem with fast encryption and decryption", ACSAC 2021): h has
    /// a secret order of only 448 or 512 bits, so that all exponents are short. Assumes besides that powers of h are
    /// hard to tell from other residues, and n hard to factor given h (see SECURITY.md).
    Subgroup,
}

impl KeyType {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Djn, Self::Subgroup];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Djn => "djn",
            Self::Subgroup => "subgroup",
        }
    }
}

/// Prints its name.
impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for KeyType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let named = Self::ALL.into_iter().find(|key_type| key_type.name() == name);
        named.ok_or_else(|| Error::Key {
            rule: "its type must be djn or subgroup",
            found: format!("`{name}`"),
        })
    }
}

/// What the cost of a key's operations depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyParameters {
    /// The size of n.
    pub size: KeyBits,
    /// How it is made.
    pub key_type: KeyType,
}

/// What re-randomization has to hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hiding {
    /// The ciphertexts that are re-randomized.
    pub ciphertexts: usize,
    /// All of the tensor that they are part of, for which a table may pay.
    pub among: usize,
    /// Bits that the exponents of h in them may have.
    pub exponent_bits: usize,
}

impl Hiding {
    /// Returns what is to be hidden of all ciphertexts of a tensor.
    pub fn of(ciphertexts: usize, exponent_bits: usize) -> Self {
        Self { ciphertexts, among: ciphertexts, exponent_bits }
    }
}

impl From<KeyBits> for KeyParameters {
    /// A key of the default type.
    fn from(size: KeyBits) -> Self {
        Self { size, key_type: KeyType::default() }
    }
}

impl KeyParameters {
    /// Returns the bits of rho, the exponent of a fresh encryption.
    pub fn encryption_exponent(self) -> usize {
        match self.key_type {
            KeyType::Djn => self.size.bits() / 2,
            KeyType::Subgroup => 2 * self.subgroup_prime(),
        }
    }

    /// Returns the bits of the exponent of a decryption modulo each prime.
    pub fn decryption_exponent(self) -> usize {
        match self.key_type {
            KeyType::Djn => self.size.bits() / 2,
            KeyType::Subgroup => self.subgroup_prime() + 1,
        }
    }

    /// Returns the bits of each random exponent that hides those of some ciphertexts from somebody who knows the group, to
    /// a statistical distance of 2^-64: as many more, or enough to be uniform in the group of h. A few get those at
    /// once: that takes less time than another table.
    pub fn hiding_exponent(self, hiding: Hiding) -> usize {
        const FEW: usize = 32;
        if hiding.among > FEW && hiding.exponent_bits <= self.short_exponent() - HIDING_BITS {
            self.short_exponent()
        } else {
            self.long_exponent()
        }
    }

    /// The fewest bits of a random exponent that hides one of so many bits.
    pub(crate) fn least_hiding_exponent(self, exponent_bits: usize) -> usize {
        exponent_bits.saturating_add(HIDING_BITS).min(self.long_exponent())
    }

    /// The hiding exponent for values that no homomorphic operation has made much longer.
    pub(super) fn short_exponent(self) -> usize {
        self.encryption_exponent() + 2 * HIDING_BITS
    }

    /// The hiding exponent that is uniform in the group of h, which has at most n elements, and of a subgroup key one
    /// bit more than the two subgroup primes together.
    pub(super) fn long_exponent(self) -> usize {
        match self.key_type {
            KeyType::Djn => self.size.bits() + HIDING_BITS,
            KeyType::Subgroup => self.short_exponent(),
        }
    }

    /// Returns the bits of each of the two primes whose product is half the order of h.
    pub fn subgroup_prime(self) -> usize {
        match self.size {
            KeyBits::Bits1024 => 160,
            KeyBits::Bits2048 => 224,
            KeyBits::Bits3072 | KeyBits::Bits4096 => 256,
        }
    }
}
