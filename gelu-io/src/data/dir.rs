//! Where data sets are looked for.

use std::{ffi::OsString, path::PathBuf};

use super::{KnownSet, LabelledImages, Role, idx_folder, read_images, read_labels};
use crate::Error;

#[cfg(test)]
mod tests;

/// The environment variable that names the data folder.
const VARIABLE: &str = "GELU_DATA";

/// MNIST's classes: the digits.
const DIGITS: usize = 10;

/// A half of MNIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// 60,000 images.
    Train,
    /// 10,000 images.
    Test,
}

impl Split {
    /// Returns the names of its files, without `.gz`: images, labels.
    pub(crate) fn file_names(self) -> [&'static str; 2] {
        match self {
            Self::Train => ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
            Self::Test => ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
        }
    }
}

/// A folder where data sets are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder; data sets are in `mnist/`, `uci/` and other folders below it.
    pub path: PathBuf,
    /// Who named it, for people: `the caller`, `GELU_DATA` or `per-user folder`.
    pub origin: &'static str,
}

impl Place {
    /// The origin of a folder that the caller named.
    pub const CALLER: &'static str = "the caller";
}

/// Where data sets are looked for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDir {
    places: Vec<Place>,
}

impl DataDir {
    /// Returns the folder `explicit` and no other; without it the folder in `GELU_DATA`, then the
    /// per-user folder (`$XDG_DATA_HOME/gelu-net`, by default `~/.local/share/gelu-net`).
    pub fn locate(explicit: Option<PathBuf>) -> Self {
        Self::with_environment(explicit, |name| std::env::var_os(name))
    }

    fn with_environment(explicit: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        if let Some(path) = explicit {
            return Self { places: vec![Place { path, origin: Place::CALLER }] };
        }
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // The XDG specification tells programs to ignore relative paths.
        let home = set("XDG_DATA_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".local").join("share")));
        let named = set(VARIABLE).map(|path| Place { path, origin: VARIABLE });
        let user = home.map(|path| Place { path: path.join("gelu-net"), origin: "per-user folder" });
        Self { places: named.into_iter().chain(user).collect() }
    }

    /// Returns the folders, in the order in which they are searched.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Reads one half of MNIST: images of 28x28, labels from 0 to 9.
    ///
    /// # Errors
    /// [`Error::DataNotFound`]; [`Error::LabelCount`]; whatever [`Images::parse`](super::Images::parse) and
    /// [`Images::parse_labels`](super::Images::parse_labels) find.
    pub fn mnist(&self, split: Split) -> Result<LabelledImages, Error> {
        let role = match split {
            Split::Train => Role::Train,
            Split::Test => Role::Test,
        };
        let [images_path, labels_path] = self.mnist_files(split, role)?;
        let images = read_images(&images_path)?;
        if images.size() != [28, 28] {
            let [height, width] = images.size();
            return Err(Error::format(
                &images_path,
                "images of 28x28",
                format!("images of {height}x{width}"),
            ));
        }
        let labels = read_labels(&labels_path, DIGITS)?;
        let (expected, found) = (images.count(), labels.len());
        LabelledImages::new(images, labels).ok_or(Error::LabelCount { path: labels_path, expected, found })
    }

    /// Images and labels of a half of MNIST, in the first folder that has both.
    fn mnist_files(&self, split: Split, role: Role) -> Result<[PathBuf; 2], Error> {
        for place in &self.places {
            for folder in ["mnist", "MNIST"].map(|folder| place.path.join(folder)) {
                if folder.is_dir()
                    && let Some(set) = idx_folder::files_in(&folder)?.get("")
                    && let Some(files) = set.part(role)
                {
                    return Ok(files);
                }
            }
        }
        let [images, _] = split.file_names();
        let names = [format!("{images}.gz"), images.to_owned()];
        let looked =
            self.places.iter().flat_map(|place| names.iter().map(|name| place.path.join("mnist").join(name)));
        Err(Error::DataNotFound { what: "MNIST", looked: looked.collect() })
    }

    /// Returns where the data set `known` is: its file or folder in the first folder that has it.
    ///
    /// # Errors
    /// [`Error::DataNotFound`]; [`Error::Io`].
    pub fn find(&self, known: &KnownSet) -> Result<PathBuf, Error> {
        let mut looked = Vec::new();
        for place in &self.places {
            for path in known.paths().map(|path| place.path.join(path)) {
                if path.is_file() || path.is_dir() && !idx_folder::files_in(&path)?.is_empty() {
                    return Ok(path);
                }
                looked.push(path);
            }
        }
        if let Some(path) = known.elsewhere().filter(|path| path.is_dir()) {
            return Ok(path.to_owned());
        }
        Err(Error::DataNotFound { what: known.title(), looked })
    }
}
