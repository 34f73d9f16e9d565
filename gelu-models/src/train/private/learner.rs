use std::sync::Arc;

use gelu_layers::{Activation, cross_entropy};
use gelu_tensor::UpdateLayout;
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::master::MOST_RATE;
use super::{Grant, PrivateError, Samples, TrainPlan};

/// What determines a client's part of a run, besides its data.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerConfig {
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

/// What a client needs of the server next.
pub(super) enum Need {
    /// The weighted sums of a segment.
    Sums(usize, Vec<i64>),
    /// The products of errors with the weights of a segment.
    Products(usize, Vec<i64>),
    /// That it takes the steps of an iteration.
    Update(Vec<i64>),
    /// That it takes the sum of all steps, and ends the turn.
    Total(Vec<i64>),
}

/// The client's arithmetic, which knows nothing of masks and ciphertexts: batches, activations, gradients, steps.
pub(super) struct Learner {
    plan: Arc<TrainPlan>,
    samples: Arc<dyn Samples>,
    config: LearnerConfig,
    /// Where each input of the present epoch comes in.
    order: (u64, Vec<usize>),
    state: LearnerState,
    turn: Option<Turn>,
}

/// What of a learner is kept between iterations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnerState {
    /// Inputs taken so far.
    pub consumed: u64,
    /// The bits of the momentum's numbers (`f64`), one for each parameter.
    pub velocity: Vec<u64>,
    /// What it has met.
    pub statistics: Statistics,
    /// In a turn: what was granted, iterations done, sum of the steps.
    pub turn: Option<(Grant, u32, Vec<i64>)>,
}

struct Turn {
    pass: Pass,
    rng: ChaCha8Rng,
    gradient: Vec<f64>,
}

/// One batch on its way.
#[derive(Default)]
struct Pass {
    labels: Vec<usize>,
    /// What went into each segment.
    inputs: Vec<Zeroizing<Vec<i64>>>,
    /// Its sums as reals.
    sums: Vec<Zeroizing<Vec<f64>>>,
}

impl Learner {
    pub(super) fn new(
        plan: Arc<TrainPlan>,
        samples: Arc<dyn Samples>,
        config: LearnerConfig,
    ) -> Result<Self, PrivateError> {
        let setting = |what, expected: String, found: String| PrivateError::Setting { what, expected, found };
        let (expected, found) = (plan.description().input.elements(), samples.shape().elements());
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
        let state = LearnerState { consumed: 0, velocity, statistics: Statistics::default(), turn: None };
        Ok(Self { plan, samples, config, order: (u64::MAX, vec![]), state, turn: None })
    }

    pub(super) fn restore(&mut self, state: LearnerState) -> Result<(), PrivateError> {
        let totals = state.turn.as_ref().map_or(self.plan.parameters(), |(_, _, totals)| totals.len());
        if state.velocity.len() != self.plan.parameters() || totals != self.plan.parameters() {
            return Err(PrivateError::State("it has another number of parameters"));
        }
        self.state = state;
        self.turn = None;
        Ok(())
    }

    pub(super) fn state(&self) -> &LearnerState {
        &self.state
    }

    /// Begins a turn: [`next_batch`](Self::next_batch) is next.
    pub(super) fn begin(&mut self, grant: Grant) -> Result<(), PrivateError> {
        let expected = self.plan.layers().count();
        if grant.iterations == 0
            || grant.room.len() != expected
            || grant.rate_scale > self.plan.numbers().weight_bits
        {
            return Err(PrivateError::State("a turn must have iterations and room for each layer"));
        }
        self.state.turn = Some((grant, 0, vec![0; self.plan.parameters()]));
        Ok(())
    }

    /// Begins an iteration.
    pub(super) fn next_batch(&mut self) -> Result<Need, PrivateError> {
        let elements = self.plan.description().input.elements();
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
        self.turn = Some(Turn { pass, rng, gradient: vec![0.0; self.plan.parameters()] });
        let mut reals: Vec<f64> = reals.iter().map(|&x| f64::from(x)).collect();
        apply(self.plan.prologue(), &mut reals);
        self.feed(0, &reals)
    }

    /// Randomness of one purpose, independent of what was drawn before.
    fn rng(&self, purpose: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed ^ (u64::from(self.config.client) << 32));
        rng.set_stream(purpose);
        rng
    }

    /// Rounds reals to what goes into a segment, and clamps and counts what is out of range.
    fn feed(&mut self, index: usize, reals: &[f64]) -> Result<Need, PrivateError> {
        let (scale, bound) = self.plan.segments()[index].input;
        let (scale, limit) = (f64::from(scale).exp2(), bound as f64);
        let mut clamped = 0;
        let mut values = Vec::with_capacity(reals.len());
        for x in reals {
            let rounded = (x * scale).round();
            if !rounded.is_finite() {
                return Err(self.diverged());
            }
            clamped += u64::from(rounded.abs() > limit);
            values.push(rounded.clamp(-limit, limit) as i64);
        }
        self.state.statistics.clamped += clamped;
        self.pass()?.inputs.push(Zeroizing::new(values.clone()));
        Ok(Need::Sums(index, values))
    }

    fn pass(&mut self) -> Result<&mut Pass, PrivateError> {
        Ok(&mut self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?.pass)
    }

    fn diverged(&self) -> PrivateError {
        let done = self.state.turn.as_ref().map_or(0, |(_, done, _)| *done);
        PrivateError::Diverged { iteration: done + 1 }
    }

    /// Takes the weighted sums of a segment.
    pub(super) fn sums(&mut self, index: usize, sums: &[u64]) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        let segment = &plan.segments()[index];
        let mut reals = Zeroizing::new(self.reals(sums, segment.sum_scale));
        self.pass()?.sums.push(reals.clone());
        apply(&segment.activations, &mut reals);
        if index + 1 < plan.segments().len() {
            return self.feed(index + 1, &reals);
        }
        let outputs = plan.outputs();
        let logits = Array2::from_shape_fn((plan.batch(), outputs), |(image, class)| {
            reals[image * outputs + class] as f32
        });
        let labels = self.pass()?.labels.clone();
        let result = cross_entropy(logits.view(), &labels)?;
        if !result.loss.is_finite() {
            return Err(self.diverged());
        }
        self.state.statistics.images += labels.len() as u64;
        self.state.statistics.loss += result.loss;
        self.state.statistics.correct += result.correct as u64;
        let errors: Vec<f64> = result.gradient.iter().map(|&x| f64::from(x)).collect();
        self.back(index, errors)
    }

    /// Takes the products of errors with the weights of a segment.
    pub(super) fn products(&mut self, index: usize, products: &[u64]) -> Result<Need, PrivateError> {
        let errors = self.reals(products, self.plan.segments()[index].product_scale);
        self.back(index - 1, errors)
    }

    fn reals(&self, values: &[u64], scale: i32) -> Vec<f64> {
        let (ring, unit) = (self.plan.numbers().ring, f64::from(-scale).exp2());
        values.iter().map(|&value| ring.signed(value) as f64 * unit).collect()
    }

    /// Takes errors of what a segment's activations give: its gradient, and what goes back further.
    fn back(&mut self, index: usize, mut errors: Vec<f64>) -> Result<Need, PrivateError> {
        let plan = self.plan.clone();
        let segment = &plan.segments()[index];
        differentiate(&segment.activations, &self.pass()?.sums[index].clone(), &mut errors);
        let bound = f64::from(plan.numbers().error_bits).exp2();
        let (values, clamped) = {
            let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
            round_stochastically(errors.iter().map(|error| error * bound), bound, &mut turn.rng)
        }
        .ok_or_else(|| self.diverged())?;
        self.state.statistics.clamped += clamped;
        if let Some(layer) = &segment.layer {
            let turn = self.turn.as_mut().ok_or(PrivateError::State("no turn is under way"))?;
            let gradient = segment.map.gradient(&turn.pass.inputs[index], &values)?;
            let error_unit = f64::from(-(plan.numbers().error_bits as i32)).exp2() / plan.batch() as f64;
            let unit = error_unit * f64::from(-segment.input.0 - segment.map.scale_bits() as i32).exp2();
            for (to, &from) in turn.gradient[layer.weights.clone()].iter_mut().zip(&gradient) {
                *to = from as f64 * unit;
            }
            let positions = segment.map.outputs() / layer.rows;
            for (channel, errors) in values.chunks_exact(positions).enumerate() {
                let sum: i64 = errors.iter().sum();
                turn.gradient[layer.biases.start + channel % layer.rows] += sum as f64 * error_unit;
            }
        }
        if segment.backward_flood.is_some() { Ok(Need::Products(index, values)) } else { self.step() }
    }

    /// The steps of an iteration, once all gradients are known.
    fn step(&mut self) -> Result<Need, PrivateError> {
        let mut turn = self.turn.take().ok_or(PrivateError::State("no turn is under way"))?;
        let momentum = self.config.momentum;
        let mut velocity = Vec::with_capacity(turn.gradient.len());
        for (bits, gradient) in self.state.velocity.iter_mut().zip(&turn.gradient) {
            let value = momentum * f64::from_bits(*bits) + gradient;
            *bits = value.to_bits();
            velocity.push(value);
        }
        let limit = (UpdateLayout::STEP_BOUND - 1) as f64;
        let Some((grant, done, totals)) = &mut self.state.turn else {
            return Err(PrivateError::State("no turn is under way"));
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
        if *done < grant.iterations && has_room(&self.plan, grant, totals) {
            return Ok(Need::Update(steps));
        }
        let totals = totals.clone();
        Ok(Need::Total(totals))
    }

    /// Ends the turn.
    pub(super) fn end(&mut self) {
        self.state.turn = None;
        self.turn = None;
    }
}

/// Whether another pass with the parameters after these steps stays in the ring, whatever the learning rate.
fn has_room(plan: &TrainPlan, grant: &Grant, totals: &[i64]) -> bool {
    let magnitudes: Vec<u64> =
        totals.iter().map(|total| total.unsigned_abs().saturating_mul(MOST_RATE)).collect();
    plan.layers().zip(&grant.room).all(|((segment, _), room)| {
        segment.largest(&magnitudes, plan.numbers()).iter().zip(room).all(|(growth, room)| growth < room)
    })
}

/// Rounds up or down at random, so that the mean is the number itself; clamps to `limit` and counts. `None` where a
/// number is not finite.
fn round_stochastically(
    reals: impl Iterator<Item = f64>,
    limit: f64,
    rng: &mut ChaCha8Rng,
) -> Option<(Vec<i64>, u64)> {
    let mut clamped = 0;
    let round = |x: f64| {
        let rounded = (x + rng.random::<f64>()).floor();
        clamped += u64::from(rounded.abs() > limit);
        rounded.is_finite().then(|| rounded.clamp(-limit, limit) as i64)
    };
    let values: Option<Vec<i64>> = reals.map(round).collect();
    Some((values?, clamped))
}

fn apply(activations: &[Activation], reals: &mut [f64]) {
    for activation in activations {
        reals.iter_mut().for_each(|x| *x = activation.apply(*x).unwrap_or(*x));
    }
}

/// Multiplies errors with the derivatives of activations at what went into the first of them.
fn differentiate(activations: &[Activation], sums: &[f64], errors: &mut [f64]) {
    let mut inputs = sums.to_vec();
    for activation in activations {
        for (error, x) in errors.iter_mut().zip(&mut inputs) {
            *error *= activation.derivative(*x).unwrap_or(1.0);
            *x = activation.apply(*x).unwrap_or(*x);
        }
    }
}
