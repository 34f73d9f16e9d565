//! From the bytes of a picture file to grey pixels.

use std::{io::Cursor, path::Path};

use anyhow::{Context, anyhow, ensure};
use image::{DynamicImage, GrayImage, ImageDecoder, ImageError, ImageReader, Limits, imageops};

use super::ink::MIN_CONTRAST;
use super::whole::is_whole;

/// The most that a picture may take unpacked.
const MAX_UNPACKED_BYTES: u64 = 1 << 28;
/// The largest height and width of a picture.
pub(super) const MAX_EXTENT: u32 = 12_000;
/// Larger pictures are first scaled down to this: a digit needs no more, and it evens out the camera's noise.
pub(super) const WORKING_EXTENT: u32 = 400;

/// The error of a picture that is not as expected.
pub(super) fn unexpected(name: &Path, expected: &str, found: &str) -> anyhow::Error {
    anyhow!("{}: expected {expected}, found {found}", name.display())
}

/// The picture in grey, upright, on paper where it is transparent, and no larger than is useful.
pub(super) fn decode(bytes: &[u8], name: &Path) -> anyhow::Result<GrayImage> {
    let mut picture = decode_whole(bytes, name)?;
    if picture.width().max(picture.height()) > WORKING_EXTENT {
        picture = picture.resize(WORKING_EXTENT, WORKING_EXTENT, imageops::FilterType::Triangle);
    }
    Ok(grey(&picture))
}

/// The picture upright; one that is cut off, too large or of another format is refused.
pub(crate) fn decode_whole(bytes: &[u8], name: &Path) -> anyhow::Result<DynamicImage> {
    let expected = "a picture (PNG, JPEG, BMP, GIF, WebP or TIFF)";
    let failed = |error: ImageError| match error {
        ImageError::Limits(_) => {
            anyhow!(
                "{}: expected at most {MAX_UNPACKED_BYTES} bytes of the unpacked picture, found more",
                name.display()
            )
        }
        ImageError::Unsupported(_) => unexpected(name, expected, "a file of another kind"),
        other => unexpected(name, expected, &other.to_string()),
    };
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .with_context(|| format!("{}: cannot read", name.display()))?;
    if let Some(format) = reader.format()
        && !is_whole(format, bytes)
    {
        let found = format!("one that is cut off after {} bytes", bytes.len());
        return Err(unexpected(name, "a whole picture", &found));
    }
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
    Ok(picture)
}

fn grey(picture: &DynamicImage) -> GrayImage {
    let is_deep = matches!(
        picture,
        DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageLumaA16(_)
            | DynamicImage::ImageRgb16(_)
            | DynamicImage::ImageRgba16(_)
    );
    if picture.color().has_alpha() {
        on_paper(picture)
    } else if is_deep {
        from_deep(picture)
    } else {
        of_most_contrast(picture)
    }
}

/// Values of fewer bits in files of 16, as cameras and scanners write them, take the whole range.
fn from_deep(picture: &DynamicImage) -> GrayImage {
    let deep = picture.to_luma16();
    let most = deep.iter().copied().max().unwrap_or(0);
    let bits = (u16::BITS - most.leading_zeros()).max(8);
    let range = (1u32 << bits) - 1;
    let pixels = deep.iter().map(|&value| (u32::from(value) * 255 / range) as u8).collect();
    GrayImage::from_raw(deep.width(), deep.height(), pixels).unwrap_or_default()
}

/// By brightness, or by the one color of three that tells ink from paper where brightness does not.
fn of_most_contrast(picture: &DynamicImage) -> GrayImage {
    let luma = picture.to_luma8();
    if !picture.color().has_color() {
        return luma;
    }
    let colors = picture.to_rgb8();
    let channel = |channel: usize| {
        let pixels = colors.pixels().map(|pixel| pixel.0[channel]).collect();
        GrayImage::from_raw(luma.width(), luma.height(), pixels).unwrap_or_default()
    };
    let best = (0..3).map(channel).max_by_key(spread);
    match best {
        Some(best) if spread(&best) / 2 > spread(&luma) => best,
        _ => luma,
    }
}

/// The difference between nearly the darkest and nearly the lightest pixel.
fn spread(grey: &GrayImage) -> u8 {
    spread_of(grey.iter().copied().collect())
}

fn spread_of(mut pixels: Vec<u8>) -> u8 {
    pixels.sort_unstable();
    let at = |part: f32| pixels.get((pixels.len().saturating_sub(1) as f32 * part) as usize).copied();
    at(0.99).unwrap_or(0) - at(0.01).unwrap_or(0)
}

/// A transparent picture on what it must have been meant for. Where its opaque part shows ink and paper, that is more
/// such paper; where it is only ink, dark or light paper.
fn on_paper(picture: &DynamicImage) -> GrayImage {
    let source = picture.to_luma_alpha8();
    let mut opaque: Vec<u8> =
        source.pixels().filter(|pixel| pixel.0[1] >= 128).map(|pixel| pixel.0[0]).collect();
    opaque.sort_unstable();
    let median = opaque.get(opaque.len() / 2).copied().unwrap_or(0);
    let covers_most = opaque.len() * 2 >= source.pixels().len();
    let paper = if covers_most && f32::from(spread_of(opaque)) >= MIN_CONTRAST {
        median
    } else if median < 128 {
        255
    } else {
        0
    };
    let mut grey = GrayImage::new(picture.width(), picture.height());
    for (target, source) in grey.pixels_mut().zip(source.pixels()) {
        let [luma, alpha] = source.0.map(u32::from);
        target.0 = [((luma * alpha + u32::from(paper) * (255 - alpha) + 127) / 255) as u8];
    }
    grey
}
