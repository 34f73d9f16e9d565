//! Several taps to a ciphertext, as fields: how far they lie apart, and what hides the cross terms of their products.
//!
//! With p fields D bits apart a ciphertext holds the polynomial `sum x_i X^i` at `X = 2^D`. A row's weights make
//! `sum w_(p-1-i) X^i`, and the middle coefficient of the product is the sum of all `w_i x_i`. The other `2 p - 2`
//! coefficients are cross terms: sums that the client has no claim to. docs/arithmetic.md, section 9, derives the bounds.

use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{Extent, locate};
use crate::arith::Operations;
use crate::arith::limbs::{add_assign, set_bits};
use crate::paillier::{KeyBits, PublicKey};
use crate::{Arrangement, Block, EncTensorHeader, Error, LinearMap, SlotLayout};

/// Bits by which a random number is longer than what it hides: cross terms stay within a statistical distance of 2^-40.
const HIDING_BITS: usize = 40;

/// Bits between the slots of a field and the next field: room for a random number and for its sum with a cross term.
const GAP_BITS: usize = HIDING_BITS + 1;

/// How many taps share a ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) count: usize,
    /// Rows whose sums share a ciphertext of the reply. Their slots lie side by side in the middle field.
    pub(crate) rows: usize,
}

impl Fields {
    /// A tap to a ciphertext, and no cross terms.
    pub(crate) const ONE: Self = Self { count: 1, rows: 1 };
}

impl SlotLayout {
    /// Returns the same im2col layout with `count` taps of a block in each ciphertext, for replies with the sums of
    /// `rows` rows each.
    ///
    /// # Errors
    /// [`Error::Layout`] when this is not im2col with one tap to a ciphertext; [`Error::TooFew`] when a count is zero;
    /// [`Error::Overflow`] when the products do not fit the key.
    pub fn with_fields(&self, count: usize, rows: usize, key: KeyBits) -> Result<Self, Error> {
        for (what, found) in [("taps of a ciphertext", count), ("rows of a reply", rows)] {
            if found == 0 {
                return Err(Error::TooFew { what, least: 1, found });
            }
        }
        if !matches!(self.arrangement(), Arrangement::Patches(_)) || self.fields() > 1 {
            return Err(self.misfit("packing of inputs", "im2col, one tap to a ciphertext"));
        }
        if count == 1 {
            return Ok(self.clone());
        }
        let packed = Self { fields: Fields { count, rows }, ..self.clone() };
        packed.check_fields(key)?;
        Ok(packed)
    }

    /// Returns where the pieces of a product lie once they are [combined](crate::EncTensor::combine).
    ///
    /// # Errors
    /// [`Error::Layout`] when these are not pieces.
    pub fn combined(&self) -> Result<Self, Error> {
        match &self.arrangement {
            Arrangement::Pieces(map) => {
                let arrangement = Arrangement::Positions(map.clone());
                Ok(Self { arrangement, stacked: self.fields.rows, ..self.clone() })
            }
            _ => Err(self.misfit("combining", "pieces of a product")),
        }
    }

    /// Returns the taps of a block that share a ciphertext of a map's input: more than one where they are fields.
    pub fn fields(&self) -> usize {
        self.fields.count
    }

    /// Checks that a product of all fields fits the key.
    pub(crate) fn check_fields(&self, key: KeyBits) -> Result<(), Error> {
        let (needed_bits, available_bits) = (self.product_bits(), key.slot_capacity_bits());
        if needed_bits > available_bits {
            return Err(Error::Overflow { needed_bits, available_bits });
        }
        Ok(())
    }

    /// The bits from one field to the next.
    pub(crate) fn field_bits(&self) -> usize {
        self.row_bits().saturating_add(GAP_BITS)
    }

    /// The bits of a field's slots, for all rows of a reply.
    fn row_bits(&self) -> usize {
        self.rows_of_reply().saturating_mul(self.width() * self.slot_bits())
    }

    /// The first bit of the middle coefficient of a product.
    pub(crate) fn middle(&self) -> usize {
        match self.fields() {
            1 => 0,
            count => (count - 1) * self.field_bits(),
        }
    }

    /// The bits of a product of all fields with its cross terms hidden.
    pub(crate) fn product_bits(&self) -> usize {
        self.fields().saturating_mul(2).saturating_sub(1).saturating_mul(self.field_bits())
    }

    /// Returns the operations that one ciphertext of this layout took the server to move together: stacked units, and
    /// the fields of packed inputs. The squarings are also the bits by which the first of them was moved.
    pub fn moves(&self) -> Operations {
        let rows = self.stacked() - 1;
        let squarings = self.middle() + rows * self.width() * self.slot_bits();
        Operations { products: (self.fields() * self.stacked() - 1) as u64, squarings: squarings as u64 }
    }

    /// Rows whose sums share a ciphertext of the reply, where several taps share one of the input.
    pub(crate) fn rows_of_reply(&self) -> usize {
        self.fields.rows
    }

    /// Ciphertexts of one group of a map's input.
    pub(crate) fn packs(&self, map: &LinearMap) -> usize {
        map.blocks().iter().map(|block| self.packs_of(block)).sum()
    }

    /// Ciphertexts of one group of a block's input: its taps share them with no other block's.
    pub(crate) fn packs_of(&self, block: &Block) -> usize {
        block.taps().div_ceil(self.fields())
    }

    /// The units of a ciphertext, and the first bit of each.
    pub(crate) fn contained(
        &self,
        extent: Extent,
        ciphertext: usize,
    ) -> impl Iterator<Item = (usize, usize)> {
        let (first, count, distance) = match &self.arrangement {
            Arrangement::Patches(map) if self.fields() > 1 => {
                let packs = self.packs(map);
                let (group, pack) = (ciphertext / packs, ciphertext % packs);
                let (at, pack) = locate(map, pack, |block| self.packs_of(block));
                let before: usize = map.blocks()[..at].iter().map(Block::taps).sum();
                let tap = pack * self.fields();
                let first = group * self.units_per_group(extent) + before + tap;
                (first, self.fields().min(map.blocks()[at].taps() - tap), self.field_bits())
            }
            _ => {
                let first = ciphertext * self.stacked;
                (first, self.stacked.min(self.units(extent) - first), self.width * self.slot_bits)
            }
        };
        let start = match &self.arrangement {
            Arrangement::Positions(_) => self.middle(),
            _ => 0,
        };
        (0..count).map(move |at| (first + at, start + at * distance))
    }
}

/// Random numbers that hide the cross terms of one reply, each to be used once.
///
/// They are drawn before the products are computed, and added with the biases, so that no reply is without them. A reply
/// whose inputs came one to a ciphertext has no cross terms and needs none.
pub struct Masks {
    pub(crate) header: EncTensorHeader,
    pub(crate) plaintexts: Zeroizing<Vec<u64>>,
}

impl Masks {
    /// Returns masks for a reply with this header under a key.
    ///
    /// Each ciphertext gets a random number below its middle field and one above it, either uniform among 2^40 times as
    /// many values as the cross terms there can take. With them goes what makes these and the sums non-negative.
    ///
    /// # Errors
    /// When the header does not fit the key.
    pub fn draw(header: EncTensorHeader, key: &PublicKey, rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        let count = header.check(key.size())?;
        let (layout, limbs) = (&header.layout, key.size().limbs());
        if layout.fields() == 1 {
            return Ok(Self { header, plaintexts: Zeroizing::new(vec![]) });
        }
        let (field, middle) = (layout.field_bits(), layout.middle());
        let above = middle + layout.row_bits();
        // Powers of two that no sum of the cross terms of one side exceeds: added, they leave nothing negative.
        let bounds = [middle - GAP_BITS, above + middle];
        let mut offset = layout.half_ranges(limbs);
        bounds.into_iter().for_each(|bit| offset[bit / 64] |= 1 << (bit % 64));
        let runs = [(0, middle - GAP_BITS + HIDING_BITS), (above, middle + HIDING_BITS)];
        debug_assert_eq!(runs[1].0 + runs[1].1 + 1, 2 * middle + field);
        let mut plaintexts = Zeroizing::new(vec![0; count * limbs]);
        for plaintext in plaintexts.chunks_exact_mut(limbs) {
            runs.into_iter().for_each(|run| fill(plaintext, run, rng));
            add_assign(plaintext, &offset);
        }
        Ok(Self { header, plaintexts })
    }
}

/// Random bits in a run of zeros, given its start and length.
fn fill(limbs: &mut [u64], (start, length): (usize, usize), rng: &mut dyn CryptoRng) {
    for done in (0..length).step_by(64) {
        let bits = rng.next_u64() >> 64usize.saturating_sub(length - done);
        set_bits(limbs, start + done, bits.into());
    }
}

/// Does not print the random numbers.
impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masks").field("header", &self.header).finish_non_exhaustive()
    }
}
