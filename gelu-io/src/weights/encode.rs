//! Writing safetensors files.

use std::{collections::BTreeMap, path::Path};

use gelu_models::Weights;
use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, TensorInfo};

use super::Dtype;
use super::decode::{Header, check};
use crate::Error;

/// The bytes of a safetensors file.
pub(super) fn weights(weights: &Weights, dtype: Dtype, name: &Path) -> Result<Vec<u8>, Error> {
    let metadata = Some(weights.metadata.clone()).filter(|metadata| !metadata.is_empty());
    let mut header = Header { metadata, tensors: BTreeMap::new() };
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
        check_resolution(elements, dtype, tensor, name)?;
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

/// The error of rounding, as a part of the numbers, that makes a tensor useless: a normal number of any type is far
/// below it (2^-12 for F16, 2^-9 for BF16).
const MOST_ROUNDED: f64 = 1.0 / 32.0;

/// Fails where numbers are so small that they become zeros or lose most of their digits.
fn check_resolution(elements: &[f32], dtype: Dtype, tensor: &str, name: &Path) -> Result<(), Error> {
    let rounded = |x: f32| match dtype {
        Dtype::F16 => f16::from_f32(x).to_f32(),
        Dtype::BF16 => bf16::from_f32(x).to_f32(),
        Dtype::F32 | Dtype::F64 => x,
    };
    let norm =
        |numbers: &mut dyn Iterator<Item = f32>| numbers.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let size = norm(&mut elements.iter().copied());
    let lost = norm(&mut elements.iter().map(|&x| x - rounded(x)));
    if lost <= MOST_ROUNDED * size {
        return Ok(());
    }
    let largest = elements.iter().fold(0.0f32, |largest, &x| largest.max(x.abs()));
    Err(Error::Underflow { path: name.to_owned(), tensor: tensor.to_owned(), largest })
}
