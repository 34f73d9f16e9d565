//! `gelu data inspect`: what a data set holds.

use clap::Args;
use gelu_io::data::{ColumnSummary, Summary};
use serde_json::json;

use crate::datasets::{DataOptions, DatasetArg};
use crate::output::{out, outln};
use crate::report::TextTable;

/// Columns and classes that are listed.
const MOST_ROWS: usize = 60;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gelu data inspect iris
  gelu data inspect patients.csv --label diagnosis --missing mean
  gelu data inspect pictures/ --size 32x32
  gelu data inspect emnist/emnist-letters --transpose")]
pub(super) struct InspectArgs {
    /// A known name (`gelu data` lists them), a table, a folder of class folders with pictures, an .npz or .npy file, or a
    /// folder with IDX files.
    #[arg(value_name = "DATASET")]
    dataset: DatasetArg,
    /// Print JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: DataOptions,
}

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let set = args.options.read(&args.dataset, None)?;
    let summary = set.summary(args.options.held_out())?;
    if args.json {
        let mut object = serde_json::to_value(&summary)?;
        object["path"] = json!(set.path());
        outln!("{object:#}")?;
    } else {
        outln!("{}: {}", set.path().display(), summary.format)?;
        out!("{}", text(&summary))?;
    }
    Ok(())
}

fn text(summary: &Summary) -> String {
    let mut text = String::new();
    for note in &summary.notes {
        text += &format!("  {note}\n");
    }
    let shape = summary.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    text += &match summary.columns.is_empty() {
        true => format!("\nshape           {shape} ({} features)\n", summary.shape.iter().product::<usize>()),
        false => format!("\nfeatures        {shape}\n"),
    };
    for part in &summary.parts {
        text += &format!("{:<15} {} examples\n", part.role.name(), part.examples);
    }
    if let Some([least, most]) = summary.range {
        text += &format!("range           {} to {}\n", short(least), short(most));
    }
    if !summary.columns.is_empty() {
        text += &format!("missing values  {}\n", summary.missing);
    }
    text += &classes(summary);
    text += &columns(summary);
    if let Some(fault) = &summary.fault {
        text += &format!("\nnot ready for training: {fault}\n");
        if let Some(advice) = (summary.missing > 0).then_some(crate::advice::MISSING) {
            text += &format!("help: {advice}\n");
        }
    }
    text
}

fn classes(summary: &Summary) -> String {
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in summary.parts.iter().flat_map(|part| &part.classes) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return "classes         none: no labels\n".to_owned();
    }
    let mut header = vec!["class".to_owned()];
    header.extend(summary.parts.iter().map(|part| part.role.name().to_owned()));
    let mut table = TextTable::new(header);
    for name in names.iter().take(MOST_ROWS) {
        let count = |classes: &[(String, usize)]| {
            classes.iter().find(|(other, _)| other == *name).map_or(0, |(_, count)| *count).to_string()
        };
        let counts = summary.parts.iter().map(|part| count(&part.classes));
        table.row(std::iter::once((*name).clone()).chain(counts));
    }
    let more = match names.len().checked_sub(MOST_ROWS) {
        Some(more) if more > 0 => format!("... and {more} more (--json lists all)\n"),
        _ => String::new(),
    };
    format!("classes         {}\n\n{table}{more}", names.len())
}

fn columns(summary: &Summary) -> String {
    if summary.columns.is_empty() {
        return String::new();
    }
    let mut table = TextTable::new(["column", "name", "holds", "missing", "min", "max", "mean", "words"]);
    for (at, column) in summary.columns.iter().enumerate().take(MOST_ROWS) {
        let ColumnSummary { name, is_label, missing, numbers, distinct, words } = column;
        let holds = match (is_label, numbers) {
            (true, _) => "labels".to_owned(),
            (false, Some(_)) => "numbers".to_owned(),
            (false, None) => format!("{distinct} words"),
        };
        let [least, most, mean] = numbers.map_or([const { String::new() }; 3], |numbers| numbers.map(short));
        let words: Vec<String> = words.iter().map(|(word, count)| format!("{word} ({count})")).collect();
        let row = [
            (at + 1).to_string(),
            name.clone(),
            holds,
            missing.to_string(),
            least,
            most,
            mean,
            words.join(", "),
        ];
        table.row(row);
    }
    let more = match summary.columns.len().checked_sub(MOST_ROWS) {
        Some(more) if more > 0 => format!("... and {more} more (--json lists all)\n"),
        _ => String::new(),
    };
    format!("\n{table}{more}")
}

/// A number with four decimals at most.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
