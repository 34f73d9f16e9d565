//! Reading with a limit, writing all or nothing.

use std::{
    fs::{File, OpenOptions, Permissions},
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
/// A link stays one: the file that it leads to is replaced. A file that is replaced keeps its permissions. What is no
/// ordinary file (a device, a pipe) is written to.
///
/// # Errors
/// [`Error::Io`]; an ordinary file is then as it was before.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, Access::Default)
}

/// Writes as [`write_atomic`] does, for secrets: only the file's owner may read it (mode 0600 on Unix, from before the
/// first byte is written).
///
/// # Errors
/// [`Error::Io`]; an ordinary file is then as it was before.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    write(path, bytes, Access::OwnerOnly)
}

/// Checks that [`write_atomic`] could write to `path` now, and leaves everything as it is.
///
/// # Errors
/// [`Error::Io`] when `path` is a folder, or its folder is missing or cannot be written to.
pub fn check_writable(path: &Path) -> Result<(), Error> {
    match Target::of(path).map_err(Error::io(path, "write"))? {
        Target::File { path: target, .. } => Temporary::create(folder_of(&target), Access::Default)
            .map(drop)
            .map_err(Error::io(path, "create a file in its folder")),
        // To open a pipe would wait for its reader.
        Target::Special(_) => Ok(()),
    }
}

/// Checks that files could be written into `folder` now, which need not be there yet, and leaves everything as it is.
///
/// # Errors
/// [`Error::Io`] when `folder`, or the nearest one above it that is there, is no folder or cannot be written to.
pub fn check_folder_writable(folder: &Path) -> Result<(), Error> {
    let mut nearest = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    while !nearest.exists() {
        nearest = folder_of(nearest);
    }
    Temporary::create(nearest, Access::Default)
        .map(drop)
        .map_err(Error::io(folder, "create files in the folder"))
}

/// Makes `folder`, and those above it, unless they are there.
///
/// # Errors
/// [`Error::Io`].
pub fn make_folder(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "make the folder"))
}

#[derive(Clone, Copy, PartialEq)]
enum Access {
    /// As for a new file: 0666 less the umask.
    Default,
    /// 0600.
    OwnerOnly,
}

/// What a path leads to.
enum Target {
    /// An ordinary file that can be replaced, or none yet.
    File { path: PathBuf, permissions: Option<Permissions> },
    /// Something to write to.
    Special(PathBuf),
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        /// As many links as Linux follows.
        const MAX_LINKS: usize = 40;
        let mut path = path.to_owned();
        for _ in 0..MAX_LINKS {
            // The files that a process has open, by number: to replace one would part it from the process.
            if ["/proc", "/dev"].iter().any(|folder| path.starts_with(folder)) {
                return Ok(Self::Special(path));
            }
            let Ok(link) = std::fs::read_link(&path) else { break };
            path = folder_of(&path).join(link);
        }
        let ends_as_folder = path.as_os_str().as_encoded_bytes().last().is_none_or(|&last| last == b'/');
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() => Ok(Self::File { path, permissions: Some(found.permissions()) }),
            Ok(_) => Ok(Self::Special(path)),
            Err(_) if ends_as_folder || path.file_name().is_none() => Err(io::ErrorKind::IsADirectory.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::File { path, permissions: None })
            }
            Err(error) => Err(error),
        }
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn write(path: &Path, bytes: &[u8], access: Access) -> Result<(), Error> {
    let (target, permissions) = match Target::of(path).map_err(Error::io(path, "write"))? {
        Target::File { path, permissions } => (path, permissions),
        Target::Special(special) => {
            // Where it is a file after all, as standard output may be, what is there already stays.
            let file = OpenOptions::new().append(true).open(special).map_err(Error::io(path, "open"))?;
            return { file }.write_all(bytes).map_err(Error::io(path, "write"));
        }
    };
    let folder = folder_of(&target);
    let (mut file, temporary) =
        Temporary::create(folder, access).map_err(Error::io(path, "create a file in its folder"))?;
    if let Some(permissions) = permissions.filter(|_| access == Access::Default) {
        file.set_permissions(permissions).map_err(Error::io(path, "keep the permissions"))?;
    }
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::io(path, "write"))?;
    drop(file);
    temporary.rename(&target).map_err(Error::io(path, "replace"))?;
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

/// Returns the whole of `path`, which must be at most `max_bytes` long.
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

/// Checks that nobody but its owner may read or change an ordinary file, as it should be with a secret.
///
/// # Errors
/// [`Error::Exposed`], on Unix; [`Error::Io`] when `path` is not there.
pub fn check_owner_only(path: &Path) -> Result<(), Error> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path, "read the permissions"))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_file() && mode & 0o077 != 0 {
            return Err(Error::Exposed { path: path.to_owned(), mode });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
