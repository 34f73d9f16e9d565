//! Windows that slide over images: what convolution and pooling share.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Shape};

/// A sliding window over the rows and columns of an image: what convolution and pooling share.
///
/// All fields are `[vertical, horizontal]`, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Taps of the window.
    pub kernel: [usize; 2],
    /// Step between two neighboring windows.
    pub stride: [usize; 2],
    /// Step between two neighboring taps of one window.
    pub dilation: [usize; 2],
    /// Rows and columns of zeros added to the image: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
}

impl Window {
    /// Returns a window with stride 1, dilation 1 and no padding.
    pub fn new(kernel: [usize; 2]) -> Self {
        Self { kernel, stride: [1, 1], dilation: [1, 1], padding: [[0, 0]; 2] }
    }

    /// Returns the same window with another dilation.
    pub fn with_dilation(self, dilation: [usize; 2]) -> Self {
        Self { dilation, ..self }
    }

    /// Returns the same window with zeros on each side of its own: `[[top, bottom], [left, right]]`.
    pub fn with_padding_sides(self, padding: [[usize; 2]; 2]) -> Self {
        Self { padding, ..self }
    }

    /// Returns the rows and columns that one window spans; saturating.
    pub fn extent(self) -> [usize; 2] {
        let axis = |axis: usize| {
            (self.kernel[axis].max(1) - 1).saturating_mul(self.dilation[axis]).saturating_add(1)
        };
        [axis(0), axis(1)]
    }

    /// Returns the number of taps: the product of the kernel's extents; saturating.
    pub fn area(self) -> usize {
        self.kernel[0].saturating_mul(self.kernel[1])
    }

    /// Returns the same window with another stride.
    pub fn with_stride(self, stride: [usize; 2]) -> Self {
        Self { stride, ..self }
    }

    /// Returns the same window with as many rows and columns of zeros on opposite sides: `[vertical, horizontal]`.
    pub fn with_padding(self, padding: [usize; 2]) -> Self {
        self.with_padding_sides(padding.map(|zeros| [zeros; 2]))
    }

    /// Returns the same window with so many more rows and columns of zeros below and right of an image of `[height, width]`
    /// that its last positions, where the floor of the division leaves some of the image out, are read too: what ONNX and
    /// PyTorch call `ceil_mode`. As there, no window begins beyond the image.
    pub fn with_ceil_mode(self, size: [usize; 2]) -> Self {
        let mut window = self;
        for (axis, (size, extent)) in size.into_iter().zip(self.extent()).enumerate() {
            let ([before, after], stride) = (self.padding[axis], self.stride[axis].max(1));
            let start = size.saturating_add(before);
            let padded = start.saturating_add(after);
            let missing = match padded.checked_sub(extent) {
                Some(room) => match room % stride {
                    0 => 0,
                    rest if (room - rest).saturating_add(stride) < start => stride - rest,
                    _ => 0,
                },
                // The only window is incomplete.
                None if extent - padded < stride => extent - padded,
                None => 0,
            };
            window.padding[axis][1] = after.saturating_add(missing);
        }
        window
    }

    /// Returns the window over an image of `[channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Window`] when an extent, a stride or a dilation is zero, the padding is not below the window's
    /// extent or larger than the input, or the window is larger than the padded image.
    pub fn over(self, input: [usize; 3]) -> Result<Windows, Error> {
        let fail = |why| Error::Window { window: self.to_string(), input: Shape::from(input), why };
        if input.contains(&0) {
            return Err(fail("every extent of the input must be at least 1"));
        }
        if self.kernel.contains(&0) || self.stride.contains(&0) || self.dilation.contains(&0) {
            return Err(fail("kernel, stride and dilation must be at least 1"));
        }
        let (mut output, extent) = ([0; 2], self.extent());
        for axis in 0..2 {
            let largest = self.padding[axis][0].max(self.padding[axis][1]);
            if largest >= extent[axis] {
                return Err(fail("the padding must be smaller than the window"));
            }
            if largest > input[axis + 1] {
                return Err(fail("the padding must not be larger than the input"));
            }
            let padded = self.padding[axis][0]
                .checked_add(self.padding[axis][1])
                .and_then(|padding| padding.checked_add(input[axis + 1]))
                .ok_or_else(|| fail("the padded input is too large"))?;
            let room = padded
                .checked_sub(extent[axis])
                .ok_or_else(|| fail("the window is larger than the padded input"))?;
            output[axis] = room / self.stride[axis] + 1;
        }
        Ok(Windows { window: self, input, output })
    }
}

/// Prints `5x5 stride 1x1 padding 0x0`; the dilation where there is one, and each side's padding where they differ.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kh, kw] = self.kernel;
        let [sh, sw] = self.stride;
        write!(f, "{kh}x{kw} stride {sh}x{sw}")?;
        if self.dilation != [1, 1] {
            write!(f, " dilation {}x{}", self.dilation[0], self.dilation[1])?;
        }
        match self.padding {
            [[top, bottom], [left, right]] if top == bottom && left == right => {
                write!(f, " padding {top}x{left}")
            }
            [[top, bottom], [left, right]] => write!(f, " padding {top},{bottom}x{left},{right}"),
        }
    }
}

/// All positions of a [`Window`] over one image: the index arithmetic of im2col. Made by [`Window::over`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Windows {
    window: Window,
    input: [usize; 3],
    output: [usize; 2],
}

impl Windows {
    /// Returns the window.
    pub fn window(&self) -> Window {
        self.window
    }

    /// Returns `[channels, height, width]` of the input.
    pub fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Returns `[rows, columns]` of window positions.
    pub fn output(&self) -> [usize; 2] {
        self.output
    }

    /// Returns the number of positions.
    pub fn positions(&self) -> usize {
        self.output[0].saturating_mul(self.output[1])
    }

    /// Returns the number of taps of one position: channels x kernel height x kernel width.
    pub fn taps(&self) -> usize {
        self.input[0].saturating_mul(self.window.kernel[0]).saturating_mul(self.window.kernel[1])
    }

    /// Returns the element of the (row-major, channel-first) input that `tap` of `position` reads;
    /// `None` where it reads padding, or there is no such position or tap.
    ///
    /// Taps run over channels, kernel rows, kernel columns; positions over rows, columns.
    pub fn element(&self, WindowTap { position, tap }: WindowTap) -> Option<usize> {
        if position >= self.positions() || tap >= self.taps() {
            return None;
        }
        let [_, height, width] = self.input;
        let [kh, kw] = self.window.kernel;
        let channel = tap / (kh * kw);
        let Window { stride, dilation, padding, .. } = self.window;
        let row = (position / self.output[1]) * stride[0] + (tap / kw) % kh * dilation[0];
        let column = (position % self.output[1]) * stride[1] + tap % kw * dilation[1];
        let row = row.checked_sub(padding[0][0]).filter(|&row| row < height)?;
        let column = column.checked_sub(padding[1][0]).filter(|&column| column < width)?;
        Some((channel * height + row) * width + column)
    }
}

impl Windows {
    /// Calls `tap` for every tap of a position over some channels, in order, with the element that it reads.
    pub(crate) fn each_tap(
        &self,
        position: usize,
        channels: std::ops::Range<usize>,
        mut tap: impl FnMut(Option<usize>),
    ) {
        let [_, height, width] = self.input;
        let Window { kernel, stride, dilation, padding } = self.window;
        let first = [position / self.output[1] * stride[0], position % self.output[1] * stride[1]];
        for channel in channels {
            for y in 0..kernel[0] {
                let row = (first[0] + y * dilation[0]).checked_sub(padding[0][0]).filter(|&row| row < height);
                for x in 0..kernel[1] {
                    let column = (first[1] + x * dilation[1]).checked_sub(padding[1][0]);
                    let column = column.filter(|&column| column < width);
                    let element =
                        row.zip(column).map(|(row, column)| (channel * height + row) * width + column);
                    tap(element);
                }
            }
        }
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
#[cfg(not(target_family = "wasm"))]
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
        for (position, tap) in [(4, 0), (0, 18), (0, usize::MAX), (usize::MAX, 0)] {
            assert_eq!(windows.element(WindowTap { position, tap }), None);
        }
    }

    #[test]
    fn taps_of_a_dilated_window_with_unequal_padding() {
        let window = Window::new([2, 2]).with_dilation([2, 3]).with_padding_sides([[1, 0], [0, 2]]);
        let windows = window.over([1, 4, 4]).unwrap();
        assert_eq!((window.extent(), windows.output()), ([3, 4], [3, 3]));
        assert_eq!(windows.element(WindowTap { position: 0, tap: 0 }), None);
        assert_eq!(windows.element(WindowTap { position: 0, tap: 3 }), Some(4 + 3));
        assert_eq!(windows.element(WindowTap { position: 1, tap: 3 }), None);
        assert_eq!(windows.element(WindowTap { position: 4, tap: 2 }), Some(2 * 4 + 1));
        assert_eq!(window.to_string(), "2x2 stride 1x1 dilation 2x3 padding 1,0x0,2");
        assert!(Window::new([2, 2]).with_dilation([0, 1]).over([1, 4, 4]).is_err());
    }

    /// Positions as PyTorch counts them: from a size, kernel, stride, dilation and padding.
    #[test]
    fn incomplete_windows_begin_within_the_image() {
        for ([size, kernel, stride, dilation, padding], expected) in [
            ([3, 2, 2, 1, 0], 2),
            ([4, 2, 2, 1, 0], 2),
            ([5, 2, 2, 1, 1], 3),
            ([4, 2, 3, 1, 1], 2),
            ([2, 3, 2, 1, 1], 2),
            ([2, 3, 3, 1, 1], 1),
            ([6, 2, 3, 3, 0], 2),
            ([2, 3, 2, 1, 0], 1),
        ] {
            let window = Window::new([kernel, 1]).with_stride([stride, 1]).with_dilation([dilation, 1]);
            let window = window.with_padding([padding, 0]).with_ceil_mode([size, 4]);
            let windows = window.over([1, size, 4]).unwrap();
            assert_eq!(windows.output(), [expected, 4], "{window} over {size} rows");
        }
        assert!(Window::new([4, 1]).with_stride([2, 1]).with_ceil_mode([2, 1]).over([1, 2, 1]).is_err());
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
