//! Reading with a limit, writing all or nothing.

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
};

use crate::Error;

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
    let mut builder = tempfile::Builder::new();
    builder.prefix(".gelu-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = if access == Access::OwnerOnly { 0o600 } else { 0o666 };
        builder.permissions(std::fs::Permissions::from_mode(mode));
    }
    let mut file = builder.tempfile_in(folder).map_err(Error::io(folder, "create a file in the folder"))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(Error::io(path, "write"))?;
    file.persist(path).map_err(|failed| Error::io(path, "replace")(failed.error))?;
    // The new name itself lasts only once the folder is on the disk too. Not every system can flush a folder.
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
    Ok(())
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
