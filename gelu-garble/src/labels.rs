//! Labels of wires, and the difference between those of zero and of one.

use std::fmt;

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::hash::{STRIP, cipher, generate};
use crate::{Choices, Error, LABEL_BYTES};

/// All ones if the lowest bit is set, else zero: a mask in place of a branch.
#[inline(always)]
pub(crate) fn mask(x: u128) -> u128 {
    (x & 1).wrapping_neg()
}

/// The secret by which the two labels of every wire of a garbler differ. Its lowest bit is one, so that the lowest bits of
/// two such labels differ, too: what says which row of a table is the evaluator's.
#[derive(Clone)]
pub struct Delta(Zeroizing<u128>);

impl Delta {
    /// Returns a new one. A session takes one for all of its circuits and transfers, and no two sessions the same.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        Self(Zeroizing::new(random_label(rng) | 1))
    }

    /// Returns the labels of values, given the labels of zero: what the garbler sends for its own inputs.
    ///
    /// # Errors
    /// [`Error::Length`] when they are not as many.
    pub fn active(&self, zeros: &Labels, values: &Choices) -> Result<Labels, Error> {
        if zeros.len() != values.len() {
            let what = "values that labels stand for";
            return Err(Error::Length { what, expected: zeros.len(), found: values.len() });
        }
        let label = |(at, zero): (usize, &u128)| zero ^ (values.mask(at) & self.get());
        Ok(Labels::new(zeros.as_slice().iter().enumerate().map(label).collect()))
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u128 {
        *self.0
    }
}

/// Does not print the secret.
impl fmt::Debug for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delta").finish_non_exhaustive()
    }
}

pub(crate) fn random_label(rng: &mut dyn CryptoRng) -> u128 {
    u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64())
}

/// What labels of zero can be made from again: 16 bytes to keep in place of thousands of labels. Each is for one garbling.
#[derive(Clone)]
pub struct LabelSeed(Zeroizing<u128>);

impl LabelSeed {
    /// Returns a new one.
    pub fn random(rng: &mut dyn CryptoRng) -> Self {
        Self(Zeroizing::new(random_label(rng)))
    }
}

/// Does not print the secret.
impl fmt::Debug for LabelSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabelSeed").finish_non_exhaustive()
    }
}

/// Labels of bits, one wire after another, each for all circuits side by side. They are wiped when dropped.
///
/// A garbler's are the labels of zero, an evaluator's those of the bits as they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Zeroizing<Vec<u128>>);

impl Labels {
    pub(crate) fn new(labels: Vec<u128>) -> Self {
        Self(Zeroizing::new(labels))
    }

    /// Returns labels of zero that nobody knows anything about.
    pub fn random(count: usize, rng: &mut dyn CryptoRng) -> Self {
        Self::new((0..count).map(|_| random_label(rng)).collect())
    }

    /// Returns the labels of zero that a seed stands for, the same each time.
    pub fn of_seed(seed: &LabelSeed, count: usize) -> Self {
        let mut labels = Zeroizing::new(vec![0; count]);
        let key = cipher(*seed.0);
        for (at, words) in (0..).step_by(STRIP).zip(labels.chunks_mut(STRIP)) {
            generate(&key, at, words);
        }
        Self(labels)
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns them as bytes, [`LABEL_BYTES`] each.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.0.len() * LABEL_BYTES];
        let (chunks, _) = bytes.as_chunks_mut::<LABEL_BYTES>();
        chunks.iter_mut().zip(self.0.iter()).for_each(|(bytes, label)| *bytes = label.to_le_bytes());
        bytes
    }

    /// Returns the labels that bytes are of.
    ///
    /// # Errors
    /// [`Error::Length`] when the bytes are not those of as many labels as `count` says.
    pub fn from_le_bytes(bytes: &[u8], count: usize) -> Result<Self, Error> {
        let expected = count.saturating_mul(LABEL_BYTES);
        if bytes.len() != expected {
            return Err(Error::Length { what: "bytes of labels", expected, found: bytes.len() });
        }
        let (labels, _) = bytes.as_chunks::<LABEL_BYTES>();
        Ok(Self::new(labels.iter().map(|label| u128::from_le_bytes(*label)).collect()))
    }

    pub(crate) fn as_slice(&self) -> &[u128] {
        &self.0
    }
}

/// Does not print them.
impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labels").field("count", &self.len()).finish_non_exhaustive()
    }
}
