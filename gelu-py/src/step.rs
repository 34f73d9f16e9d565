//! The server's side as a function of requests: bytes in, bytes out, no I/O.
//!
//! A request is the 16 bytes of a conversation's name, a byte for the mode (1: the network is hidden from the client), and
//! messages; a reply is messages. A message has its length before it, four bytes, little-endian.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gelu_net::io::session::{Progress, Session};
use gelu_net::io::transport::{Disconnected, Transport};
use gelu_net::models::infer::{Server, ServerModel, SessionError, hidden};
use gelu_net::rand::rng;
use gelu_net::wire::WirePeer;
use pyo3::prelude::*;

use crate::error::InferenceError;
use crate::run::detached;

/// Conversations that are kept at a time.
const MOST: usize = 256;

/// How long one is kept without a request.
const SILENCE: Duration = Duration::from_secs(300);

/// Appends a message.
pub(crate) fn join(messages: &mut Vec<u8>, message: &[u8]) {
    messages.extend_from_slice(&(message.len() as u32).to_le_bytes());
    messages.extend_from_slice(message);
}

/// Divides messages.
pub(crate) fn split(mut bytes: &[u8]) -> PyResult<Vec<Vec<u8>>> {
    let mut messages = vec![];
    while !bytes.is_empty() {
        let message = bytes.split_at_checked(4).and_then(|(length, rest)| {
            let length = u32::from_le_bytes(length.try_into().ok()?);
            rest.split_at_checked(usize::try_from(length).ok()?)
        });
        let Some((message, rest)) = message else {
            return Err(InferenceError::new_err(
                "expected whole messages with their lengths, found fewer bytes",
            ));
        };
        messages.push(message.to_vec());
        bytes = rest;
    }
    Ok(messages)
}

/// What waits in both directions.
#[derive(Default)]
struct Queues(Mutex<(VecDeque<Vec<u8>>, Vec<u8>)>);

impl Transport for Queues {
    fn send(&self, message: Vec<u8>) -> Result<(), Disconnected> {
        join(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).1, &message);
        Ok(())
    }

    /// There is nothing to wait for between two requests.
    fn receive(&self) -> Result<Vec<u8>, Disconnected> {
        self.try_receive()?.ok_or(Disconnected)
    }

    fn try_receive(&self) -> Result<Option<Vec<u8>>, Disconnected> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).0.pop_front())
    }
}

/// A server's side of one conversation, in either mode.
enum Mode {
    Revealed(Session<Arc<Queues>, Server, ()>),
    Hidden(Box<Session<Arc<Queues>, hidden::Server, ()>>),
}

struct Conversation {
    queues: Arc<Queues>,
    mode: Mode,
    heard: Instant,
}

/// Goes as far as it can; returns whether the conversation is over.
fn go<P: WirePeer<Error = SessionError>>(session: &mut Session<Arc<Queues>, P, ()>) -> bool {
    while !session.peer().is_closed() {
        match session.poll(&mut rng()) {
            Ok(Progress::Waiting) => return false,
            Ok(_) => {}
            // The client was told.
            Err(_) => return true,
        }
    }
    true
}

impl Conversation {
    fn new(model: Arc<ServerModel>, is_hidden: bool) -> Self {
        let queues = Arc::new(Queues::default());
        let mode = match is_hidden {
            true => Mode::Hidden(Box::new(Session::new(Arc::clone(&queues), hidden::Server::new(model), ()))),
            false => Mode::Revealed(Session::new(Arc::clone(&queues), Server::new(model), ())),
        };
        Self { queues, mode, heard: Instant::now() }
    }

    /// Takes messages and returns the answers, and whether the conversation is over.
    fn step(&mut self, messages: Vec<Vec<u8>>) -> (Vec<u8>, bool) {
        self.queues.0.lock().unwrap_or_else(PoisonError::into_inner).0.extend(messages);
        let is_over = match &mut self.mode {
            Mode::Revealed(session) => go(session),
            Mode::Hidden(session) => go(session),
        };
        self.heard = Instant::now();
        (std::mem::take(&mut self.queues.0.lock().unwrap_or_else(PoisonError::into_inner).1), is_over)
    }
}

type Name = [u8; 16];

/// The conversations of a server that is asked step by step.
#[derive(Default)]
pub(crate) struct Conversations(Mutex<HashMap<Name, Arc<Mutex<Conversation>>>>);

impl Conversations {
    /// Takes a request and returns the reply. `allows` says which modes there are.
    pub(crate) fn step(
        &self,
        py: Python<'_>,
        request: &[u8],
        model: &Arc<ServerModel>,
        allows: impl Fn(bool) -> bool,
    ) -> PyResult<Vec<u8>> {
        let Some((&name, [mode @ (0 | 1), messages @ ..])) = request.split_first_chunk::<16>() else {
            return Err(InferenceError::new_err("expected a request of a gelu client, found other bytes"));
        };
        let messages = split(messages)?;
        let is_hidden = *mode == 1;
        if !allows(is_hidden) {
            let found = if is_hidden { "hidden" } else { "revealed" };
            return Err(InferenceError::new_err(format!(
                "the server does not offer its network {found}: connect(mode=...)"
            )));
        }
        let conversation = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|_, one| one.try_lock().map_or(true, |one| one.heard.elapsed() < SILENCE));
            if all.len() >= MOST && !all.contains_key(&name) {
                return Err(InferenceError::new_err(format!(
                    "{MOST} conversations are open: try again later"
                )));
            }
            let new = || Arc::new(Mutex::new(Conversation::new(Arc::clone(model), is_hidden)));
            Arc::clone(all.entry(name).or_insert_with(new))
        };
        let (reply, is_over) =
            detached(py, || conversation.lock().unwrap_or_else(PoisonError::into_inner).step(messages))?;
        if is_over {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        }
        Ok(reply)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
