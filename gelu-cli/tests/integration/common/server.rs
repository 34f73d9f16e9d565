//! `gelu serve` and `gelu worker` as processes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A server that is killed with the test.
pub(crate) struct Server {
    pub(crate) child: Child,
    /// What it said when it began to listen.
    pub(crate) said: Value,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", arguments)
    }

    pub(crate) fn start_at(address: &str, arguments: &[&str]) -> Self {
        Self::start_as("serve", address, arguments)
    }

    /// Starts a worker, or a server.
    pub(crate) fn start_as(what: &str, address: &str, arguments: &[&str]) -> Self {
        Self::run(Command::new(env!("CARGO_BIN_EXE_gelu")), (what, address), arguments)
    }

    /// Runs a command that is `gelu`, or becomes it.
    pub(crate) fn run(mut command: Command, (what, address): (&str, &str), arguments: &[&str]) -> Self {
        let mut child = command
            .args([what, "--listen", address, "--json", "--log-level", "warn"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        Self { child, said }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}", self.said["address"].as_str().unwrap())
    }

    /// Asks it to stop, as a service manager does, and waits until it has.
    pub(crate) fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(60) {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not stop");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
