//! Data sets that are known by name.

use std::path::Path;

use super::source::Kind;
use super::{DataSet, ReadOptions, Table, idx_folder, npz};
use crate::Error;

/// A data set that is known by name.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownSet {
    name: &'static str,
    title: &'static str,
    about: &'static str,
    /// Where it is below a data folder; the first is the usual place.
    paths: &'static [&'static str],
    /// Where a system's package puts it.
    elsewhere: Option<&'static str>,
    /// Names of a table's columns, where the file has no header.
    columns: &'static [&'static str],
    /// Names of images' classes, in the order of the labels.
    classes: &'static [&'static str],
    digits: bool,
}

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const GARMENTS: [&str; 10] = [
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
];
const HEART: [&str; 14] = [
    "age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak", "slope", "ca",
    "thal", "disease",
];

/// A table that lies in one place.
const fn table(
    name: &'static str,
    title: &'static str,
    about: &'static str,
    paths: &'static [&'static str],
    columns: &'static [&'static str],
) -> KnownSet {
    KnownSet { name, title, about, paths, elsewhere: None, columns, classes: &[], digits: false }
}

const fn images(
    name: &'static str,
    title: &'static str,
    about: &'static str,
    paths: &'static [&'static str],
    classes: &'static [&'static str],
) -> KnownSet {
    KnownSet { name, title, about, paths, elsewhere: None, columns: &[], classes, digits: false }
}

static KNOWN: [KnownSet; 13] = [
    KnownSet {
        digits: true,
        ..images(
            "mnist",
            "MNIST",
            "handwritten digits, 60,000 + 10,000 images of 28x28, 10 classes",
            &["mnist", "MNIST", "mnist.npz"],
            &DIGITS,
        )
    },
    KnownSet {
        elsewhere: Some("/usr/share/datasets/fashion-mnist"),
        ..images(
            "fashion-mnist",
            "Fashion-MNIST",
            "garments, 60,000 + 10,000 images of 28x28, 10 classes",
            &["fashion-mnist", "FashionMNIST"],
            &GARMENTS,
        )
    },
    images(
        "pneumoniamnist",
        "PneumoniaMNIST",
        "chest X-rays, 4,708 + 624 images of 28x28, 2 classes",
        &["pneumoniamnist", "pneumoniamnist.npz"],
        &["normal", "pneumonia"],
    ),
    images(
        "breastmnist",
        "BreastMNIST",
        "breast ultrasound, 546 + 156 images of 28x28, 2 classes",
        &["breastmnist", "breastmnist.npz"],
        &["malignant", "normal or benign"],
    ),
    table("iris", "Iris", "UCI Iris: 150 x 4 numbers, 3 classes", &["uci/iris.csv"], &[]),
    table(
        "diabetes",
        "Diabetes",
        "UCI Pima Indians Diabetes: 768 x 8 numbers, 2 classes",
        &["uci/pima-indians-diabetes.csv"],
        &[],
    ),
    table(
        "kr-vs-kp",
        "Chess (kr-vs-kp)",
        "UCI King-Rook against King-Pawn: 3,196 x 36 words, 2 classes",
        &["uci/kr-vs-kp.csv"],
        &[],
    ),
    table(
        "wdbc",
        "Breast cancer (wdbc)",
        "UCI Breast Cancer Wisconsin (Diagnostic): 569 x 30 numbers, 2 classes",
        &["breast-cancer-wisconsin/wdbc.csv", "uci/wdbc.csv"],
        &[],
    ),
    table(
        "german-credit",
        "German credit",
        "Statlog German Credit, numeric: 1,000 x 24 numbers, 2 classes",
        &["german-credit/german-numeric.csv", "uci/german-numeric.csv"],
        &[],
    ),
    table(
        "heart-cleveland",
        "Heart disease, Cleveland",
        "UCI Heart Disease, Cleveland: 303 x 13 numbers, 5 classes, 6 values missing",
        &["heart-disease/cleveland.csv"],
        &HEART,
    ),
    table(
        "heart-hungarian",
        "Heart disease, Hungary",
        "UCI Heart Disease, Budapest: 294 x 13 numbers, 782 values missing",
        &["heart-disease/hungarian.csv"],
        &HEART,
    ),
    table(
        "heart-switzerland",
        "Heart disease, Switzerland",
        "UCI Heart Disease, Zurich and Basel: 123 x 13 numbers, 273 values missing",
        &["heart-disease/switzerland.csv"],
        &HEART,
    ),
    table(
        "heart-va",
        "Heart disease, Long Beach",
        "UCI Heart Disease, Long Beach VA: 200 x 13 numbers, 698 values missing",
        &["heart-disease/va.csv"],
        &HEART,
    ),
];

impl KnownSet {
    /// Returns all of them, images first.
    pub fn all() -> &'static [Self] {
        &KNOWN
    }

    /// Returns the one of that name, in small or capital letters.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|known| known.name.eq_ignore_ascii_case(name))
    }

    /// Returns its name, for instance `mnist`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns its name as people write it.
    pub fn title(&self) -> &'static str {
        self.title
    }

    /// Returns what it holds, in a few words.
    pub fn about(&self) -> &'static str {
        self.about
    }

    /// Returns where it may be below a data folder, the usual place first.
    pub fn paths(&self) -> impl Iterator<Item = &'static Path> {
        self.paths.iter().map(Path::new)
    }

    /// Returns where a system's package puts it.
    pub fn elsewhere(&self) -> Option<&'static Path> {
        self.elsewhere.map(Path::new)
    }

    /// Reads it from `path`, which [`DataDir::find`](super::DataDir::find) gives.
    ///
    /// # Errors
    /// Those of [`DataSet::read`]; [`Error::Label`] for a label that is none of its classes.
    pub fn read(&self, path: &Path, options: &ReadOptions) -> Result<DataSet, Error> {
        let set = match Kind::of(path)? {
            Kind::Table => {
                let table = Table::read(path)?.with_names(self.columns);
                let label = options.label.clone();
                return Ok(DataSet::from_table(table, label, options.missing.clone()));
            }
            Kind::Archive => npz::read_archive(path)?,
            _ => {
                let Some(set) = idx_folder::files_in(path)?.remove("") else {
                    return Err(Error::DataNotFound { what: self.title, looked: vec![path.to_owned()] });
                };
                idx_folder::read_set(path, set, Some(self.classes), options.transpose)?
            }
        };
        Ok(set.with_class_names(self.classes).with_digits(self.digits))
    }
}
