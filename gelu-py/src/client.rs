//! The data owner's side.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use gelu_net::InferenceClient;
use gelu_net::models::plan::{Preference, Reveal};
use gelu_net::prelude::ServerModel;
use gelu_net::rand::rng;
use gelu_service::{ClientSecurity, Fingerprint, Offer, Patience, Remote};
use numpy::{PyArray1, PyArray2};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use crate::arrays::{inputs, output};
use crate::error::{Failure, InferenceError, Result};
use crate::key::SecretKey;
use crate::link::Link;
use crate::network::preference;
use crate::outcome::{Outcome, classes};
use crate::run::{Stop, detached, interruptible};
use crate::server::{Mode, Server, Tls};
use crate::spec::ClientSpec;

/// The data owner's side: it has the inputs and the secret key, and no weights.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct Client {
    spec: Py<ClientSpec>,
    key: Py<SecretKey>,
    batch: usize,
    prefer: Preference,
}

#[pymethods]
impl Client {
    /// Returns the client of a network, by its spec or the path of one, with a secret key.
    ///
    /// At most `batch` inputs go through together: they share ciphertexts, which saves time by the input and takes longer in all.
    /// `prefer` is what plans save where there is a choice ("balance", "bytes" or "time").
    #[new]
    #[pyo3(signature = (spec, key, *, batch=64, prefer="balance"))]
    fn new(
        py: Python<'_>,
        spec: &Bound<'_, PyAny>,
        key: Py<SecretKey>,
        batch: usize,
        prefer: &str,
    ) -> Result<Self> {
        let spec = match spec.cast::<ClientSpec>() {
            Ok(spec) => spec.clone().unbind(),
            Err(_) => {
                let wrong = |_| PyTypeError::new_err("expected a gelu.ClientSpec or the path of one");
                let path: PathBuf = spec.extract().map_err(wrong)?;
                Py::new(py, ClientSpec::load(path)?)?
            }
        };
        if batch == 0 {
            return Err(PyValueError::new_err("batch: expected at least 1, found 0").into());
        }
        Ok(Self { spec, key, batch, prefer: preference(prefer)? })
    }

    /// Returns a connection to a server: a URL such as "https://host:7443" (with `tls`; without it only a server on this
    /// machine), a `gelu.Server` in this process, or a function that carries the bytes of a request to `Server.step` and returns
    /// those of the reply.
    ///
    /// `fingerprint` is the server's, where it is known: no other is accepted. `mode` is "hidden", "class" or "revealed"; by
    /// default hidden where that is offered, and for a function.
    ///
    /// Raises ServiceError when the server cannot be reached, and InferenceError when it does not offer that.
    #[pyo3(signature = (server, *, tls=None, fingerprint=None, mode=None))]
    fn connect(
        this: &Bound<'_, Self>,
        server: &Bound<'_, PyAny>,
        tls: Option<&Bound<'_, Tls>>,
        fingerprint: Option<&str>,
        mode: Option<&str>,
    ) -> Result<Connection> {
        let py = this.py();
        let asked = mode.map(Mode::named).transpose()?;
        if asked == Some(Mode::Any) {
            return Err(PyValueError::new_err("mode: expected hidden, class or revealed, found any").into());
        }
        let client = this.clone().unbind();
        if let Ok(server) = server.cast::<Server>() {
            let (offered, model) = (server.get().mode(), Arc::clone(server.get().model()));
            let mode = asked.unwrap_or(if offered == Mode::Any { Mode::Hidden } else { offered });
            if !offered.allows(mode != Mode::Revealed) || (offered, mode) == (Mode::Class, Mode::Hidden) {
                let text = format!(
                    "the server offers its network as {}, found mode={}",
                    offered.name(),
                    mode.name()
                );
                return Err(InferenceError::new_err(text).into());
            }
            return Ok(Connection { client, target: Target::Local(model), mode });
        }
        if server.is_callable() {
            return Ok(Connection {
                client,
                target: Target::Step(server.clone().unbind()),
                mode: asked.unwrap_or(Mode::Hidden),
            });
        }
        let wrong = |_| PyTypeError::new_err("expected a URL, a gelu.Server or a function of bytes");
        let url: String = server.extract().map_err(wrong)?;
        let known = fingerprint.map(str::parse::<Fingerprint>).transpose()?;
        let security = match tls {
            Some(tls) => ClientSecurity::Tls { credentials: tls.get().credentials()?, known },
            None => ClientSecurity::Loopback,
        };
        let spec = this.get().spec.get();
        let (remote, offer) = detached(py, || -> Result<_> {
            let remote = Remote::new(&url, &security, Patience::default())?;
            let offer = offered(&remote, spec)?;
            Ok((remote, offer))
        })??;
        let own = match (offer.hidden.map(|cost| cost.reveal), offer.revealed) {
            (Some(Reveal::Class), _) => Mode::Class,
            (Some(Reveal::Logits), _) => Mode::Hidden,
            (None, _) => Mode::Revealed,
        };
        let mode = asked.unwrap_or(own);
        let remote = if mode == Mode::Revealed { remote } else { remote.hiding_model() };
        Ok(Connection { client, target: Target::Remote(remote, offer.name), mode })
    }

    /// The network's spec.
    #[getter]
    fn spec(&self, py: Python<'_>) -> Py<ClientSpec> {
        self.spec.clone_ref(py)
    }

    fn __repr__(&self) -> String {
        let spec = self.spec.get().model_name();
        format!(
            "<gelu.Client of the data owner: {spec}, has the secret key ({}) and no weights>",
            self.key.get().describe()
        )
    }
}

/// What a server offers of the spec's network: that of its name, or the only one there is.
fn offered(remote: &Remote, spec: &ClientSpec) -> Result<Offer> {
    let offers = remote.offers()?.into_iter().filter(|offer| offer.training.is_none());
    let mut offers: Vec<Offer> = offers.collect();
    let named = offers.iter().position(|offer| offer.name == spec.model_name());
    let names: Vec<String> = offers.iter().map(|offer| offer.name.clone()).collect();
    let only = (offers.len() == 1).then_some(0);
    let Some(index) = named.or(only) else {
        let text = format!(
            "{}: expected the network of the client's spec, `{}`, found {}",
            remote.server(),
            spec.model_name(),
            names.join(", ")
        );
        return Err(InferenceError::new_err(text).into());
    };
    let offer = offers.swap_remove(index);
    let (expected, found) = (spec.interface(), &offer.interface);
    if (&expected.input, expected.outputs) != (&found.input, found.outputs) {
        let text = format!(
            "{}: expected the network of the client's spec, `{}`, from {} to {} outputs, found `{}`, from {} to {}",
            remote.server(),
            spec.model_name(),
            expected.input,
            expected.outputs,
            offer.name,
            found.input,
            found.outputs
        );
        return Err(InferenceError::new_err(text).into());
    }
    Ok(offer)
}

/// Where a server is.
enum Target {
    Local(Arc<ServerModel>),
    /// With the name of the network there.
    Remote(Remote, String),
    Step(Py<PyAny>),
}

/// A client's way to a server. Each prediction is a session of its own, so that several threads can use it.
#[pyclass(frozen, module = "gelu")]
pub(crate) struct Connection {
    client: Py<Client>,
    target: Target,
    mode: Mode,
}

impl Connection {
    fn link(&self, stop: &Arc<Stop>) -> Result<Link> {
        let stop = Arc::clone(stop);
        Ok(match &self.target {
            Target::Local(model) => Link::local(Arc::clone(model), self.mode != Mode::Revealed, stop)?,
            Target::Remote(remote, name) => Link::remote(remote.open(name)?, stop),
            Target::Step(carry) => {
                Link::step(Python::attach(|py| carry.clone_ref(py)), self.mode != Mode::Revealed, stop)
            }
        })
    }

    fn ask(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> Result<Outcome> {
        let own = self.client.get();
        let spec = own.spec.get();
        let x = inputs(x, &spec.interface().input)?;
        let (images, batch) = (x.nrows(), own.batch.min(x.nrows()));
        let mut client = InferenceClient::new(own.key.get().key()?, batch).preferring(own.prefer);
        match self.mode {
            Mode::Hidden | Mode::Any => client = client.hiding_model(Reveal::Logits),
            Mode::Class => client = client.hiding_model(Reveal::Class),
            Mode::Revealed => {}
        }
        let stop = Arc::new(Stop::default());
        let heard = |done: usize| match progress {
            Some(progress) => progress.call1((done, images)).map(drop),
            None => Ok(()),
        };
        let report = interruptible(py, &stop, heard, |say| {
            let mut last: Option<Rc<Link>> = None;
            let connect = || -> Result<_> {
                let link = self.link(&stop)?;
                Ok(Rc::clone(last.insert(Rc::new(link))))
            };
            let ran = client.run(x.view(), &mut rng(), connect, say);
            // What the link knows says more than that it is closed.
            ran.map_err(|error| match &error {
                Failure::Library(_) => last.and_then(|link| link.why()).unwrap_or(error),
                _ => error,
            })
        })??;
        spec.check(report.plan.description())?;
        Ok(report.into())
    }
}

#[pymethods]
impl Connection {
    /// Sends inputs through the server's network on ciphertexts and returns the outputs (probabilities where it ends in a
    /// softmax): float64 of shape [N, outputs], bit for bit what `Network.simulate` gives.
    ///
    /// `x` is float32 or float64 (which is rounded to float32) of shape [N, C, H, W] or [N, F]. `progress(done, inputs)` hears
    /// after every batch. Other threads run meanwhile. Ctrl-C stops after the present step.
    ///
    /// Raises TensorError (a ValueError) for other shapes, TypeError for other dtypes, SecretKeyError when the key was wiped,
    /// InferenceError when the session fails or the server runs another network than that of the spec, and ServiceError.
    #[pyo3(signature = (x, *, progress=None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyArray2<f64>>> {
        if self.mode == Mode::Class {
            let text = "the server reveals the class of an input and nothing else: predict_classes(x)";
            return Err(InferenceError::new_err(text).into());
        }
        let outcome = self.ask(py, x, progress)?;
        Ok(output(py, outcome.into_outputs().unwrap_or_default()))
    }

    /// Sends inputs as `predict` does and returns the class of each: int64 of shape [N].
    #[pyo3(signature = (x, *, progress=None))]
    fn predict_classes<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> Result<Bound<'py, PyArray1<i64>>> {
        Ok(classes(py, &self.ask(py, x, progress)?.into_classes()))
    }

    /// Sends inputs as `predict` does and returns all that comes out, with what it took.
    #[pyo3(signature = (x, *, progress=None))]
    fn run(
        &self,
        py: Python<'_>,
        x: &Bound<'_, PyAny>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> Result<Outcome> {
        self.ask(py, x, progress)
    }

    /// What the client sees of the network: "hidden", "class" or "revealed".
    #[getter(mode)]
    fn mode_name(&self) -> &'static str {
        self.mode.name()
    }

    /// The fingerprint that the server showed; None without TLS.
    #[getter]
    fn fingerprint(&self) -> Option<String> {
        match &self.target {
            Target::Remote(remote, _) => remote.fingerprint().map(|fingerprint| fingerprint.to_string()),
            Target::Local(_) | Target::Step(_) => None,
        }
    }

    fn __repr__(&self) -> String {
        let to = match &self.target {
            Target::Local(_) => "a server in this process".to_owned(),
            Target::Remote(remote, _) => remote.server().to_owned(),
            Target::Step(_) => "a server behind a function".to_owned(),
        };
        format!("<gelu.Connection of the data owner to {to}: {}>", self.mode.name())
    }
}
