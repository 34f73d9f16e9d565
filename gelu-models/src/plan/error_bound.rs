//! How far the integers' logits can be from the reals'.

use gelu_layers::ClientOp;
use gelu_tensor::{Error, Format, LinearMap};

use super::{ClientStep, Program, Step};
use crate::Op;

/// Of one value: how far each element of an image can be off, and how large the value can be.
#[derive(Clone)]
struct Spread {
    errors: Vec<f64>,
    largest: f64,
}

impl Program {
    /// Returns how far a logit can be from the real network's, as long as no activation leaves its declared range: every
    /// rounding of inputs, weights, biases and activations at its worst, element by element, all in the same direction.
    /// In practice they cancel almost entirely. Infinite where the graph has a function of the client's own.
    ///
    /// It depends on the weights and is not part of the plan.
    ///
    /// # Errors
    /// None in practice: the shapes were checked when the program was made.
    pub fn error_bound(&self) -> Result<f64, Error> {
        let plan = self.plan();
        let mut values: Vec<Option<Spread>> = vec![None; plan.graph().nodes().len() + 1];
        let input = plan.graph().input().elements();
        // Values that are encrypted have a declared range; of others, the input among them, nothing need be known.
        let formats = &plan.description().numbers.formats;
        let declared =
            |value: usize| formats.get(&(value as u32)).map_or(f64::INFINITY, |format| largest(*format));
        values[0] = Some(Spread { errors: vec![0.0; input], largest: declared(0) });
        for step in plan.steps() {
            let (output, mut spread) = match step {
                Step::Segment(index) => {
                    (plan.segments()[*index].output, self.segment_spread(*index, &values)?)
                }
                Step::Client(step) => (step.output, self.client_spread(step, &values)?),
            };
            spread.largest = spread.largest.min(declared(output.index()));
            values[output.index()] = Some(spread);
        }
        let logits = values[plan.logits.index()].take();
        // Nothing is known of what is no number.
        let worst = |worst: f64, error: f64| if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        Ok(logits.map_or(f64::INFINITY, |logits| logits.errors.into_iter().fold(0.0, worst)))
    }

    fn segment_spread(&self, index: usize, values: &[Option<Spread>]) -> Result<Spread, Error> {
        let segment = &self.plan().segments()[index];
        let mut errors = vec![half_step(segment.format); segment.shape.elements()];
        let terms = segment.terms.iter().zip(&self.cut().segments[index].terms).zip(self.weights(index));
        for ((term, cut), weights) in terms {
            let Some(Spread { errors: known, .. }) = &values[term.source.index()] else { continue };
            let rounded: Vec<f64> = known.iter().map(|error| error + half_step(term.values)).collect();
            let bounds = vec![largest(term.values); rounded.len()];
            let ones = |sums: &LinearMap, x: &[f64]| sums.apply(&[1.0], x);
            let (rounded, bounds) = match term.sums.as_deref() {
                None => (rounded, bounds),
                Some(sums) => (ones(sums, &rounded)?, ones(sums, &bounds)?),
            };
            let parts = [cut.affine.spread(&rounded)?, cut.affine.rounding(weights, &bounds)?];
            for part in parts {
                errors.iter_mut().zip(part).for_each(|(sum, error)| *sum += error);
            }
        }
        Ok(Spread { errors, largest: largest(segment.format) })
    }

    fn client_spread(&self, step: &ClientStep, values: &[Option<Spread>]) -> Result<Spread, Error> {
        let inputs: Vec<&Spread> =
            step.inputs.iter().filter_map(|input| values[input.index()].as_ref()).collect();
        let graph = self.plan().graph();
        let node = &graph.nodes()[step.node];
        let largest = inputs.iter().map(|input| input.largest);
        let sizes: Vec<f64> = largest.clone().collect();
        let all: Vec<&[f64]> = inputs.iter().map(|input| &input.errors[..]).collect();
        let in_the_clear =
            |values: &[&[f64]]| super::compute(graph, step, values, &super::Functions::default());
        Ok(match &node.op {
            Op::Client(ClientOp::Activation(activation)) => {
                // The real network's value may lie beyond the integers' by its error.
                let off = all[0].iter().copied().fold(0.0, f64::max);
                let steepness = activation.steepness(sizes[0] + off);
                let errors = all[0].iter().map(|&error| grown(error, steepness)).collect();
                Spread { errors, largest: activation.range(sizes[0]) }
            }
            // The largest of a window is off by no more than the one that is off most.
            Op::Client(op @ ClientOp::MaxPool2d(_)) => {
                Spread { errors: in_the_clear(&all)?, largest: op.range(&sizes) }
            }
            // |ab - a'b'| <= |a| |b - b'| + |b'| |a - a'|
            Op::Client(op @ ClientOp::Mul) => {
                let ones: Vec<Vec<f64>> = all.iter().map(|errors| vec![1.0; errors.len()]).collect();
                let [a, b] = [in_the_clear(&[all[0], &ones[1]])?, in_the_clear(&[&ones[0], all[1]])?];
                let product = |(&a, &b): (&f64, &f64)| grown(a, sizes[1]) + grown(b, sizes[0]) + grown(a, b);
                Spread { errors: a.iter().zip(&b).map(product).collect(), largest: op.range(&sizes) }
            }
            Op::Client(ClientOp::Softmax) => {
                let most = all[0].iter().copied().fold(0.0, f64::max);
                Spread { errors: vec![most.min(1.0); all[0].len()], largest: 1.0 }
            }
            Op::Client(op @ ClientOp::Function { output, .. }) => {
                Spread { errors: vec![f64::INFINITY; output.elements()], largest: op.range(&sizes) }
            }
            Op::Add => Spread { errors: in_the_clear(&all)?, largest: largest.sum() },
            Op::Concat | Op::Linear(_) => {
                Spread { errors: in_the_clear(&all)?, largest: largest.fold(0.0, f64::max) }
            }
        })
    }
}

/// An error times a factor, which may be infinite: no error stays none.
fn grown(error: f64, factor: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error * factor }
}

/// The largest error of rounding to a format.
fn half_step(format: Format) -> f64 {
    0.5 * format.real(1)
}

/// The largest real of a format.
fn largest(format: Format) -> f64 {
    format.real(format.bound() as i64)
}
