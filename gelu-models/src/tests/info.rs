//! Models in one piece: graph, weights and what is said about them.

use gelu_layers::{Activation, Initializer};
use gelu_tensor::Shape;
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::calibrated;
use crate::zoo::{self, MlpConfig};
use crate::{
    Column, ColumnValues, LoadProblem, Model, ModelBuilder, ModelInfo, Normalization, PixelFormat,
    Preprocessing, Weights,
};

fn number(name: &str, mean: f32, std: f32) -> Column {
    Column { name: name.to_owned(), values: ColumnValues::Number { mean, std, missing: None } }
}

fn table_model() -> Model {
    let config = MlpConfig { inputs: 3, hidden: vec![4], classes: 2, activation: Activation::Tanh };
    let mut model = zoo::mlp(&config).unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(3));
    let columns = vec![
        number("age", 54.5, 9.0),
        Column {
            name: "sex".to_owned(),
            values: ColumnValues::Category(vec!["female".to_owned(), "male".to_owned()]),
        },
    ];
    *model.info_mut() = ModelInfo {
        preprocessing: Some(Preprocessing::Columns(columns)),
        classes: vec!["healthy".to_owned(), "ill".to_owned()],
        provenance: [("gelu.dataset".to_owned(), "hospital".to_owned())].into(),
    };
    model.set_layer_bits([("fc1".to_owned(), 7)].into());
    model
}

#[test]
fn a_model_comes_back_whole_from_its_weights_alone() {
    let resnet =
        zoo::ResnetConfig { input: Shape::from([1, 8, 8]), depth: 8, width: 2, classes: 3, batch_norm: true };
    let builder = ModelBuilder::new([2, 4, 4]).client_function("own", [4]).dense("fc", 2);
    for model in
        [table_model(), zoo::lenet5().unwrap(), zoo::resnet(&resnet).unwrap(), builder.build().unwrap()]
    {
        let copy = Model::from_weights(&model.weights()).unwrap();
        assert_eq!(copy.graph(), model.graph());
        assert_eq!(copy.info(), model.info());
        assert_eq!((copy.ranges(), copy.layer_bits()), (model.ranges(), model.layer_bits()));
        assert_eq!(copy.weights(), model.weights());
    }
    let model = calibrated(ModelBuilder::new([4]).dense("a", 3).relu().dense("b", 2));
    assert_eq!(Model::from_weights(&model.weights()).unwrap().ranges(), model.ranges());
}

#[test]
fn weights_without_a_graph_or_with_a_broken_one_make_no_model() {
    let model = table_model();
    let graph = serde_json::to_string(&**model.graph()).unwrap();
    for bad in [None, Some("{}".to_owned()), Some(graph.replacen("[3]", "[5]", 1)), Some("3".to_owned())] {
        let mut weights = model.weights();
        weights.metadata.remove("gelu.graph");
        weights.metadata.extend(bad.clone().map(|bad| ("gelu.graph".to_owned(), bad)));
        let error = Model::from_weights(&weights).unwrap_err();
        assert!(!error.problems.is_empty(), "{bad:?}");
    }
    assert!(matches!(
        &Model::from_weights(&Weights::default()).unwrap_err().problems[..],
        [LoadProblem::Metadata { key: "gelu.graph", .. }]
    ));
}

#[test]
fn weights_of_another_network_are_refused_although_their_shapes_fit() {
    let mlp =
        |activation| zoo::mlp(&MlpConfig { inputs: 3, hidden: vec![4], classes: 2, activation }).unwrap();
    let error = mlp(Activation::Relu).load(&table_model().weights()).unwrap_err();
    assert_eq!(error.problems, [LoadProblem::Graph]);
    mlp(Activation::Tanh).load(&table_model().weights()).unwrap();
    // To train on from them is another matter.
    let mut other = mlp(Activation::Relu);
    other.load_partial(&table_model().weights()).unwrap();
    assert_eq!(other.info(), &ModelInfo::default());
}

#[test]
fn what_a_file_says_must_fit_its_network() {
    for (key, bad) in [
        ("gelu.classes", r#"["one"]"#),
        ("gelu.preprocessing", r#"{"columns":[]}"#),
        ("gelu.preprocessing", r#"{"columns":[{"name":"a","values":{"number":{"mean":0,"std":0}}}]}"#),
        ("gelu.preprocessing", r#"{"pixels":{"folded":{"mean":[0,0],"std":[1,1]}}}"#),
        ("gelu.preprocessing", r#"{"pixels":{"normalization":{"mean":[0],"std":[-1]}}}"#),
        ("gelu.preprocessing", r#""unknown""#),
    ] {
        let mut weights = table_model().weights();
        weights.metadata.insert(key.to_owned(), bad.to_owned());
        let error = Model::from_weights(&weights).unwrap_err();
        assert!(matches!(&error.problems[..], [LoadProblem::Metadata { .. }]), "{bad}: {error}");
    }
}

#[test]
fn a_normalization_cannot_be_folded_in_twice() {
    let normalization = Normalization { mean: vec![0.1307], std: vec![0.3081] };
    let mut model = zoo::conv1().unwrap();
    model.fold_normalization(&normalization).unwrap();
    let folded = PixelFormat { folded: Some(normalization.clone()), ..PixelFormat::default() };
    assert_eq!(model.info().preprocessing, Some(Preprocessing::Pixels(folded)));
    // Neither here nor after the way through a file.
    for mut model in [model.clone(), Model::from_weights(&model.weights()).unwrap()] {
        let before = model.weights();
        let error = model.fold_normalization(&normalization).unwrap_err();
        assert!(error.to_string().contains("0.1307"), "{error}");
        assert_eq!(model.weights(), before);
    }
}
