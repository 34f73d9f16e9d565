//! Building a model node by node.

use gelu_layers::{
    Activation, AvgPool2dConfig, BatchNorm2dConfig, ClientOp, Conv2dConfig, DenseConfig, LinearConfig,
    SliceConfig,
};
use gelu_tensor::{Shape, Window};

use crate::graph::Sizes;
use crate::{Graph, GraphError, Model, Node, Op, ValueId};

/// Builds a [`Model`] node by node, each after the one before it, with branches where a network has them. Shapes are
/// checked on the way; the first error is kept for [`build`](Self::build).
///
/// Nodes with weights have names of the caller's choice, others are named after their kind and counted: `relu1`, `add2`.
///
/// ```
/// use gelu_layers::Conv2dConfig;
/// use gelu_models::ModelBuilder;
///
/// let conv = |channels| Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]).without_bias();
/// let model = ModelBuilder::new([3, 8, 8])
///     .conv2d("stem", conv(4))
///     .batch_norm2d("stem_bn")
///     .relu()
///     .residual(|block| {
///         block.conv2d("a", conv(4)).batch_norm2d("a_bn").relu().conv2d("b", conv(4)).batch_norm2d("b_bn")
///     })
///     .relu()
///     .global_avg_pool2d()
///     .flatten()
///     .dense("fc", 10)
///     .softmax()
///     .build()?;
/// assert_eq!(model.output_shape().dims(), [10]);
/// # Ok::<(), gelu_models::GraphError>(())
/// ```
#[derive(Debug)]
pub struct ModelBuilder {
    graph: Graph,
    current: ValueId,
    sizes: Sizes,
    error: Option<GraphError>,
}

impl ModelBuilder {
    /// Returns an empty model over inputs of `[channels, height, width]` or `[features]`.
    pub fn new(input: impl Into<Shape>) -> Self {
        let input = input.into();
        let legal = matches!(input.dims().len(), 1 | 3) && !input.dims().contains(&0);
        let error = (!legal).then(|| GraphError::Input { found: input.clone() });
        let sizes = Sizes { elements: input.elements(), indices: 0 };
        Self { graph: Graph::begin(input), current: ValueId::INPUT, sizes, error }
    }

    /// Adds a convolution.
    pub fn conv2d(self, name: &str, config: Conv2dConfig) -> Self {
        self.linear(name, LinearConfig::Conv2d(config))
    }

    /// Adds mean pooling with windows of `kernel` side by side.
    pub fn avg_pool2d(self, name: &str, kernel: [usize; 2]) -> Self {
        self.avg_pool2d_with(name, Window::new(kernel).with_stride(kernel))
    }

    /// Adds mean pooling with any window, or with an [`AvgPool2dConfig`].
    pub fn avg_pool2d_with(self, name: &str, config: impl Into<AvgPool2dConfig>) -> Self {
        self.linear(name, LinearConfig::AvgPool2d(config.into()))
    }

    /// Adds the mean of each channel, which leaves images of one pixel.
    pub fn global_avg_pool2d(self) -> Self {
        let name = self.free_name("global_pool");
        self.linear(&name, LinearConfig::GlobalAvgPool2d)
    }

    /// Adds batch norm. When a plan is made, it becomes part of the linear layer before or after it.
    pub fn batch_norm2d(self, name: &str) -> Self {
        self.linear(name, LinearConfig::BatchNorm2d(BatchNorm2dConfig::default()))
    }

    /// Adds a fully connected layer: of so many outputs, or of a [`DenseConfig`].
    pub fn dense(self, name: &str, config: impl Into<DenseConfig>) -> Self {
        self.linear(name, LinearConfig::Dense(config.into()))
    }

    /// Turns images into vectors.
    pub fn flatten(self) -> Self {
        let name = self.free_name("flatten");
        self.linear(&name, LinearConfig::Flatten)
    }

    /// Takes every so many elements along each axis.
    pub fn slice(self, config: SliceConfig) -> Self {
        let name = self.free_name("slice");
        self.linear(&name, LinearConfig::Slice(config))
    }

    /// Adds a linear layer of any kind.
    pub fn linear(self, name: &str, config: LinearConfig) -> Self {
        self.unary(name.to_owned(), Op::Linear(config))
    }

    /// Adds max pooling with windows of `kernel` side by side.
    pub fn max_pool2d(self, kernel: [usize; 2]) -> Self {
        self.max_pool2d_with(Window::new(kernel).with_stride(kernel))
    }

    /// Adds max pooling with any window.
    pub fn max_pool2d_with(self, window: Window) -> Self {
        let name = self.free_name("max_pool");
        self.unary(name, Op::Client(ClientOp::MaxPool2d(window)))
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

    /// Adds any activation.
    pub fn activation(self, activation: Activation) -> Self {
        let kind = activation.to_string();
        let kind = kind.split(':').next().unwrap_or("activation").replace('-', "_");
        let name = self.free_name(&kind);
        self.unary(name, Op::Client(ClientOp::Activation(activation)))
    }

    /// Adds the probabilities of classes, which must be the last node.
    pub fn softmax(self) -> Self {
        let name = self.free_name("softmax");
        self.unary(name, Op::Client(ClientOp::Softmax))
    }

    /// Adds a function of the client's own, of which the model knows the name and the shape of what it makes of one
    /// image; the client supplies it when it runs ([`Client::with_function`](crate::infer::Client::with_function)).
    pub fn client_function(self, name: &str, output: impl Into<Shape>) -> Self {
        let op = ClientOp::Function { function: name.to_owned(), output: output.into() };
        self.unary(name.to_owned(), Op::Client(op))
    }

    /// Adds what `branch` makes of the value so far to that value: a block with an identity shortcut.
    pub fn residual(self, branch: impl FnOnce(Self) -> Self) -> Self {
        let start = self.current;
        branch(self).join(Op::Add, "add", |main| vec![main, start])
    }

    /// Adds up what two branches make of the value so far: a block with a shortcut that has a layer of its own.
    pub fn residual_with(self, main: impl FnOnce(Self) -> Self, shortcut: impl FnOnce(Self) -> Self) -> Self {
        let start = self.current;
        let mut builder = main(self);
        let sum = std::mem::replace(&mut builder.current, start);
        shortcut(builder).join(Op::Add, "add", |other| vec![sum, other])
    }

    /// Concatenates what branches make of the value so far, along channels (of vectors: features).
    pub fn concat<const BRANCHES: usize>(self, branches: [&dyn Fn(Self) -> Self; BRANCHES]) -> Self {
        let start = self.current;
        let mut ends = vec![];
        let mut builder = self;
        for branch in branches {
            builder.current = start;
            builder = branch(builder);
            ends.push(builder.current);
        }
        builder.join(Op::Concat, "concat", |_| ends)
    }

    /// Multiplies the value so far with what `gate` makes of it: a squeeze-and-excitation block.
    pub fn gated(self, gate: impl FnOnce(Self) -> Self) -> Self {
        let start = self.current;
        gate(self).join(Op::Client(ClientOp::Mul), "mul", |gate| vec![start, gate])
    }

    /// Returns the model, with all weights zero.
    ///
    /// # Errors
    /// The first thing that went wrong since [`new`](Self::new).
    pub fn build(self) -> Result<Model, GraphError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let input = self.graph.input().clone();
        Model::new(Graph::new(input, self.graph.nodes().to_vec(), self.current)?)
    }

    fn unary(mut self, name: String, op: Op) -> Self {
        let inputs = vec![self.current];
        self.push(Node { name, op, inputs });
        self
    }

    /// Adds a node that joins branches, given the end of the last.
    fn join(mut self, op: Op, kind: &str, inputs: impl FnOnce(ValueId) -> Vec<ValueId>) -> Self {
        let (name, inputs) = (self.free_name(kind), inputs(self.current));
        self.push(Node { name, op, inputs });
        self
    }

    fn push(&mut self, node: Node) {
        if self.error.is_some() {
            return;
        }
        if self.graph.nodes().iter().any(|other| other.name == node.name) {
            self.error = Some(GraphError::DuplicateName { name: node.name });
            return;
        }
        match self.graph.check(&node, &mut self.sizes) {
            Ok(shape) => self.current = self.graph.push(node, shape),
            Err(error) => self.error = Some(error),
        }
    }

    /// A name for the next node of a kind.
    fn free_name(&self, kind: &str) -> String {
        let taken = |name: &String| self.graph.nodes().iter().any(|node| node.name == *name);
        let mut names = (1..).map(|count| format!("{kind}{count}"));
        names.find(|name| !taken(name)).unwrap_or_default()
    }
}
