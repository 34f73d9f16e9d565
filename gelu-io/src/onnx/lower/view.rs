//! Nodes that rearrange numbers: extents, orders of axes, values side by side.

use gelu_layers::{Conv2dConfig, LinearConfig};
use gelu_models::Op;
use gelu_tensor::Shape;

use super::affine::Affine;
use super::{Fate, Lowering, Node, Numbers, Stop, Tensor, because};
use crate::onnx::constant::axis;
use crate::onnx::fold::{Inputs, dims, permutation};

pub(super) const LAYOUT: &str = "images must be [batch, channels, height, width] throughout";

impl<'a> Lowering<'a> {
    /// The same elements under other extents.
    pub(super) fn reshape(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        if node.inputs.len() > 1 && constants.get(1).is_none_or(Option::is_none) {
            return Err(because(
                "its extents depend on the model's input",
                "export the model with fixed extents",
            ));
        }
        let dims = dims(node, &tensor.dims, constants, self.opset)?;
        self.viewed(tensor, dims)
    }

    fn viewed(&mut self, tensor: Tensor, dims: Vec<usize>) -> Result<Tensor, Stop> {
        self.fates[self.at] = Fate::View;
        // An image that was flattened, made an image again.
        if let Some(layer) = self.layer_of(tensor.id)
            && let Op::Linear(LinearConfig::Flatten) = layer.op
            && dims.get(1..) == Some(self.shape_of(layer.inputs[0]).dims())
            && tensor.affine.is_none()
        {
            return Ok(Tensor { id: layer.inputs[0], dims, exclusive: false, ..tensor });
        }
        // Nothing has read the model's input as a vector yet, and nothing need.
        if tensor.id == 0
            && self.layers.is_empty()
            && self.input.dims().len() == 1
            && dims.len() == 4
            && dims[0] == self.batch
        {
            self.input = Shape::from(&dims[1..]);
        }
        let is_vector = |dims: &[usize]| {
            dims.first() == Some(&self.batch) && dims[1..].iter().filter(|&&x| x != 1).count() <= 1
        };
        let tensor = Tensor { dims, ..tensor };
        match tensor.dims.len() == 2 && is_vector(&tensor.dims) {
            true => self.vector(tensor),
            false => Ok(tensor),
        }
    }

    pub(super) fn transpose(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        let order = permutation(node.ints("perm"), tensor.dims.len())?;
        let moved: Vec<usize> = order.iter().copied().filter(|&at| tensor.dims[at] != 1).collect();
        if !moved.is_sorted() {
            if let Some(image) = self.channels_first(&tensor, &order) {
                return Ok(image);
            }
            if let Some(channels) = shuffled(&tensor.dims, &order, self.shape_of(tensor.id)) {
                return self.reordered(node, tensor, &channels, &order);
            }
            let reason = format!("it moves the axes of {:?} to {order:?}", tensor.dims);
            return Err(because(reason, LAYOUT));
        }
        let dims = order.iter().map(|&at| tensor.dims[at]).collect();
        self.viewed(tensor, dims)
    }

    /// The model's input with its channels first, where a file has them last and does nothing with it but this.
    fn channels_first(&mut self, tensor: &Tensor, order: &[usize]) -> Option<Tensor> {
        let is_only_reader = tensor.exclusive && self.layers.is_empty();
        if tensor.id != 0 || tensor.padding != [[0; 2]; 2] || !is_only_reader {
            return None;
        }
        // What is done to every channel alike stays as it is.
        let affine = match &tensor.affine {
            None => None,
            Some(affine) => {
                let [scale, shift] = affine.uniform()?;
                Some(Affine { nodes: affine.nodes.clone(), ..Affine::new(vec![scale], vec![shift]) })
            }
        };
        let dims: Vec<usize> = order.iter().map(|&at| tensor.dims[at]).collect();
        if order != [0, 3, 1, 2] || self.input.dims() != &tensor.dims[1..] {
            return None;
        }
        self.fates[self.at] = Fate::View;
        self.input = Shape::from(&dims[1..]);
        self.notes.push(
            "an input is [channels, height, width] here, and [height, width, channels] in the file"
                .to_owned(),
        );
        Some(Tensor { dims, affine, ..tensor.clone() })
    }

    /// The channels of an image in another order.
    fn reordered(
        &mut self,
        node: &'a Node,
        tensor: Tensor,
        channels: &[usize],
        order: &[usize],
    ) -> Result<Tensor, Stop> {
        let tensor = self.settled(tensor)?;
        let count = channels.len();
        let numbers = || {
            let mut weight = vec![0.0; count * count];
            for (to, from) in channels.iter().enumerate() {
                weight[to * count + from] = 1.0;
            }
            Numbers { weight, ..Numbers::default() }
        };
        let config = LinearConfig::Conv2d(Conv2dConfig::new(count, [1, 1]).without_bias());
        let name = self.name(node, "shuffle");
        let id = self.emit(name, Op::Linear(config), vec![tensor.id], numbers)?;
        Ok(self.fresh(id, order.iter().map(|&at| tensor.dims[at]).collect()))
    }

    pub(super) fn concat(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let mut parts = vec![];
        for at in 0..node.inputs.len() {
            parts.push(self.plain(node, at)?);
        }
        let first = parts.first().cloned().ok_or("it has no inputs")?;
        let at = axis(node.int("axis").unwrap_or(0), first.dims.len())?;
        let fits = |part: &Tensor| {
            part.dims.len() == first.dims.len()
                && (0..first.dims.len()).all(|other| other == at || part.dims[other] == first.dims[other])
        };
        if at != 1 || !parts.iter().all(fits) {
            let all: Vec<_> = parts.iter().map(|part| &part.dims).collect();
            return Err(because(
                format!("it joins axis {at} of {all:?}"),
                "only channels and features are joined",
            ));
        }
        let mut dims = first.dims.clone();
        dims[1] = parts.iter().map(|part| part.dims[1]).sum();
        let is_image = |part: &Tensor| {
            self.shape_of(part.id).dims().get(..) == part.dims.get(1..) && part.dims.len() == 4
        };
        if !parts.iter().all(is_image) {
            if dims[2..].iter().any(|&extent| extent != 1) {
                return Err(because("it joins vectors that were made images", LAYOUT));
            }
            parts = parts.into_iter().map(|part| self.vector(part)).collect::<Result<_, _>>()?;
        }
        if parts.len() == 1 {
            self.fates[self.at] = Fate::View;
            return Ok(first);
        }
        let name = self.name(node, "concat");
        let inputs = parts.iter().map(|part| part.id).collect();
        let id = self.emit(name, Op::Concat, inputs, Numbers::default)?;
        Ok(self.fresh(id, dims))
    }
}

/// Which channel of an image each becomes when its channels, seen as a table, are transposed, as ShuffleNet has it.
fn shuffled(dims: &[usize], order: &[usize], shape: &Shape) -> Option<Vec<usize>> {
    let (&[_, groups, per_group, height, width], [0, 2, 1, 3, 4]) = (dims, order) else { return None };
    let is_image = shape.dims() == [groups.checked_mul(per_group)?, height, width];
    is_image.then(|| (0..groups * per_group).map(|at| at % groups * per_group + at / groups).collect())
}
