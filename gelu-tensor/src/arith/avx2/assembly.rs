//! Sums of products mod n^2 in assembly (`tile.s`, `window.s`), for compilers reorder what they see and then have too few
//! registers.

use core::arch::naked_asm;
use core::arch::x86_64::__m256d;

use super::{Avx2, Quad};
use crate::arith::doubles::TILE;
use crate::arith::doubles::sums::{self, COLUMN, DOUBLE, HIGH, LIMB, LOW, Modulus, OFFSET, column_above};
use crate::arith::doubles::vector::Vector;

type Tile = sums::Tile<Quad>;
type Digit<const N: usize> = sums::Digit<Quad, N>;
type Lanes<const N: usize> = sums::Lanes<Quad, N>;

/// The most often that the upper sums of a window are taken.
const MOST_TAKEN: usize = 24;

/// What all sums need, in all lanes.
#[repr(C, align(64))]
struct Constants([[u64; 4]; 6 + MOST_TAKEN]);

static CONSTANTS: Constants = {
    let mut all = [[0; 4]; 6 + MOST_TAKEN];
    all[0] = [HIGH; 4];
    all[1] = [LOW; 4];
    all[2] = [LIMB; 4];
    all[3] = [DOUBLE; 4];
    all[4] = [OFFSET.to_bits(); 4];
    all[5] = [COLUMN; 4];
    let mut taken = 0;
    while taken < MOST_TAKEN {
        all[6 + taken] = [column_above(taken as u64); 4];
        taken += 1;
    }
    Constants(all)
};

/// What functions in assembly write to beside their result.
#[repr(C, align(64))]
struct Work<const N: usize> {
    taken: Tile,
    carries: [Quad; 3],
    last: Tile,
    quotients: Lanes<N>,
}

/// The function for N tiles: 2, 3, 5, 6, 9 or 12.
macro_rules! sized {
    ($n:ident, $two:ident, $three:ident, $five:ident, $six:ident, $nine:ident, $twelve:ident) => {{
        const { assert!(matches!($n, 2 | 3 | 5 | 6 | 9 | 12)) };
        let function: Function = match $n {
            2 => $two,
            3 => $three,
            5 => $five,
            6 => $six,
            9 => $nine,
            _ => $twelve,
        };
        function
    }};
}

/// Sums over R of products mod n^2, with the space that they need.
pub(in crate::arith) struct Sums<'a, const N: usize> {
    modulus: Modulus<'a, Quad, N>,
    work: Work<N>,
    twice: Digit<N>,
}

impl<'a, const N: usize> sums::Sums<'a, Quad, N> for Sums<'a, N> {
    #[inline(always)]
    fn new(modulus: Modulus<'a, Quad, N>) -> Self {
        let zero = Quad::splat(modulus.token, 0.0);
        let tile = [zero; TILE];
        let work = Work { taken: tile, carries: [zero; 3], last: tile, quotients: [[tile; N]; 2] };
        Self { modulus, work, twice: [tile; N] }
    }

    #[inline(always)]
    fn product(&mut self, x: &Lanes<N>, y: &Lanes<N>, out: &mut Lanes<N>) {
        let function = sized!(N, product_2, product_3, product_5, product_6, product_9, product_12);
        // SAFETY: the function reads two digits of N tiles each from x and y, and writes as many to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn product_low(&mut self, x: &Lanes<N>, y: &Digit<N>, out: &mut Lanes<N>) {
        let function = sized!(N, low_2, low_3, low_5, low_6, low_9, low_12);
        // SAFETY: the function reads two digits of N tiles each from x and one from y, and writes two to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn square(&mut self, x: &Lanes<N>, out: &mut Lanes<N>) {
        for (twice, &limb) in self.twice.as_flattened_mut().iter_mut().zip(x[0].as_flattened()) {
            *twice = limb.add(limb);
        }
        let function = sized!(N, square_2, square_3, square_5, square_6, square_9, square_12);
        let twice = self.twice.as_ptr().cast();
        // SAFETY: the function reads two digits of N tiles each from x and one from `twice`, and writes two to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), twice, out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn reduce(&mut self, x: &Lanes<N>, out: &mut Lanes<N>) {
        let function = sized!(N, reduce_2, reduce_3, reduce_5, reduce_6, reduce_9, reduce_12);
        let x = x.as_ptr().cast();
        // SAFETY: the function reads two digits of N tiles each from x, and writes as many to `out`.
        unsafe { self.run(function, x, x, out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn digit_product(&mut self, x: &Digit<N>, y: &Digit<N>, out: &mut Digit<N>) {
        let function = sized!(N, digit_2, digit_3, digit_5, digit_6, digit_9, digit_12);
        // SAFETY: the function reads a digit of N tiles each from x and y, and writes one to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn project(&mut self, x: &[Digit<N>; 4], y: &[Digit<N>; 6], out: &mut Lanes<N>) {
        const { assert!(N <= 6) };
        let function = sized!(N, project_2, project_3, project_5, project_6, project_6, project_6);
        // SAFETY: the function reads four digits of N tiles each from x and six from y, and writes two to `out`.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }

    #[inline(always)]
    fn combine<const M: usize>(&mut self, x: &[Digit<M>; 4], y: &[Digit<N>; 8], out: &mut Lanes<N>) {
        const { assert!(matches!([N, M], [3, 2] | [6, 3] | [9, 5] | [12, 6])) };
        let function = sized!(N, combine_3, combine_3, combine_6, combine_6, combine_9, combine_12);
        // SAFETY: the function reads four digits of M tiles each from x and eight of N tiles from y, and writes two to
        // `out`: it is the one for N and M, of which the assertion allows no others.
        unsafe { self.run(function, x.as_ptr().cast(), y.as_ptr().cast(), out.as_mut_ptr().cast()) };
    }
}

impl<const N: usize> Sums<'_, N> {
    /// Runs a function for N tiles.
    ///
    /// # Safety
    /// x, y and `out` must have what the function reads and writes there.
    #[inline(always)]
    unsafe fn run(&mut self, function: Function, x: *const __m256d, y: *const __m256d, out: *mut __m256d) {
        let work = (&raw mut self.work).cast();
        let modulus: &[Tile] = &self.modulus.constants[..2 * N + 2];
        // SAFETY: the work area and the constants are laid out as the function has them (repr(C)), the modulus has two digits
        // and two tiles (slicing panics otherwise), and all are aligned as vectors are; the caller vouches for the rest. The
        // function keeps to the calling convention, and the processor has AVX2 and FMA, as the modulus's token proves.
        unsafe { function(work, x, y, out, modulus.as_ptr().cast(), &CONSTANTS) };
    }
}

type Function = unsafe extern "sysv64" fn(
    work: *mut __m256d,
    x: *const __m256d,
    y: *const __m256d,
    out: *mut __m256d,
    modulus: *const __m256d,
    constants: &Constants,
);

/// Functions on sums in registers.
macro_rules! routines {
    ($($name:ident: $text:literal;)*) => { $(
        /// # Safety
        /// Only for the functions below, which have their sums and pointers in registers.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name() {
            naked_asm!(include_str!("tile.s"), $text, "ret");
        }
    )* };
}

routines! {
    full: "gelu_full";
    full_after_take: "gelu_full_after gelu_take_and_first";
    full_after_fold: "gelu_full_after gelu_fold_and_first";
    lower: "gelu_lower";
    upper: "gelu_upper";
    lower_square: "gelu_lower_square";
    upper_square: "gelu_upper_square";
    take: "gelu_each gelu_take";
    fold_take: "gelu_each gelu_fold_take";
    settle: "gelu_settle";
}

/// Functions that go through all windows of a sum.
macro_rules! functions {
    ($($name:ident: $text:literal;)*) => { $(
        /// # Safety
        /// The processor must have AVX2 and FMA, the pointers what [`Sums`] says of the function, aligned as vectors are.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name(
            work: *mut __m256d,
            x: *const __m256d,
            y: *const __m256d,
            out: *mut __m256d,
            modulus: *const __m256d,
            constants: &Constants,
        ) {
            naked_asm!(
                include_str!("window.s"),
                $text,
                full = sym full,
                full_after_take = sym full_after_take,
                full_after_fold = sym full_after_fold,
                lower = sym lower,
                upper = sym upper,
                lower_square = sym lower_square,
                upper_square = sym upper_square,
                take = sym take,
                fold_take = sym fold_take,
                settle = sym settle,
            );
        }
    )* };
}

functions! {
    product_2: "gelu_windows 2, gelu_a_c, gelu_a_d_b_c";
    product_3: "gelu_windows 3, gelu_a_c, gelu_a_d_b_c";
    product_5: "gelu_windows 5, gelu_a_c, gelu_a_d_b_c";
    product_6: "gelu_windows 6, gelu_a_c, gelu_a_d_b_c";
    product_9: "gelu_windows 9, gelu_a_c, gelu_a_d_b_c";
    product_12: "gelu_windows 12, gelu_a_c, gelu_a_d_b_c";
    low_2: "gelu_windows 2, gelu_a_c, gelu_b_c";
    low_3: "gelu_windows 3, gelu_a_c, gelu_b_c";
    low_5: "gelu_windows 5, gelu_a_c, gelu_b_c";
    low_6: "gelu_windows 6, gelu_a_c, gelu_b_c";
    low_9: "gelu_windows 9, gelu_a_c, gelu_b_c";
    low_12: "gelu_windows 12, gelu_a_c, gelu_b_c";
    square_2: "gelu_windows 2, gelu_a_a, gelu_2_a_b";
    square_3: "gelu_windows 3, gelu_a_a, gelu_2_a_b";
    square_5: "gelu_windows 5, gelu_a_a, gelu_2_a_b";
    square_6: "gelu_windows 6, gelu_a_a, gelu_2_a_b";
    square_9: "gelu_windows 9, gelu_a_a, gelu_2_a_b";
    square_12: "gelu_windows 12, gelu_a_a, gelu_2_a_b";
    reduce_2: "gelu_windows 2, gelu_a, gelu_b";
    reduce_3: "gelu_windows 3, gelu_a, gelu_b";
    reduce_5: "gelu_windows 5, gelu_a, gelu_b";
    reduce_6: "gelu_windows 6, gelu_a, gelu_b";
    reduce_9: "gelu_windows 9, gelu_a, gelu_b";
    reduce_12: "gelu_windows 12, gelu_a, gelu_b";
    digit_2: "gelu_windows 2, gelu_a_c";
    digit_3: "gelu_windows 3, gelu_a_c";
    digit_5: "gelu_windows 5, gelu_a_c";
    digit_6: "gelu_windows 6, gelu_a_c";
    digit_9: "gelu_windows 9, gelu_a_c";
    digit_12: "gelu_windows 12, gelu_a_c";
    project_2: "gelu_windows 2, gelu_project_lower, gelu_project_upper";
    project_3: "gelu_windows 3, gelu_project_lower, gelu_project_upper";
    project_5: "gelu_windows 5, gelu_project_lower, gelu_project_upper";
    project_6: "gelu_windows 6, gelu_project_lower, gelu_project_upper";
    combine_3: "gelu_combine 3, 2";
    combine_6: "gelu_combine 6, 3";
    combine_9: "gelu_combine 9, 5";
    combine_12: "gelu_combine 12, 6";
}

/// Products of limbs, as columns sum them, in chains that do not wait for each other, on registers alone; how many
/// multiply-adds: two for each product of four limbs.
pub(super) fn multiply_add_chains(_: Avx2) -> usize {
    const TURNS: usize = 50_000;
    // SAFETY: the function touches no memory, and the processor has AVX2 and FMA, as the token proves.
    unsafe { chains(TURNS, 0.75) };
    2 * TURNS * TILE
}

/// # Safety
/// The processor must have AVX2 and FMA.
#[unsafe(naked)]
unsafe extern "sysv64" fn chains(turns: usize, limb: f64) {
    naked_asm!(include_str!("tile.s"), "gelu_chains", "ret");
}
