use rand::CryptoRng;

use crate::arith::Residues;
use crate::chunk::{self, EncChunk};
use crate::fixed_tensor::check_addend;
use crate::layout::{Arrangement, Extent};
use crate::lowering::ColumnPlan;
use crate::matmul::{self, Columns};
use crate::paillier::{HidingRandomizers, PublicKey, Randomizer, SecretKey};
use crate::{Error, FixedTensor, Format, IntMatrix, Shape, SlotLayout, Window};

/// A batch of images under encryption: checked ciphertexts of one key, with everything public about them.
#[derive(Clone, Debug)]
pub struct EncTensor {
    key: PublicKey,
    shape: Shape,
    batch: usize,
    format: Format,
    layout: SlotLayout,
    ciphertexts: Residues,
    /// Bits that the exponents of h in its ciphertexts may have. A fresh encryption's are the key owner's own; every
    /// operation makes them longer, and tells how by them until they are hidden again.
    randomness_bits: usize,
}

/// What is public of an encrypted tensor: all but the ciphertexts.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncTensorHeader {
    /// The shape of one image.
    pub shape: Shape,
    /// How many images.
    pub batch: usize,
    /// Scale and bound of the values.
    pub format: Format,
    /// Where they lie.
    pub layout: SlotLayout,
}

impl EncTensorHeader {
    /// Checks the sizes against a key and each other and returns the number of ciphertexts, at most `limit`.
    ///
    /// # Errors
    /// [`Error::Count`], [`Error::Overflow`] or [`Error::Layout`] that says what does not fit.
    pub fn check(&self, key: &PublicKey, limit: usize) -> Result<usize, Error> {
        self.layout.check(key.size(), &self.shape)?;
        let values = self.shape.elements().saturating_mul(self.batch);
        let most = limit.saturating_mul(key.size().slot_capacity_bits());
        if values == 0 || values > most {
            return Err(Error::Count {
                what: "values of an encrypted tensor",
                expected: most,
                found: values,
            });
        }
        let count = self.layout.ciphertexts(self.batch, &self.shape);
        if count > limit {
            return Err(Error::Count {
                what: "ciphertexts of a tensor, at most",
                expected: limit,
                found: count,
            });
        }
        Ok(count)
    }
}

impl EncTensor {
    pub(crate) fn new(
        key: PublicKey,
        shape: Shape,
        batch: usize,
        format: Format,
        layout: SlotLayout,
        ciphertexts: Residues,
    ) -> Result<Self, Error> {
        let randomness_bits = key.parameters().encryption_exponent();
        layout.check_format(format)?;
        Ok(Self { key, shape, batch, format, layout, ciphertexts, randomness_bits })
    }

    /// The result of an operation on this tensor, which made its exponents longer by `grown_bits`.
    fn derive(
        &self,
        ciphertexts: Residues,
        grown_bits: usize,
        (shape, format, layout): (Shape, Format, SlotLayout),
    ) -> Result<Self, Error> {
        let out = Self::new(self.key.clone(), shape, self.batch, format, layout, ciphertexts)?;
        Ok(Self { randomness_bits: self.randomness_bits + grown_bits, ..out })
    }

    /// The tensor of ciphertexts from outside, each of [`PublicKey::ciphertext_bytes`] bytes.
    ///
    /// # Errors
    /// When header and ciphertexts do not fit each other or the key, or a ciphertext is none.
    pub fn decode(key: &PublicKey, header: EncTensorHeader, ciphertexts: &[u8]) -> Result<Self, Error> {
        let found = ciphertexts.len() / key.ciphertext_bytes();
        let expected = header.check(key, found)?;
        if expected != found {
            return Err(Error::Count { what: "ciphertexts of a tensor", expected, found });
        }
        let EncTensorHeader { shape, batch, format, layout } = header;
        Self::new(key.clone(), shape, batch, format, layout, key.decode(ciphertexts)?)
    }

    /// The ciphertexts as bytes, [`PublicKey::ciphertext_bytes`] each.
    pub fn encode_ciphertexts(&self) -> Vec<u8> {
        chunk::encode(&self.key, &self.ciphertexts)
    }

    /// The ciphertexts in chunks of as many as travel together.
    pub fn chunks(&self) -> impl Iterator<Item = EncChunk> {
        let (count, most) = (self.ciphertexts.len(), EncChunk::most(&self.key));
        (0..count).step_by(most).map(move |start| {
            let run = start..count.min(start + most);
            EncChunk::new(self.key.clone(), self.ciphertexts.gather(run))
        })
    }

    /// What is public of it.
    pub fn header(&self) -> EncTensorHeader {
        EncTensorHeader {
            shape: self.shape.clone(),
            batch: self.batch,
            format: self.format,
            layout: self.layout,
        }
    }

    /// The key it is encrypted under.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The shape of one image.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// How many images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The scale and the bound of its values.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Where its values lie.
    pub fn layout(&self) -> SlotLayout {
        self.layout
    }

    /// How many ciphertexts it has.
    pub fn ciphertext_count(&self) -> usize {
        self.ciphertexts.len()
    }

    /// Decrypts and unpacks.
    ///
    /// # Errors
    /// [`Error::ForeignKey`] when the key is another one; [`Error::Layout`] for im2col, which holds values more than
    /// once; [`Error::Randomness`] when a ciphertext was not made under the key, though it is a unit; [`Error::Plaintext`]
    /// when a value is outside the format's bound.
    pub fn decrypt(&self, key: &SecretKey) -> Result<FixedTensor, Error> {
        self.key.check_same(key.public_key())?;
        if let Arrangement::Patches(_) = self.layout.arrangement {
            return Err(self.layout_error("decryption", "one value, a batch or positions"));
        }
        let plaintexts = key.decrypt(&self.ciphertexts)?;
        let modulus = self.key.ring().modulus();
        let mut values = vec![0; self.batch * self.shape.elements()];
        self.layout.unpack(&mut values, (&plaintexts, 0), self.extent(), modulus, self.format)?;
        FixedTensor::new(self.shape.clone(), self.format, values)
    }

    /// Convolution with one kernel per row of `kernels`.
    ///
    /// Takes slots of images (one value or a batch), or the im2col layout of the same window, which becomes
    /// positions.
    ///
    /// # Errors
    /// When shapes or the layout do not fit or the result could overflow its slots.
    pub fn conv2d(&self, kernels: &IntMatrix, window: Window) -> Result<Self, Error> {
        let (product, shape, arrangement) =
            self.layout.conv2d(self.extent(), &self.shape, kernels.rows(), window)?;
        let out = self.product(kernels, &product)?;
        let out = match arrangement {
            // The product's order is group, position, channel; the tensor's is group, channel, position.
            Arrangement::Images => {
                let (channels, positions) = (kernels.rows(), shape.elements() / kernels.rows());
                out.gather((0..out.len()).map(|unit| {
                    let (group, element) = (unit / (channels * positions), unit % (channels * positions));
                    (group * positions + element % positions) * channels + element / positions
                }))
            }
            _ => out,
        };
        let format = self.format.weighted_sum(kernels.range(), kernels.columns())?;
        let layout = SlotLayout { arrangement, ..self.layout };
        self.derive(out, growth(kernels), (shape, format, layout))
    }

    /// The mean over each window, channel by channel, of slots of images, or of images of one channel in the im2col
    /// layout of the same window. Padding counts as zeros.
    ///
    /// # Errors
    /// When shapes or the layout do not fit or the result could overflow its slots.
    pub fn mean_pool(&self, window: Window) -> Result<Self, Error> {
        let weights = IntMatrix::mean(window.kernel[0].saturating_mul(window.kernel[1]))?;
        if self.shape.dims().first() == Some(&1) {
            return self.conv2d(&weights, window);
        }
        let (product, shape) = self.layout.mean_pool(self.extent(), &self.shape, window)?;
        let out = self.product(&weights, &product)?;
        let format = self.format.weighted_sum(weights.range(), weights.columns())?;
        self.derive(out, growth(&weights), (shape, format, self.layout))
    }

    /// Every row of `matrix` times the (flattened) image, of slots of images.
    ///
    /// # Errors
    /// When shapes or the layout do not fit or the result could overflow its slots.
    pub fn dense(&self, matrix: &IntMatrix) -> Result<Self, Error> {
        let product = self.layout.dense(self.extent())?;
        let out = self.product(matrix, &product)?;
        let format = self.format.weighted_sum(matrix.range(), matrix.columns())?;
        let shape = Shape::from([matrix.rows()]);
        self.derive(out, growth(matrix), (shape, format, self.layout))
    }

    /// The same slots of images under another shape of as many elements.
    ///
    /// # Errors
    /// [`Error::Shape`] when it has another number of elements; [`Error::Layout`] for im2col and positions.
    pub fn reshape(mut self, shape: Shape) -> Result<Self, Error> {
        if shape.elements() != self.shape.elements() {
            return Err(Error::Shape { what: "reshaped tensor", expected: self.shape, found: shape });
        }
        // Positions are ordered by channel, so only their shape as an image says where a value lies.
        if shape != self.shape && self.layout.arrangement != Arrangement::Images {
            return Err(self.layout_error("reshaping", "one value or a batch"));
        }
        self.shape = shape;
        Ok(self)
    }

    /// The sum with another tensor of the same key, shape and layout.
    ///
    /// # Errors
    /// When they differ or the result could overflow its slots.
    pub fn add(&self, other: &Self) -> Result<Self, Error> {
        self.key.check_same(&other.key)?;
        if self.shape != other.shape {
            return Err(Error::Shape {
                what: "addend",
                expected: self.shape.clone(),
                found: other.shape.clone(),
            });
        }
        if self.batch != other.batch {
            return Err(Error::Count {
                what: "images of an addend",
                expected: self.batch,
                found: other.batch,
            });
        }
        if self.layout != other.layout {
            return Err(other.layout_error("addition", "its addend is"));
        }
        let mut ciphertexts = self.ciphertexts.clone();
        self.key.ring().mul_assign(&mut ciphertexts, &other.ciphertexts);
        let format = self.format.sum(other.format)?;
        let longest = self.randomness_bits.max(other.randomness_bits);
        let sum = self.derive(ciphertexts, 1, (self.shape.clone(), format, self.layout))?;
        Ok(Self { randomness_bits: longest + 1, ..sum })
    }

    /// The sum with a tensor in the clear; one image is added to each of a batch. Unused slots stay zero.
    ///
    /// # Errors
    /// When shapes or scales differ or the result could overflow its slots.
    pub fn add_plain(&self, plain: &FixedTensor) -> Result<Self, Error> {
        check_addend(&self.shape, self.batch, plain)?;
        let format = self.format.sum(plain.format())?;
        let values: Vec<i64> =
            plain.values().iter().copied().cycle().take(self.batch * self.shape.elements()).collect();
        let all = 0..self.ciphertexts.len();
        let plaintexts = self.layout.pack(&values, self.extent(), all, self.key.ring().modulus());
        let ciphertexts = self.key.add_plaintexts(&self.ciphertexts, &plaintexts);
        self.derive(ciphertexts, 0, (self.shape.clone(), format, self.layout))
    }

    /// The same values with `stacked` units in a ciphertext: units are moved next to each other by multiplying with
    /// powers of two (Horner's rule). [`SlotLayout::most_stacked`] says how many fit.
    ///
    /// # Errors
    /// [`Error::Overflow`] when they do not fit, [`Error::Layout`] when units are stacked already.
    pub fn repack(&self, stacked: usize) -> Result<Self, Error> {
        let layout = self.layout.with_stacked(stacked).check(self.key.size(), &self.shape)?;
        if self.layout.stacked != 1 {
            return Err(self.layout_error("repacking", "one unit a ciphertext"));
        }
        let ring = self.key.ring();
        let units = self.ciphertexts.len();
        let shift = layout.width * layout.slot_bits;
        let one = ring.ones(1);
        let mut padded = self.ciphertexts.clone();
        (units..units.next_multiple_of(stacked)).for_each(|_| padded.append(&one));
        let ciphertexts = self.key.in_parallel(padded.len() / stacked, |packs| {
            let unit = |index: usize| packs.clone().map(move |pack| pack * stacked + index);
            let mut sums = padded.gather(unit(stacked - 1));
            for index in (0..stacked - 1).rev() {
                ring.square_assign(&mut sums, shift);
                ring.mul_assign(&mut sums, &padded.gather(unit(index)));
            }
            sums
        });
        let moved = (stacked - 1) * shift;
        self.derive(ciphertexts, moved + 1, (self.shape.clone(), self.format, layout))
    }

    /// The same values in fresh ciphertexts: each is multiplied with a random power of h that hides, to a statistical
    /// distance of 2^-64, how its own exponent came from those of the client's encryptions, even from the key's
    /// owner, who knows these and the group.
    pub fn rerandomize(self, rng: &mut dyn CryptoRng) -> Self {
        let count = self.ciphertexts.len();
        let fresh = self.key.hiding_exponents(rng, count, self.randomness_bits).powers();
        self.multiply_with(fresh)
    }

    /// The same with factors that were made before; `rng` is used for others if those are of another key, not as many
    /// as there are ciphertexts, or too short to hide their exponents.
    pub fn rerandomize_with(self, fresh: HidingRandomizers, rng: &mut dyn CryptoRng) -> Self {
        let count = self.ciphertexts.len();
        let needed = self.key.parameters().hiding_exponent(self.randomness_bits, count);
        if fresh.key == self.key && fresh.powers.len() == count && fresh.bits >= needed {
            self.multiply_with(fresh)
        } else {
            self.rerandomize(rng)
        }
    }

    fn multiply_with(self, fresh: HidingRandomizers) -> Self {
        let ciphertexts = self.key.in_parallel(self.ciphertexts.len(), |range| {
            let mut products = self.ciphertexts.gather(range.clone());
            self.key.ring().mul_assign(&mut products, &fresh.powers.gather(range));
            products
        });
        Self { ciphertexts, randomness_bits: fresh.bits, ..self }
    }

    fn extent(&self) -> Extent {
        Extent::new(self.batch, &self.shape)
    }

    fn product(&self, matrix: &IntMatrix, product: &ColumnPlan) -> Result<Residues, Error> {
        let ring = self.key.ring();
        if self.layout.stacked != 1 {
            return Err(self.layout_error("a linear layer", "one unit a ciphertext"));
        }
        // Checked before the work, and so that nothing is multiplied that could overflow its slot.
        let format = self.format.weighted_sum(matrix.range(), matrix.columns())?;
        self.layout.check_format(format)?;
        let columns = Columns::new(ring, &self.ciphertexts, product.taps, product.indices.iter().copied());
        let strategy = product.shape(matrix, self.ciphertexts.len()).cheapest(ring.backend().lanes());
        matmul::multiply(ring, &matrix.into(), &columns, strategy)
    }

    fn layout_error(&self, operation: &'static str, expected: &'static str) -> Error {
        Error::Layout { operation, expected, found: self.layout.to_string() }
    }
}

/// Bits by which a product with a matrix makes exponents longer.
fn growth(matrix: &IntMatrix) -> usize {
    matrix.range().bits as usize + matrix.columns().ilog2() as usize + 1
}
