//! What the operations of a [`Kernel`](super::kernel::Kernel) take beside the residues that they change.

use super::residues::{Entry, Residues};

/// The factors of a batch of products.
#[derive(Clone, Copy)]
pub(super) enum Factors<'a> {
    /// One for each residue.
    Each(&'a [u64]),
    /// For each residue several, one after another.
    Gather {
        /// The tables.
        tables: &'a [Residues],
        /// What each residue is multiplied with first, then what it is multiplied with next, and so on.
        entries: &'a [Entry],
    },
    /// The same for all.
    One(&'a [u64]),
}

/// Look-ups in the rows of a comb, which are arranged for selection.
#[derive(Clone, Copy)]
pub(super) struct Selection<'a> {
    pub(super) rows: &'a [Residues],
    /// How many times all rows are gone through, with a squaring in between.
    pub(super) rounds: usize,
    /// Which entry of a row a residue is multiplied with. Rows are counted on from round to round.
    pub(super) digit: &'a (dyn Fn(usize, usize) -> u64 + Sync),
    /// The residue of 1, for rows in [factored](super::kernel::Kernel::factored) form, which allow one round.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code))]
    pub(super) factored: Option<&'a [u64]>,
}
