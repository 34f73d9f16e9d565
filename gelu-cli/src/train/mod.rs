//! `gelu train`

mod network;
pub(crate) mod private;
mod provenance;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, ensure};
use gelu_io::{
    data::TrainingData,
    files::{make_folder, write_atomic},
    weights::{Dtype, WeightsFile},
};
use gelu_layers::Initializer;
use gelu_models::{
    Weights,
    train::{
        Augmentation, Dataset, EpochStats, Evaluation, Schedule, TrainConfig, TrainState, Trainer, evaluate,
    },
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use self::network::{initialize, model};
use self::provenance::{command, with_metadata};
use crate::datasets::{DataOptions, DatasetArg};
use crate::given::Given;
use crate::model::{Choices, network_of};
use crate::output::{check_files, check_folders, note, outln};
use crate::report::{EpochPoint, training_curves_svg};

/// Train a model on a data set: privately, by clients that keep their data; or in the clear.
///
/// Privately: several clients with disjoint parts of the data take turns. Each computes activations and gradients on
/// its own, and the server all weighted sums on ciphertexts, with weights that are masked while a client trains. Both
/// sides are in this process and exchange encoded messages only.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  One hidden layer of 12 neurons on UCI Iris, privately, by two clients:
    gelu train --model mlp:12 --dataset iris --clients 2 --epochs 30 --batch 16 --lr 0.1 --report iris

  LeNet-5 on 600 digits, privately; the same on integers without encryption, with the same weights:
    gelu train --model lenet5 --dataset mnist --limit 600 --epochs 1 --batch 60 --out a.safetensors
    gelu train --clear --fixed --model lenet5 --dataset mnist --limit 600 --epochs 1 --batch 60 --out b.safetensors

  LeNet-5 on MNIST in the clear, from the folder that holds mnist/*-ubyte.gz:
    gelu train --clear --model lenet5 --dataset mnist --data DIR --out lenet5.safetensors

  The same, interrupted and taken up again where it stopped, with the same result:
    gelu train --clear --model lenet5 --dataset mnist --checkpoint-dir run
    gelu train --clear --model lenet5 --dataset mnist --checkpoint-dir run --resume

  A table of your own, which says in its header what the label is:
    gelu train --clear --model mlp:16 --dataset patients.csv --missing mean --out patients.safetensors

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
    #[arg(long, value_name = "FILE.safetensors", conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// The data: a known name (`gelu data` lists them), a table, a folder of class folders with pictures, an .npz or .npy
    /// file, or a folder with IDX files.
    #[arg(long, default_value = "mnist", value_name = "NAME|PATH")]
    dataset: DatasetArg,
    /// Train on so many inputs of the data set only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Passes over the data.
    #[arg(long, default_value_t = 10)]
    epochs: u32,
    /// Inputs to one update of the weights.
    #[arg(long, alias = "batch", default_value_t = 64)]
    batch_size: usize,
    /// Learning rate at its full value.
    #[arg(long, default_value_t = 0.05)]
    lr: f64,
    /// Momentum of the gradient descent.
    #[arg(long, default_value_t = 0.9)]
    momentum: f64,
    /// L2 penalty on the weights [default: 0.0001 with --clear, else 0, and no other is possible].
    #[arg(long)]
    weight_decay: Option<f64>,
    /// How the learning rate changes: constant, cosine, or step:EPOCHS:FACTOR.
    #[arg(long, default_value = "cosine")]
    schedule: Schedule,
    /// Epochs over which the learning rate first rises from zero.
    #[arg(long, default_value_t = 0.0, value_name = "EPOCHS")]
    warm_up: f64,
    /// How the first weights are drawn: kaiming-uniform, as PyTorch does; he-uniform, which suits deep networks without
    /// batch norm; xavier-uniform; or zeros.
    #[arg(long, default_value = "kaiming-uniform")]
    initializer: Initializer,
    /// Determines first weights, order and augmentation: the same seed gives the same weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Shift, turn, scale and shear the training images a little.
    #[arg(long)]
    augment: bool,
    /// Keep the state in this folder: after every epoch, and in private training between iterations, twice a minute.
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,
    /// Go on from the checkpoint.
    #[arg(long, requires = "checkpoint_dir")]
    resume: bool,
    /// Write the trained weights here, with the ranges of their activations.
    #[arg(long, value_name = "FILE.safetensors")]
    out: Option<PathBuf>,
    /// Draw the learning curves into this file.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    private: private::PrivateArgs,
    #[command(flatten)]
    options: DataOptions,
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The network's name, or the file's.
    fn name(&self) -> String {
        network_of(&self.model)
            .map_or_else(|| self.model.display().to_string(), |network| network.to_string())
    }

    fn config(&self) -> TrainConfig {
        let default_decay = if self.clear && !self.fixed { 1e-4 } else { 0.0 };
        TrainConfig {
            learning_rate: self.lr,
            momentum: self.momentum,
            weight_decay: self.weight_decay.unwrap_or(default_decay),
            batch_size: self.batch_size,
            epochs: self.epochs,
            schedule: self.schedule,
            warm_up: self.warm_up,
            seed: self.seed,
            augmentation: self.augment.then_some(Augmentation::LIGHT),
        }
    }

    /// The training and the test part, the first cut to `--limit`.
    fn data(&self) -> anyhow::Result<TrainingData> {
        let data = self.options.training(&self.dataset, self.seed)?;
        Ok(match self.limit {
            Some(limit) => TrainingData { train: data.train.first(limit as usize), ..data },
            None => data,
        })
    }
}

/// One line of the learning curve.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Epoch {
    train: EpochStats,
    test: Evaluation,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: String,
    dataset: String,
    config: &'a TrainConfig,
    parameters: usize,
    train_images: usize,
    test_images: usize,
    seconds: f64,
    epochs: &'a [Epoch],
    test: Evaluation,
}

/// The key of a checkpoint's metadata that holds the learning curve so far.
const HISTORY: &str = "gelu.history";

pub(crate) fn run(args: &Args, given: &Given) -> anyhow::Result<()> {
    let keys = ["key-bits", "key-type"];
    if args.clear {
        given.refuse(&keys, "training in the clear (--clear) has no keys")?;
    }
    if args.clear && !args.fixed {
        given.refuse(
            &["clients", "d-max", "leakage", "ring-bits", "checkpoint-every", "report", "calibrate"],
            "training on floats (--clear without --fixed) has no clients that take turns",
        )?;
    }

    check_files([&args.out, &args.plot].into_iter().flatten().map(PathBuf::as_path))?;
    check_folders([&args.checkpoint_dir, args.private.report()].into_iter().flatten().map(PathBuf::as_path))?;
    if !args.clear || args.fixed {
        return private::run(args);
    }
    let start = Instant::now();
    let data = args.data()?;
    let (train, test) = (&data.train, &data.test);
    let (mut trainer, mut history) = begin(args, train)?;
    while trainer.epochs_done() < trainer.config().epochs {
        history.push(epoch(&mut trainer, [train, test])?);
        if let Some(folder) = &args.checkpoint_dir {
            save(&trainer, &history, folder)?;
        }
    }
    let test_result = evaluate(trainer.model(), test)?;
    if let Some(path) = &args.out {
        let weights = with_metadata(args, trainer.model(), &data, test_result)?;
        weights.write(path, Dtype::F32)?;
        note!("wrote {}", path.display());
    }
    if let Some(path) = &args.plot {
        write_atomic(path, training_curves_svg(&curves(&history))?.as_bytes())?;
        note!("wrote {}", path.display());
    }
    let report = Report {
        model: args.name(),
        dataset: args.dataset.name(),
        config: trainer.config(),
        parameters: trainer.model().parameter_count(),
        train_images: train.len(),
        test_images: test.len(),
        seconds: start.elapsed().as_secs_f64(),
        epochs: &history,
        test: test_result,
    };
    if args.json {
        outln!("{}", serde_json::to_string(&report)?)?;
    } else {
        outln!("test accuracy {:.2} %, loss {:.4}", 100.0 * test_result.accuracy, test_result.loss)?;
    }
    Ok(())
}

/// A new run, or the one in the checkpoint, with its learning curve.
fn begin(args: &Args, train: &Dataset) -> anyhow::Result<(Trainer, Vec<Epoch>)> {
    let mut model = model(args, train)?;
    let config = args.config();
    let Some(folder) = args.checkpoint_dir.as_deref().filter(|_| args.resume) else {
        initialize(args, &mut model)?;
        return Ok((Trainer::new(model, config)?, Vec::new()));
    };
    let path = checkpoint(folder);
    let mut weights = Weights::read(&path).context("--resume needs a checkpoint")?;
    let history = weights.metadata.remove(HISTORY).unwrap_or_default();
    let history = serde_json::from_str(&history).with_context(|| format!("{}: {HISTORY}", path.display()))?;
    let state = TrainState::from_weights(weights).with_context(|| path.display().to_string())?;
    ensure!(
        state.config == config,
        "{}: the checkpoint is of another run.\n  expected (this command): {}\n  found (the checkpoint): {}",
        path.display(),
        serde_json::to_string(&config)?,
        serde_json::to_string(&state.config)?,
    );
    note!("resuming after epoch {} of {}", state.epochs_done, config.epochs);
    Ok((Trainer::resume(model, &state).with_context(|| path.display().to_string())?, history))
}

/// Trains one epoch, tests, and says so on standard error.
fn epoch(trainer: &mut Trainer, [train, test]: [&Dataset; 2]) -> anyhow::Result<Epoch> {
    let start = Instant::now();
    let number = trainer.epochs_done() + 1;
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(train.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}  {msg}  {eta}")?);
    bar.set_prefix(format!("epoch {number}/{}", trainer.config().epochs));
    let stats = trainer.train_epoch(train, |progress| {
        bar.set_position(progress.done as u64);
        bar.set_message(format!("loss {:.4}", progress.loss));
    })?;
    bar.finish_and_clear();
    let test = evaluate(trainer.model(), test)?;
    note!(
        "epoch {number}/{}: loss {:.4}, accuracy {:.2} %; test loss {:.4}, accuracy {:.2} %; {:.1} s",
        trainer.config().epochs,
        stats.loss,
        100.0 * stats.accuracy,
        test.loss,
        100.0 * test.accuracy,
        start.elapsed().as_secs_f64(),
    );
    Ok(Epoch { train: stats, test })
}

fn checkpoint(folder: &Path) -> PathBuf {
    folder.join("checkpoint.safetensors")
}

fn save(trainer: &Trainer, history: &[Epoch], folder: &Path) -> anyhow::Result<()> {
    make_folder(folder)?;
    let mut weights = trainer.state().to_weights();
    weights.metadata.insert(HISTORY.to_owned(), serde_json::to_string(history)?);
    Ok(weights.write(checkpoint(folder), Dtype::F32)?)
}

fn curves(history: &[Epoch]) -> Vec<EpochPoint> {
    let point = |epoch: &Epoch| EpochPoint {
        epoch: f64::from(epoch.train.epoch),
        train_loss: epoch.train.loss,
        test_loss: epoch.test.loss,
        train_accuracy: epoch.train.accuracy,
        test_accuracy: epoch.test.accuracy,
    };
    history.iter().map(point).collect()
}
