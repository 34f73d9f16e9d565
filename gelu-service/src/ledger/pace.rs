//! How much a client has had of late: inputs of inference, and turns of training.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Ledger, client_id, fault, now};
use crate::ServiceError;

/// Seconds over which what a client has had is counted together.
const WINDOW: u64 = 3600;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paced {
    Inputs,
    Turns,
}

impl Paced {
    fn name(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Turns => "turns",
        }
    }
}

/// A client's hour: when it began, and what the client has had in it.
#[derive(Clone, Copy, Debug)]
struct Hour {
    since: u64,
    count: u64,
}

impl Hour {
    /// An hour begins with the first that is counted after the last one. A clock that was set back makes it longer, not
    /// shorter.
    fn of(
        connection: &Connection,
        now: u64,
        (client, model, what): (i64, &str, Paced),
    ) -> rusqlite::Result<Self> {
        let found = connection
            .query_row(
                "SELECT since, count FROM pace WHERE client = ?1 AND model = ?2 AND what = ?3",
                params![client, model, what.name()],
                |row| Ok(Self { since: row.get(0)?, count: row.get(1)? }),
            )
            .optional()?;
        let current = found.filter(|hour| now < hour.since.saturating_add(WINDOW));
        Ok(current.unwrap_or(Self { since: now, count: 0 }))
    }

    /// The seconds until the hour is over, where it has no room for so many more.
    fn wait(self, now: u64, more: u64, allowed: u64) -> Option<u64> {
        let is_full = self.count.saturating_add(more) > allowed;
        is_full.then(|| self.since.saturating_add(WINDOW).saturating_sub(now))
    }

    /// Keeps the hour with so many more.
    fn count(
        self,
        connection: &Connection,
        more: u64,
        (client, model, what): (i64, &str, Paced),
    ) -> rusqlite::Result<()> {
        connection
            .execute(
                "INSERT INTO pace (client, model, what, since, count) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (client, model, what) DO UPDATE SET since = ?4, count = ?5",
                params![client, model, what.name(), self.since, self.count.saturating_add(more)],
            )
            .map(|_| ())
    }
}

impl Ledger {
    /// Notes the inputs of a batch, unless there would be more than `allowed` in the client's hour. Returns the seconds until
    /// that is over, if so; nothing is noted then.
    pub(crate) fn pass(
        &self,
        of: (&str, &str),
        inputs: u64,
        allowed: u64,
    ) -> Result<Option<u64>, ServiceError> {
        self.pass_at(now(), of, inputs, allowed)
    }

    fn pass_at(
        &self,
        now: u64,
        (client, model): (&str, &str),
        inputs: u64,
        allowed: u64,
    ) -> Result<Option<u64>, ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let mut connection = self.connection();
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(wrong)?;
        let of = (client_id(&change, client).map_err(wrong)?, model, Paced::Inputs);
        let hour = Hour::of(&change, now, of).map_err(wrong)?;
        if let Some(seconds) = hour.wait(now, inputs, allowed) {
            return Ok(Some(seconds));
        }
        hour.count(&change, inputs, of).map_err(wrong)?;
        change.commit().map_err(wrong)?;
        Ok(None)
    }

    /// Returns the seconds until a client may begin another turn of training, where it has begun as many as `allowed` in its
    /// hour.
    pub(crate) fn turn_wait(&self, of: (&str, &str), allowed: u64) -> Result<Option<u64>, ServiceError> {
        self.turn_wait_at(now(), of, allowed)
    }

    fn turn_wait_at(
        &self,
        now: u64,
        (client, model): (&str, &str),
        allowed: u64,
    ) -> Result<Option<u64>, ServiceError> {
        let wrong = |error| fault(&self.path, error);
        let connection = self.connection();
        let id: Option<i64> = connection
            .query_row("SELECT id FROM client WHERE name = ?1", [client], |row| row.get(0))
            .optional()
            .map_err(wrong)?;
        let Some(id) = id else { return Ok(None) };
        let hour = Hour::of(&connection, now, (id, model, Paced::Turns)).map_err(wrong)?;
        Ok(hour.wait(now, 1, allowed))
    }
}

/// Counts a turn that a client begins.
pub(super) fn count_turn(
    change: &Connection,
    now: u64,
    (client, model): (i64, &str),
) -> rusqlite::Result<()> {
    let of = (client, model, Paced::Turns);
    Hour::of(change, now, of)?.count(change, 1, of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_inputs_in_an_hour_whatever_the_clock_does() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let pass = |now, of, inputs| ledger.pass_at(now, of, inputs, 10).unwrap();
        let (own, other) = (("a", "m"), ("b", "m"));
        assert_eq!(pass(10_000, own, 6), None);
        assert_eq!(pass(10_100, own, 5), Some(3500));
        assert_eq!(pass(10_100, own, 4), None);
        assert_eq!(pass(13_599, own, 1), Some(1));
        assert_eq!(pass(13_599, other, 10), None);
        assert_eq!(pass(13_599, ("a", "another"), 10), None);
        // Set back by an hour, the clock does not begin another.
        assert_eq!(pass(6_400, own, 1), Some(7_200));
        assert_eq!(pass(13_600, own, 10), None);
        // And a batch that is larger than an hour's inputs never passes.
        assert_eq!(pass(99_999, own, 11), Some(3600));
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.pass_at(13_700, own, 1, 10).unwrap(), Some(3500));
    }

    #[test]
    fn inputs_that_a_ledger_of_before_has_counted_still_count() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let old = "DROP TABLE pace;
            CREATE TABLE pace (client INTEGER NOT NULL REFERENCES client (id), model TEXT NOT NULL,
                since INTEGER NOT NULL, inputs INTEGER NOT NULL CHECK (inputs >= 0), PRIMARY KEY (client, model)) STRICT;
            INSERT INTO client (id, name) VALUES (1, 'a');
            INSERT INTO pace VALUES (1, 'm', 10000, 7);
            PRAGMA user_version = 3;";
        ledger.connection().execute_batch(old).unwrap();
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.pass_at(10_100, ("a", "m"), 4, 10).unwrap(), Some(3500));
        assert_eq!(ledger.pass_at(10_100, ("a", "m"), 3, 10).unwrap(), None);
        assert_eq!(ledger.turn_wait_at(10_100, ("a", "m"), 1).unwrap(), None);
        ledger.verify().unwrap();
    }

    #[test]
    fn a_client_begins_so_many_turns_in_an_hour_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let begin = |ledger: &Ledger, now, client| {
            let mut connection = ledger.connection();
            let change = connection.transaction().unwrap();
            let id = client_id(&change, client).unwrap();
            count_turn(&change, now, (id, "m")).unwrap();
            change.commit().unwrap();
        };
        let (own, other) = (("a", "m"), ("b", "m"));
        assert_eq!(ledger.turn_wait_at(10_000, own, 2).unwrap(), None);
        begin(&ledger, 10_000, "a");
        assert_eq!(ledger.turn_wait_at(10_600, own, 2).unwrap(), None);
        begin(&ledger, 10_600, "a");
        // Inputs are another count.
        assert_eq!(ledger.pass_at(10_600, own, 5, 5).unwrap(), None);
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.turn_wait_at(10_700, own, 2).unwrap(), Some(2_900));
        assert_eq!(ledger.turn_wait_at(9_000, own, 2).unwrap(), Some(4_600));
        assert_eq!(ledger.turn_wait_at(10_700, own, 3).unwrap(), None);
        assert_eq!(ledger.turn_wait_at(10_700, ("a", "another"), 1).unwrap(), None);
        assert_eq!(ledger.turn_wait_at(10_700, other, 1).unwrap(), None);
        assert_eq!(ledger.turn_wait_at(13_600, own, 2).unwrap(), None);
        begin(&ledger, 13_600, "a");
        assert_eq!(ledger.turn_wait_at(13_700, own, 1).unwrap(), Some(3_500));
    }
}
