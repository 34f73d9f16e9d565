//! Ink in the form of MNIST: cut out, scaled, centered by its mass.

/// Height and width of a digit, in pixels.
pub const SIDE: usize = 28;
/// Pixels of a digit.
pub const PIXELS: usize = SIDE * SIDE;

/// The longer side of a digit's ink, in pixels.
const INK_SIDE: usize = 20;

/// Returns bright ink on black, `[height, width]` pixels row by row, in the form of MNIST: cut out, scaled so that its
/// longer side is 20 pixels, and placed with its center of mass at the center of [`SIDE`]` x `[`SIDE`] pixels.
///
/// Returns `None` when there is no ink, or the pixels are not `height x width`.
pub fn normalize_digit(size: [usize; 2], ink: &[u8]) -> Option<[u8; PIXELS]> {
    if ink.is_empty() || size[0].checked_mul(size[1])? != ink.len() {
        return None;
    }
    let width = size[1];
    let rows = || ink.chunks_exact(width);
    let inked = |row: &[u8]| row.iter().any(|&pixel| pixel > 0);
    let (top, bottom) = (rows().position(inked)?, rows().rposition(inked)?);
    let column = |x: usize| rows().any(|row| row[x] > 0);
    let (left, right) = ((0..width).find(|&x| column(x))?, (0..width).rfind(|&x| column(x))?);
    let cut = Picture {
        size: [bottom - top + 1, right - left + 1],
        pixels: rows().take(bottom + 1).skip(top).flat_map(|row| &row[left..=right]).copied().collect(),
    };
    cut.scaled().centered()
}

/// Returns whether `digit`, bright on black, has the form of MNIST already: its longer side is 20 pixels (19 in a few of
/// MNIST's), its center of mass lies within a pixel of the center, its brightest pixel is (nearly) white, and most of it
/// is black.
pub fn is_normalized(digit: &[u8; PIXELS]) -> bool {
    // Of MNIST's digits, none has fewer, and none has ink on more than two fifths of the square.
    const LEAST_BRIGHTEST: u8 = 250;
    const MOST_INK: usize = PIXELS / 2;
    let inked =
        || digit.iter().enumerate().filter(|(_, pixel)| **pixel > 0).map(|(at, _)| [at / SIDE, at % SIDE]);
    let is_bright = digit.iter().any(|&pixel| pixel >= LEAST_BRIGHTEST);
    if !is_bright || inked().count() > MOST_INK {
        return false;
    }
    let extent = [0, 1].map(|axis| {
        let places = || inked().map(|place| place[axis]);
        places().max().unwrap_or(0) + 1 - places().min().unwrap_or(0)
    });
    let mass: f64 = digit.iter().map(|&pixel| f64::from(pixel)).sum();
    let is_centered = (0..2).all(|axis| {
        let moment = digit.iter().enumerate().map(|(at, &pixel)| {
            let place = [at / SIDE, at % SIDE][axis];
            f64::from(pixel) * (place as f64 + 0.5)
        });
        (moment.sum::<f64>() / mass - SIDE as f64 / 2.0).abs() <= 1.0
    });
    (INK_SIDE - 1..=INK_SIDE).contains(&extent[0].max(extent[1])) && is_centered
}

/// Grey pixels, row by row.
struct Picture {
    /// Height and width, neither of them 0.
    size: [usize; 2],
    pixels: Vec<u8>,
}

impl Picture {
    /// Scales the longer side to [`INK_SIDE`].
    fn scaled(&self) -> Self {
        let scale = INK_SIDE as f64 / self.size[0].max(self.size[1]) as f64;
        let size = self.size.map(|extent| ((extent as f64 * scale).round() as usize).clamp(1, INK_SIDE));
        let [height, width] = self.size;
        let mut columns = vec![0.0; size[0] * width];
        for (row, (first, weights)) in columns.chunks_exact_mut(width).zip(shares(height, size[0])) {
            for (source, weight) in self.pixels.chunks_exact(width).skip(first).zip(weights) {
                row.iter_mut().zip(source).for_each(|(sum, &pixel)| *sum += f32::from(pixel) * weight);
            }
        }
        let across = shares(width, size[1]);
        let pixels = columns
            .chunks_exact(width)
            .flat_map(|row| {
                across.iter().map(|(first, weights)| {
                    let sum: f32 =
                        row[*first..].iter().zip(weights).map(|(pixel, weight)| pixel * weight).sum();
                    sum.clamp(0.0, 255.0).round() as u8
                })
            })
            .collect();
        Self { size, pixels }
    }

    /// Places the picture, whose extents are at most [`INK_SIDE`], with its brightest pixel at 255; `None` when it is
    /// black.
    fn centered(&self) -> Option<[u8; PIXELS]> {
        let brightest = self.pixels.iter().copied().max().filter(|&brightest| brightest > 0)?;
        let [down, right] = self.offset();
        let mut digit = [0; PIXELS];
        for (y, row) in self.pixels.chunks_exact(self.size[1]).enumerate() {
            for (x, &pixel) in row.iter().enumerate() {
                let bright = u32::from(pixel) * 255 / u32::from(brightest);
                digit[(y + down) * SIDE + x + right] = bright as u8;
            }
        }
        Some(digit)
    }

    /// Returns how far down and right the picture goes for its center of mass to be at the center, without leaving the
    /// square.
    fn offset(&self) -> [usize; 2] {
        let mut mass = 0.0;
        let mut moment = [0.0; 2];
        for (at, &pixel) in self.pixels.iter().enumerate() {
            let pixel = f64::from(pixel);
            let [y, x] = [at / self.size[1], at % self.size[1]];
            mass += pixel;
            moment[0] += pixel * (y as f64 + 0.5);
            moment[1] += pixel * (x as f64 + 0.5);
        }
        std::array::from_fn(|axis| {
            let wanted = (SIDE as f64 / 2.0 - moment[axis] / mass).round().max(0.0) as usize;
            wanted.min(SIDE - self.size[axis])
        })
    }
}

/// For each of `to` pixels in a row the first of the `from` pixels that it is made of, and the shares of that one and
/// of those after it, which add up to one: a triangle around the pixel's own place.
fn shares(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let ratio = from as f32 / to as f32;
    let reach = ratio.max(1.0);
    let share = |at: usize| {
        let place = (at as f32 + 0.5) * ratio;
        let first = ((place - reach).floor().max(0.0) as usize).min(from - 1);
        let end = ((place + reach).ceil() as usize).clamp(first + 1, from);
        // A pixel's own place is its middle.
        let height = |pixel: usize| (1.0 - ((pixel as f32 - (place - 0.5)) / reach).abs()).max(0.0);
        let heights: Vec<f32> = (first..end).map(height).collect();
        let sum: f32 = heights.iter().sum();
        (first, heights.into_iter().map(|height| height / sum).collect())
    };
    (0..to).map(share).collect()
}
