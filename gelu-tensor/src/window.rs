use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Shape};

/// A sliding window over the rows and columns of an image: what convolution and pooling share.
///
/// All fields are `[vertical, horizontal]`, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Extent of the window.
    pub kernel: [usize; 2],
    /// Step between two neighbouring windows.
    pub stride: [usize; 2],
    /// Rows and columns of zeros added on each side of the image.
    pub padding: [usize; 2],
}

impl Window {
    /// A window with stride 1 and no padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        Self { kernel, stride: [1, 1], padding: [0, 0] }
    }

    /// The same window with another stride.
    pub fn with_stride(self, stride: [usize; 2]) -> Self {
        Self { stride, ..self }
    }

    /// The same window with another padding.
    pub fn with_padding(self, padding: [usize; 2]) -> Self {
        Self { padding, ..self }
    }

    /// The window over an image of `[channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Window`] when an extent or a stride is zero, the padding is not below the kernel's extent
    /// or larger than the input, or the kernel is larger than the padded image.
    pub fn over(self, input: [usize; 3]) -> Result<Windows, Error> {
        let fail = |why| Error::Window { window: self.to_string(), input: Shape::from(input), why };
        if input.contains(&0) {
            return Err(fail("every extent of the input must be at least 1"));
        }
        if self.kernel.contains(&0) || self.stride.contains(&0) {
            return Err(fail("kernel and stride must be at least 1"));
        }
        let mut output = [0; 2];
        for axis in 0..2 {
            if self.padding[axis] >= self.kernel[axis] {
                return Err(fail("the padding must be smaller than the kernel"));
            }
            if self.padding[axis] > input[axis + 1] {
                return Err(fail("the padding must not be larger than the input"));
            }
            let padded = self.padding[axis]
                .checked_mul(2)
                .and_then(|padding| padding.checked_add(input[axis + 1]))
                .ok_or_else(|| fail("the padded input is too large"))?;
            let room = padded
                .checked_sub(self.kernel[axis])
                .ok_or_else(|| fail("the kernel is larger than the padded input"))?;
            output[axis] = room / self.stride[axis] + 1;
        }
        Ok(Windows { window: self, input, output })
    }
}

/// Prints `5x5 stride 1x1 padding 0x0`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kh, kw] = self.kernel;
        let [sh, sw] = self.stride;
        let [ph, pw] = self.padding;
        write!(f, "{kh}x{kw} stride {sh}x{sw} padding {ph}x{pw}")
    }
}

/// All positions of a [`Window`] over one image: the index arithmetic of im2col.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    window: Window,
    input: [usize; 3],
    output: [usize; 2],
}

impl Windows {
    /// The window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// `[channels, height, width]` of the input.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// `[rows, columns]` of window positions.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// How many positions.
    pub fn positions(&self) -> usize {
        self.output[0].saturating_mul(self.output[1])
    }

    /// How many taps one position has: channels x kernel height x kernel width.
    pub fn taps(&self) -> usize {
        self.input[0].saturating_mul(self.window.kernel[0]).saturating_mul(self.window.kernel[1])
    }

    /// The element of the (row-major, channel-first) input that `tap` of `position` reads;
    /// `None` where it reads padding.
    ///
    /// Taps run over channels, kernel rows, kernel columns; positions over rows, columns.
    pub fn element(&self, WindowTap { position, tap }: WindowTap) -> Option<usize> {
        let [_, height, width] = self.input;
        let [kh, kw] = self.window.kernel;
        let channel = tap / (kh * kw);
        let row = (position / self.output[1]) * self.window.stride[0] + (tap / kw) % kh;
        let column = (position % self.output[1]) * self.window.stride[1] + tap % kw;
        let row = row.checked_sub(self.window.padding[0]).filter(|&row| row < height)?;
        let column = column.checked_sub(self.window.padding[1]).filter(|&column| column < width)?;
        Some((channel * height + row) * width + column)
    }
}

/// One tap of one window position.
#[derive(Clone, Copy, Debug)]
pub struct WindowTap {
    /// Which window position, row-major.
    pub position: usize,
    /// Which tap within the window: channel, kernel row, kernel column.
    pub tap: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taps_of_a_padded_strided_window() {
        let windows = Window::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]).over([2, 4, 4]).unwrap();
        assert_eq!(windows.output(), [2, 2]);
        assert_eq!(windows.taps(), 18);
        assert_eq!(windows.element(WindowTap { position: 0, tap: 0 }), None);
        assert_eq!(windows.element(WindowTap { position: 0, tap: 4 }), Some(0));
        assert_eq!(windows.element(WindowTap { position: 3, tap: 17 }), Some(16 + 3 * 4 + 3));
    }

    #[test]
    fn windows_that_do_not_fit_are_refused() {
        assert!(Window::new([5, 5]).over([1, 4, 9]).is_err());
        assert!(Window::new([0, 5]).over([1, 9, 9]).is_err());
        assert!(Window::new([2, 2]).with_stride([0, 1]).over([1, 9, 9]).is_err());
        assert!(Window::new([2, 2]).with_padding([2, 0]).over([1, 9, 9]).is_err());
        assert!(Window::new([1, 1]).over([0, 9, 9]).is_err());
        // Twice this padding is no number of 64 bits.
        let most = usize::MAX;
        let window = Window::new([most, 1]).with_padding([most / 2 + 1, 0]);
        assert!(matches!(window.over([1, most, 1]), Err(Error::Window { .. })));
    }
}
