//! Who takes part in a run, and whose turn it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Status;
use tracing::{info, warn};

use super::super::converse::Session;
use super::{Member, Standing, TrainingRun};
use crate::ledger::Enrolled;
use crate::proto::await_turn_response::State;
use crate::{Refusal, ServiceError, proto};

/// How long a client's question for its turn is kept open, at most.
const POLL: Duration = Duration::from_secs(15);

impl TrainingRun {
    /// Answers a client that asks for its turn, when it has one or after a while.
    pub(in crate::server) async fn await_turn(
        self: &Arc<Self>,
        client: String,
        request: proto::AwaitTurnRequest,
        absence: Duration,
    ) -> Result<proto::AwaitTurnResponse, Status> {
        let since = Instant::now();
        loop {
            // Before the look, lest something change between that and the wait.
            let changed = self.changed.notified();
            let (run, client, request) = (Arc::clone(self), client.clone(), request.clone());
            let look = tokio::task::spawn_blocking(move || run.look(&client, &request, absence));
            let answer = look.await.map_err(|error| Refusal::Other.status(error.to_string()))??;
            let waits = matches!(answer.state(), State::Gathering | State::Waiting);
            if !waits || since.elapsed() >= POLL {
                return Ok(answer);
            }
            // Now and then, to notice those who have gone away.
            let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
        }
    }

    /// Gives a client its place if it has none, and says whether it has its turn.
    fn look(
        &self,
        client: &str,
        request: &proto::AwaitTurnRequest,
        absence: Duration,
    ) -> Result<proto::AwaitTurnResponse, Status> {
        let mut guard = self.standing();
        let standing = &mut *guard;
        let place = match standing.members.iter_mut().find(|member| member.enrolled.client == client) {
            Some(member) => {
                member.heard = Instant::now();
                let Enrolled { place, inputs, turns, .. } = member.enrolled;
                if let Some(allowed) = self.training.turns.filter(|&allowed| turns >= allowed)
                    && standing.server.as_ref().is_none_or(|server| !server.is_complete())
                {
                    return Err(Refusal::Budget.status(format!(
                        "this client has had {turns} turns, of {allowed} that it may have"
                    )));
                }
                if !standing.is_in_turn(place)
                    && let Some(status) = self.too_fast(standing, client)
                {
                    return Err(status);
                }
                if inputs != request.inputs {
                    return Err(Refusal::Enrolment.status(format!(
                        "this client takes part with {inputs} inputs, found {}",
                        request.inputs
                    )));
                }
                if request.place.is_some_and(|wanted| wanted != place) {
                    return Err(Refusal::Enrolment.status(format!("this client has place {}", place + 1)));
                }
                place
            }
            None => self.enroll(standing, client, request)?,
        };
        if standing.server.is_none()
            && standing.holder.is_none()
            && standing.members.len() as u32 == self.training.clients
        {
            self.load(standing).map_err(|error| self.cannot_go_on(&error))?;
        }
        let state = match &standing.server {
            _ if (standing.members.len() as u32) < self.training.clients => State::Gathering,
            Some(server) if server.is_complete() => State::Complete,
            Some(_) => {
                self.skip_absent(standing, absence);
                if standing.next == place { State::Yours } else { State::Waiting }
            }
            None => {
                // A client that asks is not in its turn any more, whatever became of it.
                if let Some(holder) = standing.holder.as_ref().filter(|_| standing.next == place) {
                    holder.link.end(ServiceError::Ended);
                }
                State::Waiting
            }
        };
        Ok(proto::AwaitTurnResponse { state: state.into(), place, training: Some(self.list(standing)) })
    }

    fn enroll(
        &self,
        standing: &mut Standing,
        client: &str,
        request: &proto::AwaitTurnRequest,
    ) -> Result<u32, Status> {
        let clients = self.training.clients;
        let is_free = |place: &u32| standing.members.iter().all(|member| member.enrolled.place != *place);
        let place = match request.place {
            Some(wanted) => Some(wanted).filter(|wanted| *wanted < clients && is_free(wanted)),
            None => (0..clients).find(is_free),
        };
        let place = place.ok_or_else(|| {
            Refusal::Enrolment.status(match request.place {
                Some(wanted) => {
                    format!("place {} of {clients} is taken, or there is none", u64::from(wanted) + 1)
                }
                None => format!("all {clients} places are taken"),
            })
        })?;
        if request.inputs == 0 || request.inputs > u64::from(u32::MAX) {
            let found = request.inputs;
            return Err(
                Refusal::Enrolment.status(format!("expected 1 to 2^32 inputs to train on, found {found}"))
            );
        }
        let enrolled = Enrolled { place, client: client.to_owned(), inputs: request.inputs, turns: 0 };
        self.ledger.enroll(&self.model, &enrolled).map_err(|error| self.cannot_go_on(&error))?;
        info!(model = %self.model, place, client, inputs = request.inputs, "takes part");
        standing.members.push(Member { enrolled, heard: Instant::now() });
        standing.members.sort_by_key(|member| member.enrolled.place);
        self.begin_if_gathered(standing).map_err(|error| self.cannot_go_on(&error))?;
        self.changed.notify_waiters();
        Ok(place)
    }

    /// Where the client whose turn it is has not been heard of for too long, the next one that has is next.
    fn skip_absent(&self, standing: &mut Standing, absence: Duration) {
        let clients = self.training.clients;
        let is_here = |place: u32| {
            let member = standing.members.iter().find(|member| member.enrolled.place == place);
            let may = |member: &Member| {
                self.training.turns.is_none_or(|most| member.enrolled.turns < most)
                    && (standing.is_in_turn(place) || self.wait(&member.enrolled.client).is_none())
            };
            member.is_some_and(|member| member.heard.elapsed() < absence && may(member))
        };
        let next = (0..clients).map(|step| (standing.next + step) % clients).find(|&place| is_here(place));
        if let Some(next) = next.filter(|&next| next != standing.next) {
            warn!(model = %self.model, place = standing.next, next, "a client is away or has no turns left for now: the next one goes on");
            standing.next = next;
        }
    }

    /// Turns that a client may have in an hour, and the seconds until it may have another, where it has had them.
    fn wait(&self, client: &str) -> Option<(u64, Result<u64, ServiceError>)> {
        let allowed = self.training.turns_an_hour?;
        match self.ledger.turn_wait((client, &self.model), allowed) {
            Ok(seconds) => Some((allowed, Ok(seconds?))),
            Err(error) => Some((allowed, Err(error))),
        }
    }

    /// What a client is told that begins turns too fast, if it does and the run is not complete.
    fn too_fast(&self, standing: &Standing, client: &str) -> Option<Status> {
        if standing.server.as_ref().is_some_and(|server| server.is_complete()) {
            return None;
        }
        Some(match self.wait(client)? {
            (allowed, Ok(seconds)) => Refusal::Rate.status(format!(
                "this client may begin {allowed} turns in an hour, and has; it may come again in {seconds} s"
            )),
            (_, Err(error)) => self.cannot_go_on(&error),
        })
    }

    /// What a client is told when the state cannot be kept or read; the log says why.
    fn cannot_go_on(&self, error: &ServiceError) -> Status {
        warn!(model = %self.model, %error, "training cannot go on");
        Refusal::State.status(ServiceError::StateUnkept.to_string())
    }

    /// Takes the turn for a client's conversation, and returns its place.
    pub(in crate::server) fn take(&self, client: &str, session: &Arc<Session>) -> Result<u32, Status> {
        let mut standing = self.standing();
        let next = standing.next;
        let member = standing.members.iter_mut().find(|member| member.enrolled.client == client);
        let Some(member) = member.filter(|member| member.enrolled.place == next) else {
            return Err(Refusal::Turn.status("another client has its turn, or this one has no place"));
        };
        member.heard = Instant::now();
        if !standing.is_in_turn(next)
            && let Some(status) = self.too_fast(&standing, client)
        {
            return Err(status);
        }
        if standing.server.as_ref().is_none_or(|server| server.is_complete()) || standing.holder.is_some() {
            return Err(Refusal::Turn.status("no turn can begin at this moment"));
        }
        standing.holder = Some(Arc::clone(session));
        Ok(next)
    }

    /// Gives back a turn that did not begin.
    pub(in crate::server) fn give_back(&self) {
        self.standing().holder = None;
        self.changed.notify_waiters();
    }
}
