//! Weights into a model and out of it.

use std::fmt;

use gelu_layers::{LinearLayer, Parameters};
use gelu_tensor::Shape;
use serde::de::DeserializeOwned;

use crate::{Graph, Model, ModelInfo, Ranges, WeightTensor, Weights};

/// One tensor that does not fit the model.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadProblem {
    /// The model needs a tensor that is not there.
    Missing {
        /// Its name.
        name: String,
        /// The shape the model needs.
        expected: Shape,
    },
    /// A tensor has no place in the model.
    Unused {
        /// Its name.
        name: String,
        /// Its shape.
        found: Shape,
    },
    /// A tensor has another shape than the model needs.
    Shape {
        /// Its name.
        name: String,
        /// The shape the model needs.
        expected: Shape,
        /// Its shape.
        found: Shape,
    },
    /// A tensor holds NaN or infinity.
    NotFinite {
        /// Its name.
        name: String,
        /// How many of its elements are not finite.
        found: usize,
        /// How many elements it has.
        elements: usize,
    },
    /// Metadata that do not say what they should.
    Metadata {
        /// Their key.
        key: &'static str,
        /// What they should hold.
        expected: &'static str,
        /// What is wrong.
        found: String,
    },
    /// The weights come with the graph of another network.
    Graph,
}

impl fmt::Display for LoadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, expected } => {
                write!(f, "{name}: expected {expected}, found no such tensor")
            }
            Self::Unused { name, found } => write!(f, "{name}: the model has no such tensor, found {found}"),
            Self::Shape { name, expected, found } => write!(f, "{name}: expected {expected}, found {found}"),
            Self::NotFinite { name, found, elements } => {
                write!(f, "{name}: expected finite numbers, found {found} of {elements} that are not")
            }
            Self::Metadata { key, expected, found } => {
                write!(f, "metadata {key}: expected {expected}, found {found}")
            }
            Self::Graph => write!(
                f,
                "metadata {}: expected the graph of this network, found another; make the model from the weights \
                 alone",
                Graph::METADATA_KEY
            ),
        }
    }
}

/// All that does not fit the model. The model was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// What does not fit; never empty.
    pub problems: Vec<LoadProblem>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the weights do not fit the model:")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

/// What loading did, tensor by tensor. Prints as a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Tensors that are now in the model, with their shapes.
    pub applied: Vec<(String, Shape)>,
    /// Tensors of the model that kept their values, with the shapes expected.
    pub missing: Vec<(String, Shape)>,
    /// Tensors that the model has no place for, with their shapes.
    pub unused: Vec<(String, Shape)>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = || {
            [("applied", &self.applied), ("missing", &self.missing), ("unused", &self.unused)]
                .into_iter()
                .flat_map(|(state, tensors)| tensors.iter().map(move |(name, shape)| (name, shape, state)))
        };
        let width = rows().map(|(name, ..)| name.chars().count()).fold("tensor".len(), usize::max);
        write!(f, "{:width$}  {:14}  state", "tensor", "shape")?;
        for (name, shape, state) in rows() {
            write!(f, "\n{name:width$}  {:14}  {state}", shape.to_string())?;
        }
        Ok(())
    }
}

impl Model {
    /// Returns the model of a file that holds one: graph, weights, ranges, tuned bits and [`ModelInfo`].
    ///
    /// # Errors
    /// [`LoadError`] with all that is missing or does not fit.
    pub fn from_weights(weights: &Weights) -> Result<Self, LoadError> {
        let refused = |problem| LoadError { problems: vec![problem] };
        let no_graph = |found: String| {
            refused(LoadProblem::Metadata { key: Graph::METADATA_KEY, expected: A_GRAPH, found })
        };
        let graph = metadata::<Graph>(weights, Graph::METADATA_KEY, A_GRAPH).map_err(refused)?;
        let graph = graph.ok_or_else(|| no_graph("none".to_owned()))?;
        let mut model = Self::new(graph).map_err(|error| no_graph(error.to_string()))?;
        model.fill(weights, vec![])?;
        Ok(model)
    }

    /// Sets all parameters from `weights`, and ranges, tuned bits and [`ModelInfo`] where its metadata have some. Every
    /// tensor must have its place, its shape and finite values, every parameter its tensor, and a graph in the metadata
    /// must be the model's.
    ///
    /// # Errors
    /// [`LoadError`] with all that does not fit; the model is then unchanged.
    pub fn load(&mut self, weights: &Weights) -> Result<LoadReport, LoadError> {
        let graph = metadata::<Graph>(weights, Graph::METADATA_KEY, A_GRAPH);
        let problem = match graph {
            Ok(Some(graph)) if graph != **self.graph() => Some(LoadProblem::Graph),
            Ok(_) => None,
            Err(problem) => Some(problem),
        };
        self.fill(weights, problem.into_iter().collect())
    }

    /// [`load`](Self::load) where the graph is the model's, or was found to have `graph_problems`.
    fn fill(&mut self, weights: &Weights, graph_problems: Vec<LoadProblem>) -> Result<LoadReport, LoadError> {
        let (report, mut problems) = self.compare(weights);
        let missing = report.missing.iter().cloned();
        problems.extend(missing.map(|(name, expected)| LoadProblem::Missing { name, expected }));
        let unused = report.unused.iter().cloned();
        problems.extend(unused.map(|(name, found)| LoadProblem::Unused { name, found }));
        problems.extend(graph_problems);
        let info = self.info_of(weights).map_err(|problem| problems.push(problem));
        let report = self.apply(weights, report, problems)?;
        if let Ok(info) = info {
            *self.info_mut() = info;
        }
        Ok(report)
    }

    /// Sets the parameters that `weights` has tensors for and keeps the others, for instance to train on from another
    /// model's convolutions. The report lists what is missing and unused.
    ///
    /// # Errors
    /// [`LoadError`] with all tensors of a wrong shape or with values that are not finite; the model is then
    /// unchanged.
    pub fn load_partial(&mut self, weights: &Weights) -> Result<LoadReport, LoadError> {
        let (report, problems) = self.compare(weights);
        self.apply(weights, report, problems)
    }

    /// What would be applied, and the tensors whose contents forbid it.
    fn compare(&self, weights: &Weights) -> (LoadReport, Vec<LoadProblem>) {
        let mut report = LoadReport::default();
        let mut problems = Vec::new();
        let expected: Vec<_> = self.layers().flat_map(|(name, layer)| tensors_of(name, layer)).collect();
        for (name, shape, _) in &expected {
            let Some(tensor) = weights.tensors.get(name) else {
                report.missing.push((name.clone(), shape.clone()));
                continue;
            };
            let not_finite = tensor.data().iter().filter(|value| !value.is_finite()).count();
            if tensor.shape() != shape {
                let [expected, found] = [shape, tensor.shape()].map(Clone::clone);
                problems.push(LoadProblem::Shape { name: name.clone(), expected, found });
            } else if not_finite > 0 {
                let elements = tensor.data().len();
                problems.push(LoadProblem::NotFinite { name: name.clone(), found: not_finite, elements });
            } else {
                report.applied.push((name.clone(), shape.clone()));
            }
        }
        let unused =
            weights.tensors.iter().filter(|(name, _)| expected.iter().all(|(known, ..)| known != *name));
        report.unused = unused.map(|(name, tensor)| (name.clone(), tensor.shape().clone())).collect();
        (report, problems)
    }

    fn apply(
        &mut self,
        weights: &Weights,
        report: LoadReport,
        mut problems: Vec<LoadProblem>,
    ) -> Result<LoadReport, LoadError> {
        let mut noted = |problem| problems.push(problem);
        let ranges = metadata(weights, Ranges::METADATA_KEY, NUMBERS).map_err(&mut noted).ok().flatten();
        let layer_bits = metadata(weights, LAYER_BITS, NUMBERS).map_err(&mut noted).ok().flatten();
        let formats = metadata(weights, FORMATS, A_FORMAT).map_err(&mut noted).ok().flatten();
        if !problems.is_empty() {
            return Err(LoadError { problems });
        }
        for (name, layer) in self.layers_mut() {
            for (name, _, part) in tensors_of(name, layer) {
                if let Some(tensor) = weights.tensors.get(&name) {
                    part.of(layer).copy_from_slice(tensor.data());
                }
            }
        }
        if ranges.is_some() {
            self.set_ranges(ranges);
        }
        if let Some(layer_bits) = layer_bits {
            self.set_layer_bits(layer_bits);
        }
        if let Some(formats) = formats {
            self.set_formats(formats);
        }
        Ok(report)
    }

    /// What the metadata of a file say, and for the rest what the model knows.
    fn info_of(&self, weights: &Weights) -> Result<ModelInfo, LoadProblem> {
        let mut info = self.info().clone();
        if let Some(preprocessing) = metadata(weights, PREPROCESSING, "the preparation of inputs")? {
            info.preprocessing = Some(preprocessing);
        }
        if let Some(classes) = metadata(weights, CLASSES, "names of classes")? {
            info.classes = classes;
        }
        let structured =
            [Graph::METADATA_KEY, PREPROCESSING, CLASSES, LAYER_BITS, FORMATS, Ranges::METADATA_KEY];
        let text = weights.metadata.iter().filter(|(key, _)| !structured.contains(&key.as_str()));
        info.provenance.extend(text.map(|(key, value)| (key.clone(), value.clone())));
        let outputs = self.graph().shape(self.graph().logits()).elements();
        match info.fault(self.input_shape(), outputs) {
            Some(found) => {
                let expected = "what fits the network";
                Err(LoadProblem::Metadata { key: PREPROCESSING, expected, found })
            }
            None => Ok(info),
        }
    }

    /// Returns all parameters under PyTorch's names (`conv1.weight`, `bn1.running_mean`), and as metadata the graph and all
    /// that [`from_weights`](Self::from_weights) takes besides.
    pub fn weights(&self) -> Weights {
        let mut weights = Weights::default();
        for (name, layer) in self.layers() {
            let mut layer = layer.clone();
            for (name, shape, part) in tensors_of(name, &layer.clone()) {
                // The element counts are the layer's own, so that there is no error to drop.
                let tensor = WeightTensor::new(shape, part.of(&mut layer).to_vec());
                weights.tensors.extend(tensor.ok().map(|tensor| (name, tensor)));
            }
        }
        weights.metadata.clone_from(&self.info().provenance);
        // All of it is plain data, which JSON can always hold.
        let mut keep = |key: &str, json: serde_json::Result<String>| {
            weights.metadata.extend(json.ok().map(|json| (key.to_owned(), json)));
        };
        if let Some(ranges) = self.ranges() {
            keep(Ranges::METADATA_KEY, serde_json::to_string(ranges));
        }
        if !self.layer_bits().is_empty() {
            keep(LAYER_BITS, serde_json::to_string(self.layer_bits()));
        }
        if !self.formats().is_empty() {
            keep(FORMATS, serde_json::to_string(self.formats()));
        }
        keep(Graph::METADATA_KEY, serde_json::to_string(&**self.graph()));
        if let Some(preprocessing) = &self.info().preprocessing {
            keep(PREPROCESSING, serde_json::to_string(preprocessing));
        }
        if !self.info().classes.is_empty() {
            keep(CLASSES, serde_json::to_string(&self.info().classes));
        }
        weights
    }

    /// `parameters`, in the order of the layers that have any, under the names of this model's.
    pub(crate) fn named<'a>(&self, parameters: impl IntoIterator<Item = &'a Parameters>) -> Weights {
        let mut weights = Weights::default();
        let trained = self.layers().filter(|(_, layer)| layer.has_parameters());
        for ((name, layer), parameters) in trained.zip(parameters) {
            for (name, shape, part) in tensors_of(name, layer) {
                let data = match part {
                    Part::Weight => &parameters.weight,
                    Part::Bias => &parameters.bias,
                    Part::RunningMean | Part::RunningVariance => continue,
                };
                let tensor = WeightTensor::new(shape, data.clone());
                weights.tensors.extend(tensor.ok().map(|tensor| (name, tensor)));
            }
        }
        weights
    }
}

const A_GRAPH: &str = "the graph of a network";
const PREPROCESSING: &str = "gelu.preprocessing";
const CLASSES: &str = "gelu.classes";
const LAYER_BITS: &str = crate::plan::Quantization::LAYER_BITS_KEY;
const FORMATS: &str = crate::plan::Quantization::FORMATS_KEY;
const NUMBERS: &str = "a JSON object of numbers by the names of nodes";
const A_FORMAT: &str = "a JSON object of scales and bounds by the names of nodes";

fn metadata<T: DeserializeOwned>(
    weights: &Weights,
    key: &'static str,
    expected: &'static str,
) -> Result<Option<T>, LoadProblem> {
    let json = weights.metadata.get(key).map(|json| serde_json::from_str(json));
    json.transpose().map_err(|error| LoadProblem::Metadata { key, expected, found: error.to_string() })
}

/// One of a layer's tensors.
#[derive(Clone, Copy)]
enum Part {
    Weight,
    Bias,
    RunningMean,
    RunningVariance,
}

impl Part {
    fn of(self, layer: &mut LinearLayer) -> &mut [f32] {
        match self {
            Self::Weight => &mut layer.parameters_mut().weight,
            Self::Bias => &mut layer.parameters_mut().bias,
            Self::RunningMean => layer.statistics_mut().map_or(&mut [], |statistics| &mut statistics.mean),
            Self::RunningVariance => {
                layer.statistics_mut().map_or(&mut [], |statistics| &mut statistics.variance)
            }
        }
    }
}

/// Names and PyTorch shapes of a layer's tensors.
fn tensors_of(name: &str, layer: &LinearLayer) -> Vec<(String, Shape, Part)> {
    let Some(weight) = layer.weight_shape() else { return vec![] };
    let vector = Shape::from([weight.dims()[0]]);
    let mut tensors = vec![(format!("{name}.weight"), weight, Part::Weight)];
    if !layer.parameters().bias.is_empty() {
        tensors.push((format!("{name}.bias"), vector.clone(), Part::Bias));
    }
    if layer.statistics().is_some() {
        tensors.push((format!("{name}.running_mean"), vector.clone(), Part::RunningMean));
        tensors.push((format!("{name}.running_var"), vector, Part::RunningVariance));
    }
    tensors
}
