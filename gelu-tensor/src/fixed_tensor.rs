//! Batches of fixed-point numbers in the clear: what encrypted tensors are made from and decrypt to.

use std::ops::Range;

use rand::CryptoRng;
use zeroize::Zeroize;

use crate::arith::Residues;
use crate::layout::Extent;
use crate::paillier::Randomizer;
use crate::{EncTensor, EncTensorHeader, Error, Format, IntWeights, LinearMap, Shape, SlotLayout};

/// A batch of fixed-point images in the clear: what an [`EncTensor`] decrypts to, with the same operations.
///
/// The encrypted operations give the very same integers. Wiped when dropped.
///
/// ```
/// use gelu_tensor::{FixedTensor, Format, Shape};
///
/// let format = Format::integers(1 << 10)?.with_scale_bits(8)?; // up to 4 in absolute value, in steps of 1/256
/// let x = FixedTensor::new(Shape::from([2]), format, vec![256, -512])?;
/// assert_eq!(x.reals(), [1.0, -2.0]);
/// assert_eq!(x.add(&x)?.values(), [512, -1024]);
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedTensor {
    shape: Shape,
    batch: usize,
    format: Format,
    values: Vec<i64>,
}

impl FixedTensor {
    /// Returns a batch of images of `shape`, image after image.
    ///
    /// # Errors
    /// [`Error::Count`] when the values are no whole number of images, or there is none; [`Error::Value`] when one
    /// is outside the format's bound.
    pub fn new(shape: Shape, format: Format, values: Vec<i64>) -> Result<Self, Error> {
        let elements = shape.elements();
        if elements == 0 || values.is_empty() {
            let what = "values of a tensor, and elements of its shape";
            return Err(Error::TooFew { what, least: 1, found: 0 });
        }
        if !values.len().is_multiple_of(elements) {
            return Err(Error::Multiple {
                what: "values of whole images",
                of: elements,
                found: values.len(),
            });
        }
        if let Some(index) = values.iter().position(|value| value.unsigned_abs() > format.bound()) {
            return Err(Error::Value { index, bound: format.bound() });
        }
        Ok(Self { batch: values.len() / elements, shape, format, values })
    }

    /// Returns the shape of one image.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the number of images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Returns the scale and the bound.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Returns all integers, image after image.
    pub fn values(&self) -> &[i64] {
        &self.values
    }

    /// Returns the real that each integer stands for.
    pub fn reals(&self) -> Vec<f64> {
        self.values.iter().map(|&value| self.format.real(value)).collect()
    }

    /// Returns the map of every image.
    ///
    /// # Errors
    /// [`Error::Count`] when the map takes other images or has other weights; [`Error::Overflow`] when the result could
    /// overflow.
    pub fn apply(&self, map: &LinearMap, weights: &IntWeights) -> Result<Self, Error> {
        weights.check_rows(map)?;
        let format = self.format.weighted_sum(weights.range(), map.most_terms())?;
        let signed: Vec<u64> = weights.values().iter().map(|&weight| i64::from(weight) as u64).collect();
        // The format says that no sum overflows.
        let sums = map.apply_wrapping(&signed, &self.values)?;
        Self::new(map.output().clone(), format, sums.into_iter().map(|sum| sum as i64).collect())
    }

    /// Returns the same values under another shape with as many elements.
    ///
    /// # Errors
    /// [`Error::Shape`] when it has another number of elements.
    pub fn reshape(mut self, shape: Shape) -> Result<Self, Error> {
        if shape.elements() != self.shape.elements() {
            let (expected, found) = (self.shape.clone(), shape);
            return Err(Error::Shape { what: "reshaped tensor", expected, found });
        }
        self.shape = shape;
        Ok(self)
    }

    /// Returns the sum of two tensors; one image is added to each of a batch.
    ///
    /// # Errors
    /// When shapes or scales differ or the result could overflow.
    pub fn add(&self, other: &Self) -> Result<Self, Error> {
        check_addend(&self.shape, self.batch, other)?;
        let format = self.format.sum(other.format)?;
        let values = self.values.iter().zip(other.values.iter().cycle()).map(|(x, y)| x + y).collect();
        Self::new(self.shape.clone(), format, values)
    }

    /// Packs and encrypts. The layout's contents are the tensor's format.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a value does not fit a slot or the slots do not fit the key;
    /// [`Error::Layout`] when the layout is not one of this shape.
    pub fn encrypt(
        &self,
        layout: &SlotLayout,
        randomizer: &dyn Randomizer,
        rng: &mut dyn CryptoRng,
    ) -> Result<EncTensor, Error> {
        let header = self.header(layout)?;
        let count = header.check(randomizer.public_key().size())?;
        let ciphertexts = self.encrypt_run(layout, 0..count, randomizer, rng);
        Ok(EncTensor::new(randomizer.public_key().clone(), header, ciphertexts))
    }

    /// What is public of the tensor in a layout.
    pub(crate) fn header(&self, layout: &SlotLayout) -> Result<EncTensorHeader, Error> {
        let layout = layout.holding(crate::Contents::Integers(self.format))?;
        Ok(EncTensorHeader::new(self.shape.clone(), self.batch, layout))
    }

    /// A run of the ciphertexts; the layout was checked.
    pub(crate) fn encrypt_run(
        &self,
        layout: &SlotLayout,
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
}

impl Drop for FixedTensor {
    fn drop(&mut self) {
        self.values.zeroize();
    }
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
