//! What lies between the sums of one linear layer and the inputs of the next, on integers alone.

#[cfg(test)]
mod tests;

use gelu_garble::{Bits, circuits};
use gelu_tensor::Format;

use crate::Activation;

/// An activation from integer sums to the integers that the next layer reads: the real function of the real that a sum stands
/// for, rounded to the nearest multiple of the next scale, halves away from zero, and held within a bound.
///
/// It gives the integers that the same computation in double precision gives. Without reals there is one text of it for all:
/// the owner of the data computes it on integers, and two parties compute it on shares of them, as a [circuit](Self::circuit).
///
/// ```
/// use gelu_layers::{Activation, IntegerStep};
/// use gelu_tensor::Format;
///
/// let sums = Format::integers(100_000)?.with_scale_bits(12)?; // multiples of 1 / 4,096
/// let values = Format::integers(1000)?.with_scale_bits(8)?; // multiples of 1 / 256
/// let step = IntegerStep::new(Some(Activation::Relu), sums, values).expect("a ReLU has one");
/// assert_eq!([-50, 7, 8, 50, 99_999].map(|sum| step.apply(sum)), [0, 0, 1, 3, 1000]);
///
/// // 99,999 stood for more than the bound allows.
/// assert_eq!(step.apply_all(&[50, 99_999]), (vec![3, 1000], 1));
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntegerStep {
    /// Bits that the sums' scale is finer than that of the results; negative if it is coarser.
    shift: i32,
    /// The largest absolute value of a result.
    bound: u64,
    function: Function,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Function {
    /// Division by 2^shift, and the nearest number of `[least, most]`.
    Clip { least: i64, most: i64 },
    /// Division by 2^shift, for negative numbers by 2^`negative`.
    Leaky { negative: i32 },
    /// `least` and one for each of these numbers, in ascending order, that the sum is not below.
    Thresholds { least: i64, numbers: Vec<i64> },
}

/// Up to this magnitude, every integer is a number in double precision.
const EXACT: u64 = 1 << 53;

/// The number of a step's [circuit](IntegerStep::circuit): that of `wires`, plus `base`.
#[derive(Clone, Debug)]
pub struct StepWires<W> {
    /// The wires, the lowest bit first.
    pub wires: Vec<W>,
    /// Whether the highest wire is a sign.
    pub signed: bool,
    /// What is to be added to the number, in the clear or to a share.
    pub base: i64,
}

impl IntegerStep {
    /// The most steps of a function that is computed by thresholds, as sigmoid and tanh are.
    pub const MAX_THRESHOLDS: usize = 4096;

    /// Returns the step for sums of one format and results of another, with no activation for mere rounding.
    ///
    /// ReLU, ReLU6 and clips have one, and leaky ReLUs whose slope is a positive power of two; sigmoid and tanh if
    /// their results have no more than [`MAX_THRESHOLDS`](Self::MAX_THRESHOLDS) steps. Other functions have none (`None`), nor
    /// do formats with bounds above 2^53, whose integers double precision would round before the function sees them.
    ///
    /// The thresholds of sigmoid and tanh are searched for with the exponential function of this machine, whose last bit
    /// other machines may round differently. Parties that must agree exchange the step.
    pub fn new(activation: Option<Activation>, sums: Format, values: Format) -> Option<Self> {
        if sums.bound().max(values.bound()) > EXACT {
            return None;
        }
        let unit = f64::from(values.scale_bits()).exp2();
        // Saturates, which the bound cuts off.
        let rounded = |real: f64| (real * unit).round() as i64;
        // By more bits than there are, everything is rounded to zero.
        let most = (65 - sums.bound().leading_zeros()) as i32;
        let exact = sums.scale_bits() - values.scale_bits();
        let shift = exact.min(most);
        let function = match activation {
            None => Function::Clip { least: i64::MIN, most: i64::MAX },
            Some(Activation::Relu) => Function::Clip { least: 0, most: i64::MAX },
            Some(Activation::Relu6) => Function::Clip { least: 0, most: rounded(6.0) },
            Some(Activation::Clip { min, max }) if min <= max => {
                Function::Clip { least: rounded(min), most: rounded(max) }
            }
            Some(Activation::LeakyRelu { slope: 0.0 }) => Function::Clip { least: 0, most: i64::MAX },
            Some(Activation::LeakyRelu { slope }) => {
                Function::Leaky { negative: (exact - power_of_two(slope)?).min(most) }
            }
            Some(activation @ (Activation::Sigmoid | Activation::Tanh)) => {
                let result = |sum: i64| rounded(activation.apply(sums.real(sum)));
                thresholds(sums.bound() as i64, result)?
            }
            Some(_) => return None,
        };
        Some(Self { shift, bound: values.bound(), function })
    }

    /// Returns the result for one sum that the format allows.
    pub fn apply(&self, sum: i64) -> i64 {
        self.within(self.unbounded(sum))
    }

    /// Returns the results for sums, and how many of them the bound has changed.
    pub fn apply_all(&self, sums: &[i64]) -> (Vec<i64>, u64) {
        let mut clamped = 0;
        let mut bounded = |result: i64| {
            let within = self.within(result);
            clamped += u64::from(within != result);
            within
        };
        let results = match self.function {
            // The compiler knows which function this loop is for.
            Function::Clip { least, most } if self.shift > 0 => {
                sums.iter().map(|&sum| bounded(shifted(sum, self.shift).max(least).min(most))).collect()
            }
            _ => sums.iter().map(|&sum| bounded(self.unbounded(sum))).collect(),
        };
        (results, clamped)
    }

    /// The function rounded, before the bound.
    fn unbounded(&self, sum: i64) -> i64 {
        match &self.function {
            Function::Clip { least, most } => divided(sum, self.shift).max(*least).min(*most),
            Function::Leaky { negative } => divided(sum, if sum < 0 { *negative } else { self.shift }),
            Function::Thresholds { least, numbers } => {
                least + numbers.partition_point(|&number| number <= sum) as i64
            }
        }
    }

    #[inline]
    fn within(&self, result: i64) -> i64 {
        let bound = self.bound as i64;
        result.max(-bound).min(bound)
    }

    /// Returns what is to be added to a sum before the [circuit](Self::circuit) takes it: half a unit where that is all there is
    /// to rounding. It can be added to a share in the clear, which costs nothing.
    pub fn offset(&self) -> i64 {
        let (least, _) = self.range();
        let rounds = matches!(self.function, Function::Clip { .. }) && least >= 0 && self.shift > 0;
        if rounds { 1 << (self.shift - 1) } else { 0 }
    }

    /// Returns the least and the greatest result that is possible.
    pub fn range(&self) -> (i64, i64) {
        match &self.function {
            Function::Clip { least, most } => (self.within(*least), self.within(*most)),
            Function::Leaky { .. } => (self.within(i64::MIN), self.within(i64::MAX)),
            Function::Thresholds { least, numbers } => {
                (self.within(*least), self.within(least + numbers.len() as i64))
            }
        }
    }

    /// Returns the result as a number of wires, given the wires of a sum plus the [offset](Self::offset) in two's complement,
    /// as many as hold every sum that the format allows.
    pub fn circuit<B: Bits>(&self, bits: &mut B, sum: &[B::Wire]) -> StepWires<B::Wire> {
        let (least, most) = self.range();
        let shifts = match &self.function {
            Function::Thresholds { least: first, numbers } => {
                // Those that the bound does not cut off.
                let cut = (least - first) as usize;
                let numbers = numbers.get(cut..cut + (most - least) as usize).unwrap_or(&[]);
                let wires = circuits::thresholds(bits, sum, numbers);
                return StepWires { wires, signed: false, base: least };
            }
            Function::Clip { .. } => circuits::Shifts { positive: self.shift, negative: self.shift },
            Function::Leaky { negative } => circuits::Shifts { positive: self.shift, negative: *negative },
        };
        let rounded = match self.offset() {
            0 => circuits::rounded_shift(bits, sum, shifts),
            _ => circuits::shift(bits, sum, self.shift),
        };
        StepWires { wires: circuits::clamp(bits, &rounded, least, most), signed: least < 0, base: 0 }
    }
}

/// A number divided by 2^shift, rounded to the nearest integer, halves away from zero.
#[inline]
fn shifted(number: i64, shift: i32) -> i64 {
    // One less below zero, so that halves go down there.
    (number.saturating_add(1 << (shift - 1)) + (number >> 63)) >> shift
}

/// The same for a shift in either direction. It saturates.
fn divided(number: i64, shift: i32) -> i64 {
    match shift {
        1.. => shifted(number, shift),
        -62..=0 => number.saturating_mul(1 << -shift),
        _ => number.saturating_mul(i64::MAX),
    }
}

/// The exponent of a positive power of two.
fn power_of_two(x: f64) -> Option<i32> {
    let exponent = x.log2();
    (exponent.fract() == 0.0 && exponent.exp2() == x).then_some(exponent as i32)
}

/// The sums up to a bound, either way, from which on a function that never falls has each of its values.
fn thresholds(bound: i64, function: impl Fn(i64) -> i64) -> Option<Function> {
    let (least, most) = (function(-bound), function(bound));
    if !(0..=IntegerStep::MAX_THRESHOLDS as i64).contains(&most.saturating_sub(least)) {
        return None;
    }
    let mut below = -bound;
    let first_of = |value: i64| {
        // The function is below the value at one end, and not at the other.
        let mut reached = bound;
        while reached - below > 1 {
            let middle = below + (reached - below) / 2;
            *(if function(middle) < value { &mut below } else { &mut reached }) = middle;
        }
        reached
    };
    Some(Function::Thresholds { least, numbers: (least + 1..=most).map(first_of).collect() })
}
