use std::path::Path;

use image::{GrayImage, Luma};

use super::write_png;

/// A picture of numbers: white is the largest of them, black the smallest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel<'a> {
    /// Height and width.
    pub(crate) size: [usize; 2],
    /// Row by row; missing ones are black.
    pub(crate) values: &'a [f64],
}

/// Pixels of the picture for one number.
const ZOOM: u32 = 8;
/// Around each panel.
const MARGIN: u32 = 8;

/// Writes rows of panels to `path` as PNG, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_panels(path: &Path, rows: &[Vec<Panel<'_>>]) -> anyhow::Result<()> {
    let extent = |panel: &Panel<'_>| panel.size.map(|extent| extent as u32 * ZOOM + 2 * MARGIN);
    let height = |row: &Vec<Panel<'_>>| row.iter().map(|panel| extent(panel)[0]).max().unwrap_or(0);
    let width = rows.iter().map(|row| row.iter().map(|panel| extent(panel)[1]).sum()).max().unwrap_or(0);
    let mut picture =
        GrayImage::from_pixel(width.max(1), rows.iter().map(height).sum::<u32>().max(1), Luma([128]));
    let mut top = 0;
    for row in rows {
        let mut left = 0;
        for panel in row {
            draw(&mut picture, panel, [top + MARGIN, left + MARGIN]);
            left += extent(panel)[1];
        }
        top += height(row);
    }
    write_png(path, &picture)
}

fn draw(picture: &mut GrayImage, panel: &Panel<'_>, [top, left]: [u32; 2]) {
    let least = panel.values.iter().copied().fold(f64::INFINITY, f64::min);
    let span = panel.values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - least;
    for (at, value) in (0..).zip(panel.values.iter().take(panel.size[0] * panel.size[1])) {
        let shade = if span > 0.0 { (255.0 * (value - least) / span).round() as u8 } else { 0 };
        let (row, column) = (at / panel.size[1] as u32, at % panel.size[1] as u32);
        for y in 0..ZOOM {
            for x in 0..ZOOM {
                picture.put_pixel(left + column * ZOOM + x, top + row * ZOOM + y, Luma([shade]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_number_is_white_and_the_smallest_black() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("panels.png");
        let values = [-2.0, 0.0, 3.0];
        let panel = Panel { size: [1, 3], values: &values };
        write_panels(&path, &[vec![panel, panel], vec![panel]]).unwrap();
        let picture = image::open(&path).unwrap().into_luma8();
        assert_eq!(picture.dimensions(), (2 * (3 * ZOOM + 2 * MARGIN), 2 * (ZOOM + 2 * MARGIN)));
        let shades = [0, 1, 2].map(|at| picture.get_pixel(MARGIN + at * ZOOM, MARGIN)[0]);
        assert_eq!((shades, picture.get_pixel(0, 0)[0]), ([0, 102, 255], 128));
    }
}
