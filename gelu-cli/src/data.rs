//! `gelu data`: where data sets are looked for and what is there.

mod inspect;

use std::{
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
};

use anyhow::bail;
use clap::{Args, Subcommand};
use gelu_io::{
    Error,
    data::{DataDir, KnownSet, Place, Summary},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::download::{MNIST_MIRRORS, Progress, download_mnist};
use crate::output::{note, out, outln};
use crate::report::TextTable;

/// Show where data sets are looked for and what is there; look into one.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  gelu data
  gelu data --download --data ~/datasets
  gelu data inspect patients.csv --label diagnosis --missing mean
  gelu data inspect pneumoniamnist")]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: Option<DataCommand>,
    /// Folder with `mnist/`, `uci/` and other known data sets [default: $GELU_DATA, then the per-user data folder]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Fetch MNIST (12 MB) from its public mirrors first, checking each file's SHA-256
    #[arg(long)]
    download: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Say what a data set holds: rows, features, shape, classes, missing values, ranges.
    Inspect(inspect::InspectArgs),
}

/// One data set in one folder.
#[derive(Debug, Serialize)]
struct Found {
    data_set: String,
    folder: String,
    #[serde(flatten)]
    state: State,
}

#[derive(Debug, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum State {
    /// Read without fault.
    Good {
        samples: usize,
        features: usize,
        classes: usize,
    },
    /// There, but wrong.
    Broken {
        error: String,
    },
    Missing,
}

/// Runs the subcommand.
///
/// # Errors
/// When the download fails or a data set is there but broken. Missing ones are no failure.
pub(crate) fn run(args: DataArgs) -> anyhow::Result<()> {
    if let Some(DataCommand::Inspect(args)) = &args.command {
        return inspect::run(args);
    }
    let data = DataDir::locate(args.data);
    if args.download {
        download(&data)?;
    }
    let found: Vec<Found> = data.places().iter().flat_map(|place| list(&place.path)).collect();
    if args.json {
        let places: Vec<_> = data
            .places()
            .iter()
            .map(|place| serde_json::json!({ "folder": place.path.display().to_string(), "named_by": named_by(place) }))
            .collect();
        outln!("{:#}", serde_json::json!({ "places": places, "data_sets": found }))?;
    } else {
        out!("{}", as_text(&data, &found))?;
    }
    match found.iter().filter(|found| matches!(found.state, State::Broken { .. })).count() {
        0 => Ok(()),
        broken => bail!("{broken} of the data sets cannot be read; replace the files named above"),
    }
}

/// All known data sets in `folder`, part by part.
fn list(folder: &Path) -> Vec<Found> {
    let data = DataDir::locate(Some(folder.to_owned()));
    let found =
        |data_set: String, state: State| Found { data_set, folder: folder.display().to_string(), state };
    let parts = |known: &KnownSet, summary: Summary| -> Vec<Found> {
        let classes = |counts: &[(String, usize)]| counts.len();
        let features = summary.shape.iter().product();
        let good = |samples, classes| State::Good { samples, features, classes };
        match &summary.parts[..] {
            [whole] => vec![found(known.title().to_owned(), good(whole.examples, classes(&whole.classes)))],
            parts => parts
                .iter()
                .map(|part| {
                    let name = format!("{}, {}", known.title(), part.role.name());
                    found(name, good(part.examples, classes(&part.classes)))
                })
                .collect(),
        }
    };
    KnownSet::all()
        .iter()
        .flat_map(|known| {
            let path = match data.find(known) {
                Ok(path) => path,
                Err(Error::DataNotFound { .. }) => {
                    return vec![found(known.title().to_owned(), State::Missing)];
                }
                Err(error) => {
                    return vec![found(known.title().to_owned(), State::Broken { error: error.to_string() })];
                }
            };
            let summary =
                known.read(&path, &Default::default()).and_then(|set| set.summary(crate::datasets::HELD_OUT));
            match summary {
                Ok(summary) => parts(known, summary),
                Err(error) => {
                    vec![found(known.title().to_owned(), State::Broken { error: error.to_string() })]
                }
            }
        })
        .collect()
}

fn as_text(data: &DataDir, found: &[Found]) -> String {
    let mut text = String::from("Data sets are looked for in\n");
    for place in data.places() {
        text.push_str(&format!("  {} ({})\n", place.path.display(), named_by(place)));
    }
    if data.places().is_empty() {
        text.push_str("  no folder at all: name one with --data or GELU_DATA\n");
    }
    let mut table = TextTable::new(["data set", "samples", "features", "classes", "folder"]);
    let mut is_anything_there = false;
    for Found { data_set, folder, state } in found {
        if let State::Good { samples, features, classes } = state {
            is_anything_there = true;
            table.row([
                data_set.clone(),
                samples.to_string(),
                features.to_string(),
                classes.to_string(),
                folder.clone(),
            ]);
        }
    }
    if is_anything_there {
        text.push_str(&format!("\n{table}"));
    }
    for Found { data_set, state, .. } in found {
        if let State::Broken { error } = state {
            text.push_str(&format!("\nbroken: {data_set}: {error}\n"));
        }
    }
    let is_missing_everywhere = |title: &&str| {
        // Parts have the title and a name of their own behind a comma.
        let of_set = |found: &&Found| found.data_set.starts_with(title);
        found.iter().filter(of_set).all(|found| matches!(found.state, State::Missing))
    };
    let titles = KnownSet::all().iter().map(KnownSet::title);
    let missing: Vec<&str> = titles.filter(is_missing_everywhere).collect();
    if !missing.is_empty() {
        text.push_str(&format!("\nmissing: {}\n", missing.join("; ")));
        if missing.iter().any(|name| name.starts_with("MNIST")) {
            text.push_str("`gelu data --download` fetches MNIST.\n");
        }
    }
    let known: Vec<&str> = KnownSet::all().iter().map(KnownSet::name).collect();
    text.push_str(&format!("\nknown names: {}; `gelu data inspect NAME` looks into one\n", known.join(", ")));
    text
}

/// Fetches MNIST, with a progress bar on a terminal and a line a file elsewhere (both on the standard error).
fn download(data: &DataDir) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes}")?;
    let bar = if stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
    bar.set_style(style);
    let mut current = String::new();
    let folder = download_mnist(data, &MNIST_MIRRORS, |Progress { file, received, total }| {
        if current != file {
            current = file.to_owned();
            if bar.is_hidden() {
                note!("fetching {file}");
            }
            bar.set_message(current.clone());
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(received);
    });
    bar.finish_and_clear();
    note!("MNIST is in {}", folder?.display());
    Ok(())
}

/// Who named a folder, in terms of this command.
fn named_by(place: &Place) -> &'static str {
    if place.origin == Place::CALLER { "--data" } else { place.origin }
}
