//! How a model is run on ciphertexts: cut at each nonlinear node into segments, each one integer matrix for the
//! server and one step for the client.
//!
//! A [`Plan`] is public: it holds shapes, scales, bounds and slot layouts, and follows from the architecture, the
//! declared bits and ranges, and the power of two above each layer's largest weight. A [`Program`] is the server's:
//! the plan with the weights.

mod compile;
mod cost;
mod error_bound;
mod options;
#[cfg(test)]
mod tests;

use gelu_layers::{Activation, AffineForm, LinearRange};
use gelu_tensor::arith::Operations;
use gelu_tensor::paillier::KeyBits;
use gelu_tensor::{Arrangement, EncTensorHeader, Error, FixedTensor, Format, Shape, SlotLayout, Strategy};
use serde::{Deserialize, Serialize};

pub use compile::Program;
use compile::magnitude;
pub use options::{PlanError, PlanOptions};

/// The public part of a run: what client and server agree on before the first ciphertext.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Size of the client's key.
    pub key: KeyBits,
    /// Images that go through together.
    pub batch: usize,
    /// Shape of one input image.
    pub input: Shape,
    /// Activations that the client applies before the first segment (none in most models).
    pub prologue: Vec<Activation>,
    /// The segments, in order; at least one.
    pub segments: Vec<Segment>,
}

/// A linear chain that the server computes as one integer matrix, and the step that the client does after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Names of its layers, joined by `+`; flattening is not among them.
    pub name: String,
    /// What kind of matrix it is.
    pub form: AffineForm,
    /// What is public of the matrix.
    pub range: LinearRange,
    /// Shape of one input image.
    pub input: Shape,
    /// Shape of one output image.
    pub output: Shape,
    /// Scale and bound of the values that go up.
    pub input_format: Format,
    /// Scale and bound of the sums that come down.
    pub output_format: Format,
    /// Slots of the ciphertexts that go up.
    pub up: SlotLayout,
    /// Slots of the ciphertexts that come down.
    pub down: SlotLayout,
    /// Shape of the tensor that comes down: an image, where slots are its positions.
    pub down_shape: Shape,
    /// How the server multiplies; `None` where there is no product.
    pub strategy: Option<Strategy>,
    /// Operations mod n^2 of the server: product, repacking, re-randomisation.
    pub operations: Operations,
    /// What the client does with the sums.
    pub activations: Vec<Activation>,
}

/// Ciphertexts of one tensor that a plan from outside may ask for.
const MAX_CIPHERTEXTS: usize = 1 << 20;

impl Segment {
    /// Whether the client sends every channel as an image of its own (pooling by im2col).
    pub fn splits_channels(&self) -> bool {
        matches!((self.form, self.up.arrangement), (AffineForm::Pooling(_), Arrangement::Patches(_)))
    }

    /// The header of the tensor that goes up for `batch` images.
    pub fn up_header(&self, batch: usize) -> EncTensorHeader {
        let (shape, batch) = split(&self.input, batch, self.splits_channels());
        EncTensorHeader { shape, batch, format: self.input_format, layout: self.up }
    }

    /// The header of the tensor that comes down for `batch` images.
    pub fn down_header(&self, batch: usize) -> EncTensorHeader {
        let (_, batch) = split(&self.input, batch, self.splits_channels());
        EncTensorHeader {
            shape: self.down_shape.clone(),
            batch,
            format: self.output_format,
            layout: self.down,
        }
    }

    /// Ciphertexts that go up for `batch` images.
    pub fn ciphertexts_up(&self, batch: usize) -> usize {
        let header = self.up_header(batch);
        header.layout.ciphertexts(header.batch, &header.shape)
    }

    /// Ciphertexts that come down for `batch` images.
    pub fn ciphertexts_down(&self, batch: usize) -> usize {
        let header = self.down_header(batch);
        header.layout.ciphertexts(header.batch, &header.shape)
    }

    /// Images of the tensor that goes up which the server works on at a time, so that a session's work is done in units
    /// of bounded size: as few as share no ciphertext with others, or as many as take a few milliseconds.
    pub(crate) fn images_at_a_time(&self, batch: usize) -> usize {
        const OPERATIONS: u64 = 1 << 14;
        let (images, apart) = (self.up_header(batch).batch, self.images_apart());
        let runs = images.div_ceil(apart) as u64;
        let together = OPERATIONS.saturating_mul(runs) / self.operations.total().max(1);
        apart.saturating_mul(together.max(1) as usize).min(images)
    }

    /// Ciphertexts of sums that can follow from the first `sent` ciphertexts that go up.
    pub(crate) fn sums_after(&self, sent: usize, batch: usize) -> usize {
        if sent >= self.ciphertexts_up(batch) {
            return self.ciphertexts_down(batch);
        }
        let (up, down, apart) = (self.up_header(batch), self.down_header(batch), self.images_apart());
        let images = sent / up.layout.ciphertexts(apart, &up.shape).max(1) * apart;
        if images == 0 { 0 } else { down.layout.ciphertexts(images.min(down.batch), &down.shape) }
    }

    /// The fewest images that share no ciphertext with others, neither on the way up nor down, where units keep their
    /// width and are stacked.
    fn images_apart(&self) -> usize {
        self.up.images_apart().saturating_mul(self.down.stacked)
    }

    /// Brings values into the shape in which they are encrypted.
    ///
    /// # Errors
    /// [`Error::Count`] when they are not images of the segment's input.
    pub fn arrange(&self, values: FixedTensor) -> Result<FixedTensor, Error> {
        let values = values.reshape(self.input.clone())?;
        if self.splits_channels() { values.split_channels() } else { Ok(values) }
    }
}

fn split(shape: &Shape, batch: usize, channels: bool) -> (Shape, usize) {
    match (channels, shape.dims()) {
        (true, &[channels, height, width]) => {
            (Shape::from([1, height, width]), batch.saturating_mul(channels))
        }
        _ => (shape.clone(), batch),
    }
}

impl Plan {
    /// Shape of the outputs of one image.
    pub fn output(&self) -> Option<&Shape> {
        self.segments.last().map(|segment| &segment.output)
    }

    /// Checks a plan from outside against the key and the batch it was asked for, so that following it cannot
    /// overflow, however it was made.
    ///
    /// # Errors
    /// [`PlanError`] that says what does not fit.
    pub fn check(&self, key: KeyBits, batch: usize) -> Result<(), PlanError> {
        if self.key != key {
            return Err(PlanError::Key { expected: key.bits(), found: self.key.bits() });
        }
        if self.batch != batch {
            return Err(PlanError::Batch { expected: batch, found: self.batch });
        }
        let mut elements = self.input.elements();
        if self.segments.is_empty() {
            return Err(PlanError::Empty);
        }
        for segment in &self.segments {
            let bad = |rule| PlanError::Segment { name: segment.name.clone(), rule };
            let in_segment = |source| PlanError::Numbers { name: segment.name.clone(), source };
            if segment.input.elements() != elements {
                return Err(bad("its input must be the output of the segment before"));
            }
            elements = segment.output.elements();
            let formats = segment.range.output_format(segment.input_format).map_err(in_segment)?;
            if formats != segment.output_format {
                return Err(bad("its output format must follow from its input format and weights"));
            }
            for (header, slots) in [
                (segment.up_header(batch), segment.input_format.slot_bits()),
                (segment.down_header(batch), segment.output_format.slot_bits()),
            ] {
                header.layout.check(key, &header.shape).map_err(in_segment)?;
                let values = header.shape.elements().saturating_mul(header.batch);
                if values == 0 || values > MAX_CIPHERTEXTS * key.slot_capacity_bits() {
                    return Err(bad("its tensors must have a sensible number of values"));
                }
                if header.layout.ciphertexts(header.batch, &header.shape) > MAX_CIPHERTEXTS {
                    return Err(bad("its tensors must have at most 2^20 ciphertexts"));
                }
                if slots > header.layout.slot_bits {
                    return Err(bad("its slots must hold its values"));
                }
            }
            let down = segment.down_header(batch);
            let output = segment.output.elements().saturating_mul(batch);
            if down.shape.elements().saturating_mul(down.batch) != output {
                return Err(bad("what comes down must be its output"));
            }
            if matches!(segment.down.arrangement, Arrangement::Patches(_)) {
                return Err(bad("what comes down must not be im2col"));
            }
        }
        let softmax_before_end = self
            .prologue
            .iter()
            .chain(self.segments.iter().rev().skip(1).flat_map(|segment| &segment.activations))
            .any(|activation| *activation == Activation::Softmax);
        if softmax_before_end {
            return Err(PlanError::Softmax);
        }
        Ok(())
    }
}
