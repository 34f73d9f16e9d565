//! Random maps of every kind, small enough to be applied to ciphertexts.

use rand::{RngExt, rngs::ChaCha20Rng};

use crate::{Filters, LinearMap, MapEntry, Shape, Window, Windows};

/// Windows of any kernel, stride, dilation and padding that fit an image of `[channels, height, width]`.
pub(crate) fn random_windows(rng: &mut ChaCha20Rng, input: [usize; 3]) -> Windows {
    loop {
        let mut pair = |most: usize| [rng.random_range(0..most), rng.random_range(0..most)];
        let window = Window::new(pair(3).map(|more| more + 1))
            .with_stride(pair(2).map(|more| more + 1))
            .with_dilation(pair(2).map(|more| more + 1))
            .with_padding_sides([pair(3), pair(3)]);
        if let Ok(windows) = window.over(input) {
            return windows;
        }
    }
}

/// A convolution with one group, some, or (depthwise) as many as there are channels.
pub(crate) fn random_convolution(rng: &mut ChaCha20Rng, input: [usize; 3]) -> LinearMap {
    let groups = match rng.random_range(0..3) {
        0 => 1,
        1 => input[0],
        _ => (1..=input[0])
            .rev()
            .find(|&groups| input[0].is_multiple_of(groups) && groups < input[0])
            .unwrap_or(1),
    };
    let windows = random_windows(rng, input);
    LinearMap::convolution(&windows, Filters { count: groups * rng.random_range(1..4), groups }).unwrap()
}

/// A layer on a tensor of some shape.
pub(crate) fn random_layer(rng: &mut ChaCha20Rng, shape: &Shape) -> LinearMap {
    match (rng.random_range(0..8), shape.dims()) {
        (0..4, &[channels, height, width]) => random_convolution(rng, [channels, height, width]),
        (4, &[channels, height, width]) => {
            LinearMap::pooling(&random_windows(rng, [channels, height, width])).unwrap()
        }
        (5, _) => LinearMap::per_channel(shape).unwrap(),
        (6, _) => LinearMap::identity(shape).unwrap(),
        _ => LinearMap::dense(shape, rng.random_range(1..7)).unwrap(),
    }
}

/// An image or a vector.
pub(crate) fn random_shape(rng: &mut ChaCha20Rng) -> Shape {
    if rng.random_bool(0.8) {
        Shape::from([rng.random_range(1..5), rng.random_range(1..6), rng.random_range(1..6)])
    } else {
        Shape::from([rng.random_range(1..12)])
    }
}

/// A map of entries with repeated weights, repeated entries, empty rows, unread inputs and rows of different inputs.
pub(crate) fn random_entries(rng: &mut ChaCha20Rng) -> LinearMap {
    let [inputs, outputs, weights] = [(); 3].map(|()| rng.random_range(1..9usize));
    let mut entries = vec![MapEntry { output: 0, input: 0, weight: 0 }];
    for output in 0..outputs as u32 {
        for input in 0..inputs as u32 {
            if rng.random_bool(0.5) && (output, input) != (0, 0) {
                for _ in 0..rng.random_range(1..3) {
                    entries.push(MapEntry { output, input, weight: rng.random_range(0..weights as u32) });
                }
            }
        }
    }
    LinearMap::from_entries([Shape::from([inputs]), Shape::from([outputs])], weights, entries).unwrap()
}

/// A chain of two or three layers as one map.
pub(crate) fn random_chain(rng: &mut ChaCha20Rng) -> LinearMap {
    let shape = random_shape(rng);
    let mut map = random_layer(rng, &shape);
    for _ in 0..rng.random_range(1..3) {
        let next = random_layer(rng, map.output());
        map = map.then(&next, |_, _, _| ()).unwrap();
    }
    map
}

/// A map of any kind: a layer, a chain, a convolution or a chain with its pooling taken apart, the way back of one of
/// these, or mere entries.
pub(crate) fn random_map(rng: &mut ChaCha20Rng) -> LinearMap {
    let map = match rng.random_range(0..5) {
        0 => random_chain(rng),
        1 => random_entries(rng),
        2 => {
            let shape = [rng.random_range(1..4), rng.random_range(2..6), rng.random_range(2..6)];
            let map = random_convolution(rng, shape);
            let [channels, height, width] = map.output().as_image("a convolution's output").unwrap();
            let pooling = LinearMap::pooling(&random_windows(rng, [channels, height, width])).unwrap();
            match map.pooled(&pooling) {
                Some([sums, map]) => {
                    if rng.random_bool(0.5) {
                        sums
                    } else {
                        map
                    }
                }
                None => map,
            }
        }
        _ => {
            let shape = random_shape(rng);
            random_layer(rng, &shape)
        }
    };
    if rng.random_bool(0.25) {
        // What reads nothing but padding has no way back.
        if let Ok(transposed) = map.transposed() {
            return transposed;
        }
    }
    map
}
