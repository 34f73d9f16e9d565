//! The network that is trained, and its first weights.

use std::path::Path;

use anyhow::{Context, ensure};
use gelu_io::weights::WeightsFile;
use gelu_models::train::Dataset;
use gelu_models::zoo::{Network, Setting};
use gelu_models::{Model, Weights};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::{Args, DescentArgs};
use crate::model::{adapt, network_of, untrained};
use crate::output::note;

/// The network of `--model` for a data set, without weights.
pub(super) fn model(args: &Args, train: &Dataset) -> anyhow::Result<Model> {
    let is_mlp = matches!(network_of(&args.model), Some(Network::Mlp(_)));
    let takes_it = is_mlp || train.shape().dims().len() == 3;
    // A network of images says itself what is wrong with a table.
    let input = takes_it.then(|| train.shape().clone());
    let setting = Setting { input, classes: Some(train.classes()), ..Setting::default() };
    let model = untrained(&args.model, &args.choices, setting)?;
    let (expected, found) = (model.input_shape(), train.shape());
    ensure!(
        expected.elements() == found.elements(),
        "--model {} takes inputs of {expected}, --dataset {} has {found}; use --model mlp:WIDTHS",
        args.name(),
        args.dataset.name(),
    );
    let (expected, found) = (model.output_shape().elements(), train.classes());
    ensure!(
        expected == found,
        "--model {} has {expected} classes, --dataset {} has {found}",
        args.name(),
        args.dataset.name(),
    );
    Ok(model)
}

/// Random first weights, or those of `--init`.
pub(crate) fn initialize(
    descent: &DescentArgs,
    init: Option<&Path>,
    model: &mut Model,
) -> anyhow::Result<()> {
    model.initialize(descent.initializer, &mut ChaCha8Rng::seed_from_u64(descent.seed));
    let Some(path) = init else { return Ok(()) };
    let mut weights = Weights::read(path)?;
    adapt(&mut weights, model, &[], path)?;
    let report = model.load_partial(&weights).with_context(|| path.display().to_string())?;
    ensure!(
        !report.applied.is_empty(),
        "--init {}: expected tensors of the network, found none",
        path.display()
    );
    for (name, shape) in &report.missing {
        note!("note: {}: no `{name}` of {shape}, which starts at random", path.display());
    }
    for (name, _) in &report.unused {
        note!("note: {}: `{name}` has no place in the network", path.display());
    }
    // What was measured and tuned for other weights.
    model.set_ranges(None);
    model.set_layer_bits([].into());
    model.set_formats([].into());
    Ok(())
}
