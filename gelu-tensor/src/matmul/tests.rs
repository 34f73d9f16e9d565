//! The ciphertext matrix product: every strategy, and what it costs.

use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::paillier::{KeyBits, SecretKey};
use crate::{
    Contents, EncTensor, EncTensorHeader, FixedTensor, Format, IntWeights, LinearMap, Packing, Shape,
    SlotLayout, WeightRange, Workload,
};

/// A key of one test, so that its ring counts no operations of others.
fn key(rng: &mut ChaCha20Rng) -> SecretKey {
    crate::testing::secret_key(KeyBits::Bits1024, rng).unwrap()
}

fn strategies() -> impl Iterator<Item = Strategy> {
    let subsets = (1..=10).map(|inputs| Strategy::Subset { inputs });
    subsets.chain((1..=8).map(|bits| Strategy::Window { bits }))
}

fn layout(slot_bits: usize, contents: Contents) -> SlotLayout {
    SlotLayout::images(Packing { batch: 1, slot_bits, key: KeyBits::Bits1024 }, contents).unwrap()
}

/// The columns of a dense layer's inputs, one image each.
fn columns(encrypted: &EncTensor, taps: usize) -> Columns {
    let public = encrypted.key();
    let pool = public.decode(&encrypted.encode_ciphertexts()).unwrap();
    let count = pool.len();
    Columns::new(public.ring(), pool, taps, (0..count).map(Some))
}

/// Every strategy gives the product in the clear, and exactly the operations that the cost model counts.
#[test]
fn every_strategy_is_exact_and_costs_what_the_model_says() {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let key = key(&mut rng);
    for (bits, signed, rows, taps, images) in [
        (12, true, 9, 7, 2),
        (2, true, 1, 3, 1),
        (8, true, 3, 10, 70),
        (1, false, 2, 4, 3),
        (5, false, 9, 5, 2),
        (6, true, 1, 11, 66),
    ] {
        let range = if signed { WeightRange::signed(bits) } else { WeightRange::unsigned(bits) }.unwrap();
        let half = if signed { 1i32 << (bits - 1) } else { 0 };
        let mut weights: Vec<i32> =
            (0..rows * taps).map(|_| rng.random_range(0..1i32 << bits) - half).collect();
        weights[0] = -half;
        weights[1] = (1 << bits) - 1 - half;
        let weights = IntWeights::new(range, weights).unwrap();
        let map = LinearMap::dense(&Shape::from([taps]), rows).unwrap();
        let matrix = &weights.matrix(&map.blocks()[0]);
        assert_eq!((matrix.columns, matrix.rows(), matrix.values[0]), (taps, rows, 0));
        assert_eq!(matrix.values[1], (1 << bits) - 1, "the offset makes the largest weight 2^bits - 1");

        let format = Format::integers(1000).unwrap();
        let values: Vec<i64> = (0..taps * images).map(|_| rng.random_range(-1000..=1000)).collect();
        let inputs = FixedTensor::new(Shape::from([taps]), format, values).unwrap();
        let expected = inputs.apply(&map, &weights).unwrap();
        let encrypted = inputs.encrypt(&layout(32, Contents::Integers(format)), &key, &mut rng).unwrap();
        let public = key.public_key();
        let shape =
            MatmulShape { outputs: rows, taps, columns: images, ciphertexts: taps * images, weights: range };
        let header = EncTensorHeader {
            shape: Shape::from([rows]),
            layout: layout(32, Contents::Integers(expected.format())),
            ..encrypted.header().clone()
        };
        let columns = columns(&encrypted, taps);
        for strategy in strategies() {
            let before = public.ring().operations();
            let out = multiply(public.ring(), matrix, &columns, strategy).unwrap();
            let counted = public.ring().operations() - before;
            assert_eq!(counted, shape.operations(strategy), "{strategy} of {shape:?}");
            let out = EncTensor::decode(public, header.clone(), &public.encode(&out)).unwrap();
            assert_eq!(out.decrypt(&key).unwrap(), expected, "{strategy}");
        }
    }
}

/// Zeros of padding and ciphertexts that several columns share are taken from one pool.
#[test]
fn columns_share_ciphertexts_and_one_zero() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let key = key(&mut rng);
    let format = Format::integers(50).unwrap();
    let inputs = FixedTensor::new(Shape::from([4]), format, vec![50, -50, 7, -1]).unwrap();
    let encrypted = inputs.encrypt(&layout(32, Contents::Integers(format)), &key, &mut rng).unwrap();
    let public = key.public_key();
    let indices =
        [Some(0), None, Some(1), Some(1), Some(2), None, None, None, None, Some(3), Some(0), Some(0)];
    let weights = [-4i64, 3, 2, 1, 0, -1];
    let range = WeightRange::signed(3).unwrap();
    let values = weights.iter().map(|weight| (weight + 4) as u64).collect();
    let matrix = Matrix { columns: 3, range, values };
    let x = inputs.values();
    let expected: Vec<i64> = indices
        .chunks(3)
        .flat_map(|column| {
            weights.chunks(3).map(move |row| {
                let taps = row.iter().zip(column);
                taps.map(|(weight, at)| at.map_or(0, |at: usize| weight * x[at])).sum()
            })
        })
        .collect();
    let pool = public.decode(&encrypted.encode_ciphertexts()).unwrap();
    let shape = MatmulShape { outputs: 2, taps: 3, columns: 4, ciphertexts: 5, weights: range };
    let columns = Columns::new(public.ring(), pool, 3, indices);
    let header = EncTensorHeader {
        shape: Shape::from([8]),
        layout: layout(32, Contents::Integers(Format::integers(1000).unwrap())),
        ..encrypted.header().clone()
    };
    for strategy in strategies() {
        let before = public.ring().operations();
        let out = multiply(public.ring(), &matrix, &columns, strategy).unwrap();
        let counted = public.ring().operations() - before;
        assert_eq!(counted, shape.operations(strategy), "{strategy}");
        // A column of zeros alone is the residue 1, which is an encryption of zero.
        let out = EncTensor::new(public.clone(), header.clone(), out);
        assert_eq!(out.decrypt(&key).unwrap().values(), expected, "{strategy}");
    }
    let wrong = Matrix { columns: 2, range, values: vec![1, 2] };
    let refused = multiply(public.ring(), &wrong, &columns, Strategy::Subset { inputs: 1 }).unwrap_err();
    assert!(matches!(refused, Error::Count { expected: 2, found: 3, .. }), "{refused}");
}

#[test]
fn many_outputs_share_subsets_and_many_columns_share_windows() {
    let weights = WeightRange::signed(12).unwrap();
    let dense = MatmulShape { outputs: 120, taps: 256, columns: 1, ciphertexts: 256, weights };
    assert!(matches!(dense.cheapest(1), Strategy::Subset { inputs: 6.. }));
    assert!(dense.operations(dense.cheapest(1)).total() < 60_000);
    let batch_conv = MatmulShape { outputs: 6, taps: 36, columns: 144, ciphertexts: 784, weights };
    assert!(matches!(batch_conv.cheapest(1), Strategy::Window { .. }));
}

/// A vector of eight leaves what four lanes hold to half of it; smaller ones have no half.
#[test]
fn half_a_vector_takes_less_than_a_whole_one() {
    let filled = |lanes, counts: [usize; 5]| counts.map(|count| Workload::filled(count, lanes));
    assert_eq!(filled(8, [0, 1, 4, 5, 12]), [0, 5, 5, 8, 13]);
    assert_eq!(filled(4, [0, 1, 4, 5, 12]), [0, 4, 4, 8, 12]);
    assert_eq!(filled(1, [0, 1, 4, 5, 12]), [0, 1, 4, 5, 12]);
}

/// The cheapest way is one that no other undercuts, for vectors of any size.
#[test]
fn the_cheapest_strategy_is_the_cheapest() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    for _ in 0..200 {
        let [outputs, taps, columns] = [(); 3].map(|()| rng.random_range(1..200));
        let mut weights = WeightRange::signed(rng.random_range(2..25)).unwrap();
        weights.signed = rng.random();
        let ciphertexts = rng.random_range(1..=taps * columns);
        let shape = MatmulShape { outputs, taps, columns, ciphertexts, weights };
        for lanes in [1, 8] {
            let cheapest = shape.weight(shape.cheapest(lanes), lanes);
            assert!(strategies().all(|strategy| shape.weight(strategy, lanes) >= cheapest), "{shape:?}");
        }
    }
}
