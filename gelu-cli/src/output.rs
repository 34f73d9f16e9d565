//! What commands print, and where they may write. Standard output can be closed (by `head`) or full, and standard error
//! too: `println!` and `eprintln!` would panic then, and are refused by a lint.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use gelu_io::files;

/// Standard output cannot be written to.
#[derive(Debug)]
pub(crate) struct OutputError(io::Error);

impl OutputError {
    /// Whether whoever reads the output has seen enough.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output: cannot write")
    }
}

impl std::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// Prints on standard output, as `print!` does, and returns an [`OutputError`] when that fails.
macro_rules! out {
    ($($arguments:tt)*) => { $crate::output::print(format_args!($($arguments)*)) };
}

/// [`out!`] and a new line.
macro_rules! outln {
    ($($arguments:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($($arguments)*))) };
}

/// Prints a line on standard error: a note, which nothing depends on.
macro_rules! note {
    ($($arguments:tt)*) => { $crate::output::print_note(format_args!($($arguments)*)) };
}

pub(crate) use {note, out, outln};

pub(crate) fn print(text: fmt::Arguments<'_>) -> Result<(), OutputError> {
    io::stdout().lock().write_fmt(text).map_err(OutputError)
}

pub(crate) fn print_note(text: fmt::Arguments<'_>) {
    // There is nowhere else to say so.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Hands over what standard output still holds back.
pub(crate) fn flush() -> Result<(), OutputError> {
    io::stdout().lock().flush().map_err(OutputError)
}

/// Checks that files could be written where they were asked for, before any work is done for them.
pub(crate) fn check_files<'a>(paths: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<()> {
    Ok(paths.into_iter().try_for_each(files::check_writable)?)
}

/// The same for folders, which need not be there yet.
pub(crate) fn check_folders<'a>(folders: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<()> {
    Ok(folders.into_iter().try_for_each(files::check_folder_writable)?)
}
