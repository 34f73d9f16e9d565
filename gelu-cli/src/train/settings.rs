//! Everything that determines a run, to tell setting by setting how two runs differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};

use anyhow::Context;
use gelu_io::data::TrainingData;
use gelu_models::Model;
use gelu_models::train::Dataset;
use serde::{Deserialize, Serialize};

use super::Args;
use super::provenance::layer_bits;

/// What determines a run, in groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings(Vec<Group>);

/// Options, and the SHA-256 of what they lead to, if that can be told: then it decides, and the options explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    what: String,
    digest: Option<String>,
    options: BTreeMap<String, String>,
}

impl Settings {
    /// The settings of a run that trains `model` from its present weights; `kind` is what kind of run it is.
    pub(super) fn new(args: &Args, model: &Model, data: &TrainingData, kind: &str) -> anyhow::Result<Self> {
        let config = args.config();
        let choices = &args.choices;
        let graph = serde_json::to_vec(model.graph()).context("the network's description")?;
        let network = options([
            ("--model", Some(args.name())),
            ("--activation", choices.activation.map(|activation| activation.to_string())),
            ("--pooling", choices.pooling.map(|pooling| pooling.to_string())),
            ("--batch-norm", choices.batch_norm.map(|batch_norm| batch_norm.to_string())),
        ]);
        let first = options([
            ("--init", args.init.as_ref().map(|path| path.display().to_string())),
            ("--initializer", Some(args.descent.initializer.to_string())),
            ("--seed", Some(config.seed.to_string())),
        ]);
        let mut read = options([("--dataset", Some(args.dataset.name()))]);
        read.insert("options of --dataset".to_owned(), args.options.command().trim().to_owned());
        read.insert("--limit".to_owned(), args.limit.map_or_else(unset, |limit| limit.to_string()));
        let mut descent = options([
            ("kind of run", Some(kind.to_owned())),
            ("--batch", Some(config.batch_size.to_string())),
            ("--lr", Some(config.learning_rate.to_string())),
            ("--momentum", Some(config.momentum.to_string())),
            ("--weight-decay", Some(config.weight_decay.to_string())),
            ("--schedule", Some(config.schedule.to_string())),
            ("--warm-up", Some(config.warm_up.to_string())),
            ("--seed", Some(config.seed.to_string())),
            ("--weight-bits", config.weight_bits.map(|bits| bits.to_string())),
            ("--layer-bits", (!config.layer_bits.is_empty()).then(|| layer_bits(&config))),
            ("--activation-bits", config.activation_bits.map(|bits| bits.to_string())),
            ("--input-bits", config.input_bits.map(|bits| bits.to_string())),
            ("--augment", Some(config.augmentation.is_some().to_string())),
        ]);
        if !args.is_on_floats() {
            descent.extend(args.private.turns.settings().map(|(name, value)| (name.to_owned(), value)));
        }
        let group = |what: &str, digest, options| Group { what: what.to_owned(), digest, options };
        Ok(Self(vec![
            group("descent", None, descent),
            group("network", Some(Digest::of(&graph).text()), network),
            group("first weights", Some(weights(model)), first),
            group("training data", Some(dataset(&data.train)), read.clone()),
            group("test data", Some(dataset(&data.test)), read),
        ]))
    }

    /// How `now` differs from these, which a checkpoint has kept; a line for each setting.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let (mut lines, mut contents) = (vec![], vec![]);
        for group in &now.0 {
            let Some(kept) = self.0.iter().find(|kept| kept.what == group.what) else {
                lines.push(format!("{}: the checkpoint does not say", group.what));
                continue;
            };
            if group.digest.is_some() && kept.digest == group.digest {
                continue;
            }
            let differ = |what: &str, kept: Option<&String>, now: Option<&String>| {
                let [said, now_said] = [kept, now].map(|value| value.map_or("none", String::as_str));
                (kept != now).then(|| format!("{what}: the checkpoint has {said}, this command {now_said}"))
            };
            let names: BTreeSet<&String> = kept.options.keys().chain(group.options.keys()).collect();
            lines.extend(
                names
                    .iter()
                    .filter_map(|name| differ(name, kept.options.get(*name), group.options.get(*name))),
            );
            let what = format!("{} (SHA-256)", group.what);
            contents.extend(differ(&what, kept.digest.as_ref(), group.digest.as_ref()));
        }
        // One option can change several contents; but a file may also hold something else under the same name.
        if lines.is_empty() {
            contents
        } else {
            lines.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
        }
    }
}

fn unset() -> String {
    "its default".to_owned()
}

fn options<const N: usize>(options: [(&str, Option<String>); N]) -> BTreeMap<String, String> {
    options.into_iter().map(|(name, value)| (name.to_owned(), value.unwrap_or_else(unset))).collect()
}

/// A SHA-256 under way.
struct Digest(hmac_sha256::Hash);

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        let mut digest = Self(hmac_sha256::Hash::new());
        digest.0.update(bytes);
        digest
    }

    fn numbers(&mut self, numbers: impl IntoIterator<Item = f32>) {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(f32::to_le_bytes).collect();
        self.0.update(bytes);
    }

    /// A name or a shape, with its length.
    fn text_of(&mut self, value: &impl Display) {
        let text = value.to_string();
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    /// The first 16 digits, which tell any two files apart that were not made to be taken for one another.
    fn text(self) -> String {
        self.0.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

fn weights(model: &Model) -> String {
    let mut digest = Digest::of(&[]);
    for (name, tensor) in &model.weights().tensors {
        digest.text_of(name);
        digest.text_of(tensor.shape());
        digest.numbers(tensor.data().iter().copied());
    }
    digest.text()
}

fn dataset(data: &Dataset) -> String {
    let mut digest = Digest::of(&[]);
    digest.text_of(data.shape());
    digest.text_of(&data.classes());
    for (row, &label) in data.inputs().outer_iter().zip(data.labels()) {
        digest.0.update((label as u64).to_le_bytes());
        digest.numbers(row.iter().copied());
    }
    digest.text()
}
