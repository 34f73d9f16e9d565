//! Runs of training: who takes part, the state after every change, and what changed it.

use gelu_models::train::private::ServerState;
use rusqlite::{OptionalExtension, TransactionBehavior, params};
use serde::Serialize;

use super::pace::count_turn;
use super::{Ledger, client_id, fault, now};
use crate::ServiceError;

/// A run of training, as far as it has come.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    /// 16 random bytes.
    pub(crate) name: Vec<u8>,
    /// Those who have a place, in the order of their places.
    pub(crate) members: Vec<Enrolled>,
    /// `None` before all places are taken.
    pub(crate) state: Option<ServerState>,
}

/// A client that takes part in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// Its place, from 0.
    pub place: u32,
    /// The client: the fingerprint of its certificate's key, or what it calls itself.
    pub client: String,
    /// Inputs that it trains on.
    pub inputs: u64,
    /// Turns that it has had.
    pub turns: u64,
}

/// What is known of a run of training without the model that it trains.
#[derive(Clone, Debug)]
pub struct TrainingSummary {
    /// The model's name.
    pub model: String,
    /// Those who have a place.
    pub members: Vec<Enrolled>,
    /// Iterations done.
    pub iterations: u64,
    /// When the last change was, in seconds since 1970 by the server's clock; `None` before the first.
    pub last: Option<u64>,
}

/// A change that was noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Noted {
    /// The place of the client whose turn it was.
    pub(crate) place: u32,
    pub(crate) kind: String,
    /// Iterations done after it.
    pub(crate) done: u64,
    /// Seconds since 1970 by the server's clock.
    pub(crate) at: u64,
}

/// What changed a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A turn begins.
    Granted,
    /// One that was interrupted goes on.
    Resumed,
    /// Another iteration of it begins.
    Iterated,
    Ended,
    GivenUp,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Granted | Self::Resumed => "granted",
            // As ledgers have it since steps were taken within a turn.
            Self::Iterated => "updated",
            Self::Ended => "ended",
            Self::GivenUp => "given up",
        }
    }
}

impl Ledger {
    /// The run of that model, which begins if there is none. `terms` determine it, as JSON.
    ///
    /// # Errors
    /// [`ServiceError::State`], and when the run that is there has other terms.
    pub(crate) fn run(
        &self,
        model: &str,
        terms: &serde_json::Value,
        name: [u8; 16],
    ) -> Result<Run, ServiceError> {
        let wrong = |error| fault(&self.path, error);
        {
            let mut connection = self.connection();
            let change =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
            let kept: Option<String> = change
                .query_row("SELECT terms FROM run WHERE model = ?1", [model], |row| row.get(0))
                .optional()
                .map_err(wrong)?;
            match kept {
                None => {
                    change
                        .execute(
                            "INSERT INTO run (model, name, terms) VALUES (?1, ?2, ?3)",
                            params![model, &name[..], terms.to_string()],
                        )
                        .map_err(wrong)?;
                }
                Some(kept) => {
                    let kept: serde_json::Value =
                        serde_json::from_str(&kept).map_err(|error| self.broken(error.to_string()))?;
                    let differences = differences("", &kept, terms);
                    if !differences.is_empty() {
                        return Err(self.broken(format!(
                            "a run of `{model}` was begun there with other settings ({}); go on with those, offer the model \
                             under another name, or use another folder",
                            differences.join(", ")
                        )));
                    }
                }
            }
            change.commit().map_err(wrong)?;
        }
        self.kept_run(model)
    }

    /// The run of that model as it was kept last.
    pub(crate) fn kept_run(&self, model: &str) -> Result<Run, ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let members = self.members(model)?;
        let connection = self.connection();
        let (name, state): (Vec<u8>, Option<String>) = connection
            .query_row("SELECT name, state FROM run WHERE model = ?1", [model], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .map_err(wrong)?;
        let state = state.map(|text| serde_json::from_str(&text)).transpose();
        let state = state.map_err(|error| self.broken(format!("the state of `{model}`: {error}")))?;
        Ok(Run { name, members, state })
    }

    fn members(&self, model: &str) -> Result<Vec<Enrolled>, ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let connection = self.connection();
        let mut query = connection
            .prepare(
                "SELECT place, name, inputs, turns FROM member JOIN client ON client.id = client
                 WHERE model = ?1 ORDER BY place",
            )
            .map_err(wrong)?;
        let rows = query
            .query_map([model], |row| {
                Ok(Enrolled {
                    place: row.get(0)?,
                    client: row.get(1)?,
                    inputs: row.get(2)?,
                    turns: row.get(3)?,
                })
            })
            .map_err(wrong)?;
        rows.collect::<Result<_, _>>().map_err(wrong)
    }

    /// Gives a client a place in a run.
    pub(crate) fn enroll(&self, model: &str, member: &Enrolled) -> Result<(), ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let mut connection = self.connection();
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        let client = client_id(&change, &member.client).map_err(wrong)?;
        change
            .execute(
                "INSERT INTO member (model, place, client, inputs) VALUES (?1, ?2, ?3, ?4)",
                params![model, member.place, client, member.inputs],
            )
            .map_err(wrong)?;
        change.commit().map_err(wrong)
    }

    /// Keeps the first state of a run.
    pub(crate) fn begin(&self, model: &str, state: &ServerState) -> Result<(), ServiceError> {
        let text = self.text(state)?;
        let connection = self.connection();
        let changed = connection
            .execute("UPDATE run SET state = ?2 WHERE model = ?1", params![model, text])
            .map_err(|error| fault(&self.path, error))?;
        debug_assert_eq!(changed, 1);
        Ok(())
    }

    /// Keeps the state of a run after a change in the turn of a client. It is on disk when this returns.
    pub(crate) fn keep(
        &self,
        model: &str,
        state: &ServerState,
        (place, kind, done): (u32, Kind, u64),
    ) -> Result<(), ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let text = self.text(state)?;
        let mut connection = self.connection();
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        change.execute("UPDATE run SET state = ?2 WHERE model = ?1", params![model, text]).map_err(wrong)?;
        change
            .execute(
                "INSERT INTO change (model, place, kind, done, at) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![model, place, kind.name(), done, now()],
            )
            .map_err(wrong)?;
        if kind == Kind::Granted {
            let client: i64 = change
                .query_row(
                    "SELECT client FROM member WHERE model = ?1 AND place = ?2",
                    params![model, place],
                    |row| row.get(0),
                )
                .map_err(wrong)?;
            count_turn(&change, now(), (client, model)).map_err(wrong)?;
        }
        if kind == Kind::Ended {
            change
                .execute(
                    "UPDATE member SET turns = turns + 1 WHERE model = ?1 AND place = ?2",
                    params![model, place],
                )
                .map_err(wrong)?;
        }
        change.commit().map_err(wrong)
    }

    /// The last changes of a run, the earliest of them first.
    pub(crate) fn changes(&self, model: &str, most: u32) -> Result<Vec<Noted>, ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let connection = self.connection();
        let mut query = connection
            .prepare(
                "SELECT place, kind, done, at FROM
                     (SELECT * FROM change WHERE model = ?1 ORDER BY id DESC LIMIT ?2) ORDER BY id",
            )
            .map_err(wrong)?;
        let rows = query
            .query_map(params![model, most], |row| {
                Ok(Noted { place: row.get(0)?, kind: row.get(1)?, done: row.get(2)?, at: row.get(3)? })
            })
            .map_err(wrong)?;
        rows.collect::<Result<_, _>>().map_err(wrong)
    }

    fn text(&self, state: &ServerState) -> Result<String, ServiceError> {
        serde_json::to_string(state).map_err(|error| self.broken(error.to_string()))
    }

    /// Returns the runs of training that were begun there.
    ///
    /// # Errors
    /// [`ServiceError::State`] when the ledger cannot be read.
    pub fn runs(&self) -> Result<Vec<TrainingSummary>, ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let found: Vec<(String, Option<u64>, Option<u64>)> = {
            let connection = self.connection();
            let mut query = connection
                .prepare(
                    "SELECT model,
                         (SELECT done FROM change WHERE change.model = run.model ORDER BY id DESC LIMIT 1),
                         (SELECT max(at) FROM change WHERE change.model = run.model)
                     FROM run ORDER BY model",
                )
                .map_err(wrong)?;
            let rows =
                query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(wrong)?;
            rows.collect::<Result<_, _>>().map_err(wrong)?
        };
        let summary = |(model, done, last): (String, Option<u64>, Option<u64>)| {
            let members = self.members(&model)?;
            Ok(TrainingSummary { model, members, iterations: done.unwrap_or(0), last })
        };
        found.into_iter().map(summary).collect()
    }
}

/// The settings in which two runs differ, by name.
fn differences(name: &str, kept: &serde_json::Value, now: &serde_json::Value) -> Vec<String> {
    match (kept, now) {
        (kept, now) if kept == now => vec![],
        (serde_json::Value::Object(kept), serde_json::Value::Object(now)) => {
            let null = serde_json::Value::Null;
            let names: std::collections::BTreeSet<&String> = kept.keys().chain(now.keys()).collect();
            let of = |values: &serde_json::Map<String, serde_json::Value>, name: &String| {
                values.get(name).unwrap_or(&null).clone()
            };
            names.into_iter().flat_map(|name| differences(name, &of(kept, name), &of(now, name))).collect()
        }
        (kept, now) => {
            let short = |value: &serde_json::Value| match value.to_string() {
                text if text.len() <= 40 => text,
                _ => "something else".to_owned(),
            };
            vec![format!("{name} {} there, {} now", short(kept), short(now))]
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_that_differ_are_named() {
        let (kept, now) = (
            json!({ "a": 1, "b": { "c": "x", "d": [1] } }),
            json!({ "a": 1, "b": { "c": "y", "d": [1] }, "e": 2 }),
        );
        assert_eq!(differences("", &kept, &now), ["c \"x\" there, \"y\" now", "e null there, 2 now"]);
        assert!(differences("", &kept, &kept).is_empty());
    }

    #[test]
    fn a_run_is_gone_on_with_under_its_terms_only() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let run = ledger.run("m", &json!({ "epochs": 3 }), [7; 16]).unwrap();
        assert_eq!((run.name, run.members.len(), run.state.is_some()), (vec![7; 16], 0, false));
        let member = Enrolled { place: 1, client: "north".to_owned(), inputs: 5, turns: 0 };
        ledger.enroll("m", &member).unwrap();
        // A place and a client are taken once.
        assert!(ledger.enroll("m", &Enrolled { client: "south".to_owned(), ..member.clone() }).is_err());
        assert!(ledger.enroll("m", &Enrolled { place: 0, ..member.clone() }).is_err());
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        let run = ledger.run("m", &json!({ "epochs": 3 }), [8; 16]).unwrap();
        assert_eq!((run.name, run.members), (vec![7; 16], vec![member]));
        let error = ledger.run("m", &json!({ "epochs": 4 }), [8; 16]).unwrap_err().to_string();
        assert!(error.contains("epochs 3 there, 4 now"), "{error}");
        assert_eq!(ledger.runs().unwrap().len(), 1);
        ledger.verify().unwrap();
    }
}
