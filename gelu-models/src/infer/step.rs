use gelu_layers::Activation;
use gelu_tensor::{Error, FixedTensor, Format};
use ndarray::{Array2, ArrayView2};

use crate::plan::{Plan, Segment};

/// What a client does between two segments, on the weighted sums as reals, image after image: replaces the plan's
/// activations.
pub type StepFn = dyn FnMut(&Segment, &mut [f64]) + Send;

/// The client's part of a run, without encryption: quantise, activate, quantise again.
///
/// The encrypted client and the run in the clear share it, so that they cannot differ.
pub struct Step<'a> {
    plan: &'a Plan,
    custom: Option<&'a mut StepFn>,
    saturations: u64,
    outcome: Option<Outcome>,
}

/// What comes out at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The last segment's sums as integers.
    pub integers: FixedTensor,
    /// What [`Model::logits`](crate::Model::logits) gives: the outputs before the final softmax, `[images, outputs]`.
    /// Where the client has a step of its own, the sums as reals that it is given.
    pub logits: Array2<f64>,
    /// After the final activations (probabilities, where the model ends in a softmax), `[images, outputs]`.
    pub outputs: Array2<f64>,
    /// Inputs and activations that were clamped to their declared range.
    pub saturations: u64,
}

impl Outcome {
    /// For each image the index of its largest logit: the predicted class. The first of equals.
    pub fn predictions(&self) -> Vec<usize> {
        let largest = |row: ndarray::ArrayView1<'_, f64>| {
            (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0)
        };
        self.logits.outer_iter().map(largest).collect()
    }
}

impl<'a> Step<'a> {
    /// The steps of `plan` with its own activations.
    pub fn new(plan: &'a Plan) -> Self {
        Self { plan, custom: None, saturations: 0, outcome: None }
    }

    pub(super) fn with_custom(plan: &'a Plan, custom: Option<&'a mut StepFn>, saturations: u64) -> Self {
        Self { plan, custom, saturations, outcome: None }
    }

    pub(super) fn saturations(&self) -> u64 {
        self.saturations
    }

    /// The images `[images, elements]` as integers, for the first segment.
    ///
    /// # Errors
    /// [`Error::Count`] when there is none or they have another number of elements than the plan's input.
    pub fn quantise_input(&mut self, images: ArrayView2<'_, f32>) -> Result<FixedTensor, Error> {
        let elements = self.plan.input.elements();
        if images.ncols() != elements || images.nrows() == 0 {
            let what = "elements of an input image";
            return Err(Error::Count { what, expected: elements, found: images.ncols() });
        }
        let mut reals: Vec<f64> = images.iter().map(|&x| f64::from(x)).collect();
        for activation in &self.plan.prologue {
            reals.iter_mut().for_each(|x| *x = activation.apply(*x).unwrap_or(*x));
        }
        self.quantise(&reals, 0)
    }

    /// Takes the sums of segment `index` and gives the integers for the next one; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Count`] when there is no such segment or the sums are not whole images of it.
    pub fn advance(&mut self, index: usize, sums: FixedTensor) -> Result<Option<FixedTensor>, Error> {
        let Some(segment) = self.plan.segments.get(index) else {
            let what = "segments of the plan";
            return Err(Error::Count { what, expected: self.plan.segments.len(), found: index + 1 });
        };
        let sums = sums.reshape(segment.output.clone())?;
        let mut reals: Vec<f64> = sums.values().iter().map(|&value| sums.format().real(value)).collect();
        let last = index + 1 == self.plan.segments.len();
        let softmax = segment.activations.iter().position(|a| *a == Activation::Softmax);
        let (before, after) = segment.activations.split_at(softmax.unwrap_or(segment.activations.len()));
        if self.custom.is_none() {
            activate(before, &mut reals, segment.output.elements());
        }
        let logits = last.then(|| rows(&sums, reals.clone())).transpose()?;
        match self.custom.as_mut() {
            Some(custom) => custom(segment, &mut reals),
            None => activate(after, &mut reals, segment.output.elements()),
        }
        match logits {
            None => self.quantise(&reals, index + 1).map(Some),
            Some(logits) => {
                let outputs = rows(&sums, reals)?;
                self.outcome =
                    Some(Outcome { integers: sums, logits, outputs, saturations: self.saturations });
                Ok(None)
            }
        }
    }

    /// What came out, after the last segment.
    ///
    /// # Errors
    /// [`Error::Count`] before it.
    pub fn finish(self) -> Result<Outcome, Error> {
        let expected = self.plan.segments.len();
        self.outcome.ok_or(Error::Count { what: "segments run, all", expected, found: 0 })
    }

    /// Rounds reals to the input of a segment, and clamps and counts what leaves the declared range (a NaN counts
    /// too, and becomes zero).
    fn quantise(&mut self, reals: &[f64], index: usize) -> Result<FixedTensor, Error> {
        let segment = &self.plan.segments[index];
        let format: Format = segment.input_format;
        let (bound, scale) = (format.bound() as f64, f64::from(format.scale_bits()).exp2());
        let values = reals
            .iter()
            .map(|x| {
                let rounded = (x * scale).round();
                if rounded.abs() <= bound {
                    return rounded as i64;
                }
                self.saturations += 1;
                rounded.clamp(-bound, bound) as i64
            })
            .collect();
        FixedTensor::new(segment.input.clone(), format, values)
    }
}

fn activate(activations: &[Activation], reals: &mut [f64], outputs: usize) {
    for activation in activations {
        if *activation == Activation::Softmax {
            reals.chunks_mut(outputs).for_each(softmax);
        } else {
            reals.iter_mut().for_each(|x| *x = activation.apply(*x).unwrap_or(*x));
        }
    }
}

/// Shifted by the row's maximum, so that no exponential overflows.
fn softmax(row: &mut [f64]) {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    let sum: f64 = row.iter().sum();
    row.iter_mut().for_each(|x| *x /= sum);
}

fn rows(sums: &FixedTensor, reals: Vec<f64>) -> Result<Array2<f64>, Error> {
    let (rows, columns) = (sums.batch(), sums.shape().elements());
    let found = reals.len();
    Array2::from_shape_vec((rows, columns), reals).map_err(|_| Error::Count {
        what: "outputs of a batch",
        expected: rows * columns,
        found,
    })
}
