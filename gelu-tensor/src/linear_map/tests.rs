//! Maps in the clear against their definitions, entry by entry.

use std::num::Wrapping;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha20Rng};

use super::*;
use crate::tests::maps::{
    random_chain, random_convolution, random_entries, random_layer, random_map, random_shape, random_windows,
};
use crate::{Window, Windows};

fn seeded(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn integers(rng: &mut ChaCha20Rng, count: usize) -> Vec<i64> {
    (0..count).map(|_| rng.random_range(-99..100)).collect()
}

fn image(rng: &mut ChaCha20Rng) -> [usize; 3] {
    [rng.random_range(1..5), rng.random_range(1..7), rng.random_range(1..7)]
}

/// The sum that a window makes of one channel at one position, by the definition: tap by tap, zeros around the image.
fn window_sum(
    windows: &Windows,
    (channel, position): (&[i64], [usize; 2]),
    weight: impl Fn(usize, usize) -> i64,
) -> i64 {
    let ([_, height, width], window) = (windows.input(), windows.window());
    let mut sum = 0;
    for row in 0..window.kernel[0] {
        for column in 0..window.kernel[1] {
            let at = |axis: usize, tap: usize| {
                (position[axis] * window.stride[axis] + tap * window.dilation[axis]) as isize
                    - window.padding[axis][0] as isize
            };
            let (y, x) = (at(0, row), at(1, column));
            if (0..height as isize).contains(&y) && (0..width as isize).contains(&x) {
                sum += weight(row, column) * channel[y as usize * width + x as usize];
            }
        }
    }
    sum
}

/// PyTorch's convolution: weights are `[filters, channels / groups, kernel height, kernel width]`.
fn convolution(
    windows: &Windows,
    Filters { count, groups }: Filters,
    weights: &[i64],
    x: &[i64],
) -> Vec<i64> {
    let ([channels, height, width], [rows, columns]) = (windows.input(), windows.output());
    let [kh, kw] = windows.window().kernel;
    let (inputs, filters) = (channels / groups, count / groups);
    let mut out = vec![];
    for filter in 0..count {
        for position in (0..rows).flat_map(|row| (0..columns).map(move |column| [row, column])) {
            let of = |input: usize| {
                let channel = &x[(filter / filters * inputs + input) * height * width..][..height * width];
                window_sum(windows, (channel, position), |row, column| {
                    weights[((filter * inputs + input) * kh + row) * kw + column]
                })
            };
            out.push((0..inputs).map(of).sum());
        }
    }
    out
}

/// The sums under a window, channel by channel.
fn pooling(windows: &Windows, x: &[i64]) -> Vec<i64> {
    let ([_, height, width], [rows, columns]) = (windows.input(), windows.output());
    let positions = (0..rows).flat_map(|row| (0..columns).map(move |column| [row, column]));
    let channels = x.chunks_exact(height * width);
    channels
        .flat_map(|channel| positions.clone().map(|at| window_sum(windows, (channel, at), |_, _| 1)))
        .collect()
}

/// How many taps of a window read a pixel, or padding of so many rows and columns next to the image.
fn counted_taps(windows: &Windows, counted: [[usize; 2]; 2], position: usize) -> usize {
    let ([_, height, width], window) = (windows.input(), windows.window());
    let at = [position / windows.output()[1], position % windows.output()[1]];
    let along = |axis: usize, size: usize| {
        let inside = |tap: &usize| {
            let pixel = (at[axis] * window.stride[axis] + tap * window.dilation[axis]) as i64
                - window.padding[axis][0] as i64;
            (-(counted[axis][0] as i64)..(size + counted[axis][1]) as i64).contains(&pixel)
        };
        (0..window.kernel[axis]).filter(inside).count()
    };
    along(0, height) * along(1, width)
}

/// The map whose weights are weights of a composition, as sums of products of integers.
fn compose(first: &LinearMap, next: &LinearMap, weights: [&[i64]; 2]) -> (LinearMap, Vec<i64>) {
    let mut sums = vec![];
    let map = first.then(next, |weight, one, two| {
        sums.resize(sums.len().max(weight + 1), 0);
        sums[weight] += weights[0][one] * weights[1][two];
    });
    let map = map.unwrap();
    assert!(sums.len() <= map.weights());
    sums.resize(map.weights(), 0);
    (map, sums)
}

/// The inputs of all columns.
fn columns(map: &LinearMap) -> impl Iterator<Item = &[u32]> {
    map.blocks().iter().flat_map(|block| block.pairs().map(|(inputs, _)| inputs))
}

/// What every map keeps to, whatever made it.
fn check_form(map: &LinearMap) {
    let (from, to) = (map.input().elements(), map.output().elements());
    let mut given = vec![false; to];
    for block in map.blocks() {
        assert_eq!(block.weight_indices().len(), block.rows() * block.taps());
        assert!(block.taps() > 0 && block.rows() > 0 && block.columns() > 0);
        assert!(block.weight_indices().iter().all(|&weight| (weight as usize) < map.weights()));
        let mut read = vec![];
        for column in 0..block.columns() {
            read.extend((0..block.taps()).filter_map(|tap| block.input(column, tap)));
            for output in (0..block.rows()).map(|row| block.output(column, row)) {
                assert!(!std::mem::replace(&mut given[output], true), "output {output} is given twice");
            }
        }
        assert_eq!(block.is_padded(), read.len() < block.columns() * block.taps());
        read.sort_unstable();
        read.dedup();
        assert_eq!(block.read(), read.len());
        assert!(read.iter().all(|&input| input < from));
    }
    let entries: Vec<MapEntry> = map.entries().collect();
    let (mut terms, mut used) = (vec![0; to], vec![false; from]);
    for entry in &entries {
        terms[entry.output as usize] += 1;
        used[entry.input as usize] = true;
    }
    assert_eq!(map.most_terms(), terms.into_iter().max().unwrap());
    assert_eq!(map.used_inputs(), used);
    assert!(map.products() >= entries.len());
    match map.columns() {
        Some(columns) => {
            assert!(map.blocks().iter().all(|block| block.columns() == columns));
            assert!(given.iter().all(|&given| given), "every output has a column");
        }
        None => {
            let columns: Vec<_> = map.blocks().iter().map(Block::columns).collect();
            assert!(given.contains(&false) || columns.windows(2).any(|pair| pair[0] != pair[1]));
        }
    }
    assert!(map.has_outputs_of(map));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn convolutions_are_those_of_the_definition(
        seed: u64, groups in 1usize..4, per_group in [1usize..3, 1usize..4], size in [1usize..8, 1usize..8],
    ) {
        let rng = &mut seeded(seed);
        let windows = random_windows(rng, [groups * per_group[0], size[0], size[1]]);
        let filters = Filters { count: groups * per_group[1], groups };
        let map = LinearMap::convolution(&windows, filters).unwrap();
        check_form(&map);
        prop_assert_eq!(map.blocks().len(), groups);
        prop_assert_eq!(map.columns(), Some(windows.positions()));
        let kernel = windows.window().kernel;
        prop_assert_eq!(map.weights(), filters.count * per_group[0] * kernel[0] * kernel[1]);
        let weights = integers(rng, map.weights());
        let x = integers(rng, 2 * map.input().elements());
        let images = x.chunks_exact(map.input().elements());
        let expected: Vec<i64> = images.flat_map(|x| convolution(&windows, filters, &weights, x)).collect();
        prop_assert_eq!(map.apply(&weights, &x).unwrap(), expected);
    }

    #[test]
    fn other_layers_are_those_of_the_definition(seed: u64, outputs in 1usize..9) {
        let rng = &mut seeded(seed);
        let shape = image(rng);
        let windows = random_windows(rng, shape);
        let [channels, height, width] = shape;
        let shape = Shape::from(shape);
        let x = integers(rng, shape.elements());
        let pooled = LinearMap::pooling(&windows).unwrap();
        let expected: Vec<i64> = pooling(&windows, &x).iter().map(|sum| 7 * sum).collect();
        prop_assert_eq!(&pooled.apply(&[7], &x).unwrap(), &expected);
        prop_assert_eq!((pooled.blocks().len(), pooled.blocks()[0].rows()), (1, 1));
        prop_assert_eq!(pooled.output(), &Shape::from([channels, windows.output()[0], windows.output()[1]]));
        // With as much of the padding as counts, the same sums of fewer taps.
        let counted = windows.window().padding.map(|side| side.map(|most| rng.random_range(0..=most)));
        match LinearMap::pooling_counting(&windows, counted) {
            Ok(map) => {
                check_form(&map);
                prop_assert_eq!(map.apply(&vec![7; map.weights()], &x).unwrap(), expected);
                for (output, taps) in map.blocks().iter().flat_map(|block| {
                    (0..block.columns()).map(move |column| (block.output(column, 0), block.taps()))
                }) {
                    prop_assert_eq!(taps, counted_taps(&windows, counted, output % windows.positions()));
                }
            }
            Err(error) => {
                let empty = |position| counted_taps(&windows, counted, position) == 0;
                prop_assert!((0..windows.positions()).any(empty), "{error}");
            }
        }

        let dense = LinearMap::dense(&shape, outputs).unwrap();
        let weights = integers(rng, outputs * x.len());
        let row = |row: &[i64]| row.iter().zip(&x).map(|(weight, x)| weight * x).sum::<i64>();
        let expected: Vec<i64> = weights.chunks_exact(x.len()).map(row).collect();
        prop_assert_eq!(dense.apply(&weights, &x).unwrap(), expected);

        let each = LinearMap::per_channel(&shape).unwrap();
        let weights = integers(rng, channels);
        let of_channel = |(at, x): (usize, &i64)| weights[at / (height * width)] * x;
        let expected: Vec<i64> = x.iter().enumerate().map(of_channel).collect();
        prop_assert_eq!(each.apply(&weights, &x).unwrap(), expected);
        let same = LinearMap::identity(&shape).unwrap();
        prop_assert_eq!(same.apply(&[1], &x).unwrap(), x);
        prop_assert_eq!((each.blocks().len(), same.blocks().len()), (channels, 1));
        [pooled, dense, each, same].iter().for_each(check_form);
    }

    #[test]
    fn forward_gradient_bounds_and_transpose_agree_with_the_entries(seed: u64) {
        let rng = &mut seeded(seed);
        let map = random_map(rng);
        check_form(&map);
        let entries: Vec<MapEntry> = map.entries().collect();
        let (from, to) = (map.input().elements(), map.output().elements());
        let weights: Vec<u64> = (0..map.weights()).map(|_| rng.random()).collect();
        let (x, errors) = (integers(rng, 2 * from), integers(rng, 2 * to));
        let (mut sums, mut gradient) = (vec![0u64; errors.len()], vec![0i64; weights.len()]);
        let mut back = vec![0u64; x.len()];
        for image in 0..2 {
            for entry in &entries {
                let [input, output] = [(from, entry.input), (to, entry.output)]
                    .map(|(elements, element)| image * elements + element as usize);
                let weight = weights[entry.weight as usize];
                sums[output] = sums[output].wrapping_add(weight.wrapping_mul(x[input] as u64));
                back[input] = back[input].wrapping_add(weight.wrapping_mul(errors[output] as u64));
                gradient[entry.weight as usize] += x[input] * errors[output];
            }
        }
        prop_assert_eq!(map.apply_wrapping(&weights, &x).unwrap(), sums);
        prop_assert_eq!(map.gradient(&x, &errors).unwrap(), gradient);
        let [magnitudes, limits] = [weights.len(), from].map(|count| {
            integers(rng, count).iter().map(|x| x.unsigned_abs()).collect::<Vec<_>>()
        });
        let mut bounds = vec![0; to];
        entries.iter().for_each(|entry| {
            bounds[entry.output as usize] += magnitudes[entry.weight as usize] * limits[entry.input as usize];
        });
        prop_assert_eq!(map.bounds(&magnitudes, &limits).unwrap(), bounds);
        if entries.is_empty() {
            let refused = map.transposed().unwrap_err();
            prop_assert!(matches!(refused, Error::Range { .. }), "{}", refused);
        } else {
            let transposed = map.transposed().unwrap();
            check_form(&transposed);
            prop_assert_eq!((transposed.input(), transposed.output()), (map.output(), map.input()));
            prop_assert_eq!(transposed.weights(), map.weights());
            prop_assert_eq!(transposed.apply_wrapping(&weights, &errors).unwrap(), back);
            let mut there_and_back: Vec<MapEntry> = transposed.transposed().unwrap().entries().collect();
            let mut entries = entries;
            there_and_back.sort_unstable();
            entries.sort_unstable();
            prop_assert_eq!(there_and_back, entries);
        }
    }

    #[test]
    fn maps_of_entries_have_these_entries(seed: u64) {
        let rng = &mut seeded(seed);
        let map = if rng.random_bool(0.5) { random_entries(rng) } else { random_map(rng) };
        let mut entries: Vec<MapEntry> = map.entries().collect();
        prop_assume!(!entries.is_empty());
        let shapes = [map.input().clone(), map.output().clone()];
        let again = LinearMap::from_entries(shapes, map.weights(), entries.clone()).unwrap();
        check_form(&again);
        let mut found: Vec<MapEntry> = again.entries().collect();
        entries.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, entries);
        // Outputs of the same inputs share a column, and columns of the same matrix a block.
        let mut matrices: Vec<_> = again.blocks().iter().map(|block| (block.taps, &block.weights)).collect();
        let mut columns: Vec<_> = columns(&again).collect();
        let counts = (matrices.len(), columns.len());
        matrices.sort_unstable();
        matrices.dedup();
        columns.sort_unstable();
        columns.dedup();
        prop_assert_eq!((matrices.len(), columns.len()), counts);
    }

    #[test]
    fn a_chain_is_one_map_after_the_other(seed: u64) {
        let rng = &mut seeded(seed);
        let first = if rng.random_bool(0.3) { random_chain(rng) } else { random_map(rng) };
        // A chain may end in a vector though its map was made for an image.
        let next = match rng.random_range(0..4) {
            0 => {
                let shape = Shape::from([first.output().elements()]);
                random_layer(rng, &shape)
            }
            1 => first.transposed().unwrap_or_else(|_| LinearMap::identity(first.output()).unwrap()),
            _ => random_layer(rng, &first.output().clone()),
        };
        let weights = [&first, &next].map(|map| integers(rng, map.weights()));
        let (map, sums) = compose(&first, &next, weights.each_ref().map(|weights| &weights[..]));
        check_form(&map);
        prop_assert_eq!((map.input(), map.output()), (first.input(), next.output()));
        let x = integers(rng, 2 * map.input().elements());
        let expected = next.apply(&weights[1], &first.apply(&weights[0], &x).unwrap()).unwrap();
        prop_assert_eq!(map.apply(&sums, &x).unwrap(), expected);
        // Reals, too.
        let halves = |integers: &[i64]| integers.iter().map(|&x| x as f64 / 2.0).collect::<Vec<_>>();
        let quarters: Vec<f64> = sums.iter().map(|&sum| sum as f64 / 4.0).collect();
        let reals = map.apply(&quarters, &halves(&x)).unwrap();
        let [first_weights, next_weights] = weights.each_ref().map(|weights| halves(weights));
        let expected = next.apply(&next_weights, &first.apply(&first_weights, &halves(&x)).unwrap()).unwrap();
        prop_assert_eq!(reals, expected);
    }

    #[test]
    fn longer_chains_are_their_layers_in_order(seed: u64, layers in 2usize..5) {
        let rng = &mut seeded(seed);
        let shape = random_shape(rng);
        let mut map = random_layer(rng, &shape);
        let mut weights = integers(rng, map.weights()).into_iter().map(Wrapping).collect::<Vec<_>>();
        let x: Vec<Wrapping<i64>> = integers(rng, map.input().elements()).into_iter().map(Wrapping).collect();
        let mut y = map.apply(&weights, &x).unwrap();
        for _ in 1..layers {
            let next = random_layer(rng, &map.output().clone());
            let of_next: Vec<_> = integers(rng, next.weights()).into_iter().map(Wrapping).collect();
            y = next.apply(&of_next, &y).unwrap();
            let mut sums = vec![];
            let chain = map.then(&next, |weight, first, second| {
                sums.resize(sums.len().max(weight + 1), Wrapping(0));
                sums[weight] += weights[first] * of_next[second];
            }).unwrap();
            sums.resize(chain.weights(), Wrapping(0));
            (map, weights) = (chain, sums);
        }
        prop_assert_eq!(map.apply(&weights, &x).unwrap(), y);
    }

    /// Batch norm after a convolution changes its weights, and nothing else.
    #[test]
    fn a_convolution_with_a_weight_for_each_channel_is_a_convolution(seed: u64) {
        let rng = &mut seeded(seed);
        let shape = image(rng);
        let first = random_convolution(rng, shape);
        for next in [LinearMap::per_channel(first.output()), LinearMap::identity(first.output())] {
            let map = first.then(&next.unwrap(), |_, _, _| ()).unwrap();
            prop_assert_eq!(map.blocks().len(), first.blocks().len());
            prop_assert_eq!(map.weights(), first.weights());
            prop_assert_eq!(map.columns(), first.columns());
            prop_assert!(map.has_outputs_of(&first));
            prop_assert_eq!(&map, &first);
        }
    }

    /// Filters of 1x1 in front of others, without padding, are filters of the others' size.
    #[test]
    fn convolutions_without_padding_are_one_convolution(
        seed: u64, channels in 1usize..4, counts in [1usize..4, 1usize..4], size in [4usize..7, 4usize..7],
        kernels in [[1usize..3, 1usize..3], [1usize..3, 1usize..3]],
    ) {
        let rng = &mut seeded(seed);
        let windows = Window::new(kernels[0]).over([channels, size[0], size[1]]).unwrap();
        let first = LinearMap::convolution(&windows, Filters { count: counts[0], groups: 1 }).unwrap();
        let [_, height, width] = first.output().as_image("a convolution's output").unwrap();
        let windows = Window::new(kernels[1]).over([counts[0], height, width]).unwrap();
        let next = LinearMap::convolution(&windows, Filters { count: counts[1], groups: 1 }).unwrap();
        let weights = [&first, &next].map(|map| integers(rng, map.weights()));
        let (map, sums) = compose(&first, &next, weights.each_ref().map(|weights| &weights[..]));
        let whole = [0, 1].map(|axis| kernels[0][axis] + kernels[1][axis] - 1);
        let windows = Window::new(whole).over([channels, size[0], size[1]]).unwrap();
        let direct = LinearMap::convolution(&windows, Filters { count: counts[1], groups: 1 }).unwrap();
        let sizes = |map: &LinearMap| (map.blocks().len(), map.weights(), map.columns());
        prop_assert_eq!(sizes(&map), sizes(&direct));
        let x = integers(rng, map.input().elements());
        prop_assert_eq!(map.apply(&sums, &x).unwrap(), direct.apply(&sums, &x).unwrap());
    }

    /// A sum of the weights that padding has in several columns is no weight of a chain: nothing reads it, and the
    /// scale of the others would have to hold it.
    #[test]
    fn chains_keep_padding_only_where_they_keep_columns(seed: u64) {
        let rng = &mut seeded(seed);
        let shape = image(rng);
        let first = random_convolution(rng, shape);
        let next = random_layer(rng, &first.output().clone());
        let map = first.then(&next, |_, _, _| ()).unwrap();
        let kept: Vec<&[u32]> = columns(&first).collect();
        for inputs in columns(&map) {
            prop_assert!(!inputs.contains(&PADDING) || kept.contains(&inputs));
        }
    }

    /// A convolution and a pooling after it: sums of inputs, and the convolution's own weights.
    #[test]
    fn pooling_is_taken_apart_into_sums_and_a_map_of_them(seed: u64, norm: bool) {
        let rng = &mut seeded(seed);
        let shape = image(rng);
        let mut first = random_convolution(rng, shape);
        if norm {
            first = first.then(&LinearMap::per_channel(first.output()).unwrap(), |_, _, _| ()).unwrap();
        }
        let windows = random_windows(rng, first.output().as_image("a convolution's output").unwrap());
        let mean = LinearMap::pooling(&windows).unwrap();
        let (x, weights) = (integers(rng, 2 * first.input().elements()), integers(rng, first.weights()));
        let elements = first.output().elements();
        let between = first.apply(&weights, &x).unwrap();
        let expected: Vec<i64> = between.chunks_exact(elements).flat_map(|y| pooling(&windows, y)).collect();
        prop_assert_eq!(&mean.apply(&[1], &between).unwrap(), &expected);
        // A window of nothing but padding has no sum, and a convolution that reads nothing none either.
        let empty = |map: &LinearMap| columns(map).any(|inputs| inputs.iter().all(|&at| at == PADDING));
        let Some([sums, map]) = first.pooled(&mean) else {
            prop_assert!(empty(&mean) || first.entries().next().is_none());
            return Ok(());
        };
        [&sums, &map].into_iter().for_each(check_form);
        prop_assert_eq!((sums.weights(), map.weights()), (1, first.weights()));
        prop_assert_eq!((sums.input(), map.output()), (first.input(), mean.output()));
        prop_assert_eq!(sums.output(), map.input());
        prop_assert_eq!(map.apply(&weights, &sums.apply(&[1], &x).unwrap()).unwrap(), expected);
        // Every weight is used once for each position that is left.
        prop_assert_eq!(map.columns(), Some(windows.positions()));
        prop_assert_eq!(map.blocks().len(), first.blocks().len());
    }
}

/// Positions as far from the border, or as near, have one matrix.
#[test]
fn chains_share_weights_between_positions() {
    let padded = |input: [usize; 3]| Window::new([3, 3]).with_padding([1, 1]).over(input).unwrap();
    let (filters, blocks) = (Filters { count: 64, groups: 1 }, |map: &LinearMap| map.blocks().len());
    let start = Instant::now();
    let convolution = LinearMap::convolution(&padded([64, 28, 28]), filters).unwrap();
    let twice = convolution.then(&convolution, |_, _, _| ()).unwrap();
    // Windows of 5 that end at either border, or one before it, have 3 or 4 taps.
    let taps = 3 + 4 + 5 + 4 + 3;
    assert_eq!((blocks(&twice), twice.weights()), (25, taps * taps * 64 * 64));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    // A mean weighs all alike, so that opposite borders are the same.
    let windows = Window::new([3, 3]).over([2, 9, 9]).unwrap();
    let convolution = LinearMap::convolution(&windows, Filters { count: 3, groups: 1 }).unwrap();
    let pooled = convolution.then(&LinearMap::pooling(&padded([3, 7, 7])).unwrap(), |_, _, _| ()).unwrap();
    assert_eq!((blocks(&pooled), pooled.weights()), (4, (4 + 5) * (4 + 5) * 2 * 3));
}

/// Padding that is as wide as the image: neighboring windows of the pooling cover the same positions.
#[test]
fn windows_over_the_same_positions_are_pooled_each() {
    let windows = Window::new([1, 1]).over([1, 2, 2]).unwrap();
    let first = LinearMap::convolution(&windows, Filters { count: 2, groups: 1 }).unwrap();
    let windows = Window::new([3, 3]).with_padding([1, 1]).over([2, 2, 2]).unwrap();
    let [sums, map] = first.pooled(&LinearMap::pooling(&windows).unwrap()).unwrap();
    assert_eq!(sums.output(), &Shape::from([1]), "the four windows cover the four pixels each");
    let found = map.apply(&[1, 10], &sums.apply(&[1], &[1, 2, 3, 4]).unwrap()).unwrap();
    assert_eq!(found, [10, 10, 10, 10, 100, 100, 100, 100]);
}

#[test]
fn what_is_no_pooling_of_whole_channels_is_not_taken_apart() {
    let windows = |kernel: [usize; 2], input: [usize; 3]| Window::new(kernel).over(input).unwrap();
    let filters = Filters { count: 2, groups: 1 };
    let first = LinearMap::convolution(&windows([2, 2], [1, 5, 5]), filters).unwrap();
    let shape = first.output().clone();
    let entry = |output, input| MapEntry { output, input, weight: 0 };
    let entries = |entries: Vec<MapEntry>| {
        LinearMap::from_entries([shape.clone(), Shape::from([2])], 1, entries).unwrap()
    };
    for next in [
        LinearMap::dense(&shape, 3).unwrap(),
        LinearMap::per_channel(&shape).unwrap(),
        LinearMap::convolution(&windows([2, 2], [2, 4, 4]), filters).unwrap(),
        // Both channels in one sum; one channel only; other windows in each channel.
        entries(vec![entry(0, 0), entry(0, 16)]),
        entries(vec![entry(0, 0), entry(0, 1)]),
        entries(vec![entry(0, 0), entry(0, 1), entry(1, 17), entry(1, 18)]),
        // A pooling of other images.
        LinearMap::pooling(&windows([2, 2], [2, 4, 5])).unwrap(),
    ] {
        assert!(first.pooled(&next).is_none(), "{next:?}");
    }
    // Every dimension of a convolution that reads nothing but padding is fine, but there is nothing to sum up.
    let window = Window::new([2, 2]).with_dilation([4, 4]).with_padding([2, 2]);
    let nothing = LinearMap::convolution(&window.over([1, 2, 2]).unwrap(), filters).unwrap();
    assert_eq!((nothing.most_terms(), nothing.output()), (0, &Shape::from([2, 2, 2])));
    assert!(nothing.pooled(&LinearMap::pooling(&windows([2, 2], [2, 2, 2])).unwrap()).is_none());
    let chain = nothing.then(&LinearMap::dense(nothing.output(), 3).unwrap(), |_, _, _| ()).unwrap();
    assert_eq!(chain.apply(&vec![1i64; chain.weights()], &[1, 2, 3, 4]).unwrap(), [0, 0, 0]);
}

#[test]
fn has_outputs_of_compares_rows_and_columns() {
    let convolution = |kernel: [usize; 2], filters: Filters| {
        let windows = Window::new(kernel).with_padding(kernel.map(|taps| taps / 2)).over([2, 3, 4]).unwrap();
        LinearMap::convolution(&windows, filters).unwrap()
    };
    let wide = convolution([3, 3], Filters { count: 4, groups: 1 });
    let narrow = convolution([1, 1], Filters { count: 4, groups: 1 });
    assert!(wide.has_outputs_of(&narrow) && narrow.has_outputs_of(&wide));
    let grouped = convolution([3, 3], Filters { count: 4, groups: 2 });
    assert!(grouped.has_outputs_of(&convolution([1, 1], Filters { count: 4, groups: 2 })));
    for other in [
        grouped,
        convolution([1, 1], Filters { count: 2, groups: 1 }),
        LinearMap::dense(&Shape::from([2, 3, 4]), 48).unwrap(),
        LinearMap::dense(&Shape::from([2, 3, 4]), 48)
            .unwrap()
            .reshaped([Shape::from([24]), Shape::from([4, 3, 4])])
            .unwrap(),
        LinearMap::identity(&Shape::from([4, 3, 4])).unwrap(),
    ] {
        assert!(!wide.has_outputs_of(&other) && !other.has_outputs_of(&wide), "{other:?}");
    }
    // Six outputs in the same order, as three columns of two and as two of three.
    let entries = |rows: u32| {
        let entry = |output| MapEntry { output, input: output / rows, weight: output % rows };
        LinearMap::from_entries([Shape::from([3]), Shape::from([6])], 3, (0..6).map(entry).collect()).unwrap()
    };
    let (pairs, triples) = (entries(2), entries(3));
    assert_eq!((pairs.columns(), triples.columns()), (Some(3), Some(2)));
    assert!(!pairs.has_outputs_of(&triples));
}

#[test]
fn slots_cannot_run_over_columns_of_unequal_blocks() {
    let windows = Window::new([3, 3]).with_padding([1, 1]).over([2, 5, 5]).unwrap();
    let convolution = LinearMap::convolution(&windows, Filters { count: 4, groups: 2 }).unwrap();
    assert_eq!(convolution.columns(), Some(25));
    // Corners, edges and the inside are blocks of their own on the way back.
    let back = convolution.transposed().unwrap();
    assert!(back.blocks().len() > 2);
    assert_eq!(back.columns(), None);
    // What is not read is not given on the way back.
    let windows = Window::new([1, 1]).with_stride([2, 2]).over([2, 4, 4]).unwrap();
    let sparse = LinearMap::convolution(&windows, Filters { count: 3, groups: 1 }).unwrap();
    assert_eq!(sparse.columns(), Some(4));
    let back = sparse.transposed().unwrap();
    assert_eq!((back.blocks().len(), back.columns()), (1, None));
    assert_eq!(back.apply(&[1, 2, 3, 4, 5, 6], &[1; 12]).unwrap()[..4], [9, 0, 9, 0]);
}

#[test]
fn reshaped_maps_keep_their_numbers() {
    let windows = Window::new([2, 2]).over([2, 3, 4]).unwrap();
    let map = LinearMap::convolution(&windows, Filters { count: 3, groups: 1 }).unwrap();
    let shapes = || [Shape::from([24]), Shape::from([6, 3])];
    let flat = map.clone().reshaped(shapes()).unwrap();
    assert_eq!([flat.input().clone(), flat.output().clone()], shapes());
    assert_eq!(flat.blocks(), map.blocks());
    for [input, output] in [[23, 18], [24, 17], [usize::MAX, 18]] {
        let refused = map.clone().reshaped([Shape::from([input]), Shape::from([output])]).unwrap_err();
        assert!(matches!(refused, Error::Shape { what: "reshaped linear map", .. }), "{refused}");
    }
}

#[test]
fn numbers_of_other_tensors_are_refused() {
    let map = LinearMap::dense(&Shape::from([3]), 2).unwrap();
    let count = |result: Result<Vec<i64>, Error>| matches!(result, Err(Error::Count { .. }));
    assert!(count(map.apply(&[1; 5], &[1; 3])) && count(map.apply(&[1; 7], &[1; 3])));
    assert!(count(map.apply(&[1; 6], &[])) && count(map.apply(&[1; 6], &[1; 4])));
    assert_eq!(map.apply(&[1; 6], &[1; 6]).unwrap(), [3; 4]);
    assert!(count(map.gradient(&[1; 3], &[1; 4])) && count(map.gradient(&[1; 6], &[1; 2])));
    assert!(count(map.gradient(&[], &[])) && count(map.gradient(&[1; 4], &[1; 2])));
    assert!(map.apply_wrapping(&[1; 5], &[1; 3]).is_err() && map.apply_wrapping(&[1; 6], &[1; 2]).is_err());
    assert!(map.bounds(&[1; 5], &[1; 3]).is_err() && map.bounds(&[1; 6], &[1; 6]).is_err());
    assert_eq!(map.bounds(&[u64::MAX; 6], &[1, 2, 3]).unwrap(), [u64::MAX; 2]);
    let next = LinearMap::identity(&Shape::from([3])).unwrap();
    assert!(matches!(
        map.then(&next, |_, _, _| ()),
        Err(Error::Shape { what: "input of the next layer", .. })
    ));
}

#[test]
fn entries_outside_are_refused() {
    let map =
        |entries: Vec<MapEntry>| LinearMap::from_entries([Shape::from([2]), Shape::from([3])], 4, entries);
    let good = MapEntry { output: 2, input: 1, weight: 3 };
    assert!(map(vec![good]).is_ok());
    assert!(map(vec![]).is_err());
    for (bad, limit) in [
        (MapEntry { input: 2, ..good }, 2),
        (MapEntry { output: 3, ..good }, 3),
        (MapEntry { weight: 4, ..good }, 4),
        (MapEntry { input: u32::MAX, ..good }, 2),
        (MapEntry { output: u32::MAX, ..good }, 3),
        (MapEntry { weight: u32::MAX, ..good }, 4),
    ] {
        let refused = map(vec![good, bad, good]).unwrap_err();
        assert!(matches!(refused, Error::Limit { limit: most, .. } if most == limit), "{refused}");
    }
    let nothing = || Shape::from([0]);
    assert!(LinearMap::from_entries([nothing(), nothing()], 0, vec![]).is_err());
    let origin = MapEntry { output: 0, input: 0, weight: 0 };
    assert!(LinearMap::from_entries([nothing(), nothing()], 0, vec![origin]).is_err());
}

#[test]
fn groups_that_do_not_divide_are_refused() {
    let windows = Window::new([1, 1]).over([6, 2, 2]).unwrap();
    let refused = |count: usize, groups: usize| {
        let error = LinearMap::convolution(&windows, Filters { count, groups }).unwrap_err();
        assert!(matches!(error, Error::Multiple { .. } | Error::Range { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(8, 4).starts_with("channels that divide into groups"));
    assert!(refused(4, 3).starts_with("filters that divide into groups"));
    for (count, groups) in
        [(0, 1), (6, 0), (0, 0), (12, 12), (7, usize::MAX), (usize::MAX, 6), (usize::MAX - 3, 6)]
    {
        refused(count, groups);
    }
    assert!(LinearMap::convolution(&windows, Filters { count: 12, groups: 6 }).is_ok());
}

/// Sizes of a configuration or a peer's plan that no machine holds are refused before anything is made of them.
#[test]
fn layers_beyond_all_bounds_are_refused_at_once() {
    let start = Instant::now();
    let most = usize::MAX;
    let count = |result: Result<LinearMap, Error>| {
        let refused = result.unwrap_err();
        assert!(matches!(refused, Error::Range { .. } | Error::Limit { .. }), "{refused}");
    };
    count(LinearMap::dense(&Shape::from([10]), most));
    count(LinearMap::dense(&Shape::from([most]), 1));
    count(LinearMap::dense(&Shape::from([most, most]), most));
    count(LinearMap::dense(&Shape::from([1 << 13]), (1 << 13) + 1));
    count(LinearMap::dense(&Shape::from([0]), 1));
    count(LinearMap::dense(&Shape::from([4]), 0));
    for shape in [vec![most], vec![most, most], vec![1 << 26, 2], vec![0], vec![3, 0]] {
        let shape = Shape::from(&shape[..]);
        count(LinearMap::per_channel(&shape));
        count(LinearMap::identity(&shape));
    }
    let filters = |count: usize| Filters { count, groups: 1 };
    let small = Window::new([3, 3]).over([64, 56, 56]).unwrap();
    count(LinearMap::convolution(&small, filters(most)));
    count(LinearMap::convolution(&small, filters(1 << 20)));
    for windows in [
        Window::new([3, 3]).over([64, 1 << 20, 1 << 20]),
        Window::new([3, 3]).over([most, 3, 3]),
        Window::new([1, 1]).over([1, most, most]),
        Window::new([most, most]).over([1, most, most]),
        Window::new([most, most]).over([most, most, most]),
        Window::new([1 << 13, 1 << 13]).over([2, 1 << 13, 1 << 13]),
        Window::new([1 << 7, 1 << 7]).over([1, 1 << 9, 1 << 9]),
    ] {
        let windows = windows.unwrap();
        count(LinearMap::convolution(&windows, filters(1)));
        count(LinearMap::pooling(&windows));
    }
    let dense = |inputs: usize, outputs: usize| LinearMap::dense(&Shape::from([inputs]), outputs).unwrap();
    let chain = |first: LinearMap, next: LinearMap| first.then(&next, |_, _, _| panic!("no product is made"));
    // 2^27 weights; 2^31 products of two weights.
    count(chain(dense(1 << 13, 1), dense(1, 1 << 14)));
    count(chain(dense(1 << 10, 1 << 10), dense(1 << 10, 1 << 11)));
    // 2^27 products on the way back.
    let windows = Window::new([3, 3]).with_padding([1, 1]).over([64, 64, 64]).unwrap();
    count(LinearMap::convolution(&windows, filters(64)).unwrap().transposed());
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

/// The time to make a layer follows its size, also with as many groups as there are channels.
#[test]
fn layers_of_many_channels_are_made_at_once() {
    let start = Instant::now();
    let shape = Shape::from([1 << 18]);
    assert_eq!(LinearMap::per_channel(&shape).unwrap().blocks().len(), 1 << 18);
    let channels = 1 << 14;
    let windows = Window::new([3, 3]).with_padding([1, 1]).over([channels, 8, 8]).unwrap();
    let map = LinearMap::convolution(&windows, Filters { count: channels, groups: channels }).unwrap();
    assert_eq!((map.blocks().len(), map.most_terms()), (channels, 9));
    assert!(map.blocks().iter().all(|block| block.read() == 64 && block.is_padded()));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}
