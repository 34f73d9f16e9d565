//! What is kept over conversations and restarts: what each client has asked of each model, so that a budget holds, and runs
//! of training.

mod pace;
mod runs;

pub(crate) use self::runs::Kind;
pub use self::runs::{Enrolled, TrainingSummary};

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gelu_io::files::check_owner_only;
use rusqlite::backup::Backup;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::ServiceError;

/// The file in the folder of a server's state.
const FILE: &str = "ledger.sqlite";

/// The steps from an empty file to today's tables. A file says how many it has been through.
const MIGRATIONS: [&str; 4] = [
    "
    CREATE TABLE client (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE usage (
        client INTEGER NOT NULL REFERENCES client (id),
        model TEXT NOT NULL,
        inputs INTEGER NOT NULL CHECK (inputs >= 0),
        batches INTEGER NOT NULL CHECK (batches >= 0),
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (client, model)
    ) STRICT;
",
    "
    CREATE TABLE run (
        model TEXT PRIMARY KEY,
        name BLOB NOT NULL CHECK (length(name) = 16),
        terms TEXT NOT NULL,
        state TEXT
    ) STRICT;
    CREATE TABLE member (
        model TEXT NOT NULL REFERENCES run (model),
        place INTEGER NOT NULL CHECK (place >= 0),
        client INTEGER NOT NULL REFERENCES client (id),
        inputs INTEGER NOT NULL CHECK (inputs > 0),
        turns INTEGER NOT NULL DEFAULT 0 CHECK (turns >= 0),
        PRIMARY KEY (model, place),
        UNIQUE (model, client)
    ) STRICT;
    CREATE TABLE change (
        id INTEGER PRIMARY KEY,
        model TEXT NOT NULL REFERENCES run (model),
        place INTEGER NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('granted', 'updated', 'ended', 'given up')),
        done INTEGER NOT NULL,
        at INTEGER NOT NULL,
        FOREIGN KEY (model, place) REFERENCES member (model, place)
    ) STRICT;
",
    "
    CREATE TABLE pace (
        client INTEGER NOT NULL REFERENCES client (id),
        model TEXT NOT NULL,
        since INTEGER NOT NULL,
        inputs INTEGER NOT NULL CHECK (inputs >= 0),
        PRIMARY KEY (client, model)
    ) STRICT;
",
    "
    ALTER TABLE pace RENAME TO pace_of_inputs;
    CREATE TABLE pace (
        client INTEGER NOT NULL REFERENCES client (id),
        model TEXT NOT NULL,
        what TEXT NOT NULL CHECK (what IN ('inputs', 'turns')),
        since INTEGER NOT NULL,
        count INTEGER NOT NULL CHECK (count >= 0),
        PRIMARY KEY (client, model, what)
    ) STRICT;
    INSERT INTO pace SELECT client, model, 'inputs', since, inputs FROM pace_of_inputs;
    DROP TABLE pace_of_inputs;
",
];

/// A file of clients and what they have asked for. Every change is on disk before it is answered.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// What a client has asked of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The client: the fingerprint of its certificate's key.
    pub client: String,
    /// The model's name.
    pub model: String,
    /// Inputs that were let in.
    pub inputs: u64,
    /// Batches that they came in.
    pub batches: u64,
    /// When the first came, and the last, in seconds since 1970 by the server's clock.
    pub times: [u64; 2],
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is noted, and lets its inputs in.
    Yes,
    /// It would exceed the budget; nothing is noted.
    Spent {
        /// Inputs that the client has had.
        used: u64,
        /// Inputs that it may have in all.
        allowed: u64,
    },
}

impl Ledger {
    /// Returns whether there is a ledger in the folder of a server's state.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(FILE).is_file()
    }

    /// Opens the ledger in the folder of a server's state, and makes it where there is none: for its owner alone, since the
    /// weights of a run of training are in it.
    ///
    /// # Errors
    /// [`ServiceError::State`] when it cannot be read or written, others may read it, or it is of a later release.
    pub fn open(folder: &Path) -> Result<Self, ServiceError> {
        let path = folder.join(FILE);
        let problem = |problem: String| ServiceError::State { path: path.clone(), problem };
        if !path.exists() {
            make_empty(&path).map_err(|error| problem(error.to_string()))?;
        }
        check_owner_only(&path).map_err(|error| problem(error.to_string()))?;
        let fault = |error: rusqlite::Error| fault(&path, error);
        let mut connection = Connection::open(&path).map_err(fault)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(fault)?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
            .map_err(fault)?;
        migrate(&mut connection, &path)?;
        Ok(Self { connection: Mutex::new(connection), path })
    }

    /// Notes a batch of a client, unless it would take the client beyond its budget for the model.
    pub(crate) fn take(
        &self,
        of: (&str, &str),
        inputs: u64,
        budget: Option<u64>,
    ) -> Result<Taken, ServiceError> {
        self.take_at(now(), of, inputs, budget)
    }

    fn take_at(
        &self,
        now: u64,
        (client, model): (&str, &str),
        inputs: u64,
        budget: Option<u64>,
    ) -> Result<Taken, ServiceError> {
        let fault = |error| fault(&self.path, error);
        let mut connection = self.connection();
        // Two processes on one file wait for each other from the beginning.
        let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
        let id = client_id(&change, client).map_err(fault)?;
        let used: Option<u64> = change
            .query_row(
                "SELECT inputs FROM usage WHERE client = ?1 AND model = ?2",
                params![id, model],
                |row| row.get(0),
            )
            .optional()
            .map_err(fault)?;
        let used = used.unwrap_or(0);
        let sum = used.saturating_add(inputs);
        if let Some(allowed) = budget.filter(|&budget| sum > budget) {
            return Ok(Taken::Spent { used, allowed });
        }
        // A clock that was set back does not make the last time earlier.
        change
            .execute(
                "INSERT INTO usage (client, model, inputs, batches, first, last) VALUES (?1, ?2, ?3, 1, ?4, ?4)
                 ON CONFLICT (client, model) DO UPDATE
                 SET inputs = ?3, batches = batches + 1, last = max(last, ?4)",
                params![id, model, sum, now],
            )
            .map_err(fault)?;
        change.commit().map_err(fault)?;
        Ok(Taken::Yes)
    }

    /// Returns what all clients have asked for, by client and model.
    ///
    /// # Errors
    /// [`ServiceError::State`] when the ledger cannot be read.
    pub fn usage(&self) -> Result<Vec<Usage>, ServiceError> {
        let fault = |error| fault(&self.path, error);
        let connection = self.connection();
        let mut query = connection
            .prepare(
                "SELECT name, model, inputs, batches, first, last FROM usage JOIN client ON client.id = client
                 ORDER BY name, model",
            )
            .map_err(fault)?;
        let rows = query
            .query_map([], |row| {
                Ok(Usage {
                    client: row.get(0)?,
                    model: row.get(1)?,
                    inputs: row.get(2)?,
                    batches: row.get(3)?,
                    times: [row.get(4)?, row.get(5)?],
                })
            })
            .map_err(fault)?;
        rows.collect::<Result<_, _>>().map_err(fault)
    }

    /// Checks that the file is whole.
    ///
    /// # Errors
    /// [`ServiceError::State`] that says what is wrong with it.
    pub fn verify(&self) -> Result<(), ServiceError> {
        let fault = |error| fault(&self.path, error);
        let connection = self.connection();
        let found: String =
            connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(fault)?;
        let orphan = connection
            .query_row("PRAGMA foreign_key_check", [], |row| row.get::<_, String>(0))
            .optional()
            .map_err(fault)?;
        match (&found[..], orphan) {
            ("ok", None) => Ok(()),
            ("ok", Some(table)) => Err(self.broken(format!("rows of `{table}` belong to no client"))),
            _ => Err(self.broken(found)),
        }
    }

    /// Writes a copy, as it is at one moment, while a server may be using the ledger.
    ///
    /// # Errors
    /// [`ServiceError::State`] when the copy cannot be written.
    pub fn backup(&self, to: &Path) -> Result<(), ServiceError> {
        let fault = |error| fault(to, error);
        make_empty(to)
            .map_err(|error| ServiceError::State { path: to.to_owned(), problem: error.to_string() })?;
        let mut copy = Connection::open(to).map_err(fault)?;
        let connection = self.connection();
        let backup = Backup::new(&connection, &mut copy).map_err(fault)?;
        backup.run_to_completion(100, Duration::from_millis(5), None).map_err(fault)
    }

    /// Returns the ledger's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn broken(&self, problem: String) -> ServiceError {
        ServiceError::State { path: self.path.clone(), problem }
    }

    /// A thread that panicked left no transaction open.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a file that only its owner can read; what SQLite puts beside it has the same mode.
fn make_empty(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

/// The number of a client, which is new if it has none.
fn client_id(change: &rusqlite::Transaction<'_>, client: &str) -> rusqlite::Result<i64> {
    change.execute("INSERT OR IGNORE INTO client (name) VALUES (?1)", [client])?;
    change.query_row("SELECT id FROM client WHERE name = ?1", [client], |row| row.get(0))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), ServiceError> {
    let fault = |error| fault(path, error);
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fault)?;
    let version: u32 = change.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fault)?;
    let done = version as usize;
    if done > MIGRATIONS.len() {
        let problem = format!("expected a ledger of version {} or before, found {done}", MIGRATIONS.len());
        return Err(ServiceError::State { path: path.to_owned(), problem });
    }
    for step in &MIGRATIONS[done..] {
        change.execute_batch(step).map_err(fault)?;
    }
    change.pragma_update(None, "user_version", MIGRATIONS.len() as u32).map_err(fault)?;
    change.commit().map_err(fault)
}

fn fault(path: &Path, error: rusqlite::Error) -> ServiceError {
    ServiceError::State { path: path.to_owned(), problem: error.to_string() }
}

#[cfg(test)]
mod tests;
