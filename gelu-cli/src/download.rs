//! Fetches MNIST from its public mirrors.

use std::{
    fmt::Write as _,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use gelu_io::data::DataDir;
use gelu_io::files;

#[cfg(test)]
mod tests;

/// Public copies of MNIST, tried in this order.
pub(crate) const MNIST_MIRRORS: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"];

/// The four files and the SHA-256 of each, as Yann LeCun published them.
const FILES: [(&str, &str); 4] = [
    ("t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    ("t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ("train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    ("train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
];
/// More than the longest of them (9.9 million bytes).
const MAX_BYTES: u64 = 1 << 24;

/// How far the download of one file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress<'a> {
    /// The file's name.
    pub(crate) file: &'a str,
    /// Bytes received.
    pub(crate) received: u64,
    /// Bytes there will be, if the mirror says so.
    pub(crate) total: Option<u64>,
}

/// Fetches MNIST's four files into `mnist/` in the first of the folders of `data`, and returns that folder.
///
/// Each file is tried at each of `mirrors` (usually [`MNIST_MIRRORS`]) in turn and is kept only when its SHA-256
/// is the published one; files that are there already, and right, are left alone. `progress` hears of every few
/// thousand bytes. All waits are limited: 10 seconds for a name or a connection, 20 for an answer or for more
/// of it, 10 minutes for one file.
///
/// # Errors
/// With the failure of each mirror; when a file cannot be written, or there is no folder to write to.
pub(crate) fn download_mnist(
    data: &DataDir,
    mirrors: &[&str],
    mut progress: impl FnMut(Progress<'_>),
) -> anyhow::Result<PathBuf> {
    let place = data.places().first().context("no data folder: name one with --data or GELU_DATA")?;
    let folder = place.path.join("mnist");
    files::make_folder(&folder)?;
    for (name, sha256) in FILES {
        download(&folder, &RemoteFile { name, sha256 }, mirrors, &mut progress)?;
    }
    Ok(folder)
}

struct RemoteFile {
    name: &'static str,
    sha256: &'static str,
}

fn download(
    folder: &Path,
    file: &RemoteFile,
    mirrors: &[&str],
    progress: &mut impl FnMut(Progress<'_>),
) -> anyhow::Result<()> {
    let path = folder.join(file.name);
    if files::read_limited(&path, MAX_BYTES).is_ok_and(|bytes| sha256(&bytes) == file.sha256) {
        return Ok(());
    }
    let mut failures = Vec::new();
    for mirror in mirrors {
        let url = format!("{}/{}", mirror.trim_end_matches('/'), file.name);
        match fetch(&url, file, progress) {
            Ok(bytes) => return Ok(files::write_atomic(&path, &bytes)?),
            Err(why) => failures.push(format!("{url}: {why}")),
        }
    }
    bail!(
        "{}: cannot download it: {}; check the network, or fetch the file elsewhere and put it there",
        path.display(),
        failures.join("; ")
    )
}

/// The file's bytes, checked, or why not.
fn fetch(url: &str, file: &RemoteFile, progress: &mut impl FnMut(Progress<'_>)) -> Result<Vec<u8>, String> {
    let agent = ureq::Agent::config_builder()
        // A mirror must not send us on to an unprotected copy.
        .https_only(url.starts_with("https:"))
        // The files are gzip themselves and must arrive as they are.
        .accept_encoding("identity")
        .timeout_resolve(Some(Duration::from_secs(10)))
        .timeout_connect(Some(Duration::from_secs(10)))
        .timeout_recv_response(Some(Duration::from_secs(20)))
        .timeout_per_read(Some(Duration::from_secs(20)))
        .timeout_global(Some(Duration::from_secs(600)))
        .build()
        .new_agent();
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let total = response.body().content_length();
    if let Some(total) = total.filter(|&total| total > MAX_BYTES) {
        return Err(format!("expected at most {MAX_BYTES} bytes, found {total}"));
    }
    let mut source = response.body_mut().as_reader().take(MAX_BYTES + 1);
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(format!("broke off after {} bytes: {error}", bytes.len())),
        }
        progress(Progress { file: file.name, received: bytes.len() as u64, total });
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("expected at most {MAX_BYTES} bytes, found more"));
    }
    match sha256(&bytes) {
        found if found == file.sha256 => Ok(bytes),
        found => Err(format!("expected SHA-256 {}, found {found} in {} bytes", file.sha256, bytes.len())),
    }
}

/// SHA-256 in hexadecimal.
fn sha256(bytes: &[u8]) -> String {
    hmac_sha256::Hash::hash(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
