use std::ops::Range;

use gelu_layers::{Activation, AffineForm, TrainableMap};
use gelu_tensor::paillier::KeyBits;
use gelu_tensor::{Flood, RingBits, Shape, UpdateLayout, WideLayout, Window};
use serde::{Deserialize, Serialize};

use super::PrivateError;
use crate::{Model, Node, WeightTensor, Weights};

/// The fixed-point numbers of a run. A real x is the integer `round(x 2^f)`; ranges are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedPoint {
    /// The ring of masked weights and of all sums.
    pub ring: RingBits,
    /// Fractional bits of weights and biases, 8 to 40.
    pub weight_bits: u32,
    /// Bits of an input's absolute value, 1 to 16.
    pub input_bits: u32,
    /// log2 of the largest input, -8 to 16.
    pub input_range: i32,
    /// Bits of an activation's absolute value, 1 to 20.
    pub activation_bits: u32,
    /// log2 of the largest activation, -8 to 16.
    pub activation_range: i32,
    /// Fractional bits of an error that goes back through the network; errors are at most 1 in absolute value. 1 to 20.
    pub error_bits: u32,
    /// Bits of the statistical distance to which multiples of 2^l hide what lies above the ring, 0 to 40.
    pub flood_bits: u32,
}

impl Default for FixedPoint {
    fn default() -> Self {
        Self {
            ring: RingBits::default(),
            weight_bits: 18,
            input_bits: 8,
            input_range: 0,
            activation_bits: 12,
            activation_range: 4,
            error_bits: 12,
            flood_bits: 40,
        }
    }
}

impl FixedPoint {
    fn check(&self) -> Result<(), PrivateError> {
        let within = |what, (least, most): (i64, i64), found: i64| {
            if (least..=most).contains(&found) {
                return Ok(());
            }
            let expected = format!("{least} to {most}");
            Err(PrivateError::Setting { what, expected, found: found.to_string() })
        };
        within("fractional bits of weights", (8, 40), self.weight_bits.into())?;
        within("bits of inputs", (1, 16), self.input_bits.into())?;
        within("log2 of the range of inputs", (-8, 16), self.input_range.into())?;
        within("bits of activations", (1, 20), self.activation_bits.into())?;
        within("log2 of the range of activations", (-8, 16), self.activation_range.into())?;
        within("bits of errors", (1, 20), self.error_bits.into())?;
        within("bits of flooding", (0, 40), self.flood_bits.into())
    }
}

/// One step of a network, without its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeDescription {
    /// A convolution.
    Convolution {
        /// The layer's name.
        name: String,
        /// Output channels.
        kernels: usize,
        /// The window.
        window: Window,
    },
    /// Mean pooling.
    Pooling {
        /// The layer's name.
        name: String,
        /// The window.
        window: Window,
    },
    /// A fully connected layer.
    Dense {
        /// The layer's name.
        name: String,
        /// Length of its output.
        outputs: usize,
    },
    /// Images as vectors.
    Flatten,
    /// A nonlinear step.
    Activation(Activation),
}

/// All that both sides must agree on: what a plan follows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Shape of one input.
    pub input: Shape,
    /// The network.
    pub nodes: Vec<NodeDescription>,
    /// Inputs to one update.
    pub batch: usize,
    /// The numbers.
    pub numbers: FixedPoint,
    /// Size of the clients' keys.
    pub client_key: KeyBits,
    /// Size of the server's key.
    pub server_key: KeyBits,
}

impl Description {
    /// That of a model.
    ///
    /// # Errors
    /// [`PrivateError::Model`] when a layer is none of those that can be trained.
    pub fn new(
        model: &Model,
        batch: usize,
        numbers: FixedPoint,
        [client_key, server_key]: [KeyBits; 2],
    ) -> Result<Self, PrivateError> {
        let node = |node: &Node| match node {
            Node::Activation(activation) => NodeDescription::Activation(*activation),
            Node::Linear { name, layer } => {
                let (name, rows) = (name.clone(), layer.parameters().map_or(0, |p| p.weight.nrows()));
                match layer.affine().form() {
                    AffineForm::Convolution(window) => {
                        NodeDescription::Convolution { name, kernels: rows, window }
                    }
                    AffineForm::Pooling(window) => NodeDescription::Pooling { name, window },
                    AffineForm::Dense => NodeDescription::Dense { name, outputs: rows },
                    AffineForm::Reshape => NodeDescription::Flatten,
                }
            }
        };
        let nodes = model.nodes().iter().map(node).collect();
        Ok(Self { input: model.input_shape().clone(), nodes, batch, numbers, client_key, server_key })
    }
}

/// How a model is trained on ciphertexts: what both sides derive from its [`Description`].
#[derive(Clone, Debug)]
pub struct TrainPlan {
    description: Description,
    prologue: Vec<Activation>,
    segments: Vec<TrainSegment>,
    outputs: usize,
    parameters: usize,
}

/// A linear layer (with the pooling after it, where that can be one product) and the activations after it.
#[derive(Clone, Debug)]
pub struct TrainSegment {
    /// Names of its layers, joined by `+`.
    pub name: String,
    /// The layer whose weights are trained, if it has any, and where they lie among all parameters.
    pub layer: Option<LayerSpan>,
    /// The integer maps.
    pub map: TrainableMap,
    /// Fractional bits and bound of what goes in.
    pub input: (i32, u64),
    /// Fractional bits of the sums.
    pub sum_scale: i32,
    /// Fractional bits of what goes back.
    pub product_scale: i32,
    /// How sums of this segment are flooded.
    pub forward_flood: Flood,
    /// How products of errors are flooded; `None` where no errors go back, since nothing before is trained.
    pub backward_flood: Option<Flood>,
    /// What the client does with the sums; the final softmax is left out.
    pub activations: Vec<Activation>,
}

/// Where a layer's weights and biases lie among all parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerSpan {
    /// Its name.
    pub name: String,
    /// Rows: outputs at one position.
    pub rows: usize,
    /// Shape of the weights, as PyTorch has it.
    pub shape: Shape,
    /// Weights, row by row.
    pub weights: Range<usize>,
    /// Biases, one for each row.
    pub biases: Range<usize>,
}

impl LayerSpan {
    /// Weights of one row.
    pub fn taps(&self) -> usize {
        self.weights.len() / self.rows
    }
}

/// Values of all images of one tensor that a plan may ask for.
const MOST_VALUES: usize = 1 << 26;

/// Steps that a network may have.
const MOST_NODES: usize = 1 << 10;

/// Products of one image in all of a network's layers that a plan may ask for: a description comes from a peer.
const MOST_PRODUCTS: usize = 1 << 25;

impl TrainPlan {
    /// The plan of a description.
    ///
    /// # Errors
    /// [`PrivateError`] that says what does not fit.
    pub fn new(description: Description) -> Result<Self, PrivateError> {
        let Description { input, nodes, batch, numbers, .. } = &description;
        numbers.check()?;
        if !(1..=1 << 16).contains(batch) {
            let expected = "1 to 65,536".to_owned();
            return Err(PrivateError::Setting { what: "batch", expected, found: batch.to_string() });
        }
        let model_error = |rule, found: &str| PrivateError::Model { rule, found: found.to_owned() };
        let Some((NodeDescription::Activation(Activation::Softmax), nodes)) = nodes.split_last() else {
            return Err(model_error("a model to be trained must end in a softmax", "one that does not"));
        };
        if nodes.len() > MOST_NODES {
            return Err(model_error("a model to be trained must have at most 1,024 steps", "more"));
        }
        let mut compiler = Compiler {
            numbers: *numbers,
            shape: input.clone(),
            segments: vec![],
            prologue: vec![],
            parameters: 0,
        };
        let mut nodes = nodes.iter().peekable();
        while let Some(node) = nodes.next() {
            let pool = match (node, nodes.peek()) {
                (NodeDescription::Convolution { .. }, Some(NodeDescription::Pooling { window, .. }))
                    if TrainableMap::pools(*window) =>
                {
                    nodes.next()
                }
                _ => None,
            };
            compiler.add(node, pool)?;
            let products = compiler.segments.iter().map(|segment| segment.map.products_of_one());
            if products.fold(0, usize::saturating_add) > MOST_PRODUCTS {
                return Err(model_error(
                    "a model to be trained must have at most 2^25 products an image",
                    "more",
                ));
            }
        }
        let Compiler { shape, mut segments, prologue, parameters, .. } = compiler;
        if parameters == 0 {
            return Err(model_error("a model to be trained must have weights", "one without"));
        }
        let first = segments.iter().position(|segment| segment.layer.is_some()).unwrap_or(0);
        for (index, segment) in segments.iter_mut().enumerate() {
            if index <= first {
                segment.backward_flood = None;
            }
            let largest = segment.map.inputs().max(segment.map.outputs());
            if largest.saturating_mul(*batch) > MOST_VALUES {
                return Err(model_error("a tensor of a batch must have at most 2^26 values", &segment.name));
            }
        }
        let plan = Self { prologue, outputs: shape.elements(), parameters, segments, description };
        for segment in plan.segments() {
            let layer_error = |source| PrivateError::Layer { layer: segment.name.clone(), source };
            plan.layout(segment.forward_flood).map_err(layer_error)?;
            segment.backward_flood.map(|flood| plan.layout(flood)).transpose().map_err(layer_error)?;
        }
        plan.update_layout().ciphertexts(plan.description.server_key)?;
        Ok(plan)
    }

    /// What it follows from.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The numbers.
    pub fn numbers(&self) -> &FixedPoint {
        &self.description.numbers
    }

    /// Inputs to one update.
    pub fn batch(&self) -> usize {
        self.description.batch
    }

    /// Activations before the first segment.
    pub fn prologue(&self) -> &[Activation] {
        &self.prologue
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[TrainSegment] {
        &self.segments
    }

    /// How many classes there are.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// How many weights and biases are trained.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Segments of a forward pass whose errors go back, from the last to the first.
    pub fn backward(&self) -> impl Iterator<Item = usize> {
        (0..self.segments.len()).rev().filter(|&index| self.segments[index].backward_flood.is_some())
    }

    /// The layers that are trained.
    pub fn layers(&self) -> impl Iterator<Item = (&TrainSegment, &LayerSpan)> {
        self.segments.iter().filter_map(|segment| Some((segment, segment.layer.as_ref()?)))
    }

    /// The slots of a flooded tensor, in both directions.
    ///
    /// # Errors
    /// [`gelu_tensor::Error::Overflow`] when no slot fits the client's key.
    pub fn layout(&self, flood: Flood) -> Result<WideLayout, gelu_tensor::Error> {
        WideLayout::new(flood.check()?.slot_bits(), self.batch(), self.description.client_key)
    }

    /// How masked steps lie under the server's key.
    pub fn update_layout(&self) -> UpdateLayout {
        let FixedPoint { ring, flood_bits, .. } = self.description.numbers;
        UpdateLayout { ring, flood_bits, steps: self.parameters }
    }

    /// Bits of a slot that holds a sum of steps at the end of a turn.
    const TOTAL_BITS: usize = 48;

    /// How sums of steps lie under the server's key: vectors with a slot for each image, and their length.
    ///
    /// # Errors
    /// None for a key of any size.
    pub fn total_layout(&self) -> Result<(WideLayout, usize), gelu_tensor::Error> {
        let width = self.description.server_key.slot_capacity_bits() / Self::TOTAL_BITS;
        let layout = WideLayout::new(Self::TOTAL_BITS, width, self.description.server_key)?;
        Ok((layout, self.parameters.div_ceil(width)))
    }

    /// What is added to a sum of steps, so that it is not negative; no sum of a turn may reach it.
    pub fn total_offset() -> i64 {
        1 << (Self::TOTAL_BITS - 2)
    }

    /// The parameters as integers mod 2^l.
    ///
    /// # Errors
    /// [`PrivateError::Model`] when a weight is missing, of another shape, not finite or outside the ring.
    pub fn quantise(&self, weights: &Weights) -> Result<Vec<u64>, PrivateError> {
        let (ring, scale) = (self.numbers().ring, f64::from(self.numbers().weight_bits).exp2());
        let mut all = vec![0; self.parameters];
        for (_, layer) in self.layers() {
            for (kind, range) in [("weight", &layer.weights), ("bias", &layer.biases)] {
                let name = format!("{}.{kind}", layer.name);
                let bad = |rule| PrivateError::Model { rule, found: name.clone() };
                let tensor =
                    weights.tensors.get(&name).ok_or_else(|| bad("every layer needs its weights"))?;
                if tensor.data().len() != range.len() {
                    return Err(bad("weights must have the layer's shape"));
                }
                for (to, &from) in all[range.clone()].iter_mut().zip(tensor.data()) {
                    let value = (f64::from(from) * scale).round();
                    if value.is_nan() || value.abs() > ring.bound() as f64 {
                        return Err(bad("weights must be finite numbers within the ring"));
                    }
                    *to = ring.wrap(value as i64 as u64);
                }
            }
        }
        Ok(all)
    }

    /// The parameters as reals, with PyTorch's names.
    ///
    /// # Errors
    /// [`PrivateError::State`] when they are not as many as the plan's.
    pub fn weights(&self, parameters: &[u64]) -> Result<Weights, PrivateError> {
        if parameters.len() != self.parameters {
            return Err(PrivateError::State("it has another number of parameters"));
        }
        let (ring, unit) = (self.numbers().ring, f64::from(-(self.numbers().weight_bits as i32)).exp2());
        let mut weights = Weights::default();
        for (_, layer) in self.layers() {
            let biases = Shape::from([layer.biases.len()]);
            for (kind, range, shape) in
                [("weight", &layer.weights, layer.shape.clone()), ("bias", &layer.biases, biases)]
            {
                let reals = parameters[range.clone()].iter().map(|&x| (ring.signed(x) as f64 * unit) as f32);
                let tensor = WeightTensor::new(shape, reals.collect())
                    .map_err(|_| PrivateError::State("its tensors have other shapes"))?;
                weights.tensors.insert(format!("{}.{kind}", layer.name), tensor);
            }
        }
        Ok(weights)
    }
}

struct Compiler {
    numbers: FixedPoint,
    shape: Shape,
    segments: Vec<TrainSegment>,
    prologue: Vec<Activation>,
    parameters: usize,
}

impl Compiler {
    fn add(&mut self, node: &NodeDescription, pool: Option<&NodeDescription>) -> Result<(), PrivateError> {
        let name = match node {
            NodeDescription::Flatten => {
                self.shape = Shape::from([self.shape.elements()]);
                return Ok(());
            }
            NodeDescription::Activation(Activation::Softmax) => {
                let rule = "a softmax must be the last node of a model";
                return Err(PrivateError::Model { rule, found: "one before the end".to_owned() });
            }
            NodeDescription::Activation(activation) => {
                let last = self.segments.last_mut().map(|segment| &mut segment.activations);
                last.unwrap_or(&mut self.prologue).push(*activation);
                return Ok(());
            }
            NodeDescription::Convolution { name, .. }
            | NodeDescription::Pooling { name, .. }
            | NodeDescription::Dense { name, .. } => name.clone(),
        };
        self.linear(name.clone(), node, pool).map_err(|source| PrivateError::Layer { layer: name, source })
    }

    fn linear(
        &mut self,
        name: String,
        node: &NodeDescription,
        pool: Option<&NodeDescription>,
    ) -> Result<(), gelu_tensor::Error> {
        let mut segment_name = name.clone();
        let (map, rows, shape) = match node {
            NodeDescription::Convolution { kernels, window, .. } => {
                let input = self.shape.as_image("a convolution's input")?;
                let pool = match pool {
                    Some(NodeDescription::Pooling { name, window }) => {
                        segment_name = format!("{segment_name}+{name}");
                        Some(*window)
                    }
                    _ => None,
                };
                let map = TrainableMap::convolution(input, *kernels, *window, pool)?;
                let [height, width] = window.over(input)?.output();
                let mut output = [*kernels, height, width];
                if let Some(pool) = pool {
                    let [height, width] = pool.over(output)?.output();
                    output = [*kernels, height, width];
                }
                let weights = Shape::from([*kernels, input[0], window.kernel[0], window.kernel[1]]);
                self.shape = Shape::from(output);
                (map, *kernels, weights)
            }
            NodeDescription::Pooling { window, .. } => {
                let input = self.shape.as_image("a pooling's input")?;
                let map = TrainableMap::pooling(input, *window)?;
                let [height, width] = window.over(input)?.output();
                self.shape = Shape::from([input[0], height, width]);
                (map, 0, Shape::from([0]))
            }
            NodeDescription::Dense { outputs, .. } => {
                let inputs = self.shape.elements();
                let map = TrainableMap::dense([inputs, *outputs])?;
                self.shape = Shape::from([*outputs]);
                (map, *outputs, Shape::from([*outputs, inputs]))
            }
            NodeDescription::Flatten | NodeDescription::Activation(_) => return Ok(()),
        };
        let numbers = self.numbers;
        let input = match self.segments.is_empty() {
            true => (numbers.input_bits as i32 - numbers.input_range, 1 << numbers.input_bits),
            false => {
                (numbers.activation_bits as i32 - numbers.activation_range, 1 << numbers.activation_bits)
            }
        };
        let weight_scale = if map.is_fixed() { 0 } else { numbers.weight_bits as i32 };
        let flood = |taps: usize, bound: u64| {
            let quotient = (taps as u64).saturating_mul(bound).saturating_add(1);
            Flood { ring: numbers.ring, quotient, bits: numbers.flood_bits }.check()
        };
        let [most_sum, most_product] = map.most_terms();
        let layer = (!map.is_fixed()).then(|| {
            let weights = self.parameters..self.parameters + map.weights();
            let biases = weights.end..weights.end + rows;
            self.parameters = biases.end;
            LayerSpan { name, rows, shape, weights, biases }
        });
        if input.0 + (map.scale_bits() as i32) < 0 {
            return Err(gelu_tensor::Error::Scale { expected: 0, found: input.0 });
        }
        self.segments.push(TrainSegment {
            name: segment_name,
            layer,
            input,
            sum_scale: input.0 + weight_scale + map.scale_bits() as i32,
            product_scale: numbers.error_bits as i32 + weight_scale + map.scale_bits() as i32,
            forward_flood: flood(most_sum, input.1)?,
            backward_flood: Some(flood(most_product, 1 << numbers.error_bits)?),
            map,
            activations: vec![],
        });
        Ok(())
    }
}

impl TrainSegment {
    /// The biases of all outputs as they are added to sums, mod 2^64; none for pooling.
    pub fn bias(&self, parameters: &[u64]) -> Vec<u64> {
        let Some(layer) = &self.layer else { return vec![] };
        let positions = self.map.outputs() / layer.rows;
        let biases = parameters[layer.biases.clone()].iter();
        biases.flat_map(|&bias| std::iter::repeat_n(bias << self.bias_shift(), positions)).collect()
    }

    /// Bits by which biases are shifted to the scale of sums.
    pub fn bias_shift(&self) -> u32 {
        (self.input.0 + self.map.scale_bits() as i32).unsigned_abs()
    }

    /// The layer's weights among all parameters; none for pooling.
    pub fn weights<'a>(&self, parameters: &'a [u64]) -> &'a [u64] {
        self.layer.as_ref().map_or(&[][..], |layer| &parameters[layer.weights.clone()])
    }

    /// Sums in the clear, biases included, mod 2^64.
    ///
    /// # Errors
    /// When the inputs are no whole vectors.
    pub fn sums(&self, parameters: &[u64], inputs: &[i64]) -> Result<Vec<u64>, gelu_tensor::Error> {
        let mut sums = self.map.sums(self.weights(parameters), inputs)?;
        let bias = self.bias(parameters);
        if !bias.is_empty() {
            sums.iter_mut().zip(bias.iter().cycle()).for_each(|(sum, bias)| *sum = sum.wrapping_add(*bias));
        }
        Ok(sums)
    }

    /// Products of errors in the clear, mod 2^64.
    ///
    /// # Errors
    /// When the errors are no whole vectors.
    pub fn products(&self, parameters: &[u64], errors: &[i64]) -> Result<Vec<u64>, gelu_tensor::Error> {
        self.map.products(self.weights(parameters), errors)
    }

    /// The largest absolute values that sums and products can have, for parameters of these absolute values;
    /// saturating.
    pub fn largest(&self, magnitudes: &[u64], numbers: &FixedPoint) -> [u64; 2] {
        let Some(layer) = &self.layer else { return [0, 0] };
        let [rows, columns] = self.map.absolute_sums(self.weights(magnitudes));
        let positions = self.map.outputs() / layer.rows;
        let biases = &magnitudes[layer.biases.clone()];
        let sums = rows.iter().enumerate().map(|(at, sum)| {
            let bias = u128::from(biases[at / positions]) << self.bias_shift();
            let sum = u128::from(*sum) * u128::from(self.input.1) + bias;
            u64::try_from(sum).unwrap_or(u64::MAX)
        });
        let columns = if self.backward_flood.is_some() { columns } else { vec![] };
        let products = columns.iter().map(|sum| sum.saturating_mul(1 << numbers.error_bits));
        [sums.max().unwrap_or(0), products.max().unwrap_or(0)]
    }
}
