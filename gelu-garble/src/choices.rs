//! Secret bits, in the order in which circuits take them.

use std::fmt;
use std::hint::black_box;

use zeroize::Zeroizing;

use crate::labels::mask;
use crate::{Error, Ring};

/// Secret bits: what a receiver of labels chooses by, and what a garbler's own inputs are. They are wiped when dropped.
pub struct Choices {
    /// 128 to a word; those beyond the count are zero.
    words: Zeroizing<Vec<u128>>,
    count: usize,
}

impl Choices {
    /// Returns the lowest `bits` bits of numbers: the lowest bit of all of them, then the next of all, as circuits side by
    /// side take them.
    ///
    /// # Errors
    /// [`Error::Range`] when the bits are not 1 to 64.
    pub fn of_numbers(numbers: &[u64], bits: u32) -> Result<Self, Error> {
        let bits = Ring::new(bits)?.bits();
        let count = numbers.len() * bits as usize;
        let mut words = Zeroizing::new(vec![0; count.div_ceil(128)]);
        let all = (0..bits).flat_map(|bit| numbers.iter().map(move |number| number >> bit & 1));
        for (at, bit) in all.enumerate() {
            words[at / 128] |= u128::from(bit) << (at % 128);
        }
        Ok(Self { words, count })
    }

    /// Returns how many bits there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn words(&self) -> &[u128] {
        &self.words
    }

    /// A bit as a [mask]. Zero beyond the last.
    #[inline]
    pub(crate) fn mask(&self, at: usize) -> u128 {
        // Of a mask that is known to be all ones or zero, compilers make a branch.
        black_box(mask(self.words.get(at / 128).map_or(0, |word| word >> (at % 128))))
    }
}

/// Does not print them.
impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choices").field("count", &self.count).finish_non_exhaustive()
    }
}
