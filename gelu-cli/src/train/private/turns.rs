//! What determines the turns of private training: `gelu train` and `gelu serve --train` have the same options.

use gelu_models::train::TrainConfig;
use gelu_models::train::private::{DMax, FixedPoint, Leakage, TrainingOptions};
use gelu_models::{ColumnValues, Preprocessing};
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType};

use crate::model_args::{backend, key_bits, key_type};

/// Clients, keys, and what a turn is.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Private training")]
pub(crate) struct TurnArgs {
    /// Clients, each with a part of the data of its own. They take turns.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) clients: u32,
    /// Bits of the clients' keys and the server's, which are made anew.
    #[arg(long, value_parser = key_bits(), default_value = "2048")]
    pub(crate) key_bits: KeyBits,
    /// How those keys are made. Subgroup keys take a third of the clients' time, under one assumption more (see
    /// SECURITY.md).
    #[arg(long, value_parser = key_type(), default_value = "djn")]
    pub(crate) key_type: KeyType,
    /// Iterations that a client may run in one go: a number, or `auto` to draw one for every turn, as the paper does.
    #[arg(long, default_value = "auto", value_name = "N", value_parser = parse_d_max)]
    d_max: DMax,
    /// How many iterations may be allowed at all: `paper` keeps below the paper's bound, `strict` below as many linear
    /// equations as a layer has unknown weights (every image and position counted), `off` sets no bound.
    #[arg(long, default_value = "paper", value_name = "POLICY")]
    leakage: Leakage,
    /// Bits of a weighted sum, with its sign, 24 to 56: the fewer there are, the more sums share a ciphertext. More are needed
    /// where weights grow so large that a layer is said to have no room left.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(24..=56))]
    pub(crate) sum_bits: u32,
    /// Fractional bits that weights are rounded to for the server's products, 4 to 18. Steps are added to all 18 bits.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=18))]
    pub(crate) product_bits: u32,
}

impl TurnArgs {
    /// The options, as they are written without their dashes.
    pub(crate) const NAMES: [&str; 7] =
        ["clients", "key-bits", "key-type", "d-max", "leakage", "sum-bits", "product-bits"];

    /// What of it determines the weights: options and their values.
    pub(crate) fn settings(&self) -> [(&'static str, String); 5] {
        let d_max = match self.d_max {
            DMax::Auto => "auto".to_owned(),
            DMax::Fixed(iterations) => iterations.to_string(),
        };
        [
            ("--clients", self.clients.to_string()),
            ("--d-max", d_max),
            ("--leakage", self.leakage.to_string()),
            ("--sum-bits", self.sum_bits.to_string()),
            ("--product-bits", self.product_bits.to_string()),
        ]
    }

    /// The numbers that suit inputs; `largest` is asked for the largest of them where nothing else says how they are
    /// prepared.
    pub(crate) fn numbers(
        &self,
        preprocessing: Option<&Preprocessing>,
        largest: impl FnOnce() -> f32,
    ) -> FixedPoint {
        let (input_bits, input_range) = match preprocessing {
            // Standardized numbers.
            Some(Preprocessing::Columns(columns))
                if columns.iter().any(|column| matches!(column.values, ColumnValues::Number { .. })) =>
            {
                (10, 3)
            }
            // From 0 to 1.
            None | Some(Preprocessing::Pixels(_) | Preprocessing::Columns(_)) => (8, 0),
            Some(Preprocessing::Raw) => (10, largest().max(1.0).log2().ceil().min(24.0) as _),
        };
        let (sum_bits, product_bits) = (self.sum_bits, self.product_bits);
        FixedPoint { sum_bits, product_bits, input_bits, input_range, ..FixedPoint::default() }
    }

    pub(crate) fn options(&self, train: TrainConfig, numbers: FixedPoint) -> anyhow::Result<TrainingOptions> {
        let key = KeyParameters { size: self.key_bits, key_type: self.key_type };
        let (d_max, leakage) = (self.d_max, self.leakage);
        Ok(TrainingOptions { key, backend: backend()?, numbers, train, d_max, leakage })
    }
}

fn parse_d_max(text: &str) -> Result<DMax, String> {
    match text {
        "auto" => Ok(DMax::Auto),
        _ => text
            .parse()
            .ok()
            .filter(|&iterations: &u32| iterations > 0)
            .map(DMax::Fixed)
            .ok_or_else(|| format!("expected `auto` or a number of iterations from 1, found `{text}`")),
    }
}
