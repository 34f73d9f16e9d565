//! Options that several commands share: which network, which weights, which numbers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use gelu_io::digits::{SampleOptions, sample_digits};
use gelu_io::files::read_limited;
use gelu_io::weights::WeightsFile;
use gelu_models::plan::PlanOptions;
use gelu_models::{Model, Normalization, Ranges, Weights, zoo};
use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use gelu_wire::decode_secret_key;
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::datasets;

/// Weight bits by layer.
pub(crate) type LayerBits = BTreeMap<String, u32>;

/// The bits of integers.
#[derive(Clone, Debug, Args)]
pub(crate) struct Numbers {
    /// Bits of an integer weight, its sign included (2 to 24). More bits cost the server more products [default: those
    /// that the weight file was tuned to, else 9].
    #[arg(long, value_name = "BITS")]
    weight_bits: Option<u32>,
    /// Other weight bits for single layers, for instance fc1=8,fc2=10; `gelu plan --tune` finds some.
    #[arg(long, value_delimiter = ',', value_name = "LAYER=BITS", value_parser = parse_layer_bits)]
    layer_bits: Vec<(String, u32)>,
    /// Bits of an activation (2 to 24).
    #[arg(long, default_value_t = 10, value_name = "BITS")]
    activation_bits: u32,
    /// Bits of an input pixel (2 to 24).
    #[arg(long, default_value_t = 8, value_name = "BITS")]
    input_bits: u32,
}

impl Numbers {
    /// The options of a plan with these bits, for a network that may have been tuned to bits of its own.
    pub(crate) fn options(&self, model: &Model) -> anyhow::Result<PlanOptions> {
        let default = PlanOptions { lanes: backend()?.lanes(), ..PlanOptions::default() };
        let mut layer_bits =
            if self.weight_bits.is_none() { model.layer_bits().clone() } else { LayerBits::new() };
        layer_bits.extend(self.layer_bits.iter().cloned());
        Ok(PlanOptions {
            weight_bits: self.weight_bits.unwrap_or(default.weight_bits),
            layer_bits: Some(layer_bits),
            activation_bits: self.activation_bits,
            input_bits: self.input_bits,
            ..default
        })
    }
}

fn parse_layer_bits(text: &str) -> Result<(String, u32), String> {
    let (layer, bits) = text.split_once('=').ok_or("expected LAYER=BITS, for instance fc1=8")?;
    let bits = bits.parse().map_err(|_| format!("expected a number of bits, found `{bits}`"))?;
    Ok((layer.to_owned(), bits))
}

/// Sizes of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeySize {
    /// 80-bit security: for tests and comparison with the paper only.
    #[value(name = "1024")]
    Bits1024,
    /// 112-bit security.
    #[value(name = "2048")]
    Bits2048,
    /// 128-bit security.
    #[value(name = "3072")]
    Bits3072,
    /// More than 128-bit security.
    #[value(name = "4096")]
    Bits4096,
}

impl From<KeySize> for KeyBits {
    fn from(size: KeySize) -> Self {
        match size {
            KeySize::Bits1024 => Self::Bits1024,
            KeySize::Bits2048 => Self::Bits2048,
            KeySize::Bits3072 => Self::Bits3072,
            KeySize::Bits4096 => Self::Bits4096,
        }
    }
}

/// Ways to make keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyTypeName {
    /// Damgård, Jurik and Nielsen's: on the hardness of composite residuosity alone.
    Djn,
    /// Ma, Han and Lei's subgroup keys: several times faster for the client, on a further assumption (SECURITY.md).
    Subgroup,
}

impl From<KeyTypeName> for KeyType {
    fn from(name: KeyTypeName) -> Self {
        match name {
            KeyTypeName::Djn => Self::Djn,
            KeyTypeName::Subgroup => Self::Subgroup,
        }
    }
}

/// Says on standard error when a key is for tests only.
pub(crate) fn warn_of_short_key(size: KeyBits) {
    if size == KeyBits::Bits1024 {
        eprintln!(
            "note: keys of 1024 bits are for tests and comparison only; use 2048 bits or more for real data"
        );
    }
}

/// A network by name, with the weights of a file. The ranges and bits are the file's own.
pub(crate) fn load_model(
    name: &str,
    weights: &Path,
    normalization: Option<&Normalization>,
) -> anyhow::Result<Model> {
    with_weights(name, &Weights::read(weights)?, normalization)
        .with_context(|| format!("weights in {}", weights.display()))
}

/// A network by name with `weights`. Without calibrated ranges in the file, they are measured on sample inputs
/// ([`estimate_ranges`]).
pub(crate) fn with_weights(
    name: &str,
    weights: &Weights,
    normalization: Option<&Normalization>,
) -> anyhow::Result<Model> {
    // A file that holds its own graph needs no name that is known.
    let mut model = match zoo::by_name(name) {
        Ok(model) => model,
        Err(error) => Model::from_weights(weights).map_err(|_| error)?,
    };
    model.load(weights)?;
    if let Some(normalization) = normalization {
        model.fold_normalization(normalization)?;
    }
    if model.ranges().is_none() {
        estimate_ranges(&mut model)?;
    }
    Ok(model)
}

/// Measures the ranges of a network's values on inputs that this program makes up, and doubles them: on the digits that
/// it draws, where the network takes such, else on uniform noise.
pub(crate) fn estimate_ranges(model: &mut Model) -> anyhow::Result<()> {
    let digits = sample_digits(SampleOptions { seed: 0, per_digit: 30 });
    let digits = datasets::from_images(&digits)?;
    let elements = model.input_shape().elements();
    let mut ranges = match digits.inputs().ncols() == elements {
        true => model.measure_ranges(digits.inputs())?,
        false => {
            let mut rng = ChaCha8Rng::seed_from_u64(0);
            let noise = Array2::from_shape_fn((16, elements), |_| rng.random_range(0.0..1.0f32));
            model.measure_ranges(noise.view())?
        }
    };
    ranges.widen(2.0);
    ranges.set(Ranges::INPUT, 1.0);
    model.set_ranges(Some(ranges));
    Ok(())
}

/// Reads a secret key file.
pub(crate) fn read_secret_key(path: &Path) -> anyhow::Result<SecretKey> {
    let bytes = zeroize::Zeroizing::new(read_limited(path, 1 << 16)?);
    decode_secret_key(&bytes).with_context(|| format!("{}: not a usable secret key", path.display()))
}

/// The backend that `GELU_BACKEND` names, else the fastest that the machine has. One that is misspelt or missing is not
/// replaced by another silently.
pub(crate) fn backend() -> anyhow::Result<Backend> {
    const VARIABLE: &str = "GELU_BACKEND";
    let Some(name) = std::env::var_os(VARIABLE) else { return Ok(Backend::detect()) };
    let named = name.to_string_lossy().parse::<Backend>().with_context(|| VARIABLE)?;
    ensure!(named.is_available(), "{VARIABLE}: this machine has no {named}");
    Ok(named)
}

/// A new key pair.
pub(crate) fn new_key(parameters: KeyParameters) -> anyhow::Result<SecretKey> {
    Ok(SecretKey::generate(parameters, &mut rand::rng())?.on(backend()?)?)
}

/// The key of a file, or a new one.
pub(crate) fn key_for(file: Option<&PathBuf>, parameters: KeyParameters) -> anyhow::Result<SecretKey> {
    let key = match file {
        Some(path) => read_secret_key(path)?.on(backend()?)?,
        None => new_key(parameters)?,
    };
    warn_of_short_key(key.public_key().size());
    Ok(key)
}
