//! ONNX files that PyTorch wrote (`onnx/make_models.py`), imported, compared with what PyTorch computed, and run on
//! ciphertexts.

use std::path::{Path, PathBuf};

use gelu_net::io::onnx::{Became, Imported};
use gelu_net::prelude::*;
use ndarray::{Array2, ArrayView2};

use crate::common::{KEY, deployment, encrypted, quantization};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/models")
}

/// Inputs and PyTorch's outputs, one row each.
fn expected(name: &str) -> [Array2<f32>; 2] {
    let weights = Weights::read(folder().join(name).with_extension("safetensors")).unwrap();
    ["inputs", "outputs"].map(|part| {
        let tensor = &weights.tensors[part];
        let rows = tensor.shape().dims()[0];
        Array2::from_shape_vec((rows, tensor.data().len() / rows), tensor.data().to_vec()).unwrap()
    })
}

fn worst(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Imports one file, and compares its outputs with PyTorch's, its fixed-point logits with its own, and, if it is small,
/// those on ciphertexts with those in the clear.
fn import(file: &str, on_ciphertexts: bool) -> Imported {
    let imported = Imported::read(folder().join(file)).unwrap();
    println!("{file}\n{}\n", imported.report);
    let [inputs, mut outputs] = expected(file.split('.').next().unwrap());
    let mut model = imported.model.clone();
    let found = model.forward(inputs.view()).unwrap();
    if !imported.report.notes.is_empty() {
        outputs.mapv_inplace(f32::exp);
    }
    let distance = worst(found.view(), outputs.view());
    assert!(
        distance < 1e-5 * outputs.iter().fold(1.0, |largest: f32, x| largest.max(x.abs())),
        "{file}: {distance} from PyTorch's"
    );

    model.calibrate(inputs.view()).unwrap();
    let finer = Quantization { weight_bits: 13, activation_bits: Some(13), ..quantization() };
    let program = model.compile(&finer, &deployment(&KEY, 1)).unwrap();
    let fixed = program.run_clear(inputs.view()).unwrap().logits;
    let float = model.logits(inputs.view()).unwrap();
    let off = fixed.iter().zip(&float).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
    let largest = f64::from(float.iter().fold(0.0_f32, |largest, x| largest.max(x.abs())));
    println!(
        "{file}: {distance:.1e} from PyTorch's outputs; fixed point {off:.4} from float, of up to {largest:.1}"
    );
    assert!(off < 0.01 * largest, "{file}: fixed point is {off} from float");
    if on_ciphertexts {
        encrypted(model, &quantization(), &KEY, (1, inputs.slice(ndarray::s![..1, ..])));
    }
    imported
}

#[test]
fn lenet5_of_both_exporters() {
    for (file, opset) in [("lenet5.dynamo.onnx", 18), ("lenet5.script.onnx", 9)] {
        let Imported { model, report } = import(file, true);
        assert_eq!((report.opset, model.parameter_count()), (opset, 5_910));
        assert!(model.ends_in_softmax());
        let layers: Vec<&str> =
            model.layers().filter(|(_, l)| l.has_parameters()).map(|(name, _)| name).collect();
        assert_eq!(layers, ["conv1", "conv2", "fc1", "fc2", "fc3"]);
    }
}

#[test]
fn a_vgg_like_network_with_batch_norm_dropout_and_log_softmax() {
    for file in ["vgg.dynamo.onnx", "vgg.script.onnx"] {
        let Imported { report, .. } = import(file, false);
        assert!(report.notes[0].contains("logarithms"), "{:?}", report.notes);
    }
}

#[test]
fn resnet20_with_shortcuts_of_slices_and_zeros() {
    for file in ["resnet20.dynamo.onnx", "resnet20.script.onnx"] {
        import(file, false);
    }
}

#[test]
fn a_mobile_network_with_relu6_depthwise_and_dilated_convolutions() {
    for file in ["mobilenet.dynamo.onnx", "mobilenet.script.onnx"] {
        import(file, true);
    }
}

#[test]
fn squeeze_and_excitation_with_activations_that_are_spelled_out() {
    for file in ["squeeze_excite.dynamo.onnx", "squeeze_excite.script.onnx"] {
        let Imported { report, .. } = import(file, true);
        let mut erfs = report.operators.iter().filter(|one| one.operator == "Erf");
        assert!(erfs.all(|one| matches!(&one.became, Became::PartOf(_))));
    }
}

#[test]
fn a_perceptron_with_weights_beside_its_file() {
    assert!(folder().join("mlp.dynamo.onnx.data").exists());
    for file in ["mlp.dynamo.onnx", "mlp.script.onnx"] {
        import(file, true);
    }
}
