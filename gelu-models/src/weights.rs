//! Weights by name, as files hold them.

use std::collections::BTreeMap;

use gelu_tensor::Shape;

/// Named tensors of a trained model, with PyTorch's names (`conv1.weight`, `fc1.bias`), shapes and layout.
///
/// Reading and writing files is gelu-io's part.
///
/// ```
/// use gelu_models::{WeightTensor, Weights};
///
/// let mut weights = Weights::default();
/// let bias = WeightTensor::new([2].into(), vec![0.5, -0.5])?;
/// weights.tensors.insert("fc1.bias".to_owned(), bias);
/// assert!(WeightTensor::new([3].into(), vec![0.5, -0.5]).is_err());
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    /// Tensors by name.
    pub tensors: BTreeMap<String, WeightTensor>,
    /// Free text that travels with the tensors (for instance the calibrated activation ranges).
    pub metadata: BTreeMap<String, String>,
}

/// One named tensor: row-major `f32` elements. Convolution `[out, in, kernel height, kernel width]`, dense
/// `[out, in]`, bias `[out]`.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightTensor {
    shape: Shape,
    data: Vec<f32>,
}

impl WeightTensor {
    /// Returns a tensor of `shape`.
    ///
    /// # Errors
    /// [`gelu_tensor::Error::Count`] when `data` has another number of elements than `shape`.
    pub fn new(shape: Shape, data: Vec<f32>) -> Result<Self, gelu_tensor::Error> {
        if shape.elements() == data.len() {
            Ok(Self { shape, data })
        } else {
            Err(gelu_tensor::Error::Count {
                what: "elements of a weight tensor",
                expected: shape.elements(),
                found: data.len(),
            })
        }
    }

    /// Returns its extents.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns its elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }
}
