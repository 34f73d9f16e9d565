//! The functions in assembly, for vectors of 32 bytes and of 64.

use core::arch::naked_asm;

/// From a work area, two factors, a modulus and the constants of sums to a result, as [`Sums`](super::assembly::Sums) has
/// them.
pub(in crate::arith) type Function = unsafe extern "sysv64" fn(
    work: *mut f64,
    x: *const f64,
    y: *const f64,
    out: *mut f64,
    modulus: *const f64,
    constants: *const u64,
);

/// One of each kind for 2, 3, 5, 6, 9 and 12 tiles, but projections for no more than 6, and combinations for 3, 6, 9 and 12.
pub(in crate::arith) struct Functions {
    pub(super) product: [Function; 6],
    pub(super) low: [Function; 6],
    pub(super) square: [Function; 6],
    pub(super) reduce: [Function; 6],
    pub(super) digit: [Function; 6],
    pub(super) project: [Function; 4],
    pub(super) combine: [Function; 4],
    /// Products of limbs, as columns sum them, in chains that do not wait for each other, on registers alone, with a limb and
    /// a number of turns that four divides.
    pub(super) chains: unsafe extern "sysv64" fn(turns: usize, limb: f64),
}

/// Functions on sums in registers.
macro_rules! routines {
    ($bytes:literal $($name:ident: $text:literal;)*) => { $(
        /// # Safety
        /// Only for the functions below, which have their sums and pointers in registers.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name() {
            naked_asm!(
                concat!(".set .Lbytes, ", $bytes),
                include_str!("vector.s"),
                include_str!("tile.s"),
                $text,
                "ret"
            );
        }
    )* };
}

/// Functions that go through all windows of a sum.
macro_rules! windows {
    ($bytes:literal $($name:ident: $text:literal;)*) => { $(
        /// # Safety
        /// The processor must have the instructions of vectors of so many bytes (AVX2 and FMA, or AVX-512 F), the pointers
        /// what [`Sums`](super::assembly::Sums) says of the function, aligned as vectors are.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn $name(
            work: *mut f64,
            x: *const f64,
            y: *const f64,
            out: *mut f64,
            modulus: *const f64,
            constants: *const u64,
        ) {
            naked_asm!(
                concat!(".set .Lbytes, ", $bytes),
                include_str!("vector.s"),
                include_str!("routines.s"),
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

/// All of them for vectors of so many bytes.
///
/// They are items of a block, not of a module, so that one assembler reads both sizes: always, and so in every test.
macro_rules! functions {
    ($bytes:literal) => {{
        const FUNCTIONS: Functions = Functions {
            product: [product_2, product_3, product_5, product_6, product_9, product_12],
            low: [low_2, low_3, low_5, low_6, low_9, low_12],
            square: [square_2, square_3, square_5, square_6, square_9, square_12],
            reduce: [reduce_2, reduce_3, reduce_5, reduce_6, reduce_9, reduce_12],
            digit: [digit_2, digit_3, digit_5, digit_6, digit_9, digit_12],
            project: [project_2, project_3, project_5, project_6],
            combine: [combine_3, combine_6, combine_9, combine_12],
            chains,
        };

        routines! {
            $bytes
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

        windows! {
            $bytes
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

        /// # Safety
        /// The processor must have the instructions of vectors of so many bytes.
        #[unsafe(naked)]
        unsafe extern "sysv64" fn chains(turns: usize, limb: f64) {
            naked_asm!(
                concat!(".set .Lbytes, ", $bytes),
                include_str!("vector.s"),
                include_str!("tile.s"),
                "gelu_chains",
                "ret"
            );
        }

        FUNCTIONS
    }};
}

pub(super) const YMM: Functions = functions!(32);

pub(in crate::arith) const ZMM: Functions = functions!(64);
