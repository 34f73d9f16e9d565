//! Private training, both sides in this process.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use gelu_io::files::make_folder;
use gelu_io::session::{Checkpoint, Go, read_checkpoint, write_checkpoint};
use gelu_models::train::private::Client;
use gelu_net::{LocalTraining, Moment};

use super::progress::{Curve, Progress, sum};
use super::{Done, Kept, Setting, check_command, checkpoint_path, interval};
use crate::model_args::warn_of_short_key;
use crate::output::note;
use crate::train::{Args, command};

pub(super) fn run(args: &Args, setting: &mut Setting) -> anyhow::Result<Done> {
    warn_of_short_key(args.private.key_bits.into());
    let rng = &mut rand::rng();
    let mut kept = Kept { command: command(args), curve: vec![], seconds: 0.0 };
    let path = args.checkpoint_dir.as_deref().map(checkpoint_path);
    let mut training = match (&path, args.resume) {
        (Some(path), true) => {
            let mut checkpoint: Checkpoint<Kept> =
                read_checkpoint(path).context("--resume needs a checkpoint")?;
            check_command(path, &checkpoint.run, args)?;
            std::mem::swap(&mut kept, &mut checkpoint.run);
            let training = LocalTraining::resume(setting.setup.clone(), checkpoint, rng)
                .with_context(|| format!("cannot resume from {}", path.display()))?;
            let server = training.server();
            note!("resuming after {} of {} iterations", server.iterations_done(), server.iterations());
            training
        }
        _ => LocalTraining::new(setting.setup.clone(), rng)?,
    };
    setting.warn(training.server().leakage());
    let statistics = |training: &LocalTraining| sum(training.clients().iter().map(Client::statistics));
    let mut curve = Curve::new(kept.curve.clone(), statistics(&training));
    let images = training.server().iterations() * setting.setup.plan.description().batch as u64;
    let mut progress = Progress::new(curve.before.images, images)?;
    let (start, mut saved) = (Instant::now(), Instant::now());
    let save = |moment: &Moment<'_>, curve: &Curve| -> anyhow::Result<()> {
        let Some(path) = &path else { return Ok(()) };
        make_folder(path.parent().unwrap_or(Path::new(".")))?;
        let seconds = kept.seconds + start.elapsed().as_secs_f64();
        let run = Kept { curve: curve.points.clone(), seconds, ..kept.clone() };
        Ok(write_checkpoint(path, &moment.checkpoint(run))?)
    };
    while !training.server().is_complete() {
        let last = curve.last();
        training.turn(rng, |moment| -> anyhow::Result<Go> {
            progress.show(&sum(moment.clients.iter().map(|client| client.statistics())), &last);
            if saved.elapsed() >= interval(args) {
                save(&moment, &curve)?;
                saved = Instant::now();
            }
            Ok(Go::On)
        })?;
        let (now, server) = (statistics(&training), training.server());
        curve.note(setting, server.coordinator(), now, server.is_complete())?;
        progress.show(&now, &curve.last());
    }
    progress.bar.finish_and_clear();
    save(&training.moment(), &curve)?;
    Ok(Done {
        coordinator: training.server().coordinator().clone(),
        leakage: training.server().leakage().to_vec(),
        statistics: statistics(&training),
        account: Some(training.moment().account.clone()),
        curve: curve.points,
        seconds_before: kept.seconds,
    })
}
