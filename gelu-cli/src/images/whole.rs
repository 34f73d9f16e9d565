//! Whether a picture file is whole: decoders fill what is missing with grey.

use image::ImageFormat;

/// Whether `bytes` go on to the end that their format declares. What is not of `format` at all counts as whole: decoding
/// it fails.
pub(super) fn is_whole(format: ImageFormat, bytes: &[u8]) -> bool {
    match format {
        ImageFormat::Jpeg => has_jpeg_end(bytes),
        ImageFormat::Png => has_png_end(bytes),
        ImageFormat::Gif => has_gif_end(bytes).unwrap_or(false),
        ImageFormat::WebP => has_declared_length(bytes, 4, 8),
        ImageFormat::Bmp => has_bmp_pixels(bytes).unwrap_or(false),
        // Of a TIFF, the decoder needs every strip.
        _ => true,
    }
}

fn little_endian(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// Whether as many bytes are there as the four at `at` say, which do not count the first `before`.
fn has_declared_length(bytes: &[u8], at: usize, before: u64) -> bool {
    little_endian(bytes, at, 4).is_some_and(|length| length + before <= bytes.len() as u64)
}

/// Walks the segments of a JPEG, and the scans between them, to the marker of the end.
fn has_jpeg_end(bytes: &[u8]) -> bool {
    const END: u8 = 0xd9;
    let mut at = 2;
    loop {
        // Within a scan, 0xff is followed by 0 or by a restart marker.
        while let Some(&[first, second]) = bytes.get(at..at + 2) {
            if first == 0xff && !matches!(second, 0 | 0xd0..=0xd7 | 0xff) {
                break;
            }
            at += 1;
        }
        let Some(&[_, marker]) = bytes.get(at..at + 2) else { return false };
        at += 2;
        if marker == END {
            return true;
        }
        if marker == 0x01 {
            continue;
        }
        let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
        at += usize::from(u16::from_be_bytes([high, low])).max(2);
    }
}

/// Walks the chunks of a PNG to the last one.
fn has_png_end(bytes: &[u8]) -> bool {
    let mut at = 8;
    while let Some(&[a, b, c, d, ref kind @ ..]) = bytes.get(at..at + 8) {
        let end = at as u64 + 12 + u64::from(u32::from_be_bytes([a, b, c, d]));
        if end > bytes.len() as u64 {
            return false;
        }
        if kind == b"IEND" {
            return true;
        }
        at = end as usize;
    }
    false
}

/// Walks the blocks of a GIF to its trailer; `None` when a block goes beyond the file.
fn has_gif_end(bytes: &[u8]) -> Option<bool> {
    let table = |flags: u8| if flags & 0x80 > 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let mut at = 13 + table(*bytes.get(10)?);
    loop {
        match bytes.get(at)? {
            0x3b => return Some(true),
            0x21 => at += 2,
            0x2c => at += 11 + table(*bytes.get(at + 9)?),
            _ => return Some(false),
        }
        // Blocks of data, each after its length.
        loop {
            let length = usize::from(*bytes.get(at)?);
            at += 1 + length;
            if length == 0 {
                break;
            }
        }
    }
}

/// Whether the pixels of a BMP are all there, as far as their length follows from the header.
fn has_bmp_pixels(bytes: &[u8]) -> Option<bool> {
    let start = little_endian(bytes, 10, 4)?;
    let signed = |at| Some(little_endian(bytes, at, 4)? as u32 as i32);
    let (is_old, bits, compression) = match little_endian(bytes, 14, 4)? {
        12 => (true, little_endian(bytes, 24, 2)?, 0),
        _ => (false, little_endian(bytes, 28, 2)?, little_endian(bytes, 30, 4)?),
    };
    let [width, height] = match is_old {
        true => [little_endian(bytes, 18, 2)?, little_endian(bytes, 20, 2)?],
        false => [signed(18)?, signed(22)?].map(|extent| extent.unsigned_abs().into()),
    };
    let length = match compression {
        // Packed pixels have a length of their own.
        1 | 2 | 4 | 5 => little_endian(bytes, 34, 4)?,
        _ => (width * bits).div_ceil(32) * 4 * height,
    };
    Some(start.saturating_add(length) <= bytes.len() as u64)
}
