//! The clear counterpart of private training, on the same integers.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use gelu_io::files::make_folder;
use gelu_models::train::private::{CoordinatorState, FixedTrainer, ParticipantState};
use gelu_net::TrainingSetup;
use serde::{Deserialize, Serialize};

use super::progress::{Curve, Progress, sum};
use super::{Done, Kept, Setting, check_command, checkpoint_path, interval};
use crate::output::note;
use crate::train::{Args, command};

/// A checkpoint of the clear counterpart.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixedCheckpoint {
    run: Kept,
    coordinator: CoordinatorState,
    participants: Vec<ParticipantState>,
}

pub(super) fn run(args: &Args, setting: &mut Setting) -> anyhow::Result<Done> {
    let TrainingSetup { plan, config, parameters, clients, .. } = setting.setup.clone();
    let mut trainer = FixedTrainer::new(plan, config.clone(), parameters, clients)?;
    setting.warn(trainer.leakage());
    let mut kept = Kept { command: command(args), curve: vec![], seconds: 0.0 };
    let path = args.checkpoint_dir.as_deref().map(checkpoint_path);
    if let (Some(path), true) = (&path, args.resume) {
        let bytes = gelu_io::files::read_limited(path, 1 << 31).context("--resume needs a checkpoint")?;
        let checkpoint: FixedCheckpoint = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: expected a checkpoint of --clear --fixed", path.display()))?;
        check_command(path, &checkpoint.run, args)?;
        kept = checkpoint.run;
        trainer.restore(config, checkpoint.coordinator, checkpoint.participants)?;
        note!("resuming after {} of {} iterations", trainer.coordinator().iterations, trainer.iterations());
    }
    let mut curve = Curve::new(kept.curve.clone(), sum(trainer.statistics()));
    let mut progress = Progress::new(
        curve.before.images,
        trainer.iterations() * setting.setup.plan.description().batch as u64,
    )?;
    let (start, mut saved) = (Instant::now(), Instant::now());
    while !trainer.is_complete() {
        trainer.turn()?;
        let now = sum(trainer.statistics());
        curve.note(setting, trainer.coordinator(), now, trainer.is_complete())?;
        progress.show(&now, &curve.last());
        if let Some(path) = &path
            && (saved.elapsed() >= interval(args) || trainer.is_complete())
        {
            make_folder(path.parent().unwrap_or(Path::new(".")))?;
            let seconds = kept.seconds + start.elapsed().as_secs_f64();
            let run = Kept { curve: curve.points.clone(), seconds, ..kept.clone() };
            let checkpoint = FixedCheckpoint {
                run,
                coordinator: trainer.coordinator().clone(),
                participants: trainer.participants(),
            };
            gelu_io::files::write_secret(path, &serde_json::to_vec(&checkpoint)?)?;
            saved = Instant::now();
        }
    }
    progress.bar.finish_and_clear();
    Ok(Done {
        coordinator: trainer.coordinator().clone(),
        leakage: trainer.leakage().to_vec(),
        statistics: sum(trainer.statistics()),
        account: None,
        curve: curve.points,
        seconds_before: kept.seconds,
    })
}
