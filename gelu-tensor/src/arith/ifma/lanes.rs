//! Rows of limbs to vectors, whose lanes are rows, and back.

use core::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

use super::reduction::{Half, TILE};
use super::vector::{ENTRIES, MOST_LANES, Vector};

/// `out[k]` takes limb k of each row, for as many limbs as `out` has. Rows must have that many, rounded up to lanes.
#[inline(always)]
pub(super) fn load<'a, V: Vector>(token: V::Token, out: &mut [V], row: impl Fn(usize) -> &'a [u64]) {
    let mut rows: [&[u64]; MOST_LANES] = [&[]; MOST_LANES];
    for (lane, limbs) in rows[..V::LANES].iter_mut().enumerate() {
        *limbs = row(lane);
    }
    for (block, out) in out.chunks_mut(V::LANES).enumerate() {
        let mut square = [V::splat(token, 0); MOST_LANES];
        let square = &mut square[..V::LANES];
        for (vector, row) in square.iter_mut().zip(rows) {
            *vector = V::load(token, &row[block * V::LANES..]);
        }
        V::transpose(square);
        out.copy_from_slice(&square[..out.len()]);
    }
}

/// The reverse of [`load`] for the first `rows.len() / width` lanes.
#[inline(always)]
pub(super) fn store<V: Vector>(token: V::Token, rows: &mut [u64], width: usize, vectors: &[V]) {
    for (block, vectors) in vectors.chunks(V::LANES).enumerate() {
        let mut square = [V::splat(token, 0); MOST_LANES];
        let square = &mut square[..V::LANES];
        square[..vectors.len()].copy_from_slice(vectors);
        V::transpose(square);
        for (row, vector) in rows.chunks_exact_mut(width).zip(square) {
            vector.store(&mut row[block * V::LANES..]);
        }
    }
}

/// Limb k of one residue in all lanes of `out[k]`.
#[inline(always)]
pub(super) fn broadcast<V: Vector>(token: V::Token, out: &mut [V], residue: &[u64]) {
    for (out, &limb) in out.iter_mut().zip(residue) {
        *out = V::splat(token, limb);
    }
}

/// `out[k]` takes vector k of the entry `digit`, reading every entry, so that no address depends on the digit.
#[inline(always)]
pub(super) fn select_entry<'a, V: Vector>(
    token: V::Token,
    out: &mut [V],
    entries: impl Iterator<Item = &'a [V]>,
    digit: u64,
) {
    let digit = V::splat(token, digit);
    for (index, entry) in (0u64..).zip(entries) {
        let here = digit.equal(V::splat(token, index));
        for (out, &vector) in out.iter_mut().zip(entry) {
            *out = out.replaced(here, vector);
        }
    }
}

/// Asks for limbs to be in the cache soon.
#[inline(always)]
pub(super) fn prefetch(limbs: &[u64]) {
    for line in limbs.chunks(8) {
        // SAFETY: every x86-64 processor has SSE; what is asked for is a slice's.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
}

/// Groups of lanes that go through a table together, so that it is read once.
pub(super) const GROUPS: usize = 4;

/// Entry `digits[lane]` of a table of 64 entries, which holds limb after limb, for up to [`GROUPS`] groups of lanes:
/// `out[group][k]` takes limb k.
///
/// All entries are read, once for all groups, so that no address depends on a digit.
#[inline(always)]
pub(super) fn select<V: Vector, const N: usize>(
    token: V::Token,
    out: &mut [[Half<V, N>; 2]],
    table: &[u64],
    digits: &[[u64; MOST_LANES]; GROUPS],
) {
    let mut choices = [V::choice(token, [0; MOST_LANES]); GROUPS];
    for (choice, &digits) in choices.iter_mut().zip(digits) {
        *choice = V::choice(token, digits);
    }
    for (k, limbs) in table.as_chunks::<ENTRIES>().0.iter().take(2 * N * TILE).enumerate() {
        let entries = V::entries(token, limbs);
        for (out, choice) in out.iter_mut().zip(&choices) {
            out.as_flattened_mut().as_flattened_mut()[k] = V::chosen(entries, choice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arith::ifma::emulated::Emulated;
    use crate::arith::ifma::narrow::{Avx512Vl, AvxIfma, Evex, Vex};
    use crate::arith::ifma::wide::{Ifma, Wide};
    use crate::arith::kernel::Work;

    struct ThereAndBack<V: Vector>(V::Token);

    impl<V: Vector> Work for ThereAndBack<V> {
        #[inline(always)]
        fn run(self) {
            let (lanes, width) = (V::LANES, 24);
            let rows: Vec<u64> =
                (0..(lanes * width) as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
            let mut vectors = vec![V::splat(self.0, 0); 20];
            load(self.0, &mut vectors, |lane| &rows[lane * width..][..width]);
            for (k, vector) in vectors.iter().enumerate() {
                let mut limbs = [0; MOST_LANES];
                vector.store(&mut limbs);
                for (lane, &limb) in limbs[..lanes].iter().enumerate() {
                    assert_eq!(limb, rows[lane * width + k]);
                }
            }
            let mut back = vec![0; 3 * width];
            store(self.0, &mut back, width, &vectors);
            for (lane, row) in back.chunks(width).enumerate() {
                assert_eq!(row[..20], rows[lane * width..][..20]);
            }
        }
    }

    #[test]
    fn load_then_store_gives_the_rows_back() {
        match Ifma::detect() {
            Some(token) => Wide::run(token, ThereAndBack::<Wide>(token)),
            None => eprintln!("skipped: this processor has no AVX-512 IFMA"),
        }
        match Avx512Vl::detect() {
            Some(token) => Evex::run(token, ThereAndBack::<Evex>(token)),
            None => eprintln!("skipped: this processor has no AVX-512 IFMA with VL"),
        }
        match AvxIfma::detect() {
            Some(token) => Vex::run(token, ThereAndBack::<Vex>(token)),
            None => eprintln!("skipped: this processor has no AVX-IFMA"),
        }
        Emulated::<8>::run((), ThereAndBack::<Emulated<8>>(()));
        Emulated::<4>::run((), ThereAndBack::<Emulated<4>>(()));
    }
}
