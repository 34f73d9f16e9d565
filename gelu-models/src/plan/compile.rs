use gelu_layers::{Activation, Affine, AffineForm, IntegerLinear};
use gelu_tensor::arith::Operations;
use gelu_tensor::paillier::KeyParameters;
use gelu_tensor::{Arrangement, Error, Format, Shape, SlotLayout};
use ndarray::ArrayView2;

use super::{Plan, PlanError, PlanOptions, Segment, cost, split};
use crate::infer::{Outcome, Step};
use crate::{Model, Node};

/// A plan with the weights: what the server runs.
#[derive(Clone, Debug)]
pub struct Program {
    plan: Plan,
    layers: Vec<IntegerLinear>,
    affines: Vec<Affine>,
}

impl Model {
    /// How to run the model on ciphertexts.
    ///
    /// # Errors
    /// [`PlanError`] when the options are out of range or the numbers do not fit the key.
    pub fn plan(&self, options: &PlanOptions) -> Result<Program, PlanError> {
        check_options(options)?;
        let chains = chains(self)?;
        for name in options.layer_bits.keys() {
            if !chains.chains.iter().any(|chain| chain.names.contains(name)) {
                return Err(PlanError::UnknownLayer { name: name.clone() });
            }
        }
        Compiler::new(self, options)?.compile(self.input_shape(), chains)
    }
}

fn check_options(options: &PlanOptions) -> Result<(), PlanError> {
    for (what, bits) in [("activation bits", options.activation_bits), ("input bits", options.input_bits)] {
        if !(2..=24).contains(&bits) {
            return Err(PlanError::Option { what, expected: "2 to 24", found: bits.to_string() });
        }
    }
    for &bits in options.layer_bits.values().chain([&options.weight_bits]) {
        if !(2..=24).contains(&bits) {
            return Err(PlanError::Option {
                what: "weight bits",
                expected: "2 to 24",
                found: bits.to_string(),
            });
        }
    }
    if !(1..=64).contains(&options.lanes) {
        let found = options.lanes.to_string();
        return Err(PlanError::Option { what: "lanes", expected: "1 to 64", found });
    }
    if !(1..=1 << 20).contains(&options.batch) {
        let found = options.batch.to_string();
        return Err(PlanError::Option { what: "batch", expected: "1 to 2^20 images", found });
    }
    if !(options.range_margin.is_finite() && options.range_margin > 0.0) {
        let found = options.range_margin.to_string();
        return Err(PlanError::Option { what: "range margin", expected: "a positive number", found });
    }
    Ok(())
}

/// The model cut at its nonlinear nodes.
struct Chains {
    prologue: Vec<Activation>,
    chains: Vec<Chain>,
}

struct Chain {
    names: Vec<String>,
    affine: Affine,
    activations: Vec<Activation>,
}

/// Cuts a model. Flattening alone is no segment: the client reads the same values under another shape.
fn chains(model: &Model) -> Result<Chains, PlanError> {
    let mut prologue = vec![];
    let mut chains: Vec<Chain> = vec![];
    for node in model.nodes() {
        match node {
            Node::Activation(activation) => match chains.last_mut() {
                Some(chain) => chain.activations.push(*activation),
                None => prologue.push(*activation),
            },
            Node::Linear { name, layer } => {
                let affine = layer.affine();
                match chains.pop() {
                    Some(Chain { mut names, affine: first, activations }) if activations.is_empty() => {
                        // Flattening changes no number, so it adds nothing to the name.
                        match (first.form(), affine.form()) {
                            (_, AffineForm::Reshape) => {}
                            (AffineForm::Reshape, _) => names = vec![name.clone()],
                            _ => names.push(name.clone()),
                        }
                        let affine = first
                            .then(&affine)
                            .map_err(|source| PlanError::Numbers { name: names.join("+"), source })?;
                        chains.push(Chain { names, affine, activations });
                    }
                    before => {
                        chains.extend(before);
                        chains.push(Chain { names: vec![name.clone()], affine, activations: vec![] });
                    }
                }
            }
        }
    }
    let mut kept: Vec<Chain> = vec![];
    for chain in chains {
        if chain.affine.form() != AffineForm::Reshape {
            kept.push(chain);
        } else {
            kept.last_mut().map_or(&mut prologue, |chain| &mut chain.activations).extend(chain.activations);
        }
    }
    if kept.is_empty() { Err(PlanError::Empty) } else { Ok(Chains { prologue, chains: kept }) }
}

/// The smallest range that an activation is given.
const LEAST_RANGE: f64 = 1.0 / 65_536.0;

struct Compiler<'a> {
    options: &'a PlanOptions,
    input_range: f64,
    /// Declared ranges of the activations that are left, in order; `None` for the worst case.
    activation_ranges: Option<std::vec::IntoIter<f32>>,
}

impl<'a> Compiler<'a> {
    fn new(model: &Model, options: &'a PlanOptions) -> Result<Self, PlanError> {
        let expected = model.nodes().iter().filter(|node| is_calibrated(node)).count();
        if let Some(ranges) = &options.ranges {
            let found = ranges.activations.len();
            if found != expected {
                return Err(PlanError::Ranges { expected, found });
            }
            let bad =
                ranges.activations.iter().chain([&ranges.input]).find(|x| !(x.is_finite() && **x >= 0.0));
            if let Some(bad) = bad {
                let what = "calibrated range";
                return Err(PlanError::Option { what, expected: "a finite number", found: bad.to_string() });
            }
        }
        Ok(Self {
            options,
            input_range: options.ranges.as_ref().map_or(1.0, |ranges| f64::from(ranges.input)),
            activation_ranges: options.ranges.as_ref().map(|ranges| ranges.activations.clone().into_iter()),
        })
    }

    fn compile(mut self, input: &Shape, chains: Chains) -> Result<Program, PlanError> {
        let first = &chains.chains[0].names.join("+");
        let start = self.format(self.input_range, self.options.input_bits, first)?;
        let mut format = self.after(&chains.prologue, start, first)?;
        let mut segments = vec![];
        let mut layers = vec![];
        let mut affines = vec![];
        for chain in chains.chains {
            let name = chain.names.join("+");
            let in_segment = |source| PlanError::Numbers { name: name.clone(), source };
            let bits = chain.names.iter().filter_map(|name| self.options.layer_bits.get(name)).max();
            let layer = chain
                .affine
                .quantise(bits.copied().unwrap_or(self.options.weight_bits))
                .map_err(in_segment)?;
            let range = layer.range();
            let output_format = range.output_format(format).map_err(in_segment)?;
            let segment = self.segment(&name, &layer, [format, output_format], chain.activations)?;

            format = self.after(&segment.activations, output_format, &name)?;
            segments.push(segment);
            layers.push(layer);
            affines.push(chain.affine);
        }
        let plan = Plan {
            key: self.options.key,
            batch: self.options.batch,
            input: input.clone(),
            prologue: chains.prologue,
            segments,
        };
        plan.check(self.options.key, self.options.batch)?;
        Ok(Program { plan, layers, affines })
    }

    /// The cheapest layout of a segment, and everything that follows from it.
    fn segment(
        &self,
        name: &str,
        layer: &IntegerLinear,
        [input_format, output_format]: [Format; 2],
        activations: Vec<Activation>,
    ) -> Result<Segment, PlanError> {
        let in_segment = |source| PlanError::Numbers { name: name.to_owned(), source };
        let (key, batch) = (self.options.key, self.options.batch);
        let slot_bits = output_format.slot_bits().max(input_format.slot_bits());
        let mut candidates = vec![];
        let images = SlotLayout::batch(slot_bits, batch, key).map_err(in_segment)?;
        candidates.push(self.lay_out(layer, images, batch, layer.input_shape()).map_err(in_segment)?);
        if let Some(window) = layer.window() {
            let pooling = matches!(layer.form(), AffineForm::Pooling(_));
            let (shape, images) = split(layer.input_shape(), batch, pooling);
            let windows = shape
                .as_image("a window's input")
                .and_then(|input| window.over(input))
                .map_err(in_segment)?;
            let patches = SlotLayout::im2col(windows, slot_bits, images, key).map_err(in_segment)?;
            candidates.push(self.lay_out(layer, patches, images, &shape).map_err(in_segment)?);
        }
        let candidate = candidates.into_iter().min_by_key(|candidate| candidate.weight);
        let Some(Candidate { up, down, down_shape, strategy, operations, .. }) = candidate else {
            return Err(PlanError::Empty);
        };
        Ok(Segment {
            name: name.to_owned(),
            form: layer.form(),
            range: layer.range(),
            input: layer.input_shape().clone(),
            output: layer.output_shape().clone(),
            input_format,
            output_format,
            up,
            down,
            down_shape,
            strategy,
            operations,
            activations,
        })
    }

    fn lay_out(
        &self,
        layer: &IntegerLinear,
        up: SlotLayout,
        images: usize,
        shape: &Shape,
    ) -> Result<Candidate, Error> {
        let key = self.options.key;
        let product = layer.cost(up, images, shape)?;
        let lanes = self.options.lanes;
        let strategy = product.map(|product| product.cheapest(lanes));
        let (multiply, weight) =
            product.zip(strategy).map_or((Operations::default(), 0), |(product, strategy)| {
                (product.operations(strategy), product.weight(strategy, lanes))
            });
        let down_shape = match layer.window() {
            None => Shape::from([layer.output_shape().elements()]),
            Some(window) => {
                let [height, width] = window.over(shape.as_image("a window's input")?)?.output();
                let channels =
                    layer.output_shape().elements() * self.options.batch / images / (height * width);
                Shape::from([channels, height, width])
            }
        };
        let arrangement = match up.arrangement {
            Arrangement::Patches(windows) => Arrangement::Positions { count: windows.positions() },
            other => other,
        };
        let encryptions = up.ciphertexts(images, shape);
        // Stacking more units costs the server squarings and saves ciphertexts on both sides.
        let loose = SlotLayout { arrangement, ..up };
        let candidates = (1..=loose.most_stacked(key)?).map(|stacked| {
            let down = loose.with_stacked(stacked);
            let parameters = KeyParameters { size: key, key_type: self.options.key_type };
            let vectors = (parameters, lanes);
            let reply = cost::reply(vectors, encryptions, down, (images, &down_shape));
            (weight + reply.weight, down, multiply + reply.operations)
        });
        let (weight, down, operations) =
            candidates.min_by_key(|(weight, ..)| *weight).unwrap_or((weight, loose, multiply));
        Ok(Candidate { up, down, down_shape, strategy, operations, weight })
    }

    /// The format of what the client sends after its activations.
    fn after(&mut self, activations: &[Activation], sums: Format, name: &str) -> Result<Format, PlanError> {
        let mut largest = sums.real(sums.bound() as i64);
        for &activation in activations {
            if activation == Activation::Softmax {
                return Ok(sums);
            }
            largest = match self.activation_ranges.as_mut().and_then(Iterator::next) {
                Some(range) => f64::from(range) * self.options.range_margin,
                None => magnitude(activation, largest),
            };
        }
        if activations.is_empty() {
            Ok(sums)
        } else {
            self.format(largest, self.options.activation_bits, name)
        }
    }

    /// The finest power-of-two scale at which `bits` bits hold `largest`.
    fn format(&self, largest: f64, bits: u32, name: &str) -> Result<Format, PlanError> {
        // An activation that calibration never saw alive says nothing of its scale, and one that was hardly alive
        // would ask for a scale at which biases overflow.
        let largest = if largest == 0.0 { 1.0 } else { largest.max(LEAST_RANGE) };
        let scale_bits = bits as i32 - largest.log2().ceil().min(200.0) as i32;
        let bound = (largest * f64::from(scale_bits).exp2()).ceil().max(1.0) as u64;
        Format::new(bound, scale_bits).map_err(|source| PlanError::Numbers { name: name.to_owned(), source })
    }
}

struct Candidate {
    up: SlotLayout,
    down: SlotLayout,
    down_shape: Shape,
    strategy: Option<gelu_tensor::Strategy>,
    operations: Operations,
    weight: u64,
}

fn is_calibrated(node: &Node) -> bool {
    matches!(node, Node::Activation(activation) if *activation != Activation::Softmax)
}

/// The largest |activation(x)| for |x| up to `largest`; all activations are monotonic in |x| at either end.
pub(super) fn magnitude(activation: Activation, largest: f64) -> f64 {
    match activation {
        Activation::Sigmoid | Activation::Tanh | Activation::Softmax => 1.0,
        _ => [largest, -largest, 0.0]
            .iter()
            .filter_map(|&x| activation.apply(x))
            .fold(0.0, |sum: f64, y| sum.max(y.abs()))
            .max(if activation == Activation::Relu { largest } else { 1.0 }),
    }
}

impl Program {
    /// The public part.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The integer matrices, one per segment.
    pub fn layers(&self) -> &[IntegerLinear] {
        &self.layers
    }

    /// The same matrices as reals.
    pub(super) fn affines(&self) -> &[Affine] {
        &self.affines
    }

    /// Runs the plan on integers in the clear, for any number of images `[images, elements]`: what the encrypted run
    /// gives, bit for bit.
    ///
    /// # Errors
    /// [`Error::Count`] when the images have another number of elements than the input.
    pub fn run_clear(&self, images: ArrayView2<'_, f32>) -> Result<Outcome, Error> {
        let mut step = Step::new(&self.plan);
        let mut values = step.quantise_input(images)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let sums = layer.forward_fixed(&values.reshape(layer.input_shape().clone())?)?;
            match step.advance(index, sums)? {
                Some(next) => values = next,
                None => break,
            }
        }
        step.finish()
    }
}
