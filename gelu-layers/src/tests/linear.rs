//! Layers on reals: forward, backward, statistics, initial values, and what is refused.

use std::time::{Duration, Instant};

use gelu_tensor::Error;

use super::*;

/// The sum of products of a layer's output and `direction`: a scalar whose gradient `backward` gives.
fn along(definition: &Definition, x: &Array2<f64>, direction: &Array2<f32>) -> f64 {
    let y = definition.forward(x, Mode::Training);
    y.iter().zip(direction).map(|(y, &d)| y * f64::from(d)).sum()
}

/// Every partial derivative against a central difference in double precision.
fn check_gradients(layer: &LinearLayer, images: usize, rng: &mut ChaCha8Rng) {
    const STEP: f64 = 1e-5;
    let x = random(rng, [images, layer.input().elements()]);
    let direction = random(rng, [images, layer.output().elements()]);
    let Gradients { input, parameters } =
        layer.backward(x.view(), direction.view(), InputGradient::Wanted).unwrap();
    let (definition, x) = (Definition::of(layer), wide(&x));
    let check = |what: &str, found: f32, value: &dyn Fn(f64) -> f64| {
        let slope = (value(STEP) - value(-STEP)) / (2.0 * STEP);
        assert!(close(f64::from(found), slope, 1e-3), "{what} of {:?}: {found} {slope}", layer.config());
    };
    let input = input.unwrap();
    assert_eq!(input.dim(), x.dim());
    for (at, &found) in input.indexed_iter().filter(|((image, _), _)| image % 2 == 0) {
        check("input", found, &|step| {
            let mut x = x.clone();
            x[at] += step;
            along(&definition, &x, &direction)
        });
    }
    let of_parameters = [(&parameters.weight, 0), (&parameters.bias, 1)];
    for (gradients, which) in of_parameters {
        for (at, &found) in gradients.iter().enumerate() {
            check(["weight", "bias"][which], found, &|step| {
                let mut moved = definition.clone();
                [&mut moved.weight, &mut moved.bias][which][at] += step;
                along(&moved, &x, &direction)
            });
        }
    }
    let Parameters { weight, bias } = layer.parameters();
    assert_eq!((parameters.weight.len(), parameters.bias.len()), (weight.len(), bias.len()));
    // What is not wanted changes nothing else.
    let x = random(rng, [images, layer.input().elements()]);
    let all = layer.backward(x.view(), direction.view(), InputGradient::Wanted).unwrap();
    let few = layer.backward(x.view(), direction.view(), InputGradient::Skipped).unwrap();
    assert_eq!((few.input, few.parameters), (None, all.parameters));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn forward_equals_the_naive_loops((config, input) in layers(), images in 0usize..4, seed: u64) {
        let rng = &mut seeded(seed);
        let layer = layer(config, input, rng);
        let x = random(rng, [images, layer.input().elements()]);
        for mode in [Mode::Inference, Mode::Training] {
            let found = layer.forward(x.view(), mode).unwrap();
            let expected = Definition::of(&layer).forward(&wide(&x), mode);
            prop_assert_eq!(found.dim(), expected.dim());
            for (&found, &expected) in found.iter().zip(&expected) {
                prop_assert!(close(f64::from(found), expected, 3e-5), "{found} {expected} {mode:?}");
            }
        }
    }

    /// What a graph is checked by says what the map will be, without making it.
    #[test]
    fn shapes_are_known_before_maps_are_made((config, input) in layers()) {
        let map = config.map(&input).unwrap();
        let (output, indices) = config.output(&input).unwrap();
        prop_assert_eq!((map.input(), map.output()), (&input, &output));
        let listed = map.blocks().iter().map(|block| block.weight_indices().len().max(block.taps() * block.columns()));
        prop_assert!(indices >= listed.clone().max().unwrap_or(0), "{} {:?}", indices, listed.collect::<Vec<_>>());
        let layer = LinearLayer::new(config.clone(), &input).unwrap();
        prop_assert_eq!((layer.input(), layer.output(), &**layer.map()), (&input, &output, &map));
        match layer.weight_shape() {
            Some(shape) => prop_assert_eq!(shape.elements(), layer.parameters().weight.len()),
            None => prop_assert_eq!(layer.parameters().count(), 0),
        }
        prop_assert_eq!(layer.has_parameters(), layer.parameters().count() > 0);
        prop_assert_eq!(layer.statistics().is_some(), matches!(config, LinearConfig::BatchNorm2d(_)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn gradients_are_limits_of_differences((config, input) in layers(), images in 1usize..4, seed: u64) {
        let rng = &mut seeded(seed);
        let layer = layer(config, input, rng);
        check_gradients(&layer, images, rng);
    }

    #[test]
    fn a_batch_norms_statistics_are_those_of_the_definition(
        input in images(), count in 1usize..4, momentum in 0.0f64..=1.0, seed: u64,
    ) {
        let rng = &mut seeded(seed);
        let config = BatchNorm2dConfig { momentum, ..BatchNorm2dConfig::default() };
        let mut layer = layer(LinearConfig::BatchNorm2d(config), input.clone(), rng);
        let x = random(rng, [count, input.elements()]);
        let (mean, variance) = statistics(&wide(&x), input.dims()[0]);
        let batch = layer.batch_statistics(x.view()).unwrap();
        let before = layer.statistics().unwrap().clone();
        layer.update_statistics(&batch);
        let after = layer.statistics().unwrap();
        let values = (input.elements() / input.dims()[0] * count) as f64;
        for channel in 0..input.dims()[0] {
            prop_assert!(close(batch.mean[channel].into(), mean[channel], 1e-6));
            prop_assert!(close(batch.variance[channel].into(), variance[channel], 1e-6));
            let moved = |from: f32, to: f64| f64::from(from) * (1.0 - momentum) + to * momentum;
            let unbiased = variance[channel] * values / (values - 1.0).max(1.0);
            prop_assert!(close(after.mean[channel].into(), moved(before.mean[channel], mean[channel]), 1e-5));
            let expected = moved(before.variance[channel], unbiased);
            prop_assert!(close(after.variance[channel].into(), expected, 1e-5));
        }
    }
}

fn norm() -> LinearConfig {
    LinearConfig::BatchNorm2d(BatchNorm2dConfig::default())
}

/// `torch.nn.BatchNorm2d(1)` over these two images.
#[test]
fn running_statistics_are_kept_as_pytorch_keeps_them() {
    let mut layer = LinearLayer::new(norm(), &Shape::from([1, 1, 2])).unwrap();
    let x = ndarray::array![[1.0f32, 2.0], [3.0, 6.0]];
    let before = layer.statistics().unwrap().clone();
    layer.forward(x.view(), Mode::Training).unwrap();
    assert_eq!(layer.statistics(), Some(&before), "nothing moves unless it is told to");
    // Mean 3; variance 3.5, which is 14 / 3 with one value less.
    for (mean, variance) in [(0.3, 0.9 + 1.4 / 3.0), (0.57, 0.9 * (0.9 + 1.4 / 3.0) + 1.4 / 3.0)] {
        let batch = layer.batch_statistics(x.view()).unwrap();
        assert_eq!((&batch.mean[..], &batch.variance[..]), (&[3.0f32][..], &[3.5f32][..]));
        layer.update_statistics(&batch);
        let RunningStatistics { mean: means, variance: variances } = layer.statistics().unwrap();
        assert!(close(means[0].into(), mean, 1e-6) && close(variances[0].into(), variance, 1e-6));
    }
    let y = layer.forward(x.view(), Mode::Inference).unwrap();
    let RunningStatistics { mean, variance } = layer.statistics().unwrap();
    for (&y, &x) in y.iter().zip(&x) {
        assert!(close(y.into(), f64::from(x - mean[0]) / (f64::from(variance[0]) + 1e-5).sqrt(), 1e-6));
    }
    // In training, by the batch alone: (x - 3) / sqrt(3.5).
    let y = layer.forward(x.view(), Mode::Training).unwrap();
    assert!(y.iter().zip(&x).all(|(&y, &x)| close(y.into(), f64::from(x - 3.0) / 3.500_01f64.sqrt(), 1e-6)));
}

#[test]
fn other_layers_have_no_statistics() {
    let mut dense = LinearLayer::new(LinearConfig::Dense(2.into()), &Shape::from([3])).unwrap();
    assert_eq!(dense.batch_statistics(Array2::zeros((2, 3)).view()), None);
    assert!(dense.statistics().is_none() && dense.statistics_mut().is_none());
    let norm = LinearLayer::new(norm(), &Shape::from([3, 1, 1])).unwrap();
    let batch = norm.batch_statistics(Array2::ones((2, 3)).view()).unwrap();
    dense.update_statistics(&batch);
    assert_eq!(dense.parameters().weight, [0.0; 6]);
}

/// A batch whose values are all the same, and one of a single value, have no variance.
#[test]
fn a_constant_batch_gives_the_biases_and_finite_gradients() {
    let rng = &mut seeded(6);
    for (input, images) in [([2, 2, 2], 3), ([2, 1, 1], 1)] {
        let layer = layer(norm(), input, rng);
        let x = Array2::from_elem((images, layer.input().elements()), 1e4f32);
        let y = layer.forward(x.view(), Mode::Training).unwrap();
        let positions = input[1] * input[2];
        for ((_, at), &y) in y.indexed_iter() {
            assert!(close(y.into(), layer.parameters().bias[at / positions].into(), 1e-5));
        }
        let grad = random(rng, [images, layer.output().elements()]);
        let gradients = layer.backward(x.view(), grad.view(), InputGradient::Wanted).unwrap();
        assert!(gradients.input.unwrap().iter().chain(&gradients.parameters.weight).all(|x| x.is_finite()));
    }
}

#[test]
fn weights_have_pytorchs_shapes() {
    let shape = |config: LinearConfig, input: &[usize]| {
        let layer = LinearLayer::new(config, &Shape::from(input)).unwrap();
        let Parameters { weight, bias } = layer.parameters();
        assert_eq!(
            layer.parameters().zeros_like(),
            Parameters { weight: vec![0.0; weight.len()], bias: vec![0.0; bias.len()] }
        );
        (layer.weight_shape().map(|shape| shape.dims().to_vec()), bias.len())
    };
    let conv = Conv2dConfig::new(8, [3, 2]);
    let image = [4, 6, 6];
    assert_eq!(shape(LinearConfig::Conv2d(conv), &image), (Some(vec![8, 4, 3, 2]), 8));
    assert_eq!(shape(LinearConfig::Conv2d(conv.with_groups(2)), &image), (Some(vec![8, 2, 3, 2]), 8));
    let depthwise = conv.with_groups(4).without_bias();
    assert_eq!(shape(LinearConfig::Conv2d(depthwise), &image), (Some(vec![8, 1, 3, 2]), 0));
    assert_eq!(shape(LinearConfig::Dense(5.into()), &[7]), (Some(vec![5, 7]), 5));
    assert_eq!(shape(LinearConfig::Dense(DenseConfig::new(5).without_bias()), &[7]), (Some(vec![5, 7]), 0));
    assert_eq!(shape(norm(), &image), (Some(vec![4]), 4));
    for config in [
        LinearConfig::AvgPool2d(Window::new([2, 2]).into()),
        LinearConfig::GlobalAvgPool2d,
        LinearConfig::Flatten,
    ] {
        assert_eq!(shape(config, &image), (None, 0));
    }
}

#[test]
fn files_name_layers_in_kebab_case_and_know_every_field() {
    let conv = Conv2dConfig::new(2, [3, 3])
        .with_stride([2, 1])
        .with_padding([1, 0])
        .with_dilation([1, 2])
        .with_groups(2)
        .without_bias();
    let text = serde_json::to_string(&LinearConfig::Conv2d(conv)).unwrap();
    assert_eq!(
        text,
        r#"{"conv2d":{"out_channels":2,"window":{"kernel":[3,3],"stride":[2,1],"dilation":[1,2],"padding":[[1,1],[0,0]]},"groups":2,"bias":false}}"#
    );
    assert_eq!(conv.with_padding([1, 0]), conv.with_padding_sides([[1, 1], [0, 0]]));
    let all = [
        LinearConfig::Conv2d(conv.with_padding_sides([[0, 1], [2, 0]])),
        LinearConfig::Dense(DenseConfig::new(3).without_bias()),
        LinearConfig::AvgPool2d(Window::new([2, 3]).into()),
        LinearConfig::AvgPool2d(AvgPool2dConfig::new(Window::new([2, 3])).excluding_padding()),
        LinearConfig::AvgPool2d(AvgPool2dConfig::new(Window::new([2, 3])).with_ceil_mode()),
        LinearConfig::GlobalAvgPool2d,
        norm(),
        LinearConfig::Flatten,
        LinearConfig::Slice(SliceConfig::new(vec![AxisSlice { start: 4, step: -2, count: 3 }])),
    ];
    for config in all {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LinearConfig>(&text).unwrap(), config, "{text}");
    }
    assert_eq!(serde_json::to_string(&LinearConfig::GlobalAvgPool2d).unwrap(), r#""global-avg-pool2d""#);
    // As files of before have it.
    let mean = r#"{"avg-pool2d":{"kernel":[2,3],"stride":[1,1],"dilation":[1,1],"padding":[[0,0],[0,0]]}}"#;
    let config = LinearConfig::AvgPool2d(Window::new([2, 3]).into());
    assert_eq!(serde_json::to_string(&config).unwrap(), mean);
    assert_eq!(serde_json::from_str::<LinearConfig>(mean).unwrap(), config);
    for bad in [
        r#"{"avg-pool2d":{"kernel":[2,3],"stride":[1,1],"dilation":[1,1]}}"#,
        r#"{"avg-pool2d":{"kernel":[2,3],"stride":[1,1],"dilation":[1,1],"padding":[[0,0],[0,0]],"more":1}}"#,
        r#"{"slice":[{"start":0,"count":1}]}"#,
        r#"{"dense":{"out_features":3}}"#,
        r#"{"dense":{"out_features":3,"bias":true,"more":1}}"#,
        r#"{"dense":{"out_features":-1,"bias":true}}"#,
        r#""relu""#,
    ] {
        assert!(serde_json::from_str::<LinearConfig>(bad).is_err(), "{bad}");
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let conv = LinearLayer::new(LinearConfig::Conv2d(Conv2dConfig::new(2, [3, 3])), &Shape::from([1, 5, 5]));
    let norm_layer = LinearLayer::new(norm(), &Shape::from([1, 5, 5])).unwrap();
    let flatten = LinearLayer::new(LinearConfig::Flatten, &Shape::from([1, 5, 5])).unwrap();
    for (layer, outputs) in [(conv.unwrap(), 18), (norm_layer, 25), (flatten, 25)] {
        for mode in [Mode::Inference, Mode::Training] {
            let refused = layer.forward(Array2::zeros((1, 24)).view(), mode).unwrap_err();
            assert!(matches!(refused, Error::Count { expected: 25, found: 24, .. }), "{refused}");
        }
        let backward = |x: usize, [rows, columns]: [usize; 2]| {
            let (x, grad) = (Array2::zeros((2, x)), Array2::zeros((rows, columns)));
            layer.backward(x.view(), grad.view(), InputGradient::Wanted)
        };
        assert!(backward(25, [2, outputs]).is_ok());
        for (x, grad) in [(24, [2, outputs]), (25, [2, outputs - 1]), (25, [1, outputs])] {
            assert!(matches!(backward(x, grad), Err(Error::Count { .. })));
        }
    }
}

/// What does not fit is refused by the check of a graph, and hence by whatever makes a layer.
#[test]
fn layers_that_do_not_fit_their_input_are_errors() {
    let conv = Conv2dConfig::new(4, [3, 3]);
    let image = || vec![6, 5, 5];
    for (config, input) in [
        (LinearConfig::Conv2d(Conv2dConfig { out_channels: 0, ..conv }), image()),
        (LinearConfig::Conv2d(conv.with_groups(0)), image()),
        (LinearConfig::Conv2d(conv.with_groups(4)), image()),
        (LinearConfig::Conv2d(conv.with_groups(3)), image()),
        (LinearConfig::Conv2d(conv), vec![6]),
        (LinearConfig::Conv2d(conv), vec![6, 5]),
        (LinearConfig::Dense(3.into()), image()),
        (LinearConfig::Dense(0.into()), vec![6]),
        (LinearConfig::GlobalAvgPool2d, vec![6]),
        (LinearConfig::AvgPool2d(Window::new([2, 2]).into()), vec![6]),
        (norm(), vec![6]),
        (norm(), vec![6, 5]),
    ] {
        let input = Shape::from(&input[..]);
        let refused = config.output(&input).unwrap_err();
        assert!(
            matches!(refused, Error::Count { .. } | Error::TooFew { .. } | Error::Multiple { .. }),
            "{refused}"
        );
        assert_eq!(config.map(&input).unwrap_err(), refused);
        assert_eq!(LinearLayer::new(config, &input).unwrap_err(), refused);
    }
    for window in [
        Window::new([6, 3]),
        Window::new([0, 3]),
        Window::new([3, 3]).with_stride([0, 1]),
        Window::new([3, 3]).with_dilation([3, 1]),
        Window::new([3, 3]).with_padding([3, 0]),
        Window::new([3, 3]).with_padding_sides([[0, 0], [0, 3]]),
    ] {
        for config in
            [LinearConfig::Conv2d(Conv2dConfig { window, ..conv }), LinearConfig::AvgPool2d(window.into())]
        {
            let refused = LinearLayer::new(config, &Shape::from([6, 5, 5])).unwrap_err();
            assert!(matches!(refused, Error::Window { .. }), "{refused}");
        }
    }
}

#[test]
fn slices_beyond_their_axes_are_refused() {
    let most = usize::MAX;
    for (start, step, count) in [
        (0, 1, 6),
        (5, 1, 1),
        (5, -1, 1),
        (1, 2, 3),
        (2, -1, 4),
        (0, 0, 1),
        (0, 1, 0),
        (most, 1, 2),
        (1, isize::MAX, 2),
        (4, isize::MIN, 2),
        (0, 1, most),
        (4, -1, most),
    ] {
        let slice = LinearConfig::Slice(SliceConfig::new(vec![AxisSlice { start, step, count }]));
        let error = slice.map(&Shape::from([5])).unwrap_err();
        assert!(
            matches!(error, Error::Limit { .. } | Error::TooFew { .. }),
            "{start} {step} {count}: {error}"
        );
        assert_eq!(slice.output(&Shape::from([5])).unwrap_err(), error);
    }
    let slice = LinearConfig::Slice(SliceConfig::new(vec![AxisSlice::whole(5)]));
    assert!(matches!(slice.output(&Shape::from([1, 5, 5])), Err(Error::Count { .. })));
}

#[test]
fn layers_beyond_all_bounds_are_refused_at_once() {
    let start = Instant::now();
    let (huge, most) = (1usize << 40, usize::MAX);
    let refused = |config: LinearConfig, input: &[usize]| {
        let input = Shape::from(input);
        let count = config.output(&input);
        let error = LinearLayer::new(config.clone(), &input).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Range { .. } | Error::TooFew { .. } | Error::Window { .. } | Error::Multiple { .. }
            ),
            "{error}"
        );
        // The check of a graph sees it coming, or refuses it as well.
        assert!(count.is_err() || count.is_ok_and(|(_, indices)| indices > 1 << 26), "{config:?} {input}");
    };
    for (input, kernel, padding) in [
        ([huge, 3, 3], [1, 1], [0, 0]),
        ([1, huge, huge], [1, 1], [0, 0]),
        ([1, most, most], [1, 1], [0, 0]),
        ([1, 3, 3], [huge, huge], [huge - 1, huge - 1]),
        ([most, 1, 1], [2, 2], [1, 1]),
        ([most, most, most], [most, most], [0, 0]),
    ] {
        let window = Window::new(kernel).with_padding(padding);
        for groups in [1, 2, huge, most] {
            let config = Conv2dConfig { out_channels: groups, window, groups, bias: true };
            refused(LinearConfig::Conv2d(config), &input);
        }
        refused(LinearConfig::AvgPool2d(window.into()), &input);
    }
    for out_channels in [huge, most] {
        refused(LinearConfig::Conv2d(Conv2dConfig::new(out_channels, [1, 1])), &[1, 3, 3]);
        refused(LinearConfig::Conv2d(Conv2dConfig::new(out_channels, [3, 3])), &[1, 3, 3]);
        refused(LinearConfig::Dense(out_channels.into()), &[1]);
        refused(LinearConfig::Dense(out_channels.into()), &[most]);
    }
    for input in [[huge, 1, 1], [1, most, 1], [most, most, most]] {
        refused(norm(), &input);
        refused(LinearConfig::GlobalAvgPool2d, &input);
        refused(LinearConfig::Flatten, &input);
        refused(LinearConfig::Slice(SliceConfig::new(input.map(AxisSlice::whole).to_vec())), &input);
    }
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

#[test]
fn initial_values_stay_within_their_bounds() {
    let mut rng = seeded(5);
    let conv = Conv2dConfig::new(8, [3, 3]);
    let mut layer = LinearLayer::new(LinearConfig::Conv2d(conv), &Shape::from([4, 6, 6])).unwrap();
    assert_eq!(largest(&layer.parameters().weight), 0.0, "all start at zero");
    Initializer::KaimingUniform.fill(&mut layer, &mut rng);
    assert!((0.14..=1.0 / 6.0).contains(&largest(&layer.parameters().weight)));
    assert!((0.08..=1.0 / 6.0).contains(&largest(&layer.parameters().bias)));
    Initializer::XavierUniform.fill(&mut layer, &mut rng);
    assert!((0.2..=0.2358).contains(&largest(&layer.parameters().weight)));
    assert_eq!(largest(&layer.parameters().bias), 0.0);
    Initializer::KaimingUniform.fill(&mut layer, &mut rng);
    Initializer::Zeros.fill(&mut layer, &mut rng);
    assert_eq!(layer.parameters(), &layer.parameters().zeros_like());

    // In two groups a filter weighs 2 channels: 1 / sqrt(18), and sqrt(6 / (18 + 72)).
    let grouped = LinearConfig::Conv2d(conv.with_groups(2).without_bias());
    let mut layer = LinearLayer::new(grouped, &Shape::from([4, 6, 6])).unwrap();
    Initializer::KaimingUniform.fill(&mut layer, &mut rng);
    assert!((0.2..=0.235_71).contains(&largest(&layer.parameters().weight)));
    assert!(layer.parameters().bias.is_empty());
    Initializer::XavierUniform.fill(&mut layer, &mut rng);
    assert!((0.22..=0.258_2).contains(&largest(&layer.parameters().weight)));

    // 1 / sqrt(50), and sqrt(6 / 150).
    let mut layer = LinearLayer::new(LinearConfig::Dense(100.into()), &Shape::from([50])).unwrap();
    Initializer::default().fill(&mut layer, &mut rng);
    assert!((0.14..=0.141_43).contains(&largest(&layer.parameters().weight)));
    Initializer::XavierUniform.fill(&mut layer, &mut rng);
    assert!((0.19..=0.2).contains(&largest(&layer.parameters().weight)));
    // sqrt(6 / 50).
    Initializer::HeUniform.fill(&mut layer, &mut rng);
    assert!((0.34..=0.346_42).contains(&largest(&layer.parameters().weight)));
    assert_eq!(largest(&layer.parameters().bias), 0.0);
}

/// Whatever the other layers start with, and however it was trained before.
#[test]
fn a_batch_norm_starts_as_one_that_changes_nothing() {
    let mut rng = seeded(7);
    let x = random(&mut rng, [2, 12]);
    let same = |layer: &LinearLayer| {
        let y = layer.forward(x.view(), Mode::Inference).unwrap();
        y.iter().zip(&x).all(|(&y, &x)| close(y.into(), x.into(), 1e-5))
    };
    assert!(same(&LinearLayer::new(norm(), &Shape::from([3, 2, 2])).unwrap()));
    for name in ["kaiming-uniform", "he-uniform", "xavier-uniform", "zeros"] {
        let initializer: Initializer = name.parse().unwrap();
        assert_eq!(initializer.to_string(), name);
        let mut layer = layer(norm(), [3, 2, 2], &mut rng);
        assert!(!same(&layer));
        initializer.fill(&mut layer, &mut rng);
        assert!(same(&layer), "{initializer}");
        let RunningStatistics { mean, variance } = layer.statistics().unwrap();
        assert_eq!((&mean[..], &variance[..]), (&[0.0f32; 3][..], &[1.0f32; 3][..]));
    }
}
