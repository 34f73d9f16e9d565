//! The account of a session of private inference, step by step.

use std::collections::BTreeMap;
use std::fmt;

use gelu_models::infer::{Client, Server};
use gelu_models::peer::{Part, Place};
use gelu_models::plan::Plan;
use serde::Serialize;

use super::{Observer, Work, WorkKind};

/// The two sides of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Who has the data and the key.
    Client,
    /// Who has the model.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// What a party has before its eyes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// Values of its own data.
    Plaintext,
    /// Ciphertexts that it cannot read.
    Ciphertext,
    /// Numbers that masks hide from it.
    Masked,
}

/// The parts of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Keys, plans, and what is made once for a session.
    Opening,
    /// What is done before there is an image, where the model is hidden.
    Ahead,
    /// What is done with images.
    Online,
}

/// The account of one step of one party.
#[derive(Clone, Debug, Serialize)]
pub struct StepRecord {
    /// What was done.
    pub step: String,
    /// In which part of the session.
    pub phase: Phase,
    /// For which batch of the session, from 0; none where it was for all. Where the model is hidden, the number of the
    /// preparation ahead, and that of the query online.
    pub batch: Option<u32>,
    /// Who did it.
    pub party: Role,
    /// What it saw.
    pub saw: Seen,
    /// Ciphertexts that it received.
    pub ciphertexts_in: usize,
    /// Ciphertexts that it sent.
    pub ciphertexts_out: usize,
    /// Bytes that it received.
    pub bytes_in: usize,
    /// Bytes that it sent.
    pub bytes_out: usize,
    /// Operations mod n^2 that the plan states, or those of tables for the client's key, which are made once (the client's
    /// own work is mod p^2 and q^2 and not counted).
    pub products: u64,
    /// Operations mod n^2 of decoding and checking ciphertexts.
    pub checks: u64,
    /// Time that the party was busy with it: decoding, computing and encoding, without waiting. A party does one thing
    /// at a time, so that its steps add up to the time that it was busy in all.
    pub seconds: f64,
    /// Whether the other party could be busy meanwhile, so that the two's seconds can add up to more than the clock's:
    /// with another chunk of the same tensor, or another batch.
    pub overlaps: bool,
}

/// Where in a session a step of one party belongs; in the order in which steps are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Slot {
    /// Before the first batch.
    Opening(u32),
    /// Of a preparation: for each segment its masks, and then its circuits.
    #[cfg(feature = "hidden")]
    Ahead { round: u32, segment: u32, is_circuits: bool },
    /// Of a query with a hidden model the segment.
    #[cfg(feature = "hidden")]
    Query { query: u32, segment: u32 },
    /// Of a batch: on the server the segment, at the client the steps before that segment, or after the last.
    Batch { round: u32, step: u32 },
}

impl Slot {
    /// What a party sees in it.
    fn seen(self, role: Role) -> Seen {
        match (self, role) {
            #[cfg(feature = "hidden")]
            (Self::Ahead { is_circuits: false, .. }, Role::Server) => Seen::Ciphertext,
            #[cfg(feature = "hidden")]
            (Self::Ahead { .. } | Self::Query { .. }, _) => Seen::Masked,
            (_, Role::Server) => Seen::Ciphertext,
            (_, Role::Client) => Seen::Plaintext,
        }
    }

    fn phase(self) -> (Phase, Option<u32>) {
        match self {
            Self::Opening(_) => (Phase::Opening, None),
            #[cfg(feature = "hidden")]
            Self::Ahead { round, .. } => (Phase::Ahead, Some(round)),
            #[cfg(feature = "hidden")]
            Self::Query { query, .. } => (Phase::Online, Some(query)),
            Self::Batch { round, .. } => (Phase::Online, Some(round)),
        }
    }
}

/// The account of one party's steps.
#[derive(Clone, Debug)]
pub struct Account {
    role: Role,
    records: BTreeMap<Slot, StepRecord>,
}

impl Account {
    /// Returns an empty account of one party.
    pub fn new(role: Role) -> Self {
        Self { role, records: BTreeMap::new() }
    }

    /// Returns the steps in the order of batches and segments.
    pub(crate) fn into_records(self) -> Vec<StepRecord> {
        self.records.into_values().collect()
    }

    /// Adds to a step, under that name if it is the first time.
    pub(super) fn add(&mut self, (slot, step): (Slot, String), work: &Work, overlaps: bool) {
        let saw = slot.seen(self.role);
        let (phase, batch) = slot.phase();
        let record = self.records.entry(slot).or_insert_with(|| StepRecord {
            step,
            phase,
            batch,
            party: self.role,
            saw,
            ciphertexts_in: 0,
            ciphertexts_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            products: 0,
            checks: 0,
            seconds: 0.0,
            overlaps: false,
        });
        let ciphertexts = work.place.map_or(0, |place| place.ciphertexts);
        match work.kind {
            WorkKind::Took => {
                record.ciphertexts_in += ciphertexts;
                record.bytes_in += work.bytes;
            }
            WorkKind::Made => {
                record.ciphertexts_out += ciphertexts;
                record.bytes_out += work.bytes;
            }
            WorkKind::Idle | WorkKind::Background => {}
        }
        record.products += work.operations.computing.total();
        record.checks += work.operations.checking.total();
        record.seconds += work.seconds;
        record.overlaps |= overlaps;
    }
}

/// Whether it is a chunk after the first: then the other side makes or takes chunks of the same tensor meanwhile.
fn is_later(work: &Work) -> bool {
    work.place.is_some_and(|place| place.index > 0)
}

impl Observer<Server> for Account {
    fn did(&mut self, server: &Server, work: &Work) {
        let plan = server.program().map(|program| program.plan());
        let (slot, name, overlaps) = match (work.kind, work.place) {
            (WorkKind::Background | WorkKind::Idle, _) => {
                (Slot::Opening(1), "meanwhile: tables".to_owned(), true)
            }
            (_, Some(Place { round, part, .. })) => {
                let (Part::Inputs { segment, .. } | Part::Sums { segment }) = part else { return };
                let name = plan.and_then(|plan| plan.segments().get(segment as usize));
                let name = name.map_or("linear layer", |segment| &segment.name);
                let overlaps = is_later(work) || server.batches_in_flight() > 1;
                (Slot::Batch { round, step: segment }, name.to_owned(), overlaps)
            }
            // The client's farewell costs nothing.
            (WorkKind::Took, None) if plan.is_none() => return,
            (_, None) => (Slot::Opening(0), "check key, make plan".to_owned(), false),
        };
        self.add((slot, name), work, overlaps);
    }
}

impl Observer<Client> for Account {
    fn did(&mut self, client: &Client, work: &Work) {
        let plan = client.plan();
        let (slot, name, overlaps) = match (work.kind, work.place) {
            (WorkKind::Background | WorkKind::Idle, _) => {
                (Slot::Opening(1), "meanwhile: random factors".to_owned(), true)
            }
            (_, Some(Place { round, part, .. })) => {
                let step = match part {
                    Part::Inputs { segment, .. } => segment,
                    Part::Sums { segment } => segment + 1,
                    _ => return,
                };
                let overlaps = is_later(work) || client.batches_in_flight() > 1;
                let name = plan.map_or(String::new(), |plan| client_step(plan, step as usize));
                (Slot::Batch { round, step }, name, overlaps)
            }
            (WorkKind::Made, None) if plan.is_none() => {
                (Slot::Opening(0), "send the public key".to_owned(), false)
            }
            // Making the plan, and the farewell.
            (_, None) => (Slot::Opening(0), "send the public key".to_owned(), false),
        };
        self.add((slot, name), work, overlaps);
    }
}

/// What the client does before a segment, or after the last.
fn client_step(plan: &Plan, step: usize) -> String {
    let before = step.checked_sub(1);
    let mut parts = vec![if before.is_some() { "decrypt" } else { "quantize" }.to_owned()];
    parts.extend(plan.client_steps(before));
    parts.extend((step < plan.segments().len()).then(|| "encrypt".to_owned()));
    parts.join(", ")
}
