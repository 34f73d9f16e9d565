//! Ways from a client to a server: in this process, over a network, or by requests that someone else carries.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use gelu_net::io::session::{RunError, serve};
use gelu_net::io::transport::{Disconnected, InProcess, Transport};
use gelu_net::models::infer::{Message, Server, ServerModel, hidden};
use gelu_net::models::peer::AbortReason;
use gelu_net::rand::{RngExt, rng};
use gelu_net::wire::encode_message;
use gelu_service::{RemoteTransport, append_message, split_messages};
use pyo3::prelude::*;

use crate::error::{Failure, InferenceError, Result};
use crate::run::Stop;

/// The client's end of a session, which ends when it is asked to stop.
pub(crate) struct Link {
    way: Way,
    stop: Arc<Stop>,
}

enum Way {
    Local(Local),
    Remote(Arc<RemoteTransport>),
    Step(Stepping),
}

impl Link {
    /// A session with a server in this process.
    pub(crate) fn local(model: Arc<ServerModel>, is_hidden: bool, stop: Arc<Stop>) -> Result<Self> {
        Ok(Self { way: Way::Local(Local::new(model, is_hidden)?), stop })
    }

    /// A conversation with a server on another machine.
    pub(crate) fn remote(transport: RemoteTransport, stop: Arc<Stop>) -> Self {
        let transport = Arc::new(transport);
        let waiting = Arc::downgrade(&transport);
        stop.wake_by(move || {
            if let Some(transport) = waiting.upgrade() {
                transport.stop_listening();
            }
        });
        Self { way: Way::Remote(transport), stop }
    }

    /// A conversation of requests and replies that a Python function carries.
    pub(crate) fn step(carry: Py<PyAny>, is_hidden: bool, stop: Arc<Stop>) -> Self {
        Self { way: Way::Step(Stepping::new(carry, is_hidden)), stop }
    }

    /// Why the session is over, where more is known of it than that.
    pub(crate) fn why(&self) -> Option<Failure> {
        match &self.way {
            Way::Local(local) => local.why(),
            Way::Remote(transport) => transport.why().map(Failure::Service),
            Way::Step(stepping) => lock(&stepping.failed).take().map(Failure::Python),
        }
    }

    fn check(&self) -> Result<(), Disconnected> {
        if self.stop.is_asked() { Err(Disconnected) } else { Ok(()) }
    }
}

impl Transport for Link {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        self.check()?;
        match &self.way {
            Way::Local(local) => local.end.as_ref().ok_or(Disconnected)?.send(message),
            Way::Remote(transport) => transport.send(message),
            Way::Step(stepping) => stepping.send(message),
        }
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        self.check()?;
        match &self.way {
            Way::Local(local) => local.end.as_ref().ok_or(Disconnected)?.receive(),
            Way::Remote(transport) => transport.receive(),
            Way::Step(stepping) => stepping.receive(),
        }
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        self.check()?;
        match &self.way {
            Way::Local(local) => local.end.as_ref().ok_or(Disconnected)?.try_receive(),
            Way::Remote(transport) => transport.try_receive(),
            Way::Step(stepping) => Ok(lock(&stepping.arrived).pop_front()),
        }
    }
}

impl Drop for Link {
    /// A server that is not to wait for a client that was stopped is told so.
    fn drop(&mut self) {
        if self.stop.is_asked()
            && let Ok(abort) = encode_message(&Message::Abort { reason: AbortReason::Closed })
        {
            // It may be gone itself.
            let _ = match &self.way {
                Way::Local(_) => Ok(()),
                Way::Remote(transport) => transport.send(abort),
                Way::Step(stepping) => stepping.send(abort),
            };
        }
    }
}

fn lock<T>(place: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server's session on a thread of its own.
struct Local {
    end: Option<InProcess>,
    thread: Mutex<Option<JoinHandle<Result<(), RunError>>>>,
}

impl Local {
    fn new(model: Arc<ServerModel>, is_hidden: bool) -> Result<Self> {
        let (end, served) = InProcess::pair();
        let serving = move || match is_hidden {
            true => serve(&served, hidden::Server::new(model), &mut rng()).1,
            false => serve(&served, Server::new(model), &mut rng()).1,
        };
        let thread = std::thread::Builder::new().name("gelu server".to_owned()).spawn(serving);
        let thread = Mutex::new(Some(thread.map_err(gelu_net::Error::Thread)?));
        Ok(Self { end: Some(end), thread })
    }

    /// What the server failed with: where it did, it is over.
    fn why(&self) -> Option<Failure> {
        let mut thread = lock(&self.thread);
        if !thread.as_ref()?.is_finished() {
            return None;
        }
        let ended = thread.take()?.join().unwrap_or_else(|panic| resume_unwind(panic));
        match ended {
            // It saw the client go.
            Ok(()) | Err(RunError::Disconnected(_)) => None,
            Err(error) => Some(gelu_net::Error::Inference(error).into()),
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = lock(&self.thread).take() {
            // Whoever asked has its answer.
            let _ = thread.join();
        }
    }
}

/// Requests and replies. What is to be sent waits until the client has nothing else to do, and goes as one request.
struct Stepping {
    carry: Py<PyAny>,
    name: [u8; 17],
    outgoing: Mutex<Vec<u8>>,
    arrived: Mutex<VecDeque<Vec<u8>>>,
    failed: Mutex<Option<PyErr>>,
}

impl Stepping {
    fn new(carry: Py<PyAny>, is_hidden: bool) -> Self {
        let mut name = [0; 17];
        rng().fill(&mut name[..16]);
        name[16] = is_hidden.into();
        Self { carry, name, outgoing: Mutex::default(), arrived: Mutex::default(), failed: Mutex::default() }
    }

    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        append_message(&mut lock(&self.outgoing), &message);
        Ok(())
    }

    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        if lock(&self.arrived).is_empty() {
            self.exchange()?;
        }
        lock(&self.arrived).pop_front().ok_or(Disconnected)
    }

    fn exchange(&self) -> Result<(), Disconnected> {
        let request = [&self.name[..], &std::mem::take(&mut *lock(&self.outgoing))].concat();
        let carried = Python::attach(|py| -> PyResult<Vec<Vec<u8>>> {
            let reply = self.carry.bind(py).call1((pyo3::types::PyBytes::new(py, &request),))?;
            let messages = split_messages(reply.extract::<&[u8]>()?);
            messages.map_err(|error| InferenceError::new_err(error.to_string()))
        });
        match carried {
            Ok(messages) => {
                lock(&self.arrived).extend(messages);
                Ok(())
            }
            Err(error) => {
                lock(&self.failed).get_or_insert(error);
                Err(Disconnected)
            }
        }
    }
}

impl Drop for Stepping {
    /// What was said last, a farewell, goes out if it can.
    fn drop(&mut self) {
        if !lock(&self.outgoing).is_empty() && lock(&self.failed).is_none() {
            let _ = self.exchange();
        }
    }
}
