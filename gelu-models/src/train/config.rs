use std::{collections::BTreeMap, f64::consts::PI, fmt, str::FromStr};

use gelu_layers::UnknownName;
use serde::{Deserialize, Serialize};

use super::Augmentation;

/// How the learning rate changes over a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// From its full value to zero along half a cosine.
    #[default]
    Cosine,
    /// Multiplied by `factor` after every `epochs`.
    Step {
        /// Epochs between two steps, at least 1.
        epochs: u32,
        /// Usually 0.1 to 0.5.
        factor: f64,
    },
}

/// Prints `constant`, `cosine` or `step:10:0.1`.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("constant"),
            Self::Cosine => f.write_str("cosine"),
            Self::Step { epochs, factor } => write!(f, "step:{epochs}:{factor}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let step = |rest: &str| {
            let (epochs, factor) = rest.split_once(':')?;
            let (epochs, factor) = (epochs.parse().ok()?, factor.parse().ok()?);
            (epochs > 0 && factor > 0.0 && factor <= 1.0).then_some(Self::Step { epochs, factor })
        };
        let schedule = match text {
            "constant" => Some(Self::Constant),
            "cosine" => Some(Self::Cosine),
            _ => text.strip_prefix("step:").and_then(step),
        };
        let expected = "`constant`, `cosine` or `step:EPOCHS:FACTOR` (for instance step:10:0.1)";
        schedule.ok_or_else(|| UnknownName { what: "schedule", expected, found: text.to_owned() })
    }
}

/// Everything that determines a training run, besides the first weights and the data.
///
/// The optimizer is stochastic gradient descent with momentum in PyTorch's form: `v <- momentum v + g + decay w`,
/// `w <- w - rate v`, with decay on weights but not on biases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Learning rate at its full value; above 0.
    pub learning_rate: f64,
    /// From 0 up to, but not including, 1.
    pub momentum: f64,
    /// Factor of the weights' L2 penalty; 0 or more.
    pub weight_decay: f64,
    /// Inputs to one update; at least 1.
    pub batch_size: usize,
    /// Passes over the data; at least 1.
    pub epochs: u32,
    /// How the learning rate changes.
    pub schedule: Schedule,
    /// Epochs, possibly a fraction, over which the learning rate first rises from zero.
    pub warm_up: f64,
    /// Determines the order of the inputs and the augmentation.
    pub seed: u64,
    /// Random changes to every training image.
    pub augmentation: Option<Augmentation>,
    /// Bits of the weights that every layer is trained with in the second half of the epochs, 2 to 24, their sign included:
    /// gradients are then those of the rounded weights. `None` trains on floats.
    #[serde(default)]
    pub weight_bits: Option<u32>,
    /// Other bits for some layers, by name.
    #[serde(default)]
    pub layer_bits: BTreeMap<String, u32>,
    /// Bits of the values that layers read, 2 to 24, where a client encrypts them: in the second half of the epochs they are
    /// rounded, too. `None` leaves them as they are.
    #[serde(default)]
    pub activation_bits: Option<u32>,
    /// Bits of the inputs, 2 to 24, to which they are rounded in the second half of the epochs, too. `None` leaves them as
    /// they are.
    #[serde(default)]
    pub input_bits: Option<u32>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            learning_rate: 0.05,
            momentum: 0.9,
            weight_decay: 1e-4,
            batch_size: 64,
            epochs: 10,
            schedule: Schedule::Cosine,
            warm_up: 0.0,
            seed: 0,
            augmentation: None,
            weight_bits: None,
            layer_bits: BTreeMap::new(),
            activation_bits: None,
            input_bits: None,
        }
    }
}

impl TrainConfig {
    /// The learning rate after `epochs_done` epochs, possibly a fraction.
    pub(crate) fn learning_rate_at(&self, epochs_done: f64) -> f64 {
        let warm_up = if epochs_done < self.warm_up { epochs_done / self.warm_up } else { 1.0 };
        let schedule = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine => 0.5 * (1.0 + (PI * epochs_done / f64::from(self.epochs)).cos()),
            Schedule::Step { epochs, factor } => {
                factor.powi((epochs_done / f64::from(epochs)).floor().min(1e6) as i32)
            }
        };
        self.learning_rate * warm_up * schedule
    }

    /// The first setting that is out of its range, with the range and the value.
    pub(super) fn fault(&self) -> Option<(&'static str, &'static str, f64)> {
        let between = |from: f64, below: f64| move |value: f64| value >= from && value < below;
        let positive = |value: f64| value > 0.0 && value.is_finite();
        let [activation_bits, input_bits] =
            [self.activation_bits, self.input_bits].map(|bits| bits.unwrap_or(2));
        let step = match self.schedule {
            Schedule::Step { epochs, .. } => f64::from(epochs),
            Schedule::Constant | Schedule::Cosine => 1.0,
        };
        [
            ("learning rate", "above 0", self.learning_rate, positive(self.learning_rate)),
            ("momentum", "from 0 to below 1", self.momentum, between(0.0, 1.0)(self.momentum)),
            ("weight decay", "0 or more", self.weight_decay, between(0.0, f64::INFINITY)(self.weight_decay)),
            ("batch size", "at least 1", self.batch_size as f64, self.batch_size > 0),
            ("epochs", "at least 1", f64::from(self.epochs), self.epochs > 0),
            ("epochs of a step", "at least 1", step, step > 0.0),
            ("activation bits", "2 to 24", activation_bits.into(), (2..=24).contains(&activation_bits)),
            ("input bits", "2 to 24", input_bits.into(), (2..=24).contains(&input_bits)),
            ("warm-up", "0 or more", self.warm_up, between(0.0, f64::INFINITY)(self.warm_up)),
        ]
        .into_iter()
        .find_map(|(what, expected, found, legal)| (!legal).then_some((what, expected, found)))
    }
}
