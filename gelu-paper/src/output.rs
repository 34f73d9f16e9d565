//! What is printed. Standard output can be closed (by `head`) or full, and standard error too: `println!` and `eprintln!` would
//! panic then, and are refused by a lint.

use std::io::{self, Write};

/// Prints a line of the result on standard output.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Prints a line on standard error: progress, or what went wrong.
pub(crate) fn note(text: &str) {
    // There is nowhere else to say so.
    let _ = writeln!(io::stderr().lock(), "{text}");
}
