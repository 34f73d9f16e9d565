//! Turns of private training: running one, its account, and checkpoints of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gelu_models::peer::{Counted, Part};
use gelu_models::train::private::{Change, Client, ClientState, Event, PrivateError, Server, ServerState};
use rand::CryptoRng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Observer, Progress, RunError, Session, Turns, Work, WorkKind};
use crate::transport::{InProcess, Transport};
use crate::{Error, files};

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
    total: PartTotals,
    corrections: PartTotals,
    other: PartTotals,
    /// Of the server, mod n^2 of the client's key.
    #[serde(default)]
    operations: u64,
}

impl TrainingAccount {
    /// Returns the totals of one kind of tensor, of all terms of a segment; none is that of messages without
    /// ciphertexts.
    pub fn of(&self, part: Option<Part>) -> PartTotals {
        let find = |map: &BTreeMap<u32, PartTotals>, segment| map.get(&segment).copied().unwrap_or_default();
        match part {
            Some(Part::Inputs { segment, .. }) => find(&self.inputs, segment),
            Some(Part::Sums { segment }) => find(&self.sums, segment),
            Some(Part::Errors { segment, .. }) => find(&self.errors, segment),
            Some(Part::Products { segment, .. }) => find(&self.products, segment),
            Some(Part::Total) => self.total,
            Some(Part::SumCorrections { .. } | Part::ProductCorrections { .. }) => self.corrections,
            Some(_) | None => self.other,
        }
    }

    fn of_mut(&mut self, part: Option<Part>) -> &mut PartTotals {
        match part {
            Some(Part::Inputs { segment, .. }) => self.inputs.entry(segment).or_default(),
            Some(Part::Sums { segment }) => self.sums.entry(segment).or_default(),
            Some(Part::Errors { segment, .. }) => self.errors.entry(segment).or_default(),
            Some(Part::Products { segment, .. }) => self.products.entry(segment).or_default(),
            Some(Part::Total) => &mut self.total,
            Some(Part::SumCorrections { .. } | Part::ProductCorrections { .. }) => &mut self.corrections,
            Some(_) | None => &mut self.other,
        }
    }

    fn sum<'a>(parts: impl Iterator<Item = &'a PartTotals>) -> PartTotals {
        parts.fold(PartTotals::default(), |sum, part| PartTotals {
            ciphertexts: sum.ciphertexts.saturating_add(part.ciphertexts),
            bytes: sum.bytes.saturating_add(part.bytes),
            making: sum.making + part.making,
            taking: sum.taking + part.taking,
        })
    }

    /// Returns what the client sent of activations, errors and corrections.
    pub fn up(&self) -> PartTotals {
        Self::sum(self.inputs.values().chain(self.errors.values()).chain([&self.corrections]))
    }

    /// Returns what the server sent of sums and products.
    pub fn down(&self) -> PartTotals {
        Self::sum(self.sums.values().chain(self.products.values()))
    }

    /// Returns what the client sent of corrections, of all segments.
    pub fn corrections(&self) -> PartTotals {
        self.corrections
    }

    /// Returns what the client sent of the sums of its steps, at the end of each turn.
    pub fn steps(&self) -> PartTotals {
        self.total
    }

    /// Returns all seconds of the server, without those of sums of steps.
    pub fn server_seconds(&self) -> f64 {
        self.down().making + self.up().taking + self.other.taking
    }

    /// Returns all seconds of the client, without those of sums of steps.
    pub fn client_seconds(&self) -> f64 {
        self.up().making + self.down().taking + self.other.making
    }

    /// Returns the seconds of both sides for sums of steps.
    pub fn steps_seconds(&self) -> f64 {
        self.steps().making + self.steps().taking
    }

    /// Returns the server's products and squarings mod n^2 on the client's ciphertexts, with those of checking them.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Returns the bytes from client to server.
    pub fn bytes_up(&self) -> u64 {
        self.up().bytes.saturating_add(self.steps().bytes)
    }

    /// Returns the bytes from server to client.
    pub fn bytes_down(&self) -> u64 {
        self.down().bytes.saturating_add(self.other.bytes)
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

/// Adds up what both sides of a turn do, kind by kind.
impl TrainingAccount {
    fn note(&mut self, work: &Work) {
        let Counted { computing, checking } = work.operations;
        self.operations = self.operations.saturating_add((computing + checking).total());
        let totals = self.of_mut(work.place.map(|place| place.part));
        match work.kind {
            WorkKind::Took => totals.taking += work.seconds,
            WorkKind::Made | WorkKind::Idle | WorkKind::Background => totals.making += work.seconds,
        }
        if work.kind == WorkKind::Made {
            let ciphertexts = work.place.map_or(0, |place| place.ciphertexts as u64);
            totals.bytes = totals.bytes.saturating_add(work.bytes as u64);
            totals.ciphertexts = totals.ciphertexts.saturating_add(ciphertexts);
        }
    }

    /// Adds another account.
    fn add(&mut self, other: &Self) {
        let maps = |account: &mut Self, other: &Self| {
            for (own, other) in [
                (&mut account.inputs, &other.inputs),
                (&mut account.sums, &other.sums),
                (&mut account.errors, &other.errors),
                (&mut account.products, &other.products),
            ] {
                for (segment, totals) in other {
                    let own = own.entry(*segment).or_default();
                    *own = Self::sum([&*own, totals].into_iter());
                }
            }
        };
        maps(self, other);
        self.corrections = Self::sum([&self.corrections, &other.corrections].into_iter());
        self.total = Self::sum([&self.total, &other.total].into_iter());
        self.other = Self::sum([&self.other, &other.other].into_iter());
        self.operations = self.operations.saturating_add(other.operations);
    }
}

impl<P> Observer<P> for TrainingAccount {
    fn did(&mut self, _: &P, work: &Work) {
        self.note(work);
    }
}

/// Sees one side only, and counts what the other has made when it arrives.
#[derive(Debug)]
struct OneSide<'a>(&'a mut TrainingAccount);

impl<P> Observer<P> for OneSide<'_> {
    fn did(&mut self, _: &P, work: &Work) {
        self.0.note(work);
        if work.kind == WorkKind::Took {
            let totals = self.0.of_mut(work.place.map(|place| place.part));
            let ciphertexts = work.place.map_or(0, |place| place.ciphertexts as u64);
            totals.bytes = totals.bytes.saturating_add(work.bytes as u64);
            totals.ciphertexts = totals.ciphertexts.saturating_add(ciphertexts);
        }
    }
}

/// Trains for one turn, or the rest of one that was interrupted, with a server at the other end of a transport. `between` is
/// asked before each iteration and before the sum of all steps goes out: who keeps the client's state then loses nothing
/// whichever side fails.
///
/// Returns whether the turn came to its end.
///
/// # Errors
/// [`RunError`], or what `between` gives. The client has given the turn up then: what was kept of it is what goes on.
pub fn take_turn<E: From<RunError<PrivateError>>>(
    transport: impl Transport,
    client: &mut Client,
    account: &mut TrainingAccount,
    rng: &mut dyn CryptoRng,
    mut between: impl FnMut(&Client, Event) -> Result<Go, E>,
) -> Result<bool, E> {
    let mut session = Session::new(transport, client, OneSide(account));
    session.ask(None, |client| client.join())?;
    while let Some(event) = session.step(rng)? {
        match event {
            Event::Ended => return Ok(true),
            Event::Ready => {}
        }
        if between(session.peer(), event)? == Go::Stop {
            return Ok(false);
        }
        session.ask(None, |client| client.proceed())?;
    }
    Err(RunError::Stalled.into())
}

/// Serves one turn, or the rest of one that was interrupted, to a client at the other end of a transport, and computes in
/// `turns` with other conversations of the process. The client hears of nothing that `keep` has not kept.
///
/// # Errors
/// [`RunError`], or what `keep` gives; the server goes on from what was kept.
pub fn serve_turn<E: From<RunError<PrivateError>>>(
    transport: impl Transport,
    server: &mut Server,
    (account, turns): (&mut TrainingAccount, Arc<Turns>),
    rng: &mut dyn CryptoRng,
    mut keep: impl FnMut(&Server, Change) -> Result<(), E>,
) -> Result<(), E> {
    let mut session = Session::new(transport, server, OneSide(account)).in_turns(turns);
    loop {
        let Some(change) = session.work(rng)? else { continue };
        keep(session.peer(), change)?;
        if change == Change::Ended {
            // The client is told.
            session.step(rng)?;
            return Ok(());
        }
    }
}

/// Runs one turn of a client, or the rest of one that was interrupted, with both sides in this process, joined by a pipe
/// of encoded messages. `between` is asked before each iteration.
///
/// Returns whether the turn came to its end. Neither side's error leaves anything of the turn behind.
///
/// # Errors
/// [`RunError`], or what `between` gives.
pub fn run_turn<E: From<RunError<PrivateError>>>(
    server: &mut Server,
    client: &mut Client,
    account: &mut TrainingAccount,
    [server_rng, client_rng]: [&mut dyn CryptoRng; 2],
    mut between: impl FnMut(&Server, &Client, &TrainingAccount) -> Result<Go, E>,
) -> Result<bool, E> {
    let (to_client, to_server) = InProcess::pair();
    let mut serving = Session::new(to_client, &mut *server, TrainingAccount::default());
    let mut joining = Session::new(to_server, &mut *client, TrainingAccount::default());
    let result = loop {
        let mut go = || -> Result<Option<bool>, E> {
            let join = |client: &mut &mut Client| client.join();
            if gelu_models::peer::Peer::is_closed(joining.peer()) {
                joining.ask(None, join)?;
            }
            let served = serving.poll(server_rng)?;
            match (joining.poll(client_rng)?, served) {
                (Progress::Event(Event::Ended), _) => Ok(Some(true)),
                (Progress::Event(Event::Ready), _) => {
                    let mut so_far = account.clone();
                    so_far.add(serving.observer());
                    so_far.add(joining.observer());
                    if between(serving.peer(), joining.peer(), &so_far)? == Go::Stop {
                        return Ok(Some(false));
                    }
                    joining.ask(None, |client| client.proceed())?;
                    Ok(None)
                }
                (Progress::Waiting, Progress::Waiting) => Err(RunError::Stalled.into()),
                _ => Ok(None),
            }
        };
        match go() {
            Ok(None) => {}
            Ok(Some(ended)) => break Ok(ended),
            Err(error) => break Err(error),
        }
    };
    account.add(serving.observer());
    account.add(joining.observer());
    drop((serving, joining));
    if result.is_err() {
        server.abandon();
        client.abandon();
    }
    result
}

/// A run that can be taken up again between any two of its iterations. It holds weights and clients' steps: a secret.
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

impl<S> Checkpoint<S> {
    /// Writes the checkpoint, whole or not at all, for its owner's eyes only.
    ///
    /// # Errors
    /// [`Error::Io`]; the one before is then as it was.
    pub fn write(&self, path: &Path) -> Result<(), Error>
    where
        S: Serialize,
    {
        let bytes = serde_json::to_vec(self)
            .map_err(|error| Error::format(path, "a checkpoint that can be written", error.to_string()))?;
        files::write_secret(path, &bytes)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::TooLarge`]; [`Error::Format`] when it is none.
    pub fn read(path: &Path) -> Result<Self, Error>
    where
        S: DeserializeOwned,
    {
        let bytes = files::read_limited(path, MAX_CHECKPOINT)?;
        serde_json::from_slice(&bytes)
            .map_err(|error| Error::format(path, "a checkpoint of private training", error.to_string()))
    }
}
