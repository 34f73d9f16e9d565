//! Reading with a limit, writing all or nothing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::Error;

/// Names that are tried for a temporary file.
const MAX_ATTEMPTS: usize = 10_000;

/// Writes `bytes` to `path`, whole or not at all: to a temporary file in the same folder, flushed to the disk,
/// then renamed over `path`.
///
/// # Errors
/// [`Error::Io`]; `path` is then as it was before.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, Access::Default)
}

/// [`write_atomic`] for secrets: only the file's owner may read it (mode 0600 on Unix, from before the first byte
/// is written).
///
/// # Errors
/// [`Error::Io`]; `path` is then as it was before.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, Access::OwnerOnly)
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// As for a new file: 0666 less the umask.
    Default,
    /// 0600.
    OwnerOnly,
}

fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), Error> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let (mut file, temporary) =
        Temporary::create(folder, access).map_err(Error::io(folder, "create a file in the folder"))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io(path, "write"))?;
    drop(file);
    temporary.rename(path).map_err(Error::io(path, "replace"))?;
    // The new name itself lasts only once the folder is on the disk too. Not every system can flush a folder.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// A file under a name of its own, which is removed again unless it gets another one.
struct Temporary {
    path: PathBuf,
    is_renamed: bool,
}

impl Temporary {
    /// Creates one that was not there before: whoever may write to the folder cannot slip in a file or a link.
    fn create(folder: &Path, access: Access) -> io::Result<(File, Self)> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(
            &mut options,
            match access {
                Access::Default => 0o666,
                Access::OwnerOnly => 0o600,
            },
        );
        for _ in 0..MAX_ATTEMPTS {
            // A process that was killed may have left the name behind.
            let name = format!(".gelu-{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(name);
            match options.open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened.map(|file| (file, Self { path, is_renamed: false })),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    fn rename(mut self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            // Where that fails, too, there is nothing more to be done about it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The whole of `path`, which must be at most `max_bytes` long.
///
/// # Errors
/// [`Error::Io`]; [`Error::TooLarge`], before more than `max_bytes` of memory are taken.
pub fn read_limited(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    let length = file.metadata().map_err(Error::io(path, "read the length"))?.len();
    let too_large =
        |found| Error::TooLarge { path: path.to_owned(), what: "length in bytes", limit: max_bytes, found };
    if length > max_bytes {
        return Err(too_large(length));
    }
    // The length is only a hint: devices have none and files grow.
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io(path, "read"))?;
    match bytes.len() as u64 {
        read if read > max_bytes => Err(too_large(read)),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"first").unwrap();
        write_atomic(&path, b"second, longer").unwrap();
        assert_eq!(read_limited(&path, 14).unwrap(), b"second, longer");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn names_that_are_taken_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let taken = |count| folder.path().join(format!(".gelu-{}-{count}.tmp", std::process::id()));
        // Other tests count in the same process.
        (0..100).for_each(|count| std::fs::write(taken(count), b"left behind").unwrap());
        let path = folder.path().join("a");
        write_atomic(&path, b"new").unwrap();
        assert_eq!(read_limited(&path, 3).unwrap(), b"new");
        assert!((0..100).all(|count| std::fs::read(taken(count)).unwrap() == b"left behind"));
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        std::fs::write(taken.join("inside"), b"x").unwrap();
        let error = write_atomic(&taken, b"new").unwrap_err();
        assert!(matches!(error, Error::Io { action: "replace", .. }), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

        let nowhere = folder.path().join("nowhere").join("file");
        assert!(write_atomic(&nowhere, b"new").unwrap_err().to_string().contains("nowhere"));
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        write_atomic(&path, b"public").unwrap();
        assert_eq!(mode() & 0o600, 0o600);
        write_secret(&path, b"secret").unwrap();
        assert_eq!(mode(), 0o600);
    }

    #[test]
    fn the_limit_is_exact() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, &[7; 100]).unwrap();
        assert_eq!(read_limited(&path, 100).unwrap().len(), 100);
        let error = read_limited(&path, 99).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 99, found: 100, .. }), "{error}");
    }
}
