//! Sums mod 2^l under ciphertexts, flooded, and masked steps.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::arith::limbs::{BitRange, wide_bits};
use crate::paillier::{KeyBits, KeyParameters, KeyType, SecretKey};
use crate::tests::maps::random_map;
use crate::{
    Contents, Decryption, EncChunk, EncRate, EncTensor, EncTensorHeader, Filters, FixedTensor, Format,
    IntWeights, LinearMap, MapWeights, Packing, Product, ProductWeights, Shape, SlotLayout, UpdateLayout,
    WeightRange, Window, Workload,
};

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

fn apply(
    tensor: &EncTensor,
    map: &Arc<LinearMap>,
    (values, flood): (&[u64], Flood),
) -> Result<EncTensor, Error> {
    let product = Product::cheapest(
        map,
        tensor.layout(),
        Workload { weights: ProductWeights::Residues(flood), groups: tensor.header().groups(), lanes: 8 },
    )?;
    tensor.apply(map, &MapWeights::Residues { values, flood }, &product)
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

/// The sums in the clear plus a bias for each element, mod 2^l.
fn expected(ring: RingBits, sums: &[u64], bias: &[u64]) -> Vec<u64> {
    let bias = bias.iter().copied().cycle().chain(std::iter::repeat(0));
    sums.iter().zip(bias).map(|(sum, bias)| ring.wrap(sum.wrapping_add(bias))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn flooded_sums_are_the_clear_ones_mod_2_to_the_l(
        seed: u64, which in 0..4usize, batch in 1..10usize, subgroup: bool, biased: bool,
        flood_bits in 0..=40u32,
    ) {
        let (mut rng, key) = (ChaCha20Rng::seed_from_u64(seed), &KEYS[usize::from(subgroup)]);
        let (map, ring) = (Arc::new(random_map(&mut rng)), RingBits::ALL[which]);
        let bound = 1i64 << rng.random_range(0..13);
        let weights = random_residues(&mut rng, ring, map.weights());
        let values = random_tensor(&mut rng, map.input(), batch, bound);
        let biases = if biased { map.output().elements() } else { 0 };
        let bias: Vec<u64> = (0..biases).map(|_| rng.random()).collect();
        // The least quotient that holds all sums, or one more for the bias.
        let quotient = (map.most_terms() as u64 * bound.unsigned_abs()).max(1) + rng.random_range(0..2);
        let flood = Flood { ring, quotient, bits: flood_bits };
        let sums = map.apply_wrapping(&weights, values.values()).unwrap();
        let expected = expected(ring, &sums, &bias);
        for layout in layouts(&map, batch, flood.slot_bits() + rng.random_range(0..3)) {
            let up = values.encrypt(&layout, key, &mut rng).unwrap();
            let product = apply(&up, &map, (&weights, flood)).unwrap();
            prop_assert_eq!(product.layout().contents(), Contents::Residues(flood));
            let down = product.flood(&bias, &mut rng).unwrap();
            prop_assert_eq!(&received(&mut rng, key, down), &expected, "{}", layout);
            // What is stacked first can be flooded as well.
            let stacked = product.clone().repack(product.layout().most_stacked(KeyBits::Bits1024)).unwrap();
            let down = stacked.flood(&bias, &mut rng).unwrap().rerandomize(&mut rng);
            prop_assert_eq!(&*down.decrypt_residues(key).unwrap(), &expected, "{}", layout);
        }
    }

    /// Two maps with the same outputs, as in a residual block, under one flood.
    #[test]
    fn flooded_sums_of_two_maps_are_the_clear_ones(
        seed: u64, which in 0..4usize, batch in 1..10usize, groups in 1..3usize,
    ) {
        let (mut rng, key, ring) = (ChaCha20Rng::seed_from_u64(seed), &KEYS[0], RingBits::ALL[which]);
        let maps = [Window::new([3, 3]).with_padding([1, 1]), Window::new([1, 1])].map(|window| {
            let windows = window.with_stride([2, 2]).over([groups, 3, 5]).unwrap();
            Arc::new(LinearMap::convolution(&windows, Filters { count: 2 * groups, groups }).unwrap())
        });
        let bound = 1000;
        let quotient = maps.iter().map(|map| map.most_terms() as u64 * bound as u64).sum();
        let flood = Flood { ring, quotient, bits: 20 };
        let weights = maps.each_ref().map(|map| random_residues(&mut rng, ring, map.weights()));
        let values = [(); 2].map(|()| random_tensor(&mut rng, maps[0].input(), batch, bound));
        let bias = random_residues(&mut rng, ring, maps[0].output().elements());
        let [a, b] = [0, 1].map(|at| maps[at].apply_wrapping(&weights[at], values[at].values()).unwrap());
        let both: Vec<u64> = a.iter().zip(&b).map(|(a, b)| a.wrapping_add(*b)).collect();
        let expected = expected(ring, &both, &bias);
        for by_patches in [0, 1] {
            let [a, b] = [0, 1].map(|at| {
                let layout = &layouts(&maps[at], batch, flood.slot_bits())[by_patches];
                let up = values[at].encrypt(layout, key, &mut rng).unwrap();
                apply(&up, &maps[at], (&weights[at], flood)).unwrap()
            });
            let down = a.add(&b).unwrap().flood(&bias, &mut rng).unwrap();
            prop_assert_eq!(&received(&mut rng, key, down), &expected);
        }
    }

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
            let (kind, groups) = (ProductWeights::Integers(weights.range()), layout.groups(batch));
            let workload = Workload { weights: kind, groups, lanes: 8 };
            let product = Product::cheapest(&map, &layout, workload).unwrap();
            let sums = up.apply(&map, &MapWeights::Integers(&weights), &product).unwrap();
            let sums = if two { sums.add(&sums).unwrap() } else { sums };
            let small = Flood { quotient: quotient / 2, ..flood };
            if quotient > 1 && format.bound() > small.quotient << bits {
                let refused = matches!(sums.clone().into_residues(small), Err(Error::Overflow { .. }));
                prop_assert!(refused);
            }
            let down = sums.into_residues(flood).unwrap().flood(&masks, &mut rng).unwrap();
            prop_assert_eq!(&received(&mut rng, key, down), &expected, "{}", layout);
        }
    }

    /// What is added to a slot above its residue is drawn from as many multiples as were asked for, and is large enough
    /// that no sum stays negative, and small enough that none leaves its slot.
    #[test]
    fn floods_hide_what_is_above_the_residue(
        seed: u64, which in 0..4usize, quotient in 1u64..1 << 20, bits in 0u32..41,
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let flood = Flood { ring: RingBits::ALL[which], quotient, bits };
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

    #[test]
    fn masked_steps_decrypt_to_rate_times_step_plus_mask(seed: u64, which in 0..4usize, subgroup: bool) {
        let (mut rng, key) = (ChaCha20Rng::seed_from_u64(seed), &KEYS[usize::from(subgroup)]);
        let ring = RingBits::ALL[which];
        let steps: Vec<i64> = (0..rng.random_range(1..40))
            .map(|_| match rng.random_range(0..4) {
                0 => UpdateLayout::STEP_BOUND - 1,
                1 => 1 - UpdateLayout::STEP_BOUND,
                _ => rng.random_range(-5000..5000),
            })
            .collect();
        let layout = UpdateLayout { ring, flood_bits: rng.random_range(0..=40), steps: steps.len() };
        let rate = match rng.random_range(0..4) { 0 => 0, 1 => 255, _ => rng.random_range(0..256u64) };
        let sent = EncRate::encrypt(rate, key, &mut rng).unwrap();
        let (chunks, masks) = EncRate::new(&sent, layout).unwrap().mask(&steps, &mut rng).unwrap();
        let size = key.public_key().size();
        let header = layout.header(size).unwrap();
        prop_assert_eq!(header.check(size).unwrap(), layout.ciphertexts(size).unwrap());
        let mut decryption = Decryption::new(key.public_key(), header).unwrap();
        (0..).zip(&chunks).for_each(|(at, chunk)| decryption.push(at, chunk, key).unwrap());
        prop_assert!(decryption.is_complete());
        let found = layout.read(size, rate, &decryption.finish_residues().unwrap()).unwrap();
        prop_assert_eq!((found.len(), masks.len()), (steps.len(), steps.len()));
        for ((found, step), mask) in found.iter().zip(&steps).zip(masks.iter()) {
            prop_assert_eq!(*mask, ring.wrap(*mask));
            prop_assert_eq!(*found, ring.wrap(((rate as i64 * step) as u64).wrapping_add(*mask)));
        }
        let too_large = vec![UpdateLayout::STEP_BOUND; steps.len()];
        prop_assert!(EncRate::new(&sent, layout).unwrap().mask(&too_large, &mut rng).is_err());
    }
}

/// A map, weights and inputs whose sums need a quotient of 6000.
fn needs_6000(rng: &mut ChaCha20Rng, ring: RingBits) -> (Arc<LinearMap>, Vec<u64>, FixedTensor) {
    let map = Arc::new(LinearMap::dense(&Shape::from([6]), 2).unwrap());
    let weights = random_residues(rng, ring, map.weights());
    let values = random_tensor(rng, map.input(), 2, 1000);
    (map, weights, values)
}

#[test]
fn a_flood_that_does_not_hold_all_sums_is_refused() {
    let (rng, ring, key) = (&mut ChaCha20Rng::seed_from_u64(1), RingBits::default(), &KEYS[0]);
    let (map, weights, values) = needs_6000(rng, ring);
    let flood = |quotient: u64| Flood { ring, quotient, bits: 20 };
    let layout = &layouts(&map, 2, flood(6000).slot_bits())[0];
    let up = values.encrypt(layout, key, rng).unwrap();
    let refused = apply(&up, &map, (&weights, flood(5999))).unwrap_err();
    assert_eq!(refused, Error::Overflow { needed_bits: 53, available_bits: 53 }, "more than 5999 times 2^40");
    let refused = apply(&up, &map, (&weights, flood(3))).unwrap_err();
    assert_eq!(refused, Error::Overflow { needed_bits: 53, available_bits: 42 });
    for unfit in [flood(0), flood((1 << 40) + 1), Flood { bits: 65, ..flood(6000) }, flood(16_384)] {
        assert!(matches!(apply(&up, &map, (&weights, unfit)), Err(Error::Overflow { .. })), "{unfit:?}");
    }
    assert!(apply(&up, &map, (&weights, flood(6000))).is_ok());
    let mut large = weights;
    large[3] = 1 << 40;
    let refused = apply(&up, &map, (&large, flood(6000))).unwrap_err();
    assert_eq!(refused, Error::Value { index: 3, bound: (1 << 40) - 1 });
}

#[test]
fn residues_are_no_integers() {
    let (rng, ring, key) = (&mut ChaCha20Rng::seed_from_u64(2), RingBits::default(), &KEYS[1]);
    let (map, weights, values) = needs_6000(rng, ring);
    let flood = Flood { ring, quotient: 6000, bits: 20 };
    let up = values.encrypt(&layouts(&map, 2, flood.slot_bits())[0], key, rng).unwrap();
    let sums = apply(&up, &map, (&weights, flood)).unwrap();
    let layout = |result: Result<EncTensor, Error>| {
        let refused = result.unwrap_err();
        assert!(matches!(refused, Error::Layout { .. }), "{refused}");
    };
    let next = Arc::new(LinearMap::identity(map.output()).unwrap());
    layout(apply(&sums, &next, (&[1], flood)));
    let one = IntWeights::new(WeightRange::signed(2).unwrap(), vec![1]).unwrap();
    let how =
        Workload { weights: ProductWeights::Integers(one.range()), groups: sums.header().groups(), lanes: 1 };
    let product = Product::cheapest(&next, sums.layout(), how).unwrap();
    layout(sums.apply(&next, &MapWeights::Integers(&one), &product));
    let plain = FixedTensor::new(Shape::from([2]), Format::integers(1).unwrap(), vec![1, 1]).unwrap();
    layout(sums.add_plain(&plain));
    // Integers or sums of another flood are no addends.
    let two = random_tensor(rng, map.output(), 2, 1000);
    let integers = two.encrypt(&layouts(&next, 2, flood.slot_bits())[0], key, rng).unwrap();
    layout(sums.add(&integers));
    layout(integers.add(&sums));
    let other = Flood { quotient: 6001, ..flood };
    layout(sums.add(&apply(&up, &map, (&weights, other)).unwrap()));
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
    let (rng, ring, key) = (&mut ChaCha20Rng::seed_from_u64(3), RingBits::default(), &KEYS[0]);
    let map = Arc::new(LinearMap::identity(&Shape::from([2])).unwrap());
    let flood = Flood { ring, quotient: 10, bits: 20 };
    let values = FixedTensor::new(Shape::from([2]), Format::integers(10).unwrap(), vec![10, -10]).unwrap();
    let up = values.encrypt(&layouts(&map, 1, flood.slot_bits())[0], key, rng).unwrap();
    let sums = apply(&up, &map, (&[1], flood)).unwrap();
    assert_eq!(sums.decrypt_residues(key).unwrap_err(), Error::Plaintext { index: 1 });
    let flooded = sums.flood(&[], rng).unwrap();
    assert_eq!(*flooded.decrypt_residues(key).unwrap(), [10, (1 << 40) - 10]);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let rng = &mut ChaCha20Rng::seed_from_u64(4);
    assert!(RingBits::try_from(41).is_err());
    let ring = RingBits::default();
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
    for rate in [256, u64::MAX] {
        assert_eq!(EncRate::encrypt(rate, &KEYS[0], rng).unwrap_err(), Error::Value { index: 0, bound: 255 });
    }
}

#[test]
fn updates_that_do_not_fit_are_refused() {
    let (rng, key) = (&mut ChaCha20Rng::seed_from_u64(5), &KEYS[0]);
    let size = key.public_key().size();
    let layout = UpdateLayout { ring: RingBits::default(), flood_bits: 40, steps: 30 };
    let sent = EncRate::encrypt(3, key, rng).unwrap();
    let client = EncRate::new(&sent, layout).unwrap();
    for steps in [0, 29, 31] {
        let refused = client.mask(&vec![1; steps], rng).unwrap_err();
        assert!(matches!(refused, Error::Count { expected: 30, found, .. } if found == steps), "{refused}");
    }
    let mut steps = vec![0; 30];
    for bad in [UpdateLayout::STEP_BOUND, -UpdateLayout::STEP_BOUND, i64::MIN, i64::MAX] {
        steps[17] = bad;
        assert!(matches!(client.mask(&steps, rng), Err(Error::Value { index: 17, .. })));
    }
    // 12 slots of 81 bits, so 3 ciphertexts.
    assert_eq!(layout.ciphertexts(size).unwrap(), 3);
    for count in [0, 30, 35, 37] {
        let refused = layout.read(size, 3, &vec![0; count]).unwrap_err();
        assert!(matches!(refused, Error::Count { expected: 36, .. }), "{refused}");
    }
    assert!(layout.read(size, 3, &[0; 36]).is_ok());
    let none = UpdateLayout { steps: 0, ..layout };
    assert!(none.header(size).and_then(|header| header.check(size)).is_err());
    let many = UpdateLayout { steps: usize::MAX, ..layout };
    assert!(many.header(size).and_then(|header| header.check(size)).is_err());
    for flood_bits in [65, 128, 2000, u32::MAX] {
        let wide = UpdateLayout { flood_bits, ..layout };
        assert!(matches!(wide.header(size), Err(Error::Overflow { .. })), "{flood_bits}");
        assert!(matches!(wide.ciphertexts(size), Err(Error::Overflow { .. })), "{flood_bits}");
        assert!(matches!(EncRate::new(&sent, wide), Err(Error::Overflow { .. })), "{flood_bits}");
    }
    let two = [sent.encode(), sent.encode()].concat();
    let two = EncChunk::decode(key.public_key(), &two).unwrap();
    assert!(matches!(EncRate::new(&two, layout), Err(Error::Count { expected: 1, found: 2, .. })));
}

#[test]
fn rings_wrap_and_sign() {
    for ring in RingBits::ALL {
        let most = ring.bound();
        assert_eq!(ring.signed(ring.wrap(most)), most as i64);
        assert_eq!(ring.signed(ring.wrap(most.wrapping_neg())), -(most as i64));
        assert_eq!(ring.signed(ring.wrap(u64::MAX)), -1);
        assert_eq!(ring.wrap(u64::MAX).count_ones(), ring.bits());
        assert_eq!(RingBits::try_from(u32::from(ring)).unwrap(), ring);
    }
}

/// Where what is added above a residue has few values, it shows which of two sums is below it; where it has as many as are
/// used, samples of both look like samples of one.
#[test]
fn few_multiples_show_a_sum_and_as_many_as_are_used_hide_it() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    for (bits, is_seen) in [(4, true), (40, false)] {
        let flood = Flood { ring: RingBits::ALL[0], quotient: 1 << 10, bits };
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
