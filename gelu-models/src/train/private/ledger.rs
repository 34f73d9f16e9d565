//! What clients see of the weights, counted in linear equations.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{PrivateError, TrainPlan};

/// How many iterations a client may run in one go, given what they show it of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leakage {
    /// The paper's bound (section 4.1): fewer iterations than a layer has inputs, plus 2. It counts one equation for
    /// each neuron and iteration, whatever the batch.
    #[default]
    Paper,
    /// Fewer equations than unknowns, counting every image and position, forward and backward.
    Strict,
    /// No bound.
    Off,
}

impl fmt::Display for Leakage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Paper => "paper",
            Self::Strict => "strict",
            Self::Off => "off",
        })
    }
}

impl FromStr for Leakage {
    type Err = PrivateError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Paper, Self::Strict, Self::Off]
            .into_iter()
            .find(|policy| policy.to_string() == name)
            .ok_or_else(|| PrivateError::Setting {
                what: "leakage policy",
                expected: "paper, strict or off".to_owned(),
                found: name.to_owned(),
            })
    }
}

/// What one iteration shows of one layer.
///
/// A forward pass shows every row of weights in one equation for each image and position. A backward pass shows the
/// weights of every input channel (for a dense layer: every input) in one equation for each image and element of that
/// channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerLeakage {
    /// The layer.
    pub layer: String,
    /// Equations that one iteration shows of each row.
    pub forward: u64,
    /// Weights of a row, and its bias.
    pub forward_unknowns: u64,
    /// Equations that one iteration shows of each input channel; zero where no errors go back.
    pub backward: u64,
    /// Weights of an input channel.
    pub backward_unknowns: u64,
}

impl LayerLeakage {
    /// Returns what an iteration of a plan shows, layer by layer.
    pub fn of(plan: &TrainPlan) -> Vec<Self> {
        let batch = plan.batch() as u64;
        let layers = plan.segments().iter().flat_map(|segment| &segment.terms).map(|term| {
            let (layer, map) = (&term.layer, &term.map);
            // Of a convolution [filters, channels / groups, height, width]; a dense layer's inputs are its channels.
            let own = layer.shape.dims().get(1).copied().unwrap_or(1).max(1);
            // Input channels of all groups, each weighed by the filters of its own.
            let channels = own * map.blocks().len();
            let elements = if term.back.is_some() { map.input().elements().div_ceil(channels) } else { 0 };
            let positions = map.output().elements() / layer.rows;
            let biases = layer.biases.len().div_ceil(layer.rows) as u64;
            Self {
                layer: layer.name.clone(),
                forward: batch * positions as u64,
                forward_unknowns: layer.taps() as u64 + biases,
                backward: batch * elements as u64,
                backward_unknowns: (layer.weights.len() / channels) as u64,
            }
        });
        layers.collect()
    }

    /// Returns the most iterations that leave fewer equations than unknowns.
    pub fn strict_iterations(&self) -> u32 {
        let below = |unknowns: u64, equations: u64| match equations {
            0 => u64::MAX,
            _ => unknowns.saturating_sub(1) / equations,
        };
        let most =
            below(self.forward_unknowns, self.forward).min(below(self.backward_unknowns, self.backward));
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    /// Returns whether so many iterations show as many equations as there are unknowns, so that a client could solve
    /// for the layer.
    pub fn is_solvable_after(&self, iterations: u32) -> bool {
        iterations > self.strict_iterations()
    }

    /// The equations and unknowns of whichever pass is solved first.
    pub(super) fn worst(&self, iterations: u32) -> (u64, u64) {
        let iterations = u64::from(iterations);
        let backward = self.backward > 0
            && self.backward * self.forward_unknowns > self.forward * self.backward_unknowns;
        match backward {
            true => (iterations * self.backward, self.backward_unknowns),
            false => (iterations * self.forward, self.forward_unknowns),
        }
    }
}

/// What each client has seen: one entry for each client and layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The entries, client by client, layer by layer.
    pub entries: Vec<LedgerEntry>,
}

/// What one client has seen of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// The client.
    pub client: u32,
    /// The layer.
    pub layer: String,
    /// Turns in which it saw any.
    pub turns: u64,
    /// The most iterations of one turn.
    pub most_iterations: u32,
    /// The most forward equations of one row in one turn, and its unknowns.
    pub forward: [u64; 2],
    /// The most backward equations of one input channel in one turn, and its unknowns.
    pub backward: [u64; 2],
    /// Whether one turn was enough to solve for the layer's weights.
    pub solvable: bool,
}

impl Ledger {
    /// Whether every entry is of one of these layers, with that layer's unknowns, and no client and layer has two.
    pub(super) fn is_of(&self, layers: &[LayerLeakage]) -> bool {
        let mut seen = BTreeSet::new();
        self.entries.iter().all(|entry| {
            let layer = layers.iter().find(|layer| layer.layer == entry.layer);
            layer.is_some_and(|layer| {
                [entry.forward[1], entry.backward[1]] == [layer.forward_unknowns, layer.backward_unknowns]
            }) && seen.insert((entry.client, &entry.layer))
        })
    }

    /// Takes note of iterations that a client has run in one turn.
    pub(super) fn note(&mut self, client: u32, iterations: u32, layers: &[LayerLeakage]) {
        for layer in layers {
            let at =
                self.entries.iter().position(|entry| entry.client == client && entry.layer == layer.layer);
            let at = at.unwrap_or_else(|| {
                self.entries.push(LedgerEntry {
                    client,
                    layer: layer.layer.clone(),
                    turns: 0,
                    most_iterations: 0,
                    forward: [0, layer.forward_unknowns],
                    backward: [0, layer.backward_unknowns],
                    solvable: false,
                });
                self.entries.len() - 1
            });
            let (entry, times) = (&mut self.entries[at], u64::from(iterations));
            entry.turns = entry.turns.saturating_add(1);
            entry.most_iterations = entry.most_iterations.max(iterations);
            entry.forward[0] = entry.forward[0].max(times.saturating_mul(layer.forward));
            entry.backward[0] = entry.backward[0].max(times.saturating_mul(layer.backward));
            entry.solvable |= layer.is_solvable_after(iterations);
        }
    }
}
