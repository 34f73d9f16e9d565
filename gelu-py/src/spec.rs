//! What the data owner knows of a network.

use std::path::PathBuf;

use gelu_net::io::files::{read_limited, write_atomic};
use gelu_net::models::plan::{Deployment, Description, PlanError};
use gelu_net::models::{Interface, ModelInfo, Preprocessing};
use gelu_net::tensor::Shape;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{InferenceError, Result};
use crate::network::Network;

/// The longest file that is read.
const MOST_BYTES: u64 = 1 << 24;

/// What the data owner knows of a network: shapes, names of classes, how inputs are prepared, and the public numbers of the plan,
/// so that a server that runs another network is found out. It holds no weights.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct ClientSpec {
    name: String,
    interface: Interface,
    /// Graph and numbers, in either mode; null where the network cannot be hidden.
    revealed: Value,
    hidden: Value,
}

/// Graph and numbers of a description: what is the same for every key and batch.
fn public(description: &Description) -> Result<Value> {
    let value = |value: serde_json::Result<Value>| {
        value.map_err(|error| crate::error::Failure::from(PyValueError::new_err(error.to_string())))
    };
    let graph = value(serde_json::to_value(&*description.graph))?;
    let numbers = value(serde_json::to_value(&description.numbers))?;
    Ok(json!({ "graph": graph, "numbers": numbers }))
}

impl ClientSpec {
    /// What there is to know of a network.
    pub(crate) fn of(network: &Network) -> Result<Self> {
        let deployment = Deployment::default();
        let model = network.server_model();
        let hidden = match model.hidden_program(&deployment) {
            Ok(program) => public(program.plan().description())?,
            Err(PlanError::Hidden { .. }) => Value::Null,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            name: network.name().to_owned(),
            interface: network.model().interface(),
            revealed: public(model.program(&deployment)?.plan().description())?,
            hidden,
        })
    }

    pub(crate) fn interface(&self) -> &Interface {
        &self.interface
    }

    pub(crate) fn model_name(&self) -> &str {
        &self.name
    }

    /// Fails when a server runs another network.
    pub(crate) fn check(&self, description: &Description) -> Result<()> {
        let known = if description.hidden { &self.hidden } else { &self.revealed };
        if *known == public(description)? {
            return Ok(());
        }
        let text = format!(
            "expected the network of the client's spec, `{}`, found another at the server: its answers are not to be relied on; \
             ask its owner for the present spec",
            self.name
        );
        Err(InferenceError::new_err(text).into())
    }

    fn file(&self) -> SpecFile {
        let Interface { input, outputs, info } = self.interface.clone();
        SpecFile {
            version: VERSION,
            name: self.name.clone(),
            input: input.dims().to_vec(),
            outputs,
            classes: info.classes,
            preprocessing: info.preprocessing,
            revealed: self.revealed.clone(),
            hidden: self.hidden.clone(),
        }
    }
}

/// The file's version.
const VERSION: u32 = 1;

/// What a spec's file holds, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpecFile {
    #[serde(rename = "gelu_client_spec")]
    version: u32,
    name: String,
    input: Vec<usize>,
    outputs: usize,
    classes: Vec<String>,
    preprocessing: Option<Preprocessing>,
    revealed: Value,
    hidden: Value,
}

#[pymethods]
impl ClientSpec {
    /// Reads the spec of a file.
    ///
    /// Raises FileError, and ValueError when the file holds none.
    #[staticmethod]
    pub(crate) fn load(path: PathBuf) -> Result<Self> {
        let bytes = read_limited(&path, MOST_BYTES)?;
        let wrong = |found: String| {
            PyValueError::new_err(format!("{}: expected a client's spec: {found}", path.display()))
        };
        let file: SpecFile = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if file.version != VERSION {
            return Err(wrong(format!("expected version {VERSION}, found {}", file.version)).into());
        }
        let info =
            ModelInfo { preprocessing: file.preprocessing, classes: file.classes, provenance: [].into() };
        let interface = Interface { input: Shape::from(&file.input[..]), outputs: file.outputs, info };
        if let Some(fault) = interface.fault() {
            return Err(wrong(fault).into());
        }
        Ok(Self { name: file.name, interface, revealed: file.revealed, hidden: file.hidden })
    }

    /// Writes the spec to a file of JSON, which is no secret.
    ///
    /// Raises FileError.
    fn save(&self, path: PathBuf) -> Result<()> {
        let bytes =
            serde_json::to_vec(&self.file()).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(write_atomic(&path, &bytes)?)
    }

    /// The network's name at the server.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The shape of one input, without N.
    #[getter]
    fn input_shape(&self) -> Vec<usize> {
        self.interface.input.dims().to_vec()
    }

    /// The number of outputs.
    #[getter]
    fn outputs(&self) -> usize {
        self.interface.outputs
    }

    /// The names of the classes; empty where the network has none.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.interface.info.classes.clone()
    }

    /// Whether the network can be hidden from its clients.
    #[getter]
    fn can_be_hidden(&self) -> bool {
        !self.hidden.is_null()
    }

    fn __repr__(&self) -> String {
        format!(
            "<gelu.ClientSpec of {} for the data owner, without weights: [N, {}] -> [N, {}]>",
            self.name,
            self.input_shape().iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
            self.interface.outputs
        )
    }
}
