//! Encrypted tensors in pieces, so that one piece is made while another travels and a third is worked on.

use rand::CryptoRng;
use zeroize::Zeroizing;

use crate::arith::{Backend, MAX_LANES, Residues};
use crate::paillier::{PublicKey, Randomizer, SecretKey};
use crate::{Arrangement, Contents, EncTensor, EncTensorHeader, Error, FixedTensor, SlotLayout};

/// Checked ciphertexts of one key: a run of those of an [`EncTensor`].
#[derive(Clone, Debug)]
pub struct EncChunk {
    key: PublicKey,
    ciphertexts: Residues,
}

impl EncChunk {
    /// The most bytes of ciphertexts that travel together.
    pub const BYTES: usize = 1 << 16;

    pub(crate) fn new(key: PublicKey, ciphertexts: Residues) -> Self {
        Self { key, ciphertexts }
    }

    /// Returns the most ciphertexts of `key` that a chunk has: whole vectors of them, as far as [`BYTES`](Self::BYTES) go.
    pub fn most(key: &PublicKey) -> usize {
        Self::BYTES / key.ciphertext_bytes() / MAX_LANES * MAX_LANES
    }

    /// Returns the chunk of ciphertexts from outside, each of [`PublicKey::ciphertext_bytes`] bytes.
    ///
    /// # Errors
    /// [`Error::Count`] when there is none, or they are too many or not whole; [`Error::Ciphertext`] when one is not
    /// below n^2 or no unit.
    pub fn decode(key: &PublicKey, ciphertexts: &[u8]) -> Result<Self, Error> {
        let (expected, found) = (Self::most(key), ciphertexts.len() / key.ciphertext_bytes());
        if found == 0 || found > expected {
            return Err(Error::Range { what: "ciphertexts of a chunk", least: 1, most: expected, found });
        }
        Ok(Self { key: key.clone(), ciphertexts: key.decode(ciphertexts)? })
    }

    /// Returns the chunk under the same key [on](PublicKey::on) a backend.
    ///
    /// # Errors
    /// [`Error::Backend`] when this machine does not have it.
    pub fn on(self, backend: Backend) -> Result<Self, Error> {
        let key = self.key.clone().on(backend)?;
        let numbers = self.key.ring().lower(&self.ciphertexts);
        let ciphertexts = key.ring().lift(&numbers, self.ciphertexts.len());
        Ok(Self { key, ciphertexts })
    }

    /// Returns its ciphertexts as bytes, [`PublicKey::ciphertext_bytes`] each.
    pub fn encode(&self) -> Vec<u8> {
        self.key.encode(&self.ciphertexts)
    }

    /// Returns the key that it is encrypted under.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the number of its ciphertexts: at least one.
    pub fn ciphertext_count(&self) -> usize {
        self.ciphertexts.len()
    }
}

/// Cuts ciphertexts into chunks of as many as travel together.
pub(crate) fn split(key: &PublicKey, ciphertexts: &Residues) -> Vec<EncChunk> {
    let (count, most) = (ciphertexts.len(), EncChunk::most(key));
    let chunk = |start| EncChunk::new(key.clone(), ciphertexts.gather(start..count.min(start + most)));
    (0..count).step_by(most).map(chunk).collect()
}

/// A tensor in the clear that is encrypted chunk by chunk.
pub struct Encryption {
    values: FixedTensor,
    layout: SlotLayout,
    count: usize,
    done: usize,
}

impl Encryption {
    /// Returns the encryption of `values` under `key`; nothing is encrypted yet.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a value does not fit a slot or the slots do not fit the key; [`Error::Layout`] when
    /// the layout is not one of this shape.
    pub fn new(values: FixedTensor, layout: &SlotLayout, key: &PublicKey) -> Result<Self, Error> {
        let header = values.header(layout)?;
        let count = header.check(key.size())?;
        Ok(Self { values, layout: header.layout, count, done: 0 })
    }

    /// Encrypts the next chunk; `None` after the last.
    pub fn next_chunk(&mut self, randomizer: &dyn Randomizer, rng: &mut dyn CryptoRng) -> Option<EncChunk> {
        let key = randomizer.public_key();
        let run = self.done..self.count.min(self.done + EncChunk::most(key));
        if run.is_empty() {
            return None;
        }
        self.done = run.end;
        let ciphertexts = self.values.encrypt_run(&self.layout, run, randomizer, rng);
        Some(EncChunk::new(key.clone(), ciphertexts))
    }

    /// Returns the number of ciphertexts that have been made.
    pub fn ciphertexts_made(&self) -> usize {
        self.done
    }

    /// Returns whether all ciphertexts have been made.
    pub fn is_complete(&self) -> bool {
        self.done == self.count
    }
}

/// Does not print the values.
impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").field("done", &self.done).finish_non_exhaustive()
    }
}

/// Which chunk may come next, and how many ciphertexts are missing still.
#[derive(Debug)]
struct Arrivals {
    key: PublicKey,
    chunks: u32,
    ciphertexts: usize,
    count: usize,
}

impl Arrivals {
    fn new(key: &PublicKey, header: &EncTensorHeader) -> Result<Self, Error> {
        Ok(Self { key: key.clone(), chunks: 0, ciphertexts: 0, count: header.check(key.size())? })
    }

    /// Takes note of a chunk, or refuses it.
    fn admit(&mut self, index: u32, chunk: &EncChunk) -> Result<(), Error> {
        self.key.check_same(&chunk.key)?;
        if index != self.chunks {
            return Err(Error::Order { expected: self.chunks, found: index });
        }
        let found = self.ciphertexts + chunk.ciphertext_count();
        if found > self.count {
            return Err(Error::Limit { what: "ciphertexts of a tensor", limit: self.count, found });
        }
        self.ciphertexts = found;
        self.chunks += 1;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.ciphertexts == self.count
    }
}

/// An encrypted tensor that arrives chunk by chunk, and is handed out in parts of some groups as they are complete.
#[derive(Debug)]
pub struct EncTensorBuilder {
    arrivals: Arrivals,
    header: EncTensorHeader,
    /// Groups of a part.
    part: usize,
    /// Groups that were handed out.
    taken: usize,
    /// The ciphertexts that were not.
    ciphertexts: Residues,
}

impl EncTensorBuilder {
    /// Returns a tensor that is handed out in parts of `part` [groups](SlotLayout::groups) (the last may have fewer).
    ///
    /// # Errors
    /// When the header does not fit the key; [`Error::Multiple`] when parts would share ciphertexts
    /// ([`SlotLayout::groups_apart`]).
    pub fn new(key: &PublicKey, header: EncTensorHeader, part: usize) -> Result<Self, Error> {
        let arrivals = Arrivals::new(key, &header)?;
        let expected = header.layout.groups_apart(&header.shape);
        if part == 0 || (part < header.groups() && !part.is_multiple_of(expected)) {
            return Err(Error::Multiple { what: "groups of a part", of: expected, found: part });
        }
        let ciphertexts = key.ring().empty(0);
        Ok(Self { arrivals, header, part, taken: 0, ciphertexts })
    }

    /// Takes the chunk of an index, counted from 0.
    ///
    /// # Errors
    /// [`Error::Count`] when another chunk comes next or the ciphertexts become too many; [`Error::ForeignKey`] when
    /// they are under another key.
    pub fn push(&mut self, index: u32, chunk: &EncChunk) -> Result<(), Error> {
        self.arrivals.admit(index, chunk)?;
        self.ciphertexts.append(&chunk.ciphertexts);
        Ok(())
    }

    /// Returns whether all ciphertexts have come.
    pub fn is_complete(&self) -> bool {
        self.arrivals.is_complete()
    }

    /// Returns whether all groups have been handed out.
    pub fn is_empty(&self) -> bool {
        self.taken == self.header.groups()
    }

    /// Returns whether the next part's ciphertexts have come and there is one.
    pub fn has_part(&self) -> bool {
        !self.is_empty() && self.ciphertexts.len() >= self.due().ciphertexts()
    }

    /// The header of the next part.
    fn due(&self) -> EncTensorHeader {
        self.header.part(self.taken..self.header.groups().min(self.taken + self.part))
    }

    /// Returns the next part, if its ciphertexts have come and there is one.
    pub fn next_part(&mut self) -> Option<EncTensor> {
        if !self.has_part() {
            return None;
        }
        let header = self.due();
        let count = header.ciphertexts();
        self.taken += header.groups();
        let rest = self.ciphertexts.gather(count..self.ciphertexts.len());
        let ciphertexts = if rest.is_empty() {
            std::mem::replace(&mut self.ciphertexts, rest)
        } else {
            let part = self.ciphertexts.gather(0..count);
            self.ciphertexts = rest;
            part
        };
        Some(EncTensor::new(self.arrivals.key.clone(), header, ciphertexts))
    }
}

/// An encrypted tensor that arrives chunk by chunk and is decrypted as it does.
pub struct Decryption {
    arrivals: Arrivals,
    header: EncTensorHeader,
    values: Zeroizing<Vec<i64>>,
}

impl Decryption {
    /// Returns the decryption of a tensor under `key`.
    ///
    /// # Errors
    /// When the header does not fit the key; [`Error::Layout`] for im2col, which holds values more than once, and for
    /// pieces, which hold none.
    pub fn new(key: &PublicKey, header: EncTensorHeader) -> Result<Self, Error> {
        let arrivals = Arrivals::new(key, &header)?;
        if let Arrangement::Patches(_) | Arrangement::Pieces(_) = header.layout.arrangement() {
            return Err(header.layout.misfit("decryption", "images or positions"));
        }
        let values = Zeroizing::new(vec![0; header.batch * header.shape.elements()]);
        Ok(Self { arrivals, header, values })
    }

    /// Decrypts the chunk of an index, counted from 0.
    ///
    /// # Errors
    /// As [`EncTensorBuilder::push`]; [`Error::ForeignKey`] when the key is another one; [`Error::Plaintext`] when a
    /// value is outside the format's bound.
    pub fn push(&mut self, index: u32, chunk: &EncChunk, key: &SecretKey) -> Result<(), Error> {
        let first = self.arrivals.ciphertexts;
        self.arrivals.admit(index, chunk)?;
        let public = key.public_key();
        self.arrivals.key.check_same(public)?;
        let plaintexts = key.decrypt(&chunk.ciphertexts)?;
        let (extent, modulus) = (self.header.extent(), public.ring().modulus());
        self.header.layout.unpack(&mut self.values, (&plaintexts, first), extent, modulus)
    }

    /// Returns the number of ciphertexts that have come.
    pub fn ciphertexts(&self) -> usize {
        self.arrivals.ciphertexts
    }

    /// Returns whether all ciphertexts have come.
    pub fn is_complete(&self) -> bool {
        self.arrivals.is_complete()
    }

    /// Returns the integers.
    ///
    /// # Errors
    /// [`Error::Count`] when ciphertexts are missing; [`Error::Layout`] when the slots hold residues.
    pub fn finish(mut self) -> Result<FixedTensor, Error> {
        self.check_complete()?;
        let Contents::Integers(format) = self.header.layout.contents() else {
            return Err(self.header.layout.misfit("decryption to integers", "integers"));
        };
        FixedTensor::new(self.header.shape, format, std::mem::take(&mut *self.values))
    }

    /// Returns the residues in `[0, 2^l)` of flooded sums.
    ///
    /// # Errors
    /// [`Error::Count`] when ciphertexts are missing; [`Error::Layout`] when the slots hold integers.
    pub fn finish_residues(self) -> Result<Zeroizing<Vec<u64>>, Error> {
        self.check_complete()?;
        match self.header.layout.contents() {
            Contents::Residues(_) => Ok(Zeroizing::new(self.values.iter().map(|&x| x as u64).collect())),
            Contents::Integers(_) => Err(self.header.layout.misfit("decryption to residues", "residues")),
        }
    }

    fn check_complete(&self) -> Result<(), Error> {
        if self.is_complete() {
            return Ok(());
        }
        let (expected, found) = (self.arrivals.count, self.arrivals.ciphertexts);
        Err(Error::Count { what: "ciphertexts of a tensor", expected, found })
    }
}

/// Does not print the values.
impl std::fmt::Debug for Decryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryption").field("arrivals", &self.arrivals).finish_non_exhaustive()
    }
}
