//! `gelu-paper`, as it is run.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use assert_cmd::Command;

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::cargo_bin("gelu-paper").unwrap().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn help_lists_the_parts_and_wrong_usage_is_told() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for part in ["all", "table1", "table4", "--quick", "--again"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, _, errors) = run(&["table9"]);
    assert_eq!(code, Some(2));
    assert!(errors.contains("table4"), "{errors}");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, _, errors) = run(&["all", "--out", file.join("report").to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("error: ") && errors.contains("report"), "{errors}");
}
