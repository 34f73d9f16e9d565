//! `gelu bench`, as a user runs it.

use std::fs;

use assert_cmd::Command;
use serde_json::Value;

use crate::common;

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("gelu").unwrap();
    command.arg("bench").args(arguments).env_remove("GELU_DATA").current_dir(common::project());
    command
}

/// The smallest that shows everything.
const QUICK: [&str; 8] = ["--model", "conv1", "--key-bits", "1024", "--runs", "1", "--threads", "2"];

fn stderr(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn figures_come_as_json_and_can_be_compared() {
    let folder = tempfile::tempdir().unwrap();
    let (before, chart) = (folder.path().join("before.json"), folder.path().join("layers.svg"));
    let output = bench(&[&QUICK[..], &["--json"]].concat()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let plan = Command::cargo_bin("gelu")
        .unwrap()
        .args(["plan", "--model", "conv1", "--key-bits", "1024", "--json"])
        .output()
        .unwrap();
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), plan["segments"].as_array().unwrap().len());
    for layer in layers {
        assert!(layer["products"].as_u64().unwrap() > 0);
        assert!(layer["bytes_up"].as_u64().unwrap() > layer["ciphertexts_up"].as_u64().unwrap() * 256);
        for field in ["seconds_one_thread", "seconds_all_threads", "share_of_limit"] {
            let value = layer[field].as_f64().unwrap();
            assert!(value > 0.0 && value.is_finite(), "{field}: {value}");
        }
    }
    assert!(report["operations"].as_array().unwrap().len() >= 9);
    assert!(report["limit_ns"].as_f64().unwrap() > 0.0);
    assert!(report["session"]["seconds_per_batch"].as_f64().unwrap() > 0.0);

    fs::write(&before, &output.stdout).unwrap();
    let compared = bench(
        &[&QUICK[..], &["--compare", before.to_str().unwrap(), "--svg", chart.to_str().unwrap()]].concat(),
    )
    .output()
    .unwrap();
    let text = String::from_utf8(compared.stdout).unwrap();
    for part in ["faster, at one limit", "dot product of 256", "limit_ns", "both sides"] {
        assert!(text.contains(part), "`{part}` should be in: {text}");
    }
    assert!(!text.contains("another one"), "{text}");
    assert!(fs::read_to_string(chart).unwrap().contains("server: "));
}

#[test]
fn what_is_no_report_is_refused_before_anything_is_timed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.json");
    for bytes in [&b"{}"[..], b"not json", b"\xff\xfe", &vec![b' '; 2 << 20]] {
        fs::write(&path, bytes).unwrap();
        let text = stderr(&mut bench(&["--compare", path.to_str().unwrap()]));
        assert!(text.contains("bad.json") && !text.contains("panicked"), "{text}");
    }
    let text = stderr(&mut bench(&["--compare", "/no/such/file"]));
    assert!(text.contains("/no/such/file"), "{text}");
    let text = stderr(&mut bench(&["--model", "nonesuch"]));
    assert!(text.contains("nonesuch"), "{text}");
}

#[test]
fn peers_say_what_is_missing() {
    let text = stderr(&mut bench(&["peers", "--scripts", "no/such/folder"]));
    assert!(text.contains("peers.py") && text.contains("--scripts"), "{text}");
    let text = stderr(&mut bench(&["peers", "--python", "no-such-python"]));
    assert!(text.contains("--python"), "{text}");
}

#[test]
fn training_is_timed_by_parts() {
    let arguments = [
        "bench",
        "train",
        "--model",
        "dense12",
        "--key-bits",
        "1024",
        "--batch",
        "4",
        "--iterations",
        "2",
        "--json",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_gelu")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let percent: f64 =
        object["percent"].as_object().unwrap().values().map(|value| value.as_f64().unwrap()).sum();
    assert!(
        (percent - 100.0).abs() < 1e-6 && object["images_per_second"].as_f64().unwrap() > 0.0,
        "{object}"
    );
}
