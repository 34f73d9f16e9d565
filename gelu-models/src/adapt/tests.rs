//! The same network, saved in the ways of other programs, gives the same outputs.

use gelu_layers::{Activation, Conv2dConfig};
use ndarray::Array2;
use proptest::prelude::*;
use rand::RngExt;

use super::{AdaptError, Adaptation, layers_before};
use crate::tests::{initialized, seeded};
use crate::zoo::{self, MlpConfig};
use crate::{Model, ModelBuilder, Ranges, WeightTensor, Weights};

/// Two convolutions, each with batch norm if asked for, and a dense layer.
fn network(norms: bool) -> ModelBuilder {
    let conv = |channels| Conv2dConfig::new(channels, [3, 3]);
    let norm = |builder: ModelBuilder, name| if norms { builder.batch_norm2d(name) } else { builder };
    let builder = norm(ModelBuilder::new([1, 8, 8]).conv2d("conv1", conv(3)), "bn1").relu();
    norm(builder.conv2d("conv2", conv(2)), "bn2").relu().flatten().dense("fc1", 4).softmax()
}

fn renamed(weights: &Weights, name: impl Fn(&str) -> String) -> Weights {
    let tensors = weights.tensors.iter().map(|(old, tensor)| (name(old), tensor.clone())).collect();
    Weights { tensors, ..Weights::default() }
}

fn loaded(builder: ModelBuilder, mut weights: Weights) -> (Model, Vec<Adaptation>) {
    let mut model = builder.build().unwrap();
    let done = weights.adapt(&model, &[]).unwrap();
    model.load(&weights).unwrap();
    (model, done)
}

fn images() -> Array2<f32> {
    let mut rng = seeded(5);
    Array2::from_shape_fn((4, 64), |_| rng.random_range(-1.0..1.0))
}

/// A normalized network with statistics as after some training.
fn trained(builder: ModelBuilder) -> Model {
    let mut model = initialized(builder);
    let mut rng = seeded(9);
    for (_, layer) in model.layers_mut() {
        if let Some(statistics) = layer.statistics_mut() {
            statistics.mean.iter_mut().for_each(|mean| *mean = rng.random_range(-0.5..0.5));
            statistics.variance.iter_mut().for_each(|variance| *variance = rng.random_range(0.1..2.0));
        }
    }
    model
}

#[test]
fn names_that_fit_are_left_alone() {
    for norms in [false, true] {
        let model = initialized(network(norms));
        let (copy, done) = loaded(network(norms), model.weights());
        assert_eq!((copy.weights(), done), (model.weights(), vec![]));
    }
}

#[test]
fn prefixes_are_taken_off_one_after_another() {
    let model = initialized(network(true));
    for prefix in ["module.", "_orig_mod.", "model.", "net.", "state_dict.", "model.module."] {
        let (copy, done) = loaded(network(true), renamed(&model.weights(), |name| format!("{prefix}{name}")));
        assert_eq!(copy.weights().tensors, model.weights().tensors);
        assert_eq!(done, [Adaptation::Prefix(prefix.to_owned())]);
    }
    // One that not all names share is part of a name.
    let mut weights = renamed(&model.weights(), |name| format!("module.{name}"));
    let bias = weights.tensors.remove("module.fc1.bias").unwrap();
    weights.tensors.insert("fc9.bias".to_owned(), bias);
    assert_eq!(weights.adapt(&model, &[]).unwrap(), []);
}

#[test]
fn numbered_modules_go_to_the_layers_in_order() {
    let model = initialized(network(true));
    let numbers = [("conv1", "0"), ("bn1", "1"), ("conv2", "3"), ("bn2", "4"), ("fc1", "11")];
    let number = |name: &str| {
        let (module, part) = name.rsplit_once('.').unwrap();
        let number = numbers.iter().find(|(own, _)| *own == module).unwrap().1;
        format!("net.{number}.{part}")
    };
    let (copy, done) = loaded(network(true), renamed(&model.weights(), number));
    assert_eq!(copy.weights().tensors, model.weights().tensors);
    assert_eq!(done.len(), 6);
    assert!(done.contains(&Adaptation::Renamed { from: "11".to_owned(), to: "fc1".to_owned() }));
    // Layers of other shapes are not taken for these.
    let mut weights = renamed(&model.weights(), number);
    weights.tensors.insert("net.3.weight".to_owned(), WeightTensor::new([1].into(), vec![0.0]).unwrap());
    weights.adapt(&model, &[]).unwrap();
    assert!(model.clone().load(&weights).is_err());
}

#[test]
fn batch_norms_that_the_model_does_not_have_are_folded_by_name_and_by_number() {
    let model = trained(network(true));
    let expected = model.logits(images().view()).unwrap();
    let names: [[&str; 5]; 4] = [
        ["conv1", "bn1", "conv2", "bn2", "fc1"],
        ["conv1", "conv1_bn", "conv2", "conv2_bn", "fc1"],
        ["conv1", "norm1", "conv2", "batchnorm2", "fc1"],
        ["0", "1", "3", "4", "7"],
    ];
    for names in names {
        let own = ["conv1", "bn1", "conv2", "bn2", "fc1"];
        let name = |name: &str| {
            let (module, part) = name.rsplit_once('.').unwrap();
            format!("{}.{part}", names[own.iter().position(|own| *own == module).unwrap()])
        };
        let mut weights = renamed(&model.weights(), name);
        for norm in [names[1], names[3]] {
            let counter = WeightTensor::new([].into(), vec![938.0]).unwrap();
            weights.tensors.insert(format!("{norm}.num_batches_tracked"), counter);
        }
        let (copy, done) = loaded(network(false), weights);
        let folded = |done: &&Adaptation| matches!(done, Adaptation::BatchNorm { .. });
        assert_eq!(done.iter().filter(folded).count(), 2, "{names:?}: {done:?}");
        assert!(done.contains(&Adaptation::Counters(2)));
        let found = copy.logits(images().view()).unwrap();
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{names:?}: {worst}");
    }
}

#[test]
fn a_batch_norm_behind_an_activation_is_not_folded() {
    // 0 conv1, 1 relu, 2 batch norm.
    let model = trained(network(true));
    let names = [("conv1", "0"), ("bn1", "2"), ("conv2", "3"), ("bn2", "5"), ("fc1", "8")];
    let name = |name: &str| {
        let (module, part) = name.rsplit_once('.').unwrap();
        format!("{}.{part}", names.iter().find(|(own, _)| *own == module).unwrap().1)
    };
    let mut weights = renamed(&model.weights(), name);
    let mut plain = network(false).build().unwrap();
    weights.adapt(&plain, &[]).unwrap();
    assert!(plain.load(&weights).is_err());
}

#[test]
fn biases_that_are_not_there_are_zero() {
    let mut model = initialized(network(false));
    model.layers_mut().for_each(|(_, layer)| layer.parameters_mut().bias.fill(0.0));
    let mut weights = model.weights();
    weights.metadata.clear();
    weights.tensors.retain(|name, _| !name.starts_with("conv") || name.ends_with(".weight"));
    let (copy, done) = loaded(network(false), weights);
    assert_eq!(copy.weights(), model.weights());
    let zeros = ["conv1.bias", "conv2.bias"].map(|name| Adaptation::ZeroBias(name.to_owned()));
    assert_eq!(done, zeros);
}

#[test]
fn a_user_renames_tensors_and_modules() {
    let model = initialized(network(false));
    let name = |name: &str| name.replace("conv1", "features.0").replace("fc1.weight", "head");
    let renames = [("features.0", "conv1"), ("head", "fc1.weight")];
    let renames = renames.map(|(from, to)| (from.to_owned(), to.to_owned()));
    let mut weights = renamed(&model.weights(), name);
    weights.adapt(&model, &renames).unwrap();
    assert_eq!(weights.tensors, model.weights().tensors);
    let mut weights = renamed(&model.weights(), name);
    let error = weights.clone().adapt(&model, &[("features".to_owned(), String::new()), renames[0].clone()]);
    assert!(matches!(error, Err(AdaptError::NoSuchName { .. })), "{error:?}");
    let error = weights.adapt(&model, &[("features.0".to_owned(), "conv2".to_owned())]).unwrap_err();
    assert!(matches!(error, AdaptError::Taken { .. }), "{error}");
}

#[test]
fn ranges_without_names_go_to_the_activations_in_order() {
    let config = MlpConfig { inputs: 4, hidden: vec![3, 3], classes: 2, activation: Activation::Sigmoid };
    let mut model = zoo::mlp(&config).unwrap();
    let mut weights = renamed(&model.weights(), str::to_owned);
    let listed = r#"{"input":1.0,"activations":[0.5,0.75]}"#;
    weights.metadata.insert(Ranges::METADATA_KEY.to_owned(), listed.to_owned());
    assert_eq!(weights.adapt(&model, &[]).unwrap(), [Adaptation::Ranges]);
    model.load(&weights).unwrap();
    let expected = [("input", 1.0), ("sigmoid1", 0.5), ("sigmoid2", 0.75)];
    assert_eq!(model.ranges(), Some(&expected.into_iter().collect()));
}

#[test]
fn names_of_norms_tell_what_they_follow() {
    assert!(layers_before("layer1.0.bn2").contains(&"layer1.0.conv2".to_owned()));
    assert!(layers_before("bn").contains(&"conv".to_owned()));
    assert_eq!(layers_before("layer2.0.downsample.1"), ["layer2.0.downsample.0"]);
    assert_eq!(layers_before("stem_bn"), ["stem"]);
    assert_eq!(layers_before("0"), [""; 0]);
    assert_eq!(layers_before("conv1"), [""; 0]);
}

proptest! {
    /// Whatever the names, nothing panics and nothing changes without a word.
    #[test]
    fn any_names_are_taken(names in prop::collection::vec("(module\\.|net\\.|bn|conv|[0-9]|\\.|weight|bias|running_mean|running_var|é){1,5}", 0..8)) {
        let model = network(true).build().unwrap();
        let tensor = WeightTensor::new([3].into(), vec![1.0, 2.0, 3.0]).unwrap();
        let mut weights = Weights::default();
        weights.tensors.extend(names.into_iter().map(|name| (name, tensor.clone())));
        let before = weights.clone();
        let done = weights.adapt(&model, &[]).unwrap();
        prop_assert_eq!(done.is_empty(), weights == before, "{:?}", done);
    }
}
