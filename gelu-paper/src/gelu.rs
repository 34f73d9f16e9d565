//! The program `gelu`, whose commands measure ours: the command that a report quotes is the command that ran.

use std::env::consts::EXE_SUFFIX;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The variable by which `gelu paper` says where `gelu` is.
const VARIABLE: &str = "GELU";

/// Where `gelu` is.
#[derive(Debug)]
pub(crate) struct Gelu(PathBuf);

impl Gelu {
    /// The one that was named, or that runs this program, or beside this program, or on PATH.
    pub(crate) fn locate(named: Option<PathBuf>) -> Self {
        let name = format!("gelu{EXE_SUFFIX}");
        let beside = || {
            let this = std::env::current_exe().ok()?;
            Some(this.parent()?.join(&name)).filter(|path| path.is_file())
        };
        let parent = || std::env::var_os(VARIABLE).map(PathBuf::from);
        Self(named.or_else(parent).or_else(beside).unwrap_or_else(|| PathBuf::from(name)))
    }

    /// Runs a command with `--json`, and returns the object that it prints.
    pub(crate) fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let command = quoted(arguments);
        let output = match Command::new(&self.0).args(arguments).arg("--json").stdin(Stdio::null()).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "{}: not found; build it with `cargo build --release`, or name it with --gelu",
                self.0.display()
            ),
            output => output.with_context(|| format!("cannot run {}", self.0.display()))?,
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{command}`: {}", errors.trim());
        serde_json::from_slice(&output.stdout).with_context(|| format!("what `{command} --json` printed"))
    }
}

/// The command as it is quoted.
pub(crate) fn quoted(arguments: &[&str]) -> String {
    format!("gelu {}", arguments.join(" "))
}

/// A number of a JSON object, by its path.
pub(crate) fn number(object: &Value, path: &[&str]) -> anyhow::Result<f64> {
    let found = path.iter().try_fold(object, |value, key| value.get(key));
    found.and_then(Value::as_f64).with_context(|| format!("expected a number `{}`", path.join(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let error = Gelu::locate(Some("no/such/gelu".into())).json(&["bench"]).unwrap_err();
        assert!(error.to_string().contains("build it with `cargo build --release`,"), "{error}");
        let object = serde_json::json!({ "session": { "seconds": 2 } });
        assert_eq!(number(&object, &["session", "seconds"]).unwrap(), 2.0);
        assert!(number(&object, &["session", "none"]).unwrap_err().to_string().contains("session.none"));
    }
}
