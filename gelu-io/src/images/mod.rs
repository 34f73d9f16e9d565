//! Pictures of digits, brought into the form of MNIST: grey, 28x28, ink bright, centred by mass.

use std::{io::Cursor, path::Path};

use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, ImageReader, Limits, imageops};

use crate::{Error, files};

#[cfg(test)]
mod tests;

/// Height and width of a digit, in pixels.
pub const SIDE: usize = 28;
/// Pixels of a digit.
pub const PIXELS: usize = SIDE * SIDE;

/// The longer side of a digit's ink, in pixels.
const INK_SIDE: u32 = 20;
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
pub enum Invert {
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
/// The ink is cut out, scaled so that its longer side is 20 pixels, and placed with its centre of mass at the
/// centre. A picture of exactly 28x28 pixels is taken to have that form already and is only turned grey and, if
/// need be, inverted.
///
/// # Errors
/// [`Error::Io`]; whatever [`parse_digit`] finds.
pub fn read_digit(path: &Path, invert: Invert) -> Result<[u8; PIXELS], Error> {
    parse_digit(&files::read_limited(path, MAX_FILE_BYTES)?, path, invert)
}

/// [`read_digit`] on `bytes`, the contents of a picture file; `name` names it in errors.
///
/// # Errors
/// [`Error::Format`] for what is no picture, or one without ink; [`Error::TooLarge`] for more than 12,000 pixels a
/// side or 256 MiB unpacked.
pub fn parse_digit(bytes: &[u8], name: &Path, invert: Invert) -> Result<[u8; PIXELS], Error> {
    let no_ink = || Error::format(name, "a digit that stands out from its paper", "a picture of one shade");
    let grey = decode(bytes, name)?;
    let (darkest, lightest) = range(&grey);
    if lightest.saturating_sub(darkest) < MIN_CONTRAST {
        return Err(no_ink());
    }
    let ink = ink(&grey, invert);
    if ink.dimensions() == (SIDE as u32, SIDE as u32) {
        return <[u8; PIXELS]>::try_from(ink.into_raw()).map_err(|_| no_ink());
    }
    stretched(&ink).and_then(|ink| normalised(&ink)).ok_or_else(no_ink)
}

/// The picture in grey, upright, on white, and no larger than is useful.
fn decode(bytes: &[u8], name: &Path) -> Result<GrayImage, Error> {
    let failed = |error: ImageError| {
        let expected = "a picture (PNG, JPEG, BMP, GIF, WebP or TIFF)";
        match error {
            ImageError::Limits(_) => Error::TooLarge {
                path: name.to_owned(),
                what: "bytes of the unpacked picture",
                limit: MAX_UNPACKED_BYTES,
                found: MAX_UNPACKED_BYTES + 1,
            },
            ImageError::Unsupported(_) => Error::format(name, expected, "a file of another kind"),
            other => Error::format(name, expected, other.to_string()),
        }
    };
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(Error::io(name, "read"))?;
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
        if found > limit {
            return Err(Error::TooLarge { path: name.to_owned(), what, limit, found });
        }
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
            Paper::of(grey).centre * 2.0 > f32::from(darkest) + f32::from(lightest)
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
    /// At the picture's centre.
    centre: f32,
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
        Self { centre: (left + right + top + bottom) / 4.0, slope: [right - left, bottom - top] }
    }

    /// At a place given as parts of the width and of the height.
    fn at(&self, [x, y]: [f32; 2]) -> f32 {
        self.centre + self.slope[0] * (x - 0.5) + self.slope[1] * (y - 0.5)
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

/// Bright ink on black, cut out, scaled and centred as MNIST's digits are; `None` when there is no ink.
pub(crate) fn normalised(ink: &GrayImage) -> Option<[u8; PIXELS]> {
    let [left, top, width, height] = ink_box(ink)?;
    let cut = imageops::crop_imm(ink, left, top, width, height).to_image();
    let scale = f64::from(INK_SIDE) / f64::from(width.max(height));
    let scaled = |extent: u32| ((f64::from(extent) * scale).round() as u32).clamp(1, INK_SIDE);
    let small = imageops::resize(&cut, scaled(width), scaled(height), imageops::FilterType::Triangle);
    let (_, brightest) = range(&small);
    if brightest == 0 {
        return None;
    }
    let [right, down] = offset(&small);
    let mut digit = [0; PIXELS];
    for (x, y, pixel) in small.enumerate_pixels() {
        let bright = u32::from(pixel.0[0]) * 255 / u32::from(brightest);
        digit[(y as usize + down) * SIDE + x as usize + right] = bright as u8;
    }
    Some(digit)
}

/// `[left, top, width, height]` of what is not black.
fn ink_box(ink: &GrayImage) -> Option<[u32; 4]> {
    let inked = || ink.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[0] > 0);
    let (left, right) = (inked().map(|(x, ..)| x).min()?, inked().map(|(x, ..)| x).max()?);
    let (top, bottom) = (inked().map(|(_, y, _)| y).min()?, inked().map(|(_, y, _)| y).max()?);
    Some([left, top, right - left + 1, bottom - top + 1])
}

/// How far right and down `small` goes for its centre of mass to be at the centre, without leaving the square.
fn offset(small: &GrayImage) -> [usize; 2] {
    let mut mass = 0.0;
    let mut moment = [0.0; 2];
    for (x, y, pixel) in small.enumerate_pixels() {
        let pixel = f64::from(pixel.0[0]);
        mass += pixel;
        moment[0] += pixel * (f64::from(x) + 0.5);
        moment[1] += pixel * (f64::from(y) + 0.5);
    }
    let room = [SIDE - small.width() as usize, SIDE - small.height() as usize];
    std::array::from_fn(|axis| {
        let wanted = (SIDE as f64 / 2.0 - moment[axis] / mass).round().max(0.0) as usize;
        wanted.min(room[axis])
    })
}
