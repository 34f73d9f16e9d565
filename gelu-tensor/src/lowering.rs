//! Linear layers as columns of ciphertexts for the one matrix product.

use crate::fixed_tensor::pool_windows;
use crate::layout::{Arrangement, Extent};
use crate::matmul::MatmulShape;
use crate::{Error, IntMatrix, Shape, SlotLayout, Window, WindowTap};

/// The columns of ciphertexts that an operation multiplies: indices, `None` for padding.
pub(crate) struct ColumnPlan {
    pub(crate) taps: usize,
    pub(crate) indices: Vec<Option<usize>>,
}

impl ColumnPlan {
    pub(crate) fn shape(&self, matrix: &IntMatrix, ciphertexts: usize) -> MatmulShape {
        MatmulShape {
            outputs: matrix.rows(),
            taps: self.taps,
            columns: self.indices.len() / self.taps,
            ciphertexts: ciphertexts + usize::from(self.indices.contains(&None)),
            weights: matrix.range(),
        }
    }
}

impl SlotLayout {
    /// The columns, the output's shape and its arrangement.
    pub(crate) fn conv2d(
        self,
        extent: Extent,
        shape: &Shape,
        kernels: usize,
        window: Window,
    ) -> Result<(ColumnPlan, Shape, Arrangement), Error> {
        let windows = window.over(shape.as_image("a convolution's input")?)?;
        let [height, width] = windows.output();
        let (groups, taps) = (self.groups(extent), windows.taps());
        let shape = Shape::from([kernels, height, width]);
        match self.arrangement {
            Arrangement::Images => {
                let mut indices = Vec::with_capacity(groups * windows.positions() * taps);
                for group in 0..groups {
                    for position in 0..windows.positions() {
                        indices.extend((0..taps).map(|tap| {
                            let element = windows.element(WindowTap { position, tap })?;
                            Some(group * extent.elements + element)
                        }));
                    }
                }
                Ok((ColumnPlan { taps, indices }, shape, Arrangement::Images))
            }
            Arrangement::Patches(packed) if packed == windows => {
                let indices = (0..groups * taps).map(Some).collect();
                let arrangement = Arrangement::Positions { count: windows.positions() };
                Ok((ColumnPlan { taps, indices }, shape, arrangement))
            }
            _ => Err(Error::Layout {
                operation: "a convolution",
                expected: "one value, a batch, or im2col of the same window",
                found: self.to_string(),
            }),
        }
    }

    pub(crate) fn mean_pool(
        self,
        extent: Extent,
        shape: &Shape,
        window: Window,
    ) -> Result<(ColumnPlan, Shape), Error> {
        let [all, plane] = pool_windows(shape, window)?;
        self.needs_images("mean pooling")?;
        let channels = all.input()[0];
        let plane_elements = extent.elements / channels;
        let taps = plane.taps();
        let mut indices = Vec::new();
        for channel in 0..self.groups(extent) * channels {
            for position in 0..plane.positions() {
                let element =
                    |tap| Some(channel * plane_elements + plane.element(WindowTap { position, tap })?);
                indices.extend((0..taps).map(element));
            }
        }
        let [height, width] = plane.output();
        Ok((ColumnPlan { taps, indices }, Shape::from([channels, height, width])))
    }

    pub(crate) fn dense(self, extent: Extent) -> Result<ColumnPlan, Error> {
        self.needs_images("a dense layer")?;
        let indices = (0..self.groups(extent) * extent.elements).map(Some).collect();
        Ok(ColumnPlan { taps: extent.elements, indices })
    }

    fn needs_images(self, operation: &'static str) -> Result<(), Error> {
        match self.arrangement {
            Arrangement::Images => Ok(()),
            _ => Err(Error::Layout { operation, expected: "one value or a batch", found: self.to_string() }),
        }
    }

    /// The size of the product that a convolution of this layout is lowered to.
    ///
    /// # Errors
    /// As the convolution itself.
    pub fn conv2d_cost(
        self,
        batch: usize,
        shape: &Shape,
        kernels: &IntMatrix,
        window: Window,
    ) -> Result<MatmulShape, Error> {
        let extent = Extent::new(batch, shape);
        let (plan, _, _) = self.conv2d(extent, shape, kernels.rows(), window)?;
        Ok(plan.shape(kernels, self.count(extent)))
    }

    /// The size of the product that mean pooling of this layout is lowered to.
    ///
    /// # Errors
    /// As the pooling itself.
    pub fn mean_pool_cost(self, batch: usize, shape: &Shape, window: Window) -> Result<MatmulShape, Error> {
        let weights = IntMatrix::mean(window.kernel[0].saturating_mul(window.kernel[1]))?;
        if shape.dims().first() == Some(&1) {
            return self.conv2d_cost(batch, shape, &weights, window);
        }
        let extent = Extent::new(batch, shape);
        let (plan, _) = self.mean_pool(extent, shape, window)?;
        Ok(plan.shape(&weights, self.count(extent)))
    }

    /// The size of the product that a dense layer of this layout is lowered to.
    ///
    /// # Errors
    /// As the layer itself.
    pub fn dense_cost(self, batch: usize, shape: &Shape, matrix: &IntMatrix) -> Result<MatmulShape, Error> {
        let extent = Extent::new(batch, shape);
        Ok(self.dense(extent)?.shape(matrix, self.count(extent)))
    }
}
