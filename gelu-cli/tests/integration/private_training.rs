//! `gelu train` without `--clear`, as a user runs it.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{data, fail, gelu, killed_keeping, succeed};

/// Both sides on ciphertexts, with keys that are too short for anything but tests.
const PRIVATE: [&str; 16] = [
    "train",
    "--model",
    "mlp:6",
    "--dataset",
    "iris",
    "--clients",
    "3",
    "--epochs",
    "8",
    "--batch",
    "6",
    "--lr",
    "0.1",
    "--key-bits",
    "1024",
    "--json",
];

/// The same on integers in the clear, where there are no keys.
fn clear(arguments: &[&str]) -> Vec<String> {
    let keyless = arguments.iter().filter(|argument| !["--key-bits", "1024"].contains(argument));
    keyless.chain(&["--clear", "--fixed"]).map(|&argument| argument.to_owned()).collect()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn batches_that_leave_slots_empty_are_pointed_out() {
    let data = data();
    let told = |arguments: &[String]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = gelu(&[&arguments[..], &["--clients", "1", "--epochs", "1"]].concat(), data.path());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap().contains("30 inputs fill a ciphertext")
    };
    let private = PRIVATE.map(str::to_owned);
    assert!(told(&private));
    assert!(!told(&private.map(|argument| if argument == "6" { "30".to_owned() } else { argument })));
    assert!(!told(&clear(&PRIVATE)));
}

#[test]
fn private_training_learns_and_reports_and_equals_the_clear_run() {
    let data = data();
    let [private, fixed, report] = ["private", "fixed", "report"].map(|name| path(data.path(), name));
    let printed = succeed(&[&PRIVATE[..], &["--out", &private, "--report", &report]].concat(), data.path());
    let object: Value = serde_json::from_str(&printed).unwrap();
    for key in [
        "model",
        "dataset",
        "clients",
        "epochs",
        "iterations",
        "images",
        "images_per_second",
        "train_accuracy",
        "test_accuracy",
        "seconds",
        "bytes_up",
        "bytes_down",
        "clamped",
        "key_bits",
        "sum_bits",
        "product_bits",
        "ledger",
    ] {
        assert!(!object[key].is_null(), "{key}");
    }
    for part in ["server", "client", "steps"] {
        assert!(object["seconds"][part].as_f64().unwrap() > 0.0);
    }
    assert_eq!(
        (&object["images"], &object["iterations"], &object["key_bits"]),
        (&384.into(), &64.into(), &1024.into())
    );
    assert!(object["test_accuracy"].as_f64().unwrap() > 0.8, "{object}");
    assert_eq!(object["ledger"]["entries"].as_array().unwrap().len(), 6);

    let mut arguments = clear(&PRIVATE);
    arguments.extend(["--out".to_owned(), fixed.clone()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let clear: Value = serde_json::from_str(&succeed(&arguments, data.path())).unwrap();
    assert_eq!(fs::read(&private).unwrap(), fs::read(&fixed).unwrap());
    for key in ["iterations", "images", "train_accuracy", "test_accuracy", "clamped", "turns", "ledger"] {
        assert_eq!(object[key], clear[key], "{key}");
    }

    let text = fs::read_to_string(Path::new(&report).join("report.md")).unwrap();
    for expected in ["What crossed", "corrections", "What clients have seen", "fc1", "curves.svg"] {
        assert!(text.contains(expected), "{expected}");
    }
    assert!(fs::read_to_string(Path::new(&report).join("curves.svg")).unwrap().contains("</svg>"));
    let kept = fs::read(Path::new(&report).join("weights.safetensors")).unwrap();
    assert_eq!(kept, fs::read(&private).unwrap());
}

#[test]
fn a_private_run_that_was_killed_goes_on_to_the_same_weights() {
    let data = data();
    let [whole, resumed, folder] = ["whole", "resumed", "run"].map(|name| path(data.path(), name));
    let keep = ["--epochs", "20", "--checkpoint-dir", &folder, "--checkpoint-every", "0"];
    let long: Vec<&str> =
        PRIVATE.iter().copied().filter(|&a| a != "8" && a != "--epochs").chain(keep).collect();
    let checkpoint = Path::new(&folder).join("private.json");
    killed_keeping(&long, data.path(), &checkpoint);

    // What a write that was cut short leaves beside it is not in its way.
    fs::write(Path::new(&folder).join(".gelu-cut.tmp"), "{\"run\":").unwrap();
    let output = gelu(&[&long[..], &["--resume", "--out", &resumed]].concat(), data.path());
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && messages.contains("resuming after"), "{messages}");
    let mut arguments = clear(&long[..long.len() - 4]);
    arguments.extend(["--out".to_owned(), whole.clone()]);
    succeed(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), data.path());
    assert_eq!(fs::read(&whole).unwrap(), fs::read(&resumed).unwrap());

    let other = fail(&[&long[..], &["--resume", "--seed", "9"]].concat(), data.path(), 1);
    assert!(other.contains("another run"), "{other}");
    let bytes = fs::read(&checkpoint).unwrap();
    fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    let cut = fail(&[&long[..], &["--resume"]].concat(), data.path(), 1);
    assert!(cut.contains("private.json") && cut.contains("checkpoint"), "{cut}");
}

#[test]
fn wrong_usage_says_what_to_do() {
    let data = data();
    let with = |more: &[&'static str]| [&PRIVATE[..], more].concat();
    let strict = fail(&with(&["--leakage", "strict"]), data.path(), 1);
    assert!(
        strict.contains("fc1") && strict.contains("6 linear equations") && strict.contains("5 unknown"),
        "{strict}"
    );
    assert!(fail(&with(&["--d-max", "99"]), data.path(), 1).contains("1 to 5 iterations"));
    assert!(fail(&with(&["--d-max", "0"]), data.path(), 2).contains("auto"));
    assert!(fail(&with(&["--sum-bits", "57"]), data.path(), 2).contains("24..=56"));
    assert!(fail(&with(&["--leakage", "none"]), data.path(), 2).contains("strict"));
    assert!(fail(&with(&["--weight-decay", "0.1"]), data.path(), 1).contains("weight decay"));
    assert!(fail(&with(&["--resume"]), data.path(), 2).contains("--checkpoint-dir"));
    let warned = gelu(&PRIVATE, data.path());
    let warned = String::from_utf8(warned.stderr).unwrap();
    assert!(warned.contains("warning") && warned.contains("fc1") && warned.contains("fc2"), "{warned}");
}
