//! What a data set holds, in numbers.

use serde::Serialize;

use super::columns::{Kind, kind_of};
use super::rows::{Missing, classes, label_of};
use super::set::Contents;
use super::table::{is_missing, number};
use super::{DataSet, Inputs, Part, Role, Table};
use crate::Error;

/// Words of a column that are listed, the most frequent first.
const MOST_WORDS: usize = 6;

/// What a data set holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// What its files are, for people.
    pub format: String,
    /// The shape of an input; of a table, the number of its features.
    pub shape: Vec<usize>,
    /// Its parts.
    pub parts: Vec<PartSummary>,
    /// The columns of a table.
    pub columns: Vec<ColumnSummary>,
    /// The smallest and the largest number of images and arrays, over all parts.
    pub range: Option<[f64; 2]>,
    /// How many values of a table are missing.
    pub missing: usize,
    /// What else was found out about the files.
    pub notes: Vec<String>,
    /// Why it cannot be trained on as it is.
    pub fault: Option<String>,
}

/// One part of a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartSummary {
    /// What it is for.
    pub role: Role,
    /// How many examples it has.
    pub examples: usize,
    /// The classes and how many examples each has; empty without labels.
    pub classes: Vec<(String, usize)>,
}

/// One column of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColumnSummary {
    /// Its name.
    pub name: String,
    /// Whether it holds the labels.
    pub is_label: bool,
    /// How many of its values are missing.
    pub missing: usize,
    /// The smallest number, the largest and the mean, of a column of numbers.
    pub numbers: Option<[f64; 3]>,
    /// How many different words there are, of a column of words.
    pub distinct: usize,
    /// The most frequent of them and how often they occur.
    pub words: Vec<(String, usize)>,
}

impl DataSet {
    /// Returns what the data set holds, and why it could not be trained on, if it could not with `held_out` of a set in
    /// one piece kept for testing (from 0 to 1).
    ///
    /// # Errors
    /// [`Error::Column`] for a column of labels that the table has not.
    pub fn summary(&self, held_out: f64) -> Result<Summary, Error> {
        let mut summary = match &self.contents {
            Contents::Tables { table, test, label, missing } => {
                let label = label_of(table, label.as_deref())?;
                let mut parts =
                    vec![rows(table, label.column, if test.is_some() { Role::Train } else { Role::All })];
                parts.extend(
                    test.iter().map(|test| rows(test, label.column.min(test.names().len() - 1), Role::Test)),
                );
                let columns: Vec<ColumnSummary> =
                    (0..table.names().len()).map(|at| column(table, at, at == label.column)).collect();
                let lacking = columns.iter().map(|column| column.missing).sum();
                let mut notes = vec![label.reason];
                if *missing != Missing::Refuse && lacking > 0 {
                    notes.push(format!("{lacking} missing values: {}", treatment(missing)));
                }
                let (shape, fault) = (vec![columns.len() - 1], self.training(held_out, 0).err());
                (shape, parts, columns, None, lacking, notes, fault)
            }
            Contents::Parts { parts, classes, .. } => {
                let range = parts
                    .iter()
                    .map(|part| range(&part.inputs))
                    .reduce(|a, b| [a[0].min(b[0]), a[1].max(b[1])]);
                let shape = parts.first().map_or(vec![], |part| part.inputs.shape().dims().to_vec());
                let summaries: Vec<PartSummary> = parts.iter().map(|part| counts(part, classes)).collect();
                let fault = self.fault(&summaries, held_out);
                (shape, summaries, vec![], range, 0, vec![], fault)
            }
        };
        summary.5.splice(0..0, self.notes.iter().cloned());
        let (shape, parts, columns, range, missing, notes, fault) = summary;
        let fault = fault.map(|error| error.to_string());
        Ok(Summary { format: self.format.clone(), shape, parts, columns, range, missing, notes, fault })
    }

    /// Why images or numbers could not be trained on, without copying them.
    fn fault(&self, parts: &[PartSummary], held_out: f64) -> Option<Error> {
        let too_few = |expected, found: &str| {
            Some(Error::TooFew { path: self.path.clone(), expected, found: found.to_owned() })
        };
        let train = parts.iter().find(|part| matches!(part.role, Role::Train | Role::All));
        let Some(train) = train else { return too_few("examples to train with", "none") };
        match train.classes.iter().filter(|(_, count)| *count > 0).count() {
            0 => return too_few("labelled examples to train with", "inputs without labels"),
            1 => return too_few("examples of two classes at least to train with", "one class only"),
            _ => {}
        }
        let has_test = parts.iter().any(|part| part.role == Role::Test);
        if !has_test && (train.examples as f64 * held_out).round() < 1.0 {
            return too_few("examples to test with", "none");
        }
        None
    }
}

fn treatment(missing: &Missing) -> String {
    match missing {
        Missing::Refuse => "an error".to_owned(),
        Missing::Drop => "rows that lack one are left out".to_owned(),
        Missing::Mean => "the column's mean stands in their place".to_owned(),
        Missing::Value(value) => format!("`{value}` stands in their place"),
    }
}

fn rows(table: &Table, label: usize, role: Role) -> PartSummary {
    let labelled: Vec<usize> = (0..table.len()).filter(|&row| !is_missing(table.cell(row, label))).collect();
    // Measurements are told as the fault of the whole.
    let classes = classes(table, &labelled, label).unwrap_or_default();
    PartSummary { role, examples: table.len(), classes }
}

fn column(table: &Table, at: usize, is_label: bool) -> ColumnSummary {
    let rows: Vec<usize> = (0..table.len()).collect();
    let missing = rows.iter().filter(|&&row| is_missing(table.cell(row, at))).count();
    let empty = ColumnSummary {
        name: table.names()[at].clone(),
        is_label,
        missing,
        numbers: None,
        distinct: 0,
        words: vec![],
    };
    match kind_of(table, &rows, at) {
        Ok(Kind::Words(words)) => {
            let distinct = words.len();
            let mut words: Vec<(String, usize)> = words.into_iter().collect();
            words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            words.truncate(MOST_WORDS);
            ColumnSummary { distinct, words, ..empty }
        }
        // A column that is not all numbers is told as the fault of the whole.
        Ok(Kind::Numbers) | Err(_) => {
            let values: Vec<f64> =
                rows.iter().filter_map(|&row| number(table.cell(row, at))).map(f64::from).collect();
            if values.is_empty() {
                return empty;
            }
            let (least, most) = bounds(values.iter().copied());
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            ColumnSummary { numbers: Some([least, most, mean]), ..empty }
        }
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)))
}

fn range(inputs: &Inputs) -> [f64; 2] {
    let (least, most) = match inputs {
        Inputs::Pixels(images) => bounds(images.pixels().iter().map(|&pixel| f64::from(pixel))),
        Inputs::Numbers { values, .. } => bounds(values.iter().map(|&value| f64::from(value))),
    };
    [least, most]
}

fn counts(part: &Part, classes: &[String]) -> PartSummary {
    let mut counted: Vec<(String, usize)> = Vec::new();
    if let Some(labels) = &part.labels {
        counted = classes.iter().map(|class| (class.clone(), 0)).collect();
        labels.iter().for_each(|&label| counted[label].1 += 1);
    }
    PartSummary { role: part.role, examples: part.inputs.len(), classes: counted }
}
