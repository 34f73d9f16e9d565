//! What comes out of a run.

use gelu_net::InferenceReport;
use gelu_net::models::plan::Outcome as Clear;
use gelu_net::ndarray::Array2;
use numpy::{PyArray1, PyArray2};
use pyo3::prelude::*;

use crate::arrays::output;

/// What came out of a run, and what it took. Arrays are new ones at each access.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct Outcome {
    integers: Vec<i64>,
    logits: Array2<f64>,
    outputs: Array2<f64>,
    classes: Vec<usize>,
    /// Inputs and activations beyond their declared range, which were clamped to it.
    #[pyo3(get)]
    clamped: u64,
    /// Seconds of the whole run; 0 of one in the clear.
    #[pyo3(get)]
    seconds: f64,
    /// Bytes from client to server.
    #[pyo3(get)]
    bytes_up: usize,
    /// Bytes from server to client.
    #[pyo3(get)]
    bytes_down: usize,
}

impl From<InferenceReport> for Outcome {
    fn from(report: InferenceReport) -> Self {
        Self {
            integers: report.integers,
            logits: report.logits,
            outputs: report.outputs,
            classes: report.predictions,
            clamped: report.saturations.total(),
            seconds: report.seconds,
            bytes_up: report.bytes_up,
            bytes_down: report.bytes_down,
        }
    }
}

impl From<Clear> for Outcome {
    fn from(outcome: Clear) -> Self {
        Self {
            integers: outcome.integers.values().to_vec(),
            classes: outcome.predictions(),
            clamped: outcome.saturations.total(),
            logits: outcome.logits,
            outputs: outcome.outputs,
            seconds: 0.0,
            bytes_up: 0,
            bytes_down: 0,
        }
    }
}

impl Outcome {
    /// The outputs; none where the client learns classes alone.
    pub(crate) fn into_outputs(self) -> Option<Array2<f64>> {
        (self.outputs.ncols() > 0).then_some(self.outputs)
    }

    pub(crate) fn into_classes(self) -> Vec<usize> {
        self.classes
    }
}

#[pymethods]
impl Outcome {
    /// The outputs (probabilities where the network ends in a softmax): float64 of shape [N, outputs], or [N, 0] where the
    /// client learns classes alone.
    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        output(py, self.outputs.clone())
    }

    /// The outputs before a final softmax: float64 of shape [N, outputs], or [N, 0] where the client learns classes alone.
    #[getter]
    fn logits<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray2<f64>> {
        output(py, self.logits.clone())
    }

    /// The last layer's sums as the integers that were decrypted: int64, input after input; empty where the client learns
    /// classes alone.
    #[getter]
    fn integers<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        PyArray1::from_slice(py, &self.integers)
    }

    /// The class of each input, from 0: int64 of shape [N].
    #[getter]
    fn classes<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        classes(py, &self.classes)
    }

    fn __repr__(&self) -> String {
        format!("<gelu.Outcome of {} inputs, {} outputs each>", self.classes.len(), self.outputs.ncols())
    }
}

/// Classes as an array of Python's.
pub(crate) fn classes<'py>(py: Python<'py>, classes: &[usize]) -> Bound<'py, PyArray1<i64>> {
    PyArray1::from_iter(py, classes.iter().map(|&class| class as i64))
}
