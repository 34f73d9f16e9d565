//! Gzip streams, one or more in a file, with nothing behind them but zeros.

use std::{
    io::{self, Read},
    path::Path,
};

use flate2::bufread::GzDecoder;

use crate::Error;

/// The first bytes of a gzip stream.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Whether `bytes` start as a gzip stream does.
pub(super) fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Returns a reader of `bytes`, through gzip if they start as gzip does. Zeros behind the last stream, with which tapes
/// and block devices fill up, are read over; other bytes there are an error.
pub(super) fn unpacked(bytes: &[u8]) -> Box<dyn Read + '_> {
    if is_gzip(bytes) { Box::new(Members { decoder: GzDecoder::new(bytes) }) } else { Box::new(bytes) }
}

/// All that [`unpacked`] gives, up to `limit` bytes; `name` names the file in errors.
///
/// # Errors
/// [`Error::TooLarge`]; [`Error::Format`] for broken gzip.
pub(super) fn unpack(bytes: &[u8], name: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let mut unpacked_bytes = Vec::new();
    unpacked(bytes)
        .take(limit.saturating_add(1))
        .read_to_end(&mut unpacked_bytes)
        .map_err(|error| Error::format(name, "a whole gzip stream", error.to_string()))?;
    match unpacked_bytes.len() as u64 {
        found if found > limit => {
            Err(Error::TooLarge { path: name.to_owned(), what: "unpacked length in bytes", limit, found })
        }
        _ => Ok(unpacked_bytes),
    }
}

/// The contents of gzip streams one behind the other.
struct Members<'a> {
    decoder: GzDecoder<&'a [u8]>,
}

impl Read for Members<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            let rest = *self.decoder.get_ref();
            if rest.iter().all(|&byte| byte == 0) {
                return Ok(0);
            }
            if !is_gzip(rest) {
                let what = "bytes of another kind behind the gzip stream";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            self.decoder = GzDecoder::new(rest);
        }
    }
}
