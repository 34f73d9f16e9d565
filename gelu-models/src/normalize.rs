use gelu_layers::Linear;

use crate::{Model, Node};

/// What a model was trained to expect of its input: `(x - mean) / std`, channel by channel.
#[derive(Clone, Debug, PartialEq)]
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
        found: [usize; 2],
    },
    /// There is a nonlinear node, or nothing at all, before the first layer with weights.
    #[error("expected a layer with weights first, found {found}")]
    NoWeights {
        /// The node found instead.
        found: String,
    },
}

impl Model {
    /// Makes `normalization` part of the first layer with weights: the model then takes the raw `x` and gives what it
    /// gave for `(x - mean) / std` before, up to rounding to `f32`.
    ///
    /// # Errors
    /// See [`FoldError`]; the model is then unchanged.
    pub fn fold_normalization(&mut self, normalization: &Normalization) -> Result<(), FoldError> {
        let channels = self.input_shape().dims()[0];
        let mean = per_channel("means", &normalization.mean, channels)?;
        let std = per_channel("standard deviations", &normalization.std, channels)?;
        for channel in 0..channels {
            if !mean[channel].is_finite() {
                return Err(FoldError::Mean { channel, found: mean[channel] });
            }
            if !(std[channel].is_finite() && std[channel] > 0.0) {
                return Err(FoldError::Std { channel, found: std[channel] });
            }
        }
        let centred = mean.iter().all(|&mean| mean == 0.0);
        let first = self.first_weighted(centred)?;
        let Some(parameters) = first.parameters_mut() else { return Ok(()) };
        // Pooling and flattening keep the channels apart and in order, so that each has an equal run of taps.
        let taps = parameters.weight.ncols() / channels;
        for (mut row, bias) in parameters.weight.outer_iter_mut().zip(&mut parameters.bias) {
            let mut shift = 0.0;
            for (tap, weight) in row.iter_mut().enumerate() {
                let scaled = f64::from(*weight) / f64::from(std[tap / taps]);
                shift += scaled * f64::from(mean[tap / taps]);
                *weight = scaled as f32;
            }
            *bias = (f64::from(*bias) - shift) as f32;
        }
        Ok(())
    }

    /// The first layer with weights, if normalization commutes with all that comes before.
    fn first_weighted(&mut self, centred: bool) -> Result<&mut Box<dyn Linear>, FoldError> {
        let mut found = "the end of the model".to_owned();
        for node in self.nodes_mut() {
            match node {
                Node::Linear { name, layer } => {
                    let padding = layer.sliding_windows().map_or([0, 0], |windows| windows.window().padding);
                    if padding != [0, 0] && !centred {
                        return Err(FoldError::Padding { name: name.clone(), found: padding });
                    }
                    if layer.parameters().is_some() {
                        return Ok(layer);
                    }
                }
                Node::Activation(activation) => {
                    found = activation.to_string();
                    break;
                }
            }
        }
        Err(FoldError::NoWeights { found })
    }
}

fn per_channel(what: &'static str, values: &[f32], channels: usize) -> Result<Vec<f32>, FoldError> {
    match values {
        &[value] => Ok(vec![value; channels]),
        values if values.len() == channels => Ok(values.to_vec()),
        values => Err(FoldError::Channels { what, expected: channels, found: values.len() }),
    }
}
