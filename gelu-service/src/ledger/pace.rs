//! How many inputs a client has had of late.

use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::{Ledger, client_id, fault, now};
use crate::ServiceError;

/// Seconds over which a client's inputs are counted together.
const WINDOW: u64 = 3600;

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

    /// An hour begins with the first input after the last one. A clock that was set back makes it longer, not shorter.
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
        let id = client_id(&change, client).map_err(wrong)?;
        let found: Option<(u64, u64)> = change
            .query_row(
                "SELECT since, inputs FROM pace WHERE client = ?1 AND model = ?2",
                params![id, model],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .map_err(wrong)?;
        let (since, before) =
            found.filter(|(since, _)| now < since.saturating_add(WINDOW)).unwrap_or((now, 0));
        let sum = before.saturating_add(inputs);
        if sum > allowed {
            return Ok(Some(since.saturating_add(WINDOW).saturating_sub(now)));
        }
        change
            .execute(
                "INSERT INTO pace (client, model, since, inputs) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (client, model) DO UPDATE SET since = ?3, inputs = ?4",
                params![id, model, since, sum],
            )
            .map_err(wrong)?;
        change.commit().map_err(wrong)?;
        Ok(None)
    }
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
}
