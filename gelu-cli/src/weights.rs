//! `gelu weights`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand, ValueEnum};
use gelu_io::weights::{Dtype, Listing, WeightsFile, list_safetensors};
use gelu_models::plan::PlanOptions;
use gelu_models::{Model, Normalization, Ranges, Weights, train::evaluate, zoo};
use serde::Serialize;

use crate::datasets::{DataOptions, DatasetArg};
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

  Weights of a network that was trained on (x - 0.1307) / 0.3081, with the ranges of its activations
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
    /// The network: conv1, lenet5, dense12, dense300 or resnet20.
    #[arg(long)]
    model: String,
    /// The weight file to write: F32.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Make the normalization (x - MEAN) / STD of the input part of the first layer.
    #[arg(long, value_name = "MEAN,STD", value_parser = parse_normalization, allow_hyphen_values = true)]
    normalize: Option<Normalization>,
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
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeName,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DtypeName {
    /// Half precision.
    F16,
    /// Brain float: the upper half of an F32.
    Bf16,
    /// Single precision, exact.
    F32,
    /// Double precision, exact.
    F64,
}

impl From<DtypeName> for Dtype {
    fn from(name: DtypeName) -> Self {
        match name {
            DtypeName::F16 => Self::F16,
            DtypeName::Bf16 => Self::BF16,
            DtypeName::F32 => Self::F32,
            DtypeName::F64 => Self::F64,
        }
    }
}

/// What `import --json` prints.
#[derive(Debug, Serialize)]
struct Imported<'a> {
    out: &'a Path,
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
    let listing = list_safetensors(&args.file)?;
    if args.json {
        println!("{}", serde_json::to_string(&listing)?);
    } else {
        print_table(&listing);
    }
    Ok(())
}

fn print_table(listing: &Listing) {
    let mut table = TextTable::new(["tensor", "type", "shape", "min", "max", "mean"]);
    for tensor in &listing.tensors {
        let numbers = [tensor.min, tensor.max, tensor.mean].map(|number| format!("{number:.6}"));
        let cells = [tensor.name.clone(), tensor.dtype.clone(), tensor.shape.to_string()];
        table.row(cells.into_iter().chain(numbers));
    }
    print!("{table}");
    let elements: usize = listing.tensors.iter().map(|tensor| tensor.shape.elements()).sum();
    println!("{} tensors, {elements} numbers", listing.tensors.len());
    for (key, value) in &listing.metadata {
        println!("{key}: {value}");
    }
}

fn import(args: &Import) -> anyhow::Result<()> {
    let mut model = zoo::by_name(&args.model)?;
    let source = Weights::read(&args.file)?;
    let report = model.load(&source).with_context(|| args.file.display().to_string())?;
    if let Some(normalization) = &args.normalize {
        model.fold_normalization(normalization)?;
    }
    if args.normalize.is_some() {
        // Measured on the other scale of the input.
        model.set_ranges(None);
        model.set_layer_bits(BTreeMap::new());
    }
    let measured =
        args.calibrate.as_ref().map(|dataset| measure(&mut model, dataset, &args.options)).transpose()?;
    let mut weights = model.weights();
    for (key, value) in source.metadata {
        if key != Ranges::METADATA_KEY && key != PlanOptions::LAYER_BITS_KEY {
            weights.metadata.insert(key, value);
        }
    }
    if let Some(accuracy) = &measured {
        weights.metadata.insert("gelu.test_accuracy".to_owned(), accuracy.to_string());
    }
    weights.metadata.insert("gelu.model".to_owned(), args.model.clone());
    weights.write(&args.out, Dtype::F32)?;

    let test_accuracy = measured;
    if args.json {
        let ranges = measured.and(model.ranges().cloned());
        let parameters = model.parameter_count();
        let imported = Imported { out: &args.out, model: &args.model, parameters, ranges, test_accuracy };
        println!("{}", serde_json::to_string(&imported)?);
    } else {
        println!("{report}");
        if let Some(accuracy) = test_accuracy {
            println!("test accuracy {:.2} %", 100.0 * accuracy);
        }
        println!("wrote {}", args.out.display());
    }
    Ok(())
}

/// Calibrates on the training part of a data set, and returns the accuracy over the test part.
fn measure(model: &mut Model, dataset: &DatasetArg, options: &DataOptions) -> anyhow::Result<f64> {
    let data = options.training(dataset, 0)?;
    model.calibrate(data.train.inputs())?;
    Ok(evaluate(model, &data.test)?.accuracy)
}

fn export(args: &Export) -> anyhow::Result<()> {
    let weights = Weights::read(&args.file)?;
    weights.write(&args.out, args.dtype.into())?;
    if args.json {
        println!("{}", serde_json::json!({ "file": args.out, "tensors": weights.tensors.len() }));
    } else {
        println!("wrote {}", args.out.display());
    }
    Ok(())
}

pub(crate) fn parse_normalization(text: &str) -> anyhow::Result<Normalization> {
    let numbers = text
        .split_once(',')
        .and_then(|(mean, std)| Some((mean.trim().parse::<f32>().ok()?, std.trim().parse::<f32>().ok()?)));
    let (mean, std) =
        numbers.ok_or_else(|| anyhow!("expected two numbers MEAN,STD (for instance 0.1307,0.3081)"))?;
    Ok(Normalization { mean: vec![mean], std: vec![std] })
}
