//! The clear counterpart of private training, on the same integers.

use std::time::Instant;

use anyhow::Context;
use gelu_models::train::private::{CoordinatorState, FixedTrainer, ParticipantState};
use gelu_net::TrainingSetup;
use serde::{Deserialize, Serialize};

use super::progress::{Curve, Progress, sum};
use super::{Done, Kept, Setting};
use crate::output::note;
use crate::train::Args;
use crate::train::checkpoint::Store;

/// A checkpoint of the clear counterpart.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FixedCheckpoint {
    run: Kept,
    coordinator: CoordinatorState,
    participants: Vec<ParticipantState>,
}

pub(super) fn run(args: &Args, mut store: Option<Store>, setting: &mut Setting) -> anyhow::Result<Done> {
    let (mut points, mut seconds_before) = (vec![], 0.0);
    let TrainingSetup { plan, config, parameters, clients, .. } = setting.setup.clone();
    let mut trainer = FixedTrainer::new(plan, config.clone(), parameters, clients)?;
    setting.warn(trainer.leakage());
    if let Some(store) = store.as_ref().filter(|store| store.resumes) {
        let path = store.path();
        let bytes = gelu_io::files::read_limited(&path, 1 << 31)?;
        let checkpoint: FixedCheckpoint = serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: expected a checkpoint of --clear --fixed", path.display()))?;
        store.check(&checkpoint.run.settings, [checkpoint.run.epochs, args.descent.epochs])?;
        (points, seconds_before) = (checkpoint.run.curve, checkpoint.run.seconds);
        trainer
            .restore(config, checkpoint.coordinator, checkpoint.participants)
            .with_context(|| format!("cannot resume from {}", path.display()))?;
        note!("resuming after {}", at(&trainer));
    }
    let mut curve = Curve::new(points, sum(trainer.statistics()));
    let mut progress = Progress::new(
        curve.before.images,
        trainer.iterations() * setting.setup.plan.description().batch as u64,
    )?;
    let start = Instant::now();
    let save = |store: &mut Store, trainer: &FixedTrainer, curve: &Curve| -> anyhow::Result<()> {
        let seconds = seconds_before + start.elapsed().as_secs_f64();
        let settings = store.settings.clone();
        let run = Kept { settings, epochs: args.descent.epochs, curve: curve.points.clone(), seconds };
        let (coordinator, participants) = (trainer.coordinator().clone(), trainer.participants());
        let checkpoint = FixedCheckpoint { run, coordinator, participants };
        let bytes = serde_json::to_vec(&checkpoint)?;
        store.save(|path| Ok(gelu_io::files::write_secret(path, &bytes)?))
    };
    while !trainer.is_complete() {
        if let Some(store) = store.as_mut().filter(|store| store.is_due()) {
            save(store, &trainer, &curve)?;
            store.stop_if_asked(at(&trainer)).inspect_err(|_| progress.bar.finish_and_clear())?;
        }
        trainer.turn()?;
        let now = sum(trainer.statistics());
        curve.note(setting, trainer.coordinator(), now, trainer.is_complete())?;
        progress.show(&now, &curve.last());
    }
    if let Some(store) = &mut store {
        save(store, &trainer, &curve)?;
    }
    progress.bar.finish_and_clear();
    Ok(Done {
        coordinator: trainer.coordinator().clone(),
        leakage: trainer.leakage().to_vec(),
        statistics: sum(trainer.statistics()),
        account: None,
        curve: curve.points,
        seconds_before,
    })
}

/// How far a run is.
fn at(trainer: &FixedTrainer) -> String {
    format!("{} of {} iterations", trainer.coordinator().iterations, trainer.iterations())
}
