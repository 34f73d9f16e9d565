//! The server's side as a function of requests: bytes in, bytes out, no I/O.
//!
//! A request is the 16 bytes of a conversation's name, a byte for the mode (1: the network is hidden from the client), and
//! messages; a reply is messages. What comes of them is up to `gelu_service::Steps`.

use std::time::Duration;

use gelu_service::{Limits, Service, ServiceError, Steps};
use pyo3::prelude::*;

use crate::error::{Failure, InferenceError, Result};
use crate::run::detached;
use crate::server::Mode;

/// Conversations that are kept at a time, and how long one is kept without a request.
pub(crate) fn limits() -> Limits {
    let (sessions, absence) = (256, Duration::from_secs(300));
    Limits { sessions, sessions_per_client: sessions, absence, ..Limits::default() }
}

/// The conversations of a server that is asked step by step.
pub(crate) struct Conversations {
    steps: Steps,
    model: String,
    mode: Mode,
}

impl Conversations {
    /// Of a service that offers the model of this name in this mode.
    pub(crate) fn new(service: Service, model: &str, mode: Mode) -> Result<Self, ServiceError> {
        Ok(Self { steps: service.into_steps()?, model: model.to_owned(), mode })
    }

    /// Takes a request and returns the reply.
    pub(crate) fn step(&self, py: Python<'_>, request: &[u8]) -> Result<Vec<u8>> {
        let Some((&name, [mode @ (0 | 1), messages @ ..])) = request.split_first_chunk::<16>() else {
            let text = "expected a request of a gelu client, found other bytes";
            return Err(InferenceError::new_err(text).into());
        };
        let is_hidden = *mode == 1;
        if !self.mode.allows(is_hidden) {
            let found = if is_hidden { "hidden" } else { "revealed" };
            let text = format!("the server does not offer its network {found}: connect(mode=...)");
            return Err(InferenceError::new_err(text).into());
        }
        let reply = detached(py, || self.steps.step(name, (&self.model, is_hidden), messages))?;
        reply.map_err(|error| Failure::Python(InferenceError::new_err(error.to_string())))
    }

    pub(crate) fn count(&self) -> usize {
        self.steps.sessions()
    }
}
