use gelu_layers::{Activation, Conv2d, Conv2dConfig, Dense, Flatten, Linear, MeanPool2d};
use gelu_tensor::{Shape, Window};

use crate::{Model, Node};

/// Why a [`ModelBuilder`] made no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The input is neither `[channels, height, width]` nor `[features]`, or has no elements.
    #[error(
        "model input: expected [channels, height, width] or [features], none of them zero, found {found}"
    )]
    Input {
        /// The shape that was given.
        found: Shape,
    },
    /// The model has no linear layer.
    #[error("the model is empty: expected at least one linear layer, found none")]
    Empty,
    /// A layer was given an empty name.
    #[error("linear layer {position}: expected a name, found an empty one")]
    NoName {
        /// Which linear layer, counted from 1.
        position: usize,
    },
    /// Two layers have one name.
    #[error("layer `{name}`: the name is taken, every layer needs its own")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A layer does not fit the output of the node before.
    #[error("layer `{name}` after an output of {input}: {source}")]
    Layer {
        /// The layer's name.
        name: String,
        /// The shape it would take in.
        input: Shape,
        /// What does not fit.
        source: gelu_tensor::Error,
    },
    /// Softmax is not the last node.
    #[error("`{name}` follows a softmax: softmax must be the last node")]
    AfterSoftmax {
        /// The layer or activation that follows.
        name: String,
    },
    /// Softmax of an image.
    #[error("softmax: expected a vector of logits, found {found} (flatten it first)")]
    SoftmaxInput {
        /// The shape before the softmax.
        found: Shape,
    },
}

/// Builds a [`Model`] node by node. Shapes are checked on the way; the first error is kept for
/// [`build`](Self::build).
#[derive(Debug)]
pub struct ModelBuilder {
    input: Shape,
    output: Shape,
    nodes: Vec<Node>,
    error: Option<BuildError>,
}

impl ModelBuilder {
    /// An empty model over inputs of `[channels, height, width]` or `[features]`.
    pub fn new(input: impl Into<Shape>) -> Self {
        let input = input.into();
        let legal = matches!(input.dims().len(), 1 | 3) && !input.dims().contains(&0);
        let error = (!legal).then(|| BuildError::Input { found: input.clone() });
        Self { output: input.clone(), input, nodes: Vec::new(), error }
    }

    /// Adds a convolution.
    pub fn conv2d(self, name: &str, config: Conv2dConfig) -> Self {
        self.linear(name, |input| Conv2d::new(config, input))
    }

    /// Adds mean pooling with windows of `kernel` side by side.
    pub fn mean_pool2d(self, name: &str, kernel: [usize; 2]) -> Self {
        self.mean_pool2d_with(name, Window::new(kernel).with_stride(kernel))
    }

    /// Adds mean pooling with any window.
    pub fn mean_pool2d_with(self, name: &str, window: Window) -> Self {
        self.linear(name, |input| MeanPool2d::new(window, input))
    }

    /// Adds a fully connected layer of `out_features`.
    pub fn dense(self, name: &str, out_features: usize) -> Self {
        self.linear(name, |input| Dense::new(out_features, input))
    }

    /// Turns images into vectors. The layer is named `flatten`; a second one `flatten2`, and so on.
    pub fn flatten(self) -> Self {
        let taken = self.names().filter(|name| name.starts_with("flatten")).count();
        let name = if taken == 0 { "flatten".to_owned() } else { format!("flatten{}", taken + 1) };
        self.linear(&name, |input| Ok(Flatten::new(input)))
    }

    /// Adds [`Activation::Relu`].
    pub fn relu(self) -> Self {
        self.activation(Activation::Relu)
    }

    /// Adds [`Activation::Sigmoid`].
    pub fn sigmoid(self) -> Self {
        self.activation(Activation::Sigmoid)
    }

    /// Adds [`Activation::Tanh`].
    pub fn tanh(self) -> Self {
        self.activation(Activation::Tanh)
    }

    /// Adds [`Activation::Square`].
    pub fn square(self) -> Self {
        self.activation(Activation::Square)
    }

    /// Adds [`Activation::SigmoidTaylor3`].
    pub fn sigmoid_taylor3(self) -> Self {
        self.activation(Activation::SigmoidTaylor3)
    }

    /// Adds [`Activation::SigmoidTaylor5`].
    pub fn sigmoid_taylor5(self) -> Self {
        self.activation(Activation::SigmoidTaylor5)
    }

    /// Adds [`Activation::Softmax`], which must be the last node.
    pub fn softmax(self) -> Self {
        self.activation(Activation::Softmax)
    }

    /// Adds any activation.
    pub fn activation(mut self, activation: Activation) -> Self {
        let vector = self.output.dims().len() == 1;
        if self.after_softmax() {
            self.fail(BuildError::AfterSoftmax { name: activation.to_string() });
        } else if activation == Activation::Softmax && !vector {
            let found = self.output.clone();
            self.fail(BuildError::SoftmaxInput { found });
        } else {
            self.nodes.push(Node::Activation(activation));
        }
        self
    }

    /// The model, with all parameters zero.
    ///
    /// # Errors
    /// The first thing that went wrong since [`new`](Self::new).
    pub fn build(self) -> Result<Model, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.names().next().is_none() {
            return Err(BuildError::Empty);
        }
        Ok(Model::new(self.input, self.output, self.nodes))
    }

    fn linear<L: Linear + 'static>(
        mut self,
        name: &str,
        make: impl FnOnce(&Shape) -> Result<L, gelu_tensor::Error>,
    ) -> Self {
        if self.error.is_some() {
            return self;
        }
        let name = name.to_owned();
        if name.is_empty() {
            let position = self.names().count() + 1;
            self.fail(BuildError::NoName { position });
        } else if self.names().any(|taken| taken == name) {
            self.fail(BuildError::DuplicateName { name });
        } else if self.after_softmax() {
            self.fail(BuildError::AfterSoftmax { name });
        } else {
            match make(&self.output) {
                Ok(layer) => {
                    self.output = layer.output_shape().clone();
                    self.nodes.push(Node::Linear { name, layer: Box::new(layer) });
                }
                Err(source) => {
                    let input = self.output.clone();
                    self.fail(BuildError::Layer { name, input, source });
                }
            }
        }
        self
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Linear { name, .. } => Some(name.as_str()),
            Node::Activation(_) => None,
        })
    }

    fn after_softmax(&self) -> bool {
        matches!(self.nodes.last(), Some(Node::Activation(Activation::Softmax)))
    }

    fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }
}
