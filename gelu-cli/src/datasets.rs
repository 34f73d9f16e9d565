//! Data sets by name, ready for training.

use anyhow::Context;
use clap::ValueEnum;
use gelu_io::data::{DataDir, Encoding, LabelledImages, Split, Table};
use gelu_models::train::Dataset;
use gelu_tensor::Shape;
use ndarray::{Array2, Axis};

/// A data set that `gelu` can train on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DatasetName {
    /// Handwritten digits: 60,000 + 10,000 images of 28x28, 10 classes.
    Mnist,
    /// UCI Iris: 150 x 4 numbers, 3 classes.
    Iris,
    /// UCI Pima Indians Diabetes: 768 x 8 numbers, 2 classes.
    Diabetes,
    /// UCI King-Rook against King-Pawn: 3196 x 36 categories, 2 classes.
    KrVsKp,
}

/// Share of a UCI table that is kept for testing.
const HELD_OUT: f64 = 0.2;

/// The training and the test part. Tables come in one piece, which `seed` divides; their columns of numbers are
/// brought to mean 0 and standard deviation 1 over the training part.
pub(crate) fn load(name: DatasetName, folder: &DataDir, seed: u64) -> anyhow::Result<[Dataset; 2]> {
    let numbers = |table: Table| {
        let [train, test] = from_table(&table)?.split(HELD_OUT, seed);
        standardize(&train, &test)
    };
    match name {
        DatasetName::Mnist => {
            Ok([from_images(&folder.mnist(Split::Train)?)?, from_images(&folder.mnist(Split::Test)?)?])
        }
        DatasetName::Iris => numbers(folder.iris()?),
        DatasetName::Diabetes => numbers(folder.diabetes()?),
        DatasetName::KrVsKp => Ok(from_table(&folder.chess(Encoding::OneHot)?)?.split(HELD_OUT, seed)),
    }
}

/// Digits, with pixels scaled to 0..1.
pub(crate) fn from_images(images: &LabelledImages) -> anyhow::Result<Dataset> {
    let [height, width] = images.images().size();
    let inputs = images.images().to_inputs().into_shape_with_order((images.len(), height * width))?;
    let labels = images.labels().iter().map(|&label| usize::from(label)).collect();
    Ok(Dataset::new(Shape::from([1, height, width]), inputs, labels, 10)?)
}

fn from_table(table: &Table) -> anyhow::Result<Dataset> {
    let inputs = Array2::from_shape_vec((table.len(), table.features()), table.values().to_vec())
        .context("values of the table")?;
    let labels = table.labels().iter().map(|&label| usize::from(label)).collect();
    Ok(Dataset::new(Shape::from([table.features()]), inputs, labels, table.class_names().len())?)
}

fn standardize(train: &Dataset, test: &Dataset) -> anyhow::Result<[Dataset; 2]> {
    let mean = train.inputs().mean_axis(Axis(0)).context("a data set without rows")?;
    // A constant column has nothing to say; dividing by 1 leaves it at 0.
    let std = train.inputs().std_axis(Axis(0), 0.0).mapv(|std| if std > 0.0 { std } else { 1.0 });
    let apply = |part: &Dataset| {
        let inputs = (&part.inputs() - &mean) / &std;
        Dataset::new(part.shape().clone(), inputs, part.labels().to_vec(), part.classes())
    };
    Ok([apply(train)?, apply(test)?])
}
