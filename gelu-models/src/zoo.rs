//! The networks of the IJCAI 2018 paper (GELU-Net, section 5), ready to be trained or loaded.
//!
//! The paper gives one line for each network. What it leaves open was chosen so:
//!
//! - **Padding** is not mentioned: there is none. LeNet-5 then has 16 x 4 x 4 = 256 features before `fc1`.
//! - **Pooling** is mean pooling of 2x2 windows side by side (stride 2), as in LeCun's LeNet-5.
//! - **Activation.** The paper writes "ReLU (square)": ReLU in GELU-Net, the square in CryptoNets. ReLU it is.
//! - **Conv-1's second ReLU** follows the pooling of values that ReLU has already made non-negative, so that it changes
//!   nothing. It is kept, because the paper lists it and it costs the client one more round on ciphertexts.
//! - **Conv-1's classifier.** The paper goes from pooling to softmax; ten classes need a dense layer between: `fc1`.
//! - **LeNet-5's dense layers.** The paper writes Dense(120)-Dense(84)-Softmax. Two dense layers with nothing between
//!   would collapse into one, so that ReLU stands after each, and `fc3` gives the ten logits.
//! - **Input** is one channel of 28x28 pixels scaled to 0..1.

use gelu_layers::{Activation, Conv2dConfig};

use crate::{BuildError, Model, ModelBuilder};

/// Names that [`by_name`] knows.
pub const NAMES: [&str; 4] = ["conv1", "lenet5", "dense12", "dense300"];

/// Conv(5x5, stride 2, 5 filters), ReLU, mean pooling, ReLU, Dense(10), softmax over 28x28 images.
///
/// # Errors
/// None in fact; the builder's are passed on.
pub fn conv1() -> Result<Model, BuildError> {
    ModelBuilder::new([1, 28, 28])
        .conv2d("conv1", Conv2dConfig::new(5, [5, 5]).with_stride([2, 2]))
        .relu()
        .mean_pool2d("pool1", [2, 2])
        .relu()
        .flatten()
        .dense("fc1", 10)
        .softmax()
        .build()
}

/// Conv(5x5, 6 filters), mean pooling, ReLU, Conv(5x5, 16 filters), mean pooling, ReLU, Dense(120), ReLU, Dense(84),
/// ReLU, Dense(10), softmax over 28x28 images.
///
/// # Errors
/// None in fact; the builder's are passed on.
pub fn lenet5() -> Result<Model, BuildError> {
    ModelBuilder::new([1, 28, 28])
        .conv2d("conv1", Conv2dConfig::new(6, [5, 5]))
        .mean_pool2d("pool1", [2, 2])
        .relu()
        .conv2d("conv2", Conv2dConfig::new(16, [5, 5]))
        .mean_pool2d("pool2", [2, 2])
        .relu()
        .flatten()
        .dense("fc1", 120)
        .relu()
        .dense("fc2", 84)
        .relu()
        .dense("fc3", 10)
        .softmax()
        .build()
}

/// What [`mlp`] builds: dense layers `fc1`, `fc2`, ... with one activation between them, and softmax at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MlpConfig {
    /// Features of an input.
    pub inputs: usize,
    /// Widths of the hidden layers; the paper has one of 5, 12, 15 or 300.
    pub hidden: Vec<usize>,
    /// Classes, that is width of the last layer.
    pub classes: usize,
    /// What follows each hidden layer.
    pub activation: Activation,
}

/// A multilayer perceptron: the paper's Dense(12) and Dense(300), and its networks for the UCI data sets.
///
/// # Errors
/// [`BuildError`] when a width is zero or the activation is a softmax.
pub fn mlp(config: &MlpConfig) -> Result<Model, BuildError> {
    let mut builder = ModelBuilder::new([config.inputs]);
    for (i, &width) in config.hidden.iter().enumerate() {
        builder = builder.dense(&format!("fc{}", i + 1), width).activation(config.activation);
    }
    builder.dense(&format!("fc{}", config.hidden.len() + 1), config.classes).softmax().build()
}

/// Why [`by_name`] gave no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown model `{found}`: expected one of {}", NAMES.join(", "))]
pub struct UnknownModel {
    /// The name that was given.
    pub found: String,
}

/// One of the paper's networks for MNIST, by its name (see [`NAMES`]). `dense12` and `dense300` are [`mlp`]s over 784
/// pixels with ReLU.
///
/// # Errors
/// [`UnknownModel`] for any other name.
pub fn by_name(name: &str) -> Result<Model, UnknownModel> {
    let dense = |width| {
        mlp(&MlpConfig { inputs: 784, hidden: vec![width], classes: 10, activation: Activation::Relu })
    };
    let model = match name {
        "conv1" => conv1().ok(),
        "lenet5" => lenet5().ok(),
        "dense12" => dense(12).ok(),
        "dense300" => dense(300).ok(),
        _ => None,
    };
    model.ok_or_else(|| UnknownModel { found: name.to_owned() })
}
