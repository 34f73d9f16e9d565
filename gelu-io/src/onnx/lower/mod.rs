//! From ONNX nodes to the nodes of a [`Graph`](gelu_models::Graph), one after another in the file's order.

mod affine;
mod arithmetic;
mod emit;
mod finish;
mod linear;
mod names;
mod operators;
mod parts;
mod pointwise;
mod pool;
mod value;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gelu_layers::ClientOp;
use gelu_models::Op;
use gelu_tensor::Shape;

use self::names::Names;
use self::operators::{is_supported, no_such};
use self::value::{Fate, Layer, Numbers, Stop, Tensor, Value, because, padding_stays};
use super::constant::Constant;
use super::error::Unsupported;
use super::fold::{Folder, shape_part};
use super::proto::{Node, Proto};

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
    /// Elements of all values, and indices of all linear maps.
    sizes: [usize; 2],
    /// The node with which they became too many.
    too_large: Option<usize>,
    /// The vector that each image was read as.
    flattened: HashMap<usize, usize>,
    /// Nodes that are not imported, by their places in the file.
    unsupported: Vec<(usize, Unsupported)>,
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
            sizes: [shape.elements(), 0],
            too_large: None,
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
                    self.unsupported.push((self.at, Unsupported { node, operator, reason, advice }));
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
}
