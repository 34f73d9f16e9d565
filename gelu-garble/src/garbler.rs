//! The garbler's side of a circuit.

use std::fmt;
use std::rc::Rc;

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::hash::{STRIP, Tweaks, block, encrypt, number, sigma};
use crate::labels::{mask, random_label};
use crate::sizes::{AND_BYTES, check_width};
use crate::wire::Pool;
use crate::{Bits, Delta, Error, Labels, Ring, Wire};

/// Garbles a circuit for many sets of inputs side by side: half gates, two ciphertexts an AND.
///
/// What it makes is one message, in the order of the calls. An [`Evaluator`](crate::Evaluator) must make the same calls.
///
/// ```
/// use gelu_garble::{Bits, Choices, Delta, Evaluator, Garbler, Labels};
/// # use rand::{SeedableRng, rngs::ChaCha20Rng};
/// # let rng = &mut ChaCha20Rng::seed_from_u64(7);
/// let delta = Delta::random(rng);
/// let zeros = Labels::random(2 * 3, rng); // two bits, of three circuits each
/// let mut garbler = Garbler::new(&delta, 3, rng)?;
/// let wires = garbler.input(&zeros)?;
/// let and = garbler.and(&wires[0], &wires[1]);
/// garbler.reveal(&[and]);
/// let message = garbler.finish()?;
///
/// let labels = delta.active(&zeros, &Choices::of_numbers(&[0, 2, 3], 2)?)?;
/// let mut evaluator = Evaluator::new(&message, 3)?;
/// let wires = evaluator.input(&labels)?;
/// let and = evaluator.and(&wires[0], &wires[1]);
/// assert_eq!(*evaluator.reveal(&[and]), [0, 0, 1]);
/// evaluator.finish()?;
/// # Ok::<(), gelu_garble::Error>(())
/// ```
pub struct Garbler {
    delta: Delta,
    tweaks: Tweaks,
    message: Vec<u8>,
    pool: Rc<Pool>,
    ands: usize,
    /// Labels that a foreign wire had.
    foreign: Option<usize>,
}

impl Garbler {
    /// Begins the garbling of so many circuits side by side, with a start of its own for the hashes.
    ///
    /// # Errors
    /// [`Error::Range`] when the circuits are not 1 to [`MAX_WIDTH`](crate::MAX_WIDTH).
    pub fn new(delta: &Delta, width: usize, rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        check_width(width)?;
        let start = random_label(rng);
        Ok(Self {
            delta: delta.clone(),
            tweaks: Tweaks::new(start),
            message: start.to_le_bytes().to_vec(),
            pool: Pool::new(width),
            ands: 0,
            foreign: None,
        })
    }

    /// Sets memory aside for so many ANDs.
    pub fn reserve(&mut self, ands: usize) {
        self.message.reserve(ands.saturating_mul(self.pool.width()).saturating_mul(AND_BYTES));
    }

    /// Returns the wires of inputs, given the labels of zero: one bit of all circuits, then the next.
    ///
    /// # Errors
    /// [`Error::Length`] when the labels are not as many for each circuit.
    pub fn input(&self, zeros: &Labels) -> Result<Vec<Wire>, Error> {
        inputs(&self.pool, zeros)
    }

    /// Turns a number of each circuit into shares of it mod 2^m, and returns the garbler's. What the evaluator's
    /// [`project`](crate::Evaluator::project) returns is the number less this.
    ///
    /// The highest of the bits is a sign if the number is `signed`.
    pub fn project(&mut self, bits: &[Wire], signed: bool, ring: Ring) -> Zeroizing<Vec<u64>> {
        let width = self.pool.width();
        let mut share = Zeroizing::new(vec![0u64; width]);
        let mut rows = Zeroizing::new(vec![0u64; width]);
        let shifted = sigma(self.delta.get());
        for (at, wire) in bits.iter().enumerate() {
            self.check(&[wire]);
            let (key, weight) = (self.tweaks.key(), weight(at, bits.len(), signed));
            let strips = wire.labels().chunks(STRIP);
            for (strip, (rows, share)) in strips.zip(rows.chunks_mut(STRIP).zip(share.chunks_mut(STRIP))) {
                let mut blocks = [block(0); 2 * STRIP];
                let blocks = &mut blocks[..2 * strip.len()];
                for (pair, label) in blocks.chunks_exact_mut(2).zip(strip) {
                    let zero = sigma(*label);
                    pair[0] = block(zero);
                    pair[1] = block(zero ^ shifted);
                }
                encrypt(&key, blocks);
                for (pair, (label, (row, share))) in
                    blocks.chunks_exact(2).zip(strip.iter().zip(rows.iter_mut().zip(share)))
                {
                    let zero = sigma(*label);
                    let (zero, one) = (number(&pair[0]) ^ zero, number(&pair[1]) ^ zero ^ shifted);
                    // The label of colour 0 stands for zero if the colour of zero is 0, else for one.
                    let swap = mask(*label) & (zero ^ one);
                    let (first, second) = ((zero ^ swap) as u64, (one ^ swap) as u64);
                    let swapped = mask(*label) as u64;
                    // The evaluator that sees colour 0 has the hash itself; the other gets what leads to the same.
                    let mine = first.wrapping_sub(weight & swapped);
                    *row = second.wrapping_add(mine).wrapping_add(weight & !swapped);
                    *share = share.wrapping_sub(mine);
                }
            }
            ring.pack_into(&rows, &mut self.message);
        }
        share.iter_mut().for_each(|share| *share = ring.wrap(*share));
        share
    }

    /// Shows bits to the evaluator.
    pub fn reveal(&mut self, bits: &[Wire]) {
        for wire in bits {
            self.check(&[wire]);
            let colours =
                |labels: &[u128]| labels.iter().rev().fold(0, |byte, label| byte << 1 | (*label & 1) as u8);
            self.message.extend(wire.labels().chunks(8).map(colours));
        }
    }

    /// Returns the message for the evaluator.
    ///
    /// # Errors
    /// [`Error::Length`] when a wire of other circuits, of another number of them, was used.
    pub fn finish(self) -> Result<Vec<u8>, Error> {
        check_foreign(self.pool.width(), self.foreign)?;
        Ok(self.message)
    }

    fn check(&mut self, wires: &[&Wire]) -> bool {
        check_wires(self.pool.width(), wires, &mut self.foreign)
    }
}

/// The weight of a bit in a ring: 2^`at`, or less that if it is the sign.
fn weight(at: usize, bits: usize, signed: bool) -> u64 {
    let weight = if at < 64 { 1u64 << at } else { 0 };
    if signed && at + 1 == bits { weight.wrapping_neg() } else { weight }
}

/// Returns wires with the given labels.
pub(crate) fn inputs(pool: &Rc<Pool>, labels: &Labels) -> Result<Vec<Wire>, Error> {
    let (width, found) = (pool.width(), labels.len());
    if !found.is_multiple_of(width) {
        let expected = found.div_ceil(width) * width;
        return Err(Error::Length { what: "labels of circuits side by side", expected, found });
    }
    Ok(labels.as_slice().chunks_exact(width).map(|labels| pool.wire(labels)).collect())
}

/// Notes wires that are not as wide as all others.
#[inline]
pub(crate) fn check_wires(width: usize, wires: &[&Wire], foreign: &mut Option<usize>) -> bool {
    let other = wires.iter().map(|wire| wire.labels().len()).find(|&found| found != width);
    *foreign = foreign.or(other);
    other.is_none()
}

pub(crate) fn check_foreign(expected: usize, foreign: Option<usize>) -> Result<(), Error> {
    let what = "labels of a wire";
    foreign.map_or(Ok(()), |found| Err(Error::Length { what, expected, found }))
}

/// Returns the exclusive or of two wires.
pub(crate) fn xor(pool: &Rc<Pool>, x: &Wire, y: &Wire) -> Wire {
    let mut out = pool.take();
    for ((out, x), y) in out.labels_mut().iter_mut().zip(x.labels()).zip(y.labels()) {
        *out = x ^ y;
    }
    out
}

impl Bits for Garbler {
    type Wire = Wire;

    fn and(&mut self, x: &Wire, y: &Wire) -> Wire {
        self.ands += 1;
        let mut out = self.pool.take();
        if !self.check(&[x, y]) {
            return out;
        }
        let keys = [self.tweaks.key(), self.tweaks.key()];
        let (delta, shifted) = (self.delta.get(), sigma(self.delta.get()));
        let at = self.message.len();
        self.message.resize(at + AND_BYTES * x.labels().len(), 0);
        let (table, _) = self.message[at..].as_chunks_mut::<AND_BYTES>();
        let operands = x.labels().chunks(STRIP).zip(y.labels().chunks(STRIP));
        let results = out.labels_mut().chunks_mut(STRIP).zip(table.chunks_mut(STRIP));
        let mut hashed = [[block(0); 2 * STRIP]; 2];
        for ((x, y), (out, table)) in operands.zip(results) {
            for ((hashed, labels), key) in hashed.iter_mut().zip([x, y]).zip(&keys) {
                let blocks = &mut hashed[..2 * labels.len()];
                for (pair, label) in blocks.chunks_exact_mut(2).zip(labels) {
                    let zero = sigma(*label);
                    pair[0] = block(zero);
                    pair[1] = block(zero ^ shifted);
                }
                encrypt(key, blocks);
            }
            let hashes = hashed[0].chunks_exact(2).zip(hashed[1].chunks_exact(2));
            let labels = x.iter().zip(y);
            for (((x, y), (a, b)), (out, row)) in labels.zip(hashes).zip(out.iter_mut().zip(table)) {
                let (a0, b0) = (number(&a[0]), number(&b[0]));
                // The garbler's half gate: it knows the colour of y. The evaluator's: it learns y's colour.
                let garblers = a0 ^ number(&a[1]) ^ shifted ^ (mask(*y) & delta);
                let evaluators = b0 ^ number(&b[1]) ^ shifted ^ x;
                row[..16].copy_from_slice(&garblers.to_le_bytes());
                row[16..].copy_from_slice(&evaluators.to_le_bytes());
                *out =
                    a0 ^ sigma(*x) ^ (mask(*x) & garblers) ^ b0 ^ sigma(*y) ^ (mask(*y) & (evaluators ^ x));
            }
        }
        out
    }

    fn xor(&mut self, x: &Wire, y: &Wire) -> Wire {
        self.check(&[x, y]);
        xor(&self.pool, x, y)
    }

    fn not(&mut self, x: &Wire) -> Wire {
        self.check(&[x]);
        let (mut out, delta) = (self.pool.take(), self.delta.get());
        out.labels_mut().iter_mut().zip(x.labels()).for_each(|(out, x)| *out = x ^ delta);
        out
    }

    fn ands(&self) -> usize {
        self.ands
    }
}

/// Does not print labels.
impl fmt::Debug for Garbler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Garbler")
            .field("width", &self.pool.width())
            .field("ands", &self.ands)
            .finish_non_exhaustive()
    }
}
