use gelu_layers::{Activation, AffineForm};
use gelu_tensor::paillier::KeyBits;
use gelu_tensor::{RingBits, Shape, Window};
use serde::{Deserialize, Serialize};

use crate::train::private::PrivateError;
use crate::{Model, Node};

/// The fixed-point numbers of a run. A real x is the integer `round(x 2^f)`; ranges are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedPoint {
    /// The ring of masked weights and of all sums.
    pub ring: RingBits,
    /// Fractional bits of weights and biases, 8 to 40.
    pub weight_bits: u32,
    /// Bits of an input's absolute value, 1 to 16.
    pub input_bits: u32,
    /// log2 of the largest input, -8 to 16.
    pub input_range: i32,
    /// Bits of an activation's absolute value, 1 to 20.
    pub activation_bits: u32,
    /// log2 of the largest activation, -8 to 16.
    pub activation_range: i32,
    /// Fractional bits of an error that goes back through the network; errors are at most 1 in absolute value. 1 to 20.
    pub error_bits: u32,
    /// Bits of the statistical distance to which multiples of 2^l hide what lies above the ring, 0 to 40.
    pub flood_bits: u32,
}

impl Default for FixedPoint {
    fn default() -> Self {
        Self {
            ring: RingBits::default(),
            weight_bits: 18,
            input_bits: 8,
            input_range: 0,
            activation_bits: 12,
            activation_range: 4,
            error_bits: 12,
            flood_bits: 40,
        }
    }
}

impl FixedPoint {
    pub(super) fn check(&self) -> Result<(), PrivateError> {
        let within = |what, (least, most): (i64, i64), found: i64| {
            if (least..=most).contains(&found) {
                return Ok(());
            }
            let expected = format!("{least} to {most}");
            Err(PrivateError::Setting { what, expected, found: found.to_string() })
        };
        within("fractional bits of weights", (8, 40), self.weight_bits.into())?;
        within("bits of inputs", (1, 16), self.input_bits.into())?;
        within("log2 of the range of inputs", (-8, 16), self.input_range.into())?;
        within("bits of activations", (1, 20), self.activation_bits.into())?;
        within("log2 of the range of activations", (-8, 16), self.activation_range.into())?;
        within("bits of errors", (1, 20), self.error_bits.into())?;
        within("bits of flooding", (0, 40), self.flood_bits.into())
    }
}

/// One step of a network, without its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeDescription {
    /// A convolution.
    Convolution {
        /// The layer's name.
        name: String,
        /// Output channels.
        kernels: usize,
        /// The window.
        window: Window,
    },
    /// Mean pooling.
    Pooling {
        /// The layer's name.
        name: String,
        /// The window.
        window: Window,
    },
    /// A fully connected layer.
    Dense {
        /// The layer's name.
        name: String,
        /// Length of its output.
        outputs: usize,
    },
    /// Images as vectors.
    Flatten,
    /// A nonlinear step.
    Activation(Activation),
}

/// All that both sides must agree on: what a plan follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Shape of one input.
    pub input: Shape,
    /// The network.
    pub nodes: Vec<NodeDescription>,
    /// Inputs to one update.
    pub batch: usize,
    /// The numbers.
    pub numbers: FixedPoint,
    /// Size of the clients' keys.
    pub client_key: KeyBits,
    /// Size of the server's key.
    pub server_key: KeyBits,
}

impl Description {
    /// That of a model.
    ///
    /// # Errors
    /// [`PrivateError::Model`] when a layer is none of those that can be trained.
    pub fn new(
        model: &Model,
        batch: usize,
        numbers: FixedPoint,
        [client_key, server_key]: [KeyBits; 2],
    ) -> Result<Self, PrivateError> {
        let node = |node: &Node| match node {
            Node::Activation(activation) => NodeDescription::Activation(*activation),
            Node::Linear { name, layer } => {
                let (name, rows) = (name.clone(), layer.parameters().map_or(0, |p| p.weight.nrows()));
                match layer.affine().form() {
                    AffineForm::Convolution(window) => {
                        NodeDescription::Convolution { name, kernels: rows, window }
                    }
                    AffineForm::Pooling(window) => NodeDescription::Pooling { name, window },
                    AffineForm::Dense => NodeDescription::Dense { name, outputs: rows },
                    AffineForm::Reshape => NodeDescription::Flatten,
                }
            }
        };
        let nodes = model.nodes().iter().map(node).collect();
        Ok(Self { input: model.input_shape().clone(), nodes, batch, numbers, client_key, server_key })
    }
}
