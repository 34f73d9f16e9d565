//! The model owner's side.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gelu_net::io::files::{check_owner_only, make_folder, read_limited};
use gelu_net::models::plan::Reveal;
use gelu_net::prelude::ServerModel;
use gelu_service::{Credentials, DEFAULT_PORT, Ledger, Limits, Modes, ServerSecurity, Service};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

use crate::error::Result;
use crate::import::load;
use crate::network::Network;
use crate::run::{detached, enter};
use crate::spec::ClientSpec;
use crate::step::{Conversations, limits};

/// The longest file of certificates that is read.
const MOST_BYTES: u64 = 1 << 20;

/// What clients see of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Hidden,
    Class,
    Revealed,
    Any,
}

impl Mode {
    pub(crate) fn named(name: &str) -> PyResult<Self> {
        Ok(match name {
            "hidden" => Self::Hidden,
            "class" => Self::Class,
            "revealed" => Self::Revealed,
            "any" => Self::Any,
            other => {
                let text = format!("mode: expected hidden, class, revealed or any, found {other}");
                return Err(PyValueError::new_err(text));
            }
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Class => "class",
            Self::Revealed => "revealed",
            Self::Any => "any",
        }
    }

    fn modes(self) -> Modes {
        match self {
            Self::Hidden => Modes::hidden(Reveal::Logits),
            Self::Class => Modes::hidden(Reveal::Class),
            Self::Revealed => Modes::revealed(),
            Self::Any => Modes::any(),
        }
    }

    pub(crate) fn allows(self, is_hidden: bool) -> bool {
        match self {
            Self::Hidden | Self::Class => is_hidden,
            Self::Revealed => !is_hidden,
            Self::Any => true,
        }
    }
}

/// Certificates of one side: its own with those between it and its authority, its private key, and the authority that the other
/// side's must come from, all as paths of PEM files. The key's file may be readable by its owner only.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

impl Tls {
    pub(crate) fn credentials(&self) -> Result<Credentials> {
        check_owner_only(&self.key)?;
        let read = |path: &Path| read_limited(path, MOST_BYTES);
        let key = Zeroizing::new(read(&self.key)?);
        Ok(Credentials::from_pem(&read(&self.certificate)?, &key, &read(&self.authority)?)?)
    }
}

#[pymethods]
impl Tls {
    #[new]
    fn new(certificate: PathBuf, key: PathBuf, authority: PathBuf) -> Self {
        Self { certificate, key, authority }
    }

    fn __repr__(&self) -> String {
        format!("<gelu.Tls with the certificate {}>", self.certificate.display())
    }
}

/// The model owner's side: it has the weights and no key, and computes on ciphertexts that it cannot read.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct Server {
    network: Py<Network>,
    model: Arc<ServerModel>,
    name: String,
    mode: Mode,
    conversations: Conversations,
}

impl Server {
    pub(crate) fn model(&self) -> &Arc<ServerModel> {
        &self.model
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }
}

#[pymethods]
impl Server {
    /// Returns the server of a network, or of the model file at a path.
    ///
    /// `mode` says what clients see: "hidden" (the outputs and nothing between), "class" (the class of an input and nothing
    /// else), "revealed" (every layer's weighted sums, from which the weights can be solved) or "any" (as the client chooses).
    ///
    /// Raises PlanError when the network cannot be run so; the message names the layer.
    #[new]
    #[pyo3(signature = (network, *, mode="hidden"))]
    fn new(py: Python<'_>, network: &Bound<'_, PyAny>, mode: &str) -> Result<Self> {
        let mode = Mode::named(mode)?;
        let network = match network.cast::<Network>() {
            Ok(network) => network.clone().unbind(),
            Err(_) => {
                let wrong = |_| PyTypeError::new_err("expected a gelu.Network or the path of a model file");
                let path: PathBuf = network.extract().map_err(wrong)?;
                Py::new(py, load(py, path, None, None, None, None)?)?
            }
        };
        let (model, name) = (Arc::clone(network.get().server_model()), network.get().name().to_owned());
        // What cannot be offered is said now.
        let offered = || Service::new(limits()).with_model(&name, Arc::clone(&model), mode.modes());
        let conversations = Conversations::new(detached(py, offered)??, &name, mode)?;
        Ok(Self { network, model, name, mode, conversations })
    }

    /// Returns what clients get of the network: shapes and public numbers.
    fn client_spec(&self, py: Python<'_>) -> Result<ClientSpec> {
        let network = self.network.get();
        detached(py, || ClientSpec::of(network))?
    }

    /// Takes the bytes of a client's request and returns those of the reply, without any I/O: for web frameworks and queues that
    /// carry bytes by themselves. Any number of clients can be served; a conversation that is silent for five minutes is dropped.
    ///
    /// Raises InferenceError for bytes that no client sends. What else goes wrong, the reply tells the client.
    fn step<'py>(&self, py: Python<'py>, request: &[u8]) -> Result<Bound<'py, PyBytes>> {
        let reply = self.conversations.step(py, request)?;
        Ok(PyBytes::new(py, &reply))
    }

    /// Serves clients on other machines by gRPC over TLS 1.3, on threads of its own, and returns at once. `address` is
    /// "HOST:PORT": "0.0.0.0:7443" for all of the machine's addresses, port 0 for any that is free. Without `tls` it serves
    /// clients on this machine only.
    ///
    /// At most `sessions` conversations are held at a time. `state` is a folder in which it is kept, over restarts, what each
    /// client's certificate has asked for; with `budget` none may have more inputs. `metrics` is an address at which Prometheus
    /// is answered.
    ///
    /// Raises ServiceError when the address cannot be listened on or certificates cannot be used.
    #[pyo3(signature = (address=None, *, tls=None, sessions=64, state=None, budget=None, metrics=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn serve(
        &self,
        py: Python<'_>,
        address: Option<String>,
        tls: Option<&Bound<'_, Tls>>,
        sessions: usize,
        state: Option<PathBuf>,
        budget: Option<u64>,
        metrics: Option<&str>,
    ) -> Result<Serving> {
        enter()?;
        if budget.is_some() && state.is_none() {
            return Err(
                PyValueError::new_err("budget: expected state, a folder to keep the account in").into()
            );
        }
        let address = address.unwrap_or_else(|| format!("127.0.0.1:{DEFAULT_PORT}"));
        let security = match tls {
            Some(tls) => ServerSecurity::Tls(tls.get().credentials()?),
            None => ServerSecurity::Loopback,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let limits = Limits { sessions, grace: Duration::from_secs(5), ..Limits::default() };
        let mut service = Service::new(limits);
        if let Some(folder) = &state {
            make_folder(folder)?;
            service = service.with_ledger(Arc::new(Ledger::open(folder)?), budget);
        }
        if let Some(metrics) = metrics {
            let wrong = |_| PyValueError::new_err(format!("metrics: expected ADDRESS:PORT, found {metrics}"));
            service = service.with_metrics(metrics.parse().map_err(wrong)?);
        }
        let (name, model, modes) = (self.name.clone(), Arc::clone(&self.model), self.mode.modes());
        let running = detached(py, move || -> Result<_> {
            Ok(service.with_model(&name, model, modes)?.start(address, &security)?)
        })??;
        let (address, metrics) = (running.address(), running.metrics_address());
        let place = Mutex::new(Some(running));
        Ok(Serving {
            place,
            model: self.name.clone(),
            address: address.to_string(),
            url: format!("{scheme}://{address}"),
            metrics: metrics.map(|address| address.to_string()),
        })
    }

    /// What clients see of the network.
    #[getter(mode)]
    fn mode_name(&self) -> &'static str {
        self.mode.name()
    }

    /// The conversations that `step` keeps.
    #[getter]
    fn conversations(&self) -> usize {
        self.conversations.count()
    }

    fn __repr__(&self) -> String {
        format!(
            "<gelu.Server of the model owner: {}, {}, has the weights and no key>",
            self.name,
            self.mode.name()
        )
    }
}

/// A server at work. It stops at the end of a `with` block, by `stop()`, or when it is no longer used.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct Serving {
    place: Mutex<Option<gelu_service::Running>>,
    model: String,
    /// Where it listens: with the port that the system chose.
    #[pyo3(get)]
    address: String,
    /// What clients on this machine connect to; others put the server's name in the place of the host.
    #[pyo3(get)]
    url: String,
    /// Where Prometheus is answered; None where it is not.
    #[pyo3(get)]
    metrics: Option<String>,
}

impl Serving {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<gelu_service::Running>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Serving {
    /// The conversations that there are now.
    #[getter]
    fn sessions(&self) -> usize {
        self.lock().as_ref().map_or(0, gelu_service::Running::sessions)
    }

    /// Waits until Ctrl-C, and then stops: the last line of a script that serves.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            if let Err(error) = py.check_signals() {
                self.stop(py);
                return Err(error);
            }
            if self.lock().is_none() {
                return Ok(());
            }
            py.detach(|| std::thread::sleep(Duration::from_millis(100)));
        }
    }

    /// Takes no more conversations, waits five seconds at most for those that there are, and stops.
    fn stop(&self, py: Python<'_>) {
        let running = self.lock().take();
        py.detach(move || drop(running));
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    fn __exit__(
        &self,
        py: Python<'_>,
        _kind: &Bound<'_, PyAny>,
        _error: &Bound<'_, PyAny>,
        _trace: &Bound<'_, PyAny>,
    ) {
        self.stop(py);
    }

    fn __repr__(&self) -> String {
        let state = if self.lock().is_some() { "listens at" } else { "stopped, was at" };
        format!("<gelu.Serving of the model owner: {}, {state} {}>", self.model, self.url)
    }
}
