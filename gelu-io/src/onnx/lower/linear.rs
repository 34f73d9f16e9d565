//! Layers with weights: convolutions, dense layers, batch norm.

use gelu_layers::{BatchNorm2dConfig, Conv2dConfig, DenseConfig, LinearConfig};
use gelu_models::Op;
use gelu_tensor::Window;

use super::affine::{Affine, Rows};
use super::{Fate, Lowering, Node, Numbers, Stop, Tensor, because};

/// Strides, dilations and padding beyond any image.
const MOST_PIXELS: i64 = 1 << 20;

/// A window of `kernel` as a node's attributes set it, over an image of `size`.
pub(super) fn window(node: &Node, kernel: [usize; 2], size: [usize; 2]) -> Result<Window, Stop> {
    let pair = |name: &str| match node.ints(name) {
        None => Ok([1, 1]),
        Some(&[vertical, horizontal]) => Ok([pixels(name, vertical)?, pixels(name, horizontal)?]),
        Some(other) => {
            Err(Stop::from(format!("{name} of {} dimensions, of which images have 2", other.len())))
        }
    };
    let window = Window::new(kernel).with_stride(pair("strides")?).with_dilation(pair("dilations")?);
    let sides = match node.text("auto_pad") {
        None | Some("NOTSET" | "") => match node.ints("pads") {
            None => [[0, 0]; 2],
            Some(&[top, left, bottom, right]) => {
                let [top, left, bottom, right] = [top, left, bottom, right].map(|side| pixels("pads", side));
                [[top?, bottom?], [left?, right?]]
            }
            Some(other) => {
                return Err(format!("pads of {} sides, of which images have 4", other.len()).into());
            }
        },
        Some("VALID") => [[0, 0]; 2],
        Some(mode @ ("SAME_UPPER" | "SAME_LOWER")) => [0, 1].map(|axis| {
            let (stride, extent) = (window.stride[axis].max(1), window.extent()[axis]);
            let span = (size[axis].div_ceil(stride).max(1) - 1).saturating_mul(stride).saturating_add(extent);
            let zeros = span.saturating_sub(size[axis]);
            let [less, more] = [zeros / 2, zeros - zeros / 2];
            if mode == "SAME_UPPER" { [less, more] } else { [more, less] }
        }),
        Some(other) => return Err(format!("auto_pad {other}").into()),
    };
    Ok(window.with_padding_sides(sides))
}

fn pixels(name: &str, value: i64) -> Result<usize, Stop> {
    match usize::try_from(value) {
        Ok(pixels) if value <= MOST_PIXELS => Ok(pixels),
        _ => Err(format!("{name} of {value}").into()),
    }
}

/// The window with zeros of another node around its own.
pub(super) fn padded(window: Window, padding: [[usize; 2]; 2]) -> Window {
    let side = |axis: usize, end: usize| window.padding[axis][end].saturating_add(padding[axis][end]);
    window.with_padding_sides([0, 1].map(|axis| [side(axis, 0), side(axis, 1)]))
}

impl<'a> Lowering<'a> {
    /// Weights of the node, as they lie in the file, with their extents.
    fn weight(&self, node: &Node) -> Result<(Vec<f32>, Vec<usize>), Stop> {
        let weight = self.constant(node, 1)?.ok_or("there is no weight")?;
        Ok((weight.as_floats("the weight")?.to_vec(), weight.dims.clone()))
    }

    /// The extents of a tensor that is an image, without zeros around it.
    pub(super) fn image(&self, tensor: &Tensor) -> Result<[usize; 3], Stop> {
        let [vertical, horizontal] = tensor.padding.map(|[before, after]| before + after);
        let dims = tensor.dims.get(1..).unwrap_or_default();
        match (self.shape_of(tensor.id).dims(), dims) {
            (&[channels, height, width], dims)
                if dims == [channels, height + vertical, width + horizontal] =>
            {
                Ok([channels, height, width])
            }
            (_, [_, _, _]) => Err(because(
                "it takes an image where the network has a vector",
                "keep images as they are until they are flattened for good",
            )),
            _ => Err(because(
                format!("it takes an image, [batch, channels, height, width], and finds {:?}", tensor.dims),
                "convolutions and pooling are those of images",
            )),
        }
    }

    pub(super) fn convolution(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        let (weight, dims) = self.weight(node)?;
        let &[outputs, per_group, height, width] = &dims[..] else {
            let reason = format!("weights of {} dimensions", dims.len());
            return Err(because(reason, "convolutions are those of images, with weights of 4 dimensions"));
        };
        let groups = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(0);
        let bias = self.bias(node, outputs)?;
        let is_vector = self.shape_of(tensor.id).dims().len() == 1;
        if is_vector && tensor.dims[1..] == [per_group, 1, 1] && groups == 1 && [height, width] == [1, 1] {
            if window(node, [1, 1], [1, 1])?.padding != [[0, 0]; 2] {
                return Err("padding of an image of one pixel".into());
            }
            let made = self.dense(node, tensor, [outputs, per_group], weight, bias)?;
            return Ok(Tensor { dims: vec![self.batch, outputs, 1, 1], ..made });
        }
        let [channels, rows, columns] = self.image(&tensor)?;
        if groups == 0 || per_group.checked_mul(groups) != Some(channels) || !outputs.is_multiple_of(groups) {
            let what = format!("{outputs} filters over {per_group} channels in {groups} groups");
            return Err(format!("{what}, and an image of {channels} channels").into());
        }
        let padding = tensor.padding;
        let size = [0, 1].map(|axis| [rows, columns][axis] + padding[axis][0] + padding[axis][1]);
        let window = padded(window(node, [height, width], size)?, padding);
        let is_bordered = window.padding != [[0, 0]; 2];
        let mut tensor = Tensor { padding: [[0; 2]; 2], ..tensor };
        // A shift does not reach zeros around the image.
        if is_bordered && tensor.affine.as_ref().is_some_and(|affine| affine.shift.iter().any(|&x| x != 0.0))
        {
            tensor = self.settled(tensor)?;
        }
        let mut numbers = Numbers { weight, bias, statistics: None };
        if let Some(affine) = &tensor.affine {
            let rows = Rows { outputs, inputs: channels, groups, taps: height * width };
            numbers.absorb(affine, rows);
        }
        let bias = !numbers.bias.is_empty();
        let config = Conv2dConfig { out_channels: outputs, window, groups, bias };
        let op = Op::Linear(LinearConfig::Conv2d(config));
        let name = self.name(node, "conv");
        let id = self.emit(name, op, vec![tensor.id], || numbers)?;
        self.took_up(id, &Tensor { padding, ..tensor });
        Ok(self.made(id))
    }

    /// Says that what was to be done to a tensor became part of a layer.
    pub(super) fn took_up(&mut self, id: usize, tensor: &Tensor) {
        let padded_by = (tensor.padding != [[0; 2]; 2]).then_some(&tensor.padded_by);
        for &at in tensor.affine.iter().flat_map(|affine| &affine.nodes).chain(padded_by) {
            self.fates[at] = Fate::PartOf(id);
        }
    }

    /// Biases of a convolution; none where there are none.
    fn bias(&self, node: &Node, outputs: usize) -> Result<Vec<f32>, Stop> {
        let Some(bias) = self.constant(node, 2)? else { return Ok(vec![]) };
        let bias = bias.as_floats("the bias")?;
        if bias.len() == outputs {
            Ok(bias.to_vec())
        } else {
            Err(format!("{} biases for {outputs} filters", bias.len()).into())
        }
    }

    /// A dense layer of `[outputs, inputs]` weights.
    fn dense(
        &mut self,
        node: &'a Node,
        tensor: Tensor,
        [outputs, inputs]: [usize; 2],
        weight: Vec<f32>,
        bias: Vec<f32>,
    ) -> Result<Tensor, Stop> {
        let elements = self.elements(&tensor);
        if elements != inputs {
            return Err(format!("weights for {inputs} features, and a value of {elements}").into());
        }
        let tensor = self.vector(tensor)?;
        let mut numbers = Numbers { weight, bias, statistics: None };
        if let Some(affine) = &tensor.affine {
            numbers.absorb(affine, Rows { outputs, inputs, groups: 1, taps: 1 });
        }
        let config = DenseConfig { out_features: outputs, bias: !numbers.bias.is_empty() };
        let name = self.name(node, "fc");
        let id = self.emit(name, Op::Linear(LinearConfig::Dense(config)), vec![tensor.id], || numbers)?;
        self.took_up(id, &tensor);
        Ok(self.made(id))
    }

    pub(super) fn gemm(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        if node.int("transA").unwrap_or(0) != 0 || tensor.dims.len() != 2 || tensor.dims[0] != self.batch {
            let reason = format!("its first factor is no batch of vectors: {:?}", tensor.dims);
            return Err(because(reason, "flatten images before dense layers, and keep the batch first"));
        }
        let (mut weight, dims) = self.weight(node)?;
        let &[rows, columns] = &dims[..] else {
            return Err(format!("weights of {} dimensions", dims.len()).into());
        };
        let mut shape = [rows, columns];
        if node.int("transB").unwrap_or(0) == 0 {
            weight = transposed(&weight, shape);
            shape = [columns, rows];
        }
        let [alpha, beta] = ["alpha", "beta"].map(|name| node.float(name).unwrap_or(1.0));
        weight.iter_mut().for_each(|weight| *weight *= alpha);
        let bias = match self.constant(node, 2)? {
            None => vec![],
            Some(bias) => {
                let last = bias.dims.last().copied().unwrap_or(1);
                let values = bias.as_floats("the bias")?;
                if values.len() != last || ![1, shape[0]].contains(&last) {
                    return Err(format!("a bias of extents {:?} for {} outputs", bias.dims, shape[0]).into());
                }
                let of = |output: usize| values[if last == 1 { 0 } else { output }] * beta;
                (0..shape[0]).map(of).collect()
            }
        };
        self.dense(node, tensor, shape, weight, bias)
    }

    pub(super) fn matmul(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        let (weight, dims) = self.weight(node)?;
        let (&[inputs, outputs], [before @ .., last]) = (&dims[..], &tensor.dims[..]) else {
            return Err(format!("weights of {} dimensions", dims.len()).into());
        };
        if *last != inputs || before.iter().product::<usize>() != self.batch {
            let reason = format!("it multiplies {:?} and {dims:?}", tensor.dims);
            return Err(because(reason, "a dense layer takes one vector for each input"));
        }
        let dims = [before, &[outputs]].concat();
        let made =
            self.dense(node, tensor, [outputs, inputs], transposed(&weight, [inputs, outputs]), vec![])?;
        Ok(Tensor { dims, ..made })
    }

    pub(super) fn batch_norm(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        if node.int("training_mode").unwrap_or(0) != 0 {
            return Err(because("it is in training mode", "export the model in evaluation mode"));
        }
        let tensor = self.tensor(node, 0)?;
        let channels = self.shape_of(tensor.id).dims()[0];
        let mut parts = vec![];
        for (at, what) in (1..).zip(["the scale", "the bias", "the mean", "the variance"]) {
            let constant = self.constant(node, at)?.ok_or_else(|| format!("{what} is missing"))?;
            let values = constant.as_floats(what)?.to_vec();
            if values.len() != channels || tensor.dims.get(1) != Some(&channels) {
                let found = format!("{what}: {} numbers for a value of {:?}", values.len(), tensor.dims);
                return Err(because(found, "there must be one for each channel or feature"));
            }
            parts.push(values);
        }
        let Ok([weight, bias, mean, variance]) = <[Vec<f32>; 4]>::try_from(parts) else {
            return Err(Stop::Unknown);
        };
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
        if self.shape_of(tensor.id).dims().len() == 3 {
            let tensor = self.plain(node, 0)?;
            let config = BatchNorm2dConfig { epsilon, ..BatchNorm2dConfig::default() };
            let name = self.name(node, "bn");
            let numbers = || Numbers { weight, bias, statistics: Some([mean, variance]) };
            let op = Op::Linear(LinearConfig::BatchNorm2d(config));
            let id = self.emit(name, op, vec![tensor.id], numbers)?;
            return Ok(self.made(id));
        }
        let scale: Vec<f64> = (weight.iter().zip(&variance))
            .map(|(&weight, &variance)| f64::from(weight) / (f64::from(variance) + epsilon).sqrt())
            .collect();
        let shift = (bias.iter().zip(&mean).zip(&scale))
            .map(|((&bias, &mean), scale)| f64::from(bias) - f64::from(mean) * scale)
            .collect();
        self.scaled(tensor, Affine::new(scale, shift))
    }
}

/// `[columns, rows]` of a matrix of `[rows, columns]`.
fn transposed(matrix: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| matrix[row * columns + column])).collect()
}
