//! Networks by name, with what the name leaves open.

use std::fmt;
use std::str::FromStr;

use gelu_layers::Activation;
use gelu_tensor::Shape;

use super::{MlpConfig, Pooling, ResnetConfig, conv1_with, lenet5_with, mlp, resnet};
use crate::{GraphError, Model, Weights};

/// A network of the zoo. It is read from its name:
///
/// | name | network |
/// |---|---|
/// | `conv1` | one convolution, one dense layer |
/// | `lenet5` | two convolutions, three dense layers |
/// | `mlp:300,100` | dense layers with hidden ones of these widths; `dense12` and `dense300` are `mlp:12` and `mlp:300` |
/// | `resnet20`, `resnet8:8` | a residual network of that depth (6 n + 2) and first width (16 without one) |
///
/// ```
/// use gelu_models::zoo::{Network, Setting};
///
/// let network: Network = "mlp:12".parse()?;
/// let setting = Setting { input: Some([4].into()), classes: Some(3), ..Setting::default() };
/// assert_eq!(network.build(&setting)?.parameter_count(), 4 * 12 + 12 + 12 * 3 + 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// [`conv1`](super::conv1).
    Conv1,
    /// [`lenet5`](super::lenet5).
    Lenet5,
    /// [`mlp`](super::mlp) with these hidden widths.
    Mlp(Vec<usize>),
    /// [`resnet`](super::resnet).
    Resnet {
        /// Layers with weights, 6 n + 2.
        depth: usize,
        /// Channels of the first stage.
        width: usize,
    },
}

/// What the name of a network leaves open; `None` takes the network's own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Setting {
    /// The shape of an input: 1x28x28 for `conv1` and `lenet5`, 784 features for an `mlp`, 3x32x32 for a residual network.
    pub input: Option<Shape>,
    /// Classes: ten.
    pub classes: Option<usize>,
    /// What follows hidden layers: ReLU. Residual networks have no other.
    pub activation: Option<Activation>,
    /// How `conv1` and `lenet5` pool: by the mean. Other networks have no choice.
    pub pooling: Option<Pooling>,
    /// Whether batch norms follow the convolutions of a residual network: they do. Other networks have none.
    pub batch_norm: Option<bool>,
}

/// Why there is no such network.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ZooError {
    /// The name is none of the zoo's.
    #[error(
        "unknown model `{found}`: expected conv1, lenet5, mlp:WIDTHS (such as mlp:12 or mlp:300,100), dense12, dense300, or \
         resnetDEPTH with a depth of 6 n + 2 (such as resnet20, or resnet8:8 with 8 channels at first)"
    )]
    Unknown {
        /// The name that was given.
        found: String,
    },
    /// A setting that the network does not have.
    #[error("{network}: expected no {what} of one's own, found {found}")]
    NoChoice {
        /// The network.
        network: Network,
        /// What cannot be chosen.
        what: &'static str,
        /// What was chosen.
        found: String,
    },
    /// The network cannot be built for that input.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl FromStr for Network {
    type Err = ZooError;

    fn from_str(name: &str) -> Result<Self, ZooError> {
        let unknown = || ZooError::Unknown { found: name.to_owned() };
        let number = |text: &str| text.parse::<usize>().ok().filter(|&number| number > 0);
        let (network, details) =
            name.split_once(':').map_or((name, None), |(network, rest)| (network, Some(rest)));
        Ok(match (network, details) {
            ("conv1", None) => Self::Conv1,
            ("lenet5", None) => Self::Lenet5,
            ("dense12", None) => Self::Mlp(vec![12]),
            ("dense300", None) => Self::Mlp(vec![300]),
            ("mlp", Some(widths)) => {
                Self::Mlp(widths.split(',').map(number).collect::<Option<_>>().ok_or_else(unknown)?)
            }
            (network, width) => {
                let depth = network.strip_prefix("resnet").and_then(number).ok_or_else(unknown)?;
                let width = width.map_or(Some(16), number).ok_or_else(unknown)?;
                if depth < 8 || depth % 6 != 2 {
                    return Err(unknown());
                }
                Self::Resnet { depth, width }
            }
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conv1 => f.write_str("conv1"),
            Self::Lenet5 => f.write_str("lenet5"),
            Self::Mlp(widths) => {
                let widths: Vec<String> = widths.iter().map(usize::to_string).collect();
                write!(f, "mlp:{}", widths.join(","))
            }
            Self::Resnet { depth, width: 16 } => write!(f, "resnet{depth}"),
            Self::Resnet { depth, width } => write!(f, "resnet{depth}:{width}"),
        }
    }
}

impl Network {
    /// Returns the network for a setting, with all weights zero.
    ///
    /// # Errors
    /// [`ZooError::NoChoice`] and [`ZooError::Graph`].
    pub fn build(&self, setting: &Setting) -> Result<Model, ZooError> {
        let no_choice = |what, found: Option<String>| match found {
            Some(found) => Err(ZooError::NoChoice { network: self.clone(), what, found }),
            None => Ok(()),
        };
        let classes = setting.classes.unwrap_or(10);
        if !matches!(self, Self::Resnet { .. }) {
            let batch_norm = setting.batch_norm.filter(|&batch_norm| batch_norm);
            no_choice("batch norm", batch_norm.map(|batch_norm| batch_norm.to_string()))?;
        }
        Ok(match self {
            Self::Conv1 => conv1_with(setting)?,
            Self::Lenet5 => lenet5_with(setting)?,
            Self::Mlp(hidden) => {
                no_choice("pooling", setting.pooling.map(|pooling| pooling.to_string()))?;
                mlp(&MlpConfig {
                    inputs: setting.input.as_ref().map_or(784, Shape::elements),
                    hidden: hidden.clone(),
                    classes,
                    activation: setting.activation.unwrap_or(Activation::Relu),
                })?
            }
            Self::Resnet { depth, width } => {
                no_choice("pooling", setting.pooling.map(|pooling| pooling.to_string()))?;
                let activation = setting.activation.filter(|activation| *activation != Activation::Relu);
                no_choice("activation", activation.map(|activation| activation.to_string()))?;
                let input = setting.input.clone().unwrap_or_else(|| Shape::from([3, 32, 32]));
                let batch_norm = setting.batch_norm.unwrap_or(true);
                resnet(&ResnetConfig { input, depth: *depth, width: *width, classes, batch_norm })?
            }
        })
    }

    /// Completes a setting by what the names and shapes of trained weights tell: the classes, the inputs of an `mlp`, the
    /// channels of a residual network's images and whether it has batch norms.
    pub fn complete(&self, setting: &mut Setting, weights: &Weights) {
        let extent = |name: &str, axis: usize| weights.tensors.get(name)?.shape().dims().get(axis).copied();
        let (first, last) = match self {
            Self::Conv1 => ("conv1".to_owned(), "fc1".to_owned()),
            Self::Lenet5 => ("conv1".to_owned(), "fc3".to_owned()),
            Self::Mlp(widths) => ("fc1".to_owned(), format!("fc{}", widths.len() + 1)),
            Self::Resnet { .. } => ("conv1".to_owned(), "fc".to_owned()),
        };
        if setting.classes.is_none() {
            let classes = extent(&format!("{last}.bias"), 0).or_else(|| extent(&format!("{last}.weight"), 0));
            setting.classes = classes.filter(|&classes| classes > 0);
        }
        let inputs = extent(&format!("{first}.weight"), 1).filter(|&inputs| inputs > 0);
        if let (Self::Mlp(_), None, Some(inputs)) = (self, &setting.input, inputs) {
            setting.input = Some(Shape::from([inputs]));
        }
        if let (Self::Resnet { .. }, None, Some(channels)) = (self, &setting.input, inputs) {
            setting.input = Some(Shape::from([channels, 32, 32]));
        }
        if let (Self::Resnet { .. }, None, Some(_)) = (self, setting.batch_norm, inputs) {
            // A convolution has a bias only where no batch norm has one.
            setting.batch_norm = Some(!weights.tensors.contains_key("conv1.bias"));
        }
    }
}
