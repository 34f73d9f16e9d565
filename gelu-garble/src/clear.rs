//! Circuits in the clear: what garbled ones are tested against, and where their gates are counted.

use crate::{Bits, Error, Ring};

/// Computes circuits on bits in the clear, 64 to a word.
///
/// With no set of inputs at all it counts gates:
///
/// ```
/// use gelu_garble::{Bits, Clear, circuits};
///
/// let mut clear = Clear::new(3);
/// let (x, y) = (clear.input(&[1, 6, 7], 3)?, clear.input(&[2, 6, 1], 3)?);
/// let sum = circuits::add(&mut clear, &x, &y);
/// assert_eq!((clear.output(&sum), clear.ands()), (vec![3, 4, 0], 2));
///
/// let mut counter = Clear::new(0);
/// let x = counter.input(&[], 3)?;
/// circuits::add(&mut counter, &x, &x);
/// assert_eq!(counter.ands(), 2);
/// # Ok::<(), gelu_garble::Error>(())
/// ```
#[derive(Debug)]
pub struct Clear {
    width: usize,
    ands: usize,
}

impl Clear {
    /// Returns the back end for so many sets of inputs side by side.
    pub fn new(width: usize) -> Self {
        Self { width, ands: 0 }
    }

    /// Returns the lowest `bits` bits of one number of each set, the lowest first.
    ///
    /// # Errors
    /// [`Error::Length`] when there is not one number for each set; [`Error::Range`] when the bits are not 1 to 64.
    pub fn input(&self, values: &[u64], bits: u32) -> Result<Vec<Vec<u64>>, Error> {
        let bits = Ring::new(bits)?.bits();
        if values.len() != self.width {
            let what = "numbers of circuits side by side";
            return Err(Error::Length { what, expected: self.width, found: values.len() });
        }
        let wire = |bit| {
            let word =
                |values: &[u64]| values.iter().rev().fold(0, |word, value| word << 1 | (value >> bit & 1));
            values.chunks(64).map(word).collect()
        };
        Ok((0..bits).map(wire).collect())
    }

    /// Returns the number of each set, of up to 64 bits that are given with the lowest first.
    pub fn output(&self, wires: &[Vec<u64>]) -> Vec<u64> {
        let bit = |wire: &[u64], at: usize| wire.get(at / 64).map_or(0, |word| word >> (at % 64) & 1);
        let number = |at| wires.iter().take(64).rev().fold(0, |number, wire| number << 1 | bit(wire, at));
        (0..self.width).map(number).collect()
    }
}

impl Bits for Clear {
    type Wire = Vec<u64>;

    fn and(&mut self, x: &Vec<u64>, y: &Vec<u64>) -> Vec<u64> {
        self.ands += 1;
        x.iter().zip(y).map(|(x, y)| x & y).collect()
    }

    fn xor(&mut self, x: &Vec<u64>, y: &Vec<u64>) -> Vec<u64> {
        x.iter().zip(y).map(|(x, y)| x ^ y).collect()
    }

    fn not(&mut self, x: &Vec<u64>) -> Vec<u64> {
        x.iter().map(|x| !x).collect()
    }

    fn ands(&self) -> usize {
        self.ands
    }
}
