//! Holding a turn: every change is kept before the client hears of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gelu_io::session::{RunError, TrainingAccount, Turns, serve_turn};
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_models::train::private::{Change, PrivateError, Server};
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use tracing::{info, warn};

use super::super::converse::Session;
use super::TrainingRun;
use crate::ServiceError;
use crate::ledger::Kind;

/// Why a turn was not held to its end.
enum Broken {
    Run(RunError<PrivateError>),
    Service(ServiceError),
}

impl From<RunError<PrivateError>> for Broken {
    fn from(error: RunError<PrivateError>) -> Self {
        Self::Run(error)
    }
}

impl TrainingRun {
    /// Holds a turn that was taken.
    pub(in crate::server) fn hold(
        &self,
        session: &Session,
        place: u32,
        (is_stopping, turns): (&AtomicBool, Arc<Turns>),
    ) -> (TrainingAccount, Result<(), ServiceError>) {
        let mut account = TrainingAccount::default();
        // Only the holder takes it.
        let Some(mut server) = self.standing().server.take() else {
            self.give_back();
            return (account, Err(ServiceError::Ended));
        };
        let granted = if server.client() == Some(place) { Kind::Resumed } else { Kind::Granted };
        let mut rng = ChaCha20Rng::from_rng(&mut rand::rng());
        let served =
            serve_turn(&session.link, &mut server, (&mut account, turns), &mut rng, |server, change| {
                if change == Change::Granted && server.client() != Some(place) {
                    let error = PrivateError::Grant("expected a client that says its own place");
                    return Err(Broken::Run(RunError::Peer(error)));
                }
                let kind = match change {
                    Change::Granted => granted,
                    Change::Iterated => Kind::Iterated,
                    Change::Ended => Kind::Ended,
                };
                self.keep(server, place, kind).map_err(Broken::Service)?;
                match change {
                    Change::Ended => Ok(()),
                    _ if is_stopping.load(Ordering::SeqCst) => Err(Broken::Service(ServiceError::Stopped)),
                    _ => Ok(()),
                }
            });
        let mut standing = self.standing();
        let ended = match served {
            Ok(()) => {
                if let Some(member) = standing.members.iter_mut().find(|of| of.enrolled.place == place) {
                    member.enrolled.turns += 1;
                    member.heard = Instant::now();
                }
                Ok(())
            }
            Err(Broken::Service(error)) => Err(error),
            // The client may come back, and find the turn where it was kept.
            Err(Broken::Run(RunError::Disconnected(_))) => {
                Err(session.link.why().unwrap_or(ServiceError::Ended))
            }
            // It broke the protocol, or gave up: so the turn is over, and comes to nothing.
            Err(Broken::Run(error)) => {
                server.abandon();
                let done = server.iterations_done();
                let kept = self.ledger.keep(&self.model, &server.state(), (place, Kind::GivenUp, done));
                let error = ServiceError::Stream { expected: "a turn of training", found: words(&error) };
                kept.and(Err(error))
            }
        };
        let is_over = matches!(ended, Ok(()) | Err(ServiceError::Stream { .. }));
        if is_over {
            standing.take_back(server);
            standing.next = (place + 1) % self.training.clients;
        } else if let Err(error) = self.load(&mut standing) {
            // It is tried again when somebody asks.
            warn!(model = %self.model, %error, "training cannot go on");
        }
        if matches!(ended, Err(ServiceError::Silent { .. })) {
            // It has had its time. Its turn is kept only until another begins.
            standing.next = (place + 1) % self.training.clients;
        }
        standing.holder = None;
        drop(standing);
        self.changed.notify_waiters();
        if let Err(error) = &ended {
            let said = match error {
                ServiceError::State { .. } => ServiceError::StateUnkept,
                error => error.clone(),
            };
            session.link.end(said);
        }
        (account, ended)
    }

    /// Keeps the state after a change; the client hears of it afterwards.
    fn keep(&self, server: &Server, place: u32, kind: Kind) -> Result<(), ServiceError> {
        self.ledger.keep(&self.model, &server.state(), (place, kind, server.iterations_done()))?;
        self.standing().progress = [server.iterations_done(), server.iterations()];
        if kind == Kind::Ended {
            let done = server.iterations_done();
            info!(model = %self.model, place, done, of = server.iterations(), "trained");
            self.write(server);
        }
        Ok(())
    }

    /// Writes the weights. They can be had from the state as well, so a turn is not lost where they cannot be written.
    fn write(&self, server: &Server) {
        let Some(path) = &self.training.weights else { return };
        let written = || -> Result<(), Box<dyn std::error::Error>> {
            let mut model = self.training.model.clone();
            model.load(&self.plan.weights(&server.coordinator().parameters)?)?;
            Ok(model.weights().write(path, Dtype::F32)?)
        };
        if let Err(error) = written() {
            warn!(model = %self.model, path = %path.display(), %error, "the weights cannot be written");
        }
    }
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", words(source)),
        None => error.to_string(),
    }
}
