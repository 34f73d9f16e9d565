//! Runs private training over encoded messages, keeps account of it, and keeps its state on disk.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::time::Instant;

use gelu_models::train::private::{
    Client, ClientState, Event, Message, Part, PrivateError, Server, ServerState,
};
use gelu_tensor::paillier::Randomizer;
use rand::CryptoRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::wire::{Limits, TrainingKeys, WireError, decode_training, encode_training};
use crate::{Error, files};

/// Why a turn ended before its end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnError {
    /// A message broke the protocol, or a computation failed.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// A message could not be decoded.
    #[error("a message could not be decoded: {0}")]
    Wire(#[from] WireError),
    /// The two sides wait for each other.
    #[error("neither side has anything to say, and the turn has not ended")]
    Silence,
}

/// What one kind of tensor cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartTotals {
    /// Ciphertexts that crossed.
    pub ciphertexts: u64,
    /// Bytes that crossed, frames included.
    pub bytes: u64,
    /// Seconds that the side which sends it took to make and encode it.
    pub making: f64,
    /// Seconds that the other side took to decode and check it.
    pub taking: f64,
}

/// What a run cost, kind by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingAccount {
    inputs: BTreeMap<u32, PartTotals>,
    sums: BTreeMap<u32, PartTotals>,
    errors: BTreeMap<u32, PartTotals>,
    products: BTreeMap<u32, PartTotals>,
    update: PartTotals,
    total: PartTotals,
    other: PartTotals,
}

impl TrainingAccount {
    /// The totals of one kind of tensor; none is that of messages without ciphertexts.
    pub fn of(&self, part: Option<Part>) -> PartTotals {
        let find = |map: &BTreeMap<u32, PartTotals>, segment| map.get(&segment).copied().unwrap_or_default();
        match part {
            Some(Part::Inputs(segment)) => find(&self.inputs, segment),
            Some(Part::Sums(segment)) => find(&self.sums, segment),
            Some(Part::Errors(segment)) => find(&self.errors, segment),
            Some(Part::Products(segment)) => find(&self.products, segment),
            Some(Part::Update) => self.update,
            Some(Part::Total) => self.total,
            None => self.other,
        }
    }

    fn of_mut(&mut self, part: Option<Part>) -> &mut PartTotals {
        match part {
            Some(Part::Inputs(segment)) => self.inputs.entry(segment).or_default(),
            Some(Part::Sums(segment)) => self.sums.entry(segment).or_default(),
            Some(Part::Errors(segment)) => self.errors.entry(segment).or_default(),
            Some(Part::Products(segment)) => self.products.entry(segment).or_default(),
            Some(Part::Update) => &mut self.update,
            Some(Part::Total) => &mut self.total,
            None => &mut self.other,
        }
    }

    fn sum<'a>(parts: impl Iterator<Item = &'a PartTotals>) -> PartTotals {
        parts.fold(PartTotals::default(), |sum, part| PartTotals {
            ciphertexts: sum.ciphertexts + part.ciphertexts,
            bytes: sum.bytes + part.bytes,
            making: sum.making + part.making,
            taking: sum.taking + part.taking,
        })
    }

    /// What the client sent of activations and errors.
    pub fn up(&self) -> PartTotals {
        Self::sum(self.inputs.values().chain(self.errors.values()))
    }

    /// What the server sent of sums and products.
    pub fn down(&self) -> PartTotals {
        Self::sum(self.sums.values().chain(self.products.values()))
    }

    /// What the client sent of steps and their sums.
    pub fn updates(&self) -> PartTotals {
        Self::sum([&self.update, &self.total].into_iter())
    }

    /// All seconds of the server, without those of updates.
    pub fn server_seconds(&self) -> f64 {
        self.down().making + self.up().taking + self.other.taking
    }

    /// All seconds of the client, without those of updates.
    pub fn client_seconds(&self) -> f64 {
        self.up().making + self.down().taking + self.other.making
    }

    /// Seconds of both sides for updates.
    pub fn update_seconds(&self) -> f64 {
        self.updates().making + self.updates().taking
    }

    /// Bytes from client to server.
    pub fn bytes_up(&self) -> u64 {
        self.up().bytes + self.updates().bytes
    }

    /// Bytes from server to client.
    pub fn bytes_down(&self) -> u64 {
        self.down().bytes + self.other.bytes
    }
}

/// Whether to go on, asked between two iterations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// With the next iteration.
    On,
    /// No further: keep both states, if need be.
    Stop,
}

/// Runs one turn of a client, or the rest of one that was interrupted, over encoded messages. `between` is asked
/// before each iteration.
///
/// Gives whether the turn came to its end. Neither side's error leaves anything of the turn behind.
///
/// # Errors
/// [`TurnError`], or what `between` gives.
pub fn run_turn<E: From<TurnError>>(
    server: &mut Server,
    client: &mut Client,
    account: &mut TrainingAccount,
    [server_rng, client_rng]: [&mut dyn CryptoRng; 2],
    mut between: impl FnMut(&Server, &Client, &TrainingAccount) -> Result<Go, E>,
) -> Result<bool, E> {
    let mut work = || -> Result<bool, E> {
        let start = Instant::now();
        let join = client.join().map_err(TurnError::from)?;
        let mut to_server = VecDeque::from([send(&join, account, start).map_err(TurnError::from)?]);
        let mut to_client = VecDeque::new();
        loop {
            let start = Instant::now();
            if let Some(bytes) = to_server.pop_front() {
                let own = server.key().public_key();
                let keys = TrainingKeys { client: server.client_key(), server: Some(own) };
                let message = decode_training(&bytes, keys, Limits::default()).map_err(TurnError::from)?;
                let part = message.part();
                account.of_mut(part).taking += start.elapsed().as_secs_f64();
                let start = Instant::now();
                let answers = server.handle(message, server_rng).map_err(TurnError::from)?;
                // Decrypting steps is taking them; computing on inputs is making sums.
                let made = answers.first().and_then(Message::part).or(part);
                let seconds = start.elapsed().as_secs_f64();
                match made {
                    Some(Part::Sums(_) | Part::Products(_)) => account.of_mut(made).making += seconds,
                    _ => account.of_mut(made).taking += seconds,
                }
                for answer in &answers {
                    to_client.push_back(send(answer, account, Instant::now()).map_err(TurnError::from)?);
                }
            } else if let Some(bytes) = to_client.pop_front() {
                let keys =
                    TrainingKeys { client: Some(client.key().public_key()), server: client.server_key() };
                let message = decode_training(&bytes, keys, Limits::default()).map_err(TurnError::from)?;
                let part = message.part();
                account.of_mut(part).taking += start.elapsed().as_secs_f64();
                let start = Instant::now();
                let event = client.handle(message).map_err(TurnError::from)?;
                account.of_mut(part).taking += start.elapsed().as_secs_f64();
                match event {
                    Some(Event::Ended) => return Ok(true),
                    Some(Event::Ready) if between(server, client, account)? == Go::Stop => return Ok(false),
                    Some(Event::Ready | Event::Taken) => {
                        let start = Instant::now();
                        let messages = client.proceed(client_rng).map_err(TurnError::from)?;
                        let made = messages.first().and_then(Message::part);
                        account.of_mut(made).making += start.elapsed().as_secs_f64();
                        for message in &messages {
                            to_server
                                .push_back(send(message, account, Instant::now()).map_err(TurnError::from)?);
                        }
                    }
                    None => {}
                }
            } else {
                return Err(TurnError::Silence.into());
            }
        }
    };
    let result = work();
    if result.is_err() {
        server.abandon();
        client.abandon();
    }
    result
}

/// Encodes a message and takes note of it.
fn send(message: &Message, account: &mut TrainingAccount, start: Instant) -> Result<Vec<u8>, WireError> {
    let bytes = encode_training(message)?;
    let totals = account.of_mut(message.part());
    totals.bytes += bytes.len() as u64;
    if let Message::Tensor { ciphertexts, .. } = message {
        totals.ciphertexts += ciphertexts.ciphertext_count() as u64;
    }
    totals.making += start.elapsed().as_secs_f64();
    Ok(bytes)
}

/// A run that can be taken up again between any two of its iterations. It holds masks and weights: a secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint<S> {
    /// What the caller needs to know of the run: settings, curves.
    pub run: S,
    /// The server.
    pub server: ServerState,
    /// The clients; none where one has not had a turn.
    pub clients: Vec<Option<ClientState>>,
    /// What it cost so far.
    pub account: TrainingAccount,
}

/// The longest checkpoint that is read.
const MAX_CHECKPOINT: u64 = 1 << 31;

/// Writes a checkpoint, whole or not at all, for its owner's eyes only.
///
/// # Errors
/// [`Error::Io`]; the one before is then as it was.
pub fn write_checkpoint<S: Serialize>(path: &Path, checkpoint: &Checkpoint<S>) -> Result<(), Error> {
    let bytes = serde_json::to_vec(checkpoint)
        .map_err(|error| Error::format(path, "a checkpoint that can be written", error.to_string()))?;
    files::write_secret(path, &bytes)
}

/// Reads a checkpoint.
///
/// # Errors
/// [`Error::Io`]; [`Error::TooLarge`]; [`Error::Format`] when it is none.
pub fn read_checkpoint<S: DeserializeOwned>(path: &Path) -> Result<Checkpoint<S>, Error> {
    let bytes = files::read_limited(path, MAX_CHECKPOINT)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::format(path, "a checkpoint of private training", error.to_string()))
}
