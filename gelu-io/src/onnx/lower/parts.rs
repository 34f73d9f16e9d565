//! Nodes that take parts of values, or put zeros around them.

use gelu_layers::{AxisSlice, Conv2dConfig, DenseConfig, LinearConfig, SliceConfig};
use gelu_models::Op;

use super::view::LAYOUT;
use super::{Fate, Lowering, Node, Numbers, Stop, Tensor, Value, because, padding_stays};
use crate::onnx::constant::{axis, slice};
use crate::onnx::fold::{Inputs, slices};

/// Zeros on one side of an axis, or elements left out there, beyond any image.
const MOST_PADS: i64 = 1 << 20;

impl<'a> Lowering<'a> {
    /// A value as its channels are in axis 1.
    fn by_channels(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.plain(node, 0)?;
        if tensor.dims.len() > 1 && self.shape_of(tensor.id).dims()[0] == tensor.dims[1] {
            return Ok(tensor);
        }
        Err(because(format!("it takes parts of {:?}", tensor.dims), LAYOUT))
    }

    /// A part of a value whose channels are in axis 1, by a slice of each of its axes in the file.
    fn part(&mut self, node: &'a Node, tensor: Tensor, axes: &[AxisSlice]) -> Result<Tensor, Stop> {
        let is_whole = |at: usize| axes[at] == AxisSlice::whole(tensor.dims[at]);
        if (0..axes.len()).all(is_whole) {
            self.fates[self.at] = Fate::View;
            return Ok(tensor);
        }
        if !is_whole(0) {
            return Err(because("it takes some inputs of a batch", "each input must go its way alone"));
        }
        let shape = self.shape_of(tensor.id).dims();
        let axes_of_value = if tensor.dims[1..] == *shape {
            axes[1..].to_vec()
        } else if (2..axes.len()).all(is_whole) {
            let others = shape[1..].iter().map(|&extent| AxisSlice::whole(extent));
            [axes[1]].into_iter().chain(others).collect()
        } else {
            return Err(because(format!("it takes parts of {:?}", tensor.dims), LAYOUT));
        };
        let name = self.name(node, "slice");
        let op = Op::Linear(LinearConfig::Slice(SliceConfig::new(axes_of_value)));
        let id = self.emit(name, op, vec![tensor.id], Numbers::default)?;
        Ok(self.fresh(id, axes.iter().map(|axis| axis.count).collect()))
    }

    pub(super) fn slice(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let known = |at: usize| node.inputs.get(at).is_none_or(String::is_empty) || constants[at].is_some();
        if !(1..node.inputs.len()).all(known) {
            return Err(because("what it takes depends on the model's input", "slice by constants"));
        }
        let tensor = self.by_channels(node)?;
        let mut axes: Vec<AxisSlice> = tensor.dims.iter().map(|&extent| AxisSlice::whole(extent)).collect();
        for (at, bounds) in slices(node, constants, tensor.dims.len())? {
            let (start, step, count) = slice(tensor.dims[at], bounds)?;
            if count == 0 {
                let [start, end, step] = bounds;
                return Err(format!(
                    "it takes nothing of {:?}: {start}:{end}:{step} of axis {at}",
                    tensor.dims
                )
                .into());
            }
            axes[at] = AxisSlice { start, step: isize::try_from(step)?, count };
        }
        self.part(node, tensor, &axes)
    }

    pub(super) fn split(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Vec<Value>, Stop> {
        let tensor = self.by_channels(node)?;
        let at = axis(node.int("axis").unwrap_or(0), tensor.dims.len())?;
        let extent = tensor.dims[at];
        let given =
            constants.get(1).and_then(Option::as_ref).map(|sizes| sizes.as_ints("sizes")).transpose()?;
        let sizes: Vec<usize> = match given.or(node.ints("split")) {
            Some(sizes) => sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect(),
            None => {
                let part = extent.div_ceil(node.outputs.len().max(1));
                let size = |at: usize| part.min(extent.saturating_sub(at * part));
                (0..node.outputs.len()).map(size).collect()
            }
        };
        let total = sizes.iter().try_fold(0_usize, |sum, &size| sum.checked_add(size));
        if total != Some(extent) || sizes.contains(&0) {
            return Err(format!("it splits axis {at} of {:?} into {sizes:?}", tensor.dims).into());
        }
        let whole: Vec<AxisSlice> = tensor.dims.iter().map(|&extent| AxisSlice::whole(extent)).collect();
        let (mut first, mut parts) = (0, vec![]);
        for size in sizes {
            let mut axes = whole.clone();
            axes[at] = AxisSlice::range(first, size);
            parts.push(Value::Tensor(self.part(node, tensor.clone(), &axes)?));
            first += size;
        }
        Ok(parts)
    }

    /// The channels of a value between so many channels of zeros.
    fn between_zeros(
        &mut self,
        node: &'a Node,
        tensor: &Tensor,
        [before, after]: [usize; 2],
    ) -> Result<Tensor, Stop> {
        let shape = self.shape_of(tensor.id).dims();
        let (channels, rank) = (shape[0], shape.len());
        let outputs = channels.saturating_add(before).saturating_add(after);
        let numbers = || {
            let mut weight = vec![0.0; outputs * channels];
            (0..channels).for_each(|channel| weight[(before + channel) * channels + channel] = 1.0);
            Numbers { weight, ..Numbers::default() }
        };
        let config = match rank {
            1 => LinearConfig::Dense(DenseConfig::new(outputs).without_bias()),
            _ => LinearConfig::Conv2d(Conv2dConfig::new(outputs, [1, 1]).without_bias()),
        };
        let name = self.name(node, "pad");
        let id = self.emit(name, Op::Linear(config), vec![tensor.id], numbers)?;
        let mut dims = tensor.dims.clone();
        dims[1] = outputs;
        Ok(self.fresh(id, dims))
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
        let mut tensor = self.tensor(node, 0)?;
        let rank = tensor.dims.len();
        let axes: Vec<i64> = match given(3) {
            Some(axes) => axes.as_ints("axes")?.to_vec(),
            None => (0..rank as i64).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(format!("{} pads for {} axes", pads.len(), axes.len()).into());
        }
        let mut sides = vec![[0; 2]; rank.max(4)];
        let mut kept: Vec<AxisSlice> = tensor.dims.iter().map(|&extent| AxisSlice::whole(extent)).collect();
        for (at, &number) in axes.iter().enumerate() {
            let both = [pads[at], pads[at + axes.len()]];
            if both.iter().any(|side| !(-MOST_PADS..=MOST_PADS).contains(side)) {
                return Err(format!("pads of {pads:?}").into());
            }
            let at = axis(number, rank)?;
            sides[at] = both.map(|side| usize::try_from(side).unwrap_or(0));
            // Negative ones leave out what is there.
            let [before, after] = both.map(|side| usize::try_from(-side).unwrap_or(0));
            let count = tensor.dims[at].saturating_sub(before + after);
            if count == 0 {
                return Err(
                    format!("pads of {both:?} leave nothing of axis {at} of {:?}", tensor.dims).into()
                );
            }
            kept[at] = AxisSlice::range(before, count);
        }
        let is_cropped =
            kept.iter().zip(&tensor.dims).any(|(axis, &extent)| *axis != AxisSlice::whole(extent));
        if !is_cropped && sides.iter().all(|side| *side == [0, 0]) {
            self.fates[self.at] = Fate::View;
            return Ok(tensor);
        }
        if sides[0] != [0, 0] || rank > 4 {
            return Err(because(format!("pads of {pads:?}"), "only channels and images are padded"));
        }
        if is_cropped {
            tensor = self.by_channels(node)?;
            tensor = self.part(node, tensor, &kept)?;
        }
        if sides[1] != [0, 0] {
            if !is_cropped {
                tensor = self.by_channels(node)?;
            }
            tensor = self.between_zeros(node, &tensor, sides[1])?;
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
