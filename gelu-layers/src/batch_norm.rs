//! Batch norm while it is trained: by the statistics of the batch (Ioffe and Szegedy, 2015).

use ndarray::{Array2, ArrayView2};

use crate::Parameters;

/// Mean and variance of each channel over a batch's images and positions.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchStatistics {
    /// One mean for each channel.
    pub mean: Vec<f32>,
    /// One (biased) variance for each channel.
    pub variance: Vec<f32>,
    /// Values of one channel.
    count: usize,
}

impl BatchStatistics {
    pub(crate) fn of(x: ArrayView2<'_, f32>, channels: usize) -> Self {
        let elements = x.ncols() / channels.max(1);
        let count = elements * x.nrows();
        let values = |channel: usize| {
            x.outer_iter().flat_map(move |image| {
                (0..elements).map(move |at| f64::from(image[channel * elements + at])).collect::<Vec<_>>()
            })
        };
        let mean = |channel| values(channel).sum::<f64>() / count.max(1) as f64;
        let means: Vec<f64> = (0..channels).map(mean).collect();
        let variance = |channel: usize| {
            let squares: f64 = values(channel).map(|x| (x - means[channel]).powi(2)).sum();
            (squares / count.max(1) as f64) as f32
        };
        let variance = (0..channels).map(variance).collect();
        Self { mean: means.iter().map(|&mean| mean as f32).collect(), variance, count }
    }

    /// The variances as PyTorch keeps them: divided by one value less.
    pub(crate) fn unbiased(&self) -> impl Iterator<Item = f32> {
        let factor = self.count as f32 / (self.count.max(2) - 1) as f32;
        self.variance.iter().map(move |variance| variance * factor)
    }

    /// For each channel what its values are divided by.
    fn deviations(&self, epsilon: f64) -> Vec<f32> {
        self.variance.iter().map(|&variance| (f64::from(variance) + epsilon).sqrt() as f32).collect()
    }
}

pub(crate) fn forward(x: ArrayView2<'_, f32>, parameters: &Parameters, epsilon: f64) -> Array2<f32> {
    let Parameters { weight, bias } = parameters;
    let statistics = BatchStatistics::of(x, weight.len());
    let deviations = statistics.deviations(epsilon);
    let elements = x.ncols() / weight.len();
    Array2::from_shape_fn(x.dim(), |(image, at)| {
        let channel = at / elements;
        (x[[image, at]] - statistics.mean[channel]) / deviations[channel] * weight[channel] + bias[channel]
    })
}

/// The gradients with respect to the input and the parameters.
pub(crate) fn backward(
    x: ArrayView2<'_, f32>,
    grad: ArrayView2<'_, f32>,
    parameters: &Parameters,
    epsilon: f64,
) -> (Array2<f32>, Parameters) {
    let channels = parameters.weight.len();
    let statistics = BatchStatistics::of(x, channels);
    let deviations = statistics.deviations(epsilon);
    let elements = x.ncols() / channels;
    let normal = |image: usize, at: usize| {
        (x[[image, at]] - statistics.mean[at / elements]) / deviations[at / elements]
    };
    let mut sums = Parameters { weight: vec![0.0; channels], bias: vec![0.0; channels] };
    for ((image, at), &grad) in grad.indexed_iter() {
        sums.weight[at / elements] += grad * normal(image, at);
        sums.bias[at / elements] += grad;
    }
    let count = (elements * x.nrows()) as f32;
    let input = Array2::from_shape_fn(x.dim(), |(image, at)| {
        let channel = at / elements;
        let centered =
            grad[[image, at]] - (sums.bias[channel] + normal(image, at) * sums.weight[channel]) / count;
        parameters.weight[channel] / deviations[channel] * centered
    });
    (input, sums)
}
