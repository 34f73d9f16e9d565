//! Affine maps of reals: what layers are composed to before anything is rounded.

use std::sync::Arc;

use gelu_tensor::{Error, IntWeights, LinearMap, Shape, WeightRange};

use crate::mean_weights;

/// A linear layer, or a chain of them, as one affine map of reals: what is quantized and sent over ciphertexts.
///
/// Composing the reals first and rounding once keeps a chain to one integer matrix.
#[derive(Clone, Debug)]
pub struct Affine {
    map: Arc<LinearMap>,
    weights: Vec<f64>,
    /// One for each element of the output; empty where all are zero.
    bias: Vec<f64>,
}

impl Affine {
    /// The map with these weights and biases, of which each is of equally many outputs (or none).
    pub(crate) fn new(map: Arc<LinearMap>, weights: Vec<f64>, bias: &[f64]) -> Self {
        let spread = map.output().elements() / bias.len().max(1);
        let bias = bias.iter().flat_map(|&bias| std::iter::repeat_n(bias, spread)).collect();
        Self { map, weights, bias }
    }

    /// Returns the affine map of a layer that has no weights to be trained: means, or elements moved.
    pub fn of_means(map: Arc<LinearMap>) -> Self {
        let weights = mean_weights(&map);
        Self { map, weights, bias: vec![] }
    }

    /// Returns a map without weights: what is public of an affine map. Its compositions are those of any weights.
    pub fn of_map(map: Arc<LinearMap>) -> Self {
        Self { map, weights: vec![], bias: vec![] }
    }

    /// Returns the same map without biases.
    pub fn without_bias(&self) -> Self {
        Self { bias: vec![], ..self.clone() }
    }

    /// Returns the map that changes nothing.
    ///
    /// # Errors
    /// [`Error::Count`] when the shape has no elements or too many.
    pub fn identity(shape: &Shape) -> Result<Self, Error> {
        Ok(Self { map: Arc::new(LinearMap::identity(shape)?), weights: vec![1.0], bias: vec![] })
    }

    /// Returns the map for sums in the place of their means (or of other multiples of them, with one factor for all).
    /// `None` if that one factor does not exist.
    pub fn of_sums(&self, means: &Self) -> Option<Self> {
        if means.map.weights() != 1 || !means.bias.is_empty() {
            return None;
        }
        let share = means.weights.first().copied().unwrap_or(1.0);
        let weights = self.weights.iter().map(|weight| weight * share).collect();
        Some(Self { weights, ..self.clone() })
    }

    /// Returns the map without its weights.
    pub fn map(&self) -> &Arc<LinearMap> {
        &self.map
    }

    /// Returns the weights, in the map's order.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Returns the biases, one for each element of the output, or none.
    pub fn bias(&self) -> &[f64] {
        &self.bias
    }

    /// Returns the map that first does this one, then `next`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `next` does not take this one's output; [`Error::Count`] when the composition is too large.
    pub fn then(&self, next: &Self) -> Result<Self, Error> {
        // A map may have no weights at all, where windows cover nothing but padding; its biases go on.
        let is_unknown = |affine: &Self| affine.weights.is_empty() && affine.map.weights() > 0;
        if is_unknown(self) || is_unknown(next) {
            return Ok(Self::of_map(Arc::new(self.map.then(&next.map, |_, _, _| ())?)));
        }
        let mut weights: Vec<f64> = vec![];
        let map = self.map.then(&next.map, |weight, first, second| {
            if weights.len() <= weight {
                weights.resize(weight + 1, 0.0);
            }
            weights[weight] += self.weights[first] * next.weights[second];
        })?;
        weights.resize(map.weights(), 0.0);
        let mut bias = match self.bias.is_empty() {
            true => vec![],
            false => next.map.apply(&next.weights, &self.bias)?,
        };
        if bias.is_empty() {
            bias.clone_from(&next.bias);
        } else {
            bias.iter_mut().zip(&next.bias).for_each(|(sum, bias)| *sum += bias);
        }
        Ok(Self { map: Arc::new(map), weights, bias })
    }

    /// Returns this map followed by a mean over windows, as sums of inputs (whose one weight is one) and the map of them:
    /// see [`LinearMap::pooled`]. `None` where the mean is not of whole channels.
    pub fn pooled(&self, mean: &Self) -> Option<(Arc<LinearMap>, Self)> {
        let [sums, map] = self.map.pooled(&mean.map)?;
        let share = mean.weights.first().copied().unwrap_or(1.0);
        let weights = self.weights.iter().map(|weight| weight * share).collect();
        let bias = match self.bias.is_empty() {
            true => vec![],
            false => mean.map.apply(&mean.weights, &self.bias).ok()?,
        };
        Some((Arc::new(sums), Self { map: Arc::new(map), weights, bias }))
    }

    /// Returns the [finest scale](finest_scale) of the weights for so many bits.
    pub fn finest_scale(&self, bits: u32) -> i32 {
        finest_scale(&self.weights, bits)
    }

    /// Returns the coarsest scale at which the weights are integers of so many bits, their sign included, but for what was
    /// lost where they and a batch norm's factors were rounded to `f32`; `None` where there is no such scale, and where all
    /// weights are zero.
    pub fn exact_scale(&self, bits: u32) -> Option<i32> {
        let finest = self.finest_scale(bits);
        let is_exact = |scale: i32| {
            let unit = f64::from(scale).exp2();
            self.weights.iter().all(|weight| {
                let x = weight * unit;
                (x - to_integer(*weight, bits, scale)).abs() <= (x.abs() * NEARLY).min(1.0 / 64.0)
            })
        };
        if self.weights.iter().all(|&weight| weight == 0.0) {
            return None;
        }
        (0..bits as i32).map(|coarser| finest - coarser).take_while(|&scale| is_exact(scale)).last()
    }

    /// Returns the fewest bits (their sign included, at least 2) that hold all weights at a scale, rounded to the nearest.
    pub fn bits_at(&self, scale: i32) -> u32 {
        let unit = f64::from(scale).exp2();
        // -2^b takes as many bits as 2^b - 1.
        let largest = self.weights.iter().fold(0.0, |largest: f64, weight| {
            let x = (weight * unit).round();
            largest.max(if x < 0.0 { -x - 1.0 } else { x })
        });
        // Its own bits, and the sign.
        (exponent(&[largest + 1.0]) + 1).max(2).unsigned_abs()
    }

    /// Returns the weights as integers of a signed range, rounded to the nearest, with what is true of the sums of rows.
    ///
    /// # Errors
    /// [`Error::NotFinite`] when a weight or bias is NaN or
    /// infinite.
    pub fn quantize(&self, range: WeightRange) -> Result<IntWeights, Error> {
        let numbers = self.weights.iter().chain(&self.bias);
        let found = numbers.clone().filter(|x| !x.is_finite()).count();
        if found > 0 {
            return Err(Error::NotFinite { what: "weights", found, of: numbers.count() });
        }
        let round = |weight: &f64| to_integer(*weight, range.bits(), range.scale_bits()) as i32;
        IntWeights::new(range, self.weights.iter().map(round).collect())?.summed(&self.map)
    }

    /// Returns how far each output of one image can be off when each input is off by up to `errors` (one per element):
    /// the sums of absolute weights times errors.
    ///
    /// # Errors
    /// When the errors are not as many as the input has elements.
    pub fn spread(&self, errors: &[f64]) -> Result<Vec<f64>, Error> {
        let magnitudes: Vec<f64> = self.weights.iter().map(|weight| weight.abs()).collect();
        self.map.apply(&magnitudes, errors)
    }

    /// Returns how far each output can be off because the weights were rounded to integers, for inputs of up to
    /// `largest` (one per element).
    ///
    /// # Errors
    /// When the inputs are not as many as the map has.
    pub fn rounding(&self, integers: &IntWeights, largest: &[f64]) -> Result<Vec<f64>, Error> {
        let unit = f64::from(-integers.range().scale_bits()).exp2();
        let error = |(&real, &integer): (&f64, &i32)| (real - f64::from(integer) * unit).abs();
        let errors: Vec<f64> = self.weights.iter().zip(integers.values()).map(error).collect();
        self.map.apply(&errors, largest)
    }
}

/// How far an integer that went through `f32` three times can be from itself, in parts of it, with a margin.
const NEARLY: f64 = 1.0 / (1u32 << 18) as f64;

/// A weight in units of 2^-`scale`, rounded to the nearest integer that `bits` bits hold, the sign included.
fn to_integer(weight: f64, bits: u32, scale: i32) -> f64 {
    let limit = f64::from(bits - 1).exp2();
    (weight * f64::from(scale).exp2()).round().clamp(-limit, limit - 1.0)
}

/// Returns what a weight becomes when it is rounded to `bits` bits, its sign included (at least 1), in units of 2^-`scale`.
pub fn rounded(weight: f64, bits: u32, scale: i32) -> f64 {
    to_integer(weight, bits, scale) / f64::from(scale).exp2()
}

/// Returns the finest power-of-two scale at which weights of `bits` bits (their sign included, at least 2) hold the largest
/// one, or half of that where it loses less: a largest weight that is a power of two is one more than those bits hold.
pub fn finest_scale(weights: &[f64], bits: u32) -> i32 {
    let scale = bits as i32 - 1 - exponent(weights);
    let lost = |scale: i32| -> f64 {
        weights.iter().map(|&weight| (rounded(weight, bits, scale) - weight).powi(2)).sum()
    };
    let largest = weights.iter().fold(0.0, |largest: f64, &weight| largest.max(weight));
    let fits = (largest * f64::from(scale).exp2()).round() < f64::from(bits - 1).exp2();
    if fits || lost(scale) <= lost(scale - 1) { scale } else { scale - 1 }
}

/// Returns the smallest e for which no number exceeds 2^e in absolute value (0 where all are zero).
pub fn exponent(numbers: &[f64]) -> i32 {
    let largest = numbers.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    if largest == 0.0 {
        return 0;
    }
    // Beyond these, scales leave the range of a format.
    let exponent = largest.log2().ceil().clamp(-100.0, 100.0) as i32;
    // The logarithm of a number just above a power of two is rounded to that of the power.
    if largest > f64::from(exponent).exp2() && exponent < 100 { exponent + 1 } else { exponent }
}
