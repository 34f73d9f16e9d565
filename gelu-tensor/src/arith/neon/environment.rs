//! The rounding of floating-point numbers, which is the processor's state.

use core::arch::asm;

/// Round to nearest, denormal numbers kept, no exception trapped: what Rust code is compiled for.
const DEFAULT: u64 = 0;

/// While it lives, sums and products are rounded to nearest, whatever a host that calls this library had set.
pub(in crate::arith) struct Nearest {
    found: u64,
}

impl Nearest {
    pub(super) fn new() -> Self {
        let found = read();
        if found != DEFAULT {
            write(DEFAULT);
        }
        Self { found }
    }
}

impl Drop for Nearest {
    fn drop(&mut self) {
        if self.found != DEFAULT {
            write(self.found);
        }
    }
}

/// FPCR, which has no flags of exceptions: those are in another register.
fn read() -> u64 {
    let fpcr;
    // SAFETY: reads a register that every AArch64 processor lets programs read. Memory counts as touched, so that no
    // arithmetic on what is loaded or stored moves over it.
    unsafe { asm!("mrs {}, fpcr", out(reg) fpcr, options(nostack, preserves_flags)) };
    fpcr
}

fn write(fpcr: u64) {
    // SAFETY: the value is the default or one that was read from the register, so that no reserved bit is set. What is not
    // the default is only put back where it was found.
    unsafe { asm!("msr fpcr, {}", in(reg) fpcr, options(nostack, preserves_flags)) };
}

#[cfg(test)]
pub(in crate::arith) mod tests {
    use super::*;

    /// Runs something with another rounding (1 upwards, 2 downwards, 3 towards 0), and flushing to zero.
    pub(in crate::arith) fn with_rounding(mode: u32, run: impl FnOnce()) {
        let bits = u64::from(mode) << 22 | 1 << 24;
        assert_eq!(read(), DEFAULT);
        write(bits);
        run();
        let after = read();
        write(DEFAULT);
        assert_eq!(after, bits);
    }

    #[test]
    fn what_was_found_is_put_back() {
        with_rounding(2, || {
            let _nearest = Nearest::new();
            assert_eq!(read(), DEFAULT);
        });
    }
}
