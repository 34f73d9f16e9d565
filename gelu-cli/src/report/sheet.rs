use std::path::Path;

use gelu_io::data::Images;
use image::{Rgb, RgbImage};

use super::{
    Verdict,
    font::{GLYPH, glyph},
    write_png,
};

/// Sheet pixels for one pixel of a picture.
const ZOOM: u32 = 4;
/// Sheet pixels for one dot of a character.
const DOT: u32 = 2;
/// Around each picture, for the frame and the gap.
const MARGIN: u32 = 6;
/// Width of the frame.
const FRAME: u32 = 3;
/// Height of the text below each picture, with the space around it.
const TEXT: u32 = GLYPH[1] * DOT + 10;
/// Pictures in a row.
const PER_ROW: u32 = 10;

const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const RIGHT: Rgb<u8> = Rgb([40, 40, 40]);
const WRONG: Rgb<u8> = Rgb([208, 24, 24]);

/// Writes [`contact_sheet`] to `path` as PNG, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_contact_sheet(path: &Path, images: &Images, verdicts: &[Verdict]) -> anyhow::Result<()> {
    write_png(path, &contact_sheet(images, verdicts))
}

/// The pictures, ten in a row and four times their size, each above `label→prediction confidence` (without the
/// label where it is not known). The wrong ones are red and framed.
pub(crate) fn contact_sheet(images: &Images, verdicts: &[Verdict]) -> RgbImage {
    let [height, width] = images.size().map(|extent| extent as u32);
    let count = images.count().min(verdicts.len()) as u32;
    let cell = [width * ZOOM + 2 * MARGIN, height * ZOOM + 2 * MARGIN + TEXT];
    let size = [cell[0] * count.clamp(1, PER_ROW), cell[1] * count.div_ceil(PER_ROW).max(1)];
    let mut sheet = RgbImage::from_pixel(size[0], size[1], PAPER);
    for (i, (picture, verdict)) in (0..).zip(images.iter().zip(verdicts)) {
        let color = if verdict.is_wrong() { WRONG } else { RIGHT };
        let corner = [i % PER_ROW * cell[0] + MARGIN, i / PER_ROW * cell[1] + MARGIN];
        if verdict.is_wrong() {
            let outer = [width * ZOOM + 2 * FRAME, height * ZOOM + 2 * FRAME];
            fill(&mut sheet, corner.map(|at| at - FRAME), outer, WRONG);
        }
        for (j, &pixel) in (0..).zip(picture) {
            let at = [corner[0] + j % width * ZOOM, corner[1] + j / width * ZOOM];
            fill(&mut sheet, at, [ZOOM, ZOOM], Rgb([pixel; 3]));
        }
        let text = caption(verdict);
        let text_width = text.chars().count() as u32 * (GLYPH[0] + 1) * DOT;
        let indent = (width * ZOOM).saturating_sub(text_width) / 2;
        write(&mut sheet, [corner[0] + indent, corner[1] + height * ZOOM + 8], &text, color);
    }
    sheet
}

fn caption(verdict: &Verdict) -> String {
    let label = verdict.label.map(|label| format!("{label}→")).unwrap_or_default();
    format!("{label}{} {}", verdict.predicted, verdict.percent())
}

fn write(sheet: &mut RgbImage, [left, top]: [u32; 2], text: &str, color: Rgb<u8>) {
    for (i, character) in (0..).zip(text.chars()) {
        for (y, row) in (0..).zip(glyph(character)) {
            for x in (0..GLYPH[0]).filter(|x| row >> (GLYPH[0] - 1 - x) & 1 == 1) {
                fill(sheet, [left + (i * (GLYPH[0] + 1) + x) * DOT, top + y * DOT], [DOT, DOT], color);
            }
        }
    }
}

/// Fills a rectangle, as far as it is on the sheet.
fn fill(sheet: &mut RgbImage, [left, top]: [u32; 2], [width, height]: [u32; 2], color: Rgb<u8>) {
    for y in top..(top + height).min(sheet.height()) {
        for x in left..(left + width).min(sheet.width()) {
            sheet.put_pixel(x, y, color);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gelu_io::digits::SampleDigits;

    fn verdict(label: Option<u8>, predicted: u8) -> Verdict {
        Verdict { label, predicted, confidence: Some(0.9876) }
    }

    #[test]
    fn captions_are_short() {
        assert_eq!(caption(&verdict(Some(7), 1)), "7→1 98.8%");
        assert_eq!(caption(&Verdict { confidence: Some(0.9996), ..verdict(None, 3) }), "3 100%");
    }

    #[test]
    fn only_wrong_ones_are_red() {
        let digits = SampleDigits { seed: 0, per_digit: 2 }.draw();
        let verdicts = |wrong: bool| -> Vec<Verdict> {
            digits.labels().iter().map(|&label| verdict(Some(label), label ^ u8::from(wrong))).collect()
        };
        let red =
            |wrong| contact_sheet(digits.images(), &verdicts(wrong)).pixels().any(|&pixel| pixel == WRONG);
        assert!(!red(false));
        assert!(red(true));
    }

    #[test]
    fn a_sheet_is_a_png_of_the_right_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheet.png");
        let digits = SampleDigits { seed: 0, per_digit: 2 }.draw();
        write_contact_sheet(&path, digits.images(), &[verdict(None, 4); 12]).unwrap();
        assert_eq!(image::image_dimensions(&path).unwrap(), (1240, 296));
        write_contact_sheet(&path, digits.images(), &[]).unwrap();
    }
}
