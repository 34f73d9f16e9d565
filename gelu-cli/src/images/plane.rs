//! Grey pixels as numbers, and what is computed over all of them.

use image::GrayImage;

/// Brightness from 0 to 255, row by row.
pub(super) struct Plane {
    /// Height and width.
    pub(super) size: [usize; 2],
    pub(super) pixels: Vec<f32>,
}

impl Plane {
    pub(super) fn new(grey: &GrayImage) -> Self {
        let size = [grey.height() as usize, grey.width() as usize];
        Self { size, pixels: grey.iter().map(|&pixel| pixel.into()).collect() }
    }

    /// The mean over each pixel and its eight neighbors, which takes the edge off noise.
    pub(super) fn smoothed(&self) -> Self {
        let rows = means(&self.pixels, self.size, 1);
        Self { size: self.size, pixels: means(&rows, self.size, self.size[1]) }
    }

    /// The longer of height and width.
    pub(super) fn length(&self) -> usize {
        self.size[0].max(self.size[1])
    }
}

/// The mean of each pixel and those before and after it, `stride` apart: 1 within a row, the width within a column.
fn means(pixels: &[f32], [height, width]: [usize; 2], stride: usize) -> Vec<f32> {
    let (position, count): (fn(usize, usize) -> usize, usize) = match stride {
        1 => (|at, width| at % width, width),
        _ => (|at, width| at / width, height),
    };
    (0..pixels.len())
        .map(|at| {
            let position = position(at, width);
            let before = if position > 0 { pixels[at - stride] } else { pixels[at] };
            let after = if position + 1 < count { pixels[at + stride] } else { pixels[at] };
            (before + pixels[at] + after) / 3.0
        })
        .collect()
}

/// A set of pixels.
#[derive(Clone)]
pub(super) struct Mask {
    /// Height and width.
    pub(super) size: [usize; 2],
    pub(super) is_in: Vec<bool>,
}

impl Mask {
    pub(super) fn full(size: [usize; 2]) -> Self {
        Self { size, is_in: vec![true; size[0] * size[1]] }
    }

    pub(super) fn of(size: [usize; 2], members: &[usize]) -> Self {
        let mut is_in = vec![false; size[0] * size[1]];
        members.iter().for_each(|&at| is_in[at] = true);
        Self { size, is_in }
    }

    pub(super) fn count(&self) -> usize {
        self.is_in.iter().filter(|is_in| **is_in).count()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = usize> {
        self.is_in.iter().enumerate().filter(|(_, is_in)| **is_in).map(|(at, _)| at)
    }

    /// Whether `at` is a member with a neighbor, above, below, left or right, that is none.
    pub(super) fn is_edge(&self, at: usize) -> bool {
        let [height, width] = self.size;
        let (row, column) = (at / width, at % width);
        let is_inner = row > 0
            && column > 0
            && row + 1 < height
            && column + 1 < width
            && self.is_in[at - 1]
            && self.is_in[at + 1]
            && self.is_in[at - width]
            && self.is_in[at + width];
        self.is_in[at] && !is_inner
    }

    /// The members at the edge of the set.
    pub(super) fn edge(&self) -> Vec<usize> {
        self.members().filter(|&at| self.is_edge(at)).collect()
    }

    /// Without a margin of `width` pixels; the picture's own border counts as an edge.
    pub(super) fn eroded(&self, width: usize) -> Self {
        let mut mask = self.clone();
        for _ in 0..width {
            for at in mask.edge() {
                mask.is_in[at] = false;
            }
        }
        mask
    }
}

/// The value below which the part `share` of `values` is; 0 for none.
pub(super) fn quantile(values: &mut [f32], share: f32) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let at = ((values.len() - 1) as f32 * share).round() as usize;
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

/// The typical distance of `values` from `center`: their standard deviation where they are normally distributed, and
/// hardly moved by outliers.
pub(super) fn deviation(values: impl Iterator<Item = f32>, center: f32) -> f32 {
    let mut distances: Vec<f32> = values.map(|value| (value - center).abs()).collect();
    1.4826 * quantile(&mut distances, 0.5)
}

/// Otsu's threshold: that which divides `values` (from 0 to 255) into two classes of the least variance.
pub(super) fn otsu(values: impl Iterator<Item = f32>) -> f32 {
    let mut histogram = [0.0f64; 256];
    values.for_each(|value| histogram[value.clamp(0.0, 255.0) as usize] += 1.0);
    let count: f64 = histogram.iter().sum();
    let total: f64 = (0..).zip(histogram).map(|(shade, count)| f64::from(shade) * count).sum();
    let (mut below, mut sum) = (0.0, 0.0);
    // All thresholds within a gap are as good: the middle of it is taken.
    let (mut best, mut range) = (-1.0, [0, 0]);
    for (shade, here) in (0..).zip(histogram) {
        below += here;
        sum += f64::from(shade) * here;
        if below == 0.0 || below == count {
            continue;
        }
        let distance = sum / below - (total - sum) / (count - below);
        let between = below * (count - below) * distance * distance;
        if between > best {
            (best, range) = (between, [shade, shade]);
        } else if between == best {
            range[1] = shade;
        }
    }
    (range[0] + range[1]) as f32 / 2.0 + 1.0
}
