//! Pictures of digits, brought into the form of MNIST: grey, 28x28, ink bright, centerd by mass.

use std::{io::Cursor, path::Path};

use anyhow::{Context, anyhow, ensure};
use gelu_io::digits::{PIXELS, SIDE, normalize_digit};
use gelu_io::files;
use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, ImageReader, Limits, imageops};

#[cfg(test)]
mod tests;

/// The longest picture file that is read.
const MAX_FILE_BYTES: u64 = 1 << 26;
/// The most that a picture may take unpacked.
const MAX_UNPACKED_BYTES: u64 = 1 << 28;
/// The largest height and width of a picture.
const MAX_EXTENT: u32 = 12_000;
/// Larger pictures are first scaled down to this: a digit needs no more, and it evens out the camera's noise.
const WORKING_EXTENT: u32 = 512;
/// The least difference between paper and ink, of 255.
const MIN_CONTRAST: u8 = 24;
/// What is darker than this part of the full contrast is paper.
const PAPER: f32 = 0.15;

/// Whether a picture shows dark ink on light paper (and must be inverted, since MNIST's ink is bright).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Invert {
    /// Decided by the brightness of the picture's border.
    #[default]
    Auto,
    /// Dark ink on light paper.
    Yes,
    /// Light ink on dark paper.
    No,
}

/// Reads the picture `path` (PNG, JPEG, BMP, GIF, WebP or TIFF; transparent parts are white) of one digit, in the
/// form of MNIST: [`SIDE`]` x `[`SIDE`] bytes, row-major, 0 for paper and 255 for ink.
///
/// The ink is cut out, scaled so that its longer side is 20 pixels, and placed with its center of mass at the
/// center. A picture of exactly 28x28 pixels is taken to have that form already and is only turned grey and, if
/// need be, inverted.
///
/// # Errors
/// When the file cannot be read; whatever [`parse_digit`] finds.
pub(crate) fn read_digit(path: &Path, invert: Invert) -> anyhow::Result<[u8; PIXELS]> {
    parse_digit(&files::read_limited(path, MAX_FILE_BYTES)?, path, invert)
}

/// [`read_digit`] on `bytes`, the contents of a picture file; `name` names it in errors.
///
/// # Errors
/// For what is no picture, or one without ink; for more than 12,000 pixels a side or 256 MiB unpacked.
pub(crate) fn parse_digit(bytes: &[u8], name: &Path, invert: Invert) -> anyhow::Result<[u8; PIXELS]> {
    let no_ink = || unexpected(name, "a digit that stands out from its paper", "a picture of one shade");
    let grey = decode(bytes, name)?;
    let (darkest, lightest) = range(&grey);
    if lightest.saturating_sub(darkest) < MIN_CONTRAST {
        return Err(no_ink());
    }
    let ink = ink(&grey, invert);
    if ink.dimensions() == (SIDE as u32, SIDE as u32) {
        return <[u8; PIXELS]>::try_from(ink.into_raw()).map_err(|_| no_ink());
    }
    let size = [ink.height(), ink.width()].map(|extent| extent as usize);
    stretched(&ink).and_then(|ink| normalize_digit(size, &ink)).ok_or_else(no_ink)
}

fn unexpected(name: &Path, expected: &str, found: &str) -> anyhow::Error {
    anyhow!("{}: expected {expected}, found {found}", name.display())
}

/// The picture in grey, upright, on white, and no larger than is useful.
fn decode(bytes: &[u8], name: &Path) -> anyhow::Result<GrayImage> {
    let failed = |error: ImageError| {
        let expected = "a picture (PNG, JPEG, BMP, GIF, WebP or TIFF)";
        match error {
            ImageError::Limits(_) => {
                anyhow!(
                    "{}: expected at most {MAX_UNPACKED_BYTES} bytes of the unpacked picture, found more",
                    name.display()
                )
            }
            ImageError::Unsupported(_) => unexpected(name, expected, "a file of another kind"),
            other => unexpected(name, expected, &other.to_string()),
        }
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .with_context(|| format!("{}: cannot read", name.display()))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_UNPACKED_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    for (what, limit, found) in [
        ("width in pixels", MAX_EXTENT.into(), width.into()),
        ("height in pixels", MAX_EXTENT.into(), height.into()),
        ("bytes of the unpacked picture", MAX_UNPACKED_BYTES, decoder.total_bytes()),
    ] {
        ensure!(found <= limit, "{}: {what}: expected at most {limit}, found {found}", name.display());
    }
    // A camera notes how it was held; a picture without a readable note is upright.
    let orientation = decoder.orientation().ok();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if let Some(orientation) = orientation {
        picture.apply_orientation(orientation);
    }
    if width.max(height) > WORKING_EXTENT {
        picture = picture.resize(WORKING_EXTENT, WORKING_EXTENT, imageops::FilterType::Triangle);
    }
    Ok(on_white(&picture))
}

fn on_white(picture: &DynamicImage) -> GrayImage {
    if !picture.color().has_alpha() {
        return picture.to_luma8();
    }
    let mut grey = GrayImage::new(picture.width(), picture.height());
    for (target, source) in grey.pixels_mut().zip(picture.to_luma_alpha8().pixels()) {
        let [luma, alpha] = source.0.map(u16::from);
        target.0 = [((luma * alpha + 255 * (255 - alpha) + 127) / 255) as u8];
    }
    grey
}

/// `grey` with ink bright and paper dark.
fn ink(grey: &GrayImage, invert: Invert) -> GrayImage {
    let invert = match invert {
        Invert::Yes => true,
        Invert::No => false,
        Invert::Auto => {
            let (darkest, lightest) = range(grey);
            Paper::of(grey).center * 2.0 > f32::from(darkest) + f32::from(lightest)
        }
    };
    let mut ink = grey.clone();
    if invert {
        imageops::invert(&mut ink);
    }
    ink
}

/// The darkest and the lightest pixel.
fn range(grey: &GrayImage) -> (u8, u8) {
    grey.iter().fold((255, 0), |(low, high), &pixel| (low.min(pixel), high.max(pixel)))
}

/// The paper's brightness: a plane through the medians along the four sides, since light often falls from one side.
struct Paper {
    /// At the picture's center.
    center: f32,
    /// From the left side to the right, and from the top to the bottom.
    slope: [f32; 2],
}

impl Paper {
    fn of(grey: &GrayImage) -> Self {
        let (width, height) = grey.dimensions();
        let column = |x: u32| median((0..height).map(|y| grey.get_pixel(x, y).0[0]).collect());
        let row = |y: u32| median((0..width).map(|x| grey.get_pixel(x, y).0[0]).collect());
        let [left, right] = [column(0), column(width - 1)];
        let [top, bottom] = [row(0), row(height - 1)];
        Self { center: (left + right + top + bottom) / 4.0, slope: [right - left, bottom - top] }
    }

    /// At a place given as parts of the width and of the height.
    fn at(&self, [x, y]: [f32; 2]) -> f32 {
        self.center + self.slope[0] * (x - 0.5) + self.slope[1] * (y - 0.5)
    }
}

fn median(mut pixels: Vec<u8>) -> f32 {
    pixels.sort_unstable();
    pixels.get(pixels.len() / 2).copied().unwrap_or(0).into()
}

/// `ink` with paper at 0 and the brightest ink at 255; `None` when the two hardly differ.
fn stretched(ink: &GrayImage) -> Option<GrayImage> {
    let (width, height) = ink.dimensions();
    let paper = Paper::of(ink);
    let above_paper: Vec<f32> = ink
        .enumerate_pixels()
        .map(|(x, y, pixel)| {
            let place = [(x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32];
            f32::from(pixel.0[0]) - paper.at(place)
        })
        .collect();
    let contrast = above_paper.iter().copied().fold(0.0, f32::max);
    if contrast < f32::from(MIN_CONTRAST) {
        return None;
    }
    let stretch = |above: f32| {
        let part = above / contrast;
        if part < PAPER { 0 } else { (part * 255.0).round() as u8 }
    };
    GrayImage::from_raw(width, height, above_paper.into_iter().map(stretch).collect())
}
