//! One batch on its way through a graph in training: the values and errors that a client knows so far.

use rand::{RngExt, rngs::ChaCha8Rng};
use zeroize::Zeroizing;

use super::PrivateError;
use crate::ValueId;

/// One batch on its way, there and back.
#[derive(Default)]
pub(super) struct Pass {
    pub(super) labels: Vec<usize>,
    /// The values of the graph that are known.
    pub(super) values: Vec<Option<Zeroizing<Vec<f64>>>>,
    /// What went up for each segment.
    pub(super) inputs: Vec<Vec<Zeroizing<Vec<i64>>>>,
    /// Errors of the values that are known.
    pub(super) errors: Vec<Option<Zeroizing<Vec<f64>>>>,
    /// The next step forward, or one more than the next one back.
    pub(super) at: usize,
    /// The terms of the present segment that errors are yet to go back through, and these errors as integers.
    pub(super) terms: Vec<usize>,
    pub(super) quantized: Zeroizing<Vec<i64>>,
}

impl Pass {
    pub(super) fn read(&self, values: &[ValueId]) -> Result<Vec<&[f64]>, PrivateError> {
        let read = |value: &ValueId| self.values[value.index()].as_ref().map(|value| &value[..]);
        let read = |value| read(value).ok_or(PrivateError::Bug("a value is read before it is known"));
        values.iter().map(read).collect()
    }

    /// Adds to the errors of a value.
    pub(super) fn add_errors(&mut self, value: ValueId, errors: Vec<f64>) {
        match &mut self.errors[value.index()] {
            Some(sum) => sum.iter_mut().zip(&errors).for_each(|(sum, error)| *sum += error),
            none => *none = Some(Zeroizing::new(errors)),
        }
    }

    /// The errors of a value, zeros if nothing that the loss depends on has read it.
    pub(super) fn take_errors(&mut self, value: ValueId) -> Zeroizing<Vec<f64>> {
        let elements = self.values[value.index()].as_ref().map_or(0, |value| value.len());
        self.errors[value.index()].take().unwrap_or_else(|| Zeroizing::new(vec![0.0; elements]))
    }
}

/// Sums or products as reals.
pub(super) fn reals(values: &[i64], unit: f64) -> Vec<f64> {
    values.iter().map(|&value| value as f64 * unit).collect()
}

/// Rounds up or down at random, so that the mean is the number itself; clamps to `limit` and counts. `None` where a
/// number is not finite.
pub(super) fn round_stochastically(
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
