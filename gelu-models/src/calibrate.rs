//! How large a network's values become.

use std::collections::BTreeMap;

use gelu_layers::Mode;
use gelu_tensor::Error;
use ndarray::{ArrayView, ArrayView2, Axis, Dimension};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::Model;
use crate::inputs::flat;
use crate::model::Reading;

/// Largest magnitudes seen while a model ran on calibration data, by the name of the node that made the values (`input`
/// for the model's input): what a fixed-point plan needs to place the binary point. As JSON it travels with the weights.
///
/// ```
/// use gelu_models::Ranges;
///
/// let mut ranges: Ranges = [("input", 1.0), ("relu1", 3.5)].into_iter().collect();
/// ranges.widen(2.0);
/// assert_eq!(ranges.get("relu1"), Some(7.0));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(BTreeMap<String, f32>);

impl Ranges {
    /// The key of [`Weights::metadata`](crate::Weights::metadata) under which the ranges travel, as JSON.
    pub const METADATA_KEY: &str = "gelu.ranges";

    /// The name of the model's input.
    pub const INPUT: &str = "input";

    /// Returns the magnitude of a node's values.
    pub fn get(&self, name: &str) -> Option<f32> {
        self.0.get(name).copied()
    }

    /// Sets the magnitude of a node's values.
    pub fn set(&mut self, name: impl Into<String>, magnitude: f32) {
        self.0.insert(name.into(), magnitude);
    }

    /// Returns the names and magnitudes, in the names' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f32)> {
        self.0.iter().map(|(name, &magnitude)| (name.as_str(), magnitude))
    }

    /// Multiplies all magnitudes but the input's.
    pub fn widen(&mut self, factor: f32) {
        let values = self.0.iter_mut().filter(|(name, _)| *name != Self::INPUT);
        values.for_each(|(_, magnitude)| *magnitude *= factor);
    }

    fn note(&mut self, name: &str, magnitude: f32) {
        match self.0.get_mut(name) {
            Some(largest) => *largest = largest.max(magnitude),
            None => self.set(name, magnitude),
        }
    }
}

impl<S: Into<String>> FromIterator<(S, f32)> for Ranges {
    fn from_iter<I: IntoIterator<Item = (S, f32)>>(ranges: I) -> Self {
        Self(ranges.into_iter().map(|(name, magnitude)| (name.into(), magnitude)).collect())
    }
}

impl Model {
    /// Returns the largest magnitudes of the inputs and of every node's values over a batch in either form that
    /// [`logits`](Self::logits) takes.
    ///
    /// # Errors
    /// [`Error::Shape`] when the inputs are not of the model's shape;
    /// [`Error::NotFinite`] when inputs or values are NaN or infinite.
    pub fn measure_ranges<D: Dimension>(&self, inputs: ArrayView<'_, f32, D>) -> Result<Ranges, Error> {
        let inputs = flat(inputs, self.input_shape())?;
        let chunk = |x: ArrayView2<'_, f32>| {
            let mut ranges = Ranges::default();
            let mut bad = None;
            self.run(x, Mode::Inference, Reading::Exact, |value, x| {
                let found = x.iter().filter(|x| !x.is_finite()).count();
                if found > 0 && bad.is_none() {
                    bad = Some(Error::NotFinite { what: "values for calibration", found, of: x.len() });
                }
                let magnitude = x.fold(0.0f32, |largest, &x| largest.max(x.abs()));
                ranges.note(self.graph().name(value), magnitude);
            })?;
            bad.map_or(Ok(ranges), Err)
        };
        let join = |mut all: Ranges, ranges: Ranges| {
            ranges.iter().for_each(|(name, magnitude)| all.note(name, magnitude));
            Ok(all)
        };
        let chunks: Vec<_> = inputs.axis_chunks_iter(Axis(0), 64).collect();
        chunks.into_par_iter().map(chunk).try_reduce(Ranges::default, join)
    }

    /// Measures the ranges of a batch and keeps them with the model, where plans find them.
    ///
    /// # Errors
    /// As [`measure_ranges`](Self::measure_ranges).
    pub fn calibrate<D: Dimension>(&mut self, inputs: ArrayView<'_, f32, D>) -> Result<(), Error> {
        let ranges = self.measure_ranges(inputs)?;
        self.set_ranges(Some(ranges));
        Ok(())
    }
}
