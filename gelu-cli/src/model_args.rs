//! Options that several commands share: which numbers, which key, which backend.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use gelu_io::files::{check_owner_only, read_limited};
use gelu_models::Model;
use gelu_models::plan::{LostResolution, Preference, Quantization};
use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use gelu_wire::decode_secret_key;

use crate::output::note;

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
    /// Bits of an activation (2 to 24) [default: those that the network was trained to, else 10].
    #[arg(long, value_name = "BITS")]
    activation_bits: Option<u32>,
    /// Bits of an input pixel (2 to 24) [default: those that the network was trained to, else 8].
    #[arg(long, value_name = "BITS")]
    input_bits: Option<u32>,
}

impl Numbers {
    /// How to round with these bits a network that may have been tuned to bits of its own. Says on standard error when
    /// that would cost a layer its weights.
    pub(crate) fn quantization(&self, model: &Model) -> Quantization {
        let quantization = self.rounding(model);
        for LostResolution { layer, bits, largest, typical, needed_bits } in
            model.lost_resolution(&quantization)
        {
            note!(
                "warning: layer {layer} has weights up to {largest}, while most are about {typical:.2e}: with {bits} bits \
                 these are lost to rounding; --layer-bits {layer}={needed_bits} keeps them, and so does training without \
                 the outliers"
            );
        }
        quantization
    }

    /// The options of three more bits for every kind of number that can have them.
    pub(crate) fn finer(&self) -> String {
        let weights = self.weight_bits.unwrap_or(Quantization::default().weight_bits);
        let activations = self.activation_bits.unwrap_or(Quantization::ACTIVATION_BITS);
        let inputs = self.input_bits.unwrap_or(Quantization::INPUT_BITS);
        let options = [("weight", weights), ("activation", activations), ("input", inputs)];
        let more = options.map(|(kind, bits)| format!("--{kind}-bits {}", (bits + 3).min(24)));
        more.join(" ")
    }

    fn rounding(&self, model: &Model) -> Quantization {
        let default = Quantization::default();
        let mut layer_bits =
            if self.weight_bits.is_none() { model.layer_bits().clone() } else { LayerBits::new() };
        layer_bits.extend(self.layer_bits.iter().cloned());
        Quantization {
            weight_bits: self.weight_bits.unwrap_or(default.weight_bits),
            layer_bits: Some(layer_bits),
            activation_bits: self.activation_bits,
            input_bits: self.input_bits,
            ..default
        }
    }
}

pub(crate) fn parse_layer_bits(text: &str) -> Result<(String, u32), String> {
    let (layer, bits) = text.split_once('=').ok_or("expected LAYER=BITS, for instance fc1=8")?;
    let bits = bits.parse().map_err(|_| format!("expected a number of bits, found `{bits}`"))?;
    Ok((layer.to_owned(), bits))
}

/// What a plan saves.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Prefer {
    /// What to save where there is a choice: how many values share a ciphertext trades bytes for products. It changes no
    /// result.
    #[arg(long, value_parser = preference(), default_value = "balance", value_name = "WHAT")]
    prefer: Preference,
}

impl From<Prefer> for Preference {
    fn from(Prefer { prefer }: Prefer) -> Self {
        prefer
    }
}

/// Reads one of these values by its name; `--help` lists them with what is said of each.
pub(crate) fn named<T: Copy + Send + Sync + 'static, const N: usize>(
    values: [(&'static str, T, &'static str); N],
) -> impl TypedValueParser<Value = T> {
    let names = values.map(|(name, _, help)| PossibleValue::new(name).help(help));
    PossibleValuesParser::new(names).try_map(move |given| {
        let value = values.iter().find(|(name, ..)| *name == given);
        value.map(|(_, value, _)| *value).ok_or("it has no value of this name")
    })
}

fn preference() -> impl TypedValueParser<Value = Preference> {
    named([
        ("balance", Preference::Balance, "Time over a link of some 60 Mbit/s"),
        ("bytes", Preference::Bytes, "Bytes, up and down together"),
        ("time", Preference::Time, "Time alone, as on one machine"),
    ])
}

/// Sizes of keys.
pub(crate) fn key_bits() -> impl TypedValueParser<Value = KeyBits> {
    named([
        ("1024", KeyBits::Bits1024, "80-bit security: for tests and comparison with the paper only"),
        ("2048", KeyBits::Bits2048, "112-bit security"),
        ("3072", KeyBits::Bits3072, "128-bit security"),
        ("4096", KeyBits::Bits4096, "More than 128-bit security"),
    ])
}

/// Ways to make keys.
pub(crate) fn key_type() -> impl TypedValueParser<Value = KeyType> {
    named([
        ("djn", KeyType::Djn, "Damgård, Jurik and Nielsen's: on the hardness of composite residuosity alone"),
        (
            "subgroup",
            KeyType::Subgroup,
            "Ma, Han and Lei's subgroup keys: several times faster for the client, on a further assumption (SECURITY.md)",
        ),
    ])
}

/// Says on standard error when a key is for tests only.
pub(crate) fn warn_of_short_key(size: KeyBits) {
    if size == KeyBits::Bits1024 {
        note!(
            "note: keys of 1024 bits are for tests and comparison only; use 2048 bits or more for real data"
        );
    }
}

/// Reads a secret key file, which others may read only when that `is_allowed`.
pub(crate) fn read_secret_key(path: &Path, is_allowed: bool) -> anyhow::Result<SecretKey> {
    let bytes = zeroize::Zeroizing::new(read_limited(path, 1 << 16)?);
    let key =
        decode_secret_key(&bytes).with_context(|| format!("{}: not a usable secret key", path.display()))?;
    // A file that holds no secret may be read by everyone.
    if !is_allowed {
        check_owner_only(path)
            .map_err(|error| anyhow::anyhow!("{error}; --exposed-key takes the file as it is"))?;
    }
    Ok(key)
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

/// The key of a file, which others may read only when the flag beside it says so; or a new one.
pub(crate) fn key_for(
    file: Option<(&PathBuf, bool)>,
    parameters: KeyParameters,
) -> anyhow::Result<SecretKey> {
    let key = match file {
        Some((path, is_allowed)) => read_secret_key(path, is_allowed)?.on(backend()?)?,
        None => new_key(parameters)?,
    };
    warn_of_short_key(key.public_key().size());
    Ok(key)
}
