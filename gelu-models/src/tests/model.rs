//! Weights, ranges, normalization and the forward pass.

use std::collections::BTreeMap;

use gelu_tensor::{Error, Format};
use ndarray::Axis;
use proptest::prelude::*;

use super::*;
use crate::zoo::{conv1, lenet5};

fn tensor<const RANK: usize>(shape: [usize; RANK], value: f32) -> WeightTensor {
    let shape = Shape::from(shape);
    let elements = shape.elements();
    WeightTensor::new(shape, vec![value; elements]).unwrap()
}

fn random(rows: usize, columns: usize) -> Array2<f32> {
    let rng = &mut seeded(7);
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(0.0..1.0))
}

#[test]
fn forward_is_the_softmax_of_the_logits() {
    let mut model = conv1().unwrap();
    fill(&mut model, 7);
    let x = random(3, 784);
    let logits = model.logits(x.view()).unwrap();
    let mut expected = logits.clone();
    expected.outer_iter_mut().for_each(|mut row| softmax(row.as_slice_mut().unwrap()));
    assert_eq!(model.forward(x.view()).unwrap(), expected);
    assert!(model.forward(x.view()).unwrap().outer_iter().all(|row| (row.sum() - 1.0).abs() < 1e-5));
    for columns in [783, 785, 0] {
        let error = model.forward(Array2::zeros((3, columns)).view()).unwrap_err();
        assert!(matches!(&error, Error::Shape { found, .. } if found.dims() == [columns]), "{error}");
    }
    // Whatever way the batch lies in memory.
    let columns = x.t().as_standard_layout().into_owned();
    assert_eq!(model.logits(columns.t()).unwrap(), logits);
    assert_eq!(model.logits(x.slice_axis(Axis(0), (0..0).into())).unwrap().dim(), (0, 10));
}

fn close(found: &Array2<f32>, expected: &[Vec<f64>]) -> bool {
    found.nrows() == expected.len()
        && found.outer_iter().zip(expected).all(|(row, expected)| {
            row.len() == expected.len()
                && row.iter().zip(expected).all(|(&f, e)| (f64::from(f) - e).abs() < 1e-4 * (1.0 + e.abs()))
        })
}

/// Layers taken one by one and put together by hand.
#[test]
fn branches_are_computed_as_they_are_drawn() {
    let same = Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]);
    let model = initialized(
        ModelBuilder::new([2, 3, 3])
            .residual_with(|main| main.conv2d("a", same).tanh(), |other| other.conv2d("b", same))
            .concat([&|a| a.conv2d("c", same), &|b| b])
            .gated(|gate| gate.global_avg_pool2d().flatten().dense("d", 4).sigmoid())
            .flatten()
            .dense("e", 2),
    );
    let x = images(&model, 3, 3);
    let layer = |name: &str| model.layers().find(|(own, _)| *own == name).unwrap().1;
    let of = |name: &str, x: &[f64]| -> Vec<f64> {
        let affine = layer(name).affine();
        let y = affine.map().apply(affine.weights(), x).unwrap();
        y.iter().zip(affine.bias()).map(|(y, bias)| y + bias).collect()
    };
    let by_hand = |image: &[f32]| -> Vec<f64> {
        let image: Vec<f64> = image.iter().map(|&x| f64::from(x)).collect();
        let (main, shortcut) = (of("a", &image), of("b", &image));
        let sum: Vec<f64> = main.iter().zip(&shortcut).map(|(a, b)| a.tanh() + b).collect();
        let both = [of("c", &sum), sum].concat();
        let means: Vec<f64> = both.chunks_exact(9).map(|channel| channel.iter().sum::<f64>() / 9.0).collect();
        let gate: Vec<f64> = of("d", &means).iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
        let gated: Vec<f64> = both
            .chunks_exact(9)
            .zip(gate)
            .flat_map(|(channel, gate)| channel.iter().map(move |x| x * gate))
            .collect();
        of("e", &gated)
    };
    let expected: Vec<Vec<f64>> = x.outer_iter().map(|image| by_hand(&image.to_vec())).collect();
    let found = model.logits(x.view()).unwrap();
    assert!(close(&found, &expected), "{found} {expected:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_network_is_computed_node_by_node(seed: u64, count in 0usize..4) {
        let model = random_model(seed);
        let images = images(&model, count, seed ^ 3);
        let logits = model.graph().logits().index();
        let expected: Vec<Vec<f64>> =
            images.outer_iter().map(|image| naive(&model, &image.to_vec())[logits].clone()).collect();
        let found = model.logits(images.view()).unwrap();
        prop_assert!(close(&found, &expected), "{} {:?}", found, expected);
        // Ranges are what these values reach.
        let ranges = model.measure_ranges(images.view()).unwrap();
        for image in images.outer_iter() {
            for (index, values) in naive(&model, &image.to_vec()).iter().enumerate().take(logits + 1) {
                let name = if index == 0 { "input" } else { &model.graph().nodes()[index - 1].name };
                let range = f64::from(ranges.get(name).unwrap());
                prop_assert!(values.iter().all(|x| x.abs() <= range * (1.0 + 1e-4) + 1e-4), "{name}");
            }
        }
    }
}

#[test]
fn weights_can_be_loaded_back() {
    let [mut from, mut to] = [lenet5().unwrap(), lenet5().unwrap()];
    from.initialize(Initializer::XavierUniform, &mut seeded(7));
    let report = to.load(&from.weights()).unwrap();
    assert_eq!((report.applied.len(), report.missing.len(), report.unused.len()), (10, 0, 0));
    assert!(report.to_string().contains("conv2.weight  16x6x5x5        applied"), "{report}");
    assert_eq!(from.weights(), to.weights());
}

fn norms() -> ModelBuilder {
    let grouped = Conv2dConfig::new(4, [2, 2]).with_groups(2).without_bias();
    ModelBuilder::new([2, 3, 3]).conv2d("conv", grouped).batch_norm2d("bn").relu().flatten().dense("fc", 2)
}

/// Names and shapes are PyTorch's, running statistics among them; what a run needs to know travels along.
#[test]
fn batch_norms_ranges_and_bits_travel_with_the_weights() {
    let mut from = calibrated(norms());
    from.set_layer_bits(BTreeMap::from([("conv".to_owned(), 7), ("fc".to_owned(), 5)]));
    let format = Format::integers(15).unwrap().with_scale_bits(3).unwrap();
    from.set_formats(BTreeMap::from([("relu1".to_owned(), format)]));
    let weights = from.weights();
    let names: Vec<String> =
        weights.tensors.iter().map(|(name, tensor)| format!("{name} {}", tensor.shape())).collect();
    assert_eq!(
        names,
        [
            "bn.bias 4",
            "bn.running_mean 4",
            "bn.running_var 4",
            "bn.weight 4",
            "conv.weight 4x1x2x2",
            "fc.bias 2",
            "fc.weight 2x16",
        ]
    );
    let keys = ["gelu.formats", "gelu.graph", "gelu.layer_bits", "gelu.ranges"];
    assert_eq!(weights.metadata.keys().collect::<Vec<_>>(), keys);
    assert_eq!(weights.metadata["gelu.formats"], r#"{"relu1":{"scale_bits":3,"bound":15}}"#);
    assert_eq!(weights.metadata["gelu.layer_bits"], r#"{"conv":7,"fc":5}"#);
    let mut to = norms().build().unwrap();
    let report = to.load(&weights).unwrap();
    assert_eq!((report.applied.len(), report.missing.len(), report.unused.len()), (7, 0, 0));
    assert_eq!((to.ranges(), to.layer_bits()), (from.ranges(), from.layer_bits()));
    assert_eq!(to.formats(), from.formats());
    assert_eq!(to.weights(), weights);
    let statistics =
        |model: &Model| model.layers().find_map(|(_, layer)| layer.statistics().cloned()).unwrap();
    assert_eq!(statistics(&to), statistics(&from));
    let images = images(&to, 3, 1);
    assert_eq!(to.logits(images.view()).unwrap(), from.logits(images.view()).unwrap());
    // Without any, there is nothing to keep but the graph.
    let plain = initialized(norms()).weights();
    assert_eq!(plain.metadata.keys().collect::<Vec<_>>(), ["gelu.graph"]);
    assert_eq!(from.parameter_count(), 16 + 8 + 34);
}

#[test]
fn metadata_that_say_nothing_are_refused_and_change_nothing() {
    let from = calibrated(norms());
    for (key, bad) in [
        (Ranges::METADATA_KEY, "3"),
        (Ranges::METADATA_KEY, r#"{"input":"large"}"#),
        (Ranges::METADATA_KEY, r#"{"input":null}"#),
        (Ranges::METADATA_KEY, "{"),
        (crate::plan::Quantization::LAYER_BITS_KEY, r#"{"fc":-1}"#),
        (crate::plan::Quantization::LAYER_BITS_KEY, r#"{"fc":8.5}"#),
        (crate::plan::Quantization::LAYER_BITS_KEY, r#"["fc"]"#),
        (crate::plan::Quantization::LAYER_BITS_KEY, ""),
        (crate::plan::Quantization::FORMATS_KEY, r#"{"relu1":{"scale_bits":3}}"#),
        (crate::plan::Quantization::FORMATS_KEY, r#"{"relu1":{"scale_bits":300,"bound":15}}"#),
        (crate::plan::Quantization::FORMATS_KEY, r#"{"relu1":{"scale_bits":3,"bound":-1}}"#),
        (crate::plan::Quantization::FORMATS_KEY, r#"{"relu1":{"scale_bits":3,"bound":9223372036854775808}}"#),
    ] {
        let mut to = norms().build().unwrap();
        let before = to.weights();
        let mut weights = from.weights();
        weights.metadata.insert(key.to_owned(), bad.to_owned());
        for error in [to.load(&weights).unwrap_err(), to.load_partial(&weights).unwrap_err()] {
            assert!(
                matches!(&error.problems[..], [LoadProblem::Metadata { key: found, .. }] if *found == key),
                "{error}"
            );
            assert!(error.to_string().contains(key), "{error}");
        }
        assert_eq!((to.weights(), to.ranges()), (before, None));
    }
    // Other metadata are none of the model's business.
    let mut weights = from.weights();
    weights.metadata.insert("format".to_owned(), "pt".to_owned());
    norms().build().unwrap().load(&weights).unwrap();
}

#[test]
fn weights_that_do_not_fit_are_all_named() {
    let mut model = conv1().unwrap();
    let before = model.weights();
    let mut weights = before.clone();
    weights.tensors.remove("conv1.bias");
    weights.tensors.insert("fc1.weight".to_owned(), tensor([180, 10], 0.0));
    weights.tensors.insert("fc1.bias".to_owned(), tensor([10], f32::NAN));
    weights.tensors.insert("fc9.bias".to_owned(), tensor([3], 0.0));
    weights.metadata.insert(Ranges::METADATA_KEY.to_owned(), "none".to_owned());
    weights.metadata.insert(crate::plan::Quantization::LAYER_BITS_KEY.to_owned(), "none".to_owned());
    let error = model.load(&weights).unwrap_err();
    assert_eq!(error.problems.len(), 6);
    let message = error.to_string();
    for line in [
        "conv1.bias: expected 5, found no such tensor",
        "fc1.weight: expected 10x180, found 180x10",
        "fc1.bias: expected finite numbers, found 10 of 10 that are not",
        "fc9.bias: the model has no such tensor, found 3",
        "metadata gelu.ranges: expected a JSON object of numbers by the names of nodes",
        "metadata gelu.layer_bits: expected a JSON object",
    ] {
        assert!(message.contains(line), "{message}");
    }
    assert_eq!(model.weights(), before);
    // Statistics are tensors like others.
    let mut weights = initialized(norms()).weights();
    weights.tensors.remove("bn.running_var");
    weights.tensors.insert("bn.running_mean".to_owned(), tensor([4], f32::INFINITY));
    let message = norms().build().unwrap().load(&weights).unwrap_err().to_string();
    for line in
        ["bn.running_var: expected 4, found no", "bn.running_mean: expected finite numbers, found 4 of 4"]
    {
        assert!(message.contains(line), "{message}");
    }
}

#[test]
fn partial_loading_keeps_the_rest() {
    let mut model = conv1().unwrap();
    let mut weights = Weights::default();
    weights.tensors.insert("conv1.bias".to_owned(), tensor([5], 2.0));
    weights.tensors.insert("other".to_owned(), tensor([1], 2.0));
    let report = model.load_partial(&weights).unwrap();
    assert_eq!((report.applied.len(), report.missing.len(), report.unused.len()), (1, 3, 1));
    assert_eq!(model.weights().tensors["conv1.bias"], weights.tensors["conv1.bias"]);
    weights.tensors.insert("fc1.bias".to_owned(), tensor([11], 2.0));
    assert_eq!(model.load_partial(&weights).unwrap_err().problems.len(), 1);
    let mut model = initialized(norms());
    let before = model.weights();
    let mut weights = Weights::default();
    weights.tensors.insert("bn.running_mean".to_owned(), tensor([4], 0.25));
    model.load_partial(&weights).unwrap();
    let mut expected = before;
    expected.tensors.insert("bn.running_mean".to_owned(), tensor([4], 0.25));
    assert_eq!(model.weights(), expected);
}

#[test]
fn a_folded_normalization_gives_the_same_logits() {
    let conv = || Conv2dConfig::new(8, [3, 3]);
    let image = || ModelBuilder::new([4, 6, 6]);
    let builders = [
        image().conv2d("a", conv()).relu().flatten().dense("b", 4),
        image().conv2d("a", conv().with_groups(2)).batch_norm2d("n").relu().flatten().dense("b", 4),
        image().conv2d("a", conv().with_groups(4)).relu(),
        image().conv2d("a", conv().with_groups(2).with_dilation([2, 1]).with_stride([1, 2])).relu(),
        image().avg_pool2d("pool", [2, 2]).conv2d("a", Conv2dConfig::new(6, [2, 2]).with_groups(2)).tanh(),
        image().avg_pool2d("pool", [2, 2]).flatten().dense("a", 4),
        image().global_avg_pool2d().flatten().dense("a", 4),
        image().flatten().dense("a", 4).tanh(),
        image().conv2d("a", conv()).residual(|block| block.tanh()),
    ];
    let [mean, std] = [vec![0.3, 0.6, -0.2, 0.9], vec![0.5, 0.2, 1.0, 0.7]];
    let x = random(5, 144);
    let channel = |element: usize| element / 36;
    let normalized = Array2::from_shape_fn(x.dim(), |at| (x[at] - mean[channel(at.1)]) / std[channel(at.1)]);
    for builder in builders {
        let mut model = initialized(builder);
        let expected = model.logits(normalized.view()).unwrap();
        model.fold_normalization(&Normalization { mean: mean.clone(), std: std.clone() }).unwrap();
        let found = model.logits(x.view()).unwrap();
        assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 2e-5), "{found} {expected}");
    }
    // Of a vector, each feature has its own.
    let mut model = initialized(ModelBuilder::new([3]).dense("a", 2));
    let expected = model.logits(array![[1.0, -1.0, 2.0]].view()).unwrap();
    let normalization = Normalization { mean: vec![1.0, 2.0, 3.0], std: vec![2.0, 3.0, 4.0] };
    model.fold_normalization(&normalization).unwrap();
    let found = model.logits(array![[3.0, -1.0, 11.0]].view()).unwrap();
    assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-5), "{found} {expected}");
}

#[test]
fn a_normalization_that_cannot_be_folded_is_refused() {
    let image = || ModelBuilder::new([2, 6, 6]);
    let padded = || {
        let conv = Conv2dConfig::new(3, [3, 3]).with_padding([1, 1]);
        image().conv2d("a", conv).build().unwrap()
    };
    let normalization = |mean: &[f32], std: &[f32]| Normalization { mean: mean.to_vec(), std: std.to_vec() };
    let error = padded().fold_normalization(&normalization(&[0.1], &[1.0])).unwrap_err();
    assert_eq!(error, FoldError::Padding { name: "a".to_owned(), found: [[1, 1]; 2] });
    padded().fold_normalization(&normalization(&[0.0], &[2.0])).unwrap();
    let error = padded().fold_normalization(&normalization(&[0.0, 0.0, 0.0], &[2.0])).unwrap_err();
    assert!(matches!(error, FoldError::Channels { expected: 2, found: 3, .. }));
    let error = padded().fold_normalization(&normalization(&[0.0], &[1.0, 1.0, 1.0])).unwrap_err();
    assert!(matches!(error, FoldError::Channels { what: "standard deviations", expected: 2, found: 3 }));
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = padded().fold_normalization(&normalization(&[0.0], &[1.0, bad])).unwrap_err();
        assert!(matches!(error, FoldError::Std { channel: 1, .. }), "{error}");
    }
    let error = padded().fold_normalization(&normalization(&[f32::INFINITY], &[1.0])).unwrap_err();
    assert!(matches!(error, FoldError::Mean { channel: 0, .. }));
    let mut nonlinear = ModelBuilder::new([4]).relu().dense("a", 2).build().unwrap();
    let error = nonlinear.fold_normalization(&normalization(&[0.1], &[1.0])).unwrap_err();
    assert_eq!(error, FoldError::NoWeights { found: "relu".to_owned() });
    // Even padding on one side only, and that of a pooling before the weights.
    let one_side = Conv2dConfig::new(3, [3, 3]).with_padding_sides([[0, 0], [0, 1]]);
    let pooled = Window::new([2, 2]).with_padding([1, 0]);
    for (builder, name, found) in [
        (image().conv2d("a", one_side), "a", [[0, 0], [0, 1]]),
        (image().avg_pool2d_with("p", pooled).flatten().dense("a", 2), "p", [[1, 1], [0, 0]]),
    ] {
        let error = initialized(builder).fold_normalization(&normalization(&[0.1], &[1.0])).unwrap_err();
        assert_eq!(error, FoldError::Padding { name: name.to_owned(), found });
    }
    // Padding that is no element of a mean does not matter.
    let pixels = AvgPool2dConfig::new(pooled).excluding_padding().with_ceil_mode();
    let plain = initialized(image().avg_pool2d_with("p", pixels).flatten().dense("a", 2));
    let mut model = plain.clone();
    model.fold_normalization(&normalization(&[0.5], &[2.0])).unwrap();
    let x = Array2::from_shape_fn((2, model.input_shape().elements()), |(i, at)| ((i + at) % 5) as f32);
    let scaled = x.mapv(|x| (x - 0.5) / 2.0);
    let off = model.logits(x.view()).unwrap() - plain.logits(scaled.view()).unwrap();
    assert!(off.iter().all(|off| off.abs() < 1e-4), "{off}");
    let same = Conv2dConfig::new(2, [1, 1]);
    let first_channel = vec![AxisSlice::range(0, 1), AxisSlice::whole(6), AxisSlice::whole(6)];
    for builder in [
        image().residual(|block| block.conv2d("a", same)),
        image().concat([&|a| a.conv2d("a", same), &|b| b.conv2d("b", same)]),
        image().batch_norm2d("n").conv2d("a", same),
        image().max_pool2d([2, 2]).conv2d("a", same),
        image().residual(|block| block).conv2d("a", same),
        image().conv2d("a", same.without_bias()),
        image().avg_pool2d("p", [2, 2]),
        image().slice(SliceConfig::new(first_channel)).conv2d("a", same),
    ] {
        let mut model = initialized(builder);
        let before = model.weights();
        let error = model.fold_normalization(&normalization(&[0.1], &[2.0])).unwrap_err();
        assert!(matches!(error, FoldError::NoWeights { .. }), "{error}");
        assert_eq!(model.weights(), before, "{error}");
    }
    // A mean of zero needs no bias.
    let mut model = initialized(image().conv2d("a", same.without_bias()));
    let images = images(&model, 2, 1);
    let expected = model.logits(images.map(|x| x / 2.0).view()).unwrap();
    model.fold_normalization(&normalization(&[0.0], &[2.0])).unwrap();
    let found = model.logits(images.view()).unwrap();
    assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-5));
}

#[test]
fn ranges_are_the_largest_magnitudes() {
    let mut model =
        ModelBuilder::new([2]).dense("a", 2).tanh().dense("b", 1).relu().softmax().build().unwrap();
    let mut weights = model.weights();
    weights.tensors.insert("a.weight".to_owned(), tensor([2, 2], 50.0));
    weights.tensors.insert("b.weight".to_owned(), tensor([1, 2], 1.5));
    model.load(&weights).unwrap();
    assert_eq!(model.ranges(), None);
    let images = array![[-3.0, 1.0], [1.0, 0.5]];
    let ranges = model.measure_ranges(images.view()).unwrap();
    assert_eq!(model.ranges(), None, "measuring keeps nothing");
    let expected = [("input", 3.0), ("a", 100.0), ("tanh1", 1.0), ("b", 3.0), ("relu1", 3.0)];
    assert_eq!(ranges, expected.into_iter().collect());
    assert_eq!(ranges.get("softmax1"), None, "probabilities are never encrypted");
    model.calibrate(images.view()).unwrap();
    assert_eq!(model.ranges(), Some(&ranges));
    assert!(
        matches!(model.calibrate(random(1, 3).view()), Err(Error::Shape { found, .. }) if found.dims() == [3])
    );
    // More images than are measured at a time give the largest of all.
    let mut many = Array2::zeros((200, 2));
    many[[137, 1]] = -4.0;
    assert_eq!(model.measure_ranges(many.view()).unwrap().get("input"), Some(4.0));
    let mut wider = ranges.clone();
    wider.widen(2.0);
    assert_eq!((wider.get("input"), wider.get("b")), (Some(3.0), Some(6.0)));
    assert_eq!(
        serde_json::to_string(&ranges).unwrap(),
        r#"{"a":100.0,"b":3.0,"input":3.0,"relu1":3.0,"tanh1":1.0}"#
    );
}

#[test]
fn numbers_that_are_none_calibrate_nothing() {
    let mut model = calibrated(norms());
    let before = model.ranges().cloned();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut images = images(&model, 70, 1);
        images[[69, 17]] = bad;
        let error = model.calibrate(images.view()).unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
        assert_eq!(model.ranges(), before.as_ref());
    }
    // Values that overflow on the way, though the inputs are finite.
    let large = Array2::from_elem((1, 18), f32::MAX);
    let mut deep = initialized(ModelBuilder::new([18]).square().dense("fc", 2));
    assert!(matches!(deep.calibrate(large.view()), Err(Error::NotFinite { .. })));
    assert_eq!(deep.ranges(), None);
}

/// What only a client can compute, a model cannot.
#[test]
fn functions_of_the_clients_own_are_left_to_it() {
    let mut model =
        initialized(ModelBuilder::new([4]).dense("a", 3).client_function("own", [2]).dense("b", 2));
    assert!(model.has_client_functions() && !initialized(norms()).has_client_functions());
    let images = images(&model, 1, 1);
    for error in [model.forward(images.view()).unwrap_err(), model.calibrate(images.view()).unwrap_err()] {
        assert_eq!(error, Error::ClientFunction);
    }
}

#[test]
fn pooling_takes_any_window() {
    let window = Window::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
    let model = ModelBuilder::new([1, 8, 8]).avg_pool2d_with("pool", window).build().unwrap();
    assert_eq!(model.output_shape().dims(), [1, 4, 4]);
    assert_eq!(model.parameter_count(), 0);
}

#[test]
fn layers_are_found_by_their_place() {
    let mut model = initialized(norms());
    let names: Vec<&str> = model.layers().map(|(name, _)| name).collect();
    assert_eq!(names, ["conv", "bn", "flatten1", "fc"]);
    let linear: Vec<bool> = (0..6).map(|place| model.layer(place).is_some()).collect();
    assert_eq!(linear, [true, true, false, true, true, false]);
    let changed: Vec<&mut LinearLayer> = model.layers_mut().map(|(_, layer)| layer).collect();
    assert_eq!(changed.len(), 4);
}
