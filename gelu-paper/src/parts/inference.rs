//! Inference by ours, measured by the commands of `gelu`.

use anyhow::Context;
use gelu_tensor::paillier::KeyParameters;

use super::{Part, Setting};
use crate::gelu::{number, quoted};

/// What inference takes.
pub(super) struct Inference {
    /// Seconds of one image, all steps of both sides after one another.
    pub(super) one: f64,
    /// Seconds of an image of a full batch.
    pub(super) full: f64,
    pub(super) batch: u64,
    /// What both sides send for one image.
    pub(super) megabytes: f64,
    pub(super) commands: [String; 2],
}

impl Inference {
    /// One image, and full batches, of a network by its name, with a kind of key.
    pub(super) fn measure(setting: &Setting, model: &str, key: KeyParameters) -> anyhow::Result<Self> {
        let key_bits = key.size.to_string();
        let options = ["--model", model, "--key-type", key.key_type.name(), "--key-bits", &key_bits];
        let plan = setting.gelu.json(&[&["plan"], &options[..]].concat())?;
        let batch = plan["full_batch"].as_u64();
        let batch =
            batch.with_context(|| format!("expected the full batch of a plan, found {plan}"))?.min(1024);
        let runs = if setting.quick { "3" } else { "7" };
        let [one, full] = [1, batch].map(|batch| {
            let batch = batch.to_string();
            let arguments = [&["bench"], &options[..], &["--batch", &batch, "--runs", runs]].concat();
            setting.gelu.json(&arguments).map(|report| (report, quoted(&arguments)))
        });
        let ((one, one_command), (full, full_command)) = (one?, full?);
        let layers = one["layers"].as_array().context("expected layers")?;
        let sum = |key: &str| layers.iter().map(|layer| number(layer, &[key])).sum::<anyhow::Result<f64>>();
        let (server, bytes) = (sum("seconds_all_threads")?, sum("bytes_up")? + sum("bytes_down")?);
        Ok(Self {
            one: server + number(&one, &["session", "seconds_client_all_threads"])?,
            full: number(&full, &["session", "seconds_per_batch"])? / batch as f64,
            batch,
            megabytes: bytes / 1e6,
            commands: [one_command, full_command],
        })
    }
}

/// The share of MNIST's test images that a network reads correctly on ciphertexts, and the command.
pub(super) fn accuracy(setting: &Setting, (model, batch): (&str, u64)) -> anyhow::Result<(f64, String)> {
    let count = if setting.quick { "1000" } else { "10000" };
    let batch = batch.to_string();
    let arguments = ["infer", "--model", model, "--dataset", "mnist", "--count", count, "--batch", &batch];
    let arguments = [&arguments[..], &["--key-type", "subgroup"]].concat();
    setting.progress(Part::Table4, &format!("ours: {count} test images by {model}"));
    let report = setting.gelu.json(&arguments)?;
    Ok((number(&report, &["correct"])? / count.parse::<f64>()?, quoted(&arguments)))
}
