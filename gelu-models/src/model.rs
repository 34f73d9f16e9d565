use gelu_layers::{Activation, Initializer, Linear, Parameters};
use gelu_tensor::{Error, Shape};
use ndarray::{Array2, ArrayView2};
use rand::Rng;

use crate::{WeightTensor, Weights};

/// One step of a network.
#[derive(Debug)]
pub enum Node {
    /// An affine map, which the server can compute on ciphertexts.
    Linear {
        /// Its name, unique in the model; the prefix of its weights' names.
        name: String,
        /// The layer.
        layer: Box<dyn Linear>,
    },
    /// A nonlinear step, which only the owner of the data can compute.
    Activation(Activation),
}

/// A chain of nodes whose shapes fit, made by a [`ModelBuilder`](crate::ModelBuilder).
#[derive(Debug)]
pub struct Model {
    input: Shape,
    output: Shape,
    nodes: Vec<Node>,
}

impl Model {
    pub(crate) fn new(input: Shape, output: Shape, nodes: Vec<Node>) -> Self {
        Self { input, output, nodes }
    }

    /// The nodes, from input to output.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Shape of one input image.
    pub fn input_shape(&self) -> &Shape {
        &self.input
    }

    /// Shape of one output.
    pub fn output_shape(&self) -> &Shape {
        &self.output
    }

    /// The linear layers with their names, in order.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &dyn Linear)> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Linear { name, layer } => Some((name.as_str(), layer.as_ref())),
            Node::Activation(_) => None,
        })
    }

    pub(crate) fn layers_mut(&mut self) -> impl Iterator<Item = (&str, &mut Box<dyn Linear>)> {
        self.nodes.iter_mut().filter_map(|node| match node {
            Node::Linear { name, layer } => Some((name.as_str(), layer)),
            Node::Activation(_) => None,
        })
    }

    pub(crate) fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The parameters of the layers that have any, in order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Parameters> {
        self.layers().filter_map(|(_, layer)| layer.parameters())
    }

    pub(crate) fn parameters_mut(&mut self) -> impl Iterator<Item = &mut Parameters> {
        self.layers_mut().filter_map(|(_, layer)| layer.parameters_mut())
    }

    /// How many numbers are trained.
    pub fn parameter_count(&self) -> usize {
        self.parameters().map(|parameters| parameters.weight.len() + parameters.bias.len()).sum()
    }

    /// Whether the last node is a softmax, that is, the outputs are probabilities of classes.
    pub fn ends_in_softmax(&self) -> bool {
        matches!(self.nodes.last(), Some(Node::Activation(Activation::Softmax)))
    }

    /// The nodes without the final softmax, if there is one.
    pub(crate) fn nodes_to_logits(&self) -> &[Node] {
        &self.nodes[..self.nodes.len() - usize::from(self.ends_in_softmax())]
    }

    /// Sets all parameters to initial values, with randomness from `rng`.
    pub fn initialise<R: Rng + ?Sized>(&mut self, initializer: Initializer, rng: &mut R) {
        self.layers_mut().for_each(|(_, layer)| initializer.fill(layer.as_mut(), rng));
    }

    /// The outputs before the final softmax, `[images, classes]`, for a batch `x` of `[images, elements]`.
    ///
    /// # Errors
    /// [`Error::Count`] when `x` has another number of columns than an input image has elements.
    pub fn logits(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        self.run(x, |_, _| ())
    }

    /// The outputs, `[images, classes]`, for a batch `x` of `[images, elements]`.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        let logits = self.logits(x)?;
        Ok(if self.ends_in_softmax() { Activation::Softmax.forward(logits.view()) } else { logits })
    }

    /// Runs all nodes but the final softmax and shows `see` the output of each.
    pub(crate) fn run(
        &self,
        x: ArrayView2<'_, f32>,
        mut see: impl FnMut(&Node, &Array2<f32>),
    ) -> Result<Array2<f32>, Error> {
        if x.ncols() != self.input.elements() {
            let what = "elements of an input image";
            return Err(Error::Count { what, expected: self.input.elements(), found: x.ncols() });
        }
        let mut value = x.to_owned();
        for node in self.nodes_to_logits() {
            value = node.forward(value.view())?;
            see(node, &value);
        }
        Ok(value)
    }

    /// All parameters, with PyTorch's names: `conv1.weight`, `conv1.bias`.
    pub fn weights(&self) -> Weights {
        self.named(self.parameters())
    }

    /// `parameters`, in the order of [`parameters`](Self::parameters), under the names of this model's.
    pub(crate) fn named<'a>(&self, parameters: impl IntoIterator<Item = &'a Parameters>) -> Weights {
        let mut weights = Weights::default();
        let weighted = self.layers().filter_map(|(name, layer)| Some((name, layer.weight_shape()?)));
        for ((name, shape), parameters) in weighted.zip(parameters) {
            let bias = Shape::from([parameters.bias.len()]);
            let tensors = [
                ("weight", WeightTensor::new(shape, parameters.weight.iter().copied().collect())),
                ("bias", WeightTensor::new(bias, parameters.bias.to_vec())),
            ];
            for (kind, tensor) in tensors {
                // The element counts are the layer's own, so that there is no error to drop.
                weights.tensors.extend(tensor.ok().map(|tensor| (format!("{name}.{kind}"), tensor)));
            }
        }
        weights
    }
}

impl Node {
    pub(crate) fn forward(&self, x: ArrayView2<'_, f32>) -> Result<Array2<f32>, Error> {
        match self {
            Self::Linear { layer, .. } => layer.forward(x),
            Self::Activation(activation) => Ok(activation.forward(x)),
        }
    }
}
