//! Batches of residues, which know their ring.

use std::fmt;

use zeroize::Zeroize;

use crate::Error;

/// A batch of residues mod n^2 under one key, in the form of one backend: ciphertexts, for the most part.
///
/// Wiped when dropped, because key material is held in it too. Never printed.
#[derive(Clone)]
pub struct Residues {
    form: Form,
    limbs: Vec<u64>,
}

/// Which [ring](super::Ring) residues are of, and in how many limbs each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// What tells rings apart: moduli and backends.
    pub(super) ring: u64,
    pub(super) width: usize,
}

/// One residue of several batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Which batch.
    pub(crate) table: u32,
    /// Which of its residues.
    pub(crate) index: u32,
}

impl Residues {
    /// An empty batch with room for `capacity`.
    pub(super) fn new(form: Form, capacity: usize) -> Self {
        Self { form, limbs: Vec::with_capacity(form.width * capacity) }
    }

    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Returns the number of residues.
    pub fn len(&self) -> usize {
        self.limbs.len() / self.form.width
    }

    /// Returns whether there are no residues.
    pub fn is_empty(&self) -> bool {
        self.limbs.is_empty()
    }

    /// Returns a copy of the residues at `indices`, in that order.
    ///
    /// # Errors
    /// [`Error::Count`] when there is none at one of them.
    pub fn select(&self, indices: &[usize]) -> Result<Self, Error> {
        match indices.iter().max() {
            Some(&last) if last >= self.len() => {
                let (least, found) = (last.saturating_add(1), self.len());
                Err(Error::TooFew { what: "residues", least, found })
            }
            _ => Ok(self.gather(indices.iter().copied())),
        }
    }

    /// Appends all residues of another batch.
    ///
    /// # Errors
    /// [`Error::ForeignResidues`].
    pub fn join(&mut self, other: &Self) -> Result<(), Error> {
        if self.form != other.form {
            return Err(Error::ForeignResidues);
        }
        self.append(other);
        Ok(())
    }

    /// A copy of the residues at `indices`, in that order.
    pub(crate) fn gather(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let indices = indices.into_iter();
        let mut out = Self::new(self.form, indices.size_hint().0);
        for index in indices {
            out.limbs.extend_from_slice(self.residue(index));
        }
        out
    }

    /// Appends all residues of another batch of the same ring.
    pub(crate) fn append(&mut self, other: &Self) {
        debug_assert!(self.form == other.form);
        self.limbs.extend_from_slice(&other.limbs);
    }

    /// Appends one residue of another batch of the same ring.
    pub(crate) fn append_one(&mut self, other: &Self, index: usize) {
        self.limbs.extend_from_slice(other.residue(index));
    }

    pub(super) fn limbs(&self) -> &[u64] {
        &self.limbs
    }

    pub(super) fn limbs_mut(&mut self) -> &mut [u64] {
        &mut self.limbs
    }

    pub(super) fn push_limbs(&mut self, limbs: &[u64]) {
        debug_assert_eq!(limbs.len() % self.form.width, 0);
        self.limbs.extend_from_slice(limbs);
    }

    /// Appends copies of the residues in `range`; the place of the first.
    pub(super) fn copy_to_end(&mut self, range: std::ops::Range<usize>) -> usize {
        let start = self.len();
        self.limbs.extend_from_within(range.start * self.form.width..range.end * self.form.width);
        start
    }

    pub(super) fn residue(&self, index: usize) -> &[u64] {
        &self.limbs[index * self.form.width..][..self.form.width]
    }
}

impl Drop for Residues {
    fn drop(&mut self) {
        self.limbs.zeroize();
    }
}

impl fmt::Debug for Residues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Residues({})", self.len())
    }
}
