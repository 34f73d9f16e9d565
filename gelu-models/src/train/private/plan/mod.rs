//! What private training of a network consists of, segment by segment.

mod compile;
mod description;

use std::ops::Range;

use gelu_layers::{Activation, TrainableMap};
use gelu_tensor::{Flood, Shape, UpdateLayout, WideLayout};

use self::compile::Compiler;
pub use self::description::{Description, FixedPoint, NodeDescription};
use super::PrivateError;
use crate::{WeightTensor, Weights};

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
