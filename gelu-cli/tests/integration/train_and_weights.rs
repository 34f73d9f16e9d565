//! `gelu train` and `gelu weights`, as a user runs them.

use std::fs;
use std::process::Command;

use gelu_io::data::{DataDir, Split};
use gelu_io::weights::{Dtype, WeightsFile};
use gelu_models::{Ranges, Weights};

use crate::common::{data, fail, killed_keeping, project, succeed, weights_file};

const TRAIN: [&str; 11] = [
    "train",
    "--clear",
    "--model",
    "mlp:6,5",
    "--dataset",
    "iris",
    "--epochs",
    "40",
    "--batch-size",
    "8",
    "--json",
];

#[test]
fn training_prints_one_json_object_and_writes_weights() {
    let data = data();
    let [out, plot] = ["mlp.safetensors", "curves.svg"].map(|name| data.path().join(name));
    let files = ["--out", out.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let output = succeed(&[&TRAIN[..], &files].concat(), data.path());
    assert!(fs::read_to_string(plot).unwrap().contains("</svg>"));
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["epochs"].as_array().unwrap().len(), 40);
    assert_eq!(report["train_images"], 48);
    assert!(report["test"]["accuracy"].as_f64().unwrap() > 0.8, "{report}");

    let listing = succeed(&["weights", "inspect", "--json", out.to_str().unwrap()], data.path());
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(listing["tensors"].as_array().unwrap().len(), 6);
    let ranges: Ranges = serde_json::from_str(listing["metadata"]["gelu.ranges"].as_str().unwrap()).unwrap();
    for value in ["input", "relu1", "relu2"] {
        assert!(ranges.get(value).is_some_and(|range| range > 0.0), "{value}: {ranges:?}");
    }
}

#[test]
fn an_interrupted_run_taken_up_again_gives_the_same_weights() {
    let data = data();
    let [whole, resumed] = ["whole", "resumed"].map(|name| data.path().join(format!("{name}.safetensors")));
    let folder = data.path().join("run");
    let long = [&TRAIN[..], &["--epochs=400", "--checkpoint-dir", folder.to_str().unwrap()]].concat();
    killed_keeping(&long, data.path(), &folder.join("checkpoint.safetensors"));

    let resume = [&long[..], &["--resume", "--out", resumed.to_str().unwrap()]].concat();
    let report: serde_json::Value = serde_json::from_str(&succeed(&resume, data.path())).unwrap();
    assert_eq!(report["epochs"].as_array().unwrap().len(), 400);
    succeed(&[&TRAIN[..], &["--epochs=400", "--out", whole.to_str().unwrap()]].concat(), data.path());
    assert_eq!(fs::read(&whole).unwrap(), fs::read(&resumed).unwrap());

    let other = fail(&[&resume[..], &["--lr", "0.1"]].concat(), data.path(), 1);
    assert!(other.contains("another run"), "{other}");
}

#[test]
fn weights_of_few_bits_are_trained_and_run_with_those_bits() {
    let data = data();
    let out = data.path().join("few.safetensors");
    let out_file = out.to_str().unwrap();
    let bits = ["--weight-bits", "3", "--layer-bits", "fc2=2", "--activation-bits", "4", "--input-bits", "6"];
    let train = [&TRAIN[..], &bits, &["--out", out_file]].concat();
    let report: serde_json::Value = serde_json::from_str(&succeed(&train, data.path())).unwrap();
    assert!(report["test"]["accuracy"].as_f64().unwrap() > 0.8, "{report}");
    let few = Weights::read(&out).unwrap();
    assert_eq!(few.metadata["gelu.layer_bits"], r#"{"fc1":3,"fc2":2,"fc3":3}"#);
    assert!(few.metadata["gelu.command"].contains(&bits.join(" ")));
    let formats: serde_json::Value = serde_json::from_str(&few.metadata["gelu.formats"]).unwrap();
    let bounds = ["input", "relu1", "relu2"].map(|name| &formats[name]["bound"]);
    assert_eq!(bounds, [64, 15, 15], "{formats}");
    // Integers of two bits times a power of two.
    let mut sizes: Vec<f32> = few.tensors["fc2.weight"].data().to_vec();
    sizes.sort_by(f32::total_cmp);
    sizes.dedup();
    assert!(sizes.len() <= 4, "{sizes:?}");
    let infer = ["infer", "--model", out_file, "--dataset", "iris", "--key-bits", "1024", "--json"];
    let run: serde_json::Value = serde_json::from_str(&succeed(&infer, data.path())).unwrap();
    assert!(run["accuracy"].as_f64().unwrap_or(1.0) > 0.8, "{run}");

    let none = [&TRAIN[..], &["--layer-bits", "fc9=3"]].concat();
    assert!(fail(&none, data.path(), 1).contains("no layer of that name"));
    for option in ["--weight-bits", "--activation-bits", "--input-bits"] {
        assert!(fail(&[&TRAIN[..], &[option, "1"]].concat(), data.path(), 1).contains("2 to 24"));
    }
}

#[test]
fn wrong_usage_says_what_to_do() {
    let data = data();
    assert!(fail(&["train", "--model", "mlp:12", "--fixed"], data.path(), 2).contains("--clear"));
    assert!(
        fail(&["train", "--clear", "--model", "lenet6", "--dataset", "iris"], data.path(), 1)
            .contains("lenet5")
    );
    assert!(fail(&[&TRAIN[..], &["--resume"]].concat(), data.path(), 2).contains("--checkpoint-dir"));
    let mismatch = ["train", "--clear", "--model", "lenet5", "--dataset", "iris"];
    assert!(fail(&mismatch, data.path(), 1).contains("--model mlp"));
    assert!(
        fail(&[&TRAIN[..], &["--lr", "0"]].concat(), data.path(), 1).contains("expected above 0, found 0")
    );
}

#[test]
fn shipped_weights_can_be_inspected_exported_and_imported() {
    let folder = tempfile::tempdir().unwrap();
    let [half, back] = ["half", "back"].map(|name| folder.path().join(format!("{name}.safetensors")));
    let [half, back] = [half.to_str().unwrap(), back.to_str().unwrap()];
    for model in ["lenet5", "conv1"] {
        let shipped = weights_file(model).display().to_string();
        assert!(succeed(&["weights", "inspect", &shipped], folder.path()).contains("conv1.weight"));
        succeed(&["weights", "export", &shipped, "--out", half, "--dtype", "f16"], folder.path());
        let import = ["weights", "import", half, "--model", model, "--out", back, "--normalize", "0.5,0.5"];
        assert!(succeed(&import, folder.path()).contains("conv1.weight"));
        let listing = succeed(&["weights", "inspect", back], folder.path());
        // Ranges of the other scale are not kept.
        let ranges =
            |text: &str| text.lines().find(|line| line.starts_with("gelu.ranges")).map(str::to_owned);
        let before = ranges(&succeed(&["weights", "inspect", &shipped], folder.path()));
        assert!(listing.contains("F32") && ranges(&listing).is_some(), "{listing}");
        assert_ne!(ranges(&listing), before);
        assert!(listing.contains(r#""folded":{"mean":[0.5],"std":[0.5]}"#), "{listing}");
        let twice = ["weights", "import", back, "--model", model, "--out", half, "--normalize", "0.5,0.5"];
        assert!(fail(&twice, folder.path(), 1).contains("normalization"));
    }
    let wrong = ["weights", "import", half, "--model", "lenet5", "--out", back];
    let message = fail(&wrong, folder.path(), 1);
    assert!(message.contains("another network than `lenet5`"), "{message}");
    // Weights alone, as PyTorch saves them, are compared name by name.
    let mut alone = Weights::read(half).unwrap();
    alone.metadata.clear();
    alone.write(half, Dtype::F16).unwrap();
    let message = fail(&wrong, folder.path(), 1);
    assert!(message.contains("conv2.weight: expected 16x6x5x5, found no such tensor"), "{message}");
    assert!(message.contains("fc1.weight: expected 120x256, found 10x180"), "{message}");
}

/// Needs MNIST in one of the folders where `gelu` looks for data sets.
#[test]
fn shipped_weights_are_as_good_as_they_say() {
    let folder = DataDir::locate(None);
    if let Some(missing) = [Split::Train, Split::Test].into_iter().find_map(|split| folder.mnist(split).err())
    {
        eprintln!("skipped: no MNIST ({missing}); set GELU_DATA");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("out.safetensors");
    for (model, file, least) in [
        ("lenet5", "models/lenet5.safetensors", 0.989),
        ("conv1", "models/conv1.safetensors", 0.975),
        ("lenet5", "reports/lenet5-private/weights.safetensors", 0.989),
    ] {
        let shipped = project().join(file).display().to_string();
        let listing = Command::new(env!("CARGO_BIN_EXE_gelu"))
            .args(["weights", "inspect", "--json", &shipped])
            .output()
            .unwrap();
        let listing: serde_json::Value = serde_json::from_slice(&listing.stdout).unwrap();
        let import =
            ["weights", "import", &shipped, "--model", model, "--calibrate", "mnist", "--json", "--out"];
        let imported = Command::new(env!("CARGO_BIN_EXE_gelu")).args(import).arg(&out).output().unwrap();
        let imported: serde_json::Value = serde_json::from_slice(&imported.stdout).unwrap();

        let accuracy = imported["test_accuracy"].as_f64().unwrap();
        let stated: f64 = listing["metadata"]["gelu.test_accuracy"].as_str().unwrap().parse().unwrap();
        // Another processor adds in another order, which may turn an image or two.
        assert!(accuracy >= least && (accuracy - stated).abs() < 5e-4, "{file}: {accuracy}, stated {stated}");
        let stated: Ranges =
            serde_json::from_str(listing["metadata"]["gelu.ranges"].as_str().unwrap()).unwrap();
        let found: Ranges = serde_json::from_value(imported["ranges"].clone()).unwrap();
        let alike = |(name, s): (&str, f32)| found.get(name).is_some_and(|f| (f - s).abs() < 1e-3 * s);
        assert!(stated.iter().count() > 2);
        assert!(stated.iter().all(alike), "{model}: {found:?}, stated {stated:?}");
    }
}
