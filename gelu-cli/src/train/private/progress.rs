//! How far a run is, and how well it learns.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use gelu_models::train::Evaluation;
use gelu_models::train::private::{CoordinatorState, Statistics};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::Setting;
use crate::output::note;

/// A point of the curves.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Point {
    pub(super) epoch: f64,
    pub(super) train_loss: f64,
    pub(super) train_accuracy: f64,
    pub(super) test_loss: f64,
    pub(super) test_accuracy: f64,
}

/// Shows how far a run is: a bar on a terminal, else a line twice a minute.
pub(crate) struct Progress {
    pub(crate) bar: ProgressBar,
    said: Instant,
    start: Instant,
    first: u64,
    of: u64,
}

impl Progress {
    pub(crate) fn new(done: u64, of: u64) -> anyhow::Result<Self> {
        let bar = match std::io::stderr().is_terminal() {
            true => ProgressBar::new(of),
            false => ProgressBar::hidden(),
        };
        bar.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} images  {msg}  {eta}")?);
        Ok(Self { bar, said: Instant::now(), start: Instant::now(), first: done, of })
    }

    pub(crate) fn show(&mut self, statistics: &Statistics, last: &str) {
        let done = statistics.images;
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = (done - self.first.min(done)) as f64 / seconds.max(1e-9);
        self.bar.set_position(done.min(self.of));
        self.bar.set_message(format!("{rate:.1} images/s, {last}"));
        if self.bar.is_hidden() && self.said.elapsed() > Duration::from_secs(30) {
            let left = self.of.saturating_sub(done) as f64 / rate;
            // Nothing can be said before something was done.
            let left = match left.is_finite() {
                true => format!(", {rate:.1} images/s, {:.0} min left", (left / 60.0).ceil()),
                false => String::new(),
            };
            note!("{done}/{} images{left}, {last}", self.of);
            self.said = Instant::now();
        }
    }
}

/// What clients have met since some point.
fn since(now: &Statistics, before: &Statistics) -> (f64, f64) {
    let images = (now.images - before.images).max(1) as f64;
    ((now.loss - before.loss) / images, (now.correct - before.correct) as f64 / images)
}

pub(super) fn sum(all: impl IntoIterator<Item = Statistics>) -> Statistics {
    all.into_iter().fold(Statistics::default(), |sum, one| Statistics {
        images: sum.images.saturating_add(one.images),
        loss: sum.loss + one.loss,
        correct: sum.correct.saturating_add(one.correct),
        clamped: sum.clamped.saturating_add(one.clamped),
    })
}

/// The learning curve as it grows: a point ten times an epoch.
pub(super) struct Curve {
    pub(super) points: Vec<Point>,
    pub(super) before: Statistics,
}

impl Curve {
    pub(super) fn new(points: Vec<Point>, before: Statistics) -> Self {
        Self { points, before }
    }

    /// Adds a point, if it is time.
    pub(super) fn note(
        &mut self,
        setting: &mut Setting,
        coordinator: &CoordinatorState,
        now: Statistics,
        last: bool,
    ) -> anyhow::Result<()> {
        let epoch = (coordinator.iterations * setting.setup.plan.description().batch as u64) as f64
            / setting.setup.config.images as f64;
        let before = self.points.last().map_or(0.0, |point| point.epoch);
        if epoch - before < 0.1 && !last {
            return Ok(());
        }
        setting.load(&coordinator.parameters)?;
        let Evaluation { loss: test_loss, accuracy: test_accuracy } =
            setting.model.evaluate(&setting.data.test)?;
        let (train_loss, train_accuracy) = since(&now, &self.before);
        if now.images > self.before.images || self.points.is_empty() {
            self.points.push(Point { epoch, train_loss, train_accuracy, test_loss, test_accuracy });
            note!(
                "epoch {epoch:.2}: loss {train_loss:.4}, accuracy {:.2} %; test loss {test_loss:.4}, accuracy {:.2} %",
                100.0 * train_accuracy,
                100.0 * test_accuracy,
            );
        }
        self.before = now;
        Ok(())
    }

    pub(super) fn last(&self) -> String {
        let last = self.points.last();
        last.map_or_else(String::new, |point| format!("test accuracy {:.2} %", 100.0 * point.test_accuracy))
    }
}
