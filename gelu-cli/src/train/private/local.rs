//! Private training, both sides in this process.

use std::time::Instant;

use anyhow::Context;
use gelu_io::session::{Checkpoint, Go};
use gelu_models::train::private::Client;
use gelu_net::{LocalTraining, Moment};

use super::progress::{Curve, Progress, sum};
use super::{Done, Kept, Setting};
use crate::model_args::warn_of_short_key;
use crate::output::note;
use crate::train::Args;
use crate::train::checkpoint::Store;

pub(super) fn run(args: &Args, mut store: Option<Store>, setting: &mut Setting) -> anyhow::Result<Done> {
    warn_of_short_key(args.private.turns.key_bits);
    let rng = &mut rand::rng();
    let (mut points, mut seconds_before) = (vec![], 0.0);
    let mut training = match store.as_ref().filter(|store| store.resumes) {
        Some(store) => {
            let mut checkpoint = Checkpoint::<Kept>::read(&store.path())?;
            store.check(&checkpoint.run.settings, [checkpoint.run.epochs, args.descent.epochs])?;
            (points, seconds_before) = (std::mem::take(&mut checkpoint.run.curve), checkpoint.run.seconds);
            let training = LocalTraining::resume(setting.setup.clone(), checkpoint, rng)
                .with_context(|| format!("cannot resume from {}", store.path().display()))?;
            note!("resuming after {}", at(&training.moment()));
            training
        }
        None => LocalTraining::new(setting.setup.clone(), rng)?,
    };
    setting.warn(training.server().leakage());
    let statistics = |training: &LocalTraining| sum(training.clients().iter().map(Client::statistics));
    let mut curve = Curve::new(points, statistics(&training));
    let images = training.server().iterations() * setting.setup.plan.description().batch as u64;
    let mut progress = Progress::new(curve.before.images, images)?;
    let start = Instant::now();
    let save = |store: &mut Store, moment: &Moment<'_>, curve: &Curve| -> anyhow::Result<()> {
        let seconds = seconds_before + start.elapsed().as_secs_f64();
        let settings = store.settings.clone();
        let run = Kept { settings, epochs: args.descent.epochs, curve: curve.points.clone(), seconds };
        store.save(|path| Ok(moment.checkpoint(run).write(path)?))
    };
    while !training.server().is_complete() {
        let last = curve.last();
        training.turn(rng, |moment| -> anyhow::Result<Go> {
            progress.show(&sum(moment.clients.iter().map(|client| client.statistics())), &last);
            if let Some(store) = store.as_mut().filter(|store| store.is_due()) {
                save(store, &moment, &curve)?;
                store.stop_if_asked(at(&moment)).inspect_err(|_| progress.bar.finish_and_clear())?;
            }
            Ok(Go::On)
        })?;
        let (now, server) = (statistics(&training), training.server());
        curve.note(setting, server.coordinator(), now, server.is_complete())?;
        progress.show(&now, &curve.last());
    }
    progress.bar.finish_and_clear();
    if let Some(store) = &mut store {
        save(store, &training.moment(), &curve)?;
    }
    Ok(Done {
        coordinator: training.server().coordinator().clone(),
        leakage: training.server().leakage().to_vec(),
        statistics: statistics(&training),
        account: Some(training.moment().account.clone()),
        curve: curve.points,
        seconds_before,
    })
}

/// How far a run is.
fn at(moment: &Moment<'_>) -> String {
    format!("{} of {} iterations", moment.server.iterations_done(), moment.server.iterations())
}
