//! Runs of `gelu train` that are stopped and taken up again, and folders of checkpoints that are not theirs.

use std::fs;
use std::path::Path;

use crate::common::{data, fail, gelu, succeed};

/// A run in the clear, and one on the integers of private training, that take a moment.
const RUNS: [&[&str]; 2] = [
    &["train", "--clear", "--model", "mlp:8", "--dataset", "iris", "--batch", "8", "--schedule", "constant"],
    &[
        "train",
        "--clear",
        "--fixed",
        "--model",
        "mlp:6",
        "--dataset",
        "iris",
        "--clients",
        "2",
        "--batch",
        "6",
        "--d-max",
        "1",
        "--schedule",
        "constant",
    ],
];

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[cfg(unix)]
mod signals {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;
    use crate::common::keeping;

    /// Runs the command, sends it a signal once it has kept something, and returns its exit code and messages.
    fn stopped_by(
        signal: &str,
        arguments: &[&str],
        folder: &Path,
        checkpoint: &Path,
    ) -> (Option<i32>, String) {
        let mut child = keeping(arguments, folder, checkpoint, Stdio::piped());
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let messages: Vec<String> = lines.map_while(Result::ok).collect();
        (child.wait().unwrap().code(), messages.join("\n"))
    }

    #[test]
    fn a_run_on_floats_that_is_asked_to_stop_is_kept_and_goes_on_to_the_same_weights() {
        stops_and_goes_on([("-INT", RUNS[0]), ("-TERM", RUNS[0])], "checkpoint.safetensors");
    }

    #[test]
    fn a_private_run_that_is_asked_to_stop_is_kept_and_goes_on_to_the_same_weights() {
        let private =
            ["train", "--model", "mlp:6", "--dataset", "iris", "--key-bits", "1024", "--batch", "6"];
        stops_and_goes_on([("-INT", RUNS[1]), ("-TERM", &private)], "private.json");
    }

    fn stops_and_goes_on(cases: [(&str, &[&str]); 2], name: &str) {
        for (signal, run) in cases {
            let data = data();
            let [folder, resumed, whole] = ["run", "resumed", "whole"].map(|name| path(data.path(), name));
            let epochs = if run.contains(&"--clear") { "2000" } else { "30" };
            let long = [run, &["--epochs", epochs]].concat();
            let kept = [&long[..], &["--checkpoint-dir", &folder]].concat();
            let checkpoint = Path::new(&folder).join(name);
            let (code, messages) = stopped_by(signal, &kept, data.path(), &checkpoint);
            assert_eq!(code, Some(130), "{run:?}: {messages}");
            assert!(messages.contains("stopping after this iteration"), "{messages}");
            assert!(messages.contains("the same command with --resume goes on"), "{messages}");

            let output = gelu(&[&kept[..], &["--resume", "--out", &resumed]].concat(), data.path());
            let messages = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && messages.contains("resuming after"), "{messages}");
            let clear: Vec<&str> = match run.contains(&"--clear") {
                true => long,
                false => {
                    let keyless = long.iter().filter(|option| !["--key-bits", "1024"].contains(option));
                    keyless.copied().chain(["--clear", "--fixed"]).collect()
                }
            };
            succeed(&[&clear[..], &["--out", &whole]].concat(), data.path());
            assert_eq!(fs::read(&whole).unwrap(), fs::read(&resumed).unwrap(), "{run:?} {signal}");
        }
    }

    #[test]
    fn a_folder_belongs_to_one_run_at_a_time() {
        let data = data();
        let folder = path(data.path(), "run");
        let kept = [RUNS[0], &["--epochs", "100000", "--checkpoint-dir", &folder]].concat();
        let checkpoint = Path::new(&folder).join("checkpoint.safetensors");
        let mut child = keeping(&kept, data.path(), &checkpoint, Stdio::null());
        assert!(child.try_wait().unwrap().is_none());
        for more in ["--resume", "--force"] {
            let refused = fail(&[&kept[..], &[more]].concat(), data.path(), 1);
            assert!(refused.contains("another run keeps its state there"), "{refused}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let short: Vec<&str> =
            kept.iter().map(|&option| if option == "100000" { "1" } else { option }).collect();
        succeed(&[&short[..], &["--force"]].concat(), data.path());
    }
}

#[test]
fn checkpoints_are_never_overwritten_unasked() {
    let data = data();
    let folder = path(data.path(), "run");
    for (run, other) in [RUNS, [RUNS[1], RUNS[0]]].map(|[run, other]| (run, other)) {
        let with = |run: &[&'static str], more: &[&'static str]| -> Vec<String> {
            let options = ["--epochs", "2", "--checkpoint-dir", &folder];
            run.iter().copied().chain(options).chain(more.iter().copied()).map(str::to_owned).collect()
        };
        let call = |arguments: Vec<String>, code: Option<i32>| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            match code {
                None => succeed(&arguments, data.path()),
                Some(code) => fail(&arguments, data.path(), code),
            }
        };
        call(with(run, &["--force"]), None);
        let files = || -> Vec<(String, Vec<u8>)> {
            let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
            let mut files: Vec<_> = entries
                .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
                .collect();
            files.sort();
            files
        };
        let before = files();
        assert_eq!(before.len(), 2, "the checkpoint and its lock, and not that of the other kind");
        for refused in [with(run, &[]), with(other, &[])] {
            let message = call(refused, Some(1));
            assert!(message.contains("--resume") && message.contains("--force"), "{message}");
        }
        let message = call(with(other, &["--resume"]), Some(1));
        assert!(message.contains("of this kind of run"), "{message}");
        call(with(run, &["--resume", "--force"]), Some(2));
        assert_eq!(files(), before);
        call(with(run, &["--resume"]), None);
    }
    let none = path(data.path(), "none");
    let message =
        fail(&[RUNS[0], &["--epochs", "1", "--checkpoint-dir", &none, "--resume"]].concat(), data.path(), 1);
    assert!(message.contains("found none"), "{message}");
}

#[test]
fn what_differs_from_the_checkpoint_is_named_setting_by_setting() {
    let data = data();
    for run in RUNS {
        let folder = path(data.path(), &format!("run{}", run.len()));
        let kept = [run, &["--epochs", "3", "--checkpoint-dir", &folder]].concat();
        succeed(&kept, data.path());
        let resume = |more: &[&'static str]| fail(&[&kept[..], &["--resume"], more].concat(), data.path(), 1);
        let message = resume(&["--lr", "0.02", "--seed", "9"]);
        assert!(message.contains("--lr: the checkpoint has 0.05, this command 0.02"), "{message}");
        assert!(message.contains("--seed: the checkpoint has 0, this command 9"), "{message}");
        assert!(!message.contains("--model") && !message.contains("training data"), "{message}");
        let message = resume(&["--model", "mlp:7"]);
        assert!(message.contains("--model: the checkpoint has mlp:"), "{message}");
        let message = resume(&["--limit", "20"]);
        assert!(message.contains("--limit: the checkpoint has its default, this command 20"), "{message}");
        let message = resume(&["--epochs", "2"]);
        assert!(message.contains("--epochs: the checkpoint has 3, this command 2"), "{message}");
        let missing = fail(&[&kept[..], &["--resume", "--dataset", "diabetes"]].concat(), data.path(), 1);
        assert!(!missing.contains("resuming"), "{missing}");
    }
    // The same name, and another content.
    let table = data.path().join("table.csv");
    let rows = |first: &str| {
        let rows =
            (0..40).map(|row| format!("{first},{},{}\n", row % 7, if row % 2 == 0 { "a" } else { "b" }));
        format!("x,y,label\n{}", rows.collect::<String>())
    };
    fs::write(&table, rows("1.5")).unwrap();
    let folder = path(data.path(), "table-run");
    let own = ["train", "--clear", "--model", "mlp:3", "--dataset", table.to_str().unwrap(), "--epochs", "1"];
    let kept = [&own[..], &["--checkpoint-dir", &folder]].concat();
    succeed(&kept, data.path());
    fs::write(&table, rows("2.5").replacen("2.5", "9.5", 3)).unwrap();
    let message = fail(&[&kept[..], &["--resume"]].concat(), data.path(), 1);
    assert!(message.contains("training data (SHA-256): the checkpoint has"), "{message}");
    assert!(!message.contains("--dataset:"), "{message}");
}

#[test]
fn a_run_that_is_through_goes_on_for_more_epochs() {
    for run in RUNS {
        let data = data();
        let [folder, raised, whole] = ["run", "raised", "whole"].map(|name| path(data.path(), name));
        succeed(&[run, &["--epochs", "2", "--checkpoint-dir", &folder]].concat(), data.path());
        let more = ["--epochs", "5", "--checkpoint-dir", &folder, "--resume", "--out", &raised];
        let output = gelu(&[run, &more].concat(), data.path());
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && messages.contains("epochs raised from 2 to 5"), "{messages}");
        succeed(&[run, &["--epochs", "5", "--out", &whole]].concat(), data.path());
        // The schedule is constant, so that it does not know how many epochs are to come.
        assert_eq!(fs::read(&whole).unwrap(), fs::read(&raised).unwrap(), "{run:?}");
    }
}

#[test]
fn a_run_from_given_weights_is_taken_up_again_by_the_same_command() {
    let data = data();
    let [first, folder] = ["first.safetensors", "run"].map(|name| path(data.path(), name));
    succeed(&[RUNS[0], &["--epochs", "1", "--out", &first]].concat(), data.path());
    let kept = [RUNS[0], &["--epochs", "2", "--init", &first, "--checkpoint-dir", &folder]].concat();
    succeed(&kept, data.path());
    succeed(&[&kept[..], &["--resume"]].concat(), data.path());
    let without: Vec<&str> =
        kept.iter().copied().filter(|&option| option != "--init" && option != first).collect();
    let message = fail(&[&without[..], &["--resume"]].concat(), data.path(), 1);
    assert!(message.contains("--init: the checkpoint has"), "{message}");
}

#[test]
fn tampered_checkpoints_are_refused() {
    let data = data();
    let folder = path(data.path(), "run");
    let kept = [RUNS[1], &["--epochs", "2", "--checkpoint-dir", &folder]].concat();
    succeed(&kept, data.path());
    let file = Path::new(&folder).join("private.json");
    let text = fs::read_to_string(&file).unwrap();
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    let huge = serde_json::Value::from(u64::MAX);
    for pointer in [
        "/coordinator/turns",
        "/coordinator/iterations",
        "/participants/0/consumed",
        "/participants/1/statistics/images",
        "/participants/1/statistics/clamped",
    ] {
        let mut changed = object.clone();
        *changed.pointer_mut(pointer).unwrap() = huge.clone();
        fs::write(&file, changed.to_string()).unwrap();
        let message = fail(&[&kept[..], &["--resume"]].concat(), data.path(), 1);
        assert!(message.contains("counters"), "{pointer}: {message}");
    }
}

#[test]
fn learning_rates_and_batches_that_private_training_cannot_have_are_refused_or_cut() {
    let data = data();
    let with = |more: &[&'static str]| [RUNS[1], &["--epochs", "1"], more].concat();
    let small = fail(&with(&["--lr", "1e-9"]), data.path(), 1);
    assert!(small.contains("learning rate") && small.contains("the nearest is 0.0000"), "{small}");
    let large = fail(&with(&["--lr", "99"]), data.path(), 1);
    assert!(large.contains("the nearest is 15"), "{large}");
    let batch: Vec<&str> =
        with(&[]).into_iter().map(|option| if option == "6" { "60" } else { option }).collect();
    let output = gelu(&batch, data.path());
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && messages.contains("batches of 24 inputs, not 60"), "{messages}");
}
