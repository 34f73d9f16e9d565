use rand::CryptoRng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::map::Block;
use super::{RingBits, SparseMap, read_bits, write_bits};
use crate::arith::Residues;
use crate::arith::limbs::{add_assign, bit_length_vartime, conditional_assign, less_than, sub_into};
use crate::matmul::{self, Columns, Weights};
use crate::paillier::{KeyBits, PublicKey, Randomizer, SecretKey};
use crate::{EncChunk, Error, MatmulShape, WeightRange};

/// How a multiple of 2^l is added to a sum of at most `quotient` times 2^l in absolute value, so that it shows nothing
/// but its residue mod 2^l, to a statistical distance of 2^-`bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flood {
    /// l.
    pub ring: RingBits,
    /// Sums stay below this times 2^l in absolute value.
    pub quotient: u64,
    /// Bits of the statistical distance.
    pub bits: u32,
}

impl Flood {
    /// The largest quotient and the most bits.
    const MOST: (u64, u32) = (1 << 40, 64);

    /// Checks the sizes.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the quotient is zero or above 2^40, or the bits above 64.
    pub fn check(self) -> Result<Self, Error> {
        if (1..=Self::MOST.0).contains(&self.quotient) && self.bits <= Self::MOST.1 {
            return Ok(self);
        }
        let needed_bits = (64 - self.quotient.leading_zeros() + self.bits) as usize;
        Err(Error::Overflow { needed_bits, available_bits: (40 + Self::MOST.1) as usize })
    }

    /// How many multiples there are to draw from.
    fn choices(self) -> u128 {
        u128::from(self.quotient) << self.bits
    }

    /// Bits of a slot that holds a flooded sum.
    pub fn slot_bits(self) -> usize {
        // From -quotient to 2 quotient + choices, exclusively, after the lowest multiple is added.
        let most = self.choices() + 2 * u128::from(self.quotient);
        (self.ring.bits() + 128 - (most - 1).leading_zeros()) as usize
    }
}

/// Slots of any width whose values are images: a ciphertext holds one element of a vector for a group of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WideLayout {
    /// Images.
    pub batch: usize,
    /// Slots that are used of a ciphertext.
    pub width: usize,
    /// Bits of a slot.
    pub slot_bits: usize,
}

impl WideLayout {
    /// Groups of equal size as far as they go.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a plaintext of `key` has no room for one slot; [`Error::Count`] for an empty batch.
    pub fn new(slot_bits: usize, batch: usize, key: KeyBits) -> Result<Self, Error> {
        let available_bits = key.slot_capacity_bits();
        let most = available_bits / slot_bits.max(1);
        if most == 0 || slot_bits < 2 {
            return Err(Error::Overflow { needed_bits: slot_bits, available_bits });
        }
        if batch == 0 {
            return Err(Error::Count { what: "images of a batch", expected: 1, found: 0 });
        }
        Ok(Self { batch, width: batch.div_ceil(batch.div_ceil(most)), slot_bits })
    }

    /// Runs of `width` images.
    pub fn groups(self) -> usize {
        self.batch.div_ceil(self.width)
    }
}

/// A batch of vectors under encryption, group by group, one element a ciphertext.
#[derive(Clone, Debug)]
pub struct EncBatch {
    key: PublicKey,
    layout: WideLayout,
    elements: usize,
    ciphertexts: Residues,
    randomness_bits: usize,
}

impl EncBatch {
    /// Encrypts vectors of `elements` integers, image after image, none of which may need a slot's top bit.
    ///
    /// # Errors
    /// [`Error::Count`] when they are not as many as the layout has images; [`Error::Value`] when one is too large.
    pub fn encrypt(
        values: &[i64],
        elements: usize,
        layout: WideLayout,
        randomizer: &dyn Randomizer,
        rng: &mut dyn CryptoRng,
    ) -> Result<Self, Error> {
        let key = randomizer.public_key().clone();
        let expected = layout.batch.saturating_mul(elements);
        if values.len() != expected || values.is_empty() {
            return Err(Error::Count { what: "values of a batch", expected, found: values.len() });
        }
        let bound = (1u64 << (layout.slot_bits - 1).min(62)) - 1;
        if let Some(index) = values.iter().position(|value| value.unsigned_abs() > bound) {
            return Err(Error::Value { index, bound });
        }
        let modulus = key.ring().modulus();
        let plaintexts: Vec<Zeroizing<Vec<u64>>> = (0..layout.groups() * elements)
            .into_par_iter()
            .map(|unit| {
                let (first, element) = (unit / elements * layout.width, unit % elements);
                // The sum of the positive values and that of the others, apart from each other.
                let mut sums = [(); 2].map(|()| Zeroizing::new(vec![0; modulus.len()]));
                for slot in 0..layout.width.min(layout.batch - first) {
                    let value = values[(first + slot) * elements + element];
                    write_bits(&mut sums[0], slot * layout.slot_bits, value.max(0).unsigned_abs());
                    write_bits(&mut sums[1], slot * layout.slot_bits, value.min(0).unsigned_abs());
                }
                let mut difference = Zeroizing::new(vec![0; modulus.len()]);
                let negative = less_than(&sums[0], &sums[1]);
                sub_into(&mut difference, &sums[0], &sums[1]);
                let mut wrapped = difference.clone();
                add_assign(&mut wrapped, modulus);
                conditional_assign(&mut difference, &wrapped, negative);
                difference
            })
            .collect();
        let randomizers = randomizer.randomizers(rng, plaintexts.len());
        let flat = Zeroizing::new(
            plaintexts.iter().flat_map(|plaintext| plaintext.iter().copied()).collect::<Vec<_>>(),
        );
        let ciphertexts = key.add_plaintexts(&randomizers, &flat);
        let randomness_bits = key.parameters().encryption_exponent();
        Ok(Self { key, layout, elements, ciphertexts, randomness_bits })
    }

    /// The batch whose ciphertexts came in chunks.
    ///
    /// # Errors
    /// [`Error::Count`] when they are not as many as the layout takes; [`Error::ForeignKey`] when they are under
    /// another key; [`Error::Overflow`] when the slots do not fit it.
    pub fn from_chunks(
        key: &PublicKey,
        elements: usize,
        layout: WideLayout,
        chunks: &[EncChunk],
    ) -> Result<Self, Error> {
        let available_bits = key.size().slot_capacity_bits();
        let needed_bits = layout.width.saturating_mul(layout.slot_bits);
        if needed_bits > available_bits || layout.width == 0 {
            return Err(Error::Overflow { needed_bits, available_bits });
        }
        let (expected, found) =
            (layout.groups().saturating_mul(elements), chunks.iter().map(EncChunk::ciphertext_count).sum());
        if expected != found {
            return Err(Error::Count { what: "ciphertexts of a batch", expected, found });
        }
        let mut ciphertexts = key.ring().empty(found);
        for chunk in chunks {
            key.check_same(chunk.key())?;
            ciphertexts.append(chunk.ciphertexts());
        }
        let randomness_bits = key.parameters().encryption_exponent();
        Ok(Self { key: key.clone(), layout, elements, ciphertexts, randomness_bits })
    }

    /// How many ciphertexts it has.
    pub fn ciphertext_count(&self) -> usize {
        self.ciphertexts.len()
    }

    /// The ciphertexts in chunks of as many as travel together.
    pub fn into_chunks(self) -> Vec<EncChunk> {
        let (count, most) = (self.ciphertexts.len(), EncChunk::most(&self.key));
        let run = |start: usize| self.ciphertexts.gather(start..count.min(start + most));
        (0..count).step_by(most).map(|start| EncChunk::new(self.key.clone(), run(start))).collect()
    }

    /// The integer map of every vector, with weights in `[0, 2^bits)`. Nothing is reduced: what the slots hold grows
    /// by the weights' bits and those of the number of taps.
    ///
    /// # Errors
    /// [`Error::Count`] when the vectors or weights are not as long as the map says; [`Error::Value`] when a weight
    /// has more bits.
    pub fn map(&self, map: &SparseMap, weights: &[u64], ring: RingBits) -> Result<Self, Error> {
        for (what, expected, found) in [
            ("elements of a vector", map.inputs(), self.elements),
            ("weights of a linear map", map.weights(), weights.len()),
        ] {
            if expected != found {
                return Err(Error::Count { what, expected, found });
            }
        }
        if let Some(index) = weights.iter().position(|&weight| weight != ring.wrap(weight)) {
            return Err(Error::Value { index, bound: ring.wrap(u64::MAX) });
        }
        let parts: Vec<Residues> = map
            .blocks()
            .par_iter()
            .map(|block| self.block(block, weights, ring))
            .collect::<Result<_, _>>()?;
        let taps = map.most_taps().max(1);
        Ok(self.derive(map, &parts, ring.bits() as usize + taps.ilog2() as usize + 1))
    }

    /// The sums of every output's inputs: the integer map with weights of one, whatever its weights are.
    ///
    /// # Errors
    /// [`Error::Count`] when the vectors are not as long as the map says.
    pub fn sums(&self, map: &SparseMap) -> Result<Self, Error> {
        if map.inputs() != self.elements {
            let what = "elements of a vector";
            return Err(Error::Count { what, expected: map.inputs(), found: self.elements });
        }
        let groups = self.layout.groups();
        let parts: Vec<Residues> = map
            .blocks()
            .iter()
            .map(|block| {
                let columns = block.columns();
                let sums = self.key.in_parallel(groups * columns, |range| {
                    let input = |column: usize, tap: usize| {
                        let input = block.inputs[column % columns * block.taps + tap];
                        column / columns * self.elements + input as usize
                    };
                    let run = range.clone();
                    let taps =
                        (0..block.taps).flat_map(|tap| run.clone().map(move |column| input(column, tap)));
                    self.key.ring().fold_products(self.ciphertexts.gather(taps), range.len())
                });
                sums.gather((0..groups * columns * block.rows()).map(|at| at / block.rows()))
            })
            .collect();
        Ok(self.derive(map, &parts, map.most_taps().max(1).ilog2() as usize + 1))
    }

    /// What a map made of this batch: its outputs, block by block, group by group, column by column.
    fn derive(&self, map: &SparseMap, parts: &[Residues], grown_bits: usize) -> Self {
        // Outputs without any input are zeros.
        let mut order = vec![0; self.layout.groups() * map.outputs()];
        let mut all = self.key.ring().ones(1);
        for (block, part) in map.blocks().iter().zip(parts) {
            let columns = (0..self.layout.groups()).flat_map(|group| {
                block.outputs.iter().map(move |&output| group * map.outputs() + output as usize)
            });
            columns.enumerate().for_each(|(at, unit)| order[unit] = all.len() + at);
            all.append(part);
        }
        Self {
            key: self.key.clone(),
            layout: self.layout,
            elements: map.outputs(),
            ciphertexts: all.gather(order),
            randomness_bits: self.randomness_bits + grown_bits,
        }
    }

    /// Group by group, column by column, the outputs of a block.
    fn block(&self, block: &Block, weights: &[u64], ring: RingBits) -> Result<Residues, Error> {
        let (groups, engine) = (self.layout.groups(), self.key.ring());
        let mut used = block.inputs.clone();
        used.sort_unstable();
        used.dedup();
        let pool = self.ciphertexts.gather(
            (0..groups)
                .flat_map(|group| used.iter().map(move |&input| group * self.elements + input as usize)),
        );
        let places: Vec<usize> =
            block.inputs.iter().map(|input| used.partition_point(|other| other < input)).collect();
        let used_count = used.len();
        let indices =
            (0..groups).flat_map(|group| places.iter().map(move |place| Some(group * used_count + place)));
        let columns = Columns::new(engine, &pool, block.taps, indices);
        let range = WeightRange { bits: ring.bits(), signed: false, scale_bits: 0 };
        let matrix = Weights {
            columns: block.taps,
            range,
            values: block.weights.iter().map(|&at| weights[at as usize]).collect(),
        };
        let shape = MatmulShape {
            outputs: block.rows(),
            taps: block.taps,
            columns: groups * block.columns(),
            ciphertexts: pool.len(),
            weights: range,
        };
        matmul::multiply(engine, &matrix, &columns, shape.cheapest(engine.backend().lanes()))
    }

    /// What may leave the server: every sum plus its element's `bias` (one for each element, mod 2^l, or none) plus a
    /// random multiple of 2^l, in ciphertexts whose own randomness is hidden as well. Then every slot is non-negative
    /// and its lowest l bits are the sum mod 2^l.
    ///
    /// # Errors
    /// [`Error::Count`] when there is not one bias for each element; [`Error::Overflow`] when slots are too narrow.
    pub fn flooded(self, bias: &[u64], flood: Flood, rng: &mut dyn CryptoRng) -> Result<Self, Error> {
        let flood = flood.check()?;
        let (needed_bits, available_bits) = (flood.slot_bits(), self.layout.slot_bits);
        if needed_bits > available_bits {
            return Err(Error::Overflow { needed_bits, available_bits });
        }
        if !bias.is_empty() && bias.len() != self.elements {
            return Err(Error::Count { what: "biases", expected: self.elements, found: bias.len() });
        }
        let limbs = self.key.ring().limbs();
        let mut plaintexts = Zeroizing::new(vec![0; self.ciphertexts.len() * limbs]);
        for (unit, plaintext) in plaintexts.chunks_exact_mut(limbs).enumerate() {
            let bias = bias.get(unit % self.elements).map_or(0, |&bias| flood.ring.wrap(bias));
            for slot in 0..self.layout.width {
                let start = slot * self.layout.slot_bits;
                // Reducing 128 random bits leaves a bias far below the distance that is asked for.
                let draw = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
                let multiple = u128::from(flood.quotient) + draw % flood.choices();
                write_bits(plaintext, start, bias);
                write_bits(plaintext, start + flood.ring.bits() as usize, multiple as u64);
                let high = (multiple >> 64) as u64;
                if high != 0 {
                    write_bits(plaintext, start + flood.ring.bits() as usize + 64, high);
                }
            }
        }
        let hidden = self.key.hiding_exponents(rng, self.ciphertexts.len(), self.randomness_bits).powers();
        let sums = self.key.add_plaintexts(&self.ciphertexts, &plaintexts);
        let ciphertexts = self.key.in_parallel(sums.len(), |range| {
            let mut products = sums.gather(range.clone());
            self.key.ring().mul_assign(&mut products, &hidden.powers.gather(range));
            products
        });
        Ok(Self { ciphertexts, randomness_bits: hidden.bits, ..self })
    }

    /// The lowest `bits` bits of every value, image after image; the slots must hold no negative ones.
    ///
    /// # Errors
    /// [`Error::ForeignKey`], [`Error::Randomness`], and [`Error::Plaintext`] when a plaintext is no sum of slots.
    pub fn decrypt_low(&self, key: &SecretKey, bits: u32) -> Result<Zeroizing<Vec<u64>>, Error> {
        self.key.check_same(key.public_key())?;
        let plaintexts = key.decrypt(&self.ciphertexts)?;
        let WideLayout { batch, width, slot_bits } = self.layout;
        let mut values = Zeroizing::new(vec![0; batch * self.elements]);
        for (unit, plaintext) in plaintexts.chunks_exact(self.key.ring().limbs()).enumerate() {
            if bit_length_vartime(plaintext) > width * slot_bits {
                return Err(Error::Plaintext { index: unit });
            }
            let (first, element) = (unit / self.elements * width, unit % self.elements);
            for slot in 0..width.min(batch - first) {
                let value = read_bits(plaintext, slot * slot_bits, bits as usize);
                values[(first + slot) * self.elements + element] = value;
            }
        }
        Ok(values)
    }
}
