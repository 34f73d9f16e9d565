//! Networks that are ready to be trained or loaded: those of the IJCAI 2018 paper (GELU-Net, section 5), and residual
//! networks (He, Zhang, Ren and Sun, 2016).
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

mod name;

use std::fmt;
use std::str::FromStr;

use gelu_layers::{Activation, Conv2dConfig, UnknownName};
use gelu_tensor::Shape;

pub use self::name::{Network, Setting, ZooError};
use crate::{GraphError, Model, ModelBuilder};

/// How a network makes images smaller. Read from and printed as `mean` and `max`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pooling {
    /// By the mean of each window, which is linear: the server computes it.
    #[default]
    Mean,
    /// By the maximum of each window, which the client computes.
    Max,
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mean => "mean",
            Self::Max => "max",
        })
    }
}

impl FromStr for Pooling {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "mean" => Ok(Self::Mean),
            "max" => Ok(Self::Max),
            _ => Err(UnknownName { what: "pooling", expected: "`mean` or `max`", found: text.to_owned() }),
        }
    }
}

/// Returns Conv-1: Conv(5x5, stride 2, 5 filters), ReLU, mean pooling, ReLU, Dense(10), softmax over 28x28 images.
///
/// # Errors
/// Never fails for this network; the signature follows [`ModelBuilder::build`].
pub fn conv1() -> Result<Model, GraphError> {
    conv1_with(&Setting::default())
}

fn conv1_with(setting: &Setting) -> Result<Model, GraphError> {
    let activation = setting.activation.unwrap_or(Activation::Relu);
    let builder = ModelBuilder::new(setting.input.clone().unwrap_or_else(|| Shape::from([1, 28, 28])))
        .conv2d("conv1", Conv2dConfig::new(5, [5, 5]).with_stride([2, 2]))
        .activation(activation);
    pooled(builder, "pool1", setting)
        .activation(activation)
        .flatten()
        .dense("fc1", setting.classes.unwrap_or(10))
        .softmax()
        .build()
}

/// Returns LeNet-5: Conv(5x5, 6 filters), mean pooling, ReLU, Conv(5x5, 16 filters), mean pooling, ReLU, Dense(120), ReLU, Dense(84),
/// ReLU, Dense(10), softmax over 28x28 images.
///
/// # Errors
/// Never fails for this network; the signature follows [`ModelBuilder::build`].
pub fn lenet5() -> Result<Model, GraphError> {
    lenet5_with(&Setting::default())
}

fn lenet5_with(setting: &Setting) -> Result<Model, GraphError> {
    let activation = setting.activation.unwrap_or(Activation::Relu);
    let builder = ModelBuilder::new(setting.input.clone().unwrap_or_else(|| Shape::from([1, 28, 28])))
        .conv2d("conv1", Conv2dConfig::new(6, [5, 5]));
    let builder = pooled(builder, "pool1", setting)
        .activation(activation)
        .conv2d("conv2", Conv2dConfig::new(16, [5, 5]));
    pooled(builder, "pool2", setting)
        .activation(activation)
        .flatten()
        .dense("fc1", 120)
        .activation(activation)
        .dense("fc2", 84)
        .activation(activation)
        .dense("fc3", setting.classes.unwrap_or(10))
        .softmax()
        .build()
}

/// Windows of 2x2 side by side.
fn pooled(builder: ModelBuilder, name: &str, setting: &Setting) -> ModelBuilder {
    match setting.pooling.unwrap_or_default() {
        Pooling::Mean => builder.avg_pool2d(name, [2, 2]),
        Pooling::Max => builder.max_pool2d([2, 2]),
    }
}

/// What [`mlp`] builds: dense layers `fc1`, `fc2`, ... with one activation between them, and softmax at the end.
#[derive(Clone, Debug, PartialEq)]
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

/// Returns a multilayer perceptron: the paper's Dense(12) and Dense(300), and its networks for the UCI data sets.
///
/// # Errors
/// [`GraphError`] when a width is zero or the activation is a softmax.
pub fn mlp(config: &MlpConfig) -> Result<Model, GraphError> {
    let mut builder = ModelBuilder::new([config.inputs]);
    for (i, &width) in config.hidden.iter().enumerate() {
        builder = builder.dense(&format!("fc{}", i + 1), width).activation(config.activation);
    }
    builder.dense(&format!("fc{}", config.hidden.len() + 1), config.classes).softmax().build()
}

/// What [`resnet`] builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResnetConfig {
    /// Shape of an input, `[channels, height, width]`.
    pub input: Shape,
    /// Layers with weights on the longest way through the network: 6 n + 2, so 20, 32, 44, 56 and so on.
    pub depth: usize,
    /// Channels of the first stage; the second has twice as many, the third four times. 16 in the paper.
    pub width: usize,
    /// Classes.
    pub classes: usize,
    /// Whether a batch norm follows every convolution, as in the paper. Without, convolutions have a bias instead, and the
    /// network can be trained privately.
    pub batch_norm: bool,
}

/// Returns the residual network of 20 layers for images of 3x32x32 (He, Zhang, Ren and Sun, "Deep residual learning for image
/// recognition", CVPR 2016, section 4.2), with batch norm after every convolution.
///
/// # Errors
/// [`GraphError`] when there are no classes.
pub fn resnet20(classes: usize) -> Result<Model, GraphError> {
    resnet(&ResnetConfig { input: Shape::from([3, 32, 32]), depth: 20, width: 16, classes, batch_norm: true })
}

/// Returns a residual network for small images: a convolution, three stages of `(depth - 2) / 6` blocks of two 3x3 convolutions
/// each, of which the second and the third halve the image and double the channels, global mean pooling and a dense
/// layer. Where a block changes the shape, its shortcut is a 1x1 convolution (option B of the paper).
///
/// # Errors
/// [`GraphError`] when the depth is not 6 n + 2, a width is zero, or the image is too small.
pub fn resnet(config: &ResnetConfig) -> Result<Model, GraphError> {
    let ResnetConfig { input, depth, width, classes, batch_norm } = config;
    let blocks = depth.saturating_sub(2) / 6;
    if blocks == 0 || blocks * 6 + 2 != *depth {
        return Err(GraphError::Node {
            name: "resnet".to_owned(),
            inputs: vec![input.clone()],
            source: gelu_tensor::Error::Count {
                what: "depth of a residual network (6 n + 2)",
                expected: blocks.max(1) * 6 + 2,
                found: *depth,
            },
        });
    }
    // A batch norm has a bias of its own.
    let conv = |builder: ModelBuilder, [conv, norm]: [&str; 2], config: Conv2dConfig| match batch_norm {
        true => builder.conv2d(conv, config.without_bias()).batch_norm2d(norm),
        false => builder.conv2d(conv, config),
    };
    let conv3x3 = |channels: usize, stride: usize| {
        Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]).with_stride([stride, stride])
    };
    let mut builder = conv(ModelBuilder::new(input.clone()), ["conv1", "bn1"], conv3x3(*width, 1)).relu();
    for stage in 0..3 {
        let channels = width << stage;
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
            let main = |builder: ModelBuilder| {
                let builder = conv(builder, [&name("conv1"), &name("bn1")], conv3x3(channels, stride)).relu();
                conv(builder, [&name("conv2"), &name("bn2")], conv3x3(channels, 1))
            };
            builder = if stride == 1 {
                builder.residual(main)
            } else {
                let projection = Conv2dConfig::new(channels, [1, 1]).with_stride([2, 2]);
                builder.residual_with(main, |builder| {
                    conv(builder, [&name("shortcut.0"), &name("shortcut.1")], projection)
                })
            }
            .relu();
        }
    }
    builder.global_avg_pool2d().flatten().dense("fc", *classes).softmax().build()
}
