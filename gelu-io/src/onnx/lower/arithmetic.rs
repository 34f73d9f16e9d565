//! Sums and products: with constants, which become part of weights, and of two values, among them those that spell out
//! an activation.

use std::f64::consts::FRAC_1_SQRT_2;

use gelu_layers::{Activation, ClientOp};
use gelu_models::Op;

use super::affine::Affine;
use super::pointwise::CLOSE;
use super::{Fate, Lowering, Node, Numbers, Stop, Tensor, because};
use crate::onnx::fold::Inputs;

/// The step that stands for an error function until the product that makes it a GELU is found.
pub(super) const ERF: &str = "erf";

impl<'a> Lowering<'a> {
    pub(super) fn arithmetic(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let known = |at: usize| constants.get(at).and_then(Option::as_ref);
        match (node.operator.as_str(), known(0), known(1)) {
            ("Neg", ..) => {
                let tensor = self.tensor(node, 0)?;
                self.scaled(tensor, Affine::new(vec![-1.0], vec![0.0]))
            }
            ("Erf", ..) => self.error_function(node),
            ("Pow", _, Some(exponent)) => match exponent.scalar("the exponent")? {
                1.0 => self.same(node, constants),
                2.0 => {
                    let tensor = self.plain(node, 0)?;
                    self.applied(node, tensor, Activation::Square)
                }
                exponent => Err(because(format!("the exponent is {exponent}"), "only squares are known")),
            },
            ("Pow", ..) => Err(because("the exponent is no constant", "only squares are known")),
            (operator, None, Some(constant)) => {
                let tensor = self.tensor(node, 0)?;
                let values = self.per_channel(&tensor, constant)?;
                let negated = || values.iter().map(|x| -x).collect();
                let affine = match operator {
                    "Add" => Affine::new(vec![1.0], values),
                    "Sub" => Affine::new(vec![1.0], negated()),
                    "Mul" => Affine::new(values, vec![0.0]),
                    _ => Affine::new(values.iter().map(|x| 1.0 / x).collect(), vec![0.0]),
                };
                self.by_constant(tensor, affine)
            }
            (operator, Some(constant), None) => {
                let tensor = self.tensor(node, 1)?;
                let values = self.per_channel(&tensor, constant)?;
                let affine = match operator {
                    "Add" => Affine::new(vec![1.0], values),
                    "Sub" => Affine::new(vec![-1.0], values),
                    "Mul" => Affine::new(values, vec![0.0]),
                    _ => {
                        return Err(because("it divides by a value of the network", "only constants divide"));
                    }
                };
                self.by_constant(tensor, affine)
            }
            ("Add", ..) => self.sum(node, false),
            ("Sub", ..) => self.sum(node, true),
            ("Mul", ..) => self.product(node),
            _ => Err(because("it divides by a value of the network", "only constants divide")),
        }
    }

    fn by_constant(&mut self, tensor: Tensor, affine: Affine) -> Result<Tensor, Stop> {
        let all = affine.scale.iter().chain(&affine.shift);
        if let Some(found) = all.into_iter().find(|value| !value.is_finite()) {
            return Err(format!("a factor or shift of {found}").into());
        }
        self.scaled(tensor, affine)
    }

    /// Two values of the same extents as values of the same shape.
    fn alike(&mut self, a: Tensor, b: Tensor) -> Result<[Tensor; 2], Stop> {
        if a.dims != b.dims {
            let reason = format!("its inputs are {:?} and {:?}", a.dims, b.dims);
            return Err(because(reason, "two values of a network must have the same extents"));
        }
        if self.shape_of(a.id) == self.shape_of(b.id) {
            return Ok([a, b]);
        }
        let (a, b) = (self.vector(a)?, self.vector(b)?);
        Ok([self.settled(a)?, self.settled(b)?])
    }

    fn sum(&mut self, node: &'a Node, is_difference: bool) -> Result<Tensor, Stop> {
        let (a, b) = (self.plain(node, 0)?, self.plain(node, 1)?);
        let [a, mut b] = self.alike(a, b)?;
        if is_difference {
            let at = self.at;
            let negative = Affine { nodes: vec![at], ..Affine::new(vec![-1.0], vec![0.0]) };
            let negated = Tensor { affine: Some(negative), ..b };
            b = self.settled(negated)?;
        }
        self.added(node, a, b)
    }

    fn added(&mut self, node: &'a Node, a: Tensor, b: Tensor) -> Result<Tensor, Stop> {
        let name = self.name(node, "add");
        let id = self.emit(name, Op::Add, vec![a.id, b.id], Numbers::default)?;
        Ok(self.fresh(id, a.dims))
    }

    /// A `Sum`: of any number of values, with constants among them.
    pub(super) fn total(&mut self, node: &'a Node, constants: Inputs<'_>) -> Result<Tensor, Stop> {
        let (values, of_constants): (Vec<usize>, Vec<usize>) =
            (0..node.inputs.len()).partition(|&at| constants.get(at).is_none_or(Option::is_none));
        let mut total = match (&values[..], &of_constants[..]) {
            (&[_], []) => return self.same(node, constants),
            (&[only], _) => self.tensor(node, only)?,
            (&[first, ..], _) => self.plain(node, first)?,
            ([], _) => return Err("it has no input that depends on the model's".into()),
        };
        for &at in values.iter().skip(1) {
            let value = self.plain(node, at)?;
            let [a, b] = self.alike(total, value)?;
            total = self.added(node, a, b)?;
        }
        for constant in of_constants.iter().filter_map(|&at| constants.get(at)?.as_ref()) {
            let values = self.per_channel(&total, constant)?;
            total = self.by_constant(total, Affine::new(vec![1.0], values))?;
        }
        Ok(total)
    }

    /// The product of two values: a square, an activation that is spelled out, or a gate.
    fn product(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        if node.inputs.first() == node.inputs.get(1) {
            let tensor = self.plain(node, 0)?;
            return self.applied(node, tensor, Activation::Square);
        }
        let (a, b) = (self.tensor(node, 0)?, self.tensor(node, 1)?);
        for (x, gate) in [(&a, &b), (&b, &a)] {
            if let Some((activation, scale)) = self.spelled_out(x, gate) {
                let plain = Tensor { affine: None, ..x.clone() };
                let made = self.applied(node, plain, activation)?;
                let nodes = [x, gate].into_iter().filter_map(|tensor| tensor.affine.as_ref());
                for at in nodes.flat_map(|affine| &affine.nodes) {
                    self.fates[*at] = Fate::PartOf(made.id);
                }
                // The gate's own node, unless something else reads it.
                for fate in &mut self.fates {
                    if matches!(*fate, Fate::Layer(id) if id == gate.id) && gate.exclusive {
                        *fate = Fate::PartOf(made.id);
                    }
                }
                let fate = self.fates[self.at];
                let made = self.scaled(made, Affine::new(vec![scale], vec![0.0]));
                self.fates[self.at] = fate;
                return made;
            }
        }
        let (a, b) = (self.plain(node, 0)?, self.plain(node, 1)?);
        let is_gate = |gate: &Tensor, image: &Tensor| {
            gate.dims.len() == 4 && gate.dims[..2] == image.dims[..2] && gate.dims[2..] == [1, 1]
        };
        let (a, b) = match a.dims.len() == 4 && a.dims != b.dims && (is_gate(&a, &b) || is_gate(&b, &a)) {
            true => (a, b),
            false => self.alike(a, b)?.into(),
        };
        let dims = if a.dims.iter().product::<usize>() >= b.dims.iter().product() { a.dims } else { b.dims };
        let name = self.name(node, "mul");
        let id = self.emit(name, Op::Client(ClientOp::Mul), vec![a.id, b.id], Numbers::default)?;
        Ok(self.fresh(id, dims))
    }

    /// The activation of `x` that its product with `gate` is, up to a factor.
    fn spelled_out(&self, x: &Tensor, gate: &Tensor) -> Option<(Activation, f64)> {
        let layer = self.layer_of(gate.id).filter(|layer| layer.inputs == [x.id] && x.dims == gate.dims)?;
        let factors = |tensor: &Tensor| match &tensor.affine {
            None => Some([1.0, 0.0]),
            Some(affine) => affine.uniform(),
        };
        let ([of_x, 0.0], [scale, shift]) = (factors(x)?, factors(gate)?) else { return None };
        let activation = match &layer.op {
            Op::Client(ClientOp::Activation(Activation::Sigmoid)) if shift == 0.0 => Activation::Silu,
            Op::Client(ClientOp::Activation(Activation::HardSigmoid)) if shift == 0.0 => {
                Activation::HardSwish
            }
            // x (1 + erf(x / sqrt 2)) is twice the GELU.
            Op::Client(ClientOp::Function { function, .. }) if function == ERF && scale == shift => {
                return Some((Activation::Gelu, 2.0 * of_x * scale));
            }
            _ => return None,
        };
        Some((activation, of_x * scale))
    }

    /// The error function of a value over the square root of two, as a GELU has it.
    fn error_function(&mut self, node: &'a Node) -> Result<Tensor, Stop> {
        let tensor = self.tensor(node, 0)?;
        let uniform = tensor.affine.as_ref().and_then(Affine::uniform);
        if !uniform.is_some_and(|[scale, shift]| (scale - FRAC_1_SQRT_2).abs() < CLOSE && shift == 0.0) {
            return Err(not_a_gelu());
        }
        let output = self.shape_of(tensor.id).clone();
        let op = Op::Client(ClientOp::Function { function: ERF.to_owned(), output });
        let name = self.name(node, ERF);
        let id = self.emit(name, op, vec![tensor.id], Numbers::default)?;
        for at in tensor.affine.iter().flat_map(|affine| &affine.nodes) {
            self.fates[*at] = Fate::Layer(id);
        }
        Ok(self.fresh(id, tensor.dims))
    }
}

/// Why an error function is not imported.
pub(super) fn not_a_gelu() -> Stop {
    because(
        "an error function that is not part of a GELU, x (1 + erf(x / sqrt 2)) / 2",
        "only whole GELUs are known",
    )
}
