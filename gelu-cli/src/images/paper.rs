//! Where the paper is: without frames, dark edges of scans, and the table that it lies on.

use super::components::{Component, Neighbors, components};
use super::plane::{Mask, Plane, otsu, quantile};

/// A surround touches at least this part of the edge.
const LEAST_OF_EDGE: f32 = 0.04;
/// Paper is at least this part of what is left of the picture.
const LEAST_OF_PICTURE: f32 = 0.1;
/// Paper fills at least this part of the smallest rectangle around it.
const LEAST_RECTANGULAR: f32 = 0.82;
/// Its shorter side is at least so many pixels: corners cannot be told from curves on fewer.
const LEAST_SIDE: f32 = 16.0;
/// How far inside of a corner of that rectangle there must be paper, as a part of its shorter side. A circle leaves 0.146.
const CORNER: f32 = 0.09;
/// The shorter side of that rectangle is at least this part of the longer. Otherwise it is a 1.
const LEAST_ASPECT: f32 = 0.4;
/// Between paper and surround, brightness changes within a few pixels by this part of their difference. Where light
/// falls off over the picture, it does not.
const LEAST_SHARP: f32 = 0.3;
/// The turns of a rectangle that are tried, in degrees to either side.
const TURNS: i32 = 45;

/// The parts of `plane` to look for ink in: everything, or what a frame encloses; then the paper inside of a surround,
/// where there is one (surround in surround, if need be). `least` is the least contrast of what is written on paper.
pub(super) fn papers_of(plane: &Plane, least: f32) -> Vec<Mask> {
    const MOST_SURROUNDS: usize = 3;
    let smoothed = if plane.length() > 64 { &plane.smoothed() } else { plane };
    let all = without_frame(smoothed, least).unwrap_or_else(|| Mask::full(plane.size));
    let inner = |paper: &Mask| inside(smoothed, paper, least);
    std::iter::successors(Some(all), inner).take(1 + MOST_SURROUNDS).collect()
}

/// What a frame of straight lines along all four sides encloses. Unlike other surrounds, it may be touched by ink.
fn without_frame(plane: &Plane, least: f32) -> Option<Mask> {
    /// A line belongs to the frame with this part of its pixels, and to the paper with this part of the other shade.
    const LEAST_OF_LINE: [f32; 2] = [0.9, 0.6];
    const MOST_LINES: f32 = 0.25;
    let [height, width] = plane.size;
    let threshold = otsu(plane.pixels.iter().copied());
    [false, true].into_iter().find_map(|is_light| {
        let is_frame =
            |row: usize, column: usize| (plane.pixels[row * width + column] >= threshold) == is_light;
        let share = |pixels: &mut dyn Iterator<Item = bool>, of: usize| {
            pixels.filter(|is_frame| *is_frame).count() as f32 / of as f32
        };
        let row = |row: usize| share(&mut (0..width).map(|column| is_frame(row, column)), width);
        let column = |column: usize| share(&mut (0..height).map(|row| is_frame(row, column)), height);
        // How many lines from a side make up the frame.
        let lines = |line: &dyn Fn(usize) -> f32, count: usize| {
            let most = (MOST_LINES * count as f32) as usize;
            let lines = (0..most).take_while(|&at| line(at) >= LEAST_OF_LINE[0]).count();
            // Between frame and paper, a line may have shades of both.
            let is_paper = |at: usize| at < count && 1.0 - line(at) >= LEAST_OF_LINE[1];
            let end = [lines, lines + 1, lines + 2].into_iter().find(|&at| is_paper(at));
            end.filter(|_| lines > 0)
        };
        let (top, bottom) = (lines(&row, height)?, lines(&|at| row(height - 1 - at), height)?);
        let (left, right) = (lines(&column, width)?, lines(&|at| column(width - 1 - at), width)?);
        let is_inner = |at: usize| {
            (top..height - bottom).contains(&(at / width)) && (left..width - right).contains(&(at % width))
        };
        let inner = Mask { size: plane.size, is_in: (0..height * width).map(is_inner).collect() };
        is_written_on(plane, &inner, least).then_some(inner)
    })
}

/// The paper in `area`, when a surround leaves some.
fn inside(plane: &Plane, area: &Mask, least: f32) -> Option<Mask> {
    let otsu_of = |range: std::ops::Range<f32>| {
        otsu(area.members().map(|at| plane.pixels[at]).filter(|pixel| range.contains(pixel)))
    };
    let threshold = otsu_of(0.0..256.0);
    let edge = area.edge();
    // Ink, paper and table have three shades. When the table is nearer to the paper than to the ink, both are in the
    // class that prevails along the edge.
    let edge_is_light = edge.iter().filter(|&&at| plane.pixels[at] >= threshold).count() * 2 >= edge.len();
    let range = if edge_is_light { threshold..256.0 } else { 0.0..threshold };
    let second = otsu_of(range.clone());
    let part = |range: std::ops::Range<f32>| {
        let count = area.members().filter(|&at| range.contains(&plane.pixels[at])).count();
        count as f32 / area.count().max(1) as f32
    };
    let parts = [part(range.start..second), part(second..range.end)];
    let thresholds = match parts.iter().all(|&part| part >= LEAST_OF_PICTURE) {
        true => vec![threshold, second],
        false => vec![threshold],
    };
    thresholds.into_iter().flat_map(|threshold| [(threshold, false), (threshold, true)]).find_map(
        |(threshold, is_light)| within(plane, area, |at| (plane.pixels[at] >= threshold) == is_light, least),
    )
}

/// The paper in `area`, when the pixels of one shade surround it.
fn within(plane: &Plane, area: &Mask, is_shade: impl Fn(usize) -> bool, least: f32) -> Option<Mask> {
    let edge = area.edge().len() as f32;
    let touching = |component: &Component| {
        let touching = component.pixels.iter().filter(|&&at| area.is_edge(at)).count();
        touching as f32 >= LEAST_OF_EDGE * edge
    };
    let surround: Vec<usize> = components(plane.size, Neighbors::Four, |at| area.is_in[at] && is_shade(at))
        .into_iter()
        .filter(touching)
        .flat_map(|component| component.pixels)
        .collect();
    let surround = Mask::of(plane.size, &surround);
    let rest = components(plane.size, Neighbors::Four, |at| area.is_in[at] && !surround.is_in[at]);
    let sheet = rest.into_iter().max_by_key(|component| component.pixels.len())?;
    let is_large = sheet.pixels.len() as f32 >= LEAST_OF_PICTURE * area.count() as f32;
    if surround.count() == 0 || !is_large {
        return None;
    }
    let sheet = Mask::of(plane.size, &sheet.pixels);
    // Between paper and surround, pixels have shades of both.
    let inner = sheet.eroded(2.max(plane.length() / 100).min(plane.length() / 14));
    let is_paper =
        is_sheet(&sheet) && is_sharp(plane, &sheet, &surround) && is_written_on(plane, &inner, least);
    is_paper.then_some(inner)
}

/// Whether a set of pixels has the shape of a sheet of paper: that of a rectangle with corners, of which one may be cut
/// off. The outline of a 0 or an 8 is round.
fn is_sheet(sheet: &Mask) -> bool {
    let [height, width] = sheet.size;
    let edge: Vec<[f32; 2]> =
        sheet.edge().into_iter().map(|at| [(at / width) as f32, (at % width) as f32]).collect();
    let area = sheet.count() as f32;
    (-TURNS..TURNS).any(|degrees| {
        let (sin, cos) = (degrees as f32).to_radians().sin_cos();
        // Along the sides of the rectangle, and back.
        let turned = |[y, x]: [f32; 2]| [y * cos + x * sin, x * cos - y * sin];
        let back = |[a, b]: [f32; 2]| [a * cos - b * sin, a * sin + b * cos];
        let (mut low, mut high) = ([f32::INFINITY; 2], [f32::NEG_INFINITY; 2]);
        for &point in &edge {
            let place = turned(point);
            for axis in 0..2 {
                low[axis] = low[axis].min(place[axis]);
                high[axis] = high[axis].max(place[axis]);
            }
        }
        let sides = [0, 1].map(|axis| high[axis] - low[axis] + 1.0);
        let shorter = sides[0].min(sides[1]);
        let is_rectangular = area >= LEAST_RECTANGULAR * sides[0] * sides[1];
        if !is_rectangular || shorter < LEAST_SIDE.max(LEAST_ASPECT * sides[0].max(sides[1])) {
            return false;
        }
        let inset = CORNER * shorter;
        let [[first, second], [third, fourth]] = [0, 1].map(|axis| [low[axis] + inset, high[axis] - inset]);
        let corners = [[first, third], [first, fourth], [second, third], [second, fourth]].map(back);
        let is_in = |[y, x]: &[f32; 2]| {
            let (row, column) = (y.round().max(0.0) as usize, x.round().max(0.0) as usize);
            row < height && column < width && sheet.is_in[row * width + column]
        };
        corners.iter().filter(|corner| is_in(corner)).count() >= 3
    })
}

/// Whether brightness jumps from `sheet` to `surround`.
fn is_sharp(plane: &Plane, sheet: &Mask, surround: &Mask) -> bool {
    let [height, width] = plane.size;
    let reach = (plane.length() / 80).clamp(1, 3) as isize;
    let at = |row: isize, column: isize| {
        let is_there = (0..height as isize).contains(&row) && (0..width as isize).contains(&column);
        is_there.then(|| row as usize * width + column as usize)
    };
    let mut steps = vec![];
    for edge in sheet.edge() {
        let (row, column) = ((edge / width) as isize, (edge % width) as isize);
        for [down, right] in [[1, 0], [-1, 0], [0, 1], [0, -1]] {
            let outside = at(row + down, column + right).filter(|&at| surround.is_in[at]);
            // A frame may be thinner than the reach.
            let outside = outside.map(|next| {
                at(row + reach * down, column + reach * right)
                    .filter(|&at| surround.is_in[at])
                    .unwrap_or(next)
            });
            let inside = at(row - reach * down, column - reach * right).filter(|&at| sheet.is_in[at]);
            if let (Some(outside), Some(inside)) = (outside, inside) {
                steps.push((plane.pixels[inside] - plane.pixels[outside]).abs());
            }
        }
    }
    let median_of =
        |mask: &Mask| quantile(&mut mask.members().map(|at| plane.pixels[at]).collect::<Vec<_>>(), 0.5);
    quantile(&mut steps, 0.5) >= LEAST_SHARP * (median_of(sheet) - median_of(surround)).abs()
}

/// Whether a sheet shows more than one shade.
fn is_written_on(plane: &Plane, sheet: &Mask, least: f32) -> bool {
    let mut shades: Vec<f32> = sheet.members().map(|at| plane.pixels[at]).collect();
    let shade = quantile(&mut shades, 0.5);
    let other = shades.iter().filter(|&&pixel| (pixel - shade).abs() >= least).count();
    other as f32 >= (0.001 * shades.len() as f32).max(3.0)
}
