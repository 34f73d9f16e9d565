use std::fmt;

use gelu_layers::{Linear, Parameters};
use gelu_tensor::Shape;

use crate::{Model, WeightTensor, Weights};

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
        }
    }
}

/// Every tensor that does not fit the model. The model was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct LoadError {
    /// The tensors, by name; never empty.
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
    /// Sets all parameters from `weights`. Every tensor must have its place, its shape and finite values, and every
    /// parameter its tensor.
    ///
    /// # Errors
    /// [`LoadError`] with all tensors that do not fit; the model is then unchanged.
    pub fn load(&mut self, weights: &Weights) -> Result<LoadReport, LoadError> {
        let (report, mut problems) = self.compare(weights);
        let missing = report.missing.iter().cloned();
        problems.extend(missing.map(|(name, expected)| LoadProblem::Missing { name, expected }));
        let unused = report.unused.iter().cloned();
        problems.extend(unused.map(|(name, found)| LoadProblem::Unused { name, found }));
        self.apply(weights, report, problems)
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
        for (name, shape) in &expected {
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
            weights.tensors.iter().filter(|(name, _)| expected.iter().all(|(known, _)| known != *name));
        report.unused = unused.map(|(name, tensor)| (name.clone(), tensor.shape().clone())).collect();
        (report, problems)
    }

    fn apply(
        &mut self,
        weights: &Weights,
        report: LoadReport,
        problems: Vec<LoadProblem>,
    ) -> Result<LoadReport, LoadError> {
        if !problems.is_empty() {
            return Err(LoadError { problems });
        }
        for (name, layer) in self.layers_mut() {
            if let Some(parameters) = layer.parameters_mut() {
                set_parameters(parameters, name, weights);
            }
        }
        Ok(report)
    }
}

/// Names and PyTorch shapes of a layer's parameters.
fn tensors_of(name: &str, layer: &dyn Linear) -> Vec<(String, Shape)> {
    layer.weight_shape().map_or_else(Vec::new, |weight| {
        let bias = Shape::from([weight.dims()[0]]);
        vec![(format!("{name}.weight"), weight), (format!("{name}.bias"), bias)]
    })
}

/// Copies `name.weight` and `name.bias`, as far as they are there; their shapes were compared before.
pub(crate) fn set_parameters(parameters: &mut Parameters, name: &str, weights: &Weights) {
    let data = |kind| weights.tensors.get(&format!("{name}.{kind}")).map_or(&[][..], WeightTensor::data);
    parameters.weight.iter_mut().zip(data("weight")).for_each(|(to, &from)| *to = from);
    parameters.bias.iter_mut().zip(data("bias")).for_each(|(to, &from)| *to = from);
}
