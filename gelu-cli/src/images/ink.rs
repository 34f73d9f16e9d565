//! Finds the ink of one digit on its paper.

use image::GrayImage;

use super::Invert;
use super::components::{Component, Neighbors, components};
use super::light::Light;
use super::paper::papers_of;
use super::plane::{Mask, Plane, quantile};

/// The least difference between paper and ink, of 255.
pub(super) const MIN_CONTRAST: f32 = 24.0;
/// How many times the paper's noise ink must differ from paper.
const NOISE: f32 = 4.0;
/// What differs from paper by less than this part of the contrast is paper.
const PAPER: f32 = 0.15;
/// A stroke somewhere reaches this part of the contrast.
const STROKE: f32 = 0.4;
/// A digit is at least this long, as a part of the longer side of the paper.
const LEAST_LENGTH: f32 = 0.05;
/// Pieces of less than this part of the largest one's area are specks.
const SPECK: f32 = 0.04;
/// The same for pieces far from the largest one.
const FAR_SPECK: f32 = 0.2;
/// Strokes are at least this wide, of the 20 pixels of a digit.
const LEAST_STROKE: f32 = 1.7;

/// Why a picture shows no digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NoDigit {
    /// Ink and paper are too much alike.
    Faint {
        /// The largest difference, of 255.
        contrast: f32,
        /// The least that is needed.
        needed: f32,
    },
    /// All that is there is too small.
    Speck {
        /// Height and width of it.
        found: [usize; 2],
        /// Height and width of the picture as it was looked at.
        picture: [usize; 2],
    },
    /// An area without strokes.
    Area {
        /// Height and width of it.
        found: [usize; 2],
        /// Height and width of the picture as it was looked at.
        picture: [usize; 2],
    },
    /// Only things along the edge, as frames are.
    Edge,
}

impl NoDigit {
    /// What should be there, and what is.
    pub(super) fn expected_and_found(self) -> [String; 2] {
        let of = |[height, width]: [usize; 2]| format!("{width} x {height} pixels");
        match self {
            Self::Faint { contrast, needed } => [
                format!("a digit with a contrast to its paper of at least {needed:.0} of 255"),
                format!("a contrast of {contrast:.0}; use more light, or a darker pen"),
            ],
            Self::Speck { found, picture } => [
                "a digit".to_owned(),
                format!(
                    "specks only, the largest of {} in {}; cut the picture to the digit",
                    of(found),
                    of(picture)
                ),
            ],
            Self::Area { found, picture } => [
                "the strokes of a digit".to_owned(),
                format!(
                    "an area of {} in {} without any; cut the picture to the digit",
                    of(found),
                    of(picture)
                ),
            ],
            Self::Edge => [
                "a digit".to_owned(),
                "paper with nothing on it but along its edge; cut the picture to the digit".to_owned(),
            ],
        }
    }
}

/// The ink of `grey`, from 0 for paper to 255.
pub(super) fn ink(grey: &GrayImage, invert: Invert) -> Result<GrayImage, NoDigit> {
    let plane = Plane::new(grey);
    let mut papers = papers_of(&plane, MIN_CONTRAST);
    if let [all] = &papers[..]
        && all.count() == plane.pixels.len()
    {
        // Uneven light hides dark edges.
        let light = Light::fit(&plane, all);
        let flat = (0..plane.pixels.len()).map(|at| light.residual(&plane, at) + 127.5).collect();
        papers = papers_of(&Plane { size: plane.size, pixels: flat }, MIN_CONTRAST);
    }
    // The strokes of some digits surround an area, as a table surrounds paper. What is there tells them apart.
    let is_sure = papers.len() == 1;
    let mut tried = papers.iter().rev().map(|area| ink_on(&plane, area, invert, is_sure));
    let innermost = tried.next().unwrap_or(Err(NoDigit::Edge));
    innermost.or_else(|error| tried.find_map(Result::ok).ok_or(error))
}

/// The ink on the paper `area`, which may be no paper unless that `is_sure`.
fn ink_on(plane: &Plane, area: &Mask, invert: Invert, is_sure: bool) -> Result<GrayImage, NoDigit> {
    let light = Light::fit(plane, area);
    let residual: Vec<f32> = (0..plane.pixels.len())
        .map(|at| if area.is_in[at] { light.residual(plane, at) } else { 0.0 })
        .collect();
    let above_paper = polarize(residual, invert, least_of(&light));
    digit(&above_paper, area, &light, is_sure)
}

/// The least difference from paper that is no noise.
fn least_of(light: &Light) -> f32 {
    (MIN_CONTRAST / 2.0).max(NOISE * light.noise)
}

/// Differences from paper with those of ink positive: the side on which most is.
fn polarize(residual: Vec<f32>, invert: Invert, least: f32) -> Vec<f32> {
    let is_dark = match invert {
        Invert::Yes => true,
        Invert::No => false,
        Invert::Auto => {
            let sum = |sign: f32| residual.iter().map(|x| x * sign).filter(|&x| x >= least).sum::<f32>();
            sum(-1.0) > sum(1.0)
        }
    };
    if is_dark { residual.into_iter().map(|x| -x).collect() } else { residual }
}

/// Keeps the digit of what differs from paper.
fn digit(above_paper: &[f32], area: &Mask, light: &Light, is_sure: bool) -> Result<GrayImage, NoDigit> {
    let size = area.size;
    let least = least_of(light);
    let mut inked: Vec<f32> = above_paper.iter().copied().filter(|&x| x >= least).collect();
    let needed = MIN_CONTRAST.max(NOISE * light.noise);
    // Single pixels do not count.
    let peak = quantile(&mut inked, 0.9);
    if peak < needed {
        let contrast = if inked.is_empty() { above_paper.iter().copied().fold(0.0, f32::max) } else { peak };
        return Err(NoDigit::Faint { contrast, needed });
    }
    let low = (PAPER * peak).max(2.5 * light.noise).max(4.0);
    let pieces = components(size, Neighbors::Eight, |at| above_paper[at] >= low);
    let has_stroke = |piece: &Component| piece.pixels.iter().any(|&at| above_paper[at] >= STROKE * peak);
    let pieces: Vec<Component> = pieces.into_iter().filter(has_stroke).collect();
    let pieces = without_edges(pieces, area);
    let largest = pieces.iter().max_by_key(|piece| piece.pixels.len()).ok_or(NoDigit::Edge)?;
    check(largest, area, is_sure)?;
    let kept: Vec<usize> = pieces
        .iter()
        .filter(|piece| {
            let part = piece.pixels.len() as f32 / largest.pixels.len() as f32;
            part >= if is_near(piece, largest) { SPECK } else { FAR_SPECK }
        })
        .flat_map(|piece| piece.pixels.iter().copied())
        .collect();
    let mut shades: Vec<f32> = kept.iter().map(|&at| above_paper[at]).collect();
    let contrast = quantile(&mut shades, 0.9);
    if contrast < needed {
        return Err(NoDigit::Faint { contrast, needed });
    }
    let mut ink = vec![0; above_paper.len()];
    for &at in &kept {
        let part = (above_paper[at] / contrast).min(1.0);
        ink[at] = if part < PAPER { 0 } else { (255.0 * part).round() as u8 };
    }
    widen(&mut ink, size);
    GrayImage::from_raw(size[1] as u32, size[0] as u32, ink).ok_or(NoDigit::Edge)
}

/// Without what lies along the edge of the paper only, and without what comes in at the picture's corners when there
/// is something else.
fn without_edges(pieces: Vec<Component>, area: &Mask) -> Vec<Component> {
    let length = area.size[0].max(area.size[1]);
    let inner = area.eroded((length / 25).max(2));
    let [height, width] = area.size;
    let corners = [0, width - 1, (height - 1) * width, height * width - 1];
    let is_along_edge = |piece: &Component| {
        let outer = piece.pixels.iter().filter(|&&at| !inner.is_in[at]).count();
        outer * 20 >= piece.pixels.len() * 19 && piece.pixels.iter().any(|&at| area.is_edge(at))
    };
    let pieces: Vec<Component> = pieces.into_iter().filter(|piece| !is_along_edge(piece)).collect();
    let has_corner = |piece: &Component| corners.iter().any(|corner| piece.pixels.contains(corner));
    let (corner, free): (Vec<_>, Vec<_>) = pieces.into_iter().partition(has_corner);
    let count = |pieces: &[Component]| pieces.iter().map(|piece| piece.pixels.len()).max().unwrap_or(0);
    match count(&free) * 4 >= count(&corner) {
        true => free,
        false => corner.into_iter().chain(free).collect(),
    }
}

/// Refuses dust and areas.
fn check(piece: &Component, area: &Mask, is_sure: bool) -> Result<(), NoDigit> {
    let (found, picture) = (piece.extent(), area.size);
    let paper = (area.count() as f32).sqrt();
    let length = piece.length() as f32;
    // A dot or a blot is round; of the digits, only a 1 fills its rectangle like that, which is narrow.
    let is_dot = length < 0.15 * paper && piece.fill() >= 0.7 && piece.aspect() >= 0.6;
    if length < (LEAST_LENGTH * paper).max(5.0) || is_dot {
        return Err(NoDigit::Speck { found, picture });
    }
    // Either bold strokes may fill as much as this, or the hole of a 0, and a sheet that lies askew.
    let [most_fill, most_aspect] = if is_sure { [0.9, 0.5] } else { [0.68, 0.45] };
    if piece.fill() >= most_fill && piece.aspect() >= most_aspect {
        return Err(NoDigit::Area { found, picture });
    }
    Ok(())
}

/// Whether a piece is nearer to the largest one than half of that one's length.
fn is_near(piece: &Component, largest: &Component) -> bool {
    let gap = |axis: usize| {
        let after = piece.first[axis].saturating_sub(largest.last[axis]);
        after.max(largest.first[axis].saturating_sub(piece.last[axis]))
    };
    gap(0).max(gap(1)) * 2 <= largest.length()
}

/// Widens strokes that would all but vanish when the digit is scaled down.
fn widen(ink: &mut [u8], [height, width]: [usize; 2]) {
    let strokes: Vec<usize> = (0..ink.len()).filter(|&at| ink[at] >= 128).collect();
    let mask = Mask::of([height, width], &strokes);
    let edge = mask.edge().len();
    let all = components([1, ink.len()], Neighbors::Four, |at| ink[at] > 0);
    let rows = all.iter().flat_map(|run| [run.first[1] / width, run.last[1] / width]);
    let columns = (0..ink.len()).filter(|&at| ink[at] > 0).map(|at| at % width);
    let span = |places: &mut dyn Iterator<Item = usize>| {
        let (low, high) = places.fold((usize::MAX, 0), |(low, high), x| (low.min(x), high.max(x)));
        high.saturating_sub(low) + 1
    };
    let length = span(&mut rows.into_iter()).max(span(&mut columns.into_iter())) as f32;
    if strokes.is_empty() {
        return;
    }
    // A stroke has two edges; one of a single pixel is its own edge.
    let stroke = (2.0 * strokes.len() as f32 / edge.max(1) as f32).max(1.0);
    let stroke = if edge == strokes.len() { stroke / 2.0 } else { stroke };
    let missing = LEAST_STROKE * length / 20.0 - stroke;
    let reach = (missing / 2.0).round().max(0.0) as usize;
    if reach == 0 {
        return;
    }
    for stride in [1, width] {
        let count = if stride == 1 { width } else { height };
        let source = ink.to_vec();
        for (at, pixel) in ink.iter_mut().enumerate() {
            let place = if stride == 1 { at % width } else { at / width };
            let from = at - place.min(reach) * stride;
            let steps = place.min(reach) + reach.min(count - 1 - place);
            *pixel = (0..=steps).map(|step| source[from + step * stride]).max().unwrap_or(0);
        }
    }
}
