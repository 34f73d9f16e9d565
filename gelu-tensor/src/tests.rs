//! Encrypted tensors against the clear fixed-point computation, bit for bit.

use std::sync::LazyLock;

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use crate::paillier::{KeyBits, PublicKey, Randomizer, SecretKey};
use crate::*;

static KEY: LazyLock<SecretKey> =
    LazyLock::new(|| SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(42)).unwrap());

fn public() -> &'static PublicKey {
    KEY.public_key()
}

/// Values of a bound: the extremes as often as others.
fn random_tensor(rng: &mut ChaCha20Rng, shape: &Shape, batch: usize, bound: u64) -> FixedTensor {
    let bound_ = bound as i64;
    let values = (0..batch * shape.elements())
        .map(|_| match rng.random_range(0..4) {
            0 => bound_,
            1 => -bound_,
            _ => rng.random_range(-bound_..=bound_),
        })
        .collect();
    FixedTensor::new(shape.clone(), Format::new(bound, 4).unwrap(), values).unwrap()
}

fn random_matrix(rng: &mut ChaCha20Rng, rows: usize, columns: usize, bits: u32) -> IntMatrix {
    let half = 1i32 << (bits - 1);
    let weights = (0..rows * columns)
        .map(|_| match rng.random_range(0..4) {
            0 => -half,
            1 => half - 1,
            _ => rng.random_range(-half..half),
        })
        .collect();
    IntMatrix::new(columns, WeightRange::signed(bits, 3), weights).unwrap()
}

/// Adds a bias, repacks, re-randomises and decrypts.
fn finish(rng: &mut ChaCha20Rng, clear: &FixedTensor, encrypted: EncTensor) {
    assert_eq!(encrypted.shape(), clear.shape());
    let decrypted = encrypted.decrypt(&KEY).unwrap();
    assert_eq!(&decrypted, clear, "linear layer under {}", encrypted.layout());
    let bound = clear.format().bound();
    let bias = random_tensor(rng, clear.shape(), 1, bound);
    let format = clear.format();
    let bias = FixedTensor::new(clear.shape().clone(), format, bias.values().to_vec()).unwrap();
    let (clear, encrypted) = (clear.add(&bias).unwrap(), encrypted.add_plain(&bias).unwrap());
    let most = encrypted.layout().most_stacked(public().size()).unwrap();
    let stacked = rng.random_range(1..=most);
    let repacked = encrypted.repack(stacked).unwrap();
    let before = repacked.encode_ciphertexts();
    let fresh = repacked.rerandomize(rng);
    assert!(fresh.ciphertext_count() <= encrypted.ciphertext_count());
    let width = public().ciphertext_bytes();
    for (old, new) in before.chunks(width).zip(fresh.encode_ciphertexts().chunks(width)) {
        assert_ne!(old, new);
    }
    assert_eq!(fresh.decrypt(&KEY).unwrap(), clear, "repacked from {}", encrypted.layout());
    let again = EncTensor::decode(public(), fresh.header(), &fresh.encode_ciphertexts()).unwrap();
    assert_eq!(again.decrypt(&KEY).unwrap(), clear);
}

/// Bits of a slot that holds the result twice over (for the bias), so that a key of 1,024 bits has few slots.
fn slot_bits(clear: &FixedTensor) -> usize {
    clear.format().slot_bits() + 1
}

/// One image, a few, one group of slots full, and one image more.
fn batches(slot_bits: usize) -> Vec<usize> {
    let slots = KeyBits::Bits1024.slot_capacity_bits() / slot_bits;
    vec![1, 2, slots, slots + 1]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn conv2d_equals_clear(
        seed: u64, channels in 1usize..3, size in [3usize..7, 3usize..7], kernels in 1usize..4,
        kernel in [1usize..4, 1usize..4], stride in [1usize..3, 1usize..3], padding in [0usize..2, 0usize..2],
        bits in 2u32..13, bound in 1u64..5000, batch in 0usize..4,
    ) {
        let padding = [padding[0].min(kernel[0] - 1), padding[1].min(kernel[1] - 1)];
        let window = Window { kernel, stride, padding };
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let shape = Shape::from([channels, size[0], size[1]]);
        let matrix = random_matrix(&mut rng, kernels, channels * kernel[0] * kernel[1], bits);
        let probe = random_tensor(&mut rng, &shape, 1, bound).conv2d(&matrix, window).unwrap();
        let slot_bits = slot_bits(&probe).max(40);
        let batch = batches(slot_bits)[batch];
        let input = random_tensor(&mut rng, &shape, batch, bound);
        let clear = input.conv2d(&matrix, window).unwrap();
        let windows = window.over([channels, size[0], size[1]]).unwrap();
        let size = public().size();
        let mut layouts = vec![
            SlotLayout::batch(slot_bits, batch, size).unwrap(),
            SlotLayout::im2col(windows, slot_bits, batch, size).unwrap(),
        ];
        if batch <= 2 {
            layouts.push(SlotLayout::one_value(slot_bits));
        }
        for layout in layouts {
            let encrypted = input.encrypt(layout, &*KEY, &mut rng).unwrap();
            prop_assert_eq!(encrypted.ciphertext_count(), layout.ciphertexts(batch, &shape));
            finish(&mut rng, &clear, encrypted.conv2d(&matrix, window).unwrap());
        }
    }

    #[test]
    fn mean_pool_equals_clear(
        seed: u64, channels in 1usize..3, size in [3usize..7, 3usize..7],
        kernel in [1usize..4, 1usize..4], stride in [1usize..3, 1usize..3], padding in [0usize..2, 0usize..2],
        bound in 1u64..5000, batch in 0usize..4,
    ) {
        let padding = [padding[0].min(kernel[0] - 1), padding[1].min(kernel[1] - 1)];
        let window = Window { kernel, stride, padding };
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let shape = Shape::from([channels, size[0], size[1]]);
        let probe = random_tensor(&mut rng, &shape, 1, bound).mean_pool(window).unwrap();
        let slot_bits = slot_bits(&probe).max(40);
        let batch = batches(slot_bits)[batch];
        let input = random_tensor(&mut rng, &shape, batch, bound);
        let clear = input.mean_pool(window).unwrap();
        let mut layouts = vec![SlotLayout::batch(slot_bits, batch, public().size()).unwrap()];
        if batch <= 2 {
            layouts.push(SlotLayout::one_value(slot_bits));
        }
        for layout in layouts {
            let encrypted = input.encrypt(layout, public(), &mut rng).unwrap();
            finish(&mut rng, &clear, encrypted.mean_pool(window).unwrap());
        }
        let windows = window.over([1, size[0], size[1]]).unwrap();
        let split = input.clone().split_channels().unwrap();
        let layout = SlotLayout::im2col(windows, slot_bits, split.batch(), public().size()).unwrap();
        let encrypted = split.encrypt(layout, &*KEY, &mut rng).unwrap();
        finish(&mut rng, &clear.split_channels().unwrap(), encrypted.mean_pool(window).unwrap());
    }

    #[test]
    fn dense_equals_clear(
        seed: u64, features in 1usize..20, outputs in 1usize..14, bits in 2u32..17, bound in 1u64..100_000,
        batch in 0usize..4,
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let matrix = random_matrix(&mut rng, outputs, features, bits);
        let shape = Shape::from([features]);
        let probe = random_tensor(&mut rng, &shape, 1, bound).dense(&matrix).unwrap();
        let batch = batches(slot_bits(&probe))[batch];
        let input = random_tensor(&mut rng, &shape, batch, bound);
        let clear = input.dense(&matrix).unwrap();
        let mut layouts = vec![SlotLayout::batch(slot_bits(&probe), batch, public().size()).unwrap()];
        if batch <= 2 {
            layouts.push(SlotLayout::one_value(slot_bits(&probe)));
        }
        for layout in layouts {
            let encrypted = input.encrypt(layout, &*KEY, &mut rng).unwrap();
            finish(&mut rng, &clear, encrypted.dense(&matrix).unwrap());
        }
    }

    #[test]
    fn sums_equal_clear(seed: u64, features in 1usize..9, batch in 1usize..9, bound in 1u64..1 << 40) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let shape = Shape::from([features]);
        let (x, y) = (random_tensor(&mut rng, &shape, batch, bound), random_tensor(&mut rng, &shape, batch, bound));
        let clear = x.add(&y).unwrap();
        let layout = SlotLayout::batch(clear.format().slot_bits(), batch, public().size()).unwrap();
        let sum = x.encrypt(layout, &*KEY, &mut rng).unwrap().add(&y.encrypt(layout, &*KEY, &mut rng).unwrap());
        prop_assert_eq!(&sum.unwrap().decrypt(&KEY).unwrap(), &clear);
        let sum = x.encrypt(layout, &*KEY, &mut rng).unwrap().add_plain(&y).unwrap();
        prop_assert_eq!(&sum.decrypt(&KEY).unwrap(), &clear);
    }
}

fn small() -> (FixedTensor, ChaCha20Rng) {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    (random_tensor(&mut rng, &Shape::from([2, 4, 4]), 1, 100), rng)
}

#[test]
fn overflow_is_refused_before_any_work() {
    let (input, mut rng) = small();
    let matrix = random_matrix(&mut rng, 1, 32, 12);
    let layout = SlotLayout::one_value(16);
    let encrypted = input.encrypt(layout, &*KEY, &mut rng).unwrap();
    assert_eq!(
        encrypted.dense(&matrix).unwrap_err(),
        Error::Overflow { needed_bits: 24, available_bits: 16 },
        "100 * 2^11 * 32 < 2^23"
    );
    assert!(matches!(input.encrypt(SlotLayout::one_value(7), &*KEY, &mut rng), Err(Error::Overflow { .. })));
    let wide = SlotLayout { width: 64, ..layout };
    assert!(matches!(input.encrypt(wide, &*KEY, &mut rng), Err(Error::Overflow { .. })));
    let huge = FixedTensor::new(Shape::from([1]), Format::new(MAX_BOUND, 0).unwrap(), vec![1]).unwrap();
    let doubling = IntMatrix::new(1, WeightRange::signed(3, 0), vec![2]).unwrap();
    assert!(matches!(huge.dense(&doubling), Err(Error::Overflow { .. })));
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let (input, mut rng) = small();
    let encrypted = input.encrypt(SlotLayout::one_value(30), &*KEY, &mut rng).unwrap();
    let matrix = random_matrix(&mut rng, 2, 31, 4);
    assert!(matches!(encrypted.dense(&matrix), Err(Error::Count { expected: 31, found: 32, .. })));
    assert!(encrypted.conv2d(&matrix, Window::new([5, 5])).is_err());
    assert!(encrypted.mean_pool(Window::new([2, 2]).with_padding([2, 1])).is_err());
    let flat = encrypted.clone().reshape(Shape::from([32])).unwrap();
    assert!(matches!(encrypted.add(&flat), Err(Error::Shape { .. })));
    assert!(matches!(encrypted.clone().reshape(Shape::from([31])), Err(Error::Shape { .. })));
    let other = SecretKey::generate(KeyBits::Bits1024, &mut rng).unwrap();
    let foreign = input.encrypt(SlotLayout::one_value(30), &other, &mut rng).unwrap();
    assert!(matches!(encrypted.add(&foreign), Err(Error::ForeignKey { .. })));
    assert!(matches!(foreign.decrypt(&KEY), Err(Error::ForeignKey { .. })));
    let windows = Window::new([2, 2]).over([2, 4, 4]).unwrap();
    let patches = SlotLayout::im2col(windows, 30, 1, public().size()).unwrap();
    let patches = input.encrypt(patches, &*KEY, &mut rng).unwrap();
    let kernels = random_matrix(&mut rng, 2, 18, 4);
    assert!(matches!(patches.conv2d(&kernels, Window::new([3, 3])), Err(Error::Layout { .. })));
    assert!(matches!(patches.dense(&random_matrix(&mut rng, 2, 32, 4)), Err(Error::Layout { .. })));
    assert!(matches!(patches.decrypt(&KEY), Err(Error::Layout { .. })));
    let packed = encrypted.repack(34).unwrap();
    assert!(matches!(packed.repack(34), Err(Error::Layout { .. })));
    assert!(matches!(encrypted.repack(35), Err(Error::Overflow { .. })));
    assert!(encrypted.repack(0).is_err());
    assert!(matches!(packed.dense(&random_matrix(&mut rng, 2, 32, 4)), Err(Error::Layout { .. })));
    assert!(encrypted.add_plain(&random_tensor(&mut rng, &Shape::from([32]), 1, 5)).is_err());
}

/// Factors that were made before are used where they fit, and never where they do not; the values stay.
#[test]
fn factors_for_rerandomisation_are_checked() {
    let rng = &mut ChaCha20Rng::seed_from_u64(11);
    let other = SecretKey::generate(KeyBits::Bits1024, rng).unwrap();
    let plain = FixedTensor::new(Shape::from([3]), Format::new(9, 0).unwrap(), vec![-9, 0, 7]).unwrap();
    let tensor = plain.encrypt(SlotLayout::one_value(8), &*KEY, rng).unwrap();
    let public = KEY.public_key();
    let known = public.parameters().encryption_exponent();
    let fresh = |key: &PublicKey, count: usize, rng: &mut ChaCha20Rng| {
        key.hiding_exponents(rng, count, known).powers()
    };
    let fitting = fresh(public, 3, rng);
    let expected = {
        let mut ciphertexts = public.decode(&tensor.encode_ciphertexts()).unwrap();
        public.ring().mul_assign(&mut ciphertexts, &fitting.powers);
        public.encode(&ciphertexts)
    };
    assert_eq!(tensor.clone().rerandomize_with(fitting, rng).encode_ciphertexts(), expected);
    for unfit in [fresh(other.public_key(), 3, rng), fresh(public, 2, rng)] {
        let again = tensor.clone().rerandomize_with(unfit, rng);
        assert_ne!(again.encode_ciphertexts(), tensor.encode_ciphertexts());
        assert_eq!(again.decrypt(&KEY).unwrap().values(), plain.values());
    }
}

#[test]
fn tensors_from_outside_are_checked() {
    let (input, mut rng) = small();
    let encrypted = input.encrypt(SlotLayout::one_value(30), &*KEY, &mut rng).unwrap();
    let (header, bytes) = (encrypted.header(), encrypted.encode_ciphertexts());
    let decode = |header: EncTensorHeader| EncTensor::decode(public(), header, &bytes);
    assert!(decode(header.clone()).is_ok());
    let layout = header.layout;
    for header in [
        EncTensorHeader { batch: 2, ..header.clone() },
        EncTensorHeader { batch: usize::MAX, ..header.clone() },
        EncTensorHeader { batch: 0, ..header.clone() },
        EncTensorHeader { shape: Shape::from([2, 4, 5]), ..header.clone() },
        EncTensorHeader { shape: Shape::from([usize::MAX, usize::MAX]), ..header.clone() },
        EncTensorHeader { layout: SlotLayout { slot_bits: 64, ..layout }, ..header.clone() },
        EncTensorHeader { layout: SlotLayout { slot_bits: 4, ..layout }, ..header.clone() },
        EncTensorHeader { layout: SlotLayout { width: 0, ..layout }, ..header.clone() },
        EncTensorHeader { layout: SlotLayout { width: usize::MAX, ..layout }, ..header.clone() },
        EncTensorHeader { layout: SlotLayout { stacked: 35, ..layout }, ..header.clone() },
        EncTensorHeader {
            layout: SlotLayout { arrangement: Arrangement::Positions { count: 0 }, ..layout },
            ..header.clone()
        },
        EncTensorHeader {
            layout: SlotLayout { arrangement: Arrangement::Positions { count: 5 }, ..layout },
            ..header.clone()
        },
    ] {
        assert!(decode(header.clone()).is_err(), "{header:?}");
    }
    assert!(EncTensor::decode(public(), header.clone(), &bytes[1..]).is_err());
    assert!(EncTensor::decode(public(), header, &[]).is_err());
}

/// A reply whose values leave the declared bound, or that fills unused slots, is not taken for a result.
#[test]
fn plaintexts_out_of_bounds_are_refused() {
    let (_, mut rng) = small();
    let format = Format::new(1000, 0).unwrap();
    let input = FixedTensor::new(Shape::from([2]), format, vec![1000, -1000]).unwrap();
    let encrypted =
        input.encrypt(SlotLayout::batch(20, 1, public().size()).unwrap(), &*KEY, &mut rng).unwrap();
    let honest = encrypted.header();
    let bytes = encrypted.encode_ciphertexts();
    let smaller = EncTensorHeader { format: Format::new(999, 0).unwrap(), ..honest.clone() };
    let tensor = EncTensor::decode(public(), smaller, &bytes).unwrap();
    assert_eq!(tensor.decrypt(&KEY), Err(Error::Plaintext { index: 0 }));
    let narrower = EncTensorHeader {
        format: Format::new(3, 0).unwrap(),
        layout: SlotLayout { slot_bits: 3, ..honest.layout },
        ..honest
    };
    let tensor = EncTensor::decode(public(), narrower, &bytes).unwrap();
    assert_eq!(tensor.decrypt(&KEY), Err(Error::Plaintext { index: 0 }));
}

/// Factors made ahead are used where they hide enough, and drawn anew where stacking has made exponents longer since.
#[test]
fn factors_that_are_too_short_are_not_used() {
    let (_, mut rng) = small();
    let format = Format::new(1000, 0).unwrap();
    let fresh = |rng: &mut ChaCha20Rng| {
        let input = FixedTensor::new(Shape::from([120]), format, (0..120).collect()).unwrap();
        input.encrypt(SlotLayout::one_value(60), &*KEY, rng).unwrap()
    };
    for stacked in [1, 3] {
        let tensor = fresh(&mut rng).repack(stacked).unwrap();
        let count = tensor.ciphertext_count();
        assert!(count > 32);
        let hidden = public().parameters().encryption_exponent();
        let factors = public().hiding_exponents(&mut rng, count, hidden).powers();
        let mut with_these = public().decode(&tensor.encode_ciphertexts()).unwrap();
        public().ring().mul_assign(&mut with_these, &factors.powers);
        let seeded = || ChaCha20Rng::seed_from_u64(12);
        let found = tensor.clone().rerandomize_with(factors, &mut seeded()).encode_ciphertexts();
        let anew = tensor.rerandomize(&mut seeded()).encode_ciphertexts();
        let these = public().encode(&with_these);
        assert_eq!((found == these, found == anew), (stacked == 1, stacked == 3));
    }
}

#[test]
fn formats_are_checked() {
    assert!(Format::new(MAX_BOUND + 1, 0).is_err());
    assert!(Format::new(1, 1000).is_err());
    // Numbers of a peer's plan: neither the scale nor the bound may overflow on the way to being refused.
    let largest = Format::new(MAX_BOUND, 256).unwrap();
    for (scale_bits, terms) in [(i32::MAX, 1), (i32::MIN, 1), (0, usize::MAX)] {
        let weights = WeightRange::signed(24, scale_bits);
        assert!(matches!(largest.weighted_sum(weights, terms), Err(Error::Overflow { .. })));
    }
    let format = Format::new(255, 8).unwrap();
    assert_eq!((format.slot_bits(), format.real(128)), (9, 0.5));
    assert!(matches!(format.sum(Format::new(1, 7).unwrap()), Err(Error::Scale { expected: 8, found: 7 })));
    assert!(FixedTensor::new(Shape::from([2]), format, vec![1, 2, 3]).is_err());
    assert!(matches!(
        FixedTensor::new(Shape::from([2]), format, vec![1, 256]),
        Err(Error::Value { index: 1, .. })
    ));
    assert!(matches!(
        IntMatrix::new(2, WeightRange::signed(4, 0), vec![7, 8]),
        Err(Error::Weight { index: 1, found: 8, .. })
    ));
    assert!(IntMatrix::new(2, WeightRange::signed(25, 0), vec![7, 8]).is_err());
    assert!(IntMatrix::new(2, WeightRange::signed(4, 0), vec![7]).is_err());
}

/// Chunk by chunk and at once give the same; parts come out as soon as their chunks are there.
#[test]
fn tensors_in_chunks_are_the_same() {
    let rng = &mut ChaCha20Rng::seed_from_u64(21);
    let (batch, format) = (90, Format::new(100, 0).unwrap());
    let integers = (0..batch as i64 * 6).map(|i| i * 37 % 201 - 100).collect();
    let values = FixedTensor::new(Shape::from([6]), format, integers).unwrap();
    let layout = SlotLayout::batch(48, batch, KeyBits::Bits1024).unwrap();
    assert!(layout.width < batch && layout.images_apart() == layout.width);
    let mut encryption = Encryption::new(values.clone(), layout, public()).unwrap();
    let header = encryption.header();
    let all = encryption.next_chunk(&*KEY, rng).unwrap();
    assert!(encryption.next_chunk(&*KEY, rng).is_none());
    let bytes = all.encode();
    let chunks: Vec<EncChunk> = bytes
        .chunks(4 * public().ciphertext_bytes())
        .map(|bytes| EncChunk::decode(public(), bytes).unwrap())
        .collect();
    assert!(chunks.len() > 3);

    let most = all.ciphertext_count();
    let part = layout.width;
    assert!(EncTensorBuilder::new(public(), header.clone(), part + 1, most).is_err());
    assert!(EncTensorBuilder::new(public(), header.clone(), part, most - 1).is_err());
    let mut builder = EncTensorBuilder::new(public(), header.clone(), part, most).unwrap();
    let mut decryption = Decryption::new(public(), header, most).unwrap();
    let (mut images, mut early) = (vec![], 0);
    for (index, chunk) in (0..).zip(&chunks) {
        assert!(builder.push(index + 1, chunk).is_err() && decryption.push(index + 1, chunk, &KEY).is_err());
        builder.push(index, chunk).unwrap();
        decryption.push(index, chunk, &KEY).unwrap();
        while let Some(part) = builder.next_part().unwrap() {
            early += usize::from(!builder.is_complete());
            images.extend_from_slice(part.decrypt(&KEY).unwrap().values());
        }
    }
    assert!(early > 0 && builder.is_empty());
    let over = builder.push(chunks.len() as u32, &chunks[0]).unwrap_err();
    assert!(matches!(over, Error::Count { what: "ciphertexts of a tensor", .. }), "{over}");
    assert_eq!(images, values.values());
    assert_eq!(decryption.finish().unwrap(), values);
}
