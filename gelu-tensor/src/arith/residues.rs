use zeroize::Zeroize;

/// A batch of residues mod n^2, each in the Montgomery n-adic form of one [`Ring`](super::Ring).
///
/// A residue is two runs of limbs, `a` then `b`. Wiped when dropped, because key material is held in it too.
#[derive(Clone, Debug)]
pub struct Residues {
    width: usize,
    limbs: Vec<u64>,
}

/// One residue of several batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which batch.
    pub table: u32,
    /// Which of its residues.
    pub index: u32,
}

impl Residues {
    /// An empty batch of residues of `width` limbs with room for `capacity`.
    pub(super) fn new(width: usize, capacity: usize) -> Self {
        Self { width, limbs: Vec::with_capacity(width * capacity) }
    }

    /// How many residues.
    pub fn len(&self) -> usize {
        self.limbs.len() / self.width
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.limbs.is_empty()
    }

    /// A copy of the residues at `indices`, in that order.
    pub fn gather(&self, indices: impl IntoIterator<Item = usize>) -> Self {
        let indices = indices.into_iter();
        let mut out = Self::new(self.width, indices.size_hint().0);
        for index in indices {
            out.limbs.extend_from_slice(self.residue(index));
        }
        out
    }

    /// Appends all residues of another batch of the same ring.
    pub fn append(&mut self, other: &Self) {
        debug_assert_eq!(self.width, other.width);
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
        debug_assert_eq!(limbs.len() % self.width, 0);
        self.limbs.extend_from_slice(limbs);
    }

    /// Appends copies of the residues in `range`; the place of the first.
    pub(super) fn copy_to_end(&mut self, range: std::ops::Range<usize>) -> usize {
        let start = self.len();
        self.limbs.extend_from_within(range.start * self.width..range.end * self.width);
        start
    }

    pub(super) fn residue(&self, index: usize) -> &[u64] {
        &self.limbs[index * self.width..][..self.width]
    }
}

impl Drop for Residues {
    fn drop(&mut self) {
        self.limbs.zeroize();
    }
}
