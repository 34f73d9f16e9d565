//! Arrays of numpy, in and out.

use gelu_net::ndarray::{Array2, Ix2};
use gelu_net::tensor::Shape;
use numpy::{
    IntoPyArray, PyArray2, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::error::TensorError;

/// The array that an object is, or that numpy makes of it.
fn array<'py>(x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    match x.cast::<PyUntypedArray>() {
        Ok(array) => Ok(array.clone()),
        Err(_) => Ok(x.py().import("numpy")?.call_method1("asarray", (x,))?.cast_into()?),
    }
}

/// The shape of what a network takes, with `N` in front.
fn expected(shape: &Shape) -> String {
    let extents: Vec<String> = shape.dims().iter().map(usize::to_string).collect();
    let whole = format!("[N, {}]", extents.join(", "));
    if extents.len() > 1 { format!("{whole} or [N, {}]", shape.elements()) } else { whole }
}

/// Inputs of a network, `[N, elements]`. Numbers of 64 bits are rounded to 32.
pub(crate) fn inputs(x: &Bound<'_, PyAny>, shape: &Shape) -> PyResult<Array2<f32>> {
    let array = array(x)?;
    let found = array.shape().to_vec();
    let fits = match &found[..] {
        [_, elements] if *elements == shape.elements() => true,
        [_, rest @ ..] => rest == shape.dims(),
        [] => false,
    };
    let values = if let Ok(array) = array.cast::<PyArrayDyn<f32>>() {
        array.readonly().as_array().to_owned()
    } else if let Ok(array) = array.cast::<PyArrayDyn<f64>>() {
        array.readonly().as_array().mapv(|x| x as f32)
    } else {
        return Err(PyTypeError::new_err(format!(
            "expected an array of float32 or float64, found {}: x.astype(numpy.float32) makes one (pixels from 0 to 255 are \
             divided by 255 besides)",
            array.dtype()
        )));
    };
    if !fits {
        let single = found == shape.dims();
        return Err(TensorError::new_err(format!(
            "expected an array of shape {}, found {found:?}{}",
            expected(shape),
            if single { ": x[None] makes a batch of one input" } else { "" }
        )));
    }
    let rows = found[0];
    let flat = values.as_standard_layout().into_owned().into_shape_with_order((rows, shape.elements()));
    flat.and_then(|flat| flat.into_dimensionality::<Ix2>())
        .map_err(|error| TensorError::new_err(error.to_string()))
}

/// Labels of classes, from 0.
pub(crate) fn labels(y: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let array = array(y)?;
    let integers = matches!(array.dtype().kind(), b'i' | b'u');
    if !integers || array.ndim() != 1 {
        return Err(PyTypeError::new_err(format!(
            "expected labels as a vector of integers from 0, found {} of shape {:?}",
            array.dtype(),
            array.shape()
        )));
    }
    let signed = array.call_method1("astype", ("int64",))?;
    let signed = signed.cast::<numpy::PyArray1<i64>>()?.readonly();
    let label = |&label: &i64| {
        usize::try_from(label)
            .map_err(|_| TensorError::new_err(format!("expected labels from 0, found {label}")))
    };
    signed.as_array().iter().map(label).collect()
}

/// Numbers as an array of Python's.
pub(crate) fn output<'py, T: numpy::Element>(py: Python<'py>, values: Array2<T>) -> Bound<'py, PyArray2<T>> {
    values.into_pyarray(py)
}
