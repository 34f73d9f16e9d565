use std::ops::Range;

use rand::CryptoRng;
use rayon::prelude::*;
use zeroize::Zeroize;

use crate::arith::Residues;
use crate::layout::Extent;
use crate::paillier::Randomizer;
use crate::{EncTensor, Error, Format, IntMatrix, Shape, SlotLayout, Window, WindowTap, Windows};

/// A batch of fixed-point images in the clear: what an [`EncTensor`] decrypts to, with the same operations.
///
/// The encrypted operations give the very same integers. Wiped when dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedTensor {
    shape: Shape,
    batch: usize,
    format: Format,
    values: Vec<i64>,
}

impl FixedTensor {
    /// A batch of images of `shape`, image after image.
    ///
    /// # Errors
    /// [`Error::Count`] when the values are no whole number of images, or there is none; [`Error::Value`] when one
    /// is outside the format's bound.
    pub fn new(shape: Shape, format: Format, values: Vec<i64>) -> Result<Self, Error> {
        let elements = shape.elements();
        if elements == 0 || values.is_empty() || !values.len().is_multiple_of(elements) {
            return Err(Error::Count {
                what: "values of whole images",
                expected: values.len().next_multiple_of(elements.max(1)).max(1),
                found: values.len(),
            });
        }
        if let Some(index) = values.iter().position(|value| value.unsigned_abs() > format.bound()) {
            return Err(Error::Value { index, bound: format.bound() });
        }
        Ok(Self { batch: values.len() / elements, shape, format, values })
    }

    /// The shape of one image.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How many images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The scale and the bound.
    pub fn format(&self) -> Format {
        self.format
    }

    /// All integers, image after image.
    pub fn values(&self) -> &[i64] {
        &self.values
    }

    /// The integers of one image.
    pub fn image(&self, index: usize) -> &[i64] {
        let elements = self.shape.elements();
        &self.values[index * elements..][..elements]
    }

    /// The same values with every channel as an image of its own: `[channels, h, w]` becomes `channels` times as many
    /// `[1, h, w]`. Pooling works on either.
    ///
    /// # Errors
    /// [`Error::Count`] when the shape is not an image's.
    pub fn split_channels(mut self) -> Result<Self, Error> {
        let [channels, height, width] = self.shape.as_image("an image")?;
        self.shape = Shape::from([1, height, width]);
        self.batch *= channels;
        Ok(self)
    }

    /// The same values with every `shape.elements()` of them as one image.
    ///
    /// # Errors
    /// [`Error::Count`] when they are no whole number of images.
    pub fn reshape(mut self, shape: Shape) -> Result<Self, Error> {
        let elements = shape.elements().max(1);
        if !self.values.len().is_multiple_of(elements) {
            return Err(Error::Count {
                what: "values of whole images",
                expected: self.values.len().next_multiple_of(elements),
                found: self.values.len(),
            });
        }
        self.batch = self.values.len() / elements;
        self.shape = shape;
        Ok(self)
    }

    /// Convolution with one kernel per row of `kernels` (taps ordered as in [`Windows::element`]).
    ///
    /// # Errors
    /// When shapes do not fit or the result could overflow.
    pub fn conv2d(&self, kernels: &IntMatrix, window: Window) -> Result<Self, Error> {
        let windows = window.over(self.shape.as_image("a convolution's input")?)?;
        check_taps(kernels, windows.taps())?;
        let [height, width] = windows.output();
        let elements: Vec<Option<usize>> = (0..windows.positions())
            .flat_map(|position| (0..windows.taps()).map(move |tap| WindowTap { position, tap }))
            .map(|at| windows.element(at))
            .collect();
        self.map(kernels, Shape::from([kernels.rows(), height, width]), |image, row, out| {
            for (out, elements) in out.iter_mut().zip(elements.chunks_exact(windows.taps())) {
                *out = dot(row, |tap| elements[tap].map_or(0, |element| image[element]));
            }
        })
    }

    /// The mean over each window, channel by channel; padding counts as zeros.
    ///
    /// The sum where the window's area is a power of two (only the scale moves), else with weights of 16 bits.
    ///
    /// # Errors
    /// When shapes do not fit or the result could overflow.
    pub fn mean_pool(&self, window: Window) -> Result<Self, Error> {
        let [channels, windows] = pool_windows(&self.shape, window)?;
        let channels = channels.input()[0];
        let weights = IntMatrix::mean(windows.taps())?;
        let format = self.format.weighted_sum(weights.range(), weights.columns())?;
        let [height, width] = windows.output();
        let shape = Shape::from([channels, height, width]);
        let plane = self.shape.elements() / channels;
        let values = (0..self.batch * channels)
            .flat_map(|channel| {
                let image = &self.values[channel * plane..][..plane];
                let row = weights.row(0);
                (0..windows.positions()).map(move |position| {
                    dot(row, |tap| windows.element(WindowTap { position, tap }).map_or(0, |e| image[e]))
                })
            })
            .collect();
        Self::new(shape, format, values)
    }

    /// Every row of `matrix` times the (flattened) image.
    ///
    /// # Errors
    /// When shapes do not fit or the result could overflow.
    pub fn dense(&self, matrix: &IntMatrix) -> Result<Self, Error> {
        check_taps(matrix, self.shape.elements())?;
        self.map(matrix, Shape::from([matrix.rows()]), |image, row, out| out[0] = dot(row, |tap| image[tap]))
    }

    /// The sum of two tensors; one image is added to each of a batch.
    ///
    /// # Errors
    /// When shapes or scales differ or the result could overflow.
    pub fn add(&self, other: &Self) -> Result<Self, Error> {
        check_addend(&self.shape, self.batch, other)?;
        let format = self.format.sum(other.format)?;
        let values = self.values.iter().zip(other.values.iter().cycle()).map(|(x, y)| x + y).collect();
        Self::new(self.shape.clone(), format, values)
    }

    /// Packs and encrypts.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a value does not fit a slot or the slots do not fit the key;
    /// [`Error::Layout`] when the layout is not one of this shape.
    pub fn encrypt(
        &self,
        layout: SlotLayout,
        randomizer: &dyn Randomizer,
        rng: &mut dyn CryptoRng,
    ) -> Result<EncTensor, Error> {
        let key = randomizer.public_key();
        layout.check(key.size(), &self.shape)?;
        let all = 0..layout.count(self.extent());
        let ciphertexts = self.encrypt_run(layout, all, randomizer, rng);
        EncTensor::new(key.clone(), self.shape.clone(), self.batch, self.format, layout, ciphertexts)
    }

    /// A run of the ciphertexts; the layout was checked.
    pub(crate) fn encrypt_run(
        &self,
        layout: SlotLayout,
        run: Range<usize>,
        randomizer: &dyn Randomizer,
        rng: &mut dyn CryptoRng,
    ) -> Residues {
        let key = randomizer.public_key();
        let randomizers = randomizer.randomizers(rng, run.len());
        let plaintexts = layout.pack(&self.values, self.extent(), run, key.ring().modulus());
        key.add_plaintexts(&randomizers, &plaintexts)
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent::new(self.batch, &self.shape)
    }

    /// Applies `row_of` to each image and row of weights; it fills the row's part of the output.
    fn map(
        &self,
        matrix: &IntMatrix,
        shape: Shape,
        row_of: impl Fn(&[i64], &[i32], &mut [i64]) + Sync,
    ) -> Result<Self, Error> {
        let format = self.format.weighted_sum(matrix.range(), matrix.columns())?;
        let part = shape.elements() / matrix.rows();
        let mut values = vec![0; self.batch * shape.elements()];
        values.par_chunks_exact_mut(shape.elements()).enumerate().for_each(|(image, out)| {
            for (row, out) in out.chunks_exact_mut(part).enumerate() {
                row_of(self.image(image), matrix.row(row), out);
            }
        });
        Self::new(shape, format, values)
    }
}

impl Drop for FixedTensor {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

fn dot(row: &[i32], input: impl Fn(usize) -> i64) -> i64 {
    row.iter().enumerate().map(|(tap, &weight)| i64::from(weight) * input(tap)).sum()
}

fn check_taps(matrix: &IntMatrix, taps: usize) -> Result<(), Error> {
    if matrix.columns() == taps {
        Ok(())
    } else {
        Err(Error::Count { what: "inputs of a matrix row", expected: matrix.columns(), found: taps })
    }
}

/// The windows of a pooling over all channels, and over one.
pub(crate) fn pool_windows(shape: &Shape, window: Window) -> Result<[Windows; 2], Error> {
    let [channels, height, width] = shape.as_image("a pooling's input")?;
    Ok([window.over([channels, height, width])?, window.over([1, height, width])?])
}

pub(crate) fn check_addend(shape: &Shape, batch: usize, addend: &FixedTensor) -> Result<(), Error> {
    if shape != addend.shape() {
        return Err(Error::Shape { what: "addend", expected: shape.clone(), found: addend.shape().clone() });
    }
    if addend.batch() != 1 && addend.batch() != batch {
        return Err(Error::Count { what: "images of an addend", expected: batch, found: addend.batch() });
    }
    Ok(())
}
