//! Ctrl-C and SIGTERM: a run that keeps checkpoints stops after the iteration that it is in, and keeps it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

use crate::output::note;

/// What shells report of a command that Ctrl-C ended.
pub(crate) const EXIT_CODE: u8 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// From here on the first signal asks the run to stop, and the second ends the process.
pub(crate) fn install() -> anyhow::Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            std::process::exit(EXIT_CODE.into());
        }
        note!("stopping after this iteration, which is kept; once more stops at once");
    })
    .context("cannot take note of Ctrl-C")
}

/// Whether the run is asked to stop.
pub(crate) fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// A run that stopped because it was asked to; its state is kept.
#[derive(Debug)]
pub(crate) struct Interrupted {
    /// How far it is.
    pub(crate) at: String,
    /// What the command that goes on from there has that this one has not.
    pub(crate) with: &'static str,
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kept after {}; the same command{} goes on from there", self.at, self.with)
    }
}

impl std::error::Error for Interrupted {}
