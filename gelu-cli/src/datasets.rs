//! Data sets by name or by path, and the options that say how they are read.

mod pictures;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{bail, ensure};
use clap::Args;
use gelu_io::data::{
    DataDir, DataSet, Kind, KnownSet, LabelledImages, Missing, ModelInputs, ReadOptions, TrainingData,
};
use gelu_models::train::Dataset;
use gelu_models::{Interface, Model, Preprocessing};
use gelu_tensor::Shape;

pub(crate) use self::pictures::Form;
use crate::infer::pixels;
use crate::output::note;

#[cfg(test)]
mod tests;

/// Share of a data set in one piece that is kept for testing.
pub(crate) const HELD_OUT: f64 = 0.2;

/// A data set as it is named on the command line: a known name, or a file or folder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DatasetArg {
    /// One that is known by name, to be looked for in the data folders.
    Known(&'static KnownSet),
    /// A file or a folder.
    Path(PathBuf),
}

impl FromStr for DatasetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(known) = KnownSet::by_name(text) {
            return Ok(Self::Known(known));
        }
        let path = PathBuf::from(text);
        // A missing file is an error of its own, with its path; a word alone is rather a misspelt name.
        if path.exists() || text.contains(['/', '\\', '.']) {
            return Ok(Self::Path(path));
        }
        let names: Vec<&str> = KnownSet::all().iter().map(KnownSet::name).collect();
        Err(format!("expected a file, a folder, or one of {}; found `{text}`", names.join(", ")))
    }
}

impl DatasetArg {
    /// The name, as it is written on the command line.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Known(known) => known.name().to_owned(),
            Self::Path(path) => path.display().to_string(),
        }
    }
}

/// What a data set is tested with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TestArg {
    /// This share of it.
    Share(f64),
    /// Another file or folder.
    Path(PathBuf),
}

impl FromStr for TestArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<f64>() {
            Ok(share) if share > 0.0 && share < 1.0 => Ok(Self::Share(share)),
            Ok(_) => Err(format!("expected a file, or a share between 0 and 1 such as 0.2; found {text}")),
            Err(_) => Ok(Self::Path(text.into())),
        }
    }
}

/// How data sets are read.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataOptions {
    /// The folder with mnist/, uci/ and other known data sets [default: the folder named by GELU_DATA, then the per-user
    /// data folder].
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A table's column of labels: its name, or its number from 1 [default: the one that the header calls label, class or
    /// target, else the last].
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The labels that go with an array or a file of images.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// What a table's missing values (?, NA, NaN, null or nothing) become: this value, or the column's `mean`; `drop` leaves
    /// out rows that lack one [default: they are an error].
    #[arg(long, value_name = "VALUE|drop|mean", value_parser = parse_missing, allow_hyphen_values = true)]
    missing: Option<Missing>,
    /// Test with this file or folder, or with this share of a data set that comes in one piece [default: its own test part,
    /// or 0.2].
    #[arg(long, value_name = "FILE|SHARE")]
    test: Option<TestArg>,
    /// The images of IDX files lie on their side, as EMNIST's do.
    #[arg(long)]
    transpose: bool,
    /// Height and width that the pictures of a folder are scaled to [default: the most frequent size].
    #[arg(long, value_name = "HxW", value_parser = parse_size)]
    size: Option<[usize; 2]>,
}

fn parse_missing(text: &str) -> Result<Missing, String> {
    Ok(match text {
        "drop" => Missing::Drop,
        "mean" => Missing::Mean,
        "" => return Err("expected a value, drop or mean".to_owned()),
        value => Missing::Value(value.to_owned()),
    })
}

fn parse_size(text: &str) -> Result<[usize; 2], String> {
    let extent = |text: &str| text.parse().ok().filter(|extent| (1..=1024).contains(extent));
    let size = text.split_once('x').and_then(|(height, width)| Some([extent(height)?, extent(width)?]));
    size.ok_or_else(|| {
        format!("expected HEIGHTxWIDTH from 1x1 to 1024x1024, for instance 28x28; found `{text}`")
    })
}

impl DataOptions {
    /// Their names.
    pub(crate) const NAMES: [&str; 7] = ["data", "label", "labels", "missing", "test", "transpose", "size"];

    /// The share of a data set in one piece that is kept for testing.
    pub(crate) fn held_out(&self) -> f64 {
        match self.test {
            Some(TestArg::Share(share)) => share,
            _ => HELD_OUT,
        }
    }

    /// The same options as they are written on the command line, as far as they change what is trained on.
    pub(crate) fn command(&self) -> String {
        let mut text = String::new();
        let mut option = |name: &str, value: Option<String>| {
            text.extend(value.map(|value| format!(" --{name} {value}")));
        };
        option("label", self.label.clone());
        option("labels", self.labels.as_ref().map(|path| path.display().to_string()));
        option(
            "missing",
            self.missing.as_ref().map(|missing| match missing {
                Missing::Drop => "drop".to_owned(),
                Missing::Mean => "mean".to_owned(),
                Missing::Value(value) => value.clone(),
                Missing::Refuse => String::new(),
            }),
        );
        option(
            "test",
            self.test.as_ref().map(|test| match test {
                TestArg::Share(share) => share.to_string(),
                TestArg::Path(path) => path.display().to_string(),
            }),
        );
        option("size", self.size.map(|[height, width]| format!("{height}x{width}")));
        if self.transpose {
            text += " --transpose";
        }
        text
    }

    /// Reads a data set, with pictures in `form` where the caller has one to prescribe.
    pub(crate) fn read(&self, dataset: &DatasetArg, form: Option<&Form>) -> anyhow::Result<DataSet> {
        let options = ReadOptions {
            label: self.label.clone(),
            missing: self.missing.clone().unwrap_or_default(),
            labels: self.labels.clone(),
            transpose: self.transpose,
        };
        let set = match dataset {
            DatasetArg::Known(known) => {
                known.read(&DataDir::locate(self.data.clone()).find(known)?, &options)?
            }
            DatasetArg::Path(path) => self.read_path(path, &options, form)?,
        };
        match &self.test {
            Some(TestArg::Path(path)) => Ok(set.with_test(self.read_path(path, &options, form)?)?),
            Some(TestArg::Share(share)) if set.has_test_part() => {
                bail!("--test {share}: {} has a test part of its own; leave the option out", dataset.name())
            }
            _ => Ok(set),
        }
    }

    fn read_path(&self, path: &Path, options: &ReadOptions, form: Option<&Form>) -> anyhow::Result<DataSet> {
        if Kind::of(path)? == Kind::Folders {
            let asked = self.size.map(|size| Form { size: Some(size), ..Form::default() });
            return pictures::read(path, form.or(asked.as_ref()).unwrap_or(&Form::default()));
        }
        ensure!(self.size.is_none(), "--size: {} is no folder of pictures", path.display());
        Ok(DataSet::read(path, options)?)
    }

    /// Reads a data set and prepares it for training; says on standard error what was found out about it.
    pub(crate) fn training(&self, dataset: &DatasetArg, seed: u64) -> anyhow::Result<TrainingData> {
        let set = self.read(dataset, None)?;
        let data = set.training(self.held_out(), seed)?;
        // Those of a known data set are known.
        if matches!(dataset, DatasetArg::Path(_)) {
            set.notes().iter().chain(&data.notes).for_each(|note| note!("data: {note}"));
        }
        Ok(data)
    }

    /// Reads a data set for a model: the rows or images to test with, or all of a set in one piece. With `--test SHARE`
    /// only those that training with the same share and `seed` keeps.
    pub(crate) fn for_model(
        &self,
        dataset: &DatasetArg,
        interface: &Interface,
        seed: u64,
    ) -> anyhow::Result<ModelInputs> {
        if let Some(TestArg::Share(_)) = self.test {
            let [_, test] = self.divided_for_model(dataset, interface, seed)?;
            return Ok(test);
        }
        let Interface { input: shape, outputs, info } = interface;
        Ok(self.read(dataset, form(interface).as_ref())?.for_model(info, shape, *outputs)?)
    }

    /// Reads a data set for a model: what settings can be chosen by, and what to test with. A set in one piece is divided as
    /// training with the same `--test` and `seed` divides it.
    pub(crate) fn divided_for_model(
        &self,
        dataset: &DatasetArg,
        interface: &Interface,
        seed: u64,
    ) -> anyhow::Result<[ModelInputs; 2]> {
        let Interface { input: shape, outputs, info } = interface;
        let set = self.read(dataset, form(interface).as_ref())?;
        Ok(set.divided_for_model(info, shape, *outputs, self.held_out(), seed)?)
    }
}

/// The form that a model takes pictures in.
fn form(Interface { input, info, .. }: &Interface) -> Option<Form> {
    match (&info.preprocessing, input.dims()) {
        (Some(Preprocessing::Columns(_)), _) => None,
        (preprocessing, &[channels, height, width]) => {
            let digits = matches!(preprocessing, Some(Preprocessing::Pixels(format)) if format.digits);
            Some(Form { size: Some([height, width]), channels: Some(channels), digits })
        }
        _ => None,
    }
}

/// Makes a model say how the inputs of `data` were prepared and what its classes are called. A network with more outputs
/// than there are classes has names for the others, too.
pub(crate) fn describe(model: &mut Model, data: &TrainingData) {
    let outputs = model.graph().shape(model.graph().logits()).elements();
    let info = model.info_mut();
    info.preprocessing = Some(data.preprocessing.clone());
    info.classes = data.classes.clone();
    info.classes.extend((data.classes.len()..outputs).map(|at| format!("unused-{at}")));
    info.provenance.extend(data.label.clone().map(|label| ("gelu.label".to_owned(), label)));
}

/// Digits, with pixels scaled to 0..1.
pub(crate) fn from_images(images: &LabelledImages) -> anyhow::Result<Dataset> {
    let [height, width] = images.images().size();
    let inputs = pixels(images.images())?;
    let labels = images.labels().iter().map(|&label| usize::from(label)).collect();
    Ok(Dataset::new(Shape::from([1, height, width]), inputs, labels, 10)?)
}
