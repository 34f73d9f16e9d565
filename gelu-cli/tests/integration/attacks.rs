//! `gelu attack`, as a user runs it.

use std::process::Command;

use serde_json::Value;

fn attack(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_gelu")).arg("attack").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_server_reconstructs_images_without_masks_and_noise_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let object = attack(&["reconstruct", "--count", "2", "--out", path, "--json"]);
    for image in object["correlations"].as_array().unwrap() {
        let [open, masked] = ["without_masks", "with_masks"]
            .map(|which| ["direct", "inverted"].map(|how| image[which][how].as_f64().unwrap()));
        assert!(open[0] > 0.99 && open[1] > 0.4, "{image}");
        // 784 pixels: a standard deviation of 0.036.
        assert!(masked[0].abs() < 0.2 && masked[1].abs() < 0.2, "{image}");
    }
    let picture = image::open(folder.path().join("reconstruct.png")).unwrap();
    assert_eq!((picture.width(), picture.height()), (5 * 240, 2 * 240));
}

#[test]
fn a_client_extracts_a_layer_past_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let object = attack(&["extract", "--inputs", "20", "--outputs", "7", "--out", path, "--json"]);
    assert_eq!((&object["past"]["recovered"], &object["past"]["of"]), (&147.into(), &147.into()));
    assert_eq!((&object["below"]["solved"], &object["below"]["rank"]), (&false.into(), &20.into()));
    assert_eq!(object["strict_samples"], 20);
    assert!(image::open(folder.path().join("extract.png")).is_ok());
}

/// What a hidden model's client sees fits no weights, however many queries it makes; one that deviates reads the last layer.
#[test]
fn a_hidden_model_withstands_clients_that_follow_the_protocol_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let sizes = ["extract", "--hide-model", "--inputs", "20", "--outputs", "7", "--json"];
    let object = attack(&[&sizes[..], &["--out", path]].concat());
    assert_eq!(object["shown_sums"], serde_json::json!({ "recovered": 140, "of": 140 }));
    assert_eq!(object["masks_and_shares"]["solved"], false);
    assert_eq!(object["inputs_and_shares"]["solved"], false);
    let [found, noise] =
        ["correlation", "noise"].map(|which| object["masks_and_shares"][which].as_f64().unwrap());
    // Five standard deviations.
    assert!(found.abs() < 5.0 * noise, "{object}");
    assert!(image::open(folder.path().join("extract.png")).is_ok());
    let object = attack(&[&sizes[..], &["--deviate"]].concat());
    assert_eq!((&object["recovered"], &object["of"]), (&14.into(), &14.into()));
    assert_eq!(object["queries"], 8);
}
