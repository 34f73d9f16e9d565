//! Where `gelu` writes, and what it says when it cannot.

#![cfg(unix)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::{data, fail, weights_file};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gelu"));
    command.args(arguments).env_remove("GELU_DATA");
    command
}

fn stderr(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Standard error of a command that fails with exit code 1.
fn failure(arguments: &[&str]) -> String {
    let output = command(arguments).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty());
    text
}

fn success(arguments: &[&str]) -> Output {
    let output = command(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    output
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    for arguments in [&["plan"][..], &["--help"], &["train", "--help"], &["plan", "--json"]] {
        // Closed before the command begins, so that it cannot be done by then.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(arguments).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert_eq!(stderr(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    for arguments in [&["plan"][..], &["plan", "--json"], &["data", "--data", "/nowhere"]] {
        let output = command(arguments).stdout(full.try_clone().unwrap()).output().unwrap();
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.starts_with("error: standard output: cannot write: No space left"), "{text}");
    }
    let help = command(&["--help"]).stdout(full.try_clone().unwrap()).output().unwrap();
    assert_eq!(help.status.code(), Some(1));
    // Notes that cannot be written stop nothing.
    let noted = command(&["plan", "--key-bits", "1024"]).stderr(full).output().unwrap();
    assert!(noted.status.success() && !noted.stdout.is_empty());
}

#[test]
fn outputs_are_checked_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let (nowhere, file) = (folder.path().join("nowhere/file"), folder.path().join("file"));
    fs::write(&file, "x").unwrap();
    let (nowhere, here, file) = (text(&nowhere), text(folder.path()), text(&file));
    let below = format!("{file}/below");
    let weights = weights_file("conv1");
    let weights = text(&weights);
    // Data sets are missing: only a check that comes before the work names the output.
    let data = ["--data", "/nowhere-at-all"];
    let train =
        |rest: &[&str]| failure(&[&["train", "--clear", "--model", "conv1"], &data[..], rest].concat());
    let train_privately =
        |rest: &[&str]| failure(&[&["train", "--model", "conv1"], &data[..], rest].concat());
    for (message, path) in [
        (train(&["--out", nowhere]), nowhere),
        (train(&["--out", "."]), "."),
        (train(&["--plot", here]), here),
        (train(&["--checkpoint-dir", file]), file),
        (train_privately(&["--out", ".."]), ".."),
        (train_privately(&["--report", file]), file),
        (failure(&["demo", "--out", file]), file),
        (failure(&["demo", "--out", &below]), &below),
        (failure(&["weights", "export", weights, "--out", here]), here),
        (failure(&["weights", "import", weights, "--model", "conv1", "--out", nowhere]), nowhere),
        (
            failure(&[
                "plan",
                "--weights",
                "/none",
                "--tune",
                "--save",
                nowhere,
                "--data",
                "/nowhere-at-all",
            ]),
            nowhere,
        ),
        (failure(&["bench", "--svg", here]), here),
        (failure(&["attack", "extract", "--out", file]), file),
        (failure(&["attack", "reconstruct", "--out", &below]), &below),
        (failure(&["keygen", "--out", &format!("{nowhere}/key")]), nowhere),
        (
            failure(&[
                "infer",
                "--model",
                "conv1",
                "--weights",
                "/none",
                "--images",
                "/none.png",
                "--save-inputs",
                file,
            ]),
            file,
        ),
    ] {
        assert!(message.starts_with(&format!("error: {path}")), "{path} should be named first: {message}");
        // The system's answer, once.
        assert_eq!(
            message.matches("os error").count() + message.matches("is a directory").count(),
            1,
            "{message}"
        );
    }
    assert_eq!(names(folder.path()), ["file"]);
}

#[test]
fn links_permissions_and_special_files_are_respected() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let weights = weights_file("conv1");
    let export = |out: &Path| success(&["weights", "export", text(&weights), "--out", text(out)]);
    fs::write(path("real"), "old").unwrap();
    fs::set_permissions(path("real"), Permissions::from_mode(0o600)).unwrap();
    symlink("real", path("link")).unwrap();
    export(&path("link"));
    assert!(path("link").is_symlink());
    let written = fs::read(path("real")).unwrap();
    assert!(written.len() > 1000);
    assert_eq!(fs::metadata(path("real")).unwrap().permissions().mode() & 0o777, 0o600);

    // Standard output as a pipe, and as a file with something in it already.
    let piped = export(Path::new("/dev/stdout"));
    assert!(piped.stdout.starts_with(&written));
    fs::write(path("log"), "before\n").unwrap();
    let log = File::options().append(true).open(path("log")).unwrap();
    let arguments = ["weights", "export", text(&weights), "--out", "/dev/stdout"];
    assert!(command(&arguments).stdout(log).status().unwrap().success());
    let log = fs::read(path("log")).unwrap();
    assert!(log.starts_with(b"before\n") && log[7..].starts_with(&written));

    let pipe = path("pipe");
    if Command::new("mkfifo").arg(&pipe).status().is_ok_and(|status| status.success()) {
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || {
                let mut bytes = vec![];
                File::open(pipe).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            }
        });
        export(&pipe);
        assert_eq!(reader.join().unwrap(), written);
        assert!(!pipe.is_file());
    }
}

#[test]
fn paths_that_are_not_utf_8_work_with_json() {
    let folder = tempfile::tempdir().unwrap();
    let name = |ending: &str| {
        let mut name = folder.path().join(OsStr::from_bytes(b"b\xe4r")).into_os_string();
        name.push(ending);
        name
    };
    let run = |arguments: &[&str], path: &OsStr| -> Value {
        let output = command(arguments).arg(path).arg("--json").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let made = run(&["keygen", "--key-bits", "1024", "--out"], &name(""));
    assert!(made["secret"].as_str().unwrap().ends_with("r.key"));
    let weights = weights_file("conv1");
    run(&["weights", "export", text(&weights), "--out"], &name(".safetensors"));
    run(&["weights", "import", text(&weights), "--model", "conv1", "--out"], &name(".2.safetensors"));
    run(&["weights", "inspect"], &name(".safetensors"));
    run(&["data", "--data"], &name(""));
    assert_eq!(names(folder.path()).len(), 4);
}

#[test]
fn a_key_that_others_can_read_is_refused_unless_told_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().join("clinic");
    success(&["keygen", "--key-bits", "1024", "--out", text(&name)]);
    let key = name.with_extension("key");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let picture = folder.path().join("one.png");
    let stroke =
        |x: u32, y: u32| image::Luma([if (22..28).contains(&x) && (8..44).contains(&y) { 0 } else { 255 }]);
    image::GrayImage::from_fn(50, 52, stroke).save(&picture).unwrap();
    let weights = weights_file("conv1");
    let infer = ["infer", "--model", "conv1", "--weights", text(&weights), "--key", text(&key)];
    let infer = [&infer[..], &["--images", text(&picture)]].concat();
    let message = failure(&infer);
    for part in ["clinic.key", "0644", "chmod 600", "--exposed-key takes"] {
        assert!(message.contains(part), "{part} should be in: {message}");
    }
    success(&[&infer[..], &["--exposed-key"]].concat());
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    success(&infer);
}

#[test]
fn negative_values_are_taken_for_values() {
    let weights = weights_file("conv1");
    let infer = ["infer", "--model", "conv1", "--weights", text(&weights), "--dataset", "mnist"];
    let output = command(&[&infer[..], &["--count", "-5"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("invalid value '-5' for '--count"), "{}", stderr(&output));
    let folder = data();
    let train =
        ["train", "--clear", "--model", "mlp:3", "--dataset", "iris", "--epochs", "1", "--lr", "-0.5"];
    let text = fail(&train, folder.path(), 1);
    assert!(text.contains("expected") && text.contains("-0.5"), "{text}");
}
