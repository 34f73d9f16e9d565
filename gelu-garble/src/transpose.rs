//! Transposition of matrices of bits.

/// Transposes a matrix of 128 rows of 128 bits: bit j of row i and bit i of row j change places.
///
/// By halves: the upper right quarter and the lower left one change places, then those of each quarter.
pub(crate) fn transpose(matrix: &mut [u128; 128]) {
    let (mut step, mut low) = (64, u128::MAX >> 64);
    while step > 0 {
        for pair in matrix.chunks_exact_mut(2 * step) {
            let (upper, lower) = pair.split_at_mut(step);
            for (upper, lower) in upper.iter_mut().zip(lower) {
                let differ = (*upper >> step ^ *lower) & low;
                *upper ^= differ << step;
                *lower ^= differ;
            }
        }
        step /= 2;
        low ^= low << step;
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

    use super::*;

    #[test]
    fn bits_change_places_with_those_across_the_diagonal() {
        let rng = &mut ChaCha20Rng::seed_from_u64(1);
        let matrix: [u128; 128] = std::array::from_fn(|_| rng.random());
        let mut transposed = matrix;
        transpose(&mut transposed);
        for (i, row) in matrix.iter().enumerate() {
            for (j, column) in transposed.iter().enumerate() {
                assert_eq!(row >> j & 1, column >> i & 1, "row {i}, column {j}");
            }
        }
        transpose(&mut transposed);
        assert_eq!(transposed, matrix);
    }
}
