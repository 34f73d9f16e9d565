//! Rows: the products of a number with one limb, added to another number. What every product is made of.

use super::Portable;

/// How rows are multiplied.
pub(in crate::arith) trait Rows: Copy + Send + Sync {
    /// `accumulator += x y`, returning the carry.
    fn multiply_add<const L: usize>(self, accumulator: &mut [u64; L], y: &[u64; L], x: u64) -> u64;

    /// The same in whole chunks, of which both have as many.
    fn multiply_add_chunks(self, accumulator: &mut [[u64; CHUNK]], y: &[[u64; CHUNK]], x: u64) -> u64;

    /// The same over as many limbs as both have.
    #[inline(always)]
    fn multiply_add_any(self, accumulator: &mut [u64], y: &[u64], x: u64) -> u64 {
        let (chunks, rest) = accumulator.as_chunks_mut::<CHUNK>();
        let (y_chunks, y_rest) = y.as_chunks::<CHUNK>();
        let mut high = self.multiply_add_chunks(chunks, y_chunks, x);
        for (t, &y) in rest.iter_mut().zip(y_rest) {
            (*t, high) = x.carrying_mul_add(y, *t, high);
        }
        high
    }
}

/// Limbs of a row that are worked on together, in registers.
pub(in crate::arith) const CHUNK: usize = 4;

impl Rows for Portable {
    #[inline(always)]
    fn multiply_add<const L: usize>(self, accumulator: &mut [u64; L], y: &[u64; L], x: u64) -> u64 {
        self.multiply_add_any(accumulator, y, x)
    }

    /// Two chains of additions run side by side, `x y` and its sum with the accumulator, and each keeps its own carry
    /// from chunk to chunk, so that neither waits for the other.
    #[inline(always)]
    fn multiply_add_chunks(self, accumulator: &mut [[u64; CHUNK]], y: &[[u64; CHUNK]], x: u64) -> u64 {
        let mut high: u64 = 0;
        let mut product_carry = false;
        let mut sum_carry = false;
        for (t, y) in accumulator.iter_mut().zip(y) {
            let mut product = [0; CHUNK];
            for (product, &y) in product.iter_mut().zip(y) {
                let (low, next) = x.carrying_mul(y, 0);
                (*product, product_carry) = low.carrying_add(high, product_carry);
                high = next;
            }
            for (t, product) in t.iter_mut().zip(product) {
                (*t, sum_carry) = t.carrying_add(product, sum_carry);
            }
        }
        // The sum is below 2^64 times the chunks' range, so its highest limb takes both carries.
        high.wrapping_add(u64::from(product_carry)).wrapping_add(u64::from(sum_carry))
    }
}
