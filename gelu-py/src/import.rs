//! Reading networks: model files and ONNX.

use std::path::{Path, PathBuf};

use gelu_net::io::onnx::{ImportOptions, Imported};
use gelu_net::models::Normalization;
use gelu_net::prelude::*;
use gelu_net::tensor::Shape;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::Result;
use crate::network::{Network, calibrate};
use crate::run::detached;

/// Reads a model file that `gelu` wrote, for instance by `gelu train` or `Network.save`.
///
/// `calibration` are typical inputs, float32 or float64 of shape [N, C, H, W] or [N, F], on which the ranges of values are
/// measured; files of `gelu` have ranges already. `weight_bits` (2 to 24; by default those of the file, else 9),
/// `activation_bits` and `input_bits` are the bits of the integers that it computes on.
///
/// Raises FileError when the file cannot be read, and ModelError when it holds no network.
#[pyfunction]
#[pyo3(signature = (path, *, calibration=None, weight_bits=None, activation_bits=None, input_bits=None))]
pub(crate) fn load(
    py: Python<'_>,
    path: PathBuf,
    calibration: Option<&Bound<'_, PyAny>>,
    weight_bits: Option<u32>,
    activation_bits: Option<u32>,
    input_bits: Option<u32>,
) -> Result<Network> {
    let mut model = detached(py, || Ok::<_, gelu_net::Error>(Model::from_weights(&Weights::read(&path)?)?))??;
    calibrate(py, &mut model, calibration)?;
    Ok(Network::new(py, stem(&path), model, (weight_bits, activation_bits, input_bits))?)
}

/// Reads an ONNX model: a path, or the bytes of a file that has all weights in it.
///
/// `calibration` are typical inputs, float32 or float64 of shape [N, C, H, W] or [N, F], on which the ranges of values are
/// measured: without them nothing can be planned or run but `forward`. `input_shape` is that of one input, without N, where the
/// model leaves it open; `output` names one of several outputs; `normalize=(mean, std)` says that the model was trained on
/// (pixel - mean) / std, and makes that part of it. The bits are as in `gelu.load`.
///
/// Raises UnsupportedModel, whose `nodes` lists every node that cannot be imported, and FileError.
#[pyfunction]
#[pyo3(signature = (
    model, *, calibration=None, input_shape=None, output=None, normalize=None, name=None, weight_bits=None, activation_bits=None,
    input_bits=None
))]
#[expect(clippy::too_many_arguments, reason = "keywords of Python")]
pub(crate) fn from_onnx(
    py: Python<'_>,
    model: &Bound<'_, PyAny>,
    calibration: Option<&Bound<'_, PyAny>>,
    input_shape: Option<Vec<usize>>,
    output: Option<String>,
    normalize: Option<(Vec<f32>, Vec<f32>)>,
    name: Option<String>,
    weight_bits: Option<u32>,
    activation_bits: Option<u32>,
    input_bits: Option<u32>,
) -> Result<Network> {
    let options = ImportOptions { input: input_shape.map(|extents| Shape::from(&extents[..])), output };
    let (imported, own) = match model.cast::<PyBytes>() {
        Ok(bytes) => {
            let bytes = bytes.as_bytes();
            (detached(py, || Imported::parse(bytes, Path::new("model.onnx"), &options))?, "model".to_owned())
        }
        Err(_) => {
            let wrong = |_| PyTypeError::new_err("expected a path or the bytes of an ONNX file");
            let path: PathBuf = model.extract().map_err(wrong)?;
            (detached(py, || Imported::read_with(&path, &options))?, stem(&path))
        }
    };
    let Imported { mut model, report } = imported?;
    if let Some((mean, std)) = normalize {
        model.fold_normalization(&Normalization { mean, std })?;
    }
    calibrate(py, &mut model, calibration)?;
    let bits = (weight_bits, activation_bits, input_bits);
    Ok(Network::new(py, name.unwrap_or(own), model, bits)?.with_report(report))
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}
