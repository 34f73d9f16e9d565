//! What both sides of private training must agree on.

use std::sync::Arc;

use gelu_tensor::paillier::{KeyBits, KeyParameters};
use gelu_tensor::{Backend, Contents, Error, Format, Shape};
use serde::{Deserialize, Serialize};

use crate::plan::{Deployment, Output, Preference};
use crate::train::private::PrivateError;
use crate::train::private::coordinator::{MOST_RATE, RATE_BITS};
use crate::{Graph, Model};

/// The fixed-point numbers of a run. A real x is the integer `round(x 2^f)`; ranges are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedPoint {
    /// Bits of a weighted sum, with its sign, 24 to 56.
    pub sum_bits: u32,
    /// Fractional bits of weights and biases, 8 to 22.
    pub weight_bits: u32,
    /// Fractional bits that weights and biases are rounded to where ciphertexts are multiplied with them, 4 to `weight_bits`.
    /// They are rounded anew at the beginning of every turn; steps are not.
    pub product_bits: u32,
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
}

impl Default for FixedPoint {
    fn default() -> Self {
        Self {
            sum_bits: 32,
            weight_bits: 18,
            product_bits: 10,
            input_bits: 8,
            input_range: 0,
            activation_bits: 12,
            activation_range: 4,
            error_bits: 12,
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
        within("bits of sums", (24, 56), self.sum_bits.into())?;
        within("fractional bits of weights", (8, 22), self.weight_bits.into())?;
        within(
            "fractional bits of weights in products",
            (4, self.weight_bits.into()),
            self.product_bits.into(),
        )?;
        within("bits of inputs", (1, 16), self.input_bits.into())?;
        within("log2 of the range of inputs", (-8, 16), self.input_range.into())?;
        within("bits of activations", (1, 20), self.activation_bits.into())?;
        within("log2 of the range of activations", (-8, 16), self.activation_range.into())?;
        within("bits of errors", (1, 20), self.error_bits.into())
    }

    /// The largest absolute value of a sum.
    pub(crate) fn largest_sum(&self) -> u64 {
        (1 << (self.sum_bits - 1)) - 1
    }

    /// The bits of weights that plans expect: up to 2 in absolute value, as almost all are.
    pub(super) fn expected_bits(&self) -> u32 {
        self.product_bits + 2
    }

    /// A number of weights' fractional bits, rounded to those that products have.
    pub(super) fn round(&self, number: i64) -> i64 {
        let unused = self.weight_bits - self.product_bits;
        // Half a unit is added without leaving 64 bits.
        if unused == 0 { number } else { ((number >> (unused - 1)) + 1) >> 1 }
    }

    /// Errors that go back.
    pub(super) fn errors(&self) -> Result<Contents, Error> {
        Ok(Contents::Integers(Format::integers(1 << self.error_bits)?))
    }

    /// What an exchange gives: sums of so many terms, or products, of this shape.
    pub(super) fn output<'a>(&self, shape: &'a Shape, terms: usize) -> Result<Output<'a>, Error> {
        // Sums are within their bits. That of each term's product, whose rows are stated to sum to an eighth more at most, of
        // the biases and of the corrections is known of each of them alone.
        let eighths = (terms as u64).saturating_mul(9).saturating_add(16);
        let format = Format::integers(self.largest_sum().div_ceil(8).saturating_mul(eighths))?;
        Ok(Output { shape, contents: Contents::Integers(format), correction: Some(RATE_BITS) })
    }

    /// Corrections: as large as keeps what they change within the bits of a sum at any rate.
    pub(in crate::train::private) fn corrections(&self) -> Result<Format, Error> {
        Format::integers(self.largest_sum() / MOST_RATE)
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

    /// What layouts are chosen for.
    pub(super) fn deployment(&self) -> Deployment {
        let Self { client_key: key, lanes, batch, .. } = *self;
        Deployment { key, lanes, batch, prefer: Preference::default() }
    }
}
