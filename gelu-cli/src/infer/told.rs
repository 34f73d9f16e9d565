//! What `gelu infer` prints: a table for people, an object for programs.

use std::time::Instant;

use gelu_models::train::ConfusionMatrix;
use gelu_net::InferenceReport;
use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyParameters, RandomnessPool};
use serde::Serialize;
use serde_json::{Value, json};

use super::results::Results;
use crate::calibrate::Calibrated;
use crate::hide;
use crate::report::TextTable;

/// The shares of predictions that are those of the clear computation, on integers and on reals: what only the model's owner
/// can tell.
pub(crate) struct Scores {
    agree_fixed: f64,
    agree_float: f64,
}

impl Scores {
    pub(crate) fn new(report: &InferenceReport, fixed: &[usize], float: &[usize]) -> Self {
        let count = report.predictions.len();
        let same = |other: &[usize]| report.predictions.iter().zip(other).filter(|(a, b)| a == b).count();
        Self {
            agree_fixed: same(fixed) as f64 / count as f64,
            agree_float: same(float) as f64 / count as f64,
        }
    }
}

/// What a report says besides results.
pub(crate) struct Run {
    pub(crate) model: String,
    /// Where the model is, if it is on another machine.
    pub(crate) server: Option<String>,
    pub(crate) key: KeyParameters,
    pub(crate) backend: Backend,
    pub(crate) pool: Option<Pool>,
    pub(crate) calibrated: Option<Calibrated>,
    pub(crate) scores: Option<Scores>,
}

/// What the client prepared.
#[derive(Debug, Serialize)]
pub(crate) struct Pool {
    factors: usize,
    bytes: usize,
    seconds: f64,
}

impl Pool {
    /// One that has been filled since `start`.
    pub(crate) fn new(pool: &RandomnessPool, start: Instant) -> Self {
        Self { factors: pool.ready(), bytes: pool.bytes(), seconds: start.elapsed().as_secs_f64() }
    }
}

pub(super) fn to_json(with_logits: bool, report: &InferenceReport, results: &Results, run: &Run) -> Value {
    let count = report.predictions.len();
    let mut object = json!({
        "model": run.model,
        "count": count,
        "correct": results.confusion.as_ref().map(ConfusionMatrix::correct),
        "accuracy": results.accuracy(),
        "auc": results.area,
        "confusion": results.confusion,
        "classes": results.classes,
        "rows": results.rows,
        "agree_fixed": run.scores.as_ref().map(|scores| scores.agree_fixed),
        "agree_float": run.scores.as_ref().map(|scores| scores.agree_float),
        "key_bits": run.key.size.bits(),
        "key_type": run.key.key_type.name(),
        "backend": run.backend.name(),
        "batch": report.plan.description().batch,
        "prefer": report.plan.description().prefer,
        "threads": rayon::current_num_threads(),
        "seconds_total": report.seconds,
        "seconds_per_image": report.seconds / count as f64,
        "predictions": report.predictions,
        "server": match &run.server {
            Some(address) => json!({ "address": address }),
            None => json!(report.server),
        },
        "client": report.client,
        "bytes_up": report.bytes_up,
        "bytes_down": report.bytes_down,
        "saturations": report.saturations.total(),
        "pool": run.pool,
        "steps": report.steps,
    });
    hide::add_to(&mut object, report);
    if with_logits && report.logits.ncols() > 0 {
        let images: Vec<Value> = report
            .logits
            .outer_iter()
            .enumerate()
            .map(|(index, logits)| {
                json!({
                    "index": index,
                    "label": results.labels[index],
                    "prediction": report.predictions[index],
                    "logits": logits.to_vec(),
                })
            })
            .collect();
        object["logits"] = images.into();
    }
    if let Some(calibrated) = &run.calibrated {
        calibrated.add_to(&mut object);
    }
    object
}

pub(super) fn to_text(with_logits: bool, report: &InferenceReport, results: &Results, run: &Run) -> String {
    const MOST_ROWS: usize = 50;
    let count = report.predictions.len();
    let mut header = vec!["input", "label", "prediction", "confidence"];
    if with_logits {
        header.push("logits");
    }
    let mut table = TextTable::new(header);
    for (index, result) in results.rows.iter().enumerate().take(MOST_ROWS) {
        let mut row = vec![
            result.input.clone(),
            result.label.clone().unwrap_or_default(),
            result.class.clone(),
            result.confidence.map_or_else(String::new, |it| format!("{:.1}%", 100.0 * it)),
        ];
        if with_logits {
            let logits: Vec<String> = report.logits.row(index).iter().map(|x| format!("{x:.3}")).collect();
            row.push(logits.join(" "));
        }
        table.row(row);
    }
    let mut text = table.to_string();
    if count > MOST_ROWS {
        text += &format!("... and {} more (--json lists all)\n", count - MOST_ROWS);
    }
    text += "\n";
    text += &results.text();
    let Run { key, backend, pool, calibrated, .. } = run;
    if let Some(scores) = &run.scores {
        text += &format!(
            "as in the clear {:.2}% of the predictions{}, as on reals {:.2}%\n",
            100.0 * scores.agree_fixed,
            if report.integers.is_empty() { "" } else { " (integers equal bit for bit)" },
            100.0 * scores.agree_float
        );
    }
    text +=
        &format!("key             {} bits, {}, {backend} arithmetic\n", key.size.bits(), key.key_type.name());
    let of_server = report.server.map_or(String::new(), |server| format!("server {:.3} s, ", server.seconds));
    text += &format!(
        "time            {:.3} s, {:.1} ms an image ({of_server}client {:.3} s)\n",
        report.seconds,
        1e3 * report.seconds / count as f64,
        report.client.seconds
    );
    text += &hide::text(report);
    if let Some(address) = &run.server {
        text += &format!("server          {address}\n");
    }
    if let Some(server) = &report.server {
        text += &format!(
            "server          {} products mod n^2, {:.0} ns each\n",
            server.products, server.ns_per_product
        );
    }
    // Of a hidden model's activations nobody knows.
    let clamped = if report.hidden.is_some() { "inputs" } else { "values" };
    text += &format!(
        "client          {} encryptions, {} decryptions, {} {clamped} clamped\n",
        report.client.encryptions,
        report.client.decryptions,
        report.saturations.total()
    );
    if let Some(Pool { factors, bytes, seconds }) = pool {
        text += &format!(
            "prepared        {factors} random factors in {seconds:.3} s, {:.1} MB; not in the time above\n",
            *bytes as f64 / 1e6
        );
    }
    let kilobytes = |bytes| bytes as f64 / 1e3;
    text += &format!(
        "traffic         {:.1} kB up, {:.1} kB down\n",
        kilobytes(report.bytes_up),
        kilobytes(report.bytes_down)
    );
    text += &calibrated.as_ref().map_or(String::new(), Calibrated::line);
    text
}
