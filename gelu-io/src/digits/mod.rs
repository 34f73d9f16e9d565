//! Digits in the form of MNIST, and sample digits drawn by this project: pen strokes with a hand's irregularities.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::data::LabelledImages;

mod normalize;
mod strokes;
#[cfg(test)]
mod tests;

pub use normalize::{PIXELS, SIDE, is_normalized, normalize_digit};
use strokes::{Point, STYLES, Style};

/// Which sample digits to draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleDigits {
    /// Start of the random numbers: the same seed gives the same pictures.
    pub seed: u64,
    /// How many of each digit.
    pub per_digit: usize,
}

impl SampleDigits {
    /// Draws sample digits of 28x28, labelled, in turn from 0 to 9 and again from 0.
    pub fn draw(self) -> LabelledImages {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let count = self.per_digit.saturating_mul(STYLES.len());
        let mut images = LabelledImages::empty([SIDE, SIDE]);
        for i in 0..count {
            let digit = i % STYLES.len();
            let styles = STYLES[digit];
            let style = styles[(i / STYLES.len()) % styles.len()];
            images.push(&draw(style, &Hand::random(&mut rng)), digit as u8);
        }
        images
    }
}

/// Side of the canvas on which a digit is drawn before it is scaled down.
const CANVAS: usize = 160;
/// Height of a digit on the canvas.
const HEIGHT: f32 = 100.0;

/// How one digit differs from its model.
struct Hand {
    /// Slant: the shift to the right from bottom to top.
    shear: f32,
    /// Turn in radians.
    rotation: f32,
    /// Width against height.
    width: f32,
    /// Half the pen's width, on the canvas.
    pen: f32,
    /// Waves that bend the strokes, for x and for y.
    waves: [Wave; 2],
}

/// A slow wave over the unit square.
struct Wave {
    amplitude: f32,
    /// Radians per unit of x and of y.
    frequency: [f32; 2],
    phase: f32,
}

impl Hand {
    fn random(rng: &mut impl rand::Rng) -> Self {
        Self {
            shear: rng.random_range(0.0..0.3),
            rotation: rng.random_range(-0.1..0.1),
            width: rng.random_range(0.72..0.95),
            pen: rng.random_range(5.5..8.5),
            waves: [Wave::random(rng), Wave::random(rng)],
        }
    }

    /// A point of the model on the canvas.
    fn place(&self, [x, y]: Point) -> Point {
        let [dx, dy] = [self.waves[0].at([x, y]), self.waves[1].at([x, y])];
        let (x, y) = ((x + dx - 0.5) * self.width, y + dy - 0.5);
        let x = x - self.shear * y;
        let (sin, cos) = self.rotation.sin_cos();
        let middle = CANVAS as f32 / 2.0;
        [middle + HEIGHT * (x * cos - y * sin), middle + HEIGHT * (x * sin + y * cos)]
    }
}

impl Wave {
    fn random(rng: &mut impl rand::Rng) -> Self {
        Self {
            amplitude: rng.random_range(0.0..0.035),
            frequency: [rng.random_range(1.0..6.0), rng.random_range(1.0..6.0)],
            phase: rng.random_range(0.0..std::f32::consts::TAU),
        }
    }

    fn at(&self, [x, y]: Point) -> f32 {
        self.amplitude * (self.frequency[0] * x + self.frequency[1] * y + self.phase).sin()
    }
}

/// A digit in the form of MNIST.
fn draw(style: Style, hand: &Hand) -> [u8; PIXELS] {
    let strokes: Vec<Vec<Point>> = style
        .iter()
        .map(|stroke| strokes::curve(stroke).into_iter().map(|point| hand.place(point)).collect())
        .collect();
    // Of each pixel, to the nearest piece of a stroke that could reach it.
    let mut distances = vec![f32::INFINITY; CANVAS * CANVAS];
    for ends in strokes.iter().flat_map(|stroke| stroke.windows(2)) {
        let [xs, ys] = [0, 1].map(|axis| {
            let reach = hand.pen + 1.0;
            let [low, high] = [ends[0][axis].min(ends[1][axis]), ends[0][axis].max(ends[1][axis])];
            (low - reach).max(0.0) as usize..((high + reach).max(0.0) as usize + 1).min(CANVAS)
        });
        for y in ys {
            for x in xs.clone() {
                let distance = strokes::distance([x as f32 + 0.5, y as f32 + 0.5], [ends[0], ends[1]]);
                let nearest = &mut distances[y * CANVAS + x];
                *nearest = nearest.min(distance);
            }
        }
    }
    let ink = |distance: f32| ((hand.pen - distance + 0.5).clamp(0.0, 1.0) * 255.0) as u8;
    let canvas: Vec<u8> = distances.into_iter().map(ink).collect();
    // Every style has strokes on the canvas, so there is ink.
    normalize_digit([CANVAS; 2], &canvas).unwrap_or([0; PIXELS])
}
