//! Pooling, and means over images.

use gelu_layers::{Activation, AvgPool2dConfig, ClientOp, LinearConfig};
use gelu_models::Op;
use gelu_tensor::Window;

use super::affine::Affine;
use super::linear::{padded, window};
use super::{Lowering, Node, Numbers, Stop, Tensor, because};
use crate::onnx::constant::{Constant, axis};
use crate::onnx::fold::Inputs;

/// The window of a pooling node over an image of `size`.
fn pooling(node: &Node, size: [usize; 2]) -> Result<Window, Stop> {
    let kernel = match node.ints("kernel_shape") {
        Some(&[height, width]) => [height, width].map(usize::try_from),
        other => return Err(format!("a kernel of {} dimensions", other.map_or(0, <[i64]>::len)).into()),
    };
    let [Ok(height), Ok(width)] = kernel else { return Err("a kernel without pixels".into()) };
    window(node, [height, width], size)
}

/// Whether the last window may be incomplete.
fn ceil_mode(node: &Node) -> bool {
    node.int("ceil_mode").unwrap_or(0) != 0
}

impl<'a> Lowering<'a> {
    pub(super) fn average_pool(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        let [_, height, width] = self.image(&tensor)?;
        let outer = tensor.padding;
        let size = [0, 1].map(|axis| [height, width][axis] + outer[axis][0] + outer[axis][1]);
        let window = pooling(node, size)?;
        let is_padded = outer != [[0; 2]; 2];
        let counts_own = node.int("count_include_pad").unwrap_or(0) != 0;
        if is_padded && window.padding != [[0; 2]; 2] && !counts_own {
            return Err(because(
                "what it reads was padded by a node of its own, whose zeros count, and its own padding does not",
                "pad once, or pool with count_include_pad=1",
            ));
        }
        if is_padded && ceil_mode(node) && window.with_ceil_mode(size) != window {
            return Err(because(
                "what it reads was padded by a node of its own, and its last window is incomplete (ceil_mode=1)",
                "pad as part of the pooling, or pool with ceil_mode=0",
            ));
        }
        let config = AvgPool2dConfig {
            window: padded(window, outer),
            // Zeros of another node count as any pixel.
            count_include_pad: counts_own || is_padded,
            ceil_mode: ceil_mode(node),
        };
        let tensor = Tensor { padding: [[0; 2]; 2], ..tensor };
        let tensor = self.settled(tensor)?;
        let op = Op::Linear(LinearConfig::AvgPool2d(config));
        let name = self.name(node, "avg_pool");
        let id = self.emit(name, op, vec![tensor.id], Numbers::default)?;
        self.took_up(id, &Tensor { padding: outer, ..tensor });
        Ok(self.made(id))
    }

    pub(super) fn max_pool(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        let [_, height, width] = self.image(&tensor)?;
        let outer = tensor.padding;
        // After these, zeros are never larger than what is in the image.
        let is_positive = matches!(
            self.client_op(tensor.id),
            Some(ClientOp::Activation(Activation::Relu | Activation::Relu6 | Activation::Sigmoid))
        );
        let tensor = match is_positive && tensor.affine.is_none() {
            true => Tensor { padding: [[0; 2]; 2], ..tensor },
            false => self.plain(node, 0)?,
        };
        let size = [0, 1].map(|axis| [height, width][axis] + outer[axis][0] + outer[axis][1]);
        let window = pooling(node, size)?;
        let window = if ceil_mode(node) { window.with_ceil_mode(size) } else { window };
        let window = padded(window, outer);
        let name = self.name(node, "max_pool");
        let id =
            self.emit(name, Op::Client(ClientOp::MaxPool2d(window)), vec![tensor.id], Numbers::default)?;
        self.took_up(id, &Tensor { padding: outer, ..tensor });
        Ok(self.made(id))
    }

    pub(super) fn global_pool(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.plain(node, 0)?;
        let [_, height, width] = self.image(&tensor)?;
        let op = match node.operator.as_str() {
            "GlobalAveragePool" => Op::Linear(LinearConfig::GlobalAvgPool2d),
            _ => Op::Client(ClientOp::MaxPool2d(Window::new([height, width]))),
        };
        let name = self.name(node, "global_pool");
        let id = self.emit(name, op, vec![tensor.id], Numbers::default)?;
        Ok(self.made(id))
    }

    /// A mean or a sum over the pixels of an image.
    pub(super) fn reduce(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let tensor = self.plain(node, 0)?;
        let [channels, height, width] = self.image(&tensor)?;
        let given = constants.get(1).and_then(Option::as_ref).map(|axes| axes.as_ints("axes")).transpose()?;
        let axes = given.or(node.ints("axes")).unwrap_or_default();
        let mut axes = axes.iter().map(|&number| axis(number, 4)).collect::<Result<Vec<_>, _>>()?;
        axes.sort_unstable();
        let (config, area) = match axes[..] {
            [2, 3] => (LinearConfig::GlobalAvgPool2d, height * width),
            [2] => (LinearConfig::AvgPool2d(Window::new([height, 1]).into()), height),
            [3] => (LinearConfig::AvgPool2d(Window::new([1, width]).into()), width),
            _ => {
                let reason = format!("it reduces axes {axes:?} of an image of {channels} channels");
                return Err(because(reason, "only means and sums over pixels, axes 2 and 3, are known"));
            }
        };
        let name = self.name(node, "global_pool");
        let id = self.emit(name, Op::Linear(config), vec![tensor.id], Numbers::default)?;
        let mut made = self.made(id);
        if node.int("keepdims").unwrap_or(1) == 0 {
            let kept = made.dims.iter().enumerate().filter(|(at, _)| !axes.contains(at));
            made.dims = kept.map(|(_, &extent)| extent).collect();
            if axes == [2, 3] {
                made = self.vector(made)?;
            }
        }
        match node.operator.as_str() {
            "ReduceSum" => self.scaled(made, Affine::new(vec![area as f64], vec![0.0])),
            _ => Ok(made),
        }
    }

    pub(super) fn same(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        match node.operator.as_str() {
            "Cast" if ![1, 10, 11, 16].contains(&node.int("to").unwrap_or(0)) => {
                return Err(because(
                    "it makes integers of numbers of the network",
                    "keep them floating-point",
                ));
            }
            "Dropout" => {
                let training = constants.get(2).and_then(Option::as_ref);
                let training = training.map(|value: &std::sync::Arc<Constant>| value.scalar("training_mode"));
                if training.transpose()?.is_some_and(|mode| mode != 0.0) {
                    return Err(because("it is in training mode", "export the model in evaluation mode"));
                }
            }
            _ => {}
        }
        self.fates[self.at] = super::Fate::View;
        self.tensor(node, 0)
    }
}
