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
