//! What the kernels need of vectors, whichever instructions they are made of.

use zeroize::Zeroize;

use super::sums::Sums;
use crate::arith::comb::WINDOW;
use crate::arith::kernel::Work;

/// The most residues in a vector.
pub(in crate::arith) const MOST_LANES: usize = 8;

/// Entries of a table that [`Vector::chosen`] chooses from.
pub(in crate::arith) const ENTRIES: usize = 1 << WINDOW;

/// A double for each of [`LANES`](Self::LANES) residues, and its 64 bits.
///
/// Vectors are made with a token that only detection of their instructions gives out. So there is none on another processor,
/// and what is done to one needs no proof of its own.
///
/// All functions are inlined: instructions are compiled as such only within [`run`](Self::run).
pub(in crate::arith) trait Vector: Copy + Zeroize + Send + Sync + 'static {
    /// Proof that this processor has the instructions.
    type Token: Copy + Send + Sync;

    /// While one lives, numbers are rounded to nearest.
    type Nearest;

    /// An entry of a table for each lane.
    type Choice: Copy;

    /// What takes a rest that fills no more than half a vector; where there is nothing narrower, this vector.
    type Half: Vector;

    /// Sums of products.
    type Sums<'a, const N: usize>: Sums<'a, Self, N>;

    /// Residues in a vector: 8, 4 or 2.
    const LANES: usize;

    /// Rounds to nearest from here on, whatever a host that calls this library had set.
    fn nearest(token: Self::Token) -> Self::Nearest;

    /// Does something in a function of its own, which is compiled for the instructions.
    fn run(token: Self::Token, work: impl Work);

    /// A number in all lanes.
    fn splat(token: Self::Token, number: f64) -> Self;

    /// A limb's bits for each lane.
    fn of_lanes(token: Self::Token, bits: [u64; MOST_LANES]) -> Self;

    /// From two limbs of each lane's row to two vectors.
    fn of_rows<'a>(token: Self::Token, row: impl Fn(usize) -> &'a [u64; 2]) -> [Self; 2];

    /// The reverse of [`of_rows`](Self::of_rows), for as many rows as there are.
    fn to_rows<'a>(columns: [Self; 2], rows: impl Iterator<Item = &'a mut [u64; 2]>);

    fn add(self, other: Self) -> Self;

    fn sub(self, other: Self) -> Self;

    fn mul(self, other: Self) -> Self;

    /// `self - x y`, rounded once.
    fn multiply_sub(self, x: Self, y: Self) -> Self;

    /// The nearest integer.
    fn rounded(self) -> Self;

    /// All ones in all lanes if two numbers are equal, else all zeros.
    fn equal(token: Self::Token, x: u64, y: u64) -> Self;

    /// `other` where a mask has ones.
    fn replaced(self, mask: Self, other: Self) -> Self;

    /// Which entry each lane takes.
    fn choice(token: Self::Token, digits: [u64; MOST_LANES]) -> Self::Choice;

    /// The limb of the entry that each lane takes, by permutations and blends in registers, so that no address depends on
    /// which.
    fn chosen(limbs: &[u64; ENTRIES], choice: &Self::Choice) -> Self;
}

/// What [sums in Rust](super::windows) need besides.
#[cfg(any(test, target_arch = "aarch64"))]
pub(in crate::arith) trait Bits: Vector {
    /// `self + x y`, rounded once.
    fn multiply_add(self, x: Self, y: Self) -> Self;

    /// The sum of both as integers of 64 bits.
    fn add_bits(self, other: Self) -> Self;

    fn and_bits(self, other: Self) -> Self;

    fn or_bits(self, other: Self) -> Self;

    /// What limbs of 49 bits carry.
    fn carried(self) -> Self;
}
