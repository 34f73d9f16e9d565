//! Private training, and its clear counterpart on the same integers.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use gelu_io::files::write_atomic;
use gelu_io::report::{EpochPoint, TextTable, training_curves_svg};
use gelu_io::training::{Checkpoint, Go, TrainingAccount, read_checkpoint, run_turn, write_checkpoint};
use gelu_io::weights::{Dtype, write_safetensors};
use gelu_layers::Initializer;
use gelu_models::Model;
use gelu_models::train::private::{
    Augmented, Client, DMax, Description, FixedPoint, FixedTrainer, LayerLeakage, Leakage, LearnerConfig,
    LearnerState, MasterConfig, MasterState, Part, Samples, Server, Shard, Statistics, TrainPlan,
};
use gelu_models::train::{Augmentation, Dataset, Evaluation, evaluate};
use gelu_tensor::RingBits;
use gelu_tensor::arith::Backend;
use gelu_tensor::paillier::{KeyParameters, SecretKey};
use indicatif::{ProgressBar, ProgressStyle};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Args;
use crate::calibrate::CalibrateArgs;
use crate::datasets::DatasetName;
use crate::model_args::{KeySize, KeyTypeName, warn_of_short_key};

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
    /// Seconds between two checkpoints, at least. Every checkpoint stands for one point between two iterations, from
    /// which the run goes on to the same weights.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, requires = "checkpoint_dir")]
    checkpoint_every: u32,
    /// Write a report into this folder: report.md, report.json, curves.svg, weights.safetensors.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    #[command(flatten)]
    calibrate: CalibrateArgs,
}

impl PrivateArgs {
    /// What of it determines the weights.
    pub(super) fn command(&self) -> String {
        let d_max = match self.d_max {
            DMax::Auto => "auto".to_owned(),
            DMax::Fixed(iterations) => iterations.to_string(),
        };
        let (clients, ring) = (self.clients, self.ring_bits.bits());
        format!(" --clients {clients} --d-max {d_max} --leakage {} --ring-bits {ring}", self.leakage)
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
fn numbers(args: &Args) -> FixedPoint {
    let ring = args.private.ring_bits;
    let short = if ring.bits() < 40 {
        FixedPoint { weight_bits: 15, activation_bits: 10, error_bits: 10, ..FixedPoint::default() }
    } else {
        FixedPoint::default()
    };
    let (input_bits, input_range) = match args.dataset {
        DatasetName::Mnist | DatasetName::KrVsKp => (8, 0),
        // Standardised numbers.
        DatasetName::Iris | DatasetName::Diabetes => (10, 3),
    };
    FixedPoint { ring, input_bits, input_range, ..short }
}

/// Everything that both kinds of run begin with.
struct Setting {
    model: Model,
    plan: Arc<TrainPlan>,
    config: MasterConfig,
    parameters: Vec<u64>,
    train: Arc<Dataset>,
    test: Dataset,
}

/// What of a run is kept besides the two sides' states.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    command: String,
    curve: Vec<Point>,
    seconds: f64,
}

/// A point of the curves.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    epoch: f64,
    train_loss: f64,
    train_accuracy: f64,
    test_loss: f64,
    test_accuracy: f64,
}

impl Setting {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let [train, test] = args.data()?;
        let mut model = super::model(args, &train)?;
        model.initialise(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(args.seed));
        let key = args.private.key_bits.into();
        let description = Description::new(&model, args.batch_size, numbers(args), [key, key])?;
        let plan = Arc::new(TrainPlan::new(description)?);
        let parameters = plan.quantise(&model.weights())?;
        let clients = args.private.clients as usize;
        ensure!(
            train.len() >= clients,
            "--clients: expected at most {} (the inputs), found {clients}",
            train.len()
        );
        let config = MasterConfig {
            train: args.config(),
            images: train.len() as u64,
            d_max: args.private.d_max,
            leakage: args.private.leakage,
        };
        Ok(Self { model, plan, config, parameters, train: Arc::new(train), test })
    }

    /// What each client holds, and how it works.
    fn clients(&self, args: &Args) -> Vec<(Arc<dyn Samples>, LearnerConfig)> {
        let clients = args.private.clients;
        (0..clients)
            .zip(Shard::divide(&self.train, clients as usize))
            .map(|(client, shard)| {
                let samples: Arc<dyn Samples> = match args.augment {
                    true => {
                        let seed = args.seed ^ (u64::from(client) << 32);
                        Arc::new(Augmented { samples: shard, augmentation: Augmentation::LIGHT, seed })
                    }
                    false => Arc::new(shard),
                };
                (samples, LearnerConfig { client, seed: args.seed, momentum: args.momentum })
            })
            .collect()
    }

    /// The model with the parameters of a server.
    fn load(&mut self, parameters: &[u64]) -> anyhow::Result<()> {
        self.model.load(&self.plan.weights(parameters)?)?;
        Ok(())
    }

    /// Names the layers that a client can solve for.
    fn warn(&self, leakage: &[LayerLeakage]) {
        let longest = match (self.config.d_max, self.config.leakage) {
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
            eprintln!(
                "warning: a turn of up to {longest} iterations shows a client more equations than unknowns, so that it \
                 could solve for the weights of {}; --leakage strict refuses that, a smaller batch or --d-max may help",
                solvable.join(", ")
            );
        }
    }
}

/// Shows how far a run is: a bar on a terminal, else a line twice a minute.
struct Progress {
    bar: ProgressBar,
    said: Instant,
    start: Instant,
    first: u64,
    of: u64,
}

impl Progress {
    fn new(done: u64, of: u64) -> anyhow::Result<Self> {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(of),
            false => ProgressBar::hidden(),
        };
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} images  {msg}  {eta}")?);
        Ok(Self { bar, said: Instant::now(), start: Instant::now(), first: done, of })
    }

    fn show(&mut self, statistics: &Statistics, last: &str) {
        let done = statistics.images;
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = (done - self.first.min(done)) as f64 / seconds.max(1e-9);
        self.bar.set_position(done.min(self.of));
        self.bar.set_message(format!("{rate:.1} images/s, {last}"));
        if self.bar.is_hidden() && self.said.elapsed() > Duration::from_secs(30) {
            let left = self.of.saturating_sub(done) as f64 / rate.max(1e-9);
            eprintln!(
                "{done}/{} images, {rate:.1} images/s, {:.0} min left, {last}",
                self.of,
                (left / 60.0).ceil()
            );
            self.said = Instant::now();
        }
    }
}

/// What clients have met since some point.
fn since(now: &Statistics, before: &Statistics) -> (f64, f64) {
    let images = (now.images - before.images).max(1) as f64;
    ((now.loss - before.loss) / images, (now.correct - before.correct) as f64 / images)
}

fn sum(all: impl IntoIterator<Item = Statistics>) -> Statistics {
    all.into_iter().fold(Statistics::default(), |sum, one| Statistics {
        images: sum.images + one.images,
        loss: sum.loss + one.loss,
        correct: sum.correct + one.correct,
        clamped: sum.clamped + one.clamped,
    })
}

/// The learning curve as it grows: a point ten times an epoch.
struct Curve {
    points: Vec<Point>,
    before: Statistics,
}

impl Curve {
    fn new(points: Vec<Point>, before: Statistics) -> Self {
        Self { points, before }
    }

    /// Adds a point, if it is time.
    fn note(
        &mut self,
        setting: &mut Setting,
        master: &MasterState,
        now: Statistics,
        last: bool,
    ) -> anyhow::Result<()> {
        let epoch = (master.iterations * setting.plan.batch() as u64) as f64 / setting.config.images as f64;
        let before = self.points.last().map_or(0.0, |point| point.epoch);
        if epoch - before < 0.1 && !last {
            return Ok(());
        }
        setting.load(&master.parameters)?;
        let Evaluation { loss: test_loss, accuracy: test_accuracy } =
            evaluate(&setting.model, &setting.test)?;
        let (train_loss, train_accuracy) = since(&now, &self.before);
        if now.images > self.before.images || self.points.is_empty() {
            self.points.push(Point { epoch, train_loss, train_accuracy, test_loss, test_accuracy });
            eprintln!(
                "epoch {epoch:.2}: loss {train_loss:.4}, accuracy {:.2} %; test loss {test_loss:.4}, accuracy {:.2} %",
                100.0 * train_accuracy,
                100.0 * test_accuracy,
            );
        }
        self.before = now;
        Ok(())
    }

    fn last(&self) -> String {
        let last = self.points.last();
        last.map_or_else(String::new, |point| format!("test accuracy {:.2} %", 100.0 * point.test_accuracy))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut setting = Setting::new(args)?;
    let start = Instant::now();
    let calibration = args.private.calibrate.start(Backend::preferred());
    let done = if args.fixed { run_fixed(args, &mut setting)? } else { run_masked(args, &mut setting)? };
    let seconds = done.seconds_before + start.elapsed().as_secs_f64();
    let calibrated = calibration.map(|calibration| calibration.limits());
    finish(args, &mut setting, &done, seconds, calibrated)
}

/// A run that is through.
struct Done {
    master: MasterState,
    leakage: Vec<LayerLeakage>,
    statistics: Statistics,
    account: Option<TrainingAccount>,
    curve: Vec<Point>,
    seconds_before: f64,
}

/// A checkpoint of the clear counterpart.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixedCheckpoint {
    run: Kept,
    master: MasterState,
    learners: Vec<LearnerState>,
}

fn checkpoint_path(folder: &Path) -> PathBuf {
    folder.join("private.json")
}

fn interval(args: &Args) -> Duration {
    Duration::from_secs(args.private.checkpoint_every.into())
}

fn check_command(path: &Path, kept: &Kept, args: &Args) -> anyhow::Result<()> {
    let expected = super::command(args);
    ensure!(
        kept.command == expected,
        "{}: the checkpoint is of another run.\n  expected (this command): {expected}\n  found (the checkpoint): {}",
        path.display(),
        kept.command,
    );
    Ok(())
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))
}

fn run_fixed(args: &Args, setting: &mut Setting) -> anyhow::Result<Done> {
    let (plan, config) = (setting.plan.clone(), setting.config.clone());
    let mut trainer =
        FixedTrainer::new(plan, config.clone(), setting.parameters.clone(), setting.clients(args))?;
    setting.warn(trainer.leakage());
    let mut kept = Kept { command: super::command(args), curve: vec![], seconds: 0.0 };
    let path = args.checkpoint_dir.as_deref().map(checkpoint_path);
    if let (Some(path), true) = (&path, args.resume) {
        let bytes = gelu_io::files::read_limited(path, 1 << 31).context("--resume needs a checkpoint")?;
        let checkpoint: FixedCheckpoint = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: expected a checkpoint of --clear --fixed", path.display()))?;
        check_command(path, &checkpoint.run, args)?;
        kept = checkpoint.run;
        trainer.restore(config, checkpoint.master, checkpoint.learners)?;
        eprintln!("resuming after {} of {} iterations", trainer.master().iterations, trainer.iterations());
    }
    let mut curve = Curve::new(kept.curve.clone(), sum(trainer.statistics()));
    let mut progress =
        Progress::new(curve.before.images, trainer.iterations() * setting.plan.batch() as u64)?;
    let (start, mut saved) = (Instant::now(), Instant::now());
    while !trainer.is_complete() {
        trainer.turn()?;
        let now = sum(trainer.statistics());
        curve.note(setting, trainer.master(), now, trainer.is_complete())?;
        progress.show(&now, &curve.last());
        if let Some(path) = &path
            && (saved.elapsed() >= interval(args) || trainer.is_complete())
        {
            make_folder(path.parent().unwrap_or(Path::new(".")))?;
            let seconds = kept.seconds + start.elapsed().as_secs_f64();
            let run = Kept { curve: curve.points.clone(), seconds, ..kept.clone() };
            let checkpoint =
                FixedCheckpoint { run, master: trainer.master().clone(), learners: trainer.learners() };
            gelu_io::files::write_secret(path, &serde_json::to_vec(&checkpoint)?)?;
            saved = Instant::now();
        }
    }
    progress.bar.finish_and_clear();
    Ok(Done {
        master: trainer.master().clone(),
        leakage: trainer.leakage().to_vec(),
        statistics: sum(trainer.statistics()),
        account: None,
        curve: curve.points,
        seconds_before: kept.seconds,
    })
}

fn run_masked(args: &Args, setting: &mut Setting) -> anyhow::Result<Done> {
    let parameters =
        KeyParameters { size: args.private.key_bits.into(), key_type: args.private.key_type.into() };
    warn_of_short_key(parameters.size);
    let (mut server_rng, mut client_rng) = (rand::rng(), rand::rng());
    let mut new_key = || anyhow::Ok(Arc::new(SecretKey::generate(parameters, &mut client_rng)?));
    let (plan, config) = (setting.plan.clone(), setting.config.clone());
    let members = setting.clients(args);
    let mut kept = Kept { command: super::command(args), curve: vec![], seconds: 0.0 };
    let mut account = TrainingAccount::default();
    let path = args.checkpoint_dir.as_deref().map(checkpoint_path);
    let server_key = new_key()?;
    let mut clients = vec![];
    let mut server = match (&path, args.resume) {
        (Some(path), true) => {
            let checkpoint: Checkpoint<Kept> =
                read_checkpoint(path).context("--resume needs a checkpoint")?;
            check_command(path, &checkpoint.run, args)?;
            ensure!(
                checkpoint.clients.len() == members.len(),
                "{}: expected the states of {} clients, found {}",
                path.display(),
                members.len(),
                checkpoint.clients.len()
            );
            kept = checkpoint.run;
            account = checkpoint.account;
            for ((samples, learner), state) in members.into_iter().zip(checkpoint.clients) {
                let key = new_key()?;
                clients.push(match state {
                    Some(state) => {
                        Client::resume(key, samples, learner, (plan.description().clone(), state))?
                    }
                    None => Client::new(key, samples, learner),
                });
            }
            let server = Server::resume(plan, server_key, config, checkpoint.server)?;
            eprintln!("resuming after {} of {} iterations", server.iterations_done(), server.iterations());
            server
        }
        _ => {
            for (samples, learner) in members {
                clients.push(Client::new(new_key()?, samples, learner));
            }
            Server::new(plan, server_key, config, setting.parameters.clone())?
        }
    };
    setting.warn(server.leakage());
    let others = |clients: &[Client]| sum(clients.iter().map(Client::statistics));
    let mut curve = Curve::new(kept.curve.clone(), others(&clients));
    let mut progress = Progress::new(curve.before.images, server.iterations() * setting.plan.batch() as u64)?;
    let (start, mut saved) = (Instant::now(), Instant::now());
    while !server.is_complete() {
        let at = (server.master().turns % clients.len() as u64) as usize;
        let (before, rest) = clients.split_at_mut(at);
        let (client, after) = rest.split_first_mut().context("a run needs at least one client")?;
        let (elsewhere, last) = (sum(before.iter().chain(&*after).map(Client::statistics)), curve.last());
        let between = |server: &Server, client: &Client, account: &TrainingAccount| -> anyhow::Result<Go> {
            // Only where both sides are at hand can this be seen (the paper's algorithms 3 and 5).
            ensure!(
                client.totals().is_none_or(|totals| server.agrees(client.masks(), totals)),
                "masked weights and masks no longer add up to the weights: this is a bug of gelu-net"
            );
            progress.show(&sum([elsewhere, client.statistics()]), &last);
            if let Some(path) = &path
                && saved.elapsed() >= interval(args)
            {
                make_folder(path.parent().unwrap_or(Path::new(".")))?;
                let seconds = kept.seconds + start.elapsed().as_secs_f64();
                let clients = before.iter().chain([client]).chain(&*after).map(Client::state).collect();
                let run = Kept { curve: curve.points.clone(), seconds, ..kept.clone() };
                let server = server.state();
                write_checkpoint(path, &Checkpoint { run, server, clients, account: account.clone() })?;
                saved = Instant::now();
            }
            Ok(Go::On)
        };
        let rngs: [&mut dyn rand::CryptoRng; 2] = [&mut server_rng, &mut client_rng];
        run_turn(&mut server, client, &mut account, rngs, between)?;
        let now = others(&clients);
        curve.note(setting, server.master(), now, server.is_complete())?;
        progress.show(&now, &curve.last());
    }
    progress.bar.finish_and_clear();
    if let Some(path) = &path {
        make_folder(path.parent().unwrap_or(Path::new(".")))?;
        let seconds = kept.seconds + start.elapsed().as_secs_f64();
        let run = Kept { curve: curve.points.clone(), seconds, ..kept.clone() };
        let clients = clients.iter().map(Client::state).collect();
        write_checkpoint(
            path,
            &Checkpoint { run, server: server.state(), clients, account: account.clone() },
        )?;
    }
    Ok(Done {
        master: server.master().clone(),
        leakage: server.leakage().to_vec(),
        statistics: others(&clients),
        account: Some(account),
        curve: curve.points,
        seconds_before: kept.seconds,
    })
}

/// Tells how the run went, and writes what was asked for.
fn finish(
    args: &Args,
    setting: &mut Setting,
    done: &Done,
    seconds: f64,
    limits: Option<[f64; 2]>,
) -> anyhow::Result<()> {
    setting.load(&done.master.parameters)?;
    let test = evaluate(&setting.model, &setting.test)?;
    let train = evaluate(&setting.model, &setting.train)?;
    let account = done.account.clone().unwrap_or_default();
    let key_bits = done
        .account
        .is_some()
        .then(|| usize::from(gelu_tensor::paillier::KeyBits::from(args.private.key_bits)));
    let mut object = json!({
        "model": args.model_name(),
        "dataset": super::name_of(args.dataset),
        "clients": args.private.clients,
        "epochs": args.epochs,
        "iterations": done.master.iterations,
        "images": done.statistics.images,
        "images_per_second": done.statistics.images as f64 / seconds,
        "train_accuracy": train.accuracy,
        "test_accuracy": test.accuracy,
        "seconds": {
            "server": account.server_seconds(),
            "client": account.client_seconds(),
            "update": account.update_seconds(),
            "all": seconds,
        },
        "bytes_up": account.bytes_up(),
        "bytes_down": account.bytes_down(),
        "clamped": done.statistics.clamped,
        "key_bits": key_bits,
        "key_type": key_bits.map(|_| gelu_tensor::paillier::KeyType::from(args.private.key_type).name()),
        "ring_bits": args.private.ring_bits.bits(),
        "batch": args.batch_size,
        "turns": done.master.turns,
        "parameters": setting.plan.parameters(),
        "command": super::command(args),
        "ledger": done.master.ledger,
        "leakage_of_an_iteration": done.leakage,
    });
    if let Some([before, after]) = limits {
        object["limit_ns"] = json!((before + after) / 2.0);
    }
    let weights = || super::with_metadata(args, &setting.model, &setting.train, test);
    if let Some(path) = &args.out {
        write_safetensors(path, &weights()?, Dtype::F32)?;
        eprintln!("wrote {}", path.display());
    }
    let curves = || -> anyhow::Result<String> {
        let point = |point: &Point| EpochPoint {
            epoch: point.epoch,
            train_loss: point.train_loss,
            test_loss: point.test_loss,
            train_accuracy: point.train_accuracy,
            test_accuracy: point.test_accuracy,
        };
        Ok(training_curves_svg(&done.curve.iter().map(point).collect::<Vec<_>>())?)
    };
    if let Some(path) = &args.plot {
        write_atomic(path, curves()?.as_bytes())?;
        eprintln!("wrote {}", path.display());
    }
    if let Some(folder) = &args.private.report {
        make_folder(folder)?;
        write_atomic(&folder.join("report.json"), &serde_json::to_vec_pretty(&object)?)?;
        write_atomic(&folder.join("curves.svg"), curves()?.as_bytes())?;
        write_safetensors(&folder.join("weights.safetensors"), &weights()?, Dtype::F32)?;
        let text = report(args, setting, done, [test.accuracy, train.accuracy], seconds);
        write_atomic(&folder.join("report.md"), text.as_bytes())?;
        eprintln!("wrote {}", folder.join("report.md").display());
    }
    if args.json {
        println!("{object}");
    } else {
        println!(
            "test accuracy {:.2} %, loss {:.4}; {} images in {seconds:.1} s ({:.1} images/s)",
            100.0 * test.accuracy,
            test.loss,
            done.statistics.images,
            done.statistics.images as f64 / seconds
        );
        if done.account.is_some() {
            println!("\n{}", shares(&account));
        }
        if let Some([before, after]) = limits {
            println!("limit_ns {:.0} ({before:.0} before, {after:.0} after)", (before + after) / 2.0);
        }
    }
    Ok(())
}

/// Where the time of a run went, in percent.
pub(crate) fn shares(account: &TrainingAccount) -> String {
    let (up, down) = (account.up(), account.down());
    let rows = [
        ("server: products, flooding, re-randomisation", down.making),
        ("server: decoding and checks", up.taking),
        ("client: activations, encryption", up.making),
        ("client: decryption, masks", down.taking),
        ("update: masking by the client", account.updates().making),
        ("update: decryption by the server", account.updates().taking),
    ];
    let all: f64 = rows.iter().map(|(_, seconds)| seconds).sum();
    let mut table = TextTable::new(["part", "seconds", "share"]);
    for (name, seconds) in rows {
        table.row([
            name.to_owned(),
            format!("{seconds:.2}"),
            format!("{:.1} %", 100.0 * seconds / all.max(1e-9)),
        ]);
    }
    table.to_string()
}

/// The report for people, as Markdown.
fn report(args: &Args, setting: &Setting, done: &Done, [test, train]: [f64; 2], seconds: f64) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# {} on {}, trained {}\n\n```\n{}\n```\n\n{} iterations of {} images in {} turns, {seconds:.1} s, {:.1} images/s. \
         Accuracy {:.2} % on the {} test images, {:.2} % on the {} training images. {} numbers were clamped to their \
         range.\n\n![curves](curves.svg)\n",
        args.model_name(),
        super::name_of(args.dataset),
        if done.account.is_some() { "privately" } else { "in the clear, on the same integers" },
        super::command(args),
        done.master.iterations,
        args.batch_size,
        done.master.turns,
        done.statistics.images as f64 / seconds,
        100.0 * test,
        setting.test.len(),
        100.0 * train,
        setting.train.len(),
        done.statistics.clamped,
    );
    if let Some(account) = &done.account {
        let _ = write!(text, "\n## Time\n\n```text\n{}```\n\n## What crossed\n\n", shares(account));
        let mut table = TextTable::new([
            "layer",
            "tensor",
            "direction",
            "values an image",
            "slots x bits",
            "ciphertexts",
            "bytes",
        ]);
        let plan = &setting.plan;
        for (index, segment) in (0u32..).zip(plan.segments()) {
            let (inputs, outputs) = (segment.map.inputs(), segment.map.outputs());
            let mut add = |part, values: usize, direction: &str, flood| {
                let totals = account.of(Some(part));
                let (what, layout) = (
                    match part {
                        Part::Inputs(_) => "inputs",
                        Part::Sums(_) => "sums",
                        Part::Errors(_) => "errors",
                        _ => "products",
                    },
                    plan.layout(flood)
                        .map_or_else(|_| String::new(), |l| format!("{} x {}", l.width, l.slot_bits)),
                );
                table.row([
                    segment.name.clone(),
                    what.to_owned(),
                    direction.to_owned(),
                    values.to_string(),
                    layout,
                    totals.ciphertexts.to_string(),
                    totals.bytes.to_string(),
                ]);
            };
            add(Part::Inputs(index), inputs, "up", segment.forward_flood);
            add(Part::Sums(index), outputs, "down", segment.forward_flood);
            if let Some(flood) = segment.backward_flood {
                add(Part::Errors(index), outputs, "up", flood);
                add(Part::Products(index), inputs, "down", flood);
            }
        }
        for (part, name) in [(Part::Update, "masked steps"), (Part::Total, "sums of steps")] {
            let totals = account.of(Some(part));
            table.row([
                "all".to_owned(),
                name.to_owned(),
                "up".to_owned(),
                String::new(),
                String::new(),
                totals.ciphertexts.to_string(),
                totals.bytes.to_string(),
            ]);
        }
        let _ = write!(text, "```text\n{table}```\n");
    }
    let _ = write!(
        text,
        "\n## What clients have seen\n\nThe most linear equations in one turn, for each row of weights and its bias \
         (forward) and for the weights of each input channel (backward), beside the unknowns in them. With as many \
         equations as unknowns, a client can solve for the layer.\n\n"
    );
    let mut table =
        TextTable::new(["client", "layer", "turns", "iterations", "forward", "backward", "solvable"]);
    for entry in &done.master.ledger.entries {
        let [forward, backward] =
            [entry.forward, entry.backward].map(|[equations, unknowns]| format!("{equations} / {unknowns}"));
        table.row([
            entry.client.to_string(),
            entry.layer.clone(),
            entry.turns.to_string(),
            entry.most_iterations.to_string(),
            forward,
            backward,
            if entry.solvable { "yes" } else { "no" }.to_owned(),
        ]);
    }
    let _ = write!(text, "```text\n{table}```\n");
    text
}
