//! What a model made of each input, for people, for files, and against labels that are known.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use gelu_io::data::ModelInputs;
use gelu_io::files::write_atomic;
use gelu_models::train::{ConfusionMatrix, area_under_curve};
use ndarray::ArrayView2;
use serde::Serialize;

use crate::report::TextTable;

/// The most classes of a confusion matrix in the terminal.
const MOST_CLASSES: usize = 12;

/// What the model made of one input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ResultRow {
    /// Where the input is from.
    pub(super) input: String,
    /// The class that the model found.
    pub(super) class: String,
    /// The model's probability of that, from 0 to 1; not known where the client learns nothing but the class.
    pub(super) confidence: Option<f64>,
    /// The class that it is, where that is known.
    pub(super) label: Option<String>,
}

/// What the model made of all of them.
pub(super) struct Results {
    pub(super) rows: Vec<ResultRow>,
    pub(super) classes: Vec<String>,
    pub(super) labels: Vec<Option<usize>>,
    /// Over the inputs whose labels are known, if any are.
    pub(super) confusion: Option<ConfusionMatrix>,
    /// Area under the ROC curve, of two classes.
    pub(super) area: Option<f64>,
}

impl Results {
    /// Results from the model's outputs, `[images, classes]`, or from predictions alone.
    pub(super) fn new(
        inputs: &ModelInputs,
        (outputs, class_count): (ArrayView2<'_, f64>, usize),
        predictions: &[usize],
    ) -> Self {
        let ModelInputs { labels, names, classes, .. } = inputs;
        let name = |class: usize| classes.get(class).cloned().unwrap_or_else(|| class.to_string());
        let rows = predictions.iter().enumerate().map(|(at, &class)| ResultRow {
            input: names[at].clone(),
            class: name(class),
            confidence: outputs.get([at, class]).copied(),
            label: labels[at].map(name),
        });
        let known = || labels.iter().enumerate().filter_map(|(at, label)| Some((at, (*label)?)));
        let confusion = known()
            .next()
            .is_some()
            .then(|| ConfusionMatrix::new(class_count, known().map(|(at, label)| (label, predictions[at]))));
        let scored: Vec<(f64, bool)> = match outputs.ncols() {
            2 => known().map(|(at, label)| (outputs[[at, 1]], label == 1)).collect(),
            _ => vec![],
        };
        Self {
            rows: rows.collect(),
            classes: classes.clone(),
            labels: labels.clone(),
            confusion,
            area: area_under_curve(&scored),
        }
    }

    /// The share of known labels that were found.
    pub(super) fn accuracy(&self) -> Option<f64> {
        self.confusion.as_ref().map(|matrix| matrix.correct() as f64 / matrix.total().max(1) as f64)
    }

    /// Accuracy, area and confusion matrix for people; nothing without labels.
    pub(super) fn text(&self) -> String {
        let (Some(matrix), Some(accuracy)) = (&self.confusion, self.accuracy()) else { return String::new() };
        let (correct, total) = (matrix.correct(), matrix.total());
        let mut text = String::new();
        let used: Vec<usize> = (0..matrix.counts().len())
            .filter(|&class| {
                matrix.counts()[class].iter().any(|&count| count > 0)
                    || matrix.counts().iter().any(|row| row[class] > 0)
            })
            .collect();
        if used.len() <= MOST_CLASSES && total > 1 {
            let name = |class: usize| self.classes.get(class).cloned().unwrap_or_else(|| class.to_string());
            let mut table = TextTable::new(
                std::iter::once("label \\ found".to_owned()).chain(used.iter().map(|&class| name(class))),
            );
            for &label in &used {
                let counts = used.iter().map(|&prediction| matrix.counts()[label][prediction].to_string());
                table.row(std::iter::once(name(label)).chain(counts));
            }
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{table}");
        }
        let _ = writeln!(text, "correct         {correct} of {total} ({:.2}%)", 100.0 * accuracy);
        if let Some(area) = self.area {
            let _ = writeln!(
                text,
                "AUC             {area:.4} (for `{}`)",
                self.classes.get(1).map_or("1", String::as_str)
            );
        }
        text
    }
}

/// A file for the results, whose form its name says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum OutFile {
    Csv(PathBuf),
    Json(PathBuf),
}

impl FromStr for OutFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_lowercase() {
            lower if lower.ends_with(".csv") => Ok(Self::Csv(text.into())),
            lower if lower.ends_with(".json") => Ok(Self::Json(text.into())),
            _ => Err(format!("expected a name that ends in .csv or .json, found `{text}`")),
        }
    }
}

impl OutFile {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Csv(path) | Self::Json(path) => path,
        }
    }

    /// Writes a row for each input.
    pub(super) fn write(&self, results: &Results) -> anyhow::Result<()> {
        let bytes = match self {
            Self::Csv(_) => {
                let mut writer = csv::Writer::from_writer(vec![]);
                for row in &results.rows {
                    writer.serialize(row)?;
                }
                writer.into_inner()?
            }
            Self::Json(_) => serde_json::to_vec_pretty(&results.rows)?,
        };
        Ok(write_atomic(self.path(), &bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn results(labels: &[Option<usize>]) -> Results {
        let inputs = ModelInputs {
            inputs: array![[0.0], [1.0], [2.0]],
            labels: labels.to_vec(),
            names: vec!["line 2".to_owned(), "a, b.png".to_owned(), "line 4".to_owned()],
            classes: vec!["no".to_owned(), "yes".to_owned()],
            notes: vec![],
        };
        let outputs = array![[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]];
        Results::new(&inputs, (outputs.view(), 2), &[0, 0, 1])
    }

    #[test]
    fn known_labels_are_scored_and_unknown_ones_left_out() {
        let scored = results(&[Some(0), Some(1), None]);
        assert_eq!((scored.accuracy(), scored.area), (Some(0.5), Some(1.0)));
        let text = scored.text();
        for part in
            ["correct         1 of 2 (50.00%)", "AUC             1.0000 (for `yes`)", "label \\ found"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let unknown = results(&[None; 3]);
        assert!(unknown.confusion.is_none() && unknown.area.is_none() && unknown.text().is_empty());
    }

    #[test]
    fn files_have_a_row_for_each_input() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let csv: OutFile = path("results.csv").parse().unwrap();
        csv.write(&results(&[Some(0), Some(1), None])).unwrap();
        assert_eq!(
            std::fs::read_to_string(csv.path()).unwrap(),
            "input,class,confidence,label\nline 2,no,0.75,no\n\"a, b.png\",no,0.5,yes\nline 4,yes,0.75,\n"
        );
        let json: OutFile = path("results.json").parse().unwrap();
        json.write(&results(&[None; 3])).unwrap();
        let rows: serde_json::Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
        assert_eq!((&rows[2]["class"], &rows[2]["label"]), (&"yes".into(), &serde_json::Value::Null));
        assert!("results.txt".parse::<OutFile>().is_err());
    }
}
