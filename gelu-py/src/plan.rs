//! Plans, as Python shows them.

use gelu_net::models::plan::{HiddenPlan, HiddenSegment, Plan, Segment};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// The plan as the Python class that prints it, `gelu._plan.Plan`.
pub(crate) fn plan<'py>(py: Python<'py>, name: &str, plan: &Plan) -> PyResult<Bound<'py, PyAny>> {
    let segments = PyList::empty(py);
    for (index, segment) in plan.segments().iter().enumerate() {
        segments.append(row(py, plan, (index, segment))?)?;
    }
    py.import("gelu._plan")?.getattr("Plan")?.call1((summary(py, name, plan)?, segments))
}

/// The plan of a network that is hidden from the client as the Python class that prints it, `gelu._plan.HiddenPlan`.
pub(crate) fn hidden_plan<'py>(
    py: Python<'py>,
    name: &str,
    (plan, hidden): (&Plan, &HiddenPlan),
) -> PyResult<Bound<'py, PyAny>> {
    let segments = PyList::empty(py);
    for segment in hidden.segments() {
        segments.append(hidden_row(py, plan, segment)?)?;
    }
    let summary = summary(py, name, plan)?;
    summary.set_item("round_trips", hidden.round_trips())?;
    summary.set_item("client_bytes", hidden.client_bytes())?;
    summary.set_item("server_bytes", hidden.server_bytes())?;
    py.import("gelu._plan")?.getattr("HiddenPlan")?.call1((summary, segments))
}

fn summary<'py>(py: Python<'py>, name: &str, plan: &Plan) -> PyResult<Bound<'py, PyDict>> {
    let summary = PyDict::new(py);
    summary.set_item("network", name)?;
    summary.set_item("key_bits", plan.key().size.bits())?;
    summary.set_item("key_type", plan.key().key_type.name())?;
    summary.set_item("batch", plan.description().batch)?;
    Ok(summary)
}

/// Bytes of so many ciphertexts.
fn bytes(plan: &Plan, ciphertexts: usize) -> usize {
    ciphertexts * plan.key().size.bits() / 4
}

fn hidden_row<'py>(py: Python<'py>, plan: &Plan, segment: &HiddenSegment) -> PyResult<Bound<'py, PyDict>> {
    let row = PyDict::new(py);
    row.set_item("name", &segment.name)?;
    row.set_item("ring_bits", segment.ring.bits())?;
    row.set_item("ciphertexts_up", segment.ciphertexts_up)?;
    row.set_item("ciphertexts_down", segment.ciphertexts_down)?;
    row.set_item("bytes_up", bytes(plan, segment.ciphertexts_up))?;
    row.set_item("bytes_down", bytes(plan, segment.ciphertexts_down))?;
    row.set_item("products", segment.layout.operations.total())?;
    row.set_item("ands", segment.ands)?;
    row.set_item("table_bytes", segment.tables)?;
    row.set_item("transfer_bytes", segment.transfers)?;
    row.set_item("online_bytes_up", segment.shares)?;
    row.set_item("online_bytes_down", segment.answer)?;
    Ok(row)
}

fn row<'py>(
    py: Python<'py>,
    plan: &Plan,
    (index, segment): (usize, &Segment),
) -> PyResult<Bound<'py, PyDict>> {
    let inputs: Vec<Vec<usize>> = segment.terms.iter().map(|term| term.map.input().dims().to_vec()).collect();
    let row = PyDict::new(py);
    row.set_item("name", &segment.name)?;
    row.set_item("inputs", inputs)?;
    row.set_item("output", segment.shape.dims().to_vec())?;
    row.set_item("weight_bits", segment.terms.iter().map(|term| term.weights.bits()).max().unwrap_or(0))?;
    row.set_item("ciphertexts_up", segment.ciphertexts_up())?;
    row.set_item("ciphertexts_down", segment.ciphertexts_down())?;
    row.set_item("bytes_up", bytes(plan, segment.ciphertexts_up()))?;
    row.set_item("bytes_down", bytes(plan, segment.ciphertexts_down()))?;
    row.set_item("products", segment.layout.operations.total())?;
    row.set_item("then", plan.client_steps(Some(index)))?;
    Ok(row)
}
