//! `gelu bench peers`

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::Args;

/// Time python-paillier, SecretFlow HEU and TenSEAL beside this program, pinned to one core.
///
/// Runs the script peers.py, which makes a virtual environment, installs the libraries into it (this needs the
/// network), and times the same operations with each, keys of 2048 bits. What cannot be installed is listed with the
/// reason.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu bench peers
  gelu bench peers --python python3.10 --core 1 --json > peers.json")]
pub(crate) struct PeersArgs {
    /// The folder of the script.
    #[arg(long, default_value = "benches/peers", value_name = "DIR")]
    scripts: PathBuf,
    /// The Python to use. SecretFlow HEU has packages for 3.8 to 3.11.
    #[arg(long, default_value = "python3")]
    python: String,
    /// Where the virtual environment is kept.
    #[arg(long, default_value = "target/peers", value_name = "DIR")]
    environment: PathBuf,
    /// The core that everything runs on.
    #[arg(long, default_value_t = 0)]
    core: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PeersArgs) -> anyhow::Result<()> {
    let script = args.scripts.join("peers.py");
    ensure!(
        script.is_file(),
        "{}: not found; run this in the project's folder, or name the folder of peers.py with --scripts",
        script.display()
    );
    let program = std::env::current_exe().context("this program's own path")?;
    let mut command = Command::new(&args.python);
    command.arg(&script).arg("--gelu").arg(program).arg("--environment").arg(&args.environment);
    command.arg("--core").arg(args.core.to_string());
    if args.json {
        command.arg("--json");
    }
    let status = command
        .status()
        .with_context(|| format!("cannot run {}: name another Python with --python", args.python))?;
    ensure!(status.success(), "{} ended with {status}", script.display());
    Ok(())
}
