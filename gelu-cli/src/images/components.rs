//! Connected components of a set of pixels.

/// Pixels that hang together.
pub(super) struct Component {
    /// Where they are in the picture, row by row.
    pub(super) pixels: Vec<usize>,
    /// The first row and column.
    pub(super) first: [usize; 2],
    /// The last row and column.
    pub(super) last: [usize; 2],
}

impl Component {
    /// Height and width.
    pub(super) fn extent(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.last[axis] - self.first[axis] + 1)
    }

    /// The longer of height and width.
    pub(super) fn length(&self) -> usize {
        let [height, width] = self.extent();
        height.max(width)
    }

    /// The pixels' share of the rectangle around them.
    pub(super) fn fill(&self) -> f32 {
        let [height, width] = self.extent();
        self.pixels.len() as f32 / (height * width) as f32
    }

    /// The shorter of height and width, as a part of the longer.
    pub(super) fn aspect(&self) -> f32 {
        let [height, width] = self.extent();
        height.min(width) as f32 / height.max(width) as f32
    }
}

/// Which pixels count as neighbors.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Neighbors {
    /// Those that share a side.
    Four,
    /// Those that share a corner, too.
    Eight,
}

/// The connected components of the pixels for which `is_member` holds, in a picture of height and width `size`.
pub(super) fn components(
    size: [usize; 2],
    neighbors: Neighbors,
    is_member: impl Fn(usize) -> bool,
) -> Vec<Component> {
    let [height, width] = size;
    let mut open: Vec<bool> = (0..height * width).map(is_member).collect();
    let mut found = vec![];
    for start in 0..open.len() {
        if !std::mem::take(&mut open[start]) {
            continue;
        }
        let (mut first, mut last) = ([start / width, start % width], [start / width, start % width]);
        let mut pixels = vec![start];
        let mut next = 0;
        while let Some(&at) = pixels.get(next) {
            next += 1;
            let place = [at / width, at % width];
            for axis in 0..2 {
                first[axis] = first[axis].min(place[axis]);
                last[axis] = last[axis].max(place[axis]);
            }
            for row in place[0].saturating_sub(1)..(place[0] + 2).min(height) {
                for column in place[1].saturating_sub(1)..(place[1] + 2).min(width) {
                    let shares_side = row == place[0] || column == place[1];
                    let near = row * width + column;
                    if (shares_side || neighbors == Neighbors::Eight) && std::mem::take(&mut open[near]) {
                        pixels.push(near);
                    }
                }
            }
        }
        found.push(Component { pixels, first, last });
    }
    found
}
