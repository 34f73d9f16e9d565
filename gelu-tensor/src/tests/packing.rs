//! Slots without encryption: into plaintexts and back.

use std::collections::HashMap;

use num_bigint::{BigInt, BigUint};

use super::*;
use crate::arith::limbs::{from_biguint, to_biguint};
use crate::layout::Extent;

/// A modulus of 1,024 bits, the largest or the smallest.
fn modulus(large: bool) -> Vec<u64> {
    let half = BigUint::from(1u8) << 1023;
    from_biguint(&if large { (half << 1) - 1u8 } else { half + 1u8 }, 16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Every element has one slot in a layout that is decrypted, and one for each column that reads it in im2col; no
    /// two share a slot, and none lies beyond the units that the layout counts.
    #[test]
    fn every_value_has_its_slots(
        seed: u64, batch in 1usize..9, slot_bits in prop::sample::select(vec![20, 64, 128]),
    ) {
        let map = Arc::new(random_map(&mut ChaCha20Rng::seed_from_u64(seed)));
        for before in layouts(&map, batch, slot_bits) {
            let after = before.after(&map, anything()).unwrap();
            for (layout, shape) in [(&before, map.input()), (&after, map.output())] {
                let extent = Extent::new(batch, shape);
                let mut found = HashMap::<usize, usize>::new();
                for unit in 0..layout.units(extent) {
                    let mut next = 0;
                    layout.each_slot(extent, unit, |slot, place| {
                        assert_eq!(slot, next);
                        next += 1;
                        if let Some(place) = place {
                            *found.entry(place).or_default() += 1;
                        }
                    });
                    prop_assert!((1..=layout.width()).contains(&next));
                }
                let mut expected = HashMap::<usize, usize>::new();
                for image in 0..batch {
                    let mut read = |element: usize| {
                        *expected.entry(image * shape.elements() + element).or_default() += 1;
                    };
                    match layout.arrangement() {
                        Arrangement::Patches(map) => map.blocks().iter().for_each(|block| {
                            for column in 0..block.columns() {
                                (0..block.taps()).filter_map(|tap| block.input(column, tap)).for_each(&mut read);
                            }
                        }),
                        _ => (0..shape.elements()).for_each(read),
                    }
                }
                prop_assert_eq!(found, expected, "{}", layout);
            }
        }
    }

    #[test]
    fn integers_go_into_slots_and_back(
        seed: u64, bound in prop_oneof![0u64..4, 1u64..1 << 20, Just(crate::format::MAX_BOUND)], spare in 0usize..4,
        batch in 1usize..40, stacked in 1usize..9, large: bool, width in 1usize..40,
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let format = Format::integers(bound).unwrap();
        let slot_bits = [format.slot_bits(), format.slot_bits() + 1, 64, 128][spare].max(format.slot_bits());
        let layout = SlotLayout::images(packing(width, slot_bits), Contents::Integers(format)).unwrap();
        let stacked = stacked.min(layout.most_stacked(public().size()));
        let layout = layout.with_stacked(stacked, public().size()).unwrap();
        let shape = maps::random_shape(rng);
        let values = random_tensor(rng, &shape, batch, bound);
        let (extent, modulus) = (values.extent(), modulus(large));
        let packed = layout.pack(values.values(), extent, 0..layout.count(extent), &modulus);
        // The definition: the sum of every value times the power of two where its slot starts.
        let n = BigInt::from(to_biguint(&modulus));
        for (ciphertext, plaintext) in packed.chunks_exact(modulus.len()).enumerate() {
            let mut sum = BigInt::ZERO;
            for stack in 0..layout.stacked() {
                let unit = ciphertext * layout.stacked() + stack;
                if unit < layout.units(extent) {
                    layout.each_slot(extent, unit, |slot, place| {
                        let value = values.values()[place.unwrap()];
                        sum += BigInt::from(value) << ((stack * layout.width() + slot) * slot_bits);
                    });
                }
            }
            prop_assert_eq!(BigInt::from(to_biguint(plaintext)), ((sum % &n) + &n) % &n);
        }
        let mut back = vec![0; values.values().len()];
        layout.unpack(&mut back, (&packed, 0), extent, &modulus).unwrap();
        prop_assert_eq!(&back[..], values.values());
        // Piece by piece as well, into the same places.
        let mut back = vec![0; values.values().len()];
        for (first, plaintext) in packed.chunks_exact(modulus.len()).enumerate() {
            layout.unpack(&mut back, (plaintext, first), extent, &modulus).unwrap();
            let again = layout.pack(values.values(), extent, first..first + 1, &modulus);
            prop_assert_eq!(&again[..], plaintext);
        }
        prop_assert_eq!(&back[..], values.values());
    }

    /// Numbers mod n that are no sums of slots: nearly all are.
    #[test]
    fn random_plaintexts_are_refused(seed: u64, slot_bits in 1usize..129, large: bool) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let bound = if slot_bits == 1 { 0 } else { (1u64 << (slot_bits - 1).min(61)) - 1 };
        let contents = Contents::Integers(Format::integers(bound).unwrap());
        let layout = SlotLayout::images(packing(1, slot_bits), contents).unwrap();
        let modulus = modulus(large);
        // Below n.
        let mut plaintext: Vec<u64> = (0..16).map(|_| rng.random()).collect();
        plaintext[15] >>= 1;
        let found = layout.unpack(&mut [0], (&plaintext, 0), Extent::new(1, &Shape::from([1])), &modulus);
        prop_assert_eq!(found, Err(Error::Plaintext { index: 0 }));
    }
}

/// Just what fits: the sums of slots that are next to no sums.
#[test]
fn the_largest_and_the_smallest_sums_of_slots_are_read() {
    for large in [false, true] {
        let modulus = modulus(large);
        let n = to_biguint(&modulus);
        // 73 slots of 14 bits fill the 1,022 bits that there are.
        let format = Format::integers(8191).unwrap();
        let layout = SlotLayout::images(packing(73, 14), Contents::Integers(format)).unwrap();
        let extent = Extent::new(73, &Shape::from([1]));
        let mut back = vec![0; 73];
        for value in [8191, -8191] {
            let values = vec![value; 73];
            let packed = layout.pack(&values, extent, 0..1, &modulus);
            layout.unpack(&mut back, (&packed, 0), extent, &modulus).unwrap();
            assert_eq!(back, values);
        }
        // -8192 needs no more bits than a slot has, but is outside the bound.
        let least: BigUint = (0..73).map(|slot| BigUint::from(8192u32) << (14 * slot)).sum();
        let refused = Err(Error::Plaintext { index: 0 });
        for sum in [&n - &least, &least - 0u8, &n - &least - 1u8, &n >> 1] {
            let limbs = from_biguint(&sum, 16);
            assert_eq!(layout.unpack(&mut back, (&limbs, 0), extent, &modulus), refused);
        }
    }
}
