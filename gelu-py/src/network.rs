//! The model owner's network.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gelu_net::io::onnx::Report;
use gelu_net::io::weights::{Dtype, WeightsFile};
use gelu_net::models::ModelInfo;
use gelu_net::models::plan::{Deployment, HiddenPlan, LostResolution, Program, Reveal};
use gelu_net::models::train::{Dataset, Progress, TrainConfig, Trainer};
use gelu_net::models::zoo;
use gelu_net::ndarray::Axis;
use gelu_net::prelude::*;
use gelu_net::tensor::Shape;
use numpy::PyArray2;
use pyo3::exceptions::{PyUserWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use crate::arrays::{inputs, labels, output};
use crate::error::Result;
use crate::key::parameters;
use crate::outcome::Outcome;
use crate::plan::{hidden_plan, plan};
use crate::run::{Stop, detached, interruptible};
use crate::spec::ClientSpec;

/// A network with its weights: the model owner's. It is made by `gelu.compile`, `gelu.from_onnx`, `gelu.load` or
/// `gelu.Network.named`, and does not change.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct Network {
    name: String,
    model: Arc<ServerModel>,
    quantization: Quantization,
    report: Option<Report>,
}

/// Inputs that go through the clear computation between two looks for Ctrl-C.
const AT_A_TIME: usize = 64;

/// What pickle keeps: a function, and what it makes a network of.
type Pickled<'py> = (Bound<'py, PyAny>, (String, Bound<'py, PyBytes>, Bits));

/// Bits of integers, as Python gives them: of weights, activations and inputs.
pub(crate) type Bits = (Option<u32>, Option<u32>, Option<u32>);

impl Network {
    pub(crate) fn new(py: Python<'_>, name: String, model: Model, bits: Bits) -> PyResult<Self> {
        let (weight_bits, activation_bits, input_bits) = bits;
        let default = Quantization::default();
        let quantization = Quantization {
            weight_bits: weight_bits.unwrap_or(default.weight_bits),
            // Bits that were chosen for all hold for all.
            layer_bits: weight_bits.map(|_| [].into()),
            activation_bits,
            input_bits,
            ..default
        };
        for LostResolution { layer, bits, largest, typical, needed_bits } in
            model.lost_resolution(&quantization)
        {
            let text = format!(
                "layer {layer} has weights up to {largest}, while most are about {typical:.2e}: with {bits} bits these are lost \
                 to rounding; weight_bits={needed_bits} keeps them"
            );
            PyErr::warn(
                py,
                &py.get_type::<PyUserWarning>(),
                &std::ffi::CString::new(text).unwrap_or_default(),
                1,
            )?;
        }
        let model = Arc::new(ServerModel::new(model, quantization.clone()));
        Ok(Self { name, model, quantization, report: None })
    }

    pub(crate) fn with_report(self, report: Report) -> Self {
        Self { report: Some(report), ..self }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn server_model(&self) -> &Arc<ServerModel> {
        &self.model
    }

    pub(crate) fn model(&self) -> &Model {
        self.model.model()
    }

    fn bits(&self) -> Bits {
        let Quantization { weight_bits, activation_bits, input_bits, layer_bits, .. } = &self.quantization;
        (layer_bits.as_ref().map(|_| *weight_bits), *activation_bits, *input_bits)
    }

    /// The program of a deployment, in either mode.
    pub(crate) fn program(&self, deployment: &Deployment, hidden: bool) -> Result<Program> {
        Ok(match hidden {
            true => self.model.hidden_program(deployment)?,
            false => self.model.program(deployment)?,
        })
    }
}

/// Measures a network's ranges on typical inputs.
pub(crate) fn calibrate(
    py: Python<'_>,
    model: &mut Model,
    calibration: Option<&Bound<'_, PyAny>>,
) -> Result<()> {
    if let Some(x) = calibration {
        let x = inputs(x, model.input_shape())?;
        detached(py, || model.calibrate(x.view()))??;
    }
    Ok(())
}

#[pymethods]
impl Network {
    /// Returns a network by name, with random weights that `seed` determines: "lenet5", "conv1", "mlp:300,100" (hidden widths),
    /// or "resnet20" and other depths of 6 n + 2, with as many channels at first as in "resnet8:4". `input_shape` is that of one
    /// input, without N; residual networks have no batch norm if `batch_norm` is false, as private training needs it.
    ///
    /// Raises ValueError for other names, and ModelError when the network cannot have that input.
    #[staticmethod]
    #[pyo3(signature = (name, *, input_shape=None, classes=10, batch_norm=None, seed=0))]
    fn named(
        py: Python<'_>,
        name: &str,
        input_shape: Option<Vec<usize>>,
        classes: usize,
        batch_norm: Option<bool>,
        seed: u64,
    ) -> Result<Self> {
        let wrong = |error: zoo::ZooError| PyValueError::new_err(error.to_string());
        let network: zoo::Network = name.parse().map_err(wrong)?;
        let setting = zoo::Setting {
            input: input_shape.map(|extents| Shape::from(&extents[..])),
            classes: Some(classes),
            batch_norm,
            ..zoo::Setting::default()
        };
        let mut model = match network.build(&setting) {
            Err(zoo::ZooError::Graph(error)) => return Err(error.into()),
            built => built.map_err(wrong)?,
        };
        model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(seed));
        Ok(Self::new(py, name.to_owned(), model, (None, None, None))?)
    }

    /// The network's name: its file's, unless another was given.
    #[getter(name)]
    fn get_name(&self) -> &str {
        &self.name
    }

    /// The shape of one input, without N.
    #[getter]
    fn input_shape(&self) -> Vec<usize> {
        self.model().input_shape().dims().to_vec()
    }

    /// The number of outputs.
    #[getter]
    fn outputs(&self) -> usize {
        self.model().interface().outputs
    }

    /// The names of the classes; empty where the model has none.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.model().info().classes.clone()
    }

    /// The number of weights and biases.
    #[getter]
    fn parameters(&self) -> usize {
        self.model().parameter_count()
    }

    /// Whether the ranges of its values are known, so that it can be planned and run on ciphertexts.
    #[getter]
    fn is_calibrated(&self) -> bool {
        self.model().ranges().is_some()
    }

    /// What became of each node of the ONNX model, as text; empty where it comes from elsewhere.
    #[getter]
    fn report(&self) -> String {
        self.report.as_ref().map_or_else(String::new, ToString::to_string)
    }

    /// Returns how the network is run on ciphertexts: a table when it is printed, and in notebooks.
    ///
    /// `batch` inputs go through together under a key of `key_bits` bits of `key_type` ("djn" or "subgroup"); `prefer` is what
    /// plans save where there is a choice ("balance", "bytes" or "time"). With `hidden=True` it is the plan of a run that hides
    /// the network from the client, as servers run it where nothing else is said; `batch` queries are prepared together then.
    ///
    /// Raises PlanError when the network was not calibrated, or its numbers do not fit the key.
    #[pyo3(signature = (*, batch=1, key_bits=3072, key_type="djn", prefer="balance", hidden=false))]
    fn plan<'py>(
        &self,
        py: Python<'py>,
        batch: usize,
        key_bits: usize,
        key_type: &str,
        prefer: &str,
        hidden: bool,
    ) -> Result<Bound<'py, PyAny>> {
        let (key, prefer) = (parameters(key_bits, key_type)?, preference(prefer)?);
        let deployment = Deployment { key, batch, prefer, ..Deployment::default() };
        let program = detached(py, || self.program(&deployment, hidden))??;
        if !hidden {
            return Ok(plan(py, &self.name, program.plan())?);
        }
        let own = HiddenPlan::new(program.plan(), Reveal::Logits)?;
        Ok(hidden_plan(py, &self.name, (program.plan(), &own))?)
    }

    /// Returns what an encrypted run gives, bit for bit, computed in the clear on the same integers: float64 of shape
    /// [N, outputs]. `x` is float32 or float64 (which is rounded to float32) of shape [N, C, H, W] or [N, F]. With
    /// `hidden=True` it is what a run gives that hides the network from the client: the same, except that networks with means or
    /// shortcuts behind activations are rounded elsewhere.
    ///
    /// Raises TensorError (a ValueError) for other shapes, TypeError for other dtypes, and PlanError as `plan`.
    #[pyo3(signature = (x, *, hidden=false))]
    fn simulate<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        hidden: bool,
    ) -> Result<Bound<'py, PyArray2<f64>>> {
        let outcome = self.run_clear(py, x, hidden)?;
        Ok(output(py, outcome.into_outputs().unwrap_or_default()))
    }

    /// Returns all that comes out of `simulate`: integers, logits, outputs and classes.
    #[pyo3(signature = (x, *, hidden=false))]
    fn run_clear(&self, py: Python<'_>, x: &Bound<'_, PyAny>, hidden: bool) -> Result<Outcome> {
        let x = inputs(x, self.model().input_shape())?;
        let stop = Stop::default();
        interruptible(
            py,
            &stop,
            |()| Ok(()),
            |_| {
                let program = self.program(&Deployment::default(), hidden)?;
                let mut parts = x.axis_chunks_iter(Axis(0), AT_A_TIME);
                // No input at all is refused by the program, with what is wrong.
                let first = parts.next().unwrap_or_else(|| x.view());
                let mut outcome = Outcome::from(program.run_clear(first)?);
                for part in parts.take_while(|_| !stop.is_asked()) {
                    outcome.extend(program.run_clear(part)?.into())?;
                }
                Ok(outcome)
            },
        )?
    }

    /// Returns the outputs of the network itself, in floating point: float32 of shape [N, outputs], for `x` as in `simulate`.
    fn forward<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>) -> Result<Bound<'py, PyArray2<f32>>> {
        let x = inputs(x, self.model().input_shape())?;
        Ok(output(py, detached(py, || self.model().forward(x.view()))??))
    }

    /// Returns the network with the ranges of its values measured on typical inputs `x`, as in `simulate`.
    pub(crate) fn calibrated(&self, py: Python<'_>, x: &Bound<'_, PyAny>) -> Result<Self> {
        let mut model = self.model().clone();
        calibrate(py, &mut model, Some(x))?;
        Ok(Self { report: self.report.clone(), ..Self::new(py, self.name.clone(), model, self.bits())? })
    }

    /// Returns the network after training in the clear on inputs `x` (as in `simulate`) with labels `y`, integers from 0 of shape
    /// [N]; its ranges are measured on `x`. It must end in a softmax. `weight_bits`, `activation_bits` and `input_bits`, 2 to 24,
    /// train weights of so few bits, what is encrypted between layers, and inputs, in the second half.
    /// `progress(epoch, epochs, loss)` hears after every epoch. Ctrl-C stops it after the present update.
    ///
    /// Raises TrainingError when data and network do not fit, or the loss is no longer finite.
    #[pyo3(signature = (
        x, y, *, epochs=10, batch_size=64, learning_rate=0.05, momentum=0.9, weight_decay=1e-4, weight_bits=None, activation_bits=None,
        input_bits=None, seed=0, progress=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn fit(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        y: &Bound<'_, PyAny>,
        epochs: u32,
        batch_size: usize,
        learning_rate: f64,
        momentum: f64,
        weight_decay: f64,
        weight_bits: Option<u32>,
        activation_bits: Option<u32>,
        input_bits: Option<u32>,
        seed: u64,
        progress: Option<Bound<'_, PyAny>>,
    ) -> Result<Self> {
        let model = self.model();
        let data = Dataset::new(
            model.input_shape().clone(),
            inputs(x, model.input_shape())?,
            labels(y)?,
            model.output_shape().elements(),
        )?;
        let config = TrainConfig {
            epochs,
            batch_size: batch_size.min(data.len().max(1)),
            learning_rate,
            momentum,
            weight_decay,
            weight_bits,
            activation_bits,
            input_bits,
            seed,
            ..TrainConfig::default()
        };
        let mut trainer = Trainer::new(model.clone(), config)?;
        let stop = Stop::default();
        let heard = |(epoch, loss): (u32, f64)| match &progress {
            Some(progress) => progress.call1((epoch, epochs, loss)).map(drop),
            None => Ok(()),
        };
        let mut model = interruptible(py, &stop, heard, |say| -> Result<Model> {
            while trainer.epochs_done() < epochs && !stop.is_asked() {
                if let Some(stats) = trainer.train_while(&data, |_: Progress| !stop.is_asked())? {
                    say((stats.epoch, stats.loss));
                }
            }
            Ok(trainer.into_model())
        })??;
        detached(py, || model.calibrate(data.inputs()))??;
        if let Some(bits) = weight_bits {
            let names: Vec<String> = model.layers().map(|(name, _)| name.to_owned()).collect();
            model.set_layer_bits(names.into_iter().map(|name| (name, bits)).collect());
        }
        Ok(Self::new(py, self.name.clone(), model, self.bits())?)
    }

    /// Returns the network with names of its classes, in the order of the outputs.
    fn with_classes(&self, py: Python<'_>, classes: Vec<String>) -> Result<Self> {
        let (expected, found) = (self.outputs(), classes.len());
        if expected != found {
            return Err(PyValueError::new_err(format!("expected {expected} names, found {found}")).into());
        }
        let mut model = self.model().clone();
        *model.info_mut() = ModelInfo { classes, ..model.info().clone() };
        Ok(Self { report: self.report.clone(), ..Self::new(py, self.name.clone(), model, self.bits())? })
    }

    /// Writes the network with its weights and ranges to a safetensors file: the model owner's secret. `gelu.load` and the
    /// command `gelu` read it.
    ///
    /// Raises FileError.
    fn save(&self, py: Python<'_>, path: PathBuf) -> Result<()> {
        Ok(detached(py, || self.model().weights().write(&path, Dtype::F32))??)
    }

    /// Returns what the data owner gets: shapes, names of classes and the public numbers, and none of the weights.
    ///
    /// Raises PlanError as `plan`.
    fn client_spec(&self, py: Python<'_>) -> Result<ClientSpec> {
        detached(py, || ClientSpec::of(self))?
    }

    /// The weights, for pickle: the model owner's secret.
    fn __reduce__<'py>(&self, py: Python<'py>) -> Result<Pickled<'py>> {
        let bytes = self.model().weights().encode(Dtype::F32, Path::new(&self.name))?;
        let restore = py.get_type::<Self>().getattr("_restore")?;
        Ok((restore, (self.name.clone(), PyBytes::new(py, &bytes), self.bits())))
    }

    /// Returns the network of what `__reduce__` gives.
    #[staticmethod]
    fn _restore(py: Python<'_>, name: String, weights: &[u8], bits: Bits) -> Result<Self> {
        let model = Model::from_weights(&Weights::parse(weights, Path::new(&name))?)?;
        Ok(Self::new(py, name, model, bits)?)
    }

    fn __repr__(&self) -> String {
        let model = self.model();
        let calibrated = if self.is_calibrated() { "" } else { ", not calibrated" };
        format!(
            "<gelu.Network {} of the model owner, with weights: [N, {}] -> [N, {}], {} parameters{calibrated}>",
            self.name,
            model.input_shape().dims().iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
            self.outputs(),
            model.parameter_count(),
        )
    }
}

/// What plans save, by its name.
pub(crate) fn preference(name: &str) -> PyResult<Preference> {
    let named = Preference::ALL.into_iter().find(|preference| preference.to_string() == name);
    named.ok_or_else(|| {
        PyValueError::new_err(format!("prefer: expected balance, bytes or time, found {name}"))
    })
}
