//! One segment of a plan: its layers, their way forward and the way of errors back.

use std::ops::Range;
use std::sync::Arc;

use gelu_tensor::{Contents, Error, Format, LinearMap, Shape, WeightRange};

use super::FixedPoint;
use crate::ValueId;
use crate::plan::{Layout, MapOf};

/// A sum of linear layers (each with the pooling after it, if there is one) that the server computes in one go.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainSegment {
    /// The names of its layers, joined by `+`.
    pub name: String,
    /// The value that the client has after it.
    pub output: ValueId,
    pub(super) shape: Shape,
    /// The layers whose sums are added up.
    pub terms: Vec<TrainTerm>,
    pub(super) scale: u32,
    pub(super) divisor: u64,
    /// Where the tensors lie, and how they are multiplied.
    pub layout: Layout,
}

/// A layer whose weights are trained, on one value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TrainTerm {
    /// The value that the client encrypts.
    pub source: ValueId,
    /// The layer, and where its parameters lie.
    pub layer: LayerSpan,
    /// The sums of the value's elements that the client encrypts in its place, if it does.
    pub sums: Option<Arc<LinearMap>>,
    /// The map of what is encrypted.
    pub map: Arc<LinearMap>,
    pub(super) values: (i32, u64),
    pub(super) factor: i64,
    /// The bound of what is encrypted.
    pub format: Format,
    pub(super) divisor: u64,
    /// How many outputs of the layer the mean of each output of the segment covers, where a padded window covers fewer
    /// than `divisor`.
    pub(super) covered: Option<Vec<u32>>,
    /// The way of errors back through the layer; `None` where nothing before it is trained.
    pub back: Option<Back>,
}

/// The way of errors back through a layer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Back {
    /// The map of errors.
    pub map: Arc<LinearMap>,
    /// From products to the errors of the value, where the client encrypts sums of it.
    pub(super) sums: Option<LinearMap>,
    /// Where the tensors lie, and how they are multiplied.
    pub layout: Layout,
}

/// Where a layer's weights and biases lie among all parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSpan {
    /// Its name.
    pub name: String,
    /// Rows: outputs at one position.
    pub rows: usize,
    /// Shape of the weights, as PyTorch has it.
    pub shape: Shape,
    /// Weights, row by row.
    pub weights: Range<usize>,
    /// Biases, one for each row, or none.
    pub biases: Range<usize>,
}

impl LayerSpan {
    /// Returns the number of weights of one row.
    pub(crate) fn taps(&self) -> usize {
        self.weights.len() / self.rows
    }

    pub(super) fn shape_of(&self, kind: &str, range: &Range<usize>) -> Shape {
        if kind == "weight" { self.shape.clone() } else { Shape::from([range.len()]) }
    }

    /// The kinds of its tensors, and where they lie.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&'static str, &Range<usize>)> {
        [("weight", &self.weights), ("bias", &self.biases)].into_iter().filter(|(_, range)| !range.is_empty())
    }
}

impl TrainSegment {
    /// What integer sums are multiplied with to get reals.
    pub(in super::super) fn unit(&self, numbers: &FixedPoint) -> f64 {
        f64::from(-((self.scale + numbers.product_bits) as i32)).exp2() / self.divisor as f64
    }

    /// What integer gradients of weights are multiplied with, besides what errors are.
    pub(in super::super) fn gradient_unit(&self) -> f64 {
        f64::from(-(self.scale as i32)).exp2() / self.divisor as f64
    }

    /// What biases are multiplied with at the scale of sums, where no mean covers padding.
    pub(crate) fn bias_factor(&self) -> u64 {
        self.divisor << self.scale
    }

    /// What biases of a term are multiplied with at the scale of sums, for each output.
    fn bias_factors(&self, term: &TrainTerm) -> impl Fn(usize) -> u64 {
        let (all, one) = (self.bias_factor(), self.bias_factor() / term.divisor);
        move |output| term.covered.as_ref().map_or(all, |covered| u64::from(covered[output]) * one)
    }

    /// Returns the biases of all outputs as they are added to sums; none for layers without.
    pub fn bias(&self, parameters: &[i64]) -> Vec<i64> {
        let mut all: Vec<i64> = vec![];
        for term in self.terms.iter().filter(|term| !term.layer.biases.is_empty()) {
            all.resize(self.shape.elements(), 0);
            let (biases, positions) = (&parameters[term.layer.biases.clone()], all.len() / term.layer.rows);
            let factor = self.bias_factors(term);
            for (at, sum) in all.iter_mut().enumerate() {
                *sum = sum.wrapping_add(biases[at / positions].wrapping_mul(factor(at) as i64));
            }
        }
        all
    }

    /// Returns sums in the clear, biases included, of what goes up for each term. Nothing wraps where sums are within
    /// [their bits](FixedPoint::sum_bits).
    ///
    /// # Errors
    /// When the inputs are no whole batches.
    pub fn sums<T: AsRef<[i64]>>(&self, parameters: &[i64], inputs: &[T]) -> Result<Vec<i64>, Error> {
        let mut sums: Vec<i64> = vec![];
        for (term, inputs) in self.terms.iter().zip(inputs) {
            let weights = &parameters[term.layer.weights.clone()];
            let products = apply(&term.map, weights, inputs.as_ref())?;
            sums.resize(products.len(), 0);
            sums.iter_mut().zip(products).for_each(|(sum, x)| *sum = sum.wrapping_add(x));
        }
        let bias = self.bias(parameters);
        sums.iter_mut().zip(bias.iter().cycle()).for_each(|(sum, bias)| *sum = sum.wrapping_add(*bias));
        Ok(sums)
    }

    /// Returns the largest absolute values that sums and products of errors can have, for parameters of these absolute
    /// values; saturating.
    ///
    /// # Errors
    /// When the parameters are not as many as the plan has.
    pub(crate) fn largest(&self, magnitudes: &[u64], numbers: &FixedPoint) -> Result<[u64; 2], Error> {
        let mut sums = vec![0u64; self.shape.elements()];
        let mut product = 0;
        for term in &self.terms {
            let weights = &magnitudes[term.layer.weights.clone()];
            let inputs = vec![term.format.bound(); term.map.input().elements()];
            let bounds = term.map.bounds(weights, &inputs)?;
            sums.iter_mut().zip(bounds).for_each(|(sum, bound)| *sum = sum.saturating_add(bound));
            let (biases, positions) = (&magnitudes[term.layer.biases.clone()], sums.len() / term.layer.rows);
            if !biases.is_empty() {
                let factor = self.bias_factors(term);
                for (at, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.saturating_add(biases[at / positions].saturating_mul(factor(at)));
                }
            }
            if let Some(back) = &term.back {
                let errors = vec![1 << numbers.error_bits; back.map.input().elements()];
                product = back.map.bounds(weights, &errors)?.into_iter().fold(product, u64::max);
            }
        }
        Ok([sums.into_iter().fold(0, u64::max), product])
    }
}

impl TrainTerm {
    /// The map of what is encrypted, for weights of a range.
    pub(super) fn forward(&self, weights: WeightRange) -> MapOf<'_> {
        MapOf { map: &self.map, contents: Contents::Integers(self.format), weights }
    }

    /// Fractional bits and bound of the value as integers.
    pub(in super::super) fn values(&self) -> (i32, u64) {
        self.values
    }

    /// Adds to the gradient of each bias the errors of the outputs that it is in, of any number of images.
    pub(in super::super) fn add_bias_gradient(&self, errors: &[i64], unit: f64, gradient: &mut [f64]) {
        let positions = self.map.output().elements() / self.layer.rows;
        for (channel, errors) in errors.chunks_exact(positions).enumerate() {
            let row = channel % self.layer.rows;
            let sum = match &self.covered {
                None => errors.iter().sum::<i64>() as f64,
                Some(covered) => {
                    let covered = &covered[row * positions..][..positions];
                    let pairs = errors.iter().zip(covered);
                    pairs.map(|(error, &count)| error * i64::from(count)).sum::<i64>() as f64
                        / self.divisor as f64
                }
            };
            gradient[row] += sum * unit;
        }
    }

    /// What goes up for integers of the value.
    pub(in super::super) fn inputs(&self, values: Vec<i64>) -> Result<Vec<i64>, Error> {
        crate::plan::encrypted(values, self.sums.as_deref(), self.factor)
    }

    /// What products of errors are multiplied with to get reals.
    pub(in super::super) fn product_unit(&self, numbers: &FixedPoint) -> f64 {
        f64::from(-((numbers.error_bits + numbers.product_bits) as i32)).exp2() / self.divisor as f64
    }

    /// Returns products of errors in the clear; none where no errors go back.
    ///
    /// # Errors
    /// When the errors are no whole batches.
    pub(crate) fn products(&self, parameters: &[i64], errors: &[i64]) -> Result<Vec<i64>, Error> {
        let weights = &parameters[self.layer.weights.clone()];
        self.back.as_ref().map_or(Ok(vec![]), |back| apply(&back.map, weights, errors))
    }
}

/// A map of integers, whose sums are bounded elsewhere.
fn apply(map: &LinearMap, weights: &[i64], inputs: &[i64]) -> Result<Vec<i64>, Error> {
    let weights: Vec<u64> = weights.iter().map(|&weight| weight as u64).collect();
    Ok(map.apply_wrapping(&weights, inputs)?.into_iter().map(|sum| sum as i64).collect())
}

impl Back {
    /// The errors of the value, from products as reals.
    pub(in super::super) fn errors(&self, products: Vec<f64>) -> Result<Vec<f64>, Error> {
        self.sums.as_ref().map_or(Ok(products.clone()), |sums| sums.apply(&[1.0], &products))
    }
}
