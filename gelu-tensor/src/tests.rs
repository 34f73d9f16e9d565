//! Encrypted tensors against the clear fixed-point computation, bit for bit.

mod border;
mod chunks;
mod correct;
mod fields;
pub(crate) mod maps;
mod packing;

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use self::maps::random_map;
use crate::paillier::{Hiding, KeyBits, PublicKey, Randomizer, SecretKey};
use crate::*;

static KEY: LazyLock<SecretKey> = LazyLock::new(|| {
    crate::testing::secret_key(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(42)).unwrap()
});

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
    FixedTensor::new(shape.clone(), Format::integers(bound).unwrap().with_scale_bits(4).unwrap(), values)
        .unwrap()
}

/// Weights for a map: the extremes of their range as often as others.
fn random_weights(rng: &mut ChaCha20Rng, map: &LinearMap, range: WeightRange) -> IntWeights {
    let all = 1i32 << range.bits;
    let least = if range.signed { -all / 2 } else { 0 };
    let weights = (0..map.weights())
        .map(|_| match rng.random_range(0..4) {
            0 => least,
            1 => least + all - 1,
            _ => rng.random_range(least..least + all),
        })
        .collect();
    IntWeights::new(range, weights).unwrap()
}

/// Slots of a key of 1,024 bits.
fn packing(batch: usize, slot_bits: usize) -> Packing {
    Packing { batch, slot_bits, key: public().size() }
}

/// Contents for layouts that tensors of any format are encrypted in.
fn anything() -> Contents {
    Contents::Integers(Format::integers(0).unwrap())
}

/// Slots that are images.
fn images(batch: usize, slot_bits: usize) -> SlotLayout {
    SlotLayout::images(packing(batch, slot_bits), anything()).unwrap()
}

/// Slots that are columns of a map.
fn patches(map: &Arc<LinearMap>, batch: usize, slot_bits: usize) -> SlotLayout {
    SlotLayout::patches(map, packing(batch, slot_bits), anything()).unwrap()
}

/// One value a ciphertext for up to two images, batches, and im2col wherever blocks have equally many columns.
fn layouts(map: &Arc<LinearMap>, batch: usize, slot_bits: usize) -> Vec<SlotLayout> {
    let mut layouts = vec![images(batch, slot_bits)];
    if batch == 2 {
        layouts.push(images(1, slot_bits));
    }
    if map.columns().is_some() {
        layouts.push(patches(map, batch, slot_bits));
    }
    layouts
}

/// Applies a map as a plan has it: in the cheapest way for vectors of so many lanes.
fn apply(
    tensor: &EncTensor,
    map: &Arc<LinearMap>,
    weights: &IntWeights,
    lanes: usize,
) -> Result<EncTensor, Error> {
    let groups = tensor.header().groups();
    let how = Workload { weights: weights.range(), groups, lanes };
    let product = Product::cheapest(map, tensor.layout(), how)?;
    tensor.apply(map, weights, &product)
}

/// Adds a bias, repacks, re-randomizes and decrypts.
fn finish(rng: &mut ChaCha20Rng, clear: &FixedTensor, encrypted: EncTensor) {
    assert_eq!((encrypted.shape(), encrypted.batch()), (clear.shape(), clear.batch()));
    let decrypted = encrypted.decrypt(&KEY).unwrap();
    assert_eq!(&decrypted, clear, "linear layer under {}", encrypted.layout());
    let bound = clear.format().bound();
    let bias = random_tensor(rng, clear.shape(), 1, bound);
    let bias = FixedTensor::new(clear.shape().clone(), clear.format(), bias.values().to_vec()).unwrap();
    let (clear, encrypted) = (clear.add(&bias).unwrap(), encrypted.add_plain(&bias).unwrap());
    let most = encrypted.layout().most_stacked(public().size());
    let stacked = rng.random_range(1..=most);
    let (count, layout) = (encrypted.header().ciphertexts(), encrypted.layout().clone());
    let repacked = encrypted.repack(stacked).unwrap();
    assert_eq!(repacked.layout(), &layout.with_stacked(stacked, public().size()).unwrap());
    assert_eq!(repacked.header().ciphertexts(), count.div_ceil(stacked));
    let before = repacked.encode_ciphertexts();
    let fresh = repacked.rerandomize(rng);
    let width = public().ciphertext_bytes();
    for (old, new) in before.chunks(width).zip(fresh.encode_ciphertexts().chunks(width)) {
        assert_ne!(old, new);
    }
    assert_eq!(fresh.decrypt(&KEY).unwrap(), clear, "repacked from {layout}");
    let again = EncTensor::decode(public(), fresh.header().clone(), &fresh.encode_ciphertexts()).unwrap();
    assert_eq!(again.decrypt(&KEY).unwrap(), clear);
    let mut decryption = Decryption::new(public(), again.header().clone()).unwrap();
    (0..).zip(again.chunks()).for_each(|(at, chunk)| decryption.push(at, &chunk, &KEY).unwrap());
    assert_eq!(decryption.finish().unwrap(), clear);
}

/// How a map is tried on ciphertexts.
#[derive(Clone, Copy, Debug)]
struct Trial {
    range: WeightRange,
    /// Of the inputs.
    bound: u64,
    /// Slots are as wide at least.
    slot_bits: usize,
    /// One image, two, one group of slots full, or one image more.
    batch: usize,
    lanes: usize,
}

prop_compose! {
    fn trials()(
        bits in 2u32..13, signed: bool, bound in 1u64..5000,
        slot_bits in prop::sample::select(vec![1, 40, 64, 65, 100, 128]),
        batch in 0usize..4, lanes in prop::sample::select(vec![1, 8]),
    ) -> Trial {
        let range = if signed { WeightRange::signed(bits) } else { WeightRange::unsigned(bits) };
        Trial { range: range.unwrap().with_scale_bits(3), bound, slot_bits, batch, lanes }
    }
}

impl Trial {
    /// A slot holds the result twice over (for the bias).
    fn slot_bits(self, clear: Format) -> usize {
        self.slot_bits.max(clear.slot_bits() + 1)
    }

    fn images(self, slot_bits: usize) -> usize {
        let slots = KeyBits::Bits1024.slot_capacity_bits() / slot_bits;
        [1, 2, slots, slots + 1][self.batch]
    }

    /// Ciphertexts under a map, in every layout that takes it, hold the integers of the clear.
    fn equals_clear(self, seed: u64, map: LinearMap) {
        let (rng, map) = (&mut ChaCha20Rng::seed_from_u64(seed), Arc::new(map));
        let mut weights = random_weights(rng, &map, self.range);
        // What is stated of the sums of rows makes slots narrower.
        if rng.random_bool(0.5) {
            weights = weights.summed(&map).unwrap();
        }
        let format = Format::integers(self.bound).unwrap().with_scale_bits(4).unwrap();
        let sums = format.weighted_sum(weights.range(), map.most_terms()).unwrap();
        // Sums of nothing take fewer bits than the inputs.
        let slot_bits = self.slot_bits(sums).max(format.slot_bits());
        let batch = self.images(slot_bits);
        let input = random_tensor(rng, map.input(), batch, self.bound);
        let clear = input.apply(&map, &weights).unwrap();
        for layout in layouts(&map, batch, slot_bits) {
            let randomizer: &dyn Randomizer = if rng.random_bool(0.5) { public() } else { &*KEY };
            let encrypted = input.encrypt(&layout, randomizer, rng).unwrap();
            assert_eq!(encrypted.header().ciphertexts(), layout.ciphertexts(batch, map.input()));
            finish(rng, &clear, apply(&encrypted, &map, &weights, self.lanes).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn convolutions_equal_clear(
        seed: u64, groups in 1usize..4, per_group in [1usize..3, 1usize..3], size in [3usize..7, 3usize..7],
        kernel in [1usize..4, 1usize..4], stride in [1usize..3, 1usize..3],
        dilation in [1usize..3, 1usize..3], padding in [[0usize..3, 0usize..3], [0usize..3, 0usize..3]], trial in trials(),
    ) {
        let window = Window::new(kernel).with_stride(stride).with_dilation(dilation);
        let most = window.extent();
        let padding = [0, 1].map(|axis| padding[axis].map(|zeros| zeros.min(most[axis] - 1)));
        let windows = window.with_padding_sides(padding).over([groups * per_group[0], size[0], size[1]]);
        prop_assume!(windows.is_ok());
        let filters = Filters { count: groups * per_group[1], groups };
        let map = LinearMap::convolution(&windows.unwrap(), filters).unwrap();
        prop_assert_eq!(map.columns(), Some(map.output().elements() / filters.count));
        trial.equals_clear(seed, map);
    }

    #[test]
    fn depthwise_convolutions_equal_clear(
        seed: u64, channels in 1usize..6, each in 1usize..3, size in [2usize..6, 2usize..6],
        trial in trials(),
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let windows = maps::random_windows(rng, [channels, size[0], size[1]]);
        let filters = Filters { count: channels * each, groups: channels };
        let map = LinearMap::convolution(&windows, filters).unwrap();
        prop_assert_eq!(map.blocks().len(), channels);
        trial.equals_clear(seed, map);
    }

    #[test]
    fn pooling_equals_clear(
        seed: u64, channels in 1usize..4, size in [3usize..7, 3usize..7], trial in trials(),
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let windows = maps::random_windows(rng, [channels, size[0], size[1]]);
        let map = LinearMap::pooling(&windows).unwrap();
        prop_assert_eq!(map.columns(), Some(map.output().elements()));
        trial.equals_clear(seed, map);
    }

    #[test]
    fn dense_layers_equal_clear(
        seed: u64, features in 1usize..20, outputs in 1usize..14, bits in 2u32..17, bound in 1u64..100_000,
        trial in trials(),
    ) {
        let mut range = trial.range;
        range.bits = bits;
        let map = LinearMap::dense(&Shape::from([features]), outputs).unwrap();
        Trial { range, bound, ..trial }.equals_clear(seed, map);
    }

    #[test]
    fn products_with_a_weight_for_each_channel_or_for_all_equal_clear(
        seed: u64, dims in [1usize..5, 1usize..5, 1usize..5], rank in 1usize..4, trial in trials(),
    ) {
        let shape = Shape::from(&dims[..rank]);
        trial.equals_clear(seed, LinearMap::per_channel(&shape).unwrap());
        trial.equals_clear(seed, LinearMap::identity(&shape).unwrap());
    }

    #[test]
    fn chains_equal_clear(seed: u64, trial in trials()) {
        trial.equals_clear(seed, maps::random_chain(&mut ChaCha20Rng::seed_from_u64(seed)));
    }

    #[test]
    fn ways_back_equal_clear(seed: u64, trial in trials()) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let shape = maps::random_shape(rng);
        let transposed = maps::random_layer(rng, &shape).transposed();
        prop_assume!(transposed.is_ok());
        trial.equals_clear(seed, transposed.unwrap());
    }

    #[test]
    fn maps_of_any_kind_equal_clear(seed: u64, trial in trials()) {
        trial.equals_clear(seed, random_map(&mut ChaCha20Rng::seed_from_u64(seed)));
    }

    #[test]
    fn sums_equal_clear(
        seed: u64, features in 1usize..9, batch in 1usize..9, bound in 1u64..1 << 40,
        slot_bits in 43usize..129,
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let shape = Shape::from([features]);
        let [x, y] = [(); 2].map(|()| random_tensor(&mut rng, &shape, batch, bound));
        let clear = x.add(&y).unwrap();
        for slot_bits in [slot_bits, clear.format().slot_bits()] {
            let layout = images(batch, slot_bits);
            let [a, b] = [&x, &y].map(|x| x.encrypt(&layout, &*KEY, &mut rng).unwrap());
            prop_assert_eq!(&a.add(&b).unwrap().decrypt(&KEY).unwrap(), &clear);
            prop_assert_eq!(&a.add_plain(&y).unwrap().decrypt(&KEY).unwrap(), &clear);
        }
    }

    /// The two ways into the sum of a residual block that halves an image: filters of 3x3 and of 1x1, both of stride 2.
    #[test]
    fn sums_of_two_maps_equal_the_sums_in_the_clear(
        seed: u64, groups in 1usize..3, per_group in [1usize..3, 1usize..3], size in [1usize..7, 1usize..7],
        trial in trials(),
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let filters = Filters { count: groups * per_group[1], groups };
        let maps = [Window::new([3, 3]).with_padding([1, 1]), Window::new([1, 1])].map(|window| {
            let windows = window.with_stride([2, 2]).over([groups * per_group[0], size[0], size[1]]).unwrap();
            Arc::new(LinearMap::convolution(&windows, filters).unwrap())
        });
        prop_assert!(maps[0].has_outputs_of(&maps[1]));
        let weights = maps.each_ref().map(|map| random_weights(rng, map, trial.range));
        let clear = |inputs: [&FixedTensor; 2]| {
            let [wide, narrow] = [0, 1].map(|at| inputs[at].apply(&maps[at], &weights[at]).unwrap());
            wide.add(&narrow).unwrap()
        };
        let probe = random_tensor(rng, maps[0].input(), 1, trial.bound);
        let slot_bits = trial.slot_bits(clear([&probe, &probe]).format());
        let batch = trial.images(slot_bits);
        let inputs = [(); 2].map(|()| random_tensor(rng, maps[0].input(), batch, trial.bound));
        let clear = clear(inputs.each_ref());
        let by_images = [(); 2].map(|()| images(batch, slot_bits));
        let by_patches = maps.each_ref().map(|map| patches(map, batch, slot_bits));
        for layouts in [by_images, by_patches] {
            let [wide, narrow] = [0, 1].map(|at| {
                let encrypted = inputs[at].encrypt(&layouts[at], &*KEY, rng).unwrap();
                apply(&encrypted, &maps[at], &weights[at], trial.lanes).unwrap()
            });
            prop_assert_eq!(&narrow.add(&wide).unwrap().decrypt(&KEY).unwrap(), &clear);
            finish(rng, &clear, wide.add(&narrow).unwrap());
        }
    }
}

/// A key whose ring counts the operations of one test alone.
static COUNTED: LazyLock<SecretKey> = LazyLock::new(|| {
    crate::testing::secret_key(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(43)).unwrap()
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_product_takes_exactly_the_operations_that_it_states(
        seed: u64, trial in trials(), batch in 1usize..11,
    ) {
        let rng = &mut ChaCha20Rng::seed_from_u64(seed);
        let map = Arc::new(random_map(rng));
        let input = random_tensor(rng, map.input(), batch, trial.bound);
        let weights = random_weights(rng, &map, trial.range);
        for layout in layouts(&map, batch, 100) {
            let tensor = input.encrypt(&layout, &*COUNTED, rng).unwrap();
            let how = Workload { weights: trial.range, groups: layout.groups(batch), lanes: trial.lanes };
            let product = Product::cheapest(&map, tensor.layout(), how).unwrap();
            let ring = tensor.key().ring();
            let before = ring.operations();
            tensor.apply(&map, &weights, &product).unwrap();
            prop_assert_eq!(ring.operations() - before, product.operations(), "{} under {}", product, layout);
            prop_assert!(trial.lanes > 1 || product.weight() == product.operations().cost());
            prop_assert!(product.weight() >= product.operations().cost());
            prop_assert_eq!(product.strategies().len(), map.blocks().len());
        }
    }
}

#[test]
fn products_name_their_strategies() {
    let shape = Shape::from([2, 3, 3]);
    let how = Workload { weights: WeightRange::signed(8).unwrap(), groups: 1, lanes: 1 };
    let layout = images(1, 40);
    let dense = LinearMap::dense(&shape, 40).unwrap();
    let product = Product::cheapest(&dense, &layout, how).unwrap();
    assert_eq!(product.to_string(), product.strategies()[0].to_string());
    let per_channel = LinearMap::per_channel(&shape).unwrap();
    let product = Product::cheapest(&per_channel, &layout, how).unwrap();
    assert_eq!((product.strategies().len(), product.to_string()), (2, product.strategies()[0].to_string()));
    // A column of four and one of a single input.
    let entry = |output, input| MapEntry { output, input, weight: 0 };
    let entries = vec![entry(0, 0), entry(0, 1), entry(0, 2), entry(0, 3), entry(1, 4)];
    let uneven = LinearMap::from_entries([Shape::from([5]), Shape::from([2])], 1, entries).unwrap();
    let product = Product::cheapest(&uneven, &layout, how).unwrap();
    assert_eq!(product.to_string(), format!("{} and 1 more", product.strategies()[0]));
}

#[test]
fn layouts_name_themselves() {
    let windows = Window::new([2, 2]).over([1, 4, 4]).unwrap();
    let map = Arc::new(LinearMap::pooling(&windows).unwrap());
    let of_patches = patches(&map, 3, 33);
    assert_eq!(of_patches.to_string(), "im2col, 27 slots of 33 bits");
    assert_eq!(of_patches.after(&map, anything()).unwrap().to_string(), "positions, 27 slots of 33 bits");
    assert_eq!(images(1, 33).to_string(), "one image, 1 slot of 33 bits");
    let stacked = images(2, 33).with_stacked(5, public().size()).unwrap();
    assert_eq!(stacked.to_string(), "batch of 2, 10 slots of 33 bits");
}

fn small() -> (FixedTensor, ChaCha20Rng) {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    (random_tensor(&mut rng, &Shape::from([2, 4, 4]), 1, 100), rng)
}

fn dense(inputs: usize, outputs: usize) -> Arc<LinearMap> {
    Arc::new(LinearMap::dense(&Shape::from([inputs]), outputs).unwrap())
}

#[test]
fn overflow_is_refused_before_any_work() {
    let (input, mut rng) = small();
    let map = dense(32, 1);
    let weights = random_weights(&mut rng, &map, WeightRange::signed(12).unwrap().with_scale_bits(3));
    let key = crate::testing::secret_key(KeyBits::Bits1024, &mut rng).unwrap();
    let encrypted = input.encrypt(&images(1, 16), &key, &mut rng).unwrap();
    let before = key.public_key().ring().operations();
    assert_eq!(
        apply(&encrypted, &map, &weights, 1).unwrap_err(),
        Error::Overflow { needed_bits: 24, available_bits: 16 },
        "100 * 2^11 * 32 < 2^23"
    );
    assert_eq!(key.public_key().ring().operations(), before);
    assert!(matches!(input.encrypt(&images(1, 7), &*KEY, &mut rng), Err(Error::Overflow { .. })));
    let wide = SlotLayout::images(Packing { key: KeyBits::Bits2048, ..packing(64, 16) }, anything()).unwrap();
    assert!(matches!(input.encrypt(&wide, &*KEY, &mut rng), Err(Error::Overflow { .. })));
    assert!(matches!(Encryption::new(input.clone(), &wide, public()), Err(Error::Overflow { .. })));
    let huge =
        FixedTensor::new(Shape::from([1]), Format::integers(crate::format::MAX_BOUND).unwrap(), vec![1])
            .unwrap();
    let doubling = IntWeights::new(WeightRange::signed(3).unwrap(), vec![2]).unwrap();
    assert!(matches!(huge.apply(&dense(1, 1), &doubling), Err(Error::Overflow { .. })));
    let narrow = huge.encrypt(&images(1, 63), &*KEY, &mut rng).unwrap();
    assert!(matches!(narrow.add(&narrow), Err(Error::Overflow { .. })));
    assert!(matches!(narrow.add_plain(&huge), Err(Error::Overflow { .. })));
    let halves =
        FixedTensor::new(Shape::from([1]), Format::integers(crate::format::MAX_BOUND / 2).unwrap(), vec![1])
            .unwrap();
    let narrow = halves.encrypt(&images(1, 62), &*KEY, &mut rng).unwrap();
    let full = Error::Overflow { needed_bits: 63, available_bits: 62 };
    assert_eq!(narrow.add(&narrow).unwrap_err(), full);
    assert_eq!(narrow.add_plain(&halves).unwrap_err(), full);
}

#[test]
fn slots_that_cannot_be_are_refused() {
    let format = Contents::Integers(Format::integers(100).unwrap());
    let refused = |packing: Packing| SlotLayout::images(packing, format).unwrap_err();
    assert_eq!(refused(packing(1, 7)), Error::Overflow { needed_bits: 8, available_bits: 7 });
    assert!(matches!(refused(packing(1, 0)), Error::Overflow { .. }));
    assert_eq!(refused(packing(1, 129)), Error::Overflow { needed_bits: 129, available_bits: 128 });
    assert_eq!(refused(packing(1, 2000)), Error::Overflow { needed_bits: 2000, available_bits: 128 });
    assert!(matches!(refused(packing(1, usize::MAX)), Error::Overflow { .. }));
    assert!(matches!(refused(packing(0, 40)), Error::TooFew { least: 1, found: 0, .. }));
    assert_eq!(SlotLayout::images(packing(usize::MAX, 40), format).unwrap().width(), 25);
    let map = Arc::new(maps::random_convolution(&mut ChaCha20Rng::seed_from_u64(1), [1, 4, 4]));
    assert!(matches!(SlotLayout::patches(&map, packing(0, 40), format), Err(Error::TooFew { .. })));
    assert!(SlotLayout::patches(&map, packing(usize::MAX, 40), format).is_ok());
    let layout = images(5, 40);
    assert!(matches!(layout.with_stacked(0, public().size()), Err(Error::TooFew { .. })));
    assert_eq!(layout.most_stacked(public().size()), 5);
    assert!(layout.with_stacked(5, public().size()).is_ok());
    for stacked in [6, usize::MAX] {
        assert!(matches!(layout.with_stacked(stacked, public().size()), Err(Error::Overflow { .. })));
    }
}

/// Slots run over columns only where these cover all outputs: what has no slot could not be given a bias.
#[test]
fn maps_that_im2col_cannot_hold_are_refused() {
    let entry = |output, input| MapEntry { output, input, weight: 0 };
    let shapes = || [Shape::from([3]), Shape::from([3])];
    let uneven = vec![entry(0, 0), entry(1, 1), entry(2, 1), entry(2, 2)];
    let unread = vec![entry(0, 0), entry(2, 1)];
    for entries in [uneven, unread] {
        let map = Arc::new(LinearMap::from_entries(shapes(), 1, entries).unwrap());
        assert_eq!(map.columns(), None);
        let refused = SlotLayout::patches(&map, packing(1, 40), anything()).unwrap_err();
        assert!(matches!(refused, Error::Layout { operation: "im2col", .. }), "{refused}");
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let (input, mut rng) = small();
    let range = WeightRange::signed(4).unwrap().with_scale_bits(3);
    let encrypted = input.encrypt(&images(1, 30), &*KEY, &mut rng).unwrap();
    let weights_of = |map: &LinearMap| random_weights(&mut ChaCha20Rng::seed_from_u64(1), map, range);
    let apply = |tensor: &EncTensor, map: &Arc<LinearMap>| apply(tensor, map, &weights_of(map), 1);
    let other_size = apply(&encrypted, &dense(31, 2)).unwrap_err();
    assert!(matches!(other_size, Error::Count { expected: 31, found: 32, .. }), "{other_size}");
    let fitting = dense(32, 2);
    let how = Workload { weights: range, groups: 1, lanes: 1 };
    let product = Product::cheapest(&fitting, encrypted.layout(), how).unwrap();
    for other in [dense(32, 1), dense(32, 3)] {
        let few_or_many = weights_of(&other);
        let refused = encrypted.apply(&fitting, &few_or_many, &product).unwrap_err();
        assert!(matches!(refused, Error::Count { expected: 64, .. }), "{refused}");
        assert!(matches!(input.apply(&fitting, &few_or_many), Err(Error::Count { expected: 64, .. })));
    }
    let channels = Arc::new(LinearMap::per_channel(input.shape()).unwrap());
    let product = Product::cheapest(&channels, encrypted.layout(), how).unwrap();
    let refused = encrypted.apply(&fitting, &weights_of(&fitting), &product).unwrap_err();
    assert!(matches!(refused, Error::Count { expected: 1, found: 2, .. }), "{refused}");
    assert!(Window::new([5, 5]).over([2, 4, 4]).is_err());
    assert!(Window::new([2, 2]).with_padding([2, 1]).over([2, 4, 4]).is_err());
    let flat = encrypted.clone().reshape(Shape::from([32])).unwrap();
    assert!(matches!(encrypted.add(&flat), Err(Error::Shape { .. })));
    assert!(matches!(encrypted.clone().reshape(Shape::from([31])), Err(Error::Shape { .. })));
    let twice = random_tensor(&mut rng, input.shape(), 2, 100);
    let two = twice.encrypt(&images(1, 30), &*KEY, &mut rng).unwrap();
    assert!(matches!(encrypted.add(&two), Err(Error::Count { expected: 1, found: 2, .. })));
    assert!(matches!(encrypted.add_plain(&twice), Err(Error::Count { .. })));
    let wider = input.encrypt(&images(1, 31), &*KEY, &mut rng).unwrap();
    assert!(matches!(encrypted.add(&wider), Err(Error::Layout { .. })));
    let other = crate::testing::secret_key(KeyBits::Bits1024, &mut rng).unwrap();
    let foreign = input.encrypt(&images(1, 30), &other, &mut rng).unwrap();
    assert!(matches!(encrypted.add(&foreign), Err(Error::ForeignKey { .. })));
    assert!(matches!(foreign.decrypt(&KEY), Err(Error::ForeignKey { .. })));
    let packed = encrypted.clone().repack(34).unwrap();
    assert!(matches!(packed.clone().repack(34), Err(Error::Layout { .. })));
    assert!(matches!(packed.add(&encrypted), Err(Error::Layout { .. })));
    assert!(matches!(encrypted.clone().repack(35), Err(Error::Overflow { .. })));
    assert!(encrypted.clone().repack(0).is_err());
    assert!(matches!(apply(&packed, &fitting), Err(Error::Layout { .. })));
    assert!(encrypted.add_plain(&random_tensor(&mut rng, &Shape::from([32]), 1, 5)).is_err());
    let residues = encrypted.decrypt_residues(&KEY).unwrap_err();
    assert!(matches!(residues, Error::Layout { expected: "residues", .. }), "{residues}");
    assert!(matches!(encrypted.flood(&[], &mut rng), Err(Error::Layout { expected: "residues", .. })));
    let flood = Flood { ring: RingBits::holding(100).unwrap(), quotient: 1 << 20, bits: 0 };
    let residues = encrypted.clone().into_residues(Flood { bits: 2, ..flood });
    assert!(matches!(residues, Err(Error::Overflow { available_bits: 30, .. })), "slots of 30 bits");
    let residues = encrypted.clone().into_residues(Flood { quotient: 0, ..flood });
    assert!(matches!(residues, Err(Error::Overflow { .. })), "no flood at all");
    let flood = Flood { quotient: 1 << 8, ..flood };
    let residues = encrypted.clone().into_residues(flood).unwrap();
    for biases in [1, 33] {
        let refused = residues.flood(&vec![0; biases], &mut rng);
        assert!(matches!(refused, Err(Error::Count { what: "biases", .. })), "{biases} biases");
    }
    let again = residues.into_residues(flood).unwrap_err();
    assert!(matches!(again, Error::Layout { expected: "integers", .. }), "{again}");
    assert!(RingBits::holding(1 << 62).is_ok());
    assert!(matches!(RingBits::holding(1 << 63), Err(Error::Overflow { needed_bits: 65, .. })));
}

#[test]
fn im2col_is_for_one_map_and_cannot_be_decrypted() {
    let (input, mut rng) = small();
    let convolution = |kernel: [usize; 2], filters: Filters| {
        let windows = Window::new(kernel).with_padding(kernel.map(|taps| taps / 2)).over([2, 4, 4]).unwrap();
        Arc::new(LinearMap::convolution(&windows, filters).unwrap())
    };
    let whole = convolution([3, 3], Filters { count: 2, groups: 1 });
    let of_patches = input.encrypt(&patches(&whole, 1, 30), &*KEY, &mut rng).unwrap();
    let range = WeightRange::signed(4).unwrap();
    let weights = |map: &LinearMap| random_weights(&mut ChaCha20Rng::seed_from_u64(1), map, range);
    let apply = |tensor: &EncTensor, map: &Arc<LinearMap>| apply(tensor, map, &weights(map), 1);
    let grouped = convolution([3, 3], Filters { count: 2, groups: 2 });
    for other in [dense(32, 2), grouped.clone(), convolution([1, 1], Filters { count: 2, groups: 1 })] {
        let refused = apply(&of_patches, &other).unwrap_err();
        assert!(matches!(refused, Error::Layout { operation: "a linear layer", .. }), "{refused}");
        // Nor does it help to plan it for another layout.
        let how = Workload { weights: range, groups: 1, lanes: 1 };
        let product = Product::cheapest(&other, &images(1, 30), how).unwrap();
        let refused = of_patches.apply(&other, &weights(&other), &product).unwrap_err();
        assert!(matches!(refused, Error::Layout { operation: "a linear layer", .. }), "{refused}");
    }
    assert!(matches!(of_patches.decrypt(&KEY), Err(Error::Layout { .. })));
    let header = of_patches.header().clone();
    assert!(matches!(Decryption::new(public(), header), Err(Error::Layout { .. })));
    // An equal map, though not the same one in memory.
    let again = convolution([3, 3], Filters { count: 2, groups: 1 });
    let of_positions = apply(&of_patches, &again).unwrap();
    assert_eq!(of_positions.decrypt(&KEY).unwrap(), input.apply(&whole, &weights(&whole)).unwrap());
    assert!(matches!(apply(&of_positions, &whole), Err(Error::Layout { .. })));
    assert!(matches!(of_positions.add(&of_patches), Err(Error::Layout { .. })));
    let by_groups = input.encrypt(&patches(&grouped, 1, 30), &*KEY, &mut rng).unwrap();
    let by_groups = apply(&by_groups, &grouped).unwrap();
    assert!(matches!(of_positions.add(&by_groups), Err(Error::Layout { .. })));
    let by_images = input.encrypt(&images(1, 30), &*KEY, &mut rng).unwrap();
    let by_images = apply(&by_images, &whole).unwrap();
    assert!(matches!(of_positions.add(&by_images), Err(Error::Layout { .. })));
}

/// Factors that were made before are used where they fit, and never where they do not; the values stay.
#[test]
fn factors_for_rerandomisation_are_checked() {
    let rng = &mut ChaCha20Rng::seed_from_u64(11);
    let other = crate::testing::secret_key(KeyBits::Bits1024, rng).unwrap();
    let plain = FixedTensor::new(Shape::from([3]), Format::integers(9).unwrap(), vec![-9, 0, 7]).unwrap();
    let tensor = plain.encrypt(&images(1, 8), &*KEY, rng).unwrap();
    let public = KEY.public_key();
    let known = public.parameters().encryption_exponent();
    let fresh = |key: &PublicKey, count: usize, rng: &mut ChaCha20Rng| {
        key.hiding_exponents(rng, Hiding::of(count, known)).powers()
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

/// Factors made ahead are used where they hide enough, and drawn anew where stacking, a sum or a product has made
/// exponents longer since.
#[test]
fn factors_that_are_too_short_are_not_used() {
    let (_, mut rng) = small();
    let format = Format::integers(1000).unwrap();
    let input = FixedTensor::new(Shape::from([120]), format, (0..120).collect()).unwrap();
    let fresh = |rng: &mut ChaCha20Rng| input.encrypt(&images(1, 90), &*KEY, rng).unwrap();
    let map = Arc::new(LinearMap::identity(input.shape()).unwrap());
    let product = |bits: u32, rng: &mut ChaCha20Rng| {
        let weights = IntWeights::new(WeightRange::signed(bits).unwrap(), vec![1]).unwrap();
        apply(&fresh(rng), &map, &weights, 1).unwrap()
    };
    // Short factors hide 64 bits more than encryptions have.
    let scaled = |times: usize, rng: &mut ChaCha20Rng| {
        (0..times).fold(fresh(rng), |tensor, _| tensor.scaled(1, 1).unwrap())
    };
    let stacked = images(1, 90).with_stacked(3, public().size()).unwrap();
    let stacked = input.encrypt(&stacked, &*KEY, &mut rng).unwrap();
    let longer = fresh(&mut rng).repack(3).unwrap();
    for (tensor, short) in [
        (fresh(&mut rng), true),
        (stacked.clone(), true),
        (fresh(&mut rng).repack(3).unwrap(), false),
        (fresh(&mut rng).add(&fresh(&mut rng)).unwrap(), true),
        (longer.add(&stacked).unwrap(), false),
        (stacked.add(&longer).unwrap(), false),
        (product(2, &mut rng), true),
        (product(24, &mut rng), true),
        (scaled(64, &mut rng), true),
        (scaled(65, &mut rng), false),
    ] {
        let count = tensor.header().ciphertexts();
        assert!(count > 32);
        let hidden = public().parameters().encryption_exponent();
        let factors = public().hiding_exponents(&mut rng, Hiding::of(count, hidden)).powers();
        let mut with_these = public().decode(&tensor.encode_ciphertexts()).unwrap();
        public().ring().mul_assign(&mut with_these, &factors.powers);
        let seeded = || ChaCha20Rng::seed_from_u64(12);
        let found = tensor.clone().rerandomize_with(factors, &mut seeded()).encode_ciphertexts();
        let anew = tensor.rerandomize(&mut seeded()).encode_ciphertexts();
        let these = public().encode(&with_these);
        assert_eq!((found == these, found == anew), (short, !short));
    }
}

/// A product of patches multiplies the random factors of all taps, also of those that are padding in every column.
#[test]
fn exponents_grow_by_all_taps_of_patches() {
    let rng = &mut ChaCha20Rng::seed_from_u64(13);
    let windows = Window::new([3, 3]).with_stride([3, 3]).with_padding([1, 1]).over([4, 2, 2]).unwrap();
    let map = Arc::new(LinearMap::convolution(&windows, Filters { count: 70, groups: 1 }).unwrap());
    assert_eq!((map.blocks()[0].taps(), map.most_terms(), map.columns()), (36, 16, Some(1)));
    let weights = random_weights(rng, &map, WeightRange::signed(4).unwrap());
    let input = random_tensor(rng, map.input(), 1, 100);
    // Weights add 4 bits, 36 taps 6 and stacking 55, together one more than short factors hide; 16 taps would add 5.
    let encrypted = input.encrypt(&patches(&map, 1, 54), &*KEY, rng).unwrap();
    let tensor = apply(&encrypted, &map, &weights, 1).unwrap().repack(2).unwrap();
    assert!(tensor.header().ciphertexts() > 32);
    let hidden = public().parameters().encryption_exponent();
    let factors = public().hiding_exponents(rng, Hiding::of(tensor.header().ciphertexts(), hidden)).powers();
    let seeded = || ChaCha20Rng::seed_from_u64(14);
    let found = tensor.clone().rerandomize_with(factors, &mut seeded()).encode_ciphertexts();
    assert_eq!(found, tensor.rerandomize(&mut seeded()).encode_ciphertexts());
}

#[test]
fn tensors_from_outside_are_checked() {
    let (input, mut rng) = small();
    let encrypted = input.encrypt(&images(1, 30), &*KEY, &mut rng).unwrap();
    let (header, bytes) = (encrypted.header().clone(), encrypted.encode_ciphertexts());
    let decode = |header: EncTensorHeader| EncTensor::decode(public(), header, &bytes);
    assert!(decode(header.clone()).is_ok());
    let layout = header.layout.clone();
    let contents = layout.contents();
    let wide_key = Packing { key: KeyBits::Bits4096, ..packing(64, 30) };
    let pooling = |size: usize| {
        let windows = Window::new([2, 2]).with_stride([2, 2]).over([2, size, size]).unwrap();
        Arc::new(LinearMap::pooling(&windows).unwrap())
    };
    let positions = |size: usize| patches(&pooling(size), 1, 30).after(&pooling(size), contents).unwrap();
    for header in [
        EncTensorHeader { batch: 2, ..header.clone() },
        EncTensorHeader { batch: usize::MAX, ..header.clone() },
        EncTensorHeader { batch: 0, ..header.clone() },
        EncTensorHeader { shape: Shape::from([2, 4, 5]), ..header.clone() },
        EncTensorHeader { shape: Shape::from([0, 4, 5]), ..header.clone() },
        EncTensorHeader { shape: Shape::from([usize::MAX, usize::MAX]), ..header.clone() },
        EncTensorHeader { layout: SlotLayout::images(wide_key, contents).unwrap(), ..header.clone() },
        EncTensorHeader { layout: layout.with_stacked(35, KeyBits::Bits2048).unwrap(), ..header.clone() },
        EncTensorHeader { layout: layout.with_stacked(2, public().size()).unwrap(), ..header.clone() },
        EncTensorHeader { layout: patches(&pooling(4), 1, 30), ..header.clone() },
        EncTensorHeader { layout: patches(&pooling(6), 1, 30), ..header.clone() },
        EncTensorHeader { layout: positions(4), ..header.clone() },
        EncTensorHeader { layout: positions(8), ..header.clone() },
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
    let contents = |bound: u64| Contents::Integers(Format::integers(bound).unwrap());
    let format = Format::integers(1000).unwrap();
    let input = FixedTensor::new(Shape::from([3]), format, vec![999, -1000, 7]).unwrap();
    let encrypted = input.encrypt(&images(1, 20), &*KEY, &mut rng).unwrap();
    let (honest, bytes) = (encrypted.header().clone(), encrypted.encode_ciphertexts());
    let refused = |layout: SlotLayout, bytes: &[u8], header: &EncTensorHeader| {
        let header = EncTensorHeader { layout, ..header.clone() };
        let tensor = EncTensor::decode(public(), header.clone(), bytes).unwrap();
        let mut decryption = Decryption::new(public(), header).unwrap();
        let chunks =
            bytes.chunks(public().ciphertext_bytes()).map(|one| EncChunk::decode(public(), one).unwrap());
        let found = (0..).zip(chunks).find_map(|(at, chunk)| decryption.push(at, &chunk, &KEY).err());
        assert_eq!(tensor.decrypt(&KEY).err(), found, "at once and chunk by chunk");
        found
    };
    let error = |index| Some(Error::Plaintext { index });
    assert_eq!(refused(honest.layout.holding(contents(1000)).unwrap(), &bytes, &honest), None);
    assert_eq!(refused(honest.layout.holding(contents(999)).unwrap(), &bytes, &honest), error(1));
    let narrower = SlotLayout::images(packing(1, 3), contents(3)).unwrap();
    assert_eq!(refused(narrower, &bytes, &honest), error(0));
    // Three images in slots for two of three.
    let input = FixedTensor::new(Shape::from([1]), format, vec![1, 2, 3]).unwrap();
    let encrypted = input.encrypt(&images(3, 20), &*KEY, &mut rng).unwrap();
    let fewer = EncTensorHeader { batch: 2, ..encrypted.header().clone() };
    assert_eq!(refused(fewer.layout.clone(), &encrypted.encode_ciphertexts(), &fewer), error(0));
    // Three units in ciphertexts of two, of which one is said not to be there.
    let input = FixedTensor::new(Shape::from([4]), format, vec![1, 2, 3, 4]).unwrap();
    let stacked = images(1, 20).with_stacked(2, public().size()).unwrap();
    let encrypted = input.encrypt(&stacked, &*KEY, &mut rng).unwrap();
    let fewer = EncTensorHeader { shape: Shape::from([3]), ..encrypted.header().clone() };
    assert_eq!(refused(fewer.layout.clone(), &encrypted.encode_ciphertexts(), &fewer), error(1));
}

/// Wide slots hold more than integers of 64 bits: what is beyond them is refused, and not cut off.
#[test]
fn values_beyond_64_bits_are_refused() {
    let (_, mut rng) = small();
    let input =
        FixedTensor::new(Shape::from([3]), Format::integers(1000).unwrap(), vec![0, 3, -1000]).unwrap();
    for slot_bits in [90, 128] {
        let encrypted = input.encrypt(&images(1, slot_bits), &*KEY, &mut rng).unwrap();
        let mut ciphertexts = public().decode(&encrypted.encode_ciphertexts()).unwrap();
        // Times 2^64: the low halves of all are zero.
        public().ring().square_assign(&mut ciphertexts, 64);
        let bytes = public().encode(&ciphertexts);
        let tensor = EncTensor::decode(public(), encrypted.header().clone(), &bytes).unwrap();
        assert_eq!(tensor.decrypt(&KEY), Err(Error::Plaintext { index: 1 }), "slots of {slot_bits} bits");
    }
}

#[test]
fn formats_are_checked() {
    assert!(Format::integers(crate::format::MAX_BOUND + 1).is_err());
    assert!(Format::integers(1).unwrap().with_scale_bits(1000).is_err());
    // Numbers of a peer's plan: neither the scale nor the bound may overflow on the way to being refused.
    let largest = Format::integers(crate::format::MAX_BOUND).unwrap().with_scale_bits(256).unwrap();
    for (scale_bits, terms) in [(i32::MAX, 1), (i32::MIN, 1), (0, usize::MAX)] {
        let weights = WeightRange::signed(24).unwrap().with_scale_bits(scale_bits);
        assert!(matches!(largest.weighted_sum(weights, terms), Err(Error::Overflow { .. })));
    }
    let format = Format::integers(255).unwrap().with_scale_bits(8).unwrap();
    assert_eq!((format.slot_bits(), format.real(128)), (9, 0.5));
    assert!(matches!(
        format.sum(Format::integers(1).unwrap().with_scale_bits(7).unwrap()),
        Err(Error::Scale { expected: 8, found: 7 })
    ));
    assert!(FixedTensor::new(Shape::from([2]), format, vec![1, 2, 3]).is_err());
    assert!(FixedTensor::new(Shape::from([2]), format, vec![]).is_err());
    assert!(FixedTensor::new(Shape::from([0]), format, vec![1]).is_err());
    assert!(matches!(
        FixedTensor::new(Shape::from([2]), format, vec![1, 256]),
        Err(Error::Value { index: 1, .. })
    ));
    assert!(matches!(
        IntWeights::new(WeightRange::signed(4).unwrap(), vec![7, 8]),
        Err(Error::Weight { index: 1, found: 8, .. })
    ));
    assert!(WeightRange::signed(25).is_err() && WeightRange::signed(1).is_err());
    assert!(WeightRange::unsigned(25).is_err() && WeightRange::unsigned(0).is_err());
}

/// What is stated of the sums of rows bounds the sums, is rounded up, and must be true of the weights.
#[test]
fn a_statement_about_rows_holds_or_is_refused() {
    let range = WeightRange::signed(8).unwrap();
    for (sum, stated) in [(0, 1), (15, 15), (16, 16), (17, 18), (255, 256), (257, 288), (u64::MAX, u64::MAX)]
    {
        let rounded = range.with_row_sum(sum).row_sum().unwrap();
        assert_eq!(rounded, stated, "{sum}");
    }
    let map = Arc::new(LinearMap::dense(&Shape::from([3]), 2).unwrap());
    let values = vec![-128, 100, 1, 7, 7, 7];
    assert_eq!(map.largest_row_sum(&values).unwrap(), 229);
    assert!(map.largest_row_sum(&values[1..]).is_err());
    let honest = IntWeights::new(range, values.clone()).unwrap().summed(&map).unwrap();
    assert_eq!(honest.range().row_sum(), Some(240));
    let format = Format::integers(10).unwrap().with_scale_bits(4).unwrap();
    let input = FixedTensor::new(Shape::from([3]), format, vec![-10, 10, 10]).unwrap();
    let sums = input.apply(&map, &honest).unwrap();
    assert_eq!((sums.values(), sums.format().bound()), (&[2290, 70][..], 2400));
    let false_one = IntWeights::new(range.with_row_sum(224), values).unwrap();
    let refused = Error::RowSum { limit: 224, found: 229 };
    assert_eq!(input.apply(&map, &false_one).unwrap_err(), refused);
    let layout = SlotLayout::images(packing(1, 20), Contents::Integers(format)).unwrap();
    let encrypted = input.encrypt(&layout, public(), &mut ChaCha20Rng::seed_from_u64(1)).unwrap();
    assert_eq!(apply(&encrypted, &map, &false_one, 1).unwrap_err(), refused);
}
