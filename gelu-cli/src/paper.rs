//! `gelu paper`: a program of its own, which stands beside this one.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::Args;

/// Make the tables and figures of the GELU-Net paper anew on this machine, with its rivals run beside it.
///
/// This is the program gelu-paper, a package of its own, since it takes libraries that nothing else needs:
/// cargo build --release
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct PaperArgs {
    /// What gelu-paper is given: `gelu paper --help` lists it.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// What the other program takes for the path of this one, as cargo's subcommands take `CARGO`.
const VARIABLE: &str = "GELU";

/// Runs it, and returns what it ended with.
pub(crate) fn run(args: &PaperArgs) -> anyhow::Result<ExitCode> {
    let this = std::env::current_exe().context("the path of this program")?;
    let name = format!("gelu-paper{EXE_SUFFIX}");
    let beside = this.parent().map(|folder| folder.join(&name)).filter(|path| path.is_file());
    // Without a folder it is looked for on PATH.
    let program = beside.unwrap_or_else(|| PathBuf::from(&name));
    match Command::new(&program).args(&args.arguments).env(VARIABLE, &this).status() {
        // Without a code a signal has ended it.
        Ok(status) => Ok(status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from)),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "{name} is neither beside {} nor on PATH; build it with `cargo build --release`",
            this.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot run {}", program.display())),
    }
}
