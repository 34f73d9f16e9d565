//! `gelu paper` runs a program beside `gelu`, as a user finds it or does not.

#![cfg(unix)]
use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;

#[test]
fn the_program_beside_is_run_and_one_that_is_missing_is_told_how_to_build() {
    let folder = tempfile::tempdir().unwrap();
    let gelu = folder.path().join("gelu");
    let built = assert_cmd::cargo::cargo_bin("gelu");
    // Across file systems there are no links.
    fs::hard_link(&built, &gelu).or_else(|_| fs::copy(&built, &gelu).map(drop)).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(&gelu).args(arguments).env("PATH", folder.path()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };

    let (code, out, errors) = run(&["paper", "all"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{errors}");
    assert!(errors.contains("build it with `cargo build --release`"), "{errors}");

    let beside = folder.path().join("gelu-paper");
    fs::write(&beside, "#!/bin/sh\necho \"$GELU $*\"\nexit 7\n").unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    for arguments in [&["all", "--out", "x", "--quick"][..], &["--help"]] {
        let (code, out, errors) = run(&[&["paper"], arguments].concat());
        assert_eq!(code, Some(7), "{errors}");
        assert_eq!(out, format!("{} {}\n", gelu.display(), arguments.join(" ")));
    }
}
