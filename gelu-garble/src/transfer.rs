//! Labels of the receiver's bits: Ishai, Kilian, Nissim and Petrank's extension, whose rows are labels as they are.

use std::fmt;

use aes::Aes128Enc;
use rand::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::base_ot::{BASE_TRANSFERS, BaseSender, POINT_BYTES, receive};
use crate::hash::{STRIP, cipher, generate};
use crate::labels::mask;
use crate::transpose::transpose;
use crate::{Choices, Delta, Error, Labels, extension_bytes};

/// The most transfers of one message.
pub const MAX_TRANSFERS: usize = 1 << 20;

/// Words of 128 transfers that are worked on at a time.
const WORDS: usize = STRIP;

/// The receiver's part of a session's beginning, until the sender has answered.
///
/// ```
/// use gelu_garble::{Choices, Delta, LabelSender, Labels, Opening};
/// # use rand::{SeedableRng, rngs::ChaCha20Rng};
/// # let rng = &mut ChaCha20Rng::seed_from_u64(7);
/// // Once in a session.
/// let opening = Opening::new(rng);
/// let delta = Delta::random(rng);
/// let (mut sender, answer) = LabelSender::new(&delta, &opening.message(), rng)?;
/// let mut receiver = opening.finish(&answer)?;
///
/// // Any number of times: the receiver's labels are those of its bits.
/// let choices = Choices::of_numbers(&[5, 2], 3)?;
/// let (message, labels) = receiver.extend(&choices)?;
/// let zeros = sender.extend(&message, choices.len())?;
/// assert_eq!(labels, delta.active(&zeros, &choices)?);
/// # Ok::<(), gelu_garble::Error>(())
/// ```
#[derive(Debug)]
pub struct Opening(BaseSender);

impl Opening {
    /// Returns the beginning of a new session.
    pub fn new(rng: &mut dyn CryptoRng) -> Self {
        Self(BaseSender::new(rng))
    }

    /// Returns what the sender needs.
    pub fn message(&self) -> [u8; POINT_BYTES] {
        self.0.point()
    }

    /// Takes the sender's answer.
    ///
    /// # Errors
    /// [`Error::Length`] when the answer is not [`BASE_TRANSFERS`] points of [`POINT_BYTES`]; [`Error::Point`] when one of
    /// them is none.
    pub fn finish(self, answer: &[u8]) -> Result<LabelReceiver, Error> {
        let keys = self.0.keys(answer)?;
        Ok(LabelReceiver { seeds: keys.iter().map(|pair| pair.map(cipher)).collect(), at: 0 })
    }
}

/// The side that has bits and gets the labels of them: the evaluator.
pub struct LabelReceiver {
    seeds: Vec<[Aes128Enc; 2]>,
    /// Words of 128 transfers so far.
    at: u128,
}

impl LabelReceiver {
    /// Returns the message for the sender, and the labels of the bits.
    ///
    /// # Errors
    /// [`Error::Range`] when the bits are not 1 to [`MAX_TRANSFERS`].
    pub fn extend(&mut self, choices: &Choices) -> Result<(Vec<u8>, Labels), Error> {
        check_count(choices.len())?;
        let mut message = Vec::with_capacity(extension_bytes(choices.len()));
        let mut rows = Zeroizing::new(Vec::with_capacity(128 * choices.words().len()));
        let mut columns = Zeroizing::new(vec![[0; WORDS]; BASE_TRANSFERS]);
        let mut second = Zeroizing::new([0; WORDS]);
        for choices in choices.words().chunks(WORDS) {
            for (pair, column) in self.seeds.iter().zip(columns.iter_mut()) {
                let column = &mut column[..choices.len()];
                generate(&pair[0], self.at, column);
                generate(&pair[1], self.at, &mut second[..choices.len()]);
                for ((first, second), choices) in column.iter().zip(second.iter()).zip(choices) {
                    message.extend((first ^ second ^ choices).to_le_bytes());
                }
            }
            append_rows(&columns, choices.len(), &mut rows);
            self.at += choices.len() as u128;
        }
        Ok((message, labels(rows, choices.len())))
    }
}

/// The side that has the labels of zero: the garbler.
pub struct LabelSender {
    delta: Delta,
    seeds: Vec<Aes128Enc>,
    at: u128,
}

impl LabelSender {
    /// Takes the receiver's [`Opening`], and returns the answer to it.
    ///
    /// # Errors
    /// [`Error::Point`] when the opening is no point.
    pub fn new(
        delta: &Delta,
        opening: &[u8; POINT_BYTES],
        rng: &mut dyn CryptoRng,
    ) -> Result<(Self, Vec<u8>), Error> {
        let (points, keys) = receive(opening, delta.get(), rng)?;
        let seeds = keys.iter().copied().map(cipher).collect();
        Ok((Self { delta: delta.clone(), seeds, at: 0 }, points))
    }

    /// Returns the labels of zero of so many bits of the receiver's.
    ///
    /// # Errors
    /// [`Error::Range`] when they are not 1 to [`MAX_TRANSFERS`]; [`Error::Length`] when the message is not of
    /// [`extension_bytes`].
    pub fn extend(&mut self, message: &[u8], count: usize) -> Result<Labels, Error> {
        check_count(count)?;
        let expected = extension_bytes(count);
        if message.len() != expected {
            let what = "bytes of an extension of transfers";
            return Err(Error::Length { what, expected, found: message.len() });
        }
        let mut rows = Zeroizing::new(Vec::with_capacity(128 * count.div_ceil(128)));
        let mut columns = Zeroizing::new(vec![[0; WORDS]; BASE_TRANSFERS]);
        for batch in message.chunks(128 * 16 * WORDS) {
            let words = batch.len() / (128 * 16);
            let sent = batch.chunks_exact(16 * words);
            for (at, ((seed, column), sent)) in
                self.seeds.iter().zip(columns.iter_mut()).zip(sent).enumerate()
            {
                let column = &mut column[..words];
                generate(seed, self.at, column);
                let (sent, chosen) = (sent.as_chunks::<16>().0, mask(self.delta.get() >> at));
                column.iter_mut().zip(sent).for_each(|(x, sent)| *x ^= chosen & u128::from_le_bytes(*sent));
            }
            append_rows(&columns, words, &mut rows);
            self.at += words as u128;
        }
        Ok(labels(rows, count))
    }
}

fn check_count(found: usize) -> Result<(), Error> {
    if (1..=MAX_TRANSFERS).contains(&found) {
        return Ok(());
    }
    Err(Error::Range { what: "transfers of one message", least: 1, most: MAX_TRANSFERS, found })
}

/// Appends the rows of a matrix of 128 columns.
fn append_rows(columns: &[[u128; WORDS]], words: usize, rows: &mut Vec<u128>) {
    let mut square = Zeroizing::new([0; 128]);
    for word in 0..words {
        square.iter_mut().zip(columns).for_each(|(row, column)| *row = column[word]);
        transpose(&mut square);
        rows.extend_from_slice(&*square);
    }
}

/// The first `count` rows.
fn labels(mut rows: Zeroizing<Vec<u128>>, count: usize) -> Labels {
    if let Some(rest) = rows.get_mut(count..) {
        rest.zeroize();
    }
    rows.truncate(count);
    Labels::new(std::mem::take(&mut *rows))
}

/// Does not print the seeds.
impl fmt::Debug for LabelReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabelReceiver").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Does not print the secrets.
impl fmt::Debug for LabelSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabelSender").field("at", &self.at).finish_non_exhaustive()
    }
}
