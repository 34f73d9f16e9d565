use std::{io, path::PathBuf};

use crate::weights::FileKind;

/// What can go wrong with files and data sets.
///
/// Every variant names the file, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("{}: cannot {action}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, for instance `read`.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A secret that others than its owner may read or change.
    #[error("{}: expected a secret that only its owner can read (mode 0600), found mode {mode:04o}; take the \
             others' permissions away (chmod 600), and think about who may have read it", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions on Unix.
        mode: u32,
    },
    /// A file ends before the length its header declares.
    #[error("{}: truncated: expected {expected} bytes, found {found}", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes the header asks for (after unpacking).
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// A file goes on after the length its header declares.
    #[error("{}: expected {expected} bytes, found more after them", .path.display())]
    Trailing {
        /// The file.
        path: PathBuf,
        /// Bytes the header asks for (after unpacking).
        expected: u64,
    },
    /// Something is larger than gelu-net accepts.
    #[error("{}: {what}: expected at most {limit}, found {found}", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What was measured, with its unit.
        what: &'static str,
        /// The most that is accepted.
        limit: u64,
        /// What was found, or a lower bound of it.
        found: u64,
    },
    /// A file is not what it should be.
    #[error("{}: expected {expected}, found {found}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file is of another kind altogether.
    #[error("{}: expected {expected}, found {found}: {}", .path.display(), .found.advice())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
        /// What it is.
        found: FileKind,
    },
    /// A tensor's numbers are too small for the type in which they are to be written.
    #[error(
        "{}: tensor `{tensor}`: expected numbers that the file's type can hold, found some up to {largest:e}, of which it \
         would keep next to nothing",
        .path.display()
    )]
    Underflow {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The largest magnitude of its elements.
        largest: f32,
    },
    /// A tensor has an element type that gelu-net does not read.
    #[error("{}: tensor `{tensor}`: expected elements of type {expected}, found {found}", .path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The types that are read.
        expected: &'static str,
        /// The type in the file.
        found: String,
    },
    /// A tensor holds a NaN, an infinity, or a number that `f32` cannot hold.
    #[error("{}: tensor `{tensor}`, element {index}: expected {expected}, found {found}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Where in the tensor, row-major.
        index: usize,
        /// What an element must be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
    /// Images and labels do not belong together.
    #[error("{}: expected {expected} labels, one for each image, found {found}", .path.display())]
    LabelCount {
        /// The file of labels.
        path: PathBuf,
        /// How many images there are.
        expected: usize,
        /// How many labels there are.
        found: usize,
    },
    /// A label is not a class.
    #[error("{}: label {index}: expected a class below {classes}, found {found}", .path.display())]
    Label {
        /// The file of labels.
        path: PathBuf,
        /// Which label, counted from 0.
        index: usize,
        /// The number of classes.
        classes: usize,
        /// The label.
        found: u8,
    },
    /// A cell of a table does not hold what it should.
    #[error("{}: line {line}, column {column} (`{name}`): expected {expected}, found {found}", .path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// The line in the file, from 1.
        line: u64,
        /// The column, from 1.
        column: usize,
        /// The column's name.
        name: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A value of a table is missing, and nobody has said what is to stand in its place.
    #[error(
        "{}: line {line}, column {column} (`{name}`): expected a value, found `{found}`; values missing in all: {count}",
        .path.display()
    )]
    MissingValue {
        /// The file.
        path: PathBuf,
        /// The line of the first one, from 1.
        line: u64,
        /// Its column, from 1.
        column: usize,
        /// That column's name.
        name: String,
        /// What stands there, for instance `?`.
        found: String,
        /// How many values are missing.
        count: usize,
    },
    /// A row of a table is shorter or longer than the first.
    #[error("{}: line {line}: expected {expected} columns, as in the first line, found {found}", .path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line in the file, from 1.
        line: u64,
        /// Columns of the first line.
        expected: usize,
        /// Columns of this one.
        found: usize,
    },
    /// A table has no such column.
    #[error("{}: expected a column {wanted}, found {}", .path.display(), .found.join(", "))]
    Column {
        /// The file.
        path: PathBuf,
        /// The column that is needed.
        wanted: String,
        /// The columns that there are.
        found: Vec<String>,
    },
    /// The column of labels holds measurements, not classes.
    #[error(
        "{}: line {line}, column {column} (`{name}`): expected the name of a class, found {found}, one of {distinct} \
         different numbers in {rows} rows, as in a column of measurements",
        .path.display()
    )]
    Target {
        /// The file.
        path: PathBuf,
        /// A line with such a number, from 1.
        line: u64,
        /// The column, from 1.
        column: usize,
        /// Its name.
        name: String,
        /// The number in that line.
        found: String,
        /// How many different numbers there are.
        distinct: usize,
        /// How many rows there are.
        rows: usize,
    },
    /// There are too few examples or classes to train and test with.
    #[error("{}: expected {expected}, found {found}", .path.display())]
    TooFew {
        /// The file or folder.
        path: PathBuf,
        /// What is needed.
        expected: &'static str,
        /// What there is.
        found: String,
    },
    /// A data set does not fit the model that is to read it.
    #[error("{}: expected {expected}, as the model reads it, found {found}", .path.display())]
    Unfit {
        /// The file or folder.
        path: PathBuf,
        /// What the model takes.
        expected: String,
        /// What the data set has.
        found: String,
    },
    /// A data set is in none of the places where it is looked for.
    #[error(
        "{what}: expected {}, found none of them",
        .looked.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
    )]
    DataNotFound {
        /// The data set.
        what: &'static str,
        /// The files that would have done, in order of preference.
        looked: Vec<PathBuf>,
    },
}

impl Error {
    /// For `map_err`: an [`Error::Io`] on `path` while doing `action`.
    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// An [`Error::Format`] on `path`.
    pub(crate) fn format(
        path: &std::path::Path,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Format { path: path.to_owned(), expected: expected.into(), found: found.into() }
    }
}
