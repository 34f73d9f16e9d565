//! Affine maps, their composition, and layers on integers in the clear and on ciphertexts.

use std::sync::{Arc, LazyLock};

use gelu_tensor::paillier::{KeyBits, SecretKey};
use gelu_tensor::{
    Contents, Error, FixedTensor, Format, IntWeights, LinearMap, Packing, Product, SlotLayout, WeightRange,
    Workload,
};
use rand::rngs::ChaCha20Rng;

use super::*;

static KEY: LazyLock<SecretKey> =
    LazyLock::new(|| SecretKey::generate(KeyBits::Bits1024, &mut ChaCha20Rng::seed_from_u64(8)).unwrap());

/// What an affine map makes of a batch.
fn apply(affine: &Affine, x: &Array2<f64>) -> Array2<f64> {
    let x = x.as_standard_layout();
    let mut y = affine.map().apply(affine.weights(), x.as_slice().unwrap()).unwrap();
    if !affine.bias().is_empty() {
        assert_eq!(affine.bias().len(), affine.map().output().elements());
        y.iter_mut().zip(affine.bias().iter().cycle()).for_each(|(y, bias)| *y += bias);
    }
    Array2::from_shape_vec((x.nrows(), affine.map().output().elements()), y).unwrap()
}

fn largest_difference(a: &Array2<f64>, b: &Array2<f64>) -> f64 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// A chain of layers as one map, and their definitions in order.
struct Chain {
    layers: Vec<LinearLayer>,
    affine: Affine,
}

impl Chain {
    fn new(input: &Shape, configs: &[LinearConfig], rng: &mut ChaCha8Rng) -> Self {
        let mut shape = input.clone();
        let mut layers: Vec<LinearLayer> = vec![];
        for config in configs {
            let layer = layer(config.clone(), shape, rng);
            shape = layer.output().clone();
            layers.push(layer);
        }
        let mut affines = layers.iter().map(LinearLayer::affine);
        let first = affines.next().unwrap();
        let affine = affines.fold(first, |chain, next| chain.then(&next).unwrap());
        Self { layers, affine }
    }

    fn in_turn(&self, x: &Array2<f64>) -> Array2<f64> {
        let forward =
            |x: Array2<f64>, layer: &LinearLayer| Definition::of(layer).forward(&x, Mode::Inference);
        self.layers.iter().fold(x.clone(), forward)
    }

    fn check(&self, rng: &mut ChaCha8Rng) {
        let configs: Vec<_> = self.layers.iter().map(LinearLayer::config).collect();
        let x = wide(&random(rng, [2, self.layers[0].input().elements()]));
        let expected = self.in_turn(&x);
        let largest = expected.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
        let difference = largest_difference(&apply(&self.affine, &x), &expected);
        assert!(difference <= 1e-10 * largest, "{difference} {configs:?}");
        // Both sides of a session make the same map, one of them without the weights.
        let mut public = self.layers.iter().map(|layer| Affine::of_map(layer.map().clone()));
        let first = public.next().unwrap();
        let public = public.fold(first, |chain, next| chain.then(&next).unwrap());
        assert_eq!(public.map(), self.affine.map());
        assert!(public.weights().is_empty() && public.bias().is_empty());
    }
}

fn conv(config: Conv2dConfig) -> LinearConfig {
    LinearConfig::Conv2d(config)
}

fn norm() -> LinearConfig {
    LinearConfig::BatchNorm2d(BatchNorm2dConfig::default())
}

fn padded() -> Conv2dConfig {
    Conv2dConfig::new(4, [3, 3]).with_padding_sides([[1, 0], [2, 1]])
}

fn mean(kernel: [usize; 2]) -> LinearConfig {
    LinearConfig::AvgPool2d(Window::new(kernel).with_stride(kernel).into())
}

/// The last of so many channels, every other row, and a column less of so many at least.
fn corner(channels: usize, rows: usize) -> LinearConfig {
    let rows = AxisSlice { start: rows - 1, step: -2, count: rows.div_ceil(2) };
    let columns = AxisSlice::range(1, 2);
    LinearConfig::Slice(SliceConfig::new(vec![AxisSlice::range(channels - 1, 1), rows, columns]))
}

/// A mean of the pixels of padded windows, of which some are fewer.
fn border_mean(kernel: [usize; 2]) -> LinearConfig {
    let window = Window::new(kernel).with_stride([2, 2]).with_padding([1, 1]);
    LinearConfig::AvgPool2d(AvgPool2dConfig::new(window).excluding_padding())
}

#[test]
fn chains_give_the_reals_of_their_layers_one_after_another() {
    let flatten = LinearConfig::Flatten;
    let dense = |outputs: usize| LinearConfig::Dense(outputs.into());
    let strided = Conv2dConfig::new(6, [2, 3]).with_stride([2, 1]).without_bias();
    let rng = &mut seeded(1);
    for configs in [
        vec![conv(padded()), norm()],
        // The padding's zeros come after the shift: at the margin, biases are others than inside.
        vec![norm(), conv(padded())],
        vec![norm(), norm()],
        vec![conv(padded()), conv(padded())],
        vec![conv(strided.with_groups(2)), norm(), conv(padded().with_groups(2).with_dilation([1, 2]))],
        vec![conv(padded()), mean([2, 2])],
        vec![mean([2, 2]), conv(padded())],
        vec![conv(padded()), LinearConfig::AvgPool2d(Window::new([3, 3]).with_padding([1, 1]).into())],
        vec![conv(padded()), border_mean([3, 3])],
        vec![corner(2, 6), conv(padded()), corner(4, 2), border_mean([2, 2])],
        vec![border_mean([3, 2]), conv(padded()), border_mean([2, 3]), norm()],
        vec![conv(padded()), LinearConfig::GlobalAvgPool2d, flatten.clone(), dense(3)],
        vec![conv(padded()), norm(), flatten.clone(), dense(3)],
        vec![conv(padded()), flatten.clone(), dense(3)],
        vec![flatten, dense(5), dense(4), LinearConfig::Dense(DenseConfig::new(3).without_bias())],
    ] {
        for input in [[2, 6, 7], [4, 7, 6]] {
            Chain::new(&Shape::from(input), &configs, rng).check(rng);
        }
    }
}

/// What comes of it is the same for every image, but it is not zero.
#[test]
fn a_layer_whose_windows_cover_only_padding_keeps_its_biases() {
    let nothing = conv(Conv2dConfig::new(2, [2, 1]).with_dilation([2, 1]).with_padding([1, 0]));
    let flat = Conv2dConfig::new(2, [1, 3]).with_padding([0, 1]);
    let dense = |outputs: usize| LinearConfig::Dense(outputs.into());
    let rng = &mut seeded(4);
    for rest in [
        vec![LinearConfig::GlobalAvgPool2d, norm()],
        vec![norm(), LinearConfig::Flatten, dense(3), dense(2)],
        vec![conv(flat), conv(flat)],
    ] {
        let chain = Chain::new(&Shape::from([3, 1, 4]), &[vec![nothing.clone()], rest].concat(), rng);
        assert!(chain.affine.map().used_inputs().iter().all(|used| !used));
        assert!(chain.affine.bias().iter().any(|bias| bias.abs() > 1e-3));
        chain.check(rng);
    }
}

/// A layer that takes any image of these shapes, or none.
fn next_layer(kind: usize, window: Window, bias: bool, shape: &Shape) -> Option<LinearConfig> {
    let image = shape.as_image("image").ok();
    let config = match (kind, image) {
        (0..4, Some([channels, ..])) => {
            let groups = [1, channels, 1, if channels.is_multiple_of(2) { 2 } else { 1 }][kind];
            conv(Conv2dConfig { out_channels: groups * (1 + kind % 2), window, groups, bias })
        }
        (4, Some(_)) => {
            LinearConfig::AvgPool2d(AvgPool2dConfig { window, count_include_pad: bias, ceil_mode: bias })
        }
        (5, Some(_)) => LinearConfig::GlobalAvgPool2d,
        (6 | 7, Some(_)) => norm(),
        (8, _) => LinearConfig::Flatten,
        (_, None) => LinearConfig::Dense(DenseConfig { out_features: 1 + kind % 5, bias }),
        _ => return None,
    };
    config.output(shape).is_ok().then_some(config)
}

fn chains() -> impl Strategy<Value = (Shape, Vec<LinearConfig>)> {
    let layer = (0usize..9, windows(), any::<bool>());
    let image = [1usize..=3, 3..=6, 3..=6].prop_map(Shape::from);
    (image, prop::collection::vec(layer, 1..6)).prop_filter_map("a chain", |(input, layers)| {
        let mut configs = vec![];
        let mut shape = input.clone();
        for (kind, window, bias) in layers {
            if let Some(config) = next_layer(kind, window, bias, &shape) {
                shape = config.output(&shape).unwrap().0;
                configs.push(config);
            }
        }
        (!configs.is_empty()).then_some((input, configs))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_chain_as_one_map_gives_the_reals_of_its_layers((input, configs) in chains(), seed: u64) {
        let rng = &mut seeded(seed);
        let chain = Chain::new(&input, &configs, rng);
        prop_assert_eq!(chain.affine.map().input(), &input);
        prop_assert_eq!(chain.affine.map().output(), chain.layers.last().unwrap().output());
        chain.check(rng);
    }

    /// A mean after a layer, as sums of its inputs that anybody can compute and the layer's own weights.
    #[test]
    fn a_pooled_layer_gives_the_reals_of_both(
        (config, input) in convolutions(), with_norm: bool, kind in 0usize..3, window in windows(), seed: u64,
    ) {
        let rng = &mut seeded(seed);
        let first = Chain::new(&input, &[vec![config], if with_norm { vec![norm()] } else { vec![] }].concat(), rng);
        let shape = first.affine.map().output().clone();
        let window = if kind == 2 { Window::new(window.kernel).with_stride(window.stride) } else { window };
        let config = if kind == 0 { LinearConfig::GlobalAvgPool2d } else { LinearConfig::AvgPool2d(window.into()) };
        prop_assume!(config.output(&shape).is_ok());
        let pooling = layer(config.clone(), shape.clone(), rng);
        let pooled = first.affine.pooled(&pooling.affine());
        // Without padding, no window is all padding.
        prop_assert!(pooled.is_some() || kind == 1, "{:?}", config);
        let Some((sums, map)) = pooled else { return Ok(()) };
        let x = wide(&random(rng, [2, input.elements()]));
        let expected = Definition::of(&pooling).forward(&first.in_turn(&x), Mode::Inference);
        let summed = sums.apply(&[1.0], x.as_slice().unwrap()).unwrap();
        let summed = Array2::from_shape_vec((2, sums.output().elements()), summed).unwrap();
        prop_assert!(largest_difference(&apply(&map, &summed), &expected) < 1e-10);
        prop_assert_eq!(map.map().weights(), first.affine.map().weights());
        let public = Affine::of_map(first.affine.map().clone());
        let (public_sums, public) = public.pooled(&Affine::of_map(pooling.map().clone())).unwrap();
        prop_assert_eq!((&public_sums, public.map()), (&sums, map.map()));
    }

    /// Integers of the finest scale are as near to the reals as roundings allow, and bounds of errors hold.
    #[test]
    fn integers_are_within_their_bounds_of_the_reals(
        (input, configs) in chains(), bits in 2u32..=24, seed: u64,
    ) {
        let rng = &mut seeded(seed);
        let affine = Chain::new(&input, &configs, rng).affine.without_bias();
        let scale = affine.finest_scale(bits);
        let largest = affine.weights().iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let units = largest * f64::from(scale).exp2();
        let half = f64::from(bits as i32 - 1).exp2();
        // Half as fine where that loses less, which needs a weight that is just not held.
        let least = if units <= half / 2.0 && units > (half - 1.0) / 2.0 { half / 4.0 } else { half / 2.0 };
        prop_assert!(largest == 0.0 || (units <= half && units > least), "{units} of {half}");
        let integers = affine.quantize(WeightRange::signed(bits).unwrap().with_scale_bits(scale)).unwrap();
        prop_assert!(integers.values().iter().all(|&weight| integers.range().contains(weight)));
        // Multiples of 2^-8, so that inputs have no rounding of their own.
        let x = values(rng, &input, 2, Format::integers(255).unwrap().with_scale_bits(8).unwrap());
        let found = reals(&x.apply(affine.map(), &integers).unwrap());
        let expected = apply(&affine, &reals(&x));
        let rounding = affine.rounding(&integers, &vec![1.0; input.elements()]).unwrap();
        let spread = affine.spread(&vec![1.0; input.elements()]).unwrap();
        for (found, expected) in found.outer_iter().zip(expected.outer_iter()) {
            for at in 0..rounding.len() {
                prop_assert!((found[at] - expected[at]).abs() <= rounding[at] + 1e-9);
                // What an output moves by when every input moves by up to 1 is at most what errors of 1 spread to.
                prop_assert!(expected[at].abs() <= spread[at] + 1e-9);
            }
        }
        // Both are reached by inputs of the signs of one row's weights.
        let output = rng.random_range(0..rounding.len());
        let mut signs = vec![0.0; input.elements()];
        for entry in affine.map().entries().filter(|entry| entry.output as usize == output) {
            signs[entry.input as usize] += affine.weights()[entry.weight as usize];
        }
        let signs = signs.iter().map(|x: &f64| x.signum()).collect();
        let at_signs = apply(&affine, &Array2::from_shape_vec((1, input.elements()), signs).unwrap());
        prop_assert!(at_signs[[0, output]] <= spread[output] + 1e-9);
        if configs.len() == 1 {
            prop_assert!(at_signs[[0, output]] >= spread[output] - 1e-9);
        }
    }
}

/// Values of the whole range of a format.
fn values(rng: &mut ChaCha8Rng, shape: &Shape, images: usize, format: Format) -> FixedTensor {
    let bound = format.bound() as i64;
    let values = (0..images * shape.elements()).map(|_| match rng.random_range(0..4) {
        0 => bound,
        1 => -bound,
        _ => rng.random_range(-bound..=bound),
    });
    FixedTensor::new(shape.clone(), format, values.collect()).unwrap()
}

fn reals(x: &FixedTensor) -> Array2<f64> {
    Array2::from_shape_vec((x.batch(), x.shape().elements()), x.reals()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Layers on ciphertexts, under every layout that they take, give the integers that they give in the clear.
    #[test]
    fn layers_on_ciphertexts_equal_those_in_the_clear(
        (config, input) in layers(), bits in 2u32..12, batch in 1usize..4, seed: u64,
    ) {
        let rng = &mut seeded(seed);
        let affine = layer(config, input.clone(), rng).affine();
        let integers = affine.quantize(WeightRange::signed(bits).unwrap().with_scale_bits(affine.finest_scale(bits))).unwrap();
        let x = values(rng, &input, batch, Format::integers(255).unwrap().with_scale_bits(8).unwrap());
        let fixed = x.apply(affine.map(), &integers).unwrap();
        let biased = (!affine.bias().is_empty()).then(|| {
            let scale = f64::from(fixed.format().scale_bits()).exp2();
            let bias: Vec<i64> = affine.bias().iter().map(|bias| (bias * scale).round() as i64).collect();
            let bound = bias.iter().map(|bias| bias.unsigned_abs()).max().unwrap();
            let format = Format::integers(bound).unwrap().with_scale_bits(fixed.format().scale_bits()).unwrap();
            FixedTensor::new(affine.map().output().clone(), format, bias).unwrap()
        });
        let clear = biased.as_ref().map_or_else(|| fixed.clone(), |bias| fixed.add(bias).unwrap());
        let half_unit = 0.5 * clear.format().real(1);
        let rounding = affine.rounding(&integers, &vec![1.0; input.elements()]).unwrap();
        let (found, expected) = (reals(&clear), apply(&affine, &reals(&x)));
        for ((_, at), found) in found.indexed_iter() {
            let difference = (found - expected[[0, at]]).abs();
            prop_assert!(batch > 1 || difference <= rounding[at] + half_unit + 1e-9);
        }
        let contents = Contents::Integers(x.format());
        let packing = Packing { batch, slot_bits: clear.format().slot_bits(), key: KeyBits::Bits1024 };
        let mut layouts = vec![SlotLayout::images(packing, contents).unwrap()];
        if affine.map().columns().is_some() {
            layouts.push(SlotLayout::patches(affine.map(), packing, contents).unwrap());
        }
        let mut noise = ChaCha20Rng::seed_from_u64(seed);
        for layout in layouts {
            let encrypted = x.encrypt(&layout, &*KEY, &mut noise).unwrap();
            let kind = integers.range();
            let workload = Workload { weights: kind, groups: layout.groups(batch), lanes: 1 };
            let product = Product::cheapest(affine.map(), &layout, workload).unwrap();
            let sums = encrypted.apply(affine.map(), &integers, &product).unwrap();
            prop_assert_eq!(&sums.decrypt(&KEY).unwrap(), &fixed, "{}", layout);
            if let Some(bias) = &biased {
                prop_assert_eq!(&sums.add_plain(bias).unwrap().decrypt(&KEY).unwrap(), &clear, "{}", layout);
            }
        }
    }
}

/// As many weights and one block a group, whatever the groups: nothing more is multiplied than without the batch norm.
#[test]
fn a_convolution_and_a_batch_norm_stay_a_convolution() {
    let rng = &mut seeded(2);
    for (groups, bias) in [(1, true), (2, false), (4, true)] {
        let config = Conv2dConfig { groups, bias, ..padded() };
        let chain = Chain::new(&Shape::from([4, 6, 5]), &[conv(config), norm()], rng);
        let (alone, joined) = (chain.layers[0].map(), chain.affine.map());
        assert_eq!((joined.weights(), joined.blocks().len()), (alone.weights(), groups));
        assert_eq!((joined.columns(), joined.products()), (alone.columns(), alone.products()));
        assert!(joined.has_outputs_of(alone));
        chain.check(rng);
    }
    // A batch norm before a convolution without padding is one as well, with a bias for each position that is the same.
    let config = Conv2dConfig::new(3, [2, 2]);
    let chain = Chain::new(&Shape::from([2, 4, 4]), &[norm(), conv(config)], rng);
    assert_eq!(chain.affine.map().weights(), chain.layers[1].map().weights());
    for channel in chain.affine.bias().chunks_exact(9) {
        assert!(channel.iter().all(|bias| (bias - channel[0]).abs() < 1e-12), "{channel:?}");
    }
}

#[test]
fn a_mean_of_whole_channels_keeps_the_weights_of_a_convolution() {
    let rng = &mut seeded(3);
    let chain = Chain::new(&Shape::from([2, 8, 8]), &[conv(Conv2dConfig::new(3, [3, 3]))], rng);
    let mean = layer(mean([2, 2]), [3, 6, 6], rng).affine();
    let (sums, map) = chain.affine.pooled(&mean).unwrap();
    // A quarter of the positions, as many weights as before, four inputs in each sum.
    assert_eq!((map.map().weights(), map.map().columns()), (54, Some(9)));
    assert_eq!((sums.weights(), sums.most_terms()), (1, 4));
    assert!(map.weights().iter().zip(chain.affine.weights()).all(|(a, b)| (a - b / 4.0).abs() < 1e-15));
    // As one map it has the 4x4 taps of both windows together.
    let fused = chain.affine.then(&mean).unwrap();
    assert_eq!((fused.map().weights(), fused.map().columns()), (3 * 2 * 16, Some(9)));
    // A window of nothing but padding has no sum.
    let window = Window::new([2, 2]).with_dilation([8, 8]).with_padding([6, 6]).with_stride([4, 4]);
    let empty = layer(LinearConfig::AvgPool2d(window.into()), [3, 6, 6], rng).affine();
    assert!(chain.affine.pooled(&empty).is_none());
    // A mean of something else's outputs is none of this layer's.
    let other = layer(LinearConfig::GlobalAvgPool2d, [3, 5, 5], rng).affine();
    assert!(chain.affine.pooled(&other).is_none());
}

fn dense(weights: &[f32], bias: &[f32]) -> LinearLayer {
    let config = DenseConfig { out_features: bias.len(), bias: true };
    let inputs = weights.len() / bias.len();
    let mut layer = LinearLayer::new(LinearConfig::Dense(config), &Shape::from([inputs])).unwrap();
    *layer.parameters_mut() = Parameters { weight: weights.to_vec(), bias: bias.to_vec() };
    layer
}

/// The largest weight of either sign, and zeros, come through the rounding as they should.
#[test]
fn extreme_weights_are_rounded_into_range() {
    let affine = dense(&[1.0, -1.0, 0.0], &[0.0]).affine();
    // A power of two is held exactly, where the others do not ask for a finer scale.
    assert_eq!(affine.finest_scale(8), 6);
    let fine = [1.0, -1.0, 5.0 / 128.0, 7.0 / 128.0, 9.0 / 128.0, 11.0 / 128.0, 13.0 / 128.0];
    assert_eq!(dense(&fine, &[0.0]).affine().finest_scale(8), 7);
    let integers = affine.quantize(WeightRange::signed(8).unwrap().with_scale_bits(7)).unwrap();
    // 1.0 is 128 units of 2^-7, one more than 8 bits hold.
    assert_eq!(integers.values(), [127, -128, 0]);
    let rounding = affine.rounding(&integers, &[1.0; 3]).unwrap();
    assert!((rounding[0] - 1.0 / 128.0).abs() < 1e-12);
    let one =
        FixedTensor::new(Shape::from([3]), Format::integers(1).unwrap(), vec![1, 0, 0, 0, 1, 0]).unwrap();
    assert_eq!(one.apply(affine.map(), &integers).unwrap().values(), [127, -128]);

    let zeros = dense(&[0.0; 3], &[0.0]).affine();
    let integers =
        zeros.quantize(WeightRange::signed(8).unwrap().with_scale_bits(zeros.finest_scale(8))).unwrap();
    assert_eq!(one.apply(zeros.map(), &integers).unwrap().values(), [0, 0]);
    assert_eq!(zeros.rounding(&integers, &[1.0; 3]).unwrap(), [0.0]);

    // The largest and the smallest numbers there are, at the coarsest and the finest scale.
    for (weight, units) in [(f32::MAX, 127), (f32::MIN, -128), (f32::MIN_POSITIVE, 0), (1e-45, 0)] {
        let affine = dense(&[weight, 0.0], &[0.0]).affine();
        let scale = affine.finest_scale(8);
        assert!(scale.abs() <= 110, "a format holds the scale {scale}");
        let integers = affine.quantize(WeightRange::signed(8).unwrap().with_scale_bits(scale)).unwrap();
        assert_eq!(integers.values(), [units, 0], "{weight}");
    }
    // A scale of the caller's own clamps what it does not hold.
    let affine = dense(&[100.0, -100.0, 0.3], &[0.0]).affine();
    assert_eq!(
        affine.quantize(WeightRange::signed(4).unwrap().with_scale_bits(3)).unwrap().values(),
        [7, -8, 2]
    );
}

/// Integers are told from other weights at the coarsest scale that they have, also behind roundings to `f32`.
#[test]
fn weights_that_are_integers_have_a_scale_of_their_own() {
    let exact = |weights: &[f32], bits| dense(weights, &[0.0]).affine().exact_scale(bits);
    assert_eq!(exact(&[1.0, -1.0, 0.0], 8), Some(0));
    assert_eq!(exact(&[0.25], 2), Some(2));
    assert_eq!(exact(&[-6.0, 4.0], 3), Some(-1));
    assert_eq!(exact(&[-6.0, 5.0], 4), Some(0));
    // Of fewer bits than they take they are none, and of a largest one that is just not held.
    assert_eq!(exact(&[-6.0, 5.0], 3), None);
    assert_eq!(exact(&[4.0, 3.0, 1.0], 3), None);
    assert_eq!(exact(&[0.0, 0.0], 8), None);
    let none = dense(&[1.0], &[0.0]).affine().map().clone();
    assert_eq!(Affine::of_map(none).exact_scale(8), None);
    assert_eq!(exact(&[f32::NAN, 1.0], 8), None);
    assert_eq!(exact(&[f32::INFINITY, 1.0], 8), None);
    let rng = &mut seeded(5);
    for bits in 2..=9 {
        let limit = 1 << (bits - 1);
        let mut integers: Vec<i32> = (0..200).map(|_| rng.random_range(-limit..limit)).collect();
        integers.push(limit - 1);
        let factors: Vec<f32> = integers.iter().map(|_| rng.random_range(0.1..10.0)).collect();
        // As weights that meet the factors again.
        let weights: Vec<f64> = integers
            .iter()
            .zip(&factors)
            .map(|(&integer, &factor)| {
                let weight = (f64::from(integer) / 32.0 * (1.0 - 1e-6) / f64::from(factor)) as f32;
                f64::from(weight) * f64::from(factor)
            })
            .collect();
        let map = dense(&vec![0.0; weights.len()], &[0.0]).affine().map().clone();
        let affine = Affine::new(map, weights, &[]);
        assert_eq!(affine.exact_scale(bits), Some(5));
        assert_eq!(affine.bits_at(5), bits);
        let range = WeightRange::signed(bits).unwrap().with_scale_bits(5);
        assert_eq!(affine.quantize(range).unwrap().values(), integers);
        let reals: Vec<f32> = (0..200).map(|_| rng.random_range(-1.0..1.0)).collect();
        assert_eq!(exact(&reals, bits), None);
    }
}

#[test]
fn as_many_bits_as_weights_take_at_a_scale() {
    let bits = |weights: &[f32], scale| dense(weights, &[0.0]).affine().bits_at(scale);
    let cases =
        [(0.0, 2), (1.0, 2), (-2.0, 2), (2.0, 3), (-3.0, 3), (3.0, 3), (4.0, 4), (-8.0, 4), (-9.0, 5)];
    for (weight, expected) in cases {
        assert_eq!(bits(&[weight, 0.0], 0), expected, "{weight}");
        assert_eq!(bits(&[weight / 16.0, 0.0], 4), expected, "{weight}");
    }
    // Rounded first.
    assert_eq!(bits(&[3.4, -4.4], 0), 3);
    assert_eq!(bits(&[3.6], 0), 4);
    assert_eq!(bits(&[-4.6], 0), 4);
    assert_eq!(bits(&[0.3], -4), 2);
    assert!(bits(&[f32::MAX], 10) > 24);
}

#[test]
fn exponents_are_the_smallest_powers_of_two_that_hold() {
    for (numbers, expected) in [
        (&[][..], 0),
        (&[0.0, -0.0], 0),
        (&[1.0], 0),
        (&[-1.0, 0.5], 0),
        (&[1.000_001], 1),
        (&[0.3, -0.25], -1),
        (&[4.0, -5.0], 3),
        (&[1e-300], -100),
        (&[-1e300], 100),
        (&[f64::INFINITY], 100),
    ] {
        assert_eq!(exponent(numbers), expected, "{numbers:?}");
    }
}

#[test]
fn chains_and_bits_that_do_not_fit_are_refused() {
    let zeros =
        |inputs: usize, outputs: usize| dense(&vec![0.0; inputs * outputs], &vec![0.0; outputs]).affine();
    let error = zeros(4, 3).then(&zeros(2, 3)).unwrap_err();
    assert!(
        matches!(error, Error::Shape { expected, found, .. } if (&expected, &found) == (&[2].into(), &[3].into()))
    );
    for bits in [0, 1, 25, u32::MAX] {
        assert!(matches!(WeightRange::signed(bits), Err(Error::Range { least: 2, most: 24, .. })), "{bits}");
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let refused = dense(&[0.0, bad], &[1.0, bad])
            .affine()
            .quantize(WeightRange::signed(8).unwrap().with_scale_bits(7))
            .unwrap_err();
        assert_eq!(refused, Error::NotFinite { what: "weights", found: 2, of: 4 });
    }
    let mut norm = LinearLayer::new(norm(), &Shape::from([2, 1, 1])).unwrap();
    norm.statistics_mut().unwrap().variance[1] = -1.0;
    let refused = norm.affine().quantize(WeightRange::signed(8).unwrap().with_scale_bits(7)).unwrap_err();
    assert!(matches!(refused, Error::NotFinite { .. }), "{refused}");
    // Of 9801 inputs, where the dense layer alone weighs 1089.
    let strided = Conv2dConfig::new(1, [3, 3]).with_stride([3, 3]);
    let conv = layer(conv(strided), [1, 100, 100], &mut seeded(1)).affine();
    let wide = Arc::new(LinearMap::dense(conv.map().output(), 10_000).unwrap());
    let refused = Affine::of_map(conv.map().clone()).then(&Affine::of_map(wide)).unwrap_err();
    assert!(matches!(refused, Error::Limit { .. }), "{refused}");
    for wrong in [vec![], vec![1.0; 3], vec![1.0; 5]] {
        assert!(zeros(4, 2).spread(&wrong).is_err() || wrong.is_empty());
        let integers =
            IntWeights::new(WeightRange::signed(8).unwrap().with_scale_bits(7), vec![0; 8]).unwrap();
        assert!(zeros(4, 2).rounding(&integers, &wrong).is_err() || wrong.is_empty());
    }
}

#[test]
fn biases_are_spread_over_the_positions_of_their_channel() {
    let mut layer = LinearLayer::new(conv(Conv2dConfig::new(2, [1, 1])), &Shape::from([1, 1, 3])).unwrap();
    layer.parameters_mut().bias.copy_from_slice(&[1.0, -2.0]);
    assert_eq!(layer.affine().bias(), [1.0, 1.0, 1.0, -2.0, -2.0, -2.0]);
    assert!(layer.affine().without_bias().bias().is_empty());
    let without =
        LinearLayer::new(conv(Conv2dConfig::new(2, [1, 1]).without_bias()), &Shape::from([1, 1, 3]));
    assert!(without.unwrap().affine().bias().is_empty());
}
