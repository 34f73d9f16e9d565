//! Pieces of products with packed inputs into replies: fields moved to their places, cross terms hidden.

use super::{EncTensor, EncTensorHeader};
use crate::{Error, Masks};

impl EncTensor {
    /// Returns the sums that the pieces of a product with [packed inputs](crate::SlotLayout::with_fields) make together:
    /// the fields are moved to their places (Horner's rule), and the masks hide everything but the sums. The ciphertexts
    /// are yet to be [re-randomized](Self::rerandomize).
    ///
    /// # Errors
    /// [`Error::Layout`] when these are not pieces, or the masks were drawn for another reply.
    pub fn combine(self, masks: Masks) -> Result<Self, Error> {
        let layout = self.layout().combined()?;
        let header = EncTensorHeader { layout, ..self.header.clone() };
        // Biases may be added later, so that the masks' slots hold more.
        let fitting = EncTensorHeader {
            layout: masks.header.layout.holding(header.layout.contents())?,
            ..masks.header.clone()
        };
        if fitting != header {
            return Err(header.layout.misfit("hiding cross terms", "its masks were drawn for"));
        }
        let (ring, layout) = (self.key.ring(), header.layout);
        let (fields, rows) = (layout.fields(), layout.stacked());
        let row_bits = layout.width() * layout.slot_bits();
        // What is missing of the last ciphertext's rows is an encryption of zero.
        let mut pieces = self.ciphertexts.clone();
        let zero = pieces.len();
        pieces.append(&ring.ones(1));
        let combined = self.key.in_parallel(layout.count(self.header.extent()), |replies| {
            // From the highest field to the lowest, and within each from the last row to the first.
            let of = |row: usize, field: usize| {
                let at = replies.clone().map(move |reply| (reply * rows + row) * fields + field);
                pieces.gather(at.map(|at| at.min(zero)))
            };
            let mut sums = of(rows - 1, fields - 1);
            for at in (0..fields * rows - 1).rev() {
                let (field, row) = (at / rows, at % rows);
                let distance = if row + 1 < rows { row_bits } else { layout.field_bits() - row * row_bits };
                ring.square_assign(&mut sums, distance);
                ring.mul_assign(&mut sums, &of(row, field));
            }
            sums
        });
        let hidden = self.key.add_plaintexts(&combined, &masks.plaintexts);
        let moved = layout.moves().squarings as usize;
        Ok(self.derive(hidden, moved + 1, (self.shape().clone(), layout)))
    }
}
