//! Weights as safetensors files, with PyTorch's names and shapes.

use std::{collections::BTreeMap, path::Path};

use gelu_models::{WeightTensor, Weights};
use gelu_tensor::Shape;
use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, SafeTensors, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};

use crate::{Error, files};

#[cfg(test)]
mod tests;

/// The longest weight file that is read: 1 GiB, far above what can run encrypted.
pub const MAX_BYTES: u64 = 1 << 30;
/// The longest header that is read.
const MAX_HEADER_BYTES: u64 = 1 << 24;
/// The element types that are read, for messages.
const READABLE: &str = "F16, BF16, F32 or F64";

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

/// Weights in files: with it in scope there are `Weights::read(path)` and `weights.write(path, Dtype::F32)`.
pub trait WeightsFile: Sized {
    /// Reads the weights of a safetensors file, converted to `f32`, with calibrated ranges and tuned bits if it has them.
    ///
    /// # Errors
    /// [`Error::Io`]; whatever [`parse_safetensors`] finds.
    fn read(path: impl AsRef<Path>) -> Result<Self, Error>;

    /// Writes the weights as a safetensors file, whole or not at all. The same weights give the same bytes.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Value`] when an element is not finite or beyond the range of `dtype`; [`Error::Format`]
    /// for a tensor with the reserved name `__metadata__`.
    fn write(&self, path: impl AsRef<Path>, dtype: Dtype) -> Result<(), Error>;
}

impl WeightsFile for Weights {
    fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        parse_safetensors(&files::read_limited(path, MAX_BYTES)?, path)
    }

    fn write(&self, path: impl AsRef<Path>, dtype: Dtype) -> Result<(), Error> {
        let path = path.as_ref();
        files::write_atomic(path, &encode(self, dtype, path)?)
    }
}

/// The weights in `bytes`, the contents of a safetensors file; `name` names it in errors.
///
/// # Errors
/// [`Error::Truncated`], [`Error::Trailing`] and [`Error::TooLarge`] when the header does not fit the file;
/// [`Error::Format`] when it is malformed; [`Error::Dtype`] for elements other than F16, BF16, F32 and F64;
/// [`Error::Value`] for NaN, infinities, and F64 elements beyond the range of `f32`.
pub fn parse_safetensors(bytes: &[u8], name: &Path) -> Result<Weights, Error> {
    let (file, metadata) = open(bytes, name)?;
    let mut tensors = BTreeMap::new();
    for (tensor, view) in file.iter() {
        let data = elements(&view, tensor, name)?;
        let tensor_data = WeightTensor::new(Shape::from(view.shape()), data).map_err(|error| {
            Error::format(name, format!("a well-formed tensor `{tensor}`"), error.to_string())
        })?;
        tensors.insert(tensor.to_owned(), tensor_data);
    }
    Ok(Weights { tensors, metadata })
}

/// What the safetensors file `path` holds, tensor by tensor.
///
/// # Errors
/// As [`WeightsFile::read`].
pub fn list_safetensors(path: &Path) -> Result<Listing, Error> {
    let bytes = files::read_limited(path, MAX_BYTES)?;
    let (file, metadata) = open(&bytes, path)?;
    let mut tensors = file
        .iter()
        .map(|(name, view)| Ok(summary(name, &view, &elements(&view, name, path)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing { tensors, metadata })
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

/// The header of a safetensors file, in the order in which it is written.
#[derive(Serialize, Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, TensorInfo>,
}

/// Checks the header against the file's length, then opens it.
///
/// The safetensors crate adds up offsets without looking at the length first, and its errors do not tell a
/// truncated file from a malformed one.
fn open<'a>(bytes: &'a [u8], name: &Path) -> Result<(SafeTensors<'a>, BTreeMap<String, String>), Error> {
    let found = bytes.len() as u64;
    let truncated = |expected| Error::Truncated { path: name.to_owned(), expected, found };
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or(truncated(8))?;
    let header_length = u64::from_le_bytes(*length);
    if header_length > MAX_HEADER_BYTES {
        return Err(Error::TooLarge {
            path: name.to_owned(),
            what: "length of the safetensors header in bytes",
            limit: MAX_HEADER_BYTES,
            found: header_length,
        });
    }
    let header = rest.get(..header_length as usize).ok_or(truncated(8 + header_length))?;
    let header: Header = serde_json::from_slice(header)
        .map_err(|error| Error::format(name, "a safetensors header in JSON", error.to_string()))?;
    let data_length = header.tensors.values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    let expected = data_length.saturating_add(8 + header_length);
    if found < expected {
        return Err(truncated(expected));
    }
    if found > expected {
        return Err(Error::Trailing { path: name.to_owned(), expected });
    }
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| Error::format(name, "a well-formed safetensors file", error.to_string()))?;
    Ok((file, header.metadata))
}

/// A tensor's elements as finite `f32`.
fn elements(view: &TensorView<'_>, tensor: &str, name: &Path) -> Result<Vec<f32>, Error> {
    let data = view.data();
    let elements: Vec<f32> = match view.dtype() {
        FileDtype::F16 => convert(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        FileDtype::BF16 => convert(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        FileDtype::F32 => convert(data, f32::from_le_bytes),
        FileDtype::F64 => {
            let wide: Vec<f64> = convert(data, f64::from_le_bytes);
            check(&wide, "a number in the range of f32", tensor, name, |x| (x as f32).is_finite())?;
            wide.into_iter().map(|x| x as f32).collect()
        }
        other => {
            return Err(Error::Dtype {
                path: name.to_owned(),
                tensor: tensor.to_owned(),
                expected: READABLE,
                found: other.to_string(),
            });
        }
    };
    check(&elements, "a finite number", tensor, name, f32::is_finite)?;
    Ok(elements)
}

fn convert<const BYTES: usize, T>(data: &[u8], from_le_bytes: impl Fn([u8; BYTES]) -> T) -> Vec<T> {
    data.as_chunks::<BYTES>().0.iter().map(|bytes| from_le_bytes(*bytes)).collect()
}

/// Fails on the first element that is not `good`.
fn check<T: Copy + Into<f64>>(
    elements: &[T],
    expected: &'static str,
    tensor: &str,
    name: &Path,
    good: impl Fn(T) -> bool,
) -> Result<(), Error> {
    match elements.iter().position(|&x| !good(x)) {
        None => Ok(()),
        Some(index) => Err(Error::Value {
            path: name.to_owned(),
            tensor: tensor.to_owned(),
            index,
            expected,
            found: elements[index].into(),
        }),
    }
}

/// The bytes of a safetensors file.
fn encode(weights: &Weights, dtype: Dtype, name: &Path) -> Result<Vec<u8>, Error> {
    let mut header = Header { metadata: weights.metadata.clone(), tensors: BTreeMap::new() };
    let mut data = Vec::new();
    for (tensor, weight) in &weights.tensors {
        if tensor == "__metadata__" {
            return Err(Error::format(
                name,
                "a tensor with a name of its own",
                "the reserved name __metadata__",
            ));
        }
        let start = data.len();
        let elements = weight.data();
        check(elements, "a finite number in the range of the file's type", tensor, name, |x| match dtype {
            Dtype::F16 => f16::from_f32(x).is_finite(),
            Dtype::BF16 => bf16::from_f32(x).is_finite(),
            Dtype::F32 | Dtype::F64 => x.is_finite(),
        })?;
        let dtype = match dtype {
            Dtype::F16 => {
                data.extend(elements.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()));
                FileDtype::F16
            }
            Dtype::BF16 => {
                data.extend(elements.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()));
                FileDtype::BF16
            }
            Dtype::F32 => {
                data.extend(elements.iter().flat_map(|x| x.to_le_bytes()));
                FileDtype::F32
            }
            Dtype::F64 => {
                data.extend(elements.iter().flat_map(|&x| f64::from(x).to_le_bytes()));
                FileDtype::F64
            }
        };
        let info =
            TensorInfo { dtype, shape: weight.shape().dims().to_vec(), data_offsets: (start, data.len()) };
        header.tensors.insert(tensor.clone(), info);
    }
    let mut json = serde_json::to_vec(&header)
        .map_err(|error| Error::format(name, "weights that can be written", error.to_string()))?;
    // Spaces up to a multiple of 8, so that readers can map the data in place.
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut json);
    bytes.append(&mut data);
    Ok(bytes)
}
