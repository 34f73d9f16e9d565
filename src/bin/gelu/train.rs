//! `gelu train`

use std::{
    fmt::Write as _,
    io::IsTerminal,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::{CommandFactory, ValueEnum, error::ErrorKind};
use gelu_io::{
    data::DataDir,
    files::write_atomic,
    report::{EpochPoint, training_curves_svg},
    weights::{Dtype, read_safetensors, write_safetensors},
};
use gelu_layers::{Activation, Initializer};
use gelu_models::{
    Model, Ranges, Weights,
    train::{
        Augmentation, Dataset, EpochStats, Evaluation, Schedule, TrainConfig, TrainState, Trainer, evaluate,
    },
    zoo,
};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use crate::datasets::{self, DatasetName};

/// Train a model on a data set.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
#[command(after_help = "\
Examples:
  LeNet-5 on MNIST, from the folder that holds mnist/*-ubyte.gz:
    gelu train --clear --model lenet5 --dataset mnist --data DIR --out lenet5.safetensors

  The same, interrupted and taken up again where it stopped, with the same result:
    gelu train --clear --model lenet5 --dataset mnist --checkpoint-dir run
    gelu train --clear --model lenet5 --dataset mnist --checkpoint-dir run --resume

  One hidden layer of 12 neurons on UCI Iris, result as JSON:
    gelu train --clear --model mlp --hidden 12 --dataset iris --epochs 50 --batch-size 16 --json")]
pub(crate) struct Args {
    /// Train in the clear, on data that this machine may see.
    #[arg(long)]
    clear: bool,
    /// The network.
    #[arg(long, value_enum)]
    model: ModelName,
    /// The data.
    #[arg(long, value_enum, default_value = "mnist")]
    dataset: DatasetName,
    /// The folder with mnist/ and uci/ [default: the folder named by GELU_DATA, then the
    /// per-user data folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Widths of the mlp's hidden layers.
    #[arg(long, value_delimiter = ',', default_value = "12", value_name = "WIDTHS")]
    hidden: Vec<usize>,
    /// The mlp's activation: relu, sigmoid, tanh, square, sigmoid-taylor3, sigmoid-taylor5.
    #[arg(long, default_value = "relu")]
    activation: Activation,
    /// Passes over the data.
    #[arg(long, default_value_t = 10)]
    epochs: u32,
    /// Inputs to one update of the weights.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// Learning rate at its full value.
    #[arg(long, default_value_t = 0.05)]
    lr: f64,
    /// Momentum of the gradient descent.
    #[arg(long, default_value_t = 0.9)]
    momentum: f64,
    /// L2 penalty on the weights.
    #[arg(long, default_value_t = 1e-4)]
    weight_decay: f64,
    /// How the learning rate changes: constant, cosine, or step:EPOCHS:FACTOR.
    #[arg(long, default_value = "cosine")]
    schedule: Schedule,
    /// Epochs over which the learning rate first rises from zero.
    #[arg(long, default_value_t = 0.0, value_name = "EPOCHS")]
    warm_up: f64,
    /// Determines first weights, order and augmentation: the same seed gives the same weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Shift, turn, scale and shear the training images a little.
    #[arg(long)]
    augment: bool,
    /// Keep the state after every epoch in this folder.
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
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModelName {
    /// LeNet-5: two convolutions, three dense layers.
    Lenet5,
    /// Conv-1: one convolution, one dense layer.
    Conv1,
    /// Dense layers only.
    Mlp,
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

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !args.clear {
        let message = "training on encrypted data is not available yet: add --clear to train on data that this \
                       machine may see, then run the weights on encrypted data";
        crate::Cli::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    }
    let start = Instant::now();
    let [train, test] = datasets::load(args.dataset, &DataDir::locate(args.data.clone()), args.seed)?;
    let (mut trainer, mut history) = begin(args, &train)?;
    while trainer.epochs_done() < trainer.config().epochs {
        history.push(epoch(&mut trainer, [&train, &test])?);
        if let Some(folder) = &args.checkpoint_dir {
            save(&trainer, &history, folder)?;
        }
    }
    let test_result = evaluate(trainer.model(), &test)?;
    if let Some(path) = &args.out {
        let weights = finished(args, &trainer, &train, test_result)?;
        write_safetensors(path, &weights, Dtype::F32)?;
        eprintln!("wrote {}", path.display());
    }
    if let Some(path) = &args.plot {
        write_atomic(path, training_curves_svg(&curves(&history))?.as_bytes())?;
        eprintln!("wrote {}", path.display());
    }
    let report = Report {
        model: name_of(args.model),
        dataset: name_of(args.dataset),
        config: trainer.config(),
        parameters: trainer.model().parameter_count(),
        train_images: train.len(),
        test_images: test.len(),
        seconds: start.elapsed().as_secs_f64(),
        epochs: &history,
        test: test_result,
    };
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("test accuracy {:.2} %, loss {:.4}", 100.0 * test_result.accuracy, test_result.loss);
    }
    Ok(())
}

/// A new run, or the one in the checkpoint, with its learning curve.
fn begin(args: &Args, train: &Dataset) -> anyhow::Result<(Trainer, Vec<Epoch>)> {
    let mut model = model(args, train)?;
    let config = TrainConfig {
        learning_rate: args.lr,
        momentum: args.momentum,
        weight_decay: args.weight_decay,
        batch_size: args.batch_size,
        epochs: args.epochs,
        schedule: args.schedule,
        warm_up: args.warm_up,
        seed: args.seed,
        augmentation: args.augment.then_some(Augmentation::LIGHT),
    };
    let Some(folder) = args.checkpoint_dir.as_deref().filter(|_| args.resume) else {
        model.initialise(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(args.seed));
        return Ok((Trainer::new(model, config)?, Vec::new()));
    };
    let path = checkpoint(folder);
    let mut weights = read_safetensors(&path).context("--resume needs a checkpoint")?;
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
    eprintln!("resuming after epoch {} of {}", state.epochs_done, config.epochs);
    Ok((Trainer::resume(model, &state).with_context(|| path.display().to_string())?, history))
}

fn model(args: &Args, train: &Dataset) -> anyhow::Result<Model> {
    let model = match args.model {
        ModelName::Lenet5 => zoo::lenet5()?,
        ModelName::Conv1 => zoo::conv1()?,
        ModelName::Mlp => zoo::mlp(&zoo::MlpConfig {
            inputs: train.shape().elements(),
            hidden: args.hidden.clone(),
            classes: train.classes(),
            activation: args.activation,
        })?,
    };
    let (expected, found) = (model.input_shape(), train.shape());
    ensure!(
        expected.elements() == found.elements(),
        "--model {} takes inputs of {expected}, --dataset {} has {found}; use --model mlp",
        name_of(args.model),
        name_of(args.dataset),
    );
    Ok(model)
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
    eprintln!(
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
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let mut weights = trainer.state().to_weights();
    weights.metadata.insert(HISTORY.to_owned(), serde_json::to_string(history)?);
    Ok(write_safetensors(&checkpoint(folder), &weights, Dtype::F32)?)
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

/// The trained weights with what a user needs to know about them.
fn finished(args: &Args, trainer: &Trainer, train: &Dataset, test: Evaluation) -> anyhow::Result<Weights> {
    let mut weights = trainer.model().weights();
    let ranges = trainer.model().calibrate(train.inputs())?;
    let metadata = [
        (Ranges::METADATA_KEY, serde_json::to_string(&ranges)?),
        ("gelu.model", name_of(args.model)),
        ("gelu.dataset", name_of(args.dataset)),
        ("gelu.command", command(args)),
        ("gelu.test_accuracy", test.accuracy.to_string()),
    ];
    weights.metadata.extend(metadata.map(|(key, value)| (key.to_owned(), value)));
    Ok(weights)
}

/// The command that gives the same weights again, without the names of files.
fn command(args: &Args) -> String {
    let mut text =
        format!("gelu train --clear --model {} --dataset {}", name_of(args.model), name_of(args.dataset));
    if args.model == ModelName::Mlp {
        let hidden: Vec<_> = args.hidden.iter().map(usize::to_string).collect();
        // Writing to a String cannot fail.
        let _ = write!(text, " --hidden {} --activation {}", hidden.join(","), args.activation);
    }
    let _ = write!(
        text,
        " --epochs {} --batch-size {} --lr {} --momentum {} --weight-decay {} --schedule {} --warm-up {} --seed {}",
        args.epochs,
        args.batch_size,
        args.lr,
        args.momentum,
        args.weight_decay,
        args.schedule,
        args.warm_up,
        args.seed,
    );
    text + if args.augment { " --augment" } else { "" }
}

/// The name of a choice as it is written on the command line.
fn name_of(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
