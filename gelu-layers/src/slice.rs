//! Slices: every so many elements along each axis of a tensor.

use gelu_tensor::{Error, LinearMap, Shape};
use serde::{Deserialize, Serialize};

/// Elements of one axis: `count` of them, every `step`-th from `start` on, backward where the step is negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisSlice {
    /// The first element.
    pub start: usize,
    /// From one element to the next; not zero.
    pub step: isize,
    /// The number of elements, at least one.
    pub count: usize,
}

impl AxisSlice {
    /// Returns the slice of all of `extent` elements, in their order.
    pub fn whole(extent: usize) -> Self {
        Self { start: 0, step: 1, count: extent }
    }

    /// Returns the slice of `count` neighbors from `start` on.
    pub fn range(start: usize, count: usize) -> Self {
        Self { start, step: 1, count }
    }

    fn check(self, extent: usize) -> Result<(), Error> {
        for (what, found) in
            [("the step of a slice", self.step.unsigned_abs()), ("elements of a slice", self.count)]
        {
            if found == 0 {
                return Err(Error::TooFew { what, least: 1, found });
            }
        }
        let span = (self.count - 1).saturating_mul(self.step.unsigned_abs());
        let last = if self.step > 0 { self.start.saturating_add(span) } else { self.start };
        if last >= extent {
            let what = "elements of an axis up to the last that a slice takes";
            return Err(Error::Limit { what, limit: extent, found: last.saturating_add(1) });
        }
        if self.step < 0 && span > self.start {
            let what = "elements that a slice goes back over";
            return Err(Error::Limit { what, limit: self.start, found: span });
        }
        Ok(())
    }

    fn element(self, at: usize) -> usize {
        self.start.wrapping_add_signed(self.step.wrapping_mul(at as isize))
    }
}

/// A slice of a tensor: which elements along each of its axes.
///
/// ```
/// use gelu_layers::{AxisSlice, SliceConfig};
/// use gelu_tensor::Shape;
///
/// // Every other row, from the second on, of the first channel.
/// let rows = AxisSlice { start: 1, step: 2, count: 2 };
/// let slice = SliceConfig::new(vec![AxisSlice::range(0, 1), rows, AxisSlice::whole(6)]);
/// assert_eq!(slice.output(&Shape::from([3, 4, 6]))?, Shape::from([1, 2, 6]));
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SliceConfig {
    /// Of each axis of the input.
    pub axes: Vec<AxisSlice>,
}

impl SliceConfig {
    /// Returns a slice along each axis of the input.
    pub fn new(axes: Vec<AxisSlice>) -> Self {
        Self { axes }
    }

    /// Returns the shape of the slice of a tensor of shape `input`.
    ///
    /// # Errors
    /// [`Error::Count`] when the tensor has another number of axes; [`Error::TooFew`] for a step of zero or a slice without
    /// elements; [`Error::Limit`] when a slice spans more elements than its axis has.
    pub fn output(&self, input: &Shape) -> Result<Shape, Error> {
        let (expected, found) = (self.axes.len(), input.dims().len());
        if expected != found {
            return Err(Error::Count { what: "dimensions of a slice's input", expected, found });
        }
        self.axes.iter().zip(input.dims()).try_for_each(|(axis, &extent)| axis.check(extent))?;
        let counts: Vec<usize> = self.axes.iter().map(|axis| axis.count).collect();
        Ok(Shape::from(&counts[..]))
    }

    /// Returns the slice as a map.
    pub(crate) fn map(&self, input: &Shape, output: Shape) -> Result<LinearMap, Error> {
        let extents = input.dims();
        let elements = (0..output.elements()).map(|at| {
            let (mut rest, mut element, mut stride) = (at, 0, 1);
            for (axis, extent) in self.axes.iter().zip(extents).rev() {
                element += axis.element(rest % axis.count) * stride;
                rest /= axis.count;
                stride *= extent;
            }
            element
        });
        LinearMap::selection([input, &output], elements)
    }
}
