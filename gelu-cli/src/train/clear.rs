//! Training in the clear, on floats.

use std::io::IsTerminal;
use std::time::Instant;

use anyhow::{Context, ensure};
use gelu_io::data::TrainingData;
use gelu_io::files::write_atomic;
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_models::Weights;
use gelu_models::train::{EpochStats, Evaluation, TrainConfig, TrainState, Trainer};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::Args;
use super::checkpoint::Store;
use super::network::{initialize, model};
use super::provenance::with_metadata;
use super::settings::Settings;
use crate::output::{note, outln};
use crate::report::{EpochPoint, training_curves_svg};

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

/// The keys of a checkpoint's metadata that hold the learning curve so far, and the run's settings.
const HISTORY: &str = "gelu.history";
const SETTINGS: &str = "gelu.settings";

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    let data = args.data()?;
    let mut run = Run::begin(args, &data)?;
    while run.trainer.epochs_done() < run.trainer.config().epochs {
        run.epoch(&data)?;
    }
    let Run { trainer, history, .. } = run;
    let (train, test) = (&data.train, &data.test);
    let test_result = trainer.model().evaluate(test)?;
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

/// A run in the clear.
struct Run {
    trainer: Trainer,
    /// The learning curve so far.
    history: Vec<Epoch>,
    store: Option<Store>,
}

impl Run {
    /// A new run, or the one in the checkpoint.
    fn begin(args: &Args, data: &TrainingData) -> anyhow::Result<Self> {
        let mut model = model(args, &data.train)?;
        let config = args.config();
        initialize(&args.descent, args.init.as_deref(), &mut model)?;
        let settings = || Settings::new(args, &model, data, "in the clear, on floats");
        let store = Store::open(args, false, settings)?;
        let Some(resumed) = store.as_ref().filter(|store| store.resumes) else {
            return Ok(Self { trainer: Trainer::new(model, config)?, history: vec![], store });
        };
        let path = resumed.path();
        let at = || path.display().to_string();
        let mut weights = Weights::read(&path)?;
        let mut text = |key| weights.metadata.remove(key).unwrap_or_default();
        let (history, kept) = (text(HISTORY), text(SETTINGS));
        let history: Vec<Epoch> =
            serde_json::from_str(&history).with_context(|| format!("{}: {HISTORY}", path.display()))?;
        let kept = serde_json::from_str(&kept).with_context(|| format!("{}: {SETTINGS}", path.display()))?;
        let mut state = TrainState::from_weights(weights).with_context(at)?;
        resumed.check(&kept, [state.config.epochs, config.epochs])?;
        ensure!(
            history.len() == state.epochs_done as usize,
            "{}: expected a curve of {} epochs, found {}",
            path.display(),
            state.epochs_done,
            history.len()
        );
        // The same but for the epochs.
        state.config = config;
        let trainer = Trainer::resume(model, &state).with_context(at)?;
        let run = Self { trainer, history, store };
        note!("resuming after {}", run.at());
        Ok(run)
    }

    /// How far the run is.
    fn at(&self) -> String {
        let part = match self.trainer.part_of_epoch().done {
            0 => String::new(),
            done => format!(" and {done} inputs of the next"),
        };
        format!("{} of {} epochs{part}", self.trainer.epochs_done(), self.trainer.config().epochs)
    }

    /// Trains one epoch, or the rest of one, tests, and says so on standard error.
    fn epoch(&mut self, data: &TrainingData) -> anyhow::Result<()> {
        let start = Instant::now();
        let (number, of) = (self.trainer.epochs_done() + 1, self.trainer.config().epochs);
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::new(data.train.len() as u64)
        } else {
            ProgressBar::hidden()
        };
        bar.set_style(ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len}  {msg}  {eta}")?);
        bar.set_prefix(format!("epoch {number}/{of}"));
        let stats = loop {
            let store = &self.store;
            let ended = self.trainer.train_while(&data.train, |progress| {
                bar.set_position(progress.done as u64);
                bar.set_message(format!("loss {:.4}", progress.loss));
                !store.as_ref().is_some_and(Store::is_due)
            })?;
            match ended {
                Some(stats) => break stats,
                None => self.save().inspect_err(|_| bar.finish_and_clear())?,
            }
        };
        bar.finish_and_clear();
        let test = self.trainer.model().evaluate(&data.test)?;
        note!(
            "epoch {number}/{of}: loss {:.4}, accuracy {:.2} %; test loss {:.4}, accuracy {:.2} %; {:.1} s",
            stats.loss,
            100.0 * stats.accuracy,
            test.loss,
            100.0 * test.accuracy,
            start.elapsed().as_secs_f64(),
        );
        self.history.push(Epoch { train: stats, test });
        self.save()
    }

    /// Keeps the run as it stands, and stops it if that was asked for.
    fn save(&mut self) -> anyhow::Result<()> {
        let at = self.at();
        let Some(store) = &mut self.store else { return Ok(()) };
        let mut weights = self.trainer.state().to_weights();
        weights.metadata.insert(HISTORY.to_owned(), serde_json::to_string(&self.history)?);
        weights.metadata.insert(SETTINGS.to_owned(), serde_json::to_string(&store.settings)?);
        store.save(|path| Ok(weights.write(path, Dtype::F32)?))?;
        match self.trainer.epochs_done() < self.trainer.config().epochs {
            true => store.stop_if_asked(at),
            false => Ok(()),
        }
    }
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
