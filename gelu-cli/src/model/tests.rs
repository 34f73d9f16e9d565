//! Models as people name them.

use gelu_io::weights::Dtype;
use gelu_models::{ModelInfo, WeightTensor};

use super::*;

fn args(model: impl Into<PathBuf>) -> NetworkArgs {
    NetworkArgs { model: model.into(), map: vec![], choices: Choices::default(), normalize: None }
}

fn mlp(activation: Activation) -> Model {
    let setting = Setting { activation: Some(activation), ..Setting::default() };
    let mut model = "mlp:3".parse::<Network>().unwrap().build(&setting).unwrap();
    model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1));
    model
}

#[test]
fn every_name_gives_a_network_and_two_have_weights_of_their_own() {
    for (name, has_weights) in [
        ("lenet5", true),
        ("conv1", true),
        ("dense12", false),
        ("dense300", false),
        ("mlp:12", false),
        ("resnet20", false),
        ("resnet8:4", false),
    ] {
        let loaded = args(name).read(None).unwrap();
        assert_eq!((loaded.is_trained, loaded.name.as_str()), (has_weights, name));
        let command = ModelArgs { network: args(name), weights: None };
        assert_eq!(command.load().is_ok(), has_weights, "{name}");
    }
    let built_in = args("lenet5").read(None).unwrap().model;
    let Some(Preprocessing::Pixels(pixels)) = &built_in.info().preprocessing else { panic!() };
    assert!(pixels.digits && built_in.ranges().is_some() && !built_in.layer_bits().is_empty());
    // Those are of mean pooling and ReLU.
    let choices = Choices { pooling: Some(Pooling::Max), ..Choices::default() };
    assert!(!NetworkArgs { choices, ..args("lenet5") }.read(None).unwrap().is_trained);
}

#[test]
fn a_model_file_says_all_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.safetensors");
    let mut model = mlp(Activation::Sigmoid);
    *model.info_mut() = ModelInfo { classes: vec!["a".to_owned(); 10], ..ModelInfo::default() };
    model.weights().write(&path, Dtype::F32).unwrap();
    let loaded = args(&path).read(None).unwrap();
    assert_eq!((loaded.model.weights(), loaded.is_trained), (model.weights(), true));
    // Beside a name it decides what the name leaves open, and is not bent to it.
    assert_eq!(args("mlp:3").read(Some(&path)).unwrap().model.graph(), model.graph());
    let tanh = Choices { activation: Some(Activation::Tanh), ..Choices::default() };
    for (refused, option) in [
        (NetworkArgs { choices: tanh.clone(), ..args(&path) }.read(None), "--activation"),
        (args(&path).read(Some(&path)), "--weights"),
        (NetworkArgs { map: vec![("a".to_owned(), "b".to_owned())], ..args(&path) }.read(None), "--map"),
        (args("mlp:4").read(Some(&path)), "mlp:4"),
        (NetworkArgs { choices: tanh, ..args("mlp:3") }.read(Some(&path)), "another network"),
    ] {
        let error = format!("{:#}", refused.unwrap_err());
        assert!(error.contains(option), "{error}");
    }
}

#[test]
fn weights_alone_need_the_name_of_their_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.safetensors");
    let mut weights = mlp(Activation::Relu).weights();
    weights.metadata.clear();
    weights.write(&path, Dtype::F32).unwrap();
    let error = args(&path).read(None).unwrap_err().to_string();
    assert!(error.contains("--model NAME --weights FILE"), "{error}");
    assert!(args("mlp:3").read(Some(&path)).unwrap().is_trained);
    for missing in [folder.path().join("absent.safetensors"), "absent.onnx".into()] {
        assert!(args(&missing).read(None).is_err());
    }
    let error = args("lenet").read(None).unwrap_err().to_string();
    assert!(error.contains("unknown model `lenet`"), "{error}");
}

#[test]
fn the_command_that_trained_weights_tells_their_activation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sigmoid.safetensors");
    let mut weights = mlp(Activation::Sigmoid).weights();
    let command = "gelu train --clear --model mlp:3 --activation sigmoid --dataset mnist";
    weights.metadata = [("gelu.command".to_owned(), command.to_owned())].into();
    weights.write(&path, Dtype::F32).unwrap();
    let loaded = args("mlp:3").read(Some(&path)).unwrap().model;
    assert_eq!(loaded.graph(), mlp(Activation::Sigmoid).graph());
    let choices = Choices { activation: Some(Activation::Relu), ..Choices::default() };
    let error = NetworkArgs { choices, ..args("mlp:3") }.read(Some(&path)).unwrap_err().to_string();
    assert!(error.contains("trained with sigmoid"), "{error}");
}

#[test]
fn weights_of_other_programs_are_renamed_as_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("renamed.safetensors");
    let mut weights = Weights::default();
    for (name, tensor) in mlp(Activation::Relu).weights().tensors {
        weights.tensors.insert(name.replace("fc1", "hidden"), tensor);
    }
    weights.write(&path, Dtype::F32).unwrap();
    assert!(args("mlp:3").read(Some(&path)).is_err());
    let map = vec![parse_rename("hidden=fc1").unwrap()];
    let loaded = NetworkArgs { map, ..args("mlp:3") }.read(Some(&path)).unwrap().model;
    assert_eq!(loaded.weights().tensors, mlp(Activation::Relu).weights().tensors);
    assert!(parse_rename("hidden").is_err() && parse_rename("=a").is_err() && parse_rename("a=").is_err());
}

#[test]
fn a_normalization_is_folded_in_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conv1.safetensors");
    let normalize = Some(parse_normalization("0.1307, 0.3081").unwrap());
    let own = NetworkArgs { normalize: normalize.clone(), ..args("conv1") }.read(None).unwrap().model;
    assert!(own.ranges().is_none(), "they are of the other scale");
    own.weights().write(&path, Dtype::F32).unwrap();
    let error = NetworkArgs { normalize, ..args(&path) }.read(None).unwrap_err();
    assert!(format!("{error:#}").contains("0.1307"), "{error:#}");
    assert!(parse_normalization("0.5").is_err() && parse_normalization("a,b").is_err());
}

#[test]
fn weights_that_do_not_fit_name_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.safetensors");
    let mut weights = args("conv1").read(None).unwrap().model.weights();
    weights.metadata.clear();
    weights.tensors.insert("conv1.weight".to_owned(), WeightTensor::new([1].into(), vec![0.5]).unwrap());
    weights.write(&path, Dtype::F32).unwrap();
    let error = format!("{:#}", args("conv1").read(Some(&path)).unwrap_err());
    assert!(error.contains("wrong.safetensors") && error.contains("expected 5x1x5x5, found 1"), "{error}");
}

#[test]
fn a_normalization_that_a_padded_layer_cannot_take_up_is_the_clients() {
    let normalize = Some(parse_normalization("0.5,0.25").unwrap());
    let network = NetworkArgs { normalize, ..args("resnet8:2") };
    let mut model = network.read(None).unwrap().model;
    let own = Normalization { mean: vec![0.5], std: vec![0.25] };
    let pixels = PixelFormat { normalization: Some(own), ..PixelFormat::default() };
    assert_eq!(model.info().preprocessing, Some(Preprocessing::Pixels(pixels)));
    // Pixels from 0 to 1 become -2 to 2.
    ensure_ranges(&mut model).unwrap();
    assert_eq!(model.ranges().and_then(|ranges| ranges.get(Ranges::INPUT)), Some(2.0));
}
