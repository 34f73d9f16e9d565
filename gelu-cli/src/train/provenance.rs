//! What a trained model says about itself, and the command that trains it again.

use std::fmt::Write as _;

use gelu_io::data::TrainingData;
use gelu_layers::Initializer;
use gelu_models::train::{Evaluation, TrainConfig};
use gelu_models::{Model, Weights};

use super::Args;
use crate::datasets::describe;
use crate::model::Choices;

/// The trained weights with what a user needs to know about them.
pub(super) fn with_metadata(
    args: &Args,
    model: &Model,
    data: &TrainingData,
    test: Evaluation,
) -> anyhow::Result<Weights> {
    let mut model = model.clone();
    describe(&mut model, data);
    model.calibrate(data.train.inputs())?;
    let provenance = [
        ("gelu.model", args.name()),
        ("gelu.dataset", args.dataset.name()),
        ("gelu.command", command(args)),
        ("gelu.test_accuracy", test.accuracy.to_string()),
    ];
    model.info_mut().provenance.extend(provenance.map(|(key, value)| (key.to_owned(), value)));
    Ok(model.weights())
}

/// Bits of single layers, as they are written on the command line.
pub(super) fn layer_bits(config: &TrainConfig) -> String {
    let layers: Vec<String> =
        config.layer_bits.iter().map(|(layer, bits)| format!("{layer}={bits}")).collect();
    layers.join(",")
}

/// The command that gives the same weights again, without the names of files. Private training and its clear
/// counterpart have the same.
pub(super) fn command(args: &Args) -> String {
    let clear = if args.clear && !args.fixed { " --clear" } else { "" };
    let mut text = format!("gelu train{clear} --model {}", args.name());
    // Writing to a String cannot fail.
    let Choices { activation, pooling, batch_norm } = args.choices;
    if let Some(activation) = activation {
        let _ = write!(text, " --activation {activation}");
    }
    if let Some(pooling) = pooling {
        let _ = write!(text, " --pooling {pooling}");
    }
    if let Some(batch_norm) = batch_norm {
        let _ = write!(text, " --batch-norm {batch_norm}");
    }
    let config = args.config();
    let _ = write!(
        text,
        " --dataset {} --epochs {} --batch {} --lr {} --momentum {} --weight-decay {} --schedule {} --warm-up {} \
         --seed {}",
        args.dataset.name(),
        config.epochs,
        config.batch_size,
        config.learning_rate,
        config.momentum,
        config.weight_decay,
        config.schedule,
        config.warm_up,
        config.seed,
    );
    if args.descent.initializer != Initializer::default() {
        let _ = write!(text, " --initializer {}", args.descent.initializer);
    }
    if let Some(bits) = config.weight_bits {
        let _ = write!(text, " --weight-bits {bits}");
    }
    if !config.layer_bits.is_empty() {
        let _ = write!(text, " --layer-bits {}", layer_bits(&config));
    }
    if let Some(bits) = config.activation_bits {
        let _ = write!(text, " --activation-bits {bits}");
    }
    if let Some(bits) = config.input_bits {
        let _ = write!(text, " --input-bits {bits}");
    }
    text += &args.options.command();
    if let Some(limit) = args.limit {
        let _ = write!(text, " --limit {limit}");
    }
    if let Some(init) = &args.init {
        let _ = write!(text, " --init {}", init.display());
    }
    if args.augment {
        text += " --augment";
    }
    if clear.is_empty() {
        text.extend(args.private.turns.settings().map(|(option, value)| format!(" {option} {value}")));
    }
    text
}
