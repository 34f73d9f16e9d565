//! Runs the two sides of private inference over a transport, and keeps account of each step.

use std::time::{Duration, Instant};

use gelu_models::infer::{AbortReason, Client, Event, Message, Outcome, Server, SessionError};
use gelu_tensor::paillier::Randomizer;
use ndarray::ArrayView2;
use rand::CryptoRng;
use serde::Serialize;

use crate::report::Party;
use crate::transport::{Disconnected, InProcess};
use crate::wire::{Limits, WireError, decode_message, encode_message};

/// Why a session ended before its end.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A message broke the protocol, or a computation failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A message could not be decoded.
    #[error("a message could not be decoded: {0}")]
    Wire(#[from] WireError),
    /// The other side is gone.
    #[error(transparent)]
    Disconnected(#[from] Disconnected),
}

impl RunError {
    /// What the peer is told; `None` where it knows, or is gone.
    fn reason(&self) -> Option<AbortReason> {
        match self {
            Self::Session(SessionError::Aborted(_)) | Self::Disconnected(_) => None,
            Self::Session(error) => Some(error.reason()),
            Self::Wire(WireError::Content(_) | WireError::ForeignKey { .. }) => Some(AbortReason::BadTensor),
            Self::Wire(_) => Some(AbortReason::Malformed),
        }
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
}

/// The account of one step of one party.
#[derive(Clone, Debug, Serialize)]
pub struct StepRecord {
    /// What was done.
    pub step: String,
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
    /// Time from the message that came to the message that went, decoding and encoding included.
    pub seconds: f64,
    /// Whether it was done besides, while the other party worked on its step.
    pub overlaps: bool,
}

/// Serves one session until the client ends it; the account of its steps comes back with how it ended.
pub fn serve(
    transport: &InProcess,
    mut server: Server,
    rng: &mut dyn CryptoRng,
) -> (Vec<StepRecord>, Result<(), RunError>) {
    let mut records = vec![];
    let result = loop {
        match serve_one(transport, &mut server, rng, &mut records) {
            Ok(Served::More) => {}
            Ok(Served::Finished) => break Ok(()),
            Err(error) => {
                server.close();
                abort(transport, &error);
                break Err(error);
            }
        }
    };
    (records, result)
}

enum Served {
    More,
    Finished,
}

fn serve_one(
    transport: &InProcess,
    server: &mut Server,
    rng: &mut dyn CryptoRng,
    records: &mut Vec<StepRecord>,
) -> Result<Served, RunError> {
    let bytes = transport.receive()?;
    let start = Instant::now();
    let operations = |server: &Server| server.key().map_or(0, |key| key.ring().operations().total());
    let before = operations(server);
    let message = decode_message(&bytes, server.key(), Limits::default())?;
    let ciphertexts_in = ciphertexts(&message);
    let Some(reply) = server.handle(message, rng)? else { return Ok(Served::Finished) };
    let bytes = encode_message(&reply)?;
    let name = match &reply {
        Message::Sums { position, .. } => {
            server.segment_name(position.step).unwrap_or("linear layer").to_owned()
        }
        _ => "check key, make plan".to_owned(),
    };
    records.push(StepRecord {
        step: name,
        party: Party::Server,
        saw: Seen::Ciphertext,
        ciphertexts_in,
        ciphertexts_out: ciphertexts(&reply),
        bytes_out: bytes.len(),
        products: operations(server) - before,
        seconds: start.elapsed().as_secs_f64(),
        overlaps: false,
    });
    transport.send(bytes)?;
    if matches!(reply, Message::Accept { .. }) {
        // The client encrypts meanwhile.
        let (start, before) = (Instant::now(), operations(server));
        server.prepare();
        records.push(StepRecord {
            step: "meanwhile: tables".to_owned(),
            party: Party::Server,
            saw: Seen::Ciphertext,
            ciphertexts_in: 0,
            ciphertexts_out: 0,
            bytes_out: 0,
            products: operations(server) - before,
            seconds: start.elapsed().as_secs_f64(),
            overlaps: true,
        });
    }
    Ok(Served::More)
}

/// A client's end of a session, ready for batches.
#[derive(Debug)]
pub struct ClientSession<'a> {
    transport: &'a InProcess,
    client: Client,
    records: Vec<StepRecord>,
}

impl<'a> ClientSession<'a> {
    /// Sends the hello and waits for the server's plan.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(
        transport: &'a InProcess,
        (client, hello): (Client, Message),
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, RunError> {
        let mut session = Self { transport, client, records: vec![] };
        let start = Instant::now();
        let bytes = encode_message(&hello)?;
        session.record("send the public key", 0, (0, bytes.len()), start.elapsed());
        transport.send(bytes)?;
        session.guard(|session| {
            let reply = session.receive()?.0;
            session.client.handle(reply, rng)?;
            Ok(())
        })?;
        Ok(session)
    }

    /// The state machine: its plan and its key.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The account of the steps so far.
    pub fn records(&self) -> &[StepRecord] {
        &self.records
    }

    /// Sends one batch of images `[images, elements]` through the network.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn infer(
        &mut self,
        images: ArrayView2<'_, f32>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Outcome, RunError> {
        self.guard(|session| {
            let start = Instant::now();
            let message = session.client.start(images, rng)?;
            session.send("quantise, encrypt", 0, &message, start)?;
            loop {
                let (message, start) = session.receive()?;
                let received = ciphertexts(&message);
                let step = match &message {
                    Message::Sums { position, .. } => position.step as usize,
                    _ => 0,
                };
                let segments = session.client.plan().map(|plan| plan.segments.clone()).unwrap_or_default();
                let activations = segments.get(step).map_or(String::new(), |segment| {
                    let names: Vec<String> = segment.activations.iter().map(ToString::to_string).collect();
                    names.join(", ")
                });
                match session.client.handle(message, rng)? {
                    Event::Send(message) => {
                        session.send(
                            &format!("decrypt, {activations}, encrypt"),
                            received,
                            &message,
                            start,
                        )?;
                    }
                    Event::Done(outcome) => {
                        let name = format!("decrypt, {activations}");
                        session.record(name.trim_end_matches(", "), received, (0, 0), start.elapsed());
                        return Ok(*outcome);
                    }
                    Event::Ready => {}
                }
            }
        })
    }

    /// Ends the session and hands over the account of its steps.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn finish(mut self) -> Result<Vec<StepRecord>, RunError> {
        let message = self.client.finish()?;
        self.transport.send(encode_message(&message)?)?;
        Ok(self.records)
    }

    /// Closes the session and tells the server when something goes wrong.
    fn guard<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, RunError>) -> Result<T, RunError> {
        work(self).inspect_err(|error| {
            self.client.close();
            abort(self.transport, error);
        })
    }

    /// The next message, and when it had come.
    fn receive(&self) -> Result<(Message, Instant), RunError> {
        let bytes = self.transport.receive()?;
        let start = Instant::now();
        let key = self.client.key().public_key();
        Ok((decode_message(&bytes, Some(key), Limits::default())?, start))
    }

    fn send(
        &mut self,
        step: &str,
        received: usize,
        message: &Message,
        start: Instant,
    ) -> Result<(), RunError> {
        let bytes = encode_message(message)?;
        self.record(step, received, (ciphertexts(message), bytes.len()), start.elapsed());
        Ok(self.transport.send(bytes)?)
    }

    fn record(&mut self, step: &str, ciphertexts_in: usize, sent: (usize, usize), time: Duration) {
        let (ciphertexts_out, bytes_out) = sent;
        self.records.push(StepRecord {
            step: step.to_owned(),
            party: Party::Client,
            saw: Seen::Plaintext,
            ciphertexts_in,
            ciphertexts_out,
            bytes_out,
            products: 0,
            seconds: time.as_secs_f64(),
            overlaps: false,
        });
    }
}

fn abort(transport: &InProcess, error: &RunError) {
    if let Some(reason) = error.reason()
        && let Ok(bytes) = encode_message(&Message::Abort { reason })
    {
        // The peer may be gone already; then there is nobody to tell.
        let _ = transport.send(bytes);
    }
}

fn ciphertexts(message: &Message) -> usize {
    match message {
        Message::Activations { tensor, .. } | Message::Sums { tensor, .. } => tensor.ciphertext_count(),
        _ => 0,
    }
}
