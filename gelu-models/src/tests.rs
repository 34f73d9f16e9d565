//! Graphs, builders and models, and what the tests of plans and sessions share: networks of every kind at random.

use std::sync::Arc;

use gelu_layers::{
    Activation, AvgPool2dConfig, AxisSlice, BatchNorm2dConfig, ClientOp, Conv2dConfig, DenseConfig,
    Initializer, LinearConfig, LinearLayer, SliceConfig, softmax,
};
use gelu_tensor::paillier::{KeyParameters, SecretKey};
use gelu_tensor::{Backend, Shape, Window};
use ndarray::{Array2, array};
use rand::{CryptoRng, RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde_json::{Value, json};

use crate::*;

mod graph;
mod info;
mod model;
mod zoo;

/// A key on the backend that `GELU_BACKEND` names: all tests pass on either.
pub(crate) fn secret_key(parameters: impl Into<KeyParameters>, rng: &mut dyn CryptoRng) -> SecretKey {
    let named = std::env::var("GELU_BACKEND").map(|name| name.parse().unwrap());
    SecretKey::generate(parameters, rng).unwrap().on(named.unwrap_or_else(|_| Backend::detect())).unwrap()
}

pub(crate) fn seeded(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A batch for a model, of numbers from -1 to 1.
pub(crate) fn images(model: &Model, count: usize, seed: u64) -> Array2<f32> {
    let rng = &mut seeded(seed);
    Array2::from_shape_fn((count, model.input_shape().elements()), |_| rng.random_range(-1.0..=1.0))
}

/// Initial weights, and a batch norm that changes something.
pub(crate) fn initialized(builder: ModelBuilder) -> Model {
    let mut model = builder.build().unwrap();
    fill(&mut model, 5);
    model
}

pub(crate) fn fill(model: &mut Model, seed: u64) {
    let rng = &mut seeded(seed);
    model.initialize(Initializer::KaimingUniform, rng);
    for (_, layer) in model.layers_mut().filter(|(_, layer)| layer.statistics().is_some()) {
        let mut fill = |values: &mut [f32], [low, high]: [f32; 2]| {
            values.iter_mut().for_each(|value| *value = rng.random_range(low..high));
        };
        fill(&mut layer.parameters_mut().weight, [0.5, 1.5]);
        fill(&mut layer.parameters_mut().bias, [-0.3, 0.3]);
        let statistics = layer.statistics_mut().unwrap();
        fill(&mut statistics.mean, [-0.3, 0.3]);
        fill(&mut statistics.variance, [0.3, 2.0]);
    }
}

/// The same with ranges of some images.
pub(crate) fn calibrated(builder: ModelBuilder) -> Model {
    let mut model = initialized(builder);
    let images = images(&model, 8, 6);
    model.calibrate(images.view()).unwrap();
    model
}

/// Every node in order, in double precision: the values of one image.
pub(crate) fn naive(model: &Model, image: &[f32]) -> Vec<Vec<f64>> {
    let graph = model.graph();
    let mut values: Vec<Vec<f64>> = vec![image.iter().map(|&x| f64::from(x)).collect()];
    for (place, node) in graph.nodes().iter().enumerate() {
        let inputs: Vec<&[f64]> = node.inputs.iter().map(|input| &values[input.index()][..]).collect();
        let shapes: Vec<&Shape> = node.inputs.iter().map(|&input| graph.shape(input)).collect();
        let value = match &node.op {
            Op::Linear(_) => {
                let affine = model.layer(place).unwrap().affine();
                let mut value = affine.map().apply(affine.weights(), inputs[0]).unwrap();
                value.iter_mut().zip(affine.bias()).for_each(|(x, bias)| *x += bias);
                value
            }
            Op::Add => inputs[0].iter().zip(inputs[1]).map(|(a, b)| a + b).collect(),
            // Row-major and channel first: one after another.
            Op::Concat => inputs.concat(),
            Op::Client(op) => op.forward(&shapes, &inputs).unwrap(),
        };
        values.push(value);
    }
    values
}

/// Nodes put together at random, small enough to be run on ciphertexts.
struct Net<'a> {
    rng: &'a mut ChaCha8Rng,
    nodes: Vec<Node>,
    /// Of every value.
    shapes: Vec<Shape>,
    activations: &'a [Activation],
}

impl Net<'_> {
    fn shape(&self, value: ValueId) -> &Shape {
        &self.shapes[value.index()]
    }

    /// Adds a node if it fits.
    fn try_push(&mut self, op: Op, inputs: &[ValueId]) -> Option<ValueId> {
        let shapes: Vec<&Shape> = inputs.iter().map(|&input| self.shape(input)).collect();
        let shape = match &op {
            Op::Linear(config) => config.output(shapes[0]).ok()?.0,
            Op::Client(op) => op.output_shape(&shapes).ok()?,
            Op::Add => (shapes[0] == shapes[1]).then(|| shapes[0].clone())?,
            Op::Concat => {
                let rest = shapes[0].dims()[1..].to_vec();
                let equal = shapes.iter().all(|shape| shape.dims()[1..] == rest[..]);
                let first: usize = shapes.iter().map(|shape| shape.dims()[0]).sum();
                equal.then(|| Shape::from(&[&[first][..], &rest[..]].concat()[..]))?
            }
        };
        if shape.elements() > 160 {
            return None;
        }
        self.nodes.push(Node { name: format!("n{}", self.nodes.len()), op, inputs: inputs.to_vec() });
        self.shapes.push(shape);
        Some(ValueId::of_node(self.nodes.len() - 1))
    }

    /// Adds a node if it fits; otherwise the value stays as it is.
    fn push(&mut self, op: Op, input: ValueId) -> ValueId {
        self.try_push(op, &[input]).unwrap_or(input)
    }

    fn window(&mut self) -> Window {
        let mut pair = |most: usize| [self.rng.random_range(1..=most), self.rng.random_range(1..=most)];
        let (kernel, stride, dilation) = (pair(3), pair(2), pair(2));
        let sides = [pair(2), pair(2)].map(|pair| pair.map(|side| side - 1));
        Window::new(kernel).with_stride(stride).with_dilation(dilation).with_padding_sides(sides)
    }

    fn convolution(&mut self, channels: usize, window: Window, input: ValueId) -> ValueId {
        let of = self.shape(input).dims()[0];
        let groups = [1, 2, of][self.rng.random_range(0..3)];
        let groups = if of.is_multiple_of(groups) && channels.is_multiple_of(groups) { groups } else { 1 };
        let bias = self.rng.random_bool(0.5);
        let config = Conv2dConfig { out_channels: channels, window, groups, bias };
        let value = self.push(Op::Linear(LinearConfig::Conv2d(config)), input);
        if self.rng.random_bool(0.5) { self.norm(value) } else { value }
    }

    fn norm(&mut self, input: ValueId) -> ValueId {
        self.push(Op::Linear(LinearConfig::BatchNorm2d(BatchNorm2dConfig::default())), input)
    }

    fn activation(&mut self, input: ValueId) -> ValueId {
        let activation = self.activations[self.rng.random_range(0..self.activations.len())];
        self.push(Op::Client(ClientOp::Activation(activation)), input)
    }

    fn channels(&mut self) -> usize {
        self.rng.random_range(1..=4)
    }

    /// A block on an image.
    fn block(&mut self, input: ValueId) -> ValueId {
        let same = Window::new([3, 3]).with_padding([1, 1]);
        let channels = self.shape(input).dims()[0];
        match self.rng.random_range(0..10) {
            0..3 => {
                let (channels, window) = (self.channels(), self.window());
                let value = self.convolution(channels, window, input);
                if self.rng.random_bool(0.7) { self.activation(value) } else { value }
            }
            3 => {
                let (window, count_include_pad) = (self.window(), self.rng.random_bool(0.5));
                let config =
                    AvgPool2dConfig { window, count_include_pad, ceil_mode: self.rng.random_bool(0.3) };
                self.push(Op::Linear(LinearConfig::AvgPool2d(config)), input)
            }
            4 => {
                let window = self.window();
                self.push(Op::Client(ClientOp::MaxPool2d(window)), input)
            }
            5 => {
                let main = self.convolution(channels, same, input);
                let main = self.activation(main);
                let main = self.convolution(channels, same, main);
                let terms = if self.rng.random_bool(0.5) { [main, input] } else { [input, main] };
                self.try_push(Op::Add, &terms).unwrap()
            }
            6 => {
                let channels = self.channels();
                let main = self.convolution(channels, same.with_stride([2, 2]), input);
                let main = self.activation(main);
                let main = self.convolution(channels, same, main);
                let projection = Window::new([1, 1]).with_stride([2, 2]);
                let shortcut = self.convolution(channels, projection, input);
                self.try_push(Op::Add, &[main, shortcut]).unwrap_or(main)
            }
            7 => {
                let (a, b) = (self.channels(), self.channels());
                let mut ends = vec![self.convolution(a, Window::new([1, 1]), input)];
                let wide = self.convolution(b, same, input);
                ends.push(self.activation(wide));
                if self.rng.random_bool(0.5) {
                    ends.insert(self.rng.random_range(0..3), input);
                }
                self.try_push(Op::Concat, &ends).unwrap_or(ends[0])
            }
            8 => {
                let shape = self.shape(input).clone();
                let axes = shape.dims().iter().map(|&extent| {
                    let start = self.rng.random_range(0..extent);
                    let step = if start > 0 && self.rng.random_bool(0.3) {
                        -1
                    } else {
                        [1, 2][self.rng.random_range(0..2)]
                    };
                    let most = if step < 0 { start + 1 } else { (extent - start).div_ceil(step as usize) };
                    AxisSlice { start, step, count: self.rng.random_range(1..=most) }
                });
                let config = SliceConfig::new(axes.collect());
                self.push(Op::Linear(LinearConfig::Slice(config)), input)
            }
            _ => {
                let gate = self.push(Op::Linear(LinearConfig::GlobalAvgPool2d), input);
                let gate = self.push(Op::Linear(LinearConfig::Flatten), gate);
                let gate = self.push(Op::Linear(LinearConfig::Dense(DenseConfig::new(channels))), gate);
                let gate = self.push(Op::Client(ClientOp::Activation(Activation::Sigmoid)), gate);
                let factors = if self.rng.random_bool(0.5) { [input, gate] } else { [gate, input] };
                self.try_push(Op::Client(ClientOp::Mul), &factors).unwrap()
            }
        }
    }

    fn dense(&mut self, out_features: usize, input: ValueId) -> ValueId {
        let config = DenseConfig { out_features, bias: self.rng.random_bool(0.7) };
        self.push(Op::Linear(LinearConfig::Dense(config)), input)
    }

    /// A block on a vector, with a shortcut that has a layer or none.
    fn vector_block(&mut self, input: ValueId) -> ValueId {
        let (own, layer) = (self.shape(input).dims()[0], self.rng.random_bool(0.5));
        let size = if layer { self.rng.random_range(2..=5) } else { own };
        let main = self.dense(3, input);
        let main = self.activation(main);
        let main = self.dense(size, main);
        let shortcut = if layer { self.dense(size, input) } else { input };
        self.try_push(Op::Add, &[shortcut, main]).unwrap()
    }
}

/// A network with branches, pools, gates, batch norms and any activations, with weights and ranges.
pub(crate) fn random_model(seed: u64) -> Model {
    let activations = [
        Activation::Relu,
        Activation::LeakyRelu { slope: 0.1 },
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Silu,
        Activation::HardSwish,
        Activation::Clip { min: -0.5, max: 0.75 },
        Activation::Square,
    ];
    random_model_of(seed, &activations)
}

/// The same with some activations.
pub(crate) fn random_model_of(seed: u64, activations: &[Activation]) -> Model {
    let rng = &mut seeded(seed);
    let input = Shape::from([rng.random_range(1..=3), rng.random_range(3..=5), rng.random_range(3..=5)]);
    let mut net = Net { rng, nodes: vec![], shapes: vec![input.clone()], activations };
    let mut value = ValueId::INPUT;
    for _ in 0..net.rng.random_range(1..=3) {
        value = net.block(value);
    }
    if net.rng.random_bool(0.4) {
        value = net.push(Op::Linear(LinearConfig::GlobalAvgPool2d), value);
    }
    value = net.push(Op::Linear(LinearConfig::Flatten), value);
    if net.rng.random_bool(0.3) {
        value = net.vector_block(value);
    }
    for _ in 0..net.rng.random_range(1..=2) {
        let outputs = net.rng.random_range(2..=5);
        value = net.dense(outputs, value);
        if net.rng.random_bool(0.5) {
            value = net.activation(value);
        }
    }
    if net.rng.random_bool(0.5) {
        value = net.push(Op::Client(ClientOp::Softmax), value);
    }
    // Ends of branches that did not fit are left over; what leads to the output stays.
    let (nodes, output) = pruned(&net.nodes, value);
    let mut model = Model::new(Graph::new(input, nodes, output).unwrap()).unwrap();
    fill(&mut model, seed ^ 1);
    // Some layers have integers of few bits.
    let rng = &mut seeded(seed ^ 3);
    for (_, layer) in model.layers_mut() {
        if rng.random_bool(0.3) {
            let unit = f32::from(rng.random_range(1i16..=6)).exp2().recip();
            let weights = &mut layer.parameters_mut().weight;
            weights.iter_mut().for_each(|weight| *weight = f32::from(rng.random_range(-2i16..=2)) * unit);
        }
    }
    let images = images(&model, 6, seed ^ 2);
    model.calibrate(images.view()).unwrap();
    model
}

/// The nodes that an output needs.
fn pruned(nodes: &[Node], output: ValueId) -> (Vec<Node>, ValueId) {
    let mut needed = vec![false; nodes.len() + 1];
    needed[output.index()] = true;
    for (place, node) in nodes.iter().enumerate().rev() {
        if needed[place + 1] {
            node.inputs.iter().for_each(|input| needed[input.index()] = true);
        }
    }
    let mut places = vec![ValueId::INPUT; nodes.len() + 1];
    let mut kept: Vec<Node> = vec![];
    for (place, node) in nodes.iter().enumerate().filter(|(place, _)| needed[place + 1]) {
        let inputs = node.inputs.iter().map(|input| places[input.index()]).collect();
        kept.push(Node { inputs, ..node.clone() });
        places[place + 1] = ValueId::of_node(kept.len() - 1);
    }
    (kept, places[output.index()])
}

/// Paths to every number in a value of JSON.
pub(crate) fn numbers_in(value: &Value) -> Vec<String> {
    fn find(value: &Value, path: String, out: &mut Vec<String>) {
        match value {
            Value::Number(_) => out.push(path),
            Value::Array(values) => {
                values.iter().enumerate().for_each(|(i, value)| find(value, format!("{path}/{i}"), out));
            }
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| find(value, format!("{path}/{name}"), out));
            }
            _ => {}
        }
    }
    let mut paths = vec![];
    find(value, String::new(), &mut paths);
    paths
}

/// Numbers that somebody who means harm, or a slip, puts in the place of others.
pub(crate) fn extremes() -> Vec<Value> {
    let whole = [0, 1, 3, 63, 64, 1 << 14, u64::from(u32::MAX), i32::MAX as u64, 1 << 61, 1 << 63, u64::MAX];
    let mut all: Vec<Value> = whole.into_iter().map(|x| json!(x)).collect();
    all.extend([json!(-1), json!(i32::MIN), json!(0.5), json!(1e300)]);
    all
}

/// An [`Arc`] of a description's graph made by hand.
pub(crate) fn graph(
    input: impl Into<Shape>,
    nodes: Vec<Node>,
    output: ValueId,
) -> Result<Arc<Graph>, GraphError> {
    Graph::new(input.into(), nodes, output).map(Arc::new)
}

pub(crate) fn node(name: &str, op: Op, inputs: &[usize]) -> Node {
    let value = |&at: &usize| at.checked_sub(1).map_or(ValueId::INPUT, ValueId::of_node);
    Node { name: name.to_owned(), op, inputs: inputs.iter().map(value).collect() }
}

pub(crate) fn dense(outputs: usize) -> Op {
    Op::Linear(LinearConfig::Dense(outputs.into()))
}

pub(crate) fn conv(channels: usize, kernel: usize) -> Op {
    Op::Linear(LinearConfig::Conv2d(Conv2dConfig::new(channels, [kernel, kernel])))
}

pub(crate) fn relu() -> Op {
    Op::Client(ClientOp::Activation(Activation::Relu))
}

/// A model of every kind of node.
pub(crate) fn all_kinds() -> ModelBuilder {
    let same = |channels: usize| Conv2dConfig::new(channels, [3, 3]).with_padding([1, 1]);
    ModelBuilder::new([2, 4, 4])
        .conv2d("stem", same(2).with_groups(2).with_dilation([1, 1]).without_bias())
        .batch_norm2d("norm")
        .activation(Activation::LeakyRelu { slope: 0.1 })
        .residual_with(
            |main| main.conv2d("a", same(4).with_stride([2, 2])).relu().conv2d("b", same(4)),
            |shortcut| shortcut.conv2d("c", Conv2dConfig::new(4, [1, 1]).with_stride([2, 2])),
        )
        .concat([&|left| left.max_pool2d_with(Window::new([2, 2])), &|right| {
            right.avg_pool2d_with("mean", Window::new([2, 2]))
        }])
        .gated(|gate| gate.global_avg_pool2d().flatten().dense("gate", 8).sigmoid())
        .flatten()
        .client_function("own", [3])
        .dense("fc", 2)
        .softmax()
}
