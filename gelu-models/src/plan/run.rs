//! What happens between a server's sums and the next ciphertexts: a batch on its way through a plan, at the client.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use gelu_layers::{ClientOp, mean_weights};
use gelu_tensor::{Error, FixedTensor, Format, LinearMap, MapEntry, Shape};
use ndarray::{ArrayView, Dimension};
use zeroize::Zeroizing;

use super::{ClientStep, Lowering, Outcome, Plan, Saturations, Segment, Step, Term};
use crate::inputs::flat;
use crate::model::matrix;
use crate::peer::exchange::sum_of_terms;
use crate::{Graph, Op, ValueId};

/// A function of the client's own: from the elements of one image's value to those of what a
/// [`ClientOp::Function`] makes of it.
pub type ClientFunction = dyn Fn(&[f64]) -> Vec<f64> + Send + Sync;

/// The functions of the client's own, by name.
#[derive(Clone, Default)]
pub struct Functions(BTreeMap<String, Arc<ClientFunction>>);

impl Functions {
    /// Adds a function, in place of an earlier one of the same name.
    pub fn insert(&mut self, name: impl Into<String>, function: Arc<ClientFunction>) {
        self.0.insert(name.into(), function);
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a run needs next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Need {
    /// The sums of a segment of these inputs, one for each of its terms.
    Sums {
        /// Which segment of the plan.
        segment: usize,
        /// What is to be encrypted.
        inputs: Vec<FixedTensor>,
    },
    /// Nothing: the run is through, and [`Run::finish`] says what came out.
    Nothing,
}

/// One batch on its way through a plan, without encryption: everything that the client computes.
///
/// It says what it needs of the server and takes it, whoever provides it: the encrypted session, or the clear
/// computation on integers. Both share it, so that they cannot differ. This is the mode in which the client computes what
/// lies between two segments in the clear; another could compute it on shares of both parties behind the same questions.
pub(crate) struct Run {
    plan: Arc<Plan>,
    functions: Functions,
    images: usize,
    /// The values that are still needed.
    values: Vec<Option<Value>>,
    /// The next step.
    at: usize,
    saturations: Saturations,
    integers: Option<FixedTensor>,
}

/// A value of a batch.
#[derive(Clone)]
enum Value {
    Reals(Zeroizing<Vec<f64>>),
    /// What is encrypted of it, of which the range has changed so many.
    Integers {
        integers: Zeroizing<Vec<i64>>,
        clamped: u64,
    },
}

impl Run {
    /// Begins with images, `[images, elements]` or of the input's shape, and says what is needed first. Elements beyond
    /// the declared range of the input are clamped to it and counted.
    ///
    /// # Errors
    /// [`Error::TooFew`] when there is no image; [`Error::Shape`] when they are not of the plan's input shape;
    /// [`Error::NotFinite`] when an element is NaN or infinite.
    pub(crate) fn start<D: Dimension>(
        plan: Arc<Plan>,
        functions: Functions,
        images: ArrayView<'_, f32, D>,
    ) -> Result<(Self, Need), Error> {
        let images = flat(images, plan.graph().input())?;
        if images.is_empty() {
            return Err(Error::TooFew { what: "images", least: 1, found: 0 });
        }
        let found = images.iter().filter(|x| !x.is_finite()).count();
        if found > 0 {
            return Err(Error::NotFinite { what: "elements of input images", found, of: images.len() });
        }
        let mut values = vec![None; plan.graph().nodes().len() + 1];
        values[0] = Some(Value::Reals(Zeroizing::new(images.iter().map(|&x| f64::from(x)).collect())));
        let images = images.nrows();
        let saturations = Saturations::default();
        let mut run = Self { plan, functions, images, values, at: 0, saturations, integers: None };
        let need = run.proceed()?;
        Ok((run, need))
    }

    /// Takes the sums of the segment that was needed, and says what is needed next.
    ///
    /// # Errors
    /// [`Error::Count`] when another segment was needed or the sums are not of all images.
    pub(crate) fn take(&mut self, sums: FixedTensor) -> Result<Need, Error> {
        let plan = self.plan.clone();
        let Some(Step::Segment(index)) = plan.steps().get(self.at) else {
            return Err(Error::Count { what: "sums that are needed", expected: 0, found: 1 });
        };
        let segment = &plan.segments()[*index];
        let (expected, found) = (self.images * segment.shape.elements(), sums.values().len());
        if expected != found {
            return Err(Error::Count { what: "sums of a batch", expected, found });
        }
        match &plan.integer_steps[*index] {
            Some(Lowering { output, maxima, step, .. }) => {
                let largest = maxima.as_ref().map(|maxima| Zeroizing::new(maxima.of(sums.values())));
                let (integers, clamped) = step.apply_all(largest.as_deref().map_or(sums.values(), |all| all));
                let integers = Zeroizing::new(integers);
                self.values[output.index()] = Some(Value::Integers { integers, clamped });
            }
            None => {
                self.values[segment.output.index()] = Some(Value::Reals(Zeroizing::new(sums.reals())));
            }
        }
        self.integers = Some(sums);
        self.release();
        self.proceed()
    }

    /// The integers of a term that the client has before the first segment.
    ///
    /// # Errors
    /// [`Error::Count`] when it does not have them.
    #[cfg(feature = "hidden")]
    pub(crate) fn known(&mut self, term: &Term) -> Result<FixedTensor, Error> {
        self.quantize(term)
    }

    /// Goes to the last segment and takes its sums, where those between were nobody's to see.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    #[cfg(feature = "hidden")]
    pub(crate) fn take_last(&mut self, sums: FixedTensor) -> Result<Need, Error> {
        let last = self.plan.segments().len() - 1;
        self.at = self.plan.steps().iter().position(|step| *step == Step::Segment(last)).unwrap_or(self.at);
        self.take(sums)
    }

    /// Computes the client's steps up to the next segment.
    fn proceed(&mut self) -> Result<Need, Error> {
        let plan = self.plan.clone();
        while let Some(step) = plan.steps().get(self.at) {
            match step {
                Step::Segment(segment) => {
                    let terms = plan.segments()[*segment].terms.iter();
                    let inputs = terms.map(|term| self.quantize(term)).collect::<Result<_, _>>()?;
                    return Ok(Need::Sums { segment: *segment, inputs });
                }
                // Done when the sums came.
                Step::Client(step)
                    if self.values[step.output.index()].is_some() || plan.is_between(step.output) =>
                {
                    self.release();
                }
                Step::Client(step) => {
                    let inputs = self.read(&step.inputs)?;
                    let value = compute(plan.graph(), step, &inputs, &self.functions)?;
                    self.values[step.output.index()] = Some(Value::Reals(Zeroizing::new(value)));
                    self.release();
                }
            }
        }
        Ok(Need::Nothing)
    }

    /// Ends a step: what nobody reads any more is forgotten.
    fn release(&mut self) {
        for (value, &last) in self.values.iter_mut().zip(&self.plan.last_uses) {
            if last <= self.at {
                *value = None;
            }
        }
        self.at += 1;
    }

    fn read(&self, values: &[ValueId]) -> Result<Vec<&[f64]>, Error> {
        let read = |value: &ValueId| match self.values.get(value.index())? {
            Some(Value::Reals(reals)) => Some(&reals[..]),
            _ => None,
        };
        let found: Vec<&[f64]> = values.iter().filter_map(read).collect();
        match found.len() == values.len() {
            true => Ok(found),
            false => Err(Error::Count {
                what: "values that a step reads",
                expected: values.len(),
                found: found.len(),
            }),
        }
    }

    /// Rounds a value to what goes up for a term; what leaves the declared range is clamped and counted (a NaN, which
    /// only a function of the client's own can make, counts too and becomes zero).
    fn quantize(&mut self, term: &Term) -> Result<FixedTensor, Error> {
        let (values, clamped) = match self.values.get(term.source.index()) {
            Some(Some(Value::Integers { integers, clamped })) => (integers.to_vec(), *clamped),
            _ => round(self.read(&[term.source])?[0], term.values),
        };
        self.saturations.count(term.source, clamped);
        let values = encrypted(values, term.sums.as_deref(), term.factor)?;
        FixedTensor::new(term.map.input().clone(), term.format, values)
    }

    /// Returns what came out, once nothing is needed any more.
    ///
    /// # Errors
    /// [`Error::Count`] before that.
    pub(crate) fn finish(self) -> Result<Outcome, Error> {
        let rows = |value: ValueId| matrix(self.images, self.read(&[value])?[0].to_vec());
        let (logits, outputs) = (rows(self.plan.logits)?, rows(self.plan.output)?);
        let integers = self.integers.ok_or(Error::TooFew { what: "segments run", least: 1, found: 0 })?;
        Ok(Outcome { integers, logits, outputs, saturations: self.saturations })
    }
}

/// Rounds reals to integers of a format, and counts what leaves its range.
fn round(reals: &[f64], format: Format) -> (Vec<i64>, u64) {
    let (bound, scale) = (format.bound() as f64, f64::from(format.scale_bits()).exp2());
    let mut clamped = 0;
    let round = |x: &f64| {
        let rounded = (x * scale).round();
        if rounded.abs() <= bound {
            return rounded as i64;
        }
        clamped += 1;
        rounded.clamp(-bound, bound) as i64
    };
    (reals.iter().map(round).collect(), clamped)
}

/// What is encrypted of a batch's integers: they themselves or sums of them, times a factor. All mod 2^64, so that it is as well
/// done on shares.
pub(crate) fn encrypted(
    mut values: Vec<i64>,
    sums: Option<&LinearMap>,
    factor: i64,
) -> Result<Vec<i64>, Error> {
    if let Some(sums) = sums {
        let values = Zeroizing::new(values);
        let sums = sums.apply_wrapping(&[factor as u64], &values)?;
        return Ok(sums.into_iter().map(|sum| sum as i64).collect());
    }
    values.iter_mut().for_each(|value| *value = value.wrapping_mul(factor));
    Ok(values)
}

/// What a client's node makes of its inputs, image after image.
pub(crate) fn compute(
    graph: &Graph,
    step: &ClientStep,
    inputs: &[&[f64]],
    functions: &Functions,
) -> Result<Vec<f64>, Error> {
    let node = &graph.nodes()[step.node];
    let shapes: Vec<&Shape> = node.inputs.iter().map(|&input| graph.shape(input)).collect();
    match (&node.op, &step.map) {
        (Op::Client(ClientOp::Function { function, output }), _) => {
            let (elements, expected) = (shapes[0].elements(), output.elements());
            let Some(own) = functions.0.get(function) else {
                return Err(Error::MissingFunction { name: function.clone() });
            };
            let mut out = Vec::with_capacity(inputs[0].len() / elements * expected);
            for image in inputs[0].chunks_exact(elements) {
                let made = own(image);
                if made.len() != expected {
                    let what = "elements that a function of the client's own makes";
                    return Err(Error::Count { what, expected, found: made.len() });
                }
                out.extend(made);
            }
            Ok(out)
        }
        (Op::Client(op), _) => op.forward(&shapes, inputs),
        (Op::Linear(_), Some(map)) => map.apply(&mean_weights(map), inputs[0]),
        (Op::Concat, _) => {
            let images = inputs[0].len() / shapes[0].elements();
            let part = |image: usize| {
                let parts = inputs.iter().zip(&shapes);
                parts.flat_map(move |(value, shape)| {
                    value[image * shape.elements()..][..shape.elements()].iter()
                })
            };
            Ok((0..images).flat_map(part).copied().collect())
        }
        _ => Ok(inputs[0].iter().zip(inputs[1]).map(|(a, b)| a + b).collect()),
    }
}

/// The gradients with respect to a client's node's inputs, given that of its output.
pub(crate) fn gradients_of(
    graph: &Graph,
    step: &ClientStep,
    inputs: &[&[f64]],
    grad: &[f64],
) -> Result<Vec<Vec<f64>>, Error> {
    let node = &graph.nodes()[step.node];
    let shapes: Vec<&Shape> = node.inputs.iter().map(|&input| graph.shape(input)).collect();
    match (&node.op, &step.map) {
        (Op::Client(op), _) => op.backward(&shapes, inputs, grad),
        (Op::Linear(_), Some(map)) => {
            let weights = mean_weights(map);
            let mut errors = vec![0.0; inputs[0].len()];
            let images = errors.chunks_exact_mut(shapes[0].elements());
            for (errors, grad) in images.zip(grad.chunks_exact(map.output().elements())) {
                for MapEntry { input, output, weight } in map.entries() {
                    errors[input as usize] += weights[weight as usize] * grad[output as usize];
                }
            }
            Ok(vec![errors])
        }
        (Op::Concat, _) => {
            let whole: usize = shapes.iter().map(|shape| shape.elements()).sum();
            let mut first = 0;
            let part = |shape: &&Shape| {
                let range = first..first + shape.elements();
                first = range.end;
                grad.chunks_exact(whole).flat_map(|image| image[range.clone()].to_vec()).collect()
            };
            Ok(shapes.iter().map(part).collect())
        }
        _ => Ok(vec![grad.to_vec(); 2]),
    }
}

/// The sums of a segment on integers in the clear: what a server computes on ciphertexts.
pub(super) fn sums_in_the_clear(
    segment: &Segment,
    (weights, bias): (&[gelu_tensor::IntWeights], &[f64]),
    inputs: &[FixedTensor],
) -> Result<FixedTensor, Error> {
    let terms = segment
        .terms
        .iter()
        .zip(weights)
        .zip(inputs)
        .map(|((term, weights), input)| input.apply(&term.map, weights)?.reshape(segment.shape.clone()));
    let sums = sum_of_terms(terms, FixedTensor::add)?;
    match segment.bias(bias)? {
        Some(bias) => sums.add(&bias),
        None => Ok(sums),
    }
}

/// Does not print the values.
impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("images", &self.images).field("at", &self.at).finish_non_exhaustive()
    }
}
