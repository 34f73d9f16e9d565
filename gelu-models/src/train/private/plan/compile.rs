//! From a description to segments: what is refused, where parameters lie, how tensors are laid out.

use std::sync::Arc;

use gelu_layers::{ClientOp, LinearConfig};
use gelu_tensor::{Error, Format, LinearMap, Shape, WeightRange};

use super::segment::{Back, LayerSpan, TrainSegment, TrainTerm};
use super::{Description, Exchange, PrivateError};
use crate::peer::Part;
use crate::plan::{CutSegment, CutTerm, Deployment, Layout, MapOf, PlanError};
use crate::{Graph, Op, ValueId};

/// Values of all images of one tensor that a plan may ask for, and of all tensors together: a description comes from a
/// peer.
const MOST_VALUES: usize = 1 << 26;
const MOST_VALUES_IN_ALL: usize = 1 << 27;

/// Products of one image in all of a network's layers that a plan may ask for.
const MOST_PRODUCTS: usize = 1 << 26;

/// Makes the segments of one description.
pub(super) struct Compiler<'a> {
    pub(super) description: &'a Description,
    /// Of every value so far, whether it depends on a parameter.
    pub(super) trained: &'a [bool],
    pub(super) deployment: Deployment,
}

impl Compiler<'_> {
    /// The segment of a part of the graph, whose parameters come after those before it.
    pub(super) fn segment(&self, cut: &CutSegment, parameters: &mut usize) -> Result<TrainSegment, Error> {
        let Description { graph, numbers, batch, .. } = self.description;
        let shape = graph.shape(cut.output).clone();
        let values = |source: ValueId| numbers.values(source == ValueId::INPUT);
        let scale = cut.terms.iter().map(|term| values(term.source).0).max().unwrap_or(0);
        let scale = u32::try_from(scale).map_err(|_| Error::Scale { expected: 0, found: scale })?;
        let divisor_of = |term: &CutTerm| term.mean.as_ref().map_or(1, |mean| mean.blocks()[0].taps() as u64);
        // A common multiple of what means divide by.
        let divisor = cut.terms.iter().try_fold(1u64, |all, term| {
            let own = divisor_of(term);
            (all / num_integer::gcd(all, own)).checked_mul(own)
        });
        let bias_factor = divisor.and_then(|divisor| divisor.checked_mul(1u64.checked_shl(scale)?));
        let (Some(divisor), Some(_)) = (divisor, bias_factor) else {
            return Err(Error::Overflow { needed_bits: 65, available_bits: 64 });
        };
        let mut terms = vec![];
        for term in &cut.terms {
            let (own, bound) = values(term.source);
            let own_divisor = divisor_of(term);
            // Brings the terms to one scale and divisor.
            let shift = (i64::from(scale) - i64::from(own)) as u32;
            let factor = 1u64.checked_shl(shift).and_then(|factor| factor.checked_mul(divisor / own_divisor));
            let times = term.sums.as_ref().map_or(1, |sums| sums.most_terms()) as u64;
            let largest = factor.and_then(|factor| bound.checked_mul(factor)?.checked_mul(times));
            let format = Format::integers(largest.unwrap_or(u64::MAX))?;
            let map = term.affine.map().clone();
            let found = map.input().elements().max(map.output().elements()).saturating_mul(*batch);
            if found > MOST_VALUES {
                let what = "values of a tensor of a batch";
                return Err(Error::Limit { what, limit: MOST_VALUES, found });
            }
            self.check_gradient(&map, format.bound())?;
            let layer = self.span(term.nodes[0], &map, parameters);
            // Windows may read nothing but padding.
            let back = match self.trained[term.source.index()] && map.most_terms() > 0 {
                true => Some(self.back(&map, term.sums.as_deref())?),
                false => None,
            };
            terms.push(TrainTerm {
                source: term.source,
                layer,
                sums: term.sums.clone(),
                map,
                values: (own, bound),
                factor: factor.unwrap_or(1) as i64,
                format,
                divisor: own_divisor,
                covered: term.mean.as_deref().and_then(covered),
                back,
            });
        }
        let weights = WeightRange::signed(numbers.expected_bits())?;
        let maps: Vec<MapOf<'_>> = terms.iter().map(|term| term.forward(weights)).collect();
        let layout = Layout::cheapest(&maps, numbers.output(&shape, terms.len())?, self.deployment)?;
        let (name, output) = (cut.name.clone(), cut.output);
        Ok(TrainSegment { name, output, shape, terms, scale, divisor, layout })
    }

    /// Checks that the sum of a batch's products of inputs and errors, which is a weight's gradient, stays within 64 bits.
    fn check_gradient(&self, map: &LinearMap, bound: u64) -> Result<(), Error> {
        let columns: usize = map.blocks().iter().map(|block| block.columns()).sum();
        let products = (columns as u128) * (self.description.batch as u128);
        let largest = (u128::from(bound) << self.description.numbers.error_bits).saturating_mul(products);
        let needed_bits = 129 - largest.leading_zeros() as usize;
        match needed_bits {
            ..=64 => Ok(()),
            _ => Err(Error::Overflow { needed_bits, available_bits: 64 }),
        }
    }

    /// The way back through a map.
    fn back(&self, map: &LinearMap, sums: Option<&LinearMap>) -> Result<Back, Error> {
        let numbers = &self.description.numbers;
        let map = Arc::new(map.transposed()?);
        let weights = WeightRange::signed(numbers.expected_bits())?;
        let maps = [MapOf { map: &map, contents: numbers.errors()?, weights }];
        let layout = Layout::cheapest(&maps, numbers.output(map.output(), 1)?, self.deployment)?;
        let sums = sums.map(LinearMap::transposed).transpose()?;
        Ok(Back { sums, layout, map })
    }

    /// The place of a layer's parameters after those before it.
    fn span(&self, node: usize, map: &LinearMap, parameters: &mut usize) -> LayerSpan {
        let node = &self.description.graph.nodes()[node];
        let input = self.description.graph.shape(node.inputs[0]);
        let (rows, shape, bias) = match &node.op {
            Op::Linear(LinearConfig::Conv2d(config)) => {
                let [height, width] = config.window.kernel;
                let channels = input.dims()[0] / config.groups;
                (
                    config.out_channels,
                    Shape::from([config.out_channels, channels, height, width]),
                    config.bias,
                )
            }
            Op::Linear(LinearConfig::Dense(config)) => {
                (config.out_features, Shape::from([config.out_features, input.elements()]), config.bias)
            }
            _ => (1, Shape::from([1, map.weights()]), false),
        };
        let weights = *parameters..*parameters + map.weights();
        let biases = weights.end..weights.end + if bias { rows } else { 0 };
        *parameters = biases.end;
        LayerSpan { name: node.name.clone(), rows, shape, weights, biases }
    }
}

/// Refuses graphs that cannot be trained on ciphertexts.
pub(super) fn check(graph: &Graph, batch: usize) -> Result<(), PrivateError> {
    check_nodes(graph)?;
    check_sizes(graph, batch)
}

fn check_nodes(graph: &Graph) -> Result<(), PrivateError> {
    if !graph.ends_in_softmax() {
        return Err(PrivateError::NoSoftmax { found: graph.shape(graph.output()).clone() });
    }
    for node in graph.nodes() {
        if matches!(node.op, Op::Linear(LinearConfig::BatchNorm2d(_)) | Op::Client(ClientOp::Function { .. }))
        {
            return Err(PrivateError::Untrainable { name: node.name.clone(), op: node.op.to_string() });
        }
    }
    Ok(())
}

/// Refuses networks that are too large, before anything large is made of them.
fn check_sizes(graph: &Graph, batch: usize) -> Result<(), PrivateError> {
    // Of every value: the weights that a window of a mean over it would see.
    let mut taps = vec![0usize; graph.nodes().len() + 1];
    let (mut values, mut products) = (graph.input().elements(), 0usize);
    for (place, node) in graph.nodes().iter().enumerate() {
        let (input, output) = (graph.shape(node.inputs[0]), graph.shape(ValueId::of_node(place)));
        let before = node.inputs.iter().map(|input| taps[input.index()]).fold(0, usize::saturating_add);
        let (own, ours) = match &node.op {
            Op::Linear(LinearConfig::Flatten) | Op::Add => (before, 0),
            Op::Linear(LinearConfig::Dense(_)) => {
                (input.elements(), input.elements().saturating_mul(output.elements()))
            }
            Op::Linear(config) => match config.windows(input)? {
                None => (0, 0),
                Some(windows) if config.has_parameters() => {
                    (windows.taps(), output.elements().saturating_mul(windows.taps() / groups(config)))
                }
                // As sums of what the layers before it read, or by itself.
                Some(windows) => {
                    let window = windows.positions().saturating_mul(windows.window().area());
                    (0, window.saturating_mul(before.max(input.dims()[0])))
                }
            },
            Op::Concat | Op::Client(_) => (0, 0),
        };
        taps[place + 1] = own;
        values = values.saturating_add(output.elements());
        products = products.saturating_add(ours);
    }
    for (what, expected, found) in [
        ("values in a batch", MOST_VALUES_IN_ALL, values.saturating_mul(batch)),
        ("products for an input", MOST_PRODUCTS, products),
    ] {
        if found > expected {
            return Err(PrivateError::TooLarge { what, expected, found });
        }
    }
    Ok(())
}

fn groups(config: &LinearConfig) -> usize {
    if let LinearConfig::Conv2d(config) = config { config.groups } else { 1 }
}

/// How many outputs of a layer the windows of a mean cover, unless all cover as many as they have taps.
fn covered(mean: &LinearMap) -> Option<Vec<u32>> {
    let [block] = mean.blocks() else { return None };
    let inside = |column| (0..block.taps()).filter(|&tap| block.input(column, tap).is_some()).count();
    let mut covered = vec![0; mean.output().elements()];
    (0..block.columns()).for_each(|column| covered[block.output(column, 0)] = inside(column) as u32);
    let all = covered.iter().all(|&count| count as usize == block.taps());
    (!all).then_some(covered)
}

/// All tensors of an iteration: forward, and back to the first layer that is trained. Corrections come first, so that an
/// answer can begin before all of the last tensor has come.
pub(super) fn exchanges(segments: &[TrainSegment]) -> Vec<Exchange> {
    let numbered = || (0u32..).zip(segments);
    let forward = numbered().map(|(segment, own)| {
        let inputs = (0..own.terms.len() as u32).map(|term| Part::Inputs { segment, term });
        Exchange::new(Part::SumCorrections { segment }, inputs, Part::Sums { segment })
    });
    let mut all: Vec<Exchange> = forward.collect();
    let backward: Vec<_> = numbered().collect();
    for (segment, own) in backward.into_iter().rev() {
        for (term, _) in (0u32..).zip(&own.terms).filter(|(_, term)| term.back.is_some()) {
            let corrections = Part::ProductCorrections { segment, term };
            all.push(Exchange::new(
                corrections,
                [Part::Errors { segment, term }],
                Part::Products { segment, term },
            ));
        }
    }
    all
}

/// A graph that cannot be cut.
pub(super) fn plan_error(error: PlanError) -> PrivateError {
    match error {
        PlanError::Numbers { name, source } => PrivateError::Layer { layer: name, source },
        PlanError::Empty => PrivateError::NoWeights,
        other => PrivateError::Model { rule: "the model must have a plan", found: other.to_string() },
    }
}
