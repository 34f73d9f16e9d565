//! Vectors of numbers, whose operations are those of the processor's: so that what is built on vectors is tested on processors
//! without IFMA, too.

use zeroize::Zeroize;

use super::vector::{ENTRIES, MOST_LANES, Vector};
use super::{Context, LIMB_BITS, LIMB_MASK, multiply_chains};
use crate::arith::kernel::{Instructions, Kernel, Work};

/// A limb for each lane.
#[derive(Clone, Copy)]
pub(super) struct Emulated<const LANES: usize>([u64; LANES]);

impl<const LANES: usize> Zeroize for Emulated<LANES> {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl<const LANES: usize> Emulated<LANES> {
    fn of_pairs(self, other: Self, operation: impl Fn(u64, u64) -> u64) -> Self {
        Self(std::array::from_fn(|lane| operation(self.0[lane], other.0[lane])))
    }

    /// `self` plus 52 bits, from `bit` on, of the product of the lower 52 bits of two limbs.
    fn multiply_add(self, x: Self, y: Self, bit: usize) -> Self {
        let product = |x: u64, y: u64| u128::from(x & LIMB_MASK) * u128::from(y & LIMB_MASK);
        self.of_pairs(x.of_pairs(y, |x, y| (product(x, y) >> bit) as u64 & LIMB_MASK), u64::wrapping_add)
    }
}

/// Functions of their own, where those of processors are one instruction: what calls them is compiled for all sizes of moduli.
impl<const LANES: usize> Vector for Emulated<LANES> {
    type Token = ();
    type Mask = [bool; LANES];
    type Entries<'a> = &'a [u64; ENTRIES];
    type Choice = [u64; MOST_LANES];

    const LANES: usize = LANES;
    /// As of the vectors with as many lanes that have the fewest registers.
    const ALL_SUMS_FIT: bool = LANES == MOST_LANES;

    fn run((): (), work: impl Work) {
        work.run();
    }

    #[inline(never)]
    fn splat((): (), limb: u64) -> Self {
        Self([limb; LANES])
    }

    #[inline(never)]
    fn load((): (), limbs: &[u64]) -> Self {
        Self(std::array::from_fn(|lane| limbs[lane]))
    }

    #[inline(never)]
    fn store(self, limbs: &mut [u64]) {
        limbs[..LANES].copy_from_slice(&self.0);
    }

    #[inline(never)]
    fn transpose(square: &mut [Self]) {
        for row in 0..LANES {
            for lane in row + 1..LANES {
                (square[row].0[lane], square[lane].0[row]) = (square[lane].0[row], square[row].0[lane]);
            }
        }
    }

    #[inline(never)]
    fn add(self, other: Self) -> Self {
        self.of_pairs(other, u64::wrapping_add)
    }

    #[inline(never)]
    fn sub(self, other: Self) -> Self {
        self.of_pairs(other, u64::wrapping_sub)
    }

    #[inline(never)]
    fn and(self, other: Self) -> Self {
        self.of_pairs(other, |x, y| x & y)
    }

    #[inline(never)]
    fn or(self, other: Self) -> Self {
        self.of_pairs(other, |x, y| x | y)
    }

    #[inline(never)]
    fn carried(self) -> Self {
        Self(self.0.map(|limb| limb >> LIMB_BITS))
    }

    #[inline(never)]
    fn multiply_add_low(self, x: Self, y: Self) -> Self {
        self.multiply_add(x, y, 0)
    }

    #[inline(never)]
    fn multiply_add_high(self, x: Self, y: Self) -> Self {
        self.multiply_add(x, y, LIMB_BITS)
    }

    #[inline(never)]
    fn equal(self, other: Self) -> [bool; LANES] {
        std::array::from_fn(|lane| self.0[lane] == other.0[lane])
    }

    #[inline(never)]
    fn replaced(self, mask: [bool; LANES], other: Self) -> Self {
        Self(std::array::from_fn(|lane| if mask[lane] { other.0[lane] } else { self.0[lane] }))
    }

    #[inline(never)]
    fn masked(self, mask: [bool; LANES]) -> Self {
        Self([0; LANES]).replaced(mask, self)
    }

    fn entries((): (), limbs: &[u64; ENTRIES]) -> &[u64; ENTRIES] {
        limbs
    }

    fn choice((): (), digits: [u64; MOST_LANES]) -> [u64; MOST_LANES] {
        digits
    }

    #[inline(never)]
    fn chosen(entries: &[u64; ENTRIES], digits: &[u64; MOST_LANES]) -> Self {
        Self(std::array::from_fn(|lane| entries[digits[lane] as usize]))
    }
}

/// The backends with so many lanes.
pub(in crate::arith) struct Emulation<const LANES: usize>;

impl<const LANES: usize> Instructions for Emulation<LANES> {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::<Emulated<LANES>>::new((), n))
    }

    fn multiply_chains(&self) -> usize {
        multiply_chains::<Emulated<LANES>>(())
    }
}
