//! Reading safetensors files.

use std::{collections::BTreeMap, path::Path};

use gelu_models::{WeightTensor, Weights};
use gelu_tensor::Shape;
use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, SafeTensors, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};

use super::kind::FileKind;
use crate::Error;

/// The longest header that is read.
const MAX_HEADER_BYTES: u64 = 1 << 24;
/// The element types that are read, for messages.
const READABLE: &str = "F16, BF16, F32 or F64";

/// The weights in the contents of a safetensors file.
pub(super) fn weights(bytes: &[u8], name: &Path) -> Result<Weights, Error> {
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

/// The header of a safetensors file, in the order in which it is written.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    #[serde(rename = "__metadata__", default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

/// Checks the header against the file's length, then opens it.
///
/// The safetensors crate adds up offsets without looking at the length first, and its errors do not tell a
/// truncated file from a malformed one.
pub(super) fn open<'a>(
    bytes: &'a [u8],
    name: &Path,
) -> Result<(SafeTensors<'a>, BTreeMap<String, String>), Error> {
    if let Some(found) = FileKind::of(bytes, name) {
        return Err(Error::Kind { path: name.to_owned(), expected: "a safetensors file", found });
    }
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
    let mut header: Header = serde_json::from_slice(header)
        .map_err(|error| Error::format(name, "a safetensors header in JSON", error.to_string()))?;
    let data_length = header.tensors.values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    let expected = data_length.saturating_add(8 + header_length);
    if found < expected {
        return Err(truncated(expected));
    }
    if found > expected {
        return Err(Error::Trailing { path: name.to_owned(), expected });
    }
    let malformed = |error: String| Error::format(name, "a well-formed safetensors file", error);
    let file = SafeTensors::deserialize(bytes).map_err(|error| malformed(error.to_string()))?;
    Ok((file, header.metadata.take().unwrap_or_default()))
}

/// A tensor's elements as finite `f32`, whatever their type.
pub(super) fn any_elements(view: &TensorView<'_>, tensor: &str, name: &Path) -> Result<Vec<f32>, Error> {
    let data = view.data();
    Ok(match view.dtype() {
        FileDtype::BOOL | FileDtype::U8 => convert(data, |bytes| f32::from(u8::from_le_bytes(bytes))),
        FileDtype::I8 => convert(data, |bytes| f32::from(i8::from_le_bytes(bytes))),
        FileDtype::U16 => convert(data, |bytes| f32::from(u16::from_le_bytes(bytes))),
        FileDtype::I16 => convert(data, |bytes| f32::from(i16::from_le_bytes(bytes))),
        FileDtype::U32 => convert(data, |bytes| u32::from_le_bytes(bytes) as f32),
        FileDtype::I32 => convert(data, |bytes| i32::from_le_bytes(bytes) as f32),
        FileDtype::U64 => convert(data, |bytes| u64::from_le_bytes(bytes) as f32),
        FileDtype::I64 => convert(data, |bytes| i64::from_le_bytes(bytes) as f32),
        _ => return elements(view, tensor, name),
    })
}

/// A tensor's elements as finite `f32`, where their type is that of a weight or the tensor is a counter.
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
        FileDtype::I64 | FileDtype::I32 if view.shape().is_empty() => {
            return any_elements(view, tensor, name);
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
pub(super) fn check<T: Copy + Into<f64>>(
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
