//! Values that are corrected by a multiple of others.

use super::EncTensor;
use crate::arith::Operations;
use crate::{Contents, Error, Format};

impl EncTensor {
    /// Returns the operations mod n^2 that [`scaled`](Self::scaled) takes for each ciphertext.
    pub fn scaling(bits: u32) -> Operations {
        let steps = u64::from(bits.saturating_sub(1));
        Operations { products: steps, squarings: steps }
    }

    /// Returns the values times a number below 2^`bits`. The operations are the same whatever it is (squaring and always
    /// multiplying); what they read is not.
    ///
    /// # Errors
    /// [`Error::Value`] when the number has more bits; [`Error::Overflow`] when the values could leave their slots;
    /// [`Error::Layout`] when these hold residues.
    pub fn scaled(&self, factor: u64, bits: u32) -> Result<Self, Error> {
        let Contents::Integers(format) = self.layout().contents() else {
            return Err(self.layout().misfit("multiplication with a number", "integers"));
        };
        if !(1..=32).contains(&bits) || factor >> bits != 0 {
            return Err(Error::Value { index: 0, bound: (1u64 << bits.min(32)) - 1 });
        }
        let scaled = Format::integers(format.bound().saturating_mul((1 << bits) - 1))?;
        let layout =
            self.layout().holding(Contents::Integers(scaled.with_scale_bits(format.scale_bits())?))?;
        let ring = self.key.ring();
        let ciphertexts = self.key.in_parallel(self.ciphertexts.len(), |range| {
            let ones = ring.ones(range.len());
            let own = self.ciphertexts.gather(range);
            let of = |bit: u32| if factor >> bit & 1 == 1 { &own } else { &ones };
            let mut powers = of(bits - 1).clone();
            for bit in (0..bits - 1).rev() {
                ring.square_assign(&mut powers, 1);
                ring.mul_assign(&mut powers, of(bit));
            }
            powers
        });
        Ok(self.derive(ciphertexts, bits as usize, (self.shape().clone(), layout)))
    }

    /// Returns the same values with a bound that is stated to be larger: what both sides have agreed on.
    ///
    /// # Errors
    /// [`Error::Limit`] when the values could exceed it; [`Error::Overflow`] when it exceeds their slots; [`Error::Scale`] when it has another scale;
    /// [`Error::Layout`] when the slots hold residues.
    pub fn bounded_by(mut self, format: Format) -> Result<Self, Error> {
        let Contents::Integers(own) = self.layout().contents() else {
            return Err(self.layout().misfit("a bound", "integers"));
        };
        let (expected, found) = (format.scale_bits(), own.scale_bits());
        if expected != found {
            return Err(Error::Scale { expected, found });
        }
        let [limit, found] = [format.bound(), own.bound()].map(|bound| bound as usize);
        if found > limit {
            return Err(Error::Limit { what: "bound of a tensor's values", limit, found });
        }
        self.header.layout = self.layout().holding(Contents::Integers(format))?;
        Ok(self)
    }
}
