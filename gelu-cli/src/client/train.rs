//! `gelu client train`

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Args;
use gelu_io::files::{check_owner_only, make_folder, read_limited, write_secret};
use gelu_io::session::Go;
use gelu_models::train::private::{Augmented, Samples, Shard};
use gelu_models::train::{Augmentation, Dataset};
use gelu_service::{Membership, Moment, Offer, RemoteTraining, TrainingOffer};
use gelu_wire::Seal;
use serde_json::json;
use zeroize::Zeroizing;

use super::{ServerArgs, choose};
use crate::config::ConfigArgs;
use crate::datasets::{DataOptions, DatasetArg};
use crate::lock::lock;
use crate::model_args::backend;
use crate::output::{note, outln};
use crate::train::private::progress::Progress;
use crate::train::{Interrupted, is_asked_to_stop, stop_when_asked};

/// The longest state that is read.
const MOST_BYTES: u64 = 1 << 31;

/// The longest passphrase.
const PASSPHRASE_BYTES: u64 = 1 << 12;

#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    /// The model's name on the server [default: the only one that it has in training].
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The data: a known name (`gelu data` lists them), a table, a folder of class folders with pictures, an .npz or .npy
    /// file, or a folder with IDX files. Of a data set in one piece, a fifth is left out, as `gelu train` does (--test).
    #[arg(long, value_name = "NAME|PATH")]
    dataset: DatasetArg,
    /// Train on so many inputs of the data set only.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// For trials: of all clients' data in one data set, the part of client K of N, and its place in the run. `gelu train
    /// --clients N` divides the data in the same way, and comes to the same weights.
    #[arg(long, value_name = "K/N", value_parser = parse_part)]
    part: Option<[u32; 2]>,
    /// Shift, turn, scale and shear the training images a little.
    #[arg(long)]
    augment: bool,
    /// Keep the state under the passphrase in the first line of this file, which only its owner may be able to read.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Print the result as one JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: DataOptions,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    _config: ConfigArgs,
}

fn parse_part(text: &str) -> Result<[u32; 2], String> {
    let part = text.split_once('/').and_then(|(part, of)| Some([part.parse().ok()?, of.parse().ok()?]));
    part.filter(|[part, of]| (1..=*of).contains(part) && *of <= 1000)
        .ok_or_else(|| format!("expected K/N with K from 1 to N, for instance 1/2; found `{text}`"))
}

/// The first line of a file, which only its owner may be able to read.
fn read_passphrase(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    check_owner_only(path)?;
    let bytes = Zeroizing::new(read_limited(path, PASSPHRASE_BYTES)?);
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    ensure!(!line.is_empty(), "{}: expected a passphrase in the first line, found none", path.display());
    Ok(Zeroizing::new(line.to_vec()))
}

/// The file with what a client needs to go on, which is this process's alone.
struct Kept {
    path: PathBuf,
    /// With a passphrase.
    seal: Option<Seal>,
    _lock: File,
}

impl Kept {
    /// Opens the file and reads what is in it, if it is there.
    fn open(
        folder: &Path,
        (model, run): (&str, [u8; 16]),
        passphrase: Option<&Path>,
    ) -> anyhow::Result<(Self, Option<Membership>)> {
        let passphrase = passphrase.map(read_passphrase).transpose()?;
        make_folder(folder)?;
        let run: String = run[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let model: String = model.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let path = folder.join(format!("training-{model}-{run}.json"));
        let lock = lock(&path.with_extension("lock"), || {
            let path = path.display();
            format!(
                "{path}: another client takes part in this run with that state; --state DIR gives each its own"
            )
        })?;
        let mut bytes = None;
        if path.exists() {
            check_owner_only(&path)?;
            bytes = Some(Zeroizing::new(read_limited(&path, MOST_BYTES)?));
        }
        let at = || path.display().to_string();
        let seal = match (passphrase, bytes.as_ref().filter(|bytes| Seal::is_sealed(bytes))) {
            (Some(passphrase), Some(bytes)) => {
                let seal = Seal::of(&passphrase, bytes).with_context(at)?;
                let opened = seal.open(bytes).with_context(at)?;
                return Ok((
                    Self { path: path.clone(), seal: Some(seal), _lock: lock },
                    Some(read(&path, &opened)?),
                ));
            }
            (None, Some(_)) => {
                bail!("{}: is under a passphrase: name its file with --passphrase-file", path.display())
            }
            (Some(passphrase), None) => Some(Seal::new(&passphrase, &mut rand::rng())?),
            (None, None) => None,
        };
        let kept = bytes.map(|bytes| read(&path, &bytes)).transpose()?;
        Ok((Self { path, seal, _lock: lock }, kept))
    }

    fn write(&self, membership: &Membership) -> anyhow::Result<()> {
        let plain = Zeroizing::new(serde_json::to_vec(membership)?);
        match &self.seal {
            Some(seal) => write_secret(&self.path, &seal.seal(&plain, &mut rand::rng())?)?,
            None => write_secret(&self.path, &plain)?,
        }
        Ok(())
    }
}

fn read(path: &Path, bytes: &[u8]) -> anyhow::Result<Membership> {
    serde_json::from_slice(bytes)
        .with_context(|| format!("{}: expected the state of a client", path.display()))
}

/// What the client trains on: inputs that are prepared as the model says.
fn samples(args: &TrainArgs, offer: &Offer, training: &TrainingOffer) -> anyhow::Result<Arc<dyn Samples>> {
    let data = args.options.training(&args.dataset, training.seed)?;
    let interface = &offer.interface;
    let is_prepared =
        interface.info.preprocessing.as_ref().is_none_or(|wanted| *wanted == data.preprocessing);
    let mut data = if is_prepared {
        data.train
    } else {
        let inputs = args.options.for_model(&args.dataset, interface, training.seed)?;
        let labels: Option<Vec<usize>> = inputs.labels.iter().copied().collect();
        let labels = labels
            .with_context(|| format!("--dataset {}: some inputs have no label", args.dataset.name()))?;
        Dataset::new(interface.input.clone(), inputs.inputs, labels, interface.outputs)?
    };
    ensure!(
        data.shape().elements() == interface.input.elements() && data.classes() == interface.outputs,
        "--dataset {}: the server's model takes inputs of {} and has {} classes, found {} and {}",
        args.dataset.name(),
        interface.input,
        interface.outputs,
        data.shape(),
        data.classes(),
    );
    if let Some(limit) = args.limit {
        data = data.first(limit as usize);
    }
    let [part, of] = args.part.unwrap_or([1, 1]);
    ensure!(
        data.len() >= of as usize,
        "--part: expected at most {} clients (the inputs), found {of}",
        data.len()
    );
    let shard = Shard::divide(&Arc::new(data), of as usize).into_iter().nth(part as usize - 1);
    let shard = shard.context("a part of the data")?;
    Ok(match args.augment {
        true => {
            let seed = training.seed ^ (u64::from(part - 1) << 32);
            Arc::new(Augmented { samples: shard, augmentation: Augmentation::LIGHT, seed })
        }
        false => Arc::new(shard),
    })
}

pub(super) fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let (remote, offers) = args.server.reach()?;
    let offer = choose(&remote, &offers, args.model.as_deref(), true)?;
    let training = offer.training.context("an offer of training")?;
    if let Some([_, of]) = args.part {
        let clients = training.clients;
        ensure!(of == clients, "--part: the run has {clients} clients, found {of}");
    }
    let samples = samples(args, offer, &training)?;
    let inputs = samples.count();
    let folder = args.server.folder()?;
    let (store, kept) = Kept::open(&folder, (&offer.name, training.run), args.passphrase_file.as_deref())?;
    if kept.is_some() {
        note!("going on with what is kept in {}", store.path.display());
    }
    let rng = &mut rand::rng();
    let server = remote.server().to_owned();
    let mut client = RemoteTraining::new(remote, offer, samples, kept, backend()?, rng)
        .with_context(|| format!("with {inputs} inputs, and what is kept in {}", store.path.display()))?;
    if let Some([part, _]) = args.part {
        client = client.at(part - 1);
    }
    stop_when_asked()?;
    let start = Instant::now();
    let own = inputs as u64 * u64::from(training.epochs);
    let mut met = client.membership().statistics();
    let mut progress = Progress::new(met.images, own)?;
    let mut said = String::new();
    let mut say = |text: String| {
        if text != said {
            note!("{text}");
            said = text;
        }
    };
    let complete = client.run(rng, |moment| -> anyhow::Result<Go> {
        match moment {
            Moment::Waiting(run) if run.enrolled < run.clients => {
                say(format!("waiting for other clients: {} of {} have come", run.enrolled, run.clients));
            }
            Moment::Waiting(run) => progress.show(
                &met,
                &format!(
                    "waiting for its turn; the run has done {} of {} iterations",
                    run.done, run.iterations
                ),
            ),
            Moment::Iteration(statistics) => {
                met = statistics;
                progress.show(&met, "in its turn");
            }
            Moment::Keep(membership) => store.write(membership)?,
            Moment::Retrying(error) => say(format!("{error}; trying again")),
        }
        Ok(if is_asked_to_stop() { Go::Stop } else { Go::On })
    });
    progress.bar.finish_and_clear();
    let (complete, membership) = (complete?, client.membership());
    let statistics = membership.statistics();
    if !complete {
        let at = format!("{} images", statistics.images);
        return Err(Interrupted { at, with: "" }.into());
    }
    let (run, account, seconds) = (client.offer(), membership.account(), start.elapsed().as_secs_f64());
    let images = statistics.images.max(1) as f64;
    let (loss, accuracy) = (statistics.loss / images, statistics.correct as f64 / images);
    let place = membership.place().map(|place| place + 1);
    if args.json {
        outln!(
            "{}",
            json!({
                "server": server, "model": offer.name, "dataset": args.dataset.name(),
                "client": place, "clients": run.clients, "iterations": run.iterations,
                "inputs": inputs, "images": statistics.images,
                "loss": loss, "accuracy": accuracy, "clamped": statistics.clamped,
                "seconds": { "client": account.client_seconds(), "steps": account.steps_seconds(), "all": seconds },
                "bytes_up": account.bytes_up(), "bytes_down": account.bytes_down(),
                "key_bits": run.key.size.bits(), "key_type": run.key.key_type.name(),
            })
        )?;
        return Ok(());
    }
    outln!(
        "the run of {} iterations is complete; this client: {} images, loss {loss:.4}, accuracy {:.2} % while training",
        run.iterations,
        statistics.images,
        100.0 * accuracy,
    )?;
    outln!(
        "{:.1} MB up, {:.1} MB down; the weights are at {server}",
        account.bytes_up() as f64 / 1e6,
        account.bytes_down() as f64 / 1e6
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_from_one() {
        assert_eq!(parse_part("2/3"), Ok([2, 3]));
        for wrong in ["0/2", "3/2", "1", "1/", "a/b", "1/1001"] {
            assert!(parse_part(wrong).is_err(), "{wrong}");
        }
    }
}
