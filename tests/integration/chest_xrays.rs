//! The medical model that this project ships is as good as it says, where its data set is there.

use std::path::Path;

use gelu_net::io::data::{DataDir, KnownSet, ReadOptions};
use gelu_net::models::train::area_under_curve;
use gelu_net::prelude::*;

#[test]
fn chest_xrays_are_told_apart_as_well_in_fixed_point_as_on_reals() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/pneumonia.safetensors");
    let model = Model::from_weights(&Weights::read(file).unwrap()).unwrap();
    assert_eq!(model.info().classes, ["normal", "pneumonia"]);
    let known = KnownSet::by_name("pneumoniamnist").unwrap();
    let Ok(path) = DataDir::locate(None).find(known) else {
        eprintln!("skipped: no PneumoniaMNIST; set GELU_DATA");
        return;
    };
    let set = known.read(&path, &ReadOptions::default()).unwrap();
    let xrays = set.for_model(model.info(), model.input_shape(), 2).unwrap();
    let labels: Vec<usize> = xrays.labels.iter().map(|label| label.unwrap()).collect();
    assert_eq!(labels.len(), 624);
    let program = model.compile(&Quantization::default(), &Deployment::default()).unwrap();
    let fixed = program.run_clear(xrays.inputs.view()).unwrap();
    let floats = model.logits(xrays.inputs.view()).unwrap().mapv(f64::from);
    for (name, logits) in [("fixed point", &fixed.logits), ("reals", &floats)] {
        let scores: Vec<f64> = logits.outer_iter().map(|row| row[1] - row[0]).collect();
        let pairs = || scores.iter().copied().zip(&labels);
        let correct = pairs().filter(|(score, label)| (*score > 0.0) == (**label == 1)).count();
        let judged: Vec<(f64, bool)> = pairs().map(|(score, label)| (score, *label == 1)).collect();
        // What the data set's authors report for ResNet-18 at this size.
        let (accuracy, area) = (correct as f64 / 624.0, area_under_curve(&judged).unwrap());
        assert!(accuracy >= 0.854 && area >= 0.944, "{name}: accuracy {accuracy}, AUC {area}");
    }
}
