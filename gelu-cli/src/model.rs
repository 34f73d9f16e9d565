//! `--model`: a model file, or a network by name with weights of a file or of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use gelu_io::digits::{SIDE, SampleDigits};
use gelu_io::weights::WeightsFile;
use gelu_layers::{Activation, Initializer};
use gelu_models::zoo::{Network, Pooling, Setting};
use gelu_models::{FoldError, Graph, Model, Normalization, PixelFormat, Preprocessing, Ranges, Weights};
use gelu_tensor::Shape;
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::infer::pixels;
use crate::output::note;

#[cfg(test)]
mod tests;

/// LeNet-5 and Conv-1, trained by this project on MNIST with `gelu train`.
const BUILT_IN: [(Network, &[u8]); 2] = [
    (Network::Lenet5, include_bytes!("../../models/lenet5.safetensors")),
    (Network::Conv1, include_bytes!("../../models/conv1.safetensors")),
];

/// Which model a command is about.
#[derive(Clone, Debug, Args)]
pub(crate) struct ModelArgs {
    #[command(flatten)]
    network: NetworkArgs,
    /// Weights of a network by name, as PyTorch saves them in safetensors files, or the index of several
    /// [default: the project's own, of lenet5 and conv1].
    #[arg(long, value_name = "FILE.safetensors", help_heading = "Model")]
    weights: Option<PathBuf>,
}

/// Which network, and how to read weights into it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Model")]
pub(crate) struct NetworkArgs {
    /// A model file (`gelu train --out` and `gelu import` write them), or the name of a network: lenet5, conv1,
    /// mlp:WIDTHS with the widths of its hidden layers (mlp:12, mlp:300,100), dense12, dense300, resnet20 (or another
    /// depth of 6 n + 2; resnet8:8 has 8 channels at first).
    #[arg(long, value_name = "FILE|NAME", default_value = "lenet5")]
    model: PathBuf,
    /// Names of layers or tensors in the file of weights, and what the network calls them: features.0=conv1,head=fc1.
    #[arg(long, value_name = "FROM=TO", value_delimiter = ',', value_parser = parse_rename)]
    map: Vec<(String, String)>,
    #[command(flatten)]
    choices: Choices,
    /// The weights were trained on (pixel - MEAN) / STD with pixels from 0 to 1.
    #[arg(long, value_name = "MEAN,STD", value_parser = parse_normalization, allow_hyphen_values = true)]
    normalize: Option<Normalization>,
}

/// What the name of a network leaves open.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Choices {
    /// What follows the hidden layers of a network by name: relu, sigmoid, tanh, square, ... [default: relu].
    #[arg(long)]
    pub(crate) activation: Option<Activation>,
    /// How lenet5 and conv1 pool: mean or max [default: mean].
    #[arg(long)]
    pub(crate) pooling: Option<Pooling>,
    /// Whether a batch norm follows every convolution of a residual network by name, or each has a bias, as private
    /// training needs it [default: true].
    #[arg(long, value_name = "BOOL")]
    pub(crate) batch_norm: Option<bool>,
}

fn parse_rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok((from.to_owned(), to.to_owned())),
        _ => Err(format!("expected FROM=TO (for instance features.0=conv1), found `{text}`")),
    }
}

pub(crate) fn parse_normalization(text: &str) -> anyhow::Result<Normalization> {
    let numbers = text
        .split_once(',')
        .and_then(|(mean, std)| Some((mean.trim().parse::<f32>().ok()?, std.trim().parse::<f32>().ok()?)));
    let (mean, std) = numbers.context("expected two numbers MEAN,STD (for instance 0.1307,0.3081)")?;
    Ok(Normalization { mean: vec![mean], std: vec![std] })
}

/// A network to be run.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) model: Model,
    /// The network's name, or the file's.
    pub(crate) name: String,
    /// Whether its weights are trained, not random.
    pub(crate) is_trained: bool,
}

impl ModelArgs {
    /// A model file, or the name of a network, with nothing else said.
    pub(crate) fn of(model: &Path) -> Self {
        let network = NetworkArgs {
            model: model.to_path_buf(),
            map: vec![],
            choices: Choices::default(),
            normalize: None,
        };
        Self { network, weights: None }
    }

    /// Returns the model with trained weights. Ranges that its file does not have are measured ([`estimate_ranges`]).
    ///
    /// # Errors
    /// When there are no weights, or they do not fit.
    pub(crate) fn load(&self) -> anyhow::Result<Loaded> {
        let mut loaded = self.network.read(self.weights.as_deref())?;
        ensure!(
            loaded.is_trained,
            "--model {}: expected trained weights beside the name: --weights FILE.safetensors",
            loaded.name
        );
        if loaded.model.ranges().is_none() {
            note!(
                "note: {}: no ranges of activations, which are measured on inputs that are made up; `gelu weights import \
                 --calibrate DATASET` measures and keeps them",
                self.weights.as_ref().map_or_else(|| loaded.name.clone(), |path| path.display().to_string())
            );
        }
        ensure_ranges(&mut loaded.model)?;
        Ok(loaded)
    }

    /// Returns the model, with random (seeded) weights where there are no others.
    pub(crate) fn load_or_initialize(&self) -> anyhow::Result<Loaded> {
        let mut loaded = self.network.read(self.weights.as_deref())?;
        ensure_ranges(&mut loaded.model)?;
        Ok(loaded)
    }
}

impl NetworkArgs {
    /// Returns the model with the weights of a file, random (seeded) where there are none, and perhaps without ranges.
    pub(crate) fn read(&self, weights: Option<&Path>) -> anyhow::Result<Loaded> {
        let mut loaded = match network_of(&self.model) {
            None if is_file(&self.model) => self.read_file(weights)?,
            _ => self.read_network(weights)?,
        };
        if let Some(normalization) = &self.normalize {
            ensure!(
                !matches!(loaded.model.info().preprocessing, Some(Preprocessing::Columns(_))),
                "--normalize: {} normalizes the columns of its tables by itself",
                loaded.name
            );
            normalize(&mut loaded.model, normalization).with_context(|| loaded.name.clone())?;
            // Measured on the other scale of the input.
            loaded.model.set_ranges(None);
            loaded.model.set_layer_bits([].into());
            loaded.model.set_formats([].into());
        }
        Ok(loaded)
    }

    fn read_file(&self, weights: Option<&Path>) -> anyhow::Result<Loaded> {
        let path = &self.model;
        let others = [(weights.is_some(), "--weights"), (!self.map.is_empty(), "--map")];
        refuse_beside_file(path, &self.choices, &others)?;
        Ok(Loaded { model: read_model(path)?, name: path.display().to_string(), is_trained: true })
    }

    fn read_network(&self, weights: Option<&Path>) -> anyhow::Result<Loaded> {
        let text = self.model.to_string_lossy();
        let network: Network = text.parse()?;
        let name = text.into_owned();
        let mut setting = Setting {
            activation: self.choices.activation,
            pooling: self.choices.pooling,
            batch_norm: self.choices.batch_norm,
            ..Setting::default()
        };
        let (weights, source) = match weights {
            Some(path) => (Some(Weights::read(path)?), path.to_owned()),
            None if setting == Setting::default() => {
                let built_in = BUILT_IN.iter().find(|(known, _)| *known == network);
                let source = PathBuf::from("the built-in weights");
                let weights = built_in.map(|(_, bytes)| Weights::parse(bytes, &source)).transpose()?;
                (weights, source)
            }
            None => (None, PathBuf::new()),
        };
        let Some(mut weights) = weights else {
            let mut model = network.build(&setting)?;
            model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(0));
            return Ok(Loaded { model, name, is_trained: false });
        };
        let model = named_model(&network, &mut setting, &mut weights, &self.map, &source)?;
        Ok(Loaded { model, name, is_trained: true })
    }
}

/// Makes a normalization part of the first layer, or, where that cannot take it up, of what the client does to pixels.
pub(crate) fn normalize(model: &mut Model, normalization: &Normalization) -> Result<(), FoldError> {
    match model.fold_normalization(normalization) {
        Err(FoldError::Padding { .. } | FoldError::NoWeights { .. }) => {
            let own = PixelFormat { normalization: Some(normalization.clone()), ..PixelFormat::default() };
            match &mut model.info_mut().preprocessing {
                Some(Preprocessing::Pixels(pixels)) => pixels.normalization = Some(normalization.clone()),
                other => *other = Some(Preprocessing::Pixels(own)),
            }
            Ok(())
        }
        done => done,
    }
}

/// The network that `--model` names, if it is the name of one.
pub(crate) fn network_of(model: &Path) -> Option<Network> {
    model.to_str()?.parse().ok()
}

/// Whether `--model`, which is no network's name, looks like a file's.
pub(crate) fn is_file(model: &Path) -> bool {
    model.components().count() > 1 || model.extension().is_some() || model.exists()
}

/// Fails when what a model file says itself was given beside it.
fn refuse_beside_file(path: &Path, choices: &Choices, others: &[(bool, &str)]) -> anyhow::Result<()> {
    let Choices { activation, pooling, batch_norm } = choices;
    let chosen = [
        (activation.is_some(), "--activation"),
        (pooling.is_some(), "--pooling"),
        (batch_norm.is_some(), "--batch-norm"),
    ];
    for (given, option) in others.iter().copied().chain(chosen) {
        ensure!(!given, "{option}: --model {} is a file and says all of that itself", path.display());
    }
    Ok(())
}

/// The network of `--model`, by name or a file's, without trained weights; what neither says is in `setting`.
pub(crate) fn untrained(model: &Path, choices: &Choices, setting: Setting) -> anyhow::Result<Model> {
    let Choices { activation, pooling, batch_norm } = *choices;
    if network_of(model).is_none() && is_file(model) {
        refuse_beside_file(model, choices, &[])?;
        return Ok(Model::new((**read_model(model)?.graph()).clone())?);
    }
    let network: Network = model.to_string_lossy().parse()?;
    Ok(network.build(&Setting { activation, pooling, batch_norm, ..setting })?)
}

/// The model of a file that holds one.
pub(crate) fn read_model(path: &Path) -> anyhow::Result<Model> {
    let weights = Weights::read(path)?;
    if !weights.metadata.contains_key(Graph::METADATA_KEY) {
        bail!(
            "{}: expected a model file, found weights without their network; name it beside them: --model NAME --weights \
             FILE",
            path.display()
        );
    }
    Model::from_weights(&weights).with_context(|| path.display().to_string())
}

/// The network of a name with the weights of a file. What the file says about itself decides what the name leaves open.
fn named_model(
    network: &Network,
    setting: &mut Setting,
    weights: &mut Weights,
    renames: &[(String, String)],
    source: &Path,
) -> anyhow::Result<Model> {
    let at = || source.display().to_string();
    if weights.metadata.contains_key(Graph::METADATA_KEY) && renames.is_empty() {
        let model = Model::from_weights(weights).with_context(at)?;
        let mut chosen = Setting {
            input: Some(model.input_shape().clone()),
            classes: Some(model.output_shape().elements()),
            ..setting.clone()
        };
        network.complete(&mut chosen, weights);
        let named = network.build(&chosen)?;
        // What is not chosen is the file's own business.
        let is_open =
            setting.activation.is_none() && setting.pooling.is_none() && setting.batch_norm.is_none();
        ensure!(
            named.graph() == model.graph() || is_open && shapes(&named) == shapes(&model),
            "{}: the file holds another network than `{network}` with these options; --model {} runs it",
            source.display(),
            source.display()
        );
        return Ok(model);
    }
    let said = weights.metadata.get("gelu.command").and_then(|command| {
        let mut words = command.split(' ').skip_while(|word| *word != "--activation").skip(1);
        words.next()?.parse::<Activation>().ok()
    });
    if let Some(said) = said {
        let chosen = *setting.activation.get_or_insert(said);
        ensure!(
            chosen == said,
            "{}: the weights were trained with {said} (its gelu.command says so), found --activation {chosen}",
            source.display()
        );
    }
    if let Some(activation) = said.filter(|activation| *activation != Activation::Relu) {
        note!("note: {}: trained with {activation}, which is taken for the activation", source.display());
    }
    network.complete(setting, weights);
    let mut model = network.build(setting)?;
    adapt(weights, &model, renames, source)?;
    model.load(weights).with_context(at)?;
    if model.info().preprocessing.is_none() && matches!(network, Network::Lenet5 | Network::Conv1) {
        model.info_mut().preprocessing =
            Some(Preprocessing::Pixels(PixelFormat { digits: true, ..PixelFormat::default() }));
    }
    Ok(model)
}

/// Brings weights under a model's names, and says on standard error what was changed.
pub(crate) fn adapt(
    weights: &mut Weights,
    model: &Model,
    renames: &[(String, String)],
    source: &Path,
) -> anyhow::Result<()> {
    let done = weights.adapt(model, renames).with_context(|| source.display().to_string())?;
    done.iter().for_each(|adaptation| note!("note: {}: {adaptation}", source.display()));
    Ok(())
}

fn shapes(model: &Model) -> Vec<(String, Shape)> {
    let tensors = model.weights().tensors.into_iter();
    tensors.map(|(name, tensor)| (name, tensor.shape().clone())).collect()
}

pub(crate) fn ensure_ranges(model: &mut Model) -> anyhow::Result<()> {
    match model.ranges() {
        Some(_) => Ok(()),
        None => estimate_ranges(model),
    }
}

/// Inputs that this program makes up, as a network takes them, `[inputs, elements]`: the digits that it draws where the
/// network takes such, else uniform noise from 0 to 1; normalized as the network asks for.
pub(crate) fn made_up_inputs(model: &Model) -> anyhow::Result<Array2<f32>> {
    let elements = model.input_shape().elements();
    let mut inputs = if elements == SIDE * SIDE {
        pixels(SampleDigits { seed: 0, per_digit: 30 }.draw().images())?
    } else {
        let mut rng = ChaCha8Rng::seed_from_u64(0);
        Array2::from_shape_fn((16, elements), |_| rng.random_range(0.0..1.0f32))
    };
    if let Some(normalization) = own_normalization(model) {
        let channels = model.input_shape().dims()[0];
        let numbers = normalization.per_channel(channels)?;
        inputs.indexed_iter_mut().for_each(|((_, at), x)| {
            let [mean, std] = numbers[at / (elements / channels)];
            *x = (*x - mean) / std;
        });
    }
    Ok(inputs)
}

/// What the client does to pixels from 0 to 1.
fn own_normalization(model: &Model) -> Option<&Normalization> {
    match &model.info().preprocessing {
        Some(Preprocessing::Pixels(pixels)) => pixels.normalization.as_ref(),
        _ => None,
    }
}

/// Measures the ranges of a network's values on inputs that this program makes up, and doubles them.
fn estimate_ranges(model: &mut Model) -> anyhow::Result<()> {
    let largest = match own_normalization(model) {
        Some(normalization) => {
            let numbers = normalization.per_channel(model.input_shape().dims()[0])?;
            let ends = numbers.iter().flat_map(|[mean, std]| [mean / std, (1.0 - mean) / std]);
            ends.fold(0.0, |largest: f32, end| largest.max(end.abs()))
        }
        None => 1.0,
    };
    let mut ranges = model.measure_ranges(made_up_inputs(model)?.view())?;
    ranges.widen(2.0);
    ranges.set(Ranges::INPUT, largest);
    model.set_ranges(Some(ranges));
    Ok(())
}

/// The network that the demonstration runs: LeNet-5 with the built-in weights.
pub(crate) fn built_in_lenet5() -> anyhow::Result<Model> {
    let (network, bytes) = &BUILT_IN[0];
    let source = Path::new("the built-in weights");
    let mut weights = Weights::parse(bytes, source)?;
    named_model(network, &mut Setting::default(), &mut weights, &[], source)
}
