//! Making a model's input normalization part of its first layer.

use gelu_layers::{AxisSlice, LinearConfig};
use serde::{Deserialize, Serialize};

use crate::{Model, Op, PixelFormat, Preprocessing, ValueId};

/// What a model was trained to expect of its input: `(x - mean) / std`, channel by channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// One mean for each channel of the input (for each feature of a vector), or one for all.
    pub mean: Vec<f32>,
    /// As many standard deviations.
    pub std: Vec<f32>,
}

/// Why a normalization cannot become part of the first layer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// Means or standard deviations are not as many as the input's channels.
    #[error("{what}: expected one for each of {expected} channels, or one for all; found {found}")]
    Channels {
        /// Which of the two.
        what: &'static str,
        /// Channels of the input.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// A mean is not finite.
    #[error("mean of channel {channel}: expected a finite number, found {found}")]
    Mean {
        /// The channel, from 0.
        channel: usize,
        /// The mean given.
        found: f32,
    },
    /// A standard deviation is not positive.
    #[error("standard deviation of channel {channel}: expected a positive number, found {found}")]
    Std {
        /// The channel, from 0.
        channel: usize,
        /// The standard deviation given.
        found: f32,
    },
    /// A layer pads with zeros, which are not normalized with the input, and the mean is not zero.
    #[error(
        "layer `{name}` pads its input with zeros, which normalization does not reach: expected no padding or a mean \
         of 0, found padding {found:?}"
    )]
    Padding {
        /// The layer.
        name: String,
        /// Rows and columns of padding.
        found: [[usize; 2]; 2],
    },
    /// The model has a normalization already.
    #[error(
        "expected a model without a normalization, found one that has mean {:?} and standard deviation {:?} already",
        found.mean, found.std
    )]
    Twice {
        /// The normalization that it has.
        found: Normalization,
    },
    /// There is a nonlinear node, or nothing at all, before the first layer with weights.
    #[error("expected a layer with weights first, found {found}")]
    NoWeights {
        /// The node found instead.
        found: String,
    },
}

impl Normalization {
    /// Returns mean and standard deviation of each of so many channels.
    ///
    /// # Errors
    /// [`FoldError::Channels`], [`FoldError::Mean`] and [`FoldError::Std`].
    pub fn per_channel(&self, channels: usize) -> Result<Vec<[f32; 2]>, FoldError> {
        let mean = per_channel("means", &self.mean, channels)?;
        let std = per_channel("standard deviations", &self.std, channels)?;
        for channel in 0..channels {
            if !mean[channel].is_finite() {
                return Err(FoldError::Mean { channel, found: mean[channel] });
            }
            if !(std[channel].is_finite() && std[channel] > 0.0) {
                return Err(FoldError::Std { channel, found: std[channel] });
            }
        }
        Ok(mean.into_iter().zip(std).map(|(mean, std)| [mean, std]).collect())
    }
}

impl Model {
    /// Makes `normalization` part of the first layer with weights: the model then takes the raw `x` and gives what it
    /// gave for `(x - mean) / std` before, up to rounding to `f32`.
    ///
    /// # Errors
    /// See [`FoldError`]; the model is then unchanged.
    pub fn fold_normalization(&mut self, normalization: &Normalization) -> Result<(), FoldError> {
        let channels = self.input_shape().dims()[0];
        if let Some(Preprocessing::Pixels(pixels)) = &self.info().preprocessing
            && let Some(found) = pixels.folded.as_ref().or(pixels.normalization.as_ref())
        {
            return Err(FoldError::Twice { found: found.clone() });
        }
        let channel_numbers = normalization.per_channel(channels)?;
        let centered = channel_numbers.iter().all(|&[mean, _]| mean == 0.0);
        let first = self.first_weighted(centered)?;
        let Some((_, layer)) = self.layers_mut().nth(first) else { return Ok(()) };
        let groups = match layer.config() {
            LinearConfig::Conv2d(config) => config.groups,
            _ => 1,
        };
        let rows = layer.weight_shape().map_or(1, |shape| shape.dims()[0]);
        let parameters = layer.parameters_mut();
        let columns = parameters.weight.len() / rows;
        if parameters.bias.is_empty() && !centered {
            let found = "one without biases, which would have to take up the mean".to_owned();
            return Err(FoldError::NoWeights { found });
        }
        // Pooling and flattening keep the channels apart and in order, so that each has an equal run of taps.
        let taps = columns * groups / channels;
        for (row, weights) in parameters.weight.chunks_exact_mut(columns).enumerate() {
            let first = row * groups / rows * (channels / groups);
            let mut shift = 0.0;
            for (tap, weight) in weights.iter_mut().enumerate() {
                let channel = first + tap / taps;
                let [mean, std] = channel_numbers[channel].map(f64::from);
                let scaled = f64::from(*weight) / std;
                shift += scaled * mean;
                *weight = scaled as f32;
            }
            if let Some(bias) = parameters.bias.get_mut(row) {
                *bias = (f64::from(*bias) - shift) as f32;
            }
        }
        let info = self.info_mut();
        match &mut info.preprocessing {
            Some(Preprocessing::Pixels(pixels)) => pixels.folded = Some(normalization.clone()),
            Some(Preprocessing::Raw | Preprocessing::Columns(_)) => {}
            unknown => {
                let folded = Some(normalization.clone());
                *unknown = Some(Preprocessing::Pixels(PixelFormat { folded, ..PixelFormat::default() }));
            }
        }
        Ok(())
    }

    /// The place among the linear layers of the first one with weights, if normalization commutes with all that comes
    /// before.
    fn first_weighted(&self, centered: bool) -> Result<usize, FoldError> {
        let mut value = ValueId::INPUT;
        let mut place = 0;
        loop {
            let mut readers =
                self.graph().nodes().iter().enumerate().filter(|(_, n)| n.inputs.contains(&value));
            let (Some((at, node)), None) = (readers.next(), readers.next()) else {
                let found = "a branch, or the end of the model".to_owned();
                return Err(FoldError::NoWeights { found });
            };
            let Op::Linear(config) = &node.op else {
                return Err(FoldError::NoWeights { found: node.op.to_string() });
            };
            let windows = config.windows(self.graph().shape(value)).ok().flatten();
            let padding = match config {
                LinearConfig::AvgPool2d(pool) => pool.counted_padding(),
                _ => windows.map_or([[0, 0]; 2], |windows| windows.window().padding),
            };
            if padding != [[0, 0]; 2] && !centered {
                return Err(FoldError::Padding { name: node.name.clone(), found: padding });
            }
            match config {
                LinearConfig::BatchNorm2d(_) => {
                    let found = "a batch norm, which normalizes by itself".to_owned();
                    return Err(FoldError::NoWeights { found });
                }
                // Channels are no longer those of the input.
                LinearConfig::Slice(slice)
                    if slice.axes[0] != AxisSlice::whole(self.graph().shape(value).dims()[0]) =>
                {
                    let found = "a slice of the channels".to_owned();
                    return Err(FoldError::NoWeights { found });
                }
                config if config.has_parameters() => return Ok(place),
                _ => {}
            }
            value = ValueId::of_node(at);
            place += 1;
        }
    }
}

fn per_channel(what: &'static str, values: &[f32], channels: usize) -> Result<Vec<f32>, FoldError> {
    match values {
        &[value] => Ok(vec![value; channels]),
        values if values.len() == channels => Ok(values.to_vec()),
        values => Err(FoldError::Channels { what, expected: channels, found: values.len() }),
    }
}
