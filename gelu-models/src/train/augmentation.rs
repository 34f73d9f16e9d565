use ndarray::{ArrayView1, ArrayViewMut1};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Random affine changes to training images; each is drawn uniformly from minus to plus the value given.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Shift in pixels, vertically and horizontally.
    pub shift: f32,
    /// Rotation in degrees.
    pub rotation: f32,
    /// Scaling as a fraction of the size, vertically and horizontally each.
    pub scale: f32,
    /// Horizontal shear: pixels to the side for every pixel of height.
    pub shear: f32,
}

impl Augmentation {
    /// What leaves a handwritten digit of 28x28 pixels the same digit: 2 pixels, 10 degrees, 12 %, 0.2.
    pub const LIGHT: Self = Self { shift: 2.0, rotation: 10.0, scale: 0.12, shear: 0.2 };

    /// Draws one change and writes `source`, an image of `[channels, height, width]`, to `target` with it: bilinear,
    /// zeros from outside.
    pub(super) fn apply<R: Rng + ?Sized>(
        &self,
        source: ArrayView1<'_, f32>,
        mut target: ArrayViewMut1<'_, f32>,
        [channels, height, width]: [usize; 3],
        rng: &mut R,
    ) {
        let mut draw = |limit: f32| limit * rng.random_range(-1.0..=1.0f32);
        let [shift_y, shift_x] = [draw(self.shift), draw(self.shift)];
        let [scale_y, scale_x] = [1.0 + draw(self.scale), 1.0 + draw(self.scale)];
        let (sin, cos) = draw(self.rotation).to_radians().sin_cos();
        let shear = draw(self.shear);
        // From a pixel of the target, seen from the center, back to the source: a step down and a step right.
        let right = [sin * scale_y, cos * scale_x];
        let down = [cos * scale_y, shear - sin * scale_x];
        let [center_y, center_x] = [(height as f32 - 1.0) / 2.0, (width as f32 - 1.0) / 2.0];
        for y in 0..height {
            for x in 0..width {
                let [dy, dx] = [y as f32 - center_y, x as f32 - center_x];
                let at_y = center_y + shift_y + down[0] * dy + right[0] * dx;
                let at_x = center_x + shift_x + down[1] * dy + right[1] * dx;
                let [top, left] = [at_y.floor(), at_x.floor()];
                let [part_y, part_x] = [at_y - top, at_x - left];
                let corners = [
                    (top, left, (1.0 - part_y) * (1.0 - part_x)),
                    (top, left + 1.0, (1.0 - part_y) * part_x),
                    (top + 1.0, left, part_y * (1.0 - part_x)),
                    (top + 1.0, left + 1.0, part_y * part_x),
                ];
                for channel in 0..channels {
                    let mut value = 0.0;
                    for (row, column, weight) in corners {
                        let inside =
                            row >= 0.0 && row < height as f32 && column >= 0.0 && column < width as f32;
                        if inside {
                            value +=
                                weight * source[(channel * height + row as usize) * width + column as usize];
                        }
                    }
                    target[(channel * height + y) * width + x] = value;
                }
            }
        }
    }
}
