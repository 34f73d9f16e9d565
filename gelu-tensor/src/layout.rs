//! Where the values of an encrypted tensor lie, and what its slots hold: everything about a packed plaintext that is
//! public.

mod fields;

use std::fmt;
use std::sync::Arc;

use num_integer::Integer;

use self::fields::Fields;
pub use self::fields::Masks;
use crate::paillier::KeyBits;
use crate::{Block, Error, Flood, Format, LinearMap, Shape};

/// What the slots of one unit of ciphertext run over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrangement {
    /// Images: a unit is one element of the tensor for a group of images (for a single one: one value a ciphertext).
    Images,
    /// The columns of a map's blocks, of all images, where a unit is one tap: im2col, for the input of the map. Values
    /// that several columns read are there several times.
    Patches(Arc<LinearMap>),
    /// The columns of a map's blocks, of all images, where a unit is one row: what the map makes of patches.
    Positions(Arc<LinearMap>),
    /// What a map makes of patches with several taps to a ciphertext: a unit is one row, and has as many ciphertexts. They
    /// become positions when they are [combined](crate::EncTensor::combine).
    Pieces(Arc<LinearMap>),
}

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Signed integers.
    Integers(Format),
    /// Sums of which only the residue mod 2^l counts, and which are flooded before anybody sees them.
    Residues(Flood),
}

impl Contents {
    /// Returns the bits of the narrowest slot that holds every such value.
    pub fn slot_bits(self) -> usize {
        match self {
            Self::Integers(format) => format.slot_bits(),
            Self::Residues(flood) => flood.slot_bits(),
        }
    }

    /// Returns the format of integers.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Integers(format) => Some(format),
            Self::Residues(_) => None,
        }
    }
}

/// Where each value of an encrypted tensor lies (which ciphertext, which slot) and what the slots hold.
///
/// The values run in groups of at most `width` (images, or columns of all images); a unit is one element, tap or row for
/// one group and fills `width` slots; `stacked` units share a ciphertext. Units are ordered by group, then by block, then
/// by tap or row. Several taps of a block can share a ciphertext as fields, far enough apart for the products that a map
/// makes of them ([`with_fields`](Self::with_fields)).
///
/// ```
/// use gelu_tensor::paillier::KeyBits;
/// use gelu_tensor::{Contents, Format, Packing, Shape, SlotLayout};
///
/// let format = Format::integers(100)?;
/// let packing = Packing { batch: 60, slot_bits: format.slot_bits(), key: KeyBits::Bits2048 };
/// let layout = SlotLayout::images(packing, Contents::Integers(format))?;
/// // All sixty images share a ciphertext for each of three elements.
/// assert_eq!(layout.ciphertexts(60, &Shape::from([3])), 3);
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotLayout {
    arrangement: Arrangement,
    contents: Contents,
    slot_bits: usize,
    width: usize,
    stacked: usize,
    fields: Fields,
}

/// The sizes that a layout is applied to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Images.
    batch: usize,
    /// Elements of one image (of the clear tensor).
    elements: usize,
    /// The groups that are there, if not all of the batch are.
    part: Option<Groups>,
}

impl Extent {
    /// A whole batch.
    pub(crate) fn new(batch: usize, shape: &Shape) -> Self {
        Self { batch, elements: shape.elements(), part: None }
    }

    /// Some groups of a batch.
    pub(crate) fn part(self, part: Option<Groups>) -> Self {
        Self { part, ..self }
    }
}

/// A run of the groups that a layout cuts a batch into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// How many of what a layout packs, and under which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Images of a batch.
    pub batch: usize,
    /// Bits of a slot.
    pub slot_bits: usize,
    /// Size of the key.
    pub key: KeyBits,
}

impl Packing {
    /// Slots of one plaintext.
    fn slots(self) -> Result<usize, Error> {
        let available_bits = self.key.slot_capacity_bits();
        match available_bits / self.slot_bits.max(1) {
            0 => Err(Error::Overflow { needed_bits: self.slot_bits, available_bits }),
            slots => Ok(slots),
        }
    }

    /// A layout with groups of equal size as far as they go, for `run` values.
    fn layout(self, arrangement: Arrangement, contents: Contents, run: usize) -> Result<SlotLayout, Error> {
        if run == 0 {
            return Err(Error::TooFew { what: "images of a batch", least: 1, found: 0 });
        }
        let slot_bits = self.slot_bits;
        if slot_bits > SlotLayout::MAX_SLOT_BITS {
            let available_bits = SlotLayout::MAX_SLOT_BITS;
            return Err(Error::Overflow { needed_bits: slot_bits, available_bits });
        }
        let width = run.div_ceil(run.div_ceil(self.slots()?));
        let fields = Fields::ONE;
        SlotLayout { arrangement, contents, slot_bits, width, stacked: 1, fields }.holding(contents)
    }
}

impl SlotLayout {
    /// The widest slots.
    pub(crate) const MAX_SLOT_BITS: usize = 128;

    /// Returns slots that are the images of a batch, in groups of equal size as far as they go.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a plaintext of the key has no room for one slot, or a slot none for the contents;
    /// [`Error::Count`] for an empty batch.
    pub fn images(packing: Packing, contents: Contents) -> Result<Self, Error> {
        packing.layout(Arrangement::Images, contents, packing.batch)
    }

    /// Returns slots that are the columns of a map's blocks, of all images: im2col, for the map's input.
    ///
    /// # Errors
    /// As [`images`](Self::images); [`Error::Layout`] when the blocks have not all as many columns, or leave an output
    /// out.
    pub fn patches(map: &Arc<LinearMap>, packing: Packing, contents: Contents) -> Result<Self, Error> {
        let columns = map.columns().ok_or_else(|| Error::Layout {
            operation: "im2col",
            expected: "a map of all its outputs whose blocks have equally many columns",
            found: "one whose blocks differ or leave an output out".to_owned(),
        })?;
        packing.layout(Arrangement::Patches(map.clone()), contents, packing.batch.saturating_mul(columns))
    }

    /// Returns where a map puts what it makes of a tensor in this layout.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the slots do not hold the contents; [`Error::Layout`] when the map needs another layout.
    pub fn after(&self, map: &Arc<LinearMap>, contents: Contents) -> Result<Self, Error> {
        let arrangement = match &self.arrangement {
            Arrangement::Images => Arrangement::Images,
            Arrangement::Patches(packed) if packed == map && self.fields() > 1 => {
                Arrangement::Pieces(map.clone())
            }
            Arrangement::Patches(packed) if packed == map => Arrangement::Positions(map.clone()),
            _ => return Err(self.misfit("a linear layer", "images, or im2col of the same layer")),
        };
        if self.stacked != 1 {
            return Err(self.misfit("a linear layer", "one unit a ciphertext"));
        }
        if self.fields() > 1 && contents.format().is_none() {
            return Err(self.misfit("a product mod 2^l", "one tap to a ciphertext"));
        }
        Self { arrangement, ..self.clone() }.holding(contents)
    }

    /// Returns the same slots for another map with the same columns, such as one [to some of the
    /// outputs](LinearMap::to_outputs).
    #[must_use]
    pub fn with_map(&self, map: &Arc<LinearMap>) -> Self {
        let arrangement = match &self.arrangement {
            Arrangement::Images => Arrangement::Images,
            Arrangement::Patches(_) => Arrangement::Patches(map.clone()),
            Arrangement::Positions(_) => Arrangement::Positions(map.clone()),
            Arrangement::Pieces(_) => Arrangement::Pieces(map.clone()),
        };
        Self { arrangement, ..self.clone() }
    }

    /// Returns the same slots with other contents.
    ///
    /// # Errors
    /// [`Error::Overflow`] when they do not hold them.
    pub(crate) fn holding(&self, contents: Contents) -> Result<Self, Error> {
        let (needed_bits, available_bits) = (contents.slot_bits(), self.slot_bits);
        if needed_bits > available_bits {
            return Err(Error::Overflow { needed_bits, available_bits });
        }
        Ok(Self { contents, ..self.clone() })
    }

    /// Returns the same units with `stacked` of them in each ciphertext.
    ///
    /// # Errors
    /// [`Error::Overflow`] when they do not fit; [`Error::TooFew`] when it is zero; [`Error::Layout`] when several taps
    /// share a ciphertext, which says already how many rows do.
    pub fn with_stacked(&self, stacked: usize, key: KeyBits) -> Result<Self, Error> {
        if stacked == 0 {
            return Err(Error::TooFew { what: "units of a ciphertext", least: 1, found: 0 });
        }
        if self.fields() > 1 {
            return Err(self.misfit("stacking", "one tap to a ciphertext"));
        }
        let needed_bits = stacked.saturating_mul(self.width * self.slot_bits);
        let available_bits = key.slot_capacity_bits();
        if needed_bits > available_bits {
            return Err(Error::Overflow { needed_bits, available_bits });
        }
        Ok(Self { stacked, ..self.clone() })
    }

    /// Returns the number of units that fit into one ciphertext.
    pub fn most_stacked(&self, key: KeyBits) -> usize {
        (key.slot_capacity_bits() / (self.slot_bits * self.width)).max(1)
    }

    /// Checks that a layout fits a key and a tensor.
    pub(crate) fn check(&self, key: KeyBits, shape: &Shape) -> Result<(), Error> {
        let elements = match &self.arrangement {
            Arrangement::Images => shape.elements(),
            Arrangement::Patches(map) => map.input().elements(),
            Arrangement::Positions(map) | Arrangement::Pieces(map) => map.output().elements(),
        };
        if elements != shape.elements() || elements == 0 {
            return Err(self.misfit("an encrypted tensor", "slots that match the tensor's shape"));
        }
        match self.fields() {
            1 => self.with_stacked(self.stacked, key).map(drop),
            _ => self.check_fields(key),
        }
    }

    pub(crate) fn misfit(&self, operation: &'static str, expected: &'static str) -> Error {
        Error::Layout { operation, expected, found: self.to_string() }
    }

    /// Returns what slots run over.
    pub fn arrangement(&self) -> &Arrangement {
        &self.arrangement
    }

    /// Returns what slots hold.
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Returns the bits of one slot, its sign included.
    pub fn slot_bits(&self) -> usize {
        self.slot_bits
    }

    /// Returns the slots of one unit.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the units of one ciphertext.
    pub fn stacked(&self) -> usize {
        self.stacked
    }

    /// Returns the number of groups that a batch is cut into: runs of [`width`](Self::width) of its images, or of the columns of
    /// all of them.
    pub fn groups(&self, batch: usize) -> usize {
        self.run(batch).div_ceil(self.width)
    }

    /// The groups that are there.
    pub(crate) fn groups_of(&self, extent: Extent) -> usize {
        extent.part.map_or_else(|| self.groups(extent.batch), |part| part.count)
    }

    /// Units of one group.
    pub(crate) fn units_per_group(&self, extent: Extent) -> usize {
        match &self.arrangement {
            Arrangement::Images => extent.elements,
            Arrangement::Patches(map) => map.blocks().iter().map(|block| block.taps()).sum(),
            Arrangement::Positions(map) | Arrangement::Pieces(map) => {
                map.blocks().iter().map(|block| block.rows()).sum()
            }
        }
    }

    /// Returns the number of ciphertexts that a tensor of `batch` images of `shape` takes.
    pub fn ciphertexts(&self, batch: usize, shape: &Shape) -> usize {
        self.count(Extent::new(batch, shape))
    }

    pub(crate) fn units(&self, extent: Extent) -> usize {
        self.groups_of(extent).saturating_mul(self.units_per_group(extent))
    }

    pub(crate) fn count(&self, extent: Extent) -> usize {
        match &self.arrangement {
            Arrangement::Patches(map) if self.fields() > 1 => {
                self.groups_of(extent).saturating_mul(self.packs(map))
            }
            Arrangement::Pieces(_) => self.units(extent).saturating_mul(self.fields()),
            _ => self.units(extent).div_ceil(self.stacked),
        }
    }

    /// Images times columns.
    fn run(&self, batch: usize) -> usize {
        batch.saturating_mul(self.columns())
    }

    /// Values of one image that a unit has.
    fn columns(&self) -> usize {
        match &self.arrangement {
            Arrangement::Images => 1,
            Arrangement::Patches(map) | Arrangement::Positions(map) | Arrangement::Pieces(map) => {
                map.columns().unwrap_or(1)
            }
        }
    }

    /// Returns the fewest groups of a tensor of `shape` that share no ciphertext with others: runs of so many can be worked on
    /// by themselves.
    pub fn groups_apart(&self, shape: &Shape) -> usize {
        let units = self.units_per_group(Extent::new(1, shape));
        self.stacked / self.stacked.gcd(&units).max(1)
    }

    /// Calls `place` for every slot of a unit that holds a value or padding, with the place of the value in the clear
    /// tensor.
    pub(crate) fn each_slot(&self, extent: Extent, unit: usize, mut place: impl FnMut(usize, Option<usize>)) {
        let units = self.units_per_group(extent);
        let group = unit / units + extent.part.map_or(0, |part| part.first);
        let (first, unit) = (group * self.width, unit % units);
        let element: &dyn Fn(usize) -> Option<usize> = match &self.arrangement {
            Arrangement::Images => &|_| Some(unit),
            Arrangement::Patches(map) => {
                let (block, tap) = locate(map, unit, |block| block.taps());
                &move |column| map.blocks()[block].input(column, tap)
            }
            Arrangement::Positions(map) | Arrangement::Pieces(map) => {
                let (block, row) = locate(map, unit, |block| block.rows());
                &move |column| Some(map.blocks()[block].output(column, row))
            }
        };
        let columns = self.columns();
        let (mut image, mut column) = (first / columns, first % columns);
        for slot in 0..self.width.min(self.run(extent.batch) - first) {
            place(slot, element(column).map(|element| image * extent.elements + element));
            column += 1;
            if column == columns {
                (image, column) = (image + 1, 0);
            }
        }
    }
}

/// The block of a unit within a group, and which of its taps or rows it is.
fn locate(map: &LinearMap, unit: usize, units: impl Fn(&Block) -> usize) -> (usize, usize) {
    let mut rest = unit;
    for (at, block) in map.blocks().iter().enumerate() {
        match rest.checked_sub(units(block)) {
            Some(left) => rest = left,
            None => return (at, rest),
        }
    }
    (0, 0)
}

/// Prints `im2col, 60 slots of 33 bits`, and with several taps to a ciphertext `im2col, 4 fields of 16 slots of 22 bits`.
impl fmt::Display for SlotLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.width * self.stacked;
        match &self.arrangement {
            Arrangement::Images if self.width == 1 => write!(f, "one image")?,
            Arrangement::Images => write!(f, "batch of {}", self.width)?,
            Arrangement::Patches(_) => write!(f, "im2col")?,
            Arrangement::Positions(_) => write!(f, "positions")?,
            Arrangement::Pieces(_) => write!(f, "pieces")?,
        }
        if self.fields() > 1 && matches!(self.arrangement, Arrangement::Patches(_)) {
            write!(f, ", {} fields of", self.fields())?;
        } else {
            write!(f, ",")?;
        }
        write!(f, " {slots} slot{} of {} bits", if slots == 1 { "" } else { "s" }, self.slot_bits)
    }
}
