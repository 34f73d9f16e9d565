//! The server's arithmetic in training: weights between turns, learning rate, length of turns.

use std::sync::Arc;

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::ledger::{LayerLeakage, Leakage, Ledger};
use super::participant::STEP_BOUND;
use super::{PrivateError, ResumeFault, TrainPlan};
use crate::train::TrainConfig;

/// How many iterations a client may run in one go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DMax {
    /// Drawn anew for every turn, from 2 up to the most that the leakage policy allows.
    #[default]
    Auto,
    /// Always the same.
    Fixed(u32),
}

/// What determines the server's part of a run, besides the first weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorConfig {
    /// Learning rate and its schedule, epochs, seed. Momentum is the clients' affair; there is no weight decay.
    pub train: TrainConfig,
    /// Inputs of all clients together: an epoch.
    pub images: u64,
    /// How long a turn is.
    pub d_max: DMax,
    /// What a turn may show.
    pub leakage: Leakage,
}

/// What a client is told at the beginning of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Which turn of the run, from 0.
    pub turn: u64,
    /// Iterations that it may run, d_max.
    pub iterations: u32,
    /// The learning rate is the server's secret (of at most 4 bits) times 2^-`rate_scale`.
    pub rate_scale: u32,
    /// By how much the largest possible sum and product of each segment may grow before they could have more bits than
    /// sums may: powers of two.
    pub room: Vec<[u64; 2]>,
}

impl Grant {
    /// Whether a turn of that plan can be granted so.
    pub(super) fn is_of(&self, plan: &TrainPlan) -> bool {
        self.iterations > 0
            && self.room.len() == plan.segments().len()
            && self.rate_scale <= plan.numbers().weight_bits
    }

    /// Whether the sums of another pass with the parameters after these steps have no more bits than sums may, whatever the
    /// learning rate.
    pub(super) fn leaves_room(&self, plan: &TrainPlan, totals: &[i64]) -> bool {
        let unused = plan.numbers().weight_bits - plan.numbers().product_bits;
        let magnitudes: Vec<u64> =
            totals.iter().map(|total| total.unsigned_abs().saturating_mul(MOST_RATE)).collect();
        // Corrections are rounded before they are multiplied with the rate.
        let rounded = |growth: u64| (growth >> unused).saturating_add(MOST_RATE);
        plan.segments().iter().zip(&self.room).all(|(segment, room)| {
            let largest = segment.largest(&magnitudes, plan.numbers());
            largest.is_ok_and(|growth| growth.iter().zip(room).all(|(growth, room)| rounded(*growth) < *room))
        })
    }
}

/// Bits of the secret part of a learning rate, and the largest that it can be.
pub(super) const RATE_BITS: u32 = 4;
pub(super) const MOST_RATE: u64 = (1 << RATE_BITS) - 1;

/// The server's arithmetic in the clear: weights between turns, learning rate, length of turns, ledger.
#[derive(Clone, Debug)]
pub(super) struct Coordinator {
    plan: Arc<TrainPlan>,
    config: CoordinatorConfig,
    leakage: Vec<LayerLeakage>,
    state: CoordinatorState,
}

/// What of a server is kept between turns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoordinatorState {
    /// The parameters, as integers of the plan.
    pub parameters: Vec<i64>,
    /// Turns done.
    pub turns: u64,
    /// Iterations done.
    pub iterations: u64,
    /// What clients have seen.
    pub ledger: Ledger,
    /// Clients that have seen the present weights in turns that came to nothing, and in how many iterations.
    #[serde(default)]
    pub seen: Vec<(u32, u32)>,
}

impl Coordinator {
    pub(super) fn new(
        plan: Arc<TrainPlan>,
        config: CoordinatorConfig,
        parameters: Vec<i64>,
    ) -> Result<Self, PrivateError> {
        let state =
            CoordinatorState { parameters, turns: 0, iterations: 0, ledger: Ledger::default(), seen: vec![] };
        Self::resume(plan, config, state)
    }

    pub(super) fn resume(
        plan: Arc<TrainPlan>,
        config: CoordinatorConfig,
        state: CoordinatorState,
    ) -> Result<Self, PrivateError> {
        if let Some((what, expected, found)) = config.train.fault() {
            let (expected, found) = (expected.to_owned(), found.to_string());
            return Err(PrivateError::Setting { what, expected, found });
        }
        if config.train.weight_decay != 0.0 {
            let found = config.train.weight_decay.to_string();
            return Err(PrivateError::Setting { what: "weight decay", expected: "0".to_owned(), found });
        }
        if config.train.weight_bits.is_some() || !config.train.layer_bits.is_empty() {
            let (what, expected) = ("weight bits", "none: those of the plan's numbers hold".to_owned());
            return Err(PrivateError::Setting { what, expected, found: "some".to_owned() });
        }
        let train = &config.train;
        for (what, bits) in [("activation bits", train.activation_bits), ("input bits", train.input_bits)] {
            if let Some(bits) = bits {
                let expected = "none: those of the plan's numbers hold".to_owned();
                return Err(PrivateError::Setting { what, expected, found: bits.to_string() });
            }
        }
        if config.images == 0 {
            let (expected, found) = ("at least 1".to_owned(), "0".to_owned());
            return Err(PrivateError::Setting { what: "images of a run", expected, found });
        }
        let (expected, found) = (plan.batch(), config.train.batch_size);
        if expected != found {
            let (expected, found) = (format!("{expected} as in the plan"), found.to_string());
            return Err(PrivateError::Setting { what: "batch size", expected, found });
        }
        let finest = f64::from(plan.numbers().weight_bits).exp2().recip();
        let rates = finest..=MOST_RATE as f64;
        let rate = config.train.learning_rate;
        if !rates.contains(&rate) {
            let (what, found) = ("learning rate", rate.to_string());
            let expected = format!(
                "from {finest} (2^-{}, the unit of the weights) to {MOST_RATE}; the nearest is {}",
                plan.numbers().weight_bits,
                rate.clamp(finest, MOST_RATE as f64)
            );
            return Err(PrivateError::Setting { what, expected, found });
        }
        plan.check_parameters(&state.parameters)?;
        let leakage = LayerLeakage::of(&plan);
        let coordinator = Self { plan, config, leakage, state };
        let CoordinatorState { turns, iterations, ledger, .. } = &coordinator.state;
        // A turn has an iteration at least.
        if *iterations > coordinator.iterations() || turns > iterations || !ledger.is_of(&coordinator.leakage)
        {
            return Err(PrivateError::Resume(ResumeFault::Counters));
        }
        coordinator.longest()?;
        Ok(coordinator)
    }

    pub(super) fn state(&self) -> &CoordinatorState {
        &self.state
    }

    pub(super) fn leakage(&self) -> &[LayerLeakage] {
        &self.leakage
    }

    /// Iterations of the whole run.
    pub(super) fn iterations(&self) -> u64 {
        let images = self.config.images.saturating_mul(self.config.train.epochs.into());
        images.div_ceil(self.plan.batch() as u64)
    }

    /// The most iterations that the policy allows in one turn.
    fn longest(&self) -> Result<u32, PrivateError> {
        // The paper's bound: d_max in (1, m + 2), for a layer with m inputs; the narrowest layer counts.
        let inputs = self.leakage.iter().map(|layer| layer.forward_unknowns - 1).min().unwrap_or(1);
        let paper = u32::try_from(inputs + 1).unwrap_or(u32::MAX);
        let most = match self.config.leakage {
            Leakage::Paper => paper,
            Leakage::Off => match self.config.d_max {
                DMax::Auto => paper,
                DMax::Fixed(_) => u32::MAX,
            },
            Leakage::Strict => {
                let most = self.leakage.iter().map(LayerLeakage::strict_iterations).min().unwrap_or(0);
                if most == 0 {
                    let worst = self.leakage.iter().find(|layer| layer.strict_iterations() == 0);
                    return Err(worst.map_or(PrivateError::Complete, |layer| refuse(layer, 1)));
                }
                most.min(paper)
            }
        };
        match self.config.d_max {
            DMax::Fixed(0) => Err(PrivateError::Setting {
                what: "d-max",
                expected: "auto, or at least 1".to_owned(),
                found: "0".to_owned(),
            }),
            DMax::Fixed(wanted) if wanted > most => match self.config.leakage {
                Leakage::Strict => {
                    let layer = self.leakage.iter().find(|layer| layer.is_solvable_after(wanted));
                    Err(layer.map_or(PrivateError::Complete, |layer| refuse(layer, wanted)))
                }
                _ => Err(PrivateError::Setting {
                    what: "d-max",
                    expected: format!(
                        "1 to {most} iterations (the paper's bound m + 2, exclusive, for the narrowest layer)"
                    ),
                    found: wanted.to_string(),
                }),
            },
            DMax::Fixed(wanted) => Ok(wanted),
            DMax::Auto => Ok(most),
        }
    }

    /// Iterations in which a client has seen the present weights.
    pub(super) fn seen_by(&self, client: u32) -> u32 {
        self.state.seen.iter().find(|(of, _)| *of == client).map_or(0, |(_, iterations)| *iterations)
    }

    /// Whether the policy allows that a client sees the present weights in so many iterations, what it has seen included.
    /// Only a strict one counts what a client sees again.
    pub(super) fn allows(&self, client: u32, iterations: u32) -> bool {
        match self.config.leakage {
            Leakage::Paper | Leakage::Off => true,
            Leakage::Strict => {
                let all = self.seen_by(client).saturating_add(iterations);
                !self.leakage.iter().any(|layer| layer.is_solvable_after(all))
            }
        }
    }

    /// A client's next turn, and the secret part of its learning rate.
    pub(super) fn grant(&self, client: u32) -> Result<(Grant, u64), PrivateError> {
        let left = self.iterations().saturating_sub(self.state.iterations);
        if left == 0 {
            return Err(PrivateError::Complete);
        }
        let longest = self.longest()?;
        let drawn = match self.config.d_max {
            DMax::Fixed(wanted) => wanted,
            DMax::Auto => {
                let mut rng = ChaCha8Rng::seed_from_u64(self.config.train.seed);
                rng.set_stream(1 << 62 | self.state.turns);
                rng.random_range(longest.min(2)..=longest)
            }
        };
        let epochs = (self.state.iterations * self.plan.batch() as u64) as f64 / self.config.images as f64;
        let (rate, rate_scale) = self.rate(self.config.train.learning_rate_at(epochs));
        let mut iterations = u32::try_from(left).unwrap_or(u32::MAX).min(drawn);
        while !self.allows(client, iterations) {
            iterations -= 1;
            if iterations == 0 {
                let worst =
                    self.leakage.iter().find(|layer| layer.is_solvable_after(self.seen_by(client) + 1));
                let all = self.seen_by(client).saturating_add(1);
                return Err(worst.map_or(PrivateError::Complete, |layer| refuse(layer, all)));
            }
        }
        Ok((Grant { turn: self.state.turns, iterations, rate_scale, room: self.room()? }, rate))
    }

    /// A learning rate as a number of up to 4 bits and a power of two, within the weights' grid.
    fn rate(&self, rate: f64) -> (u64, u32) {
        let finest = self.plan.numbers().weight_bits as i32;
        let scale = (3 - rate.log2().floor().clamp(-64.0, 3.0) as i32).clamp(0, finest);
        let secret = (rate * f64::from(scale).exp2()).round() as u64;
        (secret.clamp(1, MOST_RATE), scale as u32)
    }

    fn room(&self) -> Result<Vec<[u64; 2]>, PrivateError> {
        let numbers = self.plan.numbers();
        let rounded = self.plan.rounded(&self.state.parameters);
        let magnitudes: Vec<u64> = rounded.iter().map(|value| value.unsigned_abs()).collect();
        let segments = self.plan.segments().iter().map(|segment| {
            let largest = segment.largest(&magnitudes, numbers)?;
            let room = largest.map(|largest| numbers.largest_sum().saturating_sub(largest));
            if let Some(at) = room.iter().position(|&room| room == 0) {
                return Err(PrivateError::LargeSums {
                    layer: segment.name.to_owned(),
                    needed_bits: 65 - largest[at].leading_zeros(),
                    available_bits: numbers.sum_bits,
                });
            }
            Ok(room.map(|room| 1 << room.ilog2()))
        });
        segments.collect()
    }

    /// What the parameters are during a turn, after the sum of its steps so far.
    pub(super) fn after(&self, rate: u64, totals: &[i64]) -> Vec<i64> {
        let steps = totals.iter().map(|total| (rate as i64).wrapping_mul(*total));
        self.state.parameters.iter().zip(steps).map(|(w, step)| w.wrapping_sub(step)).collect()
    }

    /// Ends a turn (Algorithm 5): the sum of its steps, times the rate, is taken off.
    pub(super) fn finish(
        &mut self,
        client: u32,
        (iterations, again, rate): (u32, u32, u64),
        totals: &[i64],
    ) -> Result<(), PrivateError> {
        let bound = u64::from(iterations) * STEP_BOUND.unsigned_abs();
        if totals.len() != self.state.parameters.len() {
            return Err(PrivateError::Bug("another number of steps than parameters"));
        }
        if let Some(index) = totals.iter().position(|total| total.unsigned_abs() > bound) {
            return Err(PrivateError::Gradient { index, bound });
        }
        let parameters = self.after(rate, totals);
        self.plan.check_parameters(&parameters)?;
        self.state.parameters = parameters;
        self.state.turns += 1;
        self.state.iterations = self.state.iterations.saturating_add(iterations.into());
        self.state.ledger.note(client, iterations.saturating_add(again), &self.leakage);
        self.state.seen.clear();
        Ok(())
    }

    /// Takes note of iterations that a client has seen in a turn that came to nothing.
    pub(super) fn note(&mut self, client: u32, iterations: u32) {
        self.state.ledger.note(client, iterations, &self.leakage);
        match self.state.seen.iter_mut().find(|(of, _)| *of == client) {
            Some((_, seen)) => *seen = seen.saturating_add(iterations),
            None => self.state.seen.push((client, iterations)),
        }
    }
}

fn refuse(layer: &LayerLeakage, iterations: u32) -> PrivateError {
    let (equations, unknowns) = layer.worst(iterations);
    PrivateError::Leakage { layer: layer.layer.clone(), iterations, equations, unknowns }
}
