//! `gelu serve --train`: models that clients train, in place of those that they use.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use gelu_models::train::private::TrainingOptions;
use gelu_models::zoo::Setting;
use gelu_service::Training;
use gelu_tensor::Shape;

use crate::given::Given;
use crate::model::{Choices, read_model, untrained};
use crate::model_args::warn_of_short_key;
use crate::output::note;
use crate::train::{DescentArgs, TurnArgs, initialize};

/// What is trained, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training (with --train)")]
pub(super) struct TrainArgs {
    /// Have clients train the models with `gelu client train`, as `gelu train` does on one machine, in place of classifying
    /// with them. A run begins when --clients have come, is kept in --state after every iteration, and goes on from there when
    /// the server is started again; its weights are in --state DIR/NAME.safetensors after every turn.
    #[arg(long, requires = "state")]
    pub(super) train: bool,
    #[command(flatten)]
    choices: Choices,
    /// The shape of an input, where the network is one by name and has another by itself, for instance 1x28x28.
    #[arg(long, value_name = "SHAPE", value_parser = parse_shape)]
    input: Option<Shape>,
    /// Classes, where the network is one by name [default: 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    classes: Option<u32>,
    /// Start from the weights of this file, as far as they fit, instead of random ones.
    #[arg(long, value_name = "FILE.safetensors")]
    init: Option<PathBuf>,
    /// Turns that each client's certificate may have in all [default: any number].
    #[arg(long, value_name = "TURNS", value_parser = clap::value_parser!(u64).range(1..))]
    turn_budget: Option<u64>,
    /// Turns that each client's certificate may begin in an hour [default: any number].
    #[arg(long, value_name = "TURNS", value_parser = clap::value_parser!(u64).range(1..))]
    turn_rate: Option<u64>,
    #[command(flatten)]
    descent: DescentArgs,
    #[command(flatten)]
    turns: TurnArgs,
}

fn parse_shape(text: &str) -> Result<Shape, String> {
    let extents: Option<Vec<usize>> = text
        .split('x')
        .map(|extent| extent.parse().ok().filter(|extent| (1..=1 << 20).contains(extent)))
        .collect();
    let extents = extents.filter(|extents| matches!(extents.len(), 1 | 3));
    let extents = extents.ok_or_else(|| {
        format!("expected CHANNELSxHEIGHTxWIDTH or a number of columns, for instance 1x28x28; found `{text}`")
    })?;
    Ok(Shape::from(&extents[..]))
}

impl TrainArgs {
    /// Refuses what only training takes where nothing is trained, and what only inference takes where something is.
    pub(super) fn check(&self, given: &Given) -> anyhow::Result<()> {
        if self.train {
            let inference = ["weight-bits", "layer-bits", "activation-bits", "input-bits", "budget", "rate"];
            given.refuse(&inference, "models that are trained (--train) are not offered for inference")?;
            warn_of_short_key(self.turns.key_bits);
            return Ok(());
        }
        let own =
            ["activation", "pooling", "batch-norm", "input", "classes", "init", "turn-budget", "turn-rate"];
        let all = [&own[..], &DescentArgs::NAMES, &TurnArgs::NAMES].concat();
        Ok(given.refuse(&all, "nothing is trained without --train")?)
    }

    /// How a model is to be trained, with its weights written into `folder`.
    pub(super) fn training(&self, model: &Path, name: &str, folder: &Path) -> anyhow::Result<Training> {
        let setting = Setting {
            input: self.input.clone(),
            classes: self.classes.map(|classes| classes as usize),
            ..Setting::default()
        };
        let is_name = crate::model::network_of(model).is_some();
        ensure!(
            is_name || (self.input.is_none() && self.classes.is_none()),
            "--input, --classes: --model {} is a file and says that itself",
            model.display()
        );
        let mut network = untrained(model, &self.choices, setting)?;
        if !is_name {
            // What clients have to know to prepare their inputs.
            *network.info_mut() = read_model(model)?.info().clone();
        }
        initialize(&self.descent, self.init.as_deref(), &mut network)?;
        let preprocessing = network.info().preprocessing.clone();
        if preprocessing.is_none() && network.input_shape().dims().len() == 1 {
            note!(
                "note: {name} does not say how its inputs are prepared: clients' inputs must lie between 0 and 1; a model \
                 file that `gelu train --clear` wrote says it"
            );
        }
        let numbers = self.turns.numbers(preprocessing.as_ref(), || 1.0);
        let options = self.turns.options(self.descent.config(TrainingOptions::BATCH), numbers)?;
        let weights = folder.join(format!("{}.safetensors", file_name(name)));
        Ok(Training {
            model: network,
            options,
            clients: self.turns.clients,
            turns: self.turn_budget,
            turns_an_hour: self.turn_rate,
            weights: Some(weights),
        })
    }
}

/// A model's name as the name of a file.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_read_and_names_are_names_of_files() {
        assert_eq!(parse_shape("1x28x28"), Ok(Shape::from([1, 28, 28])));
        assert_eq!(parse_shape("4"), Ok(Shape::from([4])));
        for wrong in ["", "0", "1x2", "1x28x", "1x28x28x3", "-1", "9999999"] {
            assert!(parse_shape(wrong).is_err(), "{wrong}");
        }
        assert_eq!(file_name("mlp:12,4/../x"), "mlp-12-4-..-x");
    }
}
