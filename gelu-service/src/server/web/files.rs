//! The files of a page: read once, kept in memory, known endings only.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use gelu_io::files::read_limited;

use crate::ServiceError;

/// The longest file of a page.
const MOST_BYTES: u64 = 16 << 20;
/// All of them.
const MOST_BYTES_IN_ALL: usize = 64 << 20;
const MOST_FILES: usize = 256;
/// Folders within folders.
const MOST_DEEP: usize = 4;

/// What files are called, and what they are to a browser.
const KINDS: [(&str, &str); 11] = [
    ("html", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("wasm", "application/wasm"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("ico", "image/vnd.microsoft.icon"),
    ("txt", "text/plain; charset=utf-8"),
    ("woff2", "font/woff2"),
];

/// A file of a page.
#[derive(Debug)]
pub(super) struct File {
    pub(super) kind: &'static str,
    pub(super) bytes: Bytes,
    /// Changes with the bytes.
    pub(super) tag: String,
}

/// The files of a page, by their paths below its folder.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<String, File>);

impl Files {
    /// Reads a folder. Files of unknown endings, and those whose names begin with a dot, are left out.
    pub(super) fn read(folder: &Path) -> Result<Self, ServiceError> {
        let mut files = Self::default();
        files.add(folder, "", 0)?;
        match files.0.contains_key("index.html") {
            true => Ok(files),
            false => Err(fault(folder, "expected a page with an index.html, found none")),
        }
    }

    fn add(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), ServiceError> {
        let wrong = |error: std::io::Error| fault(folder, error);
        for entry in std::fs::read_dir(folder).map_err(wrong)? {
            let entry = entry.map_err(wrong)?;
            let path = entry.path();
            // Names that are no text are not asked for either.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with('.') {
                continue;
            }
            // Symbolic links are neither: they may lead out of the folder.
            let kind = entry.file_type().map_err(wrong)?;
            if kind.is_dir() {
                if depth >= MOST_DEEP {
                    return Err(fault(
                        &path,
                        format!("expected at most {MOST_DEEP} folders within one another"),
                    ));
                }
                self.add(&path, &format!("{prefix}{name}/"), depth + 1)?;
            } else if kind.is_file()
                && let Some(kind) = kind_of(&path)
            {
                let bytes = read_limited(&path, MOST_BYTES).map_err(|error| fault(&path, error))?;
                let hash = hmac_sha256::Hash::hash(&bytes);
                let tag: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
                let tag = format!("\"{tag}\"");
                self.0.insert(format!("{prefix}{name}"), File { kind, bytes: bytes.into(), tag });
            }
            let in_all: usize = self.0.values().map(|file| file.bytes.len()).sum();
            if self.0.len() > MOST_FILES || in_all > MOST_BYTES_IN_ALL {
                return Err(fault(
                    &path,
                    format!(
                        "expected a page of at most {MOST_FILES} files and {MOST_BYTES_IN_ALL} bytes, found more"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The file at a path of a URL: that of its folder where it ends so.
    pub(super) fn at(&self, path: &str) -> Option<&File> {
        let path = path.strip_prefix('/')?;
        match path {
            "" => self.0.get("index.html"),
            path if path.ends_with('/') => self.0.get(&format!("{path}index.html")),
            path => self.0.get(path),
        }
    }
}

fn kind_of(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?;
    KINDS.iter().find(|(known, _)| *known == ending).map(|(_, kind)| *kind)
}

fn fault(path: &Path, problem: impl std::fmt::Display) -> ServiceError {
    ServiceError::Page { path: path.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_is_known_below_its_folder_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("page");
        std::fs::create_dir_all(root.join("client")).unwrap();
        let missing = Files::read(&root).unwrap_err().to_string();
        assert!(missing.contains("index.html"), "{missing}");
        for (name, text) in [
            ("index.html", "<!doctype html>"),
            ("client/gelu.js", "export {}"),
            ("secret.key", "s"),
            (".hidden.html", "h"),
            ("../outside.html", "o"),
        ] {
            std::fs::write(root.join(name), text).unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("outside.html"), root.join("link.html")).unwrap();
        let files = Files::read(&root).unwrap();
        assert_eq!(files.0.keys().collect::<Vec<_>>(), ["client/gelu.js", "index.html"]);
        assert_eq!(files.at("/").map(|file| file.kind), Some("text/html; charset=utf-8"));
        assert!(files.at("/client/gelu.js").is_some());
        for none in ["", "index.html", "//", "/client/", "/../outside.html", "/client/../index.html"] {
            assert!(files.at(none).is_none(), "{none}");
        }
    }

    #[test]
    fn a_page_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("index.html"), "").unwrap();
        for at in 0..MOST_FILES {
            std::fs::write(folder.path().join(format!("{at}.txt")), "").unwrap();
        }
        assert!(matches!(Files::read(folder.path()), Err(ServiceError::Page { .. })));
    }
}
