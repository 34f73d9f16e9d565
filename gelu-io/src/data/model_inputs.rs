//! From a data set to the inputs of a model that was trained before.

use gelu_models::train::stratified_split;
use gelu_models::{Column, ModelInfo, PixelFormat, Preprocessing};
use gelu_tensor::Shape;
use ndarray::{Array2, Axis};

use super::columns::{encode, list};
use super::rows::{Missing, classes, kept, label_of, named_label};
use super::set::Contents;
use super::table::is_missing;
use super::training::{as_numbers, labels};
use super::{DataSet, Inputs, Part, Role, Table};
use crate::Error;

#[cfg(test)]
mod tests;

/// The key of [`ModelInfo::provenance`] under which the name of the column of labels travels.
const LABEL: &str = "gelu.label";

/// Inputs as a model takes them.
#[derive(Clone, Debug)]
pub struct ModelInputs {
    /// `[inputs, elements of the model's input]`.
    pub inputs: Array2<f32>,
    /// The class of each among the model's outputs, where it is known.
    pub labels: Vec<Option<usize>>,
    /// Where each is from: a picture's file, a table's line, or its number from 0.
    pub names: Vec<String>,
    /// The names of the model's classes.
    pub classes: Vec<String>,
    /// What people should know about how they were read.
    pub notes: Vec<String>,
}

impl ModelInputs {
    /// Keeps the first `count` of them.
    pub fn truncate(&mut self, count: usize) {
        let count = count.min(self.names.len());
        self.inputs = self.inputs.slice_axis(Axis(0), (..count).into()).to_owned();
        self.labels.truncate(count);
        self.names.truncate(count);
    }

    fn select(&self, indices: &[usize]) -> Self {
        Self {
            inputs: self.inputs.select(Axis(0), indices),
            labels: indices.iter().map(|&at| self.labels[at]).collect(),
            names: indices.iter().map(|&at| self.names[at].clone()).collect(),
            ..self.clone()
        }
    }
}

impl DataSet {
    /// Prepares the data set for a model that takes inputs of the shape `input` and has `outputs` classes, as its
    /// `info` says: the test part where there is one, else all. Columns of a table are found by name, or by place without
    /// a header, and encoded as the model's own, never measured again. Classes are matched by name.
    ///
    /// # Errors
    /// [`Error::Unfit`] for another kind or shape of inputs than the model's; [`Error::Column`], [`Error::Cell`] and
    /// [`Error::MissingValue`] for a table.
    pub fn for_model(&self, info: &ModelInfo, input: &Shape, outputs: usize) -> Result<ModelInputs, Error> {
        let unfit =
            |expected: String, found: String| Error::Unfit { path: self.path.clone(), expected, found };
        let mut inputs = match (&self.contents, &info.preprocessing) {
            (Contents::Tables { table, test, label, missing }, Some(Preprocessing::Columns(columns))) => {
                let table = test.as_deref().unwrap_or(table);
                Reading { table, columns, info, missing, outputs }.inputs(label.as_deref())?
            }
            (Contents::Tables { .. }, _) => {
                return Err(unfit(
                    format!("inputs of {input}"),
                    "a table, of whose columns the model knows nothing".to_owned(),
                ));
            }
            (Contents::Parts { .. }, Some(Preprocessing::Columns(columns))) => {
                return Err(unfit(format!("a table of {} columns", columns.len()), self.format.clone()));
            }
            (Contents::Parts { parts, classes, .. }, preprocessing) => {
                let find = |role: Role| parts.iter().find(|part| part.role == role);
                let part = [Role::Test, Role::All, Role::Validation, Role::Train].into_iter().find_map(find);
                let part = part.ok_or_else(|| unfit("examples".to_owned(), "none".to_owned()))?;
                let (expected, found) = (input.to_string(), part.inputs.shape());
                if found != *input && !(input.dims().len() == 1 && found.elements() == input.elements()) {
                    let count = part.inputs.len();
                    let is_one = matches!(*input.dims(), [channels, height, width]
                        if channels == count && found == Shape::from([1, height, width]));
                    // Channels alone look like as many inputs.
                    let found = match is_one {
                        true => format!(
                            "{count} inputs of {found}, or one of {input} without an axis for the number of inputs: its \
                             array must be [1, {count}, ...]"
                        ),
                        false => found.to_string(),
                    };
                    return Err(unfit(format!("inputs of {expected}"), found));
                }
                let numbers = match (&part.inputs, preprocessing) {
                    (Inputs::Numbers { .. }, Some(Preprocessing::Pixels(_))) => {
                        return Err(unfit("pictures".to_owned(), "numbers of no known scale".to_owned()));
                    }
                    (Inputs::Pixels(_), Some(Preprocessing::Raw)) => {
                        return Err(unfit("numbers".to_owned(), "pictures".to_owned()));
                    }
                    (Inputs::Pixels(images), Some(Preprocessing::Pixels(format))) => {
                        normalized(as_numbers(&part.inputs)?, images.channels(), format)
                    }
                    _ => as_numbers(&part.inputs)?,
                };
                self.part(part, numbers, classes, info, outputs)?
            }
        };
        inputs.notes.splice(0..0, self.notes.iter().cloned());
        if inputs.inputs.ncols() != input.elements() {
            return Err(unfit(format!("inputs of {input}"), format!("{} numbers", inputs.inputs.ncols())));
        }
        Ok(inputs)
    }

    /// Prepares inputs as [`for_model`](Self::for_model) does: first those that settings can be chosen by, which are the
    /// validation part or else what there is to train with, then those to test with. A data set in one piece is divided as
    /// [`training`](Self::training) with the same `held_out` and `seed` divides it.
    ///
    /// # Errors
    /// As [`for_model`](Self::for_model); [`Error::TooFew`] for a data set in one piece without labels.
    pub fn divided_for_model(
        &self,
        info: &ModelInfo,
        input: &Shape,
        outputs: usize,
        held_out: f64,
        seed: u64,
    ) -> Result<[ModelInputs; 2], Error> {
        let found = self.for_model(info, input, outputs)?;
        if self.has_test_part() {
            return Ok([self.without_test_part().for_model(info, input, outputs)?, found]);
        }
        let labels: Option<Vec<usize>> = found.labels.iter().copied().collect();
        let labels = labels.ok_or_else(|| Error::TooFew {
            path: self.path.clone(),
            expected: "labels to divide the examples by",
            found: "examples without".to_owned(),
        })?;
        Ok(stratified_split(&labels, held_out, seed).map(|part| found.select(&part)))
    }

    fn part(
        &self,
        part: &Part,
        inputs: Array2<f32>,
        classes: &[String],
        info: &ModelInfo,
        outputs: usize,
    ) -> Result<ModelInputs, Error> {
        let names = match part.names.is_empty() {
            true => (0..part.inputs.len()).map(|at| at.to_string()).collect(),
            false => part.names.clone(),
        };
        let known = names_of(info, classes, outputs);
        let mut notes = Vec::new();
        let places: Vec<Option<usize>> =
            classes.iter().map(|class| known.iter().position(|other| other == class)).collect();
        let labels = match &part.labels {
            // Names that have nothing to do with the model's say nothing about what it should find.
            Some(_) if places.iter().all(Option::is_none) => {
                notes.push(format!(
                    "none of the classes {} is one of the model's ({})",
                    list(classes),
                    list(&known)
                ));
                vec![None; names.len()]
            }
            Some(labels) => {
                let found = labels.iter().map(|&label| {
                    places[label].map(Some).ok_or_else(|| Error::Unfit {
                        path: self.path.clone(),
                        expected: format!("the classes {}", list(&known)),
                        found: format!("the class `{}`", classes[label]),
                    })
                });
                found.collect::<Result<Vec<_>, _>>()?
            }
            None => vec![None; names.len()],
        };
        Ok(ModelInputs { inputs, labels, names, classes: known, notes })
    }
}

/// The names of a model's classes; where it has none, those of the data set if they are as many, else numbers.
fn names_of(info: &ModelInfo, classes: &[String], outputs: usize) -> Vec<String> {
    if !info.classes.is_empty() {
        return info.classes.clone();
    }
    if classes.len() == outputs {
        return classes.to_vec();
    }
    (0..outputs).map(|class| class.to_string()).collect()
}

fn normalized(mut inputs: Array2<f32>, channels: usize, format: &PixelFormat) -> Array2<f32> {
    let Some(normalization) = &format.normalization else { return inputs };
    let plane = inputs.ncols() / channels.max(1);
    let of = |values: &[f32], channel: usize, neutral: f32| {
        values.get(channel).or_else(|| values.first()).copied().unwrap_or(neutral)
    };
    for (at, mut column) in inputs.axis_iter_mut(Axis(1)).enumerate() {
        let channel = at / plane.max(1);
        let (mean, std) = (of(&normalization.mean, channel, 0.0), of(&normalization.std, channel, 1.0));
        column.mapv_inplace(|value| (value - mean) / std);
    }
    inputs
}

/// The columns of those names.
pub(super) fn places_by_name(table: &Table, wanted: &[&str]) -> Result<Vec<usize>, Error> {
    let place = |name: &&str| {
        let names = table.names();
        let exact = names.iter().position(|other| other == name);
        exact.or_else(|| names.iter().position(|other| other.eq_ignore_ascii_case(name))).ok_or_else(|| {
            Error::Column {
                path: table.path().to_owned(),
                wanted: format!("`{name}`"),
                found: names.to_vec(),
            }
        })
    };
    wanted.iter().map(place).collect()
}

/// A table that a model with columns of its own reads.
struct Reading<'a> {
    table: &'a Table,
    columns: &'a [Column],
    info: &'a ModelInfo,
    missing: &'a Missing,
    outputs: usize,
}

impl Reading<'_> {
    fn inputs(&self, label: Option<&str>) -> Result<ModelInputs, Error> {
        let Self { table, columns, info, missing, outputs } = *self;
        let asked = label.map(|label| table.column(label)).transpose()?;
        let (places, note) = self.places(asked)?;
        let label = self.label(asked, &places);
        let mut needed = places.clone();
        // Rows that are to be classified need not be labelled.
        let is_labelled = |column: &usize| (0..table.len()).any(|row| !is_missing(table.cell(row, *column)));
        let label = label.filter(is_labelled);
        if *missing == Missing::Drop {
            needed.extend(label);
        }
        let by_model = match missing {
            Missing::Drop => kept(table, &needed, missing)?,
            _ => (0..table.len()).collect(),
        };
        let inputs = encode(table, columns, &places, &by_model, missing)?;
        let mut notes = vec![note];
        let (mut found, mut known) = (vec![None; by_model.len()], names_of(info, &[], outputs));
        if let Some(label) = label {
            let labelled: Vec<usize> =
                (0..by_model.len()).filter(|&at| !is_missing(table.cell(by_model[at], label))).collect();
            let rows: Vec<usize> = labelled.iter().map(|&at| by_model[at]).collect();
            if info.classes.is_empty() {
                let names: Vec<String> =
                    classes(table, &rows, label)?.into_iter().map(|(name, _)| name).collect();
                known = names_of(info, &names, outputs);
            }
            for (at, class) in labelled.into_iter().zip(labels(table, &rows, label, &known)?) {
                found[at] = Some(class);
            }
            notes.push(format!("labels: column {} (`{}`)", label + 1, table.names()[label]));
        } else {
            notes.push("no column of labels".to_owned());
        }
        let names = by_model.iter().map(|&row| format!("line {}", table.line(row))).collect();
        Ok(ModelInputs { inputs, labels: found, names, classes: known, notes })
    }

    /// Where the model's columns are in the table.
    fn places(&self, label: Option<usize>) -> Result<(Vec<usize>, String), Error> {
        let Self { table, columns, .. } = *self;
        let wanted: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let numbered: Option<Vec<usize>> =
            wanted.iter().map(|name| name.strip_prefix('x').and_then(|number| number.parse().ok())).collect();
        if table.format().header && numbered.is_none() {
            return Ok((places_by_name(table, &wanted)?, "columns by their names".to_owned()));
        }
        let (count, found) = (wanted.len(), table.names().len());
        let note = "columns by their places".to_owned();
        if found == count && label.is_none() {
            return Ok(((0..count).collect(), note));
        }
        if found == count + 1 {
            if let Some(label) = label {
                return Ok(((0..found).filter(|&column| column != label).collect(), note));
            }
            // The names of columns without a header say which one was the label.
            return match numbered.filter(|places| places.iter().all(|&place| place < found)) {
                Some(places) => Ok((places, note)),
                None => Ok(((0..count).collect(), note)),
            };
        }
        Err(Error::Unfit {
            path: table.path().to_owned(),
            expected: format!("{count} columns, and perhaps one of labels"),
            found: format!("{found} columns"),
        })
    }

    /// The column of labels, if the table has one.
    fn label(&self, asked: Option<usize>, places: &[usize]) -> Option<usize> {
        let Self { table, info, .. } = *self;
        let others = |column: &usize| !places.contains(column);
        let provenance = || {
            let name = info.provenance.get(LABEL)?;
            table.names().iter().position(|other| other == name)
        };
        let others_left = || (0..table.names().len()).filter(others).collect::<Vec<_>>();
        let only = || if let [column] = others_left()[..] { Some(column) } else { None };
        asked
            .or_else(|| provenance().filter(others))
            .or_else(|| named_label(table).filter(others))
            .or_else(|| if table.format().header { None } else { only() })
            .or_else(|| {
                let guessed = label_of(table, None).ok().map(|label| label.column).filter(others)?;
                let is_class = |row: usize| {
                    let cell = super::rows::class_name(table.cell(row, guessed));
                    info.classes.contains(&cell)
                };
                (0..table.len()).all(is_class).then_some(guessed)
            })
    }
}
