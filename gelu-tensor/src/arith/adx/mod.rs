//! The ADX backend: the [portable](super::portable) kernels, with rows in assembly (`mulx`, `adcx` and `adox`).
//!
//! A limb product is multiplied without touching a flag (`mulx`, of BMI2), and the two chains of additions that it takes
//! part in, of the product and of its sum with the accumulator, carry in a flag each (`adcx` and `adox`), so that no carry
//! is ever saved. No compiler was seen to write that.
//!
//! The `unsafe` code of this folder is assembly on arrays and slices whose types or lengths say how long they are, after
//! [`Adx::detect`] has found the instructions.

use core::arch::asm;

use super::kernel::{Instructions, Kernel};
use super::portable::Context;
use super::portable::rows::{CHUNK, Rows};

/// Proof that this processor has BMI2 and ADX, made only by detection: its field is private.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adx(());

impl Adx {
    pub(super) fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("bmi2") && std::arch::is_x86_feature_detected!("adx");
        found.then_some(Self(()))
    }
}

impl Instructions for Adx {
    fn kernel(&self, n: &[u64]) -> Box<dyn Kernel> {
        Box::new(Context::new(*self, n))
    }

    /// Limb products with the additions that each of them takes, on registers alone.
    fn multiply_chains(&self) -> usize {
        const TURNS: usize = 12_500;
        const CHAINS: usize = 32;
        // SAFETY: the text touches no memory, and the processor has BMI2 and ADX, as the token proves.
        unsafe {
            asm!(
                "xor {low:e}, {low:e}",
                "2:",
                ".rept {pairs}",
                "mulx {high}, {low}, {limb}",
                "adcx {a}, {low}",
                "adox {b}, {high}",
                "mulx {high}, {low}, {limb}",
                "adcx {c}, {low}",
                "adox {d}, {high}",
                ".endr",
                "lea rcx, [rcx - 1]",
                "jrcxz 3f",
                "jmp 2b",
                "3:",
                pairs = const CHAINS / 2,
                inout("rcx") TURNS => _,
                limb = in(reg) 0x9E37_79B9_7F4A_7C15_u64,
                in("rdx") 0xC2B2_AE3D_27D4_EB4F_u64,
                low = out(reg) _,
                high = out(reg) _,
                a = inout(reg) 0_u64 => _,
                b = inout(reg) 0_u64 => _,
                c = inout(reg) 0_u64 => _,
                d = inout(reg) 0_u64 => _,
                options(nomem, nostack),
            );
        }
        TURNS * CHAINS
    }
}

impl Rows for Adx {
    /// Without a loop, for all lengths of moduli are even.
    #[inline(always)]
    fn multiply_add<const L: usize>(self, accumulator: &mut [u64; L], y: &[u64; L], x: u64) -> u64 {
        const { assert!(L.is_multiple_of(2)) };
        let carry;
        // SAFETY: the text reads L limbs from y and as many from the accumulator, where it writes them; the processor has
        // BMI2 and ADX, as the token proves.
        unsafe {
            asm!(
                // No carry in either flag.
                "xor {high:e}, {high:e}",
                ".set gelu_at, 0",
                ".rept {pairs}",
                "mulx {next}, {low}, [{y} + gelu_at]",
                "adcx {low}, {high}",
                "adox {low}, [{t} + gelu_at]",
                "mov [{t} + gelu_at], {low}",
                "mulx {high}, {low}, [{y} + gelu_at + 8]",
                "adcx {low}, {next}",
                "adox {low}, [{t} + gelu_at + 8]",
                "mov [{t} + gelu_at + 8], {low}",
                ".set gelu_at, gelu_at + 16",
                ".endr",
                // The sum fits one limb more, which takes both carries.
                "mov {low:e}, 0",
                "adcx {high}, {low}",
                "adox {high}, {low}",
                pairs = const L / 2,
                y = in(reg) y.as_ptr(),
                t = in(reg) accumulator.as_mut_ptr(),
                in("rdx") x,
                low = out(reg) _,
                next = out(reg) _,
                high = out(reg) carry,
                options(nostack),
            );
        }
        carry
    }

    #[inline(always)]
    fn multiply_add_chunks(self, accumulator: &mut [[u64; CHUNK]], y: &[[u64; CHUNK]], x: u64) -> u64 {
        let chunks = accumulator.len().min(y.len());
        let carry;
        // SAFETY: the text reads as many chunks from y and from the accumulator as both have, and writes those of the
        // accumulator; the processor has BMI2 and ADX, as the token proves.
        unsafe {
            asm!(
                "xor {high:e}, {high:e}",
                // Moves and jumps on rcx leave the flags alone.
                "jmp 3f",
                "2:",
                ".set gelu_at, 0",
                ".rept {pairs}",
                "mulx {next}, {low}, [{y} + gelu_at]",
                "adcx {low}, {high}",
                "adox {low}, [{t} + gelu_at]",
                "mov [{t} + gelu_at], {low}",
                "mulx {high}, {low}, [{y} + gelu_at + 8]",
                "adcx {low}, {next}",
                "adox {low}, [{t} + gelu_at + 8]",
                "mov [{t} + gelu_at + 8], {low}",
                ".set gelu_at, gelu_at + 16",
                ".endr",
                "lea {y}, [{y} + gelu_at]",
                "lea {t}, [{t} + gelu_at]",
                "lea rcx, [rcx - 1]",
                "3:",
                "jrcxz 4f",
                "jmp 2b",
                "4:",
                "adcx {high}, rcx",
                "adox {high}, rcx",
                pairs = const CHUNK / 2,
                y = inout(reg) y.as_ptr() => _,
                t = inout(reg) accumulator.as_mut_ptr() => _,
                inout("rcx") chunks => _,
                in("rdx") x,
                low = out(reg) _,
                next = out(reg) _,
                high = out(reg) carry,
                options(nostack),
            );
        }
        carry
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arith::portable::Portable;

    /// Limbs of all ones and all zeros are where carries go wrong.
    fn limb() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(1), Just(u64::MAX - 1), Just(u64::MAX), any::<u64>()]
    }

    /// The row limb by limb, with what does not fit in one limb more.
    fn expected(accumulator: &[u64], y: &[u64], x: u64) -> Vec<u64> {
        let mut carry = 0;
        let mut out: Vec<u64> = accumulator
            .iter()
            .zip(y)
            .map(|(&t, &y)| {
                let sum = u128::from(x) * u128::from(y) + u128::from(t) + u128::from(carry);
                carry = (sum >> 64) as u64;
                sum as u64
            })
            .collect();
        out.push(carry);
        out
    }

    fn row<const L: usize>(rows: impl Rows, accumulator: &[u64], y: &[u64], x: u64) -> Vec<u64> {
        let mut out = accumulator[..L].to_vec();
        let (t, y) = (&mut out.as_chunks_mut::<L>().0[0], &y.as_chunks::<L>().0[0]);
        let carry = rows.multiply_add(t, y, x);
        out.push(carry);
        out
    }

    fn check(rows: impl Rows, accumulator: &[u64], y: &[u64], x: u64) {
        let any = |length: usize| {
            let mut out = accumulator.to_vec();
            let carry = rows.multiply_add_any(&mut out[..length], &y[..length], x);
            assert_eq!(out[length..], accumulator[length..], "{length} limbs, and what follows");
            out[length] = carry;
            out.truncate(length + 1);
            out
        };
        for length in 0..accumulator.len() {
            assert_eq!(any(length), expected(&accumulator[..length], y, x), "{length} limbs");
        }
        let fixed = [
            row::<2>(rows, accumulator, y, x),
            row::<8>(rows, accumulator, y, x),
            row::<16>(rows, accumulator, y, x),
            row::<24>(rows, accumulator, y, x),
            row::<32>(rows, accumulator, y, x),
            row::<48>(rows, accumulator, y, x),
            row::<64>(rows, accumulator, y, x),
        ];
        for out in fixed {
            let length = out.len() - 1;
            assert_eq!(out, expected(&accumulator[..length], y, x), "{length} limbs");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn rows_of_all_lengths_are_sums_of_limb_products(
            accumulator in prop::collection::vec(limb(), 65), y in prop::collection::vec(limb(), 65), x in limb(),
        ) {
            check(Portable, &accumulator, &y, x);
            match Adx::detect() {
                Some(adx) => check(adx, &accumulator, &y, x),
                None => eprintln!("skipped: this processor has no BMI2 and ADX"),
            }
        }
    }

    #[test]
    fn rows_of_the_largest_limbs_carry_to_the_end() {
        let Some(adx) = Adx::detect() else {
            eprintln!("skipped: this processor has no BMI2 and ADX");
            return;
        };
        // (2^64 - 1)^2 + 2 (2^64 - 1) = 2^128 - 1: every limb carries.
        check(adx, &[u64::MAX; 65], &[u64::MAX; 65], u64::MAX);
    }
}
