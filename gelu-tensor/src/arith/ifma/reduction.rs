//! Montgomery's reduction of a product of eight pairs of residues' halves, diagonal by diagonal of tiles.

use core::arch::x86_64::*;

use super::{LIMB_BITS, LIMB_MASK};

/// Limbs on the side of a tile.
pub(super) const TILE: usize = 5;

pub(super) type Tile = [__m512i; TILE];
pub(super) type Half<const N: usize> = [Tile; N];
/// Sums of the low and of the high halves of a diagonal's products; the high ones belong one column up.
pub(super) type Sums = [[__m512i; 2 * TILE - 1]; 2];

/// The constants of a modulus, the same in all lanes.
pub(super) struct Tables<'a, const N: usize> {
    pub(super) n: &'a [[u64; TILE]; N],
    pub(super) lift: &'a [[u64; TILE]; N],
    pub(super) negative_inverse: u64,
}

/// A reduction in progress: on the first N diagonals quotient digits are found, on the others limbs come out.
///
/// The digits of a diagonal are a chain of dependent instructions. So that the next diagonal need not wait for it,
/// only what the digits add to their own five columns is computed in the chain; what they add further up comes last
/// in the next diagonal. One loop a diagonal runs over the products and the multiples of the modulus together,
/// because each end of a loop is a branch that is hard to predict.
pub(super) struct Reduction<'a, const N: usize> {
    tables: &'a Tables<'a, N>,
    quotient: Half<N>,
    /// The columns of the last diagonal and those above, which the next one takes over.
    columns: [__m512i; 2 * TILE],
    /// What the last five columns that are done carry into the next.
    carry: __m512i,
}

impl<'a, const N: usize> Reduction<'a, N> {
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn new(tables: &'a Tables<'a, N>) -> Self {
        let zero = _mm512_setzero_si512();
        Self { tables, quotient: [[zero; TILE]; N], columns: [zero; 2 * TILE], carry: zero }
    }

    /// Reduces the sum of what `product` adds for each pair (i, j) of tiles into limbs of 52 bits, and returns the
    /// quotient digits. With the quotient of the low half, `V - m` is added first.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    pub(super) fn run(
        mut self,
        low_quotient: Option<&Half<N>>,
        out: &mut Half<N>,
        product: impl Fn(&mut Sums, usize, usize),
    ) -> Half<N> {
        for diagonal in 0..N {
            let mut sums = self.start();
            for i in 0..diagonal {
                product(&mut sums, i, diagonal - i);
                multiply_add_same(&mut sums, &self.quotient[i], &self.tables.n[diagonal - i]);
            }
            product(&mut sums, diagonal, 0);
            if diagonal > 0 {
                self.add_upper_part(&mut sums, diagonal - 1);
            }
            self.collect(&sums);
            if let Some(m) = low_quotient {
                self.add_lift_less(diagonal, &m[diagonal]);
            }
            self.quotient[diagonal] = self.quotient_digits();
        }
        for diagonal in N..2 * N - 1 {
            let mut sums = self.start();
            for i in diagonal - (N - 1)..N {
                product(&mut sums, i, diagonal - i);
                multiply_add_same(&mut sums, &self.quotient[i], &self.tables.n[diagonal - i]);
            }
            if diagonal == N {
                self.add_upper_part(&mut sums, N - 1);
            }
            self.collect(&sums);
            out[diagonal - N] = self.settle();
        }
        let sums = self.start();
        self.collect(&sums);
        out[N - 1] = self.settle();
        self.quotient
    }

    /// The sums of a new diagonal, which begin with the upper columns of the last.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn start(&self) -> Sums {
        let mut sums = [[_mm512_setzero_si512(); 2 * TILE - 1]; 2];
        sums[0][..TILE].copy_from_slice(&self.columns[TILE..]);
        sums
    }

    /// Adds what the digits of a diagonal add to the columns above their own, which are those of the next one.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn add_upper_part(&mut self, sums: &mut Sums, diagonal: usize) {
        let digits = self.quotient[diagonal];
        let [low, high] = sums;
        for (j, &limb) in self.tables.n[0].iter().enumerate() {
            let limb = _mm512_set1_epi64(limb as i64);
            for i in TILE - j..TILE {
                low[i + j - TILE] = _mm512_madd52lo_epu64(low[i + j - TILE], digits[i], limb);
                high[i + j - TILE] = _mm512_madd52hi_epu64(high[i + j - TILE], digits[i], limb);
            }
            self.carry = _mm512_madd52hi_epu64(self.carry, digits[TILE - 1 - j], limb);
        }
    }

    /// Turns a diagonal's sums and the carry into columns.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn collect(&mut self, [low, high]: &Sums) {
        self.columns[0] = _mm512_add_epi64(low[0], self.carry);
        for i in 1..2 * TILE - 1 {
            self.columns[i] = _mm512_add_epi64(low[i], high[i - 1]);
        }
        self.columns[2 * TILE - 1] = high[2 * TILE - 2];
    }

    /// Adds five limbs of V and subtracts five digits.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn add_lift_less(&mut self, diagonal: usize, digits: &Tile) {
        for (i, digit) in digits.iter().enumerate() {
            let lift = _mm512_set1_epi64(self.tables.lift[diagonal][i] as i64);
            self.columns[i] = _mm512_add_epi64(self.columns[i], _mm512_sub_epi64(lift, *digit));
        }
    }

    /// The next five quotient digits, which make the five lowest columns multiples of 2^52.
    #[target_feature(enable = "avx512f,avx512ifma")]
    #[inline]
    fn quotient_digits(&mut self) -> Tile {
        let n = self.tables.n[0].map(|limb| _mm512_set1_epi64(limb as i64));
        let negative_inverse = _mm512_set1_epi64(self.tables.negative_inverse as i64);
        let mask = _mm512_set1_epi64(LIMB_MASK as i64);
        let zero = _mm512_setzero_si512();
        let (mut low, mut high) = ([zero; TILE], [zero; TILE]);
        low.copy_from_slice(&self.columns[..TILE]);
        let mut digits = [zero; TILE];
        for i in 0..TILE {
            let column = _mm512_add_epi64(low[i], high[i]);
            digits[i] = _mm512_madd52lo_epu64(zero, column, negative_inverse);
            // The low half of digit * n[0] makes the column a multiple of 2^52, so that the carry is its rest rounded
            // up, whatever the digit.
            let carry = _mm512_srli_epi64::<{ LIMB_BITS as u32 }>(_mm512_add_epi64(column, mask));
            if i + 1 < TILE {
                low[i + 1] = _mm512_add_epi64(low[i + 1], carry);
            } else {
                self.carry = carry;
            }
            for j in i + 1..TILE {
                high[j] = _mm512_madd52hi_epu64(high[j], digits[i], n[j - i - 1]);
                low[j] = _mm512_madd52lo_epu64(low[j], digits[i], n[j - i]);
            }
        }
        digits
    }

    /// The five lowest columns as limbs of 52 bits.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn settle(&mut self) -> Tile {
        let mask = _mm512_set1_epi64(LIMB_MASK as i64);
        let mut limbs = [_mm512_setzero_si512(); TILE];
        self.carry = _mm512_setzero_si512();
        for (limb, &column) in limbs.iter_mut().zip(&self.columns) {
            let column = _mm512_add_epi64(column, self.carry);
            *limb = _mm512_and_si512(column, mask);
            self.carry = _mm512_srli_epi64::<{ LIMB_BITS as u32 }>(column);
        }
        limbs
    }
}

/// Adds the products of two tiles' limbs.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn multiply_add(sums: &mut Sums, x: &Tile, y: &Tile) {
    for (j, &limb) in y.iter().enumerate() {
        multiply_add_limb(sums, x, limb, j);
    }
}

/// Adds the products of a tile's limbs with limbs that are the same in all lanes, the modulus's for one.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
pub(super) fn multiply_add_same(sums: &mut Sums, x: &Tile, y: &[u64; TILE]) {
    for (j, &limb) in y.iter().enumerate() {
        multiply_add_limb(sums, x, _mm512_set1_epi64(limb as i64), j);
    }
}

/// Adds the limbs of a number to the sums of a diagonal, where they are its tile `i`: on every diagonal i, so for j = 0.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn add(sums: &mut Sums, x: &Tile, j: usize) {
    if j == 0 {
        for (sum, &limb) in sums[0].iter_mut().zip(x) {
            *sum = _mm512_add_epi64(*sum, limb);
        }
    }
}

/// Adds the products of a tile's limbs with the limb `at` of another.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn multiply_add_limb(sums: &mut Sums, x: &Tile, limb: __m512i, at: usize) {
    let [low, high] = sums;
    for i in 0..TILE {
        low[i + at] = _mm512_madd52lo_epu64(low[i + at], x[i], limb);
    }
    for i in 0..TILE {
        high[i + at] = _mm512_madd52hi_epu64(high[i + at], x[i], limb);
    }
}
