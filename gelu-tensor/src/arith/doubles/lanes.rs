//! Rows of limbs to vectors, whose lanes are rows, and back.

use super::TILE;
use super::sums::Lanes;
use super::vector::{ENTRIES, MOST_LANES, Vector};

/// `out[k]` takes limb k of each row, for as many limbs as `out` has, but for the last of an odd number.
#[inline(always)]
pub(super) fn load<'a, V: Vector>(token: V::Token, out: &mut [V], row: impl Fn(usize) -> &'a [u64]) {
    let mut rows: [&[[u64; 2]]; MOST_LANES] = [&[]; MOST_LANES];
    for (lane, pairs) in rows[..V::LANES].iter_mut().enumerate() {
        *pairs = row(lane).as_chunks::<2>().0;
    }
    for (k, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *out = V::of_rows(token, |lane| &rows[lane][k]);
    }
}

/// The reverse of [`load`] for the first `rows.len() / width` lanes.
#[inline(always)]
pub(super) fn store<V: Vector>(rows: &mut [u64], width: usize, vectors: &[V]) {
    for (k, &columns) in vectors.as_chunks::<2>().0.iter().enumerate() {
        let rows = rows.chunks_exact_mut(width);
        V::to_rows(columns, rows.map(|row| &mut row.as_chunks_mut::<2>().0[k]));
    }
}

/// The same with a digit for each row, which may have an odd number of limbs.
#[inline(always)]
pub(super) fn load_digit<'a, V: Vector>(token: V::Token, out: &mut [V], row: impl Fn(usize) -> &'a [u64]) {
    load(token, out, &row);
    if out.len() % 2 == 1 {
        let last = out.len() - 1;
        let mut limbs = [0; MOST_LANES];
        for (lane, limb) in limbs[..V::LANES].iter_mut().enumerate() {
            *limb = row(lane)[last];
        }
        out[last] = V::of_lanes(token, limbs);
    }
}

/// Limb k of one residue or digit in all lanes of `out[k]`.
#[inline(always)]
pub(super) fn broadcast<V: Vector>(token: V::Token, out: &mut [V], limbs: &[u64]) {
    for (out, &limb) in out.iter_mut().zip(limbs) {
        *out = V::splat(token, f64::from_bits(limb));
    }
}

/// The entry `digit` of a table, reading every entry, so that no address depends on the digit.
#[inline(always)]
pub(super) fn select_entry<V: Vector>(token: V::Token, out: &mut [V], table: &[V], digit: u64) {
    out.fill(V::splat(token, 0.0));
    for (index, entry) in (0u64..).zip(table.chunks_exact(out.len())) {
        let here = V::equal(token, digit, index);
        for (out, &vector) in out.iter_mut().zip(entry) {
            *out = out.replaced(here, vector);
        }
    }
}

/// Groups of lanes that go through a table together, so that it is read once.
pub(super) const GROUPS: usize = 4;

/// Entry `digits[lane]` of a table of 64 entries, which holds limb after limb, for up to [`GROUPS`] groups of lanes:
/// `out[group][k]` takes limb k. All entries are read, once for all groups.
#[inline(always)]
pub(super) fn select<V: Vector, const N: usize>(
    token: V::Token,
    out: &mut [Lanes<V, N>],
    table: &[u64],
    digits: &[[u64; MOST_LANES]; GROUPS],
) {
    let mut choices = [V::choice(token, digits[0]); GROUPS];
    for (choice, &digits) in choices.iter_mut().zip(digits) {
        *choice = V::choice(token, digits);
    }
    for (k, limbs) in table.as_chunks::<ENTRIES>().0.iter().take(2 * N * TILE).enumerate() {
        for (out, choice) in out.iter_mut().zip(&choices) {
            out.as_flattened_mut().as_flattened_mut()[k] = V::chosen(limbs, choice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::on_every_vector;
    use super::*;
    use crate::arith::kernel::Work;

    struct ThereAndBack<V: Vector>(V::Token);

    impl<V: Vector> Work for ThereAndBack<V> {
        #[inline(always)]
        fn run(self) {
            let width = 14;
            let rows: Vec<u64> =
                (0..(MOST_LANES * width) as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
            let mut vectors = vec![V::splat(self.0, 0.0); width];
            load(self.0, &mut vectors, |lane| &rows[lane * width..][..width]);
            for (k, &vector) in vectors.iter().enumerate() {
                let mut limbs = [[0; 2]; MOST_LANES];
                V::to_rows([vector; 2], limbs[..V::LANES].iter_mut());
                for (lane, limb) in limbs[..V::LANES].iter().enumerate() {
                    assert_eq!(*limb, [rows[lane * width + k]; 2]);
                }
            }
            let mut back = vec![0; (V::LANES - 1) * width];
            store(&mut back, width, &vectors);
            assert_eq!(back, rows[..(V::LANES - 1) * width]);
        }
    }

    fn there_and_back<V: Vector>(token: V::Token) {
        V::run(token, ThereAndBack::<V>(token));
    }

    #[test]
    fn load_then_store_gives_the_rows_back() {
        on_every_vector!(there_and_back);
    }
}
