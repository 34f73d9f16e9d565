use std::fmt;
use std::ops::Range;

use num_integer::Integer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::arith::limbs::{BitRange, add_assign, bits, conditional_assign, less_than, sub_into};
use crate::paillier::KeyBits;
use crate::{Error, Format, Shape, WindowTap, Windows};

/// What the slots of one unit of ciphertext run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Arrangement {
    /// Images: a unit is one element of the tensor for a group of images (for a single one: one value a ciphertext).
    Images,
    /// Window positions of all images, where a unit is one tap of the window: im2col, for the input of a convolution.
    Patches(Windows),
    /// Window positions of all images, where a unit is one channel: what a convolution makes of patches.
    Positions {
        /// Positions in one image.
        count: usize,
    },
}

/// Where each value of an encrypted tensor lies: which ciphertext, which slot.
///
/// The values run in groups of at most `width` (images or positions); a unit is one element, tap or channel for one
/// group and fills `width` slots; `stacked` units share a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotLayout {
    /// What slots run over.
    pub arrangement: Arrangement,
    /// Bits of one slot, its sign included.
    pub slot_bits: usize,
    /// Slots of one unit.
    pub width: usize,
    /// Units in one ciphertext.
    pub stacked: usize,
}

/// Where a slot's value lies in the clear tensor.
struct Place {
    image: usize,
    element: usize,
}

/// The sizes that a layout is applied to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Images.
    pub(crate) batch: usize,
    /// Elements of one image (of the clear tensor).
    pub(crate) elements: usize,
}

impl Extent {
    pub(crate) fn new(batch: usize, shape: &Shape) -> Self {
        Self { batch, elements: shape.elements() }
    }
}

impl SlotLayout {
    /// One value a ciphertext.
    pub fn one_value(slot_bits: usize) -> Self {
        Self { arrangement: Arrangement::Images, slot_bits, width: 1, stacked: 1 }
    }

    /// Slots are the images of a batch, in groups of equal size as far as they go.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a plaintext of `key` has no room for one slot.
    pub fn batch(slot_bits: usize, batch: usize, key: KeyBits) -> Result<Self, Error> {
        let width = group_width(batch, slots(slot_bits, key)?);
        Ok(Self { arrangement: Arrangement::Images, slot_bits, width, stacked: 1 })
    }

    /// Slots are the window positions of all images: im2col.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a plaintext of `key` has no room for one slot.
    pub fn im2col(windows: Windows, slot_bits: usize, batch: usize, key: KeyBits) -> Result<Self, Error> {
        let width = group_width(batch * windows.positions(), slots(slot_bits, key)?);
        Ok(Self { arrangement: Arrangement::Patches(windows), slot_bits, width, stacked: 1 })
    }

    /// The same units with `stacked` of them in each ciphertext.
    pub fn with_stacked(self, stacked: usize) -> Self {
        Self { stacked, ..self }
    }

    /// How many units fit into one ciphertext.
    ///
    /// # Errors
    /// [`Error::Overflow`] when not even one does.
    pub fn most_stacked(self, key: KeyBits) -> Result<usize, Error> {
        match slots(self.slot_bits, key)? / self.width.max(1) {
            0 => Err(Error::Overflow {
                needed_bits: self.slot_bits * self.width,
                available_bits: key.slot_capacity_bits(),
            }),
            most => Ok(most),
        }
    }

    /// Checks that a layout from outside fits a key and a tensor, so that nothing below can overflow.
    ///
    /// # Errors
    /// [`Error::Overflow`] or [`Error::Layout`].
    pub fn check(self, key: KeyBits, shape: &Shape) -> Result<Self, Error> {
        let used = self.width.checked_mul(self.stacked).and_then(|slots| slots.checked_mul(self.slot_bits));
        let available_bits = key.slot_capacity_bits();
        if self.width == 0 || self.stacked == 0 || !(2..=63).contains(&self.slot_bits) {
            return Err(self.misfit("slots of 2 to 63 bits"));
        }
        if used.is_none_or(|used| used > available_bits) {
            return Err(Error::Overflow { needed_bits: used.unwrap_or(usize::MAX), available_bits });
        }
        let fits = match self.arrangement {
            Arrangement::Images => true,
            Arrangement::Patches(windows) => {
                windows.window().over(windows.input()) == Ok(windows)
                    && shape == &Shape::from(windows.input())
            }
            Arrangement::Positions { count } => count > 0 && shape.elements().is_multiple_of(count),
        };
        if fits { Ok(self) } else { Err(self.misfit("slots that match the tensor's shape")) }
    }

    /// Checks that slots hold the values of a format.
    pub(crate) fn check_format(self, format: Format) -> Result<(), Error> {
        let (needed_bits, available_bits) = (format.slot_bits(), self.slot_bits);
        if needed_bits > available_bits {
            return Err(Error::Overflow { needed_bits, available_bits });
        }
        Ok(())
    }

    fn misfit(self, expected: &'static str) -> Error {
        Error::Layout { operation: "an encrypted tensor", expected, found: format!("{self}") }
    }

    /// Runs of `width` values that the batch is cut into.
    pub(crate) fn groups(self, extent: Extent) -> usize {
        self.run(extent.batch).div_ceil(self.width)
    }

    /// Units of one group.
    pub(crate) fn units_per_group(self, extent: Extent) -> usize {
        match self.arrangement {
            Arrangement::Images => extent.elements,
            Arrangement::Patches(windows) => windows.taps(),
            Arrangement::Positions { count } => extent.elements / count,
        }
    }

    /// Ciphertexts that a tensor of `batch` images of `shape` takes.
    pub fn ciphertexts(self, batch: usize, shape: &Shape) -> usize {
        self.count(Extent::new(batch, shape))
    }

    pub(crate) fn count(self, extent: Extent) -> usize {
        self.groups(extent).saturating_mul(self.units_per_group(extent)).div_ceil(self.stacked)
    }

    /// Images times positions.
    fn run(self, batch: usize) -> usize {
        match self.arrangement {
            Arrangement::Images => batch,
            Arrangement::Patches(windows) => batch.saturating_mul(windows.positions()),
            Arrangement::Positions { count } => batch.saturating_mul(count),
        }
    }

    /// The value in a slot of a unit, `None` where the slot is unused or holds padding.
    fn place(self, extent: Extent, unit: usize, slot: usize) -> Option<Place> {
        let units = self.units_per_group(extent);
        let index = (unit / units) * self.width + slot;
        if index >= self.run(extent.batch) {
            return None;
        }
        let unit = unit % units;
        Some(match self.arrangement {
            Arrangement::Images => Place { image: index, element: unit },
            Arrangement::Patches(windows) => {
                let position = index % windows.positions();
                let element = windows.element(WindowTap { position, tap: unit })?;
                Place { image: index / windows.positions(), element }
            }
            Arrangement::Positions { count } => {
                Place { image: index / count, element: unit * count + index % count }
            }
        })
    }

    /// The fewest images that share no ciphertext with others: runs of so many can be worked on by themselves.
    pub fn images_apart(self) -> usize {
        let positions = self.run(1);
        (self.width / self.width.gcd(&positions).max(1)).saturating_mul(self.stacked).max(1)
    }

    /// Packs values (image-major) into the plaintexts of a run of ciphertexts, of `modulus`'s limbs each: `sum v_j
    /// 2^(j slot_bits) mod n`.
    pub(crate) fn pack(
        self,
        values: &[i64],
        extent: Extent,
        ciphertexts: Range<usize>,
        modulus: &[u64],
    ) -> Zeroizing<Vec<u64>> {
        let offset = self.offset(modulus.len());
        let units = self.groups(extent) * self.units_per_group(extent);
        let half = 1i64 << (self.slot_bits - 1);
        let mut out = Zeroizing::new(Vec::with_capacity(ciphertexts.len() * modulus.len()));
        for ciphertext in ciphertexts {
            // Every slot holds its value plus half its range; the halves are taken off all at once.
            let mut plaintext = offset.clone();
            for stack in 0..self.stacked.min(units - ciphertext * self.stacked) {
                for slot in 0..self.width {
                    let unit = ciphertext * self.stacked + stack;
                    let value = match self.place(extent, unit, slot) {
                        Some(Place { image, element }) => values[image * extent.elements + element],
                        None => 0,
                    };
                    let start = (stack * self.width + slot) * self.slot_bits;
                    let range = BitRange { start, width: self.slot_bits };
                    set_bits(&mut plaintext, range, (value + half) as u64);
                }
            }
            let mut difference = Zeroizing::new(vec![0; modulus.len()]);
            let negative = less_than(&plaintext, &offset);
            sub_into(&mut difference, &plaintext, &offset);
            let mut wrapped = difference.clone();
            add_assign(&mut wrapped, modulus);
            conditional_assign(&mut difference, &wrapped, negative);
            out.extend_from_slice(&difference);
        }
        out
    }

    /// Unpacks the plaintexts of a run of ciphertexts, from the one at `first` on, into their places among `values`,
    /// image-major; every element must have a slot.
    ///
    /// # Errors
    /// [`Error::Plaintext`] when a value is outside `format` or an unused slot holds anything.
    pub(crate) fn unpack(
        self,
        values: &mut [i64],
        (plaintexts, first): (&[u64], usize),
        extent: Extent,
        modulus: &[u64],
        format: Format,
    ) -> Result<(), Error> {
        let offset = self.offset(modulus.len());
        let units = self.groups(extent) * self.units_per_group(extent);
        let half = 1i64 << (self.slot_bits - 1);
        let used_bits = self.width * self.stacked * self.slot_bits;
        for (ciphertext, plaintext) in (first..).zip(plaintexts.chunks_exact(modulus.len())) {
            // Both are below n < 2^(64 limbs) and the offset below n / 2: one subtraction makes the sum canonical,
            // and a sum that wraps is no sum of slots.
            let error = Error::Plaintext { index: ciphertext };
            let mut shifted = Zeroizing::new(plaintext.to_vec());
            let carry = add_assign(&mut shifted, &offset);
            let mut reduced = Zeroizing::new(vec![0; modulus.len()]);
            let below = !carry && bool::from(less_than(&shifted, modulus));
            sub_into(&mut reduced, &shifted, modulus);
            let shifted = if below { shifted } else { reduced };
            if crate::arith::limbs::bit_length_vartime(&shifted) > used_bits {
                return Err(error);
            }
            for stack in 0..self.stacked {
                for slot in 0..self.width {
                    let unit = ciphertext * self.stacked + stack;
                    let start = (stack * self.width + slot) * self.slot_bits;
                    let value = bits(&shifted, BitRange { start, width: self.slot_bits }) as i64 - half;
                    let place = if unit < units { self.place(extent, unit, slot) } else { None };
                    match place {
                        Some(_) if value.unsigned_abs() > format.bound() => return Err(error),
                        Some(Place { image, element }) => values[image * extent.elements + element] = value,
                        None if value != 0 => return Err(error),
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Half of every slot's range.
    fn offset(self, limbs: usize) -> Vec<u64> {
        let mut offset = vec![0; limbs];
        for slot in 0..self.width * self.stacked {
            let bit = slot * self.slot_bits + self.slot_bits - 1;
            offset[bit / 64] |= 1 << (bit % 64);
        }
        offset
    }
}

/// Prints `im2col of 5x5 stride 1x1 padding 0x0, 60 slots of 33 bits`.
impl fmt::Display for SlotLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.arrangement {
            Arrangement::Images if self.width == 1 => write!(f, "one value")?,
            Arrangement::Images => write!(f, "batch of {}", self.width)?,
            Arrangement::Patches(windows) => write!(f, "im2col of {}", windows.window())?,
            Arrangement::Positions { .. } => write!(f, "positions")?,
        }
        write!(f, ", {} slots of {} bits", self.width * self.stacked, self.slot_bits)
    }
}

/// Slots that one plaintext has.
fn slots(slot_bits: usize, key: KeyBits) -> Result<usize, Error> {
    let available_bits = key.slot_capacity_bits();
    match available_bits / slot_bits.max(1) {
        0 => Err(Error::Overflow { needed_bits: slot_bits, available_bits }),
        slots => Ok(slots),
    }
}

/// The width of groups of equal size, as far as they go, for `run` values.
fn group_width(run: usize, slots: usize) -> usize {
    run.max(1).div_ceil(run.max(1).div_ceil(slots))
}

/// Overwrites a run of bits.
fn set_bits(limbs: &mut [u64], BitRange { start, width }: BitRange, value: u64) {
    let (limb, shift) = (start / 64, start % 64);
    let mask = (1u64 << width) - 1;
    limbs[limb] = (limbs[limb] & !(mask << shift)) | (value << shift);
    if shift + width > 64 {
        let moved = 64 - shift;
        limbs[limb + 1] = (limbs[limb + 1] & !(mask >> moved)) | (value >> moved);
    }
}
