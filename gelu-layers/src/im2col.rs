use gelu_tensor::{Error, WindowTap, Windows};
use ndarray::{Array2, ArrayView2, Axis};

use crate::linear::check_windows;

/// Where every tap of every window position reads, as a table.
#[derive(Clone, Debug)]
pub(crate) struct Im2col {
    /// Elements of one image; also the index that stands for padding.
    elements: usize,
    positions: usize,
    /// `[taps, positions]`.
    index: Array2<u32>,
}

impl Im2col {
    pub(crate) fn new(windows: &Windows) -> Result<Self, Error> {
        check_windows(windows)?;
        let [taps, positions] = [windows.taps(), windows.positions()];
        let elements = windows.input().iter().product();
        let index = Array2::from_shape_fn((taps, positions), |(tap, position)| {
            windows.element(WindowTap { position, tap }).unwrap_or(elements) as u32
        });
        Ok(Self { elements, positions, index })
    }

    /// `[images, elements]` to `[taps, images x positions]`.
    pub(crate) fn gather(&self, x: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut columns = Array2::zeros((self.index.nrows(), x.nrows() * self.positions));
        // One element more than an image, so that padding reads a zero without a branch.
        let mut image = vec![0.0; self.elements + 1];
        for (row, mut block) in x.outer_iter().zip(columns.axis_chunks_iter_mut(Axis(1), self.positions)) {
            image.iter_mut().zip(row).for_each(|(to, &from)| *to = from);
            for (mut taps, index) in block.outer_iter_mut().zip(self.index.outer_iter()) {
                taps.iter_mut().zip(index).for_each(|(to, &at)| *to = image[at as usize]);
            }
        }
        columns
    }

    /// The transpose of [`gather`](Self::gather): adds every entry of `[taps, images x positions]` to the element it
    /// was read from.
    pub(crate) fn scatter(&self, columns: ArrayView2<'_, f32>) -> Array2<f32> {
        let mut x = Array2::zeros((columns.ncols() / self.positions, self.elements));
        let mut image = vec![0.0; self.elements + 1];
        for (mut row, block) in x.outer_iter_mut().zip(columns.axis_chunks_iter(Axis(1), self.positions)) {
            image.fill(0.0);
            for (taps, index) in block.outer_iter().zip(self.index.outer_iter()) {
                taps.iter().zip(index).for_each(|(&value, &at)| image[at as usize] += value);
            }
            row.iter_mut().zip(&image).for_each(|(to, &from)| *to = from);
        }
        x
    }

    /// `[channels, images x positions]`, as the matrix product wants it, to `[images, channels x positions]`.
    pub(crate) fn images_first(&self, product: ArrayView2<'_, f32>) -> Array2<f32> {
        let images = product.ncols() / self.positions;
        let mut y = Array2::zeros((images, product.nrows() * self.positions));
        for (row, mut block) in product.outer_iter().zip(y.axis_chunks_iter_mut(Axis(1), self.positions)) {
            let images = row.axis_chunks_iter(Axis(0), self.positions);
            images.zip(block.outer_iter_mut()).for_each(|(from, mut to)| to.assign(&from));
        }
        y
    }

    /// The inverse of [`images_first`](Self::images_first).
    pub(crate) fn channels_first(&self, y: ArrayView2<'_, f32>) -> Array2<f32> {
        let channels = y.ncols() / self.positions;
        let mut product = Array2::zeros((channels, y.nrows() * self.positions));
        for (mut row, block) in product.outer_iter_mut().zip(y.axis_chunks_iter(Axis(1), self.positions)) {
            let images = row.axis_chunks_iter_mut(Axis(0), self.positions);
            images.zip(block.outer_iter()).for_each(|(mut to, from)| to.assign(&from));
        }
        product
    }
}
