//! Weights as safetensors files, with PyTorch's names and shapes.

use std::{collections::BTreeMap, path::Path};

mod decode;
mod encode;
mod kind;
mod shards;
#[cfg(test)]
mod tests;

use gelu_models::Weights;
use gelu_tensor::Shape;
use safetensors::tensor::TensorView;
use serde::Serialize;

pub use self::kind::FileKind;
use crate::{Error, files};

/// The longest weight file that is read: 1 GiB, far above what can run encrypted.
const MAX_BYTES: u64 = 1 << 30;

/// The element type in which weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dtype {
    /// IEEE half precision: 11 significant bits, up to 65504.
    F16,
    /// The upper half of an `f32`: 8 significant bits.
    BF16,
    /// Exact.
    #[default]
    F32,
    /// Exact, for programs that read nothing else.
    F64,
}

/// One line of a listing: a tensor as it lies in the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorSummary {
    /// PyTorch's name.
    pub name: String,
    /// Element type in the file, for instance `BF16`.
    pub dtype: String,
    /// Extents.
    pub shape: Shape,
    /// Smallest element (0 if there is none).
    pub min: f32,
    /// Largest element (0 if there is none).
    pub max: f32,
    /// Mean of the elements (0 if there is none).
    pub mean: f32,
}

/// A weight file's contents, for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listing {
    /// The tensors, by name.
    pub tensors: Vec<TensorSummary>,
    /// The free text that travels with them.
    pub metadata: BTreeMap<String, String>,
}

/// Weights in files, or in what files hold: with it in scope there are `Weights::read(path)` and
/// `weights.write(path, Dtype::F32)`, and `parse` and `encode` for bytes.
pub trait WeightsFile: Sized {
    /// Reads the weights of a safetensors file, converted to `f32`, with all its metadata. The index of a model in several
    /// files (`model.safetensors.index.json`) stands for all of them.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Kind`] for a file of another kind; whatever [`parse`](Self::parse) finds.
    fn read(path: impl AsRef<Path>) -> Result<Self, Error>;

    /// Writes the weights as a safetensors file, whole or not at all. The same weights give the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Value`] when an element is not finite or beyond the range of `dtype`;
    /// [`Error::Underflow`] when a tensor's numbers are too small for `dtype`; [`Error::Format`] for a tensor with the
    /// reserved name `__metadata__`.
    fn write(&self, path: impl AsRef<Path>, dtype: Dtype) -> Result<(), Error>;

    /// Returns the weights in `bytes`, the contents of a safetensors file; `name` names it in errors.
    ///
    /// # Errors
    /// [`Error::Kind`] for a file of another kind; [`Error::Truncated`], [`Error::Trailing`] and [`Error::TooLarge`] when the
    /// header does not fit the file; [`Error::Format`] when it is malformed; [`Error::Dtype`] for elements other than F16,
    /// BF16, F32 and F64, unless they are integers without dimensions, as counters are; [`Error::Value`] for NaN, infinities,
    /// and F64 elements beyond the range of `f32`.
    fn parse(bytes: &[u8], name: &Path) -> Result<Self, Error>;

    /// Returns the weights as the bytes of a safetensors file; `name` names it in errors. The same weights give the same
    /// bytes.
    ///
    /// # Errors
    /// [`Error::Value`], [`Error::Underflow`] and [`Error::Format`] as [`write`](Self::write).
    fn encode(&self, dtype: Dtype, name: &Path) -> Result<Vec<u8>, Error>;
}

impl WeightsFile for Weights {
    fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        if shards::is_index(path) {
            return shards::read(path);
        }
        Self::parse(&files::read_limited(path, MAX_BYTES)?, path)
    }

    fn write(&self, path: impl AsRef<Path>, dtype: Dtype) -> Result<(), Error> {
        let path = path.as_ref();
        files::write_atomic(path, &self.encode(dtype, path)?)
    }

    fn parse(bytes: &[u8], name: &Path) -> Result<Self, Error> {
        decode::weights(bytes, name)
    }

    fn encode(&self, dtype: Dtype, name: &Path) -> Result<Vec<u8>, Error> {
        encode::weights(self, dtype, name)
    }
}

impl Listing {
    /// Returns what the safetensors file `path` holds, tensor by tensor.
    ///
    /// # Errors
    /// As [`WeightsFile::read`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = files::read_limited(path, MAX_BYTES)?;
        let (file, metadata) = decode::open(&bytes, path)?;
        let mut tensors = file
            .iter()
            .map(|(name, view)| Ok(summary(name, &view, &decode::any_elements(&view, name, path)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { tensors, metadata })
    }
}

fn summary(name: &str, view: &TensorView<'_>, elements: &[f32]) -> TensorSummary {
    let sum: f64 = elements.iter().copied().map(f64::from).sum();
    TensorSummary {
        name: name.to_owned(),
        dtype: view.dtype().to_string(),
        shape: Shape::from(view.shape()),
        min: elements.iter().copied().reduce(f32::min).unwrap_or(0.0),
        max: elements.iter().copied().reduce(f32::max).unwrap_or(0.0),
        mean: (sum / elements.len().max(1) as f64) as f32,
    }
}
