//! Options that a command would ignore: each is refused in the modes in which it means nothing, and in no other.

use crate::common::{data, gelu};

/// Options with a value that they take.
const OPTIONS: [(&str, &[&str]); 24] = [
    ("invert", &["yes"]),
    ("count", &["3"]),
    ("split-seed", &["1"]),
    ("tolerance", &["1"]),
    ("label", &["1"]),
    ("labels", &["none.npy"]),
    ("missing", &["mean"]),
    ("test", &["0.5"]),
    ("transpose", &[]),
    ("size", &["28x28"]),
    ("plot", &["none/plot.svg"]),
    ("key-bits", &["1024"]),
    ("key-type", &["subgroup"]),
    ("clients", &["2"]),
    ("d-max", &["3"]),
    ("leakage", &["off"]),
    ("sum-bits", &["48"]),
    ("product-bits", &["12"]),
    ("checkpoint-every", &["5"]),
    ("report", &["none/report"]),
    ("weight-bits", &["3"]),
    ("layer-bits", &["fc1=3"]),
    ("activation-bits", &["4"]),
    ("calibrate", &[]),
];

/// Of one file or folder that is not there, so that nothing runs for long.
const MODES: [(&[&str], &[&str]); 8] = [
    (
        &["plan", "--model", "none.safetensors"],
        &["split-seed", "tolerance", "label", "labels", "missing", "test", "transpose", "size"],
    ),
    (&["plan", "--model", "none.safetensors", "--tune"], &[]),
    (
        &["infer", "--images", "none.png"],
        &["count", "split-seed", "label", "labels", "missing", "test", "transpose", "size", "plot"],
    ),
    (&["infer", "--dataset", "none.csv"], &["invert"]),
    (&["infer", "--dataset", "none.csv", "--key", "none.key"], &["invert", "key-bits", "key-type"]),
    (&["train", "--model", "mlp:2", "--dataset", "none.csv", "--checkpoint-dir", "none"], &[]),
    (
        &["train", "--clear", "--model", "mlp:2", "--dataset", "none.csv", "--checkpoint-dir", "none"],
        &[
            "key-bits",
            "key-type",
            "clients",
            "d-max",
            "leakage",
            "sum-bits",
            "product-bits",
            "report",
            "calibrate",
        ],
    ),
    (
        &[
            "train",
            "--clear",
            "--fixed",
            "--model",
            "mlp:2",
            "--dataset",
            "none.csv",
            "--checkpoint-dir",
            "none",
        ],
        &["key-bits", "key-type", "weight-bits", "layer-bits", "activation-bits", "input-bits"],
    ),
];

#[test]
fn every_option_is_refused_where_it_would_be_ignored_and_nowhere_else() {
    let folder = data();
    for (mode, ignored) in MODES {
        for (option, values) in OPTIONS {
            let name = format!("--{option}");
            let output = gelu(&[mode, &[&name], values].concat(), folder.path());
            let message = String::from_utf8(output.stderr).unwrap();
            // What is no option of the command at all is wrong usage.
            let is_refused = message.contains(&format!("{name} would change nothing"))
                || message.contains("the argument '--key <FILE.key>' cannot be used with");
            assert_eq!(is_refused, ignored.contains(&option), "{mode:?} {name}: {message}");
            assert!(!output.status.success(), "{mode:?} {name}");
        }
    }
}
