use std::path::Path;

use anyhow::Context;
use gelu_io::files;
use image::codecs::png::PngEncoder;
use image::{ImageBuffer, PixelWithColorType};

/// Writes a picture to `path` as PNG, whole or not at all.
///
/// The encoder is named, because a choice by the format would compile those of all formats into the command.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_png<P>(path: &Path, picture: &ImageBuffer<P, Vec<u8>>) -> anyhow::Result<()>
where
    P: PixelWithColorType<Subpixel = u8>,
{
    let mut png = vec![];
    picture
        .write_with_encoder(PngEncoder::new(&mut png))
        .with_context(|| format!("{}: cannot encode", path.display()))?;
    Ok(files::write_atomic(path, &png)?)
}
