//! `gelu state`

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, Subcommand};
use gelu_service::{Enrolled, Ledger, TrainingSummary, Usage};
use serde_json::{Value, json};

use crate::output::{check_files, outln};
use crate::report::TextTable;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what each client has asked of each model, and how runs of training stand.
    #[command(after_help = "Example:\n  gelu state show --state /var/lib/gelu")]
    Show(ShowArgs),
    /// Check that the state is whole.
    Verify(StateArgs),
    /// Copy the state as it is at one moment, while a server may be using it.
    #[command(after_help = "\
Example:
  gelu state backup --state /var/lib/gelu --out ledger-today.sqlite

To restore it, stop the server, put the copy in place of DIR/ledger.sqlite, and remove \
DIR/ledger.sqlite-wal.")]
    Backup(BackupArgs),
}

#[derive(Debug, Args)]
pub(crate) struct StateArgs {
    /// The folder of `gelu serve --state`.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    state: StateArgs,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    state: StateArgs,
    /// The copy, which must not be there yet.
    #[arg(long, value_name = "FILE.sqlite")]
    out: PathBuf,
}

impl StateArgs {
    /// The ledger, which must be there.
    fn ledger(&self) -> anyhow::Result<Ledger> {
        ensure!(
            Ledger::is_in(&self.state),
            "--state {}: no ledger of `gelu serve --state` is there",
            self.state.display()
        );
        Ok(Ledger::open(&self.state)?)
    }
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Show(args) => show(args),
        Command::Verify(args) => {
            let ledger = args.ledger()?;
            ledger.verify()?;
            outln!("{}: whole, {} accounts", ledger.path().display(), ledger.usage()?.len())?;
            Ok(())
        }
        Command::Backup(args) => {
            ensure!(
                !args.out.exists(),
                "--out {}: is there already; choose another name",
                args.out.display()
            );
            check_files([args.out.as_path()])?;
            args.state.ledger()?.backup(&args.out)?;
            outln!("wrote {}", args.out.display())?;
            Ok(())
        }
    }
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let ledger = args.state.ledger()?;
    let (usage, runs) = (ledger.usage()?, ledger.runs()?);
    if args.json {
        let object = |of: &Usage| -> Value {
            json!({
                "client": of.client, "model": of.model, "inputs": of.inputs, "batches": of.batches,
                "first": of.times[0], "last": of.times[1],
            })
        };
        let run = |run: &TrainingSummary| -> Value {
            let member = |of: &Enrolled| json!({ "client": of.client, "place": of.place + 1, "inputs": of.inputs, "turns": of.turns });
            let members: Vec<Value> = run.members.iter().map(member).collect();
            json!({ "model": run.model, "iterations": run.iterations, "last": run.last, "clients": members })
        };
        let (usage, runs): (Vec<Value>, Vec<Value>) =
            (usage.iter().map(object).collect(), runs.iter().map(run).collect());
        outln!("{}", json!({ "usage": usage, "training": runs }))?;
        return Ok(());
    }
    let mut table = TextTable::new(["client", "model", "inputs", "batches"]);
    for Usage { client, model, inputs, batches, .. } in usage {
        table.row([client, model, inputs.to_string(), batches.to_string()]);
    }
    outln!("{}", table.to_string().trim_end())?;
    if runs.is_empty() {
        return Ok(());
    }
    let mut table = TextTable::new(["in training", "iterations", "place", "client", "inputs", "turns"]);
    for run in &runs {
        for Enrolled { place, client, inputs, turns } in &run.members {
            table.row([
                run.model.clone(),
                run.iterations.to_string(),
                (place + 1).to_string(),
                client.clone(),
                inputs.to_string(),
                turns.to_string(),
            ]);
        }
    }
    outln!("\n{}", table.to_string().trim_end())?;
    Ok(())
}
