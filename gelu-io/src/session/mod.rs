//! Runs the two sides of private inference over a transport, and keeps account of each step.

mod account;

use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use gelu_models::infer::{AbortReason, Client, Event, Message, Outcome, Position, Server, SessionError};
use gelu_tensor::paillier::Randomizer;
use ndarray::ArrayView2;
use rand::CryptoRng;

use account::{Account, Amounts, Place, Work};
pub use account::{Seen, StepRecord};

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

/// Serves one session until the client ends it; the account of its steps comes back with how it ended.
pub fn serve(
    transport: &InProcess,
    mut server: Server,
    rng: &mut dyn CryptoRng,
) -> (Vec<StepRecord>, Result<(), RunError>) {
    let mut account = Account::new(Party::Server);
    let (tell, tables) = channel();
    let result = loop {
        match serve_one(transport, &mut server, rng, (&mut account, &tell)) {
            Ok(()) if server.is_closed() => break Ok(()),
            Ok(()) => {}
            Err(error) => {
                server.close();
                abort(transport, &error);
                break Err(error);
            }
        }
    };
    drop(tell);
    for (seconds, products) in tables {
        let made = Amounts { products, seconds, overlaps: true, ..Amounts::default() };
        account.add((Place::Opening(1), "meanwhile: tables".to_owned()), made);
    }
    (account.into_records(), result)
}

/// Takes one message, or makes one. What has come is taken first, so that the client need not wait for being heard.
fn serve_one(
    transport: &InProcess,
    server: &mut Server,
    rng: &mut dyn CryptoRng,
    (account, tables): (&mut Account, &Sender<(f64, u64)>),
) -> Result<(), RunError> {
    let mut work = Work::start(server);
    let bytes = match transport.try_receive()? {
        Some(bytes) => bytes,
        None => match server.next_message(rng)? {
            Some(message) => {
                let bytes = encode_message(&message)?;
                account.add(server_step(server, &message), work.finish(server).sent(&message, bytes.len()));
                transport.send(bytes)?;
                if matches!(message, Message::Accept { .. })
                    && let Some(preparation) = server.preparation()
                {
                    let tables = tables.clone();
                    rayon::spawn(move || {
                        let start = Instant::now();
                        let products = preparation.run().total();
                        // Nobody may be there any more.
                        let _ = tables.send((start.elapsed().as_secs_f64(), products));
                    });
                }
                return Ok(());
            }
            None => {
                let bytes = transport.receive()?;
                work = Work::start(server);
                bytes
            }
        },
    };
    let message = decode_message(&bytes, server.key(), Limits::default())?;
    let (received, step) = (message.ciphertext_count(), server_step(server, &message));
    let later = is_later(&message);
    let finish = matches!(message, Message::Finish { .. });
    server.handle(message, rng)?;
    if !finish {
        let mut done = work.finish(server);
        done.ciphertexts_in = received;
        done.overlaps |= later;
        account.add(step, done);
    }
    Ok(())
}

fn server_step(server: &Server, message: &Message) -> (Place, String) {
    match message.position() {
        Some(Position { round, step, .. }) => {
            let name = server.segment_name(step).unwrap_or("linear layer").to_owned();
            (Place::Batch { round, step }, name)
        }
        None => (Place::Opening(0), "check key, make plan".to_owned()),
    }
}

/// Whether it is a chunk after the first: then the other side makes or takes chunks of the same tensor meanwhile.
fn is_later(message: &Message) -> bool {
    matches!(message, Message::Chunk { index, .. } if *index > 0)
}

/// A client's end of a session, ready for batches.
#[derive(Debug)]
pub struct ClientSession<'a> {
    transport: &'a InProcess,
    client: Client,
    /// Batches started so far.
    started: u32,
    account: Account,
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
        let mut session = Self { transport, client, started: 0, account: Account::new(Party::Client) };
        let start = Instant::now();
        let bytes = encode_message(&hello)?;
        let sent = Amounts::since(start).sent(&hello, bytes.len());
        session.account.add((Place::Opening(0), "send the public key".to_owned()), sent);
        transport.send(bytes)?;
        session.guard(|session| {
            while session.client.plan().is_none() {
                let bytes = session.wait(rng)?;
                session.take(&bytes, Instant::now(), &mut |_| ())?;
            }
            Ok(())
        })?;
        Ok(session)
    }

    /// The state machine: its plan and its key.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The account of the steps so far.
    pub fn records(&self) -> Vec<StepRecord> {
        self.account.clone().into_records()
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
        let mut outcome = None;
        self.infer_all([images], rng, |done| outcome = Some(done))?;
        Ok(outcome.ok_or(Disconnected)?)
    }

    /// Sends batches of images `[images, elements]` through the network, of which one is encrypted while the server
    /// works on another; `done` gets what came out, in order.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn infer_all<'b>(
        &mut self,
        batches: impl IntoIterator<Item = ArrayView2<'b, f32>>,
        rng: &mut dyn CryptoRng,
        mut done: impl FnMut(Outcome),
    ) -> Result<(), RunError> {
        self.guard(|session| {
            let mut batches = batches.into_iter().zip(session.started..).peekable();
            loop {
                // A closed session says so when it is asked to start.
                while (session.client.may_start() || session.client.is_closed())
                    && let Some((images, round)) = batches.next()
                {
                    let start = Instant::now();
                    session.client.start(images)?;
                    session.started = round.wrapping_add(1);
                    session.note((round, 0), Amounts::since(start));
                }
                if session.client.batches_under_way() == 0 {
                    return Ok(());
                }
                let start = Instant::now();
                if let Some(bytes) = session.transport.try_receive()? {
                    session.take(&bytes, start, &mut done)?;
                } else if let Some(message) = session.client.next_message(rng)? {
                    session.send(&message, start)?;
                } else {
                    let bytes = session.wait(rng)?;
                    session.take(&bytes, Instant::now(), &mut done)?;
                }
            }
        })
    }

    /// Waits for the server's next message, and makes random factors of the next encryptions meanwhile.
    fn wait(&mut self, rng: &mut dyn CryptoRng) -> Result<Vec<u8>, Disconnected> {
        loop {
            if let Some(bytes) = self.transport.try_receive()? {
                return Ok(bytes);
            }
            let start = Instant::now();
            if !self.client.prepare(rng) {
                return self.transport.receive();
            }
            let made = Amounts { overlaps: true, ..Amounts::since(start) };
            self.account.add((Place::Opening(1), "meanwhile: random factors".to_owned()), made);
        }
    }

    /// Ends the session and hands over the account of its steps.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn finish(mut self) -> Result<Vec<StepRecord>, RunError> {
        let message = self.client.finish()?;
        self.transport.send(encode_message(&message)?)?;
        Ok(self.account.into_records())
    }

    /// Closes the session and tells the server when something goes wrong.
    fn guard<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, RunError>) -> Result<T, RunError> {
        work(self).inspect_err(|error| {
            self.client.close();
            abort(self.transport, error);
        })
    }

    fn take(&mut self, bytes: &[u8], start: Instant, done: &mut dyn FnMut(Outcome)) -> Result<(), RunError> {
        let message = decode_message(bytes, Some(self.client.key().public_key()), Limits::default())?;
        let (position, received) = (message.position(), message.ciphertext_count());
        let overlaps = is_later(&message) || self.client.batches_under_way() > 1;
        let event = self.client.handle(message)?;
        if let Some(Position { round, step, .. }) = position {
            let ciphertexts_in = received;
            self.note((round, step + 1), Amounts { ciphertexts_in, overlaps, ..Amounts::since(start) });
        }
        if let Some(Event::Done(outcome)) = event {
            done(*outcome);
        }
        Ok(())
    }

    fn send(&mut self, message: &Message, start: Instant) -> Result<(), RunError> {
        let bytes = encode_message(message)?;
        if let Some(Position { round, step, .. }) = message.position() {
            let overlaps = is_later(message) || self.client.batches_under_way() > 1;
            let sent = Amounts { overlaps, ..Amounts::since(start) }.sent(message, bytes.len());
            self.note((round, step), sent);
        }
        Ok(self.transport.send(bytes)?)
    }

    /// Adds to the client's step before segment `step`, or after the last.
    fn note(&mut self, (round, step): (u32, u32), amounts: Amounts) {
        let segments = self.client.plan().map_or(&[][..], |plan| &plan.segments);
        let mut name = "quantise, encrypt".to_owned();
        if let Some(before) = (step as usize).checked_sub(1).and_then(|before| segments.get(before)) {
            let mut parts = vec!["decrypt".to_owned()];
            parts.extend(before.activations.iter().map(ToString::to_string));
            parts.extend(((step as usize) < segments.len()).then(|| "encrypt".to_owned()));
            name = parts.join(", ");
        }
        self.account.add((Place::Batch { round, step }, name), amounts);
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
