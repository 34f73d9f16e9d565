//! Plans, as Python shows them.

use gelu_net::models::plan::{Plan, Segment};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The plan as the Python class that prints it, `gelu._plan.Plan`.
pub(crate) fn plan<'py>(py: Python<'py>, name: &str, plan: &Plan) -> PyResult<Bound<'py, PyAny>> {
    let segments = PyList::empty(py);
    for (index, segment) in plan.segments().iter().enumerate() {
        segments.append(row(py, plan, (index, segment))?)?;
    }
    let summary = PyDict::new(py);
    summary.set_item("network", name)?;
    summary.set_item("key_bits", plan.key().size.bits())?;
    summary.set_item("key_type", plan.key().key_type.name())?;
    summary.set_item("batch", plan.description().batch)?;
    py.import("gelu._plan")?.getattr("Plan")?.call1((summary, segments))
}

fn row<'py>(
    py: Python<'py>,
    plan: &Plan,
    (index, segment): (usize, &Segment),
) -> PyResult<Bound<'py, PyDict>> {
    let bytes = |ciphertexts: usize| ciphertexts * plan.key().size.bits() / 4;
    let inputs: Vec<Vec<usize>> = segment.terms.iter().map(|term| term.map.input().dims().to_vec()).collect();
    let row = PyDict::new(py);
    row.set_item("name", &segment.name)?;
    row.set_item("inputs", inputs)?;
    row.set_item("output", segment.shape.dims().to_vec())?;
    row.set_item("weight_bits", segment.terms.iter().map(|term| term.weights.bits()).max().unwrap_or(0))?;
    row.set_item("ciphertexts_up", segment.ciphertexts_up())?;
    row.set_item("ciphertexts_down", segment.ciphertexts_down())?;
    row.set_item("bytes_up", bytes(segment.ciphertexts_up()))?;
    row.set_item("bytes_down", bytes(segment.ciphertexts_down()))?;
    row.set_item("products", segment.layout.operations.total())?;
    row.set_item("then", plan.client_steps(Some(index)))?;
    Ok(row)
}
