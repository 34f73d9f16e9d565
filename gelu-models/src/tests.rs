use gelu_layers::{Activation, Conv2dConfig, Initializer};
use gelu_tensor::{Shape, Window};
use ndarray::{Array2, array};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::*;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn random(rows: usize, columns: usize) -> Array2<f32> {
    let mut rng = rng();
    Array2::from_shape_fn((rows, columns), |_| rng.random_range(0.0..1.0))
}

fn tensor<const RANK: usize>(shape: [usize; RANK], value: f32) -> WeightTensor {
    let shape = Shape::from(shape);
    let elements = shape.elements();
    WeightTensor::new(shape, vec![value; elements]).unwrap()
}

#[test]
fn shapes_of_the_zoo() {
    let shapes = |model: Model| {
        let weights = model.weights();
        weights.tensors.iter().map(|(name, tensor)| format!("{name} {}", tensor.shape())).collect::<Vec<_>>()
    };
    assert_eq!(
        shapes(zoo::lenet5().unwrap()),
        [
            "conv1.bias 6",
            "conv1.weight 6x1x5x5",
            "conv2.bias 16",
            "conv2.weight 16x6x5x5",
            "fc1.bias 120",
            "fc1.weight 120x256",
            "fc2.bias 84",
            "fc2.weight 84x120",
            "fc3.bias 10",
            "fc3.weight 10x84",
        ]
    );
    assert_eq!(
        shapes(zoo::conv1().unwrap()),
        ["conv1.bias 5", "conv1.weight 5x1x5x5", "fc1.bias 10", "fc1.weight 10x180"]
    );
    for name in zoo::NAMES {
        assert_eq!(zoo::by_name(name).unwrap().output_shape().dims(), [10]);
    }
    assert_eq!(zoo::by_name("lenet6").unwrap_err().found, "lenet6");
}

#[test]
fn the_first_error_of_a_builder_is_kept() {
    let conv = |kernel| Conv2dConfig::new(2, [kernel, kernel]);
    let failed = |builder: ModelBuilder| builder.build().unwrap_err();
    let image = || ModelBuilder::new([1, 8, 8]);

    let error = failed(image().conv2d("a", conv(3)).conv2d("b", conv(9)).dense("c", 3));
    assert!(
        matches!(&error, BuildError::Layer { name, input, .. } if name == "b" && input.dims() == [2, 6, 6])
    );
    assert!(error.to_string().contains("`b` after an output of 2x6x6"), "{error}");
    let error = failed(image().dense("fc", 3));
    assert!(error.to_string().contains("flatten"), "{error}");
    let error = failed(image().conv2d("a", conv(3)).conv2d("a", conv(3)));
    assert_eq!(error, BuildError::DuplicateName { name: "a".to_owned() });
    assert_eq!(
        failed(image().flatten().softmax().relu()),
        BuildError::AfterSoftmax { name: "relu".to_owned() }
    );
    let error = failed(image().flatten().softmax().dense("fc", 2));
    assert_eq!(error, BuildError::AfterSoftmax { name: "fc".to_owned() });
    assert!(matches!(failed(image().softmax()), BuildError::SoftmaxInput { .. }));
    assert_eq!(failed(image().relu()), BuildError::Empty);
    assert_eq!(failed(image().conv2d("", conv(3))), BuildError::NoName { position: 1 });
    assert!(matches!(failed(ModelBuilder::new([3, 3]).flatten()), BuildError::Input { .. }));
    assert!(matches!(failed(ModelBuilder::new([0]).dense("fc", 3)), BuildError::Input { .. }));
}

#[test]
fn forward_is_the_softmax_of_the_logits() {
    let mut model = zoo::conv1().unwrap();
    model.initialise(Initializer::KaimingUniform, &mut rng());
    let x = random(3, 784);
    let logits = model.logits(x.view()).unwrap();
    assert_eq!(model.forward(x.view()).unwrap(), Activation::Softmax.forward(logits.view()));
    assert!(model.forward(random(3, 783).view()).is_err());
}

#[test]
fn weights_can_be_loaded_back() {
    let [mut from, mut to] = [zoo::lenet5().unwrap(), zoo::lenet5().unwrap()];
    from.initialise(Initializer::XavierUniform, &mut rng());
    let report = to.load(&from.weights()).unwrap();
    assert_eq!((report.applied.len(), report.missing.len(), report.unused.len()), (10, 0, 0));
    assert!(report.to_string().contains("conv2.weight  16x6x5x5        applied"), "{report}");
    assert_eq!(from.weights(), to.weights());
}

#[test]
fn weights_that_do_not_fit_are_all_named() {
    let mut model = zoo::conv1().unwrap();
    let before = model.weights();
    let mut weights = before.clone();
    weights.tensors.remove("conv1.bias");
    weights.tensors.insert("fc1.weight".to_owned(), tensor([180, 10], 0.0));
    weights.tensors.insert("fc1.bias".to_owned(), tensor([10], f32::NAN));
    weights.tensors.insert("fc9.bias".to_owned(), tensor([3], 0.0));
    let message = model.load(&weights).unwrap_err().to_string();
    for line in [
        "conv1.bias: expected 5, found no such tensor",
        "fc1.weight: expected 10x180, found 180x10",
        "fc1.bias: expected finite numbers, found 10 of 10 that are not",
        "fc9.bias: the model has no such tensor, found 3",
    ] {
        assert!(message.contains(line), "{message}");
    }
    assert_eq!(model.weights(), before);
}

#[test]
fn partial_loading_keeps_the_rest() {
    let mut model = zoo::conv1().unwrap();
    let mut weights = Weights::default();
    weights.tensors.insert("conv1.bias".to_owned(), tensor([5], 2.0));
    weights.tensors.insert("other".to_owned(), tensor([1], 2.0));
    let report = model.load_partial(&weights).unwrap();
    assert_eq!((report.applied.len(), report.missing.len(), report.unused.len()), (1, 3, 1));
    assert_eq!(model.weights().tensors["conv1.bias"], weights.tensors["conv1.bias"]);
    weights.tensors.insert("fc1.bias".to_owned(), tensor([11], 2.0));
    assert_eq!(model.load_partial(&weights).unwrap_err().problems.len(), 1);
}

#[test]
fn a_folded_normalization_gives_the_same_logits() {
    let builders: [fn() -> ModelBuilder; 3] = [
        || {
            ModelBuilder::new([2, 6, 6])
                .conv2d("a", Conv2dConfig::new(3, [3, 3]))
                .relu()
                .flatten()
                .dense("b", 4)
        },
        || ModelBuilder::new([2, 6, 6]).mean_pool2d("pool", [2, 2]).flatten().dense("a", 4),
        || ModelBuilder::new([2, 6, 6]).flatten().dense("a", 4).tanh(),
    ];
    let [mean, std] = [vec![0.3, 0.6], vec![0.5, 0.2]];
    let x = random(5, 72);
    let channel = |element: usize| element / 36;
    let normalized = Array2::from_shape_fn(x.dim(), |at| (x[at] - mean[channel(at.1)]) / std[channel(at.1)]);
    for build in builders {
        let mut model = build().build().unwrap();
        model.initialise(Initializer::KaimingUniform, &mut rng());
        let expected = model.logits(normalized.view()).unwrap();
        model.fold_normalization(&Normalization { mean: mean.clone(), std: std.clone() }).unwrap();
        let found = model.logits(x.view()).unwrap();
        assert!(found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 1e-5), "{found} {expected}");
    }
}

#[test]
fn a_normalization_that_cannot_be_folded_is_refused() {
    let padded = || {
        let conv = Conv2dConfig::new(3, [3, 3]).with_padding([1, 1]);
        ModelBuilder::new([2, 6, 6]).conv2d("a", conv).build().unwrap()
    };
    let normalization = |mean: &[f32], std: &[f32]| Normalization { mean: mean.to_vec(), std: std.to_vec() };
    let error = padded().fold_normalization(&normalization(&[0.1], &[1.0])).unwrap_err();
    assert_eq!(error, FoldError::Padding { name: "a".to_owned(), found: [1, 1] });
    padded().fold_normalization(&normalization(&[0.0], &[2.0])).unwrap();
    let error = padded().fold_normalization(&normalization(&[0.0, 0.0, 0.0], &[2.0])).unwrap_err();
    assert!(matches!(error, FoldError::Channels { expected: 2, found: 3, .. }));
    let error = padded().fold_normalization(&normalization(&[0.0], &[1.0, 0.0])).unwrap_err();
    assert_eq!(error, FoldError::Std { channel: 1, found: 0.0 });
    let error = padded().fold_normalization(&normalization(&[f32::INFINITY], &[1.0])).unwrap_err();
    assert!(matches!(error, FoldError::Mean { channel: 0, .. }));
    let mut nonlinear = ModelBuilder::new([4]).relu().dense("a", 2).build().unwrap();
    let error = nonlinear.fold_normalization(&normalization(&[0.1], &[1.0])).unwrap_err();
    assert_eq!(error, FoldError::NoWeights { found: "relu".to_owned() });
}

#[test]
fn ranges_are_the_largest_magnitudes() {
    let mut model =
        ModelBuilder::new([2]).dense("a", 2).tanh().dense("b", 1).relu().softmax().build().unwrap();
    let mut weights = model.weights();
    weights.tensors.insert("a.weight".to_owned(), tensor([2, 2], 50.0));
    weights.tensors.insert("b.weight".to_owned(), tensor([1, 2], 1.5));
    model.load(&weights).unwrap();
    let ranges = model.calibrate(array![[-3.0, 1.0], [1.0, 0.5]].view()).unwrap();
    assert_eq!(ranges, Ranges { input: 3.0, activations: vec![1.0, 3.0] });
    assert!(model.calibrate(random(1, 3).view()).is_err());
}

#[test]
fn pooling_takes_any_window() {
    let window = Window::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
    let model = ModelBuilder::new([1, 8, 8]).mean_pool2d_with("pool", window).build().unwrap();
    assert_eq!(model.output_shape().dims(), [1, 4, 4]);
    assert_eq!(model.parameter_count(), 0);
}
