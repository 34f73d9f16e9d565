//! What a file or folder is, and reading it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use super::idx_folder::{self, IdxFiles};
use super::{DataSet, Missing, Table, idx, npz, numpy};
use crate::Error;

#[cfg(test)]
mod tests;

/// How a data set is read, where its files leave that open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The column of a table's labels, by name or by number from 1; found out when `None`.
    pub label: Option<String>,
    /// What is done about missing values of a table.
    pub missing: Missing,
    /// The file of labels that goes with a file of inputs.
    pub labels: Option<PathBuf>,
    /// Whether images of IDX files lie on their side, as EMNIST's do.
    pub transpose: bool,
}

/// What a file or folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A table of text.
    Table,
    /// One IDX file.
    Idx,
    /// A folder with IDX files under their usual names.
    IdxFolder,
    /// One array of NumPy.
    Array,
    /// A folder with such arrays.
    ArrayFolder,
    /// An archive of such arrays.
    Archive,
    /// A folder of folders, which may be classes with pictures in them.
    Folders,
}

impl Kind {
    /// Returns what `path` is, by its first bytes or by the names of the files in it. The path of a folder followed by the
    /// first part of its files' names (`emnist/emnist-letters`) stands for those files.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a folder with none of these.
    pub fn of(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            if !idx_folder::files_in(path)?.is_empty() {
                return Ok(Kind::IdxFolder);
            }
            if !npz::arrays_in(path)?.is_empty() {
                return Ok(Kind::ArrayFolder);
            }
            let entries: Vec<PathBuf> = std::fs::read_dir(path)
                .map_err(Error::io(path, "list"))?
                .map(|entry| entry.map(|entry| entry.path()).map_err(Error::io(path, "list")))
                .collect::<Result<_, Error>>()?;
            if entries.iter().any(|entry| entry.is_dir()) {
                return Ok(Kind::Folders);
            }
            let mut names: Vec<String> = entries
                .iter()
                .filter_map(|entry| Some(entry.file_name()?.to_string_lossy().into_owned()))
                .collect();
            names.sort();
            let more = if names.len() > 8 { ", ..." } else { "" };
            names.truncate(8);
            let found = match names.is_empty() {
                true => "an empty folder".to_owned(),
                false => format!("the files {}{more}; name one of them", names.join(", ")),
            };
            return Err(Error::format(
                path,
                "IDX files, NumPy arrays or folders of classes with pictures",
                found,
            ));
        }
        if !path.exists() && sets_of_prefix(path)?.is_some() {
            return Ok(Kind::IdxFolder);
        }
        let mut head = Vec::new();
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        file.take(1 << 16).read_to_end(&mut head).map_err(Error::io(path, "read"))?;
        Ok(match &head[..] {
            head if head.starts_with(numpy::MAGIC) => Kind::Array,
            head if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") => Kind::Archive,
            head if idx::is_idx(head) => Kind::Idx,
            _ => Kind::Table,
        })
    }
}

/// The set of IDX files that `path` names by its folder and their prefix.
fn sets_of_prefix(path: &Path) -> Result<Option<IdxFiles>, Error> {
    let (Some(folder), Some(prefix)) = (path.parent(), path.file_name()) else { return Ok(None) };
    if !folder.is_dir() {
        return Ok(None);
    }
    Ok(idx_folder::files_in(folder)?.remove(&prefix.to_string_lossy().to_lowercase()))
}

impl DataSet {
    /// Reads the data set `path`: a table, IDX files, NumPy arrays.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a folder of pictures, which this library does not decode, and for files of
    /// another kind; whatever the readers of each kind find.
    pub fn read(path: &Path, options: &ReadOptions) -> Result<Self, Error> {
        let digits = are_digits(path);
        let kind = Kind::of(path)?;
        let is_idx = matches!(kind, Kind::Idx | Kind::IdxFolder);
        let set = match kind {
            Kind::Table => {
                Self::from_table(Table::read(path)?, options.label.clone(), options.missing.clone())
            }
            Kind::Idx => idx_folder::read_one(path, options.labels.as_deref(), options.transpose)?,
            Kind::IdxFolder => {
                let set = match path.is_dir() {
                    true => only(path, idx_folder::files_in(path)?)?,
                    false => sets_of_prefix(path)?.unwrap_or_default(),
                };
                idx_folder::read_set(path, set, None, options.transpose)?
            }
            Kind::Array => npz::read_pair(path, options.labels.as_deref())?,
            Kind::ArrayFolder => npz::read_folder(path)?,
            Kind::Archive => npz::read_archive(path)?,
            Kind::Folders => {
                let found = "folders, as of pictures, which have to be decoded first";
                return Err(Error::format(path, "a table, IDX files or NumPy arrays", found));
            }
        };
        if options.transpose && !is_idx {
            return Err(Error::format(path, "IDX images to transpose", set.format));
        }
        Ok(set.with_digits(digits))
    }
}

fn only(path: &Path, mut sets: BTreeMap<String, IdxFiles>) -> Result<IdxFiles, Error> {
    if sets.len() > 1 {
        let names: Vec<String> = sets.keys().map(|prefix| path.join(prefix).display().to_string()).collect();
        return Err(Error::format(
            path,
            "IDX files of one set",
            format!("several; name one: {}", names.join(", ")),
        ));
    }
    Ok(sets.pop_first().map(|(_, set)| set).unwrap_or_default())
}

/// Whether the path says that the images are MNIST's digits or others in their form.
fn are_digits(path: &Path) -> bool {
    const NAMES: [&str; 4] = ["mnist", "qmnist", "emnist-digits", "emnist-mnist"];
    let words = path.components().rev().take(3).filter_map(|component| {
        let name = component.as_os_str().to_string_lossy().to_lowercase();
        Some(name.split('.').next()?.to_owned())
    });
    // `fashion-mnist/MNIST` and the like are no digits, whatever else the path says.
    let words: Vec<String> = words.collect();
    words.iter().any(|word| NAMES.contains(&word.as_str()))
        && !words
            .iter()
            .any(|word| word.contains("fashion") || word.contains("kmnist") || word.contains("med"))
}
