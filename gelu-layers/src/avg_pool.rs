//! Mean pooling, with what counts as an element of a window's mean.

use gelu_tensor::{Error, LinearMap, Window, Windows};
use serde::{Deserialize, Serialize};

use crate::client_op::check_pixels;

/// A mean over each window of an image, channel by channel.
///
/// ```
/// use gelu_layers::{AvgPool2dConfig, LinearConfig};
/// use gelu_tensor::{Shape, Window};
///
/// let window = Window::new([3, 3]).with_padding([1, 1]);
/// let map = LinearConfig::AvgPool2d(AvgPool2dConfig::new(window).excluding_padding());
/// // Windows in corners have 4 pixels, those at edges 6, the others 9.
/// let map = map.map(&Shape::from([1, 5, 5]))?;
/// assert_eq!(map.blocks().iter().map(|block| block.taps()).collect::<Vec<_>>(), [4, 6, 9]);
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
pub struct AvgPool2dConfig {
    /// Kernel, stride, dilation and padding.
    pub window: Window,
    /// Whether zeros of padding are elements of the mean: otherwise a window at the border divides by the number of
    /// pixels that it reads. Default: true, as in PyTorch (ONNX: 0).
    pub count_include_pad: bool,
    /// Whether the last window may reach beyond the padded image, where the stride leaves a rest of it: see
    /// [`Window::with_ceil_mode`]. What is there is never an element of the mean. Default: false.
    pub ceil_mode: bool,
}

/// The settings as files have them: those of the window beside what differs from the defaults.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    padding: [[usize; 2]; 2],
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    count_include_pad: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    ceil_mode: bool,
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !value
}

impl From<Fields> for AvgPool2dConfig {
    fn from(fields: Fields) -> Self {
        let Fields { kernel, stride, dilation, padding, count_include_pad, ceil_mode } = fields;
        Self { window: Window { kernel, stride, dilation, padding }, count_include_pad, ceil_mode }
    }
}

impl From<AvgPool2dConfig> for Fields {
    fn from(config: AvgPool2dConfig) -> Self {
        let Window { kernel, stride, dilation, padding } = config.window;
        let AvgPool2dConfig { count_include_pad, ceil_mode, .. } = config;
        Self { kernel, stride, dilation, padding, count_include_pad, ceil_mode }
    }
}

impl From<Window> for AvgPool2dConfig {
    fn from(window: Window) -> Self {
        Self::new(window)
    }
}

impl AvgPool2dConfig {
    /// Returns the means over a window, with zeros of padding among their elements and whole windows only.
    pub fn new(window: Window) -> Self {
        Self { window, count_include_pad: true, ceil_mode: false }
    }

    /// Returns the means of pixels alone: padding is left out of them.
    pub fn excluding_padding(self) -> Self {
        Self { count_include_pad: false, ..self }
    }

    /// Returns the same means with an incomplete last window where the stride leaves a rest.
    pub fn with_ceil_mode(self) -> Self {
        Self { ceil_mode: true, ..self }
    }

    /// Returns the rows and columns of zeros that are elements of means: `[[top, bottom], [left, right]]`.
    pub fn counted_padding(&self) -> [[usize; 2]; 2] {
        if self.count_include_pad { self.window.padding } else { [[0; 2]; 2] }
    }

    /// Returns the window positions over an image of `[channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Window`] when the window does not fit, or one would have no element.
    pub(crate) fn windows(&self, image: [usize; 3]) -> Result<Windows, Error> {
        let [_, height, width] = image;
        let window = if self.ceil_mode { self.window.with_ceil_mode([height, width]) } else { self.window };
        let windows = window.over(image)?;
        if !self.count_include_pad {
            check_pixels(&windows)?;
        }
        Ok(windows)
    }

    /// Returns the means as a map, whose weights are [`mean_weights`].
    pub(crate) fn map(&self, windows: &Windows) -> Result<LinearMap, Error> {
        LinearMap::pooling_counting(windows, self.counted_padding())
    }
}

/// Returns the weights of a layer without trained numbers: one over the number of elements that each mean is of, which is
/// 1 where the layer only moves elements.
pub fn mean_weights(map: &LinearMap) -> Vec<f64> {
    map.blocks().iter().map(|block| 1.0 / block.taps() as f64).collect()
}
