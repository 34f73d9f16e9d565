use std::collections::BTreeMap;
use std::time::Instant;

use gelu_models::infer::{Message, Server};
use serde::Serialize;

use crate::report::Party;

/// What a party has before its eyes in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// Values of its own data.
    Plaintext,
    /// Ciphertexts that it cannot read.
    Ciphertext,
}

/// The account of one step of one party.
#[derive(Clone, Debug, Serialize)]
pub struct StepRecord {
    /// What was done.
    pub step: String,
    /// For which batch of the session, from 0; none where it was for all.
    pub batch: Option<u32>,
    /// Who did it.
    pub party: Party,
    /// What it saw.
    pub saw: Seen,
    /// Ciphertexts that it received.
    pub ciphertexts_in: usize,
    /// Ciphertexts that it sent.
    pub ciphertexts_out: usize,
    /// Bytes that it sent.
    pub bytes_out: usize,
    /// Operations mod n^2 (the client's own work is mod p^2 and q^2 and not counted).
    pub products: u64,
    /// Time that the party was busy with it: decoding, computing and encoding, without waiting. A party does one thing
    /// at a time, so that its steps add up to the time that it was busy in all.
    pub seconds: f64,
    /// Whether the other party could be busy meanwhile, so that the two's seconds can add up to more than the clock's:
    /// with another chunk of the same tensor, or another batch.
    pub overlaps: bool,
}

/// Where in a session a step of one party belongs; in the order in which steps are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Before the first batch.
    Opening(u32),
    /// Of a batch: on the server the segment, at the client the step before that segment, or after the last.
    Batch { round: u32, step: u32 },
}

/// What is added to a step.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Amounts {
    pub(super) ciphertexts_in: usize,
    pub(super) ciphertexts_out: usize,
    pub(super) bytes_out: usize,
    pub(super) products: u64,
    pub(super) seconds: f64,
    pub(super) overlaps: bool,
}

impl Amounts {
    /// The time since `start`.
    pub(super) fn since(start: Instant) -> Self {
        Self { seconds: start.elapsed().as_secs_f64(), ..Self::default() }
    }

    /// The same and a message of `bytes` bytes.
    pub(super) fn sent(self, message: &Message, bytes: usize) -> Self {
        Self { ciphertexts_out: message.ciphertext_count(), bytes_out: bytes, ..self }
    }
}

/// A stretch of the server's work, from when it began.
pub(super) struct Work {
    start: Instant,
    operations: u64,
    under_way: usize,
}

impl Work {
    pub(super) fn start(server: &Server) -> Self {
        let under_way = server.batches_under_way();
        Self { start: Instant::now(), operations: operations(server), under_way }
    }

    pub(super) fn finish(self, server: &Server) -> Amounts {
        let products = operations(server) - self.operations;
        Amounts { products, overlaps: self.under_way > 1, ..Amounts::since(self.start) }
    }
}

fn operations(server: &Server) -> u64 {
    server.key().map_or(0, |key| key.ring().operations().total())
}

/// The account of one party's steps.
#[derive(Clone, Debug)]
pub(super) struct Account {
    party: Party,
    records: BTreeMap<Place, StepRecord>,
}

impl Account {
    pub(super) fn new(party: Party) -> Self {
        Self { party, records: BTreeMap::new() }
    }

    /// Adds to a step, under that name if it is the first time.
    pub(super) fn add(&mut self, (place, step): (Place, String), amounts: Amounts) {
        let saw = if self.party == Party::Server { Seen::Ciphertext } else { Seen::Plaintext };
        let batch = match place {
            Place::Opening(_) => None,
            Place::Batch { round, .. } => Some(round),
        };
        let record = self.records.entry(place).or_insert_with(|| StepRecord {
            step,
            batch,
            party: self.party,
            saw,
            ciphertexts_in: 0,
            ciphertexts_out: 0,
            bytes_out: 0,
            products: 0,
            seconds: 0.0,
            overlaps: false,
        });
        record.ciphertexts_in += amounts.ciphertexts_in;
        record.ciphertexts_out += amounts.ciphertexts_out;
        record.bytes_out += amounts.bytes_out;
        record.products += amounts.products;
        record.seconds += amounts.seconds;
        record.overlaps |= amounts.overlaps;
    }

    /// The steps in the order of batches and segments.
    pub(super) fn into_records(self) -> Vec<StepRecord> {
        self.records.into_values().collect()
    }
}
