//! The integers' accuracy on real MNIST, where `GELU_DATA` points to it.

use gelu_net::io::data::{DataDir, Split};
use gelu_net::prelude::*;

use crate::common::{pixels, quantization, shipped};

fn classes(logits: impl IntoIterator<Item = Vec<f64>>) -> Vec<usize> {
    let largest = |row: Vec<f64>| (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
    logits.into_iter().map(largest).collect()
}

/// Over all 10,000 test images: within 0.05 points of the real network, and at least 99.9 % the same predictions; 99.7 % (of
/// Conv-1 99.5 %) where the network was trained to values of few bits, which reals do not have.
#[test]
fn fixed_point_is_as_accurate_as_the_real_network() {
    if std::env::var_os("GELU_DATA").is_none() {
        println!("skipped: GELU_DATA is not set");
        return;
    }
    let test = DataDir::locate(None).mnist(Split::Test).unwrap();
    assert_eq!(test.len(), 10_000);
    let images = pixels(test.images());
    for name in ["conv1", "lenet5"] {
        let model = shipped(name);
        let float = model.logits(images.view()).unwrap();
        let float = classes(float.outer_iter().map(|row| row.iter().map(|&x| f64::from(x)).collect()));
        let right = |found: &[usize]| {
            let pairs = found.iter().zip(test.labels());
            pairs.filter(|(found, label)| **found == usize::from(**label)).count()
        };
        // The bits that come with the weights, and those of any others.
        for quantization in [Quantization::default(), quantization()] {
            let fixed = model
                .compile(&quantization, &Deployment::default())
                .unwrap()
                .run_clear(images.view())
                .unwrap();
            let predictions = fixed.predictions();
            let same = predictions.iter().zip(&float).filter(|(a, b)| a == b).count();
            let (right_fixed, right_float) = (right(&predictions), right(&float));
            println!(
                "{name}: {right_fixed} right on integers, {right_float} on reals, {same} the same, {} values clamped",
                fixed.saturations.total()
            );
            assert!(right_fixed.abs_diff(right_float) <= 5, "{name}");
            // The network on reals rounds nothing, for which few bits were not trained.
            let is_coarse = quantization.activation_bits.is_none() && !model.formats().is_empty();
            let least = match (is_coarse, name) {
                (false, _) => 9_990,
                (true, "conv1") => 9_950,
                (true, _) => 9_970,
            };
            assert!(same >= least, "{name}");
        }
    }
}
