//! The parts of the report: one file or folder each.

mod beyond;
mod dense;
mod fig3;
mod inference;
mod private;
mod reconstruction;
mod table1;
mod table2;
mod table3;
mod table4;
mod table5;

use std::path::PathBuf;

use gelu_io::data::{DataDir, KnownSet};
use gelu_tensor::Backend;
use gelu_tensor::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use serde::{Deserialize, Serialize};

use crate::gelu::Gelu;
use crate::output::note;
use crate::results::Findings;

/// A table or figure of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// Time of one activation: square and 5th-order Taylor under BFV, and ours.
    Table1,
    /// How an iteration of training grows with the network.
    Table2,
    /// Accuracy of networks of one hidden layer: ours, and with squares and Taylor polynomials.
    Table3,
    /// Time and accuracy of Conv-1 and LeNet-5: CryptoNets' way, and ours.
    Table4,
    /// Time of an inference between machines in different places.
    Table5,
    /// What a server computes of training images from gradients.
    Fig1,
    /// What it computes when they are masked.
    Fig2,
    /// How stably networks train with squares, Taylor polynomials and exact activations.
    Fig3,
    /// What the paper does not report: private training of LeNet-5, and what others publish.
    Beyond,
}

impl Part {
    /// All parts, in the report's order.
    pub(crate) const ALL: [Self; 9] = [
        Self::Table1,
        Self::Table2,
        Self::Table3,
        Self::Table4,
        Self::Table5,
        Self::Fig1,
        Self::Fig2,
        Self::Fig3,
        Self::Beyond,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Table1 => "table1",
            Self::Table2 => "table2",
            Self::Table3 => "table3",
            Self::Table4 => "table4",
            Self::Table5 => "table5",
            Self::Fig1 => "fig1",
            Self::Fig2 => "fig2",
            Self::Fig3 => "fig3",
            Self::Beyond => "beyond",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Table1 => "Table 1: time of one activation",
            Self::Table2 => "Table 2: complexity of an iteration of training",
            Self::Table3 => "Table 3: accuracy of networks of one hidden layer",
            Self::Table5 => "Table 5: time of an inference in different environments",
            Self::Fig1 => "Fig. 1: training images from gradients",
            Self::Fig2 => "Fig. 2: training images from masked gradients",
            Self::Fig3 => "Fig. 3: stability of training",
            Self::Beyond => "Beyond the paper: LeNet-5 trained privately, and what others publish",
            Self::Table4 => "Table 4: time and accuracy of Conv-1 and LeNet-5",
        }
    }

    /// The known data sets that it uses where they are there.
    pub(crate) fn data_sets(self) -> &'static [&'static str] {
        match self {
            Self::Table1 | Self::Table2 | Self::Table5 => &[],
            Self::Table3 | Self::Fig3 => &["iris", "diabetes", "kr-vs-kp", "mnist"],
            Self::Table4 | Self::Fig1 | Self::Fig2 | Self::Beyond => &["mnist"],
        }
    }

    /// Measures everything that the part tells.
    pub(crate) fn run(self, setting: &Setting) -> anyhow::Result<Findings> {
        match self {
            Self::Table1 => table1::run(setting),
            Self::Table2 => table2::run(setting),
            Self::Table3 => table3::run(setting),
            Self::Table4 => table4::run(setting),
            Self::Table5 => table5::run(setting),
            Self::Fig1 | Self::Fig2 => reconstruction::run(setting, self),
            Self::Fig3 => fig3::run(setting),
            Self::Beyond => beyond::run(setting),
        }
    }
}

/// The keys that ours is measured with: the paper states no size, and nothing but that they are Paillier's.
const KEYS: [(&str, KeyParameters); 4] = [
    ("DJN key", KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Djn }),
    ("subgroup key", SUBGROUP_2048),
    ("DJN key of 3072 bits", KeyParameters { size: KeyBits::Bits3072, key_type: KeyType::Djn }),
    ("subgroup key of 3072 bits", KeyParameters { size: KeyBits::Bits3072, key_type: KeyType::Subgroup }),
];

const SUBGROUP_2048: KeyParameters = KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Subgroup };

/// What is said of these keys.
const KEYS_NOTE: &str = "Keys have 2048 bits (112 bits of security) where nothing else is said, and 3072 (128 bits) beside them: DJN \
     keys are those of Damgård, Jurik and Nielsen, subgroup keys those of Ma, Han and Lei, on a further assumption. The paper does \
     not state the size of its keys.";

/// What parts are run with.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) quick: bool,
    /// The folder of the report.
    pub(crate) out: PathBuf,
    pub(crate) data: DataDir,
    pub(crate) gelu: Gelu,
    /// The arithmetic of ours.
    pub(crate) backend: Backend,
}

impl Setting {
    /// The command that makes a part, as it is quoted.
    pub(crate) fn command(&self, part: Part) -> String {
        format!("gelu paper {}{}", part.name(), if self.quick { " --quick" } else { "" })
    }

    /// A new key, for the arithmetic of ours.
    pub(crate) fn key(&self, parameters: KeyParameters) -> anyhow::Result<SecretKey> {
        Ok(SecretKey::generate(parameters, &mut rand::rng())?.on(self.backend)?)
    }

    /// Whether a known data set is there.
    pub(crate) fn has(&self, data_set: &str) -> bool {
        KnownSet::by_name(data_set).is_some_and(|known| self.data.find(known).is_ok())
    }

    /// Says on standard error where a part is.
    pub(crate) fn progress(&self, part: Part, text: &str) {
        note(&format!("{}: {text}", part.name()));
    }
}

/// The median of measurements.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n.is_multiple_of(2) => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_called_what_files_and_options_call_them() {
        for part in Part::ALL {
            assert_eq!(serde_json::to_value(part).unwrap(), part.name());
            assert!(part.data_sets().iter().all(|name| KnownSet::by_name(name).is_some()));
        }
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(vec![]).is_nan());
    }
}
