//! Inputs as a caller has them, checked against what a model takes.

use gelu_tensor::{Error, Shape};
use ndarray::{Array2, ArrayView, CowArray, Dimension, Ix2};

use crate::Graph;

impl Graph {
    /// Returns a batch as `[inputs, elements]`: it may be that already, or have the input's shape after the first axis, such
    /// as `[inputs, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is neither: a batch in another layout of as many elements is refused, not reordered.
    pub fn flat_inputs<'a, D: Dimension>(
        &self,
        inputs: ArrayView<'a, f32, D>,
    ) -> Result<CowArray<'a, f32, Ix2>, Error> {
        flat(inputs, self.input())
    }
}

/// The batch as `[inputs, elements]`: it may be that already, or have the shape of an input after the first axis.
pub(crate) fn flat<'a, D: Dimension>(
    inputs: ArrayView<'a, f32, D>,
    shape: &Shape,
) -> Result<CowArray<'a, f32, Ix2>, Error> {
    let dims = inputs.shape().to_vec();
    let elements = shape.elements();
    let [count, rest @ ..] = &dims[..] else { return Err(refused(shape, &[1])) };
    if rest != [elements] && rest != shape.dims() {
        return Err(refused(shape, rest));
    }
    let refuse = |_| refused(shape, rest);
    match inputs.is_standard_layout() {
        true => inputs.into_shape_with_order((*count, elements)).map(CowArray::from).map_err(refuse),
        false => {
            let copied = Array2::from_shape_vec((*count, elements), inputs.iter().copied().collect());
            copied.map(CowArray::from).map_err(refuse)
        }
    }
}

fn refused(shape: &Shape, found: &[usize]) -> Error {
    Error::Shape { what: "inputs of a model", expected: shape.clone(), found: Shape::from(found) }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, Array1, Array4};

    use super::*;

    #[test]
    fn inputs_are_flat_or_shaped_and_keep_their_order() {
        let shape = Shape::from([2, 3, 4]);
        let batch = Array::from_iter((0..48u8).map(f32::from));
        let shaped = batch.clone().into_shape_with_order((2, 2, 3, 4)).unwrap();
        let expected = batch.into_shape_with_order((2, 24)).unwrap();
        assert_eq!(flat(shaped.view(), &shape).unwrap(), expected);
        assert_eq!(flat(shaped.view().into_dyn(), &shape).unwrap(), expected);
        assert_eq!(flat(expected.view(), &shape).unwrap(), expected);
        // Strides say in which order the elements are, not the memory.
        let columns = shaped.as_standard_layout().reversed_axes();
        assert_eq!(flat(columns.view().reversed_axes(), &shape).unwrap(), expected);
    }

    #[test]
    fn inputs_of_another_layout_are_refused() {
        let shape = Shape::from([2, 3, 4]);
        let channels_last = Array4::zeros((2, 3, 4, 2));
        assert_eq!(
            flat(channels_last.view(), &shape).unwrap_err(),
            Error::Shape { what: "inputs of a model", expected: shape.clone(), found: [3, 4, 2].into() }
        );
        assert!(flat(Array2::zeros((2, 23)).view(), &shape).is_err());
        assert!(flat(Array1::zeros(24).view(), &shape).is_err());
        assert!(flat(ndarray::arr0(1.0).view(), &shape).is_err());
        assert_eq!(flat(Array2::zeros((0, 24)).view(), &shape).unwrap().nrows(), 0);
    }
}
