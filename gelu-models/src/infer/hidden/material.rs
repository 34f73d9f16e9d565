//! What is prepared for a query: moved into it, and spent by it.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use gelu_garble::{LabelSeed, Labels};
use zeroize::Zeroizing;

use super::Block;
use crate::plan::{HiddenPlan, HiddenSegment};

/// Some queries that are prepared together, which are numbered on from those of the preparation before.
#[derive(Clone, Copy)]
pub(super) struct Preparation {
    pub(super) number: u32,
    /// How many.
    pub(super) queries: usize,
}

impl Preparation {
    /// The numbers of its queries.
    pub(super) fn queries(self) -> Range<u64> {
        let first = u64::from(self.number) * self.queries as u64;
        first..first + self.queries as u64
    }

    /// Where among them one of its queries is.
    pub(super) fn index(self, query: u64) -> usize {
        query.saturating_sub(self.queries().start) as usize
    }

    /// Its circuits, in the order in which they are asked for: segment by segment, of all queries.
    pub(super) fn blocks(self, hidden: &HiddenPlan) -> VecDeque<(Block, Range<usize>)> {
        let of_segment = |(segment, own): (u32, &HiddenSegment)| {
            let blocks: Vec<_> = (0..).zip(own.blocks()).collect();
            let query = move |query| {
                let block = move |(block, circuits)| (Block { query, segment, block }, circuits);
                blocks.clone().into_iter().map(block)
            };
            self.queries().flat_map(query).collect::<Vec<_>>()
        };
        (0..).zip(hidden.segments()).flat_map(of_segment).collect()
    }
}

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

impl Material {
    /// A place for each segment's.
    pub(super) fn of(hidden: &HiddenPlan) -> Self {
        let segment = |own: &HiddenSegment| {
            let results = own.reader_rings().map(|_| Zeroizing::default()).collect();
            SegmentMaterial { results, ..SegmentMaterial::default() }
        };
        Self { segments: hidden.segments().iter().map(segment).collect() }
    }
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
