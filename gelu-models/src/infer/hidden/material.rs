//! What is prepared for a query: moved into it, and spent by it.

use std::fmt;

use gelu_garble::{LabelSeed, Labels};
use zeroize::Zeroizing;

/// A client's part.
pub(super) struct Prepared {
    pub(super) query: u64,
    pub(super) segments: Vec<PreparedSegment>,
}

/// Of one segment.
#[derive(Default)]
pub(super) struct PreparedSegment {
    /// What is taken off the inputs, term by term.
    pub(super) masks: Vec<Zeroizing<Vec<u64>>>,
    /// The shares of the sums.
    pub(super) sums: Zeroizing<Vec<u64>>,
    /// Each until it is evaluated.
    pub(super) blocks: Vec<Option<PreparedBlock>>,
}

/// Circuits and the labels of the client's shares. The tables come last.
pub(super) struct PreparedBlock {
    pub(super) labels: Labels,
    pub(super) tables: Vec<u8>,
}

/// A server's part.
pub(super) struct Material {
    pub(super) segments: Vec<SegmentMaterial>,
}

/// Of one segment.
#[derive(Default)]
pub(super) struct SegmentMaterial {
    /// What the client's shares of the sums have of the server's.
    pub(super) masks: Zeroizing<Vec<u64>>,
    /// What the labels of zero of the server's shares are made from, block by block.
    pub(super) seeds: Vec<LabelSeed>,
    /// The shares of the results, reader by reader.
    pub(super) results: Vec<Zeroizing<Vec<u64>>>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("query", &self.query).finish_non_exhaustive()
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}
