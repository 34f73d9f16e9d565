//! A linear layer: its map, its parameters, and what it does to batches of reals.

use std::sync::Arc;

use gelu_tensor::{Error, LinearMap, Shape};
use ndarray::{Array2, ArrayView2};

use crate::batch_norm::BatchStatistics;
use crate::{Affine, LinearConfig, batch_norm, gemm, mean_weights};

/// Trained numbers of one layer; also their gradients and their momentum.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// Weights in PyTorch's order: of a convolution `[filters, channels / groups, kernel height, kernel width]`, of a
    /// dense layer `[outputs, inputs]`, of a batch norm one factor for each channel. Empty for a layer without weights.
    pub weight: Vec<f32>,
    /// Biases: one for each filter, output or channel. Empty where there are none.
    pub bias: Vec<f32>,
}

impl Parameters {
    /// Returns zeros of the same sizes.
    pub fn zeros_like(&self) -> Self {
        Self { weight: vec![0.0; self.weight.len()], bias: vec![0.0; self.bias.len()] }
    }

    /// Returns the number of weights and biases.
    pub fn count(&self) -> usize {
        self.weight.len() + self.bias.len()
    }
}

/// What a batch norm normalizes with outside of training: the running mean and variance of each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct RunningStatistics {
    /// One mean for each channel.
    pub mean: Vec<f32>,
    /// One variance for each channel.
    pub variance: Vec<f32>,
}

/// Whether a batch norm takes the statistics of the batch or the running ones. Other layers do the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Running statistics.
    Inference,
    /// Those of the batch.
    Training,
}

/// Whether [`LinearLayer::backward`] computes the gradient with respect to its input; the first layer needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputGradient {
    /// Compute it.
    Wanted,
    /// Leave it out.
    Skipped,
}

/// What [`LinearLayer::backward`] returns, summed over the images of the batch where it concerns parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// With respect to the input, `[images, input elements]`; `None` when it was [`InputGradient::Skipped`].
    pub input: Option<Array2<f32>>,
    /// With respect to the parameters; empty for a layer without any.
    pub parameters: Parameters,
}

/// A layer that is an affine map of its input, and hence can be computed on ciphertexts: the only kind of node that a
/// server runs.
///
/// Batches are `[images, elements]`, elements row-major and channel first.
///
/// ```
/// use gelu_layers::{Conv2dConfig, LinearConfig, LinearLayer, Mode};
/// use gelu_tensor::Shape;
/// use ndarray::Array2;
///
/// let config = LinearConfig::Conv2d(Conv2dConfig::new(2, [3, 3]).with_padding([1, 1]));
/// let mut conv = LinearLayer::new(config, &Shape::from([1, 4, 4]))?;
/// conv.parameters_mut().bias[1] = 0.5; // weights are zero so far
/// let output = conv.forward(Array2::ones((1, 16)).view(), Mode::Inference)?; // [images, 2 * 4 * 4]
/// assert_eq!((output[[0, 0]], output[[0, 31]]), (0.0, 0.5));
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LinearLayer {
    config: LinearConfig,
    input: Shape,
    output: Shape,
    map: Arc<LinearMap>,
    parameters: Parameters,
    statistics: Option<RunningStatistics>,
}

impl LinearLayer {
    /// Returns the layer over images of `input`, with zero weights; a batch norm that changes nothing.
    ///
    /// # Errors
    /// [`Error::Count`] when `input` has not the dimensions that the layer takes, groups do not divide, or the layer is
    /// empty or too large; [`Error::Window`] when a window does not fit.
    pub fn new(config: LinearConfig, input: &Shape) -> Result<Self, Error> {
        let map = config.map(input)?;
        let mut statistics = None;
        let bias = match &config {
            LinearConfig::Conv2d(config) if config.bias => config.out_channels,
            LinearConfig::Dense(config) if config.bias => config.out_features,
            LinearConfig::BatchNorm2d(_) => {
                let channels = map.weights();
                let (mean, variance) = (vec![0.0; channels], vec![1.0; channels]);
                statistics = Some(RunningStatistics { mean, variance });
                channels
            }
            _ => 0,
        };
        let weights = if config.has_parameters() { map.weights() } else { 0 };
        let weight = vec![if statistics.is_some() { 1.0 } else { 0.0 }; weights];
        let parameters = Parameters { weight, bias: vec![0.0; bias] };
        let (input, output) = (input.clone(), map.output().clone());
        Ok(Self { config, input, output, map: Arc::new(map), parameters, statistics })
    }

    /// Returns what the layer was made from.
    pub fn config(&self) -> &LinearConfig {
        &self.config
    }

    /// Returns the shape of one input image.
    pub fn input(&self) -> &Shape {
        &self.input
    }

    /// Returns the shape of one output image.
    pub fn output(&self) -> &Shape {
        &self.output
    }

    /// Returns the layer as a map without its weights.
    pub fn map(&self) -> &Arc<LinearMap> {
        &self.map
    }

    /// Returns whether the layer has trained numbers. One without any can be computed by anybody.
    pub fn has_parameters(&self) -> bool {
        self.config.has_parameters()
    }

    /// Returns the trained numbers.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Returns the trained numbers, to be changed in place.
    pub fn parameters_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Returns the running statistics of a batch norm.
    pub fn statistics(&self) -> Option<&RunningStatistics> {
        self.statistics.as_ref()
    }

    /// Returns the running statistics of a batch norm, to be changed in place.
    pub fn statistics_mut(&mut self) -> Option<&mut RunningStatistics> {
        self.statistics.as_mut()
    }

    /// Returns PyTorch's shape of the weight: `[out, in / groups, kernel height, kernel width]`, `[out, in]` or
    /// `[channels]`; `None` for a layer without weights.
    pub fn weight_shape(&self) -> Option<Shape> {
        match &self.config {
            LinearConfig::Conv2d(config) => {
                let [height, width] = config.window.kernel;
                Some(Shape::from([config.out_channels, self.input.dims()[0] / config.groups, height, width]))
            }
            LinearConfig::Dense(config) => Some(Shape::from([config.out_features, self.input.elements()])),
            LinearConfig::BatchNorm2d(_) => Some(Shape::from([self.parameters.weight.len()])),
            _ => None,
        }
    }

    /// Returns the layer as one affine map of reals, which can be composed with others and quantized. A batch norm is
    /// the map by its running statistics.
    pub fn affine(&self) -> Affine {
        let (weights, bias) = self.effective();
        Affine::new(self.map.clone(), weights, &bias)
    }

    /// Weights of the map, and one bias for each channel (or none).
    fn effective(&self) -> (Vec<f64>, Vec<f64>) {
        let Parameters { weight, bias } = &self.parameters;
        let reals = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        match (&self.config, &self.statistics) {
            (config, _) if !config.has_parameters() => (mean_weights(&self.map), vec![]),
            (LinearConfig::BatchNorm2d(config), Some(RunningStatistics { mean, variance })) => {
                let factor = |(&weight, &variance): (&f32, &f32)| {
                    f64::from(weight) / (f64::from(variance) + config.epsilon).sqrt()
                };
                let factors: Vec<f64> = weight.iter().zip(variance).map(factor).collect();
                let shift = |((&bias, &mean), factor): ((&f32, &f32), &f64)| {
                    f64::from(bias) - f64::from(mean) * factor
                };
                let shifts = bias.iter().zip(mean).zip(&factors).map(shift).collect();
                (factors, shifts)
            }
            _ => (reals(weight), reals(bias)),
        }
    }

    /// Returns the output for a batch: `[images, input elements]` to `[images, output elements]`. In
    /// [`Mode::Training`] a batch norm takes the statistics of this batch.
    ///
    /// # Errors
    /// [`Error::Count`] when `x` has another number of columns than the input has elements.
    pub fn forward(&self, x: ArrayView2<'_, f32>, mode: Mode) -> Result<Array2<f32>, Error> {
        check_count("elements of an input image", self.input.elements(), x.ncols())?;
        match (&self.config, mode) {
            (LinearConfig::Flatten, _) => Ok(x.to_owned()),
            (LinearConfig::BatchNorm2d(config), Mode::Training) => {
                Ok(batch_norm::forward(x, &self.parameters, config.epsilon))
            }
            _ => {
                let (weights, bias) = self.effective();
                let [weights, bias] =
                    [weights, bias].map(|reals| reals.iter().map(|&x| x as f32).collect::<Vec<_>>());
                Ok(gemm::forward(&self.map, &weights, &bias, x))
            }
        }
    }

    /// Returns the gradients of the loss, given the batch `x` that went into [`forward`](Self::forward) in
    /// [`Mode::Training`] and the gradient with respect to its output.
    ///
    /// # Errors
    /// [`Error::Count`] when the rows or columns of `x` and `grad_output` are not those of one batch of this layer.
    pub fn backward(
        &self,
        x: ArrayView2<'_, f32>,
        grad_output: ArrayView2<'_, f32>,
        input_gradient: InputGradient,
    ) -> Result<Gradients, Error> {
        check_count("elements of an input image", self.input.elements(), x.ncols())?;
        check_count("elements of an output gradient", self.output.elements(), grad_output.ncols())?;
        check_count("images in the output gradient", x.nrows(), grad_output.nrows())?;
        let wanted = input_gradient == InputGradient::Wanted;
        match &self.config {
            LinearConfig::Flatten => Ok(Gradients {
                input: wanted.then(|| grad_output.to_owned()),
                parameters: Parameters::default(),
            }),
            LinearConfig::BatchNorm2d(config) => {
                let (input, parameters) =
                    batch_norm::backward(x, grad_output, &self.parameters, config.epsilon);
                Ok(Gradients { input: wanted.then_some(input), parameters })
            }
            _ => {
                let weights: Vec<f32> = self.effective().0.iter().map(|&x| x as f32).collect();
                let (input, weight) = gemm::backward(&self.map, &weights, [x, grad_output], wanted);
                let parameters = match self.has_parameters() {
                    true => Parameters { weight, bias: self.bias_gradient(grad_output) },
                    false => Parameters::default(),
                };
                Ok(Gradients { input, parameters })
            }
        }
    }

    fn bias_gradient(&self, grad_output: ArrayView2<'_, f32>) -> Vec<f32> {
        let mut bias = vec![0.0; self.parameters.bias.len()];
        if !bias.is_empty() {
            let spread = self.output.elements() / bias.len();
            for image in grad_output.outer_iter() {
                image.iter().enumerate().for_each(|(at, grad)| bias[at / spread] += grad);
            }
        }
        bias
    }

    /// Returns what a training batch does to a batch norm's running statistics; `None` for other layers.
    pub fn batch_statistics(&self, x: ArrayView2<'_, f32>) -> Option<BatchStatistics> {
        self.statistics.as_ref().map(|statistics| BatchStatistics::of(x, statistics.mean.len()))
    }

    /// Moves a batch norm's running statistics towards those of a batch.
    pub fn update_statistics(&mut self, batch: &BatchStatistics) {
        if let (LinearConfig::BatchNorm2d(config), Some(running)) = (&self.config, &mut self.statistics) {
            let momentum = config.momentum as f32;
            let towards = |running: &mut f32, batch: f32| *running += momentum * (batch - *running);
            running.mean.iter_mut().zip(&batch.mean).for_each(|(to, &from)| towards(to, from));
            running.variance.iter_mut().zip(batch.unbiased()).for_each(|(to, from)| towards(to, from));
        }
    }
}

fn check_count(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Count { what, expected, found }) }
}
