//! Masked steps of weights under the server's key, multiplied by its encrypted learning rate.

use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::arith::limbs::set_bits;
use crate::arith::{Comb, Exponent};
use crate::chunk;
use crate::paillier::{Hiding, KeyBits, PublicKey, Randomizer, SecretKey};
use crate::{Contents, EncChunk, EncTensorHeader, Error, Flood, Packing, RingBits, Shape, SlotLayout};

/// How masked steps lie under the server's key: slots that hold the product of the server's secret rate and a client's
/// step, a mask mod 2^l and a random multiple of 2^l.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateLayout {
    /// l.
    pub ring: RingBits,
    /// Bits of the random multiples of 2^l.
    pub flood_bits: u32,
    /// Steps.
    pub steps: usize,
}

impl UpdateLayout {
    /// A step's absolute value is below this.
    pub const STEP_BOUND: i64 = 1 << 23;
    /// The most bits that a rate may have.
    pub(crate) const RATE_BITS: u32 = 8;
    /// The most bits of the random multiples, each of which is drawn at once.
    const MOST_FLOOD_BITS: u32 = 64;
    /// Bits of a step, offset so that it is not negative.
    const STEP_BITS: usize = 24;

    /// Bits of a slot.
    fn slot_bits(self) -> usize {
        (self.ring.bits() + self.flood_bits.max(1)) as usize + 1
    }

    /// Slots of a ciphertext.
    fn width(self, key: KeyBits) -> Result<usize, Error> {
        if self.flood_bits > Self::MOST_FLOOD_BITS {
            let (needed_bits, available_bits) = (self.flood_bits as usize, Self::MOST_FLOOD_BITS as usize);
            return Err(Error::Overflow { needed_bits, available_bits });
        }
        let (needed_bits, available_bits) = (self.slot_bits(), key.slot_capacity_bits());
        match available_bits / needed_bits {
            0 => Err(Error::Overflow { needed_bits, available_bits }),
            width => Ok(width),
        }
    }

    /// Returns the number of ciphertexts that the steps take.
    ///
    /// # Errors
    /// [`Error::Overflow`] when not even one slot fits.
    pub fn ciphertexts(self, key: KeyBits) -> Result<usize, Error> {
        Ok(self.steps.div_ceil(self.width(key)?))
    }

    /// Returns the header of the masked steps as a tensor: an image for each slot of a ciphertext, an element for each
    /// ciphertext.
    ///
    /// # Errors
    /// [`Error::Overflow`] when not even one slot fits.
    pub fn header(self, key: KeyBits) -> Result<EncTensorHeader, Error> {
        let batch = self.width(key)?;
        // The product of rate and step is below 2^32, and a mask below 2^l: the sum fits below the flooding's bits.
        let flood = Flood { ring: self.ring, quotient: 1, bits: self.flood_bits.max(1) - 1 };
        let packing = Packing { batch, slot_bits: self.slot_bits(), key };
        let layout = SlotLayout::images(packing, Contents::Residues(flood))?;
        Ok(EncTensorHeader::new(Shape::from([self.ciphertexts(key)?]), batch, layout))
    }

    /// Returns what the server reads of decrypted [residues](crate::Decryption::finish_residues): for each step the rate
    /// times it plus its mask, mod 2^l.
    ///
    /// # Errors
    /// [`Error::Count`] when they are not as many as there are slots.
    pub fn read(self, key: KeyBits, rate: u64, residues: &[u64]) -> Result<Zeroizing<Vec<u64>>, Error> {
        let (width, elements) = (self.width(key)?, self.ciphertexts(key)?);
        let expected = width.saturating_mul(elements);
        if residues.len() != expected {
            let found = residues.len();
            return Err(Error::Count { what: "masked steps", expected, found });
        }
        let offset = rate.wrapping_mul(Self::STEP_BOUND.unsigned_abs());
        // Slot by slot in the tensor, ciphertext by ciphertext in the steps.
        let step = |at: usize| residues[at % width * elements + at / width];
        Ok(Zeroizing::new((0..self.steps).map(|at| self.ring.wrap(step(at).wrapping_sub(offset))).collect()))
    }
}

/// The server's secret rate under its own key, with a table for its multiples: `[eta]_s`.
pub struct EncRate {
    key: PublicKey,
    layout: UpdateLayout,
    comb: Comb,
    width: usize,
}

impl EncRate {
    /// Encrypts a rate, which the server sends.
    ///
    /// # Errors
    /// [`Error::Value`] when it has more than 8 bits.
    pub fn encrypt(rate: u64, key: &SecretKey, rng: &mut dyn CryptoRng) -> Result<EncChunk, Error> {
        if rate >> UpdateLayout::RATE_BITS != 0 {
            return Err(Error::Value { index: 0, bound: (1 << UpdateLayout::RATE_BITS) - 1 });
        }
        let public = key.public_key();
        let mut plaintext = vec![0; public.ring().limbs()];
        plaintext[0] = rate;
        let ciphertext = public.add_plaintexts(&key.randomizers(rng, 1), &plaintext);
        Ok(EncChunk::new(public.clone(), ciphertext))
    }

    /// Returns what the client makes of it.
    ///
    /// # Errors
    /// [`Error::Count`] when it is not one ciphertext; [`Error::Overflow`] when no slot fits.
    pub fn new(rate: &EncChunk, layout: UpdateLayout) -> Result<Self, Error> {
        let found = rate.ciphertext_count();
        if found != 1 {
            return Err(Error::Count { what: "ciphertexts of a rate", expected: 1, found });
        }
        let key = rate.key().clone();
        let width = layout.width(key.size())?;
        let fields = [width, UpdateLayout::STEP_BITS, layout.slot_bits()];
        let comb = Comb::fields(key.ring(), rate.ciphertexts(), fields);
        Ok(Self { key, layout, comb, width })
    }

    /// Masks steps (Algorithm 3): `[rate step + mask]` for each, and the masks, uniform mod 2^l.
    ///
    /// # Errors
    /// [`Error::Count`] when the steps are not as many as the layout has; [`Error::Value`] when one is not below
    /// [`UpdateLayout::STEP_BOUND`] in absolute value.
    pub fn mask(
        &self,
        steps: &[i64],
        rng: &mut dyn CryptoRng,
    ) -> Result<(Vec<EncChunk>, Zeroizing<Vec<u64>>), Error> {
        let UpdateLayout { ring, flood_bits, steps: expected } = self.layout;
        if steps.len() != expected {
            return Err(Error::Count { what: "steps of an update", expected, found: steps.len() });
        }
        let bound = UpdateLayout::STEP_BOUND;
        if let Some(index) = steps.iter().position(|step| step.unsigned_abs() >= bound.unsigned_abs()) {
            return Err(Error::Value { index, bound: bound.unsigned_abs() - 1 });
        }
        let (limbs, slot_bits) = (self.key.ring().limbs(), self.layout.slot_bits());
        let masks = Zeroizing::new(steps.iter().map(|_| ring.wrap(rng.next_u64())).collect::<Vec<_>>());
        let count = steps.len().div_ceil(self.width);
        let mut exponents = Vec::with_capacity(count);
        let mut plaintexts = Zeroizing::new(vec![0; count * limbs]);
        let parts =
            steps.chunks(self.width).zip(masks.chunks(self.width)).zip(plaintexts.chunks_exact_mut(limbs));
        for ((steps, masks), plaintext) in parts {
            let bits = self.width * UpdateLayout::STEP_BITS;
            let mut exponent = vec![0; bits.div_ceil(64)];
            for slot in 0..self.width {
                // A slot without a step holds a mask as well: nothing tells it apart.
                let (step, mask) = match (steps.get(slot), masks.get(slot)) {
                    (Some(&step), Some(&mask)) => (step, mask),
                    _ => (0, ring.wrap(rng.next_u64())),
                };
                let (step, high) =
                    ((step + bound).unsigned_abs(), rng.next_u64() >> (64 - flood_bits.max(1)));
                set_bits(&mut exponent, slot * UpdateLayout::STEP_BITS, step.into());
                set_bits(plaintext, slot * slot_bits, mask.into());
                let high = if flood_bits == 0 { 0 } else { high };
                set_bits(plaintext, slot * slot_bits + ring.bits() as usize, high.into());
            }
            exponents.push(Exponent::new(exponent));
        }
        // The rate's own randomness is raised to the steps: what hides it must be longer than both together.
        let grown = self.key.parameters().encryption_exponent() + self.width * slot_bits;
        let hidden = self.key.hiding_exponents(rng, Hiding::of(count, grown)).powers();
        let powers = self.key.in_parallel(count, |range| self.comb.power(self.key.ring(), &exponents[range]));
        let ciphertexts = self.key.add_plaintexts(&self.key.multiply(&powers, &hidden.powers), &plaintexts);
        Ok((chunk::split(&self.key, &ciphertexts), masks))
    }
}

/// Does not print the table.
impl std::fmt::Debug for EncRate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncRate")
            .field("key", &self.key)
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}
