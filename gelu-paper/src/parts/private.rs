//! Private training beside its twin in the clear.

use anyhow::ensure;
use gelu_io::weights::WeightsFile;
use gelu_models::Weights;
use serde_json::Value;

use super::Setting;
use crate::gelu::quoted;

/// Options of training on ciphertexts by two clients, and of the same integers in the clear.
pub(super) const PRIVATE: &[&str] = &["--clients", "2", "--key-bits", "2048", "--key-type", "subgroup"];
pub(super) const CLEAR: &[&str] = &["--clear", "--fixed", "--clients", "2"];

/// A training run on ciphertexts whose weights are those of its twin in the clear.
pub(super) struct Twins {
    /// What the run on ciphertexts reports.
    pub(super) report: Value,
    /// That of the run on ciphertexts, and that of its twin.
    pub(super) commands: [String; 2],
}

impl Twins {
    /// Runs both, and compares their weights.
    pub(super) fn train(setting: &Setting, options: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let run = |how: &[&str], name: &str| -> anyhow::Result<(Value, String, Weights)> {
            let path = folder.path().join(name);
            let arguments = [&["train"], how, options].concat();
            let report =
                setting.gelu.json(&[&arguments[..], &["--out", &path.to_string_lossy()]].concat())?;
            Ok((report, quoted(&arguments), Weights::read(&path)?))
        };
        let (report, private, found) = run(PRIVATE, "private.safetensors")?;
        let (_, clear, expected) = run(CLEAR, "clear.safetensors")?;
        ensure!(
            found.tensors == expected.tensors,
            "private training does not give the weights of its run in the clear; please report this as a bug"
        );
        Ok(Self { report, commands: [private, clear] })
    }
}
