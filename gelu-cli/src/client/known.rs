//! The keys of servers that this client has talked to.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context;
use gelu_io::files::{make_folder, read_limited, write_atomic};
use gelu_service::Fingerprint;

/// More than anyone's servers take.
const MOST_BYTES: u64 = 1 << 20;

/// A file of servers' addresses and keys.
pub(super) struct KnownServers(PathBuf);

impl KnownServers {
    /// The file in `folder`, or in the per-user folder for state.
    pub(super) fn locate(folder: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self(state_folder(folder)?.join("known-servers.json")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The key that a server had when it was first talked to.
    pub(super) fn find(&self, server: &str) -> anyhow::Result<Option<Fingerprint>> {
        let known = self.read()?;
        let found = known.get(name(server)).map(|text| text.parse()).transpose();
        found.with_context(|| self.0.display().to_string())
    }

    /// Keeps a server's key.
    pub(super) fn add(&self, server: &str, key: Fingerprint) -> anyhow::Result<()> {
        let mut known = self.read()?;
        known.insert(name(server).to_owned(), key.to_string());
        if let Some(folder) = self.0.parent() {
            make_folder(folder)?;
        }
        Ok(write_atomic(&self.0, &serde_json::to_vec_pretty(&known)?)?)
    }

    fn read(&self) -> anyhow::Result<BTreeMap<String, String>> {
        if !self.0.exists() {
            return Ok(BTreeMap::new());
        }
        let bytes = read_limited(&self.0, MOST_BYTES)?;
        serde_json::from_slice(&bytes)
            .with_context(|| format!("{}: expected servers' addresses and keys", self.0.display()))
    }
}

/// The folder for a client's state: the given one, or the per-user one.
pub(super) fn state_folder(folder: Option<&Path>) -> anyhow::Result<PathBuf> {
    // The XDG specification tells programs to ignore relative paths.
    let set = |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let user = || {
        let state = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local").join("state")));
        state.map(|path| path.join("gelu-net"))
    };
    let folder = folder.map(Path::to_path_buf).or_else(user);
    folder.context("no home folder to keep a client's state in: name one with --state")
}

/// An address with and without a slash at its end is one server.
fn name(server: &str) -> &str {
    server.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_by_address() {
        let folder = tempfile::tempdir().unwrap();
        let servers = KnownServers::locate(Some(&folder.path().join("state"))).unwrap();
        assert_eq!(servers.find("https://a:1").unwrap(), None);
        let (one, other): (Fingerprint, Fingerprint) =
            ("01".repeat(32).parse().unwrap(), "fe".repeat(32).parse().unwrap());
        servers.add("https://a:1", one).unwrap();
        servers.add("https://b:1/", other).unwrap();
        assert_eq!(servers.find("https://a:1/").unwrap(), Some(one));
        assert_eq!(servers.find("https://b:1").unwrap(), Some(other));
        std::fs::write(servers.path(), "{\"https://a:1\": \"01\"}").unwrap();
        let error = format!("{:#}", servers.find("https://a:1").unwrap_err());
        assert!(error.contains("known-servers.json") && error.contains("64 hexadecimal digits"), "{error}");
    }
}
