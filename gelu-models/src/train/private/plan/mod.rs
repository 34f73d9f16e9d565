//! What private training of a network consists of, segment by segment.

mod compile;
mod description;
mod multiplication;
mod segment;

use std::sync::Arc;

use gelu_layers::{Affine, LinearConfig};
use gelu_tensor::{Contents, EncTensorHeader, Error, Format, Packing, Shape, SlotLayout};

use self::compile::Compiler;
pub use self::description::{Description, FixedPoint};
pub(super) use self::multiplication::Multiplication;
pub use self::segment::{Back, LayerSpan, TrainSegment, TrainTerm};
use super::PrivateError;
use crate::peer::Part;
use crate::plan::{Cut, Fusion, Step, full_batch, header};
use crate::{ValueId, WeightTensor, Weights};

/// How a model is trained on ciphertexts: what both sides derive from its [`Description`].
///
/// ```
/// use gelu_models::ModelBuilder;
/// use gelu_models::train::private::{Description, FixedPoint, TrainPlan};
/// use gelu_tensor::paillier::KeyBits;
///
/// let model = ModelBuilder::new([3]).dense("fc1", 4).tanh().dense("fc2", 2).softmax().build()?;
/// let (batch, numbers) = (2, FixedPoint::default());
/// let keys = (KeyBits::Bits2048.into(), KeyBits::Bits2048); // of the clients, and of the server
/// let plan = TrainPlan::new(Description::new(&model, batch, numbers, keys.0, keys.1))?;
/// assert_eq!(plan.parameters(), 4 * (3 + 1) + 2 * (4 + 1));
///
/// // Weights become integers, and reals again.
/// let parameters = plan.quantize(&model.weights())?;
/// assert_eq!(plan.weights(&parameters)?.tensors, model.weights().tensors);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TrainPlan {
    description: Description,
    steps: Vec<Step>,
    segments: Vec<TrainSegment>,
    exchanges: Vec<Exchange>,
    logits: ValueId,
    parameters: usize,
}

/// Tensors that go up, and what comes down for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    ups: Vec<Part>,
    pub(super) down: Part,
}

impl Exchange {
    fn new(corrections: Part, ups: impl IntoIterator<Item = Part>, down: Part) -> Self {
        Self { ups: std::iter::once(corrections).chain(ups).collect(), down }
    }

    /// What goes up in an iteration: before the first step of a turn there is nothing to correct.
    pub(super) fn ups(&self, iteration: u32) -> &[Part] {
        &self.ups[usize::from(iteration == 0)..]
    }
}

impl TrainPlan {
    /// Returns the plan of a description.
    ///
    /// # Errors
    /// [`PrivateError`] that says what does not fit, or what cannot be trained.
    pub fn new(description: Description) -> Result<Self, PrivateError> {
        let Description { graph, batch, numbers, lanes, .. } = &description;
        numbers.check()?;
        for (what, most, found) in [("batch", 1 << 16, *batch), ("lanes", 64, *lanes)] {
            if !(1..=most).contains(&found) {
                let expected = format!("1 to {most}");
                return Err(PrivateError::Setting { what, expected, found: found.to_string() });
            }
        }
        compile::check(graph, *batch)?;
        let structure = |index: usize, config: &LinearConfig| {
            let input = graph.shape(graph.nodes()[index].inputs[0]);
            Ok(Affine::of_map(Arc::new(config.map(input)?)))
        };
        let cut = Cut::new(graph, Fusion::Layers, structure).map_err(compile::plan_error)?;
        // The softmax belongs to the loss.
        let softmax = graph.output();
        let steps: Vec<Step> = cut
            .steps
            .iter()
            .filter(|step| !matches!(step, Step::Client(step) if step.output == softmax))
            .cloned()
            .collect();
        // What depends on a parameter, so that errors go back to it.
        let mut trained = vec![false; graph.nodes().len() + 1];
        let (mut segments, mut parameters) = (vec![], 0);
        let deployment = description.deployment();
        for step in &steps {
            match step {
                Step::Client(step) => {
                    trained[step.output.index()] = step.inputs.iter().any(|input| trained[input.index()]);
                }
                Step::Segment(index) => {
                    let segment = &cut.segments[*index];
                    let compiler = Compiler { description: &description, trained: &trained, deployment };
                    let made = compiler
                        .segment(segment, &mut parameters)
                        .map_err(|source| PrivateError::Layer { layer: segment.name.clone(), source })?;
                    segments.push(made);
                    trained[segment.output.index()] = true;
                }
            }
        }
        let logits = cut.logits;
        let exchanges = compile::exchanges(&segments);
        let plan = Self { steps, segments, exchanges, logits, parameters, description };
        plan.check_headers()?;
        Ok(plan)
    }

    /// Checks that all tensors fit the keys.
    fn check_headers(&self) -> Result<(), PrivateError> {
        let Description { client_key, server_key, .. } = &self.description;
        let parts = self.exchanges.iter().flat_map(|exchange| exchange.ups(1).iter().chain([&exchange.down]));
        for &part in parts {
            self.header(part)?.check(client_key.size)?;
        }
        self.header(Part::Total)?.check(*server_key)?;
        Ok(())
    }

    /// Returns what the plan follows from.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Returns the numbers.
    pub(crate) fn numbers(&self) -> &FixedPoint {
        &self.description.numbers
    }

    /// Returns the number of inputs to one update.
    pub(crate) fn batch(&self) -> usize {
        self.description.batch
    }

    /// Returns the segments, in the order in which they run.
    pub fn segments(&self) -> &[TrainSegment] {
        &self.segments
    }

    /// Returns how many inputs fill the slots of a ciphertext: as many as the widest slots of sums and products leave room for.
    /// Of a batch that is no multiple of it, the slots of some ciphertexts stay empty.
    pub fn full_batch(&self) -> usize {
        let layouts = self.segments.iter().flat_map(|segment| {
            let backs = segment.terms.iter().filter_map(|term| term.back.as_ref());
            std::iter::once(&segment.layout).chain(backs.map(|back| &back.layout))
        });
        full_batch(layouts, self.description.client_key.size)
    }

    /// Returns the number of classes.
    pub(crate) fn outputs(&self) -> usize {
        self.description.graph.shape(self.description.graph.output()).elements()
    }

    /// Returns the number of weights and biases that are trained.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Returns the layers that are trained.
    pub fn layers(&self) -> impl Iterator<Item = &LayerSpan> {
        self.segments.iter().flat_map(|segment| &segment.terms).map(|term| &term.layer)
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    pub(super) fn logits(&self) -> ValueId {
        self.logits
    }

    /// The tensors of an iteration, in order.
    pub(super) fn exchanges(&self) -> &[Exchange] {
        &self.exchanges
    }

    /// Returns the header of a tensor, which follows from the plan alone.
    ///
    /// # Errors
    /// [`PrivateError::Model`] when the plan has no such tensor.
    pub fn header(&self, part: Part) -> Result<EncTensorHeader, PrivateError> {
        let absent =
            || PrivateError::Model { rule: "the plan must have the tensor", found: part.to_string() };
        let segment = |index: u32| self.segments.get(index as usize).ok_or_else(absent);
        let term = |index: u32, term: u32| {
            let terms = &segment(index)?.terms;
            let term = terms.get(term as usize).ok_or_else(absent)?;
            Ok::<_, PrivateError>((term, term.back.as_ref()))
        };
        let (layout, shape) = match part {
            Part::Inputs { segment: index, term: at } => {
                let (term, _) = term(index, at)?;
                (&segment(index)?.layout.ups[at as usize], term.map.input())
            }
            Part::Sums { segment: index } => (&segment(index)?.layout.down, &segment(index)?.shape),
            Part::Errors { segment: index, term: at } => {
                let (term, back) = term(index, at)?;
                (&back.ok_or_else(absent)?.layout.ups[0], term.map.output())
            }
            Part::Products { segment: index, term: at } => {
                let (term, back) = term(index, at)?;
                (&back.ok_or_else(absent)?.layout.down, term.map.input())
            }
            // Those of a whole reply lie as it does.
            Part::SumCorrections { segment } => return self.header_of_corrections(Part::Sums { segment }),
            Part::ProductCorrections { segment, term } => {
                return self.header_of_corrections(Part::Products { segment, term });
            }
            Part::Total => return Ok(self.total_header()?),
            // Of the hidden mode.
            Part::Choices { .. } | Part::Tables { .. } | Part::Shares { .. } | Part::Labels { .. } => {
                return Err(absent());
            }
        };
        Ok(header(layout, shape, self.batch()))
    }

    /// The header of the corrections of a reply.
    fn header_of_corrections(&self, reply: Part) -> Result<EncTensorHeader, PrivateError> {
        Ok(self.header(reply)?.with_format(self.numbers().corrections()?)?)
    }

    /// Bits of a slot that holds a sum of steps at the end of a turn.
    const TOTAL_BITS: usize = 48;

    /// How sums of steps lie under the server's key: an image for each slot, filled one after another.
    fn total_header(&self) -> Result<EncTensorHeader, Error> {
        let key = self.description.server_key;
        let batch = key.slot_capacity_bits() / Self::TOTAL_BITS;
        let packing = Packing { batch, slot_bits: Self::TOTAL_BITS, key };
        let layout = SlotLayout::images(packing, Contents::Integers(Self::total_format()?))?;
        Ok(EncTensorHeader::new(Shape::from([self.parameters.div_ceil(batch)]), batch, layout))
    }

    /// The format of a sum of steps; no sum of a turn may reach its bound.
    pub(super) fn total_format() -> Result<Format, Error> {
        Format::integers((1 << (Self::TOTAL_BITS - 1)) - 1)
    }

    /// The largest absolute value of a parameter: what ciphertexts are multiplied with has 24 bits at most.
    const MOST_PARAMETER: u64 = (1 << 23) - 1;

    /// Returns the parameters as integers.
    ///
    /// # Errors
    /// [`PrivateError::Model`] when a weight is missing, of another shape, not finite or too large for 24 bits.
    pub fn quantize(&self, weights: &Weights) -> Result<Vec<i64>, PrivateError> {
        let scale = f64::from(self.numbers().weight_bits).exp2();
        let mut all = vec![0; self.parameters];
        for layer in self.layers() {
            for (kind, range) in layer.tensors() {
                let name = format!("{}.{kind}", layer.name);
                let bad = |rule| PrivateError::Model { rule, found: name.clone() };
                let tensor =
                    weights.tensors.get(&name).ok_or_else(|| bad("every layer needs its weights"))?;
                if *tensor.shape() != layer.shape_of(kind, range) {
                    return Err(bad("weights must have the layer's shape"));
                }
                for (to, &from) in all[range.clone()].iter_mut().zip(tensor.data()) {
                    let value = (f64::from(from) * scale).round();
                    if value.is_nan() || value.abs() > Self::MOST_PARAMETER as f64 {
                        return Err(bad("weights must be finite numbers of 24 bits at most"));
                    }
                    *to = value as i64;
                }
            }
        }
        Ok(all)
    }

    /// Whether there are as many parameters as the plan has, none of them too large.
    pub(super) fn check_parameters(&self, parameters: &[i64]) -> Result<(), PrivateError> {
        let expected = self.parameters;
        let found = parameters.iter().filter(|value| value.unsigned_abs() <= Self::MOST_PARAMETER).count();
        if (parameters.len(), found) == (expected, expected) {
            Ok(())
        } else {
            Err(PrivateError::Parameters { expected, largest: Self::MOST_PARAMETER, found })
        }
    }

    /// Returns the parameters as ciphertexts are multiplied with them: rounded to [fewer bits](FixedPoint::product_bits).
    pub fn rounded(&self, parameters: &[i64]) -> Vec<i64> {
        parameters.iter().map(|&parameter| self.numbers().round(parameter)).collect()
    }

    /// Returns what steps change of the server's sums of what was sent, or of products, less the learning rate.
    ///
    /// # Errors
    /// [`PrivateError`] when the plan has no such tensor, or what was sent is no whole batch.
    pub(super) fn corrections(
        &self,
        part: Part,
        steps: &[i64],
        sent: &[impl AsRef<[i64]>],
    ) -> Result<Vec<i64>, PrivateError> {
        let changed = match (part, sent) {
            (Part::Sums { segment }, inputs) => self.segments[segment as usize].sums(steps, inputs)?,
            (Part::Products { segment, term }, [errors]) => {
                self.segments[segment as usize].terms[term as usize].products(steps, errors.as_ref())?
            }
            _ => return Err(PrivateError::Bug("no tensor of the server's")),
        };
        // Steps are taken off.
        Ok(changed.into_iter().map(|sum| self.numbers().round(-sum)).collect())
    }

    /// Returns the parameters as reals, with PyTorch's names.
    ///
    /// # Errors
    /// [`PrivateError::Parameters`] when they are not as many as the plan's, or too large.
    pub fn weights(&self, parameters: &[i64]) -> Result<Weights, PrivateError> {
        self.check_parameters(parameters)?;
        let unit = f64::from(-(self.numbers().weight_bits as i32)).exp2();
        let mut weights = Weights::default();
        for layer in self.layers() {
            for (kind, range) in layer.tensors() {
                let shape = layer.shape_of(kind, range);
                let reals = parameters[range.clone()].iter().map(|&x| (x as f64 * unit) as f32);
                let tensor = WeightTensor::new(shape, reals.collect())
                    .map_err(|_| PrivateError::Bug("tensors of a layer have other shapes"))?;
                weights.tensors.insert(format!("{}.{kind}", layer.name), tensor);
            }
        }
        Ok(weights)
    }
}
