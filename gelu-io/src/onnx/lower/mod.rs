//! From ONNX nodes to the nodes of a [`Graph`](gelu_models::Graph), one after another in the file's order.

mod affine;
mod arithmetic;
mod finish;
mod linear;
mod names;
mod operators;
mod pointwise;
mod pool;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gelu_layers::{ClientOp, LinearConfig};
use gelu_models::Op;
use gelu_tensor::Shape;

use self::affine::Affine;
use self::names::Names;
use self::operators::{is_supported, no_such};
use super::constant::Constant;
use super::error::Unsupported;
use super::fold::{Folder, shape_part};
use super::proto::{Node, Proto};

/// Elements of all values and indices of all maps of a network: what a graph may have, so that no weights are made up
/// for one that would be refused.
const MOST_SIZE: usize = 1 << 25;

/// Why a node is not imported.
enum Stop {
    /// One of its inputs is of a node that was not imported.
    Unknown,
    Because {
        reason: String,
        advice: &'static str,
    },
}

impl<T: ToString> From<T> for Stop {
    fn from(reason: T) -> Self {
        Self::Because { reason: reason.to_string(), advice: "" }
    }
}

fn because(reason: impl ToString, advice: &'static str) -> Stop {
    Stop::Because { reason: reason.to_string(), advice }
}

/// What is known of a value of the file.
#[derive(Clone, Debug)]
enum Value {
    Constant(Arc<Constant>),
    /// It depends on the input.
    Tensor(Tensor),
    /// It is of a node that was not imported.
    Unknown,
}

/// A value that depends on the input: one of the graph's, and what is yet to be done to it.
#[derive(Clone, Debug)]
struct Tensor {
    /// Which value of the graph: 0 is the input, and others are of a layer.
    id: usize,
    /// Extents in the file, with the batch first. Elements lie in the order of the graph's value.
    dims: Vec<usize>,
    /// A factor and a shift for each channel that no layer has taken up yet.
    affine: Option<Affine>,
    /// Zeros around the image that no layer has taken up yet, `[[top, bottom], [left, right]]`.
    padding: [[usize; 2]; 2],
    /// The node that put them there.
    padded_by: usize,
    /// Whether nothing else in the file reads the value.
    exclusive: bool,
}

/// A node of the graph to be.
#[derive(Debug)]
struct Layer {
    name: String,
    op: Op,
    inputs: Vec<usize>,
    shape: Shape,
    numbers: Numbers,
    /// How many layers read it.
    readers: usize,
}

/// What became of a node of the file.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// The output does not depend on it.
    Unread,
    /// It computes something that is known.
    Constant,
    /// It changes no number.
    View,
    /// It is yet to become part of a layer.
    Pending,
    Layer(usize),
    PartOf(usize),
}

/// Weights of a layer.
#[derive(Debug, Default)]
struct Numbers {
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Mean and variance of a batch norm.
    statistics: Option<[Vec<f32>; 2]>,
}

pub(super) struct Lowering<'a> {
    proto: &'a Proto,
    opset: i64,
    /// Extent 0 of the input.
    batch: usize,
    input: Shape,
    layers: Vec<Layer>,
    values: HashMap<&'a str, Value>,
    /// How many inputs of nodes, and outputs of the model, each value is.
    readers: HashMap<&'a str, usize>,
    /// The initializer that a value has its numbers of.
    sources: HashMap<&'a str, &'a str>,
    names: Names,
    /// Of every node.
    fates: Vec<Fate>,
    /// The node at work.
    at: usize,
    folder: Folder,
    size: usize,
    /// The vector that each image was read as.
    flattened: HashMap<usize, usize>,
    unsupported: Vec<Unsupported>,
    notes: Vec<String>,
}

impl<'a> Lowering<'a> {
    /// Starts with the model's input, of extents `dims` with the batch first, and its one `output`.
    pub(super) fn new(
        proto: &'a Proto,
        opset: i64,
        input: &'a str,
        dims: Vec<usize>,
        output: &'a str,
    ) -> Self {
        let mut readers = HashMap::from([(output, 1)]);
        for name in proto.nodes.iter().flat_map(|node| &node.inputs) {
            *readers.entry(name.as_str()).or_default() += 1;
        }
        let (batch, shape) = (dims[0], Shape::from(&dims[1..]));
        let tensor =
            Tensor { id: 0, dims, affine: None, padding: [[0; 2]; 2], padded_by: 0, exclusive: true };
        let constants = proto.constants.iter();
        let mut values: HashMap<&str, Value> =
            constants.map(|(name, value)| (name.as_str(), Value::Constant(value.clone()))).collect();
        values.insert(input, Value::Tensor(tensor));
        Self {
            opset,
            batch,
            size: shape.elements(),
            input: shape,
            layers: vec![],
            sources: proto.constants.keys().map(|name| (name.as_str(), name.as_str())).collect(),
            values,
            readers,
            names: Names::default(),
            fates: vec![Fate::Unread; proto.nodes.len()],
            at: 0,
            folder: Folder::default(),
            flattened: HashMap::new(),
            unsupported: vec![],
            notes: vec![],
            proto,
        }
    }

    /// Imports all nodes that `output` depends on.
    pub(super) fn run(&mut self, output: &'a str) {
        let proto = self.proto;
        let mut needed = HashSet::from([output]);
        let mut is_needed = vec![false; proto.nodes.len()];
        for (at, node) in proto.nodes.iter().enumerate().rev() {
            is_needed[at] = node.outputs.iter().any(|name| needed.contains(name.as_str()));
            if is_needed[at] {
                needed.extend(node.inputs.iter().map(String::as_str));
            }
        }
        for (at, node) in proto.nodes.iter().enumerate() {
            self.at = at;
            if is_needed[at] {
                self.fates[at] = Fate::Constant;
                self.node(node);
            }
        }
    }

    fn node(&mut self, node: &'a Node) {
        let values = match self.lowered(node) {
            Ok(values) => values,
            Err(stop) => {
                if let Stop::Because { reason, advice } = stop {
                    let (node, operator) = (node.name.clone(), node.operator.clone());
                    self.unsupported.push(Unsupported { node, operator, reason, advice });
                }
                vec![]
            }
        };
        let values = values.into_iter().map(Some).chain(std::iter::repeat(None));
        for (name, value) in node.outputs.iter().zip(values) {
            self.values.insert(name, value.unwrap_or(Value::Unknown));
        }
        if let (Some(from), Some(to)) = (node.inputs.first(), node.outputs.first())
            && let Some(&source) = self.sources.get(from.as_str())
        {
            self.sources.insert(to, source);
        }
    }

    /// What a node makes.
    fn lowered(&mut self, node: &'a Node) -> Result<Vec<Value>, Stop> {
        if node.has_graph() {
            return Err(because(
                "it holds a graph of its own",
                "export the model without loops and branches",
            ));
        }
        let mut constants = vec![];
        let mut is_known = true;
        let mut is_unknown = false;
        for name in &node.inputs {
            constants.push(match self.values.get(name.as_str()) {
                _ if name.is_empty() => None,
                Some(Value::Constant(value)) => Some(value.clone()),
                Some(Value::Tensor(_)) => {
                    is_known = false;
                    None
                }
                Some(Value::Unknown) => {
                    is_unknown = true;
                    None
                }
                None => return Err(format!("it reads `{name}`, which no node before it makes").into()),
            });
        }
        if is_unknown {
            return if is_supported(&node.operator) {
                Err(Stop::Unknown)
            } else {
                Err(no_such(&node.operator))
            };
        }
        if is_known && let Some(value) = self.folder.fold(node, &constants, self.opset)? {
            return Ok(vec![Value::Constant(value)]);
        }
        let tensor = match node.operator.as_str() {
            "Conv" => self.convolution(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.matmul(node),
            "BatchNormalization" => self.batch_norm(node),
            "AveragePool" => self.average_pool(node),
            "MaxPool" => self.max_pool(node),
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(node),
            "ReduceMean" | "ReduceSum" => self.reduce(node, &constants),
            "Add" | "Sub" | "Mul" | "Div" | "Neg" | "Pow" | "Erf" => self.arithmetic(node, &constants),
            "Sum" => self.total(node, &constants),
            "Clip" => self.clip(node, &constants),
            "Softmax" | "LogSoftmax" => self.softmax(node),
            "Identity" | "Dropout" | "Cast" => self.same(node, &constants),
            "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => self.reshape(node, &constants),
            "Transpose" => self.transpose(node),
            "Concat" => self.concat(node),
            "Slice" => self.slice(node, &constants),
            "Split" => return self.split(node, &constants),
            "Pad" => self.pad(node, &constants),
            "Shape" | "Size" => return self.shape(node),
            operator => match self.activation(node, operator)? {
                Some(tensor) => Ok(tensor),
                None => Err(no_such(operator)),
            },
        };
        tensor.map(|tensor| vec![Value::Tensor(tensor)])
    }

    fn shape(&mut self, node: &Node) -> Result<Vec<Value>, Stop> {
        let dims = self.tensor(node, 0)?.dims;
        let shape: Vec<i64> = dims.iter().map(|&extent| extent as i64).collect();
        let constant = match node.operator.as_str() {
            "Shape" => shape_part(&shape, node)?,
            _ => Constant::ints(vec![], vec![shape.iter().product()]),
        };
        Ok(vec![Value::Constant(Arc::new(constant))])
    }

    /// An input of the node that depends on the model's input.
    fn tensor(&self, node: &Node, at: usize) -> Result<Tensor, Stop> {
        let name = node.inputs.get(at).map_or("", String::as_str);
        match self.values.get(name) {
            Some(Value::Tensor(tensor)) => {
                let once = self.readers.get(name).is_some_and(|&readers| readers == 1);
                Ok(Tensor { exclusive: tensor.exclusive && once, ..tensor.clone() })
            }
            Some(Value::Unknown) => Err(Stop::Unknown),
            Some(Value::Constant(_)) => {
                Err(format!("input {} is a constant where a value of the network is expected", at + 1).into())
            }
            None => Err(format!("there is no input {}", at + 1).into()),
        }
    }

    /// An input of the node that is known; `None` when it is left out.
    fn constant(&self, node: &Node, at: usize) -> Result<Option<Arc<Constant>>, Stop> {
        match node.inputs.get(at).filter(|name| !name.is_empty()).map(|name| self.values.get(name.as_str())) {
            None => Ok(None),
            Some(Some(Value::Constant(value))) => Ok(Some(value.clone())),
            Some(Some(Value::Unknown)) => Err(Stop::Unknown),
            Some(_) => Err(because(
                format!("input {} depends on the model's input", at + 1),
                "it must be a constant, as weights are",
            )),
        }
    }

    /// An input with nothing left to be done to it, which is kept for others that read it.
    fn plain(&mut self, node: &'a Node, at: usize) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, at)?;
        let settled = self.settled(tensor)?;
        if let Some(name) = node.inputs.get(at) {
            self.values.insert(name, Value::Tensor(settled.clone()));
        }
        Ok(settled)
    }

    /// The shape of a value of the graph.
    fn shape_of(&self, id: usize) -> &Shape {
        id.checked_sub(1).and_then(|at| self.layers.get(at)).map_or(&self.input, |layer| &layer.shape)
    }

    fn layer_of(&self, id: usize) -> Option<&Layer> {
        id.checked_sub(1).and_then(|at| self.layers.get(at))
    }

    /// The client's step that makes a value.
    fn client_op(&self, id: usize) -> Option<&ClientOp> {
        match &self.layer_of(id)?.op {
            Op::Client(op) => Some(op),
            _ => None,
        }
    }

    /// Elements of a tensor, without the batch.
    fn elements(&self, tensor: &Tensor) -> usize {
        self.shape_of(tensor.id).elements()
    }

    /// A tensor of a layer, as it comes out.
    fn fresh(&self, id: usize, dims: Vec<usize>) -> Tensor {
        Tensor { id, dims, affine: None, padding: [[0; 2]; 2], padded_by: 0, exclusive: true }
    }

    /// A tensor of a layer, with the extents of its image or vector.
    fn made(&self, id: usize) -> Tensor {
        let dims = [&[self.batch], self.shape_of(id).dims()].concat();
        self.fresh(id, dims)
    }

    /// The vector that a tensor is read as, and what is left to be done to it.
    fn vector(&mut self, tensor: Tensor) -> Result<Tensor, Stop> {
        let shape = self.shape_of(tensor.id).clone();
        if shape.dims().len() == 1 {
            return Ok(tensor);
        }
        if tensor.padding != [[0; 2]; 2] {
            return Err(padding_stays());
        }
        let id = match self.flattened.get(&tensor.id) {
            Some(&id) => id,
            None => {
                let (name, op) = (self.names.numbered("flatten"), Op::Linear(LinearConfig::Flatten));
                let id = self.emit(name, op, vec![tensor.id], Numbers::default)?;
                self.flattened.insert(tensor.id, id);
                id
            }
        };
        let affine = tensor.affine.map(|affine| affine.spread(shape.elements() / shape.dims()[0].max(1)));
        Ok(Tensor { id, affine, ..tensor })
    }

    /// Adds a layer. Its weights are made once it is known that it is not too large.
    fn emit(
        &mut self,
        name: String,
        op: Op,
        inputs: Vec<usize>,
        numbers: impl FnOnce() -> Numbers,
    ) -> Result<usize, Stop> {
        if inputs.iter().any(|&id| matches!(self.client_op(id), Some(ClientOp::Softmax))) {
            let advice = "export the model up to its softmax";
            return Err(because("it follows a softmax, which must be the last node", advice));
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| self.shape_of(id)).collect();
        let (shape, indices) = match &op {
            Op::Linear(config) => config.output(shapes[0])?,
            Op::Add => (shapes[0].clone(), 0),
            Op::Concat => {
                let channels = shapes.iter().map(|shape| shape.dims()[0]).fold(0, usize::saturating_add);
                (Shape::from(&[&[channels], &shapes[0].dims()[1..]].concat()[..]), 0)
            }
            Op::Client(op) => (op.output_shape(&shapes)?, 0),
        };
        self.size = self.size.saturating_add(shape.elements()).saturating_add(indices);
        if self.size > MOST_SIZE {
            return Err(because(
                format!("with it, the network has more than {MOST_SIZE} elements and indices of linear maps"),
                "such a network is too large to run on encrypted data",
            ));
        }
        for &id in &inputs {
            if let Some(layer) = id.checked_sub(1).and_then(|at| self.layers.get_mut(at)) {
                layer.readers += 1;
            }
        }
        self.layers.push(Layer { name, op, inputs, shape, numbers: numbers(), readers: 0 });
        let id = self.layers.len();
        self.fates[self.at] = Fate::Layer(id);
        Ok(id)
    }

    /// Says that the node at work is part of a layer, and so are others.
    fn part_of(&mut self, id: usize, others: &[usize]) {
        for &at in others.iter().chain(&[self.at]) {
            self.fates[at] = Fate::PartOf(id);
        }
    }
}

fn padding_stays() -> Stop {
    because(
        "what it reads was padded by a node of its own",
        "padding becomes part of a Conv or AveragePool that follows it, or of a MaxPool after a ReLU",
    )
}
