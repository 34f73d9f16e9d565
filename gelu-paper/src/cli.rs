use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use clap::builder::{PossibleValue, PossibleValuesParser};
use gelu_io::data::DataDir;
use gelu_io::files::{check_folder_writable, make_folder};
use gelu_tensor::Backend;

use crate::gelu::Gelu;
use crate::machine::{Machine, limit_ns};
use crate::output::{line, note};
use crate::parts::{Part, Setting};
use crate::report;
use crate::results::{Conditions, PartResult, now};

/// Make the tables and figures of the GELU-Net paper (IJCAI 2018) anew on this machine, with its rivals run beside it.
///
/// Each part is measured, kept as JSON in the folder as soon as it is done, and put beside the paper's figures in a
/// report, DIR/README.md. A run that is stopped goes on where it was; a part is made anew when the options, the version, the
/// machine or the data sets are others.
#[derive(Debug, Parser)]
#[command(
    name = "gelu-paper",
    bin_name = "gelu paper",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  gelu paper all --out report
  gelu paper table4 --quick

MNIST is looked for in the folder mnist/ below --data, $GELU_DATA or the per-user data folder; `gelu data --download` fetches \
it. On a machine that does other work at the same time, figures say little."
)]
struct Cli {
    /// What to make.
    #[arg(required = true, value_name = "PART", value_parser = choices())]
    parts: Vec<String>,
    /// The folder of the report; what is there already is kept.
    #[arg(long, default_value = "gelu-paper", value_name = "DIR")]
    out: PathBuf,
    /// Measure less, in under 5 minutes: fewer repetitions, shorter training, fewer images.
    #[arg(long)]
    quick: bool,
    /// Make the parts anew, though they are there.
    #[arg(long)]
    again: bool,
    /// Folder with `mnist/` and other known data sets [default: $GELU_DATA, then the per-user data folder].
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// The program `gelu` that measures ours [default: the one that runs this, or beside it, or on PATH].
    #[arg(long, value_name = "PROGRAM")]
    gelu: Option<PathBuf>,
    /// Print the results as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What can be asked for: all, or each part by its name.
fn choices() -> PossibleValuesParser {
    let parts = Part::ALL.into_iter().map(|part| PossibleValue::new(part.name()).help(part.title()));
    [PossibleValue::new(ALL).help("Every part")].into_iter().chain(parts).collect::<Vec<_>>().into()
}

const ALL: &str = "all";

/// Runs the program by its command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help is one of these.
        Err(error) => {
            let is_shown = error.print().is_ok();
            return if is_shown { ExitCode::from(error.exit_code() as u8) } else { ExitCode::FAILURE };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { parts: names, out, quick, again, data, gelu, json } = cli;
    check_folder_writable(&out)?;
    make_folder(&out)?;
    let backend = backend()?;
    let machine = Machine::here(backend);
    let data = DataDir::locate(data);
    let setting = Setting { quick, out: out.clone(), data, gelu: Gelu::locate(gelu), backend };
    let wanted = |part: &Part| names.iter().any(|name| [ALL, part.name()].contains(&name.as_str()));
    let mut failed = vec![];
    let mut made = vec![];
    for part in Part::ALL.into_iter().filter(wanted) {
        let found = |name: &&&str| setting.has(name);
        let data_sets = part.data_sets().iter().filter(found).map(|name| (*name).to_owned()).collect();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let conditions = Conditions { version, quick, machine: machine.clone(), data_sets };
        match make(part, conditions, &setting, &out, again) {
            Ok(result) => made.push(result),
            // The rest goes on.
            Err(error) => {
                note(&format!("{}: error: {error:#}", part.name()));
                failed.push(part.name());
            }
        }
    }
    report::write(&out)?;
    note(&format!("wrote {}", out.join("README.md").display()));
    if json {
        line(&serde_json::json!({ "out": out, "parts": made, "failed": failed }).to_string())
            .context("standard output: cannot write")?;
    }
    anyhow::ensure!(failed.is_empty(), "could not be made: {}", failed.join(", "));
    Ok(())
}

/// The result of a part: the one that is there, or a new one.
fn make(
    part: Part,
    conditions: Conditions,
    setting: &Setting,
    out: &Path,
    again: bool,
) -> anyhow::Result<PartResult> {
    match PartResult::read(out, part) {
        Ok(Some(result)) if !again && result.conditions == conditions => {
            setting.progress(part, &format!("there since {} (--again makes it anew)", result.date));
            return Ok(result);
        }
        Ok(_) => {}
        Err(error) => setting.progress(part, &format!("made anew: {error:#}")),
    }
    let (before, start) = (limit_ns(setting.backend), Instant::now());
    let findings = part.run(setting)?;
    let seconds = start.elapsed().as_secs_f64();
    let limit_ns = [before, limit_ns(setting.backend)];
    let result = PartResult { part, conditions, date: now()?, limit_ns, seconds, findings };
    result.write(out)?;
    setting.progress(part, &format!("done in {seconds:.0} s"));
    Ok(result)
}

/// The arithmetic that `gelu` takes too.
fn backend() -> anyhow::Result<Backend> {
    const VARIABLE: &str = "GELU_BACKEND";
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(Backend::detect()) };
    let named = name.to_string_lossy().parse::<Backend>().context(VARIABLE)?;
    anyhow::ensure!(named.is_available(), "{VARIABLE}: this machine has no {named}");
    Ok(named)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["gelu paper", "table4", "table1", "--quick"]).unwrap();
        assert_eq!(cli.parts, ["table4", "table1"]);
        let error = Cli::try_parse_from(["gelu paper", "table9"]).unwrap_err().to_string();
        assert!(error.contains("all, table1, table2"), "{error}");
    }
}
