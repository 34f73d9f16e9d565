use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};
use std::sync::LazyLock;

use super::*;
use crate::paillier::{KeyBits, KeyParameters, KeyType, Randomizer, SecretKey};

static KEYS: LazyLock<[SecretKey; 2]> = LazyLock::new(|| {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    KeyType::ALL.map(|key_type| {
        let parameters = KeyParameters { size: KeyBits::Bits1024, key_type };
        SecretKey::generate(parameters, &mut rng).unwrap()
    })
});

/// A map with repeated weights, empty rows and rows of different inputs.
fn random_map(rng: &mut ChaCha20Rng) -> SparseMap {
    let [inputs, outputs, weights] = [(); 3].map(|()| rng.random_range(1..9));
    let mut entries = vec![MapEntry { output: 0, input: 0, weight: 0 }];
    for output in 0..outputs as u32 {
        for input in 0..inputs as u32 {
            if rng.random_bool(0.5) && (output, input) != (0, 0) {
                entries.push(MapEntry { output, input, weight: rng.random_range(0..weights as u32) });
            }
        }
    }
    SparseMap::new([inputs, outputs, weights], entries).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn flooded_sums_are_the_clear_ones_mod_2_to_the_l(seed: u64, which in 0..4usize, batch in 1..7usize, subgroup: bool) {
        let (mut rng, key) = (ChaCha20Rng::seed_from_u64(seed), &KEYS[usize::from(subgroup)]);
        let (map, ring) = (random_map(&mut rng), RingBits::ALL[which]);
        let map = if rng.random_bool(0.5) { map.transposed().unwrap() } else { map };
        let bound = 1i64 << rng.random_range(0..13);
        let weights: Vec<u64> = (0..map.weights())
            .map(|_| match rng.random_range(0..4) { 0 => 0, 1 => ring.wrap(u64::MAX), _ => ring.wrap(rng.random()) })
            .collect();
        let values: Vec<i64> = (0..batch * map.inputs())
            .map(|_| match rng.random_range(0..4) { 0 => bound, 1 => -bound, _ => rng.random_range(-bound..=bound) })
            .collect();
        let bias: Vec<u64> = (0..map.outputs()).map(|_| rng.random()).collect();
        let quotient = map.most_taps() as u64 * bound.unsigned_abs() + 1;
        let flood = Flood { ring, quotient, bits: rng.random_range(0..=40) };
        let layout = WideLayout::new(flood.slot_bits(), batch, KeyBits::Bits1024).unwrap();
        let up = EncBatch::encrypt(&values, map.inputs(), layout, key, &mut rng).unwrap();
        let down = up.map(&map, &weights, ring).unwrap().flooded(&bias, flood, &mut rng).unwrap();
        let chunks = down.into_chunks();
        let down = EncBatch::from_chunks(key.public_key(), map.outputs(), layout, &chunks).unwrap();
        let found = down.decrypt_low(key, ring.bits()).unwrap();
        let expected: Vec<u64> = map
            .forward(&weights, &values)
            .unwrap()
            .iter()
            .enumerate()
            .map(|(at, sum)| ring.wrap(sum.wrapping_add(bias[at % map.outputs()])))
            .collect();
        prop_assert_eq!(&*found, &expected);
    }

    #[test]
    fn forward_gradient_and_transpose_agree_with_the_entries(seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let map = random_map(&mut rng);
        let entries: Vec<MapEntry> = map.entries().collect();
        let weights: Vec<u64> = (0..map.weights()).map(|_| rng.random()).collect();
        let mut vector = |count: usize| (0..count).map(|_| rng.random_range(-999i64..999)).collect::<Vec<_>>();
        let (x, errors) = (vector(2 * map.inputs()), vector(2 * map.outputs()));
        let (mut sums, mut gradient) = (vec![0u64; errors.len()], vec![0i64; weights.len()]);
        let mut back = vec![0u64; x.len()];
        for image in 0..2 {
            for entry in &entries {
                let input = image * map.inputs() + entry.input as usize;
                let output = image * map.outputs() + entry.output as usize;
                let weight = weights[entry.weight as usize];
                sums[output] = sums[output].wrapping_add(weight.wrapping_mul(x[input] as u64));
                back[input] = back[input].wrapping_add(weight.wrapping_mul(errors[output] as u64));
                gradient[entry.weight as usize] += x[input] * errors[output];
            }
        }
        prop_assert_eq!(map.forward(&weights, &x).unwrap(), sums);
        prop_assert_eq!(map.gradient(&x, &errors).unwrap(), gradient);
        prop_assert_eq!(map.transposed().unwrap().forward(&weights, &errors).unwrap(), back);
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
        let rate = rng.random_range(0..256u64);
        let sent = EncRate::encrypt(rate, key, &mut rng).unwrap();
        let (chunks, masks) = EncRate::new(&sent, layout).unwrap().mask(&steps, &mut rng).unwrap();
        let found = layout.decrypt(key, rate, &chunks).unwrap();
        for ((found, step), mask) in found.iter().zip(&steps).zip(masks.iter()) {
            prop_assert_eq!(*found, ring.wrap((rate as i64 * step) as u64).wrapping_add(*mask) & ring.wrap(u64::MAX));
        }
        let too_large = vec![UpdateLayout::STEP_BOUND; steps.len()];
        prop_assert!(EncRate::new(&sent, layout).unwrap().mask(&too_large, &mut rng).is_err());
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let key = KEYS[0].public_key();
    assert!(RingBits::try_from(41).is_err());
    assert!(WideLayout::new(2000, 1, KeyBits::Bits1024).is_err());
    assert!(WideLayout::new(100, 0, KeyBits::Bits1024).is_err());
    assert!(Flood { ring: RingBits::default(), quotient: 0, bits: 40 }.check().is_err());
    assert!(Flood { ring: RingBits::default(), quotient: 1, bits: 65 }.check().is_err());
    let layout = WideLayout { batch: 1, width: 1, slot_bits: 100 };
    assert!(EncBatch::from_chunks(key, 3, layout, &[]).is_err());
    assert!(SparseMap::new([1, 1, 1], vec![]).is_err());
    assert!(SparseMap::new([1, 1, 1], vec![MapEntry { output: 0, input: 1, weight: 0 }]).is_err());
    assert!(EncRate::encrypt(256, &KEYS[0], &mut ChaCha20Rng::seed_from_u64(1)).is_err());
}
