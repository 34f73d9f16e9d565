//! Sums mod 2^l under ciphertexts, flooded.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::arith::limbs::{BitRange, wide_bits};
use crate::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use crate::tests::maps::random_map;
use crate::{
    Contents, Decryption, EncChunk, EncTensor, EncTensorHeader, FixedTensor, Format, IntWeights, LinearMap,
    Packing, Product, Shape, SlotLayout, WeightRange, Workload,
};

/// Bits of rings that tests run on.
const RINGS: [u32; 4] = [17, 32, 40, 63];

fn ring(bits: u32) -> RingBits {
    RingBits::holding((1 << (bits - 1)) - 1).unwrap()
}

static KEYS: LazyLock<[SecretKey; 2]> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    KeyType::ALL.map(|key_type| {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type };
        crate::testing::secret_key(parameters, &mut rng).unwrap()
    })
});

/// Residues: 0 and the largest as often as others.
fn random_residues(rng: &mut ChaCha20Rng, ring: RingBits, count: usize) -> Vec<u64> {
    (0..count)
        .map(|_| match rng.random_range(0..4) {
            0 => 0,
            1 => ring.wrap(u64::MAX),
            _ => ring.wrap(rng.random()),
        })
        .collect()
}

fn random_tensor(rng: &mut ChaCha20Rng, shape: &Shape, batch: usize, bound: i64) -> FixedTensor {
    let values = (0..batch * shape.elements())
        .map(|_| match rng.random_range(0..4) {
            0 => bound,
            1 => -bound,
            _ => rng.random_range(-bound..=bound),
        })
        .collect();
    FixedTensor::new(shape.clone(), Format::integers(bound.unsigned_abs()).unwrap(), values).unwrap()
}

/// By images, and by columns where blocks have equally many.
fn layouts(map: &Arc<LinearMap>, batch: usize, slot_bits: usize) -> Vec<SlotLayout> {
    let packing = Packing { batch, slot_bits, key: KeyBits::Bits1024 };
    let contents = Contents::Integers(Format::integers(0).unwrap());
    let mut layouts = vec![SlotLayout::images(packing, contents).unwrap()];
    if map.columns().is_some() {
        layouts.push(SlotLayout::patches(map, packing, contents).unwrap());
    }
    layouts
}

/// Stacks or not, re-randomizes, sends and decrypts, at once and chunk by chunk.
fn received(rng: &mut ChaCha20Rng, key: &SecretKey, flooded: EncTensor) -> Vec<u64> {
    let most = flooded.layout().most_stacked(key.public_key().size());
    let stacked = if rng.random_bool(0.5) { 1 } else { rng.random_range(1..=most) };
    let sent = flooded.repack(stacked).unwrap().rerandomize(rng);
    let mut decryption = Decryption::new(key.public_key(), sent.header().clone()).unwrap();
    for (index, chunk) in (0..).zip(sent.chunks()) {
        let chunk = EncChunk::decode(key.public_key(), &chunk.encode()).unwrap();
        decryption.push(index, &chunk, key).unwrap();
    }
    let found = decryption.finish_residues().unwrap();
    assert_eq!(*sent.decrypt_residues(key).unwrap(), *found);
    found.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Masked values under weights of few bits, with a mask of its own for each sum: what becomes of shares of values. Slots
    /// are as wide as that takes, far beyond integers of 64 bits.
    #[test]
    fn sums_of_masked_values_are_the_clear_ones_mod_2_to_the_l(
        seed: u64, bits in 2u32..41, weight_bits in 2u32..9, batch in 1..6usize, subgroup: bool,
        flood_bits in 0..=40u32, two: bool,
    ) {
        let (mut rng, key) = (ChaCha20Rng::seed_from_u64(seed), &KEYS[usize::from(subgroup)]);
        let (map, ring) = (Arc::new(random_map(&mut rng)), RingBits::holding((1 << (bits - 1)) - 1).unwrap());
        prop_assert_eq!(ring.bits(), bits);
        let largest = 1i64 << (bits - 1);
        let range = WeightRange::signed(weight_bits).unwrap();
        let half = 1i32 << (weight_bits - 1);
        let weights = (0..map.weights()).map(|_| rng.random_range(-half..half)).collect();
        let weights = IntWeights::new(range, weights).unwrap().summed(&map).unwrap();
        let values = random_tensor(&mut rng, map.input(), batch, largest);
        let format = values.format().weighted_sum(weights.range(), map.most_terms()).unwrap();
        let format = if two { format.sum(format).unwrap() } else { format };
        // The least quotient that holds all sums.
        let quotient = format.bound().div_ceil(1 << bits).max(1);
        let flood = Flood { ring, quotient, bits: flood_bits };
        let masks = random_residues(&mut rng, ring, batch * map.output().elements());
        let signed: Vec<u64> = weights.values().iter().map(|&weight| i64::from(weight) as u64).collect();
        let sums = map.apply_wrapping(&signed, values.values()).unwrap();
        let times = 1 + u64::from(two);
        let expected: Vec<u64> =
            sums.iter().zip(&masks).map(|(sum, mask)| ring.wrap(sum.wrapping_mul(times).wrapping_add(*mask))).collect();
        let slot_bits = flood.slot_bits().max(format.slot_bits()) + rng.random_range(0..3);
        for layout in layouts(&map, batch, slot_bits) {
            let up = values.encrypt(&layout, key, &mut rng).unwrap();
            let (kind, groups) = (weights.range(), layout.groups(batch));
            let workload = Workload { weights: kind, groups, lanes: 8 };
            let product = Product::cheapest(&map, &layout, workload).unwrap();
            let sums = up.apply(&map, &weights, &product).unwrap();
            let sums = if two { sums.add(&sums).unwrap() } else { sums };
            let small = Flood { quotient: quotient / 2, ..flood };
            if quotient > 1 && format.bound() > small.quotient << bits {
                let refused = matches!(sums.clone().into_residues(small), Err(Error::Overflow { .. }));
                prop_assert!(refused);
            }
            let sums = sums.into_residues(flood).unwrap();
            prop_assert_eq!(sums.layout().contents(), Contents::Residues(flood));
            let down = sums.flood(&masks, &mut rng).unwrap();
            prop_assert_eq!(&received(&mut rng, key, down), &expected, "{}", layout);
            // What is stacked first can be flooded as well.
            let stacked = sums.clone().repack(sums.layout().most_stacked(KeyBits::Bits1024)).unwrap();
            let down = stacked.flood(&masks, &mut rng).unwrap().rerandomize(&mut rng);
            prop_assert_eq!(&*down.decrypt_residues(key).unwrap(), &expected, "{}", layout);
        }
    }

    /// What is added to a slot above its residue is drawn from as many multiples as were asked for, and is large enough
    /// that no sum stays negative, and small enough that none leaves its slot.
    #[test]
    fn floods_hide_what_is_above_the_residue(
        seed: u64, which in 0..4usize, quotient in 1u64..1 << 20, bits in 0u32..41,
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let flood = Flood { ring: ring(RINGS[which]), quotient, bits };
        let packing = Packing { batch: 3, slot_bits: flood.slot_bits(), key: KeyBits::Bits1024 };
        let layout = SlotLayout::images(packing, Contents::Residues(flood)).unwrap();
        let header = EncTensorHeader::new(Shape::from([2]), 3, layout);
        let (limbs, extent) = (16, header.extent());
        let plaintexts = header.layout.floods((&[u64::MAX, 5], flood), extent, limbs, &mut rng);
        let mut back = vec![0; 6];
        header.layout.unpack(&mut back, (&plaintexts, 0), extent, &[u64::MAX; 16]).unwrap();
        let last = flood.ring.wrap(u64::MAX) as i64;
        prop_assert_eq!(back, [last, 5, last, 5, last, 5]);
        for plaintext in plaintexts.chunks_exact(limbs) {
            for slot in 0..3 {
                let start = slot * flood.slot_bits() + flood.ring.bits() as usize;
                let width = flood.slot_bits() - flood.ring.bits() as usize;
                let multiple = wide_bits(plaintext, BitRange { start, width });
                let least = u128::from(quotient);
                prop_assert!((least..least + flood.choices()).contains(&multiple));
                // Room for the largest sum and its bias above it.
                prop_assert!((multiple + least) >> width == 0);
            }
        }
    }
}

#[test]
fn residues_are_no_integers() {
    let (rng, ring, key) = (&mut ChaCha20Rng::seed_from_u64(2), ring(40), &KEYS[1]);
    let flood = Flood { ring, quotient: 6000, bits: 20 };
    let (next, shape) = (Arc::new(LinearMap::identity(&Shape::from([2])).unwrap()), Shape::from([2]));
    let layouts = layouts(&next, 2, flood.slot_bits());
    let two = random_tensor(rng, &shape, 2, 1000);
    let integers = two.encrypt(&layouts[0], key, rng).unwrap();
    let sums = integers.clone().into_residues(flood).unwrap();
    let layout = |result: Result<EncTensor, Error>| {
        let refused = result.unwrap_err();
        assert!(matches!(refused, Error::Layout { .. }), "{refused}");
    };
    let one = IntWeights::new(WeightRange::signed(2).unwrap(), vec![1]).unwrap();
    let how = Workload { weights: one.range(), groups: sums.header().groups(), lanes: 1 };
    let product = Product::cheapest(&next, sums.layout(), how).unwrap();
    layout(sums.apply(&next, &one, &product));
    let plain = FixedTensor::new(shape, Format::integers(1).unwrap(), vec![1, 1]).unwrap();
    layout(sums.add_plain(&plain));
    layout(sums.scaled(1, 1));
    layout(sums.clone().bounded_by(plain.format()));
    layout(sums.clone().into_residues(flood));
    // Residues are flooded, and nothing else: they are no addends.
    layout(sums.add(&integers));
    layout(integers.add(&sums));
    layout(sums.add(&sums));
    layout(integers.flood(&[], rng));
    for wrong in [1, 3] {
        let refused = sums.flood(&vec![0; wrong], rng).unwrap_err();
        assert!(matches!(refused, Error::Count { what: "biases", expected: 2, .. }), "{refused}");
    }
    let down = sums.flood(&[], rng).unwrap();
    assert!(matches!(down.decrypt(key), Err(Error::Layout { expected: "integers", .. })));
    let decryption = |tensor: &EncTensor| {
        let mut decryption = Decryption::new(key.public_key(), tensor.header().clone()).unwrap();
        (0..).zip(tensor.chunks()).for_each(|(at, chunk)| decryption.push(at, &chunk, key).unwrap());
        decryption
    };
    assert!(matches!(decryption(&down).finish(), Err(Error::Layout { .. })));
    assert!(matches!(decryption(&integers).finish_residues(), Err(Error::Layout { .. })));
}

/// Sums that were not flooded are negative, or fill bits beyond the slots: no residues.
#[test]
fn plaintexts_that_are_no_residues_are_refused() {
    let (rng, ring, key) = (&mut ChaCha20Rng::seed_from_u64(3), ring(40), &KEYS[0]);
    let map = Arc::new(LinearMap::identity(&Shape::from([2])).unwrap());
    let flood = Flood { ring, quotient: 10, bits: 20 };
    let values = FixedTensor::new(Shape::from([2]), Format::integers(10).unwrap(), vec![10, -10]).unwrap();
    let up = values.encrypt(&layouts(&map, 1, flood.slot_bits())[0], key, rng).unwrap();
    let sums = up.into_residues(flood).unwrap();
    assert_eq!(sums.decrypt_residues(key).unwrap_err(), Error::Plaintext { index: 1 });
    let flooded = sums.flood(&[], rng).unwrap();
    assert_eq!(*flooded.decrypt_residues(key).unwrap(), [10, (1 << 40) - 10]);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    assert!(RingBits::holding(u64::MAX).is_err());
    let ring = ring(40);
    assert!(Flood { ring, quotient: 0, bits: 40 }.check().is_err());
    assert!(Flood { ring, quotient: 1, bits: 65 }.check().is_err());
    assert!(Flood { ring, quotient: (1 << 40) + 1, bits: 1 }.check().is_err());
    assert!(Flood { ring, quotient: 1 << 40, bits: 64 }.check().is_ok());
    let images = |packing: Packing, flood: Flood| SlotLayout::images(packing, Contents::Residues(flood));
    let flood = Flood { ring, quotient: 1000, bits: 40 };
    let packing = Packing { batch: 1, slot_bits: flood.slot_bits(), key: KeyBits::Bits1024 };
    assert!(images(packing, flood).is_ok());
    let narrow = Packing { slot_bits: flood.slot_bits() - 1, ..packing };
    assert!(matches!(images(narrow, flood), Err(Error::Overflow { .. })));
    assert!(matches!(images(Packing { slot_bits: 2000, ..packing }, flood), Err(Error::Overflow { .. })));
    assert!(matches!(images(Packing { batch: 0, ..packing }, flood), Err(Error::TooFew { .. })));
    // Sizes that no check has let pass: refused as well, and nothing overflows on the way.
    for unchecked in [
        Flood { quotient: 0, ..flood },
        Flood { quotient: u64::MAX, ..flood },
        Flood { bits: 65, ..flood },
        Flood { bits: 128, ..flood },
        Flood { bits: u32::MAX, quotient: u64::MAX, ..flood },
    ] {
        for slot_bits in [128, unchecked.slot_bits()] {
            assert!(matches!(
                images(Packing { slot_bits, ..packing }, unchecked),
                Err(Error::Overflow { .. })
            ));
        }
    }
    let header = EncTensorHeader::new(Shape::from([3]), 1, images(packing, flood).unwrap());
    assert!(EncTensor::decode(KEYS[0].public_key(), header, &[]).is_err());
}

#[test]
fn rings_wrap() {
    for ring in RINGS.map(ring) {
        assert_eq!(ring.wrap(u64::MAX).count_ones(), ring.bits());
        assert_eq!([ring.wrap(5), ring.wrap(1 << ring.bits())], [5, 0]);
    }
}

/// Where what is added above a residue has few values, it shows which of two sums is below it; where it has as many as are
/// used, samples of both look like samples of one.
#[test]
fn few_multiples_show_a_sum_and_as_many_as_are_used_hide_it() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    for (bits, is_seen) in [(4, true), (40, false)] {
        let flood = Flood { ring: ring(32), quotient: 1 << 10, bits };
        let packing = Packing { batch: 7, slot_bits: flood.slot_bits(), key: KeyBits::Bits1024 };
        let layout = SlotLayout::images(packing, Contents::Residues(flood)).unwrap();
        let header = EncTensorHeader::new(Shape::from([600]), 7, layout);
        let (limbs, extent) = (16, header.extent());
        // No sum, and the largest.
        let counts = [0, (flood.quotient << flood.ring.bits()) - 1].map(|sum| {
            let residues: Vec<u64> = (0..600).map(|_| flood.ring.wrap(rng.random())).collect();
            let plaintexts = header.layout.floods((&residues, flood), extent, limbs, &mut rng);
            let mut counts = [0u32; 18];
            for plaintext in plaintexts.chunks_exact(limbs) {
                for slot in 0..7 {
                    let (start, width) = (slot * flood.slot_bits(), flood.slot_bits());
                    let above = (wide_bits(plaintext, BitRange { start, width }) + u128::from(sum))
                        >> flood.ring.bits();
                    counts[((above - u128::from(flood.quotient)) * 16 / flood.choices()) as usize] += 1;
                }
            }
            assert!(counts.iter().sum::<u32>() >= 4200);
            counts
        });
        // Of two samples of equal size.
        let far = |(&x, &y): (&u32, &u32)| f64::from(x.abs_diff(y)).powi(2) / f64::from((x + y).max(1));
        let statistic: f64 = counts[0].iter().zip(&counts[1]).map(far).sum();
        // 17 degrees of freedom: above 60 once in a million times.
        assert_eq!(statistic > 60.0, is_seen, "{statistic}: {counts:?}");
    }
}
