use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{Columns, Encoding, LabelledImages, Table, TableFormat, read_images, read_labels, read_table};
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
    /// The names of its files, without `.gz`: images, labels.
    pub fn file_names(self) -> [&'static str; 2] {
        match self {
            Self::Train => ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
            Self::Test => ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
        }
    }
}

/// A folder where data sets are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder; data sets are in `mnist/` and `uci/` below it.
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
    /// The folder `explicit` and no other; without it the folder in `GELU_DATA`, then the
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

    /// The folders, in the order in which they are searched.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The path of MNIST's file `name` (without `.gz`), packed or plain, in the first folder that has it.
    ///
    /// # Errors
    /// [`Error::DataNotFound`].
    pub fn mnist_file(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = Path::new("mnist");
        self.find("MNIST", &[folder.join(format!("{name}.gz")), folder.join(name)])
    }

    /// One half of MNIST: images of 28x28, labels from 0 to 9.
    ///
    /// # Errors
    /// [`Error::DataNotFound`]; [`Error::LabelCount`]; whatever [`read_images`] and [`read_labels`] find.
    pub fn mnist(&self, split: Split) -> Result<LabelledImages, Error> {
        let [images_name, labels_name] = split.file_names();
        let images_path = self.mnist_file(images_name)?;
        let labels_path = self.mnist_file(labels_name)?;
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

    /// Fisher's Iris: 150 rows of 4 numbers (centimetres), 3 classes.
    ///
    /// # Errors
    /// [`Error::DataNotFound`]; whatever [`read_table`] finds.
    pub fn iris(&self) -> Result<Table, Error> {
        self.uci("Iris", "iris.csv", &TableFormat { header: false, quote: b'"', columns: Columns::Numbers })
    }

    /// Pima Indians Diabetes: 768 rows of 8 numbers, 2 classes.
    ///
    /// # Errors
    /// [`Error::DataNotFound`]; whatever [`read_table`] finds.
    pub fn diabetes(&self) -> Result<Table, Error> {
        let format = TableFormat { header: false, quote: b'"', columns: Columns::Numbers };
        self.uci("Diabetes", "pima-indians-diabetes.csv", &format)
    }

    /// Chess, King and Rook against King and Pawn: 3,196 rows of 36 categories, 2 classes.
    ///
    /// # Errors
    /// [`Error::DataNotFound`]; whatever [`read_table`] finds.
    pub fn chess(&self, encoding: Encoding) -> Result<Table, Error> {
        let format = TableFormat { header: true, quote: b'\'', columns: Columns::Categories(encoding) };
        self.uci("Chess (kr-vs-kp)", "kr-vs-kp.csv", &format)
    }

    fn uci(&self, what: &'static str, file: &str, format: &TableFormat) -> Result<Table, Error> {
        read_table(&self.find(what, &[Path::new("uci").join(file)])?, format)
    }

    /// The first of `names` that is a file, folder by folder.
    fn find(&self, what: &'static str, names: &[PathBuf]) -> Result<PathBuf, Error> {
        let looked: Vec<PathBuf> =
            self.places.iter().flat_map(|place| names.iter().map(|name| place.path.join(name))).collect();
        match looked.iter().find(|path| path.is_file()) {
            Some(path) => Ok(path.clone()),
            None => Err(Error::DataNotFound { what, looked }),
        }
    }
}
