//! What one process uses at a time.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, bail};

/// Takes a lock by its file, which is made where it is not there. It is held for as long as the file is open, and given back by
/// the system whatever ends the process. `taken` is what is said where another process has it.
pub(crate) fn lock(path: &Path, taken: impl FnOnce() -> String) -> anyhow::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.with_context(|| path.display().to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("{}", taken()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{}: cannot lock", path.display()))
        }
    }
}
