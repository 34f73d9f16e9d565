//! Sessions of private inference that hide the model, and their account.

use std::sync::Arc;

use gelu_models::infer::hidden::{Answer, Client, Event, Server};
use gelu_models::peer::{Part, Place};
use gelu_models::plan::Plan;
use ndarray::{ArrayView, Dimension};
use rand::CryptoRng;

use super::account::Slot;
use super::{Account, Observer, Role, RunError, Session, StepRecord, Work, WorkKind};
use crate::transport::{Disconnected, Transport};

/// What one side calls its steps: with the key's tables or random factors, before the plan, on a segment's masks, with its
/// circuits, and with an image.
struct Names {
    meanwhile: &'static str,
    opening: &'static str,
    masks: &'static str,
    circuits: &'static str,
    online: &'static str,
}

impl Account {
    /// Adds what was done of a session that hides the model, or before there was a plan.
    fn add_hidden(&mut self, plan: Option<&Arc<Plan>>, work: &Work, names: &Names) {
        if matches!(work.kind, WorkKind::Background | WorkKind::Idle) {
            return self.add((Slot::Opening(1), names.meanwhile.to_owned()), work, true);
        }
        let (Some(Place { round, part, .. }), Some(plan)) = (work.place, plan) else {
            return self.add((Slot::Opening(0), names.opening.to_owned()), work, false);
        };
        let preparation = |query: u32| query / plan.description().batch.max(1) as u32;
        let (segment, slot, what) = match part {
            Part::Inputs { segment, .. } | Part::Sums { segment } => {
                (segment, Slot::Ahead { round, segment, is_circuits: false }, names.masks)
            }
            Part::Choices { segment } | Part::Tables { segment } => {
                let round = preparation(round);
                (segment, Slot::Ahead { round, segment, is_circuits: true }, names.circuits)
            }
            Part::Shares { segment } | Part::Labels { segment } => {
                (segment, Slot::Query { query: round, segment }, names.online)
            }
            _ => return,
        };
        let name = plan.segments().get(segment as usize).map_or("", |segment| &segment.name);
        // Ahead both sides are busy at once.
        self.add((slot, format!("{what} {name}")), work, matches!(slot, Slot::Ahead { .. }));
    }
}

impl Observer<Client> for Account {
    fn did(&mut self, client: &Client, work: &Work) {
        let names = Names {
            meanwhile: "meanwhile: random factors",
            opening: "send the public key",
            masks: "encrypt masks, decrypt shares:",
            circuits: "ask for labels, take circuits:",
            online: "evaluate",
        };
        self.add_hidden(client.plan(), work, &names);
    }
}

impl Observer<Server> for Account {
    fn did(&mut self, server: &Server, work: &Work) {
        let names = Names {
            meanwhile: "meanwhile: tables",
            opening: "check key, make plan",
            masks: "multiply masks:",
            circuits: "garble",
            online: "multiply shares:",
        };
        self.add_hidden(server.program().map(|program| program.plan()), work, &names);
    }
}

/// A client's end of a session, ready for images.
#[derive(Debug)]
pub struct HiddenSession<T: Transport> {
    session: Session<T, Client, Account>,
}

impl<T: Transport> HiddenSession<T> {
    /// Sends the hello and waits for the server's plan.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn open(transport: T, client: Client, rng: &mut dyn CryptoRng) -> Result<Self, RunError> {
        let mut session = Session::new(transport, client, Account::new(Role::Client));
        match session.step(rng)? {
            Some(_) => Ok(Self { session }),
            None => Err(Disconnected.into()),
        }
    }

    /// Returns the state machine: its plan, its key, and what is in stock.
    pub fn client(&self) -> &Client {
        self.session.peer()
    }

    /// Prepares as many queries as are prepared together.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn prepare(&mut self, rng: &mut dyn CryptoRng) -> Result<(), RunError> {
        self.session.ask(None, Client::prepare)?;
        while self.client().is_preparing() {
            self.session.step(rng)?.ok_or(Disconnected)?;
        }
        Ok(())
    }

    /// Goes on preparing by a unit of work, or by a message that it waits for. Returns whether there was anything to do: `false`
    /// where as much is in stock as may be.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub(crate) fn prepare_some(&mut self, rng: &mut dyn CryptoRng) -> Result<bool, RunError> {
        if !self.client().is_preparing() {
            if !self.client().has_room() {
                return Ok(false);
            }
            self.session.ask(None, Client::prepare)?;
        }
        self.session.work(rng)?;
        Ok(true)
    }

    /// Sends images, `[images, elements]` or of the model's input shape, through the network, with what is in stock; where that
    /// is not enough, more is prepared.
    ///
    /// # Errors
    /// [`RunError`]; the session is over then.
    pub fn infer<D: Dimension>(
        &mut self,
        images: ArrayView<'_, f32, D>,
        rng: &mut dyn CryptoRng,
    ) -> Result<Answer, RunError> {
        let place = Place { round: 0, part: Part::Shares { segment: 0 }, index: 0, ciphertexts: 0 };
        self.session.ask(Some(place), |client| client.start(images))?;
        loop {
            if let Event::Done(answer) = self.session.step(rng)?.ok_or(Disconnected)? {
                return Ok(answer);
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

#[cfg(test)]
mod tests;
