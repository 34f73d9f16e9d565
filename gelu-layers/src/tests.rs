//! Layers against their definitions, in double precision and loop by loop.

use gelu_tensor::{Shape, Window};
use ndarray::Array2;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::*;

mod affine;
mod linear;
mod loss;

fn seeded(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn random(rng: &mut ChaCha8Rng, [rows, columns]: [usize; 2]) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(-1.0..1.0))
}

fn wide(x: &Array2<f32>) -> Array2<f64> {
    x.mapv(f64::from)
}

fn close(found: f64, expected: f64, tolerance: f64) -> bool {
    (found - expected).abs() <= tolerance * (1.0 + expected.abs())
}

/// A layer with parameters (and running statistics) that are none of the special ones.
fn layer(config: LinearConfig, input: impl Into<Shape>, rng: &mut ChaCha8Rng) -> LinearLayer {
    let mut layer = LinearLayer::new(config, &input.into()).unwrap();
    let mut fill = |values: &mut [f32], [low, high]: [f32; 2]| {
        values.iter_mut().for_each(|value| *value = rng.random_range(low..high));
    };
    fill(&mut layer.parameters_mut().weight, [-1.0, 1.0]);
    fill(&mut layer.parameters_mut().bias, [-1.0, 1.0]);
    if let Some(statistics) = layer.statistics_mut() {
        fill(&mut statistics.mean, [-1.0, 1.0]);
        fill(&mut statistics.variance, [0.2, 3.0]);
    }
    layer
}

/// A layer written out in double precision, with numbers that a test can move.
#[derive(Clone)]
struct Definition {
    config: LinearConfig,
    input: Shape,
    output: Shape,
    weight: Vec<f64>,
    bias: Vec<f64>,
    mean: Vec<f64>,
    variance: Vec<f64>,
}

impl Definition {
    fn of(layer: &LinearLayer) -> Self {
        let wide = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let Parameters { weight, bias } = layer.parameters();
        let (mean, variance) = match layer.statistics() {
            Some(statistics) => (wide(&statistics.mean), wide(&statistics.variance)),
            None => (vec![], vec![]),
        };
        let (config, input, output) = (layer.config().clone(), layer.input().clone(), layer.output().clone());
        Self { config, input, output, weight: wide(weight), bias: wide(bias), mean, variance }
    }

    fn forward(&self, x: &Array2<f64>, mode: Mode) -> Array2<f64> {
        match (&self.config, mode) {
            (LinearConfig::BatchNorm2d(config), Mode::Training) => {
                let (mean, variance) = statistics(x, self.input.dims()[0]);
                self.normalized(x, config.epsilon, &mean, &variance)
            }
            (LinearConfig::BatchNorm2d(config), Mode::Inference) => {
                self.normalized(x, config.epsilon, &self.mean, &self.variance)
            }
            _ => {
                let rows: Vec<f64> = x.outer_iter().flat_map(|image| self.image(&image.to_vec())).collect();
                Array2::from_shape_vec((x.nrows(), self.output.elements()), rows).unwrap()
            }
        }
    }

    fn normalized(&self, x: &Array2<f64>, epsilon: f64, mean: &[f64], variance: &[f64]) -> Array2<f64> {
        let positions = self.input.elements() / self.input.dims()[0];
        Array2::from_shape_fn(x.dim(), |(image, at)| {
            let channel = at / positions;
            let normal = (x[[image, at]] - mean[channel]) / (variance[channel] + epsilon).sqrt();
            normal * self.weight[channel] + self.bias[channel]
        })
    }

    fn image(&self, x: &[f64]) -> Vec<f64> {
        match &self.config {
            LinearConfig::Conv2d(config) => self.convolution(config, x),
            LinearConfig::AvgPool2d(config) => self.pooled(*config, x),
            LinearConfig::GlobalAvgPool2d => {
                let [_, height, width] = self.input.as_image("image").unwrap();
                x.chunks_exact(height * width)
                    .map(|channel| channel.iter().sum::<f64>() / (height * width) as f64)
                    .collect()
            }
            LinearConfig::Dense(config) => (0..config.out_features)
                .map(|output| {
                    let row = &self.weight[output * x.len()..][..x.len()];
                    let sum: f64 = row.iter().zip(x).map(|(weight, x)| weight * x).sum();
                    sum + self.bias.get(output).copied().unwrap_or(0.0)
                })
                .collect(),
            LinearConfig::Flatten => x.to_vec(),
            LinearConfig::Slice(slice) => self.sliced(slice, x),
            LinearConfig::BatchNorm2d(_) => unreachable!("a batch norm is no function of one image"),
        }
    }

    /// NumPy's: axis after axis.
    fn sliced(&self, slice: &SliceConfig, x: &[f64]) -> Vec<f64> {
        let mut array = ndarray::ArrayD::from_shape_vec(self.input.dims(), x.to_vec()).unwrap();
        for (at, axis) in slice.axes.iter().enumerate() {
            let places: Vec<usize> = (0..axis.count as isize)
                .map(|at| usize::try_from(axis.start as isize + at * axis.step).unwrap())
                .collect();
            array = array.select(ndarray::Axis(at), &places);
        }
        array.iter().copied().collect()
    }

    /// PyTorch's: weights are `[filters, channels / groups, kernel height, kernel width]`.
    fn convolution(&self, config: &Conv2dConfig, x: &[f64]) -> Vec<f64> {
        let ([channels, height, width], [filters, rows, columns]) =
            (self.input.as_image("input").unwrap(), self.output.as_image("output").unwrap());
        let [kh, kw] = config.window.kernel;
        let (of_group, filters_of_group) = (channels / config.groups, filters / config.groups);
        let mut out = vec![];
        for filter in 0..filters {
            for [row, column] in positions([rows, columns]) {
                let mut sum = self.bias.get(filter).copied().unwrap_or(0.0);
                for input in 0..of_group {
                    let channel = filter / filters_of_group * of_group + input;
                    for [ky, kx] in positions([kh, kw]) {
                        let weight = self.weight[((filter * of_group + input) * kh + ky) * kw + kx];
                        let Some([y, x_]) = pixel(config.window, [row, column], [ky, kx], [height, width])
                        else {
                            continue;
                        };
                        sum += weight * x[(channel * height + y) * width + x_];
                    }
                }
                out.push(sum);
            }
        }
        out
    }

    /// PyTorch's.
    fn pooled(&self, config: AvgPool2dConfig, x: &[f64]) -> Vec<f64> {
        let window = config.window;
        let ([channels, height, width], [_, rows, columns]) =
            (self.input.as_image("input").unwrap(), self.output.as_image("output").unwrap());
        let mut out = vec![];
        for channel in 0..channels {
            for position in positions([rows, columns]) {
                let taps = positions(window.kernel);
                let read = taps.filter_map(|tap| pixel(window, position, tap, [height, width]));
                let sum: f64 = read.map(|[y, x_]| x[(channel * height + y) * width + x_]).sum();
                let is_counted = |tap: &[usize; 2]| {
                    [height, width].into_iter().enumerate().all(|(axis, size)| {
                        let [before, after] = window.padding[axis];
                        let at = position[axis] * window.stride[axis] + tap[axis] * window.dilation[axis];
                        match config.count_include_pad {
                            true => at < before + size + after,
                            false => (before..before + size).contains(&at),
                        }
                    })
                };
                out.push(sum / positions(window.kernel).filter(is_counted).count() as f64);
            }
        }
        out
    }
}

fn positions([rows, columns]: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    (0..rows).flat_map(move |row| (0..columns).map(move |column| [row, column]))
}

/// The pixel under a tap of a window, unless it is one of padding.
fn pixel(window: Window, position: [usize; 2], tap: [usize; 2], size: [usize; 2]) -> Option<[usize; 2]> {
    let axis = |axis: usize| {
        let at = position[axis] * window.stride[axis] + tap[axis] * window.dilation[axis];
        at.checked_sub(window.padding[axis][0]).filter(|&at| at < size[axis])
    };
    Some([axis(0)?, axis(1)?])
}

/// Mean and (biased) variance of each channel.
fn statistics(x: &Array2<f64>, channels: usize) -> (Vec<f64>, Vec<f64>) {
    let of_channel = |channel: usize| {
        let positions = x.ncols() / channels;
        let values: Vec<f64> = x
            .outer_iter()
            .flat_map(|image| image.to_vec()[channel * positions..][..positions].to_vec())
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance)
    };
    (0..channels).map(of_channel).unzip()
}

/// Windows of any kernel, stride, dilation and padding of each side.
fn windows() -> impl Strategy<Value = Window> {
    let pair = |most: usize| [1..=most, 1..=most];
    let sides = || [0usize..=2, 0usize..=2];
    (pair(3), pair(3), pair(2), [sides(), sides()]).prop_map(|(kernel, stride, dilation, padding)| {
        Window::new(kernel).with_stride(stride).with_dilation(dilation).with_padding_sides(padding)
    })
}

/// A convolution of one group, some, or (depthwise) as many as there are channels, with or without biases.
fn convolutions() -> impl Strategy<Value = (LinearConfig, Shape)> {
    let sizes = (1usize..=3, [1usize..=2, 1..=2], [2usize..=7, 2..=7]);
    (sizes, windows(), any::<bool>()).prop_filter_map("a window that fits", |(sizes, window, bias)| {
        let (groups, [of_group, filters], [height, width]) = sizes;
        window.over([groups * of_group, height, width]).ok()?;
        let config = Conv2dConfig { out_channels: groups * filters, window, groups, bias };
        Some((LinearConfig::Conv2d(config), Shape::from([groups * of_group, height, width])))
    })
}

fn poolings() -> impl Strategy<Value = (LinearConfig, Shape)> {
    let settings = (windows(), any::<bool>(), any::<bool>());
    let settings = settings.prop_map(|(window, count_include_pad, ceil_mode)| {
        LinearConfig::AvgPool2d(AvgPool2dConfig { window, count_include_pad, ceil_mode })
    });
    let input = [1usize..=3, 2..=7, 2..=7].prop_map(Shape::from);
    (settings, input).prop_filter("a window that fits", |(config, input)| config.output(input).is_ok())
}

/// A slice of an axis of `extent`, by any four numbers.
fn axis_slice(extent: usize, [a, b, step, backward]: [usize; 4]) -> AxisSlice {
    let (first, last) = ((a % extent).min(b % extent), (a % extent).max(b % extent));
    let count = (last - first) / step + 1;
    match backward == 0 {
        true => AxisSlice { start: last, step: -(step as isize), count },
        false => AxisSlice { start: first, step: step as isize, count },
    }
}

fn slices() -> impl Strategy<Value = (LinearConfig, Shape)> {
    let axis = || [0usize..9, 0..9, 1..4, 0..3];
    let shape = prop_oneof![images(), (1usize..9).prop_map(|features| Shape::from([features]))];
    (shape, [axis(), axis(), axis()]).prop_map(|(input, axes)| {
        let axes = input.dims().iter().zip(axes).map(|(&extent, numbers)| axis_slice(extent, numbers));
        (LinearConfig::Slice(SliceConfig::new(axes.collect())), input)
    })
}

fn images() -> impl Strategy<Value = Shape> {
    [1usize..=3, 1..=5, 1..=5].prop_map(Shape::from)
}

/// Every kind of layer.
fn layers() -> impl Strategy<Value = (LinearConfig, Shape)> {
    let dense = (1usize..=12, 1usize..=6, any::<bool>()).prop_map(|(features, out_features, bias)| {
        (LinearConfig::Dense(DenseConfig { out_features, bias }), Shape::from([features]))
    });
    let of_image = |config: LinearConfig| images().prop_map(move |input| (config.clone(), input));
    let norm = BatchNorm2dConfig { epsilon: 1e-3, ..BatchNorm2dConfig::default() };
    prop_oneof![
        4 => convolutions(),
        2 => poolings(),
        2 => dense,
        1 => of_image(LinearConfig::GlobalAvgPool2d),
        2 => of_image(LinearConfig::BatchNorm2d(norm)),
        1 => of_image(LinearConfig::Flatten),
        2 => slices(),
    ]
}
