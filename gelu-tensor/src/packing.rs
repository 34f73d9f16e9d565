//! Values into the slots of plaintexts and back: `sum v_j 2^(j slot_bits) mod n`.

use std::ops::Range;

use rand::CryptoRng;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::arith::limbs::{
    BitRange, add_assign, bit_length_vartime, less_than, set_bits, sub_into, sub_mod, wide_bits,
};
use crate::layout::Extent;
use crate::{Contents, Error, Flood, SlotLayout};

impl SlotLayout {
    /// Packs values (image after image, or those of one image for each of them) into the plaintexts of a run of ciphertexts, of
    /// `modulus`'s limbs each.
    pub(crate) fn pack(
        &self,
        values: &[i64],
        extent: Extent,
        ciphertexts: Range<usize>,
        modulus: &[u64],
    ) -> Zeroizing<Vec<u64>> {
        let mut out = Zeroizing::new(vec![0; ciphertexts.len() * modulus.len()]);
        out.par_chunks_exact_mut(modulus.len()).zip(ciphertexts).for_each(|(plaintext, ciphertext)| {
            // The sum of the positive values and that of the others, apart from each other.
            let mut sums = [(); 2].map(|()| Zeroizing::new(vec![0; modulus.len()]));
            for (unit, start) in self.contained(extent, ciphertext) {
                self.each_slot(extent, unit, |slot, place| {
                    let value = place.map_or(0, |place| values[place % values.len()]);
                    let start = start + slot * self.slot_bits();
                    set_bits(&mut sums[0], start, value.max(0).unsigned_abs().into());
                    set_bits(&mut sums[1], start, value.min(0).unsigned_abs().into());
                });
            }
            sub_mod(plaintext, &sums[0], &sums[1], modulus);
        });
        out
    }

    /// Unpacks the plaintexts of a run of ciphertexts, from the one at `first` on, into their places among `values`,
    /// image after image; every element must have a slot. Residues are those in `[0, 2^l)`.
    ///
    /// # Errors
    /// [`Error::Plaintext`] when a plaintext is no sum of slots, a value is outside its format, or an unused slot of
    /// integers holds anything.
    pub(crate) fn unpack(
        &self,
        values: &mut [i64],
        (plaintexts, first): (&[u64], usize),
        extent: Extent,
        modulus: &[u64],
    ) -> Result<(), Error> {
        for (ciphertext, plaintext) in (first..).zip(plaintexts.chunks_exact(modulus.len())) {
            match self.contents() {
                Contents::Integers(format) => {
                    self.unpack_integers(values, (plaintext, ciphertext), extent, (modulus, format.bound()))?;
                }
                Contents::Residues(flood) => {
                    self.unpack_residues(values, (plaintext, ciphertext), extent, flood)?;
                }
            }
        }
        Ok(())
    }

    fn unpack_integers(
        &self,
        values: &mut [i64],
        (plaintext, ciphertext): (&[u64], usize),
        extent: Extent,
        (modulus, bound): (&[u64], u64),
    ) -> Result<(), Error> {
        let error = Error::Plaintext { index: ciphertext };
        // Every slot plus half its range is not negative. Both terms are below n < 2^(64 limbs) and the offset below
        // n / 2: one subtraction makes the sum canonical, and a sum that wraps is no sum of slots.
        // The masks of packed inputs have the offset in them already.
        let offset = match self.fields() {
            1 => self.half_ranges(modulus.len()),
            _ => vec![0; modulus.len()],
        };
        let mut shifted = Zeroizing::new(plaintext.to_vec());
        let carry = add_assign(&mut shifted, &offset);
        let mut reduced = Zeroizing::new(vec![0; modulus.len()]);
        let below = !carry && bool::from(less_than(&shifted, modulus));
        sub_into(&mut reduced, &shifted, modulus);
        let shifted = if below { shifted } else { reduced };
        if bit_length_vartime(&shifted) > self.used_bits() {
            return Err(error);
        }
        let width = self.slot_bits();
        let half = 1u128 << (width - 1);
        let value = |stack, slot| {
            let start = self.start(stack, slot);
            (wide_bits(&shifted, BitRange { start, width }) as i128).wrapping_sub(half as i128)
        };
        let units = self.units(extent);
        let mut good = true;
        for stack in 0..self.stacked() {
            let mut used = 0;
            if ciphertext * self.stacked() + stack < units {
                self.each_slot(extent, ciphertext * self.stacked() + stack, |slot, place| {
                    used = slot + 1;
                    let value = value(stack, slot);
                    let limit = if place.is_some() { bound } else { 0 };
                    good &= value.unsigned_abs() <= limit.into();
                    if let Some(place) = place {
                        values[place] = value as i64;
                    }
                });
            }
            good &= (used..self.width()).all(|slot| value(stack, slot) == 0);
        }
        if good { Ok(()) } else { Err(error) }
    }

    fn unpack_residues(
        &self,
        values: &mut [i64],
        (plaintext, ciphertext): (&[u64], usize),
        extent: Extent,
        flood: Flood,
    ) -> Result<(), Error> {
        if bit_length_vartime(plaintext) > self.used_bits() {
            return Err(Error::Plaintext { index: ciphertext });
        }
        let width = flood.ring.bits() as usize;
        let units = self.units(extent);
        for stack in 0..self.stacked().min(units - ciphertext * self.stacked()) {
            self.each_slot(extent, ciphertext * self.stacked() + stack, |slot, place| {
                if let Some(place) = place {
                    let start = self.start(stack, slot);
                    values[place] = wide_bits(plaintext, BitRange { start, width }) as u64 as i64;
                }
            });
        }
        Ok(())
    }

    /// The plaintexts that flood a whole tensor: in every slot a random multiple of 2^l, and the value's bias (one for
    /// each element of an image or for each value of the batch, mod 2^l, or none).
    pub(crate) fn floods(
        &self,
        (bias, flood): (&[u64], Flood),
        extent: Extent,
        limbs: usize,
        rng: &mut dyn CryptoRng,
    ) -> Zeroizing<Vec<u64>> {
        let units = self.units(extent);
        let mut plaintexts = Zeroizing::new(vec![0; self.count(extent) * limbs]);
        for (ciphertext, plaintext) in plaintexts.chunks_exact_mut(limbs).enumerate() {
            for stack in 0..self.stacked() {
                for slot in 0..self.width() {
                    // Reducing 128 random bits leaves a bias far below the distance that is asked for.
                    let draw = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
                    let multiple = u128::from(flood.quotient) + draw % flood.choices();
                    set_bits(plaintext, self.start(stack, slot) + flood.ring.bits() as usize, multiple);
                }
                let unit = ciphertext * self.stacked() + stack;
                if unit < units && !bias.is_empty() {
                    self.each_slot(extent, unit, |slot, place| {
                        let bias = place.map_or(0, |place| flood.ring.wrap(bias[place % bias.len()]));
                        set_bits(plaintext, self.start(stack, slot), bias.into());
                    });
                }
            }
        }
        plaintexts
    }

    /// The first bit of a slot of a tensor that is not a map's input.
    fn start(&self, stack: usize, slot: usize) -> usize {
        self.middle() + (stack * self.width() + slot) * self.slot_bits()
    }

    fn used_bits(&self) -> usize {
        match self.fields() {
            1 => self.start(self.stacked(), 0),
            _ => self.product_bits(),
        }
    }

    /// Half of every slot's range.
    pub(crate) fn half_ranges(&self, limbs: usize) -> Vec<u64> {
        let mut offset = vec![0; limbs];
        for slot in 0..self.width() * self.stacked() {
            let bit = self.start(0, slot + 1) - 1;
            offset[bit / 64] |= 1 << (bit % 64);
        }
        offset
    }
}
