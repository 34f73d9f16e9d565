//! Running `gelu` as a user does, on a small table and the weights that come with the project.

pub(crate) mod server;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

pub(crate) fn gelu(arguments: &[&str], data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gelu")).args(arguments).env("GELU_DATA", data).output().unwrap()
}

pub(crate) fn succeed(arguments: &[&str], data: &Path) -> String {
    let output = gelu(arguments, data);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn fail(arguments: &[&str], data: &Path, code: i32) -> String {
    let output = gelu(arguments, data);
    assert_eq!(output.status.code(), Some(code));
    String::from_utf8(output.stderr).unwrap()
}

/// A run that goes on once it has kept something: the checkpoint is there, or the run has ended.
pub(crate) fn keeping(arguments: &[&str], data: &Path, checkpoint: &Path, stderr: Stdio) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gelu"))
        .args(arguments)
        .env("GELU_DATA", data)
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    while !checkpoint.exists() && child.try_wait().unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    child
}

/// Kills such a run.
pub(crate) fn killed_keeping(arguments: &[&str], data: &Path, checkpoint: &Path) {
    let mut child = keeping(arguments, data, checkpoint, Stdio::null());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The folder of the whole project.
pub(crate) fn project() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The file of a network's weights that this project ships.
pub(crate) fn weights_file(name: &str) -> PathBuf {
    project().join("models").join(name).with_extension("safetensors")
}

/// A folder with a table in Iris's form, whose classes are easy to tell apart.
pub(crate) fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut table = String::new();
    for i in 0..60 {
        let (class, spread) = (i % 3, f64::from(i) / 60.0);
        let first = f64::from(class) + spread / 2.0;
        writeln!(table, "{first},{spread},{},0.5,kind-{class}", 1.0 - f64::from(class)).unwrap();
    }
    fs::create_dir(folder.path().join("uci")).unwrap();
    fs::write(folder.path().join("uci/iris.csv"), table).unwrap();
    folder
}

/// A folder of a test's own.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// A picture of a digit, as another command draws it.
pub(crate) fn picture(folder: &Folder) -> String {
    let path = folder.path("seven.png");
    let stroke =
        |x: u32, y: u32| (20..24).contains(&y) && (20..44).contains(&x) || x.abs_diff(44 - (y - 20) / 2) < 3;
    image::GrayImage::from_fn(64, 64, |x, y| match (20..52).contains(&y) && stroke(x, y) {
        true => image::Luma([20]),
        false => image::Luma([240]),
    })
    .save(&path)
    .unwrap();
    path.display().to_string()
}
