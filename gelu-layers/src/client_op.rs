use std::fmt;

use gelu_tensor::{Error, Shape, Window, Windows};
use ndarray::ArrayView1;
use num_traits::Float;
use serde::{Deserialize, Serialize};

use crate::Activation;
use crate::activation::{magnitude, narrow, wide};

#[cfg(test)]
mod tests;

/// A step between two linear layers, which the owner of the data computes in the clear.
///
/// Values are batches of images one after another, each in row-major order (channel first).
///
/// ```
/// use gelu_layers::ClientOp;
/// use gelu_tensor::{Shape, Window};
///
/// let pool = ClientOp::MaxPool2d(Window::new([2, 2]).with_stride([2, 2]));
/// let image = Shape::from([1, 2, 4]);
/// assert_eq!(pool.output_shape(&[&image])?, Shape::from([1, 1, 2]));
/// let pooled = pool.forward(&[&image], &[&[1.0, 5.0, 2.0, 0.0, 3.0, -1.0, 7.0, 4.0]])?;
/// assert_eq!(pooled, [5.0, 7.0]);
/// # Ok::<(), gelu_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ClientOp {
    /// A function of every element.
    Activation(Activation),
    /// The maxima of a window sliding over each channel of an image. Padding counts as minus infinity, as in PyTorch.
    MaxPool2d(Window),
    /// The products of two values of the same shape, element by element, or of an image `[channels, height, width]` and
    /// one factor for each of its channels, `[channels]` or `[channels, 1, 1]` (the gate of squeeze-and-excitation), in
    /// either order.
    Mul,
    /// `exp(x_i) / sum_j exp(x_j)` over the features of a vector.
    Softmax,
    /// A function of one value that is the user's own. The graph knows its name and what comes out, no more.
    Function {
        /// Its name.
        function: String,
        /// The shape of its result.
        output: Shape,
    },
}

/// The error of an operation that is given another number of values than it takes.
const VALUES: &str = "values that a step of the client's takes";

impl ClientOp {
    /// Returns how many values the step takes: one, or two for a product.
    pub fn inputs(&self) -> usize {
        if matches!(self, Self::Mul) { 2 } else { 1 }
    }

    /// Returns the shape of the result for inputs of these shapes.
    ///
    /// # Errors
    /// [`Error::Count`] when there are more or fewer shapes than [`inputs`](Self::inputs), one of them has no elements
    /// or a rank that does not fit, or an activation's parameters make no sense (one that is not finite, or a clip's `min`
    /// above its `max`); [`Error::Window`] when a window does not fit, or would lie in the padding altogether;
    /// [`Error::Shape`] when two factors do not fit each other.
    pub fn output_shape(&self, inputs: &[&Shape]) -> Result<Shape, Error> {
        inputs.iter().try_for_each(|shape| check_extents(shape))?;
        match (self, inputs) {
            (Self::Activation(activation), [shape]) => {
                if !activation.is_valid() {
                    return Err(Error::Activation);
                }
                Ok((*shape).clone())
            }
            (Self::MaxPool2d(window), [shape]) => {
                let windows = pooling_windows(*window, shape)?;
                let ([channels, ..], [rows, columns]) = (windows.input(), windows.output());
                Ok(Shape::from([channels, rows, columns]))
            }
            (Self::Mul, [first, second]) => Ok(match Factors::new(first, second)? {
                Factors::Gate { image: 1, .. } => (*second).clone(),
                _ => (*first).clone(),
            }),
            (Self::Softmax, [shape]) => match shape.dims() {
                [_] => Ok((*shape).clone()),
                dims => {
                    let what = "dimensions of a softmax's input";
                    Err(Error::Count { what, expected: 1, found: dims.len() })
                }
            },
            (Self::Function { output, .. }, [_]) => check_extents(output).map(|()| output.clone()),
            _ => Err(Error::Count { what: VALUES, expected: self.inputs(), found: inputs.len() }),
        }
    }

    /// Returns the results for a batch of any number of images; `shapes` are those of one image's values.
    ///
    /// # Errors
    /// Those of [`output_shape`](Self::output_shape), and [`Error::Count`] when the inputs are not whole images, as many
    /// of each, or the step is a [`Function`](Self::Function), which is for the caller to compute.
    pub fn forward<F: Float>(&self, shapes: &[&Shape], inputs: &[&[F]]) -> Result<Vec<F>, Error> {
        let Batch { output, images } = self.batch(shapes, inputs)?;
        match (self, shapes, inputs) {
            // The compiler knows which activation this loop is for.
            (Self::Activation(Activation::Relu), _, [x]) => {
                Ok(x.iter().map(|&x| Activation::Relu.apply(x)).collect())
            }
            (Self::Activation(activation), _, [x]) => Ok(x.iter().map(|&x| activation.apply(x)).collect()),
            (Self::MaxPool2d(window), [shape], [x]) => {
                let mut y = vec![F::zero(); images.saturating_mul(output.elements())];
                for_each_maximum(pooling_windows(*window, shape)?, x, |to, from| y[to] = x[from]);
                Ok(y)
            }
            (Self::Mul, [first, second], [a, b]) => Ok(match Factors::new(first, second)? {
                Factors::Same => products(a, b),
                Factors::Gate { image: 1, positions } => scaled(b, a, positions),
                Factors::Gate { positions, .. } => scaled(a, b, positions),
            }),
            (Self::Softmax, [shape], [x]) => {
                let mut y = x.to_vec();
                y.chunks_exact_mut(shape.elements()).for_each(softmax);
                Ok(y)
            }
            _ => Err(unknown_function()),
        }
    }

    /// Returns the gradients with respect to each input, given the `inputs` that went into [`forward`](Self::forward)
    /// and the gradient with respect to its result.
    ///
    /// A maximum's gradient goes to the first of the largest elements of its window, as in PyTorch.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), and [`Error::Count`] when the gradient has another length than the result.
    pub fn backward<F: Float>(
        &self,
        shapes: &[&Shape],
        inputs: &[&[F]],
        grad: &[F],
    ) -> Result<Vec<Vec<F>>, Error> {
        let Batch { output, images } = self.batch(shapes, inputs)?;
        check_length("elements of the gradient of a step of the client's", grad, &output, images)?;
        match (self, shapes, inputs) {
            (Self::Activation(Activation::Relu), _, [x]) => {
                let pairs = x.iter().zip(grad);
                Ok(vec![pairs.map(|(&x, &grad)| if x > F::zero() { grad } else { F::zero() }).collect()])
            }
            (Self::Activation(activation), _, [x]) => {
                let times = |(&x, &grad)| narrow(activation.derivative(wide::<F>(x)) * wide::<F>(grad));
                Ok(vec![x.iter().zip(grad).map(times).collect()])
            }
            (Self::MaxPool2d(window), [shape], [x]) => {
                let mut dx = vec![F::zero(); x.len()];
                let windows = pooling_windows(*window, shape)?;
                for_each_maximum(windows, x, |to, from| dx[from] = dx[from] + grad[to]);
                Ok(vec![dx])
            }
            (Self::Mul, [first, second], [a, b]) => Ok(match Factors::new(first, second)? {
                Factors::Same => vec![products(grad, b), products(grad, a)],
                Factors::Gate { image: 1, positions } => {
                    vec![channel_sums(grad, b, positions), scaled(grad, a, positions)]
                }
                Factors::Gate { positions, .. } => {
                    vec![scaled(grad, b, positions), channel_sums(grad, a, positions)]
                }
            }),
            (Self::Softmax, [shape], [x]) => {
                let features = shape.elements();
                let mut dx = x.to_vec();
                for (row, grad) in dx.chunks_exact_mut(features).zip(grad.chunks_exact(features)) {
                    softmax(row);
                    let mean = dot(row, grad);
                    row.iter_mut().zip(grad).for_each(|(y, &grad)| *y = *y * (grad - mean));
                }
                Ok(vec![dx])
            }
            _ => Err(unknown_function()),
        }
    }

    /// Returns the largest magnitude of an element of the result, given those of the inputs; infinity where nothing is
    /// known.
    pub fn range(&self, inputs: &[f64]) -> f64 {
        match (self, inputs) {
            (Self::Activation(activation), &[largest]) => activation.range(largest),
            (Self::MaxPool2d(_), &[largest]) => magnitude(largest),
            (Self::Mul, &[first, second]) => magnitude(first * second),
            (Self::Softmax, _) => 1.0,
            _ => f64::INFINITY,
        }
    }

    /// Returns the largest magnitude of an element of the result whatever the inputs, or `None` when there is no bound.
    pub fn bound(&self) -> Option<f64> {
        match self {
            Self::Activation(activation) => activation.bound(),
            Self::Softmax => Some(1.0),
            Self::MaxPool2d(_) | Self::Mul | Self::Function { .. } => None,
        }
    }

    /// Checks shapes and lengths.
    fn batch<F>(&self, shapes: &[&Shape], inputs: &[&[F]]) -> Result<Batch, Error> {
        let output = self.output_shape(shapes)?;
        if inputs.len() != shapes.len() {
            return Err(Error::Count { what: VALUES, expected: shapes.len(), found: inputs.len() });
        }
        let mut images = None;
        for (shape, input) in shapes.iter().zip(inputs) {
            // No shape without elements gets here.
            let images = *images.get_or_insert(input.len().div_ceil(shape.elements().max(1)));
            check_length("elements of a batch of the client's values", input, shape, images)?;
        }
        Ok(Batch { output, images: images.unwrap_or(0) })
    }
}

/// What [`ClientOp::batch`] found.
struct Batch {
    output: Shape,
    images: usize,
}

fn check_extents(shape: &Shape) -> Result<(), Error> {
    if shape.dims().contains(&0) {
        return Err(Error::TooFew { what: "elements of a value of the client's", least: 1, found: 0 });
    }
    Ok(())
}

fn check_length<F>(what: &'static str, values: &[F], shape: &Shape, images: usize) -> Result<(), Error> {
    let expected = images.saturating_mul(shape.elements());
    if values.len() == expected { Ok(()) } else { Err(Error::Count { what, expected, found: values.len() }) }
}

fn unknown_function() -> Error {
    Error::ClientFunction
}

/// How the shapes of two factors fit.
enum Factors {
    /// They are the same.
    Same,
    /// One (the first or the second: `image` 0 or 1) is an image of so many positions, the other a factor for each
    /// channel.
    Gate { image: usize, positions: usize },
}

impl Factors {
    fn new(first: &Shape, second: &Shape) -> Result<Self, Error> {
        if first == second {
            return Ok(Self::Same);
        }
        for (image, [values, gate]) in [[first, second], [second, first]].into_iter().enumerate() {
            let &[channels, height, width] = values.dims() else { continue };
            if gate.dims() == [channels] || gate.dims() == [channels, 1, 1] {
                return Ok(Self::Gate { image, positions: height.saturating_mul(width) });
            }
        }
        let what = "the second factor of a product";
        Err(Error::Shape { what, expected: first.clone(), found: second.clone() })
    }
}

fn products<F: Float>(a: &[F], b: &[F]) -> Vec<F> {
    a.iter().zip(b).map(|(&a, &b)| a * b).collect()
}

/// Returns every channel of `values` times its factor.
fn scaled<F: Float>(values: &[F], factors: &[F], positions: usize) -> Vec<F> {
    let mut products = Vec::with_capacity(values.len());
    for (channel, &factor) in values.chunks_exact(positions).zip(factors) {
        products.extend(channel.iter().map(|&x| x * factor));
    }
    products
}

/// Returns the sums over each channel of the products of `a` and `b`.
fn channel_sums<F: Float>(a: &[F], b: &[F], positions: usize) -> Vec<F> {
    a.chunks_exact(positions).zip(b.chunks_exact(positions)).map(|(a, b)| dot(a, b)).collect()
}

/// Summed in double precision: a channel may have many positions.
fn dot<F: Float>(a: &[F], b: &[F]) -> F {
    narrow(a.iter().zip(b).map(|(&a, &b)| wide(a) * wide(b)).sum())
}

/// Returns the windows of a pooling, each of which reads at least one pixel.
fn pooling_windows(window: Window, input: &Shape) -> Result<Windows, Error> {
    let windows = window.over(input.as_image("dimensions of a pooling layer's input")?)?;
    check_pixels(&windows)?;
    Ok(windows)
}

/// Refuses windows of which one reads nothing but padding.
pub(crate) fn check_pixels(windows: &Windows) -> Result<(), Error> {
    let (window, [_, height, width]) = (windows.window(), windows.input());
    for (axis, size) in [height, width].into_iter().enumerate() {
        let (dilation, before) = (window.dilation[axis], window.padding[axis][0]);
        // A window that starts in the image reads a pixel there. So does one that starts before it, unless its taps
        // are so far apart that the first one past the padding is past the image too. The last such window has it
        // farthest away.
        let most = windows.output()[axis] - 1;
        let start = most.min(before.saturating_sub(1) / window.stride[axis]) * window.stride[axis];
        if start < before && dilation > size && dilation - (before - start) >= size {
            let why = "dilation makes a window that reads nothing but padding";
            let input = Shape::from(windows.input());
            return Err(Error::Window { window: window.to_string(), input, why });
        }
    }
    Ok(())
}

/// The rows or columns that a window reads: every `dilation`-th one from `first`.
#[derive(Clone, Copy)]
struct Taps {
    first: usize,
    count: usize,
}

fn taps(windows: &Windows, axis: usize) -> Vec<Taps> {
    let (window, size) = (windows.window(), windows.input()[axis + 1]);
    let (dilation, before) = (window.dilation[axis], window.padding[axis][0]);
    let at = |position: usize| {
        let start = position * window.stride[axis];
        let skipped = before.saturating_sub(start).div_ceil(dilation);
        let first = start + skipped * dilation - before;
        let inside = size.saturating_sub(first).div_ceil(dilation);
        Taps { first, count: inside.min(window.kernel[axis].saturating_sub(skipped)) }
    };
    (0..windows.output()[axis]).map(at).collect()
}

/// Calls `each` with every element of a pooling's result and the element of the batch `x` that is its maximum: the first
/// of the largest, or a NaN if there is one.
fn for_each_maximum<F: Float>(windows: Windows, x: &[F], mut each: impl FnMut(usize, usize)) {
    if x.is_empty() {
        return;
    }
    let ([_, height, width], dilation) = (windows.input(), windows.window().dilation);
    let (rows, columns) = (taps(&windows, 0), taps(&windows, 1));
    let mut to = 0;
    for start in (0..x.len()).step_by(height * width) {
        for row in &rows {
            for column in &columns {
                let mut best = start + row.first * width + column.first;
                for i in 0..row.count {
                    let line = start + (row.first + i * dilation[0]) * width + column.first;
                    for at in (0..column.count).map(|j| line + j * dilation[1]) {
                        if x[at] > x[best] || x[at].is_nan() {
                            best = at;
                        }
                    }
                }
                each(to, best);
                to += 1;
            }
        }
    }
}

/// Replaces a row by its softmax. It is shifted by its maximum first, so that no exponential overflows.
pub fn softmax<F: Float>(row: &mut [F]) {
    let largest = row.iter().fold(F::neg_infinity(), |largest, &x| largest.max(x));
    row.iter_mut().for_each(|x| *x = (*x - largest).exp());
    // In eight partial sums, an order that trained weights depend on in their last bits.
    let sum = ArrayView1::from(&*row).sum();
    row.iter_mut().for_each(|x| *x = *x / sum);
}

/// Returns the index of the first of the largest elements; a NaN is passed over (0 where there is nothing else).
pub fn argmax<F: Float>(row: &[F]) -> usize {
    let numbers = row.iter().copied().enumerate().filter(|(_, x)| !x.is_nan());
    numbers.reduce(|best, next| if next.1 > best.1 { next } else { best }).map_or(0, |(at, _)| at)
}

/// Prints the activation's name, `max-pool 2x2 stride 2x2 padding 0x0`, `mul`, `softmax`, or the function's name.
impl fmt::Display for ClientOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activation(activation) => activation.fmt(f),
            Self::MaxPool2d(window) => f.pad(&format!("max-pool {window}")),
            Self::Mul => f.pad("mul"),
            Self::Softmax => f.pad("softmax"),
            Self::Function { function, .. } => f.pad(function),
        }
    }
}
