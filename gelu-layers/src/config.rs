//! What linear layers are made from: their settings, without input, weights or name.

use gelu_tensor::{Error, Filters, LinearMap, Shape, Window, Windows};
use serde::{Deserialize, Serialize};

use crate::{AvgPool2dConfig, SliceConfig};

/// A convolution's filters and window. Input channels are those of the layer's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2dConfig {
    /// Number of filters: channels of the output.
    pub out_channels: usize,
    /// Kernel, stride, dilation and zero padding.
    pub window: Window,
    /// Groups that input and output channels are divided into. As many as there are input channels make a depthwise
    /// convolution. Default: 1.
    pub groups: usize,
    /// Whether each filter has a bias. Default: true.
    pub bias: bool,
}

impl Conv2dConfig {
    /// Returns `out_channels` filters of `kernel` with stride 1, no padding, one group and a bias.
    pub fn new(out_channels: usize, kernel: [usize; 2]) -> Self {
        Self { out_channels, window: Window::new(kernel), groups: 1, bias: true }
    }

    /// Returns the same filters with another stride, `[vertical, horizontal]`.
    pub fn with_stride(self, stride: [usize; 2]) -> Self {
        Self { window: self.window.with_stride(stride), ..self }
    }

    /// Returns the same filters over an image with as many rows and columns of zeros on opposite sides.
    pub fn with_padding(self, padding: [usize; 2]) -> Self {
        Self { window: self.window.with_padding(padding), ..self }
    }

    /// Returns the same filters over an image with zeros on each side of its own: `[[top, bottom], [left, right]]`.
    pub fn with_padding_sides(self, padding: [[usize; 2]; 2]) -> Self {
        Self { window: self.window.with_padding_sides(padding), ..self }
    }

    /// Returns the same filters with another dilation, `[vertical, horizontal]`.
    pub fn with_dilation(self, dilation: [usize; 2]) -> Self {
        Self { window: self.window.with_dilation(dilation), ..self }
    }

    /// Returns the same filters in groups.
    pub fn with_groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// Returns the same filters without biases.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }
}

/// A fully connected layer's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseConfig {
    /// Length of the output.
    pub out_features: usize,
    /// Whether each output has a bias. Default: true.
    pub bias: bool,
}

impl DenseConfig {
    /// Returns a layer of `out_features` with biases.
    pub fn new(out_features: usize) -> Self {
        Self { out_features, bias: true }
    }

    /// Returns the same layer without biases.
    pub fn without_bias(self) -> Self {
        Self { bias: false, ..self }
    }
}

impl From<usize> for DenseConfig {
    fn from(out_features: usize) -> Self {
        Self::new(out_features)
    }
}

/// Settings of a batch norm.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm2dConfig {
    /// Added to variances before their square root. Default: 1e-5.
    pub epsilon: f64,
    /// Share of a batch's statistics in the running ones, when training. Default: 0.1.
    pub momentum: f64,
}

impl Default for BatchNorm2dConfig {
    fn default() -> Self {
        Self { epsilon: 1e-5, momentum: 0.1 }
    }
}

/// What a linear layer is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinearConfig {
    /// A convolution of images (cross-correlation, as in every deep-learning framework).
    Conv2d(Conv2dConfig),
    /// A fully connected layer over vectors.
    Dense(DenseConfig),
    /// The mean over each window, channel by channel.
    AvgPool2d(AvgPool2dConfig),
    /// The mean of each channel: `[channels, height, width]` to `[channels, 1, 1]`.
    GlobalAvgPool2d,
    /// Normalization of each channel by running statistics (by those of the batch while training), then a factor and a
    /// shift for each.
    BatchNorm2d(BatchNorm2dConfig),
    /// Reads an image as one vector, in storage order. No number changes.
    Flatten,
    /// Takes every so many elements along each axis. No number changes.
    Slice(SliceConfig),
}

/// What a block of a map takes besides its indices, in indices.
const BLOCK_INDICES: usize = 64;

impl LinearConfig {
    /// Returns whether the layer has trained numbers. One without any can be computed by anybody.
    pub fn has_parameters(&self) -> bool {
        match self {
            Self::Conv2d(_) | Self::Dense(_) | Self::BatchNorm2d(_) => true,
            Self::AvgPool2d(_) | Self::GlobalAvgPool2d | Self::Flatten | Self::Slice(_) => false,
        }
    }

    /// Returns the shape that the layer makes of an image of `input`, and about how many indices its [map](Self::map)
    /// takes the memory of, saturating. Nothing is allocated.
    ///
    /// # Errors
    /// [`Error::Count`] when `input` has not the dimensions that the layer takes, or groups do not divide;
    /// [`Error::Window`] when a window does not fit; as [`SliceConfig::output`] for a slice.
    pub fn output(&self, input: &Shape) -> Result<(Shape, usize), Error> {
        let elements = input.elements();
        Ok(match (self, self.windows(input)?) {
            (Self::Conv2d(config), Some(windows)) => {
                let Filters { count, groups } = config.filters().check(windows.input()[0])?;
                let [height, width] = windows.output();
                let weights = count.saturating_mul(windows.taps() / groups);
                let inputs = windows.taps().saturating_mul(windows.positions());
                let shape = Shape::from([count, height, width]);
                let outputs = shape.elements();
                let blocks = groups.saturating_mul(BLOCK_INDICES);
                (shape, [inputs, outputs, blocks].into_iter().fold(weights, usize::saturating_add))
            }
            (_, Some(windows)) => {
                let [height, width] = windows.output();
                let shape = Shape::from([windows.input()[0], height, width]);
                let taps = windows.taps().saturating_mul(windows.positions());
                // Means of different numbers of elements are blocks of their own.
                let blocks = windows.window().area().min(windows.positions());
                (shape, taps.saturating_add(blocks.saturating_mul(BLOCK_INDICES)))
            }
            (Self::Dense(config), None) => {
                let [_] = input.dims() else {
                    let what = "dimensions of a dense layer's input (flatten it first)";
                    return Err(Error::Count { what, expected: 1, found: input.dims().len() });
                };
                if config.out_features == 0 {
                    return Err(Error::TooFew { what: "outputs of a dense layer", least: 1, found: 0 });
                }
                (Shape::from([config.out_features]), elements.saturating_mul(config.out_features))
            }
            (Self::BatchNorm2d(_), None) => {
                let [channels, ..] = input.as_image("dimensions of a batch norm's input (an image)")?;
                let blocks = channels.saturating_mul(BLOCK_INDICES);
                (input.clone(), elements.saturating_mul(2).saturating_add(blocks))
            }
            (Self::Slice(slice), None) => {
                let output = slice.output(input)?;
                // The inputs and the outputs of its one block.
                let indices = output.elements().saturating_mul(2);
                (output, indices)
            }
            (_, None) => (Shape::from([elements]), elements),
        })
    }

    /// Returns the layer over images of `input` as a map without its weights.
    ///
    /// # Errors
    /// As [`output`](Self::output); [`Error::Count`] when the layer is too large.
    pub fn map(&self, input: &Shape) -> Result<LinearMap, Error> {
        let (output, _) = self.output(input)?;
        match (self, self.windows(input)?) {
            (Self::Conv2d(config), Some(windows)) => LinearMap::convolution(&windows, config.filters()),
            (Self::AvgPool2d(config), Some(windows)) => config.map(&windows),
            (_, Some(windows)) => LinearMap::pooling(&windows),
            (Self::Dense(config), _) => LinearMap::dense(input, config.out_features),
            (Self::BatchNorm2d(_), _) => LinearMap::per_channel(input),
            (Self::Slice(slice), _) => slice.map(input, output),
            _ => LinearMap::identity(input)?.reshaped([input.clone(), output]),
        }
    }

    /// Returns the window positions of a layer that slides one over its input.
    pub fn windows(&self, input: &Shape) -> Result<Option<Windows>, Error> {
        let image = || input.as_image("dimensions of the layer's input (an image)");
        match self {
            Self::Conv2d(config) => config.window.over(image()?).map(Some),
            Self::AvgPool2d(config) => config.windows(image()?).map(Some),
            Self::GlobalAvgPool2d => {
                let [_, height, width] = image()?;
                Window::new([height, width]).over(image()?).map(Some)
            }
            Self::Dense(_) | Self::BatchNorm2d(_) | Self::Flatten | Self::Slice(_) => Ok(None),
        }
    }
}

impl Conv2dConfig {
    fn filters(&self) -> Filters {
        Filters { count: self.out_channels, groups: self.groups }
    }
}
