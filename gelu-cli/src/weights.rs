//! `gelu weights`

use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Args, Subcommand};
use gelu_io::weights::{Dtype, Listing, WeightsFile};
use gelu_models::{Model, Ranges, Weights};
use serde::Serialize;

use crate::datasets::{DataOptions, DatasetArg, describe};
use crate::model::{Loaded, NetworkArgs, ensure_ranges};
use crate::model_args::named;
use crate::output::{check_files, note, out, outln};
use crate::report::TextTable;

/// Look into weight files, check them against a model, convert them.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the tensors of a weight file: name, type, shape, smallest, largest, mean.
    #[command(after_help = "\
Example:
  gelu weights inspect lenet5.safetensors")]
    Inspect(Inspect),
    /// Check a weight file (for instance PyTorch's) against a model and make it ready for use.
    #[command(after_help = "\
Examples:
  Weights of a network that was trained on pixels from 0 to 1:
    gelu weights import trained.safetensors --model lenet5 --out lenet5.safetensors

  Weights of a network that was trained on (x - 0.1307) / 0.3081, with ranges of activations
  measured on MNIST's training images:
    gelu weights import trained.safetensors --model lenet5 --normalize 0.1307,0.3081 \\
      --calibrate mnist --data DIR --out lenet5.safetensors

In PyTorch, name the layers conv1, conv2, fc1, fc2, fc3 and save with
  safetensors.torch.save_file(model.state_dict(), \"trained.safetensors\")")]
    Import(Box<Import>),
    /// Write a weight file in another number format.
    #[command(after_help = "\
Example:
  gelu weights export lenet5.safetensors --out lenet5-half.safetensors --dtype f16")]
    Export(Export),
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// The weight file.
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The weight file to read: F32, F64, F16 or BF16.
    file: PathBuf,
    #[command(flatten)]
    network: NetworkArgs,
    /// The model file to write: F32.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Measure the ranges of the activations on the training part of this data set, and the accuracy on the rest.
    #[arg(long, value_name = "NAME|PATH")]
    calibrate: Option<DatasetArg>,
    #[command(flatten)]
    options: DataOptions,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The weight file to read.
    file: PathBuf,
    /// The weight file to write.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// The numbers to write.
    #[arg(long, value_parser = dtype(), default_value = "f32")]
    dtype: Dtype,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

fn dtype() -> impl TypedValueParser<Value = Dtype> {
    named([
        ("f16", Dtype::F16, "Half precision"),
        ("bf16", Dtype::BF16, "Brain float: the upper half of an F32"),
        ("f32", Dtype::F32, "Single precision, exact"),
        ("f64", Dtype::F64, "Double precision, exact"),
    ])
}

/// What `import --json` prints.
#[derive(Debug, Serialize)]
struct Imported<'a> {
    out: String,
    model: &'a str,
    parameters: usize,
    ranges: Option<Ranges>,
    test_accuracy: Option<f64>,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Inspect(args) => inspect(args),
        Command::Import(args) => import(args),
        Command::Export(args) => export(args),
    }
}

fn inspect(args: &Inspect) -> anyhow::Result<()> {
    let listing = Listing::read(&args.file)?;
    if args.json {
        outln!("{}", serde_json::to_string(&listing)?)?;
    } else {
        print_table(&listing)?;
    }
    Ok(())
}

fn print_table(listing: &Listing) -> anyhow::Result<()> {
    let mut table = TextTable::new(["tensor", "type", "shape", "min", "max", "mean"]);
    for tensor in &listing.tensors {
        let numbers = [tensor.min, tensor.max, tensor.mean].map(|number| format!("{number:.6}"));
        let cells = [tensor.name.clone(), tensor.dtype.clone(), tensor.shape.to_string()];
        table.row(cells.into_iter().chain(numbers));
    }
    out!("{table}")?;
    let elements: usize = listing.tensors.iter().map(|tensor| tensor.shape.elements()).sum();
    outln!("{} tensors, {elements} numbers", listing.tensors.len())?;
    for (key, value) in &listing.metadata {
        outln!("{key}: {value}")?;
    }
    Ok(())
}

fn import(args: &Import) -> anyhow::Result<()> {
    check_files([args.out.as_path()])?;
    let Loaded { mut model, name, .. } = args.network.read(Some(&args.file))?;
    let measured =
        args.calibrate.as_ref().map(|dataset| measure(&mut model, dataset, &args.options)).transpose()?;
    if measured.is_none() {
        ensure_ranges(&mut model)?;
    }
    let provenance = &mut model.info_mut().provenance;
    if let Some(accuracy) = &measured {
        provenance.insert("gelu.test_accuracy".to_owned(), accuracy.to_string());
    }
    provenance.insert("gelu.model".to_owned(), name.clone());
    let weights = model.weights();
    weights.write(&args.out, Dtype::F32)?;

    let test_accuracy = measured;
    if args.json {
        let ranges = measured.and(model.ranges().cloned());
        let parameters = model.parameter_count();
        let imported =
            Imported { out: args.out.display().to_string(), model: &name, parameters, ranges, test_accuracy };
        outln!("{}", serde_json::to_string(&imported)?)?;
    } else {
        outln!("{}", tensors_of(&weights))?;
        if let Some(accuracy) = test_accuracy {
            outln!("test accuracy {:.2} %", 100.0 * accuracy)?;
        }
        outln!("wrote {}", args.out.display())?;
    }
    Ok(())
}

/// The tensors of a model, as a table.
fn tensors_of(weights: &Weights) -> TextTable {
    let mut table = TextTable::new(["tensor", "shape"]);
    for (name, tensor) in &weights.tensors {
        table.row([name.clone(), tensor.shape().to_string()]);
    }
    table
}

/// Calibrates on the training part of a data set, and returns the accuracy over the test part.
fn measure(model: &mut Model, dataset: &DatasetArg, options: &DataOptions) -> anyhow::Result<f64> {
    let data = options.training(dataset, 0)?;
    model.calibrate(data.train.inputs())?;
    describe(model, &data);
    let accuracy = model.evaluate(&data.test)?.accuracy;
    let mut counts = vec![0; data.test.classes()];
    data.test.labels().iter().for_each(|&label| counts[label] += 1);
    warn_of_chance(accuracy, &counts);
    Ok(accuracy)
}

/// Says on standard error when a network does hardly better than one that always says the same, on inputs of which there
/// are so many of each class.
pub(crate) fn warn_of_chance(accuracy: f64, counts: &[usize]) {
    let (most, all) = (counts.iter().max().copied().unwrap_or(0), counts.iter().sum::<usize>());
    let chance = most as f64 / all.max(1) as f64;
    if accuracy < chance + 0.25 * (1.0 - chance) {
        note!(
            "warning: {:.1} % of the test inputs are classified correctly, and always saying the same would give {:.1} %: \
             the weights were probably trained with another activation (--activation), pooling (--pooling), \
             normalization (--normalize) or order of layers (--map)",
            100.0 * accuracy,
            100.0 * chance
        );
    }
}

fn export(args: &Export) -> anyhow::Result<()> {
    check_files([args.out.as_path()])?;
    let weights = Weights::read(&args.file)?;
    weights.write(&args.out, args.dtype)?;
    if args.json {
        outln!(
            "{}",
            serde_json::json!({ "file": args.out.display().to_string(), "tensors": weights.tensors.len() })
        )?;
    } else {
        outln!("wrote {}", args.out.display())?;
    }
    Ok(())
}
