//! The rounding of floating-point numbers, which is the processor's state.

use core::arch::asm;

/// Round to nearest, all exceptions masked, denormal numbers kept: what Rust code is compiled for.
const DEFAULT: u32 = 0x1F80;
/// All bits but the flags of exceptions that there were.
const CONTROL: u32 = !0x3F & 0xFFFF;

/// While it lives, sums and products are rounded to nearest, whatever a host that calls this library had set.
pub(in crate::arith) struct Nearest {
    found: u32,
}

impl Nearest {
    pub(in crate::arith) fn new() -> Self {
        let found = read();
        if found & CONTROL != DEFAULT {
            write(DEFAULT);
        }
        Self { found }
    }
}

impl Drop for Nearest {
    fn drop(&mut self) {
        if self.found & CONTROL != DEFAULT {
            write(self.found);
        }
    }
}

fn read() -> u32 {
    let mut mxcsr = 0u32;
    // SAFETY: stores the four bytes of MXCSR where a u32 is.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut mxcsr, options(nostack, preserves_flags)) };
    mxcsr
}

fn write(mxcsr: u32) {
    // SAFETY: reads four bytes of a u32, whose value is the default of MXCSR or one that was read from it, so that no
    // reserved bit is set. What is not the default is only put back where it was found.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack, preserves_flags)) };
}

#[cfg(test)]
pub(in crate::arith) mod tests {
    use super::*;

    /// Runs something with another rounding (1 downwards, 2 upwards, 3 towards 0), and flushing to zero.
    pub(in crate::arith) fn with_rounding(mode: u32, run: impl FnOnce()) {
        let bits = mode << 13 | 1 << 15;
        assert_eq!(read() & CONTROL, DEFAULT);
        write(DEFAULT | bits);
        run();
        let after = read();
        write(DEFAULT);
        assert_eq!(after & CONTROL, DEFAULT | bits);
    }

    #[test]
    fn what_was_found_is_put_back() {
        with_rounding(1, || {
            let _nearest = Nearest::new();
            assert_eq!(read() & CONTROL, DEFAULT);
        });
    }
}
