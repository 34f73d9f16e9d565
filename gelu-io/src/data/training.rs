//! From a data set to what a network is trained and tested with.

use std::path::Path;

use gelu_models::train::{Dataset, stratified_split};
use gelu_models::{PixelFormat, Preprocessing};
use gelu_tensor::Shape;
use ndarray::Array2;

use super::columns::{encode, measure};
use super::model_inputs::places_by_name;
use super::rows::{Missing, class_name, classes, kept, label_of};
use super::set::Contents;
use super::{DataSet, Inputs, Part, Role, Table};
use crate::Error;

#[cfg(test)]
mod tests;

/// Examples to train and to test with, and what a model must know to read others like them.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// To train with.
    pub train: Dataset,
    /// To test with.
    pub test: Dataset,
    /// How inputs were prepared.
    pub preprocessing: Preprocessing,
    /// The classes' names, in the order of the labels.
    pub classes: Vec<String>,
    /// The column of labels, of a table.
    pub label: Option<String>,
    /// What people should know about the choices that were made.
    pub notes: Vec<String>,
}

impl DataSet {
    /// Prepares the data set for training. Where the files have no test part, `held_out` of the examples (from 0 to 1)
    /// become one, drawn by `seed` with the same share of every class. Means, standard deviations and values for missing
    /// numbers are those of the training part.
    ///
    /// # Errors
    /// [`Error::TooFew`] without labels, with one class only, or when no example is left to test with;
    /// [`Error::Target`], [`Error::MissingValue`], [`Error::Cell`], [`Error::Column`] for a table;
    /// [`Error::Format`] for numbers that are not finite.
    pub fn training(&self, held_out: f64, seed: u64) -> Result<TrainingData, Error> {
        let data = match &self.contents {
            Contents::Tables { table, test, label, missing } => {
                let label = label_of(table, label.as_deref())?;
                let name = table.names()[label.column].clone();
                let mut data = match test {
                    Some(test) => tables([table, test], label.column, missing)?,
                    None => one_table(table, label.column, missing, held_out, seed)?,
                };
                data.notes.insert(0, label.reason);
                TrainingData { label: Some(name), ..data }
            }
            Contents::Parts { parts, classes, digits } => {
                let data = self.parts(parts, classes, held_out, seed)?;
                let preprocessing = match parts.first().map(|part| &part.inputs) {
                    Some(Inputs::Pixels(_)) => {
                        Preprocessing::Pixels(PixelFormat { digits: *digits, ..PixelFormat::default() })
                    }
                    _ => Preprocessing::Raw,
                };
                TrainingData { preprocessing, ..data }
            }
        };
        check(&self.path, &data)?;
        Ok(data)
    }

    fn parts(
        &self,
        parts: &[Part],
        classes: &[String],
        held_out: f64,
        seed: u64,
    ) -> Result<TrainingData, Error> {
        let find = |role: Role| parts.iter().find(|part| part.role == role);
        let none = |what: &str| Error::TooFew {
            path: self.path.clone(),
            expected: "labelled examples to train with",
            found: what.to_owned(),
        };
        let train = find(Role::Train).or_else(|| find(Role::All)).ok_or_else(|| none("a test part alone"))?;
        let dataset = |part: &Part| -> Result<Dataset, Error> {
            let labels = part.labels.clone().ok_or_else(|| none("inputs without labels"))?;
            dataset(&self.path, part.inputs.shape(), as_numbers(&part.inputs)?, labels, classes.len())
        };
        let mut notes = Vec::new();
        if let Some(validation) = find(Role::Validation) {
            notes.push(format!("the validation part ({} examples) is left out", validation.inputs.len()));
        }
        let train = dataset(train)?;
        let [train, test] = match find(Role::Test) {
            Some(test) => [train, dataset(test)?],
            None => {
                notes.push(held_out_note(held_out, seed));
                train.split(held_out, seed)
            }
        };
        Ok(TrainingData {
            train,
            test,
            preprocessing: Preprocessing::Raw,
            classes: classes.to_vec(),
            label: None,
            notes,
        })
    }
}

fn held_out_note(held_out: f64, seed: u64) -> String {
    format!("{:.0} % of the examples are kept for testing, drawn by seed {seed}", 100.0 * held_out)
}

fn check(path: &Path, data: &TrainingData) -> Result<(), Error> {
    let TrainingData { train, test, classes, .. } = data;
    let too_few =
        |expected: &'static str, found: String| Err(Error::TooFew { path: path.to_owned(), expected, found });
    let mut seen: Vec<usize> = train.labels().to_vec();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() < 2 {
        let only = seen.first().map_or("none".to_owned(), |&class| format!("only `{}`", classes[class]));
        return too_few("examples of two classes at least to train with", only);
    }
    if test.is_empty() {
        return too_few("examples to test with", format!("none beside {} to train with", train.len()));
    }
    Ok(())
}

/// Inputs as numbers: pixels from 0 to 1, numbers as they are.
pub(super) fn as_numbers(inputs: &Inputs) -> Result<Array2<f32>, Error> {
    Ok(match inputs {
        Inputs::Numbers { values, .. } => values.clone(),
        Inputs::Pixels(images) => {
            let elements = images.channels() * images.size()[0] * images.size()[1];
            let values = images.to_inputs().into_raw_vec_and_offset().0;
            // Both are the images' own extents, so that there is no error to drop.
            Array2::from_shape_vec((images.count(), elements), values).unwrap_or_default()
        }
    })
}

fn dataset(
    path: &Path,
    shape: Shape,
    inputs: Array2<f32>,
    labels: Vec<usize>,
    classes: usize,
) -> Result<Dataset, Error> {
    Dataset::new(shape, inputs, labels, classes)
        .map_err(|error| Error::format(path, "labelled inputs of finite numbers", error.to_string()))
}

/// A table's columns but that of the labels.
fn features(table: &Table, label: usize) -> Vec<usize> {
    (0..table.names().len()).filter(|&column| column != label).collect()
}

fn one_table(
    table: &Table,
    label: usize,
    missing: &Missing,
    held_out: f64,
    seed: u64,
) -> Result<TrainingData, Error> {
    let features = features(table, label);
    let rows = kept(table, &all_columns(table), missing)?;
    let counted = classes(table, &rows, label)?;
    let names: Vec<String> = counted.iter().map(|(name, _)| name.clone()).collect();
    let labels = labels(table, &rows, label, &names)?;
    let parts = stratified_split(&labels, held_out, seed);
    let [train, test] = [0, 1].map(|part| parts[part].iter().map(|&at| rows[at]).collect::<Vec<usize>>());
    let columns = measure(table, &features, &rows, &train, missing)?;
    let part = |at: usize, rows: &[usize]| -> Result<Dataset, Error> {
        let inputs = encode(table, &columns, &features, rows, missing)?;
        let labels = parts[at].iter().map(|&at| labels[at]).collect();
        dataset(table.path(), Shape::from([inputs.ncols()]), inputs, labels, names.len())
    };
    let mut notes = dropped_note(table, &rows);
    notes.push(held_out_note(held_out, seed));
    let [train, test] = [part(0, &train)?, part(1, &test)?];
    Ok(TrainingData {
        train,
        test,
        preprocessing: Preprocessing::Columns(columns),
        classes: names,
        label: None,
        notes,
    })
}

/// Trains on one table and tests on another, whose columns are found by name where both have names.
fn tables([train, test]: [&Table; 2], label: usize, missing: &Missing) -> Result<TrainingData, Error> {
    let features = features(train, label);
    let rows = kept(train, &all_columns(train), missing)?;
    let names: Vec<String> = classes(train, &rows, label)?.into_iter().map(|(name, _)| name).collect();
    let columns = measure(train, &features, &rows, &rows, missing)?;
    let wanted: Vec<&str> = train.names().iter().map(String::as_str).collect();
    let places = match train.format().header && test.format().header {
        true => places_by_name(test, &wanted)?,
        false if test.names().len() == wanted.len() => (0..wanted.len()).collect(),
        false => {
            return Err(Error::format(
                test.path(),
                format!("{} columns, as in {}", wanted.len(), train.path().display()),
                test.names().len().to_string(),
            ));
        }
    };
    let test_rows = kept(test, &places, missing)?;
    let feature_places: Vec<usize> = features.iter().map(|&column| places[column]).collect();
    let part = |table: &Table, label: usize, places: &[usize], rows: &[usize]| -> Result<Dataset, Error> {
        let inputs = encode(table, &columns, places, rows, missing)?;
        let labels = labels(table, rows, label, &names)?;
        dataset(table.path(), Shape::from([inputs.ncols()]), inputs, labels, names.len())
    };
    let notes = [dropped_note(train, &rows), dropped_note(test, &test_rows)].concat();
    let test = part(test, places[label], &feature_places, &test_rows)?;
    let train = part(train, label, &features, &rows)?;
    Ok(TrainingData {
        train,
        test,
        preprocessing: Preprocessing::Columns(columns),
        classes: names,
        label: None,
        notes,
    })
}

fn all_columns(table: &Table) -> Vec<usize> {
    (0..table.names().len()).collect()
}

fn dropped_note(table: &Table, rows: &[usize]) -> Vec<String> {
    let dropped = table.len() - rows.len();
    let note = || format!("{dropped} of {} rows lack a value and are left out", table.len());
    (dropped > 0).then(note).into_iter().collect()
}

/// The place of each row's class among `names`.
pub(super) fn labels(
    table: &Table,
    rows: &[usize],
    label: usize,
    names: &[String],
) -> Result<Vec<usize>, Error> {
    let place = |&row: &usize| {
        let (cell, name) = (table.cell(row, label), class_name(table.cell(row, label)));
        let found = names.iter().position(|other| *other == name || other == cell);
        found.ok_or_else(|| {
            table.cell_error(row, label, format!("one of the classes {}", super::columns::list(names)))
        })
    };
    rows.iter().map(place).collect()
}
