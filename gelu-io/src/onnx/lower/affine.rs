//! A factor and a shift for each channel: what a model's additions and multiplications by constants come to. They become
//! part of the weights before or after them, and where there are none, a batch norm or a diagonal matrix.

use gelu_layers::{BatchNorm2dConfig, DenseConfig, LinearConfig};
use gelu_models::Op;

use super::{Fate, Lowering, Numbers, Stop, Tensor, because, padding_stays};
use crate::onnx::constant::Constant;

/// The most features for which factors and shifts become a matrix of their own.
const MOST_DIAGONAL: usize = 1 << 11;

/// `scale * x + shift`, with one of each for every channel (of vectors: feature), or one for all.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
    /// The nodes that it is made of.
    pub(super) nodes: Vec<usize>,
}

impl Affine {
    pub(super) fn new(scale: Vec<f64>, shift: Vec<f64>) -> Self {
        Self { scale, shift, nodes: vec![] }
    }

    /// The factor and the shift of a channel.
    pub(super) fn of(&self, channel: usize) -> [f64; 2] {
        [&self.scale, &self.shift].map(|values| values[if values.len() == 1 { 0 } else { channel }])
    }

    /// The factor and the shift where they are the same for all channels.
    pub(super) fn uniform(&self) -> Option<[f64; 2]> {
        let first = self.of(0);
        let channels = self.scale.len().max(self.shift.len());
        (0..channels).all(|channel| self.of(channel) == first).then_some(first)
    }

    /// This one, then `next`.
    fn then(self, next: &Self) -> Self {
        let channels = [&self.scale, &self.shift, &next.scale, &next.shift].into_iter().map(Vec::len).max();
        let both = (0..channels.unwrap_or(1)).map(|channel| {
            let ([a, b], [scale, shift]) = (self.of(channel), next.of(channel));
            (a * scale, b * scale + shift)
        });
        let (scale, shift) = both.unzip();
        Self { scale, shift, nodes: [self.nodes, next.nodes.clone()].concat() }
    }

    /// The same for a vector that has `positions` elements of each channel one after another.
    pub(super) fn spread(self, positions: usize) -> Self {
        let spread = |values: Vec<f64>| match values.len() {
            1 => values,
            _ => values.into_iter().flat_map(|value| std::iter::repeat_n(value, positions)).collect(),
        };
        Self { scale: spread(self.scale), shift: spread(self.shift), nodes: self.nodes }
    }
}

/// How a layer's weights lie: `outputs` rows of `inputs / groups` channels with `taps` weights each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) groups: usize,
    pub(super) taps: usize,
}

impl Numbers {
    /// Makes what was to be done to the layer's input part of its weights.
    pub(super) fn absorb(&mut self, affine: &Affine, rows: Rows) {
        let per_group = rows.inputs / rows.groups.max(1);
        let columns = (per_group * rows.taps).max(1);
        let mut shifts = vec![0.0; rows.outputs];
        for (row, weights) in self.weight.chunks_exact_mut(columns).enumerate() {
            let first = row * rows.groups / rows.outputs.max(1) * per_group;
            for (tap, weight) in weights.iter_mut().enumerate() {
                let [scale, shift] = affine.of(first + tap / rows.taps.max(1));
                shifts[row] += f64::from(*weight) * shift;
                *weight = (f64::from(*weight) * scale) as f32;
            }
        }
        if self.bias.is_empty() && shifts.iter().any(|&shift| shift != 0.0) {
            self.bias = vec![0.0; rows.outputs];
        }
        for (bias, shift) in self.bias.iter_mut().zip(shifts) {
            *bias = (f64::from(*bias) + shift) as f32;
        }
    }
}

impl Lowering<'_> {
    /// The tensor after a factor and a shift for each channel, which become part of the layer that makes it where
    /// nothing else reads that.
    pub(super) fn scaled(&mut self, tensor: Tensor, affine: Affine) -> Result<Tensor, Stop> {
        if tensor.padding != [[0; 2]; 2] {
            return Err(padding_stays());
        }
        let layer = tensor.id.checked_sub(1).and_then(|at| self.layers.get_mut(at));
        if let (Some(layer), None, true) = (layer, &tensor.affine, tensor.exclusive)
            && layer.readers == 0
            && !layer.numbers.weight.is_empty()
        {
            let channels = layer.shape.dims()[0];
            let numbers = &mut layer.numbers;
            let columns = (numbers.weight.len() / channels).max(1);
            for (channel, weights) in numbers.weight.chunks_exact_mut(columns).enumerate() {
                let [scale, _] = affine.of(channel);
                weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
            }
            if numbers.bias.is_empty() && affine.shift.iter().any(|&shift| shift != 0.0) {
                numbers.bias = vec![0.0; channels];
            }
            for (channel, bias) in numbers.bias.iter_mut().enumerate() {
                let [scale, shift] = affine.of(channel);
                *bias = (f64::from(*bias) * scale + shift) as f32;
            }
            match &mut layer.op {
                Op::Linear(LinearConfig::Conv2d(config)) => config.bias = !numbers.bias.is_empty(),
                Op::Linear(LinearConfig::Dense(config)) => config.bias = !numbers.bias.is_empty(),
                _ => {}
            }
            self.part_of(tensor.id, &[]);
            return Ok(tensor);
        }
        let affine = Affine { nodes: vec![self.at], ..affine };
        let affine = match tensor.affine {
            Some(before) => before.then(&affine),
            None => affine,
        };
        self.fates[self.at] = Fate::Pending;
        if affine.uniform() == Some([1.0, 0.0]) {
            return Ok(Tensor { affine: None, ..tensor });
        }
        Ok(Tensor { affine: Some(affine), ..tensor })
    }

    /// The tensor with a layer for what no other layer has taken up.
    pub(super) fn settled(&mut self, tensor: Tensor) -> Result<Tensor, Stop> {
        if tensor.padding != [[0; 2]; 2] {
            return Err(padding_stays());
        }
        let Some(affine) = tensor.affine else { return Ok(tensor) };
        let shape = self.shape_of(tensor.id).clone();
        let channels = shape.dims()[0];
        let name = self.names.numbered("scale");
        let values = |which: usize| (0..channels).map(|channel| affine.of(channel)[which] as f32).collect();
        let fate = self.fates[self.at];
        let id = match shape.dims().len() {
            1 if channels > MOST_DIAGONAL => {
                let reason = format!("factors or shifts for {channels} features between two activations");
                return Err(because(reason, "they must stand before or after a layer with weights"));
            }
            1 => {
                let mut config = DenseConfig::new(channels);
                config.bias = affine.shift.iter().any(|&shift| shift != 0.0);
                let numbers = || {
                    let mut weight = vec![0.0; channels * channels];
                    for channel in 0..channels {
                        weight[channel * channels + channel] = affine.of(channel)[0] as f32;
                    }
                    let bias = if config.bias { values(1) } else { vec![] };
                    Numbers { weight, bias, statistics: None }
                };
                self.emit(name, Op::Linear(LinearConfig::Dense(config)), vec![tensor.id], numbers)?
            }
            _ => {
                let config = BatchNorm2dConfig::default();
                // Statistics that change nothing.
                let variance = (1.0 - config.epsilon) as f32;
                let numbers = || Numbers {
                    weight: values(0),
                    bias: values(1),
                    statistics: Some([vec![0.0; channels], vec![variance; channels]]),
                };
                self.emit(name, Op::Linear(LinearConfig::BatchNorm2d(config)), vec![tensor.id], numbers)?
            }
        };
        // The layer is of the nodes that the factors are of, not of the one at work.
        self.fates[self.at] = fate;
        for &at in &affine.nodes {
            self.fates[at] = Fate::Layer(id);
        }
        Ok(Tensor { id, affine: None, ..tensor })
    }

    /// The numbers of a constant that a tensor is added to or multiplied by: one for each channel, or one for all.
    pub(super) fn per_channel(&self, tensor: &Tensor, constant: &Constant) -> Result<Vec<f64>, Stop> {
        let values = constant.reals("the constant")?;
        if let [value] = values[..]
            && constant.dims.len() <= tensor.dims.len()
        {
            return Ok(vec![value]);
        }
        let (dims, shape) = (&tensor.dims, self.shape_of(tensor.id));
        let fits = || {
            let skip = dims.len().checked_sub(constant.dims.len())?;
            let at = constant.dims.iter().position(|&extent| extent != 1)?;
            let alone = constant.dims[at + 1..].iter().all(|&extent| extent == 1);
            let before: usize = dims[..skip + at].iter().product();
            let channels = [dims[skip + at], constant.dims[at]] == [shape.dims()[0]; 2];
            (alone && before == self.batch && channels).then_some(())
        };
        match fits() {
            Some(()) => Ok(values),
            None => Err(because(
                format!("a constant of extents {:?} for a value of {dims:?}", constant.dims),
                "it must have one number, or one for each channel or feature",
            )),
        }
    }
}
