//! Sessions of private inference.

use std::sync::Arc;

use gelu_models::infer::{Client, Event, SessionError};
use gelu_models::peer::{Part, Peer, Place};
use gelu_models::plan::Outcome;
use ndarray::{ArrayView, Dimension};
use rand::CryptoRng;

use super::{Account, Observer, Role, RunError, Session, StepRecord, Turns};
use crate::transport::{Disconnected, Transport};
use gelu_wire::WirePeer;

/// Serves one session, whichever mode the server is of, until the client ends it; the account of its steps comes back with how
/// it ended.
pub fn serve<P>(
    transport: impl Transport,
    server: P,
    rng: &mut dyn CryptoRng,
) -> (Vec<StepRecord>, Result<(), RunError>)
where
    P: WirePeer<Error = SessionError>,
    Account: Observer<P>,
{
    serve_session(Session::new(transport, server, Account::new(Role::Server)), rng)
}

/// Serves one session of many in a process, which compute one after the other in the order in which they have something
/// to compute.
pub fn serve_in_turns<P>(
    transport: impl Transport,
    server: P,
    turns: Arc<Turns>,
    rng: &mut dyn CryptoRng,
) -> (Vec<StepRecord>, Result<(), RunError>)
where
    P: WirePeer<Error = SessionError>,
    Account: Observer<P>,
{
    serve_session(Session::new(transport, server, Account::new(Role::Server)).in_turns(turns), rng)
}

fn serve_session<P>(
    mut session: Session<impl Transport, P, Account>,
    rng: &mut dyn CryptoRng,
) -> (Vec<StepRecord>, Result<(), RunError>)
where
    P: WirePeer<Error = SessionError>,
    Account: Observer<P>,
{
    let served = session.step(rng).map(|_| ());
    let (_, account) = session.into_parts();
    (account.into_records(), served)
}

/// A client's end of a session, ready for batches.
#[derive(Debug)]
pub struct ClientSession<T: Transport> {
    session: Session<T, Client, Account>,
    /// Batches started so far.
    started: u32,
}

impl<T: Transport> ClientSession<T> {
    /// Sends the hello and waits for the server's plan.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(transport: T, client: Client, rng: &mut dyn CryptoRng) -> Result<Self, RunError> {
        let mut session = Session::new(transport, client, Account::new(Role::Client));
        match session.step(rng)? {
            Some(_) => Ok(Self { session, started: 0 }),
            None => Err(Disconnected.into()),
        }
    }

    /// Returns the state machine: its plan and its key.
    pub fn client(&self) -> &Client {
        self.session.peer()
    }

    /// Sends one batch of images, `[images, elements]` or of the model's input shape, through the network.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn infer<D: Dimension>(
        &mut self,
        images: ArrayView<'_, f32, D>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Outcome, RunError> {
        let mut outcome = None;
        self.infer_all([images], rng, |done| outcome = Some(done))?;
        Ok(outcome.ok_or(Disconnected)?)
    }

    /// Sends batches of images through the network, of which one is encrypted while the server
    /// works on another; `done` gets what came out, in order.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn infer_all<'b, D: Dimension>(
        &mut self,
        batches: impl IntoIterator<Item = ArrayView<'b, f32, D>>,
        rng: &mut dyn CryptoRng,
        mut done: impl FnMut(Outcome),
    ) -> Result<(), RunError> {
        let mut batches = batches.into_iter().peekable();
        loop {
            // A closed session says so when it is asked to start.
            while (self.client().can_start() || self.client().is_closed())
                && let Some(images) = batches.next()
            {
                let part = Part::Inputs { segment: 0, term: 0 };
                let place = Place { round: self.started, part, index: 0, ciphertexts: 0 };
                self.session.ask(Some(place), |client| client.start(images))?;
                self.started = self.started.wrapping_add(1);
            }
            if self.client().batches_in_flight() == 0 {
                return Ok(());
            }
            match self.session.step(rng)? {
                Some(Event::Done(outcome)) => done(*outcome),
                Some(Event::Ready) => {}
                None => return Err(Disconnected.into()),
            }
        }
    }

    /// Ends the session and hands over the account of its steps.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn finish(mut self, rng: &mut dyn CryptoRng) -> Result<Vec<StepRecord>, RunError> {
        self.end(rng)?;
        Ok(self.into_steps())
    }

    /// Ends the session: nothing can be sent through it any more.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn end(&mut self, rng: &mut dyn CryptoRng) -> Result<(), RunError> {
        self.session.ask(None, Client::finish)?;
        self.session.step(rng)?;
        Ok(())
    }

    /// Returns the account of its steps, also where it broke off.
    pub fn into_steps(self) -> Vec<StepRecord> {
        self.session.into_parts().1.into_records()
    }
}
