//! Private training, and its clear counterpart on the same integers.

mod fixed;
mod local;
pub(crate) mod progress;
mod report;
mod turns;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use gelu_io::data::TrainingData;
use gelu_io::session::TrainingAccount;
use gelu_models::Model;
use gelu_models::train::private::{
    Augmented, CoordinatorState, DMax, LayerLeakage, Leakage, Samples, Shard, Statistics,
};
use gelu_models::train::{Augmentation, Dataset};
use gelu_net::TrainingSetup;
use serde::{Deserialize, Serialize};

use self::progress::Point;
pub(crate) use self::report::shares;
pub(crate) use self::turns::TurnArgs;
use super::Args;
use super::checkpoint::Store;
use super::settings::Settings;
use crate::calibrate::CalibrateArgs;
use crate::model_args::backend;
use crate::output::note;

/// What only private training has.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Private training")]
pub(crate) struct PrivateArgs {
    #[command(flatten)]
    pub(super) turns: TurnArgs,
    /// Write a report into this folder: report.md, report.json, curves.svg, weights.safetensors.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    calibrate: CalibrateArgs,
}

impl PrivateArgs {
    /// The folder of the report.
    pub(super) fn report(&self) -> &Option<PathBuf> {
        &self.report
    }
}

/// Everything that both kinds of run begin with.
struct Setting {
    model: Model,
    setup: TrainingSetup,
    train: Arc<Dataset>,
    data: TrainingData,
}

/// What of a run is kept besides the two sides' states.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    settings: Settings,
    epochs: u32,
    curve: Vec<Point>,
    seconds: f64,
}

impl Setting {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let data = args.data()?;
        let train = Arc::new(data.train.clone());
        let mut model = super::model(args, &train)?;
        super::initialize(&args.descent, args.init.as_deref(), &mut model)?;
        let clients = args.private.turns.clients as usize;
        ensure!(
            train.len() >= clients,
            "--clients: expected at most {} (the inputs), found {clients}",
            train.len()
        );
        let largest = || data.train.inputs().iter().fold(0.0f32, |most, value| most.max(value.abs()));
        let numbers = args.private.turns.numbers(Some(&data.preprocessing), largest);
        let options = args.private.turns.options(args.config(), numbers)?;
        let setup = TrainingSetup::new(&model, samples(args, &train), &options)?;
        let setting = Self { model, setup, train, data };
        let (batch, asked) = (setting.batch(), options.train.batch_size);
        if batch < asked {
            note!("note: batches of {batch} inputs, not {asked}: a client has no more");
        } else if !args.fixed {
            setting.advise_on_batch();
        }
        Ok(setting)
    }

    /// Says which batches would fill ciphertexts, where clients could have such and more than a tenth of the slots stays empty.
    fn advise_on_batch(&self) {
        let (batch, full) = (self.batch(), self.setup.plan.full_batch());
        let can_fill = self.setup.clients.iter().all(|(samples, _)| samples.count() >= full);
        if can_fill && 10 * batch < 9 * batch.next_multiple_of(full) {
            note!(
                "note: {full} inputs fill a ciphertext: an input takes less time in batches of {full} than of {batch}"
            );
        }
    }

    /// Inputs to one update.
    fn batch(&self) -> usize {
        self.setup.config.train.batch_size
    }

    /// The model with the parameters of a server.
    fn load(&mut self, parameters: &[i64]) -> anyhow::Result<()> {
        self.model.load(&self.setup.plan.weights(parameters)?)?;
        Ok(())
    }

    /// Names the layers that a client can solve for.
    fn warn(&self, leakage: &[LayerLeakage]) {
        let longest = match (self.setup.config.d_max, self.setup.config.leakage) {
            (_, Leakage::Strict) => return,
            (DMax::Fixed(iterations), _) => iterations,
            (DMax::Auto, _) => leakage.iter().map(|layer| layer.forward_unknowns as u32).min().unwrap_or(1),
        };
        let solvable: Vec<String> = leakage
            .iter()
            .filter(|layer| layer.is_solvable_after(longest))
            .map(|layer| {
                let after = layer.strict_iterations().saturating_add(1);
                format!("{} (after {after} iteration{})", layer.layer, if after == 1 { "" } else { "s" })
            })
            .collect();
        if !solvable.is_empty() {
            note!(
                "warning: a turn of up to {longest} iterations shows a client more equations than unknowns, so that it \
                 could solve for the weights of {}; --leakage strict refuses that, a smaller batch or --d-max may help",
                solvable.join(", ")
            );
        }
    }
}

/// What each client holds.
fn samples(args: &Args, train: &Arc<Dataset>) -> Vec<Arc<dyn Samples>> {
    let clients = args.private.turns.clients;
    let shards = (0..clients).zip(Shard::divide(train, clients as usize));
    let samples = |(client, shard)| -> Arc<dyn Samples> {
        if args.augment {
            let seed = args.descent.seed ^ (u64::from(client) << 32);
            Arc::new(Augmented { samples: shard, augmentation: Augmentation::LIGHT, seed })
        } else {
            Arc::new(shard)
        }
    };
    shards.map(samples).collect()
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut setting = Setting::new(args)?;
    let start = Instant::now();
    let calibration = args.private.calibrate.start(backend()?);
    let kind = if args.fixed { "in the clear, on integers" } else { "private" };
    let settings = || Settings::new(args, &setting.model, &setting.data, kind);
    let store = Store::open(args, true, settings)?;
    let done = match args.fixed {
        true => fixed::run(args, store, &mut setting)?,
        false => local::run(args, store, &mut setting)?,
    };
    let seconds = done.seconds_before + start.elapsed().as_secs_f64();
    let calibrated = calibration.map(|calibration| calibration.limits());
    report::finish(args, &mut setting, &done, seconds, calibrated)
}

/// A run that is through.
struct Done {
    coordinator: CoordinatorState,
    leakage: Vec<LayerLeakage>,
    statistics: Statistics,
    account: Option<TrainingAccount>,
    curve: Vec<Point>,
    seconds_before: f64,
}
