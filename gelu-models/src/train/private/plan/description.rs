//! What both sides of private training must agree on.

use std::sync::Arc;

use gelu_tensor::paillier::{KeyBits, KeyParameters};
use gelu_tensor::{Backend, RingBits};
use serde::{Deserialize, Serialize};

use crate::train::private::PrivateError;
use crate::{Graph, Model};

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

    /// Fractional bits and bound of a value that goes up: of the network's input, or of any other.
    pub(super) fn values(&self, is_input: bool) -> (i32, u64) {
        match is_input {
            true => (self.input_bits as i32 - self.input_range, 1 << self.input_bits),
            false => (self.activation_bits as i32 - self.activation_range, 1 << self.activation_bits),
        }
    }
}

/// All that both sides must agree on: what a plan follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The network, without its weights.
    pub graph: Arc<Graph>,
    /// Inputs to one update.
    pub batch: usize,
    /// The numbers.
    pub numbers: FixedPoint,
    /// Size and type of the clients' keys, which layouts are chosen for.
    pub client_key: KeyParameters,
    /// Size of the server's key.
    pub server_key: KeyBits,
    /// Residues that the server works on at a time.
    pub lanes: usize,
}

impl Description {
    /// Residues that the server is taken to work on at a time: as many as the widest vector has.
    const LANES: usize = Backend::MAX_LANES;

    /// Returns the description of a model, for clients with keys of these parameters and a server with one of this size.
    pub fn new(
        model: &Model,
        batch: usize,
        numbers: FixedPoint,
        client_key: KeyParameters,
        server_key: KeyBits,
    ) -> Self {
        let (graph, lanes) = (model.graph().clone(), Self::LANES);
        Self { graph, batch, numbers, client_key, server_key, lanes }
    }
}
