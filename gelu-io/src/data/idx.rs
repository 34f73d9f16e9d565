use std::{
    io::{self, Read},
    path::Path,
};

use super::{Images, gzip::unpacked};
use crate::{Error, files};

#[cfg(test)]
mod tests;

/// The longest file that is read; MNIST's longest has 47 million bytes.
const MAX_FILE_BYTES: u64 = 1 << 28;
/// The most that is unpacked from one.
const MAX_BODY_BYTES: u64 = 1 << 29;
/// First bytes of a file of images: zero, zero, unsigned bytes, three dimensions.
const IMAGES: [u8; 4] = [0, 0, 8, 3];
/// First bytes of a file of labels: the same with one dimension.
const LABELS: [u8; 4] = [0, 0, 8, 1];

/// Reads the IDX file of images `path`, plain or gzip (told apart by their first bytes).
///
/// # Errors
/// [`Error::Io`]; whatever [`Images::parse`] finds.
pub(crate) fn read_images(path: &Path) -> Result<Images, Error> {
    Images::parse(&files::read_limited(path, MAX_FILE_BYTES)?, path)
}

/// Reads the IDX file of labels `path`, plain or gzip, each below `classes`.
///
/// # Errors
/// [`Error::Io`]; whatever [`Images::parse_labels`] finds.
pub(crate) fn read_labels(path: &Path, classes: usize) -> Result<Vec<u8>, Error> {
    Images::parse_labels(&files::read_limited(path, MAX_FILE_BYTES)?, path, classes)
}

impl Images {
    /// Returns the images in `bytes`, the contents of an IDX file, plain or gzip; `name` names it in errors.
    ///
    /// # Errors
    /// [`Error::Format`] for other files (labels, say) and broken gzip; [`Error::Truncated`], [`Error::Trailing`] and
    /// [`Error::TooLarge`] when header and length disagree or go too far.
    pub fn parse(bytes: &[u8], name: &Path) -> Result<Self, Error> {
        let (dims, pixels) = parse::<3>(bytes, name, IMAGES)?;
        let [_, height, width] = dims;
        Self::new([height, width], pixels)
            .ok_or_else(|| Error::format(name, "images with pixels", format!("images of {height}x{width}")))
    }

    /// Returns the labels in `bytes`, the contents of an IDX file, plain or gzip, each below `classes`; `name` names it in
    /// errors.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), and [`Error::Label`].
    pub fn parse_labels(bytes: &[u8], name: &Path, classes: usize) -> Result<Vec<u8>, Error> {
        let (_, labels) = parse::<1>(bytes, name, LABELS)?;
        match labels.iter().position(|&label| usize::from(label) >= classes) {
            None => Ok(labels),
            Some(index) => Err(Error::Label { path: name.to_owned(), index, classes, found: labels[index] }),
        }
    }
}

/// Whether `bytes`, plain or gzip, start as an IDX file of images or labels does.
pub(super) fn is_idx(bytes: &[u8]) -> bool {
    let mut magic = [0; 4];
    unpacked(bytes).read_exact(&mut magic).is_ok() && (magic == IMAGES || magic == LABELS)
}

/// The extents and the body of an IDX file of unsigned bytes.
fn parse<const RANK: usize>(
    bytes: &[u8],
    name: &Path,
    magic: [u8; 4],
) -> Result<([usize; RANK], Vec<u8>), Error> {
    let mut reader = Reader { source: unpacked(bytes), name, read: 0 };
    let found = reader.take::<4>()?;
    if found != magic {
        return Err(Error::format(name, describe(magic), describe(found)));
    }
    let mut dims = [0; RANK];
    let mut body: u64 = 1;
    for extent in &mut dims {
        let stored = u32::from_be_bytes(reader.take()?);
        body = body.saturating_mul(u64::from(stored));
        *extent = usize::try_from(stored).unwrap_or(usize::MAX);
    }
    if body > MAX_BODY_BYTES {
        return Err(Error::TooLarge {
            path: name.to_owned(),
            what: "elements its header declares",
            limit: MAX_BODY_BYTES,
            found: body,
        });
    }
    Ok((dims, reader.rest(body)?))
}

fn describe(magic: [u8; 4]) -> String {
    let [a, b, c, d] = magic;
    let what = match magic {
        IMAGES => "an IDX file of images",
        LABELS => "an IDX file of labels",
        _ => "a file of another kind",
    };
    format!("{what} (first bytes {a:02x} {b:02x} {c:02x} {d:02x})")
}

struct Reader<'a> {
    source: Box<dyn Read + 'a>,
    name: &'a Path,
    /// Bytes read so far, after unpacking.
    read: u64,
}

impl Reader<'_> {
    /// The next `N` bytes.
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let bytes = self.up_to(N as u64)?;
        <[u8; N]>::try_from(bytes.as_slice())
            .map_err(|_| self.truncated(self.read - bytes.len() as u64, N as u64))
    }

    /// The last `length` bytes.
    fn rest(mut self, length: u64) -> Result<Vec<u8>, Error> {
        let start = self.read;
        let bytes = self.up_to(length)?;
        if (bytes.len() as u64) < length {
            return Err(self.truncated(start, length));
        }
        // Reading on makes a gzip stream check its own length and sum.
        match self.source.read(&mut [0]) {
            Ok(0) => Ok(bytes),
            Ok(_) => Err(Error::Trailing { path: self.name.to_owned(), expected: start + length }),
            Err(error) => Err(self.bad_gzip(&error)),
        }
    }

    /// The next `length` bytes, or all there are. Memory grows with what is really there.
    fn up_to(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let outcome = self.source.by_ref().take(length).read_to_end(&mut bytes);
        self.read += bytes.len() as u64;
        match outcome {
            // A gzip stream that breaks off is short like any other file.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(self.bad_gzip(&error)),
            _ => Ok(bytes),
        }
    }

    fn bad_gzip(&self, error: &io::Error) -> Error {
        Error::format(self.name, "a whole gzip stream", error.to_string())
    }

    fn truncated(&self, start: u64, length: u64) -> Error {
        Error::Truncated { path: self.name.to_owned(), expected: start + length, found: self.read }
    }
}
