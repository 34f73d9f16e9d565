//! What the kernels need of vectors, whichever instructions they are made of.

use zeroize::Zeroize;

use crate::arith::comb::WINDOW;
use crate::arith::kernel::Work;

/// The most residues in a vector.
pub(super) const MOST_LANES: usize = 8;

/// Entries of a table that [`Vector::chosen`] chooses from.
pub(super) const ENTRIES: usize = 1 << WINDOW;

/// A 64-bit limb for each of [`LANES`](Self::LANES) residues.
///
/// Vectors are made with a token that only detection of their instructions gives out. So there is none on another processor,
/// and what is done to one needs no proof of its own.
///
/// All functions are inlined: instructions are compiled as such only within [`run`](Self::run).
pub(super) trait Vector: Copy + Zeroize + Send + Sync + 'static {
    /// Proof that this processor has the instructions.
    type Token: Copy + Send + Sync;

    /// Which lanes.
    type Mask: Copy;

    /// A limb of all entries of a table.
    type Entries<'a>: Copy;

    /// An entry of a table for each lane.
    type Choice: Copy;

    /// Residues in a vector: 8 or 4.
    const LANES: usize;

    /// Whether the sums of a tile's lower and upper halves fit the registers together.
    const ALL_SUMS_FIT: bool;

    /// Does something in a function of its own, which is compiled for the instructions.
    fn run(token: Self::Token, work: impl Work);

    /// A limb in all lanes.
    fn splat(token: Self::Token, limb: u64) -> Self;

    /// The first limbs of a slice, one for each lane.
    fn load(token: Self::Token, limbs: &[u64]) -> Self;

    /// The reverse of [`load`](Self::load).
    fn store(self, limbs: &mut [u64]);

    /// Limb i of vector j becomes limb j of vector i, for as many vectors as there are lanes.
    fn transpose(square: &mut [Self]);

    fn add(self, other: Self) -> Self;

    fn sub(self, other: Self) -> Self;

    fn and(self, other: Self) -> Self;

    fn or(self, other: Self) -> Self;

    /// What 52-bit limbs carry.
    fn carried(self) -> Self;

    /// `self` plus the lower 52 bits of the product of two numbers of 52 bits.
    fn multiply_add_low(self, x: Self, y: Self) -> Self;

    /// `self` plus the upper 52 bits of the product.
    fn multiply_add_high(self, x: Self, y: Self) -> Self;

    /// The lanes that are equal.
    fn equal(self, other: Self) -> Self::Mask;

    /// `other` in the lanes of the mask.
    fn replaced(self, mask: Self::Mask, other: Self) -> Self;

    /// 0 but in the lanes of the mask.
    fn masked(self, mask: Self::Mask) -> Self;

    /// A limb of all entries of a table.
    fn entries(token: Self::Token, limbs: &[u64; ENTRIES]) -> Self::Entries<'_>;

    /// Which entry each lane takes.
    fn choice(token: Self::Token, digits: [u64; MOST_LANES]) -> Self::Choice;

    /// The limb of the entry that each lane takes, by permutations and masks in registers, so that no address depends on
    /// which.
    fn chosen(entries: Self::Entries<'_>, choice: &Self::Choice) -> Self;
}
