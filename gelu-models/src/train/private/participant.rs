//! A client's arithmetic in training: batches, activations, gradients, steps.

use std::sync::Arc;

use gelu_layers::CrossEntropy;
use ndarray::Array2;
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::pass::{Pass, reals, round_stochastically};
use super::{Grant, PrivateError, ResumeFault, Samples, TrainPlan};
use crate::peer::Part;
use crate::plan::{Functions, Step, compute, gradients_of};

/// What determines a client's part of a run, besides its data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantConfig {
    /// Which client it is, from 0.
    pub client: u32,
    /// Determines the order of its inputs and how it rounds.
    pub seed: u64,
    /// Of its gradient descent, from 0 to below 1.
    pub momentum: f64,
}

/// What a client has met while training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Inputs.
    pub images: u64,
    /// Sum of the losses, in nats.
    pub loss: f64,
    /// Inputs with the right label.
    pub correct: u64,
    /// Inputs, activations, errors and steps that were clamped to their range.
    pub clamped: u64,
}

/// A step's absolute value is below this.
pub(super) const STEP_BOUND: i64 = 1 << 23;

/// What a client needs of the server next.
pub(super) enum Need {
    /// The weighted sums of a segment, of inputs for each of its terms.
    Sums(usize, Vec<Zeroizing<Vec<i64>>>),
    /// The products of errors with the weights of a term of a segment.
    Products([usize; 2], Zeroizing<Vec<i64>>),
    /// Nothing: an iteration is over, with these steps.
    Nothing(Vec<i64>),
    /// That it takes the sum of all steps, and ends the turn.
    Total(Vec<i64>),
}

/// The client's arithmetic, which knows nothing of ciphertexts: batches, activations, gradients, steps.
pub(super) struct Participant {
    plan: Arc<TrainPlan>,
    samples: Arc<dyn Samples>,
    config: ParticipantConfig,
    /// Where each input of the present epoch comes in.
    order: (u64, Vec<usize>),
    state: ParticipantState,
    iteration: Option<Iteration>,
}

/// What of a participant is kept between iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParticipantState {
    /// Inputs taken so far.
    pub consumed: u64,
    /// The bits of the momentum's numbers (`f64`), one for each parameter.
    pub velocity: Vec<u64>,
    /// What it has met.
    pub statistics: Statistics,
    /// In a turn: what was granted, iterations done, sum of the steps.
    pub turn: Option<(Grant, u32, Vec<i64>)>,
}

/// Counters of a state that is resumed from are below this: a century of training cannot bring them to where they wrap.
const MOST_COUNTED: u64 = 1 << 60;

struct Iteration {
    pass: Pass,
    rng: ChaCha8Rng,
    gradient: Vec<f64>,
}

impl Participant {
    pub(super) fn new(
        plan: Arc<TrainPlan>,
        samples: Arc<dyn Samples>,
        config: ParticipantConfig,
    ) -> Result<Self, PrivateError> {
        let setting = |what, expected: String, found: String| PrivateError::Setting { what, expected, found };
        let (expected, found) = (plan.description().graph.input().elements(), samples.shape().elements());
        if expected != found {
            return Err(setting("elements of an input", expected.to_string(), found.to_string()));
        }
        if plan.outputs() != samples.classes() {
            return Err(setting("classes", plan.outputs().to_string(), samples.classes().to_string()));
        }
        if samples.count() == 0 {
            return Err(setting("inputs of a client", "at least 1".to_owned(), "0".to_owned()));
        }
        if !(0.0..1.0).contains(&config.momentum) {
            let found = config.momentum.to_string();
            return Err(setting("momentum", "from 0 to below 1".to_owned(), found));
        }
        let velocity = vec![0; plan.parameters()];
        let state = ParticipantState { consumed: 0, velocity, statistics: Statistics::default(), turn: None };
        Ok(Self { plan, samples, config, order: (u64::MAX, vec![]), state, iteration: None })
    }

    pub(super) fn restore(&mut self, state: ParticipantState) -> Result<(), PrivateError> {
        let expected = self.plan.parameters();
        let totals = state.turn.as_ref().map_or(expected, |(_, _, totals)| totals.len());
        if [state.velocity.len(), totals] != [expected; 2] {
            return Err(PrivateError::Resume(ResumeFault::Steps));
        }
        let Statistics { images, correct, loss, clamped } = state.statistics;
        let is_finite = |&bits: &u64| f64::from_bits(bits).is_finite();
        // A turn that was given up is not taken off what has been consumed, and counters may not come near their ends.
        let counted = [state.consumed, clamped].iter().all(|&count| count < MOST_COUNTED)
            && images <= state.consumed
            && correct <= images
            && loss.is_finite();
        let turn = state.turn.as_ref().is_none_or(|(grant, done, totals)| {
            let bound = u64::from(*done) * STEP_BOUND.unsigned_abs();
            grant.is_of(&self.plan)
                && *done <= grant.iterations
                && totals.iter().all(|total| total.unsigned_abs() <= bound)
        });
        if !counted || !turn || !state.velocity.iter().all(is_finite) {
            return Err(PrivateError::Resume(ResumeFault::Counters));
        }
        self.state = state;
        self.iteration = None;
        Ok(())
    }

    pub(super) fn state(&self) -> &ParticipantState {
        &self.state
    }

    /// Begins a turn: [`proceed`](Self::proceed) is next.
    pub(super) fn begin(&mut self, grant: Grant) -> Result<(), PrivateError> {
        if !grant.is_of(&self.plan) {
            return Err(PrivateError::Grant(
                "expected iterations, room for each segment and a rate within the weights' grid",
            ));
        }
        self.state.turn = Some((grant, 0, vec![0; self.plan.parameters()]));
        Ok(())
    }

    /// Begins an iteration, or ends the turn after its last.
    pub(super) fn proceed(&mut self) -> Result<Need, PrivateError> {
        match &self.state.turn {
            None => Err(PrivateError::Bug("no turn is in progress")),
            Some((grant, done, totals))
                if *done > 0 && (*done >= grant.iterations || !grant.leaves_room(&self.plan, totals)) =>
            {
                Ok(Need::Total(totals.clone()))
            }
            Some(_) => self.next_batch(),
        }
    }

    /// What the steps of the turn so far change of a part of the server's, less the learning rate; `None` before the first.
    pub(super) fn corrections(
        &self,
        part: Part,
        sent: &[impl AsRef<[i64]>],
    ) -> Result<Option<Vec<i64>>, PrivateError> {
        match &self.state.turn {
            None => Err(PrivateError::Bug("no turn is in progress")),
            Some((_, 0, _)) => Ok(None),
            Some((_, _, steps)) => self.plan.corrections(part, steps, sent).map(Some),
        }
    }

    fn next_batch(&mut self) -> Result<Need, PrivateError> {
        let elements = self.plan.description().graph.input().elements();
        let mut reals = vec![0f32; self.plan.batch() * elements];
        let mut pass = Pass::default();
        let count = self.samples.count() as u64;
        for (offset, image) in (0..).zip(reals.chunks_exact_mut(elements)) {
            let at = self.state.consumed + offset;
            let epoch = at / count;
            if self.order.0 != epoch {
                let mut order: Vec<usize> = (0..count as usize).collect();
                order.shuffle(&mut self.rng(1 << 61 | epoch));
                self.order = (epoch, order);
            }
            pass.labels.push(self.samples.fetch(self.order.1[(at % count) as usize], epoch, image));
        }
        let rng = self.rng(self.state.consumed);
        self.state.consumed += self.plan.batch() as u64;
        let values = self.plan.description().graph.nodes().len() + 1;
        (pass.values, pass.errors) = (vec![None; values], vec![None; values]);
        pass.values[0] = Some(Zeroizing::new(reals.iter().map(|&x| f64::from(x)).collect()));
        self.iteration = Some(Iteration { pass, rng, gradient: vec![0.0; self.plan.parameters()] });
        self.forward()
    }

    /// Randomness of one purpose, independent of what was drawn before.
    fn rng(&self, purpose: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed ^ (u64::from(self.config.client) << 32));
        rng.set_stream(purpose);
        rng
    }

    fn iteration(&mut self) -> Result<&mut Iteration, PrivateError> {
        self.iteration.as_mut().ok_or(PrivateError::Bug("no iteration is in progress"))
    }

    /// The client's steps up to the next segment, or to the loss.
    fn forward(&mut self) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        loop {
            let pass = &mut self.iteration()?.pass;
            match plan.steps().get(pass.at) {
                Some(Step::Client(step)) => {
                    let inputs = pass.read(&step.inputs)?;
                    let value = compute(&plan.description().graph, step, &inputs, &Functions::default())?;
                    pass.values[step.output.index()] = Some(Zeroizing::new(value));
                    pass.at += 1;
                }
                Some(Step::Segment(index)) => return self.feed(*index),
                None => return self.loss(),
            }
        }
    }

    /// Rounds what goes into a segment, and clamps and counts what is out of range.
    fn feed(&mut self, index: usize) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        let mut inputs = vec![];
        let mut clamped = 0;
        for term in &plan.segments()[index].terms {
            let (scale, bound) = term.values();
            let (scale, limit) = (f64::from(scale).exp2(), bound as f64);
            let reals = self.iteration()?.pass.read(&[term.source])?[0];
            let mut values = Vec::with_capacity(reals.len());
            for x in reals {
                let rounded = (x * scale).round();
                if !rounded.is_finite() {
                    return Err(self.diverged());
                }
                clamped += u64::from(rounded.abs() > limit);
                values.push(rounded.clamp(-limit, limit) as i64);
            }
            inputs.push(Zeroizing::new(term.inputs(values)?));
        }
        self.state.statistics.clamped += clamped;
        self.iteration()?.pass.inputs.push(inputs.clone());
        Ok(Need::Sums(index, inputs))
    }

    fn diverged(&self) -> PrivateError {
        let done = self.state.turn.as_ref().map_or(0, |(_, done, _)| *done);
        PrivateError::Diverged { iteration: done + 1 }
    }

    /// Takes the weighted sums of a segment.
    pub(super) fn sums(&mut self, index: usize, sums: &[i64]) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        let segment = &plan.segments()[index];
        let reals = reals(sums, segment.unit(plan.numbers()));
        let pass = &mut self.iteration()?.pass;
        pass.values[segment.output.index()] = Some(Zeroizing::new(reals));
        pass.at += 1;
        self.forward()
    }

    fn loss(&mut self) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        let outputs = plan.outputs();
        let pass = &mut self.iteration()?.pass;
        let logits = pass.read(&[plan.logits()])?[0];
        let logits = Array2::from_shape_fn((plan.batch(), outputs), |(image, class)| {
            logits[image * outputs + class] as f32
        });
        let result = CrossEntropy::of(logits.view(), &pass.labels)?;
        pass.add_errors(plan.logits(), result.gradient.iter().map(|&x| f64::from(x)).collect());
        if !result.loss.is_finite() {
            return Err(self.diverged());
        }
        self.state.statistics.images += plan.batch() as u64;
        self.state.statistics.loss += result.loss;
        self.state.statistics.correct += result.correct as u64;
        self.backward()
    }

    /// Takes the products of errors with the weights of a term.
    pub(super) fn products(
        &mut self,
        [index, term]: [usize; 2],
        products: &[i64],
    ) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        let term = &plan.segments()[index].terms[term];
        let reals = reals(products, term.product_unit(plan.numbers()));
        let back = term.back.as_ref().ok_or(PrivateError::Bug("no errors go back here"))?;
        self.iteration()?.pass.add_errors(term.source, back.errors(reals)?);
        self.backward()
    }

    /// Goes back through the client's steps and what is left of a segment, up to the next products that are needed, or to
    /// the end.
    fn backward(&mut self) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        loop {
            let pass = &mut self.iteration()?.pass;
            if let Some(Step::Segment(index)) = plan.steps().get(pass.at)
                && let Some(term) = pass.terms.pop()
            {
                return Ok(Need::Products([*index, term], pass.quantized.clone()));
            }
            let Some(at) = pass.at.checked_sub(1) else { return self.step() };
            pass.at = at;
            match &plan.steps()[at] {
                Step::Client(step) => {
                    let errors = pass.take_errors(step.output);
                    let inputs = pass.read(&step.inputs)?;
                    let graph = &plan.description().graph;
                    let back = gradients_of(graph, step, &inputs, &errors)?;
                    for (input, errors) in step.inputs.iter().zip(back) {
                        pass.add_errors(*input, errors);
                    }
                }
                Step::Segment(index) => self.segment_gradient(*index)?,
            }
        }
    }

    /// Rounds the errors of a segment's sums, and computes the gradients of its weights and biases.
    fn segment_gradient(&mut self, index: usize) -> Result<(), PrivateError> {
        let plan = self.plan.clone();
        let (segment, numbers) = (&plan.segments()[index], plan.numbers());
        let bound = f64::from(numbers.error_bits).exp2();
        let turn = self.iteration.as_mut().ok_or(PrivateError::Bug("no iteration is in progress"))?;
        let errors = turn.pass.take_errors(segment.output);
        let rounded = round_stochastically(errors.iter().map(|error| error * bound), bound, &mut turn.rng);
        let Some((values, clamped)) = rounded else { return Err(self.diverged()) };
        self.state.statistics.clamped += clamped;
        let error_unit = 1.0 / bound / plan.batch() as f64;
        let unit = error_unit * segment.gradient_unit();
        for (term, inputs) in segment.terms.iter().zip(&turn.pass.inputs[index]) {
            let layer = &term.layer;
            let gradient = term.map.gradient(inputs, &values)?;
            for (to, &from) in turn.gradient[layer.weights.clone()].iter_mut().zip(&gradient) {
                *to = from as f64 * unit;
            }
            if !layer.biases.is_empty() {
                term.add_bias_gradient(&values, error_unit, &mut turn.gradient[layer.biases.clone()]);
            }
        }
        // The last is taken first.
        let terms = segment.terms.iter().enumerate().rev();
        turn.pass.terms = terms.filter(|(_, term)| term.back.is_some()).map(|(at, _)| at).collect();
        turn.pass.quantized = Zeroizing::new(values);
        Ok(())
    }

    /// The steps of an iteration, once all gradients are known.
    fn step(&mut self) -> Result<Need, PrivateError> {
        let mut turn = self.iteration.take().ok_or(PrivateError::Bug("no iteration is in progress"))?;
        let momentum = self.config.momentum;
        let mut velocity = Vec::with_capacity(turn.gradient.len());
        for (bits, gradient) in self.state.velocity.iter_mut().zip(&turn.gradient) {
            let value = momentum * f64::from_bits(*bits) + gradient;
            *bits = value.to_bits();
            velocity.push(value);
        }
        let limit = (STEP_BOUND - 1) as f64;
        let Some((grant, done, totals)) = &mut self.state.turn else {
            return Err(PrivateError::Bug("no turn is in progress"));
        };
        let scale = f64::from(self.plan.numbers().weight_bits as i32 - grant.rate_scale as i32).exp2();
        let Some((steps, clamped)) =
            round_stochastically(velocity.iter().map(|v| v * scale), limit, &mut turn.rng)
        else {
            return Err(self.diverged());
        };
        self.state.statistics.clamped += clamped;
        totals.iter_mut().zip(&steps).for_each(|(total, step)| *total += step);
        *done += 1;
        Ok(Need::Nothing(steps))
    }

    /// Ends the turn.
    pub(super) fn end(&mut self) {
        self.state.turn = None;
        self.iteration = None;
    }
}
