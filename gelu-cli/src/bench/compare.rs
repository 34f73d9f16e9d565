use std::path::Path;

use anyhow::{Context, ensure};
use gelu_io::files::read_limited;

use super::{Report, time};
use crate::report::TextTable;

/// More than any report takes.
const MOST_BYTES: u64 = 1 << 20;

/// Reads what `gelu bench --json` printed.
pub(super) fn read(path: &Path) -> anyhow::Result<Report> {
    let bytes = read_limited(path, MOST_BYTES)?;
    let report: Report = serde_json::from_slice(&bytes)
        .with_context(|| format!("{}: expected the output of `gelu bench --json`", path.display()))?;
    ensure!(
        report.limit_ns.is_finite() && report.limit_ns > 0.0,
        "{}: limit_ns: expected a positive number, found {}",
        path.display(),
        report.limit_ns
    );
    Ok(report)
}

/// What both reports have, side by side.
pub(super) fn text(earlier: &Report, now: &Report) -> String {
    let mut table = TextTable::new(["compared, 1 thread", "earlier", "now", "faster, at one limit"]);
    let times = |report: &Report| -> Vec<(String, f64)> {
        let layers = report.layers.iter().map(|layer| (layer.name.clone(), layer.seconds_one_thread));
        let operations =
            report.operations.iter().map(|operation| (operation.name.clone(), operation.seconds_one_thread));
        let batch = ("both sides, a batch, all threads".to_owned(), report.session.seconds_per_batch);
        layers.chain(operations).chain([batch]).collect()
    };
    let old = times(earlier);
    for (name, seconds) in times(now) {
        if let Some((_, before)) = old.iter().find(|(other, _)| *other == name) {
            let ratio = (before / earlier.limit_ns) / (seconds / now.limit_ns);
            table.row([name, time(*before), time(seconds), format!("{ratio:.2} x")]);
        }
    }
    let mut text = table.to_string();
    text += &format!(
        "limit_ns {:.0} earlier, {:.0} now; the ratios are of times divided by it\n",
        earlier.limit_ns, now.limit_ns
    );
    let setting = |report: &Report| {
        let Report { model, batch, prefer, key_type, key_bits, backend, threads, .. } = report;
        let key_type = key_type.name();
        format!(
            "{model}, batch of {batch}, {key_type} key of {key_bits} bits, {backend}, preferring {prefer}, {threads} threads"
        )
    };
    if setting(earlier) != setting(now) {
        text += &format!("note: the earlier run was another one: {}\n", setting(earlier));
    }
    text
}
