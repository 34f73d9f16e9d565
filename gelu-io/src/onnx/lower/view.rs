//! Nodes that rearrange numbers: extents, parts, zeros around images.

use gelu_layers::{Conv2dConfig, DenseConfig, LinearConfig};
use gelu_models::Op;
use gelu_tensor::{Shape, Window};

use super::affine::Affine;
use super::{Fate, Lowering, Node, Numbers, Stop, Tensor, Value, because, padding_stays};
use crate::onnx::constant::{axis, slice};
use crate::onnx::fold::{Inputs, dims, permutation, slices};

const LAYOUT: &str = "images must be [batch, channels, height, width] throughout";

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

    /// Channels of a value one after another, `kept` from the `first` on, between `before` and `after` channels of zeros.
    fn selected(
        &mut self,
        name: String,
        tensor: &Tensor,
        first: usize,
        [before, kept, after]: [usize; 3],
    ) -> Result<Tensor, Stop> {
        let channels = self.shape_of(tensor.id).dims()[0];
        let outputs = before.saturating_add(kept).saturating_add(after);
        let numbers = || {
            let mut weight = vec![0.0; outputs * channels];
            for channel in 0..kept {
                weight[(before + channel) * channels + first + channel] = 1.0;
            }
            Numbers { weight, ..Numbers::default() }
        };
        let config = match self.shape_of(tensor.id).dims().len() {
            1 => LinearConfig::Dense(DenseConfig::new(outputs).without_bias()),
            _ => LinearConfig::Conv2d(Conv2dConfig::new(outputs, [1, 1]).without_bias()),
        };
        let id = self.emit(name, Op::Linear(config), vec![tensor.id], numbers)?;
        let mut dims = tensor.dims.clone();
        dims[1] = outputs;
        Ok(self.fresh(id, dims))
    }

    /// A value as its channels are in axis 1.
    fn by_channels(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.plain(node, 0)?;
        if tensor.dims.len() > 1 && self.shape_of(tensor.id).dims()[0] == tensor.dims[1] {
            return Ok(tensor);
        }
        Err(because(format!("it takes parts of {:?}", tensor.dims), LAYOUT))
    }

    pub(super) fn slice(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let mut tensor = self.by_channels(node)?;
        for (at, bounds) in slices(node, constants, tensor.dims.len())? {
            let extent = tensor.dims[at];
            let (first, step, count) = slice(extent, bounds)?;
            let steps = usize::try_from(step).ok().filter(|_| count > 0);
            let name = |lowering: &mut Self| lowering.name(node, "slice");
            tensor = match (at, steps) {
                _ if first == 0 && step == 1 && count == extent => tensor,
                (1, Some(1)) => {
                    let name = name(self);
                    self.selected(name, &tensor, first, [0, count, 0])?
                }
                // Windows of one pixel, some pixels apart.
                (2 | 3, Some(steps)) if first == 0 && count == extent.div_ceil(steps) => {
                    self.image(&tensor)?;
                    let stride = if at == 2 { [steps, 1] } else { [1, steps] };
                    let config = LinearConfig::AvgPool2d(Window::new([1, 1]).with_stride(stride).into());
                    let name = name(self);
                    let id = self.emit(name, Op::Linear(config), vec![tensor.id], Numbers::default)?;
                    self.made(id)
                }
                _ => {
                    let [start, end, step] = bounds;
                    // To the last one, which exporters write as the largest number there is.
                    let end = if end == i64::MAX { String::new() } else { end.to_string() };
                    let reason = format!("it slices axis {at} of {:?} by {start}:{end}:{step}", tensor.dims);
                    return Err(because(
                        reason,
                        "parts of channels are known, and every so many pixels from the first on",
                    ));
                }
            };
        }
        if let Fate::Constant = self.fates[self.at] {
            self.fates[self.at] = Fate::View;
        }
        Ok(tensor)
    }

    pub(super) fn split(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Vec<Value>, Stop> {
        let tensor = self.by_channels(node)?;
        let at = axis(node.int("axis").unwrap_or(0), tensor.dims.len())?;
        if at != 1 {
            return Err(because(
                format!("it splits axis {at} of {:?}", tensor.dims),
                "only channels are split",
            ));
        }
        let given =
            constants.get(1).and_then(Option::as_ref).map(|sizes| sizes.as_ints("sizes")).transpose()?;
        let sizes: Vec<usize> = match given.or(node.ints("split")) {
            Some(sizes) => sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect(),
            None => {
                let part = tensor.dims[1].div_ceil(node.outputs.len().max(1));
                let size = |at: usize| part.min(tensor.dims[1].saturating_sub(at * part));
                (0..node.outputs.len()).map(size).collect()
            }
        };
        let total = sizes.iter().try_fold(0_usize, |sum, &size| sum.checked_add(size));
        if total != Some(tensor.dims[1]) || sizes.contains(&0) {
            return Err(format!("it splits {} channels into {sizes:?}", tensor.dims[1]).into());
        }
        let mut first = 0;
        let mut parts = vec![];
        for size in sizes {
            let name = self.name(node, "split");
            parts.push(Value::Tensor(self.selected(name, &tensor, first, [0, size, 0])?));
            first += size;
        }
        Ok(parts)
    }

    pub(super) fn pad(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let given = |at: usize| constants.get(at).and_then(Option::as_ref);
        let value = match given(2) {
            Some(value) => value.scalar("the value")?,
            None => f64::from(node.float("value").unwrap_or(0.0)),
        };
        let mode = node.text("mode").unwrap_or("constant");
        if mode != "constant" || value != 0.0 {
            return Err(because(format!("it pads by mode {mode}, value {value}"), "pad with zeros"));
        }
        let pads = given(1).map(|pads| pads.as_ints("pads")).transpose()?.or(node.ints("pads"));
        let pads = pads.ok_or("its pads depend on the model's input")?;
        let tensor = self.tensor(node, 0)?;
        let rank = tensor.dims.len();
        let axes: Vec<i64> = match given(3) {
            Some(axes) => axes.as_ints("axes")?.to_vec(),
            None => (0..rank as i64).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(format!("{} pads for {} axes", pads.len(), axes.len()).into());
        }
        let mut sides = vec![[0; 2]; rank.max(4)];
        for (at, &number) in axes.iter().enumerate() {
            let side = |pad: i64| usize::try_from(pad).ok().filter(|&pad| pad <= 1 << 20);
            match (side(pads[at]), side(pads[at + axes.len()])) {
                (Some(before), Some(after)) => sides[axis(number, rank)?] = [before, after],
                _ => return Err(because(format!("pads of {pads:?}"), "images are not cropped")),
            }
        }
        if sides.iter().all(|side| *side == [0, 0]) {
            self.fates[self.at] = Fate::View;
            return Ok(tensor);
        }
        if sides[0] != [0, 0] || rank > 4 {
            return Err(because(format!("pads of {pads:?}"), "only channels and images are padded"));
        }
        let mut tensor = tensor;
        if sides[1] != [0, 0] {
            tensor = self.by_channels(node)?;
            let name = self.name(node, "pad");
            let [before, after] = sides[1];
            tensor = self.selected(name, &tensor, 0, [before, self.shape_of(tensor.id).dims()[0], after])?;
        }
        if [sides[2], sides[3]] != [[0, 0]; 2] {
            self.image(&tensor)?;
            if tensor.padding != [[0; 2]; 2] {
                return Err(padding_stays());
            }
            tensor = self.settled(tensor)?;
            tensor.padding = [sides[2], sides[3]];
            tensor.padded_by = self.at;
            tensor.dims[2] += sides[2][0] + sides[2][1];
            tensor.dims[3] += sides[3][0] + sides[3][1];
            self.fates[self.at] = Fate::Pending;
        }
        Ok(tensor)
    }
}

/// Which channel of an image each becomes when its channels, seen as a table, are transposed, as ShuffleNet has it.
fn shuffled(dims: &[usize], order: &[usize], shape: &Shape) -> Option<Vec<usize>> {
    let (&[_, groups, per_group, height, width], [0, 2, 1, 3, 4]) = (dims, order) else { return None };
    let is_image = shape.dims() == [groups.checked_mul(per_group)?, height, width];
    is_image.then(|| (0..groups * per_group).map(|at| at % groups * per_group + at / groups).collect())
}
