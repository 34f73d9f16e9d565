//! Sums of products mod n^2 in assembly (`tile.s`, `window.s`), for compilers reorder what they see and then have too few
//! registers.

use super::functions::{Function, Functions};
use crate::arith::doubles::TILE;
use crate::arith::doubles::sums::{
    self, COLUMN, DOUBLE, Digit, HIGH, LIMB, LOW, Lanes, Modulus, OFFSET, Tile, column_above,
};
use crate::arith::doubles::vector::Vector;

/// Vectors that have their sums in assembly.
///
/// # Safety
/// A vector is laid out as a register is, and aligned so; the functions are those for vectors of its size, and run wherever
/// there is a token.
pub(in crate::arith) unsafe trait Assembled: Vector {
    const FUNCTIONS: Functions;

    /// The start of [`Constants`] for as many lanes.
    fn constants() -> *const u64;
}

/// The most often that the upper sums of a window are taken.
const MOST_TAKEN: usize = 24;

/// What all sums need, in all lanes.
#[repr(C, align(64))]
pub(in crate::arith) struct Constants<const LANES: usize>([[u64; LANES]; 6 + MOST_TAKEN]);

impl<const LANES: usize> Constants<LANES> {
    pub(in crate::arith) const fn new() -> Self {
        let mut all = [[0; LANES]; 6 + MOST_TAKEN];
        all[0] = [HIGH; LANES];
        all[1] = [LOW; LANES];
        all[2] = [LIMB; LANES];
        all[3] = [DOUBLE; LANES];
        all[4] = [OFFSET.to_bits(); LANES];
        all[5] = [COLUMN; LANES];
        let mut taken = 0;
        while taken < MOST_TAKEN {
            all[6 + taken] = [column_above(taken as u64); LANES];
            taken += 1;
        }
        Self(all)
    }

    pub(in crate::arith) const fn start(&self) -> *const u64 {
        self.0.as_flattened().as_ptr()
    }
}

/// What functions in assembly write to beside their result.
#[repr(C, align(64))]
struct Work<V, const N: usize> {
    taken: Tile<V>,
    carries: [V; 3],
    last: Tile<V>,
    quotients: Lanes<V, N>,
}

/// Sums over R of products mod n^2, with the space that they need.
pub(in crate::arith) struct Sums<'a, V: Assembled, const N: usize> {
    modulus: Modulus<'a, V, N>,
    work: Work<V, N>,
    twice: Digit<V, N>,
}

impl<'a, V: Assembled, const N: usize> sums::Sums<'a, V, N> for Sums<'a, V, N> {
    #[inline(always)]
    fn new(modulus: Modulus<'a, V, N>) -> Self {
        let zero = V::splat(modulus.token, 0.0);
        let tile = [zero; TILE];
        let work = Work { taken: tile, carries: [zero; 3], last: tile, quotients: [[tile; N]; 2] };
        Self { modulus, work, twice: [tile; N] }
    }

    #[inline(always)]
    fn product(&mut self, x: &Lanes<V, N>, y: &Lanes<V, N>, out: &mut Lanes<V, N>) {
        let function = V::FUNCTIONS.product[const { size(N) }];
        // SAFETY: the function reads two digits of N tiles each from x and y, and writes as many to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn product_low(&mut self, x: &Lanes<V, N>, y: &Digit<V, N>, out: &mut Lanes<V, N>) {
        let function = V::FUNCTIONS.low[const { size(N) }];
        // SAFETY: the function reads two digits of N tiles each from x and one from y, and writes two to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn square(&mut self, x: &Lanes<V, N>, out: &mut Lanes<V, N>) {
        for (twice, &limb) in self.twice.as_flattened_mut().iter_mut().zip(x[0].as_flattened()) {
            *twice = limb.add(limb);
        }
        let function = V::FUNCTIONS.square[const { size(N) }];
        let twice = self.twice.as_ptr().cast();
        // SAFETY: the function reads two digits of N tiles each from x and one from `twice`, and writes two to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), twice, out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn reduce(&mut self, x: &Lanes<V, N>, out: &mut Lanes<V, N>) {
        let function = V::FUNCTIONS.reduce[const { size(N) }];
        let x = x.as_ptr().cast();
        // SAFETY: the function reads two digits of N tiles each from x, and writes as many to `out`.
        unsafe { self.run(function, x, x, out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn digit_product(&mut self, x: &Digit<V, N>, y: &Digit<V, N>, out: &mut Digit<V, N>) {
        let function = V::FUNCTIONS.digit[const { size(N) }];
        // SAFETY: the function reads a digit of N tiles each from x and y, and writes one to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn project(&mut self, x: &[Digit<V, N>; 4], y: &[Digit<V, N>; 6], out: &mut Lanes<V, N>) {
        const { assert!(N <= 6) };
        let function = V::FUNCTIONS.project[const { size(N) }];
        // SAFETY: the function reads four digits of N tiles each from x and six from y, and writes two to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn combine<const M: usize>(&mut self, x: &[Digit<V, M>; 4], y: &[Digit<V, N>; 8], out: &mut Lanes<V, N>) {
        const { assert!(matches!([N, M], [3, 2] | [6, 3] | [9, 5] | [12, 6])) };
        let function = V::FUNCTIONS.combine[const { N / 3 - 1 }];
        // SAFETY: the function reads four digits of M tiles each from x and eight of N tiles from y, and writes two to
        // `out`: it is the one for N and M, of which the assertion allows no others.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }
}

impl<V: Assembled, const N: usize> Sums<'_, V, N> {
    /// Runs a function for N tiles.
    ///
    /// # Safety
    /// x, y and `out` must have what the function reads and writes there.
    #[inline(always)]
    unsafe fn run(&mut self, function: Function, x: *const V, y: *const V, out: *mut V) {
        let work = (&raw mut self.work).cast();
        let modulus: &[Tile<V>] = &self.modulus.constants[..2 * N + 2];
        let [x, y] = [x, y].map(|digits| digits.cast());
        // SAFETY: the work area and the constants are laid out as the function has them (repr(C)), the modulus has two digits
        // and two tiles (slicing panics otherwise), and all are aligned as vectors are; the caller vouches for the rest. The
        // function keeps to the calling convention, and the processor has its instructions, as the modulus's token proves.
        unsafe { function(work, x, y, out.cast(), modulus.as_ptr().cast(), V::constants()) };
    }
}

/// Products of limbs, as columns sum them, in chains that do not wait for each other, on registers alone; how many
/// multiply-adds: two for each product of as many limbs as there are lanes.
pub(in crate::arith) fn multiply_add_chains<V: Assembled>(_: V::Token) -> usize {
    const TURNS: usize = 50_000;
    // SAFETY: the function touches no memory, and the processor has its instructions, as the token proves.
    unsafe { (V::FUNCTIONS.chains)(TURNS, 0.75) };
    2 * TURNS * TILE
}

/// The place of the function for N tiles among those for 2, 3, 5, 6, 9 and 12.
const fn size(n: usize) -> usize {
    match n {
        2 => 0,
        3 => 1,
        5 => 2,
        6 => 3,
        9 => 4,
        _ => {
            assert!(n == 12);
            5
        }
    }
}
