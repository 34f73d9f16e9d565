//! Lesson 7: a model file and real medical pictures: chest X-rays, classified on ciphertexts, and judged by their AUC.
//!
//!     cargo run --release --example 07_chest_xrays [COUNT]
//!
//! `models/pneumonia.safetensors` is a residual network of 8 layers, trained by `gelu train` on PneumoniaMNIST (Yang et
//! al., MedMNIST v2; pictures of Kermany et al., CC BY 4.0; 28x28). The pictures are looked for in `pneumoniamnist/` below the
//! folder that `GELU_DATA` names.

use std::path::Path;

use gelu_net::io::data::{DataDir, KnownSet, ReadOptions};
use gelu_net::models::train::{ConfusionMatrix, area_under_curve};
use gelu_net::prelude::*;
use gelu_net::tensor::paillier::KeyParameters;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(96), |count| count.parse())?;

    // The file holds the whole model: its graph, weights and ranges, how pixels are prepared, and the names of the classes.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pneumonia.safetensors");
    let model = Model::from_weights(&Weights::read(file)?)?;
    println!(
        "{} inputs to {:?}: {:?}",
        model.input_shape(),
        model.info().classes,
        model.info().preprocessing
    );

    let known = KnownSet::by_name("pneumoniamnist").ok_or("a known data set")?;
    let path = match DataDir::locate(None).find(known) {
        Ok(path) => path,
        Err(error) => {
            println!("skipped: {error}");
            return Ok(());
        }
    };
    // The test part, prepared as the model's file says.
    let outputs = model.output_shape().elements();
    let set = known.read(&path, &ReadOptions::default())?;
    let mut xrays = set.for_model(model.info(), model.input_shape(), outputs)?;
    xrays.truncate(count);

    // A hospital has the key and the pictures, a server the model; only encoded bytes go between them.
    let parameters = KeyParameters { size: KeyBits::Bits2048, key_type: KeyType::Subgroup };
    let key = SecretKey::generate(parameters, &mut rand::rng())?;
    let local = LocalInference::new(ServerModel::new(model, Quantization::default()), key, 48);
    let report = local.run(xrays.inputs.view(), &mut rand::rng(), |done| println!("{done} classified"))?;

    let labels: Vec<usize> = xrays.labels.iter().copied().flatten().collect();
    let matrix =
        ConfusionMatrix::new(outputs, labels.iter().copied().zip(report.predictions.iter().copied()));
    let scores: Vec<(f64, bool)> =
        report.outputs.column(1).iter().copied().zip(labels.iter().map(|&label| label == 1)).collect();
    println!("{} of {} correct", matrix.correct(), matrix.total());
    for (label, row) in xrays.classes.iter().zip(matrix.counts()) {
        println!("  {label}: classified as {:?} {row:?} times", xrays.classes);
    }
    if let Some(area) = area_under_curve(&scores) {
        println!("area under the ROC curve {area:.4}");
    }
    println!(
        "{:.1} s, {:.0} ms a picture",
        report.seconds,
        1e3 * report.seconds / report.predictions.len() as f64
    );
    Ok(())
}
