//! Private training, and its clear counterpart on the same integers.

mod fixed;
mod masked;
mod progress;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use gelu_io::data::TrainingData;
use gelu_io::session::TrainingAccount;
use gelu_models::train::private::{
    Augmented, CoordinatorState, DMax, FixedPoint, LayerLeakage, Leakage, Samples, Shard, Statistics,
};
use gelu_models::train::{Augmentation, Dataset};
use gelu_models::{ColumnValues, Model, Preprocessing};
use gelu_net::{TrainingOptions, TrainingSetup};
use gelu_tensor::RingBits;
use gelu_tensor::paillier::KeyParameters;
use serde::{Deserialize, Serialize};

use self::progress::Point;
pub(crate) use self::report::shares;
use super::Args;
use super::checkpoint::Store;
use super::settings::Settings;
use crate::calibrate::CalibrateArgs;
use crate::model_args::{KeySize, KeyTypeName, backend};
use crate::output::note;

/// What only private training has.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Private training")]
pub(crate) struct PrivateArgs {
    /// Clients, each with a part of the data of its own. They take turns.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// Bits of the clients' keys and the server's, which are made anew.
    #[arg(long, value_enum, default_value = "2048")]
    key_bits: KeySize,
    /// How those keys are made. Subgroup keys take a third of the clients' time, under one assumption more (see
    /// SECURITY.md).
    #[arg(long, value_enum, default_value = "djn")]
    key_type: KeyTypeName,
    /// Iterations that a client may run in one go: a number, or `auto` to draw one for every turn, as the paper does.
    #[arg(long, default_value = "auto", value_name = "N", value_parser = parse_d_max)]
    d_max: DMax,
    /// How many iterations may be allowed at all: `paper` keeps below the paper's bound, `strict` below as many linear
    /// equations as a layer has unknown weights (every image and position counted), `off` sets no bound.
    #[arg(long, default_value = "paper", value_name = "POLICY")]
    leakage: Leakage,
    /// Bits of the ring in which weights are masked: 32, 40, 48 or 64.
    #[arg(long, default_value = "40", value_parser = parse_ring)]
    ring_bits: RingBits,
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

    /// What of it determines the weights: options and their values.
    pub(super) fn settings(&self) -> [(&'static str, String); 4] {
        let d_max = match self.d_max {
            DMax::Auto => "auto".to_owned(),
            DMax::Fixed(iterations) => iterations.to_string(),
        };
        [
            ("--clients", self.clients.to_string()),
            ("--d-max", d_max),
            ("--leakage", self.leakage.to_string()),
            ("--ring-bits", self.ring_bits.bits().to_string()),
        ]
    }
}

fn parse_d_max(text: &str) -> Result<DMax, String> {
    match text {
        "auto" => Ok(DMax::Auto),
        _ => text
            .parse()
            .ok()
            .filter(|&iterations: &u32| iterations > 0)
            .map(DMax::Fixed)
            .ok_or_else(|| format!("expected `auto` or a number of iterations from 1, found `{text}`")),
    }
}

fn parse_ring(text: &str) -> Result<RingBits, String> {
    let ring = text.parse().ok().and_then(|bits: u32| RingBits::try_from(bits).ok());
    ring.ok_or_else(|| format!("expected 32, 40, 48 or 64, found `{text}`"))
}

/// The numbers that suit a data set.
fn numbers(args: &Args, data: &TrainingData) -> FixedPoint {
    let ring = args.private.ring_bits;
    let short = if ring.bits() < 40 {
        FixedPoint { weight_bits: 15, activation_bits: 10, error_bits: 10, ..FixedPoint::default() }
    } else {
        FixedPoint::default()
    };
    let (input_bits, input_range) = match &data.preprocessing {
        // Standardized numbers.
        Preprocessing::Columns(columns)
            if columns.iter().any(|column| matches!(column.values, ColumnValues::Number { .. })) =>
        {
            (10, 3)
        }
        // From 0 to 1.
        Preprocessing::Pixels(_) | Preprocessing::Columns(_) => (8, 0),
        Preprocessing::Raw => {
            let largest = data.train.inputs().iter().fold(0.0f32, |most, value| most.max(value.abs()));
            (10, largest.max(1.0).log2().ceil().min(24.0) as _)
        }
    };
    FixedPoint { ring, input_bits, input_range, ..short }
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
        super::initialize(args, &mut model)?;
        let key =
            KeyParameters { size: args.private.key_bits.into(), key_type: args.private.key_type.into() };
        let clients = args.private.clients as usize;
        ensure!(
            train.len() >= clients,
            "--clients: expected at most {} (the inputs), found {clients}",
            train.len()
        );
        let options = TrainingOptions {
            key,
            backend: backend()?,
            numbers: numbers(args, &data),
            train: args.config(),
            d_max: args.private.d_max,
            leakage: args.private.leakage,
        };
        let setup = TrainingSetup::new(&model, samples(args, &train), &options)?;
        let batch = setup.config.train.batch_size;
        if batch < args.batch_size {
            note!("note: batches of {batch} inputs, not {}: a client has no more", args.batch_size);
        }
        Ok(Self { model, setup, train, data })
    }

    /// The model with the parameters of a server.
    fn load(&mut self, parameters: &[u64]) -> anyhow::Result<()> {
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
    let clients = args.private.clients;
    let shards = (0..clients).zip(Shard::divide(train, clients as usize));
    let samples = |(client, shard)| -> Arc<dyn Samples> {
        if args.augment {
            let seed = args.seed ^ (u64::from(client) << 32);
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
        false => masked::run(args, store, &mut setting)?,
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
