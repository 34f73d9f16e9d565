//! `gelu data`: where data sets are looked for and what is there.

use std::{
    collections::BTreeSet,
    io::{IsTerminal, stderr},
    path::{Path, PathBuf},
};

use anyhow::bail;
use clap::Args;
use gelu_io::{
    Error,
    data::{DataDir, Encoding, LabelledImages, Place, Split, Table},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::download::{MNIST_MIRRORS, Progress, download_mnist};
use crate::output::{note, out, outln};
use crate::report::TextTable;

/// Show where data sets are looked for and what is there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu data
  gelu data --download --data ~/datasets")]
pub(crate) struct DataArgs {
    /// Folder with `mnist/` and `uci/` [default: $GELU_DATA, then the per-user data folder]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Fetch MNIST (12 MB) from its public mirrors first, checking each file's SHA-256
    #[arg(long)]
    download: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// One data set in one folder.
#[derive(Debug, Serialize)]
struct Found {
    data_set: &'static str,
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
    let data = DataDir::locate(args.data);
    if args.download {
        download(&data)?;
    }
    let found: Vec<Found> = data.places().iter().flat_map(|place| inspect(&place.path)).collect();
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

/// All data sets in `folder`.
fn inspect(folder: &Path) -> Vec<Found> {
    let data = DataDir::locate(Some(folder.to_owned()));
    let images = |set: LabelledImages| State::Good {
        samples: set.len(),
        features: set.images().size().iter().product(),
        classes: 10,
    };
    let table = |table: Table| State::Good {
        samples: table.len(),
        features: table.features(),
        classes: table.class_names().len(),
    };
    [
        ("MNIST, training", data.mnist(Split::Train).map(images)),
        ("MNIST, test", data.mnist(Split::Test).map(images)),
        ("Iris", data.iris().map(table)),
        ("Diabetes", data.diabetes().map(table)),
        ("Chess (kr-vs-kp)", data.chess(Encoding::Ordinal).map(table)),
    ]
    .into_iter()
    .map(|(data_set, outcome)| {
        let state = outcome.unwrap_or_else(|error| match error {
            Error::DataNotFound { .. } => State::Missing,
            other => State::Broken { error: other.to_string() },
        });
        Found { data_set, folder: folder.display().to_string(), state }
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
                (*data_set).to_owned(),
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
    let is_missing_everywhere = |name: &str| {
        let mut states = found.iter().filter(|found| found.data_set == name).map(|found| &found.state);
        states.all(|state| matches!(state, State::Missing))
    };
    let names: BTreeSet<&str> = found.iter().map(|found| found.data_set).collect();
    let missing: Vec<&str> = names.into_iter().filter(|name| is_missing_everywhere(name)).collect();
    if !missing.is_empty() {
        text.push_str(&format!("\nmissing: {}\n", missing.join("; ")));
        if missing.iter().any(|name| name.starts_with("MNIST")) {
            text.push_str("`gelu data --download` fetches MNIST.\n");
        }
    }
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
