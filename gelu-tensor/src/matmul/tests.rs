use std::sync::LazyLock;

use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::paillier::{KeyBits, Randomizer, SecretKey};
use crate::{FixedTensor, Format, Shape, SlotLayout, WeightRange};

static KEY: LazyLock<SecretKey> =
    LazyLock::new(|| SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(11)).unwrap());

/// Every strategy gives the product in the clear, and exactly the operations that the cost model counts.
#[test]
fn every_strategy_is_exact_and_costs_what_the_model_says() {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    for (bits, signed, rows, taps, columns) in [
        (12, true, 9, 7, 2),
        (2, true, 1, 3, 1),
        (8, true, 3, 10, 70),
        (1, false, 2, 4, 3),
        (5, false, 9, 5, 2),
    ] {
        let range = WeightRange { bits, signed, scale_bits: 0 };
        let half = if signed { 1i32 << (bits - 1) } else { 0 };
        let mut weights: Vec<i32> =
            (0..rows * taps).map(|_| rng.random_range(0..1i32 << bits) - half).collect();
        weights[0] = -half;
        weights[1] = (1 << bits) - 1 - half;
        let matrix = IntMatrix::new(taps, range, weights).unwrap();

        let format = Format::new(1000, 0).unwrap();
        let values: Vec<i64> = (0..taps * columns).map(|_| rng.random_range(-1000..=1000)).collect();
        let inputs = FixedTensor::new(Shape::from([taps]), format, values).unwrap();
        let expected = inputs.dense(&matrix).unwrap();
        let encrypted = inputs.encrypt(SlotLayout::one_value(32), &*KEY, &mut rng).unwrap();

        let public = KEY.public_key();
        let pool = public.decode(&encrypted.encode_ciphertexts()).unwrap();
        let indices = Columns::new(public.ring(), &pool, taps, (0..taps * columns).map(Some));
        let shape = MatmulShape { outputs: rows, taps, columns, ciphertexts: taps * columns, weights: range };
        let strategies = (1..=8)
            .map(|inputs| Strategy::Subset { inputs })
            .chain((1..=8).map(|bits| Strategy::Window { bits }));
        for strategy in strategies {
            let before = public.ring().operations();
            let out = multiply(public.ring(), &(&matrix).into(), &indices, strategy).unwrap();
            let counted = public.ring().operations() - before;
            assert_eq!(counted, shape.operations(strategy), "{strategy} of {shape:?}");
            let header = crate::EncTensorHeader {
                shape: Shape::from([rows]),
                format: expected.format(),
                ..encrypted.header()
            };
            let out = crate::EncTensor::decode(public, header, &public.encode(&out)).unwrap();
            assert_eq!(out.decrypt(&KEY).unwrap(), expected, "{strategy}");
        }
    }
}

#[test]
fn many_outputs_share_subsets_and_many_columns_share_windows() {
    let weights = WeightRange::signed(12, 0);
    let dense = MatmulShape { outputs: 120, taps: 256, columns: 1, ciphertexts: 256, weights };
    assert!(matches!(dense.cheapest(1), Strategy::Subset { inputs: 6.. }));
    assert!(dense.operations(dense.cheapest(1)).total() < 60_000);
    let batch_conv = MatmulShape { outputs: 6, taps: 36, columns: 144, ciphertexts: 784, weights };
    assert!(matches!(batch_conv.cheapest(1), Strategy::Window { .. }));
}
