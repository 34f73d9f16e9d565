//! The evaluator's side of a circuit.

use std::fmt;
use std::rc::Rc;

use zeroize::Zeroizing;

use crate::garbler::{check_foreign, check_wires, inputs, xor};
use crate::hash::{STRIP, Tweaks, block, encrypt, number, sigma};
use crate::labels::mask;
use crate::sizes::{AND_BYTES, START_BYTES, check_width, projection_bytes, reveal_bytes};
use crate::wire::Pool;
use crate::{Bits, Error, Labels, Ring, Wire};

/// Evaluates what a [`Garbler`](crate::Garbler) garbled, by the same calls in the same order.
///
/// A message that is too short or too long for the calls is found by [`finish`](Self::finish); what was computed until then
/// says nothing.
pub struct Evaluator<'a> {
    tweaks: Tweaks,
    /// What is left of the message.
    message: &'a [u8],
    /// Bytes of the message in all, and those that all calls so far needed.
    length: usize,
    needed: usize,
    pool: Rc<Pool>,
    ands: usize,
    foreign: Option<usize>,
}

impl<'a> Evaluator<'a> {
    /// Begins the evaluation of so many circuits side by side.
    ///
    /// # Errors
    /// [`Error::Range`] when the circuits are not 1 to [`MAX_WIDTH`](crate::MAX_WIDTH); [`Error::Length`] when the
    /// message does not even have a start.
    pub fn new(message: &'a [u8], width: usize) -> Result<Self, Error> {
        check_width(width)?;
        let Some((start, rest)) = message.split_first_chunk::<START_BYTES>() else {
            return Err(Error::Length { what: MESSAGE, expected: START_BYTES, found: message.len() });
        };
        Ok(Self {
            tweaks: Tweaks::new(u128::from_le_bytes(*start)),
            message: rest,
            length: message.len(),
            needed: START_BYTES,
            pool: Pool::new(width),
            ands: 0,
            foreign: None,
        })
    }

    /// Returns the wires of inputs, given the labels of their values: one bit of all circuits, then the next.
    ///
    /// # Errors
    /// [`Error::Length`] when the labels are not as many for each circuit.
    pub fn input(&self, labels: &Labels) -> Result<Vec<Wire>, Error> {
        inputs(&self.pool, labels)
    }

    /// Returns this side's shares mod 2^m of a number of each circuit: see [`Garbler::project`](crate::Garbler::project).
    pub fn project(&mut self, bits: &[Wire], ring: Ring) -> Zeroizing<Vec<u64>> {
        let width = self.pool.width();
        let mut share = Zeroizing::new(vec![0u64; width]);
        for wire in bits {
            check_wires(width, &[wire], &mut self.foreign);
            let rows = ring.unpack(self.next(projection_bytes(1, width, ring)), width).unwrap_or_default();
            let key = self.tweaks.key();
            let strips = wire.labels().chunks(STRIP).zip(rows.chunks(STRIP));
            for ((strip, rows), share) in strips.zip(share.chunks_mut(STRIP)) {
                let mut blocks = [block(0); STRIP];
                let blocks = &mut blocks[..strip.len()];
                blocks.iter_mut().zip(strip).for_each(|(block_, label)| *block_ = block(sigma(*label)));
                encrypt(&key, blocks);
                for ((block, label), (row, share)) in blocks.iter().zip(strip).zip(rows.iter().zip(share)) {
                    let hash = (number(block) ^ sigma(*label)) as u64;
                    let second = mask(*label) as u64;
                    // The hash for colour 0, the row less the hash for colour 1.
                    let value = (row & second).wrapping_add((hash ^ second).wrapping_sub(second));
                    *share = share.wrapping_add(value);
                }
            }
        }
        share.iter_mut().for_each(|share| *share = ring.wrap(*share));
        share
    }

    /// Returns the bits that the garbler [shows](crate::Garbler::reveal), as a number of each circuit (of the lowest 64 if
    /// there are more).
    pub fn reveal(&mut self, bits: &[Wire]) -> Zeroizing<Vec<u64>> {
        let width = self.pool.width();
        let mut numbers = Zeroizing::new(vec![0u64; width]);
        for (at, wire) in bits.iter().enumerate() {
            check_wires(width, &[wire], &mut self.foreign);
            let colours = self.next(reveal_bytes(1, width));
            for (index, (number, label)) in numbers.iter_mut().zip(wire.labels()).enumerate() {
                let colour = colours.get(index / 8).map_or(0, |byte| byte >> (index % 8) & 1);
                if at < 64 {
                    *number |= ((*label as u64 & 1) ^ u64::from(colour)) << at;
                }
            }
        }
        numbers
    }

    /// Ends the evaluation.
    ///
    /// # Errors
    /// [`Error::Length`] when the message was longer or shorter than what the calls needed, or when a wire of other circuits,
    /// of another number of them, was used: what was computed is of no use then.
    pub fn finish(self) -> Result<(), Error> {
        check_foreign(self.pool.width(), self.foreign)?;
        if self.needed == self.length {
            return Ok(());
        }
        Err(Error::Length { what: MESSAGE, expected: self.needed, found: self.length })
    }

    /// The next bytes of the message; fewer than are asked for, if it has no more.
    fn next(&mut self, bytes: usize) -> &'a [u8] {
        self.needed = self.needed.saturating_add(bytes);
        let (next, rest) = self.message.split_at(bytes.min(self.message.len()));
        self.message = rest;
        next
    }
}

const MESSAGE: &str = "bytes of a garbling";

impl Bits for Evaluator<'_> {
    type Wire = Wire;

    fn and(&mut self, x: &Wire, y: &Wire) -> Wire {
        self.ands += 1;
        let mut out = self.pool.take();
        let width = self.pool.width();
        if !check_wires(width, &[x, y], &mut self.foreign) {
            return out;
        }
        let keys = [self.tweaks.key(), self.tweaks.key()];
        let (table, _) = self.next(width * AND_BYTES).as_chunks::<AND_BYTES>();
        let operands = x.labels().chunks(STRIP).zip(y.labels().chunks(STRIP));
        let results = out.labels_mut().chunks_mut(STRIP).zip(table.chunks(STRIP));
        let mut hashed = [[block(0); STRIP]; 2];
        for ((x, y), (out, table)) in operands.zip(results) {
            for ((hashed, labels), key) in hashed.iter_mut().zip([x, y]).zip(&keys) {
                let blocks = &mut hashed[..labels.len()];
                blocks.iter_mut().zip(labels).for_each(|(block_, label)| *block_ = block(sigma(*label)));
                encrypt(key, blocks);
            }
            let hashes = hashed[0].iter().zip(&hashed[1]);
            for (((x, y), (a, b)), (out, row)) in x.iter().zip(y).zip(hashes).zip(out.iter_mut().zip(table)) {
                let (rows, _) = row.as_chunks::<16>();
                let [garblers, evaluators] = [rows[0], rows[1]].map(u128::from_le_bytes);
                *out = number(a)
                    ^ sigma(*x)
                    ^ (mask(*x) & garblers)
                    ^ number(b)
                    ^ sigma(*y)
                    ^ (mask(*y) & (evaluators ^ x));
            }
        }
        out
    }

    fn xor(&mut self, x: &Wire, y: &Wire) -> Wire {
        check_wires(self.pool.width(), &[x, y], &mut self.foreign);
        xor(&self.pool, x, y)
    }

    /// The garbler has swapped what the labels stand for.
    fn not(&mut self, x: &Wire) -> Wire {
        x.clone()
    }

    fn ands(&self) -> usize {
        self.ands
    }
}

/// Does not print labels.
impl fmt::Debug for Evaluator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluator")
            .field("width", &self.pool.width())
            .field("ands", &self.ands)
            .finish_non_exhaustive()
    }
}
