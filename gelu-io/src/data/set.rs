//! A data set as its files hold it: examples in parts, before anything is measured or prepared.

use std::path::{Path, PathBuf};

use gelu_tensor::Shape;
use ndarray::Array2;
use serde::Serialize;

use super::rows::{MAX_CLASSES, Missing};
use super::{Images, Table};
use crate::Error;

/// What a part of a data set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything: the files do not divide it.
    All,
    /// To train with.
    Train,
    /// To choose settings by.
    Validation,
    /// To test with.
    Test,
}

impl Role {
    /// Returns the role's name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// Inputs of one shape.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Images, as bytes.
    Pixels(Images),
    /// Numbers that are taken as they are.
    Numbers {
        /// The shape of one input.
        shape: Shape,
        /// `[inputs, elements of the shape]`.
        values: Array2<f32>,
    },
}

impl Inputs {
    /// Returns the shape of one input.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Pixels(images) => Shape::from([images.channels(), images.size()[0], images.size()[1]]),
            Self::Numbers { shape, .. } => shape.clone(),
        }
    }

    /// Returns how many inputs there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Pixels(images) => images.count(),
            Self::Numbers { values, .. } => values.nrows(),
        }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One part of a data set of images or numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is for.
    pub role: Role,
    /// Its inputs.
    pub inputs: Inputs,
    /// A label for each input, a place among the data set's classes; `None` when nobody has said.
    pub labels: Option<Vec<usize>>,
    /// A name for each input, such as its file's; empty when they have none.
    pub names: Vec<String>,
}

/// What a data set holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Contents {
    /// Rows of a table, and those of a table to test with.
    Tables { table: Box<Table>, test: Option<Box<Table>>, label: Option<String>, missing: Missing },
    /// Images or numbers. The roles differ, and the shapes do not.
    Parts { parts: Vec<Part>, classes: Vec<String>, digits: bool },
}

/// A data set as its files hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSet {
    pub(super) path: PathBuf,
    pub(super) format: String,
    pub(super) contents: Contents,
    pub(super) notes: Vec<String>,
}

impl DataSet {
    /// Returns a data set of images or numbers from `path`, in a format that is named for people. Its labels are places in
    /// `classes`.
    ///
    /// # Errors
    /// [`Error::TooFew`] without parts or with one that is empty; [`Error::Format`] for parts of different shapes, labels or
    /// names that are not one for each input, labels that are no class, a role twice; [`Error::TooLarge`] for too many
    /// classes.
    pub fn new(
        path: &Path,
        format: impl Into<String>,
        parts: Vec<Part>,
        classes: Vec<String>,
    ) -> Result<Self, Error> {
        let Some(first) = parts.first() else {
            let (expected, found) = ("examples", "none".to_owned());
            return Err(Error::TooFew { path: path.to_owned(), expected, found });
        };
        let shape = first.inputs.shape();
        if classes.len() > MAX_CLASSES {
            let (what, limit) = ("classes", MAX_CLASSES as u64);
            return Err(Error::TooLarge { path: path.to_owned(), what, limit, found: classes.len() as u64 });
        }
        for (at, part) in parts.iter().enumerate() {
            let role = part.role.name();
            if part.inputs.is_empty() {
                let (expected, found) = ("examples in every part", format!("no {role} examples: 0 inputs"));
                return Err(Error::TooFew { path: path.to_owned(), expected, found });
            }
            let bad = |expected: String, found: String| Err(Error::format(path, expected, found));
            if part.inputs.shape() != shape {
                return bad(
                    format!("{role} inputs of {shape}, as the other ones"),
                    part.inputs.shape().to_string(),
                );
            }
            let count = part.inputs.len();
            if let Some(labels) = &part.labels {
                if labels.len() != count {
                    return bad(
                        format!("{count} {role} labels, one for each input"),
                        labels.len().to_string(),
                    );
                }
                if let Some(label) = labels.iter().find(|&&label| label >= classes.len()) {
                    return bad(format!("{role} labels below {}", classes.len()), label.to_string());
                }
            }
            if !part.names.is_empty() && part.names.len() != count {
                return bad(format!("{count} names of {role} inputs"), part.names.len().to_string());
            }
            if parts[..at].iter().any(|other| other.role == part.role) {
                return bad(format!("one {role} part"), "two".to_owned());
            }
        }
        let contents = Contents::Parts { parts, classes, digits: false };
        Ok(Self { path: path.to_owned(), format: format.into(), contents, notes: Vec::new() })
    }

    /// Returns the data set of a table. `label` is the name of the column of labels, or its number from 1; without it, the
    /// column is found out.
    pub fn from_table(table: Table, label: Option<String>, missing: Missing) -> Self {
        let format = table.format();
        let mut notes = vec![format!(
            "{} with {} between values, {}",
            format.encoding.name(),
            match format.delimiter {
                '\t' => "tabs".to_owned(),
                ' ' => "spaces".to_owned(),
                other => format!("`{other}`"),
            },
            if format.header { "a header" } else { "no header" }
        )];
        if format.quote != '"' {
            notes.push(format!("values in {} quotes", format.quote));
        }
        if format.decimal_comma {
            notes.push("numbers with a decimal comma".to_owned());
        }
        let path = table.path().to_owned();
        let contents = Contents::Tables { table: Box::new(table), test: None, label, missing };
        Self { path, format: "table".to_owned(), contents, notes }
    }

    /// Says that images are digits in the form of MNIST: bright ink on black, cut out and centered by mass.
    #[must_use]
    pub fn with_digits(mut self, are_digits: bool) -> Self {
        if let Contents::Parts { digits, .. } = &mut self.contents {
            *digits = are_digits;
        }
        self
    }

    /// Names the classes of labels that are numbers from 0; without effect when they are not, or go beyond the names.
    #[must_use]
    pub(super) fn with_class_names(mut self, names: &[&str]) -> Self {
        if let Contents::Parts { parts, classes, .. } = &mut self.contents {
            let places: Option<Vec<usize>> =
                classes.iter().map(|class| class.parse().ok().filter(|&at| at < names.len())).collect();
            if let Some(places) = places {
                let labels = parts.iter_mut().filter_map(|part| part.labels.as_mut());
                labels.flatten().for_each(|label| *label = places[*label]);
                *classes = names.iter().map(|&name| name.to_owned()).collect();
            }
        }
        self
    }

    /// Adds something that people should know about how the files were read.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Takes the examples of `other` to test with, and all of this one's own to train with. An own test part is left out,
    /// and `other` gives its test part if it has one.
    ///
    /// # Errors
    /// [`Error::Format`] when one is a table and the other not, or shapes differ, or `other` has a class that this one has
    /// not; [`Error::Column`] for a table that lacks a column.
    pub fn with_test(self, other: Self) -> Result<Self, Error> {
        let note = format!("test examples from {}", other.path.display());
        let mismatch = |expected: &str, found: &str| Err(Error::format(&other.path, expected, found));
        match (self.contents, other.contents) {
            (Contents::Tables { table, label, missing, .. }, Contents::Tables { table: test, .. }) => {
                let contents = Contents::Tables { table, test: Some(test), label, missing };
                Ok(Self { contents, ..self }.with_note(note))
            }
            (
                Contents::Parts { parts, classes, digits },
                Contents::Parts { parts: others, classes: names, .. },
            ) => {
                let mut kept: Vec<Part> = parts.into_iter().filter(|part| part.role != Role::Test).collect();
                kept.iter_mut()
                    .filter(|part| part.role == Role::All)
                    .for_each(|part| part.role = Role::Train);
                let Some(mut test) =
                    others.into_iter().max_by_key(|part| (part.role == Role::Test, part.role == Role::All))
                else {
                    return mismatch("examples", "none");
                };
                test.role = Role::Test;
                if let Some(labels) = &mut test.labels {
                    for label in labels {
                        let name = names.get(*label).map_or("", String::as_str);
                        match classes.iter().position(|class| class == name) {
                            Some(class) => *label = class,
                            None => {
                                return mismatch(
                                    "the classes of the training part",
                                    &format!("the class `{name}`"),
                                );
                            }
                        }
                    }
                }
                kept.push(test);
                let set = Self::new(&self.path, self.format, kept, classes)?;
                Ok(Self { notes: self.notes, ..set }.with_digits(digits).with_note(note))
            }
            (Contents::Tables { .. }, _) => {
                mismatch("a table, as the training part", "inputs of another kind")
            }
            (Contents::Parts { .. }, _) => mismatch("inputs of the training part's kind", "a table"),
        }
    }

    /// Returns the file or folder that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what people should know about how the files were read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The same without its examples to test with.
    pub(super) fn without_test_part(&self) -> Self {
        let contents = match &self.contents {
            Contents::Tables { table, label, missing, .. } => Contents::Tables {
                table: table.clone(),
                test: None,
                label: label.clone(),
                missing: missing.clone(),
            },
            Contents::Parts { parts, classes, digits } => Contents::Parts {
                parts: parts.iter().filter(|part| part.role != Role::Test).cloned().collect(),
                classes: classes.clone(),
                digits: *digits,
            },
        };
        Self { contents, path: self.path.clone(), format: self.format.clone(), notes: self.notes.clone() }
    }

    /// Returns whether it has examples to test with, apart from those to train with.
    pub fn has_test_part(&self) -> bool {
        match &self.contents {
            Contents::Tables { test, .. } => test.is_some(),
            Contents::Parts { parts, .. } => parts.iter().any(|part| part.role == Role::Test),
        }
    }
}
