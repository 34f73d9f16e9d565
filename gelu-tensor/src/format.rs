//! How integers stand for reals, and what is public of integer weights: the facts from which slots and overflows follow.

use serde::{Deserialize, Serialize};

use crate::{Error, LinearMap};

/// The largest bound a tensor may have: sums of such values still fit an `i64`.
pub(crate) const MAX_BOUND: u64 = 1 << 61;

/// How integers stand for reals: x is `round(x 2^scale_bits)`, and no integer is larger than `bound` in absolute
/// value.
///
/// Both are public facts that travel through the graph, so that an overflow is refused when a plan is made.
///
/// ```
/// use gelu_tensor::{Format, WeightRange};
///
/// let pixels = Format::integers(255)?.with_scale_bits(8)?; // round(256 x), for x from 0 to 1
/// let weights = WeightRange::signed(8)?.with_scale_bits(7); // round(128 w), for w from -1 to below 1
/// let sums = pixels.weighted_sum(weights, 25)?; // of a 5x5 kernel
/// assert_eq!((sums.scale_bits(), sums.bound()), (15, 255 * 128 * 25));
/// assert_eq!(sums.slot_bits(), 21);
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawFormat", into = "RawFormat")]
pub struct Format {
    scale_bits: i32,
    bound: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFormat {
    scale_bits: i32,
    bound: u64,
}

impl TryFrom<RawFormat> for Format {
    type Error = Error;

    fn try_from(raw: RawFormat) -> Result<Self, Error> {
        Self::integers(raw.bound)?.with_scale_bits(raw.scale_bits)
    }
}

impl From<Format> for RawFormat {
    fn from(format: Format) -> Self {
        Self { scale_bits: format.scale_bits, bound: format.bound }
    }
}

impl Format {
    /// Scales beyond this are no use: the reals would leave the range of an `f64`.
    const MAX_SCALE_BITS: i32 = 256;

    /// Returns the format of integers of at most `bound` in absolute value that stand for themselves.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the bound is above 2^61.
    pub fn integers(bound: u64) -> Result<Self, Error> {
        if bound > MAX_BOUND {
            return Err(Error::Overflow { needed_bits: bit_length(bound) + 1, available_bits: 62 });
        }
        Ok(Self { scale_bits: 0, bound })
    }

    /// Returns the format of the same integers as multiples of `2^-scale_bits`.
    ///
    /// # Errors
    /// [`Error::ScaleRange`] when the scale is beyond 256 bits.
    pub fn with_scale_bits(self, scale_bits: i32) -> Result<Self, Error> {
        if scale_bits.unsigned_abs() > Self::MAX_SCALE_BITS.unsigned_abs() {
            return Err(Error::ScaleRange { limit: Self::MAX_SCALE_BITS, found: scale_bits });
        }
        Ok(Self { scale_bits, ..self })
    }

    /// Returns the number of fractional bits.
    pub fn scale_bits(self) -> i32 {
        self.scale_bits
    }

    /// Returns the largest absolute value.
    pub fn bound(self) -> u64 {
        self.bound
    }

    /// Returns the bits of the narrowest slot that holds every such integer: one for the sign.
    pub fn slot_bits(self) -> usize {
        bit_length(self.bound) + 1
    }

    /// Returns the real that an integer stands for.
    pub fn real(self, integer: i64) -> f64 {
        integer as f64 * f64::from(-self.scale_bits).exp2()
    }

    /// Returns the real that a real becomes: the nearest one that an integer stands for, or the last one before the bound.
    pub fn nearest(self, real: f64) -> f64 {
        let (bound, scale) = (self.bound as f64, f64::from(self.scale_bits).exp2());
        (real * scale).round().clamp(-bound, bound) / scale
    }

    /// Returns the format of a sum of `terms` products of such integers with the weights of a row.
    ///
    /// # Errors
    /// [`Error::Overflow`] when it is too large.
    pub fn weighted_sum(self, weights: WeightRange, terms: usize) -> Result<Self, Error> {
        // All of them may come from a peer.
        let row = u128::from(weights.bound()).saturating_mul(terms as u128);
        let row = weights.row_sum.map_or(row, |sum| row.min(u128::from(sum)));
        let bound = u128::from(self.bound).saturating_mul(row);
        match u64::try_from(bound) {
            Ok(bound) => {
                Self::integers(bound)?.with_scale_bits(self.scale_bits.saturating_add(weights.scale_bits))
            }
            Err(_) => {
                Err(Error::Overflow { needed_bits: 129 - bound.leading_zeros() as usize, available_bits: 62 })
            }
        }
    }

    /// Returns the format of a sum of one integer of each format.
    ///
    /// # Errors
    /// [`Error::Scale`] when the scales differ, [`Error::Overflow`] when the sum is too large.
    pub fn sum(self, other: Self) -> Result<Self, Error> {
        if self.scale_bits != other.scale_bits {
            return Err(Error::Scale { expected: self.scale_bits, found: other.scale_bits });
        }
        Self::integers(self.bound + other.bound)?.with_scale_bits(self.scale_bits)
    }
}

fn bit_length(value: u64) -> usize {
    (64 - value.leading_zeros()) as usize
}

/// What is public about the integer weights of a layer: their width, their scale, and what sums they can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawWeightRange", into = "RawWeightRange")]
pub struct WeightRange {
    pub(crate) bits: u32,
    pub(crate) signed: bool,
    scale_bits: i32,
    row_sum: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWeightRange {
    bits: u32,
    signed: bool,
    scale_bits: i32,
    row_sum: Option<u64>,
}

impl TryFrom<RawWeightRange> for WeightRange {
    type Error = Error;

    fn try_from(raw: RawWeightRange) -> Result<Self, Error> {
        let RawWeightRange { bits, signed, scale_bits, row_sum } = raw;
        Self { bits, signed, scale_bits, row_sum }.check()
    }
}

impl From<WeightRange> for RawWeightRange {
    fn from(range: WeightRange) -> Self {
        let WeightRange { bits, signed, scale_bits, row_sum } = range;
        Self { bits, signed, scale_bits, row_sum }
    }
}

impl WeightRange {
    /// The most bits a weight may have.
    pub(crate) const MAX_BITS: u32 = 24;

    /// Returns the range `[-2^(bits-1), 2^(bits-1))` of signed weights that stand for themselves.
    ///
    /// # Errors
    /// [`Error::Range`] when the bits are not 2 to 24.
    pub fn signed(bits: u32) -> Result<Self, Error> {
        Self { bits, signed: true, scale_bits: 0, row_sum: None }.check()
    }

    /// Returns the range `[0, 2^bits)` of weights without a sign.
    ///
    /// # Errors
    /// [`Error::Range`] when the bits are not 1 to 24.
    #[cfg(test)]
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn unsigned(bits: u32) -> Result<Self, Error> {
        Self { bits, signed: false, scale_bits: 0, row_sum: None }.check()
    }

    /// Returns the range of the same weights as multiples of `2^-scale_bits`.
    pub fn with_scale_bits(self, scale_bits: i32) -> Self {
        Self { scale_bits, ..self }
    }

    /// Returns the same range for weights whose absolute values sum to no more than this in any row of their map: a
    /// statement that makes sums, and with them slots, narrower than the range alone.
    ///
    /// It is rounded up to four significant bits, so that it says little about the weights.
    pub fn with_row_sum(self, sum: u64) -> Self {
        let step = 1u64 << bit_length(sum).saturating_sub(4);
        let rounded = sum.div_ceil(step).saturating_mul(step);
        Self { row_sum: Some(rounded.max(1)), ..self }
    }

    /// Returns the number of bits of a weight, with its sign if it has one.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// Returns the number of fractional bits.
    pub fn scale_bits(self) -> i32 {
        self.scale_bits
    }

    /// Returns what the absolute values of no row sum to more than, if it was [stated](Self::with_row_sum).
    pub fn row_sum(self) -> Option<u64> {
        self.row_sum
    }

    /// Returns the largest absolute value.
    pub fn bound(self) -> u64 {
        if self.signed { 1 << (self.bits - 1) } else { (1 << self.bits) - 1 }
    }

    /// Returns whether a weight is in range.
    pub fn contains(self, weight: i32) -> bool {
        let weight = i64::from(weight);
        if self.signed {
            let half = 1 << (self.bits - 1);
            (-half..half).contains(&weight)
        } else {
            (0..1 << self.bits).contains(&weight)
        }
    }

    fn check(self) -> Result<Self, Error> {
        let least = if self.signed { 2 } else { 1 };
        if (least..=Self::MAX_BITS).contains(&self.bits) {
            Ok(self)
        } else {
            Err(Error::Range {
                what: "bits of a weight",
                least: least as usize,
                most: Self::MAX_BITS as usize,
                found: self.bits as usize,
            })
        }
    }
}

/// The integer weights of a [`LinearMap`](crate::LinearMap), with what is public about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntWeights {
    range: WeightRange,
    values: Vec<i32>,
}

impl IntWeights {
    /// Returns weights of a range. Whether the sums of rows are as stated is seen when a map is applied.
    ///
    /// # Errors
    /// [`Error::Weight`] when a weight is outside the range.
    pub fn new(range: WeightRange, values: Vec<i32>) -> Result<Self, Error> {
        match values.iter().position(|&weight| !range.contains(weight)) {
            None => Ok(Self { range, values }),
            Some(index) => {
                let WeightRange { bits, signed, .. } = range;
                Err(Error::Weight { index, found: values[index], bits, signed })
            }
        }
    }

    /// Returns the public range of the weights.
    pub fn range(&self) -> WeightRange {
        self.range
    }

    /// Returns the weights, in the map's order.
    pub fn values(&self) -> &[i32] {
        &self.values
    }

    /// Returns the same weights with the [statement](WeightRange::with_row_sum) that is true of them in a map.
    ///
    /// # Errors
    /// [`Error::Count`] when the map has another number of weights.
    pub fn summed(mut self, map: &LinearMap) -> Result<Self, Error> {
        self.range = self.range.with_row_sum(map.largest_row_sum(&self.values)?);
        Ok(self)
    }

    /// Checks what is stated of the sums of rows.
    pub(crate) fn check_rows(&self, map: &LinearMap) -> Result<(), Error> {
        let Some(limit) = self.range.row_sum else { return Ok(()) };
        let found = map.largest_row_sum(&self.values)?;
        if found <= limit { Ok(()) } else { Err(Error::RowSum { limit, found }) }
    }
}
