//! Batches of numbers under encryption, and what can be computed on them without the key.

mod apply;
mod combine;
mod correct;

use std::ops::Range;
use std::sync::Arc;

use rand::CryptoRng;

use crate::arith::Residues;
use crate::chunk::{self, Decryption, EncChunk};
use crate::fixed_tensor::check_addend;
use crate::layout::{Extent, Groups};
use crate::paillier::{Hiding, HidingRandomizers, KeyBits, PublicKey, SecretKey};
use crate::{Arrangement, Contents, Error, FixedTensor, Flood, Format, LinearMap, Shape, SlotLayout};

/// A batch of images under encryption: checked ciphertexts of one key, with everything public about them.
///
/// ```
/// use gelu_tensor::paillier::{KeyBits, SecretKey};
/// use gelu_tensor::{Contents, EncTensor, FixedTensor, Format, Packing, Shape, SlotLayout};
///
/// let rng = &mut rand::rng();
/// let key = SecretKey::generate(KeyBits::Bits1024, rng)?; // 1,024 bits: for tests only
/// let format = Format::integers(100)?;
/// let plain = FixedTensor::new(Shape::from([2]), format, vec![100, -3])?;
/// let packing = Packing { batch: 1, slot_bits: format.sum(format)?.slot_bits(), key: KeyBits::Bits1024 };
/// let layout = SlotLayout::images(packing, Contents::Integers(format))?;
/// let encrypted = plain.encrypt(&layout, key.public_key(), rng)?;
///
/// // Bytes are checked against a key; the header does not travel with them.
/// let bytes = encrypted.encode_ciphertexts();
/// let received = EncTensor::decode(key.public_key(), encrypted.header().clone(), &bytes)?;
/// let sum = received.add(&encrypted)?.rerandomize(rng);
/// assert_eq!(sum.decrypt(&key)?.values(), [200, -6]);
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct EncTensor {
    key: PublicKey,
    header: EncTensorHeader,
    ciphertexts: Residues,
    /// Bits that the exponents of h in its ciphertexts may have. A fresh encryption's are the key owner's own; every
    /// operation makes them longer, and tells how by them until they are hidden again.
    randomness_bits: usize,
}

/// What is public of an encrypted tensor: all but the ciphertexts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncTensorHeader {
    /// The shape of one image.
    pub shape: Shape,
    /// How many images.
    pub batch: usize,
    /// Where the values lie, and what they are.
    pub layout: SlotLayout,
    /// The groups that are there, if not all of the batch are.
    pub(crate) part: Option<Groups>,
}

impl EncTensorHeader {
    /// Ciphertexts of one tensor.
    const MOST: usize = 1 << 22;

    /// Returns the header of a whole batch.
    pub fn new(shape: Shape, batch: usize, layout: SlotLayout) -> Self {
        Self { shape, batch, layout, part: None }
    }

    /// Checks the sizes against each other and a key's, and returns the number of ciphertexts.
    ///
    /// # Errors
    /// [`Error::Count`], [`Error::Overflow`] or [`Error::Layout`] that says what does not fit.
    pub fn check(&self, key: KeyBits) -> Result<usize, Error> {
        self.layout.check(key, &self.shape)?;
        let found = self.ciphertexts();
        if self.batch == 0 || found > Self::MOST {
            let what = "ciphertexts of a tensor";
            return Err(Error::Range { what, least: 1, most: Self::MOST, found });
        }
        Ok(found)
    }

    /// Returns the header of integers of a format in the same places.
    ///
    /// # Errors
    /// [`Error::Overflow`] when slots do not hold them.
    pub fn with_format(&self, format: Format) -> Result<Self, Error> {
        let layout = self.layout.holding(Contents::Integers(format))?;
        Ok(Self { layout, ..self.clone() })
    }

    /// Returns the number of ciphertexts.
    pub fn ciphertexts(&self) -> usize {
        self.layout.count(self.extent())
    }

    /// Returns the header of a run of the batch's [groups](SlotLayout::groups).
    pub fn part(&self, groups: Range<usize>) -> Self {
        let is_all = groups == (0..self.layout.groups(self.batch));
        let part = (!is_all).then_some(Groups { first: groups.start, count: groups.len() });
        Self { part, ..self.clone() }
    }

    /// Returns the number of groups that are there.
    pub fn groups(&self) -> usize {
        self.layout.groups_of(self.extent())
    }

    /// Returns the units of one group: elements of the tensor where slots run over images, taps or rows of a map where they
    /// run over its columns.
    pub fn units(&self) -> usize {
        self.layout.units_per_group(self.extent())
    }

    pub(crate) fn extent(&self) -> Extent {
        Extent::new(self.batch, &self.shape).part(self.part)
    }
}

impl EncTensor {
    pub(crate) fn new(key: PublicKey, header: EncTensorHeader, ciphertexts: Residues) -> Self {
        let randomness_bits = key.parameters().encryption_exponent();
        Self { key, header, ciphertexts, randomness_bits }
    }

    /// The result of an operation on this tensor, which made its exponents longer by `grown_bits`.
    fn derive(&self, ciphertexts: Residues, grown_bits: usize, (shape, layout): (Shape, SlotLayout)) -> Self {
        let header = EncTensorHeader { shape, layout, ..self.header.clone() };
        Self {
            randomness_bits: self.randomness_bits + grown_bits,
            ..Self::new(self.key.clone(), header, ciphertexts)
        }
    }

    /// Returns the tensor of ciphertexts from outside, each of [`PublicKey::ciphertext_bytes`] bytes.
    ///
    /// # Errors
    /// When header and ciphertexts do not fit each other or the key, or a ciphertext is none.
    pub fn decode(key: &PublicKey, header: EncTensorHeader, ciphertexts: &[u8]) -> Result<Self, Error> {
        let found = ciphertexts.len() / key.ciphertext_bytes();
        let expected = header.check(key.size())?;
        if expected != found {
            return Err(Error::Count { what: "ciphertexts of a tensor", expected, found });
        }
        Ok(Self::new(key.clone(), header, key.decode(ciphertexts)?))
    }

    /// Returns the tensor whose ciphertexts are those of others, under the key of the first: group by group, of each tensor
    /// an equal share.
    ///
    /// # Errors
    /// [`Error::TooFew`] without tensors; [`Error::ForeignKey`] when they are of different keys; [`Error::Count`] when they
    /// have not as many ciphertexts as the header says, or not as many in each group.
    pub fn join(header: EncTensorHeader, tensors: &[Self]) -> Result<Self, Error> {
        let too_few = Error::TooFew { what: "tensors to be joined", least: 1, found: 0 };
        let key = &tensors.first().ok_or(too_few)?.key;
        let (expected, groups) = (header.check(key.size())?, header.groups());
        let mut all = key.ring().empty(0);
        for tensor in tensors {
            key.check_same(&tensor.key)?;
            all.append(&tensor.ciphertexts);
        }
        let found = all.len();
        let is_even = tensors.iter().all(|tensor| tensor.ciphertexts.len().is_multiple_of(groups));
        if expected != found || (tensors.len() > 1 && !is_even) {
            return Err(Error::Count { what: "ciphertexts of a tensor", expected, found });
        }
        let order = (0..groups).flat_map(|group| {
            let mut first = 0;
            tensors.iter().flat_map(move |tensor| {
                let each = tensor.ciphertexts.len() / groups;
                let start = first + group * each;
                first += tensor.ciphertexts.len();
                start..start + each
            })
        });
        let ciphertexts = if tensors.len() > 1 { all.gather(order) } else { all };
        let randomness_bits = tensors.iter().map(|tensor| tensor.randomness_bits).max().unwrap_or(0);
        Ok(Self { randomness_bits, ..Self::new(key.clone(), header, ciphertexts) })
    }

    /// Returns the ciphertexts as bytes, [`PublicKey::ciphertext_bytes`] each.
    pub fn encode_ciphertexts(&self) -> Vec<u8> {
        self.key.encode(&self.ciphertexts)
    }

    /// Returns the ciphertexts in chunks of as many as travel together.
    pub fn chunks(&self) -> Vec<EncChunk> {
        chunk::split(&self.key, &self.ciphertexts)
    }

    /// Returns what is public of the tensor.
    pub fn header(&self) -> &EncTensorHeader {
        &self.header
    }

    /// Returns the key that the tensor is encrypted under.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Returns the shape of one image.
    pub(crate) fn shape(&self) -> &Shape {
        &self.header.shape
    }

    /// Returns the number of images.
    pub(crate) fn batch(&self) -> usize {
        self.header.batch
    }

    /// Returns where the values lie, and what they are.
    pub(crate) fn layout(&self) -> &SlotLayout {
        &self.header.layout
    }

    /// Decrypts and unpacks integers.
    ///
    /// # Errors
    /// [`Error::ForeignKey`] when the key is another one; [`Error::Layout`] for im2col, which holds values more than
    /// once, and for residues; [`Error::Randomness`] when a ciphertext was not made under the key, though it is a unit;
    /// [`Error::Plaintext`] when a value is outside the format's bound.
    pub fn decrypt(&self, key: &SecretKey) -> Result<FixedTensor, Error> {
        self.decryption(key)?.finish()
    }

    /// Decrypts and unpacks flooded sums: their residues in `[0, 2^l)`, image after image.
    ///
    /// # Errors
    /// As [`decrypt`](Self::decrypt).
    #[cfg(test)]
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn decrypt_residues(&self, key: &SecretKey) -> Result<zeroize::Zeroizing<Vec<u64>>, Error> {
        self.decryption(key)?.finish_residues()
    }

    fn decryption(&self, key: &SecretKey) -> Result<Decryption, Error> {
        let mut decryption = Decryption::new(&self.key, self.header.clone())?;
        decryption.push(0, &EncChunk::new(self.key.clone(), self.ciphertexts.clone()), key)?;
        Ok(decryption)
    }

    /// Returns the tensor as the input of another map that reads the same columns, such as one [to some of the
    /// outputs](LinearMap::to_outputs).
    ///
    /// # Errors
    /// [`Error::Layout`] when it is im2col for a map with other columns.
    pub fn for_map(mut self, map: &Arc<LinearMap>) -> Result<Self, Error> {
        if let Arrangement::Patches(packed) = self.layout().arrangement()
            && !packed.has_inputs_of(map)
        {
            return Err(self.layout().misfit("another layer", "images, or im2col of the same columns"));
        }
        self.header.layout = self.header.layout.with_map(map);
        Ok(self)
    }

    /// Returns the same values under another shape with as many elements.
    ///
    /// # Errors
    /// [`Error::Shape`] when it has another number of elements.
    pub fn reshape(mut self, shape: Shape) -> Result<Self, Error> {
        if shape.elements() != self.shape().elements() {
            let (expected, found) = (self.shape().clone(), shape);
            return Err(Error::Shape { what: "reshaped tensor", expected, found });
        }
        self.header.shape = shape;
        Ok(self)
    }

    /// Returns the sum with another tensor of the same key, shape and layout.
    ///
    /// # Errors
    /// When they differ or the result could overflow its slots.
    pub fn add(&self, other: &Self) -> Result<Self, Error> {
        self.key.check_same(&other.key)?;
        if self.shape() != other.shape() {
            return Err(Error::Shape {
                what: "addend",
                expected: self.shape().clone(),
                found: other.shape().clone(),
            });
        }
        if self.batch() != other.batch() {
            return Err(Error::Count {
                what: "images of an addend",
                expected: self.batch(),
                found: other.batch(),
            });
        }
        if self.header.part != other.header.part {
            return Err(other.layout().misfit("addition", "the groups that its addend has"));
        }
        let contents = match (self.layout().contents(), other.layout().contents()) {
            (Contents::Integers(a), Contents::Integers(b)) => Contents::Integers(a.sum(b)?),
            _ => return Err(other.layout().misfit("addition", "the contents of its addend")),
        };
        let layout = self.layout().holding(contents)?;
        if !layout.adds_to(&other.layout().holding(contents)?) {
            return Err(other.layout().misfit("addition", "its addend is"));
        }
        let mut ciphertexts = self.ciphertexts.clone();
        self.key.ring().mul_assign(&mut ciphertexts, &other.ciphertexts);
        let longest = self.randomness_bits.max(other.randomness_bits);
        let sum = self.derive(ciphertexts, 1, (self.shape().clone(), layout));
        Ok(Self { randomness_bits: longest + 1, ..sum })
    }

    /// Returns the sum with a tensor in the clear; one image is added to each of a batch. Unused slots stay zero.
    ///
    /// # Errors
    /// When shapes or scales differ or the result could overflow its slots.
    pub fn add_plain(&self, plain: &FixedTensor) -> Result<Self, Error> {
        check_addend(self.shape(), self.batch(), plain)?;
        let Contents::Integers(format) = self.layout().contents() else {
            return Err(self.layout().misfit("addition of integers", "integers"));
        };
        if let Arrangement::Pieces(_) = self.layout().arrangement() {
            return Err(self.layout().misfit("addition of integers", "images or positions"));
        }
        let layout = self.layout().holding(Contents::Integers(format.sum(plain.format())?))?;
        let all = 0..self.ciphertexts.len();
        let plaintexts = layout.pack(plain.values(), self.header.extent(), all, self.key.ring().modulus());
        let ciphertexts = self.key.add_plaintexts(&self.ciphertexts, &plaintexts);
        Ok(self.derive(ciphertexts, 0, (self.shape().clone(), layout)))
    }

    /// Returns the same values with `stacked` units in a ciphertext: units are moved next to each other by multiplying
    /// with powers of two (Horner's rule). [`SlotLayout::most_stacked`] says how many fit.
    ///
    /// # Errors
    /// [`Error::Overflow`] when they do not fit, [`Error::Layout`] when units are stacked already.
    pub fn repack(self, stacked: usize) -> Result<Self, Error> {
        let layout = self.layout().with_stacked(stacked, self.key.size())?;
        if self.layout().stacked() != 1 {
            return Err(self.layout().misfit("repacking", "one unit a ciphertext"));
        }
        if stacked == 1 {
            return Ok(self);
        }
        let ring = self.key.ring();
        let units = self.ciphertexts.len();
        let shift = layout.width() * layout.slot_bits();
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
        Ok(self.derive(ciphertexts, moved + 1, (self.shape().clone(), layout)))
    }

    /// Returns the same values in fresh ciphertexts: each is multiplied with a random power of h that hides, to a
    /// statistical distance of 2^-64, how its own exponent came from those of the client's encryptions, even from the
    /// key's owner, who knows these and the group.
    pub fn rerandomize(self, rng: &mut dyn CryptoRng) -> Self {
        let fresh = self.key.hiding_exponents(rng, self.hiding()).powers();
        self.multiply_with(fresh)
    }

    /// Re-randomizes with factors that were made before; `rng` is used for others if those are of another key, not as
    /// many as there are ciphertexts, or too short to hide their exponents.
    pub fn rerandomize_with(self, fresh: HidingRandomizers, rng: &mut dyn CryptoRng) -> Self {
        let count = self.ciphertexts.len();
        let needed = self.key.parameters().least_hiding_exponent(self.randomness_bits);
        if self.key.check_same(&fresh.key).is_ok() && fresh.powers.len() == count && fresh.bits >= needed {
            self.multiply_with(fresh)
        } else {
            self.rerandomize(rng)
        }
    }

    fn hiding(&self) -> Hiding {
        Hiding::of(self.ciphertexts.len(), self.randomness_bits)
    }

    fn multiply_with(self, fresh: HidingRandomizers) -> Self {
        let ciphertexts = self.key.multiply(&self.ciphertexts, &fresh.powers);
        Self { ciphertexts, randomness_bits: fresh.bits, ..self }
    }

    /// Returns the same sums as numbers of which only the residue mod 2^l counts, to be [flooded](Self::flood): a masked value's
    /// weighted sums, for instance, which are no one else's to see.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the flood is not for integers as large as these, or their slots are too narrow for it;
    /// [`Error::Layout`] when the tensor holds residues already, or several inputs to a ciphertext.
    pub fn into_residues(mut self, flood: Flood) -> Result<Self, Error> {
        let Contents::Integers(format) = self.layout().contents() else {
            return Err(self.layout().misfit("reduction mod 2^l", "integers"));
        };
        if self.layout().fields() > 1 {
            return Err(self.layout().misfit("reduction mod 2^l", "one tap to a ciphertext"));
        }
        let flood = flood.check()?;
        let most = u128::from(flood.quotient) << flood.ring.bits();
        if u128::from(format.bound()) > most {
            return Err(Error::Overflow {
                needed_bits: format.slot_bits() - 1,
                available_bits: (127 - most.leading_zeros()) as usize,
            });
        }
        self.header.layout = self.layout().holding(Contents::Residues(flood))?;
        Ok(self)
    }

    /// Returns what may leave the server of sums mod 2^l: every sum plus its `bias` (one for each element of an image, or one
    /// for each value of the batch, mod 2^l, or none) plus a random multiple of 2^l. Then every slot is non-negative and its lowest l bits
    /// are the sum mod 2^l. The ciphertexts are yet to be [re-randomized](Self::rerandomize).
    ///
    /// # Errors
    /// [`Error::Count`] when there is not one bias for each element or value; [`Error::Layout`] when the slots hold integers.
    pub fn flood(&self, bias: &[u64], rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        let Contents::Residues(flood) = self.layout().contents() else {
            return Err(self.layout().misfit("flooding", "residues"));
        };
        let (expected, found) = (self.shape().elements(), bias.len());
        if ![0, expected, expected.saturating_mul(self.batch())].contains(&found) {
            return Err(Error::Count { what: "biases", expected, found });
        }
        let (extent, limbs) = (self.header.extent(), self.key.ring().limbs());
        let plaintexts = self.layout().floods((bias, flood), extent, limbs, rng);
        let ciphertexts = self.key.add_plaintexts(&self.ciphertexts, &plaintexts);
        Ok(self.derive(ciphertexts, 0, (self.shape().clone(), self.layout().clone())))
    }
}

impl SlotLayout {
    /// Whether slot by slot addition of tensors in these two layouts adds value to value.
    fn adds_to(&self, other: &Self) -> bool {
        let arrangements = match (self.arrangement(), other.arrangement()) {
            (Arrangement::Images, Arrangement::Images) => true,
            (Arrangement::Patches(a), Arrangement::Patches(b)) => a == b,
            // The masks of a combined reply would be added, too.
            (Arrangement::Positions(_), Arrangement::Positions(_)) if self.fields() > 1 => false,
            (Arrangement::Positions(a), Arrangement::Positions(b))
            | (Arrangement::Pieces(a), Arrangement::Pieces(b)) => a == b || a.has_outputs_of(b),
            _ => false,
        };
        let numbers = |layout: &Self| {
            let fields = (layout.fields(), layout.rows_of_reply());
            (layout.slot_bits(), layout.width(), layout.stacked(), fields)
        };
        arrangements && numbers(self) == numbers(other)
    }
}
