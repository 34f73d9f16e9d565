//! A network without its weights: named values, and the nodes that make them.

mod error;

use std::collections::HashSet;
use std::fmt;

use gelu_layers::{ClientOp, LinearConfig};
use gelu_tensor::{Error, Shape};
use serde::{Deserialize, Serialize};

pub use self::error::GraphError;
use crate::Ranges;

/// A value of a [`Graph`]: its input, or what one of its nodes makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ValueId(u32);

impl ValueId {
    /// The graph's input.
    pub const INPUT: Self = Self(0);

    /// Returns what the node at a place in the graph's order makes.
    pub fn of_node(index: usize) -> Self {
        Self(u32::try_from(index + 1).unwrap_or(u32::MAX))
    }

    /// Returns the place of the node that makes the value; `None` for the input.
    pub(crate) fn node(self) -> Option<usize> {
        (self.0 as usize).checked_sub(1)
    }

    /// Returns the place of the value among all of a graph: 0 for the input.
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    /// An affine map: the only kind of node that a server computes on ciphertexts.
    Linear(LinearConfig),
    /// The sum of two values of one shape, on whichever side it costs less.
    Add,
    /// Values one after another along their first extent (channels, or features), on whichever side it costs less.
    Concat,
    /// A nonlinear function, which only the owner of the data can compute.
    Client(ClientOp),
}

impl Op {
    /// Returns the shape of the output, and how many indices a linear map has.
    fn output(&self, inputs: &[&Shape]) -> Result<(Shape, usize), Error> {
        let count = |expected: usize| match inputs.len() == expected {
            true => Ok(()),
            false => Err(Error::Count { what: "inputs of a node", expected, found: inputs.len() }),
        };
        match self {
            Self::Linear(config) => {
                count(1)?;
                config.output(inputs[0])
            }
            Self::Add => {
                count(2)?;
                if inputs[0] != inputs[1] {
                    let (expected, found) = (inputs[0].clone(), inputs[1].clone());
                    return Err(Error::Shape { what: "second term of a sum", expected, found });
                }
                Ok((inputs[0].clone(), 0))
            }
            Self::Concat => {
                let (Some(first), true) = (inputs.first(), inputs.len() > 1) else {
                    let what = "inputs of a concatenation";
                    return Err(Error::TooFew { what, least: 2, found: inputs.len() });
                };
                let mut dims = first.dims().to_vec();
                if dims.is_empty() {
                    // What a function of the client's own makes may be a mere number.
                    let what = "extents of a part of a concatenation";
                    return Err(Error::TooFew { what, least: 1, found: 0 });
                }
                for other in &inputs[1..] {
                    if other.dims().get(1..) != first.dims().get(1..) {
                        let (expected, found) = ((*first).clone(), (*other).clone());
                        let what = "part of a concatenation, but for its first extent";
                        return Err(Error::Shape { what, expected, found });
                    }
                    dims[0] = dims[0].saturating_add(other.dims()[0]);
                }
                Ok((Shape::from(&dims[..]), 0))
            }
            Self::Client(op) => {
                count(op.inputs())?;
                Ok((op.output_shape(inputs)?, 0))
            }
        }
    }
}

/// Prints `conv2d`, `add`, `relu` and the like.
impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linear(config) => f.write_str(match config {
                LinearConfig::Conv2d(_) => "conv2d",
                LinearConfig::Dense(_) => "dense",
                LinearConfig::AvgPool2d(_) => "avg-pool2d",
                LinearConfig::GlobalAvgPool2d => "global-avg-pool2d",
                LinearConfig::BatchNorm2d(_) => "batch-norm2d",
                LinearConfig::Flatten => "flatten",
                LinearConfig::Slice(_) => "slice",
            }),
            Self::Add => f.write_str("add"),
            Self::Concat => f.write_str("concat"),
            Self::Client(op) => op.fmt(f),
        }
    }
}

/// One step of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, unique in the graph; the prefix of its weights' names.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// What it does it to: values that come before it.
    pub inputs: Vec<ValueId>,
}

/// A network without its weights: nodes in an order in which each reads only what comes before it.
///
/// Whatever it was made from, its shapes fit, its names are unique, and every value is read.
///
/// ```
/// use gelu_layers::{Activation, ClientOp, DenseConfig, LinearConfig};
/// use gelu_models::{Graph, Node, Op, ValueId};
///
/// let node = |name: &str, op, inputs| Node { name: name.to_owned(), op, inputs };
/// let dense = || Op::Linear(LinearConfig::Dense(DenseConfig::new(4)));
/// let relu = Op::Client(ClientOp::Activation(Activation::Relu));
/// let [fc1, relu1, fc2, sum] = [0, 1, 2, 3].map(ValueId::of_node);
/// let nodes = vec![
///     node("fc1", dense(), vec![ValueId::INPUT]),
///     node("relu1", relu, vec![fc1]),
///     node("fc2", dense(), vec![relu1]),
///     node("sum", Op::Add, vec![fc2, relu1]), // a shortcut around the second layer
/// ];
/// let graph = Graph::new([3].into(), nodes, sum)?;
/// assert_eq!(graph.shape(graph.output()).dims(), [4]);
/// # Ok::<(), gelu_models::GraphError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawGraph", into = "RawGraph")]
pub struct Graph {
    nodes: Vec<Node>,
    output: ValueId,
    /// Of every value.
    shapes: Vec<Shape>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGraph {
    input: Shape,
    nodes: Vec<Node>,
    output: ValueId,
}

impl TryFrom<RawGraph> for Graph {
    /// A deserializer keeps no more of an error than its text.
    type Error = String;

    fn try_from(RawGraph { input, nodes, output }: RawGraph) -> Result<Self, String> {
        Self::new(input, nodes, output).map_err(|error| match &error {
            GraphError::Node { source, .. } => format!("{error}: {source}"),
            _ => error.to_string(),
        })
    }
}

impl From<Graph> for RawGraph {
    fn from(graph: Graph) -> Self {
        Self { input: graph.shapes[0].clone(), nodes: graph.nodes, output: graph.output }
    }
}

/// Limits of a whole graph: nodes, elements of all values, indices of all linear maps.
const MOST_NODES: usize = 1 << 14;
/// Many times what ResNet-20 has (2^19 and 2^22), and some hundred megabytes: a graph comes from a peer.
pub(crate) const MOST_ELEMENTS: usize = 1 << 25;
const MOST_INDICES: usize = 1 << 25;

impl Graph {
    /// The key of [`Weights::metadata`](crate::Weights::metadata) under which a model's graph travels, as JSON.
    pub const METADATA_KEY: &str = "gelu.graph";

    /// Returns the graph of nodes over inputs of `[channels, height, width]` or `[features]`, whose output is one of its
    /// values.
    ///
    /// # Errors
    /// [`GraphError`] that names the node, what was expected and what was found. Nothing large is allocated before all
    /// is checked.
    pub fn new(input: Shape, nodes: Vec<Node>, output: ValueId) -> Result<Self, GraphError> {
        if !matches!(input.dims().len(), 1 | 3) || input.dims().contains(&0) {
            return Err(GraphError::Input { found: input });
        }
        let mut graph = Self { nodes: vec![], output: ValueId::INPUT, shapes: vec![input] };
        let mut sizes = Sizes { elements: graph.shapes[0].elements(), indices: 0 };
        let mut names = HashSet::new();
        for (position, node) in nodes.iter().enumerate() {
            if let Some(found) = node.inputs.iter().find(|value| value.index() > position) {
                let name = node.name.clone();
                return Err(match nodes.get(found.index() - 1) {
                    Some(later) => GraphError::Cycle { name, found: later.name.clone() },
                    None => GraphError::NoValue { name, expected: nodes.len() + 1, found: found.index() },
                });
            }
            if !names.insert(node.name.as_str()) {
                return Err(GraphError::DuplicateName { name: node.name.clone() });
            }
            let shape = graph.check(node, &mut sizes)?;
            graph.shapes.push(shape);
            graph.nodes.push(node.clone());
        }
        if output.index() >= graph.shapes.len() {
            let (name, expected) = ("output".to_owned(), graph.shapes.len());
            return Err(GraphError::NoValue { name, expected, found: output.index() });
        }
        graph.output = output;
        let read: HashSet<ValueId> = nodes.iter().flat_map(|node| node.inputs.iter().copied()).collect();
        let unused = (0..graph.shapes.len()).map(|index| ValueId(index as u32));
        if let Some(value) = unused.into_iter().find(|value| *value != output && !read.contains(value)) {
            return Err(GraphError::Unused { name: graph.name(value).to_owned() });
        }
        if !graph.nodes.iter().any(|node| matches!(node.op, Op::Linear(_))) {
            return Err(GraphError::Empty);
        }
        Ok(graph)
    }

    /// Checks the next node and returns the shape of what it makes.
    pub(crate) fn check(&self, node: &Node, sizes: &mut Sizes) -> Result<Shape, GraphError> {
        let name = || node.name.clone();
        if node.name.is_empty() {
            return Err(GraphError::NoName { position: self.nodes.len() + 1 });
        }
        // By this name the input's range is known.
        if node.name == Ranges::INPUT {
            return Err(GraphError::DuplicateName { name: name() });
        }
        let softmax = |value: &ValueId| matches!(self.op(*value), Some(Op::Client(ClientOp::Softmax)));
        if node.inputs.iter().any(softmax) {
            return Err(GraphError::AfterSoftmax { name: name() });
        }
        let inputs: Vec<&Shape> = node.inputs.iter().map(|&value| self.shape(value)).collect();
        let (shape, indices) = node.op.output(&inputs).map_err(|source| GraphError::Node {
            name: name(),
            inputs: inputs.iter().copied().cloned().collect(),
            source,
        })?;
        sizes.elements = sizes.elements.saturating_add(shape.elements());
        sizes.indices = sizes.indices.saturating_add(indices);
        for (what, limit, found) in [
            ("nodes", MOST_NODES, self.nodes.len() + 1),
            ("elements of values", MOST_ELEMENTS, sizes.elements),
            ("indices of linear maps", MOST_INDICES, sizes.indices),
        ] {
            if found > limit {
                return Err(GraphError::TooLarge { name: name(), what, limit, found });
            }
        }
        Ok(shape)
    }

    /// Returns the nodes, each after those whose values it reads.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the shape of the input.
    pub fn input(&self) -> &Shape {
        &self.shapes[0]
    }

    /// Returns the value that is the output.
    pub fn output(&self) -> ValueId {
        self.output
    }

    /// Returns the shape of a value.
    pub fn shape(&self, value: ValueId) -> &Shape {
        self.shapes.get(value.index()).unwrap_or(&self.shapes[0])
    }

    /// Returns the name of a value: that of its node, or `input`.
    pub fn name(&self, value: ValueId) -> &str {
        value.node().and_then(|node| self.nodes.get(node)).map_or("input", |node| &node.name)
    }

    /// Returns what makes a value; `None` for the input.
    pub fn op(&self, value: ValueId) -> Option<&Op> {
        value.node().and_then(|node| self.nodes.get(node)).map(|node| &node.op)
    }

    /// Whether the output is that of a softmax, that is, probabilities of classes.
    pub(crate) fn ends_in_softmax(&self) -> bool {
        matches!(self.op(self.output), Some(Op::Client(ClientOp::Softmax)))
    }

    /// Returns the value before the final softmax, or the output if there is none.
    pub fn logits(&self) -> ValueId {
        match (self.ends_in_softmax(), self.output.node()) {
            (true, Some(node)) => self.nodes[node].inputs[0],
            _ => self.output,
        }
    }

    /// Returns for each value the place of the last node that reads it.
    pub(crate) fn last_uses(&self) -> Vec<usize> {
        let mut last = vec![0; self.shapes.len()];
        for (place, node) in self.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|input| last[input.index()] = place);
        }
        last[self.output.index()] = usize::MAX;
        last[self.logits().index()] = usize::MAX;
        last
    }

    /// An empty graph to be filled by a builder.
    pub(crate) fn begin(input: Shape) -> Self {
        Self { nodes: vec![], output: ValueId::INPUT, shapes: vec![input] }
    }

    /// Adds a node that was checked.
    pub(crate) fn push(&mut self, node: Node, shape: Shape) -> ValueId {
        self.nodes.push(node);
        self.shapes.push(shape);
        ValueId::of_node(self.nodes.len() - 1)
    }
}

/// Elements of all values and indices of all maps so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sizes {
    pub(crate) elements: usize,
    pub(crate) indices: usize,
}
