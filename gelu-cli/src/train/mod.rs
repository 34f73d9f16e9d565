//! `gelu train`

mod checkpoint;
mod clear;
mod descent;
mod interrupt;
mod network;
pub(crate) mod private;
mod provenance;
mod settings;

use std::path::PathBuf;

use gelu_io::data::TrainingData;
use gelu_models::train::private::TrainingOptions;
use gelu_models::train::{Augmentation, TrainConfig};

pub(crate) use self::descent::DescentArgs;
pub(crate) use self::interrupt::{
    EXIT_CODE as INTERRUPTED, Interrupted, install as stop_when_asked, is_asked as is_asked_to_stop,
};
pub(crate) use self::network::initialize;
use self::network::model;
pub(crate) use self::private::TurnArgs;
use self::provenance::{command, with_metadata};
use crate::datasets::{DataOptions, DatasetArg};
use crate::given::Given;
use crate::model::{Choices, network_of};
use crate::model_args::parse_layer_bits;
use crate::output::{check_files, check_folders};

/// Train a model on a data set: privately, by clients that keep their data; or in the clear.
///
/// Privately: several clients with disjoint parts of the data take turns. Each computes activations and gradients on
/// its own, and the server all weighted sums on ciphertexts; of a client's steps it learns their sum at the end of the turn. Both
/// sides are in this process and exchange encoded messages only.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  One hidden layer of 12 neurons on UCI Iris, privately, by two clients:
    gelu train --model mlp:12 --dataset iris --clients 2 --epochs 30 --batch 16 --report iris

  LeNet-5 on 600 digits, privately; the same on integers without encryption, to the same weights:
    gelu train --model lenet5 --dataset mnist --limit 600 --epochs 1 --out a.safetensors
    gelu train --clear --fixed --model lenet5 --dataset mnist --limit 600 --epochs 1 \\
        --out b.safetensors

  LeNet-5 on MNIST in the clear, from the folder that holds mnist/*-ubyte.gz:
    gelu train --clear --model lenet5 --dataset mnist --data DIR --out lenet5.safetensors

  The same, stopped by Ctrl-C and taken up again where it was, with the same result:
    gelu train --clear --model lenet5 --dataset mnist --checkpoint-dir run
    gelu train --clear --model lenet5 --dataset mnist --checkpoint-dir run --resume

  LeNet-5 with weights of 3 bits, which take half the products on ciphertexts:
    gelu train --clear --model lenet5 --dataset mnist --weight-bits 3 --epochs 30 --augment \\
        --out few.safetensors

  A table of your own, which says in its header what the label is:
    gelu train --clear --model mlp:16 --dataset patients.csv --out patients.safetensors

  One hidden layer of 12 neurons on UCI Iris, result as JSON:
    gelu train --clear --model mlp:12 --dataset iris --epochs 50 --batch 16 --json")]
pub(crate) struct Args {
    /// Train in the clear, on data that this machine may see.
    #[arg(long)]
    clear: bool,
    /// With --clear: on the integers of private training, which gives the same weights as without --clear.
    #[arg(long, requires = "clear")]
    fixed: bool,
    /// The network: lenet5, conv1, mlp:WIDTHS with the widths of its hidden layers (mlp:12, mlp:300,100), resnet20 (or
    /// another depth of 6 n + 2; resnet8:8 has 8 channels at first), or a model file, for its network.
    #[arg(long, value_name = "FILE|NAME")]
    model: PathBuf,
    #[command(flatten)]
    choices: Choices,
    /// Start from the weights of this file, as far as they fit, instead of random ones.
    #[arg(long, value_name = "FILE.safetensors")]
    init: Option<PathBuf>,
    /// The data: a known name (`gelu data` lists them), a table, a folder of class folders with pictures, an .npz or .npy
    /// file, or a folder with IDX files.
    #[arg(long, default_value = "mnist", value_name = "NAME|PATH")]
    dataset: DatasetArg,
    /// Train on so many inputs of the data set only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    descent: DescentArgs,
    /// L2 penalty on the weights [default: 0.0001 with --clear, else 0, and no other is possible].
    #[arg(long)]
    weight_decay: Option<f64>,
    /// Shift, turn, scale and shear the training images a little.
    #[arg(long)]
    augment: bool,
    /// With --clear: train weights of so many bits (2 to 24), their sign included: the first half of the epochs on floats,
    /// the second on rounded weights. Fewer bits cost the server fewer products.
    #[arg(long, value_name = "BITS", requires = "clear")]
    weight_bits: Option<u32>,
    /// With --clear: other weight bits for single layers, for instance conv1=5,fc1=2.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "LAYER=BITS",
        value_parser = parse_layer_bits,
        requires = "clear"
    )]
    layer_bits: Vec<(String, u32)>,
    /// With --clear: round what layers read to so many bits (2 to 24), where a client encrypts it, in the second half of the
    /// epochs, too. Fewer bits take fewer ciphertexts, and less of what hides a network.
    #[arg(long, value_name = "BITS", requires = "clear")]
    activation_bits: Option<u32>,
    /// With --clear: round the inputs to so many bits (2 to 24) in the second half of the epochs, too. Images need few: of
    /// handwritten digits 3 bits of a pixel tell as much as 8.
    #[arg(long, value_name = "BITS", requires = "clear")]
    input_bits: Option<u32>,
    /// Keep the state in this folder: from the first iteration on, twice a minute, after every epoch, and when Ctrl-C or
    /// SIGTERM stops the run.
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Seconds between two checkpoints, at least. Every checkpoint stands for one point between two iterations, from
    /// which the run goes on to the same weights.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "checkpoint_dir")]
    checkpoint_every: u32,
    /// Go on from the checkpoint. All settings must be those of the run, but --epochs can be raised.
    #[arg(long, requires = "checkpoint_dir")]
    resume: bool,
    /// Begin anew, and overwrite the checkpoint that is in the folder.
    #[arg(long, requires = "checkpoint_dir", conflicts_with = "resume")]
    force: bool,
    /// Write the trained weights here, with the ranges of their activations.
    #[arg(long, value_name = "FILE.safetensors")]
    out: Option<PathBuf>,
    /// Draw the learning curves into this file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    private: private::PrivateArgs,
    #[command(flatten)]
    options: DataOptions,
}

impl Args {
    /// The network's name, or the file's.
    fn name(&self) -> String {
        network_of(&self.model)
            .map_or_else(|| self.model.display().to_string(), |network| network.to_string())
    }

    /// Whether it is training in the clear, on floats.
    fn is_on_floats(&self) -> bool {
        self.clear && !self.fixed
    }

    fn config(&self) -> TrainConfig {
        let (default_decay, batch) = match self.is_on_floats() {
            true => (1e-4, TrainConfig::default().batch_size),
            false => (0.0, TrainingOptions::BATCH),
        };
        TrainConfig {
            weight_decay: self.weight_decay.unwrap_or(default_decay),
            augmentation: self.augment.then_some(Augmentation::LIGHT),
            weight_bits: self.weight_bits,
            layer_bits: self.layer_bits.iter().cloned().collect(),
            activation_bits: self.activation_bits,
            input_bits: self.input_bits,
            ..self.descent.config(batch)
        }
    }

    /// The training and the test part, the first cut to `--limit`.
    fn data(&self) -> anyhow::Result<TrainingData> {
        let data = self.options.training(&self.dataset, self.descent.seed)?;
        Ok(match self.limit {
            Some(limit) => TrainingData { train: data.train.first(limit as usize), ..data },
            None => data,
        })
    }
}

pub(crate) fn run(args: &Args, given: &Given) -> anyhow::Result<()> {
    let keys = ["key-bits", "key-type"];
    if args.clear {
        given.refuse(&keys, "training in the clear (--clear) has no keys")?;
    }
    if args.fixed {
        given.refuse(
            &["weight-bits", "layer-bits", "activation-bits", "input-bits"],
            "training on integers (--fixed) has numbers of one precision, that of private training",
        )?;
    }
    if args.is_on_floats() {
        given.refuse(
            &["clients", "d-max", "leakage", "sum-bits", "product-bits", "report", "calibrate"],
            "training on floats (--clear without --fixed) has no clients that take turns",
        )?;
    }

    check_files([&args.out, &args.plot].into_iter().flatten().map(PathBuf::as_path))?;
    check_folders([&args.checkpoint_dir, args.private.report()].into_iter().flatten().map(PathBuf::as_path))?;
    match args.is_on_floats() {
        true => clear::run(args),
        false => private::run(args),
    }
}
