//! Pictures of digits, brought into the form of MNIST: grey, 28x28, ink bright, centered by mass.
//!
//! A picture is decoded to grey ([`mod@decode`]); the paper is found in it, without frames, dark edges and table
//! ([`paper`]); the light on the paper is evened out ([`light`]); ink is what differs from paper, less specks
//! ([`mod@ink`]). What is left is scaled and centered as MNIST's digits are.

use std::path::Path;

use clap::ValueEnum;
use gelu_io::digits::{PIXELS, SIDE, is_normalized, normalize_digit};
use gelu_io::files;
use image::GrayImage;

pub(crate) use self::decode::decode_whole;
use self::decode::{decode, unexpected};
use self::ink::{NoDigit, ink};

mod components;
mod decode;
mod ink;
mod light;
mod paper;
mod plane;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod variants;
mod whole;

/// The longest picture file that is read.
const MAX_FILE_BYTES: u64 = 1 << 26;

/// Whether a picture shows dark ink on light paper (and must be inverted, since MNIST's ink is bright).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Invert {
    /// Decided by what the paper is.
    #[default]
    Auto,
    /// Dark ink on light paper.
    Yes,
    /// Light ink on dark paper.
    No,
}

/// Reads the picture `path` (PNG, JPEG, BMP, GIF, WebP or TIFF) of one digit, in the form of MNIST:
/// [`SIDE`]` x `[`SIDE`] bytes, row-major, 0 for paper and 255 for ink.
///
/// The ink is cut out, scaled so that its longer side is 20 pixels, and placed with its center of mass at the
/// center. A picture that has that form already is left as it is.
///
/// # Errors
/// When the file cannot be read; whatever [`parse_digit`] finds.
pub(crate) fn read_digit(path: &Path, invert: Invert) -> anyhow::Result<[u8; PIXELS]> {
    parse_digit(&files::read_limited(path, MAX_FILE_BYTES)?, path, invert)
}

/// [`read_digit`] on `bytes`, the contents of a picture file; `name` names it in errors.
///
/// # Errors
/// For what is no picture, or a cut one; for one without a digit: blank, faint, or with a speck only; for more than
/// 12,000 pixels a side or 256 MiB unpacked.
pub(crate) fn parse_digit(bytes: &[u8], name: &Path, invert: Invert) -> anyhow::Result<[u8; PIXELS]> {
    let grey = decode(bytes, name)?;
    if let Some(digit) = normalized(&grey, invert) {
        return Ok(digit);
    }
    let no_digit = |why: NoDigit| {
        let [expected, found] = why.expected_and_found();
        unexpected(name, &expected, &found)
    };
    let ink = ink(&grey, invert).map_err(no_digit)?;
    let size = [ink.height(), ink.width()].map(|extent| extent as usize);
    normalize_digit(size, &ink).ok_or_else(|| no_digit(NoDigit::Edge))
}

/// The picture itself where it has MNIST's form, with ink bright or dark.
fn normalized(grey: &GrayImage, invert: Invert) -> Option<[u8; PIXELS]> {
    if grey.dimensions() != (SIDE as u32, SIDE as u32) {
        return None;
    }
    let picture = <[u8; PIXELS]>::try_from(grey.as_raw().as_slice()).ok()?;
    let bright = picture.map(|pixel| 255 - pixel);
    let candidates = match invert {
        Invert::Auto => &[picture, bright][..],
        Invert::No => &[picture],
        Invert::Yes => &[bright],
    };
    candidates.iter().find(|digit| is_normalized(digit)).copied()
}
