//! Columns of products of limbs, seven at a time: sums of doubles without an error.
//!
//! See docs/arithmetic.md, section 8, for why every sum is exact.

use core::arch::x86_64::*;

use super::{LIMB_BITS, TILE};

pub(super) type Tile = [__m256d; TILE];

/// 1.5 2^101: sums from here on are rounded to multiples of 2^49.
pub(super) const HIGH: f64 = f64::from_bits((1023 + 52 + LIMB_BITS as u64) << 52 | 1 << 51);
/// 1.5 2^52: the bits of a sum with an integer are those of this number plus the integer.
pub(super) const LOW: f64 = f64::from_bits((1023 + 52) << 52 | 1 << 51);

/// Products that an upper sum takes, and lower parts that a lower sum takes.
const MOST_HIGH: usize = 15;
const MOST_LOW: usize = 32;

/// What makes columns positive, so that logical shifts carry.
const BIAS: i64 = 1 << 62;
const HALF_LIMB: i64 = 1 << (LIMB_BITS - 1);
pub(super) const LIMB_MASK: i64 = (1 << LIMB_BITS) - 1;

/// Which limbs of two tiles next to each other a tile is multiplied with: row r of it meets limb s - r in column s.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Shape {
    Full,
    /// Limbs from 0 on.
    Lower,
    /// Limbs below 0.
    Upper,
}

/// The sums of a window's columns.
pub(super) struct Sums {
    high: Tile,
    low: Tile,
    /// What was taken from the upper sums, in units of 2^49.
    taken: [__m256i; TILE],
    rows: [usize; 2],
    flushes: i64,
}

impl Sums {
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            high: [_mm256_set1_pd(HIGH); TILE],
            low: [_mm256_setzero_pd(); TILE],
            taken: [_mm256_setzero_si256(); TILE],
            rows: [0; 2],
            flushes: 0,
        }
    }

    /// Adds the limbs of a number.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn add(&mut self, x: &Tile) {
        for (low, &limb) in self.low.iter_mut().zip(x) {
            *low = _mm256_add_pd(*low, limb);
        }
        self.rows[1] += 1;
    }

    /// Subtracts the limbs of a number.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn subtract(&mut self, x: &Tile) {
        for (low, &limb) in self.low.iter_mut().zip(x) {
            *low = _mm256_sub_pd(*low, limb);
        }
        self.rows[1] += 1;
    }

    /// Adds the products of a tile's limbs with those of two tiles, limb 0 of which is at `at`. Limbs of the tile are
    /// `weight` times as large as limbs are.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn multiply_add(&mut self, x: &Tile, y: &[__m256d], at: usize, shape: Shape, weight: usize) {
        for (r, &limb) in x.iter().enumerate() {
            self.make_room(weight);
            let columns = match shape {
                Shape::Full => 0..TILE,
                Shape::Lower => r..TILE,
                Shape::Upper => 0..r,
            };
            for s in columns {
                let (other, high) = (y[at + s - r], self.high[s]);
                self.high[s] = _mm256_fmadd_pd(limb, other, high);
                let rest = _mm256_fmadd_pd(limb, other, _mm256_sub_pd(high, self.high[s]));
                self.low[s] = _mm256_add_pd(self.low[s], rest);
            }
        }
    }

    /// Takes what the upper sums have, where they cannot take another product, and puts the upper parts of the lower sums
    /// to them, where those could not last until the next time.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn make_room(&mut self, weight: usize) {
        if self.rows[0] + weight > MOST_HIGH {
            if self.rows[1] + MOST_HIGH > MOST_LOW {
                self.fold();
            }
            for (taken, high) in self.taken.iter_mut().zip(&mut self.high) {
                *taken = _mm256_add_epi64(*taken, _mm256_castpd_si256(*high));
                *high = _mm256_set1_pd(HIGH);
            }
            self.rows[0] = 0;
            self.flushes += 1;
        }
        self.rows[0] += weight;
        self.rows[1] += 1;
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn fold(&mut self) {
        for (high, low) in self.high.iter_mut().zip(&mut self.low) {
            let sum = _mm256_add_pd(*high, *low);
            *low = _mm256_add_pd(*low, _mm256_sub_pd(*high, sum));
            *high = sum;
        }
        self.rows[1] = 1;
    }

    /// The columns, with what the window below carries into them, as limbs; what they carry into the next window.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn settle(mut self, carry: Carry, limbs: &mut Tile) -> Carry {
        self.fold();
        // The bits of HIGH, which every flush and the last sums have too many; BIAS and the rest of a column's constants.
        let constant = CARRY.wrapping_sub(HIGH.to_bits().wrapping_mul(self.flushes as u64 + 1) as i64);
        let constant = _mm256_set1_epi64x(constant);
        let mut below = carry.0;
        for (limb, ((low, high), taken)) in
            limbs.iter_mut().zip(self.low.iter().zip(&self.high).zip(&self.taken))
        {
            let low = _mm256_castpd_si256(_mm256_add_pd(*low, _mm256_set1_pd(LOW)));
            let column = _mm256_add_epi64(low, below);
            *limb = signed_limb(column);
            let high = _mm256_add_epi64(_mm256_castpd_si256(*high), *taken);
            let carry = _mm256_srli_epi64::<{ LIMB_BITS as i32 }>(column);
            below = _mm256_add_epi64(_mm256_add_epi64(high, constant), carry);
        }
        Carry(below)
    }
}

/// What a window carries into the next one, together with the constants of the next one's lowest column.
#[derive(Clone, Copy)]
pub(super) struct Carry(__m256i);

/// BIAS and half a limb, so that limbs are rounded; less the bits of LOW, and what the bias of the column below carries.
pub(super) const CARRY: i64 = (BIAS + HALF_LIMB).wrapping_sub(LOW.to_bits() as i64).wrapping_sub(BIAS >> LIMB_BITS);
/// A carry of 0.
pub(super) const NO_CARRY: i64 = CARRY.wrapping_add(BIAS >> LIMB_BITS);

impl Carry {
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn none() -> Self {
        Self(_mm256_set1_epi64x(NO_CARRY))
    }

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub(super) fn plus(self, other: Self) -> Self {
        let sum = _mm256_add_epi64(self.0, other.0);
        Self(_mm256_sub_epi64(sum, _mm256_set1_epi64x(NO_CARRY)))
    }
}

/// The signed limb of a column that has BIAS and half a limb.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn signed_limb(column: __m256i) -> __m256d {
    // The digits of 2^52 + limb + 2^48.
    let exponent = _mm256_set1_epi64x((1023 + 52) << 52);
    let rounded = _mm256_or_si256(_mm256_and_si256(column, _mm256_set1_epi64x(LIMB_MASK)), exponent);
    _mm256_sub_pd(_mm256_castsi256_pd(rounded), _mm256_set1_pd(((1i64 << 52) + HALF_LIMB) as f64))
}
