//! `--calibrate`: how far a run was from what the machine can do at most.

use clap::Args;
use gelu_net::ServerTotals;
use gelu_tensor::Backend;
use serde_json::{Value, json};

use gelu_io::machine::Limit;

/// The size of keys that limits are quoted for.
const QUOTED_BITS: usize = 2048;

/// Whether to calibrate.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct CalibrateArgs {
    /// Time the machine's own limit before and after the work (multiply-adds that wait for nothing, on one core), and
    /// print the nanoseconds that it implies for one product mod n^2 with a key of 2048 bits: `limit_ns`.
    #[arg(long, help_heading = None::<&str>)]
    calibrate: bool,
}

/// A calibration in progress.
pub(crate) struct Calibration {
    before: Limit,
}

/// The limits of a run.
pub(crate) struct Calibrated {
    limits: [Limit; 2],
    /// What part of the server's time, on all threads, its products would take at the limit. A squaring counts as a
    /// product, which takes at most 0.3 of one too much.
    share: f64,
}

impl CalibrateArgs {
    /// Times the limit of a backend, when asked to.
    pub(crate) fn start(self, backend: Backend) -> Option<Calibration> {
        self.calibrate.then(|| Calibration::start(backend))
    }
}

impl Calibration {
    /// Times the limit of a backend.
    pub(crate) fn start(backend: Backend) -> Self {
        Self { before: Limit::measure(backend) }
    }

    /// Times it again: nanoseconds of one product mod n^2 at the limit, with a key of 2048 bits, before and after.
    pub(crate) fn limits(self) -> [f64; 2] {
        [self.before, Limit::measure(self.before.backend)].map(|limit| limit.product_ns(QUOTED_BITS))
    }

    /// Times it again, after the server's work under a key of `key_bits`.
    pub(crate) fn finish(self, server: &ServerTotals, key_bits: usize) -> Calibrated {
        let limits = [self.before, Limit::measure(self.before.backend)];
        let least = limits.iter().map(|limit| limit.product_ns(key_bits)).sum::<f64>() / 2.0;
        let threads = rayon::current_num_threads() as f64;
        Calibrated { limits, share: least / (threads * server.ns_per_product) }
    }
}

impl Calibrated {
    fn limit_ns(&self) -> [f64; 2] {
        self.limits.map(|limit| limit.product_ns(QUOTED_BITS))
    }

    /// Adds the limits to a report.
    pub(crate) fn add_to(&self, object: &mut Value) {
        let [before, after] = self.limit_ns();
        object["limit_ns"] = json!((before + after) / 2.0);
        object["limit_ns_before"] = json!(before);
        object["limit_ns_after"] = json!(after);
        object["share_of_limit"] = json!(self.share);
    }

    /// A line of text.
    pub(crate) fn line(&self) -> String {
        let [before, after] = self.limit_ns();
        format!(
            "limit           limit_ns {:.0} ({before:.0} before, {after:.0} after), the server at {:.0} % of this \
             machine's limit\n",
            (before + after) / 2.0,
            100.0 * self.share
        )
    }
}
