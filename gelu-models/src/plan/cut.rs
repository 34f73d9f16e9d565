//! Where a graph is cut: into linear segments for the server and steps for the client between them.

use std::collections::BTreeSet;
use std::sync::Arc;

use gelu_layers::{Activation, Affine, ClientOp, LinearConfig};
use gelu_tensor::{Error, LinearMap};

use super::PlanError;
use crate::{Graph, Op, ValueId};

/// Terms that a segment may have; the client adds what goes beyond. A value that is added to itself again and again would
/// have twice as many each time.
const MOST_TERMS: usize = 64;

/// Indices that all maps which are made of several may have together: a short chain of layers can have a very large
/// product.
const MOST_COMPOSED: usize = 1 << 25;

/// How much of a chain of linear layers becomes one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fusion {
    /// All of it: reals are composed first and rounded once.
    Chains,
    /// One layer with weights and the pooling after it, so that the weights stay apart: what is trained.
    Layers,
    /// Chains, and what has no weights as well, where the client does not see its inputs: means, slices and sums of
    /// branches, which are linear on shares.
    Shares,
}

impl Fusion {
    /// That of inference, with the model hidden or not.
    pub(crate) fn of(hidden: bool) -> Self {
        if hidden { Self::Shares } else { Self::Chains }
    }
}

/// A graph as what the two sides do, in order.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub(crate) steps: Vec<Step>,
    pub(crate) segments: Vec<CutSegment>,
    /// The value that is the graph's output, and the one before the final softmax, as the client holds them.
    pub(crate) output: ValueId,
    pub(crate) logits: ValueId,
}

/// A part of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The server computes a segment, and the client decrypts its sums.
    Segment(usize),
    /// The client computes a node on values that it has in the clear.
    Client(ClientStep),
}

/// A node that the client computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClientStep {
    pub(crate) node: usize,
    /// Values that it has, of which flattened ones are those before.
    pub(crate) inputs: Vec<ValueId>,
    pub(crate) output: ValueId,
    /// The map of a linear layer without weights.
    pub(crate) map: Option<Arc<LinearMap>>,
}

/// Sums of linear maps of several values: what the server computes in one go.
#[derive(Clone, Debug)]
pub(crate) struct CutSegment {
    pub(crate) name: String,
    pub(crate) output: ValueId,
    pub(crate) terms: Vec<CutTerm>,
}

/// A linear map of one value.
#[derive(Clone, Debug)]
pub(crate) struct CutTerm {
    /// The value, which the client has in the clear.
    pub(crate) source: ValueId,
    /// Sums of its elements that the client encrypts in its place: see [`LinearMap::pooled`].
    pub(crate) sums: Option<Arc<LinearMap>>,
    pub(crate) affine: Affine,
    /// The linear nodes in it that have weights; none if it only moves and averages elements.
    pub(crate) nodes: Vec<usize>,
    /// The mean over windows of the layer's outputs, where the sums stand for it.
    pub(crate) mean: Option<Arc<LinearMap>>,
}

/// How the client holds a value.
#[derive(Clone)]
enum Form {
    /// In the clear, as this value.
    Clear(ValueId),
    /// Not at all: it is a sum of linear maps.
    Linear(Pending),
}

#[derive(Clone)]
struct Pending {
    names: Vec<String>,
    terms: Vec<CutTerm>,
}

struct Cutter<'a> {
    graph: &'a Graph,
    fusion: Fusion,
    /// How often each value is read.
    readers: Vec<usize>,
    forms: Vec<Form>,
    /// Of each value whether it follows from the image alone.
    known: Vec<bool>,
    /// Of each value whether none of its elements can be negative.
    non_negative: Vec<bool>,
    steps: Vec<Step>,
    segments: Vec<CutSegment>,
    /// Indices of all maps so far that were made of several.
    composed: usize,
}

impl Cut {
    /// Cuts a graph without weights.
    pub(crate) fn of_graph(graph: &Graph, fusion: Fusion) -> Result<Self, PlanError> {
        Self::new(graph, fusion, |index, config| {
            let input = graph.shape(graph.nodes()[index].inputs[0]);
            let map = Arc::new(config.map(input)?);
            Ok(if config.has_parameters() { Affine::of_map(map) } else { Affine::of_means(map) })
        })
    }

    /// The values that a client encrypts, each once.
    pub(crate) fn encrypted(&self) -> BTreeSet<ValueId> {
        self.segments.iter().flat_map(|segment| &segment.terms).map(|term| term.source).collect()
    }

    /// Cuts a graph whose linear nodes are the maps that `affine` gives: with their weights, or
    /// [without](Affine::of_map).
    pub(crate) fn new(
        graph: &Graph,
        fusion: Fusion,
        affine: impl Fn(usize, &LinearConfig) -> Result<Affine, Error>,
    ) -> Result<Self, PlanError> {
        let forms = vec![Form::Clear(ValueId::INPUT)];
        let mut readers = vec![0; graph.nodes().len() + 1];
        let inputs = graph.nodes().iter().flat_map(|node| &node.inputs);
        inputs.for_each(|input| readers[input.index()] += 1);
        let mut cutter = Cutter {
            graph,
            fusion,
            readers,
            forms,
            known: vec![true],
            non_negative: vec![false],
            steps: vec![],
            segments: vec![],
            composed: 0,
        };
        for (index, node) in graph.nodes().iter().enumerate() {
            let output = ValueId::of_node(index);
            node.inputs.iter().for_each(|input| cutter.settle(*input));
            let form = match &node.op {
                Op::Linear(LinearConfig::Flatten) => cutter.forms[node.inputs[0].index()].clone(),
                Op::Linear(config) => {
                    let numbers = |source| PlanError::Numbers { name: node.name.clone(), source };
                    let affine = affine(index, config).map_err(numbers)?;
                    cutter.linear(index, config, affine).map_err(numbers)?
                }
                Op::Add => cutter.add(index)?,
                Op::Client(ClientOp::Activation(Activation::Relu)) if cutter.is_idle(node.inputs[0]) => {
                    cutter.forms[node.inputs[0].index()].clone()
                }
                Op::Concat | Op::Client(_) => cutter.client(index, None),
            };
            debug_assert_eq!(cutter.forms.len(), output.index());
            cutter.forms.push(form);
            cutter.note(index);
        }
        let [output, logits] = [graph.output(), graph.logits()].map(|value| cutter.clear(value));
        let Cutter { steps, segments, .. } = cutter;
        if segments.is_empty() { Err(PlanError::Empty) } else { Ok(Self { steps, segments, output, logits }) }
    }
}

impl Cutter<'_> {
    /// The value in the clear: a segment ends with it if it is a sum of linear maps.
    fn clear(&mut self, value: ValueId) -> ValueId {
        match &self.forms[value.index()] {
            Form::Clear(held) => *held,
            Form::Linear(Pending { names, terms }) => {
                let (name, terms) = (names.join("+"), terms.clone());
                self.steps.push(Step::Segment(self.segments.len()));
                self.segments.push(CutSegment { name, output: value, terms });
                self.forms[value.index()] = Form::Clear(value);
                value
            }
        }
    }

    /// Whether a value is one that both sides have shares of.
    fn is_shared(&self, value: ValueId) -> bool {
        self.fusion == Fusion::Shares && !self.known[value.index()]
    }

    /// Whether a ReLU of a shared value changes nothing, so that no circuit is needed for it.
    fn is_idle(&self, value: ValueId) -> bool {
        self.is_shared(value) && self.non_negative[value.index()]
    }

    /// Notes what is true of a node's value.
    fn note(&mut self, index: usize) {
        let node = &self.graph.nodes()[index];
        let all = |values: &[bool]| node.inputs.iter().all(|input| values[input.index()]);
        let (known, kept) = (all(&self.known), all(&self.non_negative));
        let (known, non_negative) = match &node.op {
            Op::Linear(config) if config.has_parameters() => (false, false),
            Op::Client(ClientOp::Activation(activation)) => (known, activation.is_never_negative()),
            Op::Client(ClientOp::Function { .. }) => (known, false),
            Op::Client(ClientOp::Softmax) => (known, true),
            Op::Linear(_) | Op::Add | Op::Concat | Op::Client(_) => (known, kept),
        };
        self.known.push(known);
        self.non_negative.push(non_negative);
    }

    /// A value as a sum of linear maps: of itself, if it is one that the client has or both have shares of.
    fn pending(&self, value: ValueId) -> Result<Pending, Error> {
        match &self.forms[value.index()] {
            Form::Linear(pending) => Ok(pending.clone()),
            Form::Clear(source) => {
                let affine = Affine::identity(self.graph.shape(value))?;
                let term = CutTerm { source: *source, sums: None, affine, nodes: vec![], mean: None };
                Ok(Pending { names: vec![], terms: vec![term] })
            }
        }
    }

    /// A layer that is trained is in one segment only, however many nodes read what it makes.
    fn settle(&mut self, value: ValueId) {
        if self.fusion == Fusion::Layers && self.readers[value.index()] > 1 {
            self.clear(value);
        }
    }

    /// A node that the client computes on values in the clear.
    fn client(&mut self, node: usize, map: Option<Arc<LinearMap>>) -> Form {
        let inputs = self.graph.nodes()[node].inputs.clone();
        let inputs = inputs.into_iter().map(|input| self.clear(input)).collect();
        let output = ValueId::of_node(node);
        self.steps.push(Step::Client(ClientStep { node, inputs, output, map }));
        Form::Clear(output)
    }

    /// A layer without weights on a value in the clear is the client's; any other is the server's.
    fn linear(&mut self, index: usize, config: &LinearConfig, affine: Affine) -> Result<Form, Error> {
        let node = &self.graph.nodes()[index];
        let input = node.inputs[0];
        let weighted = config.has_parameters();
        if let Form::Linear(pending) = &self.forms[input.index()] {
            let is_slice = matches!(config, LinearConfig::Slice(_));
            let joined = match (self.fusion, weighted) {
                (Fusion::Layers, true) => None,
                (Fusion::Layers, false) if is_slice => None,
                (Fusion::Layers, false) => pending.pooled(&affine),
                // Nothing is summed up: the ciphertexts are those that other layers read.
                (_, false) if is_slice => Some(pending.then(&affine)?),
                (_, false) => pending
                    .pooled(&affine)
                    .map_or_else(|| pending.then(&affine).map(Some), |pooled| Ok(Some(pooled)))?,
                (_, true) => Some(pending.moved(&affine).map_or_else(|| pending.then(&affine), Ok)?),
            };
            if let Some(mut pending) = joined {
                let indices = pending.terms.iter().map(|term| term.affine.map().indices());
                self.composed = indices.fold(self.composed, usize::saturating_add);
                if self.composed > MOST_COMPOSED {
                    let what = "indices of chains of linear layers as one map each";
                    return Err(Error::Limit { what, limit: MOST_COMPOSED, found: self.composed });
                }
                pending.names.push(node.name.clone());
                if weighted {
                    pending.terms.iter_mut().for_each(|term| term.nodes.push(index));
                }
                return Ok(Form::Linear(pending));
            }
        }
        if !weighted && !self.is_shared(input) {
            return Ok(self.client(index, Some(affine.map().clone())));
        }
        let (source, nodes) = (self.clear(input), if weighted { vec![index] } else { vec![] });
        let term = CutTerm { source, sums: None, affine, nodes, mean: None };
        Ok(Form::Linear(Pending { names: vec![node.name.clone()], terms: vec![term] }))
    }

    /// Sums of linear maps are one segment; what the client has in the clear it adds itself.
    fn add(&mut self, index: usize) -> Result<Form, PlanError> {
        let node = &self.graph.nodes()[index];
        let inputs = [node.inputs[0], node.inputs[1]];
        let is_linear = inputs.map(|input| matches!(self.forms[input.index()], Form::Linear(_)));
        if is_linear != [true; 2] && !inputs.iter().any(|&input| self.is_shared(input)) {
            return Ok(self.client(index, None));
        }
        let numbers = |source| PlanError::Numbers { name: node.name.clone(), source };
        let [a, b] = inputs.map(|input| self.pending(input).map_err(numbers));
        let (a, b) = (a?, b?);
        if a.terms.len() + b.terms.len() > MOST_TERMS {
            return Ok(self.client(index, None));
        }
        let mut names = [a.names, b.names].concat();
        if is_linear != [true; 2] {
            names.push(node.name.clone());
        }
        Ok(Form::Linear(Pending { names, terms: [a.terms, b.terms].concat() }))
    }
}

impl Pending {
    /// The next layer after all terms; its bias counts once.
    fn then(&self, next: &Affine) -> Result<Self, Error> {
        let unbiased = next.without_bias();
        let term = |(at, term): (usize, &CutTerm)| {
            let affine = term.affine.then(if at == 0 { next } else { &unbiased })?;
            Ok(CutTerm { affine, ..term.clone() })
        };
        let terms = self.terms.iter().enumerate().map(term).collect::<Result<_, Error>>()?;
        Ok(Self { names: self.names.clone(), terms })
    }

    /// The next layer after terms that only move and average elements, as sums that it reads in their place.
    fn moved(&self, next: &Affine) -> Option<Self> {
        let unbiased = next.without_bias();
        let term = |(at, term): (usize, &CutTerm)| {
            if term.sums.is_some() || !term.nodes.is_empty() {
                return None;
            }
            let affine = if at == 0 { next } else { &unbiased }.of_sums(&term.affine)?;
            Some(CutTerm { sums: Some(term.affine.map().clone()), affine, ..term.clone() })
        };
        let terms = self.terms.iter().enumerate().map(term).collect::<Option<_>>()?;
        Some(Self { names: self.names.clone(), terms })
    }

    /// A mean after all terms, as sums of their inputs.
    fn pooled(&self, mean: &Affine) -> Option<Self> {
        let term = |term: &CutTerm| {
            if term.sums.is_some() {
                return None;
            }
            let (sums, affine) = term.affine.pooled(mean)?;
            let mean = Some(mean.map().clone());
            Some(CutTerm { sums: Some(sums), affine, mean, ..term.clone() })
        };
        let terms = self.terms.iter().map(term).collect::<Option<_>>()?;
        Some(Self { names: self.names.clone(), terms })
    }
}
