//! Activations, and softmax.

use gelu_layers::{Activation, ClientOp};
use gelu_models::Op;

use super::affine::Affine;
use super::{Lowering, Node, Numbers, Stop, Tensor, because};
use crate::onnx::constant::{axis, elements};
use crate::onnx::fold::Inputs;

/// How far an exporter's single-precision constant may be from the number that it stands for.
pub(super) const CLOSE: f64 = 1e-6;

impl<'a> Lowering<'a> {
    /// An activation of the node's first input; `None` when the operator is none.
    pub(super) fn activation(&mut self, node: &'a Node, operator: &str) -> Result<Option<Tensor>, Stop> {
        let alpha = |default: f32| f64::from(node.float("alpha").unwrap_or(default));
        let activation = match operator {
            "Relu" => Activation::Relu,
            "LeakyRelu" => Activation::LeakyRelu { slope: alpha(0.01) },
            "PRelu" => Activation::LeakyRelu { slope: self.one_slope(node)? },
            "Sigmoid" => Activation::Sigmoid,
            "Tanh" => Activation::Tanh,
            "HardSwish" => Activation::HardSwish,
            "Gelu" if node.text("approximate").unwrap_or("none") == "none" => Activation::Gelu,
            "Gelu" => {
                let advice = "export the model with GELU as it is, not approximated by tanh";
                return Err(because("GELU approximated by a hyperbolic tangent is not known", advice));
            }
            "HardSigmoid" => {
                let (alpha, beta) = (alpha(0.2), f64::from(node.float("beta").unwrap_or(0.5)));
                if (alpha - 1.0 / 6.0).abs() < CLOSE && (beta - 0.5).abs() < CLOSE {
                    Activation::HardSigmoid
                } else {
                    let tensor = self.tensor(node, 0)?;
                    let tensor = self.scaled(tensor, Affine::new(vec![alpha], vec![beta]))?;
                    let tensor = self.settled(tensor)?;
                    let clip = Activation::Clip { min: 0.0, max: 1.0 };
                    return self.applied(node, tensor, clip).map(Some);
                }
            }
            _ => return Ok(None),
        };
        let tensor = self.plain(node, 0)?;
        self.applied(node, tensor, activation).map(Some)
    }

    /// An activation of a tensor with nothing left to be done to it.
    pub(super) fn applied(
        &mut self,
        node: &'a Node,
        tensor: Tensor,
        activation: Activation,
    ) -> Result<Tensor, Stop> {
        let kind = activation.to_string();
        let kind = kind.split(':').next().unwrap_or("activation").replace('-', "_");
        let name = self.name(node, &kind);
        let op = Op::Client(ClientOp::Activation(activation));
        let id = self.emit(name, op, vec![tensor.id], Numbers::default)?;
        Ok(self.fresh(id, tensor.dims))
    }

    /// The slope of a PReLU that has one for all channels.
    fn one_slope(&self, node: &Node) -> Result<f64, Stop> {
        let slopes = self.constant(node, 1)?.ok_or("there is no slope")?;
        let slopes = slopes.as_floats("the slope")?;
        match slopes {
            [first, rest @ ..] if rest.iter().all(|slope| slope == first) => Ok(f64::from(*first)),
            _ => {
                let reason = format!("it has {} different slopes", slopes.len());
                Err(because(reason, "train with one slope for all channels"))
            }
        }
    }

    pub(super) fn clip(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let bound = |name: &'static str, at: usize| match constants.get(at).and_then(Option::as_ref) {
            Some(bound) => bound.scalar(name).map(Some),
            None if node.inputs.get(at).is_some_and(|name| !name.is_empty()) => {
                Err(format!("its {name} depends on the model's input"))
            }
            None => Ok(node.float(name).map(f64::from)),
        };
        // Exporters write the largest number of the type for none.
        let is_bound = |bound: &f64| bound.abs() < f64::from(f32::MAX);
        let (min, max) = (bound("min", 1)?.filter(is_bound), bound("max", 2)?.filter(is_bound));
        let tensor = self.tensor(node, 0)?;
        let uniform = tensor.affine.as_ref().and_then(Affine::uniform);
        if (uniform, min, max) == (Some([1.0, 3.0]), Some(0.0), Some(6.0)) {
            // relu6(x + 3) is six times the hard sigmoid.
            let affine = tensor.affine.clone();
            let tensor = self.applied(node, Tensor { affine: None, ..tensor }, Activation::HardSigmoid)?;
            for at in affine.iter().flat_map(|affine| &affine.nodes) {
                self.fates[*at] = super::Fate::PartOf(tensor.id);
            }
            let fate = self.fates[self.at];
            let tensor = self.scaled(tensor, Affine::new(vec![6.0], vec![0.0]));
            self.fates[self.at] = fate;
            return tensor;
        }
        let activation = match (min, max) {
            (Some(0.0), None) => Activation::Relu,
            (Some(0.0), Some(6.0)) => Activation::Relu6,
            (Some(min), Some(max)) if min <= max => Activation::Clip { min, max },
            (None, None) => {
                self.fates[self.at] = super::Fate::View;
                return Ok(tensor);
            }
            _ => {
                let reason = format!("its bounds are {} and {}", shown(min), shown(max));
                return Err(because(reason, "a clip needs both, the first not above the second, or 0 alone"));
            }
        };
        let tensor = self.plain(node, 0)?;
        self.applied(node, tensor, activation)
    }

    pub(super) fn softmax(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.plain(node, 0)?;
        let tensor = self.vector(tensor)?;
        let rank = tensor.dims.len();
        // Before operator set 13 it was over all axes from one on.
        let over = match self.opset {
            ..13 => elements(&tensor.dims[axis(node.int("axis").unwrap_or(1), rank)?..]),
            _ => Some(tensor.dims[axis(node.int("axis").unwrap_or(-1), rank)?]),
        };
        if over != Some(self.elements(&tensor)) {
            let reason = format!("its axis is not that of the classes of {:?}", tensor.dims);
            return Err(because(reason, "a softmax is over all features of a vector"));
        }
        let name = self.name(node, "softmax");
        let id = self.emit(name, Op::Client(ClientOp::Softmax), vec![tensor.id], Numbers::default)?;
        if node.operator == "LogSoftmax" {
            self.notes.push(format!(
                "`{}` gives logarithms of probabilities, the imported model gives the probabilities; the logits before \
                 them are the same",
                node.name
            ));
        }
        Ok(self.fresh(id, tensor.dims))
    }
}

fn shown(bound: Option<f64>) -> String {
    bound.map_or("none".to_owned(), |bound| bound.to_string())
}
