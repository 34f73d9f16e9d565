//! What determines the turns of private training: `gelu train` and `gelu serve --train` have the same options.

use gelu_models::train::TrainConfig;
use gelu_models::train::private::{DMax, FixedPoint, Leakage, TrainingOptions};
use gelu_models::{ColumnValues, Preprocessing};
use gelu_tensor::RingBits;
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
    /// Bits of the ring in which weights are masked: 32, 40, 48 or 64.
    #[arg(long, default_value = "40", value_parser = parse_ring)]
    pub(crate) ring_bits: RingBits,
}

impl TurnArgs {
    /// The options, as they are written without their dashes.
    pub(crate) const NAMES: [&str; 6] = ["clients", "key-bits", "key-type", "d-max", "leakage", "ring-bits"];

    /// What of it determines the weights: options and their values.
    pub(crate) fn settings(&self) -> [(&'static str, String); 4] {
        let d_max = match self.d_max {
            DMax::Auto => "auto".to_owned(),
            DMax::Fixed(iterations) => iterations.to_string(),
        };
        [
            ("--clients", self.clients.to_string()),
            ("--d-max", d_max),
            ("--leakage", self.leakage.to_string()),
            ("--ring-bits", self.ring_bits.bits().to_string()),
        ]
    }

    /// The numbers that suit inputs; `largest` is asked for the largest of them where nothing else says how they are
    /// prepared.
    pub(crate) fn numbers(
        &self,
        preprocessing: Option<&Preprocessing>,
        largest: impl FnOnce() -> f32,
    ) -> FixedPoint {
        let ring = self.ring_bits;
        let short = if ring.bits() < 40 {
            FixedPoint { weight_bits: 15, activation_bits: 10, error_bits: 10, ..FixedPoint::default() }
        } else {
            FixedPoint::default()
        };
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
        FixedPoint { ring, input_bits, input_range, ..short }
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

fn parse_ring(text: &str) -> Result<RingBits, String> {
    let ring = text.parse().ok().and_then(|bits: u32| RingBits::try_from(bits).ok());
    ring.ok_or_else(|| format!("expected 32, 40, 48 or 64, found `{text}`"))
}
