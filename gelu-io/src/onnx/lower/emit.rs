//! Layers of the graph to be, one after another, and how large they are in all.

use gelu_layers::{ClientOp, LinearConfig};
use gelu_models::Op;
use gelu_tensor::Shape;

use super::{Fate, Layer, Lowering, Numbers, Stop, Tensor, because, padding_stays};

/// Elements of all values of a network, and indices of all its maps: what a graph may have, so that no weights are made
/// up for one that would be refused.
pub(super) const MOST_SIZE: usize = 1 << 25;

impl Lowering<'_> {
    /// The vector that a tensor is read as, and what is left to be done to it.
    pub(super) fn vector(&mut self, tensor: Tensor) -> Result<Tensor, Stop> {
        let shape = self.shape_of(tensor.id).clone();
        if shape.dims().len() == 1 {
            return Ok(tensor);
        }
        if tensor.padding != [[0; 2]; 2] {
            return Err(padding_stays());
        }
        let id = match self.flattened.get(&tensor.id) {
            Some(&id) => id,
            None => {
                let (name, op) = (self.names.numbered("flatten"), Op::Linear(LinearConfig::Flatten));
                let id = self.emit(name, op, vec![tensor.id], Numbers::default)?;
                self.flattened.insert(tensor.id, id);
                id
            }
        };
        let affine = tensor.affine.map(|affine| affine.spread(shape.elements() / shape.dims()[0].max(1)));
        Ok(Tensor { id, affine, ..tensor })
    }

    /// Adds a layer. Its weights are made once it is known that it is not too large.
    pub(super) fn emit(
        &mut self,
        name: String,
        op: Op,
        inputs: Vec<usize>,
        numbers: impl FnOnce() -> Numbers,
    ) -> Result<usize, Stop> {
        if inputs.iter().any(|&id| matches!(self.client_op(id), Some(ClientOp::Softmax))) {
            let advice = "export the model up to its softmax";
            return Err(because("it follows a softmax, which must be the last node", advice));
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|&id| self.shape_of(id)).collect();
        let (shape, indices) = match &op {
            Op::Linear(config) => config.output(shapes[0])?,
            Op::Add => (shapes[0].clone(), 0),
            Op::Concat => {
                let channels = shapes.iter().map(|shape| shape.dims()[0]).fold(0, usize::saturating_add);
                (Shape::from(&[&[channels], &shapes[0].dims()[1..]].concat()[..]), 0)
            }
            Op::Client(op) => (op.output_shape(&shapes)?, 0),
        };
        for (size, more) in self.sizes.iter_mut().zip([shape.elements(), indices]) {
            *size = size.saturating_add(more);
        }
        if self.sizes.iter().any(|&size| size > MOST_SIZE) {
            self.too_large.get_or_insert(self.at);
        }
        for &id in &inputs {
            if let Some(layer) = id.checked_sub(1).and_then(|at| self.layers.get_mut(at)) {
                layer.readers += 1;
            }
        }
        // What follows is still counted, so that the error says how large the network is in all.
        let numbers = if self.too_large.is_some() { Numbers::default() } else { numbers() };
        self.layers.push(Layer { name, op, inputs, shape, numbers, readers: 0 });
        let id = self.layers.len();
        self.fates[self.at] = Fate::Layer(id);
        Ok(id)
    }

    /// Says that the node at work is part of a layer, and so are others.
    pub(super) fn part_of(&mut self, id: usize, others: &[usize]) {
        for &at in others.iter().chain(&[self.at]) {
            self.fates[at] = Fate::PartOf(id);
        }
    }
}
