//! A network: its graph with weights, and what is known about its numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use gelu_layers::{ClientOp, Initializer, LinearLayer, Mode, softmax};
use gelu_tensor::{Error, Format, Shape};
use ndarray::{Array2, ArrayView, Dimension};
use rand::Rng;

use crate::inputs::flat;
use crate::{Graph, GraphError, Interface, ModelInfo, Node, Op, Ranges, ValueId};

/// How layers read values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As they are.
    Exact,
    /// Rounded to the [formats](Model::formats) that they were trained to.
    Rounded,
}

/// A network with its weights, made by a [`ModelBuilder`](crate::ModelBuilder) or of a [`Graph`].
///
/// ```
/// use gelu_layers::Initializer;
/// use gelu_models::zoo;
/// use gelu_models::plan::{Deployment, Quantization};
/// use ndarray::Array4;
/// use rand::{SeedableRng, rngs::ChaCha8Rng};
///
/// let mut model = zoo::lenet5()?;
/// model.initialize(Initializer::KaimingUniform, &mut ChaCha8Rng::seed_from_u64(1)); // or `load` trained weights
/// let images = Array4::from_elem((2, 1, 28, 28), 0.5_f32);
/// model.calibrate(images.view())?;
/// let floats = model.logits(images.view())?;
///
/// // What a server would run on ciphertexts gives nearly the same, in fixed point.
/// let deployment = Deployment { batch: 2, ..Deployment::default() };
/// let program = model.compile(&Quantization::default(), &deployment)?;
/// assert_eq!(program.plan().segments().len(), 5);
/// let integers = program.run_clear(images.view())?;
/// assert!((integers.logits[[0, 0]] - f64::from(floats[[0, 0]])).abs() < 0.05);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Its methods stand where they belong: loading in `load.rs`, ranges in `calibrate.rs`, input normalization in
/// `normalize.rs`, plans in `plan/program.rs`.
#[derive(Clone, Debug)]
pub struct Model {
    graph: Arc<Graph>,
    /// Of every node that is linear.
    layers: Vec<Option<LinearLayer>>,
    ranges: Option<Ranges>,
    layer_bits: BTreeMap<String, u32>,
    formats: BTreeMap<String, Format>,
    info: ModelInfo,
}

impl Model {
    /// Returns the network of a graph, with all weights zero.
    ///
    /// # Errors
    /// [`GraphError::Node`] when a layer is too large.
    pub fn new(graph: Graph) -> Result<Self, GraphError> {
        let layer = |node: &Node| {
            let Op::Linear(config) = &node.op else { return Ok(None) };
            let input = graph.shape(node.inputs[0]);
            LinearLayer::new(config.clone(), input).map(Some).map_err(|source| GraphError::Node {
                name: node.name.clone(),
                inputs: vec![input.clone()],
                source,
            })
        };
        let layers = graph.nodes().iter().map(layer).collect::<Result<_, _>>()?;
        let (layer_bits, formats, info) = (BTreeMap::new(), BTreeMap::new(), ModelInfo::default());
        Ok(Self { layers, graph: Arc::new(graph), ranges: None, layer_bits, formats, info })
    }

    /// Returns the network without its weights.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Returns the shape of one input image.
    pub fn input_shape(&self) -> &Shape {
        self.graph.input()
    }

    /// Returns the shape of one output.
    pub fn output_shape(&self) -> &Shape {
        self.graph.shape(self.graph.output())
    }

    /// Returns the layer of a linear node.
    pub fn layer(&self, node: usize) -> Option<&LinearLayer> {
        self.layers.get(node)?.as_ref()
    }

    /// The linear layer of a node, to be changed in place.
    pub(crate) fn layer_mut(&mut self, node: usize) -> Option<&mut LinearLayer> {
        self.layers.get_mut(node)?.as_mut()
    }

    /// Returns the linear layers with their names, in order.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &LinearLayer)> {
        let named = self.graph.nodes().iter().zip(&self.layers);
        named.filter_map(|(node, layer)| Some((node.name.as_str(), layer.as_ref()?)))
    }

    /// Returns the linear layers with their names, to be changed in place.
    pub fn layers_mut(&mut self) -> impl Iterator<Item = (&str, &mut LinearLayer)> {
        let named = self.graph.nodes().iter().zip(&mut self.layers);
        named.filter_map(|(node, layer)| Some((node.name.as_str(), layer.as_mut()?)))
    }

    /// Returns the number of weights and biases that are trained.
    pub fn parameter_count(&self) -> usize {
        self.layers().map(|(_, layer)| layer.parameters().count()).sum()
    }

    /// Returns whether the last node is a softmax, that is, the outputs are probabilities of classes.
    pub fn ends_in_softmax(&self) -> bool {
        self.graph.ends_in_softmax()
    }

    /// Returns the magnitudes that were calibrated or loaded.
    pub fn ranges(&self) -> Option<&Ranges> {
        self.ranges.as_ref()
    }

    /// Sets the magnitudes that plans start from.
    pub fn set_ranges(&mut self, ranges: Option<Ranges>) {
        self.ranges = ranges;
    }

    /// Returns the weight bits that single layers were tuned to, by name.
    pub fn layer_bits(&self) -> &BTreeMap<String, u32> {
        &self.layer_bits
    }

    /// Sets the weight bits of single layers.
    pub fn set_layer_bits(&mut self, layer_bits: BTreeMap<String, u32>) {
        self.layer_bits = layer_bits;
    }

    /// Returns the formats that values were trained to, by the names of the nodes that make them: those to which plans round
    /// them, where layers read them.
    pub fn formats(&self) -> &BTreeMap<String, Format> {
        &self.formats
    }

    /// Sets the formats of values, by the names of the nodes that make them.
    pub fn set_formats(&mut self, formats: BTreeMap<String, Format>) {
        self.formats = formats;
    }

    /// The format that a value was trained to.
    pub(crate) fn format(&self, value: ValueId) -> Option<Format> {
        self.formats.get(self.graph.name(value)).copied()
    }

    /// A value as layers read it that round it.
    pub(crate) fn rounded<'a>(&self, value: ValueId, x: &'a Array2<f32>) -> Cow<'a, Array2<f32>> {
        match self.format(value) {
            Some(format) => Cow::Owned(x.mapv(|x| format.nearest(f64::from(x)) as f32)),
            None => Cow::Borrowed(x),
        }
    }

    /// Returns how inputs are prepared, what the classes are called and where the model comes from.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Returns what someone with inputs for the model has to know of it.
    pub fn interface(&self) -> Interface {
        let outputs = self.graph.shape(self.graph.logits()).elements();
        Interface { input: self.input_shape().clone(), outputs, info: self.info.clone() }
    }

    /// Returns the same, to be changed in place.
    pub fn info_mut(&mut self) -> &mut ModelInfo {
        &mut self.info
    }

    /// Sets all parameters to initial values, with randomness from `rng`.
    pub fn initialize<R: Rng + ?Sized>(&mut self, initializer: Initializer, rng: &mut R) {
        self.layers_mut().for_each(|(_, layer)| initializer.fill(layer, rng));
    }

    /// Returns the outputs before the final softmax, `[inputs, classes]`, for a batch `x` of `[inputs, elements]` or of the
    /// input's shape, such as `[inputs, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` is neither; [`Error::Count`] when the graph has a function of the client's own.
    pub fn logits<D: Dimension>(&self, x: ArrayView<'_, f32, D>) -> Result<Array2<f32>, Error> {
        self.run(x, Mode::Inference, Reading::Exact, |_, _| ())
    }

    /// Returns the outputs, `[inputs, classes]`, for a batch `x` in either form that [`logits`](Self::logits) takes.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    pub fn forward<D: Dimension>(&self, x: ArrayView<'_, f32, D>) -> Result<Array2<f32>, Error> {
        let mut logits = self.logits(x)?;
        if self.ends_in_softmax() {
            for mut row in logits.outer_iter_mut() {
                row.as_slice_mut().into_iter().for_each(softmax);
            }
        }
        Ok(logits)
    }

    /// Runs all nodes but the final softmax and shows `see` the input and the output of each.
    pub(crate) fn run<D: Dimension>(
        &self,
        x: ArrayView<'_, f32, D>,
        mode: Mode,
        reading: Reading,
        mut see: impl FnMut(ValueId, &Array2<f32>),
    ) -> Result<Array2<f32>, Error> {
        let x = flat(x, self.input_shape())?;
        let last_uses = self.graph.last_uses();
        let mut values: Vec<Option<Array2<f32>>> = vec![None; last_uses.len()];
        values[0] = Some(x.into_owned());
        see(ValueId::INPUT, values[0].get_or_insert_default());
        for (place, node) in self.graph.nodes().iter().enumerate() {
            let output = ValueId::of_node(place);
            if output == self.graph.output() && self.ends_in_softmax() {
                break;
            }
            let inputs: Vec<&Array2<f32>> =
                node.inputs.iter().filter_map(|input| values[input.index()].as_ref()).collect();
            let value = self.node(place, node, &inputs, (mode, reading))?;
            see(output, &value);
            values[output.index()] = Some(value);
            for input in &node.inputs {
                if last_uses[input.index()] == place {
                    values[input.index()] = None;
                }
            }
        }
        Ok(values[self.graph.logits().index()].take().unwrap_or_default())
    }

    fn node(
        &self,
        place: usize,
        node: &Node,
        inputs: &[&Array2<f32>],
        (mode, reading): (Mode, Reading),
    ) -> Result<Array2<f32>, Error> {
        let images = inputs[0].nrows();
        match (&node.op, self.layer(place)) {
            (Op::Linear(_), Some(layer)) => {
                let x = match reading {
                    Reading::Exact => Cow::Borrowed(inputs[0]),
                    Reading::Rounded => self.rounded(node.inputs[0], inputs[0]),
                };
                layer.forward(x.view(), mode)
            }
            (Op::Client(op), _) => {
                let slices: Vec<&[f32]> = inputs.iter().filter_map(|x| x.as_slice()).collect();
                let values = op.forward(&self.input_shapes(node), &slices)?;
                match images {
                    0 => Ok(Array2::zeros((0, self.graph.shape(ValueId::of_node(place)).elements()))),
                    _ => matrix(images, values),
                }
            }
            (Op::Concat, _) => {
                let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
                let joined = ndarray::concatenate(ndarray::Axis(1), &views).map_err(|_| Error::Count {
                    what: "images of a concatenation",
                    expected: images,
                    found: 0,
                })?;
                // It comes column by column, and activations take row by row.
                Ok(joined.as_standard_layout().into_owned())
            }
            _ => Ok(inputs[0] + inputs[1]),
        }
    }

    /// The shapes of a node's inputs.
    pub(crate) fn input_shapes(&self, node: &Node) -> Vec<&Shape> {
        node.inputs.iter().map(|&input| self.graph.shape(input)).collect()
    }

    /// Returns whether the network has a function that only a client has.
    pub(crate) fn has_client_functions(&self) -> bool {
        let own = |node: &Node| matches!(node.op, Op::Client(ClientOp::Function { .. }));
        self.graph.nodes().iter().any(own)
    }
}

/// Values of a batch as a matrix, one row an image.
pub(crate) fn matrix<F>(images: usize, values: Vec<F>) -> Result<Array2<F>, Error> {
    let (columns, found) = (values.len() / images.max(1), values.len());
    Array2::from_shape_vec((images, columns), values).map_err(|_| Error::Count {
        what: "values of whole images",
        expected: images * columns,
        found,
    })
}
